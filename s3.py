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

A byte on its way out, and the sections that it passes through:

    stream --read_part--> buffer --Request--> Connection --slices--> socket

The main thread reads the stream into buffers of a part each (Parts, Uploads), one more than
there are threads: as many as the Pace finds worth while.  A full buffer goes to a thread
(Workers), which hashes it, signs a Request (Signature Version 4), and sends it by its
Connection, in slices that obey the rate limit (Wire).  When the stream has ended, and only then,
CompleteMultipartUpload makes the object appear, whole.  A stream shorter than a part is one
PutObject; one too long for an object goes on in further objects, its volumes.

A byte on its way back:

    socket --slices--> Reader --> http.client --read_blocks--> buffer --write--> stream

Only answers are read by http.client; connecting and sending are ours.  The threads fetch ranges
into the same kind of buffers by Bucket.get_object(), which resumes at the byte where an answer
broke off (Answers), and digest them.  The main thread writes the ranges out in order, and after
the last byte gives the verdict (Proofs and downloads).

Whatever goes wrong on the way comes to Request._failed(): it learns from a refusal (the
server's clock, the region, that the credentials have expired), and asks Retries whether and
when to try again.  Whatever else the server refuses is an Error at once.  Any failure of an
upload aborts it: nothing appears under the key.  So does a signal: where the main thread
waits, `signals` (NoSignals) may raise.

Sections, in reading order: Limits, Errors, Configuration, Endpoint, Signature Version 4,
Messages, Parts, Rate limit, Pace, Answers, Wire, Workers, Retries, Credentials, Requests, Bucket,
Uploads, Proofs and downloads, Self-test.

Python 3.6 or newer.  `python3 s3.py` is the self-test.
"""
import _thread
import base64
import collections
import contextlib
import copy
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
import urllib.parse
import zlib

__version__ = '2.0'
__all__ = ['Bucket', 'load_config', 'volume_key', 'Head', 'Key', 'ListEntry', 'NoSignals',
           'RateLimit', 'Stored', 'Tally', 'Times', 'UploadEntry', 'Error', 'ArchivedError',
           'BadAnswer', 'ConfigError', 'IntegrityError', 'NetworkError', 'ResponseError',
           'UnknownOutcome']


def load_network():
    """Import the modules that talk to a server: they take longer than all the rest, and `--help`
    or a mistyped option needn't wait for them.

    Endpoint calls this; before, functions that read answers (parse_time, say) raise NameError.
    """
    global calendar, email, http, no_ssl, random, socket, ssl
    try:
        import ssl                  # before http.client, which would go without it, too
    except ImportError as error:    # a Python built without it can still talk http
        ssl, no_ssl = None, printable(str(error), 100)
    import calendar
    import email.utils
    import http.client
    import random
    import socket


# ---------------------------------------------------------------------------- Limits
# What S3 allows (Amazon S3 User Guide, "Multipart upload limits"):

MIN_PART_SIZE = 5 << 20             # of all parts of an upload but the last
MAX_PART_SIZE = 5 << 30
MAX_PARTS = 10000
MAX_EXPIRES = 7 * 86400             # seconds that a presigned URL may hold, and an outage last

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
FIRST_PATIENCE = 60                 # the same before the server ever answered
GRACE = 1                           # for the answer to a request that was sent completely
TIDY_TIME = 3                       # tidying up must not hold up the bad news
LOOK_PATIENCE = 10                  # of requests that ask whether an object is there
IDLE_TIME = 4                       # seconds after which a connection isn't trusted
MAX_MESSAGE = 4 << 20               # bytes of an XML answer; 1,000 keys take 3.4 MB at most
MAX_ERROR = 64 << 10                # bytes of an error document
SOCKET_BUFFER = 4 << 20             # bytes that a kernel may take though nothing moves
MAX_SKEW = 300                      # seconds that a clock may be off without correction


# ---------------------------------------------------------------------------- Errors
# Divided by what the reader of the message should do next.

class Error(Exception):
    """Base of all: str() is one line that says what failed."""


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
    document.

    Source: Amazon S3 API Reference, "Error responses".
    """

    def __init__(self, label, status, code, message, request_id='', region='', location='',
                 retry_after=0, date=None, from_s3=True):
        self.label, self.status, self.code, self.message = label, status, code, message
        self.request_id, self.region, self.location = request_id, region, location
        self.retry_after, self.date, self.from_s3 = retry_after, date, from_s3
        operation = label.partition(' ')[0]
        self.hint = (HINTS.get(code) or HINTS.get(status, '')).replace(
            'ACTION', ACTIONS.get(operation, 's3:' + operation))
        Error.__init__(self, status, code)

    @property
    def bare_403(self):
        """Whether it gives no reason: the answer to a HEAD has no body."""
        return self.status == 403 and not self.message and self.code == 'Forbidden'

    def __str__(self):
        text = '%s: %s (%d)' % (self.label, self.code, self.status)
        if self.message:
            text += ': ' + self.message.rstrip('.')
        if self.request_id:
            text += ' [request %s]' % self.request_id
        return printable(text + ('; ' + self.hint if self.hint else ''))


TOO_LARGE = ('the server, or a proxy before it, takes no request of this size: set `part_size 5m`, '
             'or let it take more (nginx: client_max_body_size)')
NOT_BY_PATH = 'set `addressing virtual`: this server wants the bucket in the name of the host'
UNSIGNED = 'if payloads have to be signed, set `checksum none`'
HINTS = {
    'AccessDenied': 'ACTION is not allowed: look at the policies of these credentials and of the '
                    'bucket; is the bucket yours?',
    'AccessControlListNotSupported': 'the bucket has ACLs switched off, the default since 2023: '
                                     'its policy does what they did',
    'AuthorizationHeaderMalformed': 'check region and service in the configuration',
    'BucketAlreadyExists': 'the name is taken by somebody else: choose another bucket_name',
    'EntityTooLarge': TOO_LARGE, 413: TOO_LARGE,
    'EntityTooSmall': 'this server wants larger parts: `s3.py` tells the part_size to set',
    'ExpiredToken': 'get newer credentials: access_key_id, secret_access_key and session_token',
    'Forbidden': 'may these credentials do ACTION? are access_key_id, secret_access_key and the '
                 'clock right?',
    'InvalidAccessKeyId': 'check access_key_id, and that it belongs to this endpoint; temporary '
                          'credentials need their session_token',
    'InvalidStorageClass': 'this server has other storage classes',
    'InvalidToken': 'get newer credentials: the session_token is not that of access_key_id',
    'NoSuchBucket': 'check bucket_name and endpoint, or create it with `s3dump.py init`',
    'NoSuchUpload': 'somebody aborted the upload, or the server lost it: repeat the dump',
    'NotImplemented': 'this server does not support this request',
    'PathStyleDomainForbidden': NOT_BY_PATH,        # Tencent's
    'PermanentRedirect': 'check region and endpoint in the configuration',
    'PreconditionFailed': 'an object of that name exists, and nothing was changed',
    'RequestTimeTooSkewed': "this machine's clock is wrong: set it (date -u -s); the server's "
                            "could not be learnt",
    'SecondLevelDomainForbidden': NOT_BY_PATH,      # Aliyun's
    'SignatureDoesNotMatch': 'check secret_access_key, also for blanks at its end; a proxy that '
                             'changes requests causes this too',
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
    if len(text) > limit:
        text = text[:limit] + '...'
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
    try:
        while data and sys.stderr:  # None where it is closed, and 2 may be somebody else's
            data = data[os.write(2, data):]
    except OSError:
        pass
    return not data


# --------------------------------------------------------------------- Configuration
# Lines of `name value`.  Messages about them name the file and the line.

def parser(fits, what, convert=str, least=None, most=None, secret=False):
    """Return a function that makes the value of a text, or raises ValueError.

    fits: a regular expression for all of the text, or a function; what: how the message calls a
    valid text; convert: makes the value, which must be from *least* to *most*; secret:
    whether the text is left out of the message.
    """
    def parse(text):
        if fits(text) if callable(fits) else re.fullmatch(fits, text):
            value = convert(text)
            if (least is None or value >= least) and (most is None or value <= most):
                return value
        raise ValueError('the value is not %s' % what if secret else '%r is not %s' % (text, what))
    return parse


def one_of(*words):
    """Return a function that takes these words only."""
    return parser(words.__contains__, 'one of ' + ', '.join(words))


def count_of(most):
    """Return a function that takes whole numbers from 1 to most."""
    return parser('[0-9]{1,9}', 'a number from 1 to %d' % most, int, 1, most)


def auto_or(parse):
    """Return a function that takes the word auto, too."""
    return lambda text: text if text == 'auto' else parse(text)


def bytes_of(size):
    """Return the number of bytes that a SIZE means; units are powers of 1024."""
    number = size.rstrip('kmgtKMGT')
    return int(float(number) * 1024 ** ' kmgt'.index(size[len(number):].lower() or ' '))


def seconds_of(time):
    """Return the seconds that a TIME means."""
    return int(time[:-1]) * {'s': 1, 'm': 60, 'h': 3600, 'd': 86400}[time[-1]]


def parse_tags(text):
    """Return tags, K=V&K=V, as S3 wants them in a header; raises ValueError."""
    tags = dict(tag.partition('=')[::2] for tag in text.split('&'))
    legal = r'(?!(?i:aws:))[\w +.:@/-]{1,128}=[\w +.:@/=-]{0,256}'
    if len(tags) > 10 or not re.fullmatch('(&%s){%d}' % (legal, len(tags)), '&' + text):
        raise ValueError('%r is not up to ten tags, NAME=VALUE&NAME=VALUE' % text)
    return canonical_query(tags)


def home_path(path):
    """Return *path* with the home directory for a ~ at its beginning."""
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
parse_label = parser('[^:/\0-\x1f\x7f-\x9f]+',
                     'a label without colons, slashes and control characters')

SETTINGS = {
    'service': parse_word, 'region': parse_word, 'bucket_name': parse_word, 'host': parse_label,
    'access_key_id': parse_word, 'secret_access_key': parse_secret, 'session_token': parse_word,
    'profile': parse_secret,
    'endpoint': parse_word, 'server': parse_word,
    'addressing': one_of('auto', 'path', 'virtual'), 'ca_bundle': home_path,
    'storage_class': parse_word, 'limit_rate': parse_rate, 'patience': parse_week,
    'jobs': auto_or(count_of(64)), 'max_parts': count_of(MAX_PARTS),
    'part_size': parser(SIZE, 'a part size: 5m to 5g', bytes_of, MIN_PART_SIZE, MAX_PART_SIZE),
    'checksum': one_of('auto', 'crc32', 'none'), 'etag': one_of('auto', 'md5', 'opaque'),
    'sse': one_of('AES256', 'aws:kms', 'aws:kms:dsse'), 'sse_kms_key_id': parse_word,
    'acl': one_of('private', 'public-read', 'public-read-write', 'authenticated-read',
                  'aws-exec-read', 'bucket-owner-read', 'bucket-owner-full-control'),
    'tagging': parse_tags,
    'bucket_owner': parser('[0-9]{12}', 'an account of 12 digits'),
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
        raise ConfigError('cannot read %s: %s' % (printable(path), reason)) from error


def read_config(path):
    """Return the settings in the file *path*, as a dict; raises ConfigError."""
    config = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words = line.strip().split(None, 1)
        if not words or words[0].startswith('#'):
            continue
        where = '%s:%d: ' % (path, number)
        if re.match(r'\[.*\]\Z', line.strip()):
            raise ConfigError(printable(where + 'this looks like a file of the AWS CLI, which is '
                                        'read without being named here; `profile NAME` chooses '
                                        'from it, and lines here are `name value`'))
        if words[0] not in SETTINGS:        # of `secret_access_key=...` show no more
            name, hint = re.match('[A-Za-z0-9_-]*', words[0]).group(0), ''
            if name != words[0]:
                hint = '; write name, blank, value'
            if len(name) > max(map(len, SETTINGS)):         # it may be the secret itself
                name = 'of %d characters' % len(name)
            elif not hint:
                import difflib
                hint = ''.join(map('; did you mean %s?'.__mod__,
                                   difflib.get_close_matches(name, SETTINGS, 1)))
            raise ConfigError(printable('%sunknown setting %s%s' % (where, name, hint)))
        if len(words) < 2:
            raise ConfigError(printable(where + 'no value for ' + words[0]))
        if words[0] in config:
            raise ConfigError(printable(where + words[0] + ' is set twice'))
        try:
            config[words[0]] = SETTINGS[words[0]](words[1])
        except ValueError as error:
            raise ConfigError(printable('%s%s: %s' % (where, words[0], error)))
    return config


def load_config(path=None, environ=None, warn=lambda text: None):
    """Return the settings in *path*, or in the first configuration file that exists.

    Among them is the `path` itself: who rotates credentials by hand changes the file, which is
    then read again.  environ: os.environ if None; warn: called with a line if others may read
    the secret.  Raises ConfigError.
    """
    environ = os.environ if environ is None else environ
    path = path or environ.get('S3DUMP_CONFIG') or next(filter(
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

    The name of a setting in an indented block begins with that of the block:
    s3.addressing_style.  wanted: whether somebody asked for a profile: else another user's file
    is none, as is a folder, which `docker -v` makes where there is no file.  Raises ConfigError.
    """
    if os.path.isdir(path) or not os.path.lexists(path) or (
            not wanted and not os.access(path, os.R_OK)):
        return {}
    import configparser             # here, since many machines have no such file
    import shlex
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_file(io.StringIO(read_text(path), newline=None))
    except configparser.Error as error:
        raise ConfigError('cannot read %s: it is not a file of the AWS CLI, see line %s' % (
            printable(path), getattr(error, 'lineno', 0) or error.errors[0][0])) from None
    sections = {}
    for heading in parser.sections():
        title = heading.strip()
        with contextlib.suppress(ValueError):   # of an apostrophe that stands alone
            if re.match(r'(profile|services)\s', title):
                title = ' '.join(shlex.split(title))
        section = sections.setdefault(title, {})
        for name, value in parser.items(heading):
            section[name] = value
            for line in value.splitlines() if value.startswith('\n') else ():
                inner, _, inner_value = line.partition('=')
                section['%s.%s' % (name, inner.strip().lower())] = inner_value.strip()
        if 'aws_security_token' in section:     # its old name, which goes first, as in the AWS CLI
            section['aws_session_token'] = section['aws_security_token']
    return sections


def aws_files(environ):
    """Return the paths of the credentials file and of the config file."""
    return [home_path(os.path.expandvars(environ.get(variable) or '~/.aws/' + name))
            for variable, name in (('AWS_SHARED_CREDENTIALS_FILE', 'credentials'),
                                   ('AWS_CONFIG_FILE', 'config'))]


def profile_name(config, environ):
    """Return the name of the profile that somebody asked for, or ''."""
    return (config.get('profile') or environ.get('AWS_PROFILE')
            or environ.get('AWS_DEFAULT_PROFILE') or '')


PROFILE_KEY = ('aws_access_key_id', 'aws_secret_access_key', 'aws_session_token')


def read_profile(name, environ):
    """Return the settings of a profile (default, if name is ''), or None; those in the credentials
    file take precedence.

    The settings of its `services` are included: s3.endpoint_url.  Raises ConfigError.
    """
    credentials, config = (read_ini(path, name) for path in aws_files(environ))
    title = name or 'default'
    own = credentials.get(title)
    found = [settings for settings in (
        config.get(title) if title == 'default' else None, config.get('profile ' + title), own)
             if settings is not None]
    if not found:
        return None
    profile = {name: value for settings in found for name, value in settings.items()}
    # An id and a secret from two files are nobody's; a process goes before those in config
    keyed = [settings for settings in found if 'aws_access_key_id' in settings]
    if keyed:
        for name in PROFILE_KEY:
            profile.pop(name, None)
            if name in keyed[-1] and (keyed[-1] is own or 'credential_process' not in profile):
                profile[name] = keyed[-1][name]
    if 'services' in profile:
        services = config.get('services ' + profile['services'])
        if services is None:
            raise ConfigError(printable('profile %s: there is no section [services %s]' % (
                title, profile['services'])))
        profile = dict(services, **profile)
    return profile


def configured_url(service, environ, profile):
    """Return the endpoint that the AWS tools are told to use for a service (s3, sts), or ''."""
    ignored = (environ.get('AWS_IGNORE_CONFIGURED_ENDPOINT_URLS')
               or profile.get('ignore_configured_endpoint_urls') or '').lower() == 'true'
    return '' if ignored else (
        environ.get('AWS_ENDPOINT_URL_' + service.upper()) or environ.get('AWS_ENDPOINT_URL')
        or profile.get(service + '.endpoint_url') or profile.get('endpoint_url') or '')


METADATA_SETTINGS = ('metadata_service_timeout', 'metadata_service_num_attempts',
                     'ec2_metadata_service_endpoint', 'ec2_metadata_service_endpoint_mode')


def with_environment(config, environ):
    """Return *config*, completed from the environment, then from the AWS profile.

    Raises ConfigError.
    """
    if 'server' in config:
        config = dict({'endpoint': 'https://' + config['server']}, **config)
    try:
        profile = read_profile(profile_name(config, environ), environ) or {}
    except ConfigError:
        if not config.get('endpoint') or not config.get('region'):
            raise                   # the stream might go to another place
        profile = {}                # if the credentials are to come from it, Provider complains
    found = {'bucket_name': environ.get('S3DUMP_BUCKET'),
             'region': (environ.get('AWS_REGION') or environ.get('AWS_DEFAULT_REGION')
                        or profile.get('region')),
             'endpoint': configured_url('s3', environ, profile),
             'sts_endpoint': configured_url('sts', environ, profile),
             'addressing': profile.get('s3.addressing_style'),
             'ca_bundle': home_path(environ.get('AWS_CA_BUNDLE') or profile.get('ca_bundle')
                                    or environ.get('REQUESTS_CA_BUNDLE') or ''),
             'sse': 'aws:kms' if config.get('sse_kms_key_id') else ''}
    for name in METADATA_SETTINGS:
        found[name] = environ.get('AWS_' + name.upper()) or profile.get(name)
    for name in ('use_fips_endpoint', 'use_dualstack_endpoint', 's3.use_dualstack_endpoint'):
        found[name] = (environ.get('AWS_' + name.upper()) or profile.get(name)
                       or '').lower() == 'true'
    config = dict({name: value for name, value in found.items() if value}, **config)
    region = config.get('region', '')
    if region == 'aws-global':
        config['region'] = 'us-east-1'
    elif re.search('fips-|-fips', region):              # as older names of such endpoints have it
        config.update(region=re.sub('fips-|-fips', '', region), use_fips_endpoint=True)
    return config


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
    fips, dual = config.get('use_fips_endpoint'), config.get('use_dualstack_endpoint') or (
        service == 's3' and config.get('s3.use_dualstack_endpoint'))
    kinds = '-fips' if fips else ''
    if service == 's3':
        kinds += '.dualstack' if dual else ''
    elif dual:
        suffix = dual_suffix
    elif prefix == 'us-gov-':
        kinds = ''                  # all of its STS is FIPS
    return 'https://%s%s.%s.%s' % (service, kinds, region, suffix)


# Servers whose buckets have hosts of their own, BUCKET.REGION.HOST or BUCKET.s3.REGION.HOST, and
# how they differ from S3 in ways that we can't find out by asking.  Sources: the providers' pages
# on endpoints and compatibility (ETags that are not MD5s, 1,000 parts, parts of 64 MiB).
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
    """Where a bucket lives, and what its server taught us; raises ConfigError.

    Source: Amazon S3 User Guide, "Virtual hosting of general purpose buckets".
    """

    def __init__(self, config):
        load_network()
        self.bucket = config.get('bucket_name') or ''
        if not self.bucket:
            raise ConfigError('no bucket: write `bucket_name NAME` into ~/.s3keys (or another '
                              'file, for -f), or set S3DUMP_BUCKET')
        if not re.match(r'[!-.0-~]+\Z', self.bucket):
            raise ConfigError('%s is not a valid bucket name' % quoted(self.bucket, 100))
        self.answered = False       # whether the server ever answered
        self.wants_md5 = False      # whether it wants Content-MD5 with what is written
        self.lock = threading.Lock()            # held while we learn from its refusals
        self.service = config.get('service', 's3')
        self.region = config.get('region') or 'us-east-1'
        if not re.fullmatch(REGION, self.region):
            raise ConfigError('%s is not a valid region' % quoted(self.region))
        self._config = config
        self._locate(config.get('endpoint') or aws_url('s3', self.region, config))
        style = config.get('addressing', 'auto')
        label = re.match(r'[a-z0-9][a-z0-9-]{1,61}[a-z0-9]\Z', self.bucket)
        named = self._leave_bucket_out(style)
        self.virtual = style == 'virtual' or named or (
            style == 'auto' and self.aws and bool(label))
        if self.virtual and not re.match(r'[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\Z',
                                         self.bucket):
            raise ConfigError('bucket_name %s cannot be part of a host name: use `addressing '
                              'path`' % quoted(self.bucket, 100))

    def _locate(self, url):
        """Take scheme, host, port and path from url."""
        try:
            if '?' in url or '#' in url:
                raise ValueError(url)
            scheme, host, port, path = split_url(url)
        except ValueError:
            raise ConfigError('endpoint %s is not a URL like https://s3.example.com or '
                              'http://127.0.0.1:9000' % masked(url)) from None
        if scheme == 'https' and ssl is None:
            raise ConfigError('this Python was built without ssl, or is out of memory (%s): it can '
                              'only do http://' % no_ssl)
        self.scheme, self.domain, self.port, self.path = scheme, host, port, path.rstrip('/')

    def _leave_bucket_out(self, style):
        """Remove the bucket from a URL that includes it, as the pages of some providers show it;
        returns whether it was in the host."""
        # Without `addressing virtual` the rest has to look like a host of S3, since a bucket may
        # have its server's name: backup at https://backup.example.com
        if self.path.endswith('/' + self.bucket):
            self.path = self.path[:-len(self.bucket) - 1]
        first, _, rest = self.domain.partition(self.bucket + '.')
        if first or not rest or style == 'path' or not (
                style == 'virtual' or re.match(r's3\b', rest) or known_server(rest) is not None):
            return False
        self.domain = rest
        return True

    @property
    def aws(self):
        """Whether this is Amazon itself."""
        return self.domain.endswith('.' + partition(self.domain)[1])

    @property
    def host(self):
        """The name to connect to."""
        return self.bucket + '.' + self.domain if self.virtual else self.domain

    @property
    def authority(self):
        """The Host header."""
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
        BadAnswer for a redirect that would show the signature to somebody else.

        Source: Amazon S3 User Guide, "Making requests using the REST API: request routing".
        """
        here = partition(self.domain)
        if region != self.region and re.fullmatch(REGION, region) and (
                not self.aws or partition(region) == here):
            self.region = region
            if not self._config.get('endpoint'):
                self._locate(aws_url('s3', region, self._config))
        elif location:
            try:
                scheme, host, port, _ = split_url(location if '//' in location
                                                  else '%s://%s' % (self.scheme, location))
            except ValueError:
                scheme = host = ''
            base = host[len(self.bucket) + 1:] if host.startswith(self.bucket + '.') else host
            if host == self.host:
                base = self.domain
            elif not self.aws or partition(base) != here or not base.endswith('.' + here[1]):
                base = ''
            if not base or scheme not in (self.scheme, 'https'):
                raise BadAnswer('the server redirects to %s, which is not followed with a '
                                'signature' % quoted(location, 200))
            self.scheme, self.domain, self.port = scheme, base, port


def masked(url):
    """Return *url* for a message, without the login that it may contain."""
    return quoted(re.sub('(?s)^.*@', '...@', url), 200)


def split_url(url):
    """Return (scheme, host, port, path) of an http or https URL; raises ValueError."""
    parts = urllib.parse.urlsplit(url)
    host, port = parts.hostname or '', parts.port
    label = '[-_~%A-Za-z0-9]{1,63}'
    if parts.scheme not in ('http', 'https') or parts.username is not None or port == 0 \
            or not re.match(r'(%s(\.%s)*\.?|[0-9a-f:.]+(%%.*)?)\Z' % (label, label), host) \
            or not re.match(r'[!-~]*\Z', parts.path):
        raise ValueError(url)
    return parts.scheme, host, port or (443 if parts.scheme == 'https' else 80), parts.path


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
    """Return the query string of the dict *query*: encoded, then sorted."""
    pairs = sorted((uri_encode(name), uri_encode(value)) for name, value in query.items())
    return '&'.join('%s=%s' % pair for pair in pairs)


def canonical_request(method, target, query, headers, payload_hash):
    """Return the request as it is signed, and the names of its signed headers.

    target: path, encoded; query: canonical; headers: a dict with lower-case names.
    """
    names = ';'.join(sorted(headers))
    lines = ['%s:%s\n' % (name, ' '.join(headers[name].split())) for name in sorted(headers)]
    return '\n'.join([method, target, query, ''.join(lines), names, payload_hash]), names


def credential_scope(now, region, service):
    """Return the timestamp, and what the signing key is valid for: day, region and service."""
    timestamp = time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now))
    return timestamp, '%s/%s/%s/aws4_request' % (timestamp[:8], region, service)


def signature(secret_access_key, timestamp, scope, request):
    """HMAC(HMAC(HMAC(HMAC(HMAC("AWS4" + secret, day), region), service), "aws4_request"), text),
    where text has the SHA-256 of the canonical request."""
    to_sign = '\n'.join([ALGORITHM, timestamp, scope, sha256(request.encode())])
    key = ('AWS4' + secret_access_key).encode()
    for text in scope.split('/') + [to_sign]:
        key = hmac.new(key, text.encode(), hashlib.sha256).digest()
    return key.hex()


def sign_headers(credentials, region, service, now, method, target, query, headers):
    """Add to the dict *headers*, which has x-amz-content-sha256, those that sign the request:

        x-amz-date: 20130524T000000Z
        x-amz-security-token: TOKEN                     (with temporary credentials)
        authorization: AWS4-HMAC-SHA256 Credential=KEY/SCOPE, SignedHeaders=..., Signature=...

    now: seconds since the epoch; the other arguments as for canonical_request().
    """
    timestamp, scope = credential_scope(now, region, service)
    headers['x-amz-date'] = timestamp
    if credentials.session_token:
        headers['x-amz-security-token'] = credentials.session_token
    request, names = canonical_request(method, target, query, headers, headers[PAYLOAD_HASH])
    headers['authorization'] = '%s Credential=%s/%s, SignedHeaders=%s, Signature=%s' % (
        ALGORITHM, credentials.access_key_id, scope, names,
        signature(credentials.secret_access_key, timestamp, scope, request))


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
    request, _ = canonical_request(method, target, text, {'host': authority}, UNSIGNED_PAYLOAD)
    return '%s&X-Amz-Signature=%s' % (
        text, signature(credentials.secret_access_key, timestamp, scope, request))


def sha256(data):
    """Return the digest, hexadecimal."""
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
            self._root = ElementTree.fromstring(body)
        except (ElementTree.ParseError, ValueError, LookupError) as error:
            raise BadAnswer('the answer of the server is not XML (%s): %s'
                            % (error, quoted(body[:60])))
        space, _, self.name = self._root.tag.rpartition('}')
        self._space = space and space + '}'
        if name and name != self.name:
            raise BadAnswer('the answer of the server is a %s, where S3 says %s'
                            % (printable(self.name, 50), name))

    def get(self, name):
        """Return the text of the root's child *name*, or ''."""
        return self._root.findtext(self._space + name) or ''

    def all(self, path):
        """Yield, for each element at *path*, a dict of the texts of all elements in it.

        path: names with slashes, from the root's child on; * is any child.  A listing has a
        thousand elements with six children: to find each by its name takes twice as long.
        """
        start = len(self._space)
        path = path if path == '*' else '/'.join(self._space + name for name in path.split('/'))
        for element in self._root.iterfind(path):
            yield {child.tag[start:]: child.text or '' for child in element.iter()}


def parse_time(text):
    """Return the seconds since the epoch of 2009-10-12T17:50:30.000Z; raises ValueError."""
    # strptime takes ten times as long, and a listing may hold a million times
    return (parse_day(text[:10]) + 3600 * int(text[11:13]) + 60 * int(text[14:16])
            + int(text[17:19]))


@functools.lru_cache(maxsize=4096)
def parse_day(text):
    """Return the seconds since the epoch at which 2009-10-12 begins; raises ValueError."""
    return calendar.timegm((int(text[0:4]), int(text[5:7]), int(text[8:10]), 0, 0, 0))


BIRTH_OF_S3 = 1142294400            # 2006-03-14; no honest clock says less


def parse_date(text):
    """Return the seconds since the epoch of an HTTP date (RFC 7231), None if it can't be true."""
    try:
        parsed = email.utils.parsedate_tz(text or '')
        seconds = email.utils.mktime_tz(parsed) if parsed else 0
    except (ValueError, OverflowError, UnboundLocalError, IndexError):  # the last are bugs of 3.6
        return None
    return seconds if BIRTH_OF_S3 < seconds < 2 * 10**10 else None


def parse_error(label, method, status, headers, body):
    """Return the ResponseError for an answer of *status* >= 300."""
    try:
        get = Document(body, 'Error').get
    except BadAnswer:               # no body, a page, or XML with unescaped text
        code = re.search(b'<Code>([A-Za-z0-9._-]{1,100})</Code>', body)
        get = {'Code': code.group(1).decode() if code else '', 'Message': '', 'ServerTime': ''}.get
    code, message, date = get('Code'), get('Message'), parse_date(headers.get('date'))
    with contextlib.suppress(ValueError):
        date = parse_time(get('ServerTime'))
    if not code:
        code = {403: 'Forbidden', 404: 'NotFound', 412: 'PreconditionFailed'}.get(
            status, http.client.responses.get(status, 'unknown error'))
        if body and method != 'HEAD':
            message = 'not an S3 error but ' + quoted(body[:80])
    return ResponseError(
        label, status, code, message,
        request_id=get('RequestId') or headers.get('x-amz-request-id') or '',
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
    body = io.BytesIO()             # of a megabyte: a list of 10,000 strings takes more
    body.write(b'<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">')
    for number, (etag, crc32) in enumerate(parts, 1):
        checksum = '<ChecksumCRC32>%s</ChecksumCRC32>' % crc32 if crc32 else ''
        body.write(('<Part><PartNumber>%d</PartNumber><ETag>%s</ETag>%s</Part>\n'
                    % (number, escape(etag), checksum)).encode())
    body.write(b'</CompleteMultipartUpload>')
    return body.getvalue()


def escape(text):
    """Escape *text* for the inside of an XML element."""
    return text.replace('&', '&amp;').replace('<', '&lt;').replace('>', '&gt;')


def parse_upload_id(answer):
    """Return the upload id in the answer to a CreateMultipartUpload."""
    upload_id = Document(answer.body).get('UploadId')  # the name of the root differs in rclone
    if not upload_id:
        raise BadAnswer('the server gave no upload id')
    return upload_id


def require_completion(label, answer):
    """Raise the error that may stand in the Answer to a CompleteMultipartUpload in spite of 200."""
    body = answer.body.strip()
    if Document(body).name == 'Error':
        raise parse_error(label, 'POST', answer.status, answer.headers, body)
    Document(body, 'CompleteMultipartUploadResult')


def require_etag(answer):
    """Return the ETag; an answer without one isn't S3's (but a captive portal's)."""
    etag = answer.headers.get('etag')
    if not etag:
        raise BadAnswer('the server acknowledges nothing: its answer has no ETag')
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


def decoder(listing, prefix):
    """Return the function that decodes the keys of a listing (a Document): they are url-encoded,
    unless the server ignored our wish; one that lacks the prefix was encoded without a word."""
    return unquote if listing.get('EncodingType') == 'url' else lambda key: (
        key if key.startswith(prefix) or not unquote(key).startswith(prefix) else unquote(key))


def unquote(text):
    """Like unquote_plus(), but a listing takes a tenth less time: in the keys of dumps only these
    two are encoded."""
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
        try:
            size = texts['Size']
            if not size.isdigit() or len(size) > 18:
                raise ValueError(size)
            yield ListEntry(decode(texts['Key']), int(size), parse_time(texts['LastModified']),
                            texts.get('StorageClass') or 'STANDARD', texts.get('ETag', ''),
                            'ongoing' if texts.get('IsRestoreInProgress') == 'true' else
                            'done' if texts.get('RestoreExpiryDate') else '')
        except (KeyError, ValueError):
            raise BadAnswer('an entry of the listing lacks its key, size or time')


def version_entries(listing, decode):
    """Return the ListEntries of a page of ListObjectVersions: by key, and of each key the newest
    first, as S3 has them; some servers put all delete markers last."""
    found = [dict(texts, Size=texts.get('Size', '' if 'Version' in texts else '0'))
             for texts in listing.all('*') if 'Version' in texts or 'DeleteMarker' in texts]
    found.sort(reverse=True, key=lambda texts: (
        texts.get('IsLatest') == 'true', texts.get('LastModified', '')))
    entries = [entry._replace(key=Key(entry.key, texts.get('VersionId') or 'null'),
                              marker='DeleteMarker' in texts)
               for entry, texts in zip(list_entries(found, decode), found)]
    return sorted(entries, key=lambda entry: entry.key)


def version_at(versions, at):
    """Return the ListEntry of what was there at a time, or None; versions: all of one key, the
    newest first; at: as Bucket.at, but for None."""
    for number, version in enumerate(versions):
        if not version.marker if at is UNDELETED else version.modified <= at:
            return None if version.marker else version._replace(above=tuple(versions[:number]))


def upload_entries(listing, decode):
    """Yield the UploadEntries of a page of ListMultipartUploads."""
    for texts in listing.all('Upload'):
        try:
            yield UploadEntry(decode(texts['Key']), texts['UploadId'],
                              parse_time(texts['Initiated']))
        except (KeyError, ValueError):
            raise BadAnswer('an upload in the listing lacks its key, id or time')


# ----------------------------------------------------------------------------- Parts
# How a stream becomes parts, and one too long for an object becomes volumes.

def read_part(stream, view, workers):
    """Fill *view* from *stream*; returns the count of bytes, less than len(view) only at the end.

    Failures of the Workers are raised while a stream without a buffer of its own (an io.FileIO,
    or one with an attribute `unbuffered`) stands still.
    """
    unbuffered, count = isinstance(stream, io.FileIO) or hasattr(stream, 'unbuffered'), 0
    while count < len(view):
        if unbuffered:
            workers.wait_for(stream.fileno())
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


def end_key(key, last):
    """Return the key of the end mark, which says that the last volume has the number *last*."""
    return '%s.end_%06d' % (key, last)


def host_label(config, environ=os.environ):
    """Return this machine's label in the keys of its dumps, and what gave it."""
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
            if self.rate is not None:
                self._next -= count / self.rate


# -------------------------------------------------------------------------------- Pace
# How many connections are worth their while.

class Pace:
    """How many parts are in flight: as many as make the transfer faster, from *jobs* to *most*.

    While the network is what is waited for, more connections are tried, and kept if the rate
    rises by a twentieth.  Each number is given a moment to settle, and is then measured over
    SPAN seconds and SAMPLE bytes at least.  A number that was tried in vain is tried again after
    RETRY seconds, then after twice as many, for links change.  slowed: a deque of the times at
    which the server asked for slower requests; each takes one away for CALM seconds.
    """
    SPAN, SAMPLE = 0.2, 16 << 20    # less than a sample may be in the buffers of the kernel
    RETRY, MOST_RETRY = 15, 600
    CALM = 5

    def __init__(self, jobs, most, slowed=()):
        self._jobs, self._most, self._slowed = jobs, most, slowed
        self._waited = 0            # seconds so far
        self._mark = None           # (time, bytes moved, seconds waited) when this span began
        self._settled = False
        self._before = None         # (jobs, rate) before the number under trial
        self._step, self._pause, self._again = 2, self.RETRY, 0

    def jobs(self, now):
        """Return how many parts may be in flight; now: monotonic seconds."""
        return max(1, self._jobs - sum(now - when < self.CALM for when in tuple(self._slowed)))

    def look(self, now, moved, waited, limit=None):
        """Decide whether to change the number, at *now* in monotonic seconds.

        moved: bytes so far; waited: seconds since the last look in which the network was waited
        for; limit: bytes per second that are allowed, or None.
        """
        self._waited += waited
        mark = now, moved, self._waited
        if self._mark is None or self.jobs(now) < self._jobs:
            self._mark, self._settled = mark, False
        seconds, count, waited = (here - there for here, there in zip(mark, self._mark))
        if seconds >= self.SPAN and count >= self.SAMPLE:
            self._mark, self._settled = mark, not self._settled
            if not self._settled:
                self._decide(now, count / seconds, waited / seconds, limit)

    def _decide(self, now, rate, waiting, limit):
        before, self._before = self._before, None
        if before and rate < 1.05 * before[1]:
            self._jobs, self._step = before[0], 2
            self._again, self._pause = now + self._pause, min(2 * self._pause, self.MOST_RETRY)
        elif waiting > 1 / 8 and self._jobs < self._most and now >= self._again and (
                limit is None or rate < 0.9 * limit):
            self._before = self._jobs, rate
            self._step = self._jobs if before else self._step
            self._jobs = min(self._most, self._jobs + self._step)


def most_jobs(part_size, memory):
    """Return how many parts of *part_size* bytes may be in flight at most: an eighth of *memory*
    may be filled with them (bytes; None: unknown)."""
    return max(JOBS, min(MOST_JOBS, (memory or 0) // 8 // part_size - 1))


def available_memory(root='/'):
    """Return the bytes that the machine, its cgroups and ulimit -v leave us, or None if unknown.

    Sources: proc_meminfo(5); cgroups(7); Linux, "Control Group v2", "Memory Resource Controller".
    """
    def lines(*path):
        try:
            with open(os.path.join(root, *path)) as file:
                return file.read().split('\n')
        except (OSError, UnicodeDecodeError):
            return []

    import resource                 # here, since only transfers ask
    limits = [resource.getrlimit(resource.RLIMIT_AS)[0]]
    limits += [1024 * int(line.split()[1]) for line in lines('proc/meminfo')
               if line.startswith('MemAvailable:')]
    for line in lines('proc/self/cgroup'):
        _, controllers, path = line.split(':', 2) if line.count(':') > 1 else ('', 'none', '')
        while controllers in ('', 'memory') and path:       # the limits of its parents hold, too
            for name in 'memory.max', 'memory.limit_in_bytes':
                limits += [int(text) for text in lines(
                    'sys/fs/cgroup', controllers, path.strip('/'), name) if text.isdigit()]
            path = path.rstrip('/').rpartition('/')[0] + '/' if path != '/' else ''
    return min([limit for limit in limits if limit != resource.RLIM_INFINITY], default=None)


# --------------------------------------------------------------------------- Answers
# http.client lets truncation pass when it fills a buffer, and waits for ever for a server that
# sends a byte a minute; so here bytes are counted, and the time is limited.

Answer = collections.namedtuple('Answer', 'status headers body')


def read_answer(response):
    """Return the whole Answer, MAX_MESSAGE bytes at most; of an error only the beginning."""
    most = MAX_MESSAGE if response.status < 300 else MAX_ERROR
    body = response.read(most + 1 if response.length is None else min(most + 1, response.length))
    if len(body) <= most:
        if response.length:
            raise http.client.IncompleteRead(b'', response.length)
        response.read()             # nothing; the read before may leave the response open
    elif response.status < 300:
        raise BadAnswer('the answer of the server has no end')
    return Answer(response.status, response.headers, body[:most])


def seek_range(response, first, count):
    """Leave *response* at byte *first* of the object, with *count* more to come; returns the size
    of the object, or None where the server doesn't tell it.

    Some servers answer a ranged GET with 200, and with the range or the whole object.
    """
    said = re.match(r'bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]*)',
                    response.headers.get('content-range') or '')
    length = response.length
    if said or response.status == 206:
        if not said or (int(said.group(1)), int(said.group(2))) != (first, first + count - 1) \
                or length not in (None, count):
            raise BadAnswer('the server was asked for bytes %d-%d, and sends %s'
                            % (first, first + count - 1, said.group(0) if said else 'others'))
        return int(said.group(3)) if said.group(3) else None
    if not response.headers.get('etag'):
        raise BadAnswer('an answer without an ETag is not from S3')
    if length != count:
        rest = first
        while rest:
            got = len(response.read(min(rest, BLOCK)))
            if not got and (response.length == 0 or response.chunked):
                raise BadAnswer('the server ignores ranges, and its object ends early')
            if not got:
                raise http.client.IncompleteRead(b'', rest)
            rest -= got
    return None


def read_blocks(response, view):
    """Fill *view* from *response*; yields the size of each block."""
    while len(view):
        count = response.readinto(view[:BLOCK])
        if not count:
            raise http.client.IncompleteRead(b'', len(view))
        view = view[count:]
        yield count


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

    def __enter__(self):
        pass

    def __exit__(self, *_):
        pass


NO_SIGNALS = NoSignals()

Proxy = collections.namedtuple('Proxy', 'host port headers')


def find_proxy(environ, scheme, host):
    """Return the Proxy that *environ* names for the URLs of a scheme and host, or None, by the
    variables that curl(1)'s manual describes; raises ConfigError."""
    def variable(name):             # empty in small letters, it switches the other off
        return environ.get(name, environ.get(name.upper())) or ''

    name = scheme + '_proxy'
    url, exempt = variable(name), variable('no_proxy').replace(',', ' ').split()
    if not url or any(covers(each.lower(), host) for each in exempt):
        return None
    try:
        parts, headers = urllib.parse.urlsplit(url if '//' in url else 'http://' + url), {}
        if parts.scheme not in ('', 'http'):
            raise ConfigError('%s names a proxy by %s://, and only those by http:// can be used: '
                              'they pass on https, too' % (name.upper(), parts.scheme))
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
    """Return what getaddrinfo() knows of *host*, in the order in which to try it: the one that
    answered last time, then the families by turns."""
    found, seen = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM), collections.Counter()
    best = ANSWERED.get((host, port), found[0])

    def order(each):
        seen[each[0]] += 1
        return each != best, seen[each[0]], each[0] != best[0]
    return sorted(found, key=order)


def begin_connecting(family, kind, protocol, _, address):
    """Return a socket that is being connected to *address*; raises OSError."""
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        number = sock.connect_ex(address)
        if number not in (0, errno.EINPROGRESS, errno.EINTR):
            raise OSError(number, os.strerror(number))
    except BaseException:
        sock.close()
        raise
    return sock


def connect_first(host, port, seconds, check):
    """Return a socket that is connected to *host*, within *seconds*; check: called now and then,
    may raise.  Raises the most telling OSError.

    Its addresses are tried a quarter of a second after one another, or as soon as those before
    have failed, until one answers (RFC 8305).
    """
    addresses, trying, failures = find_addresses(host, port), {}, []
    end = time.monotonic() + seconds
    try:
        while (addresses or trying) and time.monotonic() < end:
            check()
            if addresses:
                address = addresses.pop(0)
                try:
                    sock = begin_connecting(*address)
                except OSError as error:
                    failures.append(error)
                    continue
                trying[sock.fileno()] = sock, address
            pause = min(NEXT_ADDRESS, end - time.monotonic())
            for descriptor in ready(trying, select.POLLOUT, pause):
                sock, address = trying.pop(descriptor)
                number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not number:
                    if failures or trying:
                        ANSWERED[host, port] = address
                    return sock
                sock.close()
                failures.append(OSError(number, os.strerror(number)))
    finally:
        for sock, _ in trying.values():
            sock.close()
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

    Only its thread may use it, but any thread may call cancel().  bucket: has the clock and the
    TLS context; origin: has scheme, host and port; environ: may name a proxy; signals: as a
    Bucket's, if this is the main thread.
    """

    def __init__(self, bucket, origin, limit, environ, signals):
        self._bucket, self._origin, self.limit = bucket, origin, limit
        self._environ, self._signals = environ, signals
        self.proxy = None           # the Proxy that the connection goes through
        self._sock = None
        self._used = None           # what it is connected to, and when it was used, by the clock
        self.reused = False         # whether the request under way found it open
        self.left = None            # bytes of the last request that were not sent; None if none
                                    # was, or it succeeded
        self._reader = None         # the Reader of the answer
        self._alarm = threading.Lock()      # held until cancel(), which thus ends pause()
        self._alarm.acquire()

    @property
    def cancelled(self):
        return not self._alarm.locked()

    def _open(self, timeout):
        """Connect, unless the connection has proven to be alive."""
        origin = self._origin
        place = origin.scheme, origin.host, origin.port, self.limit.rate is None
        self.left = None
        self._go_home_if_cancelled()
        self.reused = bool(self._sock and self._used[0] == place
                           and self._bucket.monotonic() - self._used[1] < IDLE_TIME
                           and not ready([self._sock], select.POLLIN, 0))   # that is its end
        if not self.reused:
            self.close()
            self.proxy = find_proxy(self._environ, origin.scheme, origin.host)
            with self._signals:
                self._connect(*place[:3], timeout=min(CONNECT_TIMEOUT, timeout))
        self._used = place, self._bucket.monotonic()
        self._keep_short()
        self._sock.settimeout(timeout)
        self._go_home_if_cancelled()

    def _connect(self, scheme, host, port, timeout):
        """Connect, through the proxy if there is one, and begin TLS if need be."""
        context = self._bucket.tls() if scheme == 'https' else None
        self._sock = connect_first(*(self.proxy or (host, port))[:2], timeout,
                                   self._go_home_if_cancelled)
        self._sock.settimeout(timeout)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context and self.proxy:
            self._dig_tunnel(('[%s]:%d' if ':' in host else '%s:%d') % (host, port))
        if context:                 # the handshake comes second, so that cancel() finds the socket
            self._sock = context.wrap_socket(self._sock, server_hostname=host,
                                             do_handshake_on_connect=False)
            self._sock.do_handshake()

    def _dig_tunnel(self, authority):
        """Have the proxy connect to *authority*."""
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

    def take(self, count):
        """Wait until *count* bytes may pass, but not if the transfer has failed elsewhere."""
        self.limit.take(count, self.pause)
        self._go_home_if_cancelled()

    def _go_home_if_cancelled(self):
        if self.cancelled:
            raise Cancelled()

    @contextlib.contextmanager
    def exchange(self, method, target, headers, body, timeout):
        """Send a request; a context that gives http.client's response, for its body to be read,
        and that leaves the connection fit for the next request.

        target: with the query; timeout: seconds of silence.  Raises OSError,
        http.client.HTTPException and BadAnswer.
        """
        response, reader = None, Reader(self)
        self._reader = reader
        try:
            self._open(timeout)
            response = self._ask(method, target, headers, body, timeout)
            yield response
            self.left = None
        except (OSError, http.client.HTTPException) as error:
            raise reader.broken or error    # the first of them
        except ValueError as error:     # http.client trips over some nonsense
            if certificate_error(error):    # a ValueError in Python 3.6
                raise ssl.SSLError(1, 'CERTIFICATE_VERIFY_FAILED: %s' % error)
            raise BadAnswer('the server does not speak HTTP: %s' % printable(str(error), 100))
        finally:
            if response and response.isclosed() and not (response.will_close or reader.broken):
                self._used = self._used[0], self._bucket.monotonic()
            else:
                self.close()        # nobody can go on after half an exchange
            if response:
                response.close()
            self._reader = None

    def _ask(self, method, target, headers, body, timeout):
        """Send a request; returns the response."""
        headers = dict(headers, **{'accept-encoding': 'identity'})
        if self.proxy and self._origin.scheme == 'http':            # RFC 9112, section 3.2.2
            target = 'http://%s%s' % (headers['host'], target)
            headers.update(self.proxy.headers)
        head = request_head(method, target, headers)
        self.left = len(head) + len(body)
        try:
            self._send(head)
            self._send(body)
        except OSError as broken:
            return self._last_words(method, broken)
        return self._answer(method, timeout)

    def _send(self, data):
        """Send *data* (bytes-like), as fast as the rate limit allows."""
        view = memoryview(data)
        while len(view):
            piece = view[:self.limit.slice()]
            self.take(len(piece))
            view = view[len(piece):]
            while len(piece):       # not sendall(), whose time-out is for all of it
                with self._signals:
                    count = self._sock.send(piece)
                self.left -= count
                self.limit.moved_at = time.monotonic()
                piece = piece[count:]

    def receive(self, view):
        """Receive into *view*; returns the count of bytes, 0 at the end."""
        with self._signals:
            count = self._sock.recv_into(view)
        self.limit.moved_at = time.monotonic()
        return count

    def _answer(self, method, timeout):
        """Return the response, its head read to the end, and in time."""
        reader = self._reader
        reader.deadline = time.monotonic() + 2 * timeout
        response = http.client.HTTPResponse(reader, method=method)
        try:
            response.begin()
            while response.status in range(102, 200):   # RFC 9110, 15.2; http.client skips 100 only
                response.headers = response.msg = None
                response.begin()
            if response.status < 200:
                raise BadAnswer('the server answers %d, which ends no request' % response.status)
        except BaseException:
            response.close()
            raise
        reader.in_body, reader.deadline = True, None
        return response

    def _last_words(self, method, broken):
        """Return the answer of a server that hung up while we were sending: it tells the reason.

        It came before the end of the connection, or it doesn't come.
        """
        self._go_home_if_cancelled()
        if not ready([self._sock], select.POLLIN, 0):
            raise broken
        try:
            self._sock.settimeout(GRACE)
            response = self._answer(method, GRACE)
        except (OSError, http.client.HTTPException, BadAnswer):
            raise broken
        if response.status < 300:
            response.close()
            raise broken            # praise for half a request is worth nothing
        response.will_close = True
        return response

    def read(self, response, seconds):
        """Return the whole Answer, the rest of which must come within *seconds*."""
        self._reader.deadline = time.monotonic() + seconds
        answer = read_answer(response)
        if self._reader.broken:
            raise self._reader.broken
        return answer

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
        self._go_home_if_cancelled()

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
        return io.BufferedReader(self)

    def readable(self):
        return True

    def readinto(self, view):
        limit = self._connection.limit
        view, count = memoryview(view)[:limit.slice()], 0
        try:
            self._connection.take(len(view))
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
    """Return the ssl.SSLContext: certificates are always checked, by ca_bundle or the system's
    CAs; raises ConfigError."""
    kind = 'capath' if ca_bundle and os.path.isdir(ca_bundle) else 'cafile'
    try:
        context = ssl.create_default_context(**{kind: ca_bundle or None})
    except (OSError, ssl.SSLError) as error:
        raise ConfigError('cannot load ca_bundle %s: %s' % (printable(ca_bundle), error))
    if ca_bundle:                   # one's own CA need not keep to all of RFC 5280
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


# --------------------------------------------------------------------------- Workers

class Thread:
    """A thread that calls *function*, and doesn't keep the program from ending.

    threading.Thread.start() would wait for ever for one that finds no memory to begin.
    """

    def __init__(self, function):
        self._function, self._due = function, time.monotonic() + BEGIN_TIMEOUT
        self.begun, self._running = False, threading.Lock()     # the Lock is held until the end
        self._running.acquire()

    def start(self):
        """Start it; raises RuntimeError where the system has no more threads."""
        _thread.start_new_thread(self._run, ())

    def _run(self):
        try:
            self.begun = True
            self._function()
        except BaseException:       # whoever waits for the result will notice
            pass
        finally:
            self._running.release()

    def join(self, seconds):
        """Wait for its end, *seconds* at most."""
        if self._running.acquire(timeout=seconds):
            self._running.release()

    @property
    def alive(self):
        """Whether it runs, or may still begin."""
        return self._running.locked() and (self.begun or time.monotonic() < self._due)


def in_main_thread():
    """Whether the main thread asks; current_thread() doesn't know our Threads."""
    return threading.get_ident() == threading.main_thread().ident


class Task:
    """A call in a worker's thread; its value is the worker's until it is done.

    frees: the buffer that nobody needs after the call.
    """
    done, value = False, None

    def __init__(self, call, frees):
        self.call, self.frees = call, frees


Pipe = collections.namedtuple('Pipe', 'reader writer')


class Workers:
    """The threads of a Bucket, as many as its Pace says, and one buffer for a part more.

    A buffer belongs to the main thread, which got it from buffer(), until it is submitted; then to
    the Task, whose thread releases it after success where the Task `frees` it, and leaves that
    to the main thread otherwise.  Threads and buffers are made when first needed.  The first
    failure of any task is raised by whatever the main thread asks for next.

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
        self._tasks = Pipe(*os.pipe())      # a byte per task, to the threads
        self._news = Pipe(*os.pipe())       # a byte when something has changed
        os.set_blocking(self._news.writer, False)   # a full pipe is news enough

    @property
    def jobs(self):
        """How many tasks may be under way."""
        return self._pace.jobs(self._bucket.monotonic())

    def buffer(self):
        """Return a memoryview for a part, as soon as one is free."""
        while len(self._unfinished) > self.jobs or (
                self._unfinished and not self._free and self._made > self.jobs):
            self.listen()
        self._raise()
        if self._free:
            return self._free.popleft()
        self._made += 1
        try:                        # not a bytearray, whose pages are taken at once
            return memoryview(mmap.mmap(-1, self._bucket.part_size,
                                        mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        except OSError:
            raise MemoryError('no room for a part')

    def map(self, function, items):
        """Return [function(item)] for all items; as many calls are under way as ever may be, if the
        rate is free: small requests are mostly waiting."""
        bucket, pace = self._bucket, self._pace
        self._pace = pace if bucket.limit.rate else Pace(bucket.most_jobs(), 0)
        tasks = [self.submit(function, item) for item in items]
        values = [self.wait(task) for task in tasks]
        self._pace = pace
        return values

    def release(self, buffer):
        self._free.append(buffer)

    def submit(self, function, *args, frees=None):
        """Have function(*args) called by a thread; returns the Task."""
        task = Task(functools.partial(function, *args), frees)
        self._unfinished.append(None)
        if len(self._threads) < min(self.jobs, len(self._unfinished)):
            self._add_thread()
        self._queue.append(task)
        os.write(self._tasks.writer, b'.')
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

    def listen(self):
        """Wait for news from a thread, for a moment at most."""
        bucket, start = self._bucket, self._bucket.monotonic()
        self._listen()
        now = bucket.monotonic()
        self._pace.look(now, bucket.limit.moved - bucket.tally.wasted, now - start,
                        bucket.limit.rate)

    def wait_for(self, descriptor):
        """Wait until *descriptor* can be read; raises if a task fails meanwhile."""
        while descriptor not in self._listen(descriptor):
            pass

    def _listen(self, *descriptors):
        """Wait for news from a thread, or until one of *descriptors* can be read, or for a moment;
        returns the readable ones."""
        self._raise()
        self._bucket.signals.poll()
        if self._bereaved():
            raise MemoryError('a thread died')
        found = ready((self._news.reader,) + descriptors, select.POLLIN, 0.1)
        if self._news.reader in found:
            os.read(self._news.reader, 4096)
            self._raise()
        return found

    def _raise(self):
        if self._failures:
            raise self._failures[0]

    def _bereaved(self):
        """Whether a thread died, maybe with a task, or none began."""
        return bool(self._threads) and not self._stopped and (
            any(thread.begun and not thread.alive for thread in self._threads)
            or not self._alive())

    def stop(self, worth_waiting=lambda: False):
        """Break off all tasks, and return when no thread can send anything any more.

        worth_waiting: whether some task should end by itself, within GRACE.
        """
        if self._stopped:
            return
        self._stopped = True
        os.write(self._tasks.writer, b'.' * len(self._threads))
        end = time.monotonic() + GRACE
        while worth_waiting() and self._alive() and time.monotonic() < end:
            time.sleep(0.01)
        for connection in list(self._connections):
            connection.cancel()
        start = time.monotonic()        # a thread that looks up a name does no more than that
        while self._alive() and time.monotonic() < start + (
                GRACE if any(each.left is not None for each in list(self._connections))
                else GRACE / 5):
            time.sleep(0.01)
        if not self._alive():
            for descriptor in self._tasks + self._news:
                os.close(descriptor)

    def _alive(self):
        return any(thread.alive for thread in self._threads)

    def _work(self):
        connection = self._bucket.connection()
        self._connections.append(connection)
        while os.read(self._tasks.reader, 1) and not self._stopped:
            task = self._queue.popleft()
            try:
                task.value = task.call()
                if task.frees is not None:
                    self.release(task.frees)
            except BaseException as error:      # the main thread has to hear of all
                self._failures.append(error)
            task.call, task.frees, task.done = None, None, True
            self._unfinished.pop()
            with contextlib.suppress(BlockingIOError):
                os.write(self._news.writer, b'.')
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
        most = most_tries(error)
        self._wrong += most < NO_END
        self.lasted = now - self._since
        left = self._patience() - self.lasted
        if left < 0.001 or self._wrong >= min(most, 5):
            return None
        self._failures += 1
        bound = min(max(20, min(self.lasted / 60, 300)),
                    (1 if too_fast(error) else 0.1) * 2 ** min(self._failures - 1, 12))
        pause = max(random.uniform(0, bound), getattr(error, 'retry_after', 0))
        return min(pause, left)


NO_END = float('inf')               # of tries

# What may pass, by status and by code.  Sources: RFC 7231, section 6; RFC 6585 (429, 511); RFC 4918
# (507); Amazon S3 API Reference, "List of error codes".  499 is nginx's, for a client that it
# believes gone; the four 5xx that are left out need somebody to act.
TRANSIENT_STATUS = {408, 429, 499} | set(range(500, 600)) - {501, 505, 507, 511}
TRANSIENT_CODES = {'SlowDown', 'InternalError', 'RequestTimeout', 'OperationAborted',
                   'ServiceUnavailable', 'ConditionalRequestConflict',
                   'IncompleteBody'}        # a proxy cut the connection
DAMAGED_CODES = {'BadDigest', 'XAmzContentSHA256Mismatch', 'XAmzContentChecksumMismatch'}
AGED_CODES = {'RequestTimeTooSkewed'}   # though the clocks agree: it waited in a queue
EXPIRED_CODES = {'ExpiredToken', 'ExpiredTokenException', 'TokenRefreshRequired', 'InvalidToken',
                 'InvalidAccessKeyId'}  # the last where somebody rotates keys in a file


def too_fast(error):
    """Whether the server asks for slower requests."""
    return getattr(error, 'code', '') == 'SlowDown' or getattr(error, 'status', 0) in (429, 503)


def most_tries(error):
    """Return how often a request may end in *error*: once, five times, or without end."""
    if isinstance(error, ResponseError):
        if error.status in TRANSIENT_STATUS or error.code in TRANSIENT_CODES:
            return NO_END
        return 5 if error.status == 200 or error.code in DAMAGED_CODES | AGED_CODES else 1
    if isinstance(error, OSError):
        final = (tls_failure(error)
                 or 'Tunnel connection failed: 4' in str(error)
                 or error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM))
        return 1 if final else NO_END
    if isinstance(error, (http.client.IncompleteRead, NetworkError)):
        return NO_END               # the latter is of a source of credentials
    return 5 if isinstance(error, (http.client.HTTPException, BadAnswer)) else 1


def certificate_error(error):
    """Whether TLS failed because the certificate isn't good."""
    return ssl is not None and (isinstance(error, ssl.CertificateError)
                                or 'CERTIFICATE_VERIFY_FAILED' in str(error))


def tls_failure(error, now=0, ca_bundle=None):
    """Return what to say of TLS that fails as often as it is tried, or '' for any other error."""
    if certificate_error(error):
        return "the server's certificate is not accepted: %s%s" % (
            brief(error), certificate_hint(str(error), now, ca_bundle))
    if 'WRONG_VERSION_NUMBER' in str(error):
        return 'the server does not speak TLS: is it an http:// endpoint?'
    if re.search('protocol version|unsupported protocol|wrong ssl version|version too low|'
                 'no protocols available|legacy (sigalg|renegotiation)', str(error)):
        return ('the server and this Python (%s) have no version of TLS in common: both need TLS '
                '1.2 or newer' % ssl.OPENSSL_VERSION)
    return ''


def brief(error):
    """Return the cause of a failed attempt, in a few words."""
    if isinstance(error, ResponseError):
        return '%s (%d)' % (printable(error.code, 100), error.status)
    if isinstance(error, socket.timeout):
        return 'no answer in time'
    if isinstance(error, http.client.IncompleteRead):
        return 'the answer broke off'
    return printable(getattr(error, 'strerror', None) or str(error) or type(error).__name__, 300)


def network_error(what, endpoint, proxy, error, attempts, now, ca_bundle=None):
    """Return the NetworkError that explains *error* in a line."""
    reason = tls_failure(error, now, ca_bundle) or brief(error) + (
        outage_hint(endpoint, proxy, error) if attempts > 1 else '')    # once only: it is optional
    through = ' through the proxy %s:%d' % proxy[:2] if proxy else ''
    tried = ' (gave up after %d attempts)' % attempts if attempts > 1 else ''
    return NetworkError(printable('%s: %s%s: %s%s' % (
        what, endpoint.authority, through, reason, tried)))


def outage_hint(endpoint, proxy, error):
    """Return where to look if the server can't be reached, or ''."""
    hints = (
        (socket.gaierror, '; check the name %s, and that this machine can look up names'
         % (proxy or endpoint).host),
        (getattr(ssl, 'SSLError', ()), '; does the server speak TLS at this port, or is it an '
         'http:// endpoint?'),
        (ConnectionResetError, '; is it an https:// endpoint?' * (endpoint.scheme == 'http')),
        (ConnectionRefusedError, '; nothing answers at this port: check the %s'
         % ('proxy' if proxy else 'endpoint')),
        (socket.timeout, '' if proxy else '; is a firewall or a proxy in between?'))
    return next((hint for kind, hint in hints if isinstance(error, kind)), '')


def certificate_hint(text, now, ca_bundle):
    """Return what to do about a certificate that was refused with this *text*."""
    if re.search('(?i)hostname|ip address', text):
        return ('; the host of endpoint must be a name in it: `addressing path` keeps the '
                "bucket's name out")
    hint, untold = '', 'verify failed (' in text        # 3.6 doesn't say why
    clock = '; is the clock right? it says %s' % time.strftime('%Y-%m-%d %H:%M UTC',
                                                               time.gmtime(now))
    if 'expired' in text or 'not yet valid' in text:
        return clock + '; if so, the server needs another one'
    if not ca_bundle:
        hint = '; ca_bundle names the CA of a server of your own'
    elif untold or re.search('issuer|self.signed', text):
        hint = ('; ca_bundle %s must hold the CA that signed it (a folder after `openssl rehash`)'
                % ca_bundle)
    return (clock if untold else '') + hint


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
    """Return the Credentials in the dict *settings*, in which they have these three *names*.

    Raises Absent, and ConfigError, which contains no secret.
    """
    key, secret, token = (settings.get(name) or None for name in names)
    if not key and not secret:
        raise Absent('no %s in %s' % (names[0], where))
    if not key or not secret:
        raise ConfigError('%s is incomplete: %s is missing' % (
            printable(where), names[1] if key else names[0]))
    for name, parse in zip(names, (parse_word, parse_secret, parse_word)):
        try:
            parse(settings.get(name) or 'none')
        except (ValueError, TypeError):
            raise ConfigError(printable('%s in %s is not text that can be signed with' % (
                name, where))) from None
    return Credentials(key, secret, token, parse_expiration(settings.get('Expiration')))


def parse_credentials(where, answer, token):
    """Return the Credentials in an Answer of JSON, where the session token has the name *token*.

    Raises ConfigError, which contains nothing of the document.
    """
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
    """Return the exit status of a subprocess.Popen, negative for a signal, None while it runs.

    Raises ChildProcessError if the status is lost, as when our parent ignores SIGCHLD;
    Popen.poll() returns 0 then.
    """
    if process.returncode is None:
        pid, status = os.waitpid(process.pid, os.WNOHANG)
        if pid:
            process.returncode = (
                -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
    return process.returncode


def parse_expiration(text):
    """Return the seconds since the epoch of an ISO 8601 time with an offset; None for no text.

    Raises ValueError.
    """
    if not text:
        return None
    match = re.match(r'[-0-9]{10}[T ][:0-9]{8}(?:[.,][0-9]+)?(?:Z|([+-][0-9]{2}):?([0-9]{2}))\Z',
                     text)
    if not match:
        raise ValueError('%r is not a time' % text)
    hours, minutes = match.group(1) or '+0', match.group(2) or '0'
    return parse_time(text) - 3600 * int(hours) - 60 * int(hours[0] + minutes)


# The sources, each a function that returns Credentials or raises Absent, ConfigError or
# NetworkError.  They are given the settings, the environment, the region of STS, which doesn't
# change with that of the bucket, the Bucket, whether they are asked again, and the profiles that
# name this one as their source.
Given = collections.namedtuple('Given', 'config environ region bucket again users')

PROCESS_TIMEOUT = 60                # seconds
INSTANCE_TIMEOUT = 1                # the service is on this machine, or nowhere
CONTAINER_TIMEOUT = 5
CONTAINER_HOSTS = r'169\.254\.170\.23?|fd00:ec2::23|localhost|127(\.[0-9]{1,3}){3}|::1'


def from_configuration(given):
    path = given.config.get('path')
    config = read_config(path) if given.again and path else given.config
    return make_credentials('the configuration', config, (
        'access_key_id', 'secret_access_key', 'session_token'))


def from_environment(given):
    found = make_credentials('the environment', given.environ, (
        'AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'AWS_SECURITY_TOKEN' if given.environ.get(
            'AWS_SECURITY_TOKEN') else 'AWS_SESSION_TOKEN'))
    if profile_name(given.config, given.environ):
        chosen_profile(given)       # one that is missing is not passed over in silence
    return found


def chosen_profile(given):
    """Return the name of the profile and its settings; raises ConfigError."""
    name = profile_name(given.config, given.environ)
    profile = read_profile(name, given.environ)
    if name and profile is None:
        raise ConfigError(printable('there is no profile %s in %s or %s' % (
            name, *aws_files(given.environ))))
    return name or 'default', profile or {}


def from_role(given):
    """Return Credentials of the role that a profile names, whose source has others."""
    name, profile = chosen_profile(given)
    if 'role_arn' not in profile or 'web_identity_token_file' in profile or (
            given.users and 'aws_access_key_id' in profile):
        raise Absent('no role_arn in profile %s' % name)
    where = printable('role_arn of profile %s' % name)
    source, kind = profile.get('source_profile'), profile.get('credential_source')
    kinds = {'Environment': from_environment, 'EcsContainer': from_container,
             'Ec2InstanceMetadata': from_instance}
    if 'mfa_serial' in profile:
        raise ConfigError('%s wants a code (mfa_serial), which cannot be typed here: use '
                          'credential_process' % where)
    if source in given.users:
        raise ConfigError('%s: the profiles refer to each other' % where)
    if not source and kind not in kinds:
        raise ConfigError('%s has neither source_profile nor a known credential_source' % where)
    sources = OF_PROFILE if source else [kinds[kind]]
    if source:
        given = given._replace(config=dict(given.config, profile=source),
                               users=given.users + (name,))
    try:
        signer, _ = first_of(sources, given)
    except Absent as reason:
        raise ConfigError(printable('%s: %s' % (where, reason))) from None
    return assume_role(given, where, signer, RoleArn=profile['role_arn'],
                       RoleSessionName=profile.get('role_session_name'),
                       ExternalId=profile.get('external_id'),
                       DurationSeconds=profile.get('duration_seconds'))


def from_web_identity(given):
    """Return Credentials of a role, in exchange for the token in a file."""
    name, profile = chosen_profile(given)
    environ = {} if given.config.get('profile') else given.environ
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
    """Return the Credentials in a profile, or those that its process prints."""
    name, profile = chosen_profile(given)
    where = printable('profile %s' % name)
    if not profile:
        raise Absent('no %s in %s or %s' % (where, *aws_files(given.environ)))
    if 'aws_access_key_id' in profile:
        if not any(map(profile.get, PROFILE_KEY)):
            raise ConfigError('%s has aws_access_key_id, but no value for it' % where)
        return make_credentials(where, profile, PROFILE_KEY)
    if 'credential_process' in profile:
        return from_process(given, 'credential_process of ' + where,
                            profile['credential_process'])
    # Who names another way doesn't want to become whom this machine has a role for
    for setting in sorted(profile):
        if setting.startswith(('login_', 'sso_')):
            raise ConfigError(printable(
                '%s has %s: make a profile with the line `credential_process = aws configure '
                'export-credentials --profile %s`, which needs version 2 of the AWS CLI, and use '
                'that profile' % (where, setting, name)))
        if setting in ('credential_source', 'source_profile'):
            raise ConfigError('%s has %s, but no role_arn' % (where, setting))
    return make_credentials(where, profile, PROFILE_KEY)


def assume_role(given, where, signer, RoleSessionName, **role):
    """Return Credentials of a role, from STS, which gives them to the *signer* of the request, or
    in exchange for a token if that is None."""
    url = given.config.get('sts_endpoint') or aws_url('sts', given.region, given.config)
    action = 'AssumeRole' if signer else 'AssumeRoleWithWebIdentity'
    query = dict(role, Action=action, Version='2011-06-15',
                 RoleSessionName=RoleSessionName or 's3dump')
    body = canonical_query({name: value for name, value in query.items() if value}).encode()
    answer = ask_service(given, where, url, 'POST', {
        'content-type': 'application/x-www-form-urlencoded'}, body, signer=signer)
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
        process = subprocess.Popen(
            shlex.split(command), stdin=None if os.isatty(0) else subprocess.DEVNULL,
            stdout=subprocess.PIPE, bufsize=0)
    except (OSError, ValueError, IndexError) as error:
        raise ConfigError('%s cannot be run: %s' % (where, brief(error))) from None
    try:
        output = read_output(given, where, process)
    except ChildProcessError:
        raise ConfigError('%s: how it ended is not known' % where) from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):       # 3.6, if it is not known any more
                process.kill()
            process.wait()
        process.stdout.close()
    if process.returncode:
        raise ConfigError('%s ended with status %d' % (where, process.returncode))
    return parse_credentials(where, Answer(200, {}, output), 'SessionToken')


def read_output(given, where, process, most=64 << 10):
    """Return what a program writes until it ends; others may still keep its output open."""
    output, end = b'', time.monotonic() + PROCESS_TIMEOUT
    os.set_blocking(process.stdout.fileno(), False)
    while True:
        ended = exit_status(process) is not None    # asked first: after its end nothing comes
        piece = process.stdout.read(most)           # None: nothing yet
        output += piece or b''
        if ended and not piece:
            return output
        if len(output) > most:
            raise ConfigError('%s writes more than credentials' % where)
        if time.monotonic() > end:
            raise NetworkError('%s does not end within %d s' % (where, PROCESS_TIMEOUT))
        if not piece:
            given.bucket.connection().pause(0.02)


def from_container(given):
    """Return Credentials from the endpoint in a container of ECS, or of EKS Pod Identity."""
    relative = given.environ.get('AWS_CONTAINER_CREDENTIALS_RELATIVE_URI')
    url = 'http://169.254.170.2' + relative if relative else \
        given.environ.get('AWS_CONTAINER_CREDENTIALS_FULL_URI')
    if not url:
        raise Absent('no AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI')
    try:
        scheme, host, _, _ = split_url(url)
    except ValueError:
        raise ConfigError('AWS_CONTAINER_CREDENTIALS_FULL_URI is not a URL') from None
    if scheme == 'http' and not re.fullmatch(CONTAINER_HOSTS, host):
        raise ConfigError('AWS_CONTAINER_CREDENTIALS_FULL_URI: plain http only to this '
                          'machine, not to %s' % printable(host))
    path = given.environ.get('AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE')
    token = read_text(path).strip() if path else \
        given.environ.get('AWS_CONTAINER_AUTHORIZATION_TOKEN')
    if token and not re.match(r'[ -~]+\Z', token):
        raise ConfigError('the container authorization token cannot stand in a header')
    return parse_credentials('the container endpoint ' + masked(url), ask_service(
        given, 'the container endpoint', url, local=CONTAINER_TIMEOUT,
        headers={'authorization': token} if token else {}), 'Token')


def from_instance(given):
    """Return Credentials of the role of an EC2 instance, through IMDSv2."""
    name, environ = 'EC2 instance role', given.environ
    if (environ.get('AWS_EC2_METADATA_DISABLED') or '').lower() == 'true':
        raise Absent('no %s, as AWS_EC2_METADATA_DISABLED says' % name)

    def setting(name, default):
        try:
            return count_of(100)(given.config[name]) if name in given.config else default
        except ValueError as error:
            raise ConfigError(printable('%s: %s' % (name, error))) from None

    mode = given.config.get('ec2_metadata_service_endpoint_mode', '').lower()
    url = given.config.get('ec2_metadata_service_endpoint', 'http://[fd00:ec2::254]' if (
        mode == 'ipv6') else 'http://169.254.169.254').rstrip('/')
    ask = functools.partial(ask_service, given, name,
                            local=setting('metadata_service_timeout', INSTANCE_TIMEOUT),
                            attempts=setting('metadata_service_num_attempts', 3))
    path = url + '/latest/meta-data/iam/security-credentials/'
    try:
        token = ask(url + '/latest/api/token', 'PUT', {
            'x-aws-ec2-metadata-token-ttl-seconds': '21600'})
    except NetworkError as error:
        raise Absent('no %s (%s; in a container the hop limit of the metadata options must '
                     'be 2)' % (name, error))
    if token.status != 200 or not re.match(br'[!-~]+\Z', token.body):
        raise Absent('no %s (%s gives no token for IMDSv2: %d)' % (
            name, masked(url), token.status))
    headers = {'x-aws-ec2-metadata-token': token.body.decode()}
    role = ask(path, headers=headers)
    names = role.body.decode('utf-8', 'replace').split()
    if role.status not in (200, 404):
        raise ConfigError('%s: the metadata service answers %d' % (name, role.status))
    if role.status == 404 or not names:
        raise Absent('no %s (the instance has none)' % name)
    return parse_credentials('%s %s' % (name, printable(names[0], 100)),
                             ask(path + uri_encode(names[0]), headers=headers), 'Token')


OF_PROFILE = from_role, from_web_identity, from_profile
SOURCES = (from_configuration, from_environment) + OF_PROFILE + (from_container, from_instance)


def first_of(sources, given):
    """Return Credentials from the first source that has any, and that source; raises Absent."""
    missing = []
    for source in sources:
        try:
            return source(given), source
        except Absent as reason:
            missing.append(str(reason))
    raise Absent('; '.join(missing))


Origin = collections.namedtuple('Origin', 'scheme host port authority')       # RFC 6454


def ask_service(given, where, url, method='GET', headers=(), body=b'', local=0,
                attempts=3, signer=None):
    """Send a request until it gets a sensible Answer; returns that.

    local: if not 0, the service is never behind a proxy, and answers within these seconds or not
    at all; signer: the Credentials that sign the request, for STS.  Raises NetworkError,
    ConfigError.
    """
    bucket = given.bucket
    try:
        scheme, host, port, _ = split_url(url)
    except ValueError:
        raise ConfigError('%s: %s is not a URL' % (where, masked(url))) from None
    authority, _, path = url.partition('//')[2].partition('/')
    origin = Origin(scheme, host, port, authority)
    connection = bucket.connect(origin, RateLimit(), proxies=not local)
    timeout, now = local or CONNECT_TIMEOUT, bucket.now()
    end = time.monotonic() + bucket.times.timeout
    while True:
        if bucket.connection().cancelled:
            raise Cancelled()
        sent = dict(headers, host=authority)
        if signer:
            sent[PAYLOAD_HASH] = sha256(body)
            sign_headers(signer, given.region, 'sts', now, method, '/' + path, '', sent)
        if method != 'GET':
            sent['content-length'] = str(len(body))
        try:
            with connection.exchange(method, '/' + path, sent, body, timeout) as response:
                answer = connection.read(response, 2 * timeout)
            ahead = (parse_date(answer.headers.get('date')) or now) - now
            failure = BadAnswer('it answers %d' % answer.status)
            if signer and answer.status != 200 and abs(ahead) > MAX_SKEW:
                now += ahead        # our clock is wrong, and S3 hasn't been asked yet
            elif answer.status < 500 and answer.status != 429 and not re.search(
                    b'<Code>(Throttling|IDPCommunicationError|RequestTimeout)', answer.body):
                return answer
        except (OSError, http.client.HTTPException, BadAnswer) as error:
            failure = error
        finally:
            connection.close()
        attempts -= 1
        if not attempts or most_tries(failure) == 1 or time.monotonic() > end:
            raise network_error(where, origin, connection.proxy, failure, 1, bucket.now(),
                                bucket.ca_bundle)
        bucket.wait(bucket.connection(), random.uniform(0, 3))


class Provider:
    """Finds credentials when they are first needed, and newer ones before they expire.

    config: complete; region: of STS; worked: whether the server has accepted any.  One Provider
    serves all threads of a Bucket: its lock guards what changes, which may be read without it.
    """
    EARLY = 900                     # seconds before the end, as AWS's own SDKs
    AGAIN = 60                      # seconds after which a source is asked again
    SOON = 5                        # the same if the credentials have expired
    MARGIN = 5                      # seconds that a request may be under way

    def __init__(self, config, environ, region):
        self.worked = False
        self._given = Given(config, environ, region, None, False, ())
        self._source = None         # the function that found the current ones
        self._known = None, 0       # the current ones, and when to stop signing; 0: refused
        self._asked = None          # when the source was asked last, by the monotonic clock
        self._failure = None        # why that was in vain; '': it had no others
        self._missed = None         # those for which the user was told to wait
        self._lock = threading.Lock()

    def get(self, bucket, refused=None):
        """Return the Credentials to sign with now.

        bucket: for its clocks, pauses, reports and TLS; refused: Credentials that the server
        calls expired or unknown.  Until any have worked, those that have ended or are refused
        are returned if the source has no others: our clock may be wrong, and the server's words
        explain more.  Raises ConfigError, which lists what was tried, and NetworkError while
        there are no newer ones.
        """
        known = current, end = self._known
        left = 0 if refused == current else end - bucket.now()
        if left > self.EARLY:
            return current
        # If this is locked another thread is asking already, for a minute at most
        if self._lock.acquire(timeout=0 if left > 0 else 2 * bucket.times.timeout):
            try:
                if self._known is known:
                    self._refresh(bucket, left)
                if self.worked and (self._known[1] == 0 or self._known is known and left <= 0):
                    self._miss(bucket)
            finally:
                self._lock.release()
        return self._known[0]

    def accepted(self, credentials):
        """Note that the server has accepted a request that was signed with *credentials*."""
        self.worked = True
        if credentials != self._missed:
            self._failure = self._missed = None

    def _refresh(self, bucket, left):
        """Ask the source for newer Credentials, unless that was in vain just now.

        left: for how many seconds the current ones may be used; 0 if they are refused.
        """
        current, now = self._known[0], bucket.monotonic()
        if left == 0:
            self._known = current, 0
        if self._asked is not None and now - self._asked < (
                self.AGAIN if left > 0 else 0 if self._failure is None else self.SOON):
            return
        self._asked = now
        try:
            found = self._find(bucket)
        except (ConfigError, NetworkError) as error:
            if current is None:
                raise
            self._failure = str(error)
            if left > 0:
                bucket.report('warning', 'the credentials expire in %s, and there are no newer '
                              'ones yet: %s' % (duration(left), error))
            return
        # In place of refused ones others may be refused as well: see accepted()
        self._failure = None if current is None or found != current and left else ''
        if found != current:
            margin = 0 if found.expires is None else min(
                self.MARGIN, abs(found.expires - bucket.now()) / 4)
            self._known = found, (found.expires or float('inf')) - margin

    def _miss(self, bucket):
        """Say, once, that newer credentials are waited for, and raise NetworkError."""
        text = 'the credentials have expired, and there are no newer ones: %s' % (
            self._failure or 'the source has the same')
        if self._missed is None:
            self._missed = self._known[0]
            bucket.report('warning', '%s; waiting up to %s for them' % (
                text, duration(bucket.patience_now())))
        raise NetworkError(text)

    def _find(self, bucket):
        """Return Credentials from the first source that has any, or from the one that had them
        before: those of another would be somebody else's."""
        given = self._given._replace(bucket=bucket, again=bool(self._source))
        if self._source:
            try:
                return self._source(given)
            except Absent as reason:
                raise NetworkError(printable(str(reason))) from None
        sources = [source for source in SOURCES     # a `profile` of ours goes before that
                   if source is not from_environment or not given.config.get('profile')]
        try:
            found, self._source = first_of(sources, given)
            return found
        except Absent as reason:
            raise ConfigError(printable(
                'no credentials: write access_key_id and secret_access_key into ~/.s3keys; there '
                'is %s' % reason, 2000)) from None


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
        self.headers = dict(bucket.request_headers(operation), **dict(headers))
        self._bucket, self._connection = bucket, bucket.connection()
        self._method, self._key, self._query, self._body = method, key, dict(query), body
        if isinstance(key, Key):
            operation, self._query['versionId'] = operation + 'Version', key.version
        self.label = operation + (' ' + quoted(key, 300) if key else '')    # for messages
        if PAYLOAD_HASH not in self.headers:
            self.headers[PAYLOAD_HASH] = sha256(body)
        self._timeout = timeout or bucket.times.timeout
        self.retries = Retries(lambda: min(patience, bucket.patience_now()), bucket.monotonic)
        self._signed = None         # the Signed of the last attempt
        self._doubt = False         # whether an attempt that failed may have done the work

    @property
    def in_doubt(self):
        """Whether an attempt that was sent to its end may have done the work although its answer
        was lost, or hasn't come yet."""
        return self._doubt or self._connection.left == 0

    @property
    def awaited(self):
        """Whether the server may come to do the work: some of an attempt was sent, and the rest may
        be by now, or an earlier one is in doubt."""
        return self._doubt or self._connection.left is not None

    def run(self, accept=lambda answer: answer, before=lambda: False):
        """Repeat the request until accept() takes the Answer; returns what accept() returned."""
        return self.stream(lambda response: accept(self.answer(response)), before)

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
        """Sign the request; returns the arguments of Connection.exchange()."""
        bucket, endpoint = self._bucket, self._bucket.endpoint
        credentials = bucket.credentials.get(bucket)
        self._signed = bucket.signed_for(credentials)
        target, query = endpoint.target(self._key), canonical_query(self._query)
        headers = dict(self.headers, host=endpoint.authority)
        sign_headers(credentials, endpoint.region, endpoint.service, bucket.now(),
                     self._method, target, query, headers)
        headers['user-agent'] = 's3dump/' + __version__
        if self._method in ('PUT', 'POST'):
            headers['content-length'] = str(len(self._body))
        return self._method, target + (query and '?' + query), headers, self._body, self._timeout

    def raise_for_status(self, response):
        """Raise ResponseError if *response* is a refusal."""
        self._bucket.endpoint.answered = True
        self._bucket.report('trace', '%s: %d' % (self.label, response.status))
        if response.status >= 300:
            raise parse_error(self.label, self._method, response.status, response.headers,
                              self._read(response).body)
        self._bucket.credentials.accepted(self._signed.credentials)

    def answer(self, response):
        """Return the whole Answer; raises ResponseError if it is a refusal."""
        self.raise_for_status(response)
        return self._read(response)

    def _read(self, response):
        return self._connection.read(response, self._bucket.times.answer_timeout)

    def _failed(self, error):
        """Return when the request may be sent again after *error*, or raise what is final."""
        connection, refused = self._connection, isinstance(error, ResponseError)
        if connection.cancelled:
            raise Cancelled()
        self._doubt |= connection.left == 0 and (not refused or maybe_done(error))
        sent = 0 if connection.left is None else max(0, len(self._body) - connection.left)
        self._bucket.tally.add(wasted=sent)
        connection.left = None
        if refused:
            if self._method == 'HEAD':
                error = self._ask_why(error)
            try:
                if self._learn(error):
                    return
            except NetworkError as failure:     # no newer credentials to be had now
                error = failure
        elif isinstance(error, OSError) and connection.reused and not (
                self.retries.attempts or self.retries.moved):
            self.retries.attempts = 1   # the connection had idled too long: no fault, no pause
            return
        if too_fast(error):
            self._bucket.tally.slowed.append(self._bucket.monotonic())
        pause = self.retries.pause(error, sent)
        if pause is None:
            raise self._final(error)
        self._wait(error, pause)

    def _learn(self, error):
        """Learn from a refusal; returns whether repeating the request can help, so that it is."""
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
        """Return why a HEAD was refused: by a GET, if the answer to that can tell more."""
        # The reason may be a clock that couldn't be learnt, unless something was accepted before
        skewed = error.bare_403 and error.date is None and not self._bucket.credentials.worked
        if not skewed and (error.status != 400 or error.region not in ('', self._signed.region)):
            return error
        get = copy.copy(self)
        get._method, get.headers = 'GET', dict(self.headers, range='bytes=0-0')
        try:
            with self._connection.exchange(*get._sign()) as response:
                get.raise_for_status(response)
        except ResponseError as told:
            error = told
        except (OSError, http.client.HTTPException, Error):
            pass
        self._connection.left = None
        return error

    def _wait(self, error, pause):
        """Sleep for *pause* seconds, and say why."""
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
        """Return *error* as the caller gets it."""
        attempts = self.retries.attempts
        if isinstance(error, ResponseError):
            if self.headers[PAYLOAD_HASH] == UNSIGNED_PAYLOAD and re.search(
                    '(?i)denied|sha256|payload', error.code + error.message):
                error.hint = '; '.join(filter(None, (error.hint, UNSIGNED)))
            if attempts > 1:
                error.message += ' (gave up after %d attempts)' % attempts
            return error
        if isinstance(error, (BadAnswer, NetworkError)):
            return type(error)('%s: %s' % (self.label, error))
        if isinstance(error, Error):
            return error
        return network_error(self.label, self._bucket.endpoint, self._connection.proxy, error,
                             attempts, self._bucket.now(), self._bucket.ca_bundle)


# ---------------------------------------------------------------------------- Bucket

class Times:
    """How long a Bucket waits, in seconds.

    patience: without progress; timeout: without a byte; complete_timeout: for the answer to a
    completion; answer_timeout: for the rest of any answer.
    """
    patience, timeout = PATIENCE, TIMEOUT
    complete_timeout = answer_timeout = COMPLETE_TIMEOUT

    def __init__(self, **seconds):
        vars(self).update(seconds)


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


Signed = collections.namedtuple('Signed', 'offset region scheme domain port credentials')

Stored = collections.namedtuple('Stored', 'key size parts objects')
Stored.__doc__ = 'A stream: its size in bytes, and how many objects it became, end mark included.'


class Head:
    """What the server tells about an object.

    size: in bytes; crc32: int or None; modified: in seconds since the epoch, 0 if unknown;
    archived: whether, by its class, it can't be read: see Bucket.readable(); restoring: whether it
    is being made readable; dump_id: a name that only the objects of one dump have in common, or
    ''; has_metadata: whether it has that of a dump, which a copy may have lost; full: whether it
    is as large as can be, so that volumes or an end mark must follow; alone: whether it certainly
    has no volumes, since it could be larger.
    """

    def __init__(self, headers):
        self.headers = headers
        size, self.etag = headers.get('content-length') or '', headers.get('etag') or ''
        if not re.match('[0-9]{1,19}\\Z', size):
            raise BadAnswer('the server does not tell the size of the object')
        if not self.etag:
            raise BadAnswer('an answer without an ETag is not from S3')
        self.size = int(size)
        self.modified = parse_date(headers.get('last-modified')) or 0
        self.storage_class = headers.get('x-amz-storage-class') or 'STANDARD'
        restore = headers.get('x-amz-restore') or ''
        self.restoring = 'ongoing-request="true"' in restore
        self.archived = 'ongoing-request="false"' not in restore and (
            self.storage_class in ('GLACIER', 'DEEP_ARCHIVE')
            or bool(headers.get('x-amz-archive-status')))
        self.dump_id, most = headers.get('x-amz-meta-dump-id') or '', self.number('volume-size')
        self.has_metadata = bool(self.dump_id or most)
        self.full, self.alone = 0 < most <= self.size, self.size < most

    @property
    def crc32(self):
        """The checksum of the whole, or None.  A COMPOSITE one, which ends in -N, is none."""
        text = self.headers.get('x-amz-checksum-crc32') or ''
        whole = self.headers.get('x-amz-checksum-type') != 'COMPOSITE'
        return int.from_bytes(base64.b64decode(text), 'big') if whole and re.fullmatch(
            '[A-Za-z0-9+/]{6}==', text) else None

    def number(self, name):
        """Return the metadata *name* as a number, or 0."""
        text = self.headers.get('x-amz-meta-' + name) or ''
        return int(text) if re.match(r'[0-9]{1,18}\Z', text) else 0

    @property
    def locked_until(self):
        """The end of its Object Lock, in seconds since the epoch, or 0; a legal hold has none."""
        if self.headers.get('x-amz-object-lock-legal-hold') == 'ON':
            return float('inf')
        try:
            return parse_expiration(self.headers.get('x-amz-object-lock-retain-until-date')) or 0
        except ValueError:
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

    Attributes of use to a caller: jobs, part_size and max_parts; times, a Times; limit, the
    RateLimit; tally, a Tally; retain, None or the mode and the days of an Object Lock for what
    is stored; offset, the seconds that the server's clock is ahead of ours; at, None, or the time,
    in seconds since the epoch, as at which list_objects() shows a bucket that keeps versions, or
    UNDELETED: as if delete markers hid nothing; hides, whether a deletion only hid an object.
    """

    def __init__(self, config, environ=None, report=lambda kind, text: None,
                 clock=time.time, monotonic=time.monotonic, wait=Connection.pause,
                 signals=NO_SIGNALS):
        environ = os.environ if environ is None else environ    # pydoc would show a default
        config = with_environment(config, environ)
        self.endpoint = Endpoint(config)
        self._config = config = dict(known_server(self.endpoint.domain) or {}, **{
            name: value for name, value in config.items() if value != 'auto'})
        self.jobs = config.get('jobs', JOBS)
        self.part_size = config.get('part_size', PART_SIZE)
        self.max_parts = config.get('max_parts', MAX_PARTS)
        self.checksum = config.get('checksum', 'crc32' if self.endpoint.aws else 'none') == 'crc32'
        self.limit = RateLimit(config.get('limit_rate'), sharers=self.jobs)
        self.times = Times(patience=config.get('patience', PATIENCE))
        self.tally, self.retain = Tally(), None
        self.report, self.signals, self.offset = report, signals, 0
        self.at, self.hides = None, False
        self._clock, self.monotonic, self.wait = clock, monotonic, wait
        self._environ = environ
        self.tls = functools.lru_cache(1)(      # one context for all connections
            lambda: tls_context(config.get('ca_bundle')))
        self._local = threading.local()
        self.credentials = Provider(config, environ, self.endpoint.region)
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
        """Return a copy for one thread that tidies up: with little patience, no rate limit, and a
        connection of its own."""
        hasty = copy.copy(self)
        hasty.times = Times(**dict.fromkeys(('patience', 'timeout', 'complete_timeout',
                                             'answer_timeout'), 2 * TIDY_TIME / 3))
        hasty.limit, hasty.signals, hasty._local = RateLimit(), NO_SIGNALS, threading.local()
        return hasty

    # For a Request

    @property
    def ca_bundle(self):
        """The file or folder of CAs that the user names, or None."""
        return self._config.get('ca_bundle')

    @property
    def opaque_etags(self):
        """Whether an ETag says nothing about the data."""
        return self._config.get('etag') == 'opaque'

    def now(self):
        """Return the seconds since the epoch, by the server's clock as far as it is known."""
        return self._clock() + self.offset

    def most_jobs(self):
        """Return how many parts may be in flight at most."""
        return self._config.get('jobs') or most_jobs(self.part_size, available_memory())

    def patience_now(self):
        """Return the seconds without progress after which a request fails now."""
        return self.times.patience if self.endpoint.answered else min(
            self.times.patience, FIRST_PATIENCE)

    def connection(self):
        """Return the Connection of the calling thread."""
        if not hasattr(self._local, 'connection'):
            self._local.connection = self.connect(self.endpoint, self.limit)
        return self._local.connection

    def connect(self, origin, limit, proxies=True):
        """Return a new Connection for the calling thread; proxies: whether there may be one."""
        return Connection(self, origin, limit, self._environ if proxies else {},
                          self.signals if in_main_thread() else NO_SIGNALS)

    def signed_for(self, credentials):
        """Return what a request is signed for, and with: a Signed."""
        endpoint = self.endpoint
        return Signed(self.offset, endpoint.region, endpoint.scheme, endpoint.domain,
                      endpoint.port, credentials)

    def learn(self, error, signed):
        """Learn from the refusal of what was *signed*: clock, region, host, credentials; returns
        whether any has changed since, by this thread or another, so that a repetition can help.
        """
        credentials = signed.credentials
        if error.code in EXPIRED_CODES:
            credentials = self.credentials.get(self, refused=credentials)
        with self.endpoint.lock:
            if error.code == 'RequestTimeTooSkewed' or error.bare_403:
                self._correct_clock(error.date)
            elif error.status in (301, 307, 400) and (error.region or error.location):
                try:
                    self.endpoint.move(error.region, error.location)
                except BadAnswer as refusal:
                    raise BadAnswer('%s: %s' % (error.label, refusal)) from None
            return signed != self.signed_for(credentials)

    def _correct_clock(self, date):
        """Go by the server's clock if it says *date* and ours is off by more than MAX_SKEW."""
        ahead = date - self.now() if date else 0
        if abs(ahead) > MAX_SKEW:
            self.offset += ahead
            self.report('warning', "this machine's clock is off by %s: going by the server's"
                        % duration(abs(self.offset)))

    def learn_clock(self):
        """Ask the server what time it is, for a key that tells the time; no answer is no failure.

        The request is not signed and names no bucket, so no log tells of a refusal.  A Date may
        be that of a front end with a wrong clock: where it differs from ours a signed request
        tells, which learns the clock if it is refused for that.
        """
        endpoint = self.endpoint
        origin = Origin(endpoint.scheme, endpoint.domain, endpoint.port,
                        endpoint.with_port(endpoint.domain))
        connection = self.connect(origin, self.limit)
        with contextlib.closing(connection), contextlib.suppress(
                OSError, http.client.HTTPException, Error):
            with connection.exchange('HEAD', '/', {'host': origin.authority}, b'',
                                     min(CLOCK_TIMEOUT, self.times.timeout)) as response:
                date = parse_date(response.headers.get('date'))
            if date and abs(date - self.now()) > MAX_SKEW:
                Request(self, 'ListObjectsV2', 'GET', query={'list-type': '2', 'max-keys': '1'},
                        patience=LOOK_PATIENCE).run()

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
        """Have an object created by *request*; the other arguments as for put_object()."""
        def ours(patience=LOOK_PATIENCE):
            return self.is_ours(key, dump_id, size, patience)

        if not overwrite:
            request.headers['if-none-match'] = '*'
        watch(request)
        try:                        # a completion isn't repeated before we looked
            request.run(accept, lambda: upload_id and request.in_doubt and ours())
        except (ResponseError, NetworkError, BadAnswer) as error:
            self._look_into(error, request.in_doubt, ours, unique, key, upload_id)

    def _look_into(self, error, in_doubt, look, unique, key, upload_id):
        """Return if look() finds the object though its creation ended in *error*; else raise it.

        If a name that nobody else can know is taken, a proxy may have repeated our request.  "No
        such upload", once an answer was lost, means that the completion is still going on.
        """
        taken = getattr(error, 'status', 0) == 412
        if not in_doubt and not taken:
            raise error
        completing = upload_id and getattr(error, 'code', '') in ('NoSuchUpload', 'NotFound')
        patience = float('inf') if completing else LOOK_PATIENCE
        ours, pause = look(patience), 1
        end = self.monotonic() + min(self.times.patience, COMPLETE_TIMEOUT)
        while completing and ours is False and self.monotonic() < end:
            self.wait(self.connection(), pause)
            ours, pause = look(patience), min(20, 2 * pause)
        if ours or (ours is None and taken and unique and in_doubt):
            return
        if (ours is None and (in_doubt or unique)) or (in_doubt and completing):
            error.hint = ''         # it claims to know the outcome
            raise UnknownOutcome('%s; it is unknown whether the object was stored: see if %s is '
                                 'there%s' % (error, quoted(key), upload_id and (
                                     ', its upload id is ' + printable(upload_id))))
        raise error

    def request_headers(self, operation):
        """Return the headers that the configuration has for a request: its creation can't know
        the bucket's owner."""
        return {} if operation == 'CreateBucket' else configured_headers(
            REQUEST_HEADERS, self._config)

    def _object_headers(self, dump_id, storage_class=None):
        """Return the headers of a new object: by its metadata a restore sees that volumes are
        missing or somebody else's, and we recognize it if the answer to its creation was lost."""
        storage_class = storage_class or self._config.get('storage_class')
        headers = configured_headers(OBJECT_HEADERS, dict(
            self._config, storage_class=storage_class if storage_class != 'STANDARD' else ''))
        headers.update({'x-amz-meta-volume-size': str(self.part_size * self.max_parts),
                        'x-amz-meta-part-size': str(self.part_size),
                        'x-amz-meta-dump-id': dump_id})
        if self.retain:
            mode, days = self.retain
            headers['x-amz-object-lock-mode'] = mode
            headers['x-amz-object-lock-retain-until-date'] = time.strftime(
                '%Y-%m-%dT%H:%M:%SZ', time.gmtime(self.now() + 86400 * days))
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

    def is_ours(self, key, dump_id, size, patience=LOOK_PATIENCE):
        """Whether the object under *key* is the one that we wrote; None if we can't look."""
        try:
            head = self.head_object(key, patience=patience)
        except ResponseError as error:
            return False if error.status == 404 else None
        except (NetworkError, BadAnswer):
            return None
        return head.dump_id == dump_id and head.size == size

    def head_object(self, key, part=None, patience=float('inf')):
        """Return the Head of an object, or of a *part* of it where the server can tell."""
        headers = {'x-amz-checksum-mode': 'ENABLED'} if self.checksum and not part else {}
        query = {'partNumber': str(part)} if part else {}
        return Request(self, 'HeadObject', 'HEAD', key, query, headers, patience=patience).run(
            lambda answer: Head(answer.headers))

    def head_objects(self, keys):
        """Return the Heads of objects, which are asked for side by side; None for what isn't there,
        or can't be seen."""
        def look(key):
            try:
                return self.head_object(key)
            except ResponseError as error:
                if error.status not in (403, 404):
                    raise

        workers = Workers(self)
        try:
            return workers.map(look, keys)
        finally:
            workers.stop()

    def exists(self, key):
        """Whether there is such an object; None if these credentials may not ask."""
        try:
            self.head_object(key)
        except ResponseError as error:
            if error.status == 404:
                return False
            if error.status == 403:
                return None
            raise
        return True

    def get_object(self, key, view, first=0, head=None):
        """Fill *view* with the bytes of the object from *first* on; if an answer breaks off, the
        rest is asked for from there.

        head: as the object must still have it.  Raises ArchivedError, IntegrityError.
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
            for count in read_blocks(response, view[got:]):
                got += count
                request.retries.moved = True

        request.stream(fill, full)

    def delete_object(self, key, etag=''):
        """Delete an object, if it exists; *etag*: only one with this ETag, where the server knows
        this condition."""
        headers = {'if-match': etag} if etag else {}
        try:
            self.hides |= 'true' == Request(self, 'DeleteObject', 'DELETE', key, (), headers).run(
                lambda answer: require_empty(answer) or answer.headers.get('x-amz-delete-marker'))
        except ResponseError as error:
            if gone(error):         # by an attempt whose answer was lost, perhaps
                return
            if not etag or error.status not in (400, 403, 501):
                raise
            self.delete_object(key)     # the condition is unknown, or needs a right of its own

    def delete_listed(self, entry):
        """Delete the object of a ListEntry; raises IntegrityError if it was replaced since."""
        try:
            self.delete_object(entry.key, entry.etag)
        except ResponseError as error:
            if error.status != 412:
                raise
            if self.exists(entry.key) is False:     # RFC 9110, 13.1.1: 412 without an object, too
                return
            head = self.head_object(entry.key)      # there are servers that list other ETags
            if (head.size, head.modified) != (entry.size, entry.modified):
                raise IntegrityError('%s was replaced since it was listed' % quoted(entry.key, 300))
            self.delete_object(entry.key)

    def restore_object(self, key, days, tier='Standard'):
        """Ask for an archived object to be made readable for *days*; it does no harm to ask twice.

        days: None in INTELLIGENT_TIERING, where it stays readable; tier: Standard, Bulk or
        Expedited.
        """
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
        """Yield a ListEntry for each object whose key begins with *prefix*, in the order of
        the server, page by page (ListObjectsV2); with `at`, for each that was there then, by its
        Key."""
        if self.at is not None:
            yield from filter(None, (version_at(versions, self.at)
                                     for versions in self.list_object_versions(prefix)))
            return
        query = {'list-type': '2', 'prefix': prefix, 'encoding-type': 'url'}
        headers = {}
        if self.endpoint.aws:       # to hear whether archived objects can be read
            headers['x-amz-optional-object-attributes'] = 'RestoreStatus'
        for page, decode in self._pages('ListObjectsV2', 'ListBucketResult', query,
                                        ('continuation-token', 'marker'), headers):
            yield from list_entries(page.all('Contents'), decode)

    def list_object_versions(self, prefix=''):
        """Yield, for each key that begins with *prefix*, the ListEntries of all its versions and
        delete markers, the newest first."""
        query = {'versions': '', 'prefix': prefix, 'encoding-type': 'url'}
        entries = (entry for page, decode in self._pages(
            'ListObjectVersions', 'ListVersionsResult', query, ('key-marker', 'version-id-marker'))
            for entry in version_entries(page, decode))
        for _, versions in itertools.groupby(entries, lambda entry: entry.key):
            yield list(versions)

    def list_multipart_uploads(self, prefix=''):
        """Yield an UploadEntry for each unfinished upload of a key that begins with prefix."""
        query = {'uploads': '', 'prefix': prefix, 'encoding-type': 'url'}
        for page, decode in self._pages('ListMultipartUploads', 'ListMultipartUploadsResult',
                                        query, ('key-marker', 'upload-id-marker')):
            yield from upload_entries(page, decode)

    def list_parts(self, multipart):
        """Yield the sizes of the parts of an unfinished upload (ListParts)."""
        for page, _ in self._pages('ListParts', 'ListPartsResult',
                                   {'uploadId': multipart.upload_id}, ('part-number-marker',),
                                   key=multipart.key):
            for texts in page.all('Part'):
                yield int(texts['Size']) if re.match(r'[0-9]{1,18}\Z', texts.get('Size', '')) else 0

    def _pages(self, operation, root, query, markers, headers=(), key=''):
        """Yield the pages of a listing, each a Document whose root is called *root*, and what
        decodes its keys; markers: as for next_page()."""
        marker = {}
        while True:
            page = Request(self, operation, 'GET', key, dict(query, **marker), headers).run(
                lambda answer: Document(answer.body, root))
            decode = decoder(page, query.get('prefix', ''))
            yield page, decode
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
            'GET', authority, target, expires, dict(self.request_headers('GetObject'), **(
                {'versionId': key.version} if isinstance(key, Key) else {}))))

    # The bucket itself

    def head_bucket(self):
        """Raise ResponseError unless the bucket exists and these credentials may use it."""
        Request(self, 'HeadBucket', 'HEAD').run()

    def create_bucket(self, region=''):
        """Create the bucket in *region*, or in the configured one, which servers with one region
        may refuse to hear; raises ConfigError if the server made an object.

        Source: Amazon S3 API Reference, CreateBucket (us-east-1 must not be named).
        """
        body, region = b'', region or self.endpoint.region
        if region != 'us-east-1':
            body = ('<CreateBucketConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
                    '<LocationConstraint>%s</LocationConstraint></CreateBucketConfiguration>'
                    % escape(region)).encode()
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
        """Begin an upload; returns its id.  One whose answer was lost stays: it is empty.

        watch: as for put_object().
        """
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

        Source: Amazon S3 API Reference, CompleteMultipartUpload.
        """
        headers = {'content-type': 'application/xml'}
        if crc32 is not None:
            headers.update({'x-amz-checksum-crc32': crc32_text(crc32),
                            'x-amz-checksum-type': 'FULL_OBJECT',
                            'x-amz-mp-object-size': str(size)})
        request = Request(self, 'CompleteMultipartUpload', 'POST', multipart.key,
                          {'uploadId': multipart.upload_id}, headers, completion_body(parts),
                          timeout=self.times.complete_timeout)
        self._create(request, lambda answer: require_completion(request.label, answer),
                     multipart.key, dump_id, size, multipart.upload_id, **terms)

    def abort_multipart_upload(self, multipart):
        """Abort an upload, and delete its parts; returns whether it existed."""
        try:
            Request(self, 'AbortMultipartUpload', 'DELETE', multipart.key,
                    {'uploadId': multipart.upload_id}, patience=LOOK_PATIENCE).run(require_empty)
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
        IntegrityError if volumes are missing after it, unless it is *ended* by others or a mark.
        """
        head = self.head_object(key)
        if head.full and not ended:
            raise IntegrityError(
                '%s is as large as its volume can be, and neither a further volume nor '
                'an end mark is there: the dump is not whole' % quoted(key))
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
    """A stream that becomes one object, or a set of volumes; it belongs to the main thread.

    key, overwrite, unique: as for Bucket.put_object().
    """

    def __init__(self, bucket, key, overwrite, unique):
        self.bucket, self.key, self.overwrite, self.unique = bucket, key, overwrite, unique
        self.workers = Workers(bucket)
        self.dump_id = random_name()
        self._volumes = []

    def run(self, stream):
        """Store the stream, as Bucket.upload() says; returns a Stored."""
        volumes = self._volumes
        try:
            self._store(stream)
        except BaseException as error:
            # a request that was sent completely may still succeed: its answer gets a moment
            self.workers.stop(lambda: any(volume.awaited for volume in volumes))
            if volumes and not (isinstance(error, UnknownOutcome) and volumes[0].completing):
                self._tidy_up()     # else the error tells what may be there
            raise
        finally:
            self.workers.stop()
        return Stored(self.key, sum(volume.size for volume in volumes),
                      sum(volume.count for volume in volumes) or 1, len(volumes))

    def _store(self, stream):
        """Store the stream; _volumes shows how far that came."""
        bucket, workers, volumes, completions = self.bucket, self.workers, self._volumes, []
        part_size, count = bucket.part_size, bucket.part_size
        while count == part_size:   # less is the end; after it a terminal or tape might go on
            buffer = workers.buffer()
            with bucket.tally.waiting(self, 'the stream'):
                count = read_part(stream, buffer, workers)
            bucket.signals.poll()   # a signal may be what made the stream end
            if not volumes and count < part_size:
                volumes.append(Volume(self, self.key, buffer[:count]))
            elif count and (not volumes or volumes[-1].count == bucket.max_parts):
                completions += self._finish_last()
                volumes.append(Volume(self, volume_key(self.key, len(volumes))))
                workers.wait(workers.submit(volumes[-1].create))
            if volumes[-1].upload_id and count:
                volumes[-1].add(buffer, count)
        for task in completions + self._finish_last():
            workers.wait(task)
        last = len(volumes) - 1
        if last or volumes[0].size == part_size * bucket.max_parts:
            volumes.append(Volume(self, end_key(self.key, last), b'', 'STANDARD'))
            workers.wait(workers.submit(volumes[-1].complete))
        workers.wait(workers.submit(volumes[0].complete))       # now the dump exists

    def _finish_last(self):
        """Wait for the parts of the last volume; returns the Tasks that complete it: none for the
        first one, which is completed last of all."""
        for volume in self._volumes[-1:]:
            volume.wait_for_parts()
        return [self.workers.submit(volume.complete) for volume in self._volumes[1:][-1:]]

    def _tidy_up(self):
        """Remove every trace of the dump, which failed, unless it proves to be whole; this takes
        TIDY_TIME at most, and neither the rate limit nor a signal delays it."""
        bucket, done = self.bucket.hasty(), []
        thread = Thread(lambda: done.append(self._remove(bucket)))
        try:
            thread.start()
            thread.join(TIDY_TIME)
        except RuntimeError:        # no thread to be had
            done.append(self._remove(bucket))
        if not done:
            self._volumes[0].left(bucket, 'something of ', 'no answer in time')
        bucket.report = lambda kind, text: None     # _remove() may go on

    def _remove(self, bucket):
        """Ask the server what there is, and remove it unless that is the whole dump."""
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

    Threads create and complete the object; meanwhile upload_id, _parts and _state are theirs.
    When they have stopped, settle() and remove() talk to the server.
    """

    def __init__(self, upload, key, body=None, storage_class=None):
        self.key, self.upload_id = key, ''
        self.size, self.count = len(body or b''), 0     # of bytes, and of parts
        self._upload, self._body, self._storage_class = upload, body, storage_class
        self._tasks, self._parts = collections.deque(), []
        self._crc32 = 0 if upload.bucket.checksum else None
        self._state = 'new'         # then open, completing, complete
        self._request = None        # the Request that creates or completes the object

    @property
    def completing(self):
        """Whether it is unknown if the object is there."""
        return self._state == 'completing'

    @property
    def awaited(self):
        """Whether an answer is awaited, or was lost, that tells what there is."""
        return bool(self._request) and self._request.awaited

    def _watch(self, request):
        self._request = request

    def add(self, buffer, count):
        """Have the first *count* bytes of *buffer* sent as the next part, and *buffer* released.

        The CRC32 is computed here, in stream order, and the server computes it of what it gets:
        so no buffer that is lost, doubled or overwritten goes unnoticed.
        """
        view, crc32 = buffer[:count], None
        self.size += count
        self.count += 1
        if self._crc32 is not None:
            crc32 = zlib.crc32(view)
            self._crc32 = crc32_combine(self._crc32, crc32, count)
        self._tasks.append(self._upload.workers.submit(
            self._upload.bucket.upload_part, self, self.count, view, crc32, frees=buffer))
        while self._tasks and self._tasks[0].done:      # 10,000 would take 2 MiB
            self._take_part()

    def _take_part(self):
        self._parts.append(self._upload.workers.wait(self._tasks.popleft()))

    def wait_for_parts(self):
        while self._tasks:
            self._take_part()

    # Called by the threads

    def create(self):
        self.upload_id = self._upload.bucket.create_multipart_upload(
            self.key, self._upload.dump_id, self._watch)
        self._state, self._request = 'open', None

    def complete(self):
        upload, before, self._state = self._upload, self._state, 'completing'
        terms = dict(dump_id=upload.dump_id, overwrite=upload.overwrite and self.key == upload.key,
                     unique=upload.unique, watch=self._watch)
        try:
            if self._body is None:
                upload.bucket.complete_multipart_upload(self, self._parts, self.size, self._crc32,
                                                        **terms)
            else:
                upload.bucket.put_object(self.key, self._body, storage_class=self._storage_class,
                                         **terms)
        except Error as error:
            if not isinstance(error, UnknownOutcome):   # the object certainly isn't there
                self._state, self._request = before, None
            raise
        self._state, self._request, self._parts = 'complete', None, []

    # Called when they have stopped

    def settle(self, bucket):
        """Find out whether the object is there; returns True, False, or None for unknown."""
        if self.completing and not (self._request and self._request.in_doubt):
            self._state = 'open' if self.upload_id else 'new'   # not all of the request was sent
        if self.completing:
            aborted = refusal = None
            try:
                aborted = self.upload_id and bucket.abort_multipart_upload(self)
            except (ResponseError, BadAnswer) as error:
                refusal = error
            there = bucket.is_ours(self.key, self._upload.dump_id, self.size)
            if there:
                self._state = 'complete'
            elif there is False and aborted:
                self._state = 'new'     # else the server may be completing it just now
            elif refusal:
                self.left(bucket, 'an upload of ', refusal)
        return None if self.completing else self._state == 'complete'

    def remove(self, bucket):
        """Leave nothing behind, as far as the rights of the credentials allow."""
        there = self.settle(bucket)
        try:
            if self._state == 'open':
                bucket.abort_multipart_upload(self)
            elif there or (there is None and self._upload.unique):
                bucket.delete_object(self.key)
            elif there is None:         # such a key may be somebody else's object
                self.left(bucket)
        except NetworkError:
            raise                       # nothing else will work either
        except Error as error:
            self.left(bucket, 'an upload of ' * (self._state == 'open'), error)

    def left(self, bucket, part='', reason=''):
        """Report what may be left behind: if it is the first object, perhaps the dump."""
        bucket.report('doubt' if self.completing and self.key == self._upload.key else 'warning',
                      '%s%s may be left behind%s' % (part, quoted(self.key),
                                                     reason and ': %s' % reason))


# -------------------------------------------------------------- Proofs and downloads
# What the bytes that were read are checked against, range by range.

# name: 'length', 'etag' or 'crc32'; prepare(view) runs in the thread that fetched a range;
# update(view, what that returned) in the main thread, in the order of the stream; complaint(),
# after the last range, returns '' if the object is right.
Proof = collections.namedtuple('Proof', 'name range_size prepare update complaint')


def crc32_proof(expected, range_size):
    """Return a Proof by the CRC32 of the whole object, made of those of the ranges, which the
    threads compute: the main thread is the bottleneck of a fast restore over http."""
    whole = 0

    def update(view, crc32):
        nonlocal whole
        whole = crc32_combine(whole, crc32, len(view))

    return Proof('crc32', range_size, zlib.crc32, update, lambda: '' if whole == expected else (
        'the data are damaged: their CRC32 is not the one on record'))


def crc32_combine(one, other, size):
    """Return the CRC32 of two pieces of data from those of each; size: of the second, in bytes."""
    return crc32_multiply(crc32_shift(size), one) ^ other


@functools.lru_cache(maxsize=64)    # nearly all parts have one size
def crc32_shift(size):
    """Return the CRC32 by which to multiply that of what *size* bytes are appended to: x^(8 size).

    In the CRC32 of RFC 1952, section 8, the most significant bit is the coefficient of x^0.
    """
    product, power, bits = 1 << 31, 1 << 30, 8 * size       # power: x^1, x^2, x^4, x^8...
    while bits:
        if bits & 1:
            product = crc32_multiply(power, product)
        power, bits = crc32_multiply(power, power), bits >> 1
    return product


def crc32_multiply(a, b):
    """Return the product of two CRC32s, as polynomials."""
    product = 0
    while a:
        if a & 1 << 31:
            product ^= b
        a = a << 1 & 0xffffffff
        b = b >> 1 ^ (0xedb88320 if b & 1 else 0)
    return product


def etag_proof(etag, part_sizes, certain, range_size):
    """Return a Proof by the ETag: the MD5 of the object, or "MD5 of its parts' MD5s-count".

    part_sizes: the sizes that the parts may have, and *certain*: must have.  If there is only
    one, and it fits into a buffer, a range is a part, and the threads compute the MD5s.
    """
    digests = [PartDigests(size) for size in part_sizes]
    parallel = len(part_sizes) == 1 and 0 < part_sizes[0] <= range_size

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

    return Proof('etag', part_sizes[0] if parallel else range_size,
                 lambda view: md5(view).digest() if parallel else None, update, complaint)


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
            if not self._left:
                self._digests.append(self._current.digest())
                self._left, self._current = self._size, md5()
            piece = view[:self._left]
            self._current.update(piece)
            self._left -= len(piece)
            view = view[len(piece):]

    def etag(self, count):
        """Return the ETag of the bytes so far; count: of the parts in the ETag, or 0."""
        digests = self._digests
        if self._left < self._size or not digests:
            digests = digests + [self._current.digest()]
        if not count:
            return digests[0].hex()
        if len(digests) == count - 1:
            digests = digests + [md5().digest()]        # see part_counts()
        return '%s-%d' % (md5(b''.join(digests)).hexdigest(), len(digests))


# Of the AWS CLI and SDKs, s3cmd, s5cmd, rclone, mc, s3fs and older versions of s3dump.
USUAL_PART_SIZES = [size << 20 for size in (5, 6, 7, 8, 10, 12, 15, 16, 20, 25, 32, 50, 52, 64,
                                            100, 128, 250, 256, 500, 512, 528, 1024, 5120)] \
    + [size * 10**6 for size in (5, 10, 20, 50, 100, 500, 1000)]


def find_proof(bucket, key, head):
    """Return the strongest proof that the server's records of an object permit."""
    if head.crc32 is not None:
        return crc32_proof(head.crc32, bucket.part_size)
    etag = re.match(r'(?:W/)?"?([0-9a-f]{32})(?:-([0-9]{1,5}))?"?\Z', head.etag)
    encryption = head.headers.get('x-amz-server-side-encryption') or ''
    count = int(etag.group(2) or 0) if etag else 0
    if bucket.opaque_etags or not etag or encryption.startswith('aws:kms'):
        reason = 'its ETag is not a checksum'
    elif md5() is None:
        reason = 'this Python has no MD5'
    else:
        sizes, certain = find_part_sizes(bucket, key, head, count) if count else (
            [head.size], True)
        if sizes:
            return etag_proof(head.etag.strip('W/"'), sizes, certain, bucket.part_size)
        reason = 'the sizes of its parts are unknown'
    bucket.report('warning', '%s: checked by its length only: %s' % (quoted(key), reason))
    # get_object() has checked it already
    return Proof('length', bucket.part_size, lambda view: None, lambda view, prepared: None, str)


def part_counts(total, size):
    """Return how many parts of *size* bytes an object of *total* bytes may have: older versions of
    s3dump sent an empty last one if the stream had filled the one before."""
    return {-(-total // size), total // size + 1} if size else ()


def find_part_sizes(bucket, key, head, count):
    """Return the sizes that all *count* parts of an object but the last may have, none if the
    parts differ, and whether it must be one of them."""
    ours, told, full = head.number('part-size'), 0, max(1, count - 1)
    equal = 0 if head.size % full else head.size // full        # if the last one is empty
    fits = [size for size in {ours, bucket.part_size, equal, *USUAL_PART_SIZES}
            if count in part_counts(head.size, size)]
    if ours in fits:            # else somebody copied it in other parts
        return sorted(fits), True
    try:
        told = bucket.head_object(key, part=1).size
        if count in part_counts(head.size, told):
            if told < head.size == told * (count - 1) or told * (
                    count - 1) + bucket.head_object(key, part=count).size == head.size:
                return [told], True
            if told < head.size:    # else the server ignores partNumber
                return [], False
    except ResponseError:
        pass
    if count == 1:
        return [head.size], True
    return ([], False) if 0 < told < head.size else (sorted(fits), False)


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
    """Yield the Ranges of all objects, in order."""
    for key, head in zip(keys, heads):
        proof = find_proof(bucket, key, head)
        for first in range(0, head.size, proof.range_size) if head.size else (0,):
            yield Range(key, head, proof, first, min(proof.range_size, head.size - first))


def fetch_range(bucket, found, view):
    """Fill *view*, in a thread; returns what the proof can compute of it alone."""
    bucket.get_object(found.key, view, found.first, found.head)
    return found.proof.prepare(view)


def download(bucket, workers, keys, heads, write):
    """Write all objects to write(view) as their ranges come in; returns how they were checked."""
    ranges, pending, proofs = ranges_of(bucket, keys, heads), collections.deque(), set()
    following = next(ranges)
    while following or pending:
        if following and len(pending) <= workers.jobs:
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


def write_range(bucket, found, view, prepared, write):
    """Write a Range out, and raise IntegrityError if it was the last of a damaged object."""
    with bucket.tally.waiting(found.proof, 'the reader'):
        count = write(view) if len(view) else None
    if isinstance(count, int) and count != len(view):
        raise IntegrityError('%s: only %d of %d bytes could be written'
                             % (quoted(found.key), count, len(view)))
    found.proof.update(view, prepared)
    complaint = found.first + found.size == found.head.size and found.proof.complaint()
    if complaint:
        raise IntegrityError('%s: %s' % (quoted(found.key), complaint))


# ------------------------------------------------------------------------- Self-test
# Tells in a line each what a machine, credentials and a server can do.  The sections above use
# nothing of this one.

# Amazon S3 API Reference, "Signature Calculations for the Authorization Header" and "Using
# Query Parameters": method, path, query, more headers, payload, signature.
EXAMPLES = (
    ('GET', '/test.txt', {}, {'range': 'bytes=0-9'}, b'',
     'f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41'),
    ('PUT', '/test%24file.text', {}, {'date': 'Fri, 24 May 2013 00:00:00 GMT',
                                      'x-amz-storage-class': 'REDUCED_REDUNDANCY'},
     b'Welcome to Amazon S3.',
     '98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd'),
    ('GET', '/', {'lifecycle': ''}, {}, b'',
     'fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543'),
    ('GET', '/', {'max-keys': '2', 'prefix': 'J'}, {}, b'',
     '34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7'))
EXAMPLE_KEY = Credentials('AKIAIOSFODNN7EXAMPLE', 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY')
EXAMPLE_HOST = 'examplebucket.s3.amazonaws.com'
EXAMPLE_TIME = 1369353600           # 2013-05-24T00:00:00Z
EXAMPLE_PRESIGNED = 'aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404'


class Verdict(Exception):
    """Raised by a check that neither passes nor fails, with a word (skip, note) and the reason."""


def speed(count, seconds):
    """Return text: megabytes (10^6) per second."""
    return '%.1f MB/s' % (count / max(seconds, 1e-6) / 1e6)


def expect(truth, complaint):
    """Like assert, but -O doesn't remove it."""
    if not truth:
        raise AssertionError(complaint)


class SelfTest:
    """The checks, in an order in which each may use the results of those before.

    LOCAL need no bucket; the others, after open(), write under HOST:s3dump-test- and a random
    name.  count: of lines, by their first words; allowed: {check: whether it was allowed, None if
    unknown}; settings: lines that the configuration needs in addition.
    """
    LOCAL = ('signature', 'TLS', 'hashes')
    CHECKS = ('list', 'put', 'get', 'range', 'volumes', 'acl', 'multipart', 'abort', 'conditional',
              'payload', 'checksum', 'rate', 'versions', 'retention', 'unfinished', 'delete',
              'overwrite')
    NEEDS = dict(dict.fromkeys(('get', 'range', 'volumes', 'acl', 'conditional', 'overwrite'),
                               'put'), abort='multipart')
    RIGHTS = (('list', 'list'), ('get', 'read'), ('put', 'write'), ('overwrite', 'overwrite'),
              ('delete', 'delete'), ('abort', 'abort'))

    def __init__(self, write=sys.stdout.write if sys.stdout else lambda text: None):
        self._write, self.count = write, collections.Counter()
        self.written, self.settings, self.allowed = [], [], {}
        self.data = os.urandom(1 << 20)

    def open(self, config):
        """Begin to test a bucket."""
        self.bucket = Bucket(config)
        self.bucket.times.patience = 10     # somebody is waiting for the answer
        self.region = self.bucket.endpoint.region       # before the server corrects it
        label = host_label(config)[0].encode('utf-8', 'replace').decode()
        self.key = '%s:s3dump-test-%s' % (label, random_name())

    def run(self, checks):
        """Run checks, print a line for each, and note what was allowed."""
        for name in checks:
            word, allowed = 'ok', True
            try:
                need = self.NEEDS.get(name)
                if need and not self.allowed.get(need):
                    raise Verdict('skip', 'without `%s` there is nothing to try' % need)
                remark = getattr(self, name)()
            except Verdict as verdict:
                word, remark = verdict.args
                allowed = None if word == 'skip' else True
            except (Error, OSError, AssertionError) as error:
                word, remark, allowed = 'FAIL', error, None
                if getattr(error, 'code', '') in ('AccessDenied', 'Forbidden'):
                    word, remark, allowed = 'skip', 'these credentials may not: %s' % error, False
            self.count[word], self.allowed[name] = self.count[word] + 1, allowed
            self._write(('%-4s  %-11s  %s' % (word, name, remark or '')).rstrip() + '\n')

    def summary(self):
        """Close the bucket; returns lines that say what it needs, and what the credentials may."""
        self.bucket.close()
        region = self.bucket.endpoint.region
        if region != self.region:
            self.settings.append('region ' + region)
        lines = ['this server needs no other settings'] if not self.settings else [
            'settings that this server needs, to be pasted into the configuration:'] + self.settings
        for answer, text in ((True, 'these credentials may %s'), (False, 'they may not %s'),
                             (None, 'unknown: whether they may %s')):
            rights = [right for name, right in self.RIGHTS if self.allowed.get(name) is answer]
            if rights:
                lines.append(text % ', '.join(rights))
        return lines

    def signature(self):
        for method, path, query, more, payload, expected in EXAMPLES:
            headers = dict(more, host=EXAMPLE_HOST, **{PAYLOAD_HASH: sha256(payload)})
            sign_headers(EXAMPLE_KEY, 'us-east-1', 's3', EXAMPLE_TIME, method, path,
                         canonical_query(query), headers)
            expect(headers['authorization'].endswith(expected), 'the signature of %s %s is wrong'
                   % (method, path))
        query = presign(EXAMPLE_KEY, 'us-east-1', 's3', EXAMPLE_TIME, 'GET', EXAMPLE_HOST,
                        '/test.txt', 86400)
        expect(query.endswith(EXAMPLE_PRESIGNED), 'the signature of a presigned URL is wrong')
        return 'the %d examples that AWS publishes' % (len(EXAMPLES) + 1)

    def TLS(self):
        if ssl is None:
            raise Verdict('skip', 'this Python was built without ssl: http:// endpoints only')
        count = tls_context(os.environ.get('AWS_CA_BUNDLE')).cert_store_stats()['x509_ca']
        return '%s, %d CA certificates loaded' % (ssl.OPENSSL_VERSION, count)

    def hashes(self):
        data, remarks = bytes(8 << 20), []
        for name, function in (('SHA-256', sha256), ('MD5', md5), ('CRC32', zlib.crc32)):
            start = time.perf_counter()
            if function(data) is None:
                remarks.append('%s disabled (ETags cannot be checked)' % name)
            else:
                remarks.append('%s %s' % (name, speed(len(data), time.perf_counter() - start)))
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
        try:
            proof = self.bucket.download([key], got.extend)
        except IntegrityError:
            pass
        expect(got == data, 'the data read back differ from those written')
        return speed(len(data), time.monotonic() - start), proof

    def _ask(self, operation, resource, root, key=''):
        """Return the Document that tells of a *resource* of the bucket, or of an object."""
        request = Request(self.bucket, operation, 'GET', key, {resource: ''})
        try:
            return Document(request.run().body, root)
        except (BadAnswer, ResponseError) as error:
            if getattr(error, 'status', 0) == 403:
                raise
            if getattr(error, 'code', '') in ('NoSuchLifecycleConfiguration',
                                              'ObjectLockConfigurationNotFoundError'):
                return Document(b'<None/>')
            raise Verdict('skip', 'this server does not tell')

    def list(self):
        """ListObjectsV2, and how far the clocks are apart."""
        expect(not list(self.bucket.list_objects(self.key)), 'the listing ignores its prefix')
        return 'signed requests are accepted' + (
            ', but the clock is off by %s' % duration(abs(self.bucket.offset))
            if self.bucket.offset else '')

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
        names = {entry.key for entry in self.bucket.list_objects(self.key)}
        expect(names >= set(self.written), 'what was written is not in the listing: does '
               '`endpoint` name the bucket, or some other path?')

    def acl(self):
        self._ask('GetObjectAcl', 'acl', 'AccessControlPolicy', self.key)

    def multipart(self):
        """An upload of two parts and its check by ETag."""
        bucket, key = copy.copy(self.bucket), self.key + '-multipart'
        bucket.checksum = False
        bucket.part_size = bucket._config.get('part_size', MIN_PART_SIZE)
        data = (self.data * (bucket.part_size // len(self.data) + 1))[:bucket.part_size + 1]
        start = time.monotonic()
        try:
            bucket.upload(key, io.BytesIO(data), unique=True)
        except ResponseError as error:
            if error.code == 'EntityTooSmall':
                self.settings.append('part_size 64m')   # the largest minimum known, Storj's
            raise
        self.written.append(key)
        remark = speed(len(data), time.monotonic() - start)
        try:
            if self._read(key, data)[1] == 'etag':
                return remark + ", its ETag is the MD5 of its parts' MD5s"
        except ResponseError as error:
            if error.status != 403:
                raise
            return remark + ', not read back: these credentials may not read'
        if not bucket.opaque_etags:
            self.settings.append('etag opaque')
        return remark + ', its ETag is opaque'

    def abort(self):
        """An upload that is aborted is gone."""
        key = self.key + '-aborted'
        upload = UploadEntry(key, self.bucket.create_multipart_upload(key), None)
        self.bucket.abort_multipart_upload(upload)
        try:
            self.bucket.upload_part(upload, 1, b'late')
        except ResponseError:
            return 'an aborted upload takes no parts'
        raise AssertionError('an aborted upload still takes parts')

    def conditional(self):
        """If-None-Match: * keeps what is there."""
        try:
            self.bucket.put_object(self.key, self.data)
        except ResponseError as error:
            if error.code != 'PreconditionFailed':
                raise
            return 'an existing object is not overwritten'
        raise Verdict('skip', 'this server ignores If-None-Match: whoever has the credentials can '
                              'overwrite')

    def payload(self):
        """A part that is damaged on its way is refused."""
        key = self.key + '-damaged'
        try:
            Request(self.bucket, 'PutObject', 'PUT', key, (),
                    {PAYLOAD_HASH: sha256(b'as it was')}, b'damaged').run(require_etag)
        except ResponseError as error:
            if error.code not in DAMAGED_CODES:
                raise
            return 'damaged data are refused'
        self.written.append(key)
        raise Verdict('skip', 'this server does not check the signed SHA-256: use https')

    def checksum(self):
        bucket = copy.copy(self.bucket)
        bucket.checksum = True
        try:
            self._put('-checksum', bucket)
            kept = bucket.head_object(self.written[-1]).crc32
        except ResponseError as error:
            if error.status == 403:
                raise
            if self.bucket.checksum:
                self.settings.append('checksum none')
            raise Verdict('skip', 'this server takes no checksums')
        if kept is None:
            raise Verdict('skip', 'this server tells no CRC32')
        expect(kept == zlib.crc32(self.data), 'the CRC32 that is kept is wrong')
        return 'this server keeps CRC32s: `checksum crc32` uses them'

    def rate(self):
        limit = self.bucket.limit
        before, limit.rate = limit.rate, len(self.data)
        try:
            seconds = self._put('-rate')
        finally:
            limit.rate = before
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
        """DeleteObject, for all that was written but what `overwrite` needs."""
        left = int(self.key in self.written)
        if not self.written[left:]:
            raise Verdict('skip', 'nothing was written')
        self._delete(left)
        return 'all that was written'

    def _delete(self, left):
        try:
            while self.written[left:]:
                self.bucket.delete_object(self.written[-1])
                self.written.pop()
        except ResponseError as error:
            error.label = '%s* stays behind, %s' % (self.key, error.label)
            raise

    def overwrite(self):
        """Without that condition an object is replaced, unless a policy forbids it."""
        kept = self.allowed['delete'] is False
        try:
            self.bucket.put_object(self.key, self.data, overwrite=True)
        finally:
            if not kept:
                self._delete(0)
        if kept:
            raise Verdict('note', 'whoever has these credentials may not delete what is there, but '
                                  'can replace it: see README, SET UP AMAZON')
        return 'whoever has these credentials can replace what is there'


def main(argv):
    """The self-test: `s3.py [-f FILE]`; returns the exit status."""
    if argv[:1] in (['-h'], ['--help']) or len(argv) not in (0, 2) or argv[:1] not in ([], ['-f']):
        write_error('usage: s3.py [-f FILE]    tests this Python, and the bucket that FILE, '
                    '~/.s3keys or /etc/s3_keys configures\n')
        return 2
    load_network()
    test = SelfTest()
    print('s3.py %s, Python %s' % (__version__, sys.version.split()[0]))
    test.run(test.LOCAL)
    status = 0
    try:
        test.open(load_config(argv[1] if argv else None,
                              warn=lambda text: print('warning:', text)))
    except Error as error:
        print('no bucket was tested: %s' % error)
        status = 2 if isinstance(error, ConfigError) else 1
    else:
        print('bucket %s at %s' % (printable(test.bucket.endpoint.bucket),
                                   printable(test.bucket.endpoint.authority)))
        test.run(test.CHECKS)
        print('\n'.join(test.summary()))
    print('%d passed, %d failed, %d skipped' % (test.count['ok'], test.count['FAIL'],
                                                test.count['skip'])
          + (', %d noted' % test.count['note'] if test.count['note'] else ''))
    return 1 if test.count['FAIL'] else status


if __name__ == '__main__':
    try:
        os.fstat(1)                 # where it is closed, print() would say nothing
        status = main(sys.argv[1:])
        sys.stdout.flush()
    except OSError as error:        # of standard output
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)    # for what Python may still write
        if not isinstance(error, BrokenPipeError):      # else the reader went away
            write_error('s3.py: %s\n' % error.strerror)
        status = 1
    sys.exit(status)
