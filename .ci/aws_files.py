#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Holds `s3dump.py list` against `aws s3 ls`: `make interop`.

    VENV/bin/python .ci/aws_files.py [WORD...]      (only cases whose name has one of these)

Both programs run with the same files of the AWS CLI in their home directory and the same
environment, and must ask the same server, in the same way, as the same user: what arrives is
compared, not what they print.  Nothing leaves this machine: HTTPS_PROXY is a proxy of ours that
leads to a double of Amazon, whatever host is asked for, so that endpoints of Amazon's own can be
compared as well.  The double's certificates are made by `cryptography`, which moto brings along.

To start the programs takes longer than all that they do then.  So most cases run in forks of a
process that has imported both (s3dump.main() and awscli.clidriver.main() are all that they call),
and every sixteenth runs in the programs themselves as well, where the same must arrive.
"""

import collections
import concurrent.futures
import contextlib
import ctypes
import datetime
import functools
import gc
import hashlib
import ipaddress
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))

import test_s3
from test_s3 import Connection, CredentialServices, Issued, Proxy, S3Server, User, json_reply
from test_s3dump import COMPILED, clean_environment, s3dump

TIMEOUT = 60                        # seconds that a program may take
REAL = 16                           # every so many cases run in the programs themselves as well


# --- The double of Amazon ----------------------------------------------------

class Authority:
    """A certificate authority that everybody trusts who has its *path*; whose certificates are
    good for any host."""

    def __init__(self, folder):
        from cryptography.hazmat.primitives.asymmetric import ec
        self.folder, self.key = folder, ec.generate_private_key(ec.SECP256R1())
        self.contexts, self.lock = {}, threading.Lock()
        self.pem = self.certificate('authority').decode()
        self.path = self.write('ca.pem', self.pem.encode())

    def certificate(self, host):
        """Return the PEM of a certificate for *host*, or of the authority itself."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        try:
            name = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            name = x509.DNSName(host)
        authority, now = host == 'authority', datetime.datetime(2020, 1, 1)
        issuer, subject = (x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])
                           for text in ('authority', host[:64]))
        usage = dict.fromkeys(('digital_signature', 'content_commitment', 'key_encipherment',
                               'data_encipherment', 'key_agreement', 'key_cert_sign', 'crl_sign',
                               'encipher_only', 'decipher_only'), False)
        usage['key_cert_sign' if authority else 'digital_signature'] = True
        public, identifier = self.key.public_key(), x509.SubjectKeyIdentifier
        builder = x509.CertificateBuilder(
            issuer, subject, public, x509.random_serial_number(), now,
            now + datetime.timedelta(36500))
        for extension, critical in (
                (x509.BasicConstraints(authority, None), True), (x509.KeyUsage(**usage), True),
                (x509.SubjectAlternativeName([name]), False),
                (identifier.from_public_key(public), False),
                (x509.AuthorityKeyIdentifier.from_issuer_public_key(public), False)):
            builder = builder.add_extension(extension, critical)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def write(self, name, certificate):
        """Write a certificate, and the key but to the authority's; return the path."""
        from cryptography.hazmat.primitives import serialization as form
        path = os.path.join(self.folder, name)
        with open(path, 'wb') as file:
            file.write(certificate)
            if name != 'ca.pem':
                file.write(self.key.private_bytes(
                    form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()))
        return path

    def context(self, host):
        """Return the SSLContext of a server of that name; asked for another, it has that."""
        def choose(sock, other, _):
            sock.context = self.context(other or host)

        with self.lock:
            if host not in self.contexts:
                self.contexts[host] = context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(self.write(host + '.pem', self.certificate(host)))
                context.sni_callback = choose
            return self.contexts[host]


class Either(Connection):
    """A connection that speaks TLS if the client begins so."""

    def open(self):
        if self.socket.recv(1, socket.MSG_PEEK) == b'\x16':
            self.socket = self.server.context.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False)
            self.socket.do_handshake()
        self.rfile = self.socket.makefile('rb', 64 << 10)

    def say_goodbye(self):
        """Nothing: the client has gone."""

    def read_head(self):
        exchange = Connection.read_head(self)
        if exchange is not None:
            exchange.headers[' url'] = '%s://%s%s' % (
                'https' if isinstance(self.socket, ssl.SSLSocket) else 'http',
                exchange.headers.get('host'), exchange.target.partition('?')[0].rstrip('/'))
        return exchange


def secret_of(access_key):
    return 'secret/of+%s=' % access_key


def claim_of(exchange):
    """Return the Claim of a request; ValueError if it has none."""
    claim = test_s3.read_claim(exchange.target, exchange.header_list)
    if claim is None:
        raise ValueError('not signed')
    return claim


class Storage(S3Server):
    """An S3 server of all regions, where everybody's secret is secret_of() the access key."""

    kind = Either

    def verify(self, exchange):
        with contextlib.suppress(ValueError):
            claim = claim_of(exchange)
            self.region = claim.region
            self.users = {claim.access_key: User(secret_of(claim.access_key),
                                                 exchange.headers.get('x-amz-security-token'))}
        return S3Server.verify(self, exchange)

    def virtual_bucket(self, host):
        return self.bucket if host.startswith(self.bucket + '.') else None


class Services(CredentialServices):
    """The services that hand out credentials, which are named after who asked for them."""

    kind = Either
    PORTAL = '/federation/credentials?'

    def __init__(self):
        CredentialServices.__init__(self)
        self.web_identity_token = 'eyJ.web'

    def resolve(self, exchange):
        CredentialServices.resolve(self, exchange)
        if exchange.target.startswith(self.PORTAL):
            exchange.operation = 'portal'

    def perform(self, exchange):
        if exchange.operation == 'portal':
            return json_reply(200, {'roleCredentials': {
                'accessKeyId': 'PORTAL', 'secretAccessKey': secret_of('PORTAL'),
                'sessionToken': 'token', 'expiration': int(self.now() + 3600) * 1000}})
        if exchange.operation != 'sts':
            self.hand('INSTANCE' if exchange.operation == 'imds' else 'CONTAINER')
        return CredentialServices.perform(self, exchange)

    def hand(self, access_key):
        self.credentials = [Issued(access_key, secret_of(access_key), 'token', 21600)]

    def sts(self, exchange):
        fields = dict(urllib.parse.parse_qsl(exchange.body.data.decode()))
        user = 'WEB'
        with contextlib.suppress(ValueError):
            user = claim_of(exchange).access_key
            self.sts_keys = {user: (secret_of(user),
                                    exchange.headers.get('x-amz-security-token'))}
        self.role_arn = fields.get('RoleArn')
        self.hand('%s-BY-%s' % (self.role_arn.rpartition('/')[2].upper(), user))
        return CredentialServices.sts(self, exchange)


class Internet(Proxy):
    """A proxy to which every host but loopback is the double of Amazon."""

    def __init__(self, amazon):
        Proxy.__init__(self)
        self.amazon = amazon

    def connect(self, name):
        host = name.rpartition(':')[0]
        if host not in ('127.0.0.1', 'localhost'):
            service = self.amazon.services if re.match('sts[.-]|portal[.]sso', host) else (
                self.amazon.storage)
            self.resolve[name] = service.host, service.port
        return Proxy.connect(self, name)


class Amazon:
    """All of the doubles, for one run of a program."""

    def __init__(self, authority, bucket):
        self.bucket = bucket
        self.storage, self.services = Storage(bucket), Services()
        self.storage.context = self.services.context = authority.context('127.0.0.1')
        self.proxy = Internet(self)

    def __enter__(self):
        for server in (self.storage, self.services, self.proxy):
            server.start()
        return self

    def __exit__(self, *_):
        for server in (self.proxy, self.services, self.storage):
            server.close()

    def seen(self):
        """Return what arrived: a line for the first request to S3, and one for each service."""
        lines = [self.of_storage(self.storage.log[0]) if self.storage.log else 'S3 is not asked']
        lines += sorted(set(filter(None, map(self.of_service, self.services.log))))
        lines += sorted(set('%s %s by proxy' % entry for entry in self.proxy.log))
        for server, name in ((self.storage, 'S3'), (self.services, 'SERVICES')):
            lines = [re.sub(':%d(?!\\d)' % server.port, ':' + name, line) for line in lines]
        # Two names of one place: version 1 of the AWS CLI has the older one.
        return [re.sub(r'\b(s3|sts)[.]amazonaws', r'\1.us-east-1.amazonaws', line)
                for line in lines]

    def of_storage(self, request):
        headers = request.headers
        access_key, region = self.scope(headers)
        return 'S3: %s as %s token %s in %s: %s' % (
            headers[' url'], access_key, headers.get('x-amz-security-token', 'none'), region,
            request.status)

    def of_service(self, call):
        if call.service != 'sts':
            return call.service and call.service.replace('imds-token', 'imds')
        fields = dict(urllib.parse.parse_qsl(call.body.decode()))
        if re.match('botocore-session|s3dump|AWS-CLI', fields.get('RoleSessionName', '')):
            del fields['RoleSessionName']           # nobody has chosen it
        return 'STS: %s in %s: %s' % (call.headers[' url'], self.scope(call.headers)[1], ' '.join(
            repr(fields[name]) for name in sorted(fields) if name != 'Version'))

    @staticmethod
    def scope(headers):
        """Return the access key and the region that a request is signed with, None if it isn't."""
        return re.match(r'(?:\S+ Credential=([^/]+)/\d+/([^/]+)/)?',
                        headers.get('authorization', '')).groups()


# --- The programs ------------------------------------------------------------

def as_a_user():
    """Take from all programs to come what root may on Linux: to read what modes of files forbid."""
    if sys.platform == 'linux':
        for capability in (1, 2):       # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)        # PR_CAPBSET_DROP


def run(argv, environ, folder):
    """Run a program, with no terminal to ask at; return its exit status."""
    aws = os.path.join(os.path.dirname(sys.executable), 'aws')
    command = ([aws] if argv[0] == 'aws' else COMPILED) + argv[1:]
    with open(os.path.join(folder, 'said'), 'wb') as said:
        try:
            return subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environ,
                cwd=folder, timeout=TIMEOUT, start_new_session=True).returncode
        except subprocess.TimeoutExpired:
            return 'none in %d s' % TIMEOUT


class Forks:
    """A process that has imported both programs, and runs them in forks."""

    def __init__(self):
        # The AWS CLI computes the places of its caches from HOME when it is imported.
        self.process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), '--forks'], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, universal_newlines=True, env=clean_environment('.'),
            start_new_session=True)

    def run(self, argv, environ, folder):
        self.process.stdin.write(json.dumps([argv, environ, folder]) + '\n')
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    @staticmethod
    def serve():
        programs = {'aws': imported_aws(), 's3dump.py': s3dump.main}
        gc.freeze()                 # what is never collected stays shared
        for line in sys.stdin:
            argv, environ, folder = json.loads(line)
            child = os.fork()
            if not child:
                status = 255
                try:
                    with open(os.path.join(folder, 'said'), 'wb') as said:
                        for descriptor in (1, 2):
                            os.dup2(said.fileno(), descriptor)
                    with open(os.devnull) as null:
                        os.dup2(null.fileno(), 0)
                    signal.alarm(TIMEOUT)
                    os.chdir(folder)
                    # awscli/__init__.py has set the path of its own data
                    environ['AWS_DATA_PATH'] = os.environ['AWS_DATA_PATH']
                    os.environ.clear()
                    os.environ.update(environ)
                    sys.argv = argv
                    status = programs[argv[0]]()
                except BaseException:
                    traceback.print_exc()
                finally:
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(status)
            status = os.waitpid(child, 0)[1]
            print(status, flush=True)


def imported_aws():
    """Import the AWS CLI, with all that it reads from files of its own; return its main()."""
    import awscli.clidriver
    import botocore.loaders
    loader = botocore.loaders.JSONFileLoader
    load = functools.lru_cache(None)(loader().load_file)
    loader.load_file = lambda _, path: load(path)
    session = awscli.clidriver.create_clidriver().session
    for service in ('s3', 'sts'):
        session.create_client(service, 'us-east-1', aws_access_key_id='x',
                              aws_secret_access_key='x')
    return awscli.clidriver.main


# --- A case ------------------------------------------------------------------

# A difference that is meant: patterns of what arrives from each, and why.
Meant = collections.namedtuple('Meant', 'ours aws why')


class Case:
    """Files and an environment for both programs, and how what arrives from them may differ.

    credentials, config: texts of the files in ~/.aws, None: there is none; in them <KEY> is an
    access key and its secret, and %(s3)s, %(services)s, %(home)s, %(proxy)s stand for themselves;
    environ: variables, None: without one that all other cases have; keys, options: lines of
    ~/.s3keys beside the bucket's, and the options of the AWS CLI that say the same; files: more
    files; before: called with the Amazon; meant: None, or a Meant.
    """

    def __init__(self, name, credentials=None, config=None, environ=(), keys='', options=(),
                 files=(), bucket='bucket', before=lambda amazon: None, meant=None):
        self.name, self.bucket, self.before, self.meant = name, bucket, before, meant
        self.files = dict({'.aws/credentials': credentials, '.aws/config': config}, **dict(files))
        self.files['.s3keys'] = 'bucket_name %s\n%s' % (bucket, keys)
        self.environ, self.options = dict(environ), list(options)

    def prepare(self, folder, authority, amazon):
        """Write the files; return the environment and the options of the AWS CLI."""
        names = {'home': folder, 'ca': authority.path, 'pem': authority.pem}
        for name in ('storage', 'services', 'proxy'):
            server = getattr(amazon, name)
            names[name.replace('storage', 's3')] = 'http://127.0.0.1:%d' % server.port
            names[name + '_port'] = server.port

        def filled(text):
            return re.sub('<([A-Z0-9]+)>', lambda match: (
                'aws_access_key_id = %s\naws_secret_access_key = %s' % (
                    match.group(1), secret_of(match.group(1)))), text) % names

        for name, text in self.files.items():
            path = os.path.join(folder, name)
            if text is FOLDER:
                os.makedirs(path)
            elif text is not None:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, 'wb') as file:
                    file.write(filled(text).encode('utf-8', 'surrogateescape'))
                os.chmod(path, 0 if text.startswith(UNREADABLE) else 0o600)
        environ = {name: value for name, value in clean_environment(folder).items()
                   if not re.match('(REQUESTS|CURL)_CA_BUNDLE|SSL_CERT_|BOTO', name)}
        environ.update(
            HTTPS_PROXY=names['proxy'], AWS_CA_BUNDLE=authority.path,
            AWS_EC2_METADATA_SERVICE_ENDPOINT=names['services'], AWS_MAX_ATTEMPTS='1',
            AWS_METADATA_SERVICE_TIMEOUT='5')
        environ.update({name: value and filled(value) for name, value in self.environ.items()})
        return ({name: value for name, value in environ.items() if value is not None},
                [filled(option) for option in self.options])

    def seen(self, authority, name, run):
        """Return what arrives when run(argv, environ, folder) has run the program of this name, as
        lines, and the end of what it said itself."""
        with tempfile.TemporaryDirectory() as folder, Amazon(authority, self.bucket) as amazon:
            environ, options = self.prepare(folder, authority, amazon)
            self.before(amazon)
            status = run(['aws'] + options + ['s3', 'ls', 's3://' + self.bucket] if name == 'aws'
                         else [name, 'list', '-a'], environ, folder)
            with open(os.path.join(folder, 'said'), 'rb') as said:
                words = said.read().decode('utf-8', 'replace').replace(folder, '~').split('\n')
            lines = amazon.seen() + [FAILS if status else WORKS]
            return lines, ' '.join(line for line in words if line.strip())[-200:]

    def judge(self, ours, aws):
        """Return what is not as expected, or ''."""
        if self.meant:
            for name, pattern, seen in (('s3dump.py', self.meant.ours, ours),
                                        ('aws', self.meant.aws, aws)):
                if not re.search(pattern, '; '.join(seen[0])):
                    return 'what is meant is /%s/ of %s: %s' % (
                        pattern, name, apart('aws', aws, 's3dump.py', ours))
        elif ours[0] != aws[0] and WORKS in (ours[0][-1], aws[0][-1]):
            return apart('aws', aws, 's3dump.py', ours)
        return ''


def apart(name, one, other_name, other):
    """Return one line about two runs: what arrived from either and not from the other."""
    return ' | '.join('%s: %s (%s)' % (
        who, '; '.join(line for line in seen[0] if line not in unlike[0]) or 'the same', seen[1])
        for who, seen, unlike in ((name, one, other), (other_name, other, one)))


WORKS, FAILS = 'it works', 'it fails'
FOLDER = object()                   # in place of a file
UNREADABLE = '# unreadable\n'       # the first line of a file that nobody may read


# --- Cases -------------------------------------------------------------------

# Version 2 of the AWS CLI isn't on PyPI; where it is known to do as we do, that is the reason.

KEY = '[default]\n<AKDEFAULT>\n'
TWO = '[default]\n<AKDEFAULT>\n[x]\n<AKX>\n'
X = {'AWS_PROFILE': 'x'}
ENV = {'AWS_ACCESS_KEY_ID': 'AKENV', 'AWS_SECRET_ACCESS_KEY': secret_of('AKENV')}
EU1, EU2 = '[default]\nregion = eu-west-1\n', '[default]\nregion = eu-west-2\n'
NOWHERE = 'http://127.0.0.1:1'
WITH_X = 'profile x\n', ['--profile', 'x']      # as a line of ours, and as an option of theirs
UNSET = 'to us an empty variable is one that is not set'
READABLE = 'what is meant is plain'


def lenient(why=READABLE, ours=WORKS):
    """Return the Meant of a case where the AWS CLI gives up."""
    return Meant(ours, FAILS, why)


def profiles():
    yield Case('default, in credentials', KEY)
    yield Case('default, in config', None, KEY)
    yield Case('[profile default] in config', None, '[profile default]\n<AKDEFAULT>\n')
    yield Case('[default], then [profile default]', None,
               '[default]\n<AKONE>\n[profile default]\n<AKTWO>\n')
    yield Case('[profile default], then [default]', None,
               '[profile default]\n<AKTWO>\n[default]\n<AKONE>\n',
               meant=Meant('AKTWO', 'AKONE', 'the reference guide of the AWS SDKs prefers '
                           '[profile default] wherever it stands'))
    yield Case('[profile default] in credentials', '[profile default]\n<AKDEFAULT>\n')
    yield Case('AWS_PROFILE, in credentials', TWO, None, X)
    yield Case('AWS_PROFILE, in config', KEY, '[profile x]\n<AKX>\n', X)
    yield Case('[x] in config', KEY, '[x]\n<AKX>\n', X)
    yield Case('[profile x] in credentials', KEY + '[profile x]\n<AKX>\n', None, X)
    yield Case('keys in both files', '[x]\n<AKCRED>\n', '[profile x]\n<AKCONF>\n', X)
    yield Case('keys of default in both files', KEY, '[default]\n<AKCONF>\n')
    yield Case('keys in credentials, region in config', TWO, EU2
               + '[profile x]\nregion = eu-west-1\n', X)
    yield Case('region in both files', KEY + 'region = eu-west-1\n', EU2)
    yield Case('AWS_DEFAULT_PROFILE', TWO, None, {'AWS_DEFAULT_PROFILE': 'x'})
    yield Case('AWS_PROFILE and AWS_DEFAULT_PROFILE', TWO + '[y]\n<AKY>\n', None,
               dict(X, AWS_DEFAULT_PROFILE='y'), meant=Meant(
                   'AKX', 'AKY', 'version 2 and the other SDKs prefer AWS_PROFILE'))
    yield Case('an option', TWO, None, {}, *WITH_X)
    yield Case('an option goes before AWS_PROFILE', TWO, None, {'AWS_PROFILE': 'y'}, *WITH_X)
    yield Case('an option goes before keys in the environment', TWO, None, ENV, *WITH_X)
    only_region = '[profile x]\nregion = eu-west-1\n'
    kept = 'who has credentials in the environment and names a profile without any means them'
    yield Case('an option without keys, and keys in the environment', KEY, only_region, ENV,
               *WITH_X, meant=Meant('AKENV', 'INSTANCE', kept))
    yield Case('an option without keys, and web identity', KEY, only_region, WEB, *WITH_X,
               files={'token': 'eyJ.web'}, meant=Meant('WEB-BY-WEB', 'INSTANCE', kept))
    yield Case('an option without keys, and a container', KEY, only_region, CONTAINER, *WITH_X)
    yield Case('AWS_PROFILE without keys, and keys in the environment', KEY, only_region,
               dict(ENV, **X))
    yield Case('keys in the environment go before AWS_PROFILE', TWO, None, dict(ENV, **X))
    yield Case('a missing one', KEY, None, X)
    yield Case('a missing one by option', KEY, None, {}, *WITH_X)
    yield Case('a missing one, and keys in the environment', KEY, None, dict(ENV, **X))
    yield Case('default is asked for', KEY, None, {'AWS_PROFILE': 'default'})
    yield Case('default is asked for, and missing', None, None, {'AWS_PROFILE': 'default'})
    yield Case('AWS_PROFILE is empty', KEY, None, {'AWS_PROFILE': ''}, meant=lenient(UNSET))
    for name, title in (('my own', '"my own"'), ('x', "'x'"), ("o'neill", '"o\'neill"'),
                        ('büro', 'büro'), ('a/b.c-d_e@f', 'a/b.c-d_e@f'), ('a#b', 'a#b')):
        yield Case('[profile %s]' % title, KEY, '[profile %s]\n<AKX>\n' % title,
                   {'AWS_PROFILE': name})
    yield Case('a name with a blank in credentials', KEY + '[my own]\n<AKX>\n', None,
               {'AWS_PROFILE': 'my own'})
    yield Case('a name with a blank without quotes', KEY, '[profile my own]\n<AKX>\n',
               {'AWS_PROFILE': 'my own'}, meant=lenient())
    yield Case('blanks between the words', KEY, '[profile \t x]\n<AKX>\n', X)
    yield Case('blanks inside of the brackets', KEY, '[ profile x ]\n<AKX>\n', X, meant=lenient())
    yield Case('blanks inside of the brackets in credentials', '[default ]\n<AKDEFAULT>\n',
               meant=Meant('AKDEFAULT', 'INSTANCE', READABLE))
    yield Case('quotes in credentials', KEY + '["x"]\n<AKX>\n', None, X)
    yield Case('a name of another case', KEY, '[profile X]\n<AKX>\n', X)
    yield Case('[Default]', '[Default]\n<AKDEFAULT>\n')
    yield Case('[DEFAULT]', '[DEFAULT]\n<AKDEFAULT>\n')
    yield Case('[DEFAULT] and another', '[DEFAULT]\n<AKDEFAULT>\n[x]\nregion = eu-west-1\n', None,
               X)


def keys():
    half = '[default]\naws_access_key_id = AKHALF\n'
    other = '[default]\naws_secret_access_key = other\n'
    empty = '[default]\naws_access_key_id =\naws_secret_access_key =\n'
    mistake = 'half a pair is a mistake; to be somebody else for it would surprise'
    yield Case('none but the instance')
    yield Case('in the environment', None, None, ENV)
    yield Case('in the environment and in the files', KEY, KEY, ENV)
    yield Case('a token in the environment', None, None, dict(ENV, AWS_SESSION_TOKEN='session'))
    yield Case('a security token in the environment', None, None,
               dict(ENV, AWS_SECURITY_TOKEN='security'))
    yield Case('both tokens in the environment', None, None,
               dict(ENV, AWS_SESSION_TOKEN='token', AWS_SECURITY_TOKEN='token'))
    yield Case('only a token in the environment', KEY, None, {'AWS_SESSION_TOKEN': 'session'})
    yield Case('an empty token in the environment', KEY, None, dict(ENV, AWS_SESSION_TOKEN=''))
    yield Case('only an id in the environment', KEY, None, {'AWS_ACCESS_KEY_ID': 'AKENV'})
    yield Case('only a secret in the environment', KEY, None, {'AWS_SECRET_ACCESS_KEY': 'x'},
               meant=Meant(FAILS, 'AKDEFAULT', mistake))
    yield Case('an empty id in the environment', KEY, None, dict(ENV, AWS_ACCESS_KEY_ID=''),
               meant=Meant(FAILS, 'AKDEFAULT', mistake))
    yield Case('an empty secret in the environment', KEY, None,
               dict(ENV, AWS_SECRET_ACCESS_KEY=''))
    yield Case('both empty in the environment', KEY, None, dict.fromkeys(ENV, ''))
    yield Case('only an id in credentials', half)
    yield Case('only an id in config', None, half)
    yield Case('only a secret in credentials', other, meant=Meant(FAILS, 'INSTANCE', mistake))
    yield Case('only a secret in config', None, other, meant=Meant(
        FAILS, 'INSTANCE', mistake))
    yield Case('an id in credentials, the secret in config', half,
               '[default]\naws_secret_access_key = %s\n' % secret_of('AKHALF'))
    yield Case('an id in credentials, both in config', half, KEY)
    yield Case('a secret in credentials, both in config', other, KEY)
    yield Case('both empty in credentials', empty)
    yield Case('both empty in credentials, both in config', empty, KEY)
    yield Case('aws_session_token', KEY + 'aws_session_token = session\n')
    yield Case('aws_security_token', KEY + 'aws_security_token = security\n')
    yield Case('aws_security_token in config', None, KEY + 'aws_security_token = security\n')
    yield Case('both tokens', KEY + 'aws_security_token = token\naws_session_token = token\n')
    yield Case('an empty token', KEY + 'aws_session_token =\n')
    yield Case('a token in config, keys in credentials', KEY,
               '[default]\naws_session_token = session\n')
    yield Case('keys and a token in config, keys in credentials', KEY,
               '[default]\n<AKCONF>\naws_session_token = session\n')
    yield Case('another profile has a token', TWO + 'aws_session_token = session\n')
    old = 'a file of the tools before the AWS CLI, which hardly anybody has'
    yield Case('AWS_CREDENTIAL_FILE', None, None, {'AWS_CREDENTIAL_FILE': '%(home)s/old'},
               files={'old': 'AWSAccessKeyId=AKOLD\nAWSSecretKey=%s\n' % secret_of('AKOLD')},
               meant=Meant('INSTANCE', 'AKOLD', old))
    yield Case('~/.boto', None, None, {}, files={'.boto': '[Credentials]\n<AKOLD>\n'},
               meant=Meant('INSTANCE', 'AKOLD', old))


def regions():
    version_2 = 'version 2 and the other SDKs take AWS_REGION, and prefer it'
    yield Case('AWS_DEFAULT_REGION', KEY, None, {'AWS_DEFAULT_REGION': 'eu-west-1'})
    yield Case('AWS_REGION', KEY, None, {'AWS_REGION': 'eu-west-1'},
               meant=Meant('in eu-west-1', 'in us-east-1', version_2))
    yield Case('AWS_REGION and AWS_DEFAULT_REGION', KEY, None,
               {'AWS_REGION': 'eu-west-1', 'AWS_DEFAULT_REGION': 'eu-west-2'},
               meant=Meant('in eu-west-1', 'in eu-west-2', version_2))
    yield Case('AWS_DEFAULT_REGION goes before the file', KEY, EU2,
               {'AWS_DEFAULT_REGION': 'eu-west-1'})
    yield Case('of the profile', TWO, EU2 + '[profile x]\nregion = eu-west-1\n', X)
    yield Case('of default is not that of the profile', TWO, EU2, X)
    yield Case('an option', KEY, EU2, {'AWS_DEFAULT_REGION': 'eu-west-1'}, 'region eu-west-3\n',
               ['--region', 'eu-west-3'])
    yield Case('an empty AWS_DEFAULT_REGION', KEY, EU2, {'AWS_DEFAULT_REGION': ''},
               meant=lenient(UNSET, 'in eu-west-2'))
    yield Case('empty in the file', KEY, '[default]\nregion =\n', meant=lenient(UNSET))
    yield Case('one that does not exist yet', KEY, '[default]\nregion = eu-north-7\n')
    yield Case('one that is not valid', KEY, '[default]\nregion = eu west\n')
    yield Case('one with a comment behind it', KEY, '[default]\nregion = eu-west-1 # Dublin\n')
    for region in ('aws-global', 'fips-us-gov-west-1', 'us-gov-west-1-fips', 'fips-us-east-2',
                   'us-east-2-fips', 'fips-aws-global', 's3-external-1', 'aws-us-gov-global'):
        yield Case(region, KEY, '[default]\nregion = %s\n' % region)
    yield Case('fips-us-gov-west-1 in AWS_DEFAULT_REGION', KEY, EU1,
               {'AWS_DEFAULT_REGION': 'fips-us-gov-west-1'})
    yield Case('fips-us-gov-west-1 and AWS_USE_FIPS_ENDPOINT=false', KEY, EU1, {
        'AWS_DEFAULT_REGION': 'fips-us-gov-west-1', 'AWS_USE_FIPS_ENDPOINT': 'false'})
    yield Case('fips-us-gov-west-1 and an endpoint', KEY, EU1, {
        'AWS_DEFAULT_REGION': 'fips-us-gov-west-1', 'AWS_ENDPOINT_URL': '%(s3)s'})
    for region in ('cn-north-1', 'cn-northwest-1', 'us-gov-west-1', 'us-gov-east-1',
                   'eusc-de-east-1', 'us-iso-east-1', 'us-isob-east-1', 'eu-isoe-west-1',
                   'us-isof-south-1', 'mx-central-1'):
        yield Case(region, KEY, '[default]\nregion = %s\n' % region)
    both = '[default]\nregion = %s\nuse_dualstack_endpoint = true\nuse_fips_endpoint = true\n'
    for region in ('us-gov-west-1', 'eusc-de-east-1', 'us-iso-east-1', 'us-isob-east-1'):
        yield Case('%s, FIPS and dual stack' % region, KEY, both % region)
    for region in ('cn-north-1', 'eu-isoe-west-1', 'us-isof-south-1'):
        yield Case('%s, which has no FIPS' % region, KEY, both % region, meant=lenient(
            'whether a host exists is for DNS to say: an old table would refuse what is new', ''))


def endpoints():
    at, there = 'endpoint_url = %(s3)s\n', {'AWS_ENDPOINT_URL': '%(s3)s'}
    wrong = 'endpoint_url = %s\n' % NOWHERE
    them = '[default]\nservices = them\n'
    section = '[services them]\ns3 =\n  endpoint_url = %(s3)s\n'
    ignore = {'AWS_IGNORE_CONFIGURED_ENDPOINT_URLS': 'true'}
    yield Case('AWS_ENDPOINT_URL', KEY, None, there)
    yield Case('AWS_ENDPOINT_URL_S3', KEY, None, {'AWS_ENDPOINT_URL_S3': '%(s3)s'})
    yield Case('AWS_ENDPOINT_URL_S3 goes before AWS_ENDPOINT_URL', KEY, None,
               {'AWS_ENDPOINT_URL_S3': '%(s3)s', 'AWS_ENDPOINT_URL': NOWHERE})
    yield Case('of the profile, in credentials', KEY + at)
    yield Case('of the profile, in config', KEY, '[default]\n' + at)
    yield Case('of default is not that of the profile', TWO, '[default]\n' + at, X)
    yield Case('the environment goes before the profile', KEY, '[default]\n' + wrong, there)
    yield Case('a services section', KEY, them + section)
    yield Case('a services section goes before the profile', KEY, them + wrong + section)
    yield Case('AWS_ENDPOINT_URL goes before a services section', KEY,
               them + section.replace('%(s3)s', NOWHERE), there)
    yield Case('a services section of another service', KEY,
               them + '[services them]\nsts =\n  ' + wrong)
    yield Case('a services section of several', KEY, '%s[services them]\nsts =\n  %ss3 =\n  %s'
               'ec2 =\n  %s' % (them, wrong, at, wrong))
    yield Case('a services section that is missing', KEY, them)
    yield Case('a services section in quotes', KEY, them + section.replace('them', '"them"'))
    yield Case('a services section in credentials', KEY + 'services = them\n' + section)
    yield Case('a services section of a profile', TWO, '[profile x]\nservices = them\n' + section,
               X)
    yield Case('an option', KEY + wrong, None, {'AWS_ENDPOINT_URL': NOWHERE},
               'endpoint %(s3)s\n', ['--endpoint-url', '%(s3)s'])
    for name, url in (('a slash behind it', '%(s3)s/'), ('a path', '%(s3)s/proxy'),
                      ('in capitals', 'HTTP://127.0.0.1:%(storage_port)d'),
                      ('without http', '127.0.0.1:%(storage_port)d'),
                      ('localhost', 'http://localhost:%(storage_port)d'),
                      ('https and a port', 'https://s3.example.com:8443'),
                      ('another provider', 'https://s3.nl-ams.scw.cloud'), ('empty', '')):
        yield Case(name, KEY, EU1 + 'endpoint_url = %s\n' % url)
    yield Case('AWS_ENDPOINT_URL is empty', KEY, '[default]\n' + at, {'AWS_ENDPOINT_URL': ''})
    virtual = 'the same place: Amazon wants the bucket in the host, whoever names its endpoint'
    for url in ('s3.eu-west-1.amazonaws.com', 's3.amazonaws.com',
                'bucket.vpce-1a2b3c4d-5e6f.s3.eu-west-1.vpce.amazonaws.com'):
        yield Case(url, KEY, EU1 + 'endpoint_url = https://%s\n' % url, bucket='mine',
                   meant=Meant('//mine[.].* works', '/mine as .* works', virtual))
    yield Case('ignored, in the environment', KEY, None, dict(ignore, AWS_ENDPOINT_URL=NOWHERE))
    yield Case('ignored, in the profile', KEY + wrong, None, ignore)
    yield Case('ignored, in capitals', KEY + wrong, None, dict.fromkeys(ignore, 'TRUE'))
    yield Case('not ignored, as an option', KEY, None, ignore, 'endpoint %(s3)s\n',
               ['--endpoint-url', '%(s3)s'])
    yield Case('ignored, as the profile says', KEY, '[default]\n%s'
               'ignore_configured_endpoint_urls = true\n' % wrong)
    for text, meant in (
            ('use_fips_endpoint = true', None), ('use_fips_endpoint = True', None),
            ('use_fips_endpoint = yes', None), ('use_dualstack_endpoint = true', None),
            ('use_fips_endpoint = true\nuse_dualstack_endpoint = true', None),
            ('use_fips_endpoint = true\n' + at, None),
            ('use_dualstack_endpoint = true\n' + at, None),
            ('s3 =\n  use_dualstack_endpoint = true', None),
            ('s3 =\n  use_accelerate_endpoint = true', Meant(
                's3.us-east-2.amazonaws', 's3-accelerate', 'each byte costs more that way, and the '
                "bucket's own host has the same")),
            ('s3 =\n  us_east_1_regional_endpoint = legacy', None)):
        yield Case(text.replace('\n', ', '), KEY, '[default]\nregion = us-east-2\n%s\n' % text,
                   meant=meant)
    for name in ('AWS_USE_FIPS_ENDPOINT', 'AWS_USE_DUALSTACK_ENDPOINT'):
        yield Case(name, KEY, EU1, {name: 'true'})
    yield Case('AWS_USE_FIPS_ENDPOINT=false goes before the profile', KEY,
               EU1 + 'use_fips_endpoint = true\n', {'AWS_USE_FIPS_ENDPOINT': 'false'})


def addressing():
    local = {'AWS_ENDPOINT_URL': 'http://localhost:%(storage_port)d'}
    for style in ('path', 'virtual', 'auto'):
        text = EU1 + 's3 =\n    addressing_style = %s\n' % style
        yield Case('%s at Amazon' % style, KEY, text)
        yield Case('%s elsewhere' % style, KEY, text, local)
    path = '  addressing_style = path\n'
    yield Case('blanks, a comment and more in the block', KEY, '[default]\ns3 =\n\n    # how\n'
               '    addressing_style=path\n    max_concurrent_requests = 20\n')
    yield Case('tabs', KEY, '[default]\ns3 =\n\taddressing_style\t=\tpath\n')
    yield Case('without a block', KEY, '[default]\n' + path.lstrip())
    yield Case('of the profile', TWO, '[default]\ns3 =\n  addressing_style = virtual\n'
               '[profile x]\ns3 =\n' + path, X)
    yield Case('in credentials', KEY + 's3 =\n' + path)
    yield Case('something behind the block', KEY, '[default]\ns3 =\n%sregion = eu-west-1\n' % path)
    yield Case('in capitals', KEY, '[default]\nS3 =\n' + path.upper().replace('PATH', 'path'),
               meant=Meant('amazonaws.com/bucket', 'bucket.s3', 'case matters nowhere else'))
    for name, text in (('a word that is not known', 's3 =\n  addressing_style = Path\n'),
                       ('in one line', 's3 = addressing_style = path\n'),
                       ('not indented', 's3 =\n' + path.lstrip()),
                       ('a line without =', 's3 =\n  addressing_style\n')):
        yield Case(name, KEY, '[default]\n' + text, meant=lenient(
            'a bucket of Amazon can be reached in both ways', ''))
    yield Case('a bucket with dots', KEY, bucket='my.bucket')
    yield Case('a bucket with dots elsewhere', KEY, None, local, bucket='my.bucket')
    yield Case('a bucket with capitals', KEY, bucket='My_Bucket')


def syntax():
    secret = secret_of('AKDEFAULT')
    pair = 'aws_access_key_id%sAKDEFAULT\naws_secret_access_key%s' + secret + '\n'
    plain = pair % (' = ', ' = ')
    twice = 'the later one counts, as in most files of settings'
    yield Case('a byte order mark', '\ufeff' + KEY, meant=lenient('Windows writes them'))
    yield Case('a byte order mark in config', KEY, '\ufeff' + EU1, meant=lenient(
        'Windows writes them', 'in eu-west-1'))
    yield Case('CRLF', ('[default]\n' + plain).replace('\n', '\r\n'), EU1.replace('\n', '\r\n'))
    yield Case('CR alone', ('[default]\n' + plain).replace('\n', '\r'), EU1.replace('\n', '\r'))
    yield Case('no line end at the end', KEY.rstrip('\n'), EU1.rstrip('\n'))
    yield Case('no blanks', '[default]\n' + pair % ('=', '='))
    yield Case('many blanks', '[default]\n' + pair % ('   =\t', '\t=   '))
    yield Case('blanks behind the values', '[default]\naws_access_key_id = AKDEFAULT  \n'
               'aws_secret_access_key = %s\t\n' % secret, EU1.replace('1', '1  '))
    yield Case('colons', '[default]\n' + pair % (': ', ': '))
    yield Case('names in capitals', '[default]\n' + re.sub('aws_(?=.*=)', 'AWS_', plain))
    yield Case('comments', '# one\n; two\n[default]\n# three\n<AKDEFAULT>\n  # four\n;five = 5\n',
               '# six: für\n' + EU1 + '#region = eu-west-2\n')
    yield Case('a comment behind a section', KEY, EU1.replace(']', '] # mine'))
    yield Case('a comment behind a key', '[default]\naws_access_key_id = AKDEFAULT ; mine\n'
               'aws_secret_access_key = %s # mine\n' % secret)
    yield Case('=, # and ; in a secret', '[default]\n<AK>\n'.replace(
        '<AK>', 'aws_access_key_id = AK#;\naws_secret_access_key = %s' % secret_of('AK#;')))
    yield Case('a percent sign elsewhere', KEY + 'output = %%(x)s %%s %%\n')
    yield Case('quotes around the values', '[default]\naws_access_key_id = "AKDEFAULT"\n'
               'aws_secret_access_key = "%s"\n' % secret)
    yield Case('all indented', '[default]\n  ' + plain.replace('\n', '\n  '))
    yield Case('the section indented', '  [default]\n' + plain)
    yield Case('the second line indented', '[default]\n' + plain.replace('\n', '\n  ', 1))
    yield Case('more and more indented', KEY, '[default]\n  output = json\n'
               '    region = eu-west-1\n')
    yield Case('a section twice', KEY, EU1 + '[profile x]\n' + EU2, meant=lenient(
        twice, 'in eu-west-2'))
    yield Case('a section twice in credentials', KEY + '[x]\n<AKX>\n[default]\n<AKTWO>\n',
               meant=lenient(twice, 'AKTWO'))
    yield Case('a setting twice', KEY, EU1 + 'region = eu-west-2\n', meant=lenient(
        twice, 'in eu-west-2'))
    yield Case('a line without =', KEY, EU1 + 'output\n')
    yield Case('a line without = in credentials', KEY + 'nonsense\n')
    yield Case('a setting before the first section', KEY, 'region = eu-west-2\n' + EU1)
    yield Case('an unclosed section', KEY, EU1 + '[profile x\nregion = eu-west-2\n')
    yield Case('sections of other kinds', KEY, '[preview]\ncloudfront = true\n[sso-session y]\n'
               'sso_region = eu-west-1\n' + EU1)
    yield Case('empty files', '', '')
    yield Case('empty lines', '\n\n', '\n \n')
    yield Case('garbage in credentials', 'garbage\n')
    yield Case('garbage in config', KEY, '{"region": "eu-west-1"}\n')
    yield Case('garbage in credentials, and keys in the environment', 'garbage', None, ENV)
    yield Case('bytes that are not UTF-8 in credentials', '# \udcfc\n' + KEY)
    yield Case('bytes that are not UTF-8 in config', KEY, '# \udcfc\n' + EU1)
    yield Case('zeros in config', KEY, '\0\0\0\0\n' + EU1)
    yield Case('credentials is a folder', FOLDER)
    yield Case('config is a folder', KEY, FOLDER)
    yield Case('both are folders, and keys in the environment', FOLDER, FOLDER, ENV)
    yield Case('credentials that may not be read', UNREADABLE + KEY)
    yield Case('config that may not be read', KEY, UNREADABLE + EU1)
    yield Case('both may not be read, and keys in the environment', UNREADABLE + KEY,
               UNREADABLE + EU1, ENV)
    yield Case('credentials that may not be read, and a profile', UNREADABLE + TWO, None, X)
    yield Case('a very long value', KEY, EU1 + 'x = %s\n' % ('y' * 100000))


def places():
    both = {'there': KEY, 'region': EU1}
    for name, at in (('absolute', '%(home)s/'), ('with ~', '~/'), ('with $HOME', '$HOME/'),
                     ('with ${HOME}', '${HOME}/'), ('relative', '')):
        yield Case('AWS_SHARED_CREDENTIALS_FILE and AWS_CONFIG_FILE ' + name, '[default]\n<AKNO>\n',
                   None, {'AWS_SHARED_CREDENTIALS_FILE': at + 'there',
                          'AWS_CONFIG_FILE': at + 'region'}, files=both)
    yield Case('$VARIABLE that holds a ~', None, None, {
        'AWS_SHARED_CREDENTIALS_FILE': '$WHERE/there', 'WHERE': '~'}, files=both)
    yield Case('$VARIABLE that is not set', None, None, {
        'AWS_SHARED_CREDENTIALS_FILE': '$WHERE/there'}, files=both)
    for name, where in (('missing', '~/missing'), ('/dev/null', '/dev/null')):
        yield Case('AWS_SHARED_CREDENTIALS_FILE is ' + name, KEY, None, {
            'AWS_SHARED_CREDENTIALS_FILE': where})
        yield Case('AWS_CONFIG_FILE is ' + name, KEY, EU1, {'AWS_CONFIG_FILE': where})
    yield Case('AWS_SHARED_CREDENTIALS_FILE is empty', KEY, None, {
        'AWS_SHARED_CREDENTIALS_FILE': ''}, meant=Meant('AKDEFAULT', 'INSTANCE', UNSET))
    yield Case('AWS_CONFIG_FILE is empty', KEY, EU1, {'AWS_CONFIG_FILE': ''},
               meant=Meant('in eu-west-1', 'in us-east-1', UNSET))
    yield Case('both name one file', None, None, dict(X, **dict.fromkeys((
        'AWS_SHARED_CREDENTIALS_FILE', 'AWS_CONFIG_FILE'), '~/one')), files={
            'one': KEY + 'region = eu-west-1\n[x]\n<AKCRED>\n[profile x]\n<AKCONF>\n'})


def processes():
    answer = {'Version': 1, 'AccessKeyId': 'AKPROCESS', 'SecretAccessKey': secret_of('AKPROCESS')}
    files = {'answer': json.dumps(answer), 'an answer': json.dumps(answer),
             'token': json.dumps(dict(answer, SessionToken='token', Unknown=1,
                                      Expiration='2199-01-01T00:00:00Z')),
             'past': json.dumps(dict(answer, Expiration='2001-01-01T00:00:00Z')),
             'version': json.dumps(dict(answer, Version='1')),
             'half': json.dumps({'Version': 1, 'AccessKeyId': 'AKPROCESS'}), 'garbage': 'garbage'}
    line = '[default]\ncredential_process = %s\n'
    for command in ('cat answer', 'cat token', 'cat half', 'cat garbage',
                    'cat %(home)s/answer', 'cat "%(home)s/an answer"', "cat '%(home)s/an answer'",
                    'cat %(home)s/an\\ answer', '"cat" "an answer"', 'cat ~/answer',
                    'cat $HOME/answer', 'sh -c "cat $HOME/answer"', 'cat answer | cat',
                    'sh -c "cat answer; echo warning >&2"', 'sh -c "cat answer; exit 3"',
                    '/nonexistent', '', 'cat "answer'):
        yield Case(command.replace('%(home)s', 'HOME'), None, line % command, files=files)
    yield Case('cat version', None, line % 'cat version', files=files,
               meant=lenient('there has been one Version, and all else is as it should be'))
    yield Case('cat past', None, line % 'cat past', files=files,
               meant=lenient('our clock may be wrong: the server knows what has expired'))
    yield Case('and keys in credentials', KEY, line % 'cat answer', files=files)
    yield Case('and keys in config', None, line % 'cat answer' + '<AKCONF>\n', files=files)
    yield Case('in credentials', line % 'cat answer', files=files)
    yield Case('in credentials, and keys in config', line % 'cat answer', KEY, files=files)
    yield Case('and keys in the environment', None, line % 'cat answer', ENV, files=files)
    yield Case('of a profile', KEY, line.replace('default', 'profile x') % 'cat answer', X,
               files=files)
    yield Case('of another profile', None, line.replace('default', 'profile x') % 'cat answer',
               files=files)


def roles():
    arn = 'role_arn = arn:aws:iam::123456789012:role/%s\n'
    role = '[profile x]\nregion = us-east-1\n' + arn % 'role'
    base, source = '[base]\n<AKBASE>\n', 'source_profile = base\n'
    other = '[profile y]\n' + arn % 'other'
    sso = 'sso_session = me\n'
    yield Case('source_profile', base, role + source, X)
    yield Case('source_profile in config', None, role + source + '[profile base]\n<AKBASE>\n', X)
    yield Case('source_profile = default', KEY, role + 'source_profile = default\n', X)
    yield Case('in default', base, '[default]\n' + arn % 'role' + source)
    yield Case('in credentials', base + role.replace('profile ', '') + source, None, X)
    yield Case('all that can be said', base, role + source + 'external_id = the customer\n'
               'duration_seconds = 3600\nrole_session_name = cron\n', X)
    yield Case('without a region', base, '[profile x]\n' + arn % 'role' + source, X)
    yield Case('the region of the profile', base, role.replace('us-east-1', 'eu-west-1') + source,
               X)
    yield Case('the region of the source', base, '[profile x]\n' + arn % 'role' + source
               + '[profile base]\nregion = eu-west-1\n', X)
    yield Case('a chain', base, role + 'source_profile = y\n' + other + source, X)
    yield Case('a chain that begins with a token', base + 'aws_session_token = token\n',
               role + 'source_profile = y\n' + other + source, X)
    yield Case('a circle', base, role + 'source_profile = y\n' + other + 'source_profile = x\n', X)
    yield Case('its own keys', '[x]\n<AKX>\n', role + 'source_profile = x\n', X)
    yield Case('itself without keys', base, role + 'source_profile = x\n', X)
    yield Case('keys and no source', '[x]\n<AKX>\n', role, X)
    yield Case('keys and a source', base + '[x]\n<AKX>\n', role + source, X)
    yield Case('a source with keys and a role', base + '[y]\n<AKY>\n',
               role + 'source_profile = y\n' + other + source, X)
    yield Case('a source with keys and a role of its own', base + '[y]\n<AKY>\n',
               role + 'source_profile = y\n' + other + 'source_profile = y\n', X)
    yield Case('no source', base, role, X)
    yield Case('a missing source', base, role + 'source_profile = gone\n', X)
    yield Case('an empty source', base + '[y]\n', role + 'source_profile = y\n', X)
    yield Case('both kinds of sources', base, role + source + 'credential_source = Environment\n',
               X, meant=lenient('source_profile says enough'))
    yield Case('a source but no role', base + '[x]\n<AKX>\n', '[profile x]\n' + source, X)
    yield Case('a source but no role, and no keys', base, '[profile x]\n' + source, X,
               meant=Meant(FAILS, 'INSTANCE', 'who names another profile does not want to become '
                           'the instance'))
    yield Case('mfa_serial', base, role + source
               + 'mfa_serial = arn:aws:iam::123456789012:mfa/me\n', X)
    yield Case('keys in the environment go before it', base, role + source, dict(X, **ENV))
    yield Case('an option goes before keys in the environment', base, role + source, ENV, *WITH_X)
    yield Case('Environment', None, role + 'credential_source = Environment\n', ENV, *WITH_X)
    yield Case('Environment, without any', KEY, role + 'credential_source = Environment\n', X)
    yield Case('Ec2InstanceMetadata', KEY, role + 'credential_source = Ec2InstanceMetadata\n', X)
    yield Case('EcsContainer', KEY, role + 'credential_source = EcsContainer\n',
               dict(X, **CONTAINER))
    yield Case('a source that is not known', KEY, role + 'credential_source = nonsense\n', X)
    yield Case('from a process', None, role + 'source_profile = y\n[profile y]\n'
               'credential_process = cat answer\n', X, files={'answer': json.dumps({
                   'Version': 1, 'AccessKeyId': 'AKPROCESS',
                   'SecretAccessKey': secret_of('AKPROCESS')})})
    yield Case('from a web identity', None, role + 'source_profile = y\n' + other
               + 'web_identity_token_file = %(home)s/token\n', X, files={'token': 'eyJ.web'})
    yield Case('from SSO', None, role + 'source_profile = y\n[profile y]\n' + sso, X)
    yield Case('AWS_ENDPOINT_URL_STS', base, role + source,
               dict(X, AWS_ENDPOINT_URL_STS='%(services)s'))
    yield Case('AWS_ENDPOINT_URL_STS with a slash', base, role + source,
               dict(X, AWS_ENDPOINT_URL_STS='%(services)s/'))
    yield Case('AWS_ENDPOINT_URL_STS without a region', base, '[profile x]\n' + arn % 'role'
               + source, dict(X, AWS_ENDPOINT_URL_STS='%(services)s'), meant=lenient(
                   'us-east-1 is good enough for S3, too'))
    yield Case('AWS_ENDPOINT_URL', base, role + source,
               dict(X, AWS_ENDPOINT_URL='%(services)s', AWS_ENDPOINT_URL_S3='%(s3)s'))
    section = 'services = them\n[services them]\nsts =\n  endpoint_url = %s\n'
    yield Case('a services section', base, role + source + section % '%(services)s', X)
    yield Case('a services section of the source', base, role + source + '[profile base]\n'
               + section % NOWHERE, X)
    yield Case('the endpoint of the profile', base, role + source + 'endpoint_url = %(services)s\n',
               dict(X, AWS_ENDPOINT_URL_S3='%(s3)s'))
    yield Case('the endpoint as an option', base, role + source, X, 'endpoint %(s3)s\n',
               ['--endpoint-url', '%(s3)s'])
    yield Case('the region as an option', base, role + source, X, 'region eu-west-2\n',
               ['--region', 'eu-west-2'])
    yield Case('sts_regional_endpoints = legacy', base, role.replace('us-east-1', 'eu-west-1')
               + source + 'sts_regional_endpoints = legacy\n', X, meant=Meant(
                   'sts.eu-west-1', 'sts.us-east-1', 'AWS advises against the old endpoint'))
    fips, dual = 'use_fips_endpoint = true\n', 'use_dualstack_endpoint = true\n'
    for name, region, text in (
            ('FIPS', 'us-east-2', fips), ('FIPS', 'us-gov-west-1', fips),
            ('dual stack', 'us-east-2', dual), ('dual stack', 'cn-north-1', dual),
            ('FIPS and dual stack', 'us-east-2', fips + dual),
            ('FIPS and dual stack', 'us-gov-west-1', fips + dual), ('plain', 'cn-north-1', ''),
            ('plain', 'us-gov-west-1', ''), ('plain', 'fips-us-gov-west-1', ''),
            ('plain', 'us-east-2-fips', ''), ('plain', 'aws-global', ''),
            ('plain', 'eusc-de-east-1', ''), ('plain', 'us-iso-east-1', ''),
            ('plain', 'us-isob-east-1', '')):
        yield Case('%s in %s' % (name, region), base,
                   role.replace('us-east-1', region) + source + text, X)


CONTAINER = {'AWS_CONTAINER_CREDENTIALS_FULL_URI':
             '%(services)s/v2/credentials/1a2b3c4d-0000-4000-8000-1a2b3c4d5e6f'}
WEB = {'AWS_WEB_IDENTITY_TOKEN_FILE': '%(home)s/token',
       'AWS_ROLE_ARN': 'arn:aws:iam::123456789012:role/web'}


def web_identities():
    token = {'token': 'eyJ.web'}
    web = '[default]\nrole_arn = arn:aws:iam::123456789012:role/file\n' \
        'web_identity_token_file = %(home)s/token\n'
    yield Case('by the environment', None, None, WEB, files=token)
    yield Case('a line end behind the token', None, None, WEB, files={'token': 'eyJ.web\n'},
               meant=lenient('editors put it there, and no token has one'))
    yield Case('with a session name', None, None, dict(WEB, AWS_ROLE_SESSION_NAME='pod'),
               files=token)
    yield Case('by the profile', None, web, files=token)
    yield Case('by the profile with all that can be said', None,
               web + 'role_session_name = pod\n', files=token)
    yield Case('by both', None, web, WEB, files=token)
    yield Case('and keys in credentials', KEY, None, WEB, files=token)
    yield Case('and keys in config', None, KEY, WEB, files=token)
    yield Case('and AWS_PROFILE with keys', TWO, None, dict(WEB, **X), files=token)
    yield Case('and a profile as an option', TWO, None, WEB, *WITH_X, files=token)
    yield Case('and keys in the environment', None, None, dict(WEB, **ENV), files=token)
    yield Case('by the profile, and keys in it', None, web + '<AKCONF>\n', files=token)
    yield Case('and a role in the profile', '[base]\n<AKBASE>\n', web.partition('web')[0]
               + 'source_profile = base\n', WEB, files=token)
    yield Case('without a role', None, None, {
        'AWS_WEB_IDENTITY_TOKEN_FILE': '%(home)s/token'}, files=token)
    yield Case('without a token', KEY, None, {'AWS_ROLE_ARN': WEB['AWS_ROLE_ARN']})
    yield Case('its token is missing', None, None, WEB)
    yield Case('its token is refused', None, None, WEB, files={'token': 'other'})
    yield Case('with ~', None, None, dict(WEB, AWS_WEB_IDENTITY_TOKEN_FILE='~/token'), files=token)
    yield Case('in a region', None, EU1, WEB, files=token)
    yield Case('in China', None, '[default]\nregion = cn-north-1\n', WEB, files=token)
    yield Case('AWS_ENDPOINT_URL_STS', None, None, dict(
        WEB, AWS_ENDPOINT_URL_STS='%(services)s'), files=token)


def containers():
    def secret(amazon):
        amazon.services.container_token = 'Basic secret'

    token = {'token': 'Basic secret'}
    with_file = dict(CONTAINER, AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE='%(home)s/token')
    yield Case('plain', None, None, CONTAINER)
    yield Case('a token', None, None, dict(
        CONTAINER, AWS_CONTAINER_AUTHORIZATION_TOKEN='Basic secret'), before=secret)
    yield Case('a token file', None, None, with_file, files=token, before=secret)
    yield Case('a token file that ends in a line end', None, None, with_file,
               files={'token': 'Basic secret\n'}, before=secret, meant=lenient(
                   'editors put it there, and no token has one'))
    yield Case('both tokens', None, None, dict(
        with_file, AWS_CONTAINER_AUTHORIZATION_TOKEN='Basic wrong'), files=token, before=secret)
    yield Case('a token file that is missing', None, None, with_file)
    yield Case('a refusal', None, None, CONTAINER, before=secret)
    yield Case('localhost', None, None, {
        name: value.replace('%(services)s', 'http://localhost:%(services_port)d')
        for name, value in CONTAINER.items()})
    yield Case('elsewhere', None, None, {
        'AWS_CONTAINER_CREDENTIALS_FULL_URI': 'http://10.0.0.1/credentials'})
    yield Case('and keys in credentials', KEY, None, CONTAINER)
    yield Case('and web identity', None, None, dict(CONTAINER, **WEB), files={'token': 'eyJ.web'})
    yield Case('and a profile that is missing', KEY, None, dict(CONTAINER, **X))
    yield Case('and a profile without keys', KEY, '[profile x]\nregion = eu-west-1\n',
               dict(CONTAINER, **X))


def instances():
    def slow(amazon):
        def answer():
            fault.event.wait(TIMEOUT)
            time.sleep(1.5)
            fault.release.set()

        fault = amazon.services.fault('*', 'stall', when='reply')
        threading.Thread(target=answer, daemon=True).start()

    def stumbling(amazon):
        amazon.services.fail('imds-token', status=500, times=2)

    def version_1(amazon):
        amazon.services.imds_token_status = 404

    def none(amazon):
        amazon.services.role = None

    default = {'AWS_METADATA_SERVICE_TIMEOUT': None}
    yield Case('with a region', None, EU1)
    yield Case('and a profile without keys', KEY, '[profile x]\nregion = eu-west-1\n', X)
    yield Case('a slash behind the endpoint', None, None, {
        'AWS_EC2_METADATA_SERVICE_ENDPOINT': '%(services)s/'})
    nowhere = {'AWS_EC2_METADATA_SERVICE_ENDPOINT': None}
    there = 'ec2_metadata_service_endpoint = %(services)s\n'
    elsewhere = 'ec2_metadata_service_endpoint = %s\n' % NOWHERE
    yield Case('the endpoint in the profile', None, '[default]\n' + there, nowhere)
    yield Case('the endpoint in a profile', KEY, '[default]\n%s[profile x]\n%s' % (
        elsewhere, there), dict(nowhere, **X))
    yield Case('the endpoint in credentials', '[default]\n' + there, None, nowhere)
    yield Case('the endpoint in the environment goes before the profile', None,
               '[default]\n' + elsewhere)
    yield Case('the endpoint goes before IPv6', None,
               '[default]\nec2_metadata_service_endpoint_mode = ipv6\n' + there, nowhere)
    yield Case('the endpoint for a role', None, '[profile x]\nrole_arn = arn:aws:iam::123456789012:'
               'role/role\nregion = us-east-1\ncredential_source = Ec2InstanceMetadata\n' + there,
               dict(nowhere, **X))
    yield Case('without a role', before=none)
    yield Case('version 1 only', before=version_1, meant=Meant(
        FAILS, 'INSTANCE', 'every instance has version 2, which no forged request can ask'))
    yield Case('version 1 only, which is not wanted', None, None,
               {'AWS_EC2_METADATA_V1_DISABLED': 'true'}, before=version_1)
    for value in ('true', 'TRUE', 'false', '1', ''):
        yield Case('AWS_EC2_METADATA_DISABLED=' + value, None, None,
                   {'AWS_EC2_METADATA_DISABLED': value})
    yield Case('a slow one', None, None, default, before=slow, meant=lenient(
        'we ask again, where the AWS CLI gives up after a second', ''))
    yield Case('a slow one, AWS_METADATA_SERVICE_TIMEOUT=5', before=slow)
    yield Case('a slow one, metadata_service_timeout = 5', None, '[default]\n'
               'metadata_service_timeout = 5\n', default, before=slow)
    yield Case('one that stumbles, AWS_METADATA_SERVICE_NUM_ATTEMPTS=4', None, None,
               {'AWS_METADATA_SERVICE_NUM_ATTEMPTS': '4'}, before=stumbling)


def signed_in():
    start = 'https://example.awsapps.com/start'
    legacy = 'sso_start_url = %s\nsso_region = eu-west-1\nsso_account_id = 123456789012\n' \
        'sso_role_name = role\n' % start
    session = 'sso_session = me\nsso_account_id = 123456789012\nsso_role_name = role\n'
    section = '[sso-session me]\nsso_start_url = %s\nsso_region = eu-west-1\n' \
        'sso_registration_scopes = sso:account:access\n' % start
    cached = {'.aws/sso/cache/%s.json' % hashlib.sha1(text.encode()).hexdigest(): json.dumps({
        'accessToken': 'token', 'expiresAt': '2199-01-01T00:00:00Z', 'region': 'eu-west-1',
        'startUrl': start}) for text in (start, 'me')}
    export = 'only the AWS CLI can renew such sessions; a message tells how to let it, by ' \
        'credential_process'
    stops = Meant('S3 is not asked; it fails', 'PORTAL', export)
    same = 'keys in the same profile are a way that we have'
    yield Case('SSO, nobody signed in', None, '[default]\n' + legacy)
    yield Case('SSO by a session, nobody signed in', None, '[default]\n' + session + section)
    yield Case('SSO', None, '[default]\n' + legacy, files=cached, meant=stops)
    yield Case('SSO by a session', None, '[profile x]\n' + session + section, X, files=cached,
               meant=stops)
    yield Case('SSO, and keys in credentials', KEY, '[default]\n' + session + section,
               files=cached, meant=Meant('AKDEFAULT|it fails', 'PORTAL', same))
    yield Case('SSO, and keys in config', None, KEY + session + section, files=cached,
               meant=Meant('AKDEFAULT|it fails', 'PORTAL', same))
    yield Case('SSO, and keys in the environment', None, '[default]\n' + session + section, ENV,
               files=cached)
    yield Case('SSO of another profile', KEY, '[profile x]\n' + session + section, files=cached)
    yield Case('a session without a role', None, '[default]\nsso_session = me\n' + section,
               files=cached, meant=Meant(FAILS, 'INSTANCE', 'to be somebody else for half a '
                                         'setting would surprise'))
    yield Case('a role whose source is SSO', None, '[profile x]\nrole_arn = arn:aws:iam::'
               '123456789012:role/role\nsource_profile = y\n[profile y]\n' + session + section, X,
               files=cached, meant=stops)
    login = 'login_session = arn:aws:iam::123456789012:user/me\n'
    yield Case('login_session', None, '[default]\n' + login)
    yield Case('login_session of a profile', KEY, '[profile x]\n' + login, X)
    yield Case('login_session, and a container', None, '[default]\n' + login, CONTAINER)
    yield Case('login_session, and keys in credentials', KEY, '[default]\n' + login)
    yield Case('login_session, and keys in config', None, KEY + login, meant=lenient(same, ''))
    yield Case('login_session, and keys in the environment', None, '[default]\n' + login, ENV)
    yield Case('login_session of another profile', KEY, '[profile x]\n' + login)


def certificates():
    without, bundle = {'AWS_CA_BUNDLE': None}, '[default]\nca_bundle = %s\n'
    away = {'ca.pem': '%(pem)s'}
    yield Case('none that would do', KEY, None, without)
    yield Case('ca_bundle', KEY, bundle % '%(ca)s', without)
    yield Case('ca_bundle in credentials', KEY + 'ca_bundle = %(ca)s\n', None, without)
    yield Case('ca_bundle of another profile', TWO, bundle % '%(ca)s', dict(X, **without))
    yield Case('AWS_CA_BUNDLE goes before ca_bundle', KEY, bundle % '/nonexistent')
    yield Case('AWS_CA_BUNDLE is missing', KEY, None, {'AWS_CA_BUNDLE': '/nonexistent'})
    yield Case('AWS_CA_BUNDLE is empty', KEY, bundle % '%(ca)s', {'AWS_CA_BUNDLE': ''},
               meant=lenient(UNSET))
    for name in ('~/ca.pem', '$HOME/ca.pem', 'ca.pem'):
        yield Case('AWS_CA_BUNDLE=' + name, KEY, None, {'AWS_CA_BUNDLE': name}, files=away)
        yield Case('ca_bundle = ' + name, KEY, bundle % name, without, files=away)
        yield Case('REQUESTS_CA_BUNDLE=' + name, KEY, None, dict(
            without, REQUESTS_CA_BUNDLE=name), files=away)
    yield Case('AWS_CA_BUNDLE goes before REQUESTS_CA_BUNDLE', KEY, None,
               {'REQUESTS_CA_BUNDLE': '/nonexistent'})
    yield Case('ca_bundle goes before REQUESTS_CA_BUNDLE', KEY, bundle % '%(ca)s',
               dict(without, REQUESTS_CA_BUNDLE='/nonexistent'))
    yield Case('CURL_CA_BUNDLE', KEY, None, dict(without, CURL_CA_BUNDLE='%(ca)s'))
    yield Case('SSL_CERT_FILE', KEY, None, dict(without, SSL_CERT_FILE='%(ca)s'), meant=lenient(
        'OpenSSL reads it for all programs that bring no CAs along'))
    yield Case('an option', KEY, bundle % '/nonexistent', {'AWS_CA_BUNDLE': '/nonexistent'},
               'ca_bundle %(ca)s\n', ['--ca-bundle', '%(ca)s'])
    yield Case('for STS', '[base]\n<AKBASE>\n', '[profile x]\nca_bundle = %(ca)s\nrole_arn = '
               'arn:aws:iam::123456789012:role/role\nsource_profile = base\n',
               dict(X, **without))


def proxies():
    host = {'AWS_ENDPOINT_URL': 'https://localhost:%(storage_port)d'}
    plain = {'AWS_ENDPOINT_URL': '%(s3)s', 'HTTP_PROXY': '%(proxy)s'}
    yield Case('https_proxy', KEY, None, dict(HTTPS_PROXY=None, https_proxy='%(proxy)s'))
    yield Case('https_proxy goes before HTTPS_PROXY', KEY, None, {
        'HTTPS_PROXY': NOWHERE, 'https_proxy': '%(proxy)s'})
    yield Case('https_proxy is empty', KEY, None, dict(host, https_proxy=''))
    yield Case('HTTPS_PROXY without http://', KEY, None, {
        'HTTPS_PROXY': '127.0.0.1:%(proxy_port)d'})
    yield Case('HTTPS_PROXY with a slash', KEY, None, {'HTTPS_PROXY': '%(proxy)s/'})
    yield Case('HTTP_PROXY', KEY, None, plain)
    yield Case('ALL_PROXY', KEY, None, dict(host, ALL_PROXY=NOWHERE, HTTPS_PROXY=None))
    for name in ('localhost', '.localhost', '*', 'other, localhost', 'LOCALHOST', 'host',
                 'localhost:%(storage_port)d'):
        yield Case('NO_PROXY=' + name.replace('%(storage_port)d', 'PORT'), KEY, None,
                   dict(host, NO_PROXY=name))
    yield Case('no_proxy', KEY, None, dict(host, no_proxy='localhost'))
    yield Case('NO_PROXY=127.0.0.1', KEY, None, dict(plain, NO_PROXY='127.0.0.1'))
    yield Case('NO_PROXY=10.0.0.0/8', KEY, None, dict(plain, NO_PROXY='10.0.0.0/8'))
    yield Case('NO_PROXY=127.0.0.0/8', KEY, None, dict(plain, NO_PROXY='127.0.0.0/8'), meant=Meant(
        '200; it works', 'by proxy', 'curl and Go read ranges'))

    def login(amazon):
        amazon.proxy.login = 'Basic bWU6cEBzcw=='

    yield Case('HTTPS_PROXY with a login', KEY, None, {
        'HTTPS_PROXY': 'http://me:p%%40ss@127.0.0.1:%(proxy_port)d'}, before=login)
    yield Case('HTTPS_PROXY that wants a login', KEY, before=login)
    yield Case('HTTP_PROXY, and an instance', None, None, plain, meant=lenient(
        'the service is on this machine, and its credentials are no business of a proxy'))


GROUPS = (profiles, keys, regions, endpoints, addressing, syntax, places, processes, roles,
          web_identities, containers, instances, signed_in, certificates, proxies)


# --- All of them -------------------------------------------------------------

class Runner:
    """Runs cases; one for each thread."""

    def __init__(self, authority):
        self.authority, self.forks = authority, Forks()

    def judge(self, number, case):
        """Return what is wrong with a case, or ''."""
        seen = [case.seen(self.authority, name, self.forks.run) for name in ('s3dump.py', 'aws')]
        for name, forked in () if number % REAL else zip(('s3dump.py', 'aws'), seen):
            real = case.seen(self.authority, name, run)
            if real[0] != forked[0]:
                return 'in a fork %s differs from itself: %s' % (
                    name, apart('fork', forked, 'itself', real))
        return case.judge(*seen)


def main(words):
    as_a_user()
    with tempfile.TemporaryDirectory() as folder:
        authority, local = Authority(folder), threading.local()
        runners = []

        def judge(number, case):
            if not hasattr(local, 'runner'):
                local.runner = Runner(authority)
                runners.append(local.runner)
            return local.runner.judge(number, case)

        passed = failed = number = 0
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            for group in GROUPS:
                name = group.__name__.replace('_', ' ')
                cases = [case for case in group() if not words or any(
                    word in '%s: %s' % (name, case.name) for word in words)]
                if not cases:
                    continue
                numbers = range(number, number + len(cases))
                number += len(cases)
                wrong = 0
                for case, complaint in zip(cases, pool.map(judge, numbers, cases)):
                    if complaint:
                        wrong += 1
                        print('FAIL AWS files: %s: %s: %s' % (name, case.name, complaint),
                              flush=True)
                    elif words:
                        why = ': they differ: %s' % case.meant.why if case.meant else ''
                        print('ok   AWS files: %s: %s%s' % (name, case.name, why))
                passed, failed = passed + len(cases) - wrong, failed + wrong
                print('%s AWS files: %s: %d cases, with %d differences that are meant' % (
                    'FAIL' if wrong else 'ok  ', name, len(cases),
                    sum(case.meant is not None for case in cases)), flush=True)
        for runner in runners:
            runner.forks.close()
    print('%d passed, %d failed' % (passed, failed))
    return 1 if failed else 0


if __name__ == '__main__':
    if sys.argv[1:] == ['--forks']:
        Forks.serve()
    else:
        sys.exit(main(sys.argv[1:]))
