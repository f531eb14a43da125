#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Tests of s3.py, and the S3 server that they run against.

Before the tests stands what they run against: a small, strict S3 server on a
loopback socket.  It keeps objects in memory, verifies every signature from the
bytes that came in, and holds its clients to S3's rules: part sizes, part order,
checksums, conditional writes, archived objects.  It shares no code with s3.py,
so that the two can't be wrong together.

    with S3Server() as server:
        server.fault('UploadPart', 'hangup', when='done')
        ...a client stores something at server.url...
        assert server.objects['key'].data == b'something'
        assert server.violations == []

A test may ask it to misbehave: a *fault* strikes one request (a lost answer,
a flipped bit, a full stop in mid-body), a *quirk* is the habit of a whole
server (an opaque ETag, every connection closed after its answer).

    python3 test_s3.py                   runs the tests
    python3 test_s3.py --serve [PORT]    serves until Ctrl-C, to try things by hand

In reading order: Signature Version 4; operations; errors and documents;
objects, uploads, users; the rules of S3; faults; HTTP; the server; serving by
hand; credential services; a proxy; then the tests: of the server, of the
credential services and the proxy, of s3.py in the order of its sections, and
the soak.
"""

import _thread
import base64
import bisect
import collections
import contextlib
import email.utils
import errno
import functools
import gc
import hashlib
import hmac
import http.client
import io
import itertools
import json
import mmap
import os
import random
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import unittest
import unittest.mock
import urllib.error
import urllib.parse
import urllib.request
import warnings
import weakref
import xml.etree.ElementTree
import zlib
from calendar import timegm

try:
    import ssl
except ImportError:     # a Python built without it still serves http://
    ssl = None

import s3

s3.load_network()       # for tests of what no Endpoint stands before

# Bound here, so that a test may take MD5 away from the client alone (FIPS).
md5, sha256 = hashlib.md5, hashlib.sha256


# --- Signature Version 4 -----------------------------------------------------
#
# The canonical request is
#
#     method \n path \n query \n (name:value \n)* \n signed names \n payload hash
#
# the string to sign is
#
#     AWS4-HMAC-SHA256 \n timestamp \n date/region/service/aws4_request \n
#     hex(SHA-256(canonical request))
#
# and the key is a chain of HMACs, seeded with 'AWS4' + secret, over date,
# region, service and 'aws4_request'.  Everything here works on the request as
# it was received: *target* is the request line's second word, *headers* a list
# of (name, value), both decoded as Latin-1, which keeps every byte.

ALGORITHM = 'AWS4-HMAC-SHA256'
UNSIGNED = 'UNSIGNED-PAYLOAD'
MAX_SKEW = 900              # seconds
MAX_EXPIRES = 7 * 86400     # of a presigned URL

UNRESERVED = frozenset(b'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~')
ENCODED = [chr(byte) if byte in UNRESERVED else '%%%02X' % byte for byte in range(256)]
ENCODED_PATH = ['/' if byte == ord('/') else ENCODED[byte] for byte in range(256)]

# What a signed request claims about itself: in the Authorization header, or,
# presigned, in the query.
Claim = collections.namedtuple(
    'Claim', 'access_key date region service timestamp signed signature presigned')


def uri_encode(raw, table=ENCODED):
    """Return bytes with every byte that is not unreserved as %XX."""
    return ''.join(map(table.__getitem__, raw))


def uri_decode(text):
    """Return the bytes that a percent-encoded piece of a target stands for."""
    return urllib.parse.unquote_to_bytes(text.encode('latin-1'))


def split_query(query):
    """Return the (name, value) pairs, as bytes; S3 reads + as a space."""
    pairs = []
    for field in filter(None, query.split('&')):
        name, _, value = field.replace('+', ' ').partition('=')
        pairs.append((uri_decode(name), uri_decode(value)))
    return pairs


def canonical_query(query):
    """Return the query encoded, then sorted; a presigned signature signs all but itself."""
    return '&'.join('%s=%s' % pair for pair in sorted(
        (uri_encode(name), uri_encode(value)) for name, value in split_query(query)
        if name != b'X-Amz-Signature'))


def canonical_request(method, target, headers, signed, payload_hash):
    """Return the canonical request; *signed* lists the signed headers' names."""
    path, _, query = target.partition('?')
    # S3 decodes the path and encodes it again, once; unlike other services it
    # collapses neither // nor dots.
    lines = [method, uri_encode(uri_decode(path), ENCODED_PATH), canonical_query(query)]
    for name in signed:
        values = [' '.join(value.split()) for key, value in headers if key.lower() == name]
        lines.append(name + ':' + ','.join(values))
    return '\n'.join(lines + ['', ';'.join(signed), payload_hash])


def hmac_sha256(key, text):
    return hmac.new(key, text.encode('latin-1'), sha256).digest()


def sign(claim, request, secret):
    """Return the signature of a canonical request, in hexadecimal."""
    key = ('AWS4' + secret).encode()
    for part in (claim.date, claim.region, claim.service, 'aws4_request'):
        key = hmac_sha256(key, part)
    scope = '/'.join((claim.date, claim.region, claim.service, 'aws4_request'))
    digest = sha256(request.encode('latin-1')).hexdigest()
    return hmac_sha256(key, '\n'.join((ALGORITHM, claim.timestamp, scope, digest))).hex()


def read_claim(target, headers):
    """Return the Claim of a request, or None of an anonymous one; ValueError if malformed."""
    fields = {name.lower(): value for name, value in headers}
    query = {name.decode('latin-1'): value.decode('latin-1')
             for name, value in split_query(target.partition('?')[2])}
    if 'authorization' in fields:
        match = re.match(
            r'(\S+) Credential=([^, ]+), ?SignedHeaders=([^, ]+), ?Signature=([^, ]*)$',
            fields['authorization'])
        if match is None:
            raise ValueError('The authorization header is malformed')
        algorithm, credential, signed, signature = match.groups()
        timestamp, presigned = fields.get('x-amz-date', ''), False
    elif 'X-Amz-Algorithm' in query:
        algorithm, credential, signed, signature, timestamp = (
            query.get('X-Amz-' + name, '')
            for name in ('Algorithm', 'Credential', 'SignedHeaders', 'Signature', 'Date'))
        presigned = True
    else:
        return None
    scope = credential.rsplit('/', 4)
    if algorithm != ALGORITHM or len(scope) != 5 or scope[4] != 'aws4_request':
        raise ValueError('The algorithm or the credential is malformed')
    time.strptime(timestamp, '%Y%m%dT%H%M%SZ')
    if timestamp[:8] != scope[1]:
        raise ValueError('The date is not that of the credential')
    signed = signed.split(';')
    if signed != sorted(set(name.lower() for name in signed)):
        raise ValueError('The signed headers are not in order')
    return Claim(scope[0], scope[1], scope[2], scope[3], timestamp, signed, signature, presigned)


def expected_signature(method, target, headers, payload_hash, secret):
    """Return the signature that a request with this claim should have."""
    claim = read_claim(target, headers)
    return sign(claim, canonical_request(method, target, headers, claim.signed, payload_hash),
                secret)


# --- Operations --------------------------------------------------------------
#
# Method, resource and query name an operation of S3; these names are the
# vocabulary of permissions, faults and the log.  The first line that fits
# counts.

OPERATIONS = (
    ('GET', 'service', None, 'ListBuckets'),
    ('HEAD', 'bucket', None, 'HeadBucket'),
    ('GET', 'bucket', 'list-type', 'ListObjectsV2'),
    ('GET', 'bucket', 'uploads', 'ListMultipartUploads'),
    ('GET', 'bucket', 'location', 'GetBucketLocation'),
    ('GET', 'bucket', 'versioning', 'GetBucketVersioning'),
    ('GET', 'bucket', 'versions', 'ListObjectVersions'),
    ('GET', 'bucket', 'object-lock', 'GetObjectLockConfiguration'),
    ('GET', 'bucket', 'lifecycle', 'GetBucketLifecycleConfiguration'),
    ('PUT', 'bucket', None, 'CreateBucket'),
    ('DELETE', 'bucket', None, 'DeleteBucket'),
    ('GET', 'key', 'acl', 'GetObjectAcl'),
    ('GET', 'key', 'uploadId', 'ListParts'),
    ('GET', 'key', None, 'GetObject'),
    ('HEAD', 'key', None, 'HeadObject'),
    ('PUT', 'key', 'acl', 'PutObjectAcl'),
    ('PUT', 'key', 'uploadId', 'UploadPart'),
    ('PUT', 'key', None, 'PutObject'),
    ('POST', 'key', 'uploads', 'CreateMultipartUpload'),
    ('POST', 'key', 'uploadId', 'CompleteMultipartUpload'),
    ('POST', 'key', 'restore', 'RestoreObject'),
    ('DELETE', 'key', 'uploadId', 'AbortMultipartUpload'),
    ('DELETE', 'key', None, 'DeleteObject'),
)

# Subresources with operations of their own that this server doesn't have: a
# PUT ?tagging must not become an object.
FOREIGN = frozenset((
    'accelerate', 'analytics', 'annotation', 'attributes', 'cors', 'encryption',
    'intelligent-tiering', 'inventory', 'legal-hold', 'lifecycle', 'logging', 'metrics',
    'notification', 'object-lock', 'ownershipControls', 'policy', 'policyStatus',
    'publicAccessBlock', 'replication', 'requestPayment', 'retention', 'select', 'tagging',
    'torrent', 'versioning', 'versions', 'website'))

# A set for User.allow: may write and can do nothing else.
WRITE_ONLY = frozenset(('PutObject', 'CreateMultipartUpload', 'UploadPart',
                        'CompleteMultipartUpload'))

# Headers that a bucket may demand, see Service.demands, and the values that they may have: of every
# request, where a presigned one has them in its query, and of those that create an object.
REQUEST_HEADERS = {'x-amz-expected-bucket-owner': r'\d{12}', 'x-amz-request-payer': 'requester'}
CREATION_HEADERS = {
    'x-amz-acl': 'private|public-read|public-read-write|authenticated-read|aws-exec-read'
                 '|bucket-owner-read|bucket-owner-full-control',
    'x-amz-tagging': '[^&=]{1,999}=[^&=]{0,999}(&[^&=]{1,999}=[^&=]{0,999}){0,9}',
    'x-amz-server-side-encryption': 'AES256|aws:kms(:dsse)?',
    'x-amz-server-side-encryption-aws-kms-key-id': '[a-z0-9:/-]+'}


def operation_name(method, bucket, key, query):
    """Return S3's name for a request, or None if this server has none for it."""
    resource = 'key' if key else 'bucket' if bucket else 'service'
    foreign = FOREIGN.intersection(query)
    for entry in OPERATIONS:
        if entry[:2] == (method, resource) and foreign <= {entry[2]} and (
                entry[2] is None or entry[2] in query):
            return entry[3]
    return None


# --- Errors and documents ----------------------------------------------------

NAMESPACE = 'http://s3.amazonaws.com/doc/2006-03-01/'
DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'

ERRORS = {
    'AccessControlListNotSupported': (400, 'The bucket does not allow ACLs'),
    'AccessDenied': (403, 'Access Denied'),
    'AuthorizationHeaderMalformed': (400, 'The authorization header is malformed'),
    'AuthorizationQueryParametersError': (400, 'The query string authentication is malformed'),
    'BadDigest': (400, 'The digest you specified did not match what we received'),
    'BucketAlreadyOwnedByYou': (409, 'Your previous request to create the named bucket succeeded'
                                     ' and you already own it'),
    'BucketNotEmpty': (409, 'The bucket you tried to delete is not empty'),
    'EntityTooLarge': (400, 'Your proposed upload exceeds the maximum allowed size'),
    'EntityTooSmall': (400, 'Your proposed upload is smaller than the minimum allowed size'),
    'ExpiredToken': (400, 'The provided token has expired'),
    'IllegalLocationConstraintException': (400, 'The location constraint is incompatible for the'
                                                ' region specific endpoint'),
    'InternalError': (500, 'We encountered an internal error. Please try again.'),
    'InvalidAccessKeyId': (403, 'The AWS Access Key Id you provided does not exist in our records'),
    'InvalidArgument': (400, 'Invalid Argument'),
    'InvalidBucketName': (400, 'The specified bucket is not valid'),
    'InvalidDigest': (400, 'The Content-MD5 you specified was invalid'),
    'InvalidLocationConstraint': (400, 'The specified location constraint is not valid'),
    'InvalidObjectState': (403, 'The operation is not valid for the object\'s storage class'),
    'InvalidPart': (400, 'One or more of the specified parts could not be found, or its entity tag'
                         ' did not match'),
    'InvalidPartNumber': (416, 'The requested partnumber is not satisfiable'),
    'InvalidPartOrder': (400, 'The list of parts was not in ascending order'),
    'InvalidRange': (416, 'The requested range is not satisfiable'),
    'InvalidRequest': (400, 'Invalid Request'),
    'InvalidStorageClass': (400, 'The storage class you specified is not valid'),
    'InvalidToken': (400, 'The provided token is malformed or otherwise invalid'),
    'InvalidURI': (400, 'Could not parse the specified URI'),
    'KeyTooLongError': (400, 'Your key is too long'),
    'MalformedACLError': (400, 'The XML you provided was not well-formed or did not validate'),
    'MalformedXML': (400, 'The XML you provided was not well-formed or did not validate'),
    'MetadataTooLarge': (400, 'Your metadata headers exceed the maximum allowed metadata size'),
    'MethodNotAllowed': (405, 'The specified method is not allowed against this resource'),
    'MissingContentLength': (411, 'You must provide the Content-Length HTTP header'),
    'NoSuchBucket': (404, 'The specified bucket does not exist'),
    'NoSuchKey': (404, 'The specified key does not exist.'),
    'NoSuchLifecycleConfiguration': (404, 'The lifecycle configuration does not exist'),
    'NoSuchUpload': (404, 'The specified multipart upload does not exist'),
    'NoSuchVersion': (404, 'The specified version does not exist.'),
    'NotImplemented': (501, 'A header or query you provided implies functionality that is not'
                            ' implemented'),
    'ObjectLockConfigurationNotFoundError': (404, 'Object Lock configuration does not exist for'
                                                  ' this bucket'),
    'PreconditionFailed': (412, 'At least one of the pre-conditions you specified did not hold'),
    'RequestTimeTooSkewed': (403, 'The difference between the request time and the server\'s time'
                                  ' is too large'),
    'RestoreAlreadyInProgress': (409, 'Object restore is already in progress'),
    'SignatureDoesNotMatch': (403, 'The request signature we calculated does not match the'
                                   ' signature you provided'),
    'SlowDown': (503, 'Please reduce your request rate.'),
    'XAmzContentSHA256Mismatch': (400, 'The provided \'x-amz-content-sha256\' header does not match'
                                       ' what was computed'),
}


class S3Error(Exception):
    """An answer in S3's error format; *details* become elements beside Code and Message."""

    def __init__(self, code, message=None, status=None, **details):
        Exception.__init__(self, code)
        known = ERRORS.get(code, (400, code))
        self.code = code
        self.message = known[1] if message is None else message
        self.status = known[0] if status is None else status
        self.details = details


class Markup(str):
    """Text that is XML already."""


def escape(text):
    """Return text as XML; control characters, which XML 1.0 can't hold, as S3 writes them."""
    text = text.replace('&', '&amp;').replace('<', '&lt;').replace('>', '&gt;')
    return re.sub('[\x00-\x1f"]', lambda match: '&#%d;' % ord(match.group()), text)


def tag(name, *contents):
    """Return an element with these contents: Markup as it is, anything else escaped."""
    inside = (text if isinstance(text, Markup) else escape(str(text)) for text in contents)
    return Markup('<%s>%s</%s>' % (name, ''.join(inside), name))


def document(root, *contents):
    """Return an XML document in S3's namespace, as bytes."""
    text = tag(root, *contents).replace('<' + root, '<%s xmlns="%s"' % (root, NAMESPACE), 1)
    return (DECLARATION + text).encode('utf-8', 'surrogateescape')


def parse_document(body, root, code='MalformedXML'):
    """Return the root element of a request's body, its names freed of the namespace."""
    try:
        tree = xml.etree.ElementTree.fromstring(bytes(body))
    except xml.etree.ElementTree.ParseError:
        raise S3Error(code) from None
    for element in tree.iter():
        element.tag = element.tag.rpartition('}')[2]
    if tree.tag != root:
        raise S3Error(code)
    return tree


def iso_date(seconds):
    return time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(seconds))


@functools.lru_cache(maxsize=4096)
def listing_date(seconds):
    """Return LastModified as listings give it: milliseconds that are always zero."""
    return time.strftime('%Y-%m-%dT%H:%M:%S.000Z', time.gmtime(seconds))


def http_date(seconds):
    return email.utils.formatdate(seconds, usegmt=True)


def parse_date(text):
    """Return the epoch seconds of 2026-11-22T20:34:05[.123]Z."""
    match = re.match(r'(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?Z$', text)
    if match is None:
        raise S3Error('InvalidArgument', 'The retain until date must be in ISO 8601 format')
    return timegm(time.strptime(match.group(1), '%Y-%m-%dT%H:%M:%S'))


# --- Objects, uploads, users -------------------------------------------------

STORAGE_CLASSES = frozenset((
    'STANDARD', 'REDUCED_REDUNDANCY', 'STANDARD_IA', 'ONEZONE_IA', 'INTELLIGENT_TIERING',
    'GLACIER_IR', 'GLACIER', 'DEEP_ARCHIVE'))
ARCHIVED = ('GLACIER', 'DEEP_ARCHIVE')
MAX_PUT_SIZE = 5 << 30      # of one PutObject or UploadPart
MAX_KEY_SIZE = 1024         # bytes of UTF-8
MAX_METADATA_SIZE = 2048


class Zeros:
    """Data of which only the length was kept."""

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __bytes__(self):
        return bytes(self.size)

    def __getitem__(self, piece):
        return bytes(len(range(*piece.indices(self.size))))


def stretch(data, start, end):
    """Return data from start to end without copying them."""
    return Zeros(end - start) if isinstance(data, Zeros) else memoryview(data)[start:end]


class Object:
    """An object: *data*, what S3 knows about them, and what the writer said."""

    def __init__(self, key, data, etag, modified, **attributes):
        self.key = key
        self.data = data                # bytes, or Zeros
        self.etag = etag                # without its quotes
        self.modified = modified        # epoch seconds
        self.parts = None               # sizes of the parts of a multipart upload
        self.crc32 = None               # in base64, a composite one with -N
        self.checksum_type = None       # FULL_OBJECT or COMPOSITE
        self.storage_class = 'STANDARD'
        self.content_type = 'binary/octet-stream'
        self.metadata = {}              # x-amz-meta-* in lower case: text
        self.sse = None                 # AES256, aws:kms or aws:kms:dsse
        self.sse_kms_key_id = None
        self.canned_acl = None
        self.tags = {}
        self.acl = None                 # XML, as it was put
        self.lock_mode = None           # GOVERNANCE or COMPLIANCE
        self.lock_until = None          # epoch seconds
        self.legal_hold = None          # 'ON', or there is none
        self.restore = None             # of an archived one: None, 'ongoing', epoch of its end
        self.restore_request = None     # (days, tier), as it was asked for
        self.version_id = 'null'
        self.marker = False             # whether this is a delete marker
        for name, value in attributes.items():
            if not hasattr(self, name):
                raise TypeError('an object has no ' + name)
            setattr(self, name, value)

    @property
    def size(self):
        return len(self.data)


class Bucket(dict):
    """Objects by key, and their keys in S3's order, sorted once until a key comes or goes.

    An object is what is on top of its key's versions; those of a key that has only ever had one are
    not kept apart.
    """

    ordered = None

    def __init__(self):
        dict.__init__(self)
        self.stacks = {}                # key: Objects, the newest first

    def versions(self, key):
        """Return all versions of a key, the newest first."""
        return self.stacks.get(key) or ([self[key]] if key in self else [])

    def keep(self, key, versions):
        """Let these be the versions of a key."""
        self.stacks[key] = versions
        if versions and not versions[0].marker:
            self[key] = versions[0]
        else:
            self.pop(key, None)

    def keys_in_order(self):
        # The order of UTF-8's bytes is that of the code points.
        if self.ordered is None:
            self.ordered = sorted(self)
        return self.ordered

    def _forgetful(method):
        @functools.wraps(method)
        def wrapper(self, *arguments, **keywords):
            self.ordered = None
            return method(self, *arguments, **keywords)
        return wrapper

    __setitem__ = _forgetful(dict.__setitem__)
    __delitem__ = _forgetful(dict.__delitem__)
    pop = _forgetful(dict.pop)
    popitem = _forgetful(dict.popitem)
    setdefault = _forgetful(dict.setdefault)
    update = _forgetful(dict.update)
    del _forgetful

    def clear(self):
        """Forget all versions, too."""
        self.ordered = None
        self.stacks.clear()
        dict.clear(self)


Part = collections.namedtuple('Part', 'size etag data crc32')


class Upload:
    """A multipart upload that was neither completed nor aborted."""

    def __init__(self, upload_id, bucket, key, initiated, attributes, checksum_type):
        self.upload_id = upload_id
        self.bucket = bucket
        self.key = key
        self.initiated = initiated
        self.attributes = attributes        # of the object that it will be
        self.checksum_type = checksum_type  # None where no CRC32 was asked for
        self.parts = {}                     # number: Part


class User:
    """Who an access key stands for, and what it may do."""

    def __init__(self, secret, session_token=None, allow=None, conditional=False, expired=False,
                 prefix=''):
        self.secret = secret
        self.session_token = session_token  # to be sent and signed, if there is one
        self.allow = allow                  # operations; None allows all
        self.conditional = conditional      # may create objects only with If-None-Match
        self.expired = expired
        self.prefix = prefix                # of the keys and of the listings that it may ask for

    def may(self, operation, key, prefix):
        """Whether a policy allows it an operation."""
        return (self.allow is None or operation in self.allow) and (
            (key or prefix or '').startswith(self.prefix))


# The checksum of a whole from those of its parts.  A CRC is a polynomial's
# remainder; appending n bytes multiplies it by x^(8n), modulo CRC-32's
# polynomial, here with the coefficient of x^0 in the highest bit.

def crc32_multiply(one, other):
    product = 0
    for bit in range(31, -1, -1):
        if one >> bit & 1:
            product ^= other
        other = other >> 1 ^ (0xEDB88320 if other & 1 else 0)
    return product


@functools.lru_cache(maxsize=64)
def crc32_shift(size):
    """Return x^(8 * size)."""
    power, square = 1 << 31, 1 << 23
    while size:
        if size & 1:
            power = crc32_multiply(power, square)
        square = crc32_multiply(square, square)
        size >>= 1
    return power


def crc32_combine(first, second, second_size):
    return crc32_multiply(crc32_shift(second_size), first) ^ second


def base64_crc32(crc):
    return base64.b64encode(struct.pack('>I', crc)).decode()


# --- The rules of S3 ---------------------------------------------------------

Body = collections.namedtuple('Body', 'size data sha256 md5 crc32')
NO_BODY = Body(0, b'', sha256().hexdigest(), None, 0)


class Exchange:
    """One request, as it came in, and what becomes of it."""

    def __init__(self, method, target, headers):
        self.method = method
        self.target = target
        self.header_list = headers
        self.headers = {}               # names in lower case
        for name, value in headers:
            name = name.lower()
            self.headers[name] = self.headers[name] + ',' + value if name in self.headers else value
        self.query = {}
        self.bucket = self.key = self.operation = None
        self.access_key = self.user = None
        self.denied = None              # the S3Error that it will be answered with
        self.body = NO_BODY
        self.tampered = False           # a fault changed the body on its way
        self.shift = None               # a fault that shifts the range
        self.status = 0                 # 0: never answered
        self.received = self.sent = 0   # bytes of bodies
        self.recorded = False

    @property
    def writes(self):
        return self.operation in ('PutObject', 'UploadPart')


class Reply:
    """An answer, and how to send it; the latter is for faults to change."""

    def __init__(self, status=200, headers=(), body=b'', content_type='application/xml'):
        self.status = status
        self.headers = dict(headers)
        self.body = body                # anything with a length and slices
        self.headers.setdefault('Content-Type', content_type)
        self.limit = None               # bytes after which the connection breaks off
        self.stall = None               # the Fault that holds it up after some bytes
        self.blanks = None              # the Fault that sends blanks first
        self.raw = None                 # bytes in place of all this
        self.reset = False
        self.close = False


QUIRKS = frozenset((
    'range-200',                # a ranged GET answered 200, with the right bytes
    'empty-etag', 'unquoted-etag', 'opaque-etag',
    'weak-etag',                # of what is read, as a proxy that compresses makes them
    'plain-etag',               # -N at completion, the whole object's MD5 afterwards
    'no-part-number',           # ?partNumber= is ignored
    'ignore-if-none-match', '501-if-none-match', 'ignore-if-match',
    'no-date', 'close',
    'wrong-date',               # in the head of answers, as a front end may have it
    'no-encoding-type',         # keys in listings as they are
    'unnamed-encoding',         # of the keys of uploads, but not of the marker, as in Ceph 16
    'version-1',                # of ListObjects is the only one
    'one-region',               # and no LocationConstraint
    'no-uploads-list',          # ListMultipartUploads is not implemented
    '500-repeated-complete', 'idempotent-complete',
    'no-message',               # in error documents
    'no-checksums',             # x-amz-checksum-* is refused
    'no-acl',                   # PUT ?acl stores the XML as the object
    'directories',              # no object has a key that goes on behind another's with a slash
    'object-for-bucket',        # the host names the bucket already, whatever the path is
    'informational',            # 102 and 103 before every answer
    'wants-content-md5',        # of what is written, as with a default retention
    'class-is-a-label',         # what is in GLACIER can be read, and RestoreObject isn't known
    'markers-last',             # on a page of versions, as in moto
    'unsorted',                 # without a prefix: by the encrypted keys, as Storj
))

OWNER = tag('Owner', tag('ID', 'owner'), tag('DisplayName', 'owner'))


class Service:
    """S3 without sockets: buckets, users, and a method for each operation.

    Methods named as S3's operations take an Exchange, and return a Reply or
    raise an S3Error.
    """

    access_key, secret_key, service = 'AKIDEXAMPLE', 'secretEXAMPLEkey', 's3'

    def __init__(self, bucket, region, min_part_size, max_parts, page_size, discard, quirks,
                 buckets):
        unknown = set(quirks) - QUIRKS
        if unknown:
            raise ValueError('unknown quirks: ' + ', '.join(sorted(unknown)))
        self.bucket, self.region = bucket, region
        self.min_part_size, self.max_parts = min_part_size, max_parts
        self.page_size, self.discard, self.quirks = page_size, discard, set(quirks)
        self.in_order = 0           # so many keys of an unsorted listing come first
        self.lock_enabled = self.acl_enabled = True
        self.owner = '123456789012'     # the account
        self.demands = {}               # headers that requests must have: their values
        self.versioning = ''            # or Enabled, Suspended
        self.retention = None           # the default one: mode and days
        self.lifecycle = []             # (prefix, days until unfinished uploads are aborted)
        self.offset = 0                 # seconds by which this clock is ahead
        self.users = {self.access_key: User(self.secret_key)}
        self.buckets = {}
        self.uploads = {}
        self.completed = {}             # upload id: (bucket, key), after completion
        self.violations = []
        self.lock = threading.RLock()
        for name in (bucket,) if buckets is None else buckets:
            self.add_bucket(name)

    # What tests ask and arrange.

    @property
    def objects(self):
        return self.buckets[self.bucket]

    def add_bucket(self, name):
        self.buckets[name] = Bucket()

    def add_user(self, access_key, secret, **attributes):
        self.users[access_key] = User(secret, **attributes)
        return self.users[access_key]

    def put(self, key, data, parts=None, bucket=None, **attributes):
        """Place an object; *parts*, the size of its parts, makes it a multipart one."""
        if parts is None:
            etag = md5(data).hexdigest()
        else:
            pieces = [data[start:start + parts] for start in range(0, len(data), parts)]
            etag = multipart_etag([md5(piece).hexdigest() for piece in pieces])
            attributes['parts'] = [len(piece) for piece in pieces]
        placed = Object(key, bytes(data), attributes.pop('etag', etag),
                        attributes.pop('modified', self.now()), **attributes)
        with self.lock:
            self.lay(self.buckets[bucket or self.bucket], placed)
        return placed

    def lay(self, bucket, placed):
        """Lay an object, or a delete marker, on top of the versions of its key."""
        if not self.versioning:
            bucket[placed.key] = placed
            return
        below = bucket.versions(placed.key)
        if self.versioning == 'Suspended':      # then there is one that is called null
            below = [each for each in below if each.version_id != 'null']
        else:
            placed.version_id = os.urandom(16).hex()
        bucket.keep(placed.key, [placed] + below)

    def delete(self, key, modified=None):
        """Delete an object as a request would; returns the delete marker, if there is one now."""
        with self.lock:
            return self.hide(self.objects, key, modified)

    def hide(self, bucket, key, modified=None):
        if not self.versioning:
            bucket.pop(key, None)
            return None
        marker = Object(key, b'', '', self.now() if modified is None else modified, marker=True)
        self.lay(bucket, marker)
        return marker

    def thaw(self, key, days=1):
        """Finish the restoration of an archived object."""
        self.objects[key].restore = self.now() + days * 86400

    def now(self):
        return time.time() + self.offset

    # Who asks, and may they?

    def authenticate(self, exchange):
        """Set the exchange's user, or why it is denied; note what no client must do."""
        self.check_headers(exchange)
        try:
            exchange.user = self.verify(exchange)
        except S3Error as error:
            exchange.denied = error

    def check_headers(self, exchange):
        headers = exchange.headers
        for name in ('expect', 'transfer-encoding', 'x-amz-acl', 'x-amz-sdk-checksum-algorithm',
                     'x-amz-trailer'):
            if name in headers and name not in self.demands:
                self.violation(exchange, 'header ' + name)
        if 'aws-chunked' in headers.get('content-encoding', ''):
            self.violation(exchange, 'content-encoding aws-chunked')
        if (headers.get('x-amz-content-sha256') == UNSIGNED and not self.secure
                and headers.get('content-length', '0') != '0'):
            self.violation(exchange, 'unsigned payload over plain http')

    def violation(self, exchange, text):
        self.violations.append('%s %s: %s' % (exchange.operation, exchange.key, text))

    def verify(self, exchange):
        """Return the User whose signature the request bears."""
        try:
            claim = read_claim(exchange.target, exchange.header_list)
        except ValueError as error:
            raise S3Error('AuthorizationHeaderMalformed', str(error)) from None
        if claim is None:
            raise S3Error('AccessDenied')
        exchange.access_key = claim.access_key
        if claim.region != self.region or claim.service != self.service:
            raise S3Error('AuthorizationHeaderMalformed',
                          "The authorization header is malformed; the region or service '%s/%s' is"
                          " wrong; expecting '%s/%s'" % (claim.region, claim.service,
                                                         self.region, self.service),
                          Region=self.region)
        user = self.users.get(claim.access_key)
        if user is None:
            raise S3Error('InvalidAccessKeyId', AWSAccessKeyId=claim.access_key)
        self.check_clock(exchange, claim)
        self.check_signature(exchange, claim, user)
        self.check_token(exchange, claim, user)
        return user

    def check_clock(self, exchange, claim):
        now = self.now()
        signed_at = timegm(time.strptime(claim.timestamp, '%Y%m%dT%H%M%SZ'))
        if not claim.presigned:
            if abs(now - signed_at) > MAX_SKEW:
                raise self.too_skewed(claim.timestamp)
            return
        expires = exchange.query.get('X-Amz-Expires', '')
        if not expires.isdigit() or not 0 < int(expires) <= MAX_EXPIRES:
            raise S3Error('AuthorizationQueryParametersError',
                          'X-Amz-Expires must be a number less than a week (in seconds)')
        if now > signed_at + int(expires):
            raise S3Error('AccessDenied', 'Request has expired',
                          Expires=iso_date(signed_at + int(expires)), ServerTime=iso_date(now))
        if now < signed_at - MAX_SKEW:
            raise S3Error('AccessDenied', 'Request is not yet valid')

    def too_skewed(self, timestamp):
        return S3Error('RequestTimeTooSkewed', RequestTime=timestamp,
                       ServerTime=iso_date(self.now()),
                       MaxAllowedSkewMilliseconds=MAX_SKEW * 1000)

    def check_signature(self, exchange, claim, user):
        payload_hash = exchange.headers.get('x-amz-content-sha256')
        if payload_hash is None and claim.presigned:
            payload_hash = UNSIGNED
        if payload_hash is None:
            self.violation(exchange, 'no x-amz-content-sha256')
            raise S3Error('InvalidRequest',
                          'Missing required header for this request: x-amz-content-sha256')
        if payload_hash.startswith('STREAMING-'):
            raise S3Error('NotImplemented')
        expected = expected_signature(exchange.method, exchange.target, exchange.header_list,
                                      payload_hash, user.secret)
        if not hmac.compare_digest(expected.encode(), claim.signature.encode('latin-1')):
            self.violation(exchange, 'signature does not match')
            raise S3Error('SignatureDoesNotMatch', AWSAccessKeyId=claim.access_key)
        unsigned = [name for name in exchange.headers if name not in claim.signed
                    and (name == 'host' or name.startswith('x-amz-'))]
        if unsigned:
            self.violation(exchange, 'unsigned headers: ' + ', '.join(unsigned))
            raise S3Error('AccessDenied', 'There were headers present in the request which were'
                          ' not signed', HeadersNotSigned=', '.join(unsigned))

    def check_token(self, exchange, claim, user):
        if user.expired:
            raise S3Error('ExpiredToken')
        source = exchange.query if claim.presigned else exchange.headers
        name = 'X-Amz-Security-Token'
        token = source.get(name if claim.presigned else name.lower())
        if token is None and user.session_token is not None:
            raise S3Error('InvalidAccessKeyId')     # a temporary key is unknown without its token
        if token != user.session_token:
            raise S3Error('InvalidToken')

    def check_payload(self, exchange):
        """Hold the body against the hash that was signed with it."""
        claimed = exchange.headers.get('x-amz-content-sha256', UNSIGNED)
        if claimed != UNSIGNED and claimed != exchange.body.sha256:
            if not exchange.tampered:
                self.violation(exchange, 'payload hash does not match')
            raise S3Error('XAmzContentSHA256Mismatch', ClientComputedContentSHA256=claimed,
                          S3ComputedContentSHA256=exchange.body.sha256)

    def perform(self, exchange):
        """Do what was asked for and return the Reply, or raise an S3Error."""
        if exchange.denied is not None:
            raise exchange.denied
        self.check_payload(exchange)
        user, operation, headers = exchange.user, exchange.operation, exchange.headers
        if operation is None:
            raise S3Error('NotImplemented' if exchange.query else 'MethodNotAllowed')
        if 'no-checksums' in self.quirks:
            for name in headers:
                if name.startswith(('x-amz-checksum-', 'x-amz-sdk-')):
                    raise S3Error('InvalidArgument', "Unsupported header '%s'" % name)
        right = operation + 'Version' * ('versionId' in exchange.query)
        if not user.may(right, exchange.key, exchange.query.get('prefix')):
            raise S3Error('AccessDenied')
        if (user.conditional and 'if-none-match' not in headers
                and operation in ('PutObject', 'CompleteMultipartUpload')):
            raise S3Error('AccessDenied', 'with an explicit deny in a resource-based policy')
        if exchange.bucket and exchange.bucket not in self.buckets and operation != 'CreateBucket':
            raise S3Error('NoSuchBucket', BucketName=exchange.bucket)
        self.check_demands(exchange)
        with self.lock:
            return getattr(self, operation)(exchange)

    def check_demands(self, exchange):
        """Hold a request to the owner that it names, and to what the bucket demands."""
        said = dict(exchange.query, **exchange.headers)
        allowed = {} if exchange.operation == 'CreateBucket' else dict(REQUEST_HEADERS)
        if exchange.operation in ('PutObject', 'CreateMultipartUpload'):
            allowed.update(CREATION_HEADERS)
        for name in set(said) & set(dict(REQUEST_HEADERS, **CREATION_HEADERS)):
            if name not in allowed:
                self.violation(exchange, name + ' is not for this request')
            elif not re.match(r'(%s)\Z' % allowed[name], said[name], re.ASCII):
                raise S3Error('InvalidArgument', '%s: %s' % (name, said[name]))
        if said.get('x-amz-expected-bucket-owner', self.owner) != self.owner or any(
                said.get(name) != value for name, value in self.demands.items()
                if name in allowed):
            raise S3Error('AccessDenied')

    # Digests, conditions and attributes, which several operations share.

    def check_digests(self, exchange, required=None):
        """Hold the body against Content-MD5 and checksums; *required* says for what one must be."""
        headers, body = exchange.headers, exchange.body
        digest = headers.get('content-md5')
        if digest is not None:
            computed = body.md5 or md5(body.data).hexdigest()
            if not re.match('[A-Za-z0-9+/]{22}==$', digest):
                raise S3Error('InvalidDigest')
            if base64.b64decode(digest).hex() != computed:
                raise S3Error('BadDigest')
        crc = headers.get('x-amz-checksum-crc32')
        if crc is not None and crc != base64_crc32(body.crc32):
            raise S3Error('BadDigest', 'The CRC32 you specified did not match the calculated'
                                       ' checksum.')
        for name in headers:
            if name.startswith('x-amz-checksum-') and name[15:] in (
                    'crc32c', 'crc64nvme', 'sha1', 'sha256'):
                raise S3Error('NotImplemented', 'This server keeps CRC32 checksums only')
        if required and digest is None and crc is None:
            raise S3Error('InvalidRequest', 'Content-MD5 OR x-amz-checksum- HTTP header is'
                                            ' required for ' + required)
        if digest is None and exchange.writes and 'wants-content-md5' in self.quirks:
            raise S3Error('InvalidRequest', 'Missing required header: Content-MD5')

    def check_write(self, exchange):
        """Refuse to create an object where conditions or a lock forbid it."""
        present = self.buckets[exchange.bucket].get(exchange.key)
        if 'directories' in self.quirks and any(
                one.startswith(other + '/') for key in self.buckets[exchange.bucket]
                for one, other in ((key, exchange.key), (exchange.key, key))):
            raise S3Error('InternalError', 'is a directory')
        none_match = exchange.headers.get('if-none-match')
        if none_match is not None and 'ignore-if-none-match' not in self.quirks:
            if none_match != '*' or '501-if-none-match' in self.quirks:
                raise S3Error('NotImplemented', Header='If-None-Match')
            if present is not None:
                raise S3Error('PreconditionFailed', Condition='If-None-Match')
        if 'if-match' in exchange.headers:
            if present is None:
                raise S3Error('NoSuchKey')
            self.check_if_match(exchange, present)
        self.check_lock(present)

    def check_if_match(self, exchange, present):
        wanted = exchange.headers.get('if-match')
        if 'ignore-if-match' in self.quirks:
            return
        if wanted is not None and wanted != '*' and wanted.strip('"') != present.etag:
            raise S3Error('PreconditionFailed', Condition='If-Match')

    def check_lock(self, present):
        # A real bucket with locks has versions, and its DELETE adds a marker.
        # Without versions, a locked object simply stays.
        if not self.versioning:
            self.check_version_lock(present)

    def check_version_lock(self, present):
        if present is not None and (present.legal_hold or (
                present.lock_mode and present.lock_until > self.now())):
            raise S3Error('AccessDenied', 'Access Denied because object protected by object lock.')

    def attributes(self, headers):
        """Return the attributes of the object that a write's headers ask for."""
        storage_class = headers.get('x-amz-storage-class', 'STANDARD')
        if storage_class not in STORAGE_CLASSES:
            raise S3Error('InvalidStorageClass')
        sse = headers.get('x-amz-server-side-encryption')
        kms_key = headers.get('x-amz-server-side-encryption-aws-kms-key-id')
        if kms_key is not None and not (sse or '').startswith('aws:kms'):
            raise S3Error('InvalidArgument', 'Server Side Encryption with AWS KMS managed key'
                                             ' requires HTTP header x-amz-server-side-encryption'
                                             ' : aws:kms')
        metadata = {name: value for name, value in headers.items()
                    if name.startswith('x-amz-meta-')}
        if sum(len(name) - 11 + len(value) for name, value in metadata.items()) > MAX_METADATA_SIZE:
            raise S3Error('MetadataTooLarge')
        lock_mode, lock_until = self.lock_attributes(headers)
        return {'storage_class': storage_class, 'sse': sse, 'metadata': metadata,
                'sse_kms_key_id': kms_key, 'canned_acl': headers.get('x-amz-acl'),
                'tags': {name.decode(): value.decode()
                         for name, value in split_query(headers.get('x-amz-tagging', ''))},
                'content_type': headers.get('content-type', 'binary/octet-stream'),
                'lock_mode': lock_mode, 'lock_until': lock_until}

    def lock_attributes(self, headers):
        mode = headers.get('x-amz-object-lock-mode')
        until = headers.get('x-amz-object-lock-retain-until-date')
        if mode is None and until is None:
            return None, None
        if not self.lock_enabled:
            raise S3Error('InvalidRequest', 'Bucket is missing Object Lock Configuration')
        if mode not in ('GOVERNANCE', 'COMPLIANCE') or until is None:
            raise S3Error('InvalidArgument', 'x-amz-object-lock-retain-until-date and'
                                             ' x-amz-object-lock-mode must both be supplied')
        until = parse_date(until)
        if until <= self.now():
            raise S3Error('InvalidArgument', 'The retain until date must be in the future!')
        return mode, until

    def store(self, exchange, data, etag, attributes):
        stored = Object(exchange.key, data, etag, self.now(), **attributes)
        self.lay(self.buckets[exchange.bucket], stored)
        return stored

    def find(self, exchange):
        """Return the object; whoever may not list must not learn that it isn't there."""
        if 'versionId' in exchange.query:
            return self.find_version(exchange)
        present = self.buckets[exchange.bucket].get(exchange.key)
        if present is None:
            allow = exchange.user.allow
            if allow is not None and 'ListObjectsV2' not in allow:
                raise S3Error('AccessDenied')
            raise S3Error('NoSuchKey', Key=exchange.key)
        return present

    def find_version(self, exchange):
        for found in self.buckets[exchange.bucket].versions(exchange.key):
            if found.version_id == exchange.query['versionId']:
                if found.marker:
                    raise S3Error('MethodNotAllowed')
                return found
        raise S3Error('NoSuchVersion', Key=exchange.key, VersionId=exchange.query['versionId'])

    def find_upload(self, exchange):
        upload = self.uploads.get(exchange.query['uploadId'])
        if upload is None or (upload.bucket, upload.key) != (exchange.bucket, exchange.key):
            raise S3Error('NoSuchUpload', UploadId=exchange.query['uploadId'])
        return upload

    # Buckets.

    def ListBuckets(self, exchange):
        buckets = [tag('Bucket', tag('Name', name), tag('CreationDate', listing_date(0)))
                   for name in sorted(self.buckets)]
        return Reply(body=document('ListAllMyBucketsResult', OWNER, tag('Buckets', *buckets)))

    def HeadBucket(self, exchange):
        return Reply(headers={'x-amz-bucket-region': self.region})

    def CreateBucket(self, exchange):
        name, constraint = exchange.bucket, None
        if exchange.body.size:
            tree = parse_document(exchange.body.data, 'CreateBucketConfiguration')
            constraint = tree.findtext('LocationConstraint')
        if not re.match(r'[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$', name):
            raise S3Error('InvalidBucketName', BucketName=name)
        # us-east-1 is the region that has no name here.
        if constraint == 'us-east-1':
            raise S3Error('InvalidLocationConstraint', LocationConstraint=constraint)
        if constraint and 'one-region' in self.quirks:
            raise S3Error('InvalidLocationConstraint', LocationConstraint=constraint)
        if (constraint or 'us-east-1') != self.region and 'one-region' not in self.quirks:
            raise S3Error('IllegalLocationConstraintException')
        if name in self.buckets:
            raise S3Error('BucketAlreadyOwnedByYou', BucketName=name)
        self.add_bucket(name)
        return Reply(headers={'Location': '/' + name})

    def DeleteBucket(self, exchange):
        if self.buckets[exchange.bucket]:
            raise S3Error('BucketNotEmpty')
        del self.buckets[exchange.bucket]
        return Reply(204)

    def GetBucketLocation(self, exchange):
        region = '' if self.region == 'us-east-1' else self.region
        return Reply(body=document('LocationConstraint', region))

    def GetBucketVersioning(self, exchange):
        return Reply(body=document('VersioningConfiguration', *(
            [tag('Status', self.versioning)] if self.versioning else [])))

    def GetObjectLockConfiguration(self, exchange):
        if not self.retention:
            raise S3Error('ObjectLockConfigurationNotFoundError')
        mode, days = self.retention
        return Reply(body=document(
            'ObjectLockConfiguration', tag('ObjectLockEnabled', 'Enabled'), tag('Rule', tag(
                'DefaultRetention', tag('Mode', mode), tag('Days', days)))))

    def GetBucketLifecycleConfiguration(self, exchange):
        if not self.lifecycle:
            raise S3Error('NoSuchLifecycleConfiguration')
        return Reply(body=document('LifecycleConfiguration', *(
            tag('Rule', tag('Status', 'Enabled'), tag('Filter', tag('Prefix', prefix)),
                tag('AbortIncompleteMultipartUpload', tag('DaysAfterInitiation', days)))
            for prefix, days in self.lifecycle)))

    # Listings.

    def listing_text(self, exchange):
        """Return the function that writes a key, and the EncodingType element."""
        if exchange.query.get('encoding-type') != 'url' or 'no-encoding-type' in self.quirks:
            return escape, ''
        return (lambda key: uri_encode(key.encode('utf-8'), ENCODED_PATH).replace('%20', '+'),
                tag('EncodingType', 'url'))

    def page_limit(self, exchange, name):
        text = exchange.query.get(name, str(self.page_size))
        if not text.isdigit():
            raise S3Error('InvalidArgument', 'Provided %s not an integer' % name)
        return min(int(text), self.page_size)

    def listing_start(self, query):
        """Return the key behind which a page begins."""
        if 'version-1' in self.quirks:
            return query.get('marker', '')
        try:
            token = query.get('continuation-token', '')
            return base64.b64decode(token, validate=True).decode() or query.get('start-after', '')
        except ValueError:
            raise S3Error('InvalidArgument',
                          'The continuation token provided is incorrect') from None

    def ListObjectsV2(self, exchange):
        query, limit = exchange.query, self.page_limit(exchange, 'max-keys')
        prefix, bucket = query.get('prefix', ''), self.buckets[exchange.bucket]
        text, encoding = self.listing_text(exchange)
        start, keys = self.listing_start(query), bucket.keys_in_order()
        found = walk(keys, prefix, query.get('delimiter', ''), start)
        if 'unsorted' in self.quirks and not prefix:
            keys = keys[:self.in_order] + sorted(keys[self.in_order:], key=lambda key: (
                hashlib.sha256(key.encode('utf-8')).digest()))
            found = ((key, False) for key in keys[keys.index(start) + 1 if start else 0:])
        found = list(itertools.islice(found, limit + 1))
        truncated = 0 < limit < len(found)
        del found[limit:]
        elements = [tag('Name', exchange.bucket), tag('Prefix', Markup(text(prefix))),
                    tag('KeyCount', len(found)), tag('MaxKeys', limit), encoding,
                    tag('IsTruncated', 'true' if truncated else 'false')]
        if 'version-1' in self.quirks:
            elements[2] = tag('Marker', Markup(text(query.get('marker', ''))))
        elif truncated:
            last, common = found[-1]
            last += '\U0010ffff' if common else ''      # behind all that it stands for
            elements.append(tag('NextContinuationToken', base64.b64encode(last.encode()).decode()))
        elements += [listing_entry(bucket[key], text(key)) for key, common in found if not common]
        elements += [tag('CommonPrefixes', tag('Prefix', Markup(text(key))))
                     for key, common in found if common]
        return Reply(body=document('ListBucketResult', *elements))

    def ListObjectVersions(self, exchange):
        query, limit = exchange.query, self.page_limit(exchange, 'max-keys')
        prefix, bucket = query.get('prefix', ''), self.buckets[exchange.bucket]
        text, encoding = self.listing_text(exchange)
        keys = {key for keys in (bucket, bucket.stacks) for key in keys
                if key.startswith(prefix) and key >= query.get('key-marker', '')}
        found = [(each, number == 0) for key in sorted(keys)
                 for number, each in enumerate(bucket.versions(key))]
        if query.get('key-marker'):     # without a version id all of that key are behind us
            after = query.get('version-id-marker')
            last = [number for number, (each, _) in enumerate(found) if (
                each.key == query['key-marker'] and after in (None, each.version_id))]
            if after is not None and not last:
                raise S3Error('InvalidArgument', 'Invalid version id specified')
            del found[:max(last, default=-1) + 1]
        elif 'version-id-marker' in query:
            raise S3Error('InvalidArgument', 'A version-id marker cannot be specified without a key'
                                             ' marker.')
        truncated = len(found) > limit
        elements = [tag('Name', exchange.bucket), tag('Prefix', Markup(text(prefix))),
                    tag('MaxKeys', limit), encoding,
                    tag('IsTruncated', 'true' if truncated else 'false')]
        del found[limit:]
        if truncated:
            elements += [tag('NextKeyMarker', Markup(text(found[-1][0].key))),
                         tag('NextVersionIdMarker', found[-1][0].version_id)]
        if 'markers-last' in self.quirks:
            found.sort(key=lambda each: each[0].marker)
        elements += [version_entry(each, text(each.key), latest) for each, latest in found]
        return Reply(body=document('ListVersionsResult', *elements))

    def ListMultipartUploads(self, exchange):
        if 'no-uploads-list' in self.quirks:
            raise S3Error('NotImplemented')
        query, limit = exchange.query, self.page_limit(exchange, 'max-uploads')
        text, encoding = self.listing_text(exchange)
        after = (query.get('key-marker', ''), query.get('upload-id-marker', '\U0010ffff'))
        found = sorted((upload.key, upload.upload_id) for upload in self.uploads.values()
                       if upload.bucket == exchange.bucket
                       and upload.key.startswith(query.get('prefix', ''))
                       and (upload.key, upload.upload_id) > after)
        plain = escape if 'unnamed-encoding' in self.quirks else text
        head = [tag('Bucket', exchange.bucket), encoding if plain is text else '',
                tag('MaxUploads', limit),
                tag('IsTruncated', 'true' if len(found) > limit else 'false')]
        if len(found) > limit:
            head += [tag('NextKeyMarker', Markup(plain(found[limit - 1][0]))),
                     tag('NextUploadIdMarker', found[limit - 1][1])]
        uploads = [tag('Upload', tag('Key', Markup(text(key))), tag('UploadId', upload_id), OWNER,
                       tag('StorageClass', self.uploads[upload_id].attributes['storage_class']),
                       tag('Initiated', listing_date(int(self.uploads[upload_id].initiated))))
                   for key, upload_id in found[:limit]]
        return Reply(body=document('ListMultipartUploadsResult', *(head + uploads)))

    # Objects.

    def PutObject(self, exchange):
        headers, body = exchange.headers, exchange.body
        attributes = self.attributes(headers)
        self.check_digests(exchange, attributes['lock_mode']
                           and 'Put Object requests with Object Lock parameters')
        self.check_write(exchange)
        if 'x-amz-checksum-crc32' in headers:
            attributes.update(crc32=base64_crc32(body.crc32), checksum_type='FULL_OBJECT')
        stored = self.store(exchange, body.data, etag_of(body, attributes['sse']), attributes)
        return Reply(headers=dict(written_headers(stored), ETag='"%s"' % stored.etag,
                                  **self.version_headers(stored)))

    def version_headers(self, found):
        """Return what an answer says of the version that it is about."""
        return {'x-amz-version-id': found.version_id} if self.versioning else {}

    def HeadObject(self, exchange):
        found = self.find(exchange)
        headers, query = exchange.headers, exchange.query
        if 'x-amz-server-side-encryption' in headers:
            raise S3Error('InvalidArgument', 'x-amz-server-side-encryption is not valid here')
        self.check_if_match(exchange, found)
        reply = Reply(headers=dict(object_headers(found), **self.version_headers(found)),
                      content_type=found.content_type)
        if 'weak-etag' in self.quirks:
            reply.headers['ETag'] = 'W/' + reply.headers['ETag']
        none_match = headers.get('if-none-match')
        if none_match is not None and none_match.strip('"') in ('*', found.etag):
            reply.status = 304
            return reply
        part = 'partNumber' in query and 'no-part-number' not in self.quirks
        if 'range' in headers and part:
            raise S3Error('InvalidRequest', 'Cannot specify both Range header and partNumber')
        span = part_range(found, query['partNumber'], reply) if part else (
            byte_range(headers.get('range'), found.size))
        if span is None:
            reply.body = stretch(found.data, 0, found.size)
        else:
            self.answer_range(exchange, reply, found, span)
        whole = span is None or (part and found.parts is None)
        if whole and found.crc32 and headers.get('x-amz-checksum-mode') == 'ENABLED':
            reply.headers.update({'x-amz-checksum-crc32': found.crc32,
                                  'x-amz-checksum-type': found.checksum_type})
        return reply

    def answer_range(self, exchange, reply, found, span):
        start, end = said = span
        if exchange.shift:
            start = max(0, min(start + exchange.shift.by, found.size))
            end = max(start, min(end + exchange.shift.by, found.size))
            said = said if exchange.shift.lie else (start, end)
        reply.body = stretch(found.data, start, end)
        if 'range-200' in self.quirks:
            return
        reply.status = 206
        reply.headers['Content-Range'] = 'bytes %d-%d/%d' % (said[0], said[1] - 1, found.size)

    def GetObject(self, exchange):
        found = self.find(exchange)
        if found.storage_class in ARCHIVED and not self.readable(found) and (
                'class-is-a-label' not in self.quirks):
            raise S3Error('InvalidObjectState', StorageClass=found.storage_class)
        return self.HeadObject(exchange)

    def readable(self, found):
        return found.restore not in (None, 'ongoing') and found.restore > self.now()

    def DeleteObject(self, exchange):
        bucket = self.buckets[exchange.bucket]
        if 'versionId' in exchange.query:
            return self.delete_version(bucket, exchange.key, exchange.query['versionId'])
        present = bucket.get(exchange.key)
        if present is not None:
            self.check_if_match(exchange, present)
            self.check_lock(present)
        marker = self.hide(bucket, exchange.key)
        return Reply(204, dict(self.version_headers(marker), **{
            'x-amz-delete-marker': 'true'}) if marker else {})

    def delete_version(self, bucket, key, version_id):
        """Delete a version for ever, or a delete marker."""
        versions, headers = bucket.versions(key), {'x-amz-version-id': version_id}
        for found in [each for each in versions if each.version_id == version_id]:
            self.check_version_lock(found)
            bucket.keep(key, [each for each in versions if each is not found])
            if found.marker:
                headers['x-amz-delete-marker'] = 'true'
        return Reply(204, headers)

    def RestoreObject(self, exchange):
        if 'class-is-a-label' in self.quirks:
            raise S3Error('NotImplemented')
        found = self.find(exchange)
        tree = parse_document(exchange.body.data, 'RestoreRequest')
        days = tree.findtext('Days', '')
        tier = tree.findtext('GlacierJobParameters/Tier', tree.findtext('Tier', 'Standard'))
        if not days.isdigit() or int(days) < 1 or tier not in ('Standard', 'Bulk', 'Expedited'):
            raise S3Error('MalformedXML')
        if found.storage_class not in ARCHIVED:
            raise S3Error('InvalidObjectState', 'Restore is not allowed for the object\'s current'
                                                ' storage class')
        if found.storage_class == 'DEEP_ARCHIVE' and tier == 'Expedited':
            raise S3Error('InvalidArgument', 'Retrieval option is not supported by this storage'
                                             ' class')
        if found.restore == 'ongoing':
            raise S3Error('RestoreAlreadyInProgress')
        found.restore_request = (int(days), tier)
        if self.readable(found):
            self.thaw(found.key, int(days))
            return Reply(200)
        found.restore = 'ongoing'
        return Reply(202)

    def GetObjectAcl(self, exchange):
        found = self.find(exchange)
        if 'no-acl' in self.quirks:
            raise S3Error('NotImplemented')
        grantee = Markup('<Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
                         ' xsi:type="CanonicalUser"><ID>owner</ID></Grantee>')
        return Reply(body=found.acl or document(
            'AccessControlPolicy', OWNER, tag('AccessControlList', tag(
                'Grant', grantee, tag('Permission', 'FULL_CONTROL')))))

    def PutObjectAcl(self, exchange):
        if 'no-acl' in self.quirks:
            return self.PutObject(exchange)
        found = self.find(exchange)
        self.check_digests(exchange, 'this request')
        parse_document(exchange.body.data, 'AccessControlPolicy', 'MalformedACLError')
        if not self.acl_enabled:
            raise S3Error('AccessControlListNotSupported')
        found.acl = exchange.body.data
        return Reply()

    # Multipart uploads.

    def CreateMultipartUpload(self, exchange):
        headers = exchange.headers
        algorithm = headers.get('x-amz-checksum-algorithm')
        checksum_type = headers.get('x-amz-checksum-type')
        if algorithm not in (None, 'CRC32'):
            raise S3Error('NotImplemented', 'This server keeps CRC32 checksums only')
        if checksum_type not in ((None, 'COMPOSITE', 'FULL_OBJECT') if algorithm else (None,)):
            raise S3Error('InvalidRequest', 'A checksum type can only be used with its algorithm')
        if algorithm:
            checksum_type = checksum_type or 'COMPOSITE'
        attributes = self.attributes(headers)
        upload_id = os.urandom(24).hex()
        self.uploads[upload_id] = Upload(upload_id, exchange.bucket, exchange.key, self.now(),
                                         attributes, checksum_type)
        told = {'x-amz-checksum-algorithm': algorithm, 'x-amz-checksum-type': checksum_type}
        return Reply(
            headers={name: value for name, value in told.items() if value},
            body=document('InitiateMultipartUploadResult', tag('Bucket', exchange.bucket),
                          tag('Key', exchange.key), tag('UploadId', upload_id)))

    def UploadPart(self, exchange):
        upload, body = self.find_upload(exchange), exchange.body
        number = exchange.query.get('partNumber', '')
        if not number.isdigit() or not 1 <= int(number) <= self.max_parts:
            raise S3Error('InvalidArgument', 'Part number must be an integer between 1 and %d,'
                                             ' inclusive' % self.max_parts)
        for name in ('x-amz-server-side-encryption', 'x-amz-storage-class'):
            if name in exchange.headers:
                raise S3Error('InvalidArgument', name + ' is not valid for a part')
        self.check_digests(exchange, upload.attributes['lock_mode']
                           and 'Put Part requests with Object Lock parameters')
        crc = exchange.headers.get('x-amz-checksum-crc32')
        if upload.checksum_type == 'COMPOSITE' and crc is None:
            raise S3Error('InvalidRequest', 'The upload was created using a crc32 checksum. The'
                                            ' part must include it')
        etag = etag_of(body, upload.attributes['sse'])
        upload.parts[int(number)] = Part(body.size, etag, body.data, body.crc32)
        headers = {'ETag': '"%s"' % etag}
        if crc is not None:
            headers['x-amz-checksum-crc32'] = crc
        return Reply(headers=headers)

    def ListParts(self, exchange):
        upload, query = self.find_upload(exchange), exchange.query
        limit, after = self.page_limit(exchange, 'max-parts'), query.get('part-number-marker', '0')
        if not after.isdigit():
            raise S3Error('InvalidArgument')
        numbers = sorted(number for number in upload.parts if number > int(after))
        head = [tag('Bucket', upload.bucket), tag('Key', upload.key),
                tag('UploadId', upload.upload_id), tag('PartNumberMarker', after),
                tag('MaxParts', limit),
                tag('IsTruncated', 'true' if len(numbers) > limit else 'false')]
        if len(numbers) > limit:
            head.append(tag('NextPartNumberMarker', numbers[limit - 1]))
        parts = [tag('Part', tag('PartNumber', number), tag('ETag', '"%s"' % part.etag),
                     tag('Size', part.size))
                 for number, part in ((number, upload.parts[number]) for number in numbers[:limit])]
        return Reply(body=document('ListPartsResult', *(head + parts)))

    def AbortMultipartUpload(self, exchange):
        del self.uploads[self.find_upload(exchange).upload_id]
        return Reply(204)

    def CompleteMultipartUpload(self, exchange):
        repeated = self.repeated_completion(exchange)
        if repeated is not None:
            return repeated
        upload = self.find_upload(exchange)
        parts = self.listed_parts(upload, exchange.body.data)
        size = sum(part.size for part in parts)
        said = exchange.headers.get('x-amz-mp-object-size', str(size))
        if said != str(size):
            raise S3Error('InvalidRequest', 'The provided x-amz-mp-object-size %s does not match'
                                            ' the sum of the part sizes %d' % (said, size))
        attributes = dict(upload.attributes, parts=[part.size for part in parts])
        attributes.update(self.whole_checksum(exchange, upload, parts))
        self.check_write(exchange)
        etag = self.whole_etag(parts, attributes['sse'])
        kept = all(isinstance(part.data, bytes) for part in parts)
        data = b''.join(part.data for part in parts) if kept else Zeros(size)
        stored = self.store(exchange, data, etag, attributes)
        del self.uploads[upload.upload_id]
        self.completed[upload.upload_id] = (exchange.bucket, exchange.key)
        if 'plain-etag' in self.quirks:
            stored.etag = md5(stored.data).hexdigest()
        return self.completion(exchange, stored, etag)

    def repeated_completion(self, exchange):
        """Return the Reply to a completion that was done before; None if it was not."""
        upload_id = exchange.query['uploadId']
        if self.completed.get(upload_id) != (exchange.bucket, exchange.key):
            return None
        if '500-repeated-complete' in self.quirks:
            raise S3Error('InternalError')
        stored = self.buckets[exchange.bucket].get(exchange.key)
        if 'idempotent-complete' not in self.quirks or stored is None:
            return None
        return self.completion(exchange, stored, stored.etag)

    def completion(self, exchange, stored, etag):
        quoted = ('' if 'empty-etag' in self.quirks else etag if 'unquoted-etag' in self.quirks
                  else '"%s"' % etag)
        location = 'http://%s/%s/%s' % (exchange.headers.get('host', ''), exchange.bucket,
                                        exchange.key)
        elements = [tag('Location', location), tag('Bucket', exchange.bucket),
                    tag('Key', exchange.key), tag('ETag', quoted)]
        if stored.crc32:
            elements += [tag('ChecksumCRC32', stored.crc32),
                         tag('ChecksumType', stored.checksum_type)]
        return Reply(headers=dict(written_headers(stored), **self.version_headers(stored)),
                     body=document('CompleteMultipartUploadResult', *elements))

    def listed_parts(self, upload, body):
        """Return the Parts that a completion lists; they must be there, in order, large enough."""
        listed = parse_document(body, 'CompleteMultipartUpload').findall('Part')
        if not listed or len(listed) > self.max_parts:
            raise S3Error('MalformedXML')
        parts, previous = [], 0
        for element in listed:
            number = element.findtext('PartNumber', '').strip()
            if not number.isdigit():
                raise S3Error('MalformedXML')
            if int(number) <= previous:
                raise S3Error('InvalidPartOrder', UploadId=upload.upload_id)
            previous = int(number)
            part = upload.parts.get(previous)
            if part is None or element.findtext('ETag', '').strip().strip('"') != part.etag:
                raise S3Error('InvalidPart', UploadId=upload.upload_id, PartNumber=number)
            crc = element.findtext('ChecksumCRC32')
            if upload.checksum_type == 'COMPOSITE' and crc is None:
                raise S3Error('InvalidRequest', 'The complete request must include the checksum'
                                                ' for each part. It was missing for part ' + number)
            if crc is not None and crc.strip() != base64_crc32(part.crc32):
                raise S3Error('InvalidPart', PartNumber=number)
            parts.append(part)
        for number, part in enumerate(parts[:-1], 1):
            if part.size < self.min_part_size:
                raise S3Error('EntityTooSmall', ProposedSize=part.size, PartNumber=number,
                              MinSizeAllowed=self.min_part_size)
        return parts

    def whole_etag(self, parts, sse):
        if 'opaque-etag' in self.quirks or (sse or '').startswith('aws:kms'):
            return '%s-%d' % (os.urandom(16).hex(), len(parts))
        return multipart_etag([part.etag for part in parts])

    def whole_checksum(self, exchange, upload, parts):
        """Return the checksum attributes of the whole; BadDigest if the client has another."""
        said = exchange.headers.get('x-amz-checksum-crc32')
        said_type = exchange.headers.get('x-amz-checksum-type')
        if upload.checksum_type is None:
            if said is not None or said_type is not None:
                raise S3Error('InvalidRequest', 'The upload was created without a checksum'
                                                ' algorithm')
            return {}
        if said_type not in (None, upload.checksum_type):
            raise S3Error('InvalidRequest', 'The upload was created using the %s checksum mode'
                          % upload.checksum_type)
        if upload.checksum_type == 'FULL_OBJECT':
            crc = 0
            for part in parts:
                crc = crc32_combine(crc, part.crc32, part.size)
            computed = base64_crc32(crc)
        else:
            crcs = b''.join(struct.pack('>I', part.crc32) for part in parts)
            computed = '%s-%d' % (base64_crc32(zlib.crc32(crcs)), len(parts))
        if said is not None and said not in (computed, computed.partition('-')[0]):
            raise S3Error('BadDigest', 'The CRC32 you specified did not match the calculated'
                                       ' checksum.')
        return {'crc32': computed, 'checksum_type': upload.checksum_type}


def etag_of(body, sse):
    """Return the ETag of a body; under KMS it says nothing about the data."""
    return os.urandom(16).hex() if (sse or '').startswith('aws:kms') else body.md5


def multipart_etag(etags):
    return '%s-%d' % (md5(b''.join(map(bytes.fromhex, etags))).hexdigest(), len(etags))


def walk(keys, prefix, delimiter, after):
    """Yield (key, False), or (common prefix, True), of sorted keys behind *after*."""
    index = max(bisect.bisect_left(keys, prefix), bisect.bisect_right(keys, after) if after else 0)
    while index < len(keys) and keys[index].startswith(prefix):
        key = keys[index]
        cut = key.find(delimiter, len(prefix)) if delimiter else -1
        if cut < 0:
            yield key, False
            index += 1
        else:
            common = key[:cut + len(delimiter)]
            yield common, True
            index = bisect.bisect_left(keys, common + '\U0010ffff', index)


def listing_entry(entry, key):
    """Return the Contents element of an object whose key is XML already."""
    checksum = '' if entry.crc32 is None else (
        '<ChecksumAlgorithm>CRC32</ChecksumAlgorithm><ChecksumType>%s</ChecksumType>'
        % entry.checksum_type)
    return Markup(
        '<Contents><Key>%s</Key><LastModified>%s</LastModified><ETag>&quot;%s&quot;</ETag>%s'
        '<Size>%d</Size><StorageClass>%s</StorageClass></Contents>'
        % (key, listing_date(int(entry.modified)), entry.etag, checksum, len(entry.data),
           entry.storage_class))


def version_entry(entry, key, latest):
    """Return the element of a version whose key is XML already."""
    about = '' if entry.marker else (
        '<ETag>&quot;%s&quot;</ETag><Size>%d</Size><StorageClass>%s</StorageClass>'
        % (entry.etag, len(entry.data), entry.storage_class))
    return tag('DeleteMarker' if entry.marker else 'Version', Markup(
        '<Key>%s</Key><VersionId>%s</VersionId><IsLatest>%s</IsLatest>'
        '<LastModified>%s</LastModified>%s' % (
            key, entry.version_id, 'true' if latest else 'false',
            listing_date(int(entry.modified)), about)), OWNER)


def byte_range(header, size):
    """Return (start, end) of a Range header; None where it says nothing, as S3 ignores junk."""
    match = re.match(r'bytes=(\d*)-(\d*)$', header or '')
    if match is None or not any(match.groups()):
        return None
    first, last = match.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return None
    if start >= size or start >= end:
        raise S3Error('InvalidRange', ActualObjectSize=size, RangeRequested=header)
    return start, end


def part_range(found, number, reply):
    """Return (start, end) of a part, and add to the reply how many there are."""
    sizes = found.parts or [found.size]
    if not number.isdigit() or not 1 <= int(number) <= len(sizes):
        raise S3Error('InvalidPartNumber', ActualPartCount=len(sizes))
    if found.parts:
        reply.headers['x-amz-mp-parts-count'] = str(len(sizes))
    start = sum(sizes[:int(number) - 1])
    return (start, start + sizes[int(number) - 1]) if found.size else None


def written_headers(stored):
    """Return what an answer to a write says of the object."""
    headers = {'x-amz-server-side-encryption': stored.sse,
               'x-amz-server-side-encryption-aws-kms-key-id': stored.sse_kms_key_id}
    if stored.parts is None:
        headers.update({'x-amz-checksum-crc32': stored.crc32,
                        'x-amz-checksum-type': stored.checksum_type})
    return {name: value for name, value in headers.items() if value}


def object_headers(found):
    """Return the headers by which GetObject and HeadObject describe an object."""
    headers = dict(found.metadata)
    headers.update({
        'ETag': '"%s"' % found.etag, 'Last-Modified': http_date(found.modified),
        'Accept-Ranges': 'bytes', 'x-amz-server-side-encryption': found.sse,
        'x-amz-server-side-encryption-aws-kms-key-id': found.sse_kms_key_id,
        'x-amz-object-lock-legal-hold': found.legal_hold})
    if found.storage_class != 'STANDARD':
        headers['x-amz-storage-class'] = found.storage_class
    if found.restore == 'ongoing':
        headers['x-amz-restore'] = 'ongoing-request="true"'
    elif found.restore is not None:
        headers['x-amz-restore'] = 'ongoing-request="false", expiry-date="%s"' % (
            http_date(found.restore))
    if found.lock_mode:
        headers['x-amz-object-lock-mode'] = found.lock_mode
        headers['x-amz-object-lock-retain-until-date'] = listing_date(int(found.lock_until))
    return {name: value for name, value in headers.items() if value is not None}


# --- Faults ------------------------------------------------------------------
#
# A fault strikes the requests of one operation: the first *skip* of them pass,
# the next *times* don't.  Where it has a *when*, that is the point that the
# request has reached:
#
#     start   the head has come, nothing of the body was read
#     body    half of the body was read
#     reply   all of it was read, nothing done
#     done    the work is done, nothing answered
#     answer  (of a stall) *bytes* bytes of the answer's body were sent

FAULTS = {
    # In place of the work, or after it; body is raw, read says whether the request's is read:
    'status': dict(status=503, code='SlowDown', message=None, headers={}, body=None, read=True,
                   done=False),
    # refuse answers while the body is still coming; drain reads it afterwards.
    'refuse': dict(status=403, code='AccessDenied', message=None, headers={}, body=None,
                   read=False, drain=False),
    'redirect': dict(status=307, location=None, region=None),
    'skew': dict(),
    'raw': dict(data=b''),
    # The connection ends, with FIN or RST, or stands still:
    'hangup': dict(when='reply'),
    'reset': dict(when='reply'),
    'stall': dict(when='answer', bytes=0),
    # The answer is not what it should be.  done=False: the work isn't done, and the
    # document is an error.  blanks come behind the XML declaration, or bare before it:
    'error200': dict(code='InternalError', done=False),
    'blanks': dict(count=3, pause=0, chunked=True, bare=False, code=None, done=True),
    'body': dict(body=b''),
    'cut': dict(bytes=0, reset=False),
    'short': dict(n=1),
    'long': dict(n=1),
    # The data or the range is another.  flip strikes the body of a request that has
    # one, else the answer's; Content-Range tells of a wrong range, unless it is to lie:
    'flip': dict(at=0),
    'replace': dict(data=b''),
    'ignore-range': dict(),
    'wrong-range': dict(by=1, lie=False),
}


class Fault:
    """What goes wrong, where, and how often; its options are its attributes."""

    def __init__(self, operation, kind, times=1, skip=0, where=None, **options):
        unknown = set(options) - set(FAULTS[kind])
        if unknown:
            raise TypeError('%s has no option %s' % (kind, ', '.join(unknown)))
        if operation not in {entry[3] for entry in OPERATIONS} | {'*'}:
            raise ValueError('S3 has no operation ' + operation)
        self.operation, self.kind, self.times, self.skip = operation, kind, times, skip
        self.where = where                      # further condition, a function of the Exchange
        self.hits = 0
        self.event = threading.Event()       # set when a request is struck
        self.release = threading.Event()                # set it to end a stall
        self.when = None
        for name, value in dict(FAULTS[kind], **options).items():
            setattr(self, name, value)

    def strikes(self, exchange):
        if self.operation not in ('*', exchange.operation) or self.times == 0:
            return False
        if self.where is not None and not self.where(exchange):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        self.hits += 1
        return True

    def error(self):
        return S3Error(self.code, self.message, self.status)


class HangUp(Exception):
    """The connection ends here, without a further byte."""

    def __init__(self, reset=False):
        Exception.__init__(self)
        self.reset = reset


def redirection(fault):
    """Return the Reply of a redirect: S3 names a region, a URL, or both."""
    code = 'PermanentRedirect' if fault.status in (301, 308) else 'TemporaryRedirect'
    headers = {'x-amz-bucket-region': fault.region, 'Location': fault.location}
    body = DECLARATION + tag('Error', tag('Code', code),
                             tag('Message', 'The bucket must be addressed elsewhere.'))
    return Reply(fault.status, {name: value for name, value in headers.items() if value},
                 body.encode())


def alter(reply, fault):
    """Make the answer to a request what its fault wants it to be."""
    kind = fault.kind
    if kind == 'cut':
        reply.limit, reply.reset = fault.bytes, fault.reset
    elif kind == 'short':
        reply.body = reply.body[:max(0, len(reply.body) - fault.n)]
    elif kind == 'long':
        reply.body = bytes(reply.body) + b'+' * fault.n
    elif kind == 'flip':
        reply.body = flipped(reply.body, fault.at)
    elif kind == 'body':
        reply.status, reply.body = 200, fault.body
    elif kind == 'blanks':
        reply.blanks = fault
    elif kind == 'stall' and fault.when == 'answer':
        reply.stall = fault
    elif kind == 'error200':
        reply.status = 200


def flipped(data, at):
    """Return data with one bit changed, if they reach that far."""
    changed = bytearray(bytes(data))
    if at < len(changed):
        changed[at] ^= 1
    return bytes(changed)


# --- HTTP --------------------------------------------------------------------

MAX_LINE = 64 << 10
BLOCK_SIZE = 1 << 20
LINGER = struct.pack('ii', 1, 0)        # SO_LINGER with no time: close() sends RST


class Connection:
    """One client's connection, served by a thread of its own."""

    def __init__(self, server, accepted):
        self.server = server
        self.socket = accepted
        self.rfile = None
        self.idle = True            # answered all it was asked
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        try:
            self.open()
            while self.serve_request():
                pass
            self.say_goodbye()
        except HangUp as hangup:
            if hangup.reset:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
        except OSError:
            pass                    # the client went away, or stop() ended it
        except Exception:
            self.server.violations.append('the server failed: ' + traceback.format_exc())
        finally:
            self.close()
            self.server.forget(self)

    def open(self):
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.server.context is not None:
            # The handshake comes second, so that shut_down() finds the socket.
            self.socket = self.server.context.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False)
            self.socket.do_handshake()
        self.rfile = self.socket.makefile('rb', 64 << 10)

    def say_goodbye(self):
        """End TLS in good order, without waiting for the client to agree."""
        if self.server.secure:
            self.socket.settimeout(0)
            self.socket.unwrap()

    def close(self):
        if self.rfile is not None:
            self.rfile.close()
        self.socket.close()

    def shut_down(self):
        """End the connection from another thread; its own then closes it."""
        try:
            # Not SSLSocket's: that one takes the TLS state away from its reader.
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)
        except OSError:
            pass

    # One request.

    def serve_request(self):
        """Answer one request; return whether there may be another."""
        exchange = self.read_head()
        if exchange is None:
            return False
        fault = self.server.take_fault(exchange)
        try:
            reply = self.answer(exchange, fault)
            reply.close = (reply.close or 'close' in self.server.quirks
                           or exchange.headers.get('connection', '').lower() == 'close')
            self.send(exchange, reply)
        finally:
            self.server.record(exchange)
        if fault is not None and fault.kind == 'refuse' and fault.drain:
            socket.socket.shutdown(self.socket, socket.SHUT_WR)
            while self.rfile.read1(BLOCK_SIZE):
                pass
        return not reply.close

    def read_line(self):
        line = self.rfile.readline(MAX_LINE)
        return line[:-1].rstrip(b'\r').decode('latin-1') if line.endswith(b'\n') else None

    def read_head(self):
        """Return the Exchange that the next request begins, None where there is none."""
        line = self.read_line()
        self.idle = False
        words = (line or '').split(' ')
        if len(words) != 3:
            return None
        headers = []
        while True:
            line = self.read_line()
            if not line:
                break
            name, _, value = line.partition(':')
            headers.append((name, value.strip(' \t')))
        if line is None:
            return None
        # A proxy is asked with the whole URL.
        target = re.sub('^https?://[^/]*', '', words[1])
        exchange = Exchange(words[0], target, headers)
        self.server.resolve(exchange)
        return exchange

    def answer(self, exchange, fault):
        """Return the Reply to a request: S3's, or its fault's."""
        server = self.server
        server.authenticate(exchange)
        self.reach('start', exchange, fault)
        early = self.early_reply(exchange, fault)
        if early is not None:
            return early
        exchange.body = self.read_body(exchange, fault)
        self.reach('reply', exchange, fault)
        try:
            reply = self.staged(exchange, fault)
            if reply is None:
                reply = self.work(exchange, fault)
        except S3Error as error:
            reply = server.error_reply(exchange, error)
        self.reach('done', exchange, fault)
        if fault is not None and (fault.kind != 'flip' or not exchange.tampered):
            alter(reply, fault)
        return reply

    def early_reply(self, exchange, fault):
        """Return the Reply to a request whose body is not read; the connection ends with it."""
        headers, length = exchange.headers, exchange.headers.get('content-length')
        if fault is not None and not getattr(fault, 'read', True):
            reply = self.staged(exchange, fault)
        elif 'transfer-encoding' in headers:
            reply = self.server.error_reply(exchange, S3Error('NotImplemented'))
        elif length is None and exchange.writes:
            reply = self.server.error_reply(exchange, S3Error('MissingContentLength'))
        elif length is not None and (not length.isdigit() or int(length) > MAX_PUT_SIZE):
            reply = self.server.error_reply(exchange, S3Error('EntityTooLarge'))
        else:
            return None
        reply.close = True
        return reply

    def staged(self, exchange, fault):
        """Return the Reply that a fault gives without any work, or None."""
        if fault is None:
            return None
        if fault.kind in ('status', 'refuse'):
            if getattr(fault, 'done', False):
                self.work(exchange, fault)
            reply = self.server.error_reply(exchange, fault.error())
            reply.headers.update(fault.headers)
            reply.body = reply.body if fault.body is None else fault.body
            return reply
        if fault.kind == 'redirect':
            return redirection(fault)
        if fault.kind == 'skew':
            raise self.server.too_skewed(exchange.headers.get('x-amz-date', ''))
        if fault.kind in ('error200', 'blanks') and not fault.done:
            raise S3Error(fault.code or 'InternalError', status=200)
        if fault.kind == 'raw':
            reply = Reply()
            reply.raw = fault.data
            return reply
        return None

    def work(self, exchange, fault):
        kind = None if fault is None else fault.kind
        if kind == 'replace':
            self.server.put(exchange.key, fault.data, bucket=exchange.bucket)
        elif kind == 'ignore-range':
            exchange.headers.pop('range', None)
        elif kind == 'wrong-range':
            exchange.shift = fault
        for operation, function in self.server.hooks:
            if operation in ('*', exchange.operation):
                function(self.server, exchange)
        reply = self.server.perform(exchange)
        if kind in ('error200', 'blanks') and fault.code:
            raise S3Error(fault.code, status=200)
        return reply

    def read_body(self, exchange, fault):
        """Return the request's body and its digests, taken while the data are in the cache."""
        if exchange.headers.get('expect', '').lower() == '100-continue':
            self.socket.sendall(b'HTTP/1.1 100 Continue\r\n\r\n')
        length = int(exchange.headers.get('content-length', 0))
        if not length:
            self.reach('body', exchange, fault)
            return NO_BODY._replace(md5=md5().hexdigest())
        discard = self.server.discard and exchange.writes
        signed = exchange.headers.get('x-amz-content-sha256') != UNSIGNED
        sha = sha256() if signed else None
        whole = md5() if not discard or 'content-md5' in exchange.headers else None
        crc, blocks = 0, []
        while exchange.received < length:
            if exchange.received == length // 2:
                self.reach('body', exchange, fault)
            end = length // 2 if exchange.received < length // 2 else length
            block = self.rfile.read(min(BLOCK_SIZE, end - exchange.received))
            if not block:
                raise HangUp()          # the client broke off
            if fault is not None and fault.kind == 'flip' and (
                    0 <= fault.at - exchange.received < len(block)):
                block = flipped(block, fault.at - exchange.received)
                exchange.tampered = True
            exchange.received += len(block)
            crc = zlib.crc32(block, crc)
            if sha is not None:
                sha.update(block)
            if whole is not None:
                whole.update(block)
            if not discard:
                blocks.append(block)
        data = Zeros(length) if discard else blocks[0] if len(blocks) == 1 else b''.join(blocks)
        sha = sha.hexdigest() if signed else None
        # Without MD5 the ETag is made up, of what there is.
        return Body(length, data, sha, whole.hexdigest() if whole else (sha or '%032x' % crc)[:32],
                    crc)

    # Faults that end the connection, or hold it up.

    def reach(self, when, exchange, fault):
        """Let a hangup, a reset or a stall happen where it is meant to."""
        if fault is None or fault.when != when:
            return
        if fault.kind == 'stall':
            self.hold(fault)
        else:
            raise HangUp(reset=fault.kind == 'reset')

    def hold(self, fault):
        """Wait until the fault is released; HangUp if the client or the server ends first."""
        fault.event.set()
        while not fault.release.wait(0.02):
            if self.server.stopping.is_set() or self.client_gone():
                raise HangUp()

    def client_gone(self):
        readable, _, _ = select.select([self.socket], [], [], 0)
        # Not SSLSocket's recv, which takes no flags.
        return bool(readable) and not socket.socket.recv(self.socket, 1, socket.MSG_PEEK)

    # The answer.

    def head(self, exchange, reply, bare=False):
        """Return the head of the answer; *bare* leaves the length to the sender."""
        early = ['HTTP/1.1 102 Processing', '', 'HTTP/1.1 103 Early Hints', 'Link: </>', '']
        lines = early if 'informational' in self.server.quirks else []
        lines += ['HTTP/1.1 %d %s' % (reply.status, http.client.responses.get(reply.status, ''))]
        headers = dict(self.server.standard_headers(), **reply.headers)
        silent = reply.status in (204, 304) or (exchange.method == 'HEAD' and reply.status >= 400)
        if not bare and not silent:
            headers['Content-Length'] = len(reply.body)
        if reply.close:
            headers['Connection'] = 'close'
        lines += ['%s: %s' % item for item in headers.items()]
        return ('\r\n'.join(lines) + '\r\n\r\n').encode('latin-1')

    def send(self, exchange, reply):
        exchange.status = reply.status
        if reply.raw is not None:
            reply.close = True
            self.finish(exchange)
            self.socket.sendall(reply.raw)
        elif reply.blanks is not None:
            self.send_blanks(exchange, reply)
        else:
            self.send_body(exchange, reply)

    def finish(self, exchange):
        """Log the exchange before its last byte, after which the client may look at the log."""
        self.server.record(exchange)
        self.idle = True

    def send_body(self, exchange, reply):
        body = b'' if exchange.method == 'HEAD' or reply.status in (204, 304) else reply.body
        limit = len(body) if reply.limit is None else min(reply.limit, len(body))
        stall_at = min(reply.stall.bytes, limit) if reply.stall else None
        pending = self.head(exchange, reply)
        while True:
            if exchange.sent == stall_at:
                self.socket.sendall(pending)
                pending, stall_at = b'', None
                self.hold(reply.stall)
            end = min(exchange.sent + BLOCK_SIZE, limit)
            if stall_at is not None:
                end = min(end, stall_at)
            piece = body[exchange.sent:end]
            exchange.sent = end
            if end == limit and stall_at is None:
                self.finish(exchange)
                self.socket.sendall(pending + piece if pending else piece)
                break
            self.socket.sendall(pending + piece if pending else piece)
            pending = b''
        if reply.limit is not None:
            raise HangUp(reply.reset)

    def send_blanks(self, exchange, reply):
        """Send the declaration, blanks, and the rest, as S3 does while it completes an upload."""
        fault, first, rest = reply.blanks, b'', bytes(reply.body)
        declaration = DECLARATION.encode()
        if not fault.bare and rest.startswith(declaration):
            first, rest = declaration, rest[len(declaration):]
        if fault.chunked:
            reply.headers['Transfer-Encoding'] = 'chunked'
        else:
            reply.close = True
        frame = chunk if fault.chunked else bytes
        self.socket.sendall(self.head(exchange, reply, bare=True) + frame(first))
        for _ in range(fault.count):
            self.socket.sendall(frame(b' '))
            if fault.pause:
                self.server.stopping.wait(fault.pause)
        exchange.sent = len(first) + fault.count + len(rest)
        self.finish(exchange)
        self.socket.sendall(frame(rest) + (b'0\r\n\r\n' if fault.chunked else b''))


def chunk(data):
    return b'%x\r\n%s\r\n' % (len(data), data) if data else b''


# --- The server --------------------------------------------------------------

# A finished or broken-off exchange in the server's log.  status is 0 where no
# answer was given, length and sent count the bytes of the two bodies.
Request = collections.namedtuple(
    'Request', 'operation bucket key query headers status length sent user')


class S3Server(Service):
    """An S3 server at a port of its own; use it in a with statement.

    *certfile*, a PEM with key and certificate, makes it https.  *discard* keeps
    only the length of what is stored.  *buckets* names the buckets to begin
    with, if not the one of *bucket*.

    Tests look at objects, uploads, log, violations (what a correct client never
    does) and connections, and may change objects, users, offset (of the clock),
    region, quirks, lock_enabled and acl_enabled at any time.
    """

    kind = Connection
    host = '127.0.0.1'

    def __init__(self, bucket='bucket', region='us-east-1', min_part_size=5 << 20, max_parts=10000,
                 page_size=1000, discard=False, certfile=None, quirks=(), port=0, buckets=None):
        Service.__init__(self, bucket, region, min_part_size, max_parts, page_size, discard,
                         quirks, buckets)
        self.port = port
        self.certfile, self.context = certfile, None
        if certfile is not None:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(certfile)
        self.log = []
        self.faults = []
        self.hooks = []                 # (operation, function)
        self.report = None              # called with each Request that is logged
        self.connections = 0
        self.live = []                  # Connections
        self.stopping = threading.Event()
        self.holder = self.listener = self.acceptor = None
        self.request_ids = itertools.count(1)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.close()

    def bound(self):
        """Return a new socket at the server's port."""
        bound = socket.socket()
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((self.host, self.port))
        return bound

    def start(self):
        """Listen; after a stop(), at the same port and with the same objects."""
        self.stopping.clear()
        if self.holder is None:         # so that no other server gets the port of one that is down
            self.holder = self.bound()
            self.port = self.holder.getsockname()[1]
        self.listener = self.bound()
        self.listener.listen(128)
        self.acceptor = threading.Thread(target=self.accept, daemon=True)
        self.acceptor.start()
        return self

    def stop(self):
        """End every connection, whatever it is doing, and listen no more."""
        if self.listener is None:
            return
        self.stopping.set()
        socket.create_connection((self.host, self.port)).close()    # wakes accept()
        self.acceptor.join()
        self.listener.close()
        self.listener = None
        for connection in list(self.live):
            connection.shut_down()
            connection.thread.join(5)

    def close(self):
        """Stop for good."""
        self.stop()
        if self.holder is not None:
            self.holder.close()
            self.holder = None

    def accept(self):
        while True:
            accepted, _ = self.listener.accept()
            if self.stopping.is_set():
                accepted.close()
                return
            connection = self.kind(self, accepted)
            with self.lock:
                self.connections += 1
                self.live.append(connection)
            connection.thread.start()

    def forget(self, connection):
        with self.lock:
            self.live.remove(connection)

    @property
    def open_connections(self):
        return len(self.live)

    def close_idle(self):
        """Close the connections that wait for a next request, as servers do after a while."""
        for connection in list(self.live):
            if connection.idle:
                connection.shut_down()

    @property
    def secure(self):
        return self.context is not None

    @property
    def url(self):
        return '%s://%s:%d' % ('https' if self.secure else 'http', self.host, self.port)

    def config(self, **more):
        """Return the text of a configuration file for this server."""
        settings = collections.OrderedDict((
            ('endpoint', self.url), ('region', self.region), ('bucket_name', self.bucket),
            ('access_key_id', self.access_key), ('secret_access_key', self.secret_key)))
        if self.secure:
            settings['ca_bundle'] = self.certfile
        settings.update(more)
        return ''.join('%s %s\n' % item for item in settings.items())

    # The log, faults and hooks.

    def record(self, exchange):
        """Log an exchange, once."""
        with self.lock:
            if exchange.recorded:
                return
            exchange.recorded = True
            request = Request(exchange.operation, exchange.bucket, exchange.key, exchange.query,
                              exchange.headers, exchange.status, exchange.received, exchange.sent,
                              exchange.access_key)
            self.log.append(request)
        if self.report is not None:
            self.report(request)

    def operations(self):
        return [request.operation for request in self.log]

    def fault(self, operation, kind, times=1, skip=0, where=None, **options):
        """Let something go wrong, see FAULTS; times=None for ever.

        *where*, a function of the Exchange (key, query, headers), narrows it.
        """
        fault = Fault(operation, kind, times, skip, where, **options)
        with self.lock:
            self.faults.append(fault)
        return fault

    def clear_faults(self):
        with self.lock:
            del self.faults[:]

    def take_fault(self, exchange):
        with self.lock:
            for fault in self.faults:
                if fault.strikes(exchange):
                    if fault.kind != 'stall':       # that one, when it stands still
                        fault.event.set()
                    return fault
        return None

    def on(self, operation, function):
        """Call function(server, exchange) before the work of each such request.

        An S3Error that it raises is the answer.
        """
        self.hooks.append((operation, function))

    # What an exchange is about, and what every answer says.

    def resolve(self, exchange):
        """Set bucket, key, query and operation from target and Host."""
        path, _, query = exchange.target.partition('?')
        try:
            path = uri_decode(path).decode('utf-8')
            exchange.query = {name.decode('utf-8'): value.decode('utf-8')
                              for name, value in split_query(query)}
        except UnicodeDecodeError:
            exchange.denied = S3Error('InvalidURI')
            return
        bucket = self.bucket if 'object-for-bucket' in self.quirks else (
            self.virtual_bucket(exchange.headers.get('host', '')))
        if bucket is None:
            bucket, _, key = path[1:].partition('/')
        else:
            key = path[1:]
        exchange.bucket, exchange.key = bucket or None, key or None
        exchange.operation = operation_name(exchange.method, bucket, key, exchange.query)
        if len(key.encode('utf-8')) > MAX_KEY_SIZE:
            exchange.denied = S3Error('KeyTooLongError', MaxSizeAllowed=MAX_KEY_SIZE)

    def virtual_bucket(self, host):
        """Return the bucket that a virtual-hosted style request names, or None.

        A bucket that isn't there is recognised by what follows its name:
        localhost, or a name like AWS's endpoints.
        """
        host = host.rpartition(':')[0] if re.search(r':\d+$', host) else host
        for name in self.buckets:
            if host.startswith(name + '.'):
                return name
        match = re.match(r'([a-z0-9.-]+?)\.(localhost$|s3[.-])', host)
        return match.group(1) if match else None

    def standard_headers(self):
        number = next(self.request_ids)
        headers = {'Server': 'test_s3', 'x-amz-request-id': 'REQUEST%09d' % number,
                   'x-amz-id-2': 'host/%d' % number}
        if 'no-date' not in self.quirks:
            headers['Date'] = http_date(self.now() + 7200 * ('wrong-date' in self.quirks))
        return headers

    def error_reply(self, exchange, error):
        """Return the Reply in S3's error format."""
        request_id = 'REQUEST%09d' % next(self.request_ids)
        elements = [tag('Code', error.code)]
        if 'no-message' not in self.quirks:
            elements.append(tag('Message', error.message))
        elements += [tag(name, value) for name, value in sorted(error.details.items())]
        elements += [tag('RequestId', request_id), tag('HostId', 'host')]
        reply = Reply(error.status, {'x-amz-request-id': request_id},
                      (DECLARATION + tag('Error', *elements)).encode('utf-8', 'surrogateescape'))
        # An answer to HEAD has no body to say it in.
        if exchange.operation == 'HeadBucket' or (
                exchange.method == 'HEAD' and error.code == 'AuthorizationHeaderMalformed'):
            reply.headers['x-amz-bucket-region'] = self.region
        return reply


# --- Serving by hand ---------------------------------------------------------

def serve(port=0):
    """Serve until Ctrl-C: a configuration on standard output, requests on standard error."""
    def report(request):
        sys.stderr.write('%-24s %s %s\n' % (request.operation, request.status or 'broken off',
                                            ascii(request.key or '')))
        sys.stderr.flush()

    with S3Server(port=port) as server:
        server.report = report
        print('# Save these lines as FILE, chmod 600 FILE, then: s3dump.py -f FILE init')
        print(server.config(), end='', flush=True)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            pass


# --- Credential services -----------------------------------------------------

METHODS = {'imds-token': 'PUT', 'imds': 'GET', 'container': 'GET', 'sts': 'POST'}
IMDS_ROLES = '/latest/meta-data/iam/security-credentials/'
STS_NAMESPACE = 'https://sts.amazonaws.com/doc/2011-06-15/'
STS_NEEDED = {'Action', 'Version', 'RoleArn', 'RoleSessionName'}
STS_ACTIONS = {                 # what each must be given, and what it may be given
    'AssumeRole': (STS_NEEDED, {'DurationSeconds', 'ExternalId'}),
    'AssumeRoleWithWebIdentity': (STS_NEEDED | {'WebIdentityToken'}, {'DurationSeconds'})}

Issued = collections.namedtuple('Issued', 'access_key secret token lifetime')


def sts_reply(status, root, *contents):
    """Return the Reply of STS, which writes a line for each tag."""
    text = tag(root, *contents).replace('<' + root, '<%s xmlns="%s"' % (root, STS_NAMESPACE), 1)
    return Reply(status, {}, text.replace('><', '>\n<').encode(), 'text/xml')


def json_reply(status, fields):
    return Reply(status, {}, json.dumps(fields, indent=2).encode(), 'application/json')


def html_reply(status, headers=()):
    return Reply(status, headers, b'<html>%d</html>\n' % status, 'text/html')


class Call:
    """A request in the log; status is 0, and the body may be to come, until it is answered."""

    def __init__(self, exchange):
        self.exchange = exchange
        self.service, self.method = exchange.operation, exchange.method
        self.path, self.headers = exchange.target, exchange.headers

    status = property(lambda self: self.exchange.status)
    body = property(lambda self: self.exchange.body.data)


class CredentialServices(S3Server):
    """IMDSv2, a container's endpoint and STS at one port; sockets and faults are S3Server's.

    All hand out *credentials* in turn, the last for ever.  Tests look at log,
    of Calls in the order in which they came in, and at violations; they may
    change whatever __init__ sets at any time.
    """

    def __init__(self):
        S3Server.__init__(self, buckets=())
        self.credentials = []
        self.role = 'role'              # of IMDS; None: an instance without one
        self.role_arn = 'arn:aws:iam::123456789012:role/role'
        self.imds_tokens = {}           # token: when it expires
        self.imds_token_status = None   # 404, 405: knows only v1; 403: turned off
        self.container_path = '/v2/credentials/1a2b3c4d-0000-4000-8000-1a2b3c4d5e6f'
        self.container_token = None     # None: whatever comes
        self.web_identity_token = 'eyJ.web+identity/token.sig=='
        self.external_id = None         # None: whatever comes
        self.sts_keys = {}              # access key: (secret, token or None)

    def issue(self, access_key, secret, token, lifetime):
        """Append to the credentials; they live *lifetime* seconds, None: without an Expiration."""
        self.credentials.append(Issued(access_key, secret, token, lifetime))
        return self.credentials[-1]

    def fail(self, service, status=None, times=1, hangup=False, body=None, stall=False, skip=0,
             code=None):
        """Return the Fault that strikes the next requests of a service, unlooked at."""
        if service not in METHODS or (status, body, hangup, stall) == (None, None, False, False):
            raise ValueError('no such service, or nothing to go wrong')
        options = {'when': 'reply'}
        if not stall and not hangup:
            status = status or 200
            code = code or http.client.responses.get(status, 'Failure').replace(' ', '')
            options = {'status': status, 'code': code, 'body': body}
        return self.fault('*', 'stall' if stall else 'hangup' if hangup else 'status', times, skip,
                          lambda exchange: exchange.operation == service, **options)

    def expire_imds_tokens(self):
        self.imds_tokens = dict.fromkeys(self.imds_tokens, 0)

    # What S3Server leaves to its services.

    def resolve(self, exchange):
        path = exchange.key = exchange.target
        exchange.operation = (
            'container' if path == self.container_path else 'sts' if path == '/' else
            'imds-token' if path == '/latest/api/token' else
            'imds' if path.startswith('/latest/') else None)

    def record(self, exchange):
        with self.lock:
            if not exchange.recorded:
                exchange.recorded = True
                self.log.append(Call(exchange))

    def authenticate(self, exchange):
        self.record(exchange)           # a client may give up on a stall and look
        self.check_headers(exchange)
        # A CR or LF in a value may arrive as a folded line, or one that is no header.
        bad = [name for name, value in exchange.header_list if re.search('[\r\0]', value)
               or not re.match(r"[!#$%&'*+.^`|~\w-]+\Z", name, re.ASCII)]
        if bad or ',' in exchange.headers.get('host', ','):
            self.violation(exchange, 'bad headers, or not one Host: %r' % bad)
            exchange.denied = S3Error('BadRequest')

    def demand(self, exchange, holds, message, status=400, code='ValidationError'):
        """Refuse what no correct client sends, and note it."""
        if not holds:
            self.violation(exchange, message)
            raise S3Error(code, message, status)

    def perform(self, exchange):
        if exchange.denied is not None:
            raise exchange.denied
        self.demand(exchange, exchange.operation, 'nothing is here', 404)
        self.demand(exchange, exchange.method == METHODS[exchange.operation], 'bad method', 405)
        self.demand(exchange, 'x-forwarded-for' not in exchange.headers
                    or exchange.operation not in ('imds', 'imds-token'), 'through a proxy', 403)
        with self.lock:
            return getattr(self, exchange.operation.replace('-', '_'))(exchange)

    def error_reply(self, exchange, error):
        code, message, status = error.code, error.message, error.status
        if exchange.operation == 'sts':
            return sts_reply(status, 'ErrorResponse',
                             tag('Error', tag('Type', 'Sender' if status < 500 else 'Receiver'),
                                 tag('Code', code), tag('Message', message)),
                             tag('RequestId', 'request'))
        if exchange.operation == 'container':
            return json_reply(status, {'code': code, 'message': message})
        return html_reply(status)

    def hand_out(self, token_name, **more):
        """Return the next credentials' fields, in the names that all services share."""
        issued = self.credentials.pop(0) if len(self.credentials) > 1 else self.credentials[0]
        fields = {'AccessKeyId': issued.access_key, 'SecretAccessKey': issued.secret,
                  token_name: issued.token}
        if issued.lifetime is not None:
            fields['Expiration'] = iso_date(self.now() + issued.lifetime)
        return dict(fields, **more)

    # Each service takes an Exchange, and returns a Reply or raises an S3Error.

    def imds_token(self, exchange):
        ttl = exchange.headers.get('x-aws-ec2-metadata-token-ttl-seconds', '')
        if self.imds_token_status is not None:
            raise S3Error('Refused', status=self.imds_token_status)
        self.demand(exchange, re.match(r'[0-9]{1,5}\Z', ttl) and 1 <= int(ttl) <= 21600,
                    'a TTL of %r' % ttl)
        token = base64.urlsafe_b64encode(os.urandom(40))
        self.imds_tokens[token.decode()] = self.now() + int(ttl)
        return Reply(200, {'x-aws-ec2-metadata-token-ttl-seconds': ttl}, token, 'text/plain')

    def imds(self, exchange):
        token = exchange.headers.get('x-aws-ec2-metadata-token')
        path = urllib.parse.unquote(exchange.target)
        if self.imds_token_status == 403:
            raise S3Error('Forbidden', status=403)
        if token is not None or self.imds_token_status is None:
            self.demand(exchange, token in self.imds_tokens, 'the token %r' % token, 401)
            if self.imds_tokens[token] <= self.now():
                raise S3Error('Unauthorized', status=401)
        if self.role is None or path not in (IMDS_ROLES, IMDS_ROLES + self.role):
            raise S3Error('NotFound', status=404)
        if path == IMDS_ROLES:
            return Reply(200, {}, self.role.encode(), 'text/plain')
        return json_reply(200, self.hand_out('Token', Code='Success', Type='AWS-HMAC',
                                             LastUpdated=iso_date(self.now())))

    def container(self, exchange):
        expected, given = self.container_token, exchange.headers.get('authorization')
        if expected is not None:
            # Such a token, sent as it is, has become headers of its own.
            self.demand(exchange, given is None or not re.search('[\r\n]', expected.strip()),
                        'a token with CR or LF was sent')
            self.demand(exchange, given is not None, 'no Authorization', 401)
            if given != expected:
                raise S3Error('Unauthorized', status=401)
        return json_reply(200, self.hand_out('Token', RoleArn=self.role_arn))

    def sts(self, exchange):
        fields = self.sts_parameters(exchange)
        action, trusted = fields['Action'], fields['RoleArn'] == self.role_arn
        if action == 'AssumeRole':
            self.verify_sts(exchange)
            trusted = trusted and self.external_id in (None, fields.get('ExternalId'))
        else:
            self.demand(exchange, not {'authorization', 'x-amz-security-token'}.intersection(
                exchange.headers), 'signed, which it should not be')
            if fields['WebIdentityToken'] != self.web_identity_token:
                raise S3Error('InvalidIdentityToken')
        if not trusted:
            raise S3Error('AccessDenied', 'Not authorized to perform: sts:' + action)
        user = tag('AssumedRoleUser', tag('AssumedRoleId', 'ID:' + fields['RoleSessionName']))
        credentials = [tag(*item) for item in self.hand_out('SessionToken').items()]
        return sts_reply(200, action + 'Response',
                         tag(action + 'Result', user, tag('Credentials', *credentials)),
                         tag('ResponseMetadata', tag('RequestId', 'request')))

    def sts_parameters(self, exchange):
        """Return the fields of the form, which are as they should be."""
        kind, pairs = exchange.headers.get('content-type', ''), []
        try:
            pairs = urllib.parse.parse_qsl(exchange.body.data.decode('ascii'), True, True)
        except ValueError:
            kind = 'malformed'
        self.demand(exchange, re.match('application/x-www-form-urlencoded *(;|$)', kind),
                    'a form %r' % kind)
        fields = dict(pairs)
        action = fields.get('Action')
        self.demand(exchange, action in STS_ACTIONS and fields.get('Version') == '2011-06-15',
                    'no action %s of this version' % action, code='InvalidAction')
        needed, possible = STS_ACTIONS[action]
        self.demand(exchange, needed <= set(fields) <= needed | possible
                    and len(fields) == len(pairs), 'fields missing, unknown or repeated')
        for name, pattern in (('RoleArn', r'arn:[\w-]+:iam::\d{12}:role/\S+'),
                              ('RoleSessionName', r'[\w+=,.@-]{2,64}'),
                              ('DurationSeconds', r'\d{3,5}')):
            self.demand(exchange, re.match(pattern + r'\Z', fields.get(name, '900'), re.ASCII),
                        'a malformed ' + name)
        self.demand(exchange, 900 <= int(fields.get('DurationSeconds', '900')) <= 43200,
                    'a malformed DurationSeconds')
        return fields

    def verify_sts(self, exchange):
        """Hold a request to Signature Version 4, and to the keys that STS knows."""
        def demand(holds, message, code='SignatureDoesNotMatch'):
            self.demand(exchange, holds, message, 403, code)

        headers, digest = exchange.headers, exchange.body.sha256
        try:
            claim = read_claim(exchange.target, exchange.header_list)
        except ValueError:
            claim = None
        demand(claim, 'not signed, or not so', 'MissingAuthenticationToken')
        demand(claim.service == 'sts' and re.match(r'[a-z0-9-]+\Z', claim.region), 'a wrong scope')
        if claim.access_key not in self.sts_keys:
            raise S3Error('InvalidClientTokenId', status=403)
        secret, token = self.sts_keys[claim.access_key]
        signed_at = timegm(time.strptime(claim.timestamp, '%Y%m%dT%H%M%SZ'))
        if abs(self.now() - signed_at) > MAX_SKEW:
            raise S3Error('SignatureDoesNotMatch', 'Signature expired: ' + claim.timestamp, 403)
        expected = expected_signature(exchange.method, exchange.target, exchange.header_list,
                                      digest, secret)
        demand(hmac.compare_digest(expected.encode(), claim.signature.encode('latin-1')),
               'signature does not match')
        demand(headers.get('x-amz-content-sha256', digest) == digest, 'payload hash does not match')
        unsigned = [name for name in headers if name not in claim.signed
                    and (name == 'host' or name.startswith('x-amz-'))]
        demand(not unsigned, 'unsigned headers: ' + ', '.join(unsigned))
        demand(headers.get('x-amz-security-token') == token, 'not the token of the key',
               'InvalidClientTokenId')


# --- A proxy -----------------------------------------------------------------

LEAK = b'\nproxy-authorization:'
FORWARDED = b'Connection: close\r\nX-Forwarded-For: 127.0.0.1\r\n'
UNFORWARDED = re.compile(br'\r\n(?:proxy-[a-z]+|connection):[^\r\n]*', re.IGNORECASE)


def shut(sock, how):
    try:
        sock.shutdown(how)
    except OSError:
        pass                            # the other end was faster


class Proxied(Connection):
    """A connection to a Proxy, for one tunnel or one request."""

    origin = None

    def serve_request(self):
        data = b''
        while b'\r\n\r\n' not in data:
            more = self.socket.recv(BLOCK_SIZE)
            if not more:
                return False
            data += more
        head, _, behind = data.partition(b'\r\n\r\n')
        first, *lines = head.decode('latin-1').split('\r\n')
        method, target, version = (first + '  ').split(' ', 2)
        exchange = Exchange(method, target, [
            (name, value.strip()) for name, _, value in (line.partition(':') for line in lines)])
        try:
            path = self.server.admit(exchange)
            self.origin = self.server.connect(exchange.key)
        except S3Error as error:
            self.refuse(exchange, error)
            return False
        with self.origin:
            if self.server.stopping.is_set():
                return False            # shut_down() came before there was an origin
            if method == 'CONNECT':
                self.socket.sendall(b'HTTP/1.1 200 Connection established\r\n\r\n')
            else:
                lines = UNFORWARDED.sub(b'', head).split(b'\r\n')
                lines[0] = ' '.join((method, path, version.strip())).encode('latin-1')
                behind = b'\r\n'.join(lines + [FORWARDED, behind])
            self.tunnel(exchange.key, behind)
        return False

    def refuse(self, exchange, error):
        """Answer, and close after the client has: earlier might reset the answer."""
        reply = html_reply(error.status, error.details)
        reply.close = True
        self.send(exchange, reply)
        shut(self.socket, socket.SHUT_WR)
        while self.socket.recv(BLOCK_SIZE):
            pass

    def tunnel(self, name, data):
        """Pass on *data* and what either side sends; look for logins in what the client does."""
        self.origin.sendall(data)
        ways = {self.socket: self.origin, self.origin: self.socket}
        while ways:
            for source in select.select(list(ways), [], [])[0]:
                try:
                    piece = source.recv(BLOCK_SIZE)
                    if source is self.socket:
                        data = data[1 - len(LEAK):] + piece.lower()
                        if LEAK in data:
                            self.server.leaked.append(name)
                    ways[source].sendall(piece)
                except OSError:
                    piece = b''
                if not piece:
                    shut(ways.pop(source), socket.SHUT_WR)

    def shut_down(self):
        Connection.shut_down(self)
        if self.origin is not None:
            shut(self.origin, socket.SHUT_RDWR)


class Proxy(S3Server):
    """An HTTP proxy: CONNECT, and requests with a whole URL; its sockets are S3Server's.

    *resolve* tells where a 'host:port' is; what isn't there and not loopback
    is answered 502.  log is of (method, 'host:port'), refused or not; leaked
    names the origins that got Proxy-Authorization through a tunnel.
    """

    kind = Proxied

    def __init__(self, user=None, password=''):
        S3Server.__init__(self, buckets=())
        login = base64.b64encode(('%s:%s' % (user, password)).encode()).decode()
        self.login = None if user is None else 'Basic ' + login
        self.resolve = {}               # 'host:port': (host, port)
        self.refuse_status = None       # of the answer to every CONNECT
        self.leaked = []

    def record(self, exchange):
        """Nothing: admit() has."""

    def standard_headers(self):
        return {}                       # nothing of S3's

    def admit(self, exchange):
        """Return a request's path, and set its key to the origin; S3Error if it is refused."""
        connect, headers = exchange.method == 'CONNECT', exchange.headers
        match = re.match(r'([^/?#@]+:\d+)()\Z' if connect else r'http://([^/?#@]+)(/[^#]*)?\Z',
                         exchange.target)
        authority, path = match.groups() if match else (None, None)
        if match is None or headers.get('host', authority) != authority:
            self.violations.append('asked for %s with Host %s' % (
                exchange.target, headers.get('host')))
            raise S3Error('BadRequest')
        exchange.key = authority if re.search(r':\d+\Z', authority) else authority + ':80'
        self.log.append((exchange.method, exchange.key))
        if self.login not in (None, headers.get('proxy-authorization')):
            raise S3Error('Login', status=407, **{'Proxy-Authenticate': 'Basic realm="test"'})
        if connect and self.refuse_status is not None:
            raise S3Error('Refused', status=self.refuse_status)
        return path or '/'

    def connect(self, name):
        """Return a socket to the origin of this name."""
        host, _, port = name.rpartition(':')
        try:
            if name not in self.resolve and host not in ('127.0.0.1', 'localhost'):
                raise OSError('nothing but loopback')
            return socket.create_connection(self.resolve.get(name, (host, int(port))))
        except OSError:
            raise S3Error('BadGateway', status=502) from None


# --- Tests of the server -----------------------------------------------------

# Requests from AWS's guide to Signature Version 4, with the signatures it
# publishes: (name, method, target, headers, payload hash, presigned, signature).
# The headers are those that are signed, but for the Authorization.
VECTOR_CREDENTIALS = ('AKIAIOSFODNN7EXAMPLE', 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY')
VECTOR_TIMESTAMP = '20130524T000000Z'
VECTOR_REGION = 'us-east-1'
VECTOR_HOST = ('host', 'examplebucket.s3.amazonaws.com')
VECTOR_DATE = ('x-amz-date', VECTOR_TIMESTAMP)
EMPTY_HASH = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'
PUT_HASH = '44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072'

VECTORS = (
    ('GET object', 'GET', '/test.txt',
     [VECTOR_HOST, ('range', 'bytes=0-9'), ('x-amz-content-sha256', EMPTY_HASH), VECTOR_DATE],
     EMPTY_HASH, False, 'f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41'),
    ('PUT object', 'PUT', '/test%24file.text',
     [('date', 'Fri, 24 May 2013 00:00:00 GMT'), VECTOR_HOST, ('x-amz-content-sha256', PUT_HASH),
      VECTOR_DATE, ('x-amz-storage-class', 'REDUCED_REDUNDANCY')],
     PUT_HASH, False, '98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd'),
    ('GET bucket lifecycle', 'GET', '/?lifecycle',
     [VECTOR_HOST, ('x-amz-content-sha256', EMPTY_HASH), VECTOR_DATE],
     EMPTY_HASH, False, 'fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543'),
    ('GET bucket', 'GET', '/?max-keys=2&prefix=J',
     [VECTOR_HOST, ('x-amz-content-sha256', EMPTY_HASH), VECTOR_DATE],
     EMPTY_HASH, False, '34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7'),
    ('presigned GET', 'GET',
     '/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524'
     '%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400'
     '&X-Amz-SignedHeaders=host',
     [VECTOR_HOST],
     UNSIGNED, True, 'aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404'),
)

# A certificate for localhost and 127.0.0.1, good until 2120, with the key that
# goes with it and protects nothing.
CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQggQZoau49rn9zBT22
kd/gMogsgO5tHC6/a6fJl1fT1l2hRANCAASUnI4GWRMXIsO0zafX9gOwBdIlJZQH
p61IxlcYXfG7scMH5BYUispOolR/0dzUHjIN7iOEJ1peEKv4rdiVdFtQ
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBhDCCASqgAwIBAgIBATAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAlsb2NhbGhv
c3QwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBaMBQxEjAQBgNVBAMM
CWxvY2FsaG9zdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABJScjgZZExciw7TN
p9f2A7AF0iUllAenrUjGVxhd8buxwwfkFhSKyk6iVH/R3NQeMg3uI4QnWl4Qq/it
2JV0W1CjazBpMA8GA1UdEwEB/wQFMAMBAf8wHQYDVR0OBBYEFHs/Q+Hs5WPqMX67
PwjCLIQEWmCYMA4GA1UdDwEB/wQEAwIChDAnBgNVHREEIDAegglsb2NhbGhvc3SC
CyoubG9jYWxob3N0hwR/AAABMAoGCCqGSM49BAMCA0gAMEUCIQC/h8TBAy/1PGdC
Ar85o2olyjJx1LE0J/RAxFHdQnN/kwIgKjCA9LnL4rpqKa+1iGeH7lsNuR1L3bxU
EtZIaYVnhuA=
-----END CERTIFICATE-----
"""

# The like that was good for the year 2006 only.
EXPIRED = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgcU0KZjkZjIQbofcC
gJyXT0la5JcfKuKxuiIpM9bBSC2hRANCAAQLJ/PWASqeqbDA3qjlG/8KCO94la2Z
LsZF3xrJolKhAGO/0KY3lRPo92wb7XWgLEVEatk8A7p0cb4lpP8M6gW3
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBZDCCAQugAwIBAgIBATAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAlsb2NhbGhv
c3QwHhcNMDYwMTAxMDAwMDAwWhcNMDcwMTAxMDAwMDAwWjAUMRIwEAYDVQQDDAls
b2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQLJ/PWASqeqbDA3qjl
G/8KCO94la2ZLsZF3xrJolKhAGO/0KY3lRPo92wb7XWgLEVEatk8A7p0cb4lpP8M
6gW3o04wTDAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwDwYDVR0TAQH/BAUw
AwEB/zAdBgNVHQ4EFgQUaqngMaMSmdNn6ujhAtPGYQXqbu8wCgYIKoZIzj0EAwID
RwAwRAIgE/01F9A4nH7y8b4o44R6vy4Uf64OaF7X0rKXp27rrq8CIDaNZG2dPcrJ
+T78vyoQqrDoOuaLYirbhsT6huT2KXJR
-----END CERTIFICATE-----
"""

# A CA as small shops make them, without the extensions that RFC 5280 wants, and a certificate
# of it for localhost, 127.0.0.1 and ::1.
PRIVATE_CA = """\
-----BEGIN CERTIFICATE-----
MIIBGjCBwaADAgECAgEBMAoGCCqGSM49BAMCMA0xCzAJBgNVBAMMAmNhMCAXDTIw
MDEwMTAwMDAwMFoYDzIxMjAwMTAxMDAwMDAwWjANMQswCQYDVQQDDAJjYTBZMBMG
ByqGSM49AgEGCCqGSM49AwEHA0IABAXMEJhkwYupPbp+2g9qIiU59ljDJu0Qzkw5
ZQK84pXv0m1M8nOh9R0bcCnKrsKaURBe9lw0CvOmyde6q3q7ZEqjEDAOMAwGA1Ud
EwQFMAMBAf8wCgYIKoZIzj0EAwIDSAAwRQIgGlGQLieGBCyfvUhsw/spA8dj16zH
VaEp021YJXwpGHkCIQC/w1p+54ZnvKhaM+Gi2pvkQZVuh8IZGWwl0E4Z9X1ITQ==
-----END CERTIFICATE-----
"""
OF_PRIVATE_CA = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgI1xa7vd/gPL5o6c6
Aby0rsnPGOYfUwaEPfoJuDWYLaChRANCAAQQUtZKxF1FJhnSuOd8BiCIlRz+RkzK
WUtE5ohj38p4lV14jorxn/qP1d5VOuC7+3omuFNhTWhEv1bsk1+/JJKA
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBOjCB4KADAgECAgECMAoGCCqGSM49BAMCMA0xCzAJBgNVBAMMAmNhMCAXDTIw
MDEwMTAwMDAwMFoYDzIxMjAwMTAxMDAwMDAwWjAMMQowCAYDVQQDDAFzMFkwEwYH
KoZIzj0CAQYIKoZIzj0DAQcDQgAEEFLWSsRdRSYZ0rjnfAYgiJUc/kZMyllLROaI
Y9/KeJVdeI6K8Z/6j9XeVTrgu/t6JrhTYU1oRL9W7JNfvySSgKMwMC4wLAYDVR0R
BCUwI4IJbG9jYWxob3N0hwR/AAABhxAAAAAAAAAAAAAAAAAAAAABMAoGCCqGSM49
BAMCA0kAMEYCIQC98bpFKnm9S0bJz8eeFVd9ecSOCWMThUSUDH5+hPSsKgIhAIN/
jUzYalBoC7VRtFZX8nd30yKyfxH/RS6229V5JwQm
-----END CERTIFICATE-----
"""


@contextlib.contextmanager
def certificate(text=CERTIFICATE):
    """The path of a file with a certificate and its key; skips the test where they are no use."""
    if ssl is None:
        raise unittest.SkipTest('this Python has no ssl')
    with tempfile.NamedTemporaryFile('w', suffix='.pem') as file:
        file.write(text)
        file.flush()
        yield file.name


def with_authorization(access_key, timestamp, region, service, method, target, headers,
                       payload_hash, secret):
    """Return the headers, all of them signed, with their Authorization."""
    start = '%s Credential=%s/%s/%s/%s/aws4_request, SignedHeaders=%s, Signature=' % (
        ALGORITHM, access_key, timestamp[:8], region, service,
        ';'.join(sorted(name.lower() for name, _ in headers)))
    unsigned = headers + [('Authorization', start)]
    signature = expected_signature(method, target, unsigned, payload_hash, secret)
    return headers + [('Authorization', start + signature)]


class SignatureVectorTests(unittest.TestCase):
    """The verifier against the examples that AWS publishes."""

    def test_published_signatures_are_accepted(self):
        access_key, secret = VECTOR_CREDENTIALS
        for name, method, target, headers, payload_hash, presigned, signature in VECTORS:
            with self.subTest(name):
                if not presigned:
                    headers = with_authorization(
                        access_key, VECTOR_TIMESTAMP, VECTOR_REGION, 's3', method, target, headers,
                        payload_hash, secret)
                    claim = read_claim(target, headers)
                    self.assertEqual(claim.signature, signature)
                self.assertEqual(
                    expected_signature(method, target, headers, payload_hash, secret), signature)

    def test_the_signature_of_another_service_is_as_published(self):
        # AWS's test suite for Signature Version 4: post-x-www-form-urlencoded.
        headers = [('Content-Type', FORM), ('Host', 'example.amazonaws.com'),
                   ('X-Amz-Date', '20150830T123600Z')]
        signed = with_authorization(
            'AKIDEXAMPLE', '20150830T123600Z', 'us-east-1', 'service', 'POST', '/', headers,
            sha256(b'Param1=value1').hexdigest(), 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY')
        self.assertEqual(read_claim('/', signed).signature,
                         'ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a')

    def test_the_path_is_encoded_once_and_not_normalised(self):
        for raw, canonical in (
                ('/a//b/../c', '/a//b/../c'), ('/a+b:c', '/a%2Bb%3Ac'), ('/%7e%2f', '/~/'),
                ('/a%20b', '/a%20b'), ('/\xc3\xa4', '/%C3%A4'), ('/a%2Bb', '/a%2Bb')):
            self.assertEqual(canonical_request('GET', raw, [], [], '').split('\n')[1], canonical)

    def test_the_query_is_sorted_after_encoding(self):
        self.assertEqual(canonical_query('b=2&a=%7e&a=+&uploads&a-=1'),
                         'a=%20&a=~&a-=1&b=2&uploads=')


Answer = collections.namedtuple('Answer', 'status headers body code')


class SigningClient:
    """A client that signs what it is told to send, and no more."""

    def __init__(self, server, access_key=None, secret=None):
        self.server = server
        self.access_key = access_key or server.access_key
        self.secret = secret or server.secret_key
        self.connection = None

    def connect(self):
        kind = http.client.HTTPConnection
        options = {}
        if self.server.secure:
            kind = http.client.HTTPSConnection
            options = {'context': ssl.create_default_context(cafile=self.server.certfile)}
        return kind(self.server.host, self.server.port, timeout=10, **options)

    def sign(self, method, target, headers, payload_hash):
        headers = dict({
            'host': '%s:%d' % (self.server.host, self.server.port),
            'x-amz-date': time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(self.server.now())),
            'x-amz-content-sha256': payload_hash}, **headers)
        return with_authorization(self.access_key, headers['x-amz-date'], self.server.region, 's3',
                                  method, target, list(headers.items()), payload_hash, self.secret)

    def __call__(self, method, target, body=b'', unsigned=(), payload_hash=None, **headers):
        """Return the Answer; x_amz_date='' in *headers* is the header x-amz-date."""
        headers = {name.replace('_', '-'): value for name, value in headers.items()}
        signed = self.sign(method, target, headers, payload_hash or sha256(body).hexdigest())
        if self.connection is None:
            self.connection = self.connect()
        try:
            self.connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in signed + list(unsigned):
                self.connection.putheader(name, value)
            if body or method in ('PUT', 'POST'):
                self.connection.putheader('Content-Length', str(len(body)))
            self.connection.endheaders()
            try:
                if body:
                    self.connection.send(body)
            except OSError:
                pass                    # the answer says why
            response = self.connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        code = re.search(b'<Error>.*?<Code>(.*?)</Code>', content)
        return Answer(response.status, response.headers, content, code and code.group(1).decode())

    def close(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None


class Shared(unittest.TestSuite):
    """Tests that several processes share: each runs those whose numbers it reads, as it comes to
    them, from a pipe that all read."""

    numbers, mine = itertools.count(), None

    def __iter__(self):
        for test in unittest.TestSuite.__iter__(self):
            if Shared.mine is None:
                Shared.mine = int(os.read(int(os.environ['NUMBERS']), 8))
            if Shared.mine == next(Shared.numbers):
                Shared.mine = None
                yield test


def load_tests(loader, tests, pattern):
    """Return all tests; with NUMBERS, a descriptor, in the environment they are Shared."""
    return unittest.TestSuite(map(Shared, tests)) if 'NUMBERS' in os.environ else tests


class ServerTestCase(unittest.TestCase):

    violations = ()         # patterns of what the test does wrong on purpose

    def start(self, server):
        """Return the server, started; it ends with the test."""
        self.addCleanup(self.finish, server)
        return server.start()

    def serve(self, **options):
        """Return an S3Server that ends with the test, and a client of it."""
        server = self.start(S3Server(**options))
        client = SigningClient(server)
        self.addCleanup(client.close)
        return server, client

    def finish(self, server):
        server.close()
        self.assertEqual(server.open_connections, 0)
        left = [text for text in server.violations
                if not any(re.search(pattern, text) for pattern in self.violations)]
        self.assertEqual(left, [])

    def refused(self, answer, code):
        self.assertEqual((answer.code, answer.status), (code, ERRORS[code][0]))

    def element(self, answer, name):
        return re.search('<%s>(.*?)</%s>' % (name, name), answer.body.decode()).group(1)

    def create(self, client, key='key', **headers):
        return self.element(client('POST', '/bucket/%s?uploads' % key, **headers), 'UploadId')

    def upload(self, client, parts, key='key', **headers):
        """Upload parts and return the upload id and the document that completes it."""
        upload_id = self.create(client, key, **headers)
        listed = ''
        for number, data in enumerate(parts, 1):
            target = '/bucket/%s?partNumber=%d&uploadId=%s' % (key, number, upload_id)
            answer = client('PUT', target, data)
            listed += '<Part><PartNumber>%d</PartNumber><ETag>%s</ETag></Part>' % (
                number, answer.headers['ETag'])
        body = '<CompleteMultipartUpload>%s</CompleteMultipartUpload>' % listed
        return upload_id, body.encode()

    def complete(self, client, upload_id, body, key='key', **headers):
        return client('POST', '/bucket/%s?uploadId=%s' % (key, upload_id), body, **headers)


def crc_of(data):
    return base64_crc32(zlib.crc32(data))


class ServerTests(ServerTestCase):
    """The rules of S3, as the server keeps them."""

    def test_requests_without_the_right_are_refused(self):
        self.violations = ('signature', 'unsigned', 'payload hash')
        server, client = self.serve()
        server.put('key', b'data')
        server.add_user('READER', 'secret', allow={'GetObject'})
        server.add_user('TEMPORARY', 'secret', session_token='token')
        server.add_user('OLD', 'secret', expired=True)
        server.add_user('CAREFUL', 'secret', conditional=True)
        late = {'x_amz_date': time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(time.time() - 1000))}
        for access_key, secret, method, options, code in (
                (None, 'wrong', 'GET', {}, 'SignatureDoesNotMatch'),
                ('NOBODY', 'secret', 'GET', {}, 'InvalidAccessKeyId'),
                ('READER', 'secret', 'GET', {}, None),
                ('READER', 'secret', 'PUT', {}, 'AccessDenied'),
                ('TEMPORARY', 'secret', 'GET', {}, 'InvalidAccessKeyId'),
                ('TEMPORARY', 'secret', 'GET', {'x_amz_security_token': 'x'}, 'InvalidToken'),
                ('TEMPORARY', 'secret', 'GET', {'x_amz_security_token': 'token'}, None),
                ('OLD', 'secret', 'GET', {}, 'ExpiredToken'),
                ('CAREFUL', 'secret', 'PUT', {}, 'AccessDenied'),
                ('CAREFUL', 'secret', 'PUT', {'if_none_match': '*'}, 'PreconditionFailed'),
                (None, None, 'GET', late, 'RequestTimeTooSkewed'),
                (None, None, 'GET', {'unsigned': [('x-amz-meta-a', 'b')]}, 'AccessDenied'),
                (None, None, 'PUT', {'payload_hash': EMPTY_HASH}, 'XAmzContentSHA256Mismatch')):
            with self.subTest(access_key=access_key, method=method, options=options):
                other = SigningClient(server, access_key, secret)
                self.addCleanup(other.close)
                body = b'' if method == 'GET' else b'new'
                answer = other(method, '/bucket/key', body, **options)
                self.assertEqual(answer.code, code)
        self.assertEqual(len(server.violations), 3)
        server.region = 'eu-central-1'
        request = client.sign('GET', '/bucket/key', {}, EMPTY_HASH)
        server.region = 'us-west-2'
        connection = client.connect()
        self.addCleanup(connection.close)
        connection.request('GET', '/bucket/key', headers=dict(request))
        self.assertIn(b'<Region>us-west-2</Region>', connection.getresponse().read())
        connection.request('GET', '/bucket/key')
        self.assertEqual(connection.getresponse().status, 403)
        self.assertEqual(server.log[-1].operation, 'GetObject')

    def test_a_presigned_url_holds_until_it_expires(self):
        server, client = self.serve()
        server.put('key', b'data')
        client.close()

        def get(age, expires, spoil=''):
            stamp = time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(time.time() - age))
            target = ('/bucket/key?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=%s'
                      '&X-Amz-Date=%s&X-Amz-Expires=%d&X-Amz-SignedHeaders=host' % (
                          urllib.parse.quote('%s/%s/us-east-1/s3/aws4_request' % (
                              server.access_key, stamp[:8]), safe=''), stamp, expires))
            host = [('host', '127.0.0.1:%d' % server.port)]
            target += '&X-Amz-Signature=' + spoil + expected_signature(
                'GET', target, host, UNSIGNED, server.secret_key)
            connection = client.connect()
            connection.request('GET', target)
            answer = connection.getresponse().read()
            connection.close()
            return answer

        self.violations = ('signature',)
        self.assertEqual(get(0, 60), b'data')
        self.assertEqual(get(3000, 3600), b'data')
        self.assertIn(b'Request has expired', get(100, 60))
        self.assertIn(b'AuthorizationQueryParametersError', get(0, 604801))
        self.assertIn(b'SignatureDoesNotMatch', get(0, 60, '0'))

    def test_requests_are_held_to_the_rules(self):
        def region(name):
            return ('<CreateBucketConfiguration><LocationConstraint>%s</LocationConstraint>'
                    '</CreateBucketConfiguration>' % name).encode()

        def restoration(tier):
            return ('<RestoreRequest xmlns="%s"><Days>2</Days><GlacierJobParameters><Tier>%s</Tier>'
                    '</GlacierJobParameters></RestoreRequest>' % (NAMESPACE, tier)).encode()

        acl = b'<AccessControlPolicy/>'
        etag = '"%s"' % md5(b'old').hexdigest()
        wrong = base64.b64encode(md5(b'x').digest()).decode()
        lock = {'x_amz_object_lock_mode': 'GOVERNANCE',
                'x_amz_object_lock_retain_until_date': iso_date(time.time() + 60),
                'x_amz_checksum_crc32': crc_of(b'data')}
        undigested = dict(list(lock.items())[:2])
        for method, target, body, headers, attributes, code in (
                ('PUT', 'bucket/new', b'data', {'if_none_match': '*'}, {}, None),
                ('PUT', 'bucket/old', b'data', {'if_none_match': '*'}, {}, 'PreconditionFailed'),
                ('PUT', 'bucket/old', b'data', {'if_none_match': '"x"'}, {}, 'NotImplemented'),
                ('PUT', 'bucket/old', b'data', {'if_match': etag}, {}, None),
                ('PUT', 'bucket/old', b'data', {'if_match': '"x"'}, {}, 'PreconditionFailed'),
                ('PUT', 'bucket/new', b'data', {'if_match': etag}, {}, 'NoSuchKey'),
                ('PUT', 'bucket/new', b'data', {'content_md5': wrong}, {}, 'BadDigest'),
                ('PUT', 'bucket/new', b'data', {'content_md5': 'junk'}, {}, 'InvalidDigest'),
                ('PUT', 'bucket/new', b'data', {'x_amz_checksum_crc32': crc_of(b'x')}, {},
                 'BadDigest'),
                ('PUT', 'bucket/new', b'data', {'x_amz_checksum_crc32': crc_of(b'data')}, {}, None),
                ('PUT', 'bucket/new', b'', {'x_amz_storage_class': 'CELLAR'}, {},
                 'InvalidStorageClass'),
                ('PUT', 'bucket/new', b'', {'x_amz_server_side_encryption': 'rot13'}, {},
                 'InvalidArgument'),
                ('PUT', 'bucket/new', b'', {'x_amz_meta_a': 'a' * 3000}, {}, 'MetadataTooLarge'),
                ('PUT', 'bucket/' + 'k' * 1025, b'', {}, {}, 'KeyTooLongError'),
                ('PUT', 'bucket/new?tagging', b'', {}, {}, 'NotImplemented'),
                ('PUT', 'bucket/new', b'data', undigested, {}, 'InvalidRequest'),
                ('PUT', 'bucket/new', b'data', lock, {}, None),
                ('PUT', 'bucket/new', b'data', lock, {'lock_enabled': False}, 'InvalidRequest'),
                ('PUT', 'bucket/locked', b'data', {}, {}, 'AccessDenied'),
                ('DELETE', 'bucket/locked', b'', {}, {}, 'AccessDenied'),
                ('DELETE', 'bucket/locked', b'', {}, {'offset': 120}, None),
                ('GET', 'bucket/new', b'', {}, {}, 'NoSuchKey'),
                ('GET', 'nowhere/new', b'', {}, {}, 'NoSuchBucket'),
                ('GET', 'bucket/new', b'', {}, {'allow': {'GetObject'}}, 'AccessDenied'),
                ('GET', 'bucket?list-type=2&continuation-token=junk!', b'', {}, {},
                 'InvalidArgument'),
                ('GET', 'bucket/cold', b'', {}, {}, 'InvalidObjectState'),
                ('POST', 'bucket/cold?restore', restoration('Expedited'), {}, {},
                 'InvalidArgument'),
                ('POST', 'bucket/old?restore', restoration('Bulk'), {}, {}, 'InvalidObjectState'),
                ('PUT', 'bucket/old?acl', acl, {}, {}, 'InvalidRequest'),
                ('PUT', 'bucket/old?acl', b'x', {'x_amz_checksum_crc32': crc_of(b'x')}, {},
                 'MalformedACLError'),
                ('PUT', 'bucket/old?acl', acl, {'x_amz_checksum_crc32': crc_of(acl)}, {}, None),
                ('PUT', 'bucket/old?acl', acl, {'x_amz_checksum_crc32': crc_of(acl)},
                 {'acl_enabled': False}, 'AccessControlListNotSupported'),
                ('PUT', 'bucket', b'', {}, {}, 'BucketAlreadyOwnedByYou'),
                ('PUT', 'other', region('us-east-1'), {}, {}, 'InvalidLocationConstraint'),
                ('PUT', 'other', region('eu-west-1'), {}, {}, 'IllegalLocationConstraintException'),
                ('PUT', 'other', b'', {}, {'region': 'eu-west-1'},
                 'IllegalLocationConstraintException'),
                ('DELETE', 'bucket', b'', {}, {}, 'BucketNotEmpty')):
            with self.subTest(method, target=target, headers=headers, **attributes):
                server, client = self.serve()
                server.put('old', b'old')
                server.put('cold', b'data', storage_class='DEEP_ARCHIVE')
                server.put('locked', b'data', lock_mode='GOVERNANCE', lock_until=time.time() + 60)
                server.users[server.access_key].allow = attributes.pop('allow', None)
                for name, value in attributes.items():
                    setattr(server, name, value)
                answer = client(method, '/' + target, body, **headers)
                self.assertEqual(answer.code, code)
                self.assertEqual(answer.status, ERRORS[code][0] if code else
                                 204 if method == 'DELETE' else 200)
                if method == 'PUT' and code is None:
                    stored = server.objects[target[7:].replace('?acl', '')]
                    self.assertIn(body, (stored.data, stored.acl))

    def test_reads_keep_to_range_part_and_condition(self):
        server, client = self.serve()
        server.put('key', b'0123456789', crc32=crc_of(b'0123456789'), checksum_type='FULL_OBJECT')
        multipart = server.put('parts', b'0123456789', parts=4)
        self.assertEqual((multipart.parts, multipart.etag[-2:]), ([4, 4, 2], '-3'))
        for target, headers, status, body, length in (
                ('key', {'range': 'bytes=2-4'}, 206, b'234', '2-4/10'),
                ('key', {'range': 'bytes=8-99'}, 206, b'89', '8-9/10'),
                ('key', {'range': 'bytes=-3'}, 206, b'789', '7-9/10'),
                ('key', {'range': 'bytes=7-'}, 206, b'789', '7-9/10'),
                ('key', {'range': 'bytes=10-'}, 416, None, None),
                ('key', {'range': 'pages=1'}, 200, b'0123456789', None),
                ('key', {'if_match': '"x"'}, 412, None, None),
                ('key', {'if_none_match': multipart.etag}, 200, b'0123456789', None),
                ('parts', {'if_none_match': '"%s"' % multipart.etag}, 304, b'', None),
                ('parts?partNumber=3', {}, 206, b'89', '8-9/10'),
                ('parts?partNumber=4', {}, 416, None, None),
                ('key?partNumber=1', {}, 206, b'0123456789', '0-9/10')):
            with self.subTest(target=target, headers=headers):
                answer = client('GET', '/bucket/' + target, **headers)
                self.assertEqual(answer.status, status)
                self.assertIn(body, (None, answer.body))
                self.assertEqual(answer.headers['Content-Range'], length and 'bytes ' + length)
        whole = client('HEAD', '/bucket/key', x_amz_checksum_mode='ENABLED')
        self.assertEqual(whole.headers['x-amz-checksum-crc32'], crc_of(b'0123456789'))
        part = client('GET', '/bucket/key', x_amz_checksum_mode='ENABLED', range='bytes=0-1')
        self.assertIsNone(part.headers['x-amz-checksum-crc32'])
        part = client('HEAD', '/bucket/parts?partNumber=1')
        self.assertEqual(part.headers['x-amz-mp-parts-count'], '3')

    def test_archived_objects_are_thawed_first(self):
        server, client = self.serve()
        server.put('key', b'data', storage_class='DEEP_ARCHIVE')
        for tier, code, status in (('Bulk', None, 202), ('Bulk', 'RestoreAlreadyInProgress', 409),
                                   ('Standard', None, 200)):
            answer = client('POST', '/bucket/key?restore', (
                '<RestoreRequest><Days>2</Days><GlacierJobParameters><Tier>%s</Tier>'
                '</GlacierJobParameters></RestoreRequest>' % tier).encode())
            self.assertEqual((answer.code, answer.status), (code, status))
            self.assertRegex(client('HEAD', '/bucket/key').headers['x-amz-restore'],
                             'expiry-date' if status == 200 else 'ongoing-request="true"')
            if code:
                server.thaw('key')
                self.assertEqual(client('GET', '/bucket/key').body, b'data')
        self.assertEqual(server.objects['key'].restore_request, (2, 'Standard'))

    def test_a_completed_upload_is_one_object_of_all_its_parts(self):
        server, client = self.serve(min_part_size=4)
        parts = [b'0123', b'4567', b'8']
        data = b''.join(parts)
        upload_id, body = self.upload(
            client, parts, x_amz_checksum_algorithm='CRC32', x_amz_checksum_type='FULL_OBJECT',
            x_amz_storage_class='STANDARD_IA')
        self.assertEqual(server.uploads[upload_id].key, 'key')
        listed = client('GET', '/bucket/key?uploadId=' + upload_id)
        self.assertEqual(re.findall(b'<Size>(.)', listed.body), [b'4', b'4', b'1'])
        self.refused(self.complete(client, upload_id, body, x_amz_checksum_crc32=crc_of(b'x')),
                     'BadDigest')
        self.refused(self.complete(client, upload_id, body, x_amz_mp_object_size='8'),
                     'InvalidRequest')
        answer = self.complete(client, upload_id, body, x_amz_checksum_crc32=crc_of(data),
                               x_amz_checksum_type='FULL_OBJECT', x_amz_mp_object_size='9',
                               if_none_match='*')
        stored = server.objects['key']
        self.assertEqual(
            self.element(answer, 'ETag').replace('&#34;', '"'), '"%s"' % stored.etag)
        self.assertEqual(
            stored.etag, md5(b''.join(md5(part).digest() for part in parts)).hexdigest() + '-3')
        self.assertEqual((stored.data, stored.parts, stored.crc32, stored.storage_class),
                         (data, [4, 4, 1], crc_of(data), 'STANDARD_IA'))
        self.refused(self.complete(client, upload_id, body), 'NoSuchUpload')
        self.assertEqual(server.uploads, {})

    def test_completion_is_strict(self):
        server, client = self.serve(min_part_size=4, max_parts=3)
        upload_id, body = self.upload(client, [b'0123', b'4567', b'8'])
        first, second, third = re.findall(b'<Part>.*?</Part>', body)
        for listed, code in (
                (second + first, 'InvalidPartOrder'), (first + first, 'InvalidPartOrder'),
                (first.replace(b'>1<', b'>9<'), 'InvalidPart'),
                (first.replace(b'<ETag>"', b'<ETag>"0'), 'InvalidPart'),
                (b'', 'MalformedXML'), (b'<', 'MalformedXML'),
                (first * 4, 'MalformedXML'), (first + third, None)):
            with self.subTest(listed=listed):
                answer = self.complete(client, upload_id, b'<CompleteMultipartUpload>' + listed +
                                       b'</CompleteMultipartUpload>')
                self.assertEqual(answer.code, code)
        self.assertEqual(server.objects['key'].data, b'01238')
        upload_id, body = self.upload(client, [b'012', b'345'])
        self.refused(self.complete(client, upload_id, body), 'EntityTooSmall')
        self.refused(client('PUT', '/bucket/key?partNumber=4&uploadId=' + upload_id, b''),
                     'InvalidArgument')
        self.refused(client('DELETE', '/bucket/other?uploadId=' + upload_id), 'NoSuchUpload')
        upload_id, body = self.upload(client, [b'0123'])
        self.refused(self.complete(client, upload_id, body, if_none_match='*'),
                     'PreconditionFailed')
        self.assertIn(upload_id, server.uploads)
        self.assertEqual(client('DELETE', '/bucket/key?uploadId=' + upload_id).status, 204)

    def test_a_composite_checksum_is_that_of_the_parts_checksums(self):
        server, client = self.serve(min_part_size=1)
        upload_id = self.create(client, x_amz_checksum_algorithm='CRC32')
        target = '/bucket/key?partNumber=1&uploadId=' + upload_id
        self.refused(client('PUT', target, b'data'), 'InvalidRequest')
        etag = client('PUT', target, b'data', x_amz_checksum_crc32=crc_of(b'data')).headers['ETag']
        body = ('<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>%s</ETag>'
                '<ChecksumCRC32>%s</ChecksumCRC32></Part></CompleteMultipartUpload>')
        answer = self.complete(client, upload_id, (body % (etag, crc_of(b'data'))).encode())
        self.assertEqual(answer.status, 200)
        composite = crc_of(base64.b64decode(crc_of(b'data'))) + '-1'
        self.assertEqual(server.objects['key'].crc32, composite)

    def test_the_crc32_of_a_whole_follows_from_those_of_its_pieces(self):
        data = bytes(range(256)) * 5
        for cut in (0, 1, 255, 1279, 1280):
            self.assertEqual(crc32_combine(zlib.crc32(data[:cut]), zlib.crc32(data[cut:]),
                                           len(data) - cut), zlib.crc32(data))

    def test_listings_come_in_pages(self):
        server, client = self.serve(page_size=2)
        keys = ['a', 'a b', 'a/1', 'a/2', 'b\x01', '\xe4', '\uffff', '\U00010000']
        for key in keys:
            server.put(key, b'12')
        found, token, pages = [], '', 0
        while token is not None:
            answer = client('GET', '/bucket?list-type=2&encoding-type=url' + token)
            found += [urllib.parse.unquote_plus(key.decode())
                      for key in re.findall(b'<Key>(.*?)</Key>', answer.body)]
            pages += 1
            token = (None if b'<IsTruncated>false' in answer.body else '&continuation-token=' +
                     urllib.parse.quote(self.element(answer, 'NextContinuationToken'), safe=''))
        self.assertEqual((found, pages), (sorted(keys, key=lambda key: key.encode()), 4))
        plain = client('GET', '/bucket?list-type=2&prefix=b')
        self.assertIn(b'<Key>b&#1;</Key>', plain.body)
        self.assertIn(b'<Size>2</Size>', plain.body)
        common = client('GET', '/bucket?list-type=2&delimiter=/&start-after=a%20b')
        self.assertEqual(re.findall(b'<CommonPrefixes><Prefix>(.*?)<', common.body), [b'a/'])
        self.refused(client('GET', '/bucket?list-type=2&continuation-token=junk!'),
                     'InvalidArgument')

    def test_a_bucket_that_keeps_versions_hides_what_is_replaced_or_deleted(self):
        server, client = self.serve()
        server.put('key', b'old')
        server.versioning = 'Enabled'
        two = client('PUT', '/bucket/key', b'two').headers['x-amz-version-id']
        gone = client('DELETE', '/bucket/key')
        marker = gone.headers['x-amz-version-id']
        self.assertEqual(gone.headers['x-amz-delete-marker'], 'true')
        self.refused(client('GET', '/bucket/key'), 'NoSuchKey')
        self.refused(client('GET', '/bucket/key?versionId=' + marker), 'MethodNotAllowed')
        self.refused(client('GET', '/bucket/key?versionId=none'), 'NoSuchVersion')
        self.refused(client('GET', '/bucket/other?versionId=' + two), 'NoSuchVersion')
        for version, data in (('null', b'old'), (two, b'two')):
            answer = client('GET', '/bucket/key?versionId=' + version)
            self.assertEqual((answer.body, answer.headers['x-amz-version-id']), (data, version))
        self.assertNotIn(b'<Key>', client('GET', '/bucket?list-type=2').body)
        self.assertEqual(client('PUT', '/bucket/key', b'new', if_none_match='*').status, 200)
        self.refused(client('PUT', '/bucket/key', b'new', if_none_match='*'), 'PreconditionFailed')
        self.assertEqual(client('DELETE', '/bucket/key?versionId=' + two).headers[
            'x-amz-delete-marker'], None)
        new = server.objects['key'].version_id
        self.assertEqual(client('DELETE', '/bucket/key?versionId=' + new).status, 204)
        self.assertNotIn('key', server.objects)
        self.assertEqual(client('DELETE', '/bucket/key?versionId=' + marker).headers[
            'x-amz-delete-marker'], 'true')
        self.assertEqual(client('GET', '/bucket/key').body, b'old')
        server.versioning = 'Suspended'
        for _ in range(2):
            client('PUT', '/bucket/key', b'only')
        self.assertEqual([each.version_id for each in server.objects.versions('key')], ['null'])

    def test_a_lock_keeps_a_version_and_not_what_lies_on_top(self):
        server, client = self.serve()
        server.versioning = 'Enabled'
        locked = server.put('key', b'data', lock_mode='GOVERNANCE', lock_until=time.time() + 60)
        self.assertEqual(client('PUT', '/bucket/key', b'new').status, 200)
        self.assertEqual(client('DELETE', '/bucket/key').status, 204)
        self.refused(client('DELETE', '/bucket/key?versionId=' + locked.version_id),
                     'AccessDenied')

    def test_versions_are_rights_of_their_own(self):
        server, client = self.serve()
        server.versioning = 'Enabled'
        version = '?versionId=' + server.put('key', b'data').version_id
        for right, method, target, other in (
                ('GetObject', 'GET', '/bucket/key', '/bucket/key' + version),
                ('DeleteObject', 'DELETE', '/bucket/key', '/bucket/key' + version),
                ('ListObjectsV2', 'GET', '/bucket?list-type=2', '/bucket?versions')):
            server.users[server.access_key].allow = {right}
            self.assertLess(client(method, target).status, 300)
            self.refused(client(method, other), 'AccessDenied')

    def test_versions_are_listed_in_pages(self):
        for quirks in ((), ('markers-last',)):
            server, client = self.serve(page_size=2, quirks=quirks)
            server.versioning, expected = 'Enabled', []
            for key in ('a b', 'c/\xe4'):
                stack = [server.put(key, b'1'), server.delete(key), server.put(key, b'22')]
                expected += [(key, each.version_id, each.marker) for each in reversed(stack)]
            found, token, pages = [], '', 0
            while token is not None:
                answer = client('GET', '/bucket?versions&encoding-type=url' + token)
                page = [(urllib.parse.unquote_plus(key), version, kind == 'DeleteMarker')
                        for kind, key, version in re.findall(
                            '<(Version|DeleteMarker)><Key>(.*?)</Key><VersionId>(.*?)</VersionId>',
                            answer.body.decode())]
                self.assertEqual(page if not quirks else sorted(
                    page, key=lambda each: each[2]), page)
                found, pages = found + page, pages + 1
                token = None if b'<IsTruncated>false' in answer.body else (
                    '&key-marker=%s&version-id-marker=%s' % (
                        urllib.parse.quote(urllib.parse.unquote_plus(
                            self.element(answer, 'NextKeyMarker')), safe=''),
                        self.element(answer, 'NextVersionIdMarker')))
            self.assertEqual((sorted(found), pages), (sorted(expected), 3))
            if not quirks:
                self.assertEqual(found, expected)
            self.assertEqual(re.findall(b'<Size>(.)', client(
                'GET', '/bucket?versions&key-marker=a%20b').body), [b'2'])
            self.refused(client('GET', '/bucket?versions&version-id-marker=x'), 'InvalidArgument')
            self.refused(client('GET', '/bucket?versions&key-marker=a%20b&version-id-marker=x'),
                         'InvalidArgument')

    def test_the_host_may_name_the_bucket(self):
        server, client = self.serve()
        server.put('key', b'data')
        for host, target, status in (
                ('bucket.s3.test', '/key', 200), ('bucket.localhost:80', '/key', 200),
                ('none.localhost', '/key', 404), ('s3.test', '/bucket/key', 200),
                ('bucket.s3.test', 'http://bucket.s3.test/key', 200)):
            with self.subTest(host=host, target=target):
                path = target[target.rindex('/'):] if '//' in target else target
                headers = client.sign('GET', path, {'host': host}, EMPTY_HASH)
                connection = client.connect()
                connection.request('GET', target, headers=dict(headers))
                self.assertEqual(connection.getresponse().status, status)
                connection.close()

    def test_discard_keeps_the_length(self):
        server, client = self.serve(discard=True, min_part_size=1)
        upload_id, body = self.upload(client, [b'0123', b'45'])
        self.assertEqual(self.complete(client, upload_id, body).status, 200)
        self.assertEqual(server.objects['key'].size, 6)
        self.assertEqual(client('GET', '/bucket/key', range='bytes=1-4').body, bytes(4))

    def test_forbidden_headers_are_violations(self):
        self.violations = ('',)
        server, client = self.serve()
        for count, (payload_hash, headers) in enumerate((
                (None, {'x_amz_acl': 'private'}), (None, {'expect': '100-continue'}),
                (None, {'x_amz_trailer': 'x-amz-checksum-crc32'}),
                (None, {'content_encoding': 'aws-chunked'}),
                (None, {'x_amz_sdk_checksum_algorithm': 'CRC32'}), (UNSIGNED, {})), 1):
            client.close()
            client('PUT', '/bucket/key', b'data', payload_hash=payload_hash, **headers)
            self.assertEqual(len(server.violations), count, headers)

    def test_a_bucket_may_demand_headers_and_checks_them(self):
        server, client = self.serve()
        self.violations = ('x-amz-acl is not for this request',)
        self.refused(client('PUT', '/bucket/key', x_amz_tagging='a'), 'InvalidArgument')
        self.refused(client('PUT', '/bucket/key', x_amz_server_side_encryption_aws_kms_key_id='k'),
                     'InvalidArgument')
        self.refused(client('GET', '/bucket/key', x_amz_expected_bucket_owner='1'),
                     'InvalidArgument')
        self.refused(client('GET', '/bucket/key', x_amz_expected_bucket_owner='0' * 12),
                     'AccessDenied')
        server.demands.update({'x-amz-request-payer': 'requester', 'x-amz-acl': 'private'})
        for headers in ({}, {'x_amz_acl': 'private'}, {'x_amz_request_payer': 'requester'}):
            self.refused(client('PUT', '/bucket/key', **headers), 'AccessDenied')
        self.assertEqual(client('PUT', '/bucket/key', x_amz_request_payer='requester',
                                x_amz_acl='private', x_amz_tagging='a%20=b+').status, 200)
        self.assertEqual((server.objects['key'].canned_acl, server.objects['key'].tags),
                         ('private', {'a ': 'b '}))
        self.assertEqual(client('GET', '/bucket/key', x_amz_request_payer='requester',
                                x_amz_acl='private').status, 200)
        self.assertEqual(len(server.violations), 1)


class FaultTests(ServerTestCase):
    """Each kind of fault, and each quirk, seen from the client."""

    data = bytes(range(256)) * 4096

    def test_each_fault_of_an_answer_is_seen_by_the_client(self):
        part = self.data[100:200]
        for kind, options, expected in (
                ('status', {}, (503, None)),
                ('status', dict(status=500, code='InternalError', headers={'x': 'y'}), (500, None)),
                ('status', dict(status=403, body=b'<html>'), (403, b'<html>')),
                ('refuse', {}, (403, None)),
                ('redirect', dict(status=301, region='eu-west-1'), (301, None)),
                ('skew', {}, (403, None)),
                ('raw', dict(data=b'HTTP/1.1 299 x\r\nContent-Length: 0\r\n\r\n'), (299, b'')),
                ('error200', {}, (200, None)),
                ('body', dict(body=b'<html>'), (200, b'<html>')),
                ('flip', dict(at=1), (206, part[:1] + bytes([part[1] ^ 1]) + part[2:])),
                ('replace', dict(data=bytes(300)), (206, bytes(100))),
                ('ignore-range', {}, (200, self.data)),
                ('wrong-range', dict(by=7), (206, self.data[107:207])),
                ('short', dict(n=3), (206, part[:-3])),
                ('long', dict(n=3), (206, part + b'+++')),
                ('blanks', {}, (206, b'   ' + part)),
                ('blanks', dict(chunked=False), (206, b'   ' + part)),
                ('cut', dict(bytes=7), http.client.IncompleteRead),
                ('cut', dict(bytes=7, reset=True), (OSError, http.client.IncompleteRead)),
                ('hangup', dict(when='start'), http.client.RemoteDisconnected),
                ('hangup', dict(when='done'), http.client.RemoteDisconnected),
                ('reset', {}, ConnectionResetError)):
            with self.subTest(kind, **options):
                server, client = self.serve()
                server.put('key', self.data)
                fault = server.fault('GetObject', kind, skip=1, **options)

                def get():
                    return client('GET', '/bucket/key', range='bytes=100-199')

                self.assertEqual(get().body, part)
                if isinstance(expected, tuple) and isinstance(expected[0], int):
                    answer = get()
                    self.assertEqual(answer.status, expected[0])
                    self.assertIn(expected[1], (None, answer.body))
                else:
                    with self.assertRaises(expected):
                        get()
                self.assertEqual((fault.hits, fault.event.is_set()), (1, True))
                self.assertEqual(len(server.log), 2)
                if kind not in ('replace', 'raw'):
                    client.close()
                    self.assertEqual(get().body, part)

    def test_a_wrong_range_may_lie(self):
        server, client = self.serve()
        server.put('key', self.data)
        for lie, said in ((True, 'bytes 1-3/1048576'), (False, 'bytes 2-4/1048576')):
            server.fault('GetObject', 'wrong-range', lie=lie)
            answer = client('GET', '/bucket/key', range='bytes=1-3')
            self.assertEqual((answer.body, answer.headers['Content-Range']),
                             (self.data[2:5], said))

    def test_a_hangup_comes_before_or_after_the_work(self):
        for kind in ('hangup', 'reset'):
            for when, done, received in (('start', False, 0), ('body', False, len(self.data) // 2),
                                         ('reply', False, len(self.data)),
                                         ('done', True, len(self.data))):
                with self.subTest(kind, when=when):
                    server, client = self.serve()
                    server.fault('PutObject', kind, when=when)
                    with self.assertRaises((OSError, http.client.HTTPException)):
                        client('PUT', '/bucket/key', self.data)
                    server.stop()
                    self.assertEqual('key' in server.objects, done)
                    self.assertEqual(server.log[0].length, received)
                    self.assertEqual(server.log[0].status, 0)

    def test_stalls_end_with_release_client_or_server(self):
        for when in ('start', 'body', 'reply', 'done', 'answer'):
            for end in ('release', 'client', 'stop'):
                with self.subTest(when=when, end=end):
                    server, client = self.serve()
                    server.put('key', self.data)
                    method = 'GET' if when == 'answer' else 'PUT'
                    fault = server.fault('*', 'stall', when=when)
                    results = []

                    def ask():
                        try:
                            results.append(client(method, '/bucket/key', method.encode()).status)
                        except (OSError, http.client.HTTPException):
                            results.append(None)

                    thread = threading.Thread(target=ask)
                    thread.start()
                    self.assertTrue(fault.event.wait(10))
                    if end == 'release':
                        fault.release.set()
                    elif end == 'stop':
                        server.stop()
                    else:
                        client.connection.sock.shutdown(socket.SHUT_RDWR)
                    thread.join(10)
                    self.assertEqual(results, [200 if end == 'release' else None])

    def test_an_answer_stands_still_in_its_middle_until_released(self):
        server, client = self.serve()
        server.put('key', self.data)
        fault = server.fault('GetObject', 'stall', bytes=1000)

        def release():
            if fault.event.wait(10):
                fault.release.set()

        thread = threading.Thread(target=release)
        thread.start()
        self.assertEqual(client('GET', '/bucket/key').body, self.data)
        thread.join()
        self.assertTrue(fault.release.is_set())

    def test_a_refusal_is_read_while_the_body_is_sent(self):
        for drain in (False, True):
            server, client = self.serve()
            server.fault('PutObject', 'refuse', times=None, drain=drain)
            for _ in range(5):
                answer = client('PUT', '/bucket/key', self.data * 8)
                self.refused(answer, 'AccessDenied')
                client.close()
            self.assertEqual(server.log[0].length, 0)

    def test_a_flipped_bit_on_the_way_in_is_noticed(self):
        server, client = self.serve()
        server.fault('PutObject', 'flip', at=5)
        self.refused(client('PUT', '/bucket/key', b'0123456789'), 'XAmzContentSHA256Mismatch')
        self.assertEqual(client('PUT', '/bucket/key', b'0123456789').status, 200)

    def test_a_completion_may_fail_although_it_says_200(self):
        for kind, options, code, done in (
                ('error200', {}, 'InternalError', False),
                ('error200', dict(done=True), 'InternalError', True),
                ('blanks', {}, None, True), ('blanks', dict(chunked=False, bare=True), None, True),
                ('blanks', dict(code='SlowDown', done=False), 'SlowDown', False)):
            with self.subTest(kind, **options):
                server, client = self.serve()
                server.fault('CompleteMultipartUpload', kind, **options)
                upload_id, body = self.upload(client, [b'data'])
                answer = self.complete(client, upload_id, body)
                self.assertEqual((answer.status, answer.code), (200, code))
                self.assertEqual('key' in server.objects, done)

    def test_faults_and_hooks_choose_their_requests(self):
        server, client = self.serve()
        server.on('PutObject', lambda server, exchange: server.put('seen', exchange.key.encode()))
        server.fault('*', 'status', where=lambda exchange: exchange.key == 'b')
        self.assertEqual([client('PUT', '/bucket/' + key).status for key in 'abb'],
                         [200, 503, 200])
        self.assertEqual(server.objects['seen'].data, b'b')
        server.fault('*', 'status', times=None)
        server.clear_faults()
        self.assertEqual(client('PUT', '/bucket/a').status, 200)
        self.assertRaises(TypeError, server.fault, 'PutObject', 'status', count=1)
        self.assertRaises(ValueError, server.fault, 'PutObjects', 'status')
        self.assertRaises(ValueError, S3Server, quirks=['quirk'])

    def test_each_quirk_is_seen_by_the_client(self):
        def completed(client, key='key'):
            upload_id, body = self.upload(client, [b'data'], key)
            return [self.complete(client, upload_id, body, key) for _ in range(2)]

        def etag(client):
            return re.search(b'<ETag>(.*?)</ETag>', completed(client)[0].body).group(1)

        def again(client):
            return completed(client)[1].status

        def put_twice(client):
            return [client('PUT', '/bucket/key', b'', if_none_match='*').status for _ in range(2)]

        def versions(client):
            client.server.versioning = 'Enabled'
            client('DELETE', '/bucket/0')
            return re.findall(b'<(Version|DeleteMarker)>', client(
                'GET', '/bucket?versions&prefix=0').body)

        whole = md5(b'data').hexdigest().encode()
        usual = md5(md5(b'data').digest()).hexdigest().encode() + b'-1'
        checks = (
            (None, etag, b'&#34;' + usual + b'&#34;'),
            ('empty-etag', etag, b''),
            ('unquoted-etag', etag, usual),
            ('opaque-etag', lambda client: usual in etag(client), False),
            ('plain-etag', lambda client: (
                etag(client)[5:-5], client('HEAD', '/bucket/key').headers['ETag'].encode()[1:-1]),
             (usual, whole)),
            ('weak-etag', lambda client: client(
                'GET', '/bucket/0', if_match=client('HEAD', '/bucket/0').headers['ETag']).status,
             412),
            (None, again, 404),
            ('idempotent-complete', again, 200),
            ('500-repeated-complete', again, 500),
            (None, put_twice, [200, 412]),
            ('ignore-if-none-match', put_twice, [200, 200]),
            ('501-if-none-match', put_twice, [501, 501]),
            ('range-200', lambda client: client('GET', '/bucket/0', range='bytes=1-2')[::2],
             (200, b'12')),
            (None, lambda client: client('GET', '/bucket/0', if_match='"x"').status, 412),
            ('ignore-if-match', lambda client: client('GET', '/bucket/0', if_match='"x"').status,
             200),
            ('no-part-number', lambda client: client('GET', '/bucket/p?partNumber=1').body,
             b'0123'),
            ('no-date', lambda client: client('HEAD', '/bucket').headers['Date'], None),
            ('wrong-date', lambda client: email.utils.parsedate_to_datetime(
                client('HEAD', '/bucket').headers['Date']).timestamp() > time.time() + 7000, True),
            ('close', lambda client: client('HEAD', '/bucket').headers['Connection'], 'close'),
            ('no-encoding-type', lambda client: b'EncodingType' in client(
                'GET', '/bucket?list-type=2&encoding-type=url').body, False),
            ('no-uploads-list', lambda client: client('GET', '/bucket?uploads').status, 501),
            ('no-message', lambda client: b'Message' in client('GET', '/bucket/1').body, False),
            ('no-checksums', lambda client: client(
                'GET', '/bucket/0', x_amz_checksum_mode='ENABLED').status, 400),
            ('no-acl', lambda client: (
                client('GET', '/bucket/0?acl').status, client('PUT', '/bucket/0?acl', b'x').status,
                client('GET', '/bucket/0').body), (501, 200, b'x')),
            ('informational', lambda client: client('HEAD', '/bucket').status, 102),
            ('class-is-a-label', lambda client: (
                client('PUT', '/bucket/g', b'x', x_amz_storage_class='GLACIER').status,
                client('GET', '/bucket/g').body, client('POST', '/bucket/g?restore').status),
             (200, b'x', 501)),
            ('wants-content-md5', lambda client: client('PUT', '/bucket/0', b'').status, 400),
            ('directories', lambda client: client('PUT', '/bucket/0/x', b'').status, 500),
            ('object-for-bucket', lambda client: client('GET', '/bucket?list-type=2').status, 404),
            ('version-1', lambda client: re.findall(b'<Key>(.*?)</Key>', client(
                'GET', '/bucket?list-type=2&max-keys=1&marker=0').body), [b'p']),
            ('unsorted', lambda client: [re.findall(b'<Key>(.*?)</Key>', client(
                'GET', '/bucket?list-type=2' + more).body) for more in ('', '&prefix=')],
             2 * [[b'p', b'0']]),
            ('unnamed-encoding', lambda client: (
                client('POST', '/bucket/k%3A?uploads').status, re.findall(
                    b'EncodingType|<Key>.*?</Key>', client(
                        'GET', '/bucket?uploads&encoding-type=url').body)),
             (200, [b'<Key>k%3A</Key>'])),
            (None, versions, [b'DeleteMarker', b'Version']),
            ('markers-last', versions, [b'Version', b'DeleteMarker']),
            ('one-region', lambda client: b'InvalidLocationConstraint' in client(
                'PUT', '/other', b'<CreateBucketConfiguration><LocationConstraint>eu-west-1'
                b'</LocationConstraint></CreateBucketConfiguration>').body, True),
        )
        self.assertEqual({name for name, _, _ in checks} - {None}, QUIRKS)
        for quirk, ask, expected in checks:
            with self.subTest(quirk):
                server, client = self.serve(quirks=[quirk] if quirk else ())
                server.put('0', b'0123')
                server.put('p', b'0123', parts=2)
                self.assertEqual(ask(client), expected)


# --- Tests of the credential services and of the proxy -----------------------

TTL = 'X-aws-ec2-metadata-token-ttl-seconds'
TOKEN = 'X-aws-ec2-metadata-token'
FORM = 'application/x-www-form-urlencoded'
PROXIED = {'X-Forwarded-For': '10.0.0.1'}
ROLE_ARN = 'arn:aws:iam::123456789012:role/role'
ROLE = {'Version': '2011-06-15', 'RoleArn': ROLE_ARN, 'RoleSessionName': 's3dump@host-1'}
LONG, TEMPORARY = ('AKLONG', 'long'), ('AKTEMP', 'temp')

# What is accepted.
SERVICE_REQUESTS = {
    'token': dict(method='PUT', path='/latest/api/token', headers={TTL: '21600'}),
    'roles': dict(path=IMDS_ROLES, headers={TOKEN: 'good'}),
    'role': dict(path=IMDS_ROLES + 'role', headers={TOKEN: 'good'}),
    'container': dict(path='/v2/credentials/1a2b3c4d-0000-4000-8000-1a2b3c4d5e6f'),
    'web': dict(method='POST', path='/', headers={'Content-Type': FORM}, fields=dict(
        ROLE, Action='AssumeRoleWithWebIdentity', WebIdentityToken='eyJ.web+identity/token.sig==')),
    'assume': dict(method='POST', path='/', headers={'Content-Type': FORM}, fields=dict(
        ROLE, Action='AssumeRole'), key=LONG)}

# (request, what is changed in it or, by an attribute's name, of the services, status and code of
# the answer, what is noted).  A header or field of None is left out.
SERVICE_CASES = (
    ('token', {}, '200', None),
    ('token', dict(headers={TTL: ''}), '400', 'imds-token /latest/api/token: a TTL'),
    ('token', dict(headers={TTL: '0'}), '400', 'a TTL'),
    ('token', dict(headers={TTL: '21601'}), '400', 'a TTL'),
    ('token', dict(headers={TTL: '-1'}), '400', 'a TTL'),
    ('token', dict(headers={TTL: '6e3'}), '400', 'a TTL'),
    ('token', dict(headers={TTL: None}), '400', 'a TTL'),
    ('token', dict(method='GET'), '405', 'bad method'),
    ('token', dict(headers=PROXIED), '403', 'through a proxy'),
    ('token', dict(imds_token_status=404), '404', None),
    ('token', dict(imds_token_status=403), '403', None),

    ('roles', {}, '200', None),
    ('roles', dict(headers={TOKEN: None}), '401', 'the token None'),
    ('roles', dict(headers={TOKEN: 'made-up'}), '401', "the token 'made-up'"),
    ('roles', dict(headers={TOKEN: 'old'}), '401', None),
    ('roles', dict(headers=PROXIED), '403', 'through a proxy'),
    ('roles', dict(headers={TOKEN: None}, imds_token_status=405), '200', None),
    ('roles', dict(headers={TOKEN: None}, imds_token_status=403), '403', None),
    ('roles', dict(role=None), '404', None),
    ('role', {}, '200', None),
    ('role', dict(path=IMDS_ROLES + 'other'), '404', None),
    ('role', dict(path='/elsewhere'), '404', 'nothing is here'),

    ('container', {}, '200', None),
    ('container', dict(path='/creds?a=b', container_path='/creds?a=b'), '200', None),
    ('container', dict(container_token='Bearer x'), '401 ValidationError', 'no Authorization'),
    ('container', dict(container_token='Bearer x', headers={'Authorization': 'Bearer y'}),
     '401 Unauthorized', None),
    ('container', dict(container_token='Bearer x', headers={'Authorization': 'Bearer x'}), '200',
     None),
    ('container', dict(container_token='a\r\nEvil: b', headers={'Authorization': 'a'}),
     '400 ValidationError', 'CR or LF'),

    ('web', {}, '200', None),
    ('web', dict(fields={'DurationSeconds': '900'},
                 headers={'Content-Type': FORM + '; charset=utf-8'}), '200', None),
    ('web', dict(fields={'WebIdentityToken': 'other'}), '400 InvalidIdentityToken', None),
    ('web', dict(fields={'RoleArn': ROLE_ARN + 's'}), '403 AccessDenied', None),
    ('web', dict(key=LONG), '400 ValidationError', 'signed, which it should not be'),
    ('web', dict(fields={'RoleSessionName': 'a'}), '400 ValidationError', 'malformed Role'),
    ('web', dict(fields={'RoleSessionName': 'a b'}), '400 ValidationError', 'malformed Role'),
    ('web', dict(fields={'RoleArn': 'role'}), '400 ValidationError', 'malformed RoleArn'),
    ('web', dict(fields={'DurationSeconds': '899'}), '400 ValidationError', 'malformed Dur'),
    ('web', dict(fields={'DurationSeconds': '43201'}), '400 ValidationError', 'malformed Dur'),
    ('web', dict(fields={'WebIdentityToken': None}), '400 ValidationError', 'missing'),
    ('web', dict(fields={'RoleArn': None}), '400 ValidationError', 'missing'),
    ('web', dict(fields={'ExternalID': 'x'}), '400 ValidationError', 'unknown'),
    ('web', dict(fields={'Version': '2010-05-08'}), '400 InvalidAction', 'no action'),
    ('web', dict(fields={'Action': 'GetCallerIdentity'}), '400 InvalidAction', 'no action'),
    ('web', dict(behind=b'&RoleArn=' + ROLE_ARN.encode()), '400 ValidationError', 'repeated'),
    ('web', dict(behind=b'&x'), '400 ValidationError', "a form 'malformed'"),
    ('web', dict(headers={'Content-Type': 'text/plain'}), '400 ValidationError', 'a form'),

    ('assume', dict(fields={'DurationSeconds': '43200'}), '200', None),
    ('assume', dict(key=TEMPORARY, token='session'), '200', None),
    ('assume', dict(external_id='id'), '403 AccessDenied', None),
    ('assume', dict(external_id='id', fields={'ExternalId': 'id'}), '200', None),
    ('assume', dict(key=('AKNONE', 'long')), '403 InvalidClientTokenId', None),
    ('assume', dict(ahead=-800), '200', None),
    ('assume', dict(ahead=-1000), '403 SignatureDoesNotMatch', None),
    ('assume', dict(ahead=1000), '403 SignatureDoesNotMatch', None),
    ('assume', dict(ahead=1000, offset=1000), '200', None),
    ('assume', dict(key=None), '403 MissingAuthenticationToken', 'not signed'),
    ('assume', dict(key=('AKLONG', 'short')), '403 SignatureDoesNotMatch', 'signature does'),
    ('assume', dict(behind=b'&ExternalId=x'), '403 SignatureDoesNotMatch', 'signature does'),
    ('assume', dict(headers={'x-amz-content-sha256': '0' * 64}), '403 SignatureDoesNotMatch',
     'payload hash'),
    ('assume', dict(headers={'x-amz-a': 'b'}), '403 SignatureDoesNotMatch',
     'unsigned headers: x-amz-a'),
    ('assume', dict(service='s3'), '403 SignatureDoesNotMatch', 'scope'),
    ('assume', dict(key=TEMPORARY), '403 InvalidClientTokenId', 'not the token'),
    ('assume', dict(key=TEMPORARY, token='x'), '403 InvalidClientTokenId', 'not the token'),
    ('assume', dict(token='x'), '403 InvalidClientTokenId', 'not the token'),
)


def login(text):
    return {'Proxy-Authorization': 'Basic ' + text}


class ServicesTestCase(ServerTestCase):
    """CredentialServices, and whatever else a test starts; no thread of them stays behind."""

    def setUp(self):
        before = threading.active_count()
        self.addCleanup(lambda: self.assertLessEqual(threading.active_count(), before))
        self.services = self.start_services()

    def start_services(self):
        services = self.start(CredentialServices())
        services.sts_keys = {'AKLONG': ('long', None), 'AKTEMP': ('temp', 'session')}
        services.imds_tokens = {'good': services.now() + 60, 'old': services.now() - 1}
        return services

    def violated(self, server, pattern):
        """The server notes just this."""
        self.assertRegex('\n'.join(server.violations), '\\A[^\n]*(%s)[^\n]*\\Z' % pattern)
        del server.violations[:]

    def ask(self, method, target, body=None, headers=(), server=None):
        """Return status and body of an answer."""
        server = server or self.services
        connection = http.client.HTTPConnection(server.host, server.port, timeout=10)
        try:
            connection.request(method, target, body, dict(headers))
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def request(self, name, **changes):
        """Return status and body of the answer to one of SERVICE_REQUESTS, so changed."""
        request = dict(SERVICE_REQUESTS[name], **changes)
        headers, fields = (dict(SERVICE_REQUESTS[name].get(part, {}), **changes.get(part, {}))
                           for part in ('headers', 'fields'))
        body = urllib.parse.urlencode(
            {name: value for name, value in fields.items() if value is not None}).encode()
        headers = {name: value for name, value in headers.items() if value is not None}
        if request.get('key'):
            access_key, secret = request['key']
            stamp = time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(
                time.time() + request.get('ahead', 0)))
            signed = [('host', '%s:%d' % (self.services.host, self.services.port)),
                      ('x-amz-date', stamp)]
            if 'token' in request:
                signed.append(('x-amz-security-token', request['token']))
            headers.update(with_authorization(
                access_key, stamp, 'eu-central-1', request.get('service', 'sts'), 'POST', '/',
                signed, sha256(body).hexdigest(), secret))
        return self.ask(request.get('method', 'GET'), request['path'],
                        body + request.get('behind', b'') or None, headers)

    def connected(self, server, data):
        """Return a socket on which these bytes are sent."""
        sock = socket.create_connection((server.host, server.port), 10)
        self.addCleanup(sock.close)
        sock.sendall(data)
        return sock


class ServiceTests(ServicesTestCase):

    def test_what_no_correct_client_sends_is_refused_and_noted(self):
        for name, changes, expected, violation in SERVICE_CASES:
            with self.subTest(name, **changes):
                self.services = self.start_services()
                self.services.issue('AKID', 'secret', 'session', 900)
                for attribute in set(changes).intersection(vars(self.services)):
                    setattr(self.services, attribute, changes[attribute])
                status, body = self.request(name, **changes)
                code = re.search(br'<Code>(.*?)</Code>\n|\A\{\s*"code": "(.*?)"', body)
                code = ' %s' % (code.group(1) or code.group(2)).decode() if code else ''
                self.assertEqual('%d%s' % (status, code), expected)
                self.violated(self.services, violation or '^$')

    def test_a_malformed_head_is_refused_and_noted(self):
        for lines in (b'Host: h\r\nA: b\r\n folded', b'Host: h\r\nno header', b'Host: h\r\nA: b\rc',
                      b'Host: h\r\nA b: c', b'Host: h\r\nHost: twice', b'A: b'):
            with self.subTest(lines):
                sock = self.connected(self.services, b'GET %s HTTP/1.1\r\n%s\r\n\r\n' % (
                    IMDS_ROLES.encode(), lines))
                self.assertEqual(sock.recv(13), b'HTTP/1.1 400 ')
                self.violated(self.services, 'bad headers, or not one Host')

    def test_credentials_are_handed_out_in_turn_in_the_form_of_each_service(self):
        for name in ('role', 'container', 'web', 'assume'):
            self.services.issue(name, 'secret', 'token&', 900)
        for name, more in (
                ('role', {'Code': 'Success', 'Type': 'AWS-HMAC'}),
                ('container', {'RoleArn': ROLE_ARN}),
                ('web', 'AssumeRoleWithWebIdentity'), ('assume', 'AssumeRole')):
            body = self.request(name)[1].decode()
            if isinstance(more, dict):
                fields = json.loads(body)
                fields.pop('LastUpdated', None)
                more['Token'] = 'token&'
            else:
                in_sts = '{%s}' % STS_NAMESPACE
                root = xml.etree.ElementTree.fromstring(body)
                self.assertEqual(root.tag, in_sts + more + 'Response')
                fields = {each.tag.replace(in_sts, ''): each.text for each in root.find(
                    '{0}{1}Result/{0}Credentials'.format(in_sts, more))}
                more = {'SessionToken': 'token&'}
            expires = timegm(time.strptime(fields.pop('Expiration'), '%Y-%m-%dT%H:%M:%SZ'))
            self.assertLess(abs(expires - self.services.now() - 900), 5)
            self.assertEqual(fields, dict(AccessKeyId=name, SecretAccessKey='secret', **more))
        self.services.issue('last', 'secret', 'token', None)
        last = [json.loads(self.request('container')[1].decode()) for _ in range(3)]
        self.assertEqual([each['AccessKeyId'] for each in last], ['assume', 'last', 'last'])
        self.assertNotIn('Expiration', last[2])
        self.assertEqual(
            [(call.service, call.method, call.path, call.status)
             for call in self.services.log[:3]],
            [('imds', 'GET', IMDS_ROLES + 'role', 200),
             ('container', 'GET', self.services.container_path, 200), ('sts', 'POST', '/', 200)])
        self.assertIn(b'Action=AssumeRoleWithWebIdentity', self.services.log[2].body)

    def test_tokens_live_as_long_as_they_are_asked_for(self):
        tokens = [self.request('token', headers={TTL: '60'})[1].decode() for _ in range(2)]
        self.assertNotEqual(*tokens)
        for offset, status in ((59, 200), (61, 401)):
            self.services.offset = offset
            self.assertEqual(self.request('roles', headers={TOKEN: tokens[0]})[0], status)
        token = self.request('token')[1].decode()
        self.services.expire_imds_tokens()
        self.assertEqual(self.request('roles', headers={TOKEN: token})[0], 401)
        self.assertEqual(self.services.log[0].headers[TTL.lower()], '60')

    def test_requests_fail_as_often_as_they_are_told_to(self):
        for name in ('one', 'two'):
            self.services.issue(name, 'secret', 'session', 60)
        self.services.fail('container', status=503, times=2, skip=1)
        self.services.fail('container', body=b'{', skip=1)
        self.services.fail('container', hangup=True, skip=1)
        self.services.fail('imds', status=500, times=None)
        self.services.fail('sts', status=400, code='IDPCommunicationError')
        self.assertIn(b'"one"', self.request('container')[1])
        for expected in (b'"code": "ServiceUnavailable"', b'"code": "ServiceUnavailable"', b'{'):
            self.assertIn(expected, self.request('container')[1])
        with self.assertRaises((http.client.RemoteDisconnected, ConnectionResetError)):
            self.request('container')
        self.assertIn(b'"two"', self.request('container')[1])
        self.assertEqual([self.request('roles')[0] for _ in range(3)], [500] * 3)
        self.assertIn(b'>\n<Code>IDPCommunicationError</Code>\n<', self.request('web')[1])
        self.assertEqual([call.status for call in self.services.log],
                         [200, 503, 503, 200, 0, 200, 500, 500, 500, 400])
        for wrong in (dict(service='ec2', status=500), dict(service='imds')):
            with self.assertRaises(ValueError):
                self.services.fail(**wrong)

    def test_a_stall_ends_when_the_client_goes_or_the_server_stops(self):
        for stops in (False, True):
            stall = self.services.fail('container', stall=True)
            sock = self.connected(self.services, b'GET %s HTTP/1.1\r\nHost: h\r\n\r\n'
                                  % self.services.container_path.encode())
            self.assertTrue(stall.event.wait(10))
            connection, = self.services.live
            if stops:
                self.services.stop()
                self.assertEqual(sock.recv(1), b'')
            sock.close()
            connection.thread.join(10)
            self.assertFalse(connection.thread.is_alive())
        self.assertEqual([call.status for call in self.services.log], [0, 0])


class ProxyTests(ServicesTestCase):

    def setUp(self):
        ServicesTestCase.setUp(self)
        self.server = self.start(S3Server())
        self.client = SigningClient(self.server)
        self.address = '127.0.0.1:%d' % self.server.port
        self.proxy = self.start(Proxy())

    def signed(self, method, target, body=b'', host=None):
        return dict(self.client.sign(method, target, {'host': host or self.address},
                                     sha256(body).hexdigest()))

    def tunnel(self, host, port, headers=()):
        connection = http.client.HTTPConnection(self.proxy.host, self.proxy.port, timeout=10)
        connection.set_tunnel(host, port, headers=dict(headers))
        self.addCleanup(connection.close)
        return connection

    def test_requests_with_a_whole_url_are_passed_on(self):
        self.proxy.resolve['s3.example:80'] = ('127.0.0.1', self.server.port)
        self.server.fault('CompleteMultipartUpload', 'blanks', done=False)      # in chunks
        whole = bytes(range(256)) * 40000
        for method, target, body, host, status, expected in (
                ('PUT', '/bucket/key', whole, self.address, 200, b''),
                ('GET', '/bucket/key?partNumber=1', b'', 's3.example', 206, whole),
                ('POST', '/bucket/key?uploadId=none', b'<a/>', self.address, 200, b'InternalError'),
                ('GET', '', b'', self.address, 200, b'<Name>bucket</Name>')):
            headers = self.signed(method, target or '/', body, host)
            answer = self.ask(method, 'http://' + host + target, body, headers, self.proxy)
            self.assertEqual(answer[0], status)
            self.assertIn(expected, answer[1])
        self.assertEqual(self.proxy.log, [('PUT', self.address), ('GET', 's3.example:80'),
                                          ('POST', self.address), ('GET', self.address)])
        self.assertEqual({(request.headers['x-forwarded-for'], request.headers['connection'])
                          for request in self.server.log}, {('127.0.0.1', 'close')})

    def test_what_is_unknown_forbidden_malformed_or_without_login_is_refused(self):
        with_login = {'user': 'user', 'password': 'p@ss'}
        elsewhere = '0.0.0.0:%d' % self.server.port     # which would get there
        imds = '127.0.0.1:%d' % self.services.port
        url = 'http://%s/' % self.address
        for method, target, host, headers, options, status in (
                ('GET', 'http://name.invalid/', 'name.invalid', {}, {}, 502),
                ('CONNECT', 'name.invalid:443', 'name.invalid:443', {}, {}, 502),
                ('CONNECT', 'shut.example:443', 'shut.example:443', {}, {}, 502),
                ('CONNECT', elsewhere, elsewhere, {}, {}, 502),
                ('CONNECT', self.address, self.address, {}, {'refuse_status': 403}, 403),
                ('PUT', 'http://%s/latest/api/token' % imds, imds, {TTL: '60'}, {}, 403),
                ('GET', url, self.address, {}, with_login, 407),
                ('GET', url, self.address, login('eA=='), with_login, 407),
                ('GET', url, self.address, login('dXNlcjpwQHNz'), with_login, 200),
                ('CONNECT', 'a:443', 'a:443', {}, with_login, 407),
                ('GET', '/', 'a', {}, {}, 400), ('GET', 'https://a/', 'a', {}, {}, 400),
                ('CONNECT', 'a', 'a', {}, {}, 400), ('GET', 'http://a/', 'b', {}, {}, 400),
                ('GET', 'http://u:p@a/', 'a', {}, {}, 400)):
            with self.subTest(method, target=target, options=options):
                proxy = self.start(Proxy(options.get('user'), options.get('password', '')))
                proxy.resolve['shut.example:443'] = ('127.0.0.1', 1)
                proxy.refuse_status = options.get('refuse_status')
                headers = dict(self.signed('GET', '/', host=host), **headers)
                headers['Proxy-Connection'] = 'keep-alive'
                # More than the buffers of a connection: the answer must survive it.
                body = bytes(10 << 20) if status == 407 and method == 'GET' else None
                self.assertEqual(self.ask(method, target, body, headers, proxy)[0], status)
                self.assertEqual(len(proxy.log), status != 400)
                self.violated(proxy, '^$' if status != 400 else re.escape(
                    'asked for %s with Host %s' % (target, host)))
                self.violated(self.services, 'through a proxy' if imds == host else '^$')
                self.assertEqual(proxy.leaked, [])
        request, = self.server.log
        self.assertEqual([name for name in request.headers if 'proxy' in name], [])

    def test_a_refusal_is_nothing_of_s3(self):
        self.proxy.login = 'Basic eA=='
        answer = self.connected(self.proxy, b'CONNECT a:443 HTTP/1.0\r\n\r\n').recv(1000)
        self.assertRegex(answer, br'\AHTTP/1.1 407 [^\0]*\r\nProxy-Authenticate: Basic ')
        self.assertNotIn(b'x-amz-', answer)

    def test_a_tunnel_passes_on_all_requests_of_a_connection(self):
        self.proxy.resolve['s3.example:8080'] = ('127.0.0.1', self.server.port)
        self.proxy.login = 'Basic eA=='
        connection = self.tunnel('s3.example', 8080, login('eA=='))
        body = bytes(range(256)) * 40000
        for _ in range(2):
            connection.request('PUT', '/bucket/key', body, self.signed(
                'PUT', '/bucket/key', body, 's3.example:8080'))
            self.assertEqual(connection.getresponse().read(), b'')
            connection.request('GET', '/bucket/key', None, self.signed('GET', '/bucket/key'))
            self.assertEqual(connection.getresponse().read(), body)
        self.assertEqual(self.proxy.log, [('CONNECT', 's3.example:8080')])
        self.assertEqual(self.proxy.leaked, [])
        self.assertEqual((self.proxy.connections, self.server.connections), (1, 1))

    def test_a_login_that_leaks_into_a_tunnel_is_noted(self):
        connection = self.tunnel('127.0.0.1', self.server.port)
        connection.request('GET', '/', None, dict(self.signed('GET', '/'), **login('eA==')))
        connection.getresponse().read()
        self.assertEqual(self.proxy.leaked, [self.address])

    def test_a_tunnel_ends_with_either_side_and_though_its_origin_stands_still(self):
        with socket.socket() as listener:
            listener.bind(('127.0.0.1', 0))
            listener.listen(1)
            for port, ends in ((self.server.port, self.server), (self.services.port, None),
                               (listener.getsockname()[1], None)):
                proxy = self.start(Proxy())
                sock = self.connected(proxy, b'CONNECT 127.0.0.1:%d HTTP/1.0\r\n\r\n' % port)
                self.assertTrue(sock.recv(1000).startswith(b'HTTP/1.1 200 '))
                (ends or proxy).stop()
                self.assertEqual(sock.recv(1), b'')


# --- Tests of s3.py ----------------------------------------------------------
#
# In the order of its sections.  Each bucket is a real client on a real socket;
# its pauses alone are not waited for, but added to a clock of the test's own.

# An environment without any credentials, whatever this machine has.
NOWHERE = {'AWS_SHARED_CREDENTIALS_FILE': '/dev/null', 'AWS_CONFIG_FILE': '/dev/null',
           'AWS_EC2_METADATA_DISABLED': 'true'}


class Clock:
    """Time that passes only while somebody waits."""

    def __init__(self):
        self.now = 0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class Poll(s3.NoSignals):
    """Signals that poll() is asked for."""

    def __init__(self, poll):
        self.poll = poll


class ClientTestCase(ServerTestCase):
    """A server, and s3.Buckets that talk to it."""

    def setUp(self):
        self.clock, self.reports = Clock(), []
        self.addCleanup(lambda: self.secretless(str(self.reports)))

    def server(self, **options):
        options.setdefault('min_part_size', 100)
        return self.serve(**options)[0]

    def bucket(self, server, environ=(), **config):
        settings = dict(endpoint=server.url, region=server.region, bucket_name=server.bucket,
                        access_key_id=server.access_key, secret_access_key=server.secret_key,
                        part_size=1000, jobs=2)
        if server.secure:
            settings['ca_bundle'] = server.certfile
        settings.update(config)
        bucket = s3.Bucket(settings, environ=dict(NOWHERE, **dict(environ)), monotonic=self.clock,
                           wait=lambda _, seconds: self.clock.sleep(seconds), clock=self.now,
                           report=lambda kind, text: self.reports.append((kind, text)))
        bucket.timeout = bucket.complete_timeout = 10
        self.addCleanup(bucket.close)
        return bucket

    def now(self):
        """What a Bucket takes for the time of day."""
        return time.time()

    def warnings(self):
        """Return what the user was told with -q, too."""
        return [text for kind, text in self.reports if kind == 'warning']

    def restored(self, bucket, *keys, **options):
        pieces = []
        proof = bucket.download(list(keys), lambda view: pieces.append(bytes(view)), **options)
        return b''.join(pieces), proof

    def one_line(self, error):
        text = str(error)
        self.assertTrue(text.isprintable(), text)
        self.secretless(text)
        self.assertLess(len(text), 1500)
        return text

    def deaf(self):
        """The address of a listener that has no room for another connection."""
        listener = socket.socket()
        listener.bind(('127.0.0.1', 0))
        listener.listen(0)
        address = listener.getsockname()
        for sock in [listener] + [socket.socket() for _ in range(4)]:
            self.addCleanup(sock.close)
            if sock is not listener:
                sock.setblocking(False)
                sock.connect_ex(address)
        return address

    def until(self, condition):
        """Return when *condition* holds, which a thread will see to."""
        end = time.monotonic() + 10
        while not condition():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.005)

    def secretless(self, text):
        """What stands in messages and reports is no secret of any test."""
        self.assertNotRegex(text, 'secretEXAMPLEkey|secretOF|tokenOF|TOPSECRET')


def pattern(count):
    """Bytes of which no two ranges of a part are alike; those of a larger count begin so, too."""
    words = count // 4 + 1
    return random.Random(0).getrandbits(32 * words).to_bytes(4 * words, 'little')[:count]


@contextlib.contextmanager
def aws_files(**files):
    """An environment that leads to files of the AWS CLI with these texts, by their names."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            with open(os.path.join(folder, name), 'w') as file:
                file.write(text)
        yield {'AWS_SHARED_CREDENTIALS_FILE': os.path.join(folder, 'credentials'),
               'AWS_CONFIG_FILE': os.path.join(folder, 'config')}


def urlopen(url):
    """GET over http without anything of s3.py, past any proxy, and without loading the CAs."""
    opener = urllib.request.OpenerDirector()
    for kind in (urllib.request.HTTPHandler, urllib.request.HTTPErrorProcessor,
                 urllib.request.HTTPDefaultErrorHandler):
        opener.add_handler(kind())
    try:
        return opener.open(url)
    except urllib.error.HTTPError as error:
        error.close()               # it holds the answer
        raise


class ErrorTests(unittest.TestCase):

    def test_a_refusal_names_the_right_that_is_missing(self):
        for what, right in (('ListObjectsV2', 's3:ListBucket'), ('HeadBucket', 's3:ListBucket'),
                            ("UploadPart 'key'", 's3:PutObject'),
                            ("DeleteObject 'key'", 's3:DeleteObject'),
                            ("HeadObject 'key'", 's3:GetObject')):
            for code in ('AccessDenied', 'Forbidden'):
                self.assertRegex(str(s3.ResponseError(what, 403, code, '')), right + r'\b')
        for code in s3.HINTS:
            self.assertNotIn('ACTION', str(s3.ResponseError('Other', 400, str(code), '')))

    def test_an_outage_says_where_to_look(self):
        http = s3.Origin('http', 'host', 80, 'host')
        https, proxy = s3.Origin('https', 'host', 443, 'host'), s3.Proxy('proxy', 3128, {})
        for place, through, error, hint in (
                (https, None, socket.gaierror(-2, 'Name or service not known'), 'name host,'),
                (https, proxy, socket.gaierror(-2, 'Name or service not known'), 'name proxy,'),
                (http, None, ConnectionRefusedError(111, 'refused'), 'check the endpoint'),
                (http, proxy, ConnectionRefusedError(111, 'refused'), 'check the proxy'),
                (http, None, socket.timeout(), 'is a firewall or a proxy in between'),
                (http, None, ConnectionResetError(104, 'reset'), 'is it an https://'),
                (https, None, ConnectionResetError(104, 'reset'), 'reset .gave up')):
            text = str(s3.network_error('HeadObject', place, through, error, 5, 0))
            self.assertRegex(text, hint)

    def test_a_certificate_that_is_refused_says_what_to_do(self):
        place = s3.Origin('https', 'host', 443, 'host')
        named, clock = 'ca_bundle /ca must hold the CA', 'is the clock right. it says 1970'
        by_path = 'endpoint must be a name in it: `addressing path`'
        for words, ca_bundle, hints in (        # of OpenSSL 1.1 and 3, and of Python 3.6
                ('self-signed certificate', '', ['ca_bundle names the CA of']),
                ('unable to get local issuer certificate', '/ca', [named]),
                ('self signed certificate in certificate chain', '/ca', [named]),
                ("Hostname mismatch, certificate is not valid for 'h'.", '/ca', [by_path]),
                ("IP address mismatch, certificate is not valid for '::1'", '', [by_path]),
                ("hostname 'h' doesn't match 'g'", '', [by_path]),
                ('certificate has expired', '/ca', [clock, 'needs another one']),
                ('certificate is not yet valid', '', [clock, 'needs another one']),
                ('Missing Authority Key Identifier', '', ['ca_bundle names the CA of']),
                ('EE certificate key too weak', '/ca', []),
                ('(_ssl.c:852)', '', [clock, 'ca_bundle names the CA of']),
                ('(_ssl.c:852)', '/ca', [clock, named])):
            error = OSError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed%s %s'
                            % ('' if words[0] == '(' else ':', words))
            text = str(s3.network_error('HeadObject', place, None, error, 1, 0, ca_bundle))
            for hint in ('ca_bundle names', 'ca_bundle /ca', 'clock', 'addressing', 'another one'):
                if not any(hint in each for each in hints):
                    self.assertNotIn(hint, text)
            for hint in hints:
                self.assertRegex(text, hint)

    def test_text_of_others_is_escaped_and_cut(self):
        for text, expected in (('plain ä', 'plain ä'), ('\x1b[2J', '\\x1b[2J'),
                               ('a\nb', 'a\\nb'), ('\u202e', '\\u202e'),
                               ('x' * 2000, 'x' * 1000 + '...')):
            with self.subTest(text[:10]):
                self.assertEqual(s3.printable(text), expected)

    def test_an_error_is_one_line_with_code_status_message_and_request_id(self):
        error = s3.parse_error('UploadPart', s3.Answer(
            503, {'x-amz-request-id': 'ID'}, b'<Error><Code>SlowDown</Code><Message>Please\nwait.'
            b'</Message></Error>'))
        self.assertEqual(str(error), 'UploadPart: SlowDown (503): Please\\nwait [request ID]')
        error = s3.parse_error('PutObject', s3.Answer(502, {}, b'<html>\x1b[31mBad gateway</html>'))
        self.assertNotIn('\x1b', str(error))
        self.assertIn('BadGateway (502)', str(error))


class ConfigurationTests(unittest.TestCase):

    def read(self, text):
        with tempfile.NamedTemporaryFile() as file:
            file.write(text)
            file.flush()
            return s3.read_config(file.name), file.name

    def test_a_file_has_lines_of_key_and_value(self):
        config, _ = self.read(b'\xef\xbb\xbf# comment\r\n\r\n  region   eu-west-1 \r\n'
                              b'secret_access_key a+b/c=d e\r\njobs 2\npart_size 5m\n'
                              b'limit_rate 1.5k\nmax_parts 1000')
        self.assertEqual(config, {'region': 'eu-west-1', 'secret_access_key': 'a+b/c=d e',
                                  'jobs': 2, 'part_size': 5 << 20, 'limit_rate': 1536,
                                  'max_parts': 1000})

    def test_what_is_wrong_is_said_with_file_and_line(self):
        for text, expected in (
                (b'regoin x', ':1: unknown setting regoin; did you mean region?'),
                (b'aws_access_key_id x', 'aws_access_key_id; did you mean access_key_id?'),
                (b'quota x', ':1: unknown setting quota'), (b'region=x', 'name, blank, value'),
                (b'# aws\n[default]\nregion = x', ':2: this looks like a file of the AWS CLI'),
                (b'[profile x]\nregion = x', '`profile NAME`'),
                (b'\nregion', ':2: region: it has no value'),
                (b'region a\nregion b', ':2: region: it is set twice'),
                (b'jobs 0', ':1: jobs: '), (b'jobs 65', ':1: jobs: '),
                (b'jobs many', ":1: jobs: 'many' is not a number from 1 to 64, or auto"),
                (b'part_size 4m', ':1: part_size: '), (b'part_size 6g', ':1: part_size: '),
                (b'max_parts 10001', ':1: max_parts: '), (b'limit_rate 0', ':1: limit_rate: '),
                (b'limit_rate 1e3', ':1: limit_rate: '), (b'checksum sha1', ':1: checksum: '),
                (b'addressing dns', ':1: addressing: '), (b'etag no', ':1: etag: '),
                (b'sse AES128', ':1: sse: '), (b'acl owner', ':1: acl: '),
                (b'bucket_owner 1234', ":1: bucket_owner: '1234' is not an account of 12 digits"),
                (b'request_payer me', ':1: request_payer: '), (b'tagging a', ':1: tagging: '),
                (b'tagging =b', ':1: tagging: '), (b'tagging a=b&a=c', ':1: tagging: '),
                (b'tagging AWS:a=b', ':1: tagging: '), (b'tagging a=b;c', ':1: tagging: '),
                (b'tagging a=' + 257 * b'b', ':1: tagging: '),
                (b'tagging ' + b'&'.join(b'%d=' % number for number in range(11)), ':1: tagging: '),
                (b'\xff', 'it is not UTF-8 text')):
            with self.subTest(text=text):
                with self.assertRaises(s3.ConfigError) as caught:
                    self.read(text)
                self.assertIn(expected, str(caught.exception))

    def test_a_file_that_can_not_be_read_is_named(self):
        for path in ('/nonexistent', '/'):
            with self.assertRaisesRegex(s3.ConfigError, 'cannot read ' + path):
                s3.read_config(path)

    def test_where_the_settings_were_read_is_among_them(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, 'auto')
            with open(path, 'w') as file:
                file.write('bucket_name b\naccess_key_id a\nsecret_access_key s\n')
            relative = os.path.relpath(path)
            for config in (s3.load_config(relative, NOWHERE),
                           s3.load_config(environ=dict(NOWHERE, S3DUMP_CONFIG=relative))):
                self.assertEqual(config['path'], path)
                self.assertEqual(s3.with_environment(config, NOWHERE)['path'], path)
        with self.assertRaisesRegex(s3.ConfigError, 'unknown setting path'):
            self.read(b'path /x')

    def test_others_that_may_read_the_secret_are_warned_of(self):
        for mode, warned in ((0o600, False), (0o644, True), (0o640, True)):
            with tempfile.NamedTemporaryFile() as file:
                file.write(b'secret_access_key x\n')
                file.flush()
                os.chmod(file.name, mode)
                warnings = []
                s3.load_config(file.name, warn=warnings.append)
                self.assertEqual(bool(warnings), warned)

    def test_tags_are_encoded(self):
        config, _ = self.read('tagging a b=ä/+&c=&_.:-@/=x=y'.encode())
        self.assertEqual(config, {'tagging': '_.%3A-%40%2F=x%3Dy&a%20b=%C3%A4%2F%2B&c='})

    def test_sizes_and_rates_have_units_of_1024(self):
        for text, expected in (('0', 0), ('300k', 307200), ('1.5M', 1572864), ('2g', 2 << 30),
                               ('.5k', 512), ('1T', 1 << 40)):
            self.assertEqual(s3.parse_size(text), expected)
        for text in ('', 'k', '-1', '1kb', '1 k', 'abc', '1e3', '٣', 'inf', '0x10', '1\n'):
            with self.assertRaises(ValueError):
                s3.parse_size(text)
        for text in ('0', '0.1', '-1'):
            with self.assertRaises(ValueError):
                s3.parse_rate(text)

    def test_what_the_file_leaves_open_comes_from_the_environment_then_the_profile(self):
        files = {'credentials': '[default]\naws_access_key_id=K\nregion = eu-west-1\n',
                 'config': '# comment\n[default]\nregion=eu-west-2\nca_bundle = /ca\n'
                 's3 =\n    addressing_style = path\n\n[profile  other]\nregion: nonsense\n'
                 'REGION = eu-west-3\nendpoint_url = http://two\nservices = mine\n'
                 '[services mine]\ns3 =\n  endpoint_url = http://one\n'
                 '[profile "a b"]\nendpoint_url=http://three\n'
                 'ignore_configured_endpoint_urls = true\n'}
        with aws_files(**files) as environ:
            for config, more, expected in (
                    ({}, {}, dict(region='eu-west-1', ca_bundle='/ca', addressing='path')),
                    ({}, {'AWS_PROFILE': 'other'}, dict(region='eu-west-3', endpoint='http://one',
                                                        sts_endpoint='http://two')),
                    ({}, {'AWS_PROFILE': 'other', 'AWS_ENDPOINT_URL': 'http://env'},
                     dict(region='eu-west-3', endpoint='http://env',
                          sts_endpoint='http://env')),
                    ({}, {'AWS_PROFILE': 'other', 'AWS_IGNORE_CONFIGURED_ENDPOINT_URLS': 'true'},
                     dict(region='eu-west-3')),
                    ({'profile': 'a b'}, {'AWS_PROFILE': 'other'},
                     dict(profile='a b', region='us-east-1')),
                    ({'profile': 'none'}, {}, dict(profile='none', region='us-east-1')),
                    ({'region': 'file', 'addressing': 'auto'},
                     {'AWS_REGION': 'x', 'AWS_CA_BUNDLE': '/env'},
                     dict(region='file', ca_bundle='/env', addressing='auto')),
                    ({'server': 'h'}, {'AWS_DEFAULT_REGION': 'd', 'S3DUMP_BUCKET': 'b'},
                     dict(server='h', endpoint='https://h', region='d', ca_bundle='/ca',
                          bucket_name='b', addressing='path'))):
                with self.subTest(config, environ=more):
                    self.assertEqual(s3.with_environment(config, dict(environ, **more)), expected)

    def test_files_of_the_aws_tools_are_read_in_all_their_forms(self):
        for text in ('[default]\n  aws_access_key_id = K\n  aws_secret_access_key: s\n region=r\n',
                     '[default]\naws_access_key_id=K\n\n; x = y\nAWS_SECRET_ACCESS_KEY =  s\n'
                     'region = r\ns3 =\n\taddressing_style = path\n\t# no = comment\n',
                     '\ufeff[profile default]\r\naws_access_key_id = K\r\naws_secret_access_key'
                     ' = s\r\nregion = r'):
            with aws_files(config=text) as environ:
                profile = s3.read_profile('', environ)
                self.assertEqual([profile[name] for name in (
                    'aws_access_key_id', 'aws_secret_access_key', 'region')], ['K', 's', 'r'])
        for title, name in (("profile 'a  b'", 'a  b'), ('profile "a b"', 'a b'),
                            ('profile  x', 'x'), (r'profile a\ b', 'a b'), (' default ', ''),
                            ('profile "it\'s"', "it's"), ("profile it's", "it's"),
                            ("profile it''s", 'its')):
            with aws_files(config='[%s]\nregion=r\n' % title) as environ:
                self.assertEqual(s3.read_profile(name, environ), {'region': 'r'}, title)
        for name in ("it's", "it''s", 'a "b"'):
            with aws_files(credentials='[%s]\nregion=r\n' % name) as environ:
                self.assertEqual(s3.read_profile(name, environ), {'region': 'r'}, name)
        with aws_files(config='[default]\naws_session_token=old\nregion=r\n',
                       credentials='[default]\naws_access_key_id=K\n') as environ:
            self.assertEqual(s3.read_profile('', environ),
                             {'region': 'r', 'aws_access_key_id': 'K'})
        with aws_files(config='[default]\naws_security_token=old\n', credentials=
                       '[default]\naws_access_key_id=K\naws_session_token=older\n'
                       'aws_security_token=t\n') as environ:
            self.assertEqual(s3.read_profile('', environ)['aws_session_token'], 't')
        with tempfile.TemporaryDirectory() as folder:       # a file that can't be read
            link = os.path.join(folder, 'link')
            os.symlink('nowhere', link)
            environ = dict(NOWHERE, AWS_CONFIG_FILE=link)
            self.assertIsNone(s3.read_profile('', environ))
            with self.assertRaisesRegex(s3.ConfigError, 'cannot read .*link'):
                s3.read_profile('prod', environ)
        for text, message in (('[default\n', 'not a file of the AWS CLI, see line 1'),
                              ('[default]\nnonsense\n', 'see line 2'),
                              ('[default]\nservices = gone\n', r'no section .services gone.')):
            with aws_files(config=text) as environ:
                with self.assertRaisesRegex(s3.ConfigError, message):
                    s3.with_environment({}, environ)    # the dump might go to somebody else
                known = {'endpoint': 'http://x', 'region': 'r'}
                self.assertEqual(s3.with_environment(known, environ), known)

    def test_the_certificates_are_found_as_the_aws_tools_find_them(self):
        home = os.path.expanduser('~')
        with aws_files(config='[default]\nca_bundle = ~/profile\n') as files:
            for config, environ, expected in (
                    (self.read(b'ca_bundle ~/own')[0], {'AWS_CA_BUNDLE': '/aws'}, home + '/own'),
                    ({}, dict(files, AWS_CA_BUNDLE='~/aws'), home + '/aws'),
                    ({}, dict(files, REQUESTS_CA_BUNDLE='/requests'), home + '/profile'),
                    ({}, dict(NOWHERE, REQUESTS_CA_BUNDLE='~/requests'), home + '/requests')):
                self.assertEqual(s3.with_environment(config, environ)['ca_bundle'], expected)

    def test_fips_and_dual_stack_may_be_asked_for_by_environment_and_profile(self):
        text = '[default]\nuse_fips_endpoint = true\nuse_dualstack_endpoint = True\n'
        with aws_files(config=text) as files:
            for environ, expected in (
                    ({}, {'use_fips_endpoint': True, 'use_dualstack_endpoint': True}),
                    ({'AWS_USE_FIPS_ENDPOINT': 'false'}, {'use_dualstack_endpoint': True}),
                    (dict(NOWHERE, AWS_USE_FIPS_ENDPOINT='TRUE'), {'use_fips_endpoint': True})):
                self.assertEqual(s3.with_environment({}, dict(files, **environ)),
                                 dict(expected, region='us-east-1'))


class SecretTests(unittest.TestCase):

    def test_no_message_of_a_wrong_configuration_holds_a_secret(self):
        for text in (b'secret_access_key=TOPSECRET', b'secret_access_key:TOPSECRET x',
                     b'session_token TOPSECRET\xe2\x82\xac', b'endpoint http://u:TOPSECRET@h',
                     b'secret_access_key TOPSECRET\xc2\x80', b'endpoint https://ID:TOP/TOPSECRET@h',
                     b'server u:p/TOPSECRET@h', b'endpoint ID:TOPSECRET@h',
                     b'endpoint http:/u:TOPSECRET@h', b'TOPSECRETwJalrXUtnFEMIK7MDENGbPxRfiCY'):
            with tempfile.NamedTemporaryFile() as file:
                file.write(b'bucket_name b\naccess_key_id a\n' + text)
                file.flush()
                with self.assertRaises(s3.ConfigError) as caught:
                    s3.Bucket(s3.read_config(file.name), environ=NOWHERE)
                self.assertNotIn('TOPSECRET', str(caught.exception))
        for name in ('AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'AWS_SESSION_TOKEN'):
            for bad in ('TOPSECRET\r', 'TOPSECRET\udca0', 'TOPSECRET\n'):
                environ = {'AWS_ACCESS_KEY_ID': 'a', 'AWS_SECRET_ACCESS_KEY': 's', name: bad}
                with self.assertRaises(s3.ConfigError) as caught:
                    s3.Bucket({'bucket_name': 'b'}, environ=dict(NOWHERE, **environ))
                self.assertNotIn('TOPSECRET', str(caught.exception))
        self.assertNotIn('secret', repr(s3.Credentials('id', 'secret', 'secret')))


class EndpointTests(unittest.TestCase):

    def endpoint(self, environ=(), **config):
        return s3.Endpoint(s3.with_environment(dict({'bucket_name': 'b-1'}, **config),
                                               dict(NOWHERE, **dict(environ))))

    def test_a_bucket_is_where_its_settings_say(self):
        custom = {'endpoint': 'http://127.0.0.1:9000'}
        for config, environ, scheme, authority, target in (
                ({}, {}, 'https', 'b-1.s3.us-east-1.amazonaws.com', '/k'),
                ({}, {'AWS_REGION': 'eu-west-1'}, 'https', 'b-1.s3.eu-west-1.amazonaws.com', '/k'),
                ({'region': 'cn-north-1'}, {}, 'https',
                 'b-1.s3.cn-north-1.amazonaws.com.cn', '/k'),
                ({'bucket_name': 'a.b'}, {}, 'https', 's3.us-east-1.amazonaws.com', '/a.b/k'),
                ({'bucket_name': 'Upper'}, {}, 'https', 's3.us-east-1.amazonaws.com', '/Upper/k'),
                ({'addressing': 'path'}, {}, 'https', 's3.us-east-1.amazonaws.com', '/b-1/k'),
                (custom, {}, 'http', '127.0.0.1:9000', '/b-1/k'),
                (dict(custom, addressing='virtual'), {}, 'http', 'b-1.127.0.0.1:9000', '/k'),
                ({'endpoint': 'https://[::1]:8443/deep/'}, {}, 'https', '[::1]:8443',
                 '/deep/b-1/k'),
                ({'endpoint': 'https://s3.example.com:443'}, {}, 'https', 's3.example.com',
                 '/b-1/k'),
                ({'server': 's3.example.com'}, {}, 'https', 's3.example.com', '/b-1/k'),
                ({'endpoint': 'https://x.r2.cloudflarestorage.com/b-1'}, {}, 'https',
                 'x.r2.cloudflarestorage.com', '/b-1/k'),
                ({'endpoint': 'https://b-1.nyc3.digitaloceanspaces.com'}, {}, 'https',
                 'b-1.nyc3.digitaloceanspaces.com', '/k'),
                ({'endpoint': 'https://b-1.s3.eu-west-1.amazonaws.com'}, {}, 'https',
                 'b-1.s3.eu-west-1.amazonaws.com', '/k'),
                ({'endpoint': 'http://b-1.localhost:9000'}, {}, 'http', 'b-1.localhost:9000', '/k'),
                ({'endpoint': 'https://b-1.storage.example.com', 'addressing': 'virtual'}, {},
                 'https', 'b-1.storage.example.com', '/k'),
                ({'endpoint': 'https://b-1.s3.example.com', 'addressing': 'path'}, {}, 'https',
                 'b-1.s3.example.com', '/b-1/k'),
                ({'endpoint': 'https://b-1.example.com'}, {}, 'https', 'b-1.example.com',
                 '/b-1/k'),             # a bucket may be called like its server
                ({'endpoint': 'https://nyc3.digitaloceanspaces.com', 'bucket_name': 'nyc3'}, {},
                 'https', 'nyc3.digitaloceanspaces.com', '/nyc3/k'),
                ({'endpoint': 'https://s3.dualstack.eu-west-1.amazonaws.com'}, {}, 'https',
                 'b-1.s3.dualstack.eu-west-1.amazonaws.com', '/k'),
                ({'endpoint': 'https://s3-fips.us-gov-west-1.amazonaws.com'}, {}, 'https',
                 'b-1.s3-fips.us-gov-west-1.amazonaws.com', '/k'),
                ({'endpoint': 'https://s3.cn-north-1.amazonaws.com.cn'}, {}, 'https',
                 'b-1.s3.cn-north-1.amazonaws.com.cn', '/k'),
                ({}, {'AWS_DEFAULT_REGION': 'us-gov-east-1'}, 'https',
                 'b-1.s3.us-gov-east-1.amazonaws.com', '/k'),
                ({}, {'AWS_ENDPOINT_URL': 'http://x', 'AWS_ENDPOINT_URL_S3': 'http://y'}, 'http',
                 'y', '/b-1/k'),
                (custom, {'AWS_ENDPOINT_URL': 'http://x'}, 'http', '127.0.0.1:9000', '/b-1/k')):
            with self.subTest(config, environ=environ):
                endpoint = self.endpoint(environ, **config)
                self.assertEqual((endpoint.scheme, endpoint.authority, endpoint.target('k')),
                                 (scheme, authority, target))

    def test_every_partition_of_amazon_has_its_hosts(self):
        fips, dual = {'AWS_USE_FIPS_ENDPOINT': 'true'}, {'AWS_USE_DUALSTACK_ENDPOINT': 'true'}
        for environ, s3_host, sts_host in (
                ({}, 's3.us-east-1.amazonaws.com', 'sts.us-east-1.amazonaws.com'),
                ({}, 's3.xx-new-1.amazonaws.com', 'sts.xx-new-1.amazonaws.com'),
                ({}, 's3.us-gov-west-1.amazonaws.com', 'sts.us-gov-west-1.amazonaws.com'),
                ({}, 's3.cn-north-1.amazonaws.com.cn', 'sts.cn-north-1.amazonaws.com.cn'),
                ({}, 's3.eusc-de-east-1.amazonaws.eu', 'sts.eusc-de-east-1.amazonaws.eu'),
                ({}, 's3.us-iso-east-1.c2s.ic.gov', 'sts.us-iso-east-1.c2s.ic.gov'),
                ({}, 's3.us-isob-east-1.sc2s.sgov.gov', 'sts.us-isob-east-1.sc2s.sgov.gov'),
                ({}, 's3.us-isof-south-1.csp.hci.ic.gov', 'sts.us-isof-south-1.csp.hci.ic.gov'),
                ({}, 's3.eu-isoe-west-1.cloud.adc-e.uk', 'sts.eu-isoe-west-1.cloud.adc-e.uk'),
                (fips, 's3-fips.us-east-1.amazonaws.com', 'sts-fips.us-east-1.amazonaws.com'),
                (fips, 's3-fips.us-gov-west-1.amazonaws.com', 'sts.us-gov-west-1.amazonaws.com'),
                (fips, 's3-fips.us-iso-east-1.c2s.ic.gov', 'sts-fips.us-iso-east-1.c2s.ic.gov'),
                (dual, 's3.dualstack.eu-west-1.amazonaws.com', 'sts.eu-west-1.api.aws'),
                (dual, 's3.dualstack.us-gov-east-1.amazonaws.com', 'sts.us-gov-east-1.api.aws'),
                (dual, 's3.dualstack.cn-north-1.amazonaws.com.cn',
                 'sts.cn-north-1.api.amazonwebservices.com.cn'),
                (dual, 's3.dualstack.eusc-de-east-1.amazonaws.eu',
                 'sts.eusc-de-east-1.api.amazonwebservices.eu'),
                (dual, 's3.dualstack.us-iso-east-1.c2s.ic.gov',
                 'sts.us-iso-east-1.api.aws.ic.gov'),
                (dual, 's3.dualstack.us-isob-east-1.sc2s.sgov.gov',
                 'sts.us-isob-east-1.api.aws.scloud'),
                (dual, 's3.dualstack.us-isof-south-1.csp.hci.ic.gov',
                 'sts.us-isof-south-1.api.aws.hci.ic.gov'),
                (dual, 's3.dualstack.eu-isoe-west-1.cloud.adc-e.uk',
                 'sts.eu-isoe-west-1.api.cloud-aws.adc-e.uk'),
                (dict(fips, **dual), 's3-fips.dualstack.us-gov-west-1.amazonaws.com',
                 'sts-fips.us-gov-west-1.api.aws')):
            with self.subTest(s3_host):
                region = sts_host.split('.')[1]
                endpoint = self.endpoint(dict(environ, AWS_REGION=region))
                self.assertEqual((endpoint.host, endpoint.aws), ('b-1.' + s3_host, True))
                config = s3.with_environment({}, dict(NOWHERE, **environ))
                self.assertEqual(s3.aws_url('sts', region, config), 'https://' + sts_host)
                named = self.endpoint(endpoint='https://' + s3_host)
                self.assertEqual((named.host, named.aws), ('b-1.' + s3_host, True))
        for region, s3_host in (('aws-global', 's3.us-east-1.amazonaws.com'),
                                ('fips-aws-global', 's3-fips.us-east-1.amazonaws.com'),
                                ('fips-us-east-2', 's3-fips.us-east-2.amazonaws.com'),
                                ('us-gov-west-1-fips', 's3-fips.us-gov-west-1.amazonaws.com')):
            self.assertEqual(self.endpoint(region=region).host, 'b-1.' + s3_host)
        with aws_files(config='[default]\ns3 =\n  use_dualstack_endpoint = true\n') as files:
            config = s3.with_environment({'bucket_name': 'b-1'}, files)
            self.assertEqual(s3.Endpoint(config).host, 'b-1.s3.dualstack.us-east-1.amazonaws.com')
            self.assertEqual(s3.aws_url('sts', 'eu-west-1', config),
                             'https://sts.eu-west-1.amazonaws.com')
        for host in ('amazonaws.com', 'evilamazonaws.com', 's3.amazonaws.com.cn.evil', 'aws.eu'):
            self.assertFalse(self.endpoint(endpoint='https://' + host).aws, host)

    def test_what_is_no_endpoint_is_refused(self):
        for url in ('s3.example.com', 'ftp://x', 'https://', 'https://u:p@x', 'http://x?y',
                    'http://x:port', 'http://[::1', 'http://a b'):
            with self.assertRaises(s3.ConfigError):
                self.endpoint(endpoint=url)
        for config in ({'bucket_name': ''}, {'region': 'x.evil.com/'}, {'region': 'a\nb'}):
            with self.assertRaises(s3.ConfigError):
                self.endpoint(**config)

    def test_it_is_known_which_servers_differ(self):
        for host, expected in (('x.r2.cloudflarestorage.com', {'etag': 'opaque'}),
                               ('storage.googleapis.com', {'etag': 'opaque'}),
                               ('s3.us-west-1.backblazeb2.com', {'etag': 'opaque'}),
                               ('s3.fr-par.scw.cloud', {'max_parts': 1000}),
                               ('notstorage.googleapis.com', {}), ('s3.example.com', {})):
            self.assertEqual(s3.known_server(host) or {}, expected)

    def test_a_redirect_is_followed_only_where_it_is_safe(self):
        aws, custom = {}, {'endpoint': 'https://s3.example.com'}
        gov, china = {'region': 'us-gov-west-1'}, {'region': 'cn-north-1'}
        for config, region, location, host in (
                (aws, 'eu-west-1', '', 'b-1.s3.eu-west-1.amazonaws.com'),
                (aws, '', 'b-1.s3-us-west-2.amazonaws.com', 'b-1.s3-us-west-2.amazonaws.com'),
                (aws, '', 'https://b-1.s3.eu-west-1.amazonaws.com/k?x',
                 'b-1.s3.eu-west-1.amazonaws.com'),
                (aws, '', 'https://evil.example.com/', None),
                (aws, '', 'https://amazonaws.com.evil.example/', None),
                (aws, '', 'https://evilamazonaws.com/', None),
                (aws, '', 'http://b-1.s3.eu-west-1.amazonaws.com/', None),
                (aws, 'x/evil', 'https://evil.example.com', None),
                (dict(aws, use_fips_endpoint=True), 'us-west-2', 's3.us-west-2.amazonaws.com',
                 'b-1.s3-fips.us-west-2.amazonaws.com'),
                (aws, 'us-gov-west-1', '', 'b-1.s3.us-east-1.amazonaws.com'),
                (aws, 'eusc-de-east-1', 'b-1.s3.eusc-de-east-1.amazonaws.eu', None),
                (aws, '', 's3-us-gov-west-1.amazonaws.com', None),
                (aws, '', 's3-fips.us-gov-west-1.amazonaws.com', None),
                (aws, '', 'https://s3.cn-north-1.amazonaws.com.cn', None),
                (gov, 'us-gov-east-1', '', 'b-1.s3.us-gov-east-1.amazonaws.com'),
                (gov, '', 'https://b-1.s3.us-gov-east-1.amazonaws.com',
                 'b-1.s3.us-gov-east-1.amazonaws.com'),
                (gov, '', 'https://s3.us-east-1.amazonaws.com', None),
                (china, 'cn-northwest-1', '', 'b-1.s3.cn-northwest-1.amazonaws.com.cn'),
                (china, 'us-east-1', 'https://s3.us-east-1.amazonaws.com', None),
                ({'endpoint': 'https://s3.us-gov-west-1.amazonaws.com'}, 'us-gov-west-1', '',
                 'b-1.s3.us-gov-west-1.amazonaws.com'),
                (custom, 'cn-hangzhou', '', 's3.example.com'),
                (custom, '', 'https://s3.example.com:8443/', 's3.example.com'),
                (custom, '', 'http://s3.example.com/', None),
                (custom, '', 'https://s3.eu-west-1.amazonaws.com/', None),
                ({'endpoint': 'http://s3.example.com'}, '', 'https://s3.example.com/',
                 's3.example.com')):
            with self.subTest(location, region=region):
                endpoint = self.endpoint(**config)
                if host:
                    endpoint.move(region, location)
                    self.assertEqual(endpoint.host, host)
                    if config and region:       # of its partition, or of a server of its own
                        self.assertEqual(endpoint.region, region)
                else:
                    with self.assertRaises(s3.BadAnswer):
                        endpoint.move(region, location)


class SignatureTests(unittest.TestCase):
    """s3.py against the examples that AWS publishes, which the server is held to as well."""

    def test_published_examples_get_their_signatures(self):
        now, credentials = 1369353600, s3.Credentials(*VECTOR_CREDENTIALS)
        for name, method, target, headers, payload_hash, presigned, expected in VECTORS:
            with self.subTest(name):
                path, _, query = target.partition('?')
                query = dict(pair.partition('=')[::2] for pair in query.split('&') if pair)
                if presigned:
                    text = s3.presign(credentials, 'us-east-1', 's3', now, method,
                                      dict(headers)['host'], path, 86400)
                    self.assertTrue(text.endswith('&X-Amz-Signature=' + expected))
                    continue
                signed = {name: value for name, value in headers if name != 'x-amz-date'}
                signed['x-amz-content-sha256'] = payload_hash
                s3.sign_headers(credentials, 'us-east-1', 's3', now, method, path,
                                s3.canonical_query(query), signed)
                self.assertTrue(signed['authorization'].endswith('Signature=' + expected))

    def test_all_but_unreserved_characters_are_encoded(self):
        self.assertEqual(s3.uri_encode('a/b ~+%ä:*()\'!'),
                         'a%2Fb%20~%2B%25%C3%A4%3A%2A%28%29%27%21')
        self.assertEqual(s3.canonical_query({'b': '1', 'a': '', 'a-b': ' ', 'A': '/'}),
                         'A=%2F&a=&a-b=%20&b=1')


class MessageTests(unittest.TestCase):

    def test_an_entity_bomb_and_junk_are_refused(self):
        bomb = (b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
                b'<ListBucketResult>&b;</ListBucketResult>')
        for body in (bomb, bomb.decode().encode('utf-16'), b'', b'<a>', b'<html>', b'\xff\xfe',
                     b'<a>\xff</a>', b'{}', b'<a/>junk'):
            with self.subTest(body=body[:20]):
                with self.assertRaises(s3.BadAnswer):
                    s3.Document(body)

    def test_namespaces_and_prefixes_do_not_matter(self):
        for body in (b'<A xmlns="x"><B>1</B></A>', b'<n:A xmlns:n="x"><n:B>1</n:B></n:A>',
                     b'<A><B>1</B></A>'):
            self.assertEqual(s3.Document(body, 'A').get('B'), '1')

    def test_a_listing_tells_whether_archived_objects_can_be_read(self):
        entry = ('<Contents><Key>%s</Key><LastModified>2020-01-01T00:00:00Z</LastModified><Size>1'
                 '</Size><StorageClass>GLACIER</StorageClass>%s</Contents>')
        status = '<RestoreStatus><IsRestoreInProgress>%s</IsRestoreInProgress>%s</RestoreStatus>'
        body = '<ListBucketResult xmlns="x">%s</ListBucketResult>' % ''.join((
            entry % ('a', ''), entry % ('b', status % ('true', '')), entry % ('c', status % (
                'false', '<RestoreExpiryDate>2020-02-01T00:00:00Z</RestoreExpiryDate>'))))
        self.assertEqual([(found.key, found.restore) for found in s3.list_entries(
            s3.Document(body.encode()).all('Contents'), str)],
            [('a', ''), ('b', 'ongoing'), ('c', 'done')])

    def test_times_are_read_from_listings_and_from_http(self):
        self.assertEqual(s3.parse_time('2009-10-12T17:50:30.000Z'), 1255369830)
        for text in ('', 'soon', '2009'):
            with self.assertRaises(ValueError):
                s3.parse_time(text)
        self.assertEqual(s3.parse_date('Mon, 12 Oct 2009 17:50:30 GMT'), 1255369830)
        self.assertEqual(s3.parse_date('Thu, 12 Oct 2045 17:50:30 GMT'), 2391443430)
        for text in (None, '', 'yesterday', 'Mon, 1 Jan', 'Fri, 31 Dec 9999 23:59:59 -2300',
                     'Sat, 1 Jan 101 00:00:00 GMT', '01 Jan , 00:00:00'):
            self.assertIsNone(s3.parse_date(text), text)


class StreamTests(ClientTestCase):

    def setUp(self):
        ClientTestCase.setUp(self)
        self.workers = s3.Workers(self.bucket(self.server(), part_size=10))
        self.addCleanup(self.workers.stop)

    def test_a_part_is_filled_from_a_stream_that_trickles(self):
        class Trickle(io.BytesIO):
            def readinto(self, view):
                return io.BytesIO.readinto(self, view[:1])

        view = memoryview(bytearray(10))
        stream = Trickle(b'0123456789ab')
        self.assertEqual([s3.read_part(stream, view, self.workers) for _ in range(3)],
                         [10, 2, 0])

    def test_a_stream_that_does_not_block_is_waited_for(self):
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        with open(reader, 'rb', buffering=0) as stream:
            def feed():
                for _ in range(3):
                    os.write(writer, b'abc')
                os.close(writer)

            thread = threading.Thread(target=feed)
            thread.start()
            view = memoryview(bytearray(20))
            self.assertEqual(s3.read_part(stream, view, self.workers), 9)
            thread.join()

    def test_the_names_of_volumes_are_fixed_and_random_ones_differ(self):
        self.assertEqual(s3.volume_key('k', 0), 'k')
        self.assertEqual(s3.volume_key('k', 12), 'k.volume_000012')
        names = {s3.random_name() for _ in range(100)}
        self.assertEqual(len(names), 100)
        self.assertTrue(all(re.match('[a-z2-7]{16}$', name) for name in names))

    def test_a_stream_with_a_buffer_of_its_own_is_not_polled(self):
        reader, writer = os.pipe()
        with open(reader, 'rb') as stream, open(writer, 'wb', buffering=0) as end:
            end.write(b'line\n0123456789')
            self.assertEqual(stream.readline(), b'line\n')
            view = memoryview(bytearray(10))
            self.assertEqual(s3.read_part(stream, view, self.workers), 10)
        self.assertEqual(view, b'0123456789')


class RateLimitTests(unittest.TestCase):

    def test_a_rate_that_is_lifted_meanwhile_does_no_harm(self):
        class Lifted(s3.RateLimit):
            rates = [1000, None]
            rate = property(lambda self: self.rates.pop(0), lambda self, rate: None)

        Lifted().give_back(10)          # whoever reads it twice finds none

    def test_no_span_holds_more_than_rate_and_a_quarter_second(self):
        clock = Clock()
        limit = s3.RateLimit(1000, clock, clock.sleep)
        passed = []
        generator = random.Random(1)
        for _ in range(2000):
            if generator.random() < .05:
                clock.now += generator.random() * 3
            count = generator.randint(1, limit.slice())
            limit.take(count)
            passed.append((clock.now, count))
        for start in range(0, len(passed), 97):
            total = 0
            for now, count in passed[start:]:
                total += count
                self.assertLessEqual(total, 1000 * (now - passed[start][0] + .25) + 1e-6)

    def test_the_rate_is_reached(self):
        clock = Clock()
        limit = s3.RateLimit(1000, clock, clock.sleep)
        while clock.now < 10:
            limit.take(limit.slice())
            limit.give_back(limit.slice() // 2)
        self.assertAlmostEqual(limit.moved / clock.now, 1000, delta=20)

    def test_slices_fit_the_rate(self):
        for rate, expected in ((None, s3.BLOCK), (1 << 30, s3.BLOCK), (800, 100), (1, 1)):
            self.assertEqual(s3.RateLimit(rate).slice(), expected)

    def test_the_rate_may_change_at_any_time(self):
        clock = Clock()
        limit = s3.RateLimit(None, clock, clock.sleep)
        limit.take(10**9)
        self.assertEqual(clock.now, 0)
        limit.rate = 100
        for _ in range(10):
            limit.take(12)
        self.assertAlmostEqual(clock.now, 1.08 - .125, delta=.13)


class PaceTests(unittest.TestCase):

    # name: (bytes per second of n connections at a time, parts of 16 MB, how much slower than
    # the best fixed number it may be, the least and the most connections at the end)
    LINKS = {
        'steady': (lambda n, now: 100e6, 60, 1.02, 4, 6),
        'each connection has a limit': (lambda n, now: 60e6 * n, 250, 1.2, 16, 16),
        'there are two limits': (lambda n, now: min(60e6 * n, 500e6), 250, 1.2, 9, 16),
        'slow': (lambda n, now: 4e6, 8, 1.02, 4, 6),
        'far away': (lambda n, now: 10e6 * n, 64, 1.35, 16, 16),
        'lossy': (lambda n, now: 20e6 * n ** .7, 125, 1.2, 12, 16),
        'more are worse': (lambda n, now: 100e6 / (1 + max(0, n - 4) / 10), 250, 1.06, 4, 4),
        'throttled': (lambda n, now: 10e6 * min(n, 6), 500, 1.1, 4, 12),
        'doubles': (lambda n, now: min(40e6 * n, 160e6 if now < 12 else 320e6), 500, 1.2, 8, 12),
        'a slow producer': (lambda n, now: 60e6 * n, 25, 1.02, 4, 4),
    }

    def transfer(self, pace, link, total, producer, slowed=None):
        """Send *total* bytes, in parts; returns the seconds, and the most jobs there were.

        slowed: of a server that takes 6 connections, and complains of any more twice a second.
        """
        now = moved = begun = early = most = 0
        parts, step = [], 0.02      # parts: bytes that are left of each; early: sent of the next
        while parts or begun < total:
            now += step
            jobs = pace.jobs(now)
            most = max(most, jobs)
            while len(parts) < jobs and begun + 16e6 <= min(producer * now, total):
                parts.append(16e6 - early)
                begun, early = begun + 16e6, 0
            waited = step * (len(parts) >= jobs)
            if slowed is not None and len(parts) > 6 and now - (slowed or [0])[-1] > 0.5:
                slowed.append(now)
            share = link(len(parts), now) * step / max(1, len(parts))
            moved += share * len(parts)
            parts = [part - share for part in parts]
            early -= sum(part for part in parts if part <= 0)
            parts = [part for part in parts if part > 0]
            pace.look(now, moved, waited)
        return now, most

    def test_connections_are_added_where_they_make_a_transfer_faster(self):
        for name, (link, total, slower, least, most) in self.LINKS.items():
            with self.subTest(name):
                producer = 50e6 if name == 'a slow producer' else 1e12
                best = min(self.transfer(s3.Pace(jobs, jobs), link, total * 16e6, producer)[0]
                           for jobs in range(4, 17, 2))
                slowed = collections.deque(maxlen=16)
                pace = s3.Pace(4, 16, slowed)
                seconds, highest = self.transfer(pace, link, total * 16e6, producer,
                                                 slowed if name == 'throttled' else None)
                self.assertLessEqual(seconds, slower * best)
                self.assertTrue(least <= pace.jobs(seconds) <= most, pace.jobs(seconds))
                if name in ('slow', 'a slow producer'):
                    self.assertLessEqual(highest, 6)

    def test_nothing_is_tried_where_something_else_is_the_limit(self):
        for name, pace, waited, limit, worked, jobs in (
                ('nothing', s3.Pace(4, 16), 1, None, 0.4, 16),
                ('a fixed number', s3.Pace(3, 3), 1, None, 0, 3),
                ('the rate limit', s3.Pace(4, 16), 1, 100e6, 0, 4),
                ('the producer', s3.Pace(4, 16), 0.2, None, 0, 4),
                ('the processors', s3.Pace(4, 16), 1, None, 0.6, 4)):
            moved = 0
            for now in range(1, 100):
                moved += 24.5e6 * pace.jobs(now)
                pace.look(now, moved, waited, limit, worked * now)
            self.assertEqual(pace.jobs(100), jobs, name)

    def test_each_complaint_takes_one_away_for_a_while(self):
        slowed = collections.deque()
        pace = s3.Pace(4, 16, slowed)
        slowed += (100, 101)
        self.assertEqual([pace.jobs(now) for now in (101, 104, 105.5, 106.5)], [2, 2, 3, 4])
        slowed += [200] * 10
        self.assertEqual(pace.jobs(200), 1)

    def test_memory_bounds_the_connections(self):
        for memory, jobs in ((None, 4), (1 << 20, 4), (512 << 20, 4), (1 << 30, 7), (2 << 30, 15),
                             (24 << 30, 16)):
            self.assertEqual(s3.most_jobs(16 << 20, memory), jobs)

    def test_memory_is_the_least_that_the_system_leaves(self):
        files = {'proc/meminfo': 'MemTotal: 9 kB\nMemAvailable:   3000 kB\n'}
        steps = (
            ({}, 3000 << 10),
            ({'proc/self/cgroup': '0::/a/b\n', 'sys/fs/cgroup/a/memory.max': '2000000\n',
              'sys/fs/cgroup/a/b/memory.max': 'max\n'}, 2000000),
            ({'sys/fs/cgroup/a/b/memory.high': '1500000\n'}, 1500000),
            ({'proc/self/cgroup': '5:cpu:/x\n4:memory:/c\n0::/\n',
              'sys/fs/cgroup/memory/c/memory.limit_in_bytes': '1000000\n'}, 1000000),
            ({'sys/fs/cgroup/memory/memory.limit_in_bytes': '900000\n'}, 900000))
        with tempfile.TemporaryDirectory() as root:
            self.assertIn(s3.available_memory(root), (None, resource.getrlimit(
                resource.RLIMIT_AS)[0]))
            for more, expected in steps:
                files.update(more)
                for path, text in files.items():
                    os.makedirs(os.path.dirname(os.path.join(root, path)), exist_ok=True)
                    with open(os.path.join(root, path), 'w') as file:
                        file.write(text)
                self.assertEqual(s3.available_memory(root), expected)
        code = 'import s3; print(s3.most_jobs(16 << 20, s3.available_memory()))'
        for mib, jobs in ((512, '4'), (2048, '15')):
            run = subprocess.run(['sh', '-c', 'ulimit -v %d; exec "$0" -c "$1"' % (mib << 10),
                                  sys.executable, code], stdout=subprocess.PIPE,
                                 cwd=os.path.dirname(os.path.abspath(s3.__file__)))
            self.assertEqual(run.stdout.decode().strip(), jobs)


class HostileTests(ClientTestCase):
    """Answers that are meant to hurt: bounded memory, one clean line, no hang."""

    def test_a_hostile_listing_is_an_error(self):
        for name, body in (
                ('bomb', b'<!DOCTYPE l [<!ENTITY a "aaaa">]><ListBucketResult>&a;'
                 b'</ListBucketResult>'),
                ('html', b'<html><body>\x1b[2J</body></html>'), ('empty', b''),
                ('page', b'<html><body>Log in</body></html>'),
                ('utf-8', b'<ListBucketResult>\xff\xfe</ListBucketResult>'),
                ('deep', b'<a>' * 200000),
                ('sizes', b'<ListBucketResult><Contents><Key>k</Key><Size>' + b'9' * 400
                 + b'</Size><LastModified>2020-01-01T00:00:00Z</LastModified></Contents>'
                 b'</ListBucketResult>'),
                ('negative', b'<ListBucketResult><Contents><Key>k</Key><Size>-5</Size>'
                 b'<LastModified>2020-01-01T00:00:00Z</LastModified></Contents>'
                 b'</ListBucketResult>'),
                ('encoding', b'<?xml version="1.0" encoding="hex"?><ListBucketResult/>'),
                ('many', b'<ListBucketResult>' + b'x<b/>' * 100000),
                ('no size', b'<ListBucketResult><Contents><Key>k</Key></Contents>'
                 b'</ListBucketResult>'),
                ('no time', b'<ListBucketResult><Contents><Key>k</Key><Size>1</Size>'
                 b'<LastModified>soon</LastModified></Contents></ListBucketResult>'),
                ('endless', b'<ListBucketResult><IsTruncated>true</IsTruncated>'
                 b'<NextContinuationToken>x</NextContinuationToken></ListBucketResult>'),
                ('no token', b'<ListBucketResult><IsTruncated>true</IsTruncated>'
                 b'</ListBucketResult>'),
                ('huge', b'<ListBucketResult>' + b' ' * (s3.MAX_MESSAGE + 1))):
            with self.subTest(name):
                server = self.server()
                server.fault('ListObjectsV2', 'body', times=None, body=body)
                with self.assertRaises(s3.Error) as caught:
                    list(self.bucket(server).list_objects())
                self.one_line(caught.exception)
                self.assertLess(self.clock.now, 100)

    def test_answers_that_are_too_large_are_not_kept(self):
        server = self.server()
        body = b'<ListBucketResult>%s</ListBucketResult>' % (b'<a/>' * (s3.MAX_MESSAGE // 4))
        server.fault('ListObjectsV2', 'body', times=None, body=body)
        with self.assertRaisesRegex(s3.BadAnswer, 'has no end'):
            list(self.bucket(server).list_objects())
        server.clear_faults()
        server.fault('ListObjectsV2', 'status', times=None, status=403,
                     body=b'y' * (s3.MAX_MESSAGE + 1))
        with self.assertRaisesRegex(s3.ResponseError, '.403.: not an S3 error but b.yyyy'):
            list(self.bucket(server).list_objects())

    def test_a_page_is_no_deletion(self):
        server = self.server()
        server.put('key', b'')
        server.fault('DeleteObject', 'status', status=200, body=b'<html>Log in</html>')
        self.bucket(server).delete_object('key')
        self.assertEqual((dict(server.objects), len(server.log)), ({}, 2))

    def test_a_listing_of_uploads_that_has_no_end_is_ended(self):
        page = b'<ListMultipartUploadsResult><IsTruncated>true</IsTruncated>%s' \
            b'</ListMultipartUploadsResult>'
        for marker in (b'<NextKeyMarker>x</NextKeyMarker>', b''):
            server = self.server()
            server.fault('ListMultipartUploads', 'body', times=None, body=page % marker)
            with self.assertRaisesRegex(s3.BadAnswer, 'ListMultipartUploads: .* no end'):
                list(self.bucket(server).list_multipart_uploads())
            self.assertLess(len(server.log), 4)

    def test_a_hostile_head_is_an_error(self):
        for name, data in (
                ('headers', b'HTTP/1.1 200 OK\r\n' + b'X: y\r\n' * 1000 + b'\r\n'),
                ('line', b'HTTP/1.1 200 OK\r\nX: ' + b'y' * 100000 + b'\r\n\r\n'),
                ('no length', b'HTTP/1.1 200 OK\r\n\r\n'), ('no http', b'220 smtp ready\r\n'),
                ('bad length', b'HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n'),
                ('negative', b'HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n')):
            with self.subTest(name):
                server = self.server()
                server.put('key', b'')
                server.fault('HeadObject', 'raw', times=None, data=data)
                with self.assertRaises(s3.Error) as caught:
                    self.bucket(server).head_object('key')
                self.one_line(caught.exception)
                self.assertLess(self.clock.now, 100)


class EndlessTests(ClientTestCase):
    """Servers that never come to an end, though there is always something to read."""

    def endless(self, first, again):
        """The URL of a server that says first, and then again for ever."""
        def serve():
            while not stop.is_set():
                accepted, _ = listener.accept()
                with accepted:
                    try:
                        accepted.recv(10000)
                        accepted.sendall(first)
                        while not stop.wait(0.01):
                            accepted.sendall(again)
                    except OSError:
                        pass

        stop, listener = threading.Event(), socket.socket()
        listener.bind(('127.0.0.1', 0))
        listener.listen(5)
        thread = threading.Thread(target=serve)
        thread.start()

        def end():
            stop.set()
            socket.create_connection(listener.getsockname()).close()
            thread.join()
            listener.close()

        self.addCleanup(end)
        return 'http://127.0.0.1:%d' % listener.getsockname()[1]

    def test_an_answer_has_to_end(self):
        head = b'HTTP/1.1 200 OK\r\n'
        for first, again in ((b'', b'HTTP/1.1 100 Continue\r\n\r\n'), (head + b'X: ', b'y'),
                             (b'', b'HTTP/1.1 103 Early Hints\r\n\r\n'),
                             (head + b'Transfer-Encoding: chunked\r\n\r\n0\r\n', b'X: y\r\n'),
                             (head + b'Content-Length: 100000\r\n\r\n', b' ')):
            with self.subTest(first=first, again=again):
                bucket = self.bucket(self.server(), endpoint=self.endless(first, again))
                bucket.timeout, bucket.patience, bucket.answer_timeout = 0.1, 0.01, 0.3
                with self.assertRaises(s3.NetworkError) as caught:
                    list(bucket.list_objects())
                self.assertIn('no answer in time', str(caught.exception))


class ConnectionTests(ClientTestCase):

    def test_connections_are_kept_and_no_more_than_the_jobs_need(self):
        server = self.server()
        bucket = self.bucket(server, jobs=3)
        bucket.upload('key', io.BytesIO(pattern(20000)))
        self.assertLessEqual(server.connections, 4)
        for _ in range(5):
            bucket.exists('key')
        self.assertLessEqual(server.connections, 4)

    def test_a_connection_that_the_server_closed_while_idle_costs_a_reconnect_only(self):
        server = self.server()
        bucket = self.bucket(server)
        for number in range(5):
            bucket.put_object('key%d' % number, b'data')
            server.close_idle()
            select.select([bucket.connection()._sock], [], [], 10)      # until it is told
        self.assertEqual((bucket.tally.retries, bucket.tally.wasted, self.clock.now), (0, 0, 0))

    def test_a_connection_that_idled_for_seconds_is_not_trusted(self):
        server = self.server()
        bucket = self.bucket(server)
        for seconds, connections in ((0, 1), (3, 1), (5, 2), (600, 3), (0, 3)):
            self.clock.now += seconds
            bucket.exists('key')
            self.assertEqual(server.connections, connections)

    def test_all_addresses_of_a_name_are_tried_and_a_name_server_that_stumbles_is_asked_again(self):
        server = self.server()
        with socket.socket() as closed:         # bound, but nobody listens
            closed.bind(('127.0.0.1', 0))
            dead, alive = closed.getsockname()[1], server.port
            failures = [socket.gaierror(-3, 'try again')] * 3

            def resolve(host, *_, **__):
                self.assertEqual(host, b'two.example')
                if failures:
                    raise failures.pop()
                return [(socket.AF_INET, socket.SOCK_STREAM, 6, '', ('127.0.0.1', port))
                        for port in (dead, dead, alive)]

            with unittest.mock.patch.object(socket, 'getaddrinfo', resolve):
                self.bucket(server, endpoint='http://two.example').put_object('key', b'data')
        self.assertEqual((server.objects['key'].data, failures), (b'data', []))
        self.assertIn('try again; next try in', str(self.reports))

    @contextlib.contextmanager
    def resolving(self, *addresses):
        """Let every name have these addresses."""
        found = [(socket.AF_INET6 if ':' in each[0] else socket.AF_INET,
                  socket.SOCK_STREAM, 6, '', each) for each in addresses]
        with unittest.mock.patch.object(socket, 'getaddrinfo', lambda *_, **__: list(found)):
            yield

    def test_a_dead_address_costs_a_quarter_of_a_second_and_only_once(self):
        server, deaf = self.server(), [self.deaf(), self.deaf()]
        alive = server.host, server.port
        with self.resolving(*deaf + [alive]):
            bucket = self.bucket(server, endpoint='http://dead.example')
            started = time.monotonic()
            bucket.put_object('key', b'data')
            seconds = time.monotonic() - started
            self.assertEqual(s3.find_addresses('dead.example', 80)[0][4], alive)
        self.assertGreater(seconds, 2 * s3.NEXT_ADDRESS)
        self.assertLess(seconds, 5)
        self.assertEqual((server.connections, self.clock.now), (1, 0))

    def test_the_families_of_addresses_are_tried_by_turns(self):
        names = 'a:', 'b:', 'c:', 'a.', 'b.'
        with self.resolving(*([name] for name in names)):
            found = s3.find_addresses('turns.example', 80)
            self.assertEqual([each[4] for each in found], [['a:'], ['a.'], ['b:'], ['b.'], ['c:']])
            s3.ANSWERED['turns.example', 80] = found[1]
            self.assertEqual([each[4] for each in s3.find_addresses('turns.example', 80)],
                             [['a.'], ['a:'], ['b.'], ['b:'], ['c:']])
        with self.resolving(['a:'], ['c.']):        # the name has got another address
            self.assertEqual(s3.find_addresses('turns.example', 80)[0][4], ['c.'])

    def test_the_most_telling_error_of_all_addresses_is_raised_in_time(self):
        with socket.socket() as closed:
            closed.bind(('127.0.0.1', 0))
            refused, deaf = closed.getsockname(), self.deaf()
            for addresses, kind in (([deaf, refused], ConnectionRefusedError),
                                    ([deaf] * 9, socket.timeout),
                                    ([('100::1', 9), deaf], socket.timeout)):
                started = time.monotonic()
                with self.resolving(*addresses), self.assertRaises(kind):
                    s3.connect_first('some.example', 80, 0.3, lambda: None)
                self.assertLess(time.monotonic() - started, 2)

    def test_after_a_send_that_failed_no_answer_is_waited_for(self):
        server = self.server()
        server.fault('PutObject', 'stall', when='start', times=None)
        bucket = self.bucket(server)
        bucket.patience, bucket.timeout = 0.01, 0.2
        started = time.monotonic()
        with self.assertRaisesRegex(s3.NetworkError, 'no answer in time'):
            bucket.put_object('key', bytes(16 << 20))
        self.assertLess(time.monotonic() - started, 5)

    def test_a_slow_reader_is_no_time_out_as_long_as_it_reads(self):
        ours, theirs = socket.socketpair()
        connection = s3.Connection(self.bucket(self.server()), None, s3.RateLimit(), {})
        with ours, theirs:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            ours.settimeout(0.5)
            data, got = pattern(200 << 10), []
            connection._sock, connection.unsent = ours, len(data)

            def read():
                while sum(map(len, got)) < len(data):
                    time.sleep(0.02)
                    got.append(theirs.recv(4096))

            thread = threading.Thread(target=read)
            thread.start()
            connection._send(data)                  # takes twice the time-out
            thread.join()
            self.assertEqual((b''.join(got), connection.unsent), (data, 0))

    def test_a_server_that_says_nothing_is_left_soon(self):
        with socket.socket() as listener:
            listener.bind(('127.0.0.1', 0))
            listener.listen(5)
            bucket = self.bucket(self.server(), endpoint='https://127.0.0.1:%d'
                                 % listener.getsockname()[1])
            bucket.patience, bucket.timeout = 0.01, 30
            started = time.monotonic()
            with unittest.mock.patch.object(s3, 'CONNECT_TIMEOUT', 0.1):
                with self.assertRaises(s3.NetworkError):
                    bucket.put_object('key', b'')
            self.assertLess(time.monotonic() - started, 10)

    def test_the_rate_holds_for_all_connections_in_both_directions(self):
        server = self.server()
        bucket = self.bucket(server, jobs=4)
        bucket.limit = s3.RateLimit(10000, self.clock, self.clock.sleep)
        for job in (lambda: bucket.upload('key', io.BytesIO(pattern(50000))),
                    lambda: self.restored(bucket, 'key')):
            before, moved = self.clock.now, bucket.limit.moved
            job()
            moved = bucket.limit.moved - moved
            self.assertGreater(moved, 50000)
            # each of the threads that wait here adds its pause to the one clock they share
            self.assertGreaterEqual(self.clock.now - before, (moved / 10000 - .25))

    def test_the_rate_limit_holds_on_real_sockets(self):
        server = self.server(discard=True)
        bucket = self.bucket(server, jobs=4, part_size=100000)
        bucket.limit = s3.RateLimit(1 << 20, sharers=4)
        # of less, rate x (t + 1/4) would be more than a tenth above the rate
        for job in (lambda: bucket.upload('key', io.BytesIO(bytes(3 << 20))),
                    lambda: bucket.download(['key'], lambda view: None)):
            started, before = time.monotonic(), bucket.limit.moved
            try:
                job()
            except s3.IntegrityError:       # this server's ETags are others
                pass
            seconds = time.monotonic() - started
            moved = bucket.limit.moved - before
            self.assertTrue(0.75 < moved / seconds / (1 << 20) < 1.1, (moved, seconds))

    def test_a_low_rate_limit_is_reached_by_downloads(self):
        server = self.server()
        server.put('key', bytes(600 << 10))
        bucket = self.bucket(server, part_size=1 << 20)
        bucket.limit = s3.RateLimit(300 << 10, sharers=4)
        started = time.monotonic()
        bucket.download(['key'], lambda view: None)
        self.assertLess(time.monotonic() - started, 4)      # 2 s; 6 with too small a buffer

    def test_tls_is_used_and_checked(self):
        with certificate() as path:
            server = self.server(certfile=path)
            bucket = self.bucket(server)
            bucket.upload('key', io.BytesIO(pattern(2500)))
            self.assertEqual(self.restored(bucket, 'key'), (pattern(2500), 'etag'))
            stranger = self.bucket(server, ca_bundle='')
            with self.assertRaisesRegex(s3.NetworkError, 'certificate is not accepted'):
                stranger.put_object('key', b'')
            self.assertEqual(self.clock.now, 0)
            other = self.bucket(server, endpoint=server.url.replace('127.0.0.1', '0.0.0.0'))
            with self.assertRaisesRegex(s3.NetworkError, 'certificate is not accepted'):
                other.put_object('key', b'')
            self.assertEqual(self.clock.now, 0)
            plain = self.bucket(server, endpoint=server.url.replace('https', 'http'))
            with self.assertRaises(s3.Error):
                plain.put_object('key', b'')

    def test_a_ca_that_the_user_names_may_be_laxer_than_the_systems(self):
        with certificate(PRIVATE_CA) as ca, certificate(OF_PRIVATE_CA) as path, \
                certificate() as other:
            server = self.server(certfile=path)
            self.bucket(server, ca_bundle=ca).put_object('key', b'data')
            with self.assertRaises(s3.NetworkError) as caught:
                self.bucket(server, ca_bundle=other).put_object('key', b'')
            self.assertIn('ca_bundle %s must hold the CA' % other, self.one_line(caught.exception))
        strict = getattr(ssl.create_default_context(), 'verify_flags') & ssl.VERIFY_X509_STRICT
        self.assertEqual(s3.tls_context(None).verify_flags & ssl.VERIFY_X509_STRICT, strict)

    def test_a_server_without_a_version_of_tls_in_common_is_named_at_once(self):
        alert = b'\x15\3\1\0\2\2\x46'         # protocol_version
        hello = b'\x16\3\0\0\x2a\2\0\0\x26\3\0' + bytes(33) + b'\0\x2f\0'     # of SSL 3.0
        with certificate() as path:
            urls = ['https' + self.saying(data)[4:] for data in (alert, hello)]
            server = self.server(certfile=path)
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')     # these options are old-fashioned
                server.context.options |= ssl.OP_NO_TLSv1_2 | getattr(ssl, 'OP_NO_TLSv1_3', 0)
            if getattr(ssl.create_default_context(), 'minimum_version', 0) >= 0x303:
                urls.append(server.url)             # before 3.10 TLS 1.1 may do
            for url in urls:
                with self.assertRaises(s3.NetworkError) as caught:
                    self.bucket(server, endpoint=url).put_object('key', b'')
                self.assertIn('no version of TLS in common', self.one_line(caught.exception))
                self.assertNotIn('gave up', str(caught.exception))
        self.assertEqual(self.clock.now, 0)

    def saying(self, data):
        """The URL of a server that answers whatever comes with *data*, once."""
        def answer():
            with listener, listener.accept()[0] as accepted:
                accepted.recv(10000)
                accepted.sendall(data)

        listener = socket.socket()
        listener.bind(('127.0.0.1', 0))
        listener.listen(1)
        listener.settimeout(10)
        thread = threading.Thread(target=answer)
        thread.start()
        self.addCleanup(thread.join)
        return 'http://127.0.0.1:%d' % listener.getsockname()[1]

    def test_refusals_that_a_setting_mends_name_it(self):
        with certificate() as path:
            server, page = self.server(certfile=path), b'<html>413</html>'
            for fault, config, expected in (
                    (dict(status=413, body=page), {}, '`part_size 5m`'),
                    (dict(status=400, code='EntityTooLarge'), {}, '`part_size 5m`'),
                    (dict(status=403, code='SecondLevelDomainForbidden'), {}, 'addressing virtual'),
                    (dict(status=403, code='PathStyleDomainForbidden'), {}, 'addressing virtual'),
                    (dict(status=403, code='AccessDenied'), {'checksum': 'crc32'}, 's3:PutObject '
                     '.*; if payloads have to be signed, set `checksum none`'),
                    (dict(status=400, code='XAmzContentSHA256Mismatch', times=None),
                     {'checksum': 'crc32'}, ' attempts.*; if payloads.*set `checksum none`')):
                server.clear_faults()
                server.fault('PutObject', 'status', **fault)
                with self.assertRaisesRegex(s3.ResponseError, expected) as caught:
                    self.bucket(server, **config).put_object('key', b'data')
                self.one_line(caught.exception)
            server.clear_faults()
            server.fault('PutObject', 'status', status=403, code='AccessDenied')
            with self.assertRaises(s3.ResponseError) as caught:
                self.bucket(server).put_object('key', b'data')
            self.assertNotIn('checksum', str(caught.exception))     # the payload was signed

    def test_a_certificate_of_another_time_makes_one_ask_for_the_clock(self):
        with certificate(EXPIRED) as path:
            server = self.server(certfile=path)
            with self.assertRaises(s3.NetworkError) as caught:
                self.bucket(server).put_object('key', b'')
            self.assertIn('is the clock right? it says 20', self.one_line(caught.exception))
        self.assertEqual(self.clock.now, 0)

    def test_https_to_a_server_without_tls_says_so(self):
        url = self.saying(b'HTTP/1.0 400 Bad Request\r\n\r\nThis is a plain server')
        with self.assertRaisesRegex(s3.NetworkError, 'does not speak TLS'):
            self.bucket(self.server(), endpoint='https' + url[4:]).put_object('key', b'')
        self.assertEqual(self.clock.now, 0)

    def test_tls_that_was_damaged_on_its_way_is_tried_again_once_the_server_has_answered(self):
        page, alert = b'HTTP/1.0 400 Bad Request\r\n\r\n', b'\x15\3\1\0\2\2\x46'
        with certificate() as path:
            server, pages = self.server(certfile=path), [page]
            bucket = self.bucket(server)
            bucket.put_object('key', b'')
            bucket.close()

            def interject(*_):          # in clear text, in place of a record
                while pages:            # the last one: those before may not have ended yet
                    socket.socket.send(server.live[-1].socket, pages.pop())

            def resolve(*_, **__):
                return [(socket.AF_INET, socket.SOCK_STREAM, 6, '', ('127.0.0.1', ports.pop()))]

            server.on('HeadObject', interject)
            self.assertTrue(bucket.exists('key'))
            self.assertEqual((pages, bucket.tally.retries), ([], 1))
            for data in (page, alert):
                bucket.close()
                ports = [server.port, int(self.saying(data).rpartition(':')[2])]
                with unittest.mock.patch.object(socket, 'getaddrinfo', resolve):
                    self.assertTrue(bucket.exists('key'))
                self.assertEqual(ports, [])
            self.assertIn('TLS was damaged on its way; next try', str(self.reports))


class ProxyClientTests(ClientTestCase):
    """HTTPS_PROXY, HTTP_PROXY and NO_PROXY."""

    def proxy(self, *login):
        proxy = Proxy(*login)
        self.addCleanup(lambda: self.assertEqual(proxy.leaked, []))
        return self.start(proxy)

    def test_everything_goes_through_it_over_http_and_https(self):
        with certificate() as path:
            for secure in (False, True):
                for login in ((), ('user', 'pass:/word')):
                    with self.subTest(secure, login=login):
                        server = self.server(certfile=path if secure else None)
                        proxy = self.proxy(*login)
                        url = proxy.url.replace('//', '//user:pass%3A%2Fword@') if login else (
                            '127.0.0.1:%d' % proxy.port)
                        bucket = self.bucket(server, {
                            'HTTPS_PROXY' if secure else 'http_proxy': url})
                        bucket.upload('a key', io.BytesIO(pattern(3500)))
                        self.assertEqual(self.restored(bucket, 'a key')[0], pattern(3500))
                        methods = ['CONNECT'] if secure else ['PUT', 'POST', 'GET', 'HEAD']
                        self.assertEqual(set(proxy.log), {
                            (method, '127.0.0.1:%d' % server.port) for method in methods})
                        if secure:
                            self.assertLessEqual(len(proxy.log), 6)     # tunnels are kept
                        self.assertFalse([request for request in server.log
                                          if 'proxy-authorization' in request.headers])

    def test_exempt_hosts_are_reached_without_it(self):
        for exempt, host, expected in (
                ('', 's3.example.com', True), ('*', 's3.example.com', False),
                ('example.com', 's3.example.com', False), ('.example.com', 's3.example.com', False),
                ('*.example.com', 's3.example.com', False), ('ample.com', 's3.example.com', True),
                ('a,b, s3.example.com:443', 's3.example.com', False),
                ('127.0.0.1', '127.0.0.1', False), ('127.0.0.1', '127.0.0.2', True),
                ('::1', '::1', False), ('[::1]:80', '::1', False),
                ('10.0.0.0/8', '10.1.2.3', False), ('10.0.0.0/8', '11.1.2.3', True),
                ('a, 10.1.2.3/8', '10.0.0.9', False), ('10.0.0.0/8', 's3.example.com', True),
                ('[fd00::]/8', 'fd12::1', False), ('fd00::/8', 'fd12::1', False),
                ('fd00::/8', 'fe80::1%lo', True), ('fd00::/8', '10.1.2.3', True),
                ('0.0.0.0/0', '::1', True), ('10.0.0.0/99', '10.1.2.3', True),
                ('10.0.0.0/8/', '10.1.2.3', True), ('192.168.1.1/32', '192.168.1.1', False)):
            for variable in ('no_proxy', 'NO_PROXY'):
                proxy = s3.find_proxy({'HTTPS_PROXY': 'http://p:1', variable: exempt}, 'https',
                                      host)
                self.assertEqual(proxy is not None, expected, (exempt, host))
        self.assertIsNone(s3.find_proxy({'HTTPS_PROXY': 'http://p:1'}, 'http', 'x'))
        self.assertEqual(s3.find_proxy({'HTTPS_PROXY': 'p', 'https_proxy': 'q:1'}, 'https', 'x'),
                         ('q', 1, {}))

    def test_what_is_no_proxy_is_refused(self):
        for url in ('https://p:1', 'socks5://p:1', 'http://', 'http://p:port', 'http://[::1'):
            with self.assertRaises(s3.ConfigError) as caught:
                s3.find_proxy({'HTTP_PROXY': url.replace('//', '//u:TOPSECRET@')}, 'http', 'x')
            self.assertNotIn('TOPSECRET', self.one_line(caught.exception))
            scheme = url.partition('//')[0]
            self.assertIn('like http://proxy' if scheme == 'http:' else
                          'HTTP_PROXY names a %s// proxy, and only http:// proxies can' % scheme,
                          str(caught.exception))

    def test_an_address_of_ipv6_is_in_brackets_for_the_proxy_and_not_for_tls(self):
        with certificate(PRIVATE_CA) as ca, certificate(OF_PRIVATE_CA) as path:
            server, proxy = self.server(certfile=path), self.proxy()
            name = '[::1]:%d' % server.port
            proxy.resolve[name] = server.host, server.port
            bucket = self.bucket(server, {'HTTPS_PROXY': proxy.url}, ca_bundle=ca,
                                 endpoint='https://' + name)
            bucket.put_object('key', b'data')
            self.assertEqual(proxy.log, [('CONNECT', name)])
            self.assertEqual(proxy.violations, [])

    def test_a_proxy_that_refuses_is_final_and_one_that_stumbles_is_not(self):
        with certificate() as path:
            server = self.server(certfile=path)
            proxy = self.proxy('user', 'word')
            for url in (proxy.url, proxy.url.replace('//', '//user:TOPSECRET@')):
                with self.assertRaisesRegex(
                        s3.NetworkError, 'through the proxy 127.0.0.1:%d: Tunnel connection '
                        'failed: 407' % proxy.port) as caught:
                    self.bucket(server, {'HTTPS_PROXY': url}).put_object('key', b'')
                self.assertNotIn('TOPSECRET', str(caught.exception))
                self.assertEqual(self.clock.now, 0)
            proxy = self.proxy()
            for status in 503, 429, 408:
                proxy.refuse_status, start = status, self.clock.now
                with self.assertRaisesRegex(s3.NetworkError, 'failed: %d.*gave up after' % status):
                    self.bucket(server, {'HTTPS_PROXY': proxy.url}).put_object('key', b'')
                self.assertGreater(self.clock.now - start, 50)
        plain = self.server()
        proxy = self.proxy('user', 'word')
        with self.assertRaisesRegex(s3.ResponseError, '.407.'):
            self.bucket(plain, {'HTTP_PROXY': proxy.url}).put_object('key', b'')

    def test_sts_is_asked_where_and_how_s3_is(self):
        with certificate() as path, Proxy() as proxy:       # which knows neither host
            role = {'AWS_WEB_IDENTITY_TOKEN_FILE': path, 'AWS_ROLE_ARN': ROLE_ARN,
                    'HTTPS_PROXY': proxy.url}
            for region, more, host in (
                    ('eusc-de-east-1', {}, 'sts.eusc-de-east-1.amazonaws.eu'),
                    ('us-west-2', {'AWS_USE_FIPS_ENDPOINT': 'true'},
                     'sts-fips.us-west-2.amazonaws.com'),
                    ('eu-west-1', {'AWS_USE_DUALSTACK_ENDPOINT': 'true'}, 'sts.eu-west-1.api.aws')):
                with self.assertRaisesRegex(s3.NetworkError, re.escape(host)):
                    self.bucket(self.server(), dict(role, **more), access_key_id='',
                                secret_access_key='', region=region)
                self.assertEqual(proxy.log.pop(), ('CONNECT', host + ':443'))

    def test_sts_goes_through_it_and_the_services_of_this_machine_do_not(self):
        with CredentialServices() as services, Proxy() as proxy:
            services.issue('ROLE', 'secretOFrole', 'tokenOFrole', 3600)
            server = self.server()
            server.add_user('ROLE', 'secretOFrole', session_token='tokenOFrole')
            with tempfile.NamedTemporaryFile('w') as file:
                file.write(services.web_identity_token)
                file.flush()
                proxy.resolve['sts.example:80'] = services.host, services.port
                for environ, asked in (
                        ({'AWS_WEB_IDENTITY_TOKEN_FILE': file.name, 'AWS_ROLE_ARN':
                          services.role_arn, 'AWS_ENDPOINT_URL_STS': 'http://sts.example'},
                         [('POST', 'sts.example:80')]),
                        ({'AWS_CONTAINER_CREDENTIALS_FULL_URI': services.url
                          + services.container_path}, []),
                        ({'AWS_EC2_METADATA_SERVICE_ENDPOINT': services.url,
                          'AWS_EC2_METADATA_DISABLED': ''}, [])):
                    del proxy.log[:]
                    self.bucket(server, dict(environ, HTTP_PROXY=proxy.url), access_key_id='',
                                secret_access_key='')
                    self.assertEqual(proxy.log, asked)
            self.assertEqual((services.violations, proxy.violations), ([], []))


@unittest.skipUnless(os.path.isdir('/proc/self/task'), 'only Linux tells what a process has')
class MemoryTests(unittest.TestCase):
    """Where memory ends Python, or glibc, may abort: each test has a process of its own."""

    def run_python(self, code):
        run = subprocess.run([sys.executable, '-c', code], stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, universal_newlines=True, timeout=60,
                             cwd=os.path.dirname(os.path.abspath(s3.__file__)))
        self.assertEqual(run.returncode, 0, run.stdout)
        return run.stdout

    def test_a_thread_ends_without_memory(self):        # which takes libgcc, until Python 3.9.5
        self.run_python("""if True:
            import os, resource, sys, threading
            import s3
            sys.setswitchinterval(100)      # no thread runs before the main one waits
            s3.load_network()
            lock = threading.Lock()
            lock.acquire()
            s3.Thread(lock.acquire).start()
            resource.setrlimit(resource.RLIMIT_AS, (1, 1))
            lock.release()
            while os.stat('/proc/self/task').st_nlink > 2 + 1:      # a link for each thread
                pass
            """)

    def test_modules_are_loaded_only_where_there_is_room_for_them(self):
        self.assertEqual(self.run_python("""if True:
            import errno, resource, sys
            import s3
            with open('/proc/self/statm') as file:
                size = int(file.read().split()[0]) * resource.getpagesize()
            for room in (7, 128):
                resource.setrlimit(resource.RLIMIT_AS, (size + (room << 20), size + (128 << 20)))
                try:
                    s3.load_network()
                except OSError as error:
                    print(error.errno == errno.ENOMEM)
                print('http.client' in sys.modules)     # a Python may have no ssl
            """), 'True\nFalse\nTrue\n')


class WorkerTests(ClientTestCase):

    def test_memory_is_jobs_and_one_buffers(self):
        server = self.server()
        bucket = self.bucket(server, jobs=3)
        workers = s3.Workers(bucket)
        buffers = [workers.buffer() for _ in range(4)]
        self.assertEqual(len({id(view.obj) for view in buffers}), 4)
        self.assertEqual({len(view) for view in buffers}, {1000})
        workers.submit(workers.release, buffers[0])
        self.assertIs(workers.buffer(), buffers[0])
        workers.stop()
        workers = s3.Workers(bucket)
        buffer = workers.buffer()
        workers.release(buffer)
        self.assertIs(workers.buffer(), buffer)     # a short stream needs no second one
        workers.stop()

    def test_a_failure_is_heard_of_among_more_tasks_than_a_pipe_holds(self):
        def work(number):
            if number == 0:
                raise s3.Error('the first')
            waited.append(over.wait(10))
            over.set()

        over, waited = threading.Event(), []
        workers = s3.Workers(self.bucket(self.server()))
        with self.assertRaisesRegex(s3.Error, 'the first'):
            workers.map(work, range(70000))
        over.set()
        workers.stop()
        self.assertEqual(set(waited), {True})

    def test_buffers_for_connections_that_were_tried_in_vain_are_given_back(self):
        workers = s3.Workers(self.bucket(self.server(), jobs=4))
        buffers = [workers.buffer() for _ in range(5)]
        for buffer in buffers:
            workers.release(buffer)
        workers._pace = s3.Pace(2, 2)
        mapped = [weakref.ref(view.obj) for view in buffers]
        del buffers, buffer
        kept = workers.buffer()
        self.assertEqual(sum(each() is not None for each in mapped), 3)
        workers.release(kept)
        workers.stop()

    def test_where_memory_has_no_room_for_all_buffers_fewer_do(self):
        def scarce(descriptor, length, *arguments, real=mmap.mmap):
            needed = length + len(made) * bucket.part_size
            if needed > room * bucket.part_size + (s3.ROOM if made else 0):
                raise OSError(errno.ENOMEM, 'Cannot allocate memory')
            if length == bucket.part_size:
                made.append(None)
            return real(descriptor, length, *arguments)

        server = self.server()
        bucket = self.bucket(server, jobs=4)
        with unittest.mock.patch.object(mmap, 'mmap', scarce):
            for room in (1, 2, 4):
                made = []
                bucket.upload('%d' % room, io.BytesIO(pattern(20000)))
                self.assertEqual((server.objects['%d' % room].data, len(made)),
                                 (pattern(20000), room))
                made = []
                self.assertEqual(self.restored(bucket, '%d' % room)[0], pattern(20000))
            room, made = 0, []
            self.assertRaises(MemoryError, bucket.upload, 'key', io.BytesIO(b'data'))

    def test_what_waits_for_the_rate_limit_can_be_cancelled(self):
        bucket = self.bucket(self.server())
        bucket.limit = s3.RateLimit(0.01)       # by the true clock, a byte in 100 s
        workers = s3.Workers(bucket)
        workers.submit(bucket.put_object, 'other', bytes(4000))
        self.until(lambda: bucket.limit.moved > 1)
        start = time.monotonic()
        workers.stop()
        self.assertLess(time.monotonic() - start, 10)
        self.assertIsInstance(workers._failures[0], s3.Cancelled)

    def test_a_thread_that_connects_is_not_waited_for(self):
        with socket.socket() as listener:
            listener.bind(('127.0.0.1', 0))
            listener.listen(5)
            bucket = self.bucket(self.server(), endpoint='https://127.0.0.1:%d'
                                 % listener.getsockname()[1])
            workers = s3.Workers(bucket)
            workers.submit(bucket.put_object, 'key', b'')
            accepted, _ = listener.accept()     # which TLS waits for a word from
            start = time.monotonic()
            workers.stop()
            self.assertLess(time.monotonic() - start, 3)
            accepted.close()

    def test_a_thread_that_connects_goes_home_when_it_is_told_to(self):
        bucket = self.bucket(self.server(), endpoint='http://%s:%d' % self.deaf())
        workers = s3.Workers(bucket)
        task = workers.submit(bucket.put_object, 'key', b'')
        self.until(lambda: workers._connections and not workers._queue)
        start = time.monotonic()
        workers.stop()
        self.until(lambda: task.done)
        self.assertLess(time.monotonic() - start, 3)
        self.assertIsInstance(workers._failures[0], s3.Cancelled)


class RetriesTests(unittest.TestCase):

    def error(self, status, code):
        return s3.ResponseError('X', status, code, '')

    def outage(self, error, patience=s3.PATIENCE):
        clock = Clock()
        retries = s3.Retries(lambda: patience, clock)
        pauses = []
        while True:
            pause = retries.pause(error)
            if pause is None:
                return pauses
            pauses.append(pause)
            clock.now += pause

    def test_an_outage_of_ten_minutes_is_survived_and_no_more_than_twenty(self):
        for error in (ConnectionRefusedError(), ConnectionResetError(), socket.timeout(),
                      socket.gaierror(-2, 'x'), http.client.IncompleteRead(b''),
                      http.client.RemoteDisconnected(), self.error(500, 'InternalError'),
                      self.error(502, ''), self.error(503, 'SlowDown'), self.error(504, ''),
                      self.error(408, ''), self.error(429, ''), self.error(200, 'InternalError'),
                      *(self.error(400, code) for code in (
                          'RequestTimeout', 'OperationAborted', 'SlowDown', 'InternalError',
                          'ServiceUnavailable', 'ConditionalRequestConflict'))):
            with self.subTest(repr(error)):
                pauses = self.outage(error)
                self.assertGreater(sum(pauses), 600)
                self.assertLess(sum(pauses), 1200)
                self.assertLessEqual(max(pauses), 20)

    def test_pauses_are_random_and_grow(self):
        first = [self.outage(ConnectionResetError())[:12] for _ in range(40)]
        self.assertEqual(len({pauses[0] for pauses in first}), 40)
        self.assertLessEqual(max(pauses[0] for pauses in first), 0.1)
        self.assertGreater(max(pauses[10] for pauses in first), 5)

    def test_damage_and_nonsense_are_tried_five_times(self):
        for error in (self.error(400, 'BadDigest'), self.error(400, 'XAmzContentSHA256Mismatch'),
                      self.error(400, 'XAmzContentChecksumMismatch'),
                      self.error(403, 'RequestTimeTooSkewed'),
                      self.error(200, 'AccessDenied'), s3.BadAnswer('x'),
                      http.client.LineTooLong('x'), http.client.BadStatusLine('x')):
            with self.subTest(repr(error)):
                self.assertEqual(len(self.outage(error)), 4)

    def test_what_is_final_is_not_tried_again(self):
        for error in (self.error(403, 'AccessDenied'), self.error(404, 'NoSuchKey'),
                      self.error(400, 'InvalidArgument'), self.error(501, 'NotImplemented'),
                      self.error(412, 'PreconditionFailed'), OSError(errno.EMFILE, 'x'),
                      OSError(errno.ENOMEM, 'x'), s3.ConfigError('x')):
            with self.subTest(repr(error)):
                self.assertEqual(self.outage(error), [])

    def test_progress_starts_the_count_anew(self):
        clock = Clock()
        retries = s3.Retries(lambda: 10, clock)
        for _ in range(20):
            retries.moved = True
            self.assertLessEqual(retries.pause(ConnectionResetError()), 0.1)
            clock.now += 9
        self.assertIsNotNone(retries.pause(ConnectionResetError()))
        clock.now += 11
        self.assertIsNone(retries.pause(ConnectionResetError()))

    def test_a_long_part_that_moves_for_nothing_is_not_tried_for_ever(self):
        error, sent = ConnectionResetError(), s3.SOCKET_BUFFER + 1
        clock, count = Clock(), 0
        retries = s3.Retries(lambda: 900, clock)
        while retries.pause(error, sent=sent) is not None:
            clock.now, count = clock.now + 899, count + 1
        self.assertTrue(50 < count < 200, count)

    def test_the_server_may_ask_for_a_longer_pause(self):
        for headers, expected in (({'retry-after': '7'}, 7), ({'x-amz-retry-after': '1500'}, 1.5),
                                  ({'retry-after': 'soon'}, 0), ({}, 0),
                                  ({'retry-after': '99999'}, 300)):
            error = s3.parse_error('X', s3.Answer(503, headers, b''))
            self.assertEqual(error.retry_after, expected)
            self.assertGreaterEqual(s3.Retries(lambda: 900, Clock()).pause(error), expected)


class CredentialTests(ClientTestCase):
    """Where the key comes from, each source a service that checks what it is sent."""

    SOURCES = ('environment', 'web', 'profile', 'container', 'instance')
    CONTAINER = 'AWS_CONTAINER_CREDENTIALS_FULL_URI'

    def setUp(self):
        ClientTestCase.setUp(self)
        self.services = self.start(CredentialServices())
        self.files = tempfile.TemporaryDirectory()
        self.addCleanup(self.files.cleanup)

    def file(self, name, text):
        path = os.path.join(self.files.name, name)
        with open(path, 'w') as file:
            file.write(text)
        return path

    def profile(self, text, credentials=''):
        return {'AWS_CONFIG_FILE': self.file('config', text),
                'AWS_SHARED_CREDENTIALS_FILE': self.file('credentials', credentials),
                'AWS_ENDPOINT_URL_STS': self.services.url}

    def key_file(self, name):
        """Write a file of the AWS CLI whose key is named so; return its path."""
        return self.file('credentials', (
            '[default]\naws_access_key_id = %s\naws_secret_access_key = secretOF%s\n'
            'aws_session_token = tokenOF%s\n' % (name.upper(), name, name)))

    def answer(self, name, lifetime=None):
        """Return what a credential_process writes."""
        answer = {'Version': 1, 'AccessKeyId': name.upper(), 'SecretAccessKey': 'secretOF' + name,
                  'SessionToken': 'tokenOF' + name}
        if lifetime is not None:
            answer['Expiration'] = s3.utc(time.time() + lifetime)
        return json.dumps(answer)

    def environ(self, source, lifetime=3600):
        """An environment with just this source, whose key, the only one, is named after it."""
        services = self.services
        services.credentials.clear()
        services.issue(source.upper(), 'secretOF' + source, 'tokenOF' + source, lifetime)
        if source == 'environment':
            return {'AWS_ACCESS_KEY_ID': 'ENVIRONMENT', 'AWS_SECRET_ACCESS_KEY':
                    'secretOFenvironment', 'AWS_SESSION_TOKEN': 'tokenOFenvironment'}
        if source == 'profile':
            return {'AWS_SHARED_CREDENTIALS_FILE': self.key_file(source)}
        if source == 'web':
            return {'AWS_WEB_IDENTITY_TOKEN_FILE': self.file(
                'token', services.web_identity_token + '\n'), 'AWS_ROLE_ARN': services.role_arn,
                'AWS_ENDPOINT_URL_STS': services.url}
        if source == 'container':
            services.container_token = 'Basic the token'
            return {self.CONTAINER: services.url + services.container_path,
                    'AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE': self.file('auth', 'Basic the token')}
        if source == 'process':
            return self.profile('[default]\ncredential_process = cat %s\n'
                                % self.file('answer', self.answer(source)))
        if source == 'role':
            services.sts_keys = {'BASE': ('secretOFbase', None)}
            return self.profile(
                '[default]\nrole_arn = %s\nsource_profile = base\n' % services.role_arn,
                '[base]\naws_access_key_id = BASE\naws_secret_access_key = secretOFbase\n')
        return {'AWS_EC2_METADATA_SERVICE_ENDPOINT': services.url + '/',
                'AWS_EC2_METADATA_DISABLED': 'false'}

    def of(self, environ, **config):
        """The Bucket, without a key in its configuration, on a server that knows every key."""
        server = self.server()
        for source in self.SOURCES + ('new', 'process', 'role'):
            server.add_user(source.upper(), 'secretOF' + source, session_token='tokenOF' + source)
        self.store = server
        return self.bucket(server, environ, access_key_id='', secret_access_key='', **config)

    def used(self, bucket):
        """The access key that a request is signed with, and accepted."""
        bucket.put_object('key', b'', overwrite=True)
        return self.store.log[-1].user

    def test_each_source_is_asked_in_its_order(self):
        environ = {}
        for source in reversed(self.SOURCES):
            with self.subTest(source):
                alone = self.environ(source)
                self.assertEqual(self.used(self.of(alone)), source.upper())
                environ.update(alone)   # the one before it goes before those after it
                asked = len(self.services.log)
                self.assertEqual(self.used(self.of(environ)), source.upper())
                if source in ('environment', 'profile'):
                    self.assertEqual(len(self.services.log), asked)
        environ.update(self.profile('[profile x]\naws_access_key_id = PROFILE\naws_session_token '
                                    '= tokenOFprofile\naws_secret_access_key = secretOFprofile\n'))
        self.assertEqual(self.used(self.of(environ, profile='x')), 'PROFILE')
        server = self.server()
        self.bucket(server, environ).put_object('key', b'')
        self.assertEqual(server.log[-1].user, server.access_key)

    def test_the_session_token_is_known_by_its_old_name_too(self):
        token = 'tokenOFenvironment'
        for more in ({'AWS_SECURITY_TOKEN': token},
                     {'AWS_SECURITY_TOKEN': token, 'AWS_SESSION_TOKEN': 'another'}):
            environ = dict(self.environ('environment'), **dict({'AWS_SESSION_TOKEN': ''}, **more))
            self.assertEqual(self.used(self.of(environ)), 'ENVIRONMENT')
        path = self.file('credentials', '[default]\naws_access_key_id = PROFILE\naws_security_token'
                         ' = tokenOFprofile\naws_secret_access_key = secretOFprofile\n')
        self.assertEqual(self.used(self.of({'AWS_SHARED_CREDENTIALS_FILE': path})), 'PROFILE')

    def test_the_services_are_asked_as_they_want_it(self):
        self.of(self.environ('instance'))
        self.assertEqual([(call.method, call.path) for call in self.services.log], [
            ('PUT', '/latest/api/token'), ('GET', IMDS_ROLES), ('GET', IMDS_ROLES + 'role')])
        del self.services.log[:]
        self.services.quirks.add('no-date')     # which tells only STS something
        self.of(self.environ('container'))
        self.assertEqual(self.services.log[-1].headers['authorization'], 'Basic the token')

    def test_a_container_of_which_only_a_path_is_told_has_its_own_address(self):
        def resolve(host, port, *_, **__):
            self.assertEqual((host, port), (b'169.254.170.2', 80))
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, '', ('127.0.0.1', services.port))]

        services, environ = self.services, self.environ('container')
        environ['AWS_CONTAINER_CREDENTIALS_RELATIVE_URI'] = services.container_path
        environ[self.CONTAINER] = 'http://nowhere.example'
        with unittest.mock.patch.object(socket, 'getaddrinfo', resolve):
            bucket = self.of(environ)
        self.assertEqual(self.used(bucket), 'CONTAINER')
        self.assertEqual(services.log[-1].headers['host'], '169.254.170.2')

    def test_half_a_key_and_no_key_are_said_with_what_was_tried(self):
        for config, environ, message in (
                (dict(access_key_id='F'), {}, 'configuration is incomplete: secret_access_key'),
                (dict(secret_access_key='f'), {}, 'is incomplete: access_key_id is missing'),
                ({}, {'AWS_ACCESS_KEY_ID': 'E'}, 'environment is incomplete: AWS_SECRET_ACCESS'),
                ({}, {}, r'no credentials: write access_key_id and secret_access_key into '
                 r'~/.s3keys; there is no access_key_id in the configuration; no AWS_ACCESS_'
                 r'KEY_ID in the environment; no role_arn in profile default; no AWS_WEB_IDENTITY_'
                 r'TOKEN_FILE; no profile default in /dev/null or /dev/null; no AWS_CONTAINER_'
                 r'CREDENTIALS_RELATIVE_URI or _FULL_URI; no EC2 instance role, as AWS_EC2_'
                 r'METADATA_DISABLED'),
                ({}, {'AWS_WEB_IDENTITY_TOKEN_FILE': '/x'}, 'needs AWS_ROLE_ARN'),
                ({}, {'AWS_ACCESS_KEY_ID': 'E', 'AWS_SECRET_ACCESS_KEY': 'secretOFx',
                      'AWS_PROFILE': 'prod'}, 'there is no profile prod in /dev/null'),
                ({}, {'AWS_PROFILE': 'prod'}, 'there is no profile prod in /dev/null'),
                (dict(profile='prod'), {}, 'there is no profile prod in /dev/null')):
            with self.subTest(message):
                with self.assertRaisesRegex(s3.ConfigError, message) as caught:
                    self.bucket(self.server(), environ, **dict(
                        dict(access_key_id='', secret_access_key=''), **config))
                self.one_line(caught.exception)

    def test_a_process_is_run_without_a_shell(self):
        script = self.file('process.py', 'import sys\nprint(open(sys.argv[1]).read())\n')
        answer = dict(json.loads(self.answer('process')),
                      Expiration='2199-01-01T00:00:00.5+02:30')
        output = self.file('a $HOME;b', json.dumps(answer))
        environ = self.profile('[default]\ncredential_process = %s "%s" "%s"\n' % (
            sys.executable, script, output))
        bucket = self.of(environ)
        self.assertEqual(self.used(bucket), 'PROCESS')
        self.assertEqual(bucket.credentials.get(bucket).expires, 7226582400 - 9000)
        for text, message in (('', 'is not a JSON document with credentials'),
                              ('[]', 'not a JSON document'),
                              (json.dumps(dict(answer, Expiration='soon')), 'not a JSON document'),
                              (json.dumps(dict(answer, SecretAccessKey='')), 'is incomplete'),
                              (json.dumps(dict(answer, SessionToken=[5])), 'is not text that can'),
                              (json.dumps(dict(answer, AccessKeyId='a b')), 'is not text')):
            self.file('a $HOME;b', text)
            with self.assertRaisesRegex(s3.ConfigError, message) as caught:
                self.of(environ)
            self.assertNotIn('secretOF', str(caught.exception))
        for command, message in (('/nonexistent', 'cannot be run: No such file'),
                                 (sys.executable + ' -c "raise SystemExit(3)"', 'with status 3'),
                                 ('"', 'cannot be run: No closing quotation')):
            with self.assertRaisesRegex(s3.ConfigError, 'profile default .*' + message):
                self.of(self.profile('[default]\ncredential_process = %s\n' % command))

    def test_a_credential_process_whose_status_is_lost_has_failed(self):
        path = self.file('answer', self.answer('process'))
        environ = self.profile('[default]\ncredential_process = sh -c "cat %s; exit 1"\n' % path)
        self.addCleanup(signal.signal, signal.SIGCHLD,
                        signal.signal(signal.SIGCHLD, signal.SIG_IGN))
        with self.assertRaisesRegex(s3.ConfigError, 'how it ended is not known'):
            self.of(environ)

    def test_a_process_is_held_in_check(self):
        sleep = 'sleep 60 2>/dev/null'      # else `make test` would wait for the end of these
        environ = self.profile('[default]\ncredential_process = sh -c "cat %s; %s &"\n'
                               % (self.file('answer', self.answer('process')), sleep))
        self.assertEqual(self.used(self.of(environ)), 'PROCESS')    # whose child holds the pipe
        for command, error, message in (
                ('cat /dev/zero', s3.NetworkError, 'or writes more than credentials'),
                ('sh -c "%s | %s"' % (sleep, sleep), s3.NetworkError, 'does not end within 0 s'),
                ('', s3.ConfigError, 'cannot be run')):
            with unittest.mock.patch.object(s3, 'PROCESS_TIMEOUT', 0.2):
                with self.assertRaisesRegex(error, message):
                    self.of(self.profile('[default]\ncredential_process = %s\n' % command))

    def test_a_role_is_assumed_with_the_key_of_another_source(self):
        services = self.services
        services.sts_keys = {'PROFILE': ('secretOFprofile', None),
                             'ENVIRONMENT': ('secretOFenvironment', 'tokenOFenvironment'),
                             'CONTAINER': ('secretOFcontainer', 'tokenOFcontainer'),
                             'INSTANCE': ('secretOFinstance', 'tokenOFinstance')}
        key = '[base]\naws_access_key_id = PROFILE\naws_secret_access_key = secretOFprofile\n'
        role = '[profile x]\nrole_arn = %s\n' % services.role_arn
        services.external_id = 'the customer'
        for text, credentials, source in (
                ('source_profile = base\nduration_seconds = 3600\n', key, None),
                ('source_profile = x\n', key.replace('base', 'x'), None),
                ('source_profile = y\n[profile y]\nrole_arn = other\nsource_profile = y\n',
                 key.replace('base', 'y'), None),
                ('credential_source = Environment\n', '', 'environment'),
                ('credential_source = EcsContainer\n', '', 'container'),
                ('credential_source = Ec2InstanceMetadata\n', '', 'instance')):
            with self.subTest(text):
                more = self.environ(source) if source else {}
                if source not in ('container', 'instance'):
                    services.credentials.clear()
                services.issue('ROLE', 'secretOFrole', 'tokenOFrole', 3600)
                environ = self.profile(role + 'external_id = the customer\n'
                                       'role_session_name = cron\n' + text, credentials)
                bucket = self.of(dict(more, **environ), profile='x')
                self.assertEqual(self.used(bucket), 'ROLE')
        for text, message in (
                ('source_profile = gone\n', 'there is no profile gone'),
                ('source_profile = base\nmfa_serial = x\n', 'mfa_serial'),
                ('credential_source = Nowhere\n', 'has neither source_profile nor'),
                ('credential_source = Environment\n', 'no AWS_ACCESS_KEY_ID in the environment'),
                ('source_profile = base\n', 'STS says AccessDenied .403.: Not authorized'),
                ('source_profile = y\n[profile y]\nrole_arn = arn\nsource_profile = x\n',
                 'refer to each other')):
            services.external_id = 'another'
            with self.assertRaisesRegex(s3.ConfigError, message):
                self.of(self.profile(role + text, key), profile='x')

    def test_a_role_is_renewed_in_its_own_region_wherever_the_bucket_is(self):
        bucket = self.of(dict(self.environ('role'), AWS_REGION='us-east-1'))
        first = self.services.log[-1].headers['authorization']
        bucket.endpoint.region = 'us-west-2'        # as the server may have corrected it
        bucket.credentials.get(bucket, refused=bucket.credentials.get(bucket))
        for signed in (first, self.services.log[-1].headers['authorization']):
            self.assertRegex(signed, '/us-east-1/sts/aws4_request')
        self.assertEqual(len(self.services.log), 2)

    def test_the_roles_of_a_web_identity_can_stand_in_a_profile(self):
        self.services.issue('ROLE', 'secretOFrole', 'tokenOFrole', 3600)
        path = self.file('token', self.services.web_identity_token)
        bucket = self.of(self.profile('[default]\nrole_arn = %s\nweb_identity_token_file = %s\n' % (
            self.services.role_arn, path)))
        self.assertEqual(self.used(bucket), 'ROLE')
        self.services.web_identity_token = 'another'
        with self.assertRaisesRegex(s3.ConfigError, 'STS says InvalidIdentityToken'):
            self.of(self.profile('[default]\nrole_arn = %s\nweb_identity_token_file = %s\n' % (
                self.services.role_arn, path)))

    def test_a_profile_of_ours_that_names_no_way_to_credentials_leaves_them_to_others(self):
        environ = self.profile('[profile x]\nregion = eu-west-1\n',
                               '[default]\naws_access_key_id = X\naws_secret_access_key = X\n')
        for source, service in (('instance', 'imds'), ('container', 'container'), ('web', 'sts'),
                                ('environment', None)):
            environ.update(self.environ(source))    # before those that are there already
            self.services.log[:] = [None]
            self.assertEqual(self.used(self.of(environ, profile='x')), source.upper())
            self.assertEqual(getattr(self.services.log[-1], 'service', None), service)
        with self.assertRaisesRegex(s3.ConfigError, 'there is no profile y in '):
            self.of(environ, profile='y')

    def test_a_profile_whose_way_to_credentials_is_unknown_is_not_passed_over(self):
        """A machine with a role of its own would do its work as somebody else."""
        key, instance = self.environ('environment'), self.environ('instance')
        login = ('`credential_process = aws configure export-credentials --profile %s`, which '
                 'needs version 2 of the AWS CLI')
        for lines, message in (
                ('login_session = arn:aws:iam::1:user/x\nregion = eu-west-1', login),
                ('sso_session = x', login), ('sso_start_url = https://x', login),
                ('sso_account_id = 1', login), ('sso_role_name = x', login),
                ('web_identity_token_file = /x', 'needs AWS_ROLE_ARN or role_arn'),
                ('aws_access_key_id =\naws_secret_access_key =', 'but no value for it'),
                ('source_profile = x', 'has source_profile, but no role_arn'),
                ('credential_source = Environment', 'but no role_arn'),
                ('role_arn = arn', 'has neither source_profile nor a known credential_source'),
                ('aws_secret_access_key = secretOFx', 'is incomplete: aws_access_key_id'),
                ('region = eu-west-1\noutput = json\nmfa_serial = x', None)):
            for name, title, others, config in (
                    ('default', 'default', instance, {}),
                    ('x', 'profile x', dict(instance, **key), {'profile': 'x'})):
                environ = dict(others, **self.profile('[%s]\n%s\n' % (title, lines)))
                with self.subTest(lines, profile=name):
                    if not message:
                        user = 'ENVIRONMENT' if config else 'INSTANCE'
                        self.assertEqual(self.used(self.of(environ, **config)), user)
                        continue
                    asked = len(self.services.log)
                    with self.assertRaisesRegex(s3.ConfigError, 'profile %s.*%s' % (
                            name, message % name if message is login else message)) as caught:
                        self.of(environ, **config)
                    self.one_line(caught.exception)
                    self.assertEqual(len(self.services.log), asked)

    def test_the_credentials_of_a_profile_are_those_that_the_aws_cli_takes(self):
        keys = ('aws_access_key_id = PROFILE\naws_secret_access_key = secretOFprofile\n'
                'aws_session_token = tokenOFprofile\n')
        process = 'credential_process = cat %s\n' % self.file('answer', self.answer('process'))
        for credentials, config, user in (
                ('', keys + process, 'PROCESS'), (process, keys, 'PROCESS'),
                (keys, process, 'PROFILE'), (keys + process, '', 'PROFILE'),
                ('aws_secret_access_key = other\n', keys, 'PROFILE'),
                (keys, 'sso_session = x\n', 'PROFILE'),
                ('region = r\n[DEFAULT]\n' + keys, '', 'PROFILE'),
                ('', 'region = r\n[DEFAULT]\n' + keys, 'PROFILE'),
                (keys.replace('\n', '\r'), '', 'PROFILE'), (keys, None, 'PROFILE'),
                (None, keys, 'PROFILE'), (None, None, 'INSTANCE'),
                ('aws_access_key_id =\naws_secret_access_key =\n', '', None),
                ('aws_access_key_id =\naws_secret_access_key =\n', keys, None),
                ('aws_secret_access_key = other\n', '', None)):
            with self.subTest(credentials=credentials, config=config):
                environ = dict(self.environ('instance'), **self.profile(*(
                    '[default]\n' + (text or '') for text in (config, credentials))))
                for text, variable in ((config, 'AWS_CONFIG_FILE'),
                                       (credentials, 'AWS_SHARED_CREDENTIALS_FILE')):
                    if text is None:        # a folder in place of the file
                        environ[variable] = self.files.name
                if user:
                    self.assertEqual(self.used(self.of(environ)), user)
                    continue
                with self.assertRaisesRegex(s3.ConfigError, 'profile default .*aws_access_key_id'):
                    self.of(environ)

    def test_a_profile_that_is_missing_does_not_matter_beside_keys_of_ours(self):
        server = self.server()
        self.bucket(server, {'AWS_PROFILE': 'prod'}).put_object('key', b'')
        self.assertEqual(server.log[-1].user, server.access_key)

    def test_a_profile_tells_where_the_metadata_service_is(self):
        environ = self.environ('instance')
        url = environ.pop('AWS_EC2_METADATA_SERVICE_ENDPOINT')
        environ.update(self.profile('[default]\nec2_metadata_service_endpoint = %s\n' % url))
        self.assertEqual(self.used(self.of(environ)), 'INSTANCE')

    def test_the_web_identity_of_the_environment_goes_before_that_of_the_profile(self):
        environ = dict(self.environ('web'), **self.profile(
            '[default]\nrole_arn = another\nweb_identity_token_file = /nonexistent\n'))
        self.assertEqual(self.used(self.of(environ)), 'WEB')
        with self.assertRaisesRegex(s3.ConfigError, 'cannot read /nonexistent'):
            self.of(environ, profile='default')

    def test_a_wrong_clock_is_corrected_for_sts_as_well(self):
        services = self.services
        services.offset = 86400 * 365 * 10
        services.sts_keys = {'PROFILE': ('secretOFprofile', None)}
        services.issue('ROLE', 'secretOFrole', 'tokenOFrole', 3600)
        environ = self.profile(
            '[profile x]\nrole_arn = %s\nsource_profile = base\n' % services.role_arn,
            '[base]\naws_access_key_id = PROFILE\naws_secret_access_key = secretOFprofile\n')
        self.assertEqual(self.used(self.of(environ, profile='x')), 'ROLE')
        self.assertEqual(len(services.log), 2)

    def test_the_token_of_a_container_goes_to_few_hosts_only(self):
        for host in ('evil.example.com', '169.254.170.2.evil.example.com', '10.0.0.1',
                     '127.0.0.1.evil.example.com', 'u:p@localhost', 'localhost@evil.example.com',
                     'localhost:80@evil.example.com', 'localhost\\@evil.example.com', '[::2]',
                     'localhost#@evil.example.com', 'localhost?@evil.example.com'):
            environ = {self.CONTAINER: 'http://%s/x' % host,
                       'AWS_CONTAINER_AUTHORIZATION_TOKEN': 'x'}
            with self.assertRaisesRegex(s3.ConfigError, 'neither https://, nor http:// to this'):
                self.of(environ)
        for url in ('ftp://localhost/', 'HTTP://LOCALHOST:1', 'https://a b', 'https://[::1'):
            with self.assertRaisesRegex(s3.Error, 'neither|refused|is not a URL'):
                self.of({self.CONTAINER: url})
        for token in ('a\r\nb', 'a\nHost: x'):
            environ = {self.CONTAINER: self.services.url,
                       'AWS_CONTAINER_AUTHORIZATION_TOKEN': token}
            with self.assertRaisesRegex(s3.ConfigError, 'cannot stand in a header'):
                self.of(environ)
        self.assertEqual(self.services.log, [])

    def test_a_service_that_stumbles_is_asked_again_and_one_that_refuses_is_named(self):
        for source, service in (('container', 'container'), ('web', 'sts'),
                                ('instance', 'imds')):
            for options in (dict(status=500), dict(hangup=True), dict(status=429)):
                self.services.clear_faults()
                environ = self.environ(source)
                self.services.fail(service, times=2, **options)
                self.assertEqual(self.used(self.of(environ)), source.upper())
                self.services.fail(service, times=None, **options)
                with self.assertRaises(s3.Error) as caught:
                    self.of(environ)
                self.assertIn('127.0.0.1:%d: ' % self.services.port, str(caught.exception))
        self.services.clear_faults()
        self.services.fail('container', status=404, times=None)
        with self.assertRaisesRegex(s3.ConfigError, 'container endpoint .http.* answers 404'):
            self.of(self.environ('container'))
        self.services.fail('sts', body=b'<html>', times=None)
        with self.assertRaisesRegex(s3.ConfigError, 'does not answer like STS .200.'):
            self.of(self.environ('web'))

    def test_a_machine_that_is_no_instance_is_told_soon_what_was_tried(self):
        for break_it, message in (
                (lambda services: setattr(services, 'imds_token_status', 403),
                 'no EC2 instance role ..http.*gives no token for IMDSv2: 403'),
                (lambda services: setattr(services, 'role', None), 'the instance has none'),
                (lambda services: services.fail('imds-token', stall=True, times=None),
                 'no answer in time; in a container the hop limit of the metadata options must'
                 ' be 2'),
                (lambda services: services.stop(), 'Connection refused')):
            environ = self.environ('instance')
            self.services.imds_token_status = None
            break_it(self.services)
            with unittest.mock.patch.object(s3, 'INSTANCE_TIMEOUT', 0.1):
                with self.assertRaisesRegex(s3.ConfigError, 'no credentials: .*' + message):
                    self.of(environ)

    def test_the_metadata_service_is_asked_as_long_and_often_as_aws_is_told_to(self):
        timeout, attempts = 'metadata_service_timeout', 'metadata_service_num_attempts'
        for settings, failures, found in (
                ({}, 2, True), ({}, 3, False), ({attempts: '1'}, 0, True),
                ({attempts: '1'}, 1, False), ({attempts: '5'}, 4, True)):
            for in_profile in (True, False):
                environ = self.environ('instance')
                environ.update(self.profile('[default]\n' + ''.join(
                    '%s = %s\n' % item for item in settings.items())) if in_profile else {
                        'AWS_' + name.upper(): value for name, value in settings.items()})
                self.services.clear_faults()
                self.services.fail('imds-token', status=500, times=failures)
                with self.subTest(settings, failures=failures, in_profile=in_profile):
                    if found:
                        self.assertEqual(self.used(self.of(environ)), 'INSTANCE')
                        continue
                    with self.assertRaisesRegex(s3.ConfigError, 'no EC2 instance role .*500'):
                        self.of(environ)
        self.services.clear_faults()
        environ = self.environ('instance')
        for name in (timeout, attempts):
            for value in ('x', '0', '-1', '1.5', '9999'):
                with self.assertRaisesRegex(s3.ConfigError, "^%s: '%s' is not a number from 1"
                                            % (name, value)):
                    self.of(dict(environ, **{'AWS_' + name.upper(): value}))
        late = threading.Event()
        self.services.on('imds-token', lambda *_: late.wait(0.2))
        with unittest.mock.patch.object(s3, 'INSTANCE_TIMEOUT', 0.05):
            environ['AWS_METADATA_SERVICE_NUM_ATTEMPTS'] = '1'
            with self.assertRaisesRegex(s3.ConfigError, 'no EC2 instance role .*in time'):
                self.of(environ)
            self.assertEqual(self.used(self.of(dict(environ, AWS_METADATA_SERVICE_TIMEOUT='5'))),
                             'INSTANCE')

    def test_newer_credentials_are_taken_before_the_old_ones_expire(self):
        for source in ('instance', 'container', 'web'):
            with self.subTest(source):
                bucket = self.of(self.environ(source, lifetime=1000))
                self.services.issue('NEW', 'secretOFnew', 'tokenOFnew', 5000)
                self.services.credentials.pop(0)
                self.assertEqual(self.used(bucket), source.upper())
                bucket.offset = 101         # 899 seconds are left
                self.clock.now += 61
                self.assertEqual(self.used(bucket), 'NEW')
                asked = len(self.services.log)
                self.assertEqual(self.used(bucket), 'NEW')
                self.assertEqual(len(self.services.log), asked)

    def test_a_dump_outlives_its_credentials(self):
        """Each part finds them expired, by the server's word or by the clock."""
        for source in ('instance', 'container', 'web', 'profile', 'process', 'role'):
            for lifetime in (3600, None):
                with self.subTest(source, lifetime=lifetime):
                    bucket = self.of(self.environ(source, lifetime), jobs=3)
                    self.services.issue('NEW', 'secretOFnew', 'tokenOFnew', 3600)
                    self.services.credentials.pop(0)

                    def expire(server, _):
                        server.users[source.upper()].expired = True
                        if source == 'process':
                            self.file('answer', self.answer('new'))
                        if source == 'profile':
                            self.key_file('new')

                    self.store.on('CreateMultipartUpload', expire)
                    bucket.upload('key', io.BytesIO(pattern(9500)))
                    self.assertEqual(self.store.objects['key'].data, pattern(9500))
                    self.assertEqual(self.store.log[-1].user, 'NEW')
                    self.assertEqual(self.restored(bucket, 'key')[0], pattern(9500))

    def test_whether_credentials_have_expired_the_server_knows_if_their_source_has_no_others(self):
        for source in ('container', 'process'):
            with self.subTest(source):
                bucket = self.of(self.environ(source, 3600))
                if source == 'process':
                    self.file('answer', self.answer(source, 3600))
                self.assertEqual(self.used(bucket), source.upper())
                bucket.offset = 7200        # our clock was set, and is what it should be now
                self.assertEqual(self.used(bucket), source.upper())
                self.assertAlmostEqual(bucket.offset, 0, delta=10)
                self.assertEqual(self.clock.now, 0)

    def test_what_seems_to_have_expired_and_is_accepted_is_not_asked_for_all_the_time(self):
        bucket = self.of(self.environ('container', 100))
        bucket.offset = 200         # too little for the server to refuse it
        bucket.upload('key', io.BytesIO(pattern(9500)))
        self.assertLess(len(self.services.log), 4)

    def test_a_server_that_calls_expired_credentials_denied_is_understood(self):
        bucket = self.of(self.environ('container', 3600))
        self.assertEqual(self.used(bucket), 'CONTAINER')
        bucket.offset = self.store.offset = 7200
        self.store.fault('PutObject', 'status', times=None, status=403, code='AccessDenied',
                         where=lambda exchange: '=CONTAINER/' in exchange.headers['authorization'])
        self.after(bucket, 30, lambda: (
            self.services.credentials.clear(),
            self.services.issue('NEW', 'secretOFnew', 'tokenOFnew', 10800)))
        self.assertEqual(self.used(bucket), 'NEW')
        self.assertEqual(len(self.warnings()), 1)

    def breaking(self, act):
        """A stream that calls act(), and breaks, once both of its parts are stored."""
        class Broken(io.BytesIO):
            def readinto(stream, view):
                count = io.BytesIO.readinto(stream, view)
                if not count:
                    self.until(lambda: any(len(upload.parts) == 2 for upload
                                           in list(self.store.uploads.values())))
                    act()
                    raise s3.Error('the producer died')
                return count
        return Broken(pattern(2000))

    def test_what_is_given_up_is_tidied_up_with_newer_credentials(self):
        def expire():
            self.store.users['CONTAINER'].expired = True
            bucket.signals = Poll(lambda: self.fail('a signal ends the tidying up'))

        bucket = self.of(self.environ('container'))
        self.services.issue('NEW', 'secretOFnew', 'tokenOFnew', 3600)
        del self.services.credentials[:-1]
        with self.assertRaisesRegex(s3.Error, 'the producer died'):
            bucket.upload('key', self.breaking(expire))
        self.assertEqual((self.store.log[-1].operation, self.store.log[-1].user),
                         ('AbortMultipartUpload', 'NEW'))
        self.assertEqual((self.store.uploads, self.store.objects), ({}, {}))

    def test_a_metadata_service_that_is_down_is_survived_while_the_old_ones_hold(self):
        environ = self.environ('instance', lifetime=1000)
        bucket = self.of(environ)
        self.services.issue('NEW', 'secretOFnew', 'tokenOFnew', 5000)
        self.services.fail('imds-token', status=500, times=None)
        bucket.offset = 500
        self.clock.now += 61
        self.assertEqual(self.used(bucket), 'INSTANCE')
        self.assertNotIn('no newer ones yet', str(self.reports))    # a word of it would be early
        bucket.offset = 800
        self.clock.now += 61
        self.assertEqual(self.used(bucket), 'INSTANCE')
        self.assertEqual(len([text for kind, text in self.reports if kind == 'warning'
                              and 'there are no newer ones yet' in text]), 1)
        asked = len(self.services.log)
        self.assertEqual(self.used(bucket), 'INSTANCE')     # it is not asked for each request
        self.assertEqual(len(self.services.log), asked)
        bucket.offset = 1100            # and now they don't: that is an outage like any other
        self.clock.now += 61
        bucket.patience = 5
        with self.assertRaisesRegex(s3.NetworkError, 'PutObject .*the credentials have expired, '
                                    'and there are no newer ones: '):
            bucket.put_object('key', b'')
        bucket.patience = 900
        started = self.clock.now
        self.services.clear_faults()
        self.services.fail('imds-token', status=500, times=20)
        self.services.credentials.pop(0)
        self.assertEqual(self.used(bucket), 'NEW')
        self.assertGreater(self.clock.now, started)

    def test_a_refusal_without_a_reason_asks_for_no_others_while_the_key_holds(self):
        bucket = self.of(self.environ('container'))
        self.store.users['CONTAINER'].allow = WRITE_ONLY
        asked = len(self.services.log)
        self.services.fail('container', status=500, times=None)
        self.store.fault('GetObject', 'hangup')     # whose answer is not needed
        for _ in range(3):
            self.assertIsNone(bucket.exists('key'))
        self.assertEqual((len(self.services.log), self.clock.now), (asked, 0))
        self.assertEqual(self.store.operations(), ['HeadObject', 'GetObject'] + 2 * ['HeadObject'])

    def test_a_head_finds_out_that_its_key_was_replaced_though_it_is_told_no_reason(self):
        for jobs, delay, die in ((1, 0, 'InvalidAccessKeyId'), (4, 0, 'InvalidAccessKeyId'),
                                 (4, 100, 'InvalidAccessKeyId'), (1, 0, 'ExpiredToken')):
            bucket, threads, found = self.of(self.environ('profile')), [], []
            del self.reports[:]
            self.assertEqual(self.used(bucket), 'PROFILE')
            self.store.users['PROFILE'].allow = WRITE_ONLY      # one that is in vain
            self.assertIsNone(bucket.exists('key'))
            self.store.users['PROFILE'].allow = None
            self.clock.now += 61
            self.DEATHS[die](self.store)
            if delay:
                self.after(bucket, delay, lambda: self.key_file('new'))
            else:
                self.key_file('new')
            for _ in range(jobs):
                threads.append(threading.Thread(target=lambda bucket=bucket, found=found: (
                    found.append(bool(bucket.exists('key'))), bucket.close())))
                threads[-1].start()
            for thread in threads:
                thread.join()
            with self.subTest(die, jobs=jobs, delay=delay):
                self.assertEqual(list(map(bool, found)), jobs * [True])
                self.assertEqual(self.store.log[-1].user, 'NEW')
                self.assertEqual(len(self.warnings()), bool(delay))

    def test_a_head_whose_key_another_thread_has_replaced_meanwhile_is_repeated(self):
        def replace(store, exchange):
            if exchange.access_key == 'PROFILE':
                self.key_file('new')
                bucket.credentials.get(bucket, refused=bucket.credentials.get(bucket))
                raise S3Error('InvalidAccessKeyId')

        bucket = self.of(self.environ('profile'))
        self.store.put('key', b'')
        self.store.on('HeadObject', replace)
        self.assertTrue(bucket.exists('key'))
        self.assertEqual(self.store.operations(), ['HeadObject', 'GetObject', 'HeadObject'])

    def test_a_file_that_gets_its_newer_key_a_little_later_is_waited_for(self):
        bucket = self.of(self.environ('profile'))
        self.assertEqual(self.used(bucket), 'PROFILE')
        self.store.users['PROFILE'].expired = True
        self.after(bucket, 30, lambda: self.key_file('new'))
        bucket.put_object('other', b'data')
        self.assertEqual(self.store.log[-1].user, 'NEW')
        self.assertGreater(self.clock.now, 30)

    DEATHS = {                  # what the server says, and what makes it so
        'ExpiredToken': lambda store: setattr(store.users['PROFILE'], 'expired', True),
        'InvalidToken': lambda store: setattr(store.users['PROFILE'], 'session_token', 'another'),
        'InvalidAccessKeyId': lambda store: store.users.pop('PROFILE')}

    def after(self, bucket, seconds, act):
        """Let act() come so many seconds from now, while the Bucket waits."""
        start, wait = self.clock.now, bucket.wait

        def pause(connection, pause):
            wait(connection, pause)
            if act and self.clock.now - start >= seconds:
                act()
        bucket.wait = pause

    def told_to_wait(self):
        """Fail unless the user was told once that newer credentials are waited for."""
        text, = self.warnings()
        self.assertRegex(text, r'the server refuses the credentials \(\w+\), and there are '
                         'no newer ones: .*; waiting up to 15 min for that to change$')

    def test_dead_credentials_that_never_worked_fail_at_once(self):
        for code, die in sorted(self.DEATHS.items()):
            for operation, requests in (
                    (lambda bucket: bucket.put_object('key', b'data'), 1),
                    (lambda bucket: list(bucket.list_objects()), 1),
                    (lambda bucket: bucket.upload('key', io.BytesIO(pattern(9500))), 4),
                    (lambda bucket: bucket.head_bucket(), 2)):
                bucket = self.of(self.environ('profile'))
                die(self.store)
                with self.assertRaises(s3.ResponseError) as caught:
                    operation(bucket)
                self.assertRegex(self.one_line(caught.exception), code + '.*; (get newer|check)')
                self.assertLessEqual(len(self.store.log), requests)
                self.assertEqual((self.clock.now, self.warnings()), (0, []))

    def test_dead_credentials_of_a_source_that_is_gone_fail_at_once(self):
        for code, die in sorted(self.DEATHS.items()):
            environ = self.environ('profile')
            bucket = self.of(environ)
            die(self.store)
            os.remove(self.key_file('other'))
            with self.assertRaisesRegex(s3.ResponseError, code):
                bucket.put_object('key', b'data')
            self.assertEqual((self.clock.now, self.warnings()), (0, []))

    def test_a_newer_key_is_found_at_once_though_the_one_at_hand_never_worked(self):
        for die in self.DEATHS.values():
            bucket = self.of(self.environ('profile'))
            die(self.store)
            self.key_file('new')
            self.assertEqual(self.used(bucket), 'NEW')
            self.assertEqual((len(self.store.log), self.clock.now, self.warnings()), (2, 0, []))

    def test_dead_credentials_that_worked_are_waited_for_and_a_line_says_so(self):
        for die in self.DEATHS.values():
            bucket = self.of(self.environ('profile'), jobs=3)
            del self.reports[:]

            def break_off(server, _, die=die):
                if 'PROFILE' in server.users:
                    die(server)
            self.store.on('CreateMultipartUpload', break_off)
            self.after(bucket, 300, lambda: self.key_file('new'))
            bucket.upload('key', io.BytesIO(pattern(19500)))
            self.assertEqual(self.store.objects['key'].data, pattern(19500))
            self.told_to_wait()
            refused = [request for request in self.store.log
                       if request.user == 'PROFILE' and request.status >= 400]
            self.assertLess(len(refused), 3 * 300 / bucket.credentials.SOON)

    def test_credentials_that_are_refused_are_tried_again_now_and_then(self):
        for outcome in (s3.NetworkError, None):
            bucket = self.of(self.environ('profile'))
            self.assertEqual(self.used(bucket), 'PROFILE')
            del self.store.users['PROFILE'], self.reports[:]
            requests, start = len(self.store.log), self.clock.now
            if outcome:
                for key in ('one', 'two'):
                    with self.assertRaisesRegex(outcome, "PutObject '%s': the server refuses the "
                                                r'credentials \(InvalidAccessKeyId\), and there '
                                                'are no newer ones: their source has' % key):
                        bucket.put_object(key, b'')
                self.assertIn(len(self.store.log) - requests, range(
                    20, 2 * s3.PATIENCE // bucket.credentials.SOON))
                self.assertAlmostEqual(self.clock.now - start, 2 * s3.PATIENCE, delta=30)
            else:               # the first newer ones are not known to the server
                self.after(bucket, 60, lambda: self.key_file('other'))
                self.after(bucket, 120, lambda: self.key_file('new'))
                bucket.put_object('one', b'')
                self.assertEqual([user for user, _ in itertools.groupby(
                    self.store.log[requests:], lambda request: request.user)],
                                 ['PROFILE', 'OTHER', 'NEW'])
            self.told_to_wait()

    def test_a_refusal_of_credentials_that_passes_fails_nothing(self):
        for code in sorted(self.DEATHS):
            for operation, refusals in ('UploadPart', 1), ('CompleteMultipartUpload', 3):
                with self.subTest(code, operation=operation):
                    bucket = self.of(self.environ('profile'), jobs=3)
                    del self.reports[:]
                    self.store.fault(operation, 'status', status=403, code=code, times=refusals)
                    bucket.upload('key', io.BytesIO(pattern(19500)))
                    self.assertEqual(self.store.objects['key'].data, pattern(19500))
                    self.assertLess(self.clock.now, s3.PATIENCE)
                    self.told_to_wait()
                    self.store.fault('PutObject', 'status', status=403, code=code)
                    del self.reports[:]
                    bucket.put_object('other', b'data')
                    self.told_to_wait()

    def test_refused_credentials_are_called_so_while_another_thread_tries_them_again(self):
        class Noticed(s3.Bucket):
            timeout = property(lambda bucket: waiting.set() or 5)

        def try_again():
            with self.assertRaisesRegex(s3.NetworkError, 'the server refuses the credentials'):
                bucket.credentials.get(bucket, refused=current)
            told.set()

        asked, answered, waiting, told = (threading.Event() for _ in range(4))
        bucket = self.of(self.environ('container', lifetime=None), patience=1)
        self.assertEqual(self.used(bucket), 'CONTAINER')
        current = bucket.credentials.get(bucket)
        del self.store.users['CONTAINER']
        self.assertRaises(s3.NetworkError, bucket.put_object, 'key', b'')
        self.services.on('*', lambda *_: asked.set() or answered.wait(10))
        bucket.__class__ = Noticed
        self.clock.now += bucket.credentials.SOON
        threads = [threading.Thread(target=bucket.credentials.get, args=[bucket]),
                   threading.Thread(target=try_again)]
        threads[0].start()
        self.assertTrue(asked.wait(10))
        waiting.clear()
        threads[1].start()
        self.assertTrue(waiting.wait(10))       # until the first one has its answer
        answered.set()
        for thread in threads:
            thread.join()
        self.assertTrue(told.is_set())

    def test_nobody_is_told_to_wait_for_credentials_where_nothing_waits(self):
        bucket = self.of(self.environ('profile'))
        with self.assertRaisesRegex(s3.Error, 'the producer died'):
            bucket.upload('key', self.breaking(lambda: self.store.users.pop('PROFILE')))
        text, = self.warnings()
        self.assertRegex(text, 'may be left behind: .*the server refuses the credentials')

    def test_a_head_that_is_refused_for_a_moment_is_repeated(self):
        for code, status in itertools.product(sorted(self.DEATHS), (403, 400)):
            bucket = self.of(self.environ('profile'))
            self.store.put('key', b'data')
            self.store.put('empty', b'')                    # a GET of its first byte is a 416
            for key, found in ('key', True), ('empty', True), ('none', False):
                self.store.fault('HeadObject', 'status', status=status, code=code, times=2)
                self.assertIs(bool(bucket.exists(key)), found)
                self.assertIsNotNone(bucket.exists(key))
            self.store.fault('HeadObject', 'status', status=403, code=code, times=None)
            requests = len(self.store.log)
            self.assertIsNone(bucket.exists('key'))         # a server may forbid HEAD alone
            self.assertLess(len(self.store.log) - requests, 10)
            self.assertLess(self.clock.now, 10)

    def test_a_head_with_a_key_that_is_tried_again_is_asked_why_it_is_refused(self):
        bucket = self.of(self.environ('profile'))
        self.assertEqual(self.used(bucket), 'PROFILE')
        self.store.put('key', b'data')
        self.store.users['PROFILE'].allow = WRITE_ONLY
        self.assertIsNone(bucket.exists('key'))             # trusted for a minute
        self.store.users['PROFILE'].allow = None
        gone = self.store.users.pop('PROFILE')
        self.after(bucket, 30, lambda: self.store.users.setdefault('PROFILE', gone))
        with self.assertRaises(s3.NetworkError):            # as another thread may
            bucket.credentials.get(bucket, refused=bucket.credentials.get(bucket))
        self.assertEqual(bucket.exists('key').size, 4)

    def test_what_is_sent_with_credentials_that_are_refused_is_no_progress(self):
        bucket = self.of(self.environ('profile'), patience=60)
        self.assertEqual(self.used(bucket), 'PROFILE')
        start = self.clock.now
        self.store.fault('PutObject', 'status', status=403, code='ExpiredToken', times=None)
        with self.assertRaisesRegex(s3.NetworkError, 'there are no newer ones'):
            bucket.put_object('key', bytes(s3.SOCKET_BUFFER + 1))
        self.assertAlmostEqual(self.clock.now - start, 60, delta=30)

    def test_keys_that_are_rotated_by_hand_are_read_from_their_file_again(self):
        ini = '[default]\naws_access_key_id = %s\naws_secret_access_key = secretOF%s\n'
        ours = 'access_key_id %s\nsecret_access_key secretOF%s\n'
        for name, text in (('credentials', ini), ('s3keys', ours)):
            server, path = self.server(), self.file(name, text % ('OLD', 'old'))
            os.chmod(path, 0o600)
            server.add_user('OLD', 'secretOFold')
            config, environ = {'access_key_id': '', 'secret_access_key': ''}, {}
            if text is ini:
                environ = {'AWS_SHARED_CREDENTIALS_FILE': path}
            else:
                config = s3.load_config(path)
            bucket = self.bucket(server, environ, **config)

            def rotate(server, _, name=name, text=text):
                server.add_user('NEW', 'secretOFnew')
                self.file(name, text % ('NEW', 'new'))
                server.users.pop('OLD', None)

            server.on('CreateMultipartUpload', rotate)
            bucket.upload('key', io.BytesIO(pattern(3500)))
            self.assertEqual(server.objects['key'].data, pattern(3500))
            self.assertEqual((server.log[-1].user, self.clock.now, self.warnings()),
                             ('NEW', 0, []))

    def test_short_lived_credentials_carry_a_transfer_without_a_refusal(self):
        for source, lifetime in (('instance', 12), ('container', 3), ('web', 3)):
            with self.subTest(source, lifetime=lifetime):
                environ, services, ends = self.environ(source), self.services, {}
                del services.credentials[:], services.hooks[:]
                services.offset = 0
                for number in range(40):
                    services.issue('KEY%d' % number, 'secretOFkey', 'tokenOFkey', lifetime)

                def issue(services, _, lifetime=lifetime, ends=ends):
                    ends[services.credentials[0].access_key] = services.now() + lifetime

                services.on('*', issue)
                bucket = self.of(environ, jobs=1)
                for number in range(40):
                    self.store.add_user('KEY%d' % number, 'secretOFkey',
                                        session_token='tokenOFkey')

                def pass_time(store, exchange, bucket=bucket, ends=ends, start=time.time()):
                    requests = len(store.log)       # a second for each, however long it takes
                    if start + requests > ends[exchange.access_key]:
                        raise S3Error('ExpiredToken')
                    for each in (store, self.services, bucket):
                        each.offset = start + requests + 1 - time.time()
                    self.clock.now += 1

                self.store.on('*', pass_time)
                bucket.upload('key', io.BytesIO(pattern(39500)))
                self.assertEqual(self.store.objects['key'].data, pattern(39500))
                self.assertEqual({request.status for request in self.store.log}, {200})
                self.assertGreaterEqual(len(ends), 42 // lifetime)
                self.assertEqual(self.warnings(), [])

    def test_a_clock_that_is_ahead_does_not_end_credentials_before_the_server_was_asked(self):
        bucket = self.of(self.environ('instance', lifetime=3600))
        self.services.offset = self.store.offset = -7200
        bucket = self.bucket(self.store, self.environ('instance', lifetime=3600),
                             access_key_id='', secret_access_key='')
        self.assertEqual(list(bucket.list_objects()), [])
        self.assertAlmostEqual(bucket.offset, -7200, delta=10)
        self.assertEqual((len(self.store.log), self.clock.now), (2, 0))

    def test_another_source_is_somebody_else(self):
        bucket = self.of(dict(self.environ('instance'), **self.environ('profile')))
        self.assertEqual(self.used(bucket), 'PROFILE')
        self.store.users['PROFILE'].expired = True
        self.file('credentials', '')
        bucket.patience = 5
        with self.assertRaisesRegex(s3.NetworkError, 'no newer ones: no profile default'):
            bucket.put_object('key', b'data')

    def test_threads_share_the_failure_of_a_renewal(self):
        for seconds in (0, 33):
            bucket = self.of(self.environ('container'))
            self.assertEqual(self.used(bucket), 'CONTAINER')
            self.store.users['CONTAINER'].expired = True
            self.services.fail('container', status=404, times=None).where = lambda exchange: (
                exchange.operation == 'container' and self.clock.sleep(seconds) is None)
            bucket.patience = 0.001
            asked, threads = len(self.services.log), []
            failed = []

            def put(number):
                try:
                    bucket.put_object('%d' % number, b'')
                except s3.NetworkError as error:
                    failed.append(str(error))
                bucket.close()

            for number in range(20):
                threads.append(threading.Thread(target=put, args=[number]))
                threads[-1].start()
            for thread in threads:
                thread.join()
            self.assertEqual(len(failed), 20)
            self.assertLess(len(self.services.log) - asked, 4)
            self.services.clear_faults()

    def test_a_thread_that_waits_for_a_key_can_be_sent_home(self):
        bucket = self.of(self.environ('container'))
        self.store.users['CONTAINER'].expired = True
        self.services.fail('container', stall=True, times=None)
        workers, asked = s3.Workers(bucket), len(self.services.log) + 1
        for number in range(2):         # one asks, and the other waits for it
            workers.submit(bucket.put_object, '%d' % number, b'')
        self.until(lambda: len(self.services.log) == asked)
        started = time.monotonic()
        workers.stop()
        self.assertLess(time.monotonic() - started, 10)
        for connection in list(self.services.live):     # which is waited for, for 5 s
            connection.shut_down()
        self.until(lambda: not any(thread.alive for thread in workers._threads))
        self.assertEqual(len(self.services.log), asked)

    def test_sts_that_is_busy_is_asked_again(self):
        for code in ('Throttling', 'IDPCommunicationError'):
            environ = self.environ('web')
            self.services.fail('sts', status=400, code=code, times=2)
            self.assertEqual(self.used(self.of(environ)), 'WEB')

    def test_static_keys_that_are_refused_stay_refused(self):
        for code in sorted(s3.EXPIRED_CODES):
            bucket = self.of(self.environ('environment'))
            self.store.fault('PutObject', 'status', times=None, status=400, code=code)
            with self.assertRaisesRegex(s3.ResponseError, code):
                bucket.put_object('key', b'')
            self.assertEqual(len(self.store.log), 1)


class LearningTests(ClientTestCase):
    """What the server teaches: its clock, its region, its host."""

    def test_the_time_is_asked_without_a_name_or_a_signature(self):
        unnamed = None, None, False
        for quirks, then in ((), []), (('no-date',), [('bucket', 'AKIDEXAMPLE', True)]):
            server = self.server(quirks=quirks)
            bucket = self.bucket(server)
            bucket.learn_clock()
            self.assertEqual([(request.bucket, request.user, 'authorization' in request.headers)
                              for request in server.log], [unnamed] + then)
        server.stop()
        bucket.learn_clock()            # nobody there is not a failure: what comes next will see
        self.assertLess(self.clock.now, 60)
        start, bucket.patience = self.clock.now, 4
        bucket.learn_clock()
        self.assertLess(self.clock.now - start, 4)

    def test_the_time_is_learnt_though_the_answer_that_tells_it_is_lost(self):
        for offset, quirks, lost in ((-9 * 86400, (), 3), (9 * 86400, ('no-date',), 0)):
            server = self.server(quirks=quirks)
            server.offset = offset
            server.fault('*', 'hangup', times=lost)
            bucket = self.bucket(server)
            bucket.learn_clock()
            self.assertAlmostEqual(bucket.offset, offset, delta=10)

    def test_nothing_is_said_of_a_clock_that_was_set_right(self):
        bucket = self.bucket(self.server())
        bucket.offset = 8 * 3600
        bucket.put_object('key', b'data')
        self.assertAlmostEqual(bucket.offset, 0, delta=10)
        self.assertEqual(self.warnings(), [])

    def test_only_a_refused_signature_proves_that_a_clock_is_wrong(self):
        for allow in (None, WRITE_ONLY):
            for offset, quirks, expected in ((0, ['wrong-date'], 0), (90000, [], 90000),
                                             (90000, ['wrong-date'], 90000)):
                server = self.server(quirks=quirks)
                server.offset, server.users[server.access_key].allow = offset, allow
                bucket = self.bucket(server)
                bucket.learn_clock()
                self.assertAlmostEqual(bucket.offset, expected, delta=10)
                bucket.put_object('key', b'data')

    def test_a_clock_that_is_wrong_by_hours_or_decades_is_corrected(self):
        for offset in (3600 * 5, -3600 * 5, 86400 * 365 * 30, -86400 * 365 * 30):
            for quirks in ((), ('no-date',)):
                server = self.server(quirks=quirks)
                server.offset = offset
                bucket = self.bucket(server)
                bucket.upload('key', io.BytesIO(pattern(3500)))
                self.assertEqual(self.restored(bucket, 'key')[0], pattern(3500))
                self.assertAlmostEqual(bucket.offset, offset, delta=5)

    def test_a_lock_counts_from_the_time_that_the_server_tells(self):
        for offset in (-90, 90):
            for size in (500, 2500):
                server = self.server()
                server.offset = offset * 86400
                bucket = self.bucket(server)
                bucket.retain = 'GOVERNANCE', 30
                bucket.upload('key', io.BytesIO(pattern(size)))
                self.assertAlmostEqual(server.objects['key'].lock_until,
                                       time.time() + (offset + 30) * 86400, delta=60)

    def test_a_head_without_a_body_teaches_the_clock_as_well(self):
        server = self.server()
        server.offset = 86400
        self.assertIs(self.bucket(server).exists('key'), False)

    def test_a_head_that_is_refused_without_a_reason_is_asked_again_by_get_once(self):
        for offset in (0, 86400):
            for quirks in ((), ('no-date',)):
                for allow, found in ((None, False), (WRITE_ONLY, None)):
                    server = self.server(quirks=quirks)
                    server.offset, server.users[server.access_key].allow = offset, allow
                    bucket = self.bucket(server)
                    with self.subTest(offset=offset, quirks=quirks, found=found):
                        self.assertIs(bucket.exists('key'), found)
                        bucket.put_object('key', b'data')
                        bucket.exists('key')
                        self.assertAlmostEqual(bucket.offset, offset, delta=10)
                        self.assertLessEqual(server.operations().count('GetObject'), 1)
                        self.assertEqual(server.log[-2].operation, 'PutObject')

    def test_all_threads_learn_of_a_clock_that_jumps(self):
        server = self.server()
        server.on('CreateMultipartUpload', lambda *_: setattr(server, 'offset', 7200))
        bucket = self.bucket(server, jobs=4)
        bucket.upload('key', io.BytesIO(pattern(20500)))
        self.assertEqual(server.objects['key'].data, pattern(20500))

    def test_a_wrong_region_is_learnt_with_one_more_request(self):
        server = self.server(region='eu-west-1')
        bucket = self.bucket(server, region='us-east-1')
        bucket.put_object('key', b'data')
        self.assertEqual(len(server.log), 2)
        bucket = self.bucket(server, region='us-east-1')
        self.assertTrue(bucket.exists('key'))
        self.assertEqual(len(server.log), 4)

    def test_a_region_that_only_a_get_tells_is_learnt(self):
        server = self.server(region='garage')
        server.put('key', b'data')
        server.fault('HeadObject', 'status', status=400)
        self.assertTrue(self.bucket(server, region='us-east-1').exists('key'))
        self.assertEqual(server.operations(), ['HeadObject', 'GetObject', 'HeadObject'])

    def test_a_redirect_to_the_same_host_is_followed_and_another_is_not(self):
        other = self.server()
        other.put('x', b'')
        for status in (301, 302, 307, 308):     # the last three are what proxies send
            with self.subTest(status):
                server = self.server()
                server.fault('PutObject', 'redirect', status=status,
                             location='%s/bucket/key' % other.url)
                self.bucket(server).put_object('key', b'%d' % status, overwrite=True)
                self.assertEqual(other.objects['key'].data, b'%d' % status)
        for location in ('http://localhost:%d/' % other.port, 'http://[::1]:1/', 'ftp://x/', '//',
                         'http://evil.example.com/', 'http://[', 'http://127.0.0.1:99999/',
                         'http://a..b/'):
            with self.subTest(location):
                server = self.server()
                server.fault('PutObject', 'redirect', times=None, location=location)
                before = len(other.log)
                with self.assertRaises(s3.Error) as caught:
                    self.bucket(server).put_object('key', b'data')
                self.assertRegex(self.one_line(caught.exception),
                                 '^PutObject .key.: the server redirects to .* not followed')
                self.assertEqual(len(other.log), before)

    def test_servers_that_redirect_to_each_other_are_given_up(self):
        first, second = self.server(), self.server()
        first.fault('*', 'redirect', times=None, location=second.url)
        second.fault('*', 'redirect', times=None, location=first.url)
        with self.assertRaisesRegex(s3.ResponseError, 'TemporaryRedirect'):
            self.bucket(first).put_object('key', b'data')
        self.assertEqual((len(first.log), len(second.log)), (2, 2))


class BucketTests(ClientTestCase):
    """The operations, one by one."""

    KEYS = ('plain', '/leading', '//two', 'a b', 'a+b', '100%', '~tilde', "it's \"quoted\"",
            'ünïcödé/日本', '?#&=;', 'a//b/../c/./', 'h:/:0:2026-11-22', '\t\n\x01', '%2F', '*()!')

    def test_every_key_signs_lists_and_comes_back(self):
        server = self.server(page_size=4)
        bucket = self.bucket(server)
        for key in self.KEYS:
            bucket.put_object(key, key.encode())
        self.assertEqual(set(server.objects), set(self.KEYS))
        self.assertEqual([entry.key for entry in bucket.list_objects()],
                         sorted(self.KEYS, key=str.encode))
        for key in self.KEYS:
            with self.subTest(key):
                self.assertEqual([entry.key for entry in bucket.list_objects(key)
                                  if entry.key == key], [key])
                self.assertEqual(self.restored(bucket, key), (key.encode(), 'etag'))
                with urlopen(bucket.presigned_url(key, 60)) as answer:
                    self.assertEqual(answer.read(), key.encode())
                bucket.delete_object(key)
        self.assertEqual(dict(server.objects), {})

    def test_versions_of_every_key_are_listed_and_read_at_their_time(self):
        for size, quirks in ((1, ()), (4, ('markers-last',)), (1000, ('no-encoding-type',))):
            server = self.server(page_size=size, quirks=quirks)
            server.versioning = 'Enabled'
            bucket = self.bucket(server)
            keys = [key for key in self.KEYS if size < 1000 or key.isprintable()]
            for key in keys:
                server.put(key, b'1' + key.encode(), modified=10)
                server.put(key, b'2' + key.encode(), modified=10)
                server.delete(key, modified=20)
                server.delete(key, modified=30)
                server.put(key, b'3' + key.encode(), modified=30)
                server.put(key + '$', b'', modified=20)
                server.delete(key + '$', modified=40)
            for at, digit in ((9, b''), (10, b'2'), (20, b''), (29, b''), (30, b'3'),
                              (s3.UNDELETED, b'3')):
                bucket.at = at
                found = {entry.key: entry for entry in bucket.list_objects()}
                self.assertEqual({key for key in found if not key.endswith('$')},
                                 set(keys) if digit else set())
                self.assertEqual(any(key.endswith('$') for key in found),
                                 at is s3.UNDELETED or at >= 20)
                for key in keys[::5]:
                    if digit:
                        key = found[key].key
                        self.assertEqual(self.restored(bucket, key)[0], digit + key.encode())
                        with urlopen(bucket.presigned_url(key, 60)) as answer:
                            self.assertEqual(answer.read(), digit + key.encode())
            self.assertEqual({key: bytes(server.objects[key].data[:1]) for key in server.objects},
                             dict.fromkeys(keys, b'3'))

    def test_the_versions_of_a_page_are_put_in_order(self):
        # an object from before versions were kept is called null, or by some servers nothing
        last = (('Version', 'b', '', 'false', '01'), ('Version', 'a', '1', 'false', '02'),
                ('Version', 'a', '2', 'true', '01'), ('Version', 'a', '3', 'false', '01'),
                ('DeleteMarker', 'b', '2', 'true', '01'), ('DeleteMarker', 'a', '4', 'false', '01'))
        # of the second one, an upload that took long, LastModified is the time of its begin
        among = (('DeleteMarker', 'a', '3', 'true', '05'), ('Version', 'a', '2', 'false', '01'),
                 ('Version', 'a', '1', 'false', '03'))
        for rows, order in ((last, 'a2 a1 a3 a4 b2 bnull'), (among, 'a3 a2 a1')):
            body = '<ListVersionsResult>%s</ListVersionsResult>' % ''.join(
                '<%s><Key>%s</Key><VersionId>%s</VersionId><IsLatest>%s</IsLatest><LastModified>'
                '2020-01-01T00:00:00.%s0Z</LastModified><Size>1</Size></%s>' % (row + row[:1])
                for row in rows)
            self.assertEqual(' '.join(entry.key + entry.key.version for entry in s3.version_entries(
                s3.Document(body.encode()), str)), order)

    def test_an_entry_that_lacks_something_is_not_passed_over(self):
        row = '<%s><Key>k</Key><LastModified>2020-01-01T00:00:00Z</LastModified></%s>'
        server = self.server()
        for operation, root, kind, ask in (
                ('ListObjectsV2', 'ListBucketResult', 'Contents', s3.Bucket.list_objects),
                ('ListObjectVersions', 'ListVersionsResult', 'Version',
                 s3.Bucket.list_object_versions),
                ('ListMultipartUploads', 'ListMultipartUploadsResult', 'Upload',
                 s3.Bucket.list_multipart_uploads)):
            server.fault(operation, 'body', times=None, body=(
                '<%s>%s</%s>' % (root, row % (kind, kind), root)).encode())
            with self.assertRaisesRegex(s3.BadAnswer, 'lacks its key, size, id or time'):
                list(ask(self.bucket(server)))

    def test_a_bucket_without_versions_is_seen_as_it_is(self):
        server = self.server()
        server.put('key', b'data', modified=10)
        bucket = self.bucket(server)
        for at, found in ((9, []), (10, ['key']), (s3.UNDELETED, ['key'])):
            bucket.at = at
            self.assertEqual([entry.key for entry in bucket.list_objects()], found)
        self.assertEqual(self.restored(bucket, *(entry.key for entry in bucket.list_objects()))[0],
                         b'data')

    def test_a_server_without_versions_is_told_in_a_line(self):
        for body in (b'<ListBucketResult/>', b'<html>'):
            server = self.server()
            server.fault('ListObjectVersions', 'body', times=None, body=body)
            bucket = self.bucket(server)
            bucket.at = 1
            with self.assertRaises(s3.BadAnswer) as caught:
                list(bucket.list_objects())
            self.assertIn('ListObjectVersions: the answer of the server is',
                          self.one_line(caught.exception))

    def test_the_rights_that_versions_need_are_named(self):
        server = self.server()
        server.versioning = 'Enabled'
        bucket, marker = self.bucket(server), server.delete('key')
        server.users[server.access_key].allow = ()
        key = s3.Key('key', marker.version_id)
        for right, call in (
                ('ListBucketVersions', lambda: list(bucket.list_object_versions())),
                ('GetObjectVersion', lambda: bucket.get_object(key, memoryview(bytearray(1)))),
                ('GetObjectVersion', lambda: bucket.head_object(key)),
                ('RestoreObject', lambda: bucket.restore_object(key, 1)),
                ('DeleteObjectVersion', lambda: bucket.delete_object(key))):
            with self.assertRaisesRegex(s3.ResponseError, r's3:%s\b' % right):
                call()

    def test_virtual_hosted_style_signs_the_same_keys(self):
        server = self.server()
        with Proxy() as proxy:          # which knows the name that no name server does
            proxy.resolve['bucket.s3.test:80'] = server.host, server.port
            bucket = self.bucket(server, {'HTTP_PROXY': proxy.url}, endpoint='http://s3.test',
                                 addressing='virtual')
            for key in self.KEYS:
                with self.subTest(key):
                    bucket.put_object(key, key.encode())
                    self.assertEqual(self.restored(bucket, key), (key.encode(), 'etag'))
        self.assertEqual(set(server.objects), set(self.KEYS))
        self.assertEqual({request.headers['host'] for request in server.log}, {'bucket.s3.test'})

    def test_a_listing_has_all_pages_and_its_fields(self):
        server = self.server(page_size=3)
        for number in range(10):
            server.put('k%d' % number, b'x' * number, modified=1e9 + number,
                       storage_class='GLACIER' if number == 5 else 'STANDARD')
        entries = list(self.bucket(server).list_objects('k'))
        self.assertEqual([entry.key for entry in entries], ['k%d' % n for n in range(10)])
        self.assertEqual([entry.size for entry in entries], list(range(10)))
        self.assertEqual(entries[5][2:4], (1000000005, 'GLACIER'))
        self.assertEqual(len(server.log), 4)

    def test_unfinished_uploads_are_listed_and_aborted(self):
        server = self.server(page_size=2)
        bucket = self.bucket(server)
        ids = {bucket.create_multipart_upload(key): key for key in ('a', 'a', 'b +', 'c', 'x')}
        found = {entry.upload_id: entry.key for entry in bucket.list_multipart_uploads()}
        self.assertEqual(found, ids)
        self.assertEqual([entry.key for entry in bucket.list_multipart_uploads('b')], ['b +'])
        for upload in list(bucket.list_multipart_uploads()):
            self.assertTrue(bucket.abort_multipart_upload(upload))
            self.assertFalse(bucket.abort_multipart_upload(upload))
        self.assertEqual(server.uploads, {})

    def test_a_server_that_knows_version_1_of_listings_only_goes_on_by_marker(self):
        for quirks in (['version-1'], ['version-1', 'no-encoding-type']):
            keys = [key for key in self.KEYS if key.isprintable() or len(quirks) == 1]
            server = self.server(page_size=4, quirks=quirks)
            for key in keys:
                server.put(key, b'')
            bucket = self.bucket(server)
            self.assertEqual([entry.key for entry in bucket.list_objects()], sorted(keys))
            self.assertEqual(len(server.log), 4)
            self.assertEqual([entry.key for entry in bucket.list_objects('/')],
                             sorted(key for key in keys if key.startswith('/')))

    def test_the_marker_that_a_server_tells_is_taken_and_one_that_stands_still_is_no_end(self):
        entry = ('<Contents><Key>k+%2B</Key><LastModified>2020-01-01T00:00:00Z</LastModified>'
                 '<Size>1</Size></Contents>')
        page = ('<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>'
                '%s</ListBucketResult>')
        for inside, marker in ((entry, 'k +'), (entry + '<NextMarker>n%2Fm</NextMarker>', 'n/m')):
            server = self.server()
            server.fault('ListObjectsV2', 'body', times=None, body=(page % inside).encode())
            with self.assertRaisesRegex(s3.BadAnswer, 'the listing has no end'):
                list(self.bucket(server).list_objects())
            self.assertEqual([request.query.get('marker') for request in server.log],
                             [None, marker])

    def test_keys_that_were_encoded_without_a_word_are_known_by_their_prefix(self):
        server = self.server(page_size=2, quirks=['unnamed-encoding'])
        bucket = self.bucket(server)
        keys = ['h:/a b:0', 'h:/a b:0', 'h:/a+b:0', 'h:100%:0', 'h:%2F:0', 'other']
        for key in keys:
            bucket.create_multipart_upload(key)
        found = list(bucket.list_multipart_uploads('h:'))
        self.assertEqual(sorted(entry.key for entry in found), sorted(keys[:-1]))
        for upload in found:
            self.assertTrue(bucket.abort_multipart_upload(upload))
        self.assertEqual([upload.key for upload in server.uploads.values()], ['other'])
        for key in keys[:-1]:
            bucket.create_multipart_upload(key)
        self.assertEqual(sorted(entry.key for entry in bucket.list_multipart_uploads()),
                         sorted(keys))
        server = self.server(quirks=['no-encoding-type'])
        server.put('h%3Afs%3A0%3A2020-01-01', b'')      # not a dump, and not to be taken for one
        self.assertEqual([entry.key for entry in self.bucket(server).list_objects()],
                         list(server.objects))

    def test_objects_are_created_with_class_encryption_and_metadata(self):
        server = self.server()
        bucket = self.bucket(server, storage_class='STANDARD_IA', sse='aws:kms',
                             sse_kms_key_id='key', max_parts=7)
        bucket.put_object('one', b'1')
        bucket.upload('two', io.BytesIO(pattern(2500)))
        for key in ('one', 'two'):
            found = server.objects[key]
            self.assertEqual((found.storage_class, found.sse), ('STANDARD_IA', 'aws:kms'))
            self.assertEqual(found.metadata['x-amz-meta-volume-size'], '7000')
            self.assertEqual(found.metadata['x-amz-meta-part-size'], '1000')

    def test_what_a_bucket_demands_is_sent(self):
        owner, payer = 'x-amz-expected-bucket-owner', 'x-amz-request-payer'
        for config, name, value in (
                ({'bucket_owner': '123456789012'}, owner, '123456789012'),
                ({'request_payer': 'requester'}, payer, 'requester'),
                ({'acl': 'bucket-owner-full-control'}, 'x-amz-acl', 'bucket-owner-full-control'),
                ({'tagging': 'a%20b=%C3%A4%2F%2B&c='}, 'x-amz-tagging', 'a%20b=%C3%A4%2F%2B&c='),
                ({'sse': 'aws:kms:dsse', 'sse_kms_key_id': 'key'}, 'x-amz-server-side-encryption',
                 'aws:kms:dsse'),
                ({'sse_kms_key_id': 'key'}, 'x-amz-server-side-encryption', 'aws:kms'),
                ({'sse': 'aws:kms', 'sse_kms_key_id': 'key'},
                 'x-amz-server-side-encryption-aws-kms-key-id', 'key')):
            with self.subTest(config):
                server = self.server()
                server.demands[name] = value
                stranger, bucket = self.bucket(server), self.bucket(server, **config)
                with self.assertRaisesRegex(s3.ResponseError, 'AccessDenied'):
                    stranger.put_object('key', b'')
                self.every_operation(bucket)
                if name in (owner, payer):
                    server.put('key', b'data')
                    for ask in (lambda: stranger.get_object('key', memoryview(bytearray(4))),
                                lambda: list(stranger.list_objects()), stranger.head_bucket,
                                lambda: urlopen(stranger.presigned_url('key', 60))):
                        with self.assertRaisesRegex((s3.ResponseError, urllib.error.HTTPError),
                                                    '403'):
                            ask()
                self.assertEqual(server.violations, [])

    def every_operation(self, bucket):
        """Have the bucket do whatever it can."""
        bucket.head_bucket()
        bucket.put_object('short', b'data')
        bucket.upload('long', io.BytesIO(pattern(2500)))
        upload = s3.UploadEntry('key', bucket.create_multipart_upload('key'), 0)
        bucket.upload_part(upload, 1, b'data')
        self.assertEqual(list(bucket.list_parts(upload)), [4])
        self.assertEqual([entry.key for entry in bucket.list_multipart_uploads()], ['key'])
        self.assertTrue(bucket.abort_multipart_upload(upload))
        self.assertEqual([entry.key for entry in bucket.list_objects()], ['long', 'short'])
        self.assertEqual(self.restored(bucket, 'long')[0], pattern(2500))
        bucket.put_object_acl('short', bucket.get_object_acl('short'))
        with urlopen(bucket.presigned_url('short', 60)) as answer:
            self.assertEqual(answer.read(), b'data')
        bucket.delete_object('short')
        bucket.learn_clock()

    def test_nothing_goes_to_a_bucket_that_is_somebody_elses_now(self):
        server = self.server()
        server.put('key', b'data')
        bucket = self.bucket(server, bucket_owner='123456789012')
        self.assertEqual(self.restored(bucket, 'key')[0], b'data')
        server.owner = '210987654321'
        for ask in (lambda: bucket.put_object('new', b'data'), bucket.head_bucket,
                    lambda: bucket.upload('new', io.BytesIO(pattern(2500))),
                    lambda: self.restored(bucket, 'key'), lambda: list(bucket.list_objects()),
                    lambda: bucket.delete_object('key'),
                    lambda: urlopen(bucket.presigned_url('key', 60))):
            with self.assertRaisesRegex((s3.ResponseError, urllib.error.HTTPError), '403'):
                ask()
        self.assertEqual((list(server.objects), server.uploads), (['key'], {}))
        server = self.server(buckets=())
        self.bucket(server, bucket_owner='123456789012').create_bucket()    # whose it will be
        self.assertEqual((list(server.buckets), server.violations), (['bucket'], []))

    def test_an_existing_object_is_not_replaced_unless_asked(self):
        for size in (10, 3000):
            server = self.server()
            bucket = self.bucket(server)
            bucket.upload('key', io.BytesIO(pattern(size)))
            with self.assertRaisesRegex(s3.ResponseError, 'PreconditionFailed .412.*exists'):
                bucket.upload('key', io.BytesIO(b'other' * size))
            self.assertEqual(self.restored(bucket, 'key'), (pattern(size), 'etag'))
            bucket.upload('key', io.BytesIO(b'other' * size), overwrite=True)
            self.assertEqual(self.restored(bucket, 'key')[0], b'other' * size)
            self.assertEqual(server.uploads, {})

    def test_acls_come_and_go_as_xml(self):
        server = self.server()
        bucket = self.bucket(server)
        bucket.put_object('key', b'')
        acl = bucket.get_object_acl('key')
        self.assertIn(b'AccessControlPolicy', acl)
        bucket.put_object_acl('key', acl)
        self.assertEqual(server.objects['key'].data, b'')

    def test_the_bucket_is_created_in_its_region(self):
        for region in ('us-east-1', 'eu-central-1'):
            server = self.server(region=region, buckets=())
            bucket = self.bucket(server)
            with self.assertRaises(s3.ResponseError) as caught:
                bucket.head_bucket()
            self.assertEqual(caught.exception.status, 404)
            bucket.create_bucket()
            bucket.head_bucket()

    def test_a_server_with_one_region_gets_its_bucket_without_naming_it(self):
        def named(exchange):
            return exchange.headers.get('content-length') != '0'

        for status, code in ((400, 'InvalidLocationConstraint'), (400, 'MalformedXML'),
                             (400, 'IllegalLocationConstraintException'), (501, 'NotImplemented')):
            server = self.server(region='eu-central-1', buckets=(), quirks=['one-region'])
            server.fault('CreateBucket', 'status', status=status, code=code, where=named)
            self.bucket(server).create_bucket()
            self.assertEqual(([request.status for request in server.log], list(server.buckets)),
                             ([status, 200], ['bucket']))

    def test_without_the_region_too_a_refusal_is_a_refusal(self):
        for region, code, count in (('eu-central-1', 'InvalidLocationConstraint', 2),
                                    ('us-east-1', 'InvalidLocationConstraint', 1),
                                    ('eu-central-1', 'InvalidBucketName', 1)):
            server = self.server(region=region, buckets=())
            server.fault('CreateBucket', 'status', times=None, status=400, code=code)
            with self.assertRaisesRegex(s3.ResponseError, code):
                self.bucket(server).create_bucket()
            self.assertEqual(len(server.log), count)

    def test_amazon_is_not_asked_for_a_bucket_anywhere(self):
        server = self.server(region='eu-central-1', buckets=(), quirks=['one-region'])
        with Proxy() as proxy:
            proxy.resolve['s3.eu-central-1.amazonaws.com:80'] = server.host, server.port
            bucket = self.bucket(server, {'HTTP_PROXY': proxy.url}, addressing='path',
                                 endpoint='http://s3.eu-central-1.amazonaws.com')
            with self.assertRaisesRegex(s3.ResponseError, 'InvalidLocationConstraint'):
                bucket.create_bucket()
        self.assertEqual((len(server.log), server.buckets), (1, {}))

    def test_a_session_token_is_sent_and_signed(self):
        server = self.server()
        server.users[server.access_key].session_token = 'token/+='
        self.bucket(server, session_token='token/+=').put_object('key', b'')
        with self.assertRaises(s3.ResponseError):
            self.bucket(server).put_object('key2', b'')


class UploadTests(ClientTestCase):

    def test_streams_of_every_length_around_a_part_are_stored_whole(self):
        server = self.server()
        bucket = self.bucket(server)
        for size in (0, 1, 999, 1000, 1001, 1999, 2000, 2001, 7777):
            with self.subTest(size):
                stored = bucket.upload('%d' % size, io.BytesIO(pattern(size)))
                parts = max(1, -(-size // 1000))
                self.assertEqual(stored, ('%d' % size, size, parts, 1))
                self.assertEqual(server.objects['%d' % size].data, pattern(size))
                self.assertEqual(self.restored(bucket, '%d' % size), (pattern(size), 'etag'))
        self.assertEqual(server.uploads, {})

    def test_a_short_stream_is_one_request(self):
        server = self.server()
        self.bucket(server).upload('key', io.BytesIO(b'short'))
        self.assertEqual(server.operations(), ['PutObject'])

    def test_all_parts_but_the_last_have_one_size(self):
        server = self.server()
        self.bucket(server).upload('key', io.BytesIO(pattern(3500)))
        self.assertEqual(server.objects['key'].parts, [1000, 1000, 1000, 500])

    def test_what_does_not_fit_goes_on_in_volumes_and_the_first_is_completed_last(self):
        for size, objects in (
                (2999, {'k': 2999}),
                (3000, {'k': 3000, 'k.end_000000': 0}),
                (3001, {'k': 3000, 'k.volume_000001': 1, 'k.end_000001': 0}),
                (6000, {'k': 3000, 'k.volume_000001': 3000, 'k.end_000001': 0}),
                (6001, {'k': 3000, 'k.volume_000001': 3000, 'k.volume_000002': 1,
                        'k.end_000002': 0})):
            with self.subTest(size):
                server = self.server()
                bucket = self.bucket(server, max_parts=3)
                stored = bucket.upload('k', io.BytesIO(pattern(size)))
                self.assertEqual({key: found.size for key, found in server.objects.items()},
                                 objects)
                self.assertEqual(stored, ('k', size, -(-size // 1000), len(objects)))
                completed = [request.key for request in server.log if request.operation in
                             ('CompleteMultipartUpload', 'PutObject')]
                self.assertEqual(completed[-1], 'k')
                keys = sorted(key for key in objects if 'end' not in key)
                self.assertEqual(self.restored(bucket, *keys, ended=len(objects) > 1)[0],
                                 pattern(size))

    def test_a_stream_is_not_read_again_after_its_end(self):
        class Tape(io.BytesIO):
            def readinto(self, view):
                count = io.BytesIO.readinto(self, view[:1200])
                if not count:
                    self.__init__(b'the next file')
                return count

        for size in (0, 10, 2400, 3600):
            server = self.server()
            stored = self.bucket(server).upload('key', Tape(pattern(size)))
            self.assertEqual((stored.size, server.objects['key'].data), (size, pattern(size)))

    def test_the_stream_is_read_while_a_volume_is_completed(self):
        class Stream(io.BytesIO):
            def readinto(self, view):
                if self.tell() == position:
                    fault.release.set()
                return io.BytesIO.readinto(self, view)

        server = self.server()
        bucket, position = self.bucket(server, max_parts=4), 9000
        bucket.timeout = bucket.complete_timeout = 20
        fault = server.fault('CompleteMultipartUpload', 'stall', when='start',
                             where=lambda exchange: exchange.key == 'k.volume_000001')
        stream, late = Stream(pattern(9500)), []
        timer = threading.Timer(10, lambda: (late.append(stream.tell()), fault.release.set()))
        timer.start()
        self.assertEqual(bucket.upload('k', stream), ('k', 9500, 10, 4))
        timer.cancel()
        self.assertEqual(late, [])
        self.assertEqual(self.restored(bucket, 'k', 'k.volume_000001', 'k.volume_000002'),
                         (pattern(9500), 'etag'))

    def test_full_volumes_are_completed_while_the_stream_goes_on(self):
        for jobs, max_parts in ((4, 1), (2, 2), (2, 6)):
            server = self.server()
            reader, writer = os.pipe()

            def feed(server=server, writer=writer):
                with open(writer, 'wb', buffering=0) as end:
                    for number in range(0, 40, 5):
                        # Of the uploads only the first and the last may be open
                        self.until(lambda: server.operations().count('UploadPart') == number
                                   and len(server.uploads) <= 2)
                        end.write(bytes(5000))

            thread = threading.Thread(target=feed)
            thread.start()
            with open(reader, 'rb', buffering=0) as stream:
                bucket = self.bucket(server, jobs=jobs, max_parts=max_parts)
                self.assertEqual(bucket.upload('k', stream).parts, 40)
            thread.join()

    def test_a_lost_answer_before_the_clock_is_corrected_is_not_forgotten(self):
        server = self.server()
        server.add_user('WRITER', 'sesame', allow=WRITE_ONLY)
        bucket = self.bucket(server, max_parts=2, access_key_id='WRITER',
                             secret_access_key='sesame')
        server.on('PutObject', lambda server, exchange: server.__setattr__('offset', 5000))
        server.fault('PutObject', 'hangup', when='done')
        self.assertEqual(bucket.upload('k', io.BytesIO(pattern(2500)), unique=True),
                         ('k', 2500, 3, 3))
        self.assertEqual(server.uploads, {})

    def test_a_refusal_is_noticed_while_the_stream_stands_still(self):
        for operation, key in (('CreateMultipartUpload', 'k'), ('UploadPart', 'k'),
                               ('CreateMultipartUpload', 'k.volume_000001'),
                               ('CompleteMultipartUpload', 'k.volume_000001')):
            with self.subTest(operation, key=key):
                server = self.server()
                server.fault(operation, 'status', times=None, status=403, code='AccessDenied',
                             where=lambda exchange, key=key: exchange.key == key)
                reader, writer = os.pipe()
                with open(reader, 'rb', buffering=0) as stream, \
                        open(writer, 'wb', buffering=0) as feed:
                    feed.write(pattern(6500))
                    with self.assertRaisesRegex(s3.ResponseError, 'AccessDenied'):
                        self.bucket(server, max_parts=2).upload('k', stream)
                self.assertEqual((server.objects, server.uploads), ({}, {}))

    def test_a_thread_whose_start_was_interrupted_ends_with_the_others(self):
        class Signal(BaseException):
            pass

        def start(function, _, original=_thread.start_new_thread):
            original(lambda: stopped.wait(10) and function(), ())
            raise Signal()

        stopped, ended = threading.Event(), []
        workers = s3.Workers(self.bucket(self.server()))
        workers._work = lambda work=workers._work: ended.append(work())
        with unittest.mock.patch('_thread.start_new_thread', start):
            self.assertRaises(Signal, workers.submit, bytes)
        workers.stop()
        stopped.set()
        self.until(lambda: ended == [None])     # and not by an exception

    def descriptors(self):
        """Return the numbers of all open files; one that accept4() only reserved is none."""
        numbers = set()
        for number in range(1024):
            with contextlib.suppress(OSError):
                os.fstat(number)
                numbers.add(number)
        return numbers

    def test_without_threads_nothing_is_sent_and_nothing_said_of_it(self):
        server = self.server()
        with unittest.mock.patch('_thread.start_new_thread', side_effect=RuntimeError):
            before = self.descriptors()
            with self.assertRaisesRegex(s3.Error, 'cannot start a thread'):
                self.bucket(server).upload('key', io.BytesIO(pattern(2500)))
            self.assertEqual(self.descriptors() - before, set())
        self.assertEqual((server.log, self.reports), ([], []))

    def test_threads_that_die_before_they_begin_are_not_waited_for(self):
        def start(function, arguments):
            if len(started) in living:
                original(function, arguments)
            started.append(function)

        original = _thread.start_new_thread
        for living in ((), (0,)):
            server, started = self.server(), []
            with unittest.mock.patch('_thread.start_new_thread', start), \
                    unittest.mock.patch.object(s3, 'BEGIN_TIMEOUT', 0.3):
                bucket = self.bucket(server, jobs=3)
                if living:          # fewer do as well
                    bucket.upload('key', io.BytesIO(pattern(9500)))
                else:
                    self.assertRaises(MemoryError, bucket.upload, 'key', io.BytesIO(bytes(9500)))
                self.assertEqual(list(server.objects), ['key'] * bool(living))

    def test_a_thread_that_dies_with_its_task_is_not_waited_for(self):
        def fail(*_):
            raise MemoryError()

        server = self.server()
        workers = s3.Workers(self.bucket(server))
        workers._failures = None        # so that no word of it gets through
        task = workers.submit(fail)
        self.until(lambda: not workers._threads[0].alive)
        workers._failures = ()
        self.assertRaises(MemoryError, workers.wait, task)
        workers.stop()

    def test_an_upload_whose_id_could_not_be_read_is_not_begun(self):
        server = self.server()
        with unittest.mock.patch.dict(sys.modules, {'xml.etree.ElementTree': None}):
            for unique in (True, False):
                with self.assertRaises(ImportError):
                    self.bucket(server).upload('key', io.BytesIO(pattern(2500)), unique=unique)
        self.assertEqual((server.log, self.reports), ([], []))

    def test_an_error_of_the_stream_stores_nothing(self):
        class Broken(io.BytesIO):
            def readinto(self, view):
                count = io.BytesIO.readinto(self, view)
                if not count:
                    raise s3.Error('the producer died')
                return count

        for size in (0, 10, 1000, 5000):
            for max_parts in (10, 2):
                server = self.server()
                with self.assertRaisesRegex(s3.Error, 'the producer died'):
                    self.bucket(server, max_parts=max_parts).upload('key', Broken(pattern(size)))
                self.assertEqual((dict(server.objects), server.uploads), ({}, {}))

    def test_checksums_are_sent_where_the_server_keeps_them(self):
        for secure in (False, True):
            with certificate() as path:
                server = self.server(certfile=path if secure else None)
                bucket = self.bucket(server, checksum='crc32')
                for size in (0, 10, 3500):
                    key = '%d' % size
                    bucket.upload(key, io.BytesIO(pattern(size)))
                    self.assertEqual(server.objects[key].crc32, crc_of(pattern(size)))
                    self.assertEqual(self.restored(bucket, key), (pattern(size), 'crc32'))
                hashes = {request.headers['x-amz-content-sha256'] == 'UNSIGNED-PAYLOAD'
                          for request in server.log if request.operation in
                          ('PutObject', 'UploadPart')}
                self.assertEqual(hashes, {secure})
                complete = [request for request in server.log
                            if request.operation == 'CompleteMultipartUpload'][0]
                self.assertEqual(complete.headers['x-amz-mp-object-size'], '3500')
                self.assertEqual(complete.headers['x-amz-checksum-crc32'], crc_of(pattern(3500)))
                for request in server.log:      # what isn't hashed has a CRC
                    if request.headers.get('x-amz-content-sha256') == 'UNSIGNED-PAYLOAD':
                        self.assertIn('x-amz-checksum-crc32', request.headers)

    def test_a_part_in_the_place_of_another_is_refused_by_the_server(self):
        server = self.server()

        def swap(_, exchange):
            parts = server.uploads[exchange.query['uploadId']].parts
            first, second = parts[1], parts[2]      # of which the ETags tell nothing
            parts[1], parts[2] = (second._replace(etag=first.etag),
                                  first._replace(etag=second.etag))

        server.on('CompleteMultipartUpload', swap)
        with self.assertRaisesRegex(s3.ResponseError, 'InvalidPart|BadDigest'):
            self.bucket(server, checksum='crc32').upload('key', io.BytesIO(pattern(3500)))
        self.assertEqual((dict(server.objects), server.uploads), ({}, {}))

    def test_a_stream_that_a_signal_ends_is_not_stored(self):
        class Signal(Exception):
            pass

        class Pipe(io.BytesIO):
            def readinto(self, view):
                count = io.BytesIO.readinto(self, view)
                signals.extend([1] * (not count))   # it has killed the producer as well
                return count

        for size in (0, 500, 1000, 2500, 3000):
            server = self.server()
            bucket, signals = self.bucket(server, max_parts=3), []

            def check(signals=signals):
                if signals:
                    time.sleep(0.02)    # in which nothing may be sent
                    raise Signal()

            bucket.signals = Poll(check)
            with self.assertRaises(Signal):
                bucket.upload('key', Pipe(pattern(size)))
            self.assertEqual((dict(server.objects), server.uploads), ({}, {}))
            self.assertFalse({'PutObject', 'CompleteMultipartUpload'} & set(server.operations()))

    def test_all_objects_of_a_dump_know_each_other(self):
        server = self.server()
        bucket = self.bucket(server, max_parts=2)
        bucket.upload('k', io.BytesIO(pattern(5500)))
        ids = {found.metadata['x-amz-meta-dump-id'] for found in server.objects.values()}
        self.assertEqual((len(ids), len(server.objects)), (1, 4))
        keys = ['k', 'k.volume_000001', 'k.volume_000002']
        self.assertEqual(self.restored(bucket, *keys)[0], pattern(5500))
        for replaced in keys[1:]:       # by one of the same size, of another dump
            kept = server.objects[replaced]
            server.put(replaced, kept.data, parts=1000, metadata={'x-amz-meta-dump-id': 'other'})
            with self.assertRaisesRegex(s3.IntegrityError,
                                        "'%s' belongs to another dump than 'k'" % replaced):
                self.restored(bucket, *keys)
            server.objects[replaced] = kept

    def test_elsewhere_requests_are_plain(self):
        server = self.server(quirks=['no-checksums'])
        self.bucket(server).upload('key', io.BytesIO(pattern(3500)))
        for request in server.log:
            self.assertFalse([name for name in request.headers if 'checksum' in name
                              or 'mp-object' in name])


# What breaks, at each of these requests of an upload, without anything being lost.
ACCIDENTS = (
    [('status', dict(status=status, code=code)) for status, code in (
        (500, 'InternalError'), (502, 'BadGateway'), (503, 'SlowDown'), (504, 'Timeout'),
        (503, 'ServiceUnavailable'), (429, 'TooManyRequests'), (400, 'RequestTimeout'),
        (409, 'OperationAborted'))]
    + [('status', dict(headers={'Retry-After': '3'})),
       ('status', dict(body=b'<html>busy</html>')), ('status', dict(status=500, body=b'')),
       ('status', dict(read=False)),
       ('skew', {}), ('status', dict(status=200, body=b'<html>Log in to the hotel</html>'))]
    + [('hangup', dict(when=when)) for when in ('start', 'body', 'reply', 'done')]
    + [('reset', dict(when=when)) for when in ('start', 'body', 'reply', 'done')]
    + [('stall', dict(when=when)) for when in ('start', 'reply', 'done')]
    + [('raw', dict(data=b'')), ('raw', dict(data=b'junk\r\n\r\n')),
       ('raw', dict(data=b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n')),
       ('raw', dict(data=b'HTTP/1.1 200 OK\r\nETag: "0123')),
       ('raw', dict(data=b'HTTP/1.1 200 OK\r\nETag: "0123"\r\nContent-Length: 5')),
       ('raw', dict(data=b'HTTP/1.1 200 OK\r\nETag: "0123"\r\n')),
       ('raw', dict(data=b'HTTP/1.1 102 Processing\r\nETag: "0123"\r\n\r\n'))])
WRITES = (('PutObject', 500), ('CreateMultipartUpload', 2500), ('UploadPart', 2500),
          ('CompleteMultipartUpload', 2500))


class UploadFaultTests(ClientTestCase):
    """Each row: what breaks, at which request.  All or nothing, and one line that says why."""

    def outcome(self, server, bucket, size, key='key', **options):
        """Upload; the error, or None.  Checks that there is all or nothing."""
        try:
            bucket.upload(key, io.BytesIO(pattern(size)), **options)
        except s3.Error as error:
            self.assertNotIn(key, server.objects)
            self.one_line(error)
            return error
        self.assertEqual(server.objects[key].data, pattern(size))
        return None

    def test_accidents_are_survived_at_every_request_of_a_dump(self):
        for operation, size in WRITES:
            for kind, options in ACCIDENTS:
                with self.subTest('%s %s %s' % (operation, kind, options)):
                    server = self.server()
                    fault = server.fault(operation, kind, **options)
                    bucket = self.bucket(server)
                    if kind == 'stall':
                        bucket.timeout = bucket.complete_timeout = 0.2
                    self.assertIsNone(self.outcome(server, bucket, size))
                    self.assertEqual(fault.hits, 1)
                    fault.release.set()
                    lost = operation == 'CreateMultipartUpload' and (
                        options.get('when') == 'done')
                    self.assertEqual(len(server.uploads), lost)

    def test_refusals_fail_at_once_and_leave_nothing(self):
        for operation, size in WRITES:
            for status, code in ((403, 'AccessDenied'), (404, 'NoSuchBucket'),
                                 (400, 'InvalidArgument'), (403, 'SignatureDoesNotMatch'),
                                 (409, 'InvalidBucketState'), (405, 'MethodNotAllowed')):
                with self.subTest('%s %s' % (operation, code)):
                    server = self.server()
                    server.fault(operation, 'status', times=None, status=status, code=code,
                                 message='a\nb')
                    error = self.outcome(server, self.bucket(server), size)
                    self.assertRegex(str(error), '%s.* %s .%d.: a.nb .request' % (
                        operation, code, status))
                    self.assertEqual(server.uploads, {})
                    self.assertEqual(self.clock.now, 0)
                    self.assertNotIn('HeadObject', server.operations())

    def test_a_refusal_while_the_body_is_sent_is_read_and_shown(self):
        for drain, quirks in ((False, ()), (True, ()), (True, ['informational'])):
            server = self.server(quirks=quirks)
            server.fault('PutObject', 'refuse', times=None, drain=drain)
            bucket = self.bucket(server, part_size=30 << 20)
            with self.assertRaises(s3.Error) as caught:
                bucket.put_object('key', bytes(20 << 20))
            if drain or sys.platform == 'linux':    # elsewhere a reset may overtake the answer
                self.assertIn('AccessDenied', str(caught.exception))

    def test_praise_for_half_a_request_is_worth_nothing(self):
        for status in (200, 403):
            server = self.server()
            server.fault('PutObject', 'refuse', status=status, headers={'ETag': '"early"'})
            bucket = self.bucket(server, part_size=30 << 20)
            try:
                bucket.put_object('key', bytes(20 << 20))
            except s3.ResponseError:
                self.assertEqual((status, dict(server.objects)), (403, {}))
            else:
                self.assertEqual(server.objects['key'].size, 20 << 20)
            bucket.put_object('other', b'data')     # on whatever connection
            self.assertEqual(server.objects['other'].data, b'data')

    def test_an_answer_that_is_none_leaves_no_socket_open(self):
        for kind, options in (('raw', dict(data=b'HTTP/1.1 102 Processing\r\n\r\n')),
                              ('refuse', dict(status=200, headers={'ETag': '"early"'}))):
            server = self.server()
            server.fault('PutObject', kind, **options)
            bucket = self.bucket(server, part_size=30 << 20)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter('always')
                bucket.put_object('key', bytes(20 << 20))
                bucket.close()
                gc.collect()
            self.assertEqual([str(warning.message) for warning in caught], [])

    def test_a_body_that_a_proxy_cut_is_sent_again_as_in_any_outage(self):
        for operation, size in (('PutObject', 500), ('UploadPart', 2500)):
            server = self.server()
            server.fault(operation, 'status', times=9, status=400, code='IncompleteBody')
            self.assertIsNone(self.outcome(server, self.bucket(server), size))

    def test_a_change_of_protocol_is_not_an_answer(self):
        server = self.server()
        server.fault('PutObject', 'raw', times=None, data=b'HTTP/1.1 101 Switching\r\n\r\n')
        error = self.outcome(server, self.bucket(server), 500)
        self.assertIn('answers 101, which ends no request', str(error))

    def test_data_that_are_damaged_on_their_way_are_sent_again_five_times(self):
        with certificate() as path:
            for checksum, certfile in (('none', None), ('crc32', None), ('none', path),
                                       ('crc32', path)):
                for operation, size in (('PutObject', 500), ('UploadPart', 2500)):
                    for times, survives in ((1, True), (4, True), (None, False)):
                        server = self.server(certfile=certfile)
                        server.fault(operation, 'flip', times=times, at=100)
                        error = self.outcome(server, self.bucket(
                            server, checksum=checksum, jobs=1), size)
                        self.assertEqual(error is None, survives)
                        self.assertEqual(server.uploads, {})
                        if error:
                            self.assertIn('gave up after 5 attempts', str(error))

    def test_a_server_that_is_gone_is_given_up_after_a_minute_if_it_never_answered(self):
        server = self.server()
        bucket = self.bucket(server)
        server.stop()
        with self.assertRaisesRegex(s3.NetworkError, 'Connection refused.*gave up after'):
            bucket.put_object('key', b'')
        self.assertLess(self.clock.now, 100)
        self.assertGreater(self.clock.now, 59)

    def test_who_told_the_time_has_answered(self):
        for addressing, seconds in ('path', s3.PATIENCE), ('virtual', s3.FIRST_PATIENCE):
            server = self.server()
            bucket = self.bucket(server, addressing=addressing,
                                 endpoint='http://localhost:%d' % server.port)
            bucket.learn_clock()
            server.stop()
            start = self.clock.now
            with self.assertRaisesRegex(s3.NetworkError, 'gave up after'):
                bucket.put_object('key', b'')   # the first, after hours of a slow stream
            self.assertAlmostEqual(self.clock.now - start, seconds, delta=30)

    def test_an_outage_of_ten_minutes_in_the_middle_is_survived(self):
        server = self.server()
        bucket = self.bucket(server, jobs=1)
        stopped = []

        def outage(_, exchange):
            if not stopped:
                stopped.append(self.clock.now)
                server.fault('UploadPart', 'status', times=None,
                             where=lambda _: self.clock.now - stopped[0] < 600)

        server.on('CreateMultipartUpload', outage)
        self.assertIsNone(self.outcome(server, bucket, 2500))
        self.assertGreater(self.clock.now, 600)

    def test_a_failed_part_stops_the_upload_and_aborts_it_when_no_part_is_under_way(self):
        server = self.server()
        server.fault('UploadPart', 'status', skip=3, status=403, code='AccessDenied')
        error = self.outcome(server, self.bucket(server, jobs=4), 50000)
        self.assertIn('AccessDenied', str(error))
        self.assertEqual(server.uploads, {})
        aborted = server.operations().index('AbortMultipartUpload')
        late = [request.status for request in server.log[aborted + 1:]]
        self.assertLessEqual(set(late), {0, 404})       # of sockets that were cut meanwhile

    def test_an_upload_is_aborted_after_its_parts_have_stopped(self):
        server = self.server()
        stalled = [server.fault('UploadPart', 'stall', when='body') for _ in range(2)]
        server.fault('UploadPart', 'status', times=None, status=403, code='AccessDenied',
                     where=lambda _: all(fault.event.is_set() for fault in stalled))
        open_then = []

        def stopped(*_):
            self.until(lambda: server.open_connections == 1)
            open_then.append(server.open_connections)

        server.on('AbortMultipartUpload', stopped)
        bucket = self.bucket(server, jobs=3)
        bucket.timeout = 30
        self.assertIn('AccessDenied', str(self.outcome(server, bucket, 3500)))
        self.assertEqual(open_then, [1])

    def test_one_volumes_failure_is_not_taken_for_anothers(self):
        """A part of the third is refused while the second is being completed."""
        for unique in (True, False):
            server, under_way, over = self.server(), threading.Event(), threading.Event()

            def refuse(_, exchange, under_way=under_way):
                if 'volume_000002' in exchange.key:
                    under_way.wait(10)
                    raise S3Error('AccessDenied')

            def meanwhile(_, exchange, under_way=under_way):
                under_way.set()
                self.until(lambda: ('trace', "UploadPart 'key.volume_000002': 403") in self.reports)

            server.on('UploadPart', refuse)
            server.on('CompleteMultipartUpload', meanwhile)
            server.report = lambda request, over=over: (
                request.operation == 'CompleteMultipartUpload' and over.set())
            bucket = self.bucket(server, max_parts=2, jobs=4)
            self.assertIn('AccessDenied', str(self.outcome(server, bucket, 5500, unique=unique)))
            self.assertTrue(over.wait(10))
            if server.objects or server.uploads:
                self.assertRegex(str(self.reports), 'may be left behind|unknown')
            del self.reports[:]

    def test_an_upload_whose_id_was_lost_is_left_empty_and_the_dump_goes_on(self):
        server = self.server()
        server.fault('CreateMultipartUpload', 'hangup', when='done')
        self.assertIsNone(self.outcome(server, self.bucket(server), 2500))
        self.assertEqual([upload.parts for upload in server.uploads.values()], [{}])
        self.assertNotIn('warning', str(self.reports))

    def test_what_may_be_somebody_elses_is_not_deleted(self):
        server = self.server()
        self.bucket(server, max_parts=1).upload('key', io.BytesIO(pattern(2500)))
        before = dict(server.objects)
        server.add_user('BLIND', 'secret',
                        allow=WRITE_ONLY | {'AbortMultipartUpload', 'DeleteObject'})
        server.fault('CompleteMultipartUpload', 'status', status=500, code='InternalError')
        with self.assertRaises(s3.Error):
            self.bucket(server, max_parts=1, access_key_id='BLIND', secret_access_key='secret'
                        ).upload('key', io.BytesIO(b'other' * 500))
        self.assertEqual(dict(server.objects), before)


    def refuse(self, server, operation, kind, **options):
        """Let it always fail; return a list, to which the times are added when it did."""
        times = []
        server.fault(operation, kind, times=None,
                     where=lambda _: times.append(self.clock.now) or True, **options)
        return times

    def test_giving_up_takes_seconds_whatever_the_server_does(self):
        server = self.server()
        server.fault('UploadPart', 'status', times=None, status=403, code='AccessDenied')
        abort = server.fault('AbortMultipartUpload', 'status', times=None)
        bucket = self.bucket(server)
        bucket.limit = s3.RateLimit(1, self.clock, self.clock.sleep)
        times, state = [], []
        server.report = lambda request: (times.append(self.clock.now), state.append((
            bucket.answer_timeout, bucket.limit.rate, bucket.patience)))
        self.outcome(server, bucket, 2500)
        self.assertGreater(abort.hits, 1)
        self.assertLess(self.clock.now - times[-abort.hits], 40)    # at 1 B/s it were 500
        # other threads may be at work with this Bucket
        self.assertEqual(set(state), {(s3.COMPLETE_TIMEOUT, 1, s3.PATIENCE)})

    def test_giving_up_takes_seconds_though_the_server_says_nothing(self):
        server = self.server()
        server.fault('UploadPart', 'status', times=None, status=403, code='AccessDenied')
        server.fault('AbortMultipartUpload', 'stall', when='start', times=None)
        bucket, start = self.bucket(server), time.monotonic()
        self.outcome(server, bucket, 2500)
        self.assertLess(time.monotonic() - start, 5)
        self.assertIn("'key' may be left behind: ", str(self.reports))

    def test_giving_up_many_volumes_takes_seconds_too(self):
        server = self.server()
        server.fault('CompleteMultipartUpload', 'status', status=403, code='AccessDenied',
                     where=lambda exchange: exchange.key == 'key')
        self.refuse(server, 'DeleteObject', 'status')
        self.refuse(server, 'AbortMultipartUpload', 'status')
        bucket, start = self.bucket(server, max_parts=1), time.monotonic()
        bucket.monotonic, bucket.wait = time.monotonic, s3.Connection.pause
        with unittest.mock.patch.object(s3, 'TIDY_TIME', 1):
            self.outcome(server, bucket, 15500)
        self.assertGreater(len(server.objects), 10)
        self.assertLess(time.monotonic() - start, 5)
        self.assertIn("something of 'key' may be left behind", str(self.reports))

    def test_an_upload_that_can_not_be_aborted_keeps_no_other_from_being_tidied_up(self):
        server = self.server()
        server.fault('PutObject', 'status', times=None, status=403, code='AccessDenied')
        server.fault('AbortMultipartUpload', 'status', times=None, status=500)
        self.outcome(server, self.bucket(server, max_parts=2), 5500)
        self.assertEqual([upload.key for upload in server.uploads.values()], ['key'])
        self.assertEqual(dict(server.objects), {})
        self.assertIn("an upload of 'key' may be left behind", str(self.reports))

    @unittest.mock.patch('s3.GRACE', 0.1)     # nothing comes
    def test_what_was_completed_is_not_called_left_behind(self):
        for answer in (dict(status=403, code='AccessDenied'), dict(status=200, body=b'<html>')):
            server = self.server()
            server.fault('AbortMultipartUpload', 'status', times=None, **answer)
            completed = server.fault('CompleteMultipartUpload', 'stall', when='done')
            bucket = self.bucket(server)
            bucket.complete_timeout = 20
            bucket.signals = Poll(lambda: completed.event.is_set() and self.fail('by a signal'))
            with self.assertRaisesRegex(AssertionError, 'by a signal'):
                bucket.upload('key', io.BytesIO(pattern(2500)))
            self.assertEqual([text for kind, text in self.reports if kind == 'doubt'],
                             ["'key' had been completed already: it is whole if its stream was"])
            del self.reports[:]

    def test_what_was_half_sent_when_a_signal_came_is_certainly_not_there(self):
        for size, part_size in ((12 << 20, 13 << 20), (3 << 20, 1 << 20)):
            server = self.server()
            bucket = self.bucket(server, part_size=part_size, jobs=1)
            operation = 'PutObject' if size < part_size else 'CompleteMultipartUpload'
            begun = server.fault(operation, 'stall', when='start')
            bucket.signals = Poll(lambda: begun.event.is_set() and self.fail('by a signal'))
            with unittest.mock.patch.object(s3, 'completion_body', lambda parts: bytes(12 << 20)):
                with self.assertRaisesRegex(AssertionError, 'by a signal'):
                    bucket.upload('key', io.BytesIO(bytes(size)))
            self.assertEqual(([text for kind, text in self.reports if kind != 'trace'],
                              'HeadObject' in server.operations(), server.uploads),
                             ([], False, {}))
            begun.release.set()

    def test_a_refusal_before_all_was_sent_leaves_no_doubt(self):
        for kind, options in (('refuse', dict(status=500, code='InternalError')),
                              ('reset', dict(when='start'))):
            server = self.server()
            server.fault('PutObject', kind, **options)
            server.fault('PutObject', 'status', status=403, code='AccessDenied')
            server.add_user('BLIND', 'secret', allow=WRITE_ONLY)
            bucket = self.bucket(server, part_size=13 << 20, access_key_id='BLIND',
                                 secret_access_key='secret')
            with self.assertRaisesRegex(s3.ResponseError, 'PutObject .*AccessDenied'):
                bucket.put_object('key', bytes(12 << 20), unique=True)
            self.assertEqual(server.operations().count('HeadObject'), 0)

    def test_a_server_that_is_gone_in_the_middle_of_a_completion_leaves_a_doubt(self):
        server = self.server()
        server.fault('AbortMultipartUpload', 'hangup', times=None)
        completed = server.fault('CompleteMultipartUpload', 'stall', when='done')
        bucket = self.bucket(server)
        bucket.signals = Poll(lambda: completed.event.is_set() and self.fail('by a signal'))
        with self.assertRaisesRegex(AssertionError, 'by a signal'):
            bucket.upload('key', io.BytesIO(pattern(2500)))
        self.assertRegex(str([text for kind, text in self.reports if kind == 'doubt']),
                         "something of 'key' may be left behind")

    def test_a_page_in_place_of_an_answer_to_an_abort_is_no_proof(self):
        server = self.server()
        server.fault('UploadPart', 'status', times=None, status=403, code='AccessDenied')
        server.fault('AbortMultipartUpload', 'status', times=None, status=404, body=b'<html>')
        self.outcome(server, self.bucket(server), 2500)
        self.assertIn("an upload of 'key' may be left behind", str(self.reports))

    def test_each_attempt_is_signed_anew(self):
        server = self.server()
        server.fault('PutObject', 'status', times=2)
        bucket = self.bucket(server)
        bucket._clock = lambda: time.time() + len(server.log) * 60
        self.assertIsNone(self.outcome(server, bucket, 100))
        self.assertEqual(len({request.headers['x-amz-date'] for request in server.log}), 3)

    def test_an_upload_that_can_not_be_aborted_is_named(self):
        server = self.server()
        server.fault('UploadPart', 'status', times=None, status=403, code='AccessDenied')
        server.fault('AbortMultipartUpload', 'status', times=None, status=403, code='AccessDenied')
        self.outcome(server, self.bucket(server), 2500)
        self.assertIn('may be left behind: AbortMultipartUpload', str(self.reports))

    def test_what_was_deleted_though_the_answer_was_lost_is_gone(self):
        for status, code, gone in ((404, 'NoSuchKey', True), (412, 'PreconditionFailed', True),
                                   (404, 'NoSuchBucket', False)):
            with self.subTest(code):
                server = self.server()
                server.put('key', b'data')
                bucket = self.bucket(server)
                entry, = bucket.list_objects()
                server.fault('DeleteObject', 'hangup', when='done')
                server.fault('DeleteObject', 'status', status=status, code=code)
                if gone:
                    bucket.delete_listed(entry)
                else:
                    self.assertRaisesRegex(s3.ResponseError, code, bucket.delete_listed, entry)
                self.assertEqual(dict(server.objects), {})

    def test_a_page_in_place_of_an_answer_to_a_deletion_is_no_proof(self):
        server = self.server()
        server.fault('DeleteObject', 'status', status=404, body=b'<html>')
        self.assertRaises(s3.ResponseError, self.bucket(server).delete_object, 'key')

    def test_a_bucket_whose_creation_was_answered_in_vain_is_created(self):
        for options, skip in ((dict(), 0), (dict(region='eu-central-1'), 0),
                              (dict(region='eu-central-1', quirks=['one-region']), 1)):
            server = self.server(buckets=(), **options)
            server.fault('CreateBucket', 'hangup', when='done', skip=skip)
            self.bucket(server).create_bucket()
            with self.assertRaisesRegex(s3.ResponseError, 'BucketAlreadyOwnedByYou'):
                self.bucket(server).create_bucket()

    def test_what_somebody_else_stored_stays_when_a_dump_fails(self):
        for name in ('key.end_000001', 'key.volume_000001', 'key'):
            server = self.server()
            theirs = server.put(name, b'theirs')
            with self.assertRaisesRegex(s3.ResponseError, 'PreconditionFailed'):
                self.bucket(server, max_parts=2).upload('key', io.BytesIO(pattern(3500)))
            self.assertEqual(dict(server.objects), {name: theirs})
            self.assertEqual(server.uploads, {})


    def test_volumes_that_were_complete_are_deleted_if_the_dump_fails(self):
        for operation, where in (
                ('CreateMultipartUpload', lambda exchange: 'volume_000002' in exchange.key),
                ('UploadPart', lambda exchange: 'volume_000002' in exchange.key),
                ('CompleteMultipartUpload', lambda exchange: 'volume_000002' in exchange.key),
                ('PutObject', lambda exchange: 'end_' in exchange.key),
                ('CompleteMultipartUpload', lambda exchange: exchange.key == 'key')):
            with self.subTest(operation):
                server = self.server()
                server.fault(operation, 'status', times=None, where=where, status=403,
                             code='AccessDenied')
                error = self.outcome(server, self.bucket(server, max_parts=2), 5500)
                self.assertIn('AccessDenied', str(error))
                self.assertEqual((dict(server.objects), server.uploads), ({}, {}))


class CompletionTests(ClientTestCase):
    """The answer to a completion is delayed, wrong or lost: no wrong success, no lost dump."""

    LOST = (('hangup', dict(when='done')), ('reset', dict(when='done')),
            ('stall', dict(when='done')), ('cut', dict(bytes=0)), ('cut', dict(bytes=60)),
            ('error200', dict(done=True)), ('body', dict(body=b'')),
            ('body', dict(body=b'<html/>')), ('body', dict(body=b'\xff\xfe')),
            ('blanks', dict(code='InternalError', done=True)),
            ('status', dict(status=500, code='InternalError', done=True)),
            ('status', dict(status=502, body=b'<html/>', done=True)),
            ('status', dict(status=503, code='SlowDown', done=True)),
            ('status', dict(status=504, body=b'', done=True)))
    FORGETFUL = ((), ('idempotent-complete',), ('500-repeated-complete',))

    def upload(self, bucket, size=2500, **options):
        try:
            bucket.upload('key', io.BytesIO(pattern(size)), **options)
        except s3.Error as error:
            self.one_line(error)
            return error

    def test_an_upload_that_is_gone_after_errors_alone_may_become_a_dump(self):
        server = self.server()
        server.fault('CompleteMultipartUpload', 'status', times=None, status=504, body=b'')
        for gone in (False, True):
            bucket = self.bucket(server, patience=3)
            if gone:                # as the server has taken it, but isn't done
                server.on('AbortMultipartUpload', lambda *_: server.uploads.clear())
            self.assertIn('504', str(self.upload(bucket)))
            doubts = [text for kind, text in self.reports if kind == 'doubt']
            self.assertEqual(len(doubts), gone, doubts)
        self.assertRegex(doubts[0], "it is unknown whether 'key' was completed, its upload id is")

    def test_a_lost_answer_is_no_failure_for_a_key_that_may_look(self):
        for kind, options in self.LOST:
            for quirks in self.FORGETFUL:
                with self.subTest('%s %s %s' % (kind, options, quirks)):
                    server = self.server(quirks=quirks)
                    fault = server.fault('CompleteMultipartUpload', kind, **options)
                    bucket = self.bucket(server)
                    bucket.complete_timeout = 0.2
                    self.assertIsNone(self.upload(bucket))
                    fault.release.set()
                    self.assertEqual(server.objects['key'].data, pattern(2500))
                    self.assertLessEqual(server.operations().count('CompleteMultipartUpload'), 1)

    def test_a_lost_answer_is_an_unknown_outcome_for_a_key_that_may_not_look(self):
        for quirks, known in (((), False), (('idempotent-complete',), True),
                              (('500-repeated-complete',), False)):
            server = self.server(quirks=quirks)
            server.users[server.access_key].allow = WRITE_ONLY | {'AbortMultipartUpload'}
            server.fault('CompleteMultipartUpload', 'hangup', when='done')
            error = self.upload(self.bucket(server))
            self.assertEqual(server.objects['key'].data, pattern(2500))
            if known:
                self.assertIsNone(error)
            else:
                self.assertIsInstance(error, s3.UnknownOutcome)
                self.assertIn('unknown', str(error))
                self.assertIn("'key'", str(error))
                self.assertIn('upload id', str(error))

    def test_a_balancer_may_have_completed_it_before_our_request_came(self):
        for done, reads, unique in ((True, True, True), (True, False, True), (True, True, False),
                                    (True, False, False), (False, True, True)):
            with self.subTest(done=done, reads=reads, unique=unique):
                server = self.server()
                server.fault('CompleteMultipartUpload', 'status', times=None, status=404,
                             code='NoSuchUpload', done=done)
                if not reads:
                    server.users[server.access_key].allow = WRITE_ONLY
                error = self.upload(self.bucket(server), unique=unique)
                self.assertEqual('key' in server.objects, done)
                if done and reads:
                    self.assertIsNone(error)
                    self.assertEqual(server.objects['key'].data, pattern(2500))
                else:
                    self.assertIn('NoSuchUpload', str(error))
                    self.assertEqual('unknown' in str(error), not reads)

    def test_a_completion_that_fails_in_its_body_is_repeated(self):
        for kind, options in (('error200', {}), ('blanks', dict(code='InternalError', done=False)),
                              ('status', dict(status=500, code='InternalError')),
                              ('hangup', dict(when='reply'))):
            server = self.server()
            server.fault('CompleteMultipartUpload', kind, **options)
            self.assertIsNone(self.upload(self.bucket(server)))
            self.assertEqual(server.objects['key'].data, pattern(2500))
            self.assertEqual(server.operations().count('CompleteMultipartUpload'), 2)

    def test_an_error_that_stays_in_the_body_is_a_failure(self):
        server = self.server()
        server.fault('CompleteMultipartUpload', 'error200', times=None, code='AccessDenied')
        error = self.upload(self.bucket(server))
        self.assertIn('AccessDenied', str(error))
        self.assertEqual((dict(server.objects), server.uploads), ({}, {}))
        server = self.server()
        server.fault('CompleteMultipartUpload', 'error200', times=None, code='InternalError')
        self.assertIn('InternalError', str(self.upload(self.bucket(server))))
        self.assertGreater(self.clock.now, 600)

    def test_a_completion_that_goes_on_after_its_answer_was_lost_is_waited_for(self):
        for finishes in (True, False):
            server = self.server()
            server.fault('CompleteMultipartUpload', 'status', status=504, body=b'<html/>')
            bucket = self.bucket(server)
            looked = []

            def complete_later(_, exchange, server=server, looked=looked):
                upload = next(iter(server.uploads.values()), None)
                if upload and server.operations().count('CompleteMultipartUpload') == 1:
                    looked.append(upload)       # it is being completed: nothing can be seen of it
                    server.uploads.clear()

            def appear(_, exchange, server=server, looked=looked, finishes=finishes):
                if finishes and looked and self.clock.now > 60:
                    server.put('key', pattern(2500), parts=1000,
                               metadata=looked[0].attributes['metadata'])

            server.on('HeadObject', complete_later)
            server.on('HeadObject', appear)
            error = self.upload(bucket)
            if finishes:
                self.assertIsNone(error)
            else:
                self.assertIsInstance(error, s3.UnknownOutcome)
                self.assertGreater(self.clock.now, 600)

    def test_an_abort_is_tried_as_long_as_any_other_request(self):
        server = self.server()
        bucket = self.bucket(server)
        upload = s3.UploadEntry('key', bucket.create_multipart_upload('key'), None)
        server.fault('AbortMultipartUpload', 'status', times=None, status=503, code='SlowDown',
                     where=lambda _: self.clock.now < 600)
        self.assertTrue(bucket.abort_multipart_upload(upload))
        self.assertEqual(server.uploads, {})

    def test_a_completion_that_goes_on_is_waited_for_a_quarter_of_an_hour_at_most(self):
        server = self.server()
        server.fault('CompleteMultipartUpload', 'status', status=504, body=b'<html/>')
        bucket = self.bucket(server, patience=7 * 86400)
        down = []

        def vanish(_, exchange):        # it will never appear, and an outage hides that for a while
            if server.uploads:
                server.uploads.clear()
                server.fault('*', 'hangup', times=None, where=lambda _: down.append(
                    self.clock.now) or down[0] + 20 < self.clock.now < down[0] + 2000)

        server.on('HeadObject', vanish)
        self.assertIsInstance(self.upload(bucket), s3.UnknownOutcome)
        self.assertGreater(self.clock.now, 2000)
        self.assertLess(self.clock.now, 4000)

    def test_a_write_whose_answer_a_gateway_lost_is_no_failure(self):
        for operation, size in (('PutObject', 500), ('CompleteMultipartUpload', 2500)):
            for status in (408, 409, 499, 500, 502, 504, 507, 520, 524, 599):
                for unique in (True, False):
                    with self.subTest('%s %d' % (operation, status), unique=unique):
                        server = self.server()
                        server.fault(operation, 'status', status=status, body=b'<html/>',
                                     done=True)
                        self.assertIsNone(self.upload(self.bucket(server), size=size,
                                                      unique=unique))
                        self.assertEqual(server.objects['key'].data, pattern(size))

    def test_a_write_that_a_proxy_said_twice_is_no_failure_for_a_key_that_may_look(self):
        for operation, size in (('PutObject', 500), ('CompleteMultipartUpload', 2500)):
            for allow in (None, WRITE_ONLY):
                server = self.server()
                server.users[server.access_key].allow = allow
                server.fault(operation, 'status', status=412, code='PreconditionFailed',
                             done=True)
                error = self.upload(self.bucket(server), size=size, unique=True)
                self.assertIsInstance(error, s3.UnknownOutcome if allow else type(None))
                self.assertEqual(server.objects['key'].data, pattern(size))

    def test_a_condition_that_one_operation_does_not_know_is_sent_with_the_others(self):
        server = self.server()
        server.fault('PutObject', 'status', times=None, status=501, code='NotImplemented',
                     where=lambda exchange: 'if-none-match' in exchange.headers)
        server.put('key', b'theirs')
        error = self.upload(self.bucket(server, max_parts=2), size=2500)
        self.assertIsInstance(error, s3.ResponseError)
        self.assertEqual(error.code, 'PreconditionFailed')
        self.assertEqual(server.objects['key'].data, b'theirs')

    def test_a_name_that_is_taken_leaves_a_blind_key_in_doubt_only_after_a_lost_answer(self):
        for lost in (True, False):
            server = self.server()
            server.users[server.access_key].allow = WRITE_ONLY | {'AbortMultipartUpload'}
            if lost:
                server.fault('CompleteMultipartUpload', 'hangup', when='reply')
            server.fault('CompleteMultipartUpload', 'status', times=None, status=412,
                         code='PreconditionFailed')
            error = self.upload(self.bucket(server))
            self.assertIsInstance(error, s3.UnknownOutcome if lost else s3.ResponseError)
            self.assertEqual('nothing was changed' in str(error), not lost)

    def test_a_lost_answer_is_remembered_when_the_condition_is_not_known(self):
        for operation, size in (('PutObject', 500), ('CompleteMultipartUpload', 2500)):
            server = self.server()
            server.users[server.access_key].allow = WRITE_ONLY | {'AbortMultipartUpload'}
            server.fault(operation, 'hangup', when='done')
            server.fault(operation, 'status', status=501, code='NotImplemented')
            server.fault(operation, 'status', status=403, code='AccessDenied')
            error = self.upload(self.bucket(server), size=size)
            self.assertIsInstance(error, s3.UnknownOutcome)

    def test_a_completion_has_a_longer_time_out(self):
        server = self.server()
        fault = server.fault('CompleteMultipartUpload', 'stall', when='done')
        bucket = self.bucket(server)
        bucket.timeout, bucket.complete_timeout = 1, 20
        timer = threading.Timer(1.5, fault.release.set)
        timer.start()
        self.assertIsNone(self.upload(bucket))
        timer.join()
        self.assertEqual(server.operations().count('CompleteMultipartUpload'), 1)
        self.assertNotIn('HeadObject', server.operations())
        self.assertEqual(bucket.tally.retries, 0)

    def test_blanks_before_the_answer_are_waited_for(self):
        for options in (dict(chunked=True), dict(chunked=False), dict(bare=True)):
            server = self.server()
            server.fault('CompleteMultipartUpload', 'blanks', count=11, pause=0.1, **options)
            bucket = self.bucket(server)
            bucket.complete_timeout = 1
            self.assertIsNone(self.upload(bucket))
            self.assertNotIn('HeadObject', server.operations())

    def test_an_object_of_somebody_else_is_not_taken_for_ours(self):
        server = self.server()
        server.on('CompleteMultipartUpload', lambda *_: 'key' in server.objects
                  or server.put('key', pattern(2500)))
        server.fault('CompleteMultipartUpload', 'hangup', when='reply')
        error = self.upload(self.bucket(server))
        self.assertIsInstance(error, s3.ResponseError)
        self.assertEqual(error.code, 'PreconditionFailed')
        self.assertEqual(server.uploads, {})
        self.assertEqual(server.objects['key'].data, pattern(2500))

    def test_a_put_whose_answer_was_lost_is_recognised(self):
        for kind, options in (('hangup', dict(when='done')), ('reset', dict(when='done')),
                              *self.LOST[-4:]):
            for allow in (None, WRITE_ONLY):
                for unique in (True, False):
                    with self.subTest('%s %s %s' % (kind, options, unique), allow=allow):
                        server = self.server()
                        server.users[server.access_key].allow = allow
                        fault = server.fault('PutObject', kind, **options)
                        bucket = self.bucket(server)
                        if allow and not unique:
                            with self.assertRaises(s3.UnknownOutcome):
                                bucket.put_object('key', b'data', unique=unique)
                        else:
                            bucket.put_object('key', b'data', unique=unique)
                        self.assertEqual(fault.hits, 1)
                        self.assertEqual(server.objects['key'].data, b'data')

    def test_a_refusal_after_a_lost_answer_is_looked_into(self):
        for allow in (None, WRITE_ONLY):
            for operation, size in (('PutObject', 500), ('CompleteMultipartUpload', 2500)):
                server = self.server()
                server.users[server.access_key].allow = allow
                server.fault(operation, 'hangup', when='done')
                server.fault(operation, 'status', times=None, status=403, code='AccessDenied')
                bucket = self.bucket(server)
                if allow:
                    with self.assertRaisesRegex(s3.UnknownOutcome, 'it is unknown whether'):
                        bucket.upload('key', io.BytesIO(pattern(size)), unique=True)
                else:
                    bucket.upload('key', io.BytesIO(pattern(size)))
                self.assertEqual(server.objects['key'].data, pattern(size))

    def test_an_outcome_that_can_not_be_looked_up_at_first_is_looked_up_in_the_end(self):
        for operation, size, times in (('PutObject', 500, 3), ('CompleteMultipartUpload', 2500, 3),
                                       ('CompleteMultipartUpload', 2500, 100)):
            with self.subTest(operation, times=times):
                server = self.server()
                server.fault(operation, 'hangup', when='done')
                server.fault('HeadObject', 'status', times=times, body=b'',
                             where=lambda _: self.clock.now < 15)
                self.assertIsNone(self.upload(self.bucket(server), size=size))
                self.assertEqual(server.objects['key'].data, pattern(size))

    def test_an_unknown_outcome_of_a_volume_is_a_failure_that_leaves_no_upload(self):
        server = self.server()
        server.users[server.access_key].allow = WRITE_ONLY | {'AbortMultipartUpload'}
        server.fault('CompleteMultipartUpload', 'hangup', when='done')
        with self.assertRaises(s3.UnknownOutcome):
            self.bucket(server, max_parts=2).upload('key', io.BytesIO(pattern(3500)))
        self.assertEqual((list(server.objects), server.uploads), (['key.volume_000001'], {}))
        self.assertIn("'key.volume_000001' may be left behind", str(self.reports))

    def test_somebody_elses_object_fails_the_repeated_put(self):
        server = self.server()
        server.fault('PutObject', 'hangup', when='reply')
        bucket = self.bucket(server)
        server.put('key', b'other')
        with self.assertRaisesRegex(s3.ResponseError, 'PreconditionFailed'):
            bucket.put_object('key', b'data', unique=True)
        self.assertEqual(server.objects['key'].data, b'other')


class DownloadTests(ClientTestCase):

    def test_objects_are_asked_for_and_fetched_side_by_side(self):
        # each of these waits for three others, or until its server gives up
        server = self.server()
        keys = ['key/chunk_%06d' % number for number in range(12)]
        for number, key in enumerate(keys):
            server.put(key, b'%d' % number * 500)
        for operation in 'HeadObject', 'GetObject':
            server.on(operation, lambda *_: together.wait(10))
        together = threading.Barrier(4)
        bucket = self.bucket(server, jobs=4)
        self.assertEqual(self.restored(bucket, *keys), (
            b''.join(b'%d' % number * 500 for number in range(12)), 'etag'))
        self.assertEqual((bucket.tally.retries, server.connections), (0, 4))

    def test_the_ranges_of_an_object_are_alike(self):
        for size, checksum, ranges in (
                (2500, 'none', ['0-833', '834-1667', '1668-2499']), (1000, 'none', ['0-999']),
                (2500, 'crc32', ['0-833', '834-1667', '1668-2499'])):
            server = self.server()
            bucket = self.bucket(server, part_size=1000, checksum=checksum)
            if checksum == 'none':
                server.put('key', pattern(size))
            else:
                self.bucket(server, checksum='crc32').put_object('key', pattern(size))
            self.assertEqual(self.restored(bucket, 'key')[0], pattern(size))
            self.assertEqual(sorted(each.headers['range'] for each in server.log
                                    if each.operation == 'GetObject'),
                             sorted('bytes=' + each for each in ranges))

    def test_a_buffer_that_is_changed_before_it_is_sent_is_noticed(self):
        # the CRC32 is taken once, when the part has been read
        server = self.server()
        for number, size in ((1, 3500), (1, 2000), (3, 3500)):
            bucket = self.bucket(server, checksum='crc32', jobs='auto')
            upload = s3.Upload(bucket, 'key', False, True)
            submit = upload.workers.submit

            def spoil(function, *args):
                if args[:1] == (number,):       # else it is no part, or another
                    args[1][7] ^= 1
                return submit(function, *args)

            upload.workers.submit = spoil
            with self.assertRaisesRegex(s3.ResponseError, 'BadDigest'):
                upload.run(io.BytesIO(pattern(size)))
            self.assertEqual((dict(server.objects), dict(server.uploads)), ({}, {}))

    def test_objects_of_other_programs_are_checked_whatever_their_part_size(self):
        for total, parts, quirks in ((19, None, ()), (19, 8, ()), (9, 8, ('no-part-number',)),
                                     (11, 5, ('no-part-number',)), (19, 9, ()),
                                     (16, 15, ('no-part-number',)), (19, 19, ())):
            with self.subTest(parts, quirks=quirks):
                unit = 1 << 20 if quirks else 1 << 10       # what has to be guessed is usual
                server, data = self.server(quirks=quirks), pattern(total * unit)
                server.put('key', data, parts=parts and parts * unit)
                bucket = self.bucket(server, part_size=6 * unit)
                got, proof = self.restored(bucket, 'key')
                self.assertTrue(got == data)
                self.assertEqual(proof, 'etag')
                server.fault('GetObject', 'flip', at=1000)
                with self.assertRaisesRegex(s3.IntegrityError, 'damaged'):
                    self.restored(bucket, 'key')

    def test_an_empty_last_part_of_the_original_is_no_damage(self):
        for quirks, unit, counts in (
                ((), 1 << 10, ((8, 8), (8, 16), (9, 9), (9, 18), (6, 18))),
                (('no-part-number',), 1 << 20, ((8, 8), (9, 18)))):
            for count, total in counts:
                parts, size = count * unit, total * unit
                with self.subTest(parts=parts, size=size, quirks=quirks):
                    server = self.server(quirks=quirks)
                    data = pattern(size)
                    found = server.put('key', data, parts=parts)
                    found.parts.append(0)
                    found.etag = multipart_etag(
                        [md5(data[start:start + parts]).hexdigest()
                         for start in range(0, size, parts)] + [md5(b'').hexdigest()])
                    bucket = self.bucket(server, part_size=6 * unit)
                    got, proof = self.restored(bucket, 'key')
                    self.assertEqual((got == data, proof), (True, 'etag'))
                    server.fault('GetObject', 'flip', at=1000)
                    with self.assertRaisesRegex(s3.IntegrityError, 'damaged'):
                        self.restored(bucket, 'key')

    def test_parts_of_different_sizes_are_told_from_damage(self):
        server = self.server()
        data = pattern(5000)
        found = server.put('key', data, parts=1000)
        found.parts = [2000, 500, 500, 1000, 1000]
        pieces, start = [], 0
        for size in found.parts:
            pieces.append(md5(data[start:start + size]).hexdigest())
            start += size
        found.etag = multipart_etag(pieces)
        self.assertEqual(self.restored(self.bucket(server, part_size=3000), 'key'),
                         (data, 'length'))

    def test_what_can_not_be_checked_is_said_and_goes_by_the_length(self):
        for config, attributes, quirks in (
                ({'etag': 'opaque'}, {}, ()), ({}, {'etag': 'opaque-etag'}, ()),
                ({}, {'sse': 'aws:kms'}, ()), ({}, {'etag': 'f' * 32 + '-7'}, ('no-part-number',))):
            server = self.server(quirks=quirks)
            server.put('key', pattern(5000), **attributes)
            self.assertEqual(self.restored(self.bucket(server, **config), 'key'),
                             (pattern(5000), 'length'))
            self.assertIn('checked by its length only', str(self.reports))

    def test_a_python_without_md5_restores_and_says_what_it_could_not_check(self):
        server = self.server()
        server.put('key', pattern(5000))
        with unittest.mock.patch.object(hashlib, 'md5', side_effect=ValueError('no FIPS')):
            self.assertEqual(self.restored(self.bucket(server), 'key'), (pattern(5000), 'length'))
        self.assertIn('no MD5', str(self.reports))

    def test_nonsense_about_the_size_of_a_part_is_like_none(self):
        server = self.server()
        server.put('key', pattern(5000), parts=700)
        server.fault('HeadObject', 'raw', times=None, data=b'HTTP/1.1 200 OK\r\nEtag: x\r\n\r\n',
                     where=lambda exchange: 'partNumber' in exchange.query)
        self.assertEqual(self.restored(self.bucket(server), 'key'), (pattern(5000), 'length'))
        self.assertIn('checked by its length only', str(self.reports))

    def test_damage_is_found_by_whatever_there_is_on_record(self):
        for size in (500, 3500):
            for checksum, proof in (('none', 'etag'), ('crc32', 'crc32')):
                server = self.server()
                bucket = self.bucket(server, checksum=checksum)
                bucket.upload('key', io.BytesIO(pattern(size)))
                self.assertEqual(self.restored(bucket, 'key'), (pattern(size), proof))
                server.fault('GetObject', 'flip', at=7)
                with self.assertRaisesRegex(s3.IntegrityError, 'damaged'):
                    self.restored(bucket, 'key')

    def test_a_full_object_without_successor_or_end_mark_is_not_whole(self):
        server = self.server()
        bucket = self.bucket(server, max_parts=3)
        bucket.upload('key', io.BytesIO(pattern(3000)))
        got = []
        with self.assertRaisesRegex(s3.IntegrityError, 'not whole'):
            self.bucket(server).download(['key'], got.append)
        self.assertEqual(got, [])
        self.assertEqual(self.restored(bucket, 'key', ended=True)[0], pattern(3000))

    def test_archived_objects_are_recognised_before_anything_is_read(self):
        for storage_class in ('GLACIER', 'DEEP_ARCHIVE'):
            server = self.server()
            server.put('key', b'data', storage_class=storage_class)
            with self.assertRaisesRegex(s3.ArchivedError, storage_class):
                self.restored(self.bucket(server), 'key')
            server.thaw('key')
            self.assertEqual(self.restored(self.bucket(server), 'key')[0], b'data')

    def test_an_archive_class_that_is_but_a_label_is_read(self):
        server = self.server(quirks=['class-is-a-label'])
        bucket = self.bucket(server, storage_class='GLACIER', max_parts=2)
        for size in (0, 500, 3500):
            bucket.upload('k%d' % size, io.BytesIO(pattern(size)))
        self.assertEqual(self.restored(bucket, 'k0')[0], b'')
        self.assertEqual(self.restored(bucket, 'k500')[0], pattern(500))
        self.assertEqual(self.restored(bucket, *sorted(
            key for key in server.objects if key.startswith('k3500') and 'end_' not in key))[0],
            pattern(3500))

    def test_an_empty_object_can_be_read_in_any_class(self):
        server = self.server()
        server.put('key', b'', storage_class='DEEP_ARCHIVE')
        self.assertEqual(self.restored(self.bucket(server), 'key')[0], b'')

    def test_that_a_later_object_can_not_be_read_is_known_before_the_first_byte(self):
        server = self.server()
        server.put('k', pattern(5000), metadata={'x-amz-meta-dump-id': 'a'})
        for attributes, kind in ((dict(storage_class='GLACIER'), s3.ArchivedError),
                                 (dict(metadata={'x-amz-meta-dump-id': 'b'}), s3.IntegrityError)):
            server.put('l', b'data', **attributes)
            got = []
            self.assertRaises(kind, self.bucket(server).download, ['k', 'l'], got.append)
            self.assertEqual((got, 'k' in [request.key for request in server.log
                                           if request.operation == 'GetObject']), ([], False))

    def test_an_error_of_the_writer_ends_the_download(self):
        server = self.server()
        server.put('key', pattern(50000))

        def full(view):
            raise OSError(errno.ENOSPC, 'No space left on device')

        with self.assertRaises(OSError) as caught:
            self.bucket(server).download(['key'], full)
        self.assertEqual(caught.exception.errno, errno.ENOSPC)

    def test_a_writer_that_takes_less_is_an_error(self):
        server = self.server()
        server.put('key', pattern(5000))
        with self.assertRaisesRegex(s3.IntegrityError, 'only 7 of'):
            self.bucket(server).download(['key'], lambda view: 7)


class DownloadFaultTests(ClientTestCase):
    """To the byte, or an error: never something else and success."""

    SIZE = 2500

    def outcome(self, server, **config):
        bucket = self.bucket(server, **config)
        bucket.timeout = 0.2
        got = []
        try:
            bucket.download(['key'], lambda view: got.append(bytes(view)))
        except s3.Error as error:
            self.one_line(error)
            return error
        self.assertEqual(b''.join(got), pattern(self.SIZE))
        return None

    def test_what_failed_is_cleaned_up_without_a_word(self):
        said = []
        with unittest.mock.patch.object(sys, 'unraisablehook', said.append, create=True):
            for _ in range(3):
                server = self.server()
                server.put('key', pattern(self.SIZE))
                server.fault('GetObject', 'status', times=None, status=403, code='AccessDenied')
                self.assertIsInstance(self.outcome(server), s3.ResponseError)
            gc.collect()
        self.assertEqual(said, [])

    def test_a_body_that_breaks_off_anywhere_goes_on_at_that_byte(self):
        for offset in (0, 1, 2, 10, 499, 500, 998, 999):
            for kind, options in (('cut', {}), ('cut', dict(reset=True)), ('stall', {})):
                with self.subTest('%s at %d' % (kind, offset)):
                    server = self.server()
                    server.put('key', pattern(self.SIZE))
                    fault = server.fault('GetObject', kind, bytes=offset, **options)
                    self.assertIsNone(self.outcome(server))
                    fault.release.set()
                    self.assertLessEqual(sum(request.sent for request in server.log
                                             if request.operation == 'GetObject'),
                                         self.SIZE + 1000)

    def test_a_range_that_is_not_named_is_not_taken(self):
        server, data = self.server(), pattern(self.SIZE)
        head = 'HTTP/1.1 206 x\r\nETag: "%s"\r\nContent-Length: %d\r\n\r\n' % (
            server.put('key', data).etag, self.SIZE)
        server.fault('GetObject', 'raw', times=None, data=head.encode() + data)
        self.assertIsInstance(self.outcome(server, part_size=self.SIZE), s3.BadAnswer)

    def test_what_came_of_a_block_is_not_asked_for_again(self):
        for kind in ('cut', 'stall'):
            for limit in (None, 10**9):
                with self.subTest(kind, limit=limit):
                    server = self.server()
                    server.put('key', pattern(300000))
                    bucket = self.bucket(server, part_size=300000, limit_rate=limit)
                    bucket.timeout = 0.2
                    fault = server.fault('GetObject', kind, bytes=100001)
                    self.assertEqual(self.restored(bucket, 'key'), (pattern(300000), 'etag'))
                    again = {request.headers['range'] for request in server.log
                             if request.operation == 'GetObject'} - {'bytes=0-299999'}
                    self.assertEqual(again, {'bytes=100001-299999'})
                    fault.release.set()

    def test_a_server_that_breaks_off_all_the_time_is_survived(self):
        server = self.server()
        server.put('key', pattern(self.SIZE))
        for _ in range(40):
            server.fault('GetObject', 'cut', bytes=100)
        self.assertIsNone(self.outcome(server))

    def test_accidents_are_survived_at_every_request_of_a_restore(self):
        for operation in ('HeadObject', 'GetObject'):
            for kind, options in ACCIDENTS:
                if operation == 'HeadObject' and (
                        kind in ('raw', 'skew') or options.get('status') in (400, 409)):
                    continue        # there is no body to tell one 403 from another
                with self.subTest('%s %s %s' % (operation, kind, options)):
                    server = self.server()
                    server.put('key', pattern(self.SIZE))
                    fault = server.fault(operation, kind, **options)
                    self.assertIsNone(self.outcome(server, etag='opaque'))
                    self.assertEqual(fault.hits, 1)
                    fault.release.set()

    def test_refusals_fail_at_once(self):
        for operation in ('HeadObject', 'GetObject'):
            for status, code in ((403, 'AccessDenied'), (404, 'NoSuchKey'),
                                 (400, 'InvalidArgument')):
                server, start = self.server(), self.clock.now
                server.put('key', pattern(self.SIZE))
                server.fault(operation, 'status', times=None, status=status, code=code)
                self.assertIsInstance(self.outcome(server), s3.ResponseError)
                if operation == 'HeadObject' and status != 404:     # and not the GET after it
                    self.assertEqual(len(server.operations()), 8)
                    self.assertLess(self.clock.now - start, 1)
                else:
                    self.assertEqual(self.clock.now, start)

    def test_wrong_answers_give_the_right_bytes_or_an_error(self):
        for kind, options, times, survives in (
                ('short', dict(n=1), 1, True), ('long', dict(n=1), 1, True),
                ('short', dict(n=10), None, False), ('long', dict(n=10), None, False),
                ('wrong-range', dict(by=1), 1, True), ('wrong-range', dict(by=-1), None, False),
                ('wrong-range', dict(by=1, lie=True), 1, False),
                ('ignore-range', {}, 1, True), ('ignore-range', {}, None, True),
                ('flip', dict(at=5), 1, False),
                ('status', dict(status=200, body=b'<html>Log in</html>'), 1, True),
                ('raw', dict(data=b'HTTP/1.1 206 OK\r\n' + b'X: y\r\n' * 200 + b'\r\n'), None,
                 False),
                ('raw', dict(data=b'HTTP/1.1 206 ' + b'x' * 70000 + b'\r\n'), None, False),
                ('replace', dict(data=b'x' * 2500), 1, False)):
            with self.subTest('%s %s %s' % (kind, options, times)):
                server = self.server()
                server.put('key', pattern(self.SIZE))
                server.fault('GetObject', kind, times=times, skip=1, **options)
                error = self.outcome(server, jobs=1)
                self.assertEqual(error is None, survives, error)
                self.assertLess(self.clock.now, 60)

    def test_a_server_without_ranges_may_break_off_before_the_range(self):
        for framing, data in (('Content-Length: 2500', pattern(500)),
                              ('Transfer-Encoding: chunked', b'1f4\r\n' + pattern(500)),
                              ('Connection: close', pattern(500))):
            with self.subTest(framing):
                server = self.server()
                head = 'HTTP/1.1 200 OK\r\nETag: "%s"\r\n%s\r\n\r\n' % (
                    server.put('key', pattern(self.SIZE)).etag, framing)
                server.fault('GetObject', 'raw', skip=1, times=7, data=head.encode() + data)
                server.fault('GetObject', 'ignore-range', times=None)
                self.assertIsNone(self.outcome(server, jobs=1))

    def test_a_server_without_ranges_whose_object_ends_early_is_given_up_soon(self):
        for framing, data in (('Content-Length: 500', pattern(500)),
                              ('Transfer-Encoding: chunked',
                               b'1f4\r\n' + pattern(500) + b'\r\n0\r\n\r\n')):
            server = self.server()
            head = 'HTTP/1.1 200 OK\r\nETag: "%s"\r\n%s\r\n\r\n' % (
                server.put('key', pattern(self.SIZE)).etag, framing)
            server.fault('GetObject', 'raw', skip=1, times=None, data=head.encode() + data)
            self.assertIn('its object ends early', str(self.outcome(server, jobs=1)))
            self.assertLess(self.clock.now, 60)

    def test_a_chunked_answer_that_breaks_off_is_gone_on_with_where_it_broke(self):
        server, size = self.server(), 3 * s3.BLOCK
        server.put('key', pattern(size))
        server.fault('GetObject', 'raw', data=(
            b'HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-%d/%d\r\n'
            b'Transfer-Encoding: chunked\r\n\r\n%x\r\n' % (size - 1, size, size)
            ) + pattern(size)[:2 * s3.BLOCK + 9])
        view = bytearray(size)
        self.bucket(server).get_object('key', memoryview(view))
        self.assertEqual(view, pattern(size))
        self.assertEqual([request.headers['range'] for request in server.log], [
            'bytes=%d-%d' % (first, size - 1) for first in (0, 2 * s3.BLOCK)])

    def test_an_object_that_is_replaced_between_two_ranges_is_noticed(self):
        for quirks in ((), ('ignore-if-match',), ('ignore-if-match', 'opaque-etag')):
            for size in (self.SIZE, self.SIZE + 1):
                server = self.server(quirks=quirks)
                server.put('key', pattern(self.SIZE))
                server.fault('GetObject', 'replace', skip=1, data=b'y' * size)
                error = self.outcome(server, jobs=1, etag='opaque')
                self.assertIsInstance(error, s3.IntegrityError)
                self.assertIn('replaced', str(error))

    def test_progress_renews_the_patience(self):
        server = self.server()
        server.put('key', pattern(self.SIZE))
        server.fault('GetObject', 'cut', bytes=10, times=200)
        server.on('GetObject', lambda *_: self.clock.sleep(5))
        bucket = self.bucket(server, jobs=1, etag='opaque')
        bucket.patience = 30
        self.assertEqual(self.restored(bucket, 'key')[0], pattern(self.SIZE))
        self.assertGreater(self.clock.now, 1000)


class OutageTests(ClientTestCase):
    """Outages of hours and of days, in simulated time: in every phase of a dump and of a restore,
    while the credentials expire again and again."""

    WEEK, LIFETIME = 7 * 86400, 3600
    DUMP = [(operation, size, when) for operation, size in (
        ('PutObject', 500), ('CreateMultipartUpload', 2500), ('UploadPart', 2500),
        ('CompleteMultipartUpload', 2500)) for when in ('start', 'reply', 'done')]
    RESTORE = [('HeadObject', 0, dict(when='start')), ('GetObject', 0, dict(when='reply')),
               ('GetObject', 1, dict(bytes=10)), ('GetObject', 2, dict(bytes=490))]

    def now(self):
        return time.time() + self.clock.now

    def open(self, source=True, **config):
        """Begin anew; returns a server, and a Bucket with credentials that live an hour."""
        self.clock.now, ends = 0, {}
        del self.reports[:]
        self.services, self.store = self.start(CredentialServices()), self.server()
        services, store = self.services, self.store
        services.now = store.now = self.now

        def issue(services, _):
            name = 'KEY%d' % len(ends)
            ends[name] = services.now() + self.LIFETIME
            services.credentials[:] = [Issued(name, 'secretOFkey', 'tokenOFkey', self.LIFETIME)]
            store.add_user(name, 'secretOFkey', session_token='tokenOFkey')

        def expire(store, exchange):
            if store.now() > ends[exchange.access_key]:
                raise S3Error('ExpiredToken')

        services.on('container', issue)
        store.on('*', expire)
        bucket = self.bucket(
            store, {CredentialTests.CONTAINER: services.url + services.container_path},
            access_key_id='', secret_access_key='', jobs=1, **config)
        self.lock, self.begun, self.ends = threading.Lock(), [], ends
        return store, bucket

    def outage(self, bucket, seconds, operation, kind, skip=0, **fault):
        """Let a request go wrong, not the first, and then nothing be reached for so long."""
        list(bucket.list_objects())
        self.store.fault(operation, kind, skip=skip,
                         where=lambda _: self.begun.append(self.clock.now) or True, **fault)
        self.store.fault('*', 'hangup', times=None, when='start', where=lambda _: self.begun)
        servers, down = (self.store, self.services), []
        del self.begun[:]

        def wait(connection, pause):
            with self.lock:
                self.clock.sleep(pause)
                over = self.clock.now - self.begun[-1] >= seconds if self.begun else False
                if self.begun and not over and not down:
                    down.extend(servers)
                    for server in servers:
                        server.stop()
                if over:
                    self.store.clear_faults()
                while over and down:
                    down.pop().start()

        bucket.wait = wait

    def hours_told(self, seconds):
        """Once an hour, and after a pause of 5 min at most, it was said that nothing moves."""
        told = [text for text in self.warnings() if 'nothing has moved for' in text]
        self.assertLessEqual(len(told), seconds // 3600)
        self.assertGreaterEqual(len(told), seconds * 0.9 // 3600)
        for text in told:
            self.assertRegex(self.one_line(text), r"\A\w+ 'key.*': nothing has moved for [0-9]+ "
                             '(min|h|days): .*; giving up after 7 days')

    def dump(self, seconds, operation, size, when):
        store, bucket = self.open(patience=self.WEEK)
        self.outage(bucket, seconds, operation, 'hangup', when=when)
        bucket.upload('key', io.BytesIO(pattern(size)))
        self.assertEqual(store.objects['key'].data, pattern(size))
        self.assertEqual(store.objects.keys(), {'key'})
        self.assertLessEqual(len(store.uploads), int(
            (operation, when) == ('CreateMultipartUpload', 'done')))    # its id was lost
        self.assertGreaterEqual(self.clock.now, seconds)
        self.assertGreaterEqual(len(self.ends), seconds // self.LIFETIME and 2)
        self.hours_told(seconds)

    def restore(self, seconds, operation, skip, fault):
        store, bucket = self.open(patience=self.WEEK, etag='opaque')
        store.put('key', pattern(4500))
        self.outage(bucket, seconds, operation, 'cut' if 'bytes' in fault else 'hangup', skip,
                    **fault)
        self.assertEqual(self.restored(bucket, 'key')[0], pattern(4500))
        self.assertGreaterEqual(self.clock.now, seconds)
        self.hours_told(seconds)

    def test_an_outage_of_hours_is_survived_in_every_phase_of_a_dump(self):
        for phase in self.DUMP:
            with self.subTest(phase):
                self.dump(1.5 * 3600, *phase)

    def test_an_outage_of_hours_is_survived_in_every_phase_of_a_restore(self):
        for phase in self.RESTORE:
            with self.subTest(phase):
                self.restore(1.5 * 3600, *phase)

    def test_an_outage_of_days_is_survived(self):
        self.dump(3.5 * 86400, 'UploadPart', 2500, 'body')
        self.dump(1.1 * 86400, 'CompleteMultipartUpload', 2500, 'done')
        self.restore(1.1 * 86400, 'GetObject', 2, dict(bytes=10))

    def test_a_second_outage_is_told_of_too(self):
        store, bucket = self.open(patience=self.WEEK)
        for _ in range(2):
            self.outage(bucket, 5400, 'PutObject', 'hangup')
            bucket.put_object('key', b'', overwrite=True)
        said = [re.sub(':.*|[0-9]+ min', '', text) for text in self.warnings()]
        self.assertEqual(said, 2 * [
            'the credentials expire in , and there are no newer ones yet',
            'the credentials have expired, and there are no newer ones', "PutObject 'key'"])

    def test_an_outage_that_lasts_too_long_fails(self):
        for patience, seconds in ((30, 40), (900, 1000), (2 * 86400, 3 * 86400)):
            store, bucket = self.open(patience=patience)
            self.outage(bucket, seconds, 'UploadPart', 'hangup')
            with self.assertRaisesRegex(s3.NetworkError, 'UploadPart .*(gave up after|no newer)'):
                bucket.upload('key', io.BytesIO(pattern(1000)))     # one part, for one thread
            self.assertLess(abs(self.clock.now - patience), 30 + patience / 20)
            self.assertEqual(dict(store.objects), {})

    def test_patience_of_less_than_a_minute_goes_for_the_first_answer_too(self):
        for patience, seconds in ((5, 5), (self.WEEK, s3.FIRST_PATIENCE)):
            store, bucket = self.open(patience=patience)
            store.stop()
            with self.assertRaisesRegex(s3.NetworkError, 'gave up'):
                bucket.put_object('key', b'')
            self.assertAlmostEqual(self.clock.now, seconds, delta=1)

    def test_newer_credentials_than_those_that_a_slow_stream_outlived_are_waited_for(self):
        store, bucket = self.open()
        self.clock.now += 2 * self.LIFETIME
        self.services.fail('container', status=404, times=3)
        bucket.upload('key', io.BytesIO(pattern(2500)))
        self.assertEqual({request.status for request in store.log}, {200})

    def test_a_stream_that_was_slow_to_begin_has_no_shorter_patience(self):
        store, bucket = self.open(patience=self.WEEK)
        self.clock.now += 2 * self.LIFETIME
        start = self.clock.now
        store.stop()
        with self.assertRaisesRegex(s3.NetworkError, 'gave up after'):
            bucket.put_object('key', b'')
        self.assertAlmostEqual(self.clock.now - start, s3.PATIENCE, delta=30)

    def test_newer_credentials_are_waited_for_as_long(self):
        for hours in (7, 15):
            store, bucket = self.open(patience=12 * 3600)
            bucket.put_object('key', b'')
            self.clock.now += self.LIFETIME
            start, wait = self.clock.now, bucket.wait
            fault = self.services.fail('container', status=404, times=None)

            def pause(connection, seconds, wait=wait, start=start, hours=hours, fault=fault):
                wait(connection, seconds)
                if self.clock.now - start > hours * 3600:
                    fault.times = 0
            bucket.wait = pause
            if hours == 7:
                bucket.upload('other', io.BytesIO(pattern(2500)))
                self.assertEqual(store.objects['other'].data, pattern(2500))
            else:
                with self.assertRaisesRegex(s3.NetworkError, 'there are no newer ones'):
                    bucket.put_object('other', b'data')
                self.assertAlmostEqual(self.clock.now - start, 12 * 3600, delta=600)
            self.assertIn('waiting up to 12 h for that to change', self.warnings()[0])
            self.assertGreater(len(self.warnings()), 6)


class QuirkTests(ClientTestCase):
    """Servers differ: a sound dump is stored and restored on each, an unsound one on none."""

    def test_a_dump_is_stored_and_restored_with_every_quirk(self):
        for quirk in sorted(QUIRKS - {'object-for-bucket'}):    # where a listing is an object
            for size in (0, 500, 3500):
                with self.subTest('%s, %d bytes' % (quirk, size)):
                    server = self.server(quirks=[quirk])
                    config = {'etag': 'opaque'} if quirk == 'opaque-etag' else {}
                    bucket = self.bucket(server, **config)
                    bucket.upload('k +', io.BytesIO(pattern(size)))
                    self.assertEqual(self.restored(bucket, 'k +')[0], pattern(size))
                    self.assertEqual([entry.key for entry in bucket.list_objects()], ['k +'])
                    self.assertEqual(server.uploads, {})

    def test_a_server_that_wants_content_md5_says_so_once(self):
        for checksum in ('none', 'crc32'):
            server = self.server(quirks=['wants-content-md5'])
            bucket = self.bucket(server, jobs=1, checksum=checksum)
            bucket.upload('key', io.BytesIO(pattern(3500)))
            bucket.put_object('other', b'')
            self.assertEqual([request.status for request in server.log].count(400), 1)
            self.assertEqual((bucket.tally.retries, self.clock.now), (0, 0))

    def test_without_md5_a_server_that_wants_it_is_an_error(self):
        server = self.server(quirks=['wants-content-md5'])
        with unittest.mock.patch('hashlib.md5', side_effect=ValueError):
            with self.assertRaisesRegex(s3.ResponseError, 'Missing required header: Content-MD5'):
                self.bucket(server).put_object('key', b'data')

    def test_opaque_etags_are_told_from_damage(self):
        server = self.server(quirks=['opaque-etag', 'no-part-number'])
        bucket = self.bucket(server)
        bucket.upload('key', io.BytesIO(pattern(3500)))
        with self.assertRaisesRegex(s3.IntegrityError, 'etag opaque'):
            self.restored(bucket, 'key')


class SelfTestTests(ClientTestCase):
    """`python3 s3.py -f FILE`."""
    violations = ('payload hash does not match',)   # one of its checks

    def run_selftest(self, *arguments, stderr=subprocess.STDOUT):
        environ = {'PATH': os.environ.get('PATH', ''), 'HOME': '/nonexistent',
                   'S3DUMP_CONFIG': '/dev/null'}     # not a bucket of /etc/s3_keys
        path = os.path.join(os.path.dirname(os.path.abspath(__file__)), 's3.py')
        done = subprocess.run([sys.executable, '-W', 'error', '-bb', '-I', '-S', path]
                              + list(arguments), stdin=subprocess.DEVNULL, env=environ,
                              stdout=subprocess.PIPE, stderr=stderr, cwd='/')
        text = done.stdout.decode()
        self.assertNotIn('secretEXAMPLEkey', text)
        self.assertNotIn('Traceback', text)
        return done.returncode, text

    def selftest(self, server, **config):
        with tempfile.NamedTemporaryFile('w') as file:
            file.write(server.config(**config))
            file.flush()
            return self.run_selftest('-f', file.name)

    def lines(self, server, *checks, **options):
        """Return the lines of these checks, or of all but the slow one, and of the summary."""
        lines, config = [], dict(endpoint=server.url, region=server.region, host='box',
                                 part_size=1 << 18, bucket_name=server.bucket,
                                 access_key_id=server.access_key,
                                 secret_access_key=server.secret_key)
        with unittest.mock.patch.dict(os.environ, NOWHERE, clear=True):
            test = s3.SelfTest(lines.append)
            test.open(dict(config, **options))
            test.run(checks or [name for name in test.CHECKS if name != 'rate'])
            return lines, test.summary()

    def test_everything_passes_here_and_nothing_is_left(self):
        server = self.server()
        status, text = self.selftest(server)
        self.assertEqual(status, 0, text)
        self.assertRegex(text, '\nthis server needs no other settings\n'
                         'these credentials may list, read, write, overwrite, delete, abort\n'
                         '20 passed, 0 failed, 0 skipped\n\\Z')
        self.assertEqual((dict(server.objects), server.uploads), ({}, {}))

    def test_a_policy_by_prefix_is_enough(self):
        server = self.server()
        server.users[server.access_key].prefix = 'box:'
        lines, summary = self.lines(server)
        self.assertEqual(summary[-1], 'these credentials may list, read, write, overwrite, delete, '
                         'abort')
        self.assertEqual([line.split()[1] for line in lines if not line.startswith('ok ')],
                         ['versions', 'retention', 'unfinished'])
        self.assertEqual({request.key.partition(':s3dump-test-')[0] for request in server.log
                          if request.key}, {'box'})

    def test_the_host_label_is_that_of_the_configuration_or_the_environment_or_the_machine(self):
        here = os.uname().nodename.split('.')[0]
        for config, environ, expected in (
                ({'host': 'a'}, {'S3DUMP_HOST': 'b'}, ('a', '`host`')),
                ({}, {'S3DUMP_HOST': ' b '}, ('b', '$S3DUMP_HOST')),
                ({}, {'S3DUMP_HOST': ' '}, (here, "this machine's name")),
                ({}, {}, (here, "this machine's name"))):
            self.assertEqual(s3.host_label(config, environ), expected)

    def test_it_tells_what_the_bucket_keeps(self):
        server = self.server()
        for versioning, retention, lifecycle, expected in (
                ('', None, (), ('none are kept', 'no default retention', 'no rule aborts')),
                ('Suspended', None, [('other:', 1)],
                 ('none are kept', 'no default retention', 'no rule aborts')),
                ('Enabled', ('GOVERNANCE', 30), [('other:', 1), ('box:', 9)],
                 ('this bucket keeps versions', 'locked: Mode GOVERNANCE, Days 30',
                  'aborted after 9 days'))):
            server.versioning, server.retention, server.lifecycle = versioning, retention, lifecycle
            lines, _ = self.lines(server, 'versions', 'retention', 'unfinished')
            self.assertEqual([line[:4] for line in lines], ['ok  '] * 3, lines)
            for line, text in zip(lines, expected):
                self.assertIn(text, line)

    def test_what_the_bucket_keeps_may_be_refused_or_unknown(self):
        for answer, said in ((dict(status=403, code='AccessDenied'), 'these credentials may not'),
                             (dict(status=501, code='NotImplemented'), 'does not tell'),
                             (dict(status=404, code='NoSuchKey'), 'does not tell'),
                             (dict(status=200, body=b'<ListBucketResult/>'), 'does not tell')):
            server = self.server()
            for operation in ('GetBucketVersioning', 'GetObjectLockConfiguration',
                              'GetBucketLifecycleConfiguration'):
                server.fault(operation, 'status', times=None, **answer)
            for line in self.lines(server, 'versions', 'retention', 'unfinished')[0]:
                self.assertRegex(line, '^skip .*' + said)
            self.assertEqual(len(server.log), 3)

    def test_it_says_nothing_of_what_it_has_not_tried(self):
        for allow, summary in (
                (['ListObjectsV2'], ['these credentials may list', 'they may not write',
                                     'unknown: whether they may read, overwrite, delete, abort']),
                (['PutObject', 'AbortMultipartUpload', 'DeleteObject'],
                 ['these credentials may write, overwrite, delete', 'they may not list, read',
                  'unknown: whether they may abort'])):
            server = self.server()
            server.users[server.access_key].allow = allow
            self.assertEqual(self.lines(server)[1][1:], summary)
            self.assertEqual((dict(server.objects), server.uploads), ({}, {}))

    def test_it_ends_with_the_settings_that_the_server_needs(self):
        for quirks, options, expected in (
                ([], {'part_size': 1000}, ['this server needs no other settings']),
                (['opaque-etag'], {}, ['etag opaque']),
                (['no-checksums'], {'checksum': 'crc32'}, ['checksum none']),
                ([], {'region': 'us-east-1'}, ['region eu-west-1']),
                (['EntityTooSmall'], {}, ['part_size 64m']),
                (['opaque-etag'], {'etag': 'opaque'}, ['this server needs no other settings'])):
            with self.subTest(quirks, options=options):
                server = self.server(quirks=set(quirks) & QUIRKS, region='eu-west-1')
                if 'EntityTooSmall' in quirks:
                    server.fault('CompleteMultipartUpload', 'status', times=None, status=400,
                                 code='EntityTooSmall')
                lines = self.lines(server, 'put', 'multipart', 'checksum', 'delete', **options)[1]
                if len(expected[0]) < 30:
                    expected.insert(0, 'settings that this server needs, to be pasted into the '
                                    'configuration:')
                self.assertEqual(lines[:len(expected)], expected)

    def test_settings_that_the_self_test_does_not_depend_on_do_not_fail_it(self):
        server = self.server()
        for options, summary in (
                ({'region': 'auto'}, 'settings that this server needs, to be pasted'),
                ({'storage_class': 'DEEP_ARCHIVE'}, 'this server needs no other settings')):
            with self.subTest(options):
                lines, found = self.lines(server, 'list', 'put', 'get', 'delete', **options)
                self.assertEqual([line for line in lines if line.startswith('FAIL')], [])
                self.assertIn(summary, found[0])
        lines, _ = self.lines(server, 'put', storage_class='NONSENSE')
        self.assertRegex(lines[0], 'FAIL  put .*InvalidStorageClass')

    def test_volumes_that_can_not_stand_beside_their_object_or_be_listed_are_a_failure(self):
        for fault, message in (
                (dict(operation='PutObject', kind='status', status=409, code='InvalidRequest',
                      where=lambda exchange: '.volume_' in exchange.key), 'FAIL  volumes .*409'),
                (dict(operation='ListObjectsV2', kind='body', skip=1, body=(
                    b'<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>')),
                 'FAIL  volumes .*does `endpoint` name the bucket')):
            server = self.server()
            server.fault(times=None, **fault)
            lines, _ = self.lines(server, 'list', 'put', 'volumes', 'delete')
            self.assertRegex(lines[2], message)

    def test_it_says_that_content_md5_is_sent(self):
        server = self.server(quirks=['wants-content-md5'])
        lines, summary = self.lines(server, 'put', 'multipart')
        self.assertRegex(lines[0], 'ok    put .* this server wants Content-MD5, and gets it')
        self.assertEqual(summary[0], 'this server needs no other settings')

    def test_a_write_only_key_gets_a_useful_answer(self):
        server = self.server()
        server.users[server.access_key].allow = WRITE_ONLY | {'AbortMultipartUpload'}
        status, text = self.selftest(server)
        self.assertEqual(status, 0, text)
        self.assertRegex(text, 'ok    put ')
        self.assertRegex(text, 'skip  list .*these credentials may not')
        self.assertRegex(text, 'skip  get .*these credentials may not')
        self.assertRegex(text, 'skip  delete .*these credentials may not')
        self.assertRegex(text, 'note  overwrite .*may not delete .*, but can replace it')
        self.assertRegex(text, '\nthese credentials may write, overwrite, abort\n'
                         'they may not list, read, delete\n'
                         '[0-9]+ passed, 0 failed, [0-9]+ skipped\n')
        server.users[server.access_key].conditional = True
        lines, summary = self.lines(server)
        self.assertRegex(lines[-1], 'skip  overwrite .*these credentials may not: ')
        self.assertRegex(summary[0], r'^box:s3dump-test-.*\* stays behind$')
        self.assertEqual(summary[2:], ['these credentials may write, abort',
                                       'they may not list, read, overwrite, delete'])

    def test_each_failure_fails(self):
        server = self.server()
        for operation in ('PutObject', 'UploadPart', 'ListObjectsV2'):
            server.fault(operation, 'status', times=None, status=400, code='InvalidArgument')
        status, text = self.selftest(server)
        self.assertEqual(status, 1, text)
        for name in ('list', 'put', 'multipart'):
            self.assertRegex(text, 'FAIL  %s .*InvalidArgument' % name)

    def test_what_it_says_can_be_shown_anywhere_and_what_has_no_room_fails(self):
        server = self.server()
        with tempfile.NamedTemporaryFile('w', encoding='utf-8') as file:
            file.write(server.config(host='b\xfcro', part_size='5g'))
            file.flush()
            server.users[server.access_key].allow = ['PutObject']
            done = subprocess.run(
                ['sh', '-c', 'ulimit -v 1000000 && exec "$@"', 'sh', sys.executable, '-X', 'utf8=0',
                 '-W', 'error', '-bbIS', s3.__file__, '-f', file.name], env={'LC_ALL': 'C'},
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        text = done.stdout.decode('ascii')
        self.assertNotIn('Traceback', text)
        self.assertRegex(text, r'\nFAIL  multipart +(no room|there is too little memory)')
        self.assertRegex(text, r'\nb\\xfcro:s3dump-test-.* stays behind\n')

    @unittest.skipUnless(os.path.exists('/dev/full'), 'only Linux has /dev/full')
    def test_an_answer_that_can_not_be_written_is_a_failure_and_a_line(self):
        path = os.path.join(os.path.dirname(os.path.abspath(__file__)), 's3.py')
        for arguments, script, status, said in (
                ('', '>/dev/full', 1, 's3.py: No space left on device\n'),
                ('', '>/dev/full 2>/dev/full', 1, ''), ('', '>/dev/full 2>&-', 1, ''),
                ('', '>&-', 1, 's3.py: Bad file descriptor\n'), ('', '2>/dev/full', 2, ''),
                ('-x', '2>/dev/full', 2, ''), ('-x', '2>&-', 2, '')):
            done = subprocess.run(
                ['sh', '-c', 'exec "$@" ' + script, 'sh', sys.executable, '-W', 'error', '-I', '-S',
                 path] + arguments.split(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE, env={'S3DUMP_CONFIG': '/dev/null'})
            self.assertEqual((script, done.returncode, done.stderr.decode()),
                             (script, status, said))

    def test_without_a_configuration_it_tests_this_python_and_says_how_to_go_on(self):
        status, text = self.run_selftest()
        self.assertEqual(status, 2)
        self.assertRegex(text, 'ok    signature')
        self.assertIn('no bucket was tested: no bucket: write `bucket_name NAME` into', text)
        self.assertRegex(text, r'\n3 passed, 0 failed, 0 skipped\n\Z')
        self.assertEqual(self.run_selftest('-x')[0], 2)
        self.assertEqual(self.run_selftest('-x', stderr=subprocess.DEVNULL), (2, ''))
        for option in ('-h', '--help'):
            status, text = self.run_selftest(option, stderr=subprocess.DEVNULL)
            self.assertEqual(status, 0)
            self.assertRegex(text, r'\Ausage: s3.py \[-f FILE\]\n')


# --- Soak --------------------------------------------------------------------
#
# Everything fails with one chance in five, in one of all the ways above.

ANYWHERE = ACCIDENTS + [('refuse', {}), ('status', dict(status=403, code='AccessDenied'))]
BY_OPERATION = {
    'PutObject': [('flip', dict(at=3))], 'UploadPart': [('flip', dict(at=3))],
    'CompleteMultipartUpload': [
        ('error200', {}), ('error200', dict(done=True)), ('blanks', dict(pause=0.001)),
        ('blanks', dict(code='InternalError', done=False)), ('cut', dict(bytes=60)),
        ('body', dict(body=b''))],
    'GetObject': [('cut', dict(bytes=100)), ('cut', dict(bytes=700, reset=True)), ('short', {}),
                  ('long', {}), ('wrong-range', {}), ('wrong-range', dict(lie=True)),
                  ('ignore-range', {}), ('flip', dict(at=50))]}
SOAKED = ('PutObject', 'CreateMultipartUpload', 'UploadPart', 'CompleteMultipartUpload',
          'AbortMultipartUpload', 'DeleteObject', 'HeadObject', 'GetObject')


class Soak(ClientTestCase):
    """Dumps and restores on a server of which every operation fails with *chance*."""

    def runTest(self):
        """Not called: rounds() is."""

    def break_everything(self, server, generator, chance):
        for operation in SOAKED:
            kinds = ANYWHERE + BY_OPERATION.get(operation, [])
            refusals = sum(kind == 'refuse' or options.get('status') == 403
                           for kind, options in kinds)
            for kind, options in kinds:
                final = kind == 'refuse' or options.get('status') == 403
                share = 0.02 / refusals if final else 0.98 / (len(kinds) - refusals)
                server.fault(operation, kind, times=None, where=lambda _, share=share:
                             generator.random() < chance * share, **options)

    def rounds(self, count, seed, chance=0.2):
        """The dumps that succeeded, failed and had an unknown outcome; and restores likewise."""
        generator, results = random.Random(seed), collections.Counter()
        with S3Server(min_part_size=100) as server:
            for number in range(count):
                self.setUp()
                self.one_round(server, generator, chance, 'key %d' % number, results)
                server.uploads.clear()
                del server.log[:]
                self.secretless(str(self.reports))
                self.doCleanups()       # it swallows what fails
        return results

    def one_round(self, server, generator, chance, key, results):
        data = pattern(generator.choice((0, 1, 1000, generator.randrange(9000))))
        bucket = self.bucket(server, checksum=generator.choice(('none', 'crc32')),
                             max_parts=generator.choice((3, 100)), jobs=generator.choice((1, 3)))
        bucket.timeout = bucket.complete_timeout = 0.2
        self.break_everything(server, generator, chance)
        try:
            bucket.upload(key, io.BytesIO(data), unique=generator.random() < .5)
            outcome = 'stored'
        except s3.UnknownOutcome:
            outcome = 'unknown'
        except s3.Error as error:
            outcome = 'failed'
            self.one_line(error)
            self.assertNotIn(key, server.objects, error)
        results['dump ' + outcome] += 1
        left = [name for name in list(server.objects) + [
            upload.key for upload in server.uploads.values() if upload.parts]
            if name == key or name.startswith((key + '.volume_', key + '.end_'))]
        if outcome == 'stored':
            self.assertIn(key, server.objects)
        elif outcome == 'failed' and left:
            self.assertRegex(str(self.reports), 'left behind|unknown')
        keys = sorted((name for name in server.objects if name.startswith(key)
                       and '.end_' not in name), key=lambda name: (len(name), name))
        ended = any(name.startswith(key + '.end_') for name in server.objects)
        if key in server.objects:
            for broken in (True, False):
                results['restore ' + self.restore(bucket, keys, ended, data, broken)] += 1
                server.clear_faults()
        server.clear_faults()

    def restore(self, bucket, keys, ended, data, broken):
        got = []
        try:
            bucket.download(keys, lambda view: got.append(bytes(view)), ended)
        except s3.Error as error:
            self.assertTrue(broken, error)
            self.one_line(error)
            return 'failed'
        self.assertTrue(b''.join(got) == data, 'success with other bytes')
        return 'whole'


class SoakTests(unittest.TestCase):

    def test_restores_are_whole_or_an_error_while_everything_goes_wrong(self):
        seed = random.randrange(10**9)
        try:
            results = Soak().rounds(25, seed)
        except Exception:
            sys.stderr.write('seed %d\n' % seed)
            raise
        self.assertGreater(results['dump stored'], 0)


if __name__ == '__main__':
    if '--serve' in sys.argv:
        serve(int((sys.argv[sys.argv.index('--serve') + 1:] or [0])[0]))
    else:
        unittest.main()
