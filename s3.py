#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Amazon S3 for streams of unknown length, in one file of the standard library.

    import s3

    config = s3.load_config()                       # ~/.s3keys or /etc/s3_keys
    with s3.Bucket(config) as bucket:
        stored = bucket.upload('some key', sys.stdin.buffer)
        bucket.download([stored.key], sys.stdout.buffer.write)
        for entry in bucket.list_objects(prefix='some'):
            print(entry.key, entry.size)

The methods of Bucket bear the names of S3's operations (put_object, upload_part,
list_objects...), so each can be looked up in the Amazon S3 API Reference; upload() and
download(), which are made of them, are ours.

Configuration, Endpoint and Credentials say where to and as whom; Messages holds the XML.  A byte
on its way out, and the sections that it passes through:

    stream --read_part--> buffer --Request--> Connection --slices--> socket

The main thread reads the stream into buffers of a part each (Parts, Uploads), one more than
there are threads: as many as the Pace finds worth while.  A full buffer goes to a thread
(Workers), which hashes it, signs a Request (Signature Version 4), and sends it by its
Connection, in slices that obey the rate limit (Wire).  When the stream has ended, and only then,
CompleteMultipartUpload makes the object appear, whole.  A stream shorter than a part is one
PutObject; one too long for an object goes on in further objects, its volumes.

A byte on its way back:

    socket --slices--> Reader --> http.client --> buffer --write--> stream

Only answers are read by http.client; connecting and sending are ours.  The threads fetch ranges
into the same kind of buffers by Bucket.get_object(), which resumes at the byte where an answer
broke off (Answers), and digest them.  The main thread writes the ranges out in order, and after
the last byte gives the verdict (Proofs and downloads).

Whatever goes wrong on the way comes to Request._failed(): it learns from a refusal (the
server's clock, the region, that the credentials have expired), and asks Retries whether and
when to try again.  Whatever else the server refuses is an Error at once.  Any failure of an
upload aborts it: nothing appears under the key.  (If the answer to the completion was lost,
Bucket._create() looks first.)  So does a signal: where the main thread waits, `signals`
(NoSignals) may raise.

Python 3.6 or newer.  `python3 s3.py` is the self-test.
"""
import _thread
import collections
import contextlib
import errno
import functools
import hashlib
import hmac
import io
import itertools
import mmap
import os
import re
import select
import stat
import sys
import threading
import time
import zlib

__version__ = '2.0'
__all__ = ['Bucket', 'load_config', 'volume_key', 'Head', 'Key', 'ListEntry', 'NoSignals',
           'RateLimit', 'Stored', 'Tally', 'UploadEntry', 'Error', 'ArchivedError', 'BadAnswer',
           'ConfigError', 'IntegrityError', 'NetworkError', 'ResponseError', 'UnknownOutcome']


@functools.lru_cache(maxsize=1)
def load_network():
    """Import the modules that talk to a server, for an Endpoint: they take longer than all the
    rest, and `--help` or a mistyped option needn't wait for them."""
    global base64, calendar, copy, email, http, no_ssl, socket, ssl, urllib
    mmap.mmap(-1, 8 << 20, mmap.MAP_PRIVATE).close()    # without room Python may abort midway
    try:
        import ssl                  # before http.client, which would go without it, too
    except ImportError as error:    # a Python built without it can still talk http
        ssl, no_ssl = None, printable(str(error), 100)
    import base64
    import calendar
    import copy
    import email.utils
    import http.client
    import socket
    import urllib.parse
    if sys.version_info < (3, 9, 6):    # a thread's end needs libgcc, or aborts: load it in time
        with contextlib.suppress(ImportError, OSError):
            import _ctypes
            _ctypes.dlopen('libgcc_s.so.1', os.RTLD_NOW)


# ---------------------------------------------------------------------------- Limits
# What S3 allows (Amazon S3 User Guide, "Multipart upload limits"):

MIN_PART_SIZE = 5 << 20             # of all parts of an upload but the last
MAX_PART_SIZE = 5 << 30
MAX_PARTS = 10000
MAX_EXPIRES = 7 * 86400             # seconds that a presigned URL may hold; our outages no longer

# What we choose:

PART_SIZE = 16 << 20                # 10,000 of them are 156 GiB, five in memory 80 MiB
JOBS = 4                            # parts in flight at first
MOST_JOBS = 16                      # and at most, if more make the transfer faster
BLOCK = 256 << 10                   # bytes moved by one system call
CONNECT_TIMEOUT = 10                # seconds
NEXT_ADDRESS = 0.25                 # seconds until the next address of a name is tried, too
CLOCK_TIMEOUT = 3                   # to be told the time, before a dump begins
BEGIN_TIMEOUT = 10                  # seconds after which a new thread has died unseen
TIMEOUT = 60                        # seconds without a single byte
COMPLETE_TIMEOUT = 900              # S3 may take minutes to put 10,000 parts together
PATIENCE = 900                      # seconds without progress before a request fails
FIRST_PATIENCE = 60                 # the same before the server answered, in our first 15 min
GRACE = 1                           # for the answer to a request that was sent completely
TIDY_TIME = 3                       # tidying up must not hold up the bad news
LOOK_PATIENCE = 10                  # of requests that ask whether an object is there
IDLE_TIME = 4                       # seconds after which a connection isn't trusted
MAX_MESSAGE = 4 << 20               # bytes of an XML answer; 1,000 keys take 3.4 MB at most
MAX_ERROR = 64 << 10                # bytes of an error document
ROOM = 64 << 20                     # bytes that threads, and what they allocate, may need
SOCKET_BUFFER = 4 << 20             # bytes that a kernel may take though nothing moves
MAX_SKEW = 300                      # seconds that a clock may be off without correction
BIRTH_OF_S3 = 1142294400            # 2006-03-14; no honest clock says less


# ---------------------------------------------------------------------------- Errors
# Divided by what the reader of the message should do next.

class Error(Exception):
    """Base of all: str() is one line that says what failed."""
    status, code = 0, ''            # a ResponseError has others


class ConfigError(Error):
    """The configuration or an argument is wrong: mend it."""


class NetworkError(Error):
    """The server can't be reached, or breaks off: look at the network."""


class BadAnswer(Error):
    """The server says something that S3 never says (five times, for it may be an accident)."""


class IntegrityError(Error):
    """The data are not those that were stored: don't trust them."""


class ArchivedError(Error):
    """The object is in an archive class and must be restored before it can be read."""


class UnknownOutcome(Error):
    """The answer to a request that creates an object was lost, and so is whether it worked."""


class ResponseError(Error):
    """The server refuses.

    status: of HTTP; code, message, request_id: from S3's error document, or ''; region,
    location: where the server sends us, or ''; retry_after: seconds that it asks us to wait;
    date: its clock, in seconds since the epoch, or None; from_s3: whether there was an error
    document; bare_403: whether there was no reason at all, as in the answer to a HEAD.  Source:
    Amazon S3 API Reference, "Error responses".
    """

    def __init__(self, label, status, code, message, request_id='', region='', location='',
                 retry_after=0, date=None, from_s3=True):
        self.label, self.status, self.code, self.message = label, status, code, message
        self.request_id, self.region, self.location = request_id, region, location
        self.retry_after, self.date, self.from_s3 = retry_after, date, from_s3
        operation = label.partition(' ')[0]
        self.hint = (HINTS.get(code) or HINTS.get(status, '')).replace(
            'ACTION', ACTIONS.get(operation, 's3:' + operation))
        self.bare_403 = status == 403 and not message and code == 'Forbidden'

    def __str__(self):
        text = '%s: %s (%d)' % (self.label, self.code, self.status)
        if self.message:
            text += ': ' + self.message.rstrip('.')
        if self.request_id:
            text += ' [request %s]' % self.request_id
        return printable(text + ('; ' + self.hint if self.hint else ''))


TOO_LARGE = 'the server, or a proxy before it, takes no request of this size: set `part_size 5m`'
NOT_BY_PATH = 'set `addressing virtual`: this server wants the bucket in the name of the host'
UNSIGNED = 'if payloads have to be signed, set `checksum none`'
HINTS = {
    'AccessDenied': 'ACTION is not allowed: look at the policies of these credentials and of the '
                    'bucket; is the bucket yours?',
    'EntityTooLarge': TOO_LARGE, 413: TOO_LARGE,
    'EntityTooSmall': 'this server wants larger parts: `s3.py` tells the part_size to set',
    'ExpiredToken': 'get newer credentials: access_key_id, secret_access_key and session_token',
    'Forbidden': 'may these credentials do ACTION? are access_key_id, secret_access_key and the '
                 'clock right?',
    'InvalidAccessKeyId': 'check access_key_id, session_token (if temporary), and the endpoint',
    'InvalidToken': 'check session_token: it is not that of access_key_id',
    'NoSuchBucket': 'check bucket_name and endpoint, or create it with `s3dump.py init`',
    'PathStyleDomainForbidden': NOT_BY_PATH,        # Tencent's
    'PreconditionFailed': 'an object of that name exists, and nothing was changed',
    'SecondLevelDomainForbidden': NOT_BY_PATH,      # Aliyun's
    'SignatureDoesNotMatch': 'check secret_access_key; or a proxy has changed the request',
}

# What a policy must allow where that isn't named as the operation is.  Source: Amazon S3 User
# Guide, "Required permissions for Amazon S3 API operations".
ACTIONS = {'CompleteMultipartUpload': 's3:PutObject', 'CreateMultipartUpload': 's3:PutObject',
           'GetBucketLifecycleConfiguration': 's3:GetLifecycleConfiguration',
           'GetObjectLockConfiguration': 's3:GetBucketObjectLockConfiguration',
           'HeadBucket': 's3:ListBucket', 'HeadObject': 's3:GetObject',
           'HeadObjectVersion': 's3:GetObjectVersion', 'ListObjectsV2': 's3:ListBucket',
           'ListMultipartUploads': 's3:ListBucketMultipartUploads',
           'ListObjectVersions': 's3:ListBucketVersions', 'UploadPart': 's3:PutObject',
           'ListParts': 's3:ListMultipartUploadParts', 'RestoreObjectVersion': 's3:RestoreObject'}


def printable(text, limit=1000):
    """Return *text* (str) with control characters escaped, cut at limit."""
    text = text[:limit] + '...' * (len(text) > limit)
    if text.isprintable():
        return text
    return ''.join(c if c.isprintable() else c.encode('unicode_escape').decode() for c in text)


def quoted(text, limit=1000):
    """Return *text* (str or bytes) as a Python literal, for messages."""
    return printable(repr(text), limit)


def write_error(text):
    """Write *text* to standard error, as UTF-8; returns whether that worked."""
    # Not by sys.stderr, which would keep what it can't write, and make the exit status 120
    data = text.encode('utf-8', 'backslashreplace')
    with contextlib.suppress(OSError):
        while data and sys.stderr:  # None where it is closed, and 2 may be somebody else's
            data = data[os.write(2, data):]
    return not data


# --------------------------------------------------------------------- Configuration
# Lines of `name value`.  Messages about them name the file and the line.

def parser(fits, what, convert=str, least=None, most=None, secret=False):
    """Return a function that converts a text into a value from *least* to *most*, or raises
    ValueError, whose message leaves out a *secret*.

    fits: a regular expression for all of the text, or a function; what: names a valid text.
    """
    def parse(text):
        if fits(text) if callable(fits) else re.fullmatch(fits, text):
            value = convert(text)
            if (least is None or value >= least) and (most is None or value <= most):
                return value
        raise ValueError('the value is not %s' % what if secret else '%r is not %s' % (text, what))
    return parse


def one_of(*words):
    return parser(words.__contains__, 'one of ' + ', '.join(words))


def count_of(most):
    return parser('[0-9]{1,9}', 'a number from 1 to %d' % most, int, 1, most)


def bytes_of(size):
    """Return the number of bytes that a SIZE means; units are powers of 1024."""
    number = size.rstrip('kmgtKMGT')
    return int(float(number) * 1024 ** ' kmgt'.index(size[len(number):].lower() or ' '))


def seconds_of(text):
    return int(text[:-1]) * {'s': 1, 'm': 60, 'h': 3600, 'd': 86400}[text[-1]]


def parse_tags(text):
    """Return tags, K=V&K=V, as S3 wants them in a header; raises ValueError."""
    tags = dict(tag.partition('=')[::2] for tag in text.split('&'))
    legal = r'(?!(?i:aws:))[\w +.:@/-]{1,128}=[\w +.:@/=-]{0,256}'
    if len(tags) > 10 or not re.fullmatch('(&%s){%d}' % (legal, len(tags)), '&' + text):
        raise ValueError('%r is not up to ten tags, NAME=VALUE&NAME=VALUE' % text)
    return canonical_query(tags)


def home_path(path):
    try:
        return os.path.expanduser(path)
    except KeyError:                # 3.6, a user without HOME and without an entry in passwd
        return path


SIZE = r'([0-9]{1,15}(\.[0-9]{0,9})?|\.[0-9]{1,9})[kmgtKMGT]?'
TIME = '[0-9]{1,9}[smhd]'
parse_size = parser(SIZE, 'a size (a number, then k, m, g or t if you like)', bytes_of)
parse_rate = parser(SIZE, 'a rate like 300k or 1.5m, in bytes per second', bytes_of, 1)
parse_week = parser(TIME, 'a time from 1s to 7d', seconds_of, 1, MAX_EXPIRES)
parse_word = parser('[!-~]+', 'printable ASCII without blanks', secret=True)
parse_secret = parser(str.isprintable, 'text that can be typed', secret=True)

SETTINGS = {
    'service': parse_word, 'region': parse_word, 'bucket_name': parse_word,
    'host': parser('[^:/\0-\x1f\x7f-\x9f]+', 'a label without colons and slashes'),
    'access_key_id': parse_word, 'secret_access_key': parse_secret, 'session_token': parse_word,
    'profile': parse_secret, 'endpoint': parse_word, 'server': parse_word,
    'addressing': one_of('auto', 'path', 'virtual'), 'ca_bundle': home_path,
    'storage_class': parse_word, 'limit_rate': parse_rate, 'patience': parse_week,
    'jobs': parser('auto|0*([1-9]|[1-5][0-9]|6[0-4])', 'a number from 1 to 64, or auto',
                   lambda text: text if text == 'auto' else int(text)),
    'max_parts': count_of(MAX_PARTS),
    'part_size': parser(SIZE, 'a part size: 5m to 5g', bytes_of, MIN_PART_SIZE, MAX_PART_SIZE),
    'checksum': one_of('auto', 'crc32', 'none'), 'etag': one_of('auto', 'md5', 'opaque'),
    'sse': one_of('AES256', 'aws:kms', 'aws:kms:dsse'), 'sse_kms_key_id': parse_word,
    'acl': one_of('private', 'public-read', 'public-read-write', 'authenticated-read',
                  'aws-exec-read', 'bucket-owner-read', 'bucket-owner-full-control'),
    'tagging': parse_tags, 'bucket_owner': parser('[0-9]{12}', 'an account of 12 digits'),
    'request_payer': one_of('requester'),
}

# The settings that are headers: of every request to a bucket that exists, a presigned one too, and
# of those that create an object.
REQUEST_HEADERS = {'bucket_owner': 'x-amz-expected-bucket-owner',
                   'request_payer': 'x-amz-request-payer'}
OBJECT_HEADERS = {'storage_class': 'x-amz-storage-class', 'acl': 'x-amz-acl',
                  'tagging': 'x-amz-tagging', 'sse': 'x-amz-server-side-encryption',
                  'sse_kms_key_id': 'x-amz-server-side-encryption-aws-kms-key-id'}


def configured_headers(names, config):
    """Return the headers that *config* asks for; names: REQUEST_HEADERS or OBJECT_HEADERS."""
    return {header: config[name] for name, header in names.items() if config.get(name)}


def read_text(path):
    """Return the text of a small file; raises ConfigError."""
    try:
        with open(path, 'rb') as file:
            return file.read(1 << 20).decode('utf-8-sig')
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, 'strerror', None) or 'it is not UTF-8 text'
        raise ConfigError('cannot read %s: %s' % (printable(path) or "''", reason)) from error


def read_config(path):
    """Return the settings in the file *path*, as a dict; raises ConfigError."""
    config = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words = line.strip().split(None, 1)
        if not words or words[0].startswith('#'):
            continue
        where = '%s:%d: ' % (path, number)
        if re.match(r'\[.*\]\Z', line.strip()):
            raise ConfigError(printable(where + 'this looks like a file of the AWS CLI: `profile '
                                        'NAME` chooses from that, and lines are `name value`'))
        if words[0] not in SETTINGS:
            import difflib
            text = ' %s%s' % (words[0], ''.join('; did you mean %s?' % name for name in
                                                difflib.get_close_matches(words[0], SETTINGS, 1)))
            if not re.fullmatch('[A-Za-z0-9_-]{1,25}', words[0]):       # it may hold a secret
                text = '; write name, blank, value'
            raise ConfigError(printable(where + 'unknown setting' + text))
        try:
            if len(words) < 2 or words[0] in config:
                raise ValueError('it has no value' if len(words) < 2 else 'it is set twice')
            config[words[0]] = SETTINGS[words[0]](words[1])
        except ValueError as error:
            raise ConfigError(printable('%s%s: %s' % (where, words[0], error)))
    return config


def load_config(path=None, environ=None, warn=lambda text: None):
    """Return the settings in *path*, or in the first configuration file that exists.

    Among them is the `path`, since a file that has changed is read again.  environ: os.environ if
    None; warn: called with a line if others may read the secret.  Raises ConfigError.
    """
    load_network()
    environ = os.environ if environ is None else environ
    if path is None:                # not if it is empty: somebody's variable is not set
        path = environ.get('S3DUMP_CONFIG') or next(filter(
            os.path.lexists, (home_path('~/.s3keys'), '/etc/s3_keys')), None)
    if path is None:
        return {}
    config = dict(read_config(path), path=os.path.abspath(path))
    if 'secret_access_key' in config and os.stat(path).st_mode & (stat.S_IRGRP | stat.S_IROTH):
        warn('%s holds a secret and can be read by others: chmod 600 %s'
             % (printable(path), printable(path)))
    return config


# What the AWS CLI and SDKs know without being told: the environment, and the profile in the
# files of the AWS CLI.  Source: AWS SDKs and Tools Reference Guide, "Shared config and
# credentials files", "Service-specific endpoints".

def read_ini(path, wanted):
    """Return the sections of a file of the AWS CLI, {section: {name: value}}; {} without a file.

    A setting in a block is called s3.addressing_style.  wanted: whether a profile was asked for;
    if not, a file that we may not read counts as missing, as does a directory (of `docker -v`).
    """
    if os.path.isdir(path) or not os.path.lexists(path) or (
            not wanted and not os.access(path, os.R_OK)):
        return {}
    import configparser             # here, since many machines have no such file
    import shlex
    ini = configparser.RawConfigParser(strict=False)
    try:
        ini.read_file(io.StringIO(read_text(path), newline=None))
    except configparser.Error as error:
        raise ConfigError('cannot read %s: it is not a file of the AWS CLI, see line %s' % (
            printable(path), getattr(error, 'lineno', 0) or error.errors[0][0])) from None
    sections = {}
    for heading in ini.sections():
        title = heading.strip()
        with contextlib.suppress(ValueError):   # of an apostrophe that stands alone
            if re.match(r'(profile|services)\s', title):
                title = ' '.join(shlex.split(title))
        section = sections.setdefault(title, {})
        for name, value in ini.items(heading):
            section[name] = value
            for line in value.splitlines() if value.startswith('\n') else ():
                inner, _, inner_value = line.partition('=')
                section['%s.%s' % (name, inner.strip().lower())] = inner_value.strip()
        if 'aws_security_token' in section:     # its old name, which goes first, as in the AWS CLI
            section['aws_session_token'] = section['aws_security_token']
    return sections


def aws_files(environ):
    return [home_path(os.path.expandvars(environ.get(variable) or '~/.aws/' + name))
            for variable, name in (('AWS_SHARED_CREDENTIALS_FILE', 'credentials'),
                                   ('AWS_CONFIG_FILE', 'config'))]


def profile_name(config, environ):
    """Return the name of the profile that somebody asked for, or ''."""
    return (config.get('profile') or environ.get('AWS_PROFILE')
            or environ.get('AWS_DEFAULT_PROFILE') or '')


PROFILE_KEY = ('aws_access_key_id', 'aws_secret_access_key', 'aws_session_token')


def read_profile(name, environ):
    """Return the settings of a profile (default, if name is ''), and of its `services`, or None;
    those in the credentials file take precedence.  Raises ConfigError."""
    credentials, config = (read_ini(path, name) for path in aws_files(environ))
    title = name or 'default'
    own = credentials.get(title)
    found = [settings for settings in (
        config.get(title) if title == 'default' else None, config.get('profile ' + title), own)
             if settings is not None]
    if not found:
        return None
    # An id and a secret from two files are nobody's; a process goes before those in config
    keyed = next((settings for settings in reversed(found) if PROFILE_KEY[0] in settings), None)
    if keyed is not own and any('credential_process' in settings for settings in found):
        keyed = {}
    profile = {name: value for settings in found for name, value in settings.items()
               if name not in PROFILE_KEY or keyed in (None, settings)}
    if 'services' in profile:
        services = config.get('services ' + profile['services'])
        if services is None:
            raise ConfigError(printable('profile %s: there is no section [services %s]' % (
                title, profile['services'])))
        profile = dict(services, **profile)
    return profile


# Where a setting is that our file leaves open: variables, and settings of the profile.
OTHERWISE = dict({name: 'AWS_%s %s' % (name.upper(), name) for name in (
    'use_fips_endpoint', 'use_dualstack_endpoint', 'ignore_configured_endpoint_urls',
    'metadata_service_timeout', 'metadata_service_num_attempts',
    'ec2_metadata_service_endpoint', 'ec2_metadata_service_endpoint_mode')}, **{
        'bucket_name': 'S3DUMP_BUCKET',
        'region': 'AWS_REGION AWS_DEFAULT_REGION region',
        'endpoint': 'AWS_ENDPOINT_URL_S3 AWS_ENDPOINT_URL s3.endpoint_url endpoint_url',
        'sts_endpoint': 'AWS_ENDPOINT_URL_STS AWS_ENDPOINT_URL sts.endpoint_url endpoint_url',
        'addressing': 's3.addressing_style',
        's3.use_dualstack_endpoint': 's3.use_dualstack_endpoint',
        'ca_bundle': 'AWS_CA_BUNDLE ca_bundle REQUESTS_CA_BUNDLE'})


def with_environment(config, environ):
    """Return *config* with what the environment adds, then the AWS profile; raises ConfigError."""
    if 'server' in config:
        config = dict({'endpoint': 'https://' + config['server']}, **config)
    try:
        profile = read_profile(profile_name(config, environ), environ) or {}
    except ConfigError:
        if not config.get('endpoint') or not config.get('region'):
            raise                   # the stream might go to another place
        profile = {}                # if the credentials are to come from it, Provider complains
    found = {'sse': config.get('sse_kms_key_id') and 'aws:kms'}
    for name, places in OTHERWISE.items():
        values = ((environ if place.isupper() else profile).get(place) for place in places.split())
        value = next(filter(None, values), '')
        found[name] = value.lower() == 'true' if re.search('use_|ignore_', name) else value
    found['ca_bundle'] = home_path(found['ca_bundle'])
    if found.pop('ignore_configured_endpoint_urls'):
        del found['endpoint'], found['sts_endpoint']
    config = dict({name: value for name, value in found.items() if value}, **config)
    named = config.get('region') or 'aws-global'
    region = re.sub('fips-|-fips', '', named)           # as older names of such endpoints have it
    if region != named:
        config['use_fips_endpoint'] = True
    return dict(config, region='us-east-1' if region == 'aws-global' else region)


# -------------------------------------------------------------------------- Endpoint
# Only this section tells path style from virtual-hosted style.

# The partitions of Amazon's cloud, which share nothing: how the names of their regions begin, the
# suffix of their hosts, and that of dual-stack hosts, but for S3's.  Source: botocore,
# partitions.json and the endpoint rules of S3 and STS.
PARTITIONS = (
    ('cn-', 'amazonaws.com.cn', 'api.amazonwebservices.com.cn'),
    ('eusc-', 'amazonaws.eu', 'api.amazonwebservices.eu'),
    ('us-gov-', 'amazonaws.com', 'api.aws'),
    ('us-iso-', 'c2s.ic.gov', 'api.aws.ic.gov'),
    ('us-isob-', 'sc2s.sgov.gov', 'api.aws.scloud'),
    ('us-isof-', 'csp.hci.ic.gov', 'api.aws.hci.ic.gov'),
    ('eu-isoe-', 'cloud.adc-e.uk', 'api.cloud-aws.adc-e.uk'),
    ('', 'amazonaws.com', 'api.aws'),
)


def partition(name):
    """Return the partition in which a region is, or a host of Amazon's, which names its region."""
    return next(row for row in PARTITIONS if re.search('[.-]' + row[0], '.' + name))


def aws_url(service, region, config):
    """Return the URL of Amazon's s3 or sts, of the kind that config asks for."""
    prefix, suffix, dual_suffix = partition(region)
    fips, dual = (bool(config.get('use_%s_endpoint' % kind)) for kind in ('fips', 'dualstack'))
    if service == 's3':
        kinds = '-fips' * fips + '.dualstack' * (dual or 's3.use_dualstack_endpoint' in config)
    else:
        kinds = '-fips' * (fips and (dual or prefix != 'us-gov-'))      # all of its STS is FIPS
        suffix = dual_suffix if dual else suffix
    return 'https://%s%s.%s.%s' % (service, kinds, region, suffix)


# Servers whose buckets have hosts of their own, BUCKET.REGION.HOST or BUCKET.s3.REGION.HOST, and
# how they differ from S3, which no request tells.  Sources: the providers' pages.
SERVERS = (
    (('.r2.cloudflarestorage.com', '//storage.googleapis.com', '.backblazeb2.com'),
     {'etag': 'opaque'}),
    (('.scw.cloud',), {'max_parts': 1000}),
    (('.storjshare.io',), {'part_size': 64 << 20}),
    (('.digitaloceanspaces.com', '.linodeobjects.com', '.vultrobjects.com', '.contabostorage.com',
      '.your-objectstorage.com', '.exo.io', '.upcloudobjects.com', '.aliyuncs.com',
      '.myqcloud.com', '.myhuaweicloud.com', '//localhost'), {}),
)


def known_server(host):
    """Return the settings in which a server differs, or None of one that isn't known."""
    return next((settings for suffixes, settings in SERVERS
                 if ('//' + host).endswith(suffixes)), None)


REGION = '[A-Za-z0-9][A-Za-z0-9-]{0,62}'        # can be part of a host name and of a signature


class Endpoint:
    """Where a bucket lives, and what its server taught us; raises ConfigError.  Source: Amazon S3
    User Guide, "Virtual hosting of general purpose buckets"."""

    def __init__(self, config):
        load_network()
        self.bucket = config.get('bucket_name') or ''
        if not self.bucket:
            raise ConfigError('no bucket: write `bucket_name NAME` into %s (-f: another file), or '
                              'set S3DUMP_BUCKET' % printable(config.get('path', '~/.s3keys')))
        if not re.match(r'[!-.0-~]+\Z', self.bucket):
            raise ConfigError('%s is not a valid bucket name' % quoted(self.bucket, 100))
        self.answered = False       # whether the server ever answered
        self.wants_md5 = False      # whether it wants Content-MD5 with what is written
        self.lock = threading.Lock()            # held while we learn from its refusals
        self.service = config.get('service', 's3')
        self.region = config['region']
        if not re.fullmatch(REGION, self.region):
            raise ConfigError('%s is not a valid region' % quoted(self.region))
        self._config = config
        self._locate(config.get('endpoint') or aws_url('s3', self.region, config))
        # A URL may include the bucket, as the pages of some providers show it.  Without `addressing
        # virtual` the rest of the host has to look like one of S3, since a bucket may have its
        # server's name: backup at https://backup.example.com
        style, rest = config.get('addressing', 'auto'), self._without_bucket(self.domain)
        if self.path.endswith('/' + self.bucket):
            self.path = self.path[:-len(self.bucket) - 1]
        if rest not in ('', self.domain) and (style == 'virtual' or style != 'path' and (
                re.match(r's3\b', rest) or known_server(rest) is not None)):
            self.domain, style = rest, 'virtual'
        label = re.match(r'[a-z0-9][a-z0-9-]{1,61}[a-z0-9]\Z', self.bucket)
        self.virtual = style == 'virtual' or style == 'auto' and self.aws and bool(label)
        if self.virtual and not re.match(r'[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\Z',
                                         self.bucket):
            raise ConfigError('bucket_name %s cannot be part of a host name: use `addressing '
                              'path`' % quoted(self.bucket, 100))

    def _locate(self, url):
        scheme, host, port, path = split_url('endpoint', url)
        if scheme == 'https' and ssl is None:
            raise ConfigError('this Python was built without ssl, or is out of memory (%s): it can '
                              'only do http://' % no_ssl)
        self.scheme, self.domain, self.port, self.path = scheme, host, port, path.rstrip('/')

    def _without_bucket(self, host):
        return host[len(self.bucket) + 1:] if host.startswith(self.bucket + '.') else host

    @property
    def aws(self):
        return self.domain.endswith('.' + partition(self.domain)[1])

    @property
    def host(self):
        return self.bucket + '.' + self.domain if self.virtual else self.domain

    @property
    def authority(self):
        return self.with_port(self.host)

    def with_port(self, host):
        """Return the Host header for a name of this server."""
        host = '[%s]' % host if ':' in host else host
        return host if self.port == (443 if self.scheme == 'https' else 80) else '%s:%d' % (
            host, self.port)

    def target(self, key):
        """Return the path of the request line for the object *key*, or for the bucket ('')."""
        path = self.path if self.virtual else self.path + '/' + uri_encode(self.bucket)
        if key or self.virtual:
            path += '/' + uri_encode(key, '/')
        return path

    def move(self, region, location):
        """Go where the server sends us: to *region*, or to the host of the URL *location*; raises
        BadAnswer for a redirect that would show the signature to somebody else.  Source: Amazon S3
        User Guide, "Making requests using the REST API: request routing"."""
        here = partition(self.domain)
        if region != self.region and re.fullmatch(REGION, region) and (
                not self.aws or partition(region) == here):
            self.region = region
            if not self._config.get('endpoint'):
                self._locate(aws_url('s3', region, self._config))
        elif location:
            url = location if '//' in location else '%s://%s' % (self.scheme, location)
            try:
                scheme, host, port, _ = split_url('', url.partition('?')[0])
            except ConfigError:
                scheme = host = ''
            base = self.domain if host == self.host else self._without_bucket(host)
            safe = host == self.host or (
                self.aws and partition(base) == here and base.endswith('.' + here[1]))
            if not safe or scheme not in (self.scheme, 'https'):
                raise BadAnswer('the server redirects to %s, which is not followed with a '
                                'signature' % quoted(location, 200))
            self.scheme, self.domain, self.port = scheme, base, port


def masked(url):
    """Return *url* for a message, without the login that it may contain."""
    return quoted(re.sub('(?s)^.*@', '...@', url), 200)


def split_url(what, url):
    """Return (scheme, host, port, path) of the URL of *what*, or raise ConfigError."""
    label = '[-_~%A-Za-z0-9]{1,63}'
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname or '', parts.port
        if parts.scheme in ('http', 'https') and parts.username is None and port != 0 \
                and re.match(r'(%s(\.%s)*\.?|[0-9a-f:.]+(%%.*)?)\Z' % (label, label), host) \
                and re.match(r'[!-~]*\Z', parts.path) and '?' not in url and '#' not in url:
            return parts.scheme, host, port or (443 if parts.scheme == 'https' else 80), parts.path
    except ValueError:
        pass
    raise ConfigError('%s %s is not a URL like https://s3.example.com or http://127.0.0.1:9000' % (
        what, masked(url)))


# -------------------------------------------------------------- Signature Version 4
# Pure functions, each taking the result of the one before, in the order and with the
# names of the Amazon S3 API Reference, "Authenticating Requests (AWS Signature Version 4)".

PAYLOAD_HASH = 'x-amz-content-sha256'
UNSIGNED_PAYLOAD = 'UNSIGNED-PAYLOAD'
ALGORITHM = 'AWS4-HMAC-SHA256'


def uri_encode(text, safe=''):
    """Percent-encode all of *text* but letters, digits, - . _ ~ and the characters in safe."""
    return urllib.parse.quote(text, safe=safe + '-._~')     # 3.6 would encode the ~


def canonical_query(query):
    pairs = sorted((uri_encode(name), uri_encode(value)) for name, value in query.items())
    return '&'.join('%s=%s' % pair for pair in pairs)


def credential_scope(now, region, service):
    """Return the timestamp, and what the signing key is valid for: day, region and service."""
    timestamp = time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now))
    return timestamp, '%s/%s/%s/aws4_request' % (timestamp[:8], region, service)


def signature(secret_access_key, timestamp, scope, method, target, query, headers, payload_hash):
    """HMAC(HMAC(HMAC(HMAC(HMAC("AWS4" + secret, day), region), service), "aws4_request"), text),
    where text has the SHA-256 of the canonical request.  target: path, encoded; query: canonical;
    headers: a dict with lower-case names."""
    lines = ['%s:%s' % (name, ' '.join(headers[name].split())) for name in sorted(headers)]
    canonical_request = '\n'.join(
        [method, target, query] + lines + ['', ';'.join(sorted(headers)), payload_hash])
    to_sign = '\n'.join([ALGORITHM, timestamp, scope, sha256(canonical_request.encode())])
    key = ('AWS4' + secret_access_key).encode()
    for text in scope.split('/') + [to_sign]:
        key = hmac.new(key, text.encode(), hashlib.sha256).digest()
    return key.hex()


def sign_headers(credentials, region, service, now, method, target, query, headers):
    """Add to the dict *headers*, which has x-amz-content-sha256, those that sign the request; now:
    seconds since the epoch; the other arguments as for signature()."""
    timestamp, scope = credential_scope(now, region, service)
    headers['x-amz-date'] = timestamp
    if credentials.session_token:
        headers['x-amz-security-token'] = credentials.session_token
    headers['authorization'] = '%s Credential=%s/%s, SignedHeaders=%s, Signature=%s' % (
        ALGORITHM, credentials.access_key_id, scope, ';'.join(sorted(headers)),
        signature(credentials.secret_access_key, timestamp, scope, method, target, query, headers,
                  headers[PAYLOAD_HASH]))


def presign(credentials, region, service, now, method, authority, target, expires, headers=()):
    """Return the query string with which anybody may make this request for *expires* seconds.

    headers: said in the query, for whoever uses the URL sends none, as is a versionId.  Source:
    Amazon S3 API Reference, "Authenticating Requests: Using Query Parameters".
    """
    timestamp, scope = credential_scope(now, region, service)
    query = dict(headers, **{
        'X-Amz-Algorithm': ALGORITHM, 'X-Amz-Date': timestamp,
        'X-Amz-Credential': '%s/%s' % (credentials.access_key_id, scope),
        'X-Amz-Expires': str(expires), 'X-Amz-SignedHeaders': 'host'})
    if credentials.session_token:
        query['X-Amz-Security-Token'] = credentials.session_token
    text = canonical_query(query)
    return '%s&X-Amz-Signature=%s' % (text, signature(
        credentials.secret_access_key, timestamp, scope, method, target, text, {'host': authority},
        UNSIGNED_PAYLOAD))


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def md5(data=b''):
    """Return a hash object, or None on a Python that has MD5 disabled (FIPS)."""
    try:
        return hashlib.md5(data, usedforsecurity=False) if sys.version_info >= (3, 9) \
            else hashlib.md5(data)
    except ValueError:
        return None


def crc32_text(value):
    """Write a CRC32 as S3 does: base64 of four bytes, most significant first."""
    return base64.b64encode(value.to_bytes(4, 'big')).decode()


def digest_header(body):
    """Return the digest header that some operations demand: Content-MD5, or else a checksum."""
    digest = md5(body)
    if digest:
        return {'content-md5': base64.b64encode(digest.digest()).decode()}
    return {'x-amz-checksum-crc32': crc32_text(zlib.crc32(body))}


# -------------------------------------------------------------------------- Messages
# XML in and out.  Bytes in, values out; anything but XML is a BadAnswer.

class Document:
    """An XML document, all of whose names are in the namespace of its root, whichever that is:
    servers differ.  Raises BadAnswer, also if *name* is given and the root has another."""

    def __init__(self, body, name=''):
        # here, since a short dump has no XML to read, and the import takes 8 ms
        from xml.etree import ElementTree
        if b'<!DOCTYPE' in body or b'\0' in body:   # a bomb needs one of them
            raise BadAnswer('the answer of the server holds a document type')
        try:
            self._root = ElementTree.fromstring(body.strip())
        except (ElementTree.ParseError, ValueError, LookupError) as error:
            raise BadAnswer('the answer of the server is not XML (%s): %s'
                            % (error, quoted(body[:60])))
        self._space, self.name = re.match('({.*})?(.*)', self._root.tag).groups('')
        if name and name != self.name:
            raise BadAnswer('the answer of the server is a %s, where S3 says %s'
                            % (printable(self.name, 50), name))

    def get(self, name):
        """Return the text of the root's child *name*, or ''."""
        return self._root.findtext(self._space + name) or ''

    def all(self, path):
        """Yield, for each element at *path* (from the root's child on), a dict of the texts of all
        elements in it: of a thousand, to find each by its name takes twice as long."""
        start = len(self._space)
        path = path if path == '*' else '/'.join(self._space + name for name in path.split('/'))
        for element in self._root.iterfind(path):
            yield {child.tag[start:]: child.text or '' for child in element.iter()}


def parse_time(text):
    """Return 2009-10-12T17:50:30.000Z, or 20091012T175030Z, in epoch seconds; raises ValueError."""
    # strptime takes ten times as long, and a listing may hold a million times
    text = text.replace('-', '').replace(':', '')
    return parse_day(text[:8]) + 3600 * int(text[9:11]) + 60 * int(text[11:13]) + int(text[13:15])


@functools.lru_cache(maxsize=4096)
def parse_day(text):
    """Return the seconds since the epoch at which 20091012 begins; raises ValueError."""
    return calendar.timegm((int(text[:4]), int(text[4:6]), int(text[6:8]), 0, 0, 0))


def utc(seconds):
    """Return text for seconds since the epoch: 2009-10-12T17:50:30Z."""
    return time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(seconds))


def parse_date(text):
    """Return the seconds since the epoch of an HTTP date (RFC 7231), None if it can't be true."""
    try:
        parsed = email.utils.parsedate_tz(text or '')
        seconds = email.utils.mktime_tz(parsed) if parsed else 0
    except (ValueError, OverflowError, UnboundLocalError, IndexError):  # the last are bugs of 3.6
        return None
    return seconds if BIRTH_OF_S3 < seconds < 2 * 10**10 else None


def parse_error(label, answer):
    status, headers, body = answer
    try:
        get = Document(body, 'Error').get
    except BadAnswer:               # no body, a page, or XML with unescaped text
        code = re.search(b'<Code>([A-Za-z0-9._-]{1,100})</Code>', body)
        get = {'Code': code.group(1).decode() if code else '', 'Message': '', 'ServerTime': ''}.get
    code, message, date = get('Code'), get('Message'), parse_date(headers.get('date'))
    with contextlib.suppress(ValueError):
        date = parse_time(get('ServerTime'))
    if not code:
        code = http.client.responses.get(status, 'Unknown').replace(' ', '')    # as S3's codes are
        message = 'not an S3 error but ' + quoted(body[:80]) if body else message
    return ResponseError(
        label, status, code, message, get('RequestId') or headers.get('x-amz-request-id') or '',
        region=headers.get('x-amz-bucket-region') or get('Region') or '',
        location=headers.get('location') or get('Endpoint') or '',
        retry_after=retry_after(headers), date=date, from_s3=bool(get('Code')))


def maybe_done(error):
    """Whether the work may have been done in spite of a ResponseError: gateways lose answers."""
    return (error.status in (200, 408, 499) or (error.status >= 500 and error.status != 501)
            or (error.status == 409 and not error.from_s3))


def gone(error):
    """Whether a ResponseError says that there is nothing to delete or abort; a page doesn't."""
    return error.status == 404 and error.code != 'NoSuchBucket' and (
        error.from_s3 or not error.message)


def retry_after(headers):
    """Return the seconds that the server asks us to wait, or 0 (x-amz-retry-after is in ms)."""
    for name, unit in (('x-amz-retry-after', 1000), ('retry-after', 1)):
        text = headers.get(name) or ''
        if re.match(r'[0-9]{1,9}\Z', text):
            return min(int(text) / unit, 300)
    return 0


def completion_body(parts):
    """Return the body of a CompleteMultipartUpload; parts: (ETag, CRC32 or None), as texts."""
    return ('<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">%s'
            '</CompleteMultipartUpload>' % ''.join(
                '<Part><PartNumber>%d</PartNumber><ETag>%s</ETag>%s</Part>\n' % (
                    number, etag.replace('&', '&amp;').replace('<', '&lt;'),
                    '<ChecksumCRC32>%s</ChecksumCRC32>' % crc32 if crc32 else '')
                for number, (etag, crc32) in enumerate(parts, 1))).encode()


def parse_upload_id(answer):
    upload_id = Document(answer.body).get('UploadId')  # the name of the root differs in rclone
    if not upload_id:
        raise BadAnswer('the server gave no upload id')
    return upload_id


def require_completion(label, answer):
    """Raise the error that may stand in the Answer to a CompleteMultipartUpload in spite of 200."""
    if Document(answer.body).name == 'Error':
        raise parse_error(label, answer)
    Document(answer.body, 'CompleteMultipartUploadResult')


def require_etag(answer):
    """Return the ETag; an answer without one isn't S3's (but a captive portal's)."""
    etag = answer.headers.get('etag')
    if not etag:
        raise BadAnswer('an answer with no ETag is not from S3')
    return etag


def require_empty(answer):
    """Raise BadAnswer if the answer has a body: S3's has none, but a captive portal's has."""
    if answer.body.strip():
        raise BadAnswer('the server sends a page where S3 says nothing: %s'
                        % quoted(answer.body[:60]))


class Key(str):
    """A key that names one version of its object, or a delete marker: that is what is read, or
    deleted for ever, where it is taken for a key."""
    __slots__ = 'version',          # its id

    def __new__(cls, key, version):
        self = str.__new__(cls, key)
        self.version = version
        return self


ListEntry = collections.namedtuple(
    'ListEntry', 'key size modified storage_class etag restore marker above')
ListEntry.__new__.__defaults__ = '', False, ()
ListEntry.__doc__ = """An object: its size in bytes; modified in seconds since the epoch; restore,
    'ongoing' or 'done' for an archived one that was asked for, if the listing tells, else ''.

    Of a version the key is a Key; marker: whether it is a delete marker, which hides those below
    it; above: the versions that lie on it, the newest first."""
UploadEntry = collections.namedtuple('UploadEntry', 'key upload_id initiated')
UploadEntry.__doc__ = 'An unfinished upload, initiated in seconds since the epoch.'
UNDELETED = 'undeleted'             # see Bucket.at


def unquote(text):
    """Like unquote_plus(), but a tenth faster: in keys of dumps only these two are encoded."""
    text = text.replace('+', ' ').replace('%3A', ':').replace('%2F', '/')
    return urllib.parse.unquote(text) if '%' in text else text


def next_page(listing, markers, decode):
    """Return the query by which a listing goes on.

    markers: names of parameters, each told in an element of that name, NextKeyMarker; a server
    that knows only version 1 of ListObjects may tell none, and takes the last key.
    """
    told = {name: listing.get('Next' + name.title().replace('-', '')) for name in markers}
    if 'marker' in told and not any(told.values()):
        told['marker'] = ([''] + [texts['Key'] for texts in listing.all('Contents')])[-1]
    return {name: decode(text) if name in ('marker', 'key-marker') else text
            for name, text in told.items() if text}


def list_entries(elements, decode):
    """Yield the ListEntries of a page of ListObjectsV2; elements: the texts of each."""
    for texts in elements:
        size = texts['Size']
        if not size.isdigit() or len(size) > 18:
            raise ValueError(size)
        yield ListEntry(decode(texts['Key']), int(size), parse_time(texts['LastModified']),
                        texts.get('StorageClass') or 'STANDARD', texts.get('ETag', ''),
                        'ongoing' if texts.get('IsRestoreInProgress') == 'true' else
                        'done' if texts.get('RestoreExpiryDate') else '')


def version_entries(listing, decode):
    """Return the ListEntries of a page of ListObjectVersions: by key, and of each key the newest
    first, as S3 has them; some servers put all delete markers last."""
    found = [dict(texts, Size=texts.get('Size', '' if 'Version' in texts else '0'))
             for texts in listing.all('*') if 'Version' in texts or 'DeleteMarker' in texts]
    markers = ['DeleteMarker' in texts for texts in found]
    if any(markers) and markers == sorted(markers):     # else LastModified is no order: an upload's
        found.sort(reverse=True, key=lambda texts: (    # is the time when it was begun
            texts.get('IsLatest') == 'true', texts.get('LastModified', '')))
    entries = [entry._replace(key=Key(entry.key, texts.get('VersionId') or 'null'),
                              marker='DeleteMarker' in texts)
               for entry, texts in zip(list_entries(found, decode), found)]
    return sorted(entries, key=lambda entry: entry.key)


def version_at(versions, at):
    """Return the ListEntry of what was there *at* a time, or None; versions: newest first."""
    for number, version in enumerate(versions):
        if not version.marker if at is UNDELETED else version.modified <= at:
            return None if version.marker else version._replace(above=tuple(versions[:number]))


# ----------------------------------------------------------------------------- Parts
# How a stream becomes parts, and one too long for an object becomes volumes.

def read_part(stream, view, workers):
    """Fill *view* from *stream*; returns the count of bytes, less than len(view) only at the end.

    Failures of the Workers are raised while a stream without a buffer of its own (an io.FileIO,
    or one with an attribute `unbuffered`) stands still.
    """
    unbuffered, count = isinstance(stream, io.FileIO) or hasattr(stream, 'unbuffered'), 0
    while count < len(view):
        while unbuffered and not workers.listen(stream.fileno()):
            pass
        got = stream.readinto(view[count:])
        if got == 0:
            break
        if got is None:             # nothing yet, or another reader was faster
            time.sleep(0.01)
        count += got or 0
    return count


def volume_key(key, number):
    """Return the key of volume *number* of the dump *key*; volume 0 is the dump itself."""
    return '%s.volume_%06d' % (key, number) if number else key


def host_label(config, environ=None):
    """Return this machine's label in the keys of its dumps, and what gave it."""
    environ = os.environ if environ is None else environ
    return next(found for found in (
        (config.get('host'), '`host`'), (environ.get('S3DUMP_HOST', '').strip(), '$S3DUMP_HOST'),
        (os.uname().nodename.split('.')[0] or 'localhost', "this machine's name")) if found[0])


def random_name():
    """Return 16 letters and digits that hold 80 bits of the system's random source."""
    return base64.b32encode(os.urandom(10)).decode().lower()


# ------------------------------------------------------------------------ Rate limit

class RateLimit:
    """At most *rate* bytes per second (None: as fast as can be) for all sockets together.

    A thread that moves bytes reserves the next moment at which they may pass, and sleeps until
    then.  In any span of t seconds no more than rate x (t + 1/4) bytes pass: a thread that is
    late may catch up by an eighth of a second's worth, and a slice is another eighth.
    rate may be changed while transfers run, by a signal handler too.
    """
    SPAN = 1 / 8

    def __init__(self, rate=None, clock=time.monotonic, sleep=None, sharers=1):
        self.rate = rate
        self.sharers = sharers      # how many connections there may be
        self.moved = 0              # bytes so far, both ways; guarded by the lock, as is _next
        self.moved_at = 0           # when the last of them passed, in monotonic seconds
        self._next = clock()
        self._lock = threading.Lock()
        self._clock, self._sleep = clock, sleep     # the latter replaces the caller's

    def slice(self):
        """Return how many bytes to move at once."""
        rate = self.rate
        return BLOCK if rate is None else max(1, min(BLOCK, int(rate * self.SPAN)))

    def take(self, count, sleep=time.sleep):
        """Wait, by sleep(seconds), until *count* more bytes may pass."""
        with self._lock:
            self.moved += count
            rate = self.rate
            if rate is None:
                return
            now = self._clock()
            start = max(self._next, now - self.SPAN)
            self._next = start + count / rate
        if start > now:
            (self._sleep or sleep)(start - now)

    def give_back(self, count):
        """Return *count* of the bytes that were taken: they did not come."""
        with self._lock:
            self.moved -= count
            self._next -= count / (self.rate or float('inf'))   # once: a signal may change it


# -------------------------------------------------------------------------------- Pace

class Pace:
    """How many parts are in flight: as many as make the transfer faster, from *jobs* to *most*.

    While the network is what is waited for, and less than half of the processors' time is ours,
    more connections are tried, and kept if the rate rises by a twentieth: usually two more.  A
    link that takes a SAMPLE in a second gets as many as there may be at once: otherwise a short
    dump would be over first.  Each number is given a moment to settle, and is then measured over
    SPAN seconds and SAMPLE bytes at least.  After a trial in vain the next, of two more, comes
    after RETRY seconds, and then each time after twice as long, for links change.  slowed: a deque
    of the times when the server asked for slower requests; each takes one away for CALM seconds.
    """
    SPAN, SAMPLE = 0.2, 16 << 20    # less than a sample may be in the buffers of the kernel
    RETRY, MOST_RETRY = 15, 600
    CALM = 5

    def __init__(self, jobs, most, slowed=()):
        self._jobs, self._most, self._slowed = jobs, most, slowed
        self._waited = 0            # seconds so far
        self._mark = None           # time, bytes moved, seconds waited and worked as a span began
        self._settled = False
        self._before = None         # (jobs, rate) before the number under trial
        self._step, self._pause, self._again = most, self.RETRY, 0

    def jobs(self, now):
        """Return how many parts may be in flight; now: monotonic seconds."""
        return max(1, self._jobs - sum(now - when < self.CALM for when in tuple(self._slowed)))

    def look(self, now, moved, waited, limit=None, worked=0):
        """Decide whether to change the number, at *now* in monotonic seconds.

        moved: bytes so far; waited: seconds since the last look in which the network was waited
        for; limit: bytes per second that are allowed, or None; worked: seconds so far that all
        processors worked for us.
        """
        self._waited += waited
        mark = now, moved, self._waited, worked
        if self._mark is None or self.jobs(now) < self._jobs:
            self._mark, self._settled = mark, False
        seconds, count, waited, worked = (here - there for here, there in zip(mark, self._mark))
        span = self.SPAN if self._settled or self._before else 0    # none is new at the beginning
        if seconds >= span and count >= self.SAMPLE:
            self._mark, self._settled = mark, not self._settled
            if not self._settled:
                self._decide(now, count / seconds, limit,
                             waited > seconds / 4 and worked < seconds / 2)

    def _decide(self, now, rate, limit, waiting):
        before, self._before = self._before, None
        if before and rate < 1.05 * before[1]:
            self._jobs, self._step = before[0], 2
            self._again, self._pause = now + self._pause, min(2 * self._pause, self.MOST_RETRY)
        elif waiting and self._jobs < self._most and now >= self._again and (
                limit is None or rate < 0.9 * limit):
            self._before = self._jobs, rate
            self._step = self._jobs if before else self._step
            self._jobs = min(self._most, self._jobs + (self._step if rate > self.SAMPLE else 2))


def most_jobs(part_size, memory):
    """Return how many parts of *part_size* bytes may be in flight at most: an eighth of *memory*
    may be filled with them (bytes; None: unknown)."""
    return max(JOBS, min(MOST_JOBS, (memory or 0) // 8 // part_size - 1))


def available_memory(root='/'):
    """Return the bytes that the machine, its cgroups and ulimit -v leave us, None if unknown (see
    proc_meminfo(5); cgroups(7); Linux, "Control Group v2", "Memory Resource Controller")."""
    def lines(*path):
        try:
            with open(os.path.join(root, *path)) as file:
                return file.read().split('\n')
        except (OSError, UnicodeDecodeError):
            return []

    import resource                 # here, since only transfers ask
    limits = [resource.getrlimit(getattr(resource, 'RLIMIT_AS', resource.RLIMIT_DATA))[0]]
    limits += [1024 * int(line.split()[1]) for line in lines('proc/meminfo')
               if line.startswith('MemAvailable:')]
    for line in lines('proc/self/cgroup'):
        _, controllers, path = line.split(':', 2) if line.count(':') > 1 else ('', 'none', '')
        while controllers in ('', 'memory') and path:       # the limits of its parents hold, too
            for name in 'memory.max', 'memory.high', 'memory.limit_in_bytes':
                limits += [int(text) for text in lines(
                    'sys/fs/cgroup', controllers, path.strip('/'), name) if text.isdigit()]
            path = path.rstrip('/').rpartition('/')[0] + '/' if path != '/' else ''
    return min([limit for limit in limits if limit != resource.RLIM_INFINITY], default=None)


# --------------------------------------------------------------------------- Answers
# http.client lets truncation pass when it fills a buffer; so here bytes are counted.

Answer = collections.namedtuple('Answer', 'status headers body')


def seek_range(response, first, count):
    """Leave *response* at byte *first* of the object, with *count* more to come; returns the size
    of the object, or None where the server doesn't tell it: some answer a ranged GET with 200, and
    with the range or the whole object."""
    said, length = response.headers.get('content-range') or '', response.length
    if response.status == 206 or said.startswith('bytes '):
        asked = 'bytes %d-%d' % (first, first + count - 1)
        given, _, size = said.partition('/')
        if given != asked or length not in (None, count):
            raise BadAnswer('the server was asked for %s, and sends %s' % (
                asked, printable(given, 60) or 'others'))
        return int(size) if re.fullmatch('[0-9]{1,19}', size) else None
    require_etag(response)
    if length != count:
        rest = first
        while rest:
            got = len(response.read(min(rest, BLOCK)))
            if not got:
                raise http.client.IncompleteRead(b'', rest) if (
                    response.length != 0 and not response.chunked) else BadAnswer(
                    'the server ignores ranges, and its object ends early')
            rest -= got
    return None


# ------------------------------------------------------------------------------ Wire
# From requests to the kernel, and back to http.client, which parses answers.  Everything is cut
# into slices: for the rate limit, and because a socket's time-out bounds a whole sendall(); of a
# slice it means what it should, that nothing moves.

class NoSignals:
    """No signal ends the program while its main thread waits.

    A Bucket's `signals` may be another object with these methods.  poll() raises the exception
    that ends the program; in the context the main thread waits for the outside and holds
    nothing, so a signal handler may raise it.
    """

    def poll(self):
        """Called now and then while the main thread waits for other threads."""

    def __enter__(self, *_):
        pass

    __exit__ = __enter__


Proxy = collections.namedtuple('Proxy', 'host port headers')


def find_proxy(environ, scheme, host):
    """Return the Proxy for the URLs of a scheme and host, or None, by HTTP_PROXY, HTTPS_PROXY and
    NO_PROXY in *environ*, small letters first; raises ConfigError."""
    def variable(name):             # empty in small letters, it switches the other off
        return environ.get(name, environ.get(name.upper())) or ''

    name = scheme + '_proxy'
    url, exempt = variable(name), variable('no_proxy').replace(',', ' ').split()
    if not url or any(covers(each.lower(), host) for each in exempt):
        return None
    try:
        parts, headers = urllib.parse.urlsplit(url if '//' in url else 'http://' + url), {}
        if parts.scheme not in ('', 'http'):
            raise ConfigError('%s names a %s:// proxy, and only http:// proxies can be used (they '
                              'pass https on, too)' % (name.upper(), parts.scheme))
        if not parts.hostname:
            raise ValueError(url)
        if parts.username:
            login = '%s:%s' % (parts.username, parts.password or '')
            headers['proxy-authorization'] = 'Basic ' + base64.b64encode(
                urllib.parse.unquote_to_bytes(login)).decode()
        return Proxy(parts.hostname, parts.port or 80, headers)
    except ValueError:
        raise ConfigError('%s is not a URL like http://proxy.example.com:3128'
                          % name.upper()) from None


def covers(name, host):
    """Whether a *name* in NO_PROXY covers *host*: itself, a domain, *, or a range of addresses."""
    if '/' in name:
        import ipaddress            # here, for it is rarely needed
        try:
            return ipaddress.ip_address(host.partition('%')[0]) in ipaddress.ip_network(
                re.sub(r'[][]', '', name), strict=False)
        except ValueError:
            return False            # host is a name, most likely
    name = re.sub(r'\A\*?\.?', '', name)
    if name.count(':') == 1 or ']:' in name:
        name = name.rpartition(':')[0]
    name = name.strip('[]')
    return not name or host == name or host.endswith('.' + name)    # not name: it was a *


def ready(descriptors, event, seconds):
    """Return which of *descriptors* are ready for *event*, as soon as one is, within *seconds*."""
    poll = select.poll()            # not select(), which ends at descriptor 1023
    for each in descriptors:
        poll.register(each, event)
    return [found for found, _ in poll.poll(1000 * max(0, seconds))]


ANSWERED = {}                       # by (host, port), the address that did where others had not


def find_addresses(host, port):
    """Return what getaddrinfo() knows: what answered last time, then the families by turns."""
    name = host if re.search('[^ -~]', host) else host.encode()    # else IDNA would be loaded
    found, seen = socket.getaddrinfo(name, port, 0, socket.SOCK_STREAM), collections.Counter()
    best = ANSWERED.get((host, port), found[0])

    def order(each):
        seen[each[0]] += 1
        return each != best, seen[each[0]], each[0] != best[0]
    return sorted(found, key=order)


def connect_first(host, port, seconds, check):
    """Return a socket that is connected to *host*, within *seconds*; check: called now and then,
    may raise.  Raises the most telling OSError.

    Its addresses are tried a quarter of a second after one another, or as soon as those before
    have failed, until one answers (RFC 8305).
    """
    addresses, trying, failures = find_addresses(host, port), {}, []
    end = time.monotonic() + seconds
    with contextlib.ExitStack() as stack:       # which closes all but the one that is returned
        while (addresses or trying) and time.monotonic() < end:
            check()
            try:
                if addresses:
                    address = addresses.pop(0)
                    sock = stack.enter_context(socket.socket(*address[:3]))
                    sock.setblocking(False)
                    with contextlib.suppress(BlockingIOError):
                        sock.connect(address[4])
                    trying[sock.fileno()] = sock, address
                pause = min(NEXT_ADDRESS, end - time.monotonic())
                for descriptor in ready(trying, select.POLLOUT, pause)[:1]:
                    sock, address = trying.pop(descriptor)
                    number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if number:
                        raise OSError(number, os.strerror(number))
                    if failures or trying:
                        ANSWERED[host, port] = address
                    return socket.socket(*address[:3], fileno=sock.detach())
            except OSError as error:
                failures.append(error)
    if addresses or trying:
        failures.append(socket.timeout('timed out'))
    raise max(failures, key=lambda error: (isinstance(error, ConnectionError),
                                           isinstance(error, socket.timeout)))


def request_head(method, target, headers):
    """Return the bytes of a request before its body; raises ValueError for what would break it."""
    lines = ['%s %s HTTP/1.1' % (method, target)] + ['%s: %s' % item for item in headers.items()]
    if not all(map(str.isprintable, lines)):
        raise ValueError('a header with control characters')
    return '\r\n'.join(lines + ['', '']).encode('latin-1')


class Cancelled(Exception):
    """The transfer has failed elsewhere, and this thread may go home."""


class Connection:
    """The connection of one thread: made when needed, kept alive, never trusted when old.

    Only its thread, which makes it, may use it, but any thread may call cancel().  origin: an
    Origin, or an Endpoint; environ: may name a proxy.
    """

    def __init__(self, bucket, origin, limit, environ):
        self._bucket, self._origin, self.limit, self._environ = bucket, origin, limit, environ
        self._signals = bucket.signals if in_main_thread() else NoSignals()
        self.proxy = None           # the Proxy that the connection goes through
        self._sock = self._reader = None    # the latter: the Reader of the answer
        self._place = self._used = None     # where it leads; when it was last used
        self.reused = False         # whether the request under way found it open
        self.unsent = None          # bytes of the last request that were not sent; None if none
                                    # was, or it succeeded
        self._alarm = threading.Lock()      # held until cancel(), which thus ends pause()
        self._alarm.acquire()

    def go_home_if_cancelled(self):
        if not self._alarm.locked():
            raise Cancelled()

    def _open(self, timeout):
        origin, self.unsent = self._origin, None
        place = origin.scheme, origin.host, origin.port, self.limit.rate is None
        self.go_home_if_cancelled()
        self.reused = bool(self._sock and self._place == place
                           and self._bucket.monotonic() - self._used < IDLE_TIME
                           and not ready([self._sock], select.POLLIN, 0))   # that is its end
        if not self.reused:
            self.close()
            self._place = place
            with self._signals:
                self._connect(*place[:3], timeout=min(CONNECT_TIMEOUT, timeout))
        self._keep_short()
        self._sock.settimeout(timeout)
        self.go_home_if_cancelled()

    def _connect(self, scheme, host, port, timeout):
        context = self._bucket.tls() if scheme == 'https' else None
        self.proxy = find_proxy(self._environ, scheme, host)
        self._sock = connect_first(*(self.proxy or (host, port))[:2], timeout,
                                   self.go_home_if_cancelled)
        self._sock.settimeout(timeout)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context and self.proxy:
            self._dig_tunnel(('[%s]:%d' if ':' in host else '%s:%d') % (host, port))
        if context:                 # the handshake comes second, so that cancel() finds the socket
            self._sock = context.wrap_socket(self._sock, server_hostname=host,
                                             do_handshake_on_connect=False)
            self._sock.do_handshake()

    def _dig_tunnel(self, authority):
        headers = dict(self.proxy.headers, host=authority)
        self._sock.sendall(request_head('CONNECT', authority, headers))
        with contextlib.closing(http.client.HTTPResponse(self._sock, method='CONNECT')) as response:
            response.begin()
            if response.status // 100 != 2:
                raise OSError('Tunnel connection failed: %d %s' % (
                    response.status, response.reason.strip()))

    def _keep_short(self):
        """Let the kernel receive ahead of the rate limit no more than an eighth of a second's
        worth, not megabytes; but two segments at least, or TCP waits for its timers."""
        rate = self.limit.rate
        if rate is not None:
            share = min(BLOCK, int(rate * RateLimit.SPAN / self.limit.sharers))
            segment = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, max(2 * segment, share))

    @contextlib.contextmanager
    def exchange(self, method, target, headers, body, timeout):
        """Send a request; a context that gives http.client's response, for its body to be read,
        and that leaves the connection fit for the next request.

        target: with the query; timeout: seconds of silence.  Raises OSError,
        http.client.HTTPException and BadAnswer.
        """
        response, self._reader = None, Reader(self)
        try:
            self._open(timeout)
            response = self._ask(method, target, headers, body, timeout)
            yield response
            self.unsent = None
        except (OSError, http.client.HTTPException) as error:
            raise self._reader.broken or error      # the first of them
        except ValueError as error:     # http.client trips over some nonsense
            if isinstance(error, getattr(ssl, 'CertificateError', ())):     # Python 3.6
                raise ssl.SSLError(1, 'CERTIFICATE_VERIFY_FAILED: %s' % error)
            raise BadAnswer('the server does not speak HTTP: %s' % printable(str(error), 100))
        finally:
            self._used = self._bucket.monotonic()
            if not response or not response.isclosed() or response.will_close \
                    or self._reader.broken or self.unsent:
                self.close()        # nobody can go on after half an exchange

    def _ask(self, method, target, headers, body, timeout):
        headers = dict(headers, **{'accept-encoding': 'identity'})
        if method in ('PUT', 'POST'):
            headers['content-length'] = str(len(body))
        if self.proxy and self._origin.scheme == 'http':            # RFC 9112, section 3.2.2
            target = 'http://%s%s' % (headers['host'], target)
            headers.update(self.proxy.headers)
        head = request_head(method, target, headers)
        self.unsent = len(head) + len(body)
        try:
            self._send(head)
            self._send(body)
        except OSError:
            # a server that hangs up while we are sending has told its reason before, or never does
            if ready([self._sock], select.POLLIN, 0):
                self._sock.settimeout(GRACE)
                with contextlib.suppress(OSError, http.client.HTTPException, BadAnswer):
                    response = self._answer(method, GRACE)
                    if response.status >= 300:      # praise for half a request is worth nothing
                        return response
            raise
        return self._answer(method, timeout)

    def _send(self, data):
        view = memoryview(data)
        while len(view):
            piece = view[:self.limit.slice()]
            self.limit.take(len(piece), self.pause)
            view = view[len(piece):]
            while len(piece):       # not sendall(), whose time-out is for all of it
                with self._signals:
                    count = self._sock.send(piece)
                self.unsent -= count
                self.limit.moved_at = time.monotonic()
                piece = piece[count:]

    def receive(self, view):
        """Receive into *view*; returns the count of bytes, 0 at the end."""
        with self._signals:
            count = self._sock.recv_into(view)
        self.limit.moved_at = time.monotonic()
        return count

    def _answer(self, method, timeout):
        self._reader.deadline = time.monotonic() + 2 * timeout
        response = http.client.HTTPResponse(self._reader, method=method)
        response.begin()
        while response.status in range(102, 200):   # RFC 9110, 15.2; http.client skips 100 only
            response.headers = response.msg = None
            response.begin()
        if response.status < 200:
            raise BadAnswer('the server answers %d, which ends no request' % response.status)
        self._reader.in_body, self._reader.deadline = True, None
        return response

    def read(self, response, seconds=None):
        """Return the whole Answer, MAX_MESSAGE bytes at most, of an error only the beginning; the
        rest of it must come within *seconds*, None: as long as the Bucket gives it."""
        self._reader.deadline = time.monotonic() + (seconds or self._bucket.answer_timeout)
        most = MAX_MESSAGE if response.status < 300 else MAX_ERROR
        body = response.read(most + 1 if response.length is None else min(
            most + 1, response.length))
        if len(body) <= most:
            if response.length:
                raise http.client.IncompleteRead(b'', response.length)
            response.read()         # nothing; the read before may leave the response open
        elif response.status < 300:
            raise BadAnswer('the answer of the server has no end')
        if self._reader.broken:
            raise self._reader.broken
        return Answer(response.status, response.headers, body[:most])

    def close(self):
        """Close the connection; the next request makes a new one."""
        if self._sock is not None:
            self._sock.close()
        self._sock = None

    def pause(self, seconds):
        """Sleep; raise Cancelled when that is called for."""
        with self._signals:
            if self._alarm.acquire(timeout=seconds):
                self._alarm.release()
        self.go_home_if_cancelled()

    def cancel(self):
        """Make the thread, wherever it sends, receives or waits, raise at once."""
        self._alarm.release()
        sock = self._sock
        if sock is not None:
            with contextlib.suppress(OSError):
                # not SSLSocket.shutdown(), which would let the thread go on in clear text
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


class Reader(io.RawIOBase):
    """The file from which http.client reads an answer: within the rate limit, in time, and not
    without a head.

    An error in the body is kept as `broken`, and looks like the end until the Connection raises
    it: raised here, the buffer above would lose what came before.
    """
    deadline = broken = None        # the former in monotonic seconds
    in_body = False                 # whether the head has been read

    def __init__(self, connection):
        self._connection = connection

    def makefile(self, mode):
        """Return what http.client wants of a socket."""
        buffer = io.BufferedReader(self)
        buffer.flush = bool         # as garbage it may be closed before its response flushes it
        return buffer

    def readable(self):
        return True

    def readinto(self, view):
        limit = self._connection.limit
        view, count = memoryview(view)[:limit.slice()], 0
        try:
            limit.take(len(view), self._connection.pause)
            while count < len(view) and not self.broken:
                if self.deadline is not None and time.monotonic() > self.deadline:
                    raise socket.timeout('timed out')
                got = self._connection.receive(view[count:])
                count += got
                # a read larger than the buffer wants all of it, but TLS gives 16 KiB at a time,
                # and take() for each is a fifth of the CPU at 10 MB/s
                if not got or len(view) <= io.DEFAULT_BUFFER_SIZE:
                    break
        except OSError as error:
            if not self.in_body:
                raise
            self.broken = error
        finally:
            limit.give_back(len(view) - count)
        if not count and not self.in_body:
            raise ConnectionResetError(errno.ECONNRESET, 'the server broke off')
        return count


def tls_context(ca_bundle):
    """Return an ssl.SSLContext that checks by ca_bundle or the system's CAs; raises ConfigError."""
    kind = 'capath' if ca_bundle and os.path.isdir(ca_bundle) else 'cafile'
    try:
        context = ssl.create_default_context(**{kind: ca_bundle or None})
    except (OSError, ssl.SSLError) as error:
        raise ConfigError('cannot load ca_bundle %s: %s' % (printable(ca_bundle), error))
    if ca_bundle:                   # one's own CA need not keep to all of RFC 5280
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


# --------------------------------------------------------------------------- Workers

def wait_until(condition, seconds):
    """Wait for a true *condition*(), *seconds* at most; returns its last value."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


class Thread:
    """A thread that calls *function*, and doesn't keep the program from ending; start() doesn't
    wait for ever, as threading's does, for one that finds no memory to begin."""

    def __init__(self, function):
        self._function, self._due = function, time.monotonic() + BEGIN_TIMEOUT
        self.begun = self.ended = False

    def start(self):
        """Start it; raises RuntimeError where the system has no more threads."""
        _thread.start_new_thread(self._run, ())

    def _run(self):
        self.begun = True
        try:
            self._function()
        except BaseException:       # whoever waits for the result will notice
            pass
        self.ended = True

    @property
    def alive(self):
        """Whether it runs, or may still begin."""
        return not self.ended and (self.begun or time.monotonic() < self._due)


def in_main_thread():
    """Whether the main thread asks; current_thread() doesn't know our Threads."""
    return threading.get_ident() == threading.main_thread().ident


class Task:
    """What becomes of a call in a worker's thread, whose it is until it is done."""
    done, value = False, None


class Workers:
    """The threads of a Bucket, as many as its Pace says, and one buffer for a part more.

    Threads and buffers are made when first needed.  The first failure of any task is raised by
    whatever the main thread asks for next.

    The threads wait for tasks, and the main thread for news of them, by reading from pipes: no
    signal can make it leave while it holds a lock, and it can wait for its stream as well.  All
    share only Tasks, and deques, whose operations are atomic.
    """

    def __init__(self, bucket):
        self._bucket = bucket
        self._free, self._made = collections.deque(), 0
        self._threads, self._stopped = [], False
        self._queue = collections.deque()
        self._unfinished = collections.deque()      # one entry per open task: += is not atomic
        self._connections = collections.deque()
        self._failures = collections.deque()
        self._pace = Pace(bucket.jobs, bucket.most_jobs(), bucket.tally.slowed)
        self._tasks = os.pipe()     # a byte per task, to the threads
        self._news = os.pipe()      # a byte when something has changed
        os.set_blocking(self._news[1], False)       # a full pipe is news enough

    @property
    def jobs(self):
        """How many tasks may be under way."""
        return self._pace.jobs(self._bucket.monotonic())

    def buffer(self):
        """Return a memoryview for a part, as soon as there is one."""
        while not self.has_buffer():
            self.listen()
        return self._free.popleft()

    def has_buffer(self):
        """Return whether there is a free buffer.  Make one if there is room for it and no more
        than the jobs are in use; drop one if too many were made."""
        self._raise()
        while self._free and self._made > self.jobs + 1:    # more were tried in vain
            self._free.pop()
            self._made -= 1
        in_use = self._made - len(self._free)
        if not self._free and in_use <= self.jobs:
            try:                    # not a bytearray, whose pages are taken at once
                if in_use:
                    mmap.mmap(-1, self._bucket.part_size + ROOM, mmap.MAP_PRIVATE).close()
                self._free.append(memoryview(mmap.mmap(
                    -1, self._bucket.part_size, mmap.MAP_PRIVATE)))
                self._made += 1
            except OSError:
                if not in_use:      # else one of those will come free
                    raise MemoryError('no room for a part')
        return bool(self._free) and in_use <= self.jobs

    def map(self, function, items):
        """Return [function(item)] for all items; as many calls are under way as ever may be, if the
        rate is free: small requests are mostly waiting."""
        bucket, pace = self._bucket, self._pace
        self._pace = pace if bucket.limit.rate else Pace(bucket.most_jobs(), 0)
        values = [self.wait(task) for task in [self.submit(function, item) for item in items]]
        self._pace = pace
        return values

    def release(self, buffer):
        self._free.append(buffer)

    def submit(self, function, *args):
        """Have function(*args) called by a thread; returns the Task."""
        while not ready([self._tasks[1]], select.POLLOUT, 0):
            self.listen()           # write() would hear of no failure, and of no signal
        task = Task()
        self._unfinished.append(None)
        if len(self._threads) < min(self.jobs, len(self._unfinished)):
            self._add_thread()
        self._queue.append((task, functools.partial(function, *args)))
        os.write(self._tasks[1], b'.')
        return task

    def _add_thread(self):
        thread = Thread(self._work)
        self._threads.append(thread)    # first, since a signal may come when it runs
        try:
            thread.start()
        except RuntimeError:        # no more threads to be had; those we have will do
            self._threads.remove(thread)
            if not self._threads:
                raise Error('cannot start a thread: ulimit -u, or memory, is too small') from None

    def wait(self, task):
        """Wait until *task* is done; returns its value."""
        while not task.done:
            self.listen()
        self._raise()
        return task.value

    def drain(self):
        """Wait until all tasks are done."""
        while self._unfinished:
            self.listen()
        self._raise()

    def listen(self, *descriptors):
        """Wait for news from a thread, or until one of *descriptors* can be read, or for a moment;
        returns whether one can.  Raises if a task has failed."""
        bucket, start = self._bucket, self._bucket.monotonic()
        self._raise()
        bucket.signals.poll()
        found = ready((self._news[0],) + descriptors, select.POLLIN, 0.1)
        if self._news[0] in found:
            os.read(self._news[0], 4096)
        if not found and (any(thread.ended for thread in self._threads) or (
                self._unfinished and not self._alive())):
            raise MemoryError('a thread died')
        if not descriptors:         # else it is the stream that was waited for
            now = bucket.monotonic()
            self._pace.look(now, bucket.limit.moved - bucket.tally.wasted, now - start,
                            bucket.limit.rate, time.process_time() / (os.cpu_count() or 1))
        return any(each in found for each in descriptors)

    def _raise(self):
        if self._failures:
            raise self._failures[0]

    def stop(self, worth_waiting=lambda: False):
        """Break off all tasks, at once or when none is *worth_waiting* for, and return when no
        thread can send anything any more."""
        self._stopped = True
        os.write(self._tasks[1], b'.' * len(self._threads))
        wait_until(lambda: not self._alive() or not worth_waiting(), GRACE)
        for connection in list(self._connections):
            connection.cancel()
        wait_until(lambda: all(each.unsent is None for each in list(self._connections)), GRACE)
        # a thread that looks up a name does no more than that
        if wait_until(lambda: not self._alive(), GRACE / 5):
            for descriptor in self._tasks + self._news:
                os.close(descriptor)

    def _alive(self):
        return any(thread.alive for thread in self._threads)

    def _work(self):
        connection = self._bucket.connection()
        self._connections.append(connection)
        while os.read(self._tasks[0], 1) and not self._stopped:
            task, call = self._queue.popleft()
            try:
                task.value = call()
            except BaseException as error:      # the main thread has to hear of all
                self._failures.append(error)
            call, task.done = None, True
            self._unfinished.pop()
            with contextlib.suppress(BlockingIOError):
                os.write(self._news[1], b'.')
        connection.close()
        self._connections.remove(connection)


# --------------------------------------------------------------------------- Retries

class Retries:
    """How often and how long one request is tried again.

    Pauses are random between nothing and a bound that doubles from 0.1 s (from 1 s where
    the server asks for slower requests) to 20 s ("full jitter"), and in an outage of hours to a
    60th of that, 5 min at most.  Attempts end after patience() seconds without progress, or with
    the fifth answer that makes no sense or says that the data were damaged on their way.
    """

    def __init__(self, patience, clock):
        self._patience, self._clock = patience, clock
        self.attempts = 0
        self.lessons = 3            # how often a refusal may still teach us something
        self.moved = False          # whether bytes came that needn't come again
        self.transient = ()         # more codes of refusals that may pass
        self.lasted = 0             # seconds without progress
        self._failures, self._wrong, self._since = 0, 0, None

    def pause(self, error, sent=0):
        """Count an attempt that *sent* so many bytes and ended in *error*; returns the seconds to
        wait before the next, or None where it is final."""
        self.attempts += 1
        now = self._clock()
        if self._since is None or self.moved:
            self._failures, self._since, self.moved = 0, now, False
        elif sent > SOCKET_BUFFER and self._failures < 100:     # but not for ever
            self._since = now       # a long part on a slow link: bytes moved, if in vain
        passing = getattr(error, 'code', '') in self.transient
        most = NO_END if passing else most_tries(error)
        self._wrong += most < NO_END
        self.lasted = now - self._since
        left = min(self._patience(), COMPLETE_TIMEOUT if passing else NO_END) - self.lasted
        if left < 0.001 or self._wrong >= min(most, 5):
            return None
        self._failures += 1
        bound = min(max(20, min(self.lasted / 60, 300)),
                    (1 if too_fast(error) else 0.1) * 2 ** min(self._failures - 1, 12))
        import random               # here, since most transfers have no retries
        return min(left, max(random.uniform(0, bound), getattr(error, 'retry_after', 0)))


NO_END = float('inf')               # of tries, or of seconds

# What may pass, by status and by code.  Sources: RFC 7231, section 6; RFC 6585 (429, 511); RFC 4918
# (507); Amazon S3 API Reference, "List of error codes".  499 is nginx's, for a client that it
# believes gone; the four 5xx that are left out need somebody to act.
TRANSIENT_STATUS = {408, 429, 499} | set(range(500, 600)) - {501, 505, 507, 511}
TRANSIENT_CODES = {'SlowDown', 'InternalError', 'RequestTimeout', 'OperationAborted',
                   'ServiceUnavailable', 'ConditionalRequestConflict',
                   'IncompleteBody'}        # a proxy cut the connection
DAMAGED_CODES = {'BadDigest', 'XAmzContentSHA256Mismatch', 'XAmzContentChecksumMismatch'}
EXPIRED_CODES = {'ExpiredToken', 'ExpiredTokenException', 'TokenRefreshRequired', 'InvalidToken',
                 'InvalidAccessKeyId'}  # the last where somebody rotates keys in a file
NO_TLS = ('WRONG_VERSION_NUMBER|protocol version|unsupported protocol|wrong ssl version|'
          'version too low|no protocols available|legacy (sigalg|renegotiation)')


def too_fast(error):
    """Whether the server asks for slower requests."""
    return getattr(error, 'code', '') == 'SlowDown' or getattr(error, 'status', 0) in (429, 503)


def most_tries(error):
    """Return how often a request may end in *error*: once, five times, or without end."""
    if isinstance(error, ResponseError):
        if error.status in TRANSIENT_STATUS or error.code in TRANSIENT_CODES:
            return NO_END
        return 5 if error.status == 200 or error.code in DAMAGED_CODES or (
            error.code == 'RequestTimeTooSkewed') else 1    # it waited in a queue
    if isinstance(error, OSError):
        return 1 if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM) or re.search(
            'CERTIFICATE_VERIFY_FAILED|Tunnel connection failed: 4(?!08|29)|' + NO_TLS, str(error)
        ) else NO_END
    if isinstance(error, (http.client.IncompleteRead, NetworkError)):
        return NO_END               # the latter is of a source of credentials
    return 5 if isinstance(error, (http.client.HTTPException, BadAnswer)) else 1


def brief(error):
    """Return the cause of a failed attempt, in a few words."""
    if isinstance(error, ResponseError):
        return '%s (%d)' % (printable(error.code, 100), error.status)
    if isinstance(error, socket.timeout):
        return 'no answer in time'
    if isinstance(error, http.client.IncompleteRead):
        return 'the answer broke off'
    text = printable(getattr(error, 'strerror', None) or str(error) or type(error).__name__, 300)
    return "the server's certificate is not accepted: " * ('VERIFY_FAILED' in text) + text


def network_error(what, endpoint, proxy, error, attempts, now, ca_bundle=None):
    """Return the NetworkError that explains *error* in a line."""
    reason = brief(error)
    if attempts > 1 or most_tries(error) == 1:      # once only: it is optional
        reason += network_hint(endpoint, proxy, error, now, ca_bundle)
    through = ' through the proxy %s:%d' % proxy[:2] if proxy else ''
    tried = ' (gave up after %d attempts)' % attempts if attempts > 1 else ''
    return NetworkError(printable('%s: %s%s: %s%s' % (
        what, endpoint.authority, through, reason, tried)))


def network_hint(endpoint, proxy, error, now, ca_bundle):
    """Return what to do about *error*: by the first row that fits its name and text, or ''."""
    ca = ('; ca_bundle %s must hold the CA that signed it (a folder after `openssl rehash`)'
          % ca_bundle if ca_bundle else '; ca_bundle names the CA of a server of your own')
    clock = time.strftime('; is the clock right? it says %Y-%m-%d %H:%M UTC', time.gmtime(now))
    rows = (
        ('VERIFY_FAILED.*([Hh]ostname|IP address)', '; the host of endpoint must be a name in it: '
         "`addressing path` keeps the bucket's name out"),
        ('VERIFY_FAILED.*(expired|not yet valid)', clock + '; if so, the server needs another one'),
        (r'VERIFY_FAILED.*verify failed \(', clock + ca),      # Python 3.6 doesn't say why
        ('VERIFY_FAILED.*(issuer|self.signed)', ca),
        ('VERIFY_FAILED', '' if ca_bundle else ca),
        ('WRONG_VERSION_NUMBER', '; the server does not speak TLS: is it an http:// endpoint?'),
        (NO_TLS, '; the server and this Python (%s) have no version of TLS in common: both need '
         'TLS 1.2 or newer' % getattr(ssl, 'OPENSSL_VERSION', '')),
        ('SSL|TLS was', '; does the server speak TLS at this port, or is it an http:// endpoint?'),
        ('gaierror', '; check the name %s, and that this machine can look up names'
         % (proxy or endpoint).host),
        ('ConnectionReset', '; is it an https:// endpoint?' * (
            endpoint.scheme == 'http' and not getattr(endpoint, 'answered', False))),
        ('ConnectionRefused', '; nothing answers at this port: check the %s'
         % ('proxy' if proxy else 'endpoint')),
        ('[Tt]imeout', '' if proxy else '; is a firewall or a proxy in between?'))
    text = '%s %s' % (type(error).__name__, error)
    return next((hint for pattern, hint in rows if re.search(pattern, text)), '')


def duration(seconds):
    """Return text like 3 days, 5 h or 40 s: one number is enough."""
    for unit, name in ((86400 * 365.25, 'years'), (86400, 'days'), (3600, 'h'), (60, 'min')):
        if seconds >= 2 * unit:
            return '%d %s' % (seconds / unit, name)
    return '%d s' % seconds


# ----------------------------------------------------------------------- Credentials
# Where the credentials that sign a request come from, and how they are kept fresh.
# Sources: AWS SDKs and Tools Reference Guide, "Standardized credential providers"; Amazon EC2
# User Guide, "Use the Instance Metadata Service"; AWS STS API Reference.

class Credentials(collections.namedtuple(
        'Credentials', 'access_key_id secret_access_key session_token expires')):
    """An access key id and its secret; of temporary ones also a session token, and when they
    expire, in seconds since the epoch, if that is known."""

    def __repr__(self):             # a namedtuple's would tell the secret
        return 'Credentials(%r)' % self.access_key_id


Credentials.__new__.__defaults__ = None, None


class Absent(Exception):
    """This source is not configured; the message says what is missing."""


def make_credentials(where, settings, names):
    """Return the Credentials that *settings* has by these *names*; raises Absent, ConfigError."""
    key, secret, token = (settings.get(name) or None for name in names)
    if not key and not secret:
        raise Absent('no %s in %s' % (names[0], where))
    if not key or not secret:
        raise ConfigError('%s is incomplete: %s is missing' % (where, names[1 if key else 0]))
    for name, parse in zip(names, (parse_word, parse_secret, parse_word)):
        try:
            parse(settings.get(name) or 'none')
        except (ValueError, TypeError):
            raise ConfigError('%s in %s is not text that can be signed with' % (
                name, where)) from None
    return Credentials(key, secret, token, parse_expiration(settings.get('Expiration')))


def parse_credentials(where, answer, token):
    """Return the Credentials in an Answer of JSON; *token*: its name for the session token."""
    import json                     # here, since most credentials are in a file of ours
    if answer.status != 200:
        raise ConfigError('%s answers %d' % (where, answer.status))
    try:
        document = json.loads(answer.body.decode())
        if document.get('Code', 'Success') != 'Success':
            raise ConfigError(printable('%s: %s: %s' % (
                where, document['Code'], document.get('Message'))))
        return make_credentials(where, document, ('AccessKeyId', 'SecretAccessKey', token))
    except (ValueError, TypeError, AttributeError, RecursionError, Absent):
        raise ConfigError('%s: the answer is not a JSON document with credentials'
                          % where) from None


def exit_status(process):
    """Do as Popen.poll(), but raise ChildProcessError if the status is lost, as when our parent
    ignores SIGCHLD, where that returns 0."""
    if process.returncode is None:
        pid, status = os.waitpid(process.pid, os.WNOHANG)
        if pid:
            process.returncode = (
                -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
    return process.returncode


def parse_expiration(text):
    """Return the seconds since the epoch of an ISO 8601 time, None for none; raises ValueError."""
    if not text:
        return None
    match = re.match(r'[-0-9]{10}[T ][:0-9]{8}(?:[.,][0-9]+)?(?:Z|([+-][0-9]{2}):?([0-9]{2}))\Z',
                     text)
    if not match:
        raise ValueError('%r is not a time' % text)
    hours, minutes = match.group(1) or '+0', match.group(2) or '0'
    return parse_time(text) - 3600 * int(hours) - 60 * int(hours[0] + minutes)


# The sources return Credentials or raise Absent, ConfigError or NetworkError.  They are given the
# settings, the environment, the Bucket, whether they are asked again, and the names of profiles:
# of the one that is meant ('': nobody asked for one), behind those that name it as their source.
Given = collections.namedtuple('Given', 'config environ bucket again profiles')

PROCESS_TIMEOUT = 60                # seconds
INSTANCE_TIMEOUT = 1                # the service is on this machine, or nowhere
CONTAINER_TIMEOUT = 5
CONTAINER_HOSTS = r'169\.254\.170\.23?|\[fd00:ec2::23\]|localhost|127(\.[0-9]{1,3}){3}|\[::1\]'


def from_configuration(given):
    path = given.config.get('path')
    config = read_config(path) if given.again and path else given.config
    return make_credentials('the configuration', config, (
        'access_key_id', 'secret_access_key', 'session_token'))


def from_environment(given):
    found = make_credentials('the environment', given.environ, (
        'AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'AWS_SECURITY_TOKEN' if given.environ.get(
            'AWS_SECURITY_TOKEN') else 'AWS_SESSION_TOKEN'))
    if given.profiles[-1]:
        chosen_profile(given)       # one that is missing is not passed over in silence
    return found


def chosen_profile(given):
    name = given.profiles[-1]
    profile = read_profile(name, given.environ)
    if name and profile is None:
        raise ConfigError(printable('there is no profile %s in %s or %s' % (
            name, *aws_files(given.environ))))
    return name or 'default', profile or {}


def from_role(given):
    name, profile = chosen_profile(given)
    if 'role_arn' not in profile or 'web_identity_token_file' in profile or (
            given.profiles[:-1] and 'aws_access_key_id' in profile):
        raise Absent('no role_arn in profile %s' % name)
    where = printable('role_arn of profile %s' % name)
    source, sources = profile.get('source_profile'), OF_PROFILE
    if 'mfa_serial' in profile:
        raise ConfigError('%s wants a code (mfa_serial), which cannot be typed here: use '
                          'credential_process' % where)
    if source in given.profiles[:-1]:
        raise ConfigError('%s: the profiles refer to each other' % where)
    if source:
        given = given._replace(profiles=given.profiles + (source,))
    else:
        sources = CREDENTIAL_SOURCES.get(profile.get('credential_source'))
    if not sources:
        raise ConfigError('%s has neither source_profile nor a known credential_source' % where)
    signer, _ = first_of(sources, given, where + ': ')
    return assume_role(given, where, signer, RoleArn=profile['role_arn'],
                       RoleSessionName=profile.get('role_session_name'),
                       ExternalId=profile.get('external_id'),
                       DurationSeconds=profile.get('duration_seconds'))


def from_web_identity(given, environ=None):
    name, profile = chosen_profile(given)
    environ = given.environ if environ is None else environ
    path, role, session = (environ.get('AWS_' + setting.upper()) or profile.get(setting) for
                           setting in ('web_identity_token_file', 'role_arn', 'role_session_name'))
    if not path:
        raise Absent('no AWS_WEB_IDENTITY_TOKEN_FILE')
    if not role:
        raise ConfigError(printable('AWS_WEB_IDENTITY_TOKEN_FILE, or web_identity_token_file of '
                                    'profile %s, needs AWS_ROLE_ARN or role_arn' % name))
    return assume_role(given, 'web identity', None, RoleArn=role, RoleSessionName=session,
                       WebIdentityToken=read_text(path).strip())


def from_profile(given):
    name, profile = chosen_profile(given)
    where = printable('profile %s' % name)
    if not profile:
        raise Absent('no %s in %s or %s' % (where, *aws_files(given.environ)))
    if 'web_identity_token_file' in profile:
        return from_web_identity(given, environ={})
    if 'credential_process' in profile and 'aws_access_key_id' not in profile:
        return from_process(given, 'credential_process of ' + where, profile['credential_process'])
    try:
        return make_credentials(where, profile, PROFILE_KEY)
    except Absent:                  # who names a way doesn't want to become whom the machine is
        for setting in sorted(profile):
            if setting.startswith(('login_', 'sso_')):
                raise ConfigError(printable(
                    '%s has %s: make a profile with the line `credential_process = aws configure '
                    'export-credentials --profile %s`, which needs version 2 of the AWS CLI, and '
                    'use that profile' % (where, setting, name)))
            if setting in ('aws_access_key_id', 'credential_source', 'source_profile'):
                raise ConfigError('%s has %s, but no %s' % (
                    where, setting, 'value for it' if 'key' in setting else 'role_arn'))
        raise


def assume_role(given, where, signer, **role):
    """Return Credentials that STS gives to the *signer* of the request, or (None) for a token."""
    config = given.config           # whose region stays, though the bucket's turns out another
    url = config.get('sts_endpoint') or aws_url('sts', config['region'], config)
    action = 'AssumeRole' if signer else 'AssumeRoleWithWebIdentity'
    query = dict({'Action': action, 'Version': '2011-06-15', 'RoleSessionName': 's3dump'},
                 **{name: value for name, value in role.items() if value})
    body = canonical_query(query).encode()
    headers = {'content-type': 'application/x-www-form-urlencoded'}
    answer = ask_service(given, where, url, 'POST', headers, body, signer=signer)
    try:
        if answer.status != 200:
            error = next(Document(answer.body).all('Error'))
            raise ConfigError(printable('%s: STS says %s (%d): %s' % (
                where, error.get('Code'), answer.status, error.get('Message'))))
        found = next(Document(answer.body).all(action + 'Result/Credentials'))
        return make_credentials('the answer of STS', found, (
            'AccessKeyId', 'SecretAccessKey', 'SessionToken'))
    except (BadAnswer, StopIteration, ValueError, Absent):
        raise ConfigError('%s: %s does not answer like STS (%d)' % (
            where, masked(url), answer.status)) from None


def from_process(given, where, command):
    """Return Credentials that a program prints; it may ask on the terminal that it inherits."""
    import shlex
    import subprocess
    try:
        process = subprocess.Popen(shlex.split(command), bufsize=0, stdout=subprocess.PIPE,
                                   stdin=None if os.isatty(0) else subprocess.DEVNULL)
    except (OSError, ValueError, IndexError) as error:
        raise ConfigError('%s cannot be run: %s' % (where, brief(error))) from None
    end = time.monotonic() + PROCESS_TIMEOUT
    with process:                   # which closes its output and waits for it
        try:
            while exit_status(process) is None:
                if time.monotonic() > end:
                    raise NetworkError('%s does not end within %d s, or writes more than '
                                       'credentials' % (where, PROCESS_TIMEOUT))
                given.bucket.connection().pause(0.02)
        except ChildProcessError:
            raise ConfigError('%s: how it ended is not known' % where) from None
        except BaseException:
            process.kill()
            raise
        os.set_blocking(process.stdout.fileno(), False)     # others may still keep it open
        output = process.stdout.read(64 << 10) or b''       # all that a pipe holds
    if process.returncode:
        raise ConfigError('%s ended with status %d' % (where, process.returncode))
    return parse_credentials(where, Answer(200, {}, output), 'SessionToken')


def from_container(given):
    relative = given.environ.get('AWS_CONTAINER_CREDENTIALS_RELATIVE_URI')
    url = 'http://169.254.170.2' + relative if relative else \
        given.environ.get('AWS_CONTAINER_CREDENTIALS_FULL_URI')
    if not url:
        raise Absent('no AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI')
    if not re.match(r'(?i)https:|http://(%s)(:[0-9]+)?(/|\Z)' % CONTAINER_HOSTS, url):
        raise ConfigError('AWS_CONTAINER_CREDENTIALS_FULL_URI is neither https://, nor http:// to '
                          'this machine: %s' % masked(url))
    path = given.environ.get('AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE')
    token = read_text(path).strip() if path else \
        given.environ.get('AWS_CONTAINER_AUTHORIZATION_TOKEN')
    if token and not re.match(r'[ -~]+\Z', token):
        raise ConfigError('the container authorization token cannot stand in a header')
    return parse_credentials('the container endpoint ' + masked(url), ask_service(
        given, 'the container endpoint', url, local=CONTAINER_TIMEOUT,
        headers={'authorization': token} if token else {}), 'Token')


def from_instance(given):
    name, config = 'EC2 instance role', given.config
    if (given.environ.get('AWS_EC2_METADATA_DISABLED') or '').lower() == 'true':
        raise Absent('no %s, as AWS_EC2_METADATA_DISABLED says' % name)
    found = {'metadata_service_timeout': INSTANCE_TIMEOUT, 'metadata_service_num_attempts': 3}
    for setting in found.keys() & config.keys():
        try:
            found[setting] = count_of(100)(config[setting])
        except ValueError as error:
            raise ConfigError(printable('%s: %s' % (setting, error))) from None
    local, attempts = found.values()
    mode = config.get('ec2_metadata_service_endpoint_mode', '').lower()
    url = config.get('ec2_metadata_service_endpoint', 'http://[fd00:ec2::254]' if (
        mode == 'ipv6') else 'http://169.254.169.254').rstrip('/')
    ask = functools.partial(ask_service, given, name, local=local, attempts=attempts)
    path = url + '/latest/meta-data/iam/security-credentials/'
    try:
        token = ask(url + '/latest/api/token', 'PUT', {
            'x-aws-ec2-metadata-token-ttl-seconds': '21600'})
    except NetworkError as error:
        raise Absent('no %s (%s; in a container the hop limit of the metadata options must '
                     'be 2)' % (name, error))
    if token.status != 200 or not re.match(br'[!-~]+\Z', token.body):
        raise Absent('no %s (%s gives no token for IMDSv2: %d)' % (name, masked(url), token.status))
    headers = {'x-aws-ec2-metadata-token': token.body.decode()}
    role = ask(path, headers=headers)
    names = role.body.decode('utf-8', 'replace').split()
    if role.status != 200 or not names:
        raise Absent('no %s (the instance has none, or hides it: %d)' % (name, role.status))
    return parse_credentials('%s %s' % (name, printable(names[0], 100)),
                             ask(path + uri_encode(names[0]), headers=headers), 'Token')


OF_PROFILE = from_role, from_profile
CREDENTIAL_SOURCES = {'Environment': [from_environment], 'EcsContainer': [from_container],
                      'Ec2InstanceMetadata': [from_instance]}
SOURCES = (from_configuration, from_environment, from_role, from_web_identity, from_profile,
           from_container, from_instance)


def first_of(sources, given, complaint):
    """Return Credentials from the first source that has any, and that source."""
    missing = []
    for source in sources:
        try:
            return source(given), source
        except Absent as reason:
            missing.append(str(reason))
    raise ConfigError(printable(complaint + '; '.join(missing), 2000))


Origin = collections.namedtuple('Origin', 'scheme host port authority')       # RFC 6454


def ask_service(given, where, url, method='GET', headers=(), body=b'', local=0,
                attempts=3, signer=None):
    """Send a request until it gets a sensible Answer; returns that, or raises NetworkError.  local:
    in how many seconds a service behind no proxy answers, or 0; signer: Credentials, for STS."""
    bucket = given.bucket
    authority, _, path = url.partition('//')[2].partition('/')
    origin = Origin(*split_url(where, url.partition('?')[0])[:3], authority)
    connection = Connection(bucket, origin, RateLimit(), {} if local else given.environ)
    timeout, now = local or CONNECT_TIMEOUT, bucket.now()
    headers, end = dict(headers, host=authority), time.monotonic() + bucket.timeout
    while True:
        bucket.connection().pause(0)            # raises if the transfer has failed elsewhere
        sent = dict(headers)
        if signer:
            sent[PAYLOAD_HASH] = sha256(body)
            sign_headers(signer, given.config['region'], 'sts', now, method, '/' + path, '', sent)
        try:
            with contextlib.closing(connection), connection.exchange(
                    method, '/' + path, sent, body, timeout) as response:
                answer = connection.read(response, 2 * timeout)
            ahead = (parse_date(answer.headers.get('date')) or now) - now
            if signer and answer.status != 200 and abs(ahead) > MAX_SKEW:
                now += ahead        # our clock is wrong, and S3 hasn't been asked yet
            elif answer.status < 500 and answer.status != 429 and not re.search(
                    b'<Code>(Throttling|IDPCommunicationError|RequestTimeout)', answer.body):
                return answer
            raise BadAnswer('it answers %d' % answer.status)
        except (OSError, http.client.HTTPException, BadAnswer) as error:
            attempts -= 1
            if not attempts or most_tries(error) == 1 or time.monotonic() > end:
                raise network_error(where, origin, connection.proxy, error, 1, bucket.now(),
                                    bucket.ca_bundle)
        bucket.wait(bucket.connection(), 3 * os.urandom(1)[0] / 255)


class Provider:
    """Finds credentials, and newer ones before they expire; threads read without the lock."""
    EARLY = 900                     # seconds before the end, as AWS's own SDKs
    AGAIN = 60                      # seconds after which a source is asked again
    SOON = 5                        # the same if the credentials have expired
    MARGIN = 5                      # seconds that a request may be under way

    def __init__(self, config, environ):
        self.worked = False         # whether the server has accepted any
        self._given = Given(config, environ, None, False, (profile_name(config, environ),))
        self._sources = SOURCES     # then the one that found the current ones
        if config.get('profile'):   # it goes before the environment
            self._sources = dict.fromkeys((from_configuration,) + OF_PROFILE + SOURCES)
        self._known = None, 0       # the current ones, and when to stop signing; 0: refused
        self._asked = float('-inf')     # when the source was asked last, by the monotonic clock
        self._failure = None        # why that was in vain; '': it had no others
        self._ending = None         # those of which the user was told that they expire soon
        self._missed = None         # the _known when the user was told to wait for others
        self.refusal = ''           # why the server refused some
        self.trusted_until = 0      # when a refusal without a reason is looked into again
        self._lock = threading.Lock()

    def get(self, bucket, refused=None):
        """Return the Credentials to sign with now.

        refused: those that the server calls expired or unknown.  Until any have worked, they are
        returned if the source has no others: our clock may be wrong, and the server's words
        explain more.  Raises ConfigError, and NetworkError while there are none to try, or retry.
        """
        known = current, end = self._known
        left = 0 if refused == current else end - bucket.now()
        if left > self.EARLY:
            return current
        # If this is locked another thread is asking already, for a minute at most
        if self._lock.acquire(timeout=0 if left > 0 else 2 * bucket.timeout):
            try:
                if self._known is known:
                    self._refresh(bucket, left)
                failed, (current, end) = self._failure, self._known
                if (self.worked or failed and end) and (
                        end == 0 or current == refused or failed and left <= 0):
                    self._miss(bucket, refused)
            finally:
                self._lock.release()
        return self._known[0]

    def accepted(self, credentials):
        self.worked = True
        if self._known[0] == credentials and self._known != self._missed:
            self._failure, self._missed = self._failure and None, None

    def _refresh(self, bucket, left):
        """Ask the source for newer Credentials, unless that was in vain just now; left: the seconds
        that the current ones may be used, 0 if they are refused."""
        current, given = self._known[0], self._given._replace(bucket=bucket)
        if left == 0:
            self._known, self.trusted_until = (current, 0), 0
        if bucket.monotonic() - self._asked < (self.AGAIN if left > 0 else
                                               0 if self._failure is None else self.SOON):
            return
        try:
            found, source = first_of(self._sources, given, '' if given.again else (
                'no credentials: write access_key_id and secret_access_key into %s; there is '
                % printable(given.config.get('path', '~/.s3keys'))))
        except (ConfigError, NetworkError) as error:
            if current is None:
                raise
            self._failure, self._asked = str(error), bucket.monotonic()     # it may take a minute
            if 0 < left < self.EARLY / 3 and self._ending != current:
                self._ending = current
                bucket.report('warning', 'the credentials expire in %s, and there are no newer '
                              'ones yet: %s' % (duration(left), error))
            return
        # Those of another source would be somebody else's
        self._sources, self._given = [source], given._replace(again=True)
        self._asked = bucket.monotonic()
        # In place of refused ones others may be refused as well: see accepted()
        self._failure = None if current is None or found != current and left else ''
        end = found.expires or float('inf')
        if found != current or (left < 0 == self._known[1] and end > bucket.now()):     # retry
            self._known = found, end - min(self.MARGIN, abs(end - bucket.now()) / 4)

    def _miss(self, bucket, refused):
        text = '%s, and there are no newer ones: %s' % (
            self.refusal if refused == self._known[0] or not self._known[1] else
            'the credentials have expired', self._failure or 'their source has the same')
        if self._missed is None and bucket.patience > TIDY_TIME:    # else nothing waits for them
            self._missed = self._known
            bucket.report('warning', '%s; waiting up to %s for that to change' % (
                text, duration(bucket.patience_now())))
        raise NetworkError(text)


# -------------------------------------------------------------------------- Requests

class Request:
    """A request of one thread, signed anew for each attempt, and tried until it is answered.

    operation: its name in S3's documentation; key: of the object, '' for the bucket; query,
    headers: dicts, the latter with x-amz-content-sha256 if that isn't to be the body's; body:
    bytes-like; timeout: seconds of silence, None: the Bucket's; patience: seconds without
    progress, at most.
    """

    def __init__(self, bucket, operation, method, key='', query=(), headers=(), body=b'',
                 timeout=None, patience=float('inf')):
        self.headers = dict({} if operation == 'CreateBucket' else bucket.request_headers,
                            **dict(headers))        # nobody owns a new bucket yet
        self._bucket, self._connection = bucket, bucket.connection()
        self._method, self._key, self._query, self._body = method, key, dict(query), body
        if isinstance(key, Key):
            operation, self._query['versionId'] = operation + 'Version', key.version
        self.label = operation + (' ' + quoted(key, 300) if key else '')    # for messages
        if PAYLOAD_HASH not in self.headers:
            self.headers[PAYLOAD_HASH] = sha256(body)
        self._timeout = timeout or bucket.timeout
        self.retries = Retries(lambda: min(patience, bucket.patience_now()), bucket.monotonic)
        self._signed = None         # the Signed of the last attempt
        self._doubt = False         # whether an attempt that failed may have done the work

    @property
    def in_doubt(self):
        """Whether the work may be done: an attempt was sent whole, and its answer is missing."""
        return self._doubt or self._connection.unsent == 0

    @property
    def awaited(self):
        """Whether the work may yet be done: an attempt has begun, or an earlier one is in doubt."""
        return self._doubt or self._connection.unsent is not None

    def run(self, accept=lambda answer: answer, before=lambda: False):
        """Repeat the request until accept() takes the Answer; returns what accept() returned."""
        def take(response):
            self.raise_for_status(response)
            return accept(self._connection.read(response))
        return self.stream(take, before)

    def stream(self, use, before=lambda: False):
        """Repeat the request until use() takes the response; returns what use() returned.

        before: called before each attempt; if it returns true nothing is left to do, and None is
        returned.  Raises ResponseError, NetworkError, BadAnswer.
        """
        while not before():
            try:
                with self._bucket.tally.waiting(self._connection), \
                        self._connection.exchange(*self._sign()) as response:
                    return use(response)
            except (OSError, http.client.HTTPException, Error) as error:
                self._failed(error)

    def _sign(self):
        bucket, endpoint = self._bucket, self._bucket.endpoint
        credentials = bucket.credentials.get(bucket)
        self._signed = bucket.signed_for(credentials)
        target, query = endpoint.target(self._key), canonical_query(self._query)
        headers = dict(self.headers, host=endpoint.authority)
        if bucket.retain and 'x-amz-object-lock-mode' in headers:   # by the clock as it is known
            headers['x-amz-object-lock-retain-until-date'] = utc(
                bucket.now() + 86400 * bucket.retain[1])
        sign_headers(credentials, endpoint.region, endpoint.service, bucket.now(),
                     self._method, target, query, headers)
        headers['user-agent'] = 's3dump/' + __version__
        return self._method, target + (query and '?' + query), headers, self._body, self._timeout

    def raise_for_status(self, response):
        """Raise ResponseError if *response* is a refusal."""
        self._bucket.endpoint.answered = True
        self._bucket.report('trace', '%s: %d' % (self.label, response.status))
        if response.status >= 300:
            raise parse_error(self.label, self._connection.read(response))
        self._bucket.credentials.accepted(self._signed.credentials)

    def _failed(self, error):
        """Wait until the request may be sent again after *error*; raises what is final."""
        connection, refused = self._connection, isinstance(error, ResponseError)
        connection.go_home_if_cancelled()
        self._doubt |= connection.unsent == 0 and (not refused or maybe_done(error))
        sent = 0 if connection.unsent is None else max(0, len(self._body) - connection.unsent)
        self._bucket.tally.add(wasted=sent)
        connection.unsent = None
        if refused:
            try:
                if self._method == 'HEAD':
                    error = self._ask_why(error)
                if self._learn(error):
                    return
            except NetworkError as failure:     # no credentials now, or HEAD alone was refused
                error, sent = failure, 0
            except BadAnswer as failure:        # a redirect that isn't followed
                raise self._final(failure)
        elif isinstance(error, OSError):
            if connection.reused and not (self.retries.attempts or self.retries.moved):
                self.retries.attempts = 1   # the connection had idled too long: no fault, no pause
                return
            if self._bucket.endpoint.answered and re.search(NO_TLS, str(error)):
                error = OSError(errno.EPROTO, 'TLS was damaged on its way')
        if too_fast(error):
            self._bucket.tally.slowed.append(self._bucket.monotonic())
        pause = self.retries.pause(error, sent)
        if pause is None:
            raise self._final(error)
        self._wait(error, pause)

    def _learn(self, error):
        """Learn from a refusal; returns whether the request can succeed now, and is repeated."""
        if error.status == 501 and self.headers.pop('if-none-match', None):
            return True
        if error.status == 400 and 'content-md5' in error.message.lower():
            self._bucket.endpoint.wants_md5, digest = True, digest_header(self._body)
            lacking = not digest.keys() <= self.headers.keys()
            self.headers.update(digest)
            return lacking
        if not self.retries.lessons or not self._bucket.learn(error, self._signed):
            return False
        if error.code not in EXPIRED_CODES or not self._bucket.credentials.worked:
            self.retries.lessons -= 1       # else Provider tells how often, and how long
        return True

    def _ask_why(self, error):
        """Return why a HEAD was refused, as a GET may tell; NetworkError: only for a moment."""
        # A 403 may come of a wrong clock, or of credentials that were replaced; but those that may
        # only write get one each time, and aren't to ask twice as often for that
        credentials, now = self._bucket.credentials, self._bucket.monotonic()
        if now < credentials.trusted_until if error.bare_403 else (
                error.status != 400 or error.region not in ('', self._signed.region)):
            return error
        get = copy.copy(self)
        get._method, get.headers = 'GET', dict(self.headers, range='bytes=0-0')
        try:
            with self._connection.exchange(*get._sign()) as response:
                if response.status != 416:      # an empty object has no first byte
                    get.raise_for_status(response)
        except ResponseError as told:
            if told.status <= 404:      # not 405, which only tells of the GET
                error = told
        except (OSError, http.client.HTTPException, BadAnswer):
            pass
        else:
            if self.retries.lessons:
                self.retries.lessons -= 1
                raise NetworkError('the HEAD was refused, and not the GET after it')
        self._connection.unsent = None
        if error.status == 403 and error.code not in EXPIRED_CODES:
            credentials.trusted_until = now + credentials.AGAIN
        return error

    def _wait(self, error, pause):
        bucket, connection = self._bucket, self._connection
        bucket.report('retry', '%s: %s; next try in %.1f s' % (self.label, brief(error), pause))
        if self.retries.lasted >= 3600 and bucket.tally.hour_passed(bucket.monotonic()):
            bucket.report('warning', '%s: nothing has moved for %s: %s; giving up after %s' % (
                self.label, duration(self.retries.lasted), brief(error),
                duration(bucket.patience_now())))
        bucket.tally.add(retries=1)
        with bucket.tally.waiting(connection, brief(error), pause):
            bucket.wait(connection, pause)

    def _final(self, error):
        attempts = self.retries.attempts
        if isinstance(error, ResponseError):
            if self.headers[PAYLOAD_HASH] == UNSIGNED_PAYLOAD and re.search(
                    '(?i)denied|sha256|payload', error.code + error.message):
                error.hint = '; '.join(filter(None, (error.hint, UNSIGNED)))
            if attempts > 1:
                error.message = (error.message + ' (gave up after %d attempts)' % attempts).lstrip()
            return error
        if isinstance(error, (BadAnswer, NetworkError)):
            return type(error)('%s: %s' % (self.label, error))
        return error if isinstance(error, Error) else network_error(
            self.label, self._bucket.endpoint, self._connection.proxy, error, attempts,
            self._bucket.now(), self._bucket.ca_bundle)


# ---------------------------------------------------------------------------- Bucket

class Tally:
    """Counts how a transfer goes, for those who show it.

    retries: requests that were tried again; wasted: bytes that were sent in vain; slowed: when
    the server asked for slower requests, by the monotonic clock; waits: who waits, {anything:
    (for what, since when by that clock, seconds)}.  For what: '', an answer; 'the stream' or
    'the reader'; or, with seconds, the next try, and why.
    """

    def __init__(self):
        self.retries = self.wasted = 0
        self.slowed = collections.deque(maxlen=MOST_JOBS)
        self.waits, self._told, self._lock = {}, float('-inf'), threading.Lock()

    @contextlib.contextmanager
    def waiting(self, who, what='', seconds=0):
        """Note, as long as this context lasts, that *who* waits."""
        self.waits[who] = what, time.monotonic(), seconds
        try:
            yield
        finally:
            del self.waits[who]

    def add(self, retries=0, wasted=0):
        """Add to the counts."""
        with self._lock:
            self.retries += retries
            self.wasted += wasted

    def hour_passed(self, now):
        """Whether an hour has passed, by the monotonic clock, since this was last true."""
        with self._lock:
            passed = now - self._told >= 3600
            self._told = now if passed else self._told
            return passed


Signed = collections.namedtuple('Signed', 'credentials offset region scheme authority')

Stored = collections.namedtuple('Stored', 'key size parts objects')
Stored.__doc__ = 'A stream: its size in bytes, and how many objects it became, end mark included.'


class Head:
    """What the server tells about an object.

    size: in bytes; crc32: int or None; modified: in seconds since the epoch, 0 if unknown;
    archived: the class or tier by which it can't be read, else false: see Bucket.readable();
    restoring: whether it is being made readable; dump_id: a name that only the objects of one dump
    have in common, or ''; has_metadata: whether it has that of a dump, which a copy may have lost;
    full: whether it is as large as can be, so that volumes or an end mark must follow; alone:
    whether it certainly has no volumes, since it could be larger.
    """

    def __init__(self, headers):
        self.headers = headers
        size, self.etag = headers.get('content-length') or '', headers.get('etag') or ''
        if not self.etag or not re.match('[0-9]{1,19}\\Z', size):
            raise BadAnswer('an answer without an ETag or a size is not from S3')
        self.size = int(size)
        self.modified = parse_date(headers.get('last-modified')) or 0
        self.storage_class = headers.get('x-amz-storage-class') or 'STANDARD'
        restore = headers.get('x-amz-restore') or ''
        self.restoring = 'ongoing-request="true"' in restore
        self.archived = 'ongoing-request="false"' not in restore and (
            headers.get('x-amz-archive-status')
            or self.storage_class * (self.storage_class in ('GLACIER', 'DEEP_ARCHIVE')))
        self.dump_id, most = headers.get('x-amz-meta-dump-id') or '', self.number('volume-size')
        self.has_metadata = bool(self.dump_id or most)
        self.full, self.alone = 0 < most <= self.size, self.size < most

    @property
    def crc32(self):
        """The checksum of the whole, or None.  A COMPOSITE one, which ends in -N, is none."""
        text = self.headers.get('x-amz-checksum-crc32') or ''
        if self.headers.get('x-amz-checksum-type') != 'COMPOSITE' and re.fullmatch(
                '[A-Za-z0-9+/]{6}==', text):
            return int.from_bytes(base64.b64decode(text), 'big')

    def number(self, name):
        """Return the metadata *name* as a number, or 0."""
        text = self.headers.get('x-amz-meta-' + name) or ''
        return int(text) if re.match(r'[0-9]{1,18}\Z', text) else 0

    @property
    def locked_until(self):
        """The end of its Object Lock, in seconds since the epoch; 0: none, infinity: legal hold."""
        if self.headers.get('x-amz-object-lock-legal-hold') == 'ON':
            return float('inf')
        with contextlib.suppress(ValueError):
            return parse_expiration(self.headers.get('x-amz-object-lock-retain-until-date')) or 0
        return 0


# The refusals of a LocationConstraint: of Ceph, Zenko and MinIO, of servers that take no body
# there, of the Versity gateway, of whoever doesn't know the request.
PLACELESS_CODES = ('InvalidLocationConstraint', 'MalformedXML',
                   'IllegalLocationConstraintException', 'NotImplemented')


class Bucket:
    """A bucket, and all that can be done with it.

    config: settings as from load_config(); environ: holds the AWS variables; report: called by
    any thread with a kind and a line: 'trace' for each request, 'retry' for each pause,
    'warning' for what the user should know, 'doubt' for a warning that an upload which failed
    may be there all the same; it must not call the Bucket; clock: seconds since the epoch;
    monotonic and wait(connection, seconds): for pauses; signals: as NoSignals.

    Methods raise ResponseError, NetworkError, BadAnswer, and the errors that their docstrings
    name.  The constructor looks for credentials, over the network if need be, and raises
    ConfigError, NetworkError.  Several threads may use one Bucket: each has its own connection.

    Attributes of use to a caller: jobs, part_size and max_parts; the seconds that may pass without
    progress (patience), without a byte (timeout), until a completion is answered
    (complete_timeout), and until an answer that has begun is whole (answer_timeout); limit, the
    RateLimit; tally, a Tally; retain, None or the mode and the days of an Object Lock for what
    is stored; offset, the seconds that the server's clock is ahead of ours; at, None, or the time,
    in seconds since the epoch, as at which list_objects() shows a bucket that keeps versions, or
    UNDELETED: as if delete markers hid nothing; hides, whether a deletion only hid an object.
    """

    def __init__(self, config, environ=None, report=lambda kind, text: None,
                 clock=time.time, monotonic=time.monotonic, wait=Connection.pause,
                 signals=NoSignals()):
        environ = os.environ if environ is None else environ    # pydoc would show a default
        config = with_environment(config, environ)
        self.endpoint = Endpoint(config)
        self._config = config = dict(known_server(self.endpoint.domain) or {}, **{
            name: value for name, value in config.items()
            if value != 'auto' or name in ('profile', 'region')})
        self.request_headers = configured_headers(REQUEST_HEADERS, config)
        self.jobs = config.get('jobs', JOBS)
        self.part_size = config.get('part_size', PART_SIZE)
        self.max_parts = config.get('max_parts', MAX_PARTS)
        self.checksum = config.get('checksum', 'crc32' if self.endpoint.aws else 'none') == 'crc32'
        self.opaque_etags = config.get('etag') == 'opaque'      # whether they tell nothing
        self.ca_bundle = ca_bundle = config.get('ca_bundle')
        self.limit = RateLimit(config.get('limit_rate'), sharers=self.jobs)
        self.patience, self.timeout = config.get('patience', PATIENCE), TIMEOUT
        self.complete_timeout = self.answer_timeout = COMPLETE_TIMEOUT
        self.tally, self.retain = Tally(), None
        self.report, self.signals, self.offset, self._first = report, signals, 0, FIRST_PATIENCE
        self.at, self.hides = None, False
        self._clock, self.monotonic, self.wait, self._begun = clock, monotonic, wait, monotonic()
        self._environ = environ
        self.tls = functools.lru_cache(1)(lambda: tls_context(ca_bundle))   # for all connections
        self._local = threading.local()
        self.credentials = Provider(config, environ)
        self.credentials.get(self)  # fail before a stream begins that can't be stored
        find_proxy(environ, self.endpoint.scheme, self.endpoint.host)

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.close()

    def close(self):
        """Close this thread's connection."""
        self.connection().close()

    def hasty(self):
        """Return an impatient copy without a rate limit, for one thread that tidies up."""
        hasty = copy.copy(self)
        hasty.patience = hasty.timeout = hasty.complete_timeout = 2 * TIDY_TIME / 3
        hasty.answer_timeout = hasty.timeout
        hasty.limit, hasty.signals, hasty._local = RateLimit(), NoSignals(), threading.local()
        return hasty

    # For a Request

    def now(self):
        """Return the seconds since the epoch, by the server's clock as far as it is known."""
        return self._clock() + self.offset

    def most_jobs(self):
        """Return how many parts may be in flight at most."""
        return self._config.get('jobs') or most_jobs(self.part_size, available_memory())

    def patience_now(self):
        """Return the seconds without progress after which a request fails now."""
        first = PATIENCE if self.monotonic() > self._begun + PATIENCE else self._first
        return self.patience if self.endpoint.answered else min(self.patience, first)

    def connection(self):
        """Return the Connection of the calling thread."""
        if not hasattr(self._local, 'connection'):
            self._local.connection = Connection(self, self.endpoint, self.limit, self._environ)
        return self._local.connection

    def signed_for(self, credentials):
        """Return what a request is signed for, and with: a Signed."""
        place = self.endpoint
        return Signed(credentials, self.offset, place.region, place.scheme, place.authority)

    def learn(self, error, signed):
        """Learn clock, region, host or credentials from a refusal; returns whether to try again."""
        credentials = signed.credentials
        if error.code in EXPIRED_CODES or error.code == 'AccessDenied' and (
                credentials.expires or NO_END) < self.now():
            self.credentials.refusal = 'the server refuses the credentials (%s)' % error.code
            credentials = self.credentials.get(self, refused=credentials)
        elif error.bare_403:        # another thread may have replaced them
            credentials = self.credentials.get(self)
        with self.endpoint.lock:
            if error.code == 'RequestTimeTooSkewed' or error.bare_403:
                ahead = error.date - self.now() if error.date else 0
                if abs(ahead) > MAX_SKEW:
                    self.offset += ahead
                    if abs(self.offset) > MAX_SKEW:     # else it was set right since
                        self.report('warning', "this machine's clock is off by %s: going by the "
                                    "server's" % duration(abs(self.offset)))
            elif error.status in (301, 302, 307, 308, 400) and (error.region or error.location):
                self.endpoint.move(error.region, error.location)
            return signed != self.signed_for(credentials)

    def learn_clock(self):
        """Ask the server what time it is, for a key that tells the time; no answer is no failure.

        The request is not signed and names no bucket, so no log tells of a refusal.  If no Date
        comes, or another than ours (a front end may be wrong), a signed request learns the clock.
        """
        place = self.endpoint
        origin = Origin(place.scheme, place.domain, place.port, place.with_port(place.domain))
        connection, date = Connection(self, origin, self.limit, self._environ), None
        with contextlib.closing(connection), contextlib.suppress(
                OSError, http.client.HTTPException, BadAnswer):
            with connection.exchange('HEAD', '/', {'host': origin.authority}, b'',
                                     min(CLOCK_TIMEOUT, self.timeout)) as response:
                date = parse_date(response.headers.get('date'))
            place.answered |= place.aws or not place.virtual    # another host may not be there
        if date is None or abs(date - self.now()) > MAX_SKEW:
            self._first = FIRST_PATIENCE / 2    # the other half is for what follows
            with contextlib.suppress(Error):
                Request(self, 'ListObjectsV2', 'GET', query={'list-type': '2', 'max-keys': '1'},
                        timeout=LOOK_PATIENCE, patience=min(self._first, self.patience / 2)).run()

    # Objects

    def put_object(self, key, body, dump_id=None, storage_class=None, **terms):
        """Store *body* (bytes-like) as the object *key*.

        dump_id: None: a new one; storage_class: None: the configured one; terms: overwrite:
        whether an existing object may be replaced; unique: whether the key is random, so that an
        object found there after a repetition can only be ours; watch: gets the Request before it
        is sent.  Raises UnknownOutcome.
        """
        dump_id = dump_id or random_name()
        headers = self._object_headers(dump_id, storage_class)
        self._protect(headers, body)
        request = Request(self, 'PutObject', 'PUT', key, (), headers, body)
        self._create(request, require_etag, key, dump_id, len(body), **terms)

    def _create(self, request, accept, key, dump_id, size, upload_id='', overwrite=False,
                unique=False, watch=lambda request: None):
        """Have an object created by *request*; the other arguments as for put_object().

        If a random name is taken, or the upload gone, a proxy may have repeated our request.  Once
        an answer was lost, an upload that is gone may also be one whose completion still goes on.
        """
        ours = functools.partial(self.is_ours, key, dump_id, size)

        def look():                 # a completion isn't repeated before that
            if upload_id and request.in_doubt:
                request.retries.transient = 'NoSuchUpload', 'NotFound'
                return ours()

        if not overwrite:
            request.headers['if-none-match'] = '*'
        watch(request)
        try:
            request.run(accept, look)
        except (ResponseError, NetworkError, BadAnswer) as error:
            in_doubt, taken = request.in_doubt or error.code == 'NoSuchUpload', error.status == 412
            there = ours() if in_doubt or taken else False
            if there or (there is None and taken and unique and in_doubt):
                return
            if there is None and (in_doubt or unique) or error.code in request.retries.transient:
                error.hint = ''     # it claims to know the outcome
                raise UnknownOutcome(
                    '%s; it is unknown whether the object was stored: see if %s is there%s' % (
                        error, quoted(key), upload_id and ', its upload id is ' + printable(
                            upload_id)))
            raise

    def _object_headers(self, dump_id, storage_class=None):
        """Return the headers of a new object: by its metadata a restore sees that volumes are
        missing or somebody else's, and we recognize it if the answer to its creation was lost."""
        storage_class = storage_class or self._config.get('storage_class')
        headers = configured_headers(OBJECT_HEADERS, dict(
            self._config, storage_class=storage_class if storage_class != 'STANDARD' else ''))
        headers.update({'x-amz-meta-volume-size': str(self.part_size * self.max_parts),
                        'x-amz-meta-part-size': str(self.part_size), 'x-amz-meta-dump-id': dump_id})
        if self.retain:
            headers['x-amz-object-lock-mode'] = self.retain[0]
        return headers

    def _protect(self, headers, body, crc32=None):
        """Add the headers by which the server finds damage: over TLS a CRC32, if the server keeps
        those, is enough, at a third of the cost."""
        if self.endpoint.wants_md5 or (self.retain and not self.checksum):
            headers.update(digest_header(body))     # for Object Lock the SHA-256 is not enough
        if self.checksum:
            headers['x-amz-checksum-crc32'] = crc32_text(
                zlib.crc32(body) if crc32 is None else crc32)
            if self.endpoint.scheme == 'https':
                headers[PAYLOAD_HASH] = UNSIGNED_PAYLOAD

    def is_ours(self, key, dump_id, size):
        """Whether the object under *key* is the one that we wrote; None if we can't look."""
        try:
            head = self.exists(key, LOOK_PATIENCE)
        except (ResponseError, NetworkError, BadAnswer):
            return None
        return head and (head.dump_id, head.size) == (dump_id, size)

    def head_object(self, key, part=None, patience=float('inf')):
        """Return the Head of an object, or of a *part* of it where the server can tell."""
        headers = {'x-amz-checksum-mode': 'ENABLED'} if self.checksum and not part else {}
        query = {'partNumber': str(part)} if part else {}
        return Request(self, 'HeadObject', 'HEAD', key, query, headers, patience=patience).run(
            lambda answer: Head(answer.headers))

    def head_objects(self, keys):
        """Return what exists() does for each of the *keys*, which are asked for side by side."""
        if len(keys) < 2:           # a thread would make a connection of its own
            return [self.exists(key) for key in keys]
        workers = Workers(self)
        try:
            return workers.map(self.exists, keys)
        finally:
            workers.stop()

    def exists(self, key, patience=float('inf')):
        """Return the Head of an object, False if there is none, None if we may not ask."""
        try:
            return self.head_object(key, patience=patience)
        except ResponseError as error:
            if error.status not in (403, 404):
                raise
            return False if error.status == 404 else None

    def get_object(self, key, view, first=0, head=None, hasher=None):
        """Fill *view* with the bytes of the object from *first* on; if an answer breaks off, the
        rest is asked for from there.

        head: as the object must still have it; hasher: like hashlib's, gets each block that came.
        Raises ArchivedError, IntegrityError.
        """
        request, got = Request(self, 'GetObject', 'GET', key), 0
        replaced = IntegrityError('%s: the object was replaced while it was read' % request.label)
        if head and not head.etag.startswith('W/'):     # RFC 9110, 13.1.1: it would never match
            request.headers['if-match'] = head.etag

        def full():
            request.headers['range'] = 'bytes=%d-%d' % (first + got, first + len(view) - 1)
            return got == len(view)

        def fill(response):
            nonlocal got
            try:
                request.raise_for_status(response)
            except ResponseError as error:
                if error.status == 412:
                    raise replaced
                if error.code == 'InvalidObjectState':
                    raise ArchivedError('%s: the object is archived and not readable now'
                                        % request.label)
                raise
            size = seek_range(response, first + got, len(view) - got)
            if head and (response.headers.get('etag', head.etag) != head.etag
                         or size not in (None, head.size)):
                raise replaced
            while got < len(view):  # to hash less than 4 MiB at once slows the others of TLS down
                count = response.readinto(view[got:got + (1 if response.chunked else 16) * BLOCK])
                if not count:
                    raise http.client.IncompleteRead(b'', len(view) - got)
                if hasher:
                    hasher.update(view[got:got + count])
                got += count
                request.retries.moved = True

        request.stream(fill, full)

    def delete_object(self, key, etag=''):
        """Delete an object, if it exists; *etag*: only one that has this ETag."""
        headers = {'if-match': etag} if etag else {}
        try:
            self.hides |= 'true' == Request(self, 'DeleteObject', 'DELETE', key, (), headers).run(
                lambda answer: require_empty(answer) or answer.headers.get('x-amz-delete-marker'))
        except ResponseError as error:
            if not gone(error):     # by an attempt whose answer was lost, perhaps
                raise

    def delete_listed(self, entry):
        """Delete the object of a ListEntry; raises IntegrityError if it was replaced since."""
        try:
            self.delete_object(entry.key, entry.etag)
        except ResponseError as error:
            if not entry.etag or error.status not in (400, 403, 412, 501):
                raise
            if error.status == 412:     # without an object, too (RFC 9110, 13.1.1)
                head = self.exists(entry.key)   # there are servers that list other ETags
                if head is False:
                    return
                if not head or (head.size, head.modified) != (entry.size, entry.modified):
                    raise IntegrityError('%s was replaced since it was listed' % quoted(entry.key))
            self.delete_object(entry.key)       # else If-Match is unknown, or needs another right

    def restore_object(self, key, days, tier='Standard'):
        """Ask for an archived object to be made readable for *days*, None in INTELLIGENT_TIERING,
        where it stays so; to ask twice does no harm.  tier: Standard, Bulk or Expedited."""
        body = ('<RestoreRequest xmlns="http://s3.amazonaws.com/doc/2006-03-01/">%s'
                '<GlacierJobParameters><Tier>%s</Tier></GlacierJobParameters></RestoreRequest>'
                % ('<Days>%d</Days>' % days if days else '', tier)).encode()
        try:
            Request(self, 'RestoreObject', 'POST', key, {'restore': ''},
                    {'content-type': 'application/xml'}, body).run(require_empty)
        except ResponseError as error:
            if error.code != 'RestoreAlreadyInProgress':
                raise

    def list_objects(self, prefix=''):
        """Yield a ListEntry for each object whose key begins with *prefix*, in the order of the
        server, page by page; with `at` for each that was there then, by its Key."""
        if self.at is not None:
            return filter(None, (version_at(versions, self.at)
                                 for versions in self.list_object_versions(prefix)))
        headers = {}
        if self.endpoint.aws:       # to hear whether archived objects can be read
            headers['x-amz-optional-object-attributes'] = 'RestoreStatus'
        return self._list('ListObjectsV2', 'ListBucketResult', ('continuation-token', 'marker'),
                          lambda page, decode: list_entries(page.all('Contents'), decode),
                          {'list-type': '2', 'prefix': prefix, 'encoding-type': 'url'}, headers)

    def list_object_versions(self, prefix=''):
        """Yield, for each key that begins with *prefix*, the ListEntries of all its versions and
        delete markers, the newest first."""
        entries = self._list('ListObjectVersions', 'ListVersionsResult',
                             ('key-marker', 'version-id-marker'), version_entries,
                             {'versions': '', 'prefix': prefix, 'encoding-type': 'url'})
        for _, versions in itertools.groupby(entries, lambda entry: entry.key):
            yield list(versions)

    def list_multipart_uploads(self, prefix=''):
        """Yield an UploadEntry for each unfinished upload of a key that begins with prefix."""
        return self._list('ListMultipartUploads', 'ListMultipartUploadsResult',
                          ('key-marker', 'upload-id-marker'), lambda page, decode: (
                              UploadEntry(decode(texts['Key']), texts['UploadId'],
                                          parse_time(texts['Initiated']))
                              for texts in page.all('Upload')),
                          {'uploads': '', 'prefix': prefix, 'encoding-type': 'url'})

    def list_parts(self, multipart):
        """Yield the sizes of the parts of an unfinished upload (ListParts)."""
        return self._list('ListParts', 'ListPartsResult', ('part-number-marker',), lambda page, _: (
            int(texts['Size']) for texts in page.all('Part')),
                          {'uploadId': multipart.upload_id}, key=multipart.key)

    def _list(self, operation, root, markers, entries, query, headers=(), key=''):
        """Yield what entries() finds on each page of a listing: it gets a Document whose root is
        called *root*, and what decodes keys.  markers: as for next_page()."""
        marker, prefix = {}, query.get('prefix', '')
        while True:
            page = Request(self, operation, 'GET', key, dict(query, **marker), headers).run(
                lambda answer: Document(answer.body, root))
            # A server may ignore our wish for encoded keys, or encode them without a word
            decode = unquote if page.get('EncodingType') == 'url' else lambda key: (
                unquote(key) if unquote(key).startswith(prefix) and (not key.startswith(prefix)
                or 'Uploads' in root and '%3A' in key and ':' not in key) else key)
            try:
                yield from entries(page, decode)
            except (KeyError, ValueError):
                raise BadAnswer('an entry of the listing lacks its key, size, id or time')
            if page.get('IsTruncated') != 'true':
                return
            last, marker = marker, next_page(page, markers, decode)
            if marker in ({}, last):
                raise BadAnswer('%s: the listing has no end' % operation)

    def get_object_acl(self, key):
        """Return the ACL of an object: XML, as bytes."""
        body = Request(self, 'GetObjectAcl', 'GET', key, {'acl': ''}).run().body
        Document(body, 'AccessControlPolicy')     # some servers send the object itself
        return body

    def put_object_acl(self, key, body):
        """Set the ACL of an object; body: XML, as bytes."""
        headers = dict(digest_header(body), **{'content-type': 'application/xml'})
        Request(self, 'PutObjectAcl', 'PUT', key, {'acl': ''}, headers, body).run(require_empty)

    def presigned_url(self, key, expires):
        """Return a URL with which anybody can GET the object for *expires* seconds."""
        target, authority = self.endpoint.target(key), self.endpoint.authority
        return '%s://%s%s?%s' % (self.endpoint.scheme, authority, target, presign(
            self.credentials.get(self), self.endpoint.region, self.endpoint.service, self.now(),
            'GET', authority, target, expires, dict(self.request_headers, **(
                {'versionId': key.version} if isinstance(key, Key) else {}))))

    # The bucket itself

    def head_bucket(self):
        """Raise ResponseError unless the bucket exists and these credentials may use it."""
        Request(self, 'HeadBucket', 'HEAD').run()

    def require_listed(self, keys):
        """Raise ConfigError if a listing lacks any of *keys*; if it is refused it lacks none."""
        try:
            listed = {entry.key for entry in self.list_objects(os.path.commonprefix(keys))}
        except (ResponseError, BadAnswer) as error:
            listed = keys if error.status == 403 else ()
        if set(keys) - set(listed):
            raise ConfigError('what was written is not in the listing of the bucket: does '
                              '`endpoint` name the bucket, or some other path?')

    def create_bucket(self, region=''):
        """Create the bucket in *region*, or in the configured one, which servers with one region
        may refuse to hear; raises ConfigError if the server made an object."""
        body, region = b'', region or self.endpoint.region
        if region != 'us-east-1':   # which must not be named
            body = ('<CreateBucketConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
                    '<LocationConstraint>%s</LocationConstraint></CreateBucketConfiguration>'
                    % region).encode()
        request = Request(self, 'CreateBucket', 'PUT', body=body)
        try:
            made = request.run(lambda answer: require_empty(answer) or answer.headers.get('etag'))
        except ResponseError as error:
            if error.code == 'BucketAlreadyOwnedByYou' and request.in_doubt:
                return              # we created it, and the answer was lost
            if not body or self.endpoint.aws or error.code not in PLACELESS_CODES:
                raise
            return self.create_bucket('us-east-1')
        if made:
            Request(self, 'DeleteBucket', 'DELETE').run(require_empty)
            raise ConfigError('the server made an object where a bucket was asked for (the object '
                              'is deleted again): leave the bucket out of `endpoint`, or say '
                              '`addressing virtual`')

    # Multipart uploads: *multipart* has key and upload_id, as a Volume or an UploadEntry

    def create_multipart_upload(self, key, dump_id='', watch=lambda request: None):
        """Begin an upload; returns its id.  One whose answer was lost stays: it is empty.  watch:
        as for put_object()."""
        headers = self._object_headers(dump_id)
        if self.checksum:
            headers['x-amz-checksum-algorithm'] = 'CRC32'
            headers['x-amz-checksum-type'] = 'FULL_OBJECT'
        import xml.etree.ElementTree    # noqa: F401  without it we couldn't read the answer
        request = Request(self, 'CreateMultipartUpload', 'POST', key, {'uploads': ''}, headers)
        watch(request)
        return request.run(parse_upload_id)

    def upload_part(self, multipart, number, body, crc32=None):
        """Send one part (bytes-like), with this *crc32* if it is known already; returns its ETag
        and its CRC32 (None where unused)."""
        headers = {}
        self._protect(headers, body, crc32)
        etag = Request(self, 'UploadPart', 'PUT', multipart.key,
                       {'partNumber': str(number), 'uploadId': multipart.upload_id},
                       headers, body).run(require_etag)
        return etag, headers.get('x-amz-checksum-crc32')

    def complete_multipart_upload(self, multipart, parts, size, crc32=None, dump_id='', **terms):
        """Make the object appear.

        parts: as upload_part() returned them, in order; size: of the object, in bytes; crc32:
        of the whole object, if the server keeps checksums; terms: as for put_object().  Raises
        UnknownOutcome.
        """
        headers = {'content-type': 'application/xml'}
        if crc32 is not None:
            headers.update({'x-amz-checksum-crc32': crc32_text(crc32),
                            'x-amz-checksum-type': 'FULL_OBJECT',
                            'x-amz-mp-object-size': str(size)})
        request = Request(self, 'CompleteMultipartUpload', 'POST', multipart.key,
                          {'uploadId': multipart.upload_id}, headers, completion_body(parts),
                          timeout=self.complete_timeout)
        self._create(request, lambda answer: require_completion(request.label, answer),
                     multipart.key, dump_id, size, multipart.upload_id, **terms)

    def abort_multipart_upload(self, multipart):
        """Abort an upload, and delete its parts; returns whether it existed."""
        try:
            Request(self, 'AbortMultipartUpload', 'DELETE', multipart.key,
                    {'uploadId': multipart.upload_id}).run(require_empty)
        except ResponseError as error:
            if not gone(error):
                raise
            return False
        return True

    # Whole streams: see the sections Uploads, and Proofs and downloads

    def upload(self, key, stream, overwrite=False, unique=False):
        """Store *stream*, to its end, as one object or a set of volumes; returns a Stored.

        stream: has readinto(), and raises rather than ends if it is not whole; overwrite, unique:
        as for put_object().  Whatever is raised, nothing is left under the key, unless a message
        says that something may be.
        """
        return Upload(self, key, overwrite, unique).run(stream)

    def download(self, keys, write, ended=False):
        """Write the objects *keys*, one after the other, to write(view); returns how they were
        checked: 'crc32', 'etag' or 'length', the weakest of all objects.

        write: takes all of a bytes-like object, which is used again after the call, or raises; a
        number that it returns must be the count of all bytes; ended: whether there is an end
        mark, so that the only object may be full.  Raises IntegrityError, ArchivedError.
        """
        workers = Workers(self)
        try:
            return download(self, workers, keys, look_at_all(self, workers, keys, ended), write)
        finally:
            workers.stop()

    def head_whole(self, key, ended):
        """Return the Head of an object; raises ArchivedError if it can't be read now, and
        IntegrityError if volumes are missing after it, unless it is *ended* by others or a mark."""
        head = self.head_object(key)
        if head.full and not ended:
            raise IntegrityError('%s is as large as its volume can be, and neither a further one '
                                 'nor an end mark is there: the dump is not whole' % quoted(key))
        if not self.readable(key, head):
            raise ArchivedError('%s is archived in %s and not readable now' % (
                quoted(key), printable(head.storage_class, 50)))
        return head

    def readable(self, key, head):
        """Whether an object can be read now; on some servers an archive class is only a label."""
        try:                        # of an empty object this asks nothing
            return not head.archived or self.get_object(
                key, memoryview(bytearray(min(1, head.size))), head=head) is None
        except ArchivedError:
            return False


# -------------------------------------------------------------------------- Uploads

class Upload:
    """A stream that becomes one object, or a set of volumes; it belongs to the main thread."""

    def __init__(self, bucket, key, overwrite, unique):
        self.bucket, self.key, self.overwrite, self.unique = bucket, key, overwrite, unique
        self.workers = Workers(bucket)
        self.dump_id = random_name()
        self._volumes = []

    def run(self, stream):
        volumes = self._volumes
        try:
            self._store(stream)
        except BaseException as error:
            # a request that was sent completely may still succeed: its answer gets a moment
            self.workers.stop(lambda: any(
                request.awaited for volume in volumes for request in volume.requests))
            if volumes and not (isinstance(error, UnknownOutcome) and volumes[0].there is None):
                self._tidy_up()     # else the error tells what may be there
            raise
        self.workers.stop()
        return Stored(self.key, sum(volume.size for volume in volumes),
                      sum(volume.count for volume in volumes) or 1, len(volumes))

    def _store(self, stream):
        bucket, workers, volumes = self.bucket, self.workers, self._volumes
        part_size = count = bucket.part_size
        while count == part_size:   # less is the end; after it a terminal or tape might go on
            buffer = workers.buffer()
            with bucket.tally.waiting(self, 'the stream'):
                count = read_part(stream, buffer, workers)
            bucket.signals.poll()   # a signal may be what made the stream end
            if not volumes and count < part_size:
                volumes.append(Volume(self, self.key, buffer[:count]))
            elif count and (not volumes or volumes[-1].count == bucket.max_parts):
                self._finish_volume()
                volumes.append(Volume(self, volume_key(self.key, len(volumes))))
                workers.wait(workers.submit(volumes[-1].create))
            if volumes[-1].upload_id and count:
                volumes[-1].add(buffer, count)
        self._finish_volume()
        workers.drain()
        last = len(volumes) - 1
        if last or volumes[0].size == part_size * bucket.max_parts:
            volumes.append(Volume(self, '%s.end_%06d' % (self.key, last), b''))
            workers.wait(workers.submit(volumes[-1].complete, 'STANDARD'))
        workers.wait(workers.submit(volumes[0].complete))       # now the dump exists

    def _finish_volume(self):
        self.workers.drain()
        if len(self._volumes) > 1:      # the first one's turn comes last of all
            self.workers.submit(self._volumes[-1].complete)

    def _tidy_up(self):
        """Remove every trace of the dump, which failed, unless it proves to be whole; this takes
        TIDY_TIME at most, and neither the rate limit nor a signal delays it."""
        bucket, done = self.bucket.hasty(), []
        try:
            Thread(lambda: done.append(self._remove(bucket))).start()
        except RuntimeError:        # no thread to be had
            done.append(self._remove(bucket))
        if not wait_until(lambda: done, TIDY_TIME):
            self._volumes[0].left(bucket, 'something of ', 'no answer in time')
        bucket.report = lambda kind, text: None     # _remove() may go on

    def _remove(self, bucket):
        first = self._volumes[0]
        try:
            there = first.settle(bucket)
            if there is False:
                for volume in self._volumes:
                    volume.remove(bucket)
            elif there:
                bucket.report('doubt', '%s had been completed already: it is whole if its stream '
                              'was' % quoted(self.key))
            else:
                bucket.report('doubt', 'it is unknown whether %s was completed%s' % (
                    quoted(self.key),
                    first.upload_id and ', its upload id is ' + printable(first.upload_id)))
        except Error as failure:
            first.left(bucket, 'something of ', failure)
        finally:
            bucket.close()


class Volume:
    """An object of an Upload: a multipart upload, or with a *body* one PutObject.

    there: whether the object is there, None if unknown; upload_id: of an upload that isn't
    finished, or ''.  These and _parts belong to the threads that create and complete the object.
    """

    def __init__(self, upload, key, body=None):
        self.key, self.there, self.upload_id = key, False, ''
        self.size, self.count = len(body or b''), 0     # of bytes, and of parts
        self._upload, self._body = upload, body
        self._parts = []            # what upload_part() returned of each
        self._crc32 = 0 if upload.bucket.checksum else None
        self.requests = []          # the one that creates or completes the object

    def add(self, buffer, count):
        """Have the first *count* bytes of *buffer* sent as the next part, and *buffer* released.

        The CRC32 is computed here, in stream order, and the server computes it of what it gets:
        so no buffer that is lost, doubled or overwritten goes unnoticed.
        """
        crc32 = None
        self.size += count
        self.count += 1
        if self._crc32 is not None:
            crc32 = zlib.crc32(buffer[:count])
            self._crc32 = crc32_combine(self._crc32, crc32, count)
        self._parts.append(None)
        self._upload.workers.submit(self._send, self.count, buffer, count, crc32)

    def create(self):
        self.upload_id = self._upload.bucket.create_multipart_upload(
            self.key, self._upload.dump_id, self.requests.append)
        self.requests.clear()

    def _send(self, number, buffer, count, crc32):
        self._parts[number - 1] = self._upload.bucket.upload_part(self, number, buffer[:count],
                                                                  crc32)
        self._upload.workers.release(buffer)

    def complete(self, storage_class=None):
        upload, bucket, self.there = self._upload, self._upload.bucket, None
        terms = dict(dump_id=upload.dump_id, overwrite=upload.overwrite and self.key == upload.key,
                     unique=upload.unique, watch=self.requests.append)
        try:
            if self._body is None:
                bucket.complete_multipart_upload(self, self._parts, self.size, self._crc32, **terms)
            else:
                bucket.put_object(self.key, self._body, storage_class=storage_class, **terms)
        except Error as error:
            if not (self.upload_id or isinstance(error, UnknownOutcome)):   # else settle() looks
                self.there, self.requests = False, []
            raise
        self.there, self.upload_id, self.requests, self._parts = True, '', [], []

    def settle(self, bucket):
        """Find out whether the object is there; returns True, False, or None for unknown."""
        if self.there is None and not any(request.in_doubt for request in self.requests):
            self.there = False      # not all of the request was sent
        if self.there is None:
            aborted = refusal = None
            try:
                aborted = self.upload_id and bucket.abort_multipart_upload(self)
            except (ResponseError, BadAnswer) as error:
                refusal = error
            there = bucket.is_ours(self.key, self._upload.dump_id, self.size)
            if there or (there is False and aborted):   # else it may be about to appear
                self.there, self.upload_id = there, ''
            elif refusal:
                self.left(bucket, 'an upload of ', refusal)
        return self.there

    def remove(self, bucket):
        """Leave nothing behind, as far as the rights of the credentials allow."""
        there = self.settle(bucket)
        try:
            if there or (there is None and self._upload.unique):
                bucket.delete_object(self.key)
            elif there is None:         # such a key may be somebody else's object
                self.left(bucket)
            elif self.upload_id:
                bucket.abort_multipart_upload(self)
        except NetworkError:
            raise                       # nothing else will work either
        except Error as error:
            self.left(bucket, 'an upload of ' * (there is False), error)

    def left(self, bucket, what='', reason=''):
        """Report what may be left behind: if it is the first object, perhaps the dump."""
        bucket.report('doubt' if self.there is None and self.key == self._upload.key else 'warning',
                      '%s%s may be left behind%s' % (what, quoted(self.key),
                                                     reason and ': %s' % reason))


# -------------------------------------------------------------- Proofs and downloads
# What the bytes that were read are checked against, range by range.

# name: 'length', 'etag' or 'crc32'; part_size: of the parts that its ranges have to be, or 0;
# hasher() makes the hash object (None: there is none) to which the thread that fetches a range
# shows each block as it comes, while it is in the processor's cache and others are on their way;
# update(view, its digest) runs in the main thread, in the order of the stream; complaint(), after
# the last range, returns '' if the object is right.
Proof = collections.namedtuple('Proof', 'name part_size hasher update complaint')


class Crc32:
    """A CRC32 with the methods of hashlib's objects."""
    value = 0

    def update(self, view):
        self.value = zlib.crc32(view, self.value)

    def digest(self):
        return self.value


def crc32_proof(expected):
    """Return a Proof by the CRC32 of the whole object, made of those of the ranges, which the
    threads compute: the main thread is the bottleneck of a fast restore over http."""
    whole = 0

    def update(view, crc32):
        nonlocal whole
        whole = crc32_combine(whole, crc32, len(view))

    return Proof('crc32', 0, Crc32, update, lambda: '' if whole == expected else (
        'the data are damaged: their CRC32 is not the one on record'))


def crc32_combine(one, other, size):
    """Return the CRC32 of two pieces of data from those of each; size: of the second, in bytes."""
    return crc32_multiply(crc32_shift(size), one) ^ other


@functools.lru_cache(maxsize=256)   # nearly all parts have one size
def crc32_shift(size):
    """Return x^(8 size), by which to multiply the CRC32 of data that *size* bytes are added to."""
    if not size:
        return 1 << 31              # RFC 1952, 8: the most significant bit is that of x^0
    half = crc32_shift(size // 2)
    product = crc32_multiply(half, half)
    return crc32_multiply(product, 1 << 23) if size % 2 else product


def crc32_multiply(a, b):
    """Return the product of two CRC32s, as polynomials."""
    product = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = b >> 1 ^ (0xedb88320 if b & 1 else 0)
    return product


def etag_proof(etag, part_sizes, certain, most):
    """Return a Proof by the ETag: the MD5 of the object, or "MD5 of its parts' MD5s-count".

    part_sizes: the sizes that the parts may have, and *certain*: must have.  If there is only
    one, and it is at most *most*, a range is a part, and the threads compute the MD5s.
    """
    digests = [PartDigests(size) for size in part_sizes]
    size = part_sizes[0] if len(part_sizes) == 1 and part_sizes[0] <= most else 0

    def update(view, digest):
        for each in digests:
            each.update(view, digest)

    def complaint():
        count = int(etag.partition('-')[2] or 0)
        if any(each.etag(count) == etag for each in digests):
            return ''
        return ('the data are damaged%s: their MD5 is not the one in the ETag; or the ETags of '
                'this server are opaque: `s3.py` finds out, and `etag opaque` in the configuration '
                'says so' % ('' if certain else ', or were stored in parts of an unusual size'))

    return Proof('etag', size, md5 if size else None, update, complaint)


class PartDigests:
    """The MD5s of a stream's parts of *size* bytes each."""

    def __init__(self, size):
        self._digests, self._size, self._left, self._current = [], size, size, md5()

    def update(self, view, digest=None):
        """Take the next bytes of the stream; digest: theirs, if they are a part."""
        if digest:
            self._digests.append(digest)
            return
        while len(view):
            piece, view = view[:self._left], view[self._left:]
            self._current.update(piece)
            self._left -= len(piece)
            if not self._left:
                self._digests.append(self._current.digest())
                self._left, self._current = self._size, md5()

    def etag(self, count):
        """Return the ETag of the bytes so far; count: of the parts in the ETag, or 0."""
        digests = self._digests
        if len(digests) < max(1, count):    # the last part isn't full, or is empty
            digests = digests + [self._current.digest()]
        return '%s-%d' % (md5(b''.join(digests)).hexdigest(), count) if count else digests[0].hex()


# Of the AWS CLI and SDKs, s3cmd, s5cmd, rclone, mc, s3fs and older versions of s3dump.
USUAL_PART_SIZES = [size << 20 for size in (5, 6, 7, 8, 10, 12, 15, 16, 20, 25, 32, 50, 52, 64,
                                            100, 128, 250, 256, 500, 512, 528, 1024, 5120)] \
    + [size * 10**6 for size in (5, 10, 20, 50, 100, 500, 1000)]


def find_proof(bucket, key, head):
    """Return the strongest proof that the server's records of an object permit."""
    if head.crc32 is not None:
        return crc32_proof(head.crc32)
    etag = re.match(r'(?:W/)?"?([0-9a-f]{32})(?:-([0-9]{1,5}))?"?\Z', head.etag)
    encryption = head.headers.get('x-amz-server-side-encryption') or ''
    if bucket.opaque_etags or not etag or encryption.startswith('aws:kms'):
        reason = 'its ETag is not a checksum'
    elif md5() is None:
        reason = 'this Python has no MD5'
    else:
        sizes, certain = find_part_sizes(bucket, key, head, int(etag.group(2) or 0))
        if sizes:
            return etag_proof(head.etag.strip('W/"'), sizes, certain, bucket.part_size)
        reason = 'the sizes of its parts are unknown'
    bucket.report('warning', '%s: checked by its length only: %s' % (quoted(key), reason))
    # get_object() has checked it already
    return Proof('length', 0, None, lambda view, digest: None, str)


def find_part_sizes(bucket, key, head, count):
    """Return the sizes that all *count* parts of an object but the last may have, none if the
    parts differ, and whether it must be one of them."""
    def fits(size):             # the last part may be empty: older versions of s3dump sent such
        return size and full * size <= head.size <= count * size

    if count < 2:
        return [head.size], True
    ours, told, full = head.number('part-size'), 0, count - 1
    equal = head.size // full if head.size % full == 0 else 0       # if the last one is empty
    sizes = sorted(filter(fits, {ours, bucket.part_size, equal, *USUAL_PART_SIZES}))
    if ours in sizes:           # else somebody copied it in other parts
        return sizes, True
    with contextlib.suppress(ResponseError, BadAnswer):
        told = bucket.head_object(key, part=1).size
        rest = head.size - told * full
        if fits(told) and ((told < head.size and rest == 0)
                           or bucket.head_object(key, part=count).size == rest):
            return [told], True
    # A server that tells the size of the whole ignores partNumber
    return [] if 0 < told < head.size else sizes, False


def look_at_all(bucket, workers, keys, ended):
    """Return the Heads of all objects, which prove to be of one dump and readable; nothing is
    written before that is known."""
    heads = workers.map(lambda key: bucket.head_whole(key, len(keys) > 1 or ended), keys)
    dump_id = heads[0].dump_id or max(head.dump_id for head in heads)
    for key, head in zip(keys, heads):
        # a copy may have lost the metadata, of large objects first
        if head.dump_id != dump_id and (head.dump_id or heads[0].dump_id):
            raise IntegrityError('%s belongs to another dump than %s: one was replaced, or is '
                                 'not whole' % (quoted(key), quoted(keys[0])))
    return heads


Range = collections.namedtuple('Range', 'key head proof first size')


def ranges_of(bucket, keys, heads):
    for key, head in zip(keys, heads):
        proof = find_proof(bucket, key, head)
        count = -(-head.size // bucket.part_size) or 1
        size = proof.part_size or -(-head.size // count) or 1   # even: a short one costs as much
        for first in range(0, head.size or 1, size):
            yield Range(key, head, proof, first, min(size, head.size - first))


def fetch_range(bucket, found, view):
    """Fill *view*, in a thread; returns its digest, or None."""
    hasher = found.proof.hasher and found.proof.hasher()
    bucket.get_object(found.key, view, found.first, found.head, hasher)
    return hasher and hasher.digest()


def download(bucket, workers, keys, heads, write):
    """Write all objects to write(view) as their ranges come in; returns how they were checked."""
    ranges, pending, proofs = ranges_of(bucket, keys, heads), collections.deque(), set()
    following = next(ranges)
    while following or pending:
        if following and workers.has_buffer():
            buffer = workers.buffer()
            pending.append((following, buffer, workers.submit(
                fetch_range, bucket, following, buffer[:following.size])))
            following = next(ranges, None)
        elif not pending[0][-1].done:
            workers.listen()
        else:
            found, buffer, task = pending.popleft()
            write_range(bucket, found, buffer[:found.size], workers.wait(task), write)
            workers.release(buffer)
            proofs.add(found.proof.name)
    return min(proofs, key=('length', 'etag', 'crc32').index)


def write_range(bucket, found, view, digest, write):
    """Write a Range out, and raise IntegrityError if it was the last of a damaged object."""
    with bucket.tally.waiting(found.proof, 'the reader'):
        count = write(view) if len(view) else None
    if isinstance(count, int) and count != len(view):
        raise IntegrityError('%s: only %d of %d bytes could be written'
                             % (quoted(found.key), count, len(view)))
    found.proof.update(view, digest)
    complaint = found.first + found.size == found.head.size and found.proof.complaint()
    if complaint:
        raise IntegrityError('%s: %s' % (quoted(found.key), complaint))


# ------------------------------------------------------------------------- Self-test
# Tells in a line each what a machine, credentials and a server can do.  The sections above use
# nothing of this one.

class Skip(Exception):
    """Raised, with the reason, by a check that neither passes nor fails."""


class Finding(Exception):
    """Raised by a check that passes, with what is wrong with that."""


def speed(count, seconds):
    """Return text: megabytes (10^6) per second."""
    return '%.1f MB/s' % (count / max(seconds, 1e-6) / 1e6)


def expect(truth, complaint):
    if not truth:
        raise Error(complaint)


class SelfTest:
    """The checks, in an order in which each may use the results of those before.

    CHECKS need open().  count: of lines, by their first words; allowed: {check: whether it was,
    None if unknown}; settings: lines that the configuration needs in addition.
    """
    CHECKS = ('list', 'put', 'get', 'range', 'volumes', 'acl', 'multipart', 'abort', 'conditional',
              'payload', 'checksum', 'rate', 'versions', 'retention', 'unfinished', 'delete',
              'overwrite')
    NEEDS = dict(dict.fromkeys(('get', 'range', 'volumes', 'acl', 'conditional', 'overwrite'),
                               'put'), abort='multipart')
    RIGHTS = (('list', 'list'), ('get', 'read'), ('put', 'write'), ('overwrite', 'overwrite'),
              ('delete', 'delete'), ('abort', 'abort'))

    def __init__(self, write=print):
        self._write, self.count = write, collections.Counter()
        self.written, self.settings, self.allowed = [], [], {}
        self.data = os.urandom(1 << 20)

    def open(self, config):
        self.bucket = Bucket(dict(config, patience=10, storage_class=re.sub(    # to be read soon
            '^(GLACIER|DEEP_ARCHIVE)$', 'STANDARD', config.get('storage_class', ''))))
        label = host_label(config)[0].encode('utf-8', 'replace').decode()
        self.key = '%s:s3dump-test-%s' % (label, random_name())

    def run(self, checks):
        """Run checks, print a line for each, and note what was allowed."""
        for name in checks:
            need, word, allowed = self.NEEDS.get(name), 'skip', None
            try:
                if need and not self.allowed.get(need):
                    raise Skip('without `%s` there is nothing to try' % need)
                remark, word, allowed = getattr(self, name)(), 'ok', True
            except Skip as reason:
                remark = reason
            except Finding as finding:
                remark, word, allowed = finding, 'note', True
            except (Error, OSError, MemoryError) as error:
                if getattr(error, 'code', '') in ('AccessDenied', 'Forbidden'):
                    remark, allowed = 'these credentials may not: %s' % error, False
                else:
                    remark, word = str(error) or 'there is too little memory', 'FAIL'
            self.count[word] += 1
            self.allowed[name] = allowed
            self._write(('%-4s  %-11s  %s' % (word, name, remark or '')).rstrip())

    def summary(self):
        """Tidy up; returns lines that say what the bucket needs, and what the credentials may."""
        with contextlib.suppress(Error, Skip):
            self.delete()
        self.bucket.close()
        region = self.bucket.endpoint.region
        if region != self.bucket._config['region']:     # the server has corrected it
            self.settings.append('region ' + region)
        lines = ['%s* stays behind' % printable(self.key)] * bool(self.written)
        lines += ['this server needs no other settings'] if not self.settings else [
            'settings that this server needs, to be pasted into the configuration:'] + self.settings
        for answer, text in ((True, 'these credentials may %s'), (False, 'they may not %s'),
                             (None, 'unknown: whether they may %s')):
            rights = [right for name, right in self.RIGHTS if self.allowed.get(name) is answer]
            if rights:
                lines.append(text % ', '.join(rights))
        return lines

    def signature(self):
        # Amazon S3 API Reference, "Signature Calculations for the Authorization Header" and "Using
        # Query Parameters"
        common = (Credentials('AKIAIOSFODNN7EXAMPLE', 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY'),
                  'us-east-1', 's3', 1369353600, 'GET')         # 2013-05-24T00:00:00Z
        host = 'examplebucket.s3.amazonaws.com'
        headers = {'host': host, PAYLOAD_HASH: sha256(b'')}
        sign_headers(*common, '/', 'max-keys=2&prefix=J', headers)
        query = presign(*common, host, '/test.txt', 86400)
        expect([headers['authorization'][-64:], query[-64:]] == [
            '34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7',
            'aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404'], 'it is wrong')
        return '2 examples that AWS publishes'

    def TLS(self):
        if ssl is None:
            raise Skip('this Python was built without ssl: http:// endpoints only')
        count = tls_context(os.environ.get('AWS_CA_BUNDLE')).cert_store_stats()['x509_ca']
        return '%s, %d CA certificates loaded' % (ssl.OPENSSL_VERSION, count)

    def hashes(self):
        data, remarks = bytes(8 << 20), []
        for name, function in (('SHA-256', sha256), ('MD5', md5), ('CRC32', zlib.crc32)):
            start, known = time.perf_counter(), function(data) is not None
            remarks.append('%s %s' % (name, speed(len(data), time.perf_counter() - start) if known
                                      else 'disabled (ETags cannot be checked)'))
        return ', '.join(remarks)

    def _put(self, suffix, bucket=None):
        """Store the data; returns the seconds that it took."""
        key, start = self.key + suffix, time.monotonic()
        (bucket or self.bucket).put_object(key, self.data, unique=True)
        self.written.append(key)
        return time.monotonic() - start

    def _read(self, key, data):
        """Compare an object with *data*; returns how fast it came, and how it was checked."""
        got, start, proof = bytearray(), time.monotonic(), 'length'
        with contextlib.suppress(IntegrityError):       # of opaque ETags
            proof = self.bucket.download([key], got.extend)
        expect(got == data, 'the data read back differ from those written')
        return speed(len(data), time.monotonic() - start), proof

    def _ask(self, operation, resource, root, key=''):
        """Return the Document that tells of a *resource* of the bucket, or of an object."""
        request = Request(self.bucket, operation, 'GET', key, {resource: ''})
        try:
            return Document(request.run().body, root)
        except (BadAnswer, ResponseError) as error:
            if error.status == 403:
                raise
            if error.code in ('NoSuchLifecycleConfiguration',
                              'ObjectLockConfigurationNotFoundError'):
                return Document(b'<None/>')
            raise Skip('this server does not tell')

    def list(self):
        expect(not list(self.bucket.list_objects(self.key)), 'the listing ignores its prefix')
        ahead = self.bucket.offset
        return 'signed requests are accepted' + (
            ', but the clock is off by %s' % duration(abs(ahead)) if ahead else '')

    def put(self):
        return speed(len(self.data), self._put('')) + (
            '; this server wants Content-MD5, and gets it' * self.bucket.endpoint.wants_md5)

    def get(self):
        return '%s, checked by %s' % self._read(self.key, self.data)

    def range(self):
        view = memoryview(bytearray(1000))
        self.bucket.get_object(self.key, view, 100000)
        expect(view == self.data[100000:101000], 'the server sends another range')

    def volumes(self):
        """An object and its volumes can be side by side, and a listing shows them."""
        self._put(volume_key('', 1))
        self.bucket.get_object(self.key, memoryview(bytearray(1)))
        self.bucket.require_listed(self.written)

    def acl(self):
        self._ask('GetObjectAcl', 'acl', 'AccessControlPolicy', self.key)

    def multipart(self):
        bucket, key = copy.copy(self.bucket), self.key + '-multipart'
        bucket.checksum = False
        bucket.part_size = bucket._config.get('part_size', MIN_PART_SIZE)
        data, start = os.urandom(bucket.part_size + 1), time.monotonic()
        try:
            bucket.upload(key, io.BytesIO(data), unique=True)
        except ResponseError as error:
            if error.code == 'EntityTooSmall':
                self.settings.append('part_size 64m')   # the largest minimum known, Storj's
            raise
        self.written.append(key)
        remark = speed(len(data), time.monotonic() - start)
        if self.allowed.get('get') is False:
            return remark + ', not read back: these credentials may not read'
        if self._read(key, data)[1] == 'etag':
            return remark + ", its ETag is the MD5 of its parts' MD5s"
        if not bucket.opaque_etags:
            self.settings.append('etag opaque')
        return remark + ', its ETag is opaque'

    def abort(self):
        key = self.key + '-aborted'
        upload = UploadEntry(key, self.bucket.create_multipart_upload(key), None)
        self.bucket.abort_multipart_upload(upload)
        try:
            self.bucket.upload_part(upload, 1, b'late')
        except ResponseError:
            return 'an aborted upload takes no parts'
        raise Error('an aborted upload still takes parts')

    def conditional(self):
        try:
            self.bucket.put_object(self.key, self.data)
        except ResponseError as error:
            if error.code != 'PreconditionFailed':
                raise
            return 'an existing object is not overwritten'
        raise Skip('this server ignores If-None-Match: these credentials can overwrite')

    def payload(self):
        key = self.key + '-damaged'
        try:
            Request(self.bucket, 'PutObject', 'PUT', key, (),
                    {PAYLOAD_HASH: sha256(b'as it was')}, b'damaged').run(require_etag)
        except ResponseError as error:
            if error.code not in DAMAGED_CODES:
                raise
            return 'damaged data are refused'
        self.written.append(key)
        raise Skip('this server does not check the signed SHA-256: use https')

    def checksum(self):
        bucket = copy.copy(self.bucket)
        bucket.checksum, kept = True, None
        try:
            self._put('-checksum', bucket)
            kept = bucket.head_object(self.written[-1]).crc32
        except ResponseError as error:
            if error.status == 403:
                raise
            if self.bucket.checksum:
                self.settings.append('checksum none')
        if kept is None:
            raise Skip('this server keeps no CRC32s')
        expect(kept == zlib.crc32(self.data), 'the CRC32 that is kept is wrong')
        return 'this server keeps CRC32s: `checksum crc32` uses them'

    def rate(self):
        limit = self.bucket.limit
        before, limit.rate = limit.rate, len(self.data)
        seconds, limit.rate = self._put('-rate'), before
        remark = '1 MiB at 1 MiB/s took %.2f s' % seconds
        expect(seconds > 0.7, remark)
        return remark

    def versions(self):
        found = self._ask('GetBucketVersioning', 'versioning', 'VersioningConfiguration')
        return 'this bucket keeps versions' if found.get('Status') == 'Enabled' else (
            'what is deleted or replaced is gone: none are kept')

    def retention(self):
        for rule in self._ask('GetObjectLockConfiguration', 'object-lock',
                              'ObjectLockConfiguration').all('Rule'):
            return printable('what is stored is locked: %s' % ', '.join(
                '%s %s' % (name, rule[name]) for name in ('Mode', 'Days', 'Years') if name in rule))
        return 'no default retention'

    def unfinished(self):
        for rule in self._ask('GetBucketLifecycleConfiguration', 'lifecycle',
                              'LifecycleConfiguration').all('Rule'):
            days = rule.get('DaysAfterInitiation')
            if days and rule.get('Status') == 'Enabled' and self.key.startswith(
                    rule.get('Prefix', '')):
                return printable('unfinished uploads are aborted after %s days' % days)
        return 'no rule aborts unfinished uploads: `s3dump.py clean` does'

    def delete(self):
        if not self.written:
            raise Skip('nothing was written')
        while self.written:
            self.bucket.delete_object(self.written[-1])
            self.written.pop()
        return 'all that was written'

    def overwrite(self):
        """Without the condition an object is replaced, unless a policy forbids it."""
        if not self.written:
            self._put('')
        self.bucket.put_object(self.key, self.data, overwrite=True)
        if self.allowed['delete'] is False:
            raise Finding('these credentials may not delete what is there, but can replace it: '
                          'see README, POLICIES ON AMAZON')
        return 'these credentials can replace what is there'


def main(argv):
    """The self-test: `s3.py [-f FILE]`; returns the exit status."""
    usage = ('usage: s3.py [-f FILE]\n\n'
             'Test this Python, and the bucket of FILE, else of ~/.s3keys or /etc/s3_keys.')
    if argv in (['-h'], ['--help']):
        print(usage)
        return 0
    if argv and (len(argv) != 2 or argv[0] != '-f'):
        write_error(usage + '\n')
        return 2
    load_network()
    test = SelfTest()
    print('s3.py %s, Python %s' % (__version__, sys.version.split()[0]))
    test.run(('signature', 'TLS', 'hashes'))
    status = 0
    try:
        test.open(load_config(argv[1] if argv else None, warn=functools.partial(print, 'warning:')))
    except Error as error:
        print('no bucket was tested: %s' % error)
        status = 2 if isinstance(error, ConfigError) else 1
    else:
        print('bucket %s at %s' % (printable(test.bucket.endpoint.bucket),
                                   printable(test.bucket.endpoint.authority)))
        test.run(test.CHECKS)
        print('\n'.join(test.summary()))
    print('{0[ok]} passed, {0[FAIL]} failed, {0[skip]} skipped'.format(test.count))
    return 1 if test.count['FAIL'] else status


if __name__ == '__main__':
    try:
        sys.stdout = open(1, 'w', 1, errors='backslashreplace')     # fails where it is closed
        status = main(sys.argv[1:])
        sys.stdout.flush()
    except OSError as error:        # of standard output
        if not isinstance(error, BrokenPipeError):      # else the reader went away
            write_error('s3.py: %s\n' % error.strerror)
        status = 1
    os._exit(status)                # what could not be written isn't tried again
