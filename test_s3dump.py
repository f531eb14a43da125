#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Tests of s3dump.py, which is run as a user and as cron run it.

Each test starts the program as a process of its own, in a directory that isn't
its own, with little in the environment, and looks at what everybody can see:
exit status, standard output, standard error, and what is on the server, the
one of test_s3.py, afterwards.  Whatever a test is about, no run may show a
traceback or the secret key, and the server may have nothing to object to.

    python3 test_s3dump.py                  runs the tests
    python3 test_s3dump.py --demo           shows the program at work, and checks that it is
    python3 test_s3dump.py --interop VENV   runs it against other S3 servers out of VENV
    python3 test_s3dump.py --bench GIB KEYS ROWS    shows what dumps and restores of that size,
                                            and a listing of so many keys, take
"""

import array
import ast
import calendar
import collections
import contextlib
import fcntl
import filecmp
import hashlib
import importlib.util
import itertools
import json
import os
import pty
import re
import select
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import sysconfig
import tempfile
import termios
import threading
import time
import unittest
import urllib.request
import zlib

from test_s3 import (CERTIFICATE, WRITE_ONLY, CredentialServices, S3Server, SigningClient, Upload,
                     Zeros, base64_crc32, ssl)

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAM = os.path.join(HERE, 's3dump.py')
PYTHON = [sys.executable, '-W', 'error', '-bb', '-I', '-S']
HOST = os.uname().nodename.split('.')[0] or 'localhost'
PART = 5 << 20
PATIENCE = 60           # seconds after which what has not happened will not
DAY = 86400

Result = collections.namedtuple('Result', 'status out err')


def setUpModule():
    """Let the signals of these tests reach the program, though we run under nohup or with &."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def until(condition, what):
    """Wait for the moment when condition() is true."""
    end, event = time.monotonic() + PATIENCE, threading.Event()
    while not condition():
        if time.monotonic() > end:
            raise AssertionError('it never happened: ' + what)
        event.wait(0.01)


def unread(pipe):
    """Return how many bytes wait in a pipe."""
    count = array.array('i', [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]


def some_bytes(size):
    """Return binary data: every byte value, and no two parts alike."""
    blocks = (b'%16d' % number + bytes(range(256)) for number in range(size // 272 + 1))
    return b''.join(blocks)[:size]


class ProgramTestCase(unittest.TestCase):
    """A server and a home directory for all tests of a class; bucket and log are empty at first."""

    serial = itertools.count()

    @classmethod
    def setUpClass(cls):
        cls.home = os.path.realpath(tempfile.mkdtemp())
        cls.config = os.path.join(cls.home, '.s3keys')
        cls.server = S3Server().start()

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()
        shutil.rmtree(cls.home)

    def setUp(self):
        server = self.server
        server.clear_faults()
        server.quirks.clear()
        for kept in (server.objects, server.uploads, server.log, server.hooks):
            kept.clear()
        self.configure()

    def tearDown(self):
        self.assertEqual(self.server.violations, [])

    def configure(self, **settings):
        """Write the configuration file."""
        self.write_config(self.server.config(**settings))

    def write_config(self, text, name='.s3keys', mode=0o600):
        path = os.path.join(self.home, name)
        with open(path, 'wb') as file:
            file.write(text.encode('utf-8') if isinstance(text, str) else text)
        os.chmod(path, mode)
        return path

    # Running the program.

    def start(self, *argv, **options):
        """Start the program with the arguments argv (they are UTF-8, whatever our locale).

        Options: prefix, what runs it, in place of Python with all it can complain of; env,
        more for the environment, or with bare=True all of it; others as of Popen.
        """
        command = options.pop('prefix', PYTHON + [PROGRAM])
        environment = {} if options.pop('bare', False) else {
            'HOME': self.home, 'PATH': os.environ.get('PATH', os.defpath),
            'AWS_EC2_METADATA_DISABLED': 'true'}
        environment.update(options.pop('env', {}))
        settings = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                        cwd=self.home, env=environment)
        process = subprocess.Popen([word if isinstance(word, bytes) else word.encode('utf-8')
                                    for word in command + list(argv)], **dict(settings, **options))
        self.addCleanup(self.put_away, process)
        return process

    def put_away(self, process):
        if process.poll() is None:
            process.kill()
            process.wait()
        for file in (process.stdin, process.stdout, process.stderr):
            if file is not None:
                file.close()

    def finish(self, process, data=None):
        """Wait for the end of the program; returns its Result, which is fit to be seen."""
        out, err = process.communicate(data, timeout=PATIENCE)
        return self.seemly(process.returncode, out or b'', (err or b'').decode('utf-8'))

    def seemly(self, status, out, err):
        for text in (out.decode('latin-1'), err):
            self.assertNotIn(self.server.secret_key, text)
        self.assertNotRegex(err, 'Traceback|Exception ignored|Warning:|internal error|Fatal')
        self.assertNotRegex(err, '[^\n\r\x20-\x7e\x80-\U0010ffff]')
        return Result(status, out, err)

    def run_program(self, *argv, **options):
        data = options.pop('data', b'')
        if 'stdin' in options:
            data = None
        return self.finish(self.start(*argv, **options), data)

    def succeed(self, *argv, **options):
        """Run the program, which must succeed."""
        result = self.run_program(*argv, **options)
        self.assertEqual((result.status, argv), (0, argv), result.err)
        return result

    def must_fail(self, status, message, *argv, **options):
        """Run the program, which must end with *status* and one line that fits *message*."""
        result = self.run_program(*argv, **options)
        self.assertEqual(result.status, status, (argv, result))
        self.assertRegex(result.err, r'\As3dump: [^\n]*(?:%s)[^\n]*\n\Z' % message)
        return result

    def dump(self, data, *argv, **options):
        """Dump data; returns the key."""
        before = set(self.server.objects)
        self.succeed('dump', *argv, data=data, **options)
        new = sorted(set(self.server.objects) - before)
        return new[0] if new else None

    # What is on the server.

    def place(self, fs='/home', level='0', date='2020-01-10', host=HOST, size=100, stored=None,
              **attributes):
        """Place a dump of *size* bytes, stored at noon of its date unless said; returns its key."""
        if stored is None:
            stored = self.noon(date)
        stamp = time.strftime('%Y%m%dT%H%M%S.000Z', time.gmtime(stored))
        key = '%s:%s:%s:%s:%s-%016d' % (host, fs, level, date, stamp, next(self.serial))
        self.server.put(key, bytes(size), modified=stored, **attributes)
        return key

    def noon(self, date):
        return calendar.timegm(time.strptime(date + ' 12', '%Y-%m-%d %H'))

    def keys(self):
        return sorted(self.server.objects)

    def asked(self, operation):
        """Return the keys of the requests of this kind, in their order."""
        return [request.key for request in self.server.log if request.operation == operation]


# --- Dump and restore --------------------------------------------------------

class RoundTripTests(ProgramTestCase):

    def test_streams_of_any_length_come_back_as_they_were(self):
        self.configure(part_size='5m')
        for size, parts in ((1, 1), (300, 1), (PART - 1, 1), (PART, 1), (PART + 1, 2),
                            (3 * PART + 12345, 4)):
            with self.subTest(size=size):
                self.server.objects.clear()
                data = some_bytes(size)
                key = self.dump(data, '/home', '0')
                self.assertEqual(self.keys(), [key])
                stored = self.server.objects[key]
                self.assertTrue(bytes(stored.data) == data)
                self.assertEqual(len(stored.parts or [size]), parts)
                result = self.succeed('restore', '/home', '0')
                self.assertTrue(result.out == data)
                self.assertRegex(result.err, r'\As3dump: restore %s.*\n\Z' % re.escape(key))
                self.assertEqual(self.server.uploads, {})
        self.assertEqual(self.succeed('verify', '/home', '0').out, b'')

    def test_an_empty_stream_is_stored_with_a_warning(self):
        result = self.succeed('dump', '/home', '0')
        self.assertRegex(result.err, r'\As3dump: warning: .*empty.*\n')
        self.assertEqual([self.server.objects[key].size for key in self.keys()], [0])
        self.assertEqual(self.succeed('restore', '/home', '0').out, b'')
        self.assertEqual(self.succeed('-q', 'verify', '/home', '0'), (0, b'', ''))

    def test_options_stand_before_and_after_the_command(self):
        for argv in (['-L', '300m', '-j2', 'dump', '-q', 'photo', '0'],
                     ['dump', 'photo', '0', '-L', '300m', '-j2', '-q'],
                     ['dump', '-L300M', 'photo', '--jobs=2', '0', '--quiet'],
                     ['dump', '--limit-rate=0.3g', '-qj', '2', 'photo', '0']):
            with self.subTest(argv):
                self.assertEqual(self.succeed(*argv, data=b'data'), (0, b'', ''))
        self.assertEqual(len(self.keys()), 4)

    def test_restore_takes_the_newest_dump_of_the_date_if_one_is_given(self):
        for date, data in (('2020-01-03', b'3'), ('2020-01-02', b'2')):
            self.dump(data, '-w', date, '/home', '0')
        self.dump(b'other', '-w', '2020-01-05', '/home', '1')
        self.dump(b'another', '-w', '2020-01-05', '/home/me', '0')
        self.dump(b'host', '-w', '2020-01-05', '-h', 'other', '/home', '0')
        self.assertEqual(self.succeed('restore', '/home', '0').out, b'3')
        self.dump(b'3 again', '-w', '2020-01-03', '/home', '0')
        for one in self.server.objects.values():
            one.modified = int(time.time())         # it has no fractions
        self.assertEqual(self.succeed('retrieve', '/home', '0').out, b'3 again')
        self.assertEqual(self.succeed('restore', '/home', '0', '-w', '2020-01-02').out, b'2')
        self.assertEqual(self.succeed('restore', '/home', '0', '-h', 'other').out, b'host')
        for command in ('restore', 'verify', 'url', 'getacl'):
            self.must_fail(1, r"%s: no dump of '/home' level 0 of 2020-01-04" % command,
                      command, '/home', '0', '-w', '2020-01-04')

    def test_a_program_is_run_in_place_of_a_pipe(self):
        for script, options, status, message in (
                ('printf data', [], 0, ''),
                ('printf data; exit 1', [], 1, 'exit status 1: nothing is stored'),
                ('printf data; exit 1', ['--accept-status', '1'], 0, ''),
                ('printf data; exit 1', ['--accept-status', '3,1'], 0, ''),
                ('printf data; exit 2', ['--accept-status', '3,1'], 1, 'exit status 2'),
                ('printf data; kill -9 $$', [], 1, 'signal 9'),
                ('printf data; kill -9 $$', ['--accept-status', '9,137'], 1, 'signal 9'),
                ('kill -15 $$', [], 1, 'signal 15')):
            with self.subTest(script, options=options):
                self.server.objects.clear()
                argv = ['-q', 'dump', '/home', '0'] + options + ['--', 'sh', '-c', script]
                if status:
                    self.must_fail(status, message, *argv)
                    self.assertEqual(self.keys(), [])
                else:
                    self.succeed(*argv)
                    self.assertEqual(self.succeed('restore', '/home', '0').out, b'data')

    def test_the_arguments_of_a_program_are_its_own(self):
        self.succeed('dump', '/home', '0', '--', 'printf', '%s,', '-q', '--', 'a b', '--json')
        self.assertEqual(self.succeed('restore', '/home', '0').out, b'-q,--,a b,--json,')

    def test_a_program_that_is_not_there_stores_nothing(self):
        for program in ('no-such-program', '/', self.config):
            with self.subTest(program):
                self.must_fail(1, 'cannot start %s: ' % re.escape(program),
                          'dump', '/home', '0', '--', program)
        self.assertEqual(self.keys(), [])

    def test_a_program_that_fails_after_some_parts_leaves_nothing(self):
        self.configure(part_size='5m')
        self.must_fail(1, 'exit status 7: nothing is stored', 'dump', '/home', '0',
                  '--', 'sh', '-c', 'head -c %d /dev/zero; exit 7' % (2 * PART + 1))
        self.assertIn('CreateMultipartUpload', self.server.operations())
        self.assertEqual((self.keys(), self.server.uploads), ([], {}))

    def test_a_stream_shorter_than_min_size_is_not_stored(self):
        self.configure(part_size='5m')
        for size, least in ((0, '1'), (1023, '1k'), (PART + 1, '6m')):
            with self.subTest(size=size):
                self.must_fail(1, r'%d bytes, less than --min-size %s' % (size, r'\d+'),
                          'dump', '/home', '0', '--min-size', least, data=bytes(size))
                self.assertEqual((self.keys(), self.server.uploads), ([], {}))
        for size, least in ((1024, '1k'), (0, '0')):
            self.succeed('dump', '/home', '0', '--min-size', least, data=bytes(size))

    def test_a_stream_that_breaks_off_with_an_error_is_not_stored(self):
        self.configure(part_size='5m')
        with socket.socket() as listener:
            listener.bind(('127.0.0.1', 0))
            listener.listen(1)
            producer = socket.create_connection(listener.getsockname())
            stream, _ = listener.accept()
        process = self.start('dump', '/home', '0', stdin=stream)
        stream.close()
        producer.sendall(bytes(PART + 1))
        until(lambda: self.asked('UploadPart'), 'the first part arrives')
        producer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        producer.close()                # with a reset
        result = self.finish(process)
        self.assertEqual(result.status, 1)
        self.assertRegex(result.err, 'cannot read the stream: Connection reset')
        self.assertEqual((self.keys(), self.server.uploads), ([], {}))

    def test_a_file_is_dumped_from_where_it_is_open(self):
        path = self.write_config('0123456789', 'file')
        with open(path, 'rb', buffering=0) as file:
            file.seek(4)
            self.succeed('dump', '/home', '0', stdin=file)
        with open(os.path.join(self.home, 'back'), 'wb') as file:
            self.succeed('restore', '/home', '0', stdout=file)
        with open(file.name, 'rb') as file:
            self.assertEqual(file.read(), b'456789')

    def test_json_tells_what_was_done(self):
        self.configure(part_size='5m')
        answer = json.loads(self.succeed('dump', '/home', '0', '--json',
                                         data=bytes(PART + 1)).out.decode())
        self.assertEqual(sorted(answer),
                         ['key', 'objects', 'parts', 'retries', 'seconds', 'size'])
        self.assertEqual([answer['key']], self.keys())
        self.assertEqual((answer['size'], answer['parts'], answer['objects'], answer['retries']),
                         (PART + 1, 2, 1, 0))
        self.assertGreater(answer['seconds'], 0)
        self.assertEqual(json.loads(self.succeed('--json', 'verify', '/home', '0').out.decode()),
                         {'key': answer['key'], 'size': PART + 1, 'verified': 'etag'})

    def test_damage_is_noticed(self):
        key = self.dump(b'data', '/home', '0')
        self.server.objects[key].data = b'dada'
        for command in ('restore', 'verify'):
            self.must_fail(1, 'damaged', command, '/home', '0')

    def test_storage_classes_reach_the_server(self):
        for argv, expected in ((['-i'], 'STANDARD_IA'),
                               (['--storage-class', 'ONEZONE_IA'], 'ONEZONE_IA'), ([], 'STANDARD')):
            key = self.dump(b'', '-k', 'key %s' % expected, *argv)
            self.assertEqual(self.server.objects[key].storage_class, expected)
        self.configure(storage_class='GLACIER_IR')
        self.assertEqual(self.server.objects[self.dump(b'', '/', '0')].storage_class, 'GLACIER_IR')

    def test_what_the_server_refuses_is_said_in_a_line(self):
        self.server.add_user('READER', 'sesame', allow={'ListObjectsV2', 'GetObject', 'HeadObject'})
        self.configure(access_key_id='READER', secret_access_key='sesame')
        self.must_fail(1, r"dump: PutObject .*: AccessDenied \(403\).*\[request \w+\].*policy",
                  'dump', '/home', '0', data=b'data')
        self.configure(bucket_name='nowhere')
        self.must_fail(1, r'list: ListObjectsV2: NoSuchBucket \(404\).*bucket_name', 'list')
        self.configure(access_key_id='NOBODY')
        self.must_fail(1, r'InvalidAccessKeyId', 'clean', '1')

    def test_verbose_shows_requests_and_no_secrets(self):
        self.server.fault('PutObject', 'status', status=500, code='InternalError')
        result = self.succeed('-v', 'dump', '/home', '0', data=b'data')
        self.assertRegex(result.err, r'PutObject [^\n]*: 500\n')
        self.assertRegex(result.err, r'PutObject [^\n]*InternalError \(500\); next try')
        self.assertRegex(result.err, r'PutObject [^\n]*: 200\n')
        self.assertNotIn('Signature', result.err)


class KeyTests(ProgramTestCase):

    def test_a_key_holds_the_labels_the_instant_and_80_random_bits(self):
        def today():
            return time.strftime('%Y-%m-%d', time.gmtime(time.time() + 14 * 3600))

        before = today()
        keys = [self.dump(b'data', '/home', '0', env={'TZ': 'XYZ-14'}) for _ in range(3)]
        self.assertEqual(len(set(keys)), 3)
        for key in keys:
            self.assertRegex(key, r'\A%s:/home:0:(%s|%s):\d{8}T\d{6}\.\d{3}Z-[a-z0-9]{16,}\Z'
                             % (HOST, before, today()))
            stamp = calendar.timegm(time.strptime(key.split(':')[4][:15], '%Y%m%dT%H%M%S'))
            self.assertLess(abs(stamp - time.time()), 2 * PATIENCE)

    def test_labels_of_all_kinds_sign_restore_list_and_delete(self):
        for host, fs, level, date in (
                (HOST, '/', '+1', '2020-02-29'), ('a host', '//srv // a+b', '007', '0001-01-01'),
                ('h%41~', '/%2F%zz~', '9' * 30, '2020-01-01'),
                ("it's", '/"\'`$x\\', '-1', '2020-01-01'),
                ('hôst', '/ünï→日本/😀', '0', '2020-12-31'),
                ('?#', '../&a=b<c>;{d}|[e]^*!@(),', '0', '2020-01-01')):
            labels = [fs, level, '-h', host, '-w', date]
            with self.subTest(labels=ascii(labels)):
                self.server.objects.clear()
                data = ascii(labels).encode()
                key = self.dump(data, *labels)
                self.assertEqual(key[:key.rindex(':')], ':'.join((host, fs, level, date)))
                self.assertEqual(self.succeed('restore', fs, level, '-h', host).out, data)
                line = self.succeed('list', fs, '-h', host, '--json').out.decode('ascii')
                shown = json.loads(line)
                self.assertEqual((shown['key'], shown['host'], shown['fs'], shown['level'],
                                  shown['date']), (key, host, fs, level, date))
                self.assertIn('\n%s\nLevel %s %s:' % (fs, level, date),
                              self.succeed('list', fs, '-h', host).out.decode('utf-8'))
                self.succeed('delete', *labels)
                self.assertEqual(self.keys(), [])

    def test_a_literal_key_of_any_kind_is_taken_as_it_is(self):
        for key in ('/a/b//c', 'a b+c%d~e ü', '-', 'x' * 1000):
            with self.subTest(ascii(key)):
                self.assertEqual(self.dump(b'data', '-k', key), key)
                self.assertEqual(self.succeed('restore', '-k', key).out, b'data')
                self.succeed('delete', '--key=' + key)
                self.assertEqual(self.keys(), [])

    def test_keys_with_control_characters_are_shown_escaped_and_can_be_restored_and_deleted(self):
        keys = ['h\x1b[2J:/a\nb\x7f\x9b\u202e:0:2009-10-07', 'no dump\x1b[31m\r']
        for key in keys:
            self.server.put(key, b'data', modified=self.noon('2009-10-07'))
        listing = self.succeed('list', '-a').out.decode('utf-8')
        self.assertNotRegex(listing, '[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]')
        self.assertIn('/a\\nb\\x7f\\x9b\\u202e\nLevel 0 2009-10-07:        4\n', listing)
        lines = self.succeed('list', '-a', '--json').out.decode('ascii').splitlines()
        self.assertEqual([json.loads(line)['key'] for line in lines], keys)
        for key in keys:
            result = self.succeed('restore', '-k', key)
            self.assertEqual(result.out, b'data')
            self.assertNotRegex(result.err[:-1], '[\x00-\x1f\x7f-\x9f\u202e]')
            result = self.succeed('delete', '-k', key)
            self.assertNotRegex(result.err[:-1], '[\x00-\x1f\x7f-\x9f\u202e]')
        self.assertEqual(self.keys(), [])

    def test_a_fixed_key_has_four_fields_and_is_not_replaced(self):
        argv = ['dump', '--fixed-key', '-h', 'redlance', '-w', '2009-10-07', '/home', '0']
        self.succeed(*argv, data=b'first')
        self.assertEqual(self.keys(), ['redlance:/home:0:2009-10-07'])
        self.must_fail(1, 'redlance:/home:0:2009-10-07.* exists', *argv, data=b'second')
        self.assertEqual(self.server.objects[self.keys()[0]].data, b'first')

    def test_an_existing_object_is_found_out_before_the_stream_is_read(self):
        self.server.put('taken', b'old')
        ours, theirs = os.pipe()
        os.write(theirs, b'unread')
        os.close(theirs)
        self.must_fail(1, "'taken' exists", 'dump', '-k', 'taken', stdin=ours)
        with open(ours, 'rb') as pipe:
            self.assertEqual(pipe.read(), b'unread')
        self.must_fail(1, "'taken' exists", 'dump', '-k', 'taken', '--', 'touch', 'started')
        self.assertFalse(os.path.exists(os.path.join(self.home, 'started')))
        self.assertEqual(self.server.objects['taken'].data, b'old')

    def test_overwrite_replaces_an_object(self):
        self.configure(part_size='5m')
        for data in (b'new', bytes(PART + 1)):
            self.server.put('taken', b'old')
            self.succeed('dump', '-k', 'taken', '--overwrite', data=data)
            self.assertTrue(bytes(self.server.objects['taken'].data) == data)

    def test_an_object_that_comes_into_being_meanwhile_stays(self):
        self.configure(part_size='5m')
        for operation, data in (('PutObject', b'new'),
                                ('CompleteMultipartUpload', bytes(PART + 1))):
            with self.subTest(operation):
                self.server.objects.clear()
                self.server.on(operation, lambda server, exchange: server.put('taken', b'theirs'))
                self.must_fail(1, r'PreconditionFailed \(412\)', 'dump', '-k', 'taken', data=data)
                self.assertEqual(self.server.objects['taken'].data, b'theirs')
                self.assertEqual(self.server.uploads, {})

    def test_every_dump_is_created_on_condition_that_there_is_none(self):
        self.configure(part_size='5m')
        for data in (b'', bytes(PART + 1)):
            self.dump(data, '/home', '0')
        creations = [request for request in self.server.log
                     if request.operation in ('PutObject', 'CompleteMultipartUpload')]
        self.assertEqual([request.headers.get('if-none-match') for request in creations],
                         ['*', '*'])

    def test_a_key_that_may_only_write_stores_dumps(self):
        self.configure(access_key_id='WRITER', secret_access_key='sesame', part_size='5m')
        self.server.add_user('WRITER', 'sesame', allow=WRITE_ONLY, conditional=True)
        for argv in (['/home', '0'], ['-k', 'key'], ['--fixed-key', '/home', '0']):
            with self.subTest(argv):
                self.assertIsNotNone(self.dump(b'data', *argv))
        self.dump(bytes(PART + 1), '/', '0')
        result = self.run_program('dump', '/', '0', '--', 'sh', '-c',
                                  'head -c %d /dev/zero; exit 1' % (PART + 1))
        self.assertEqual(result.status, 1)
        self.assertRegex(result.err, 'exit status 1: nothing is stored')
        self.assertRegex(result.err, 'AbortMultipartUpload.*AccessDenied')
        self.assertEqual(len(self.keys()), 4)


class ClockTests(ProgramTestCase):

    def tearDown(self):
        self.server.offset = 0
        ProgramTestCase.tearDown(self)

    def test_labels_and_stamps_are_of_the_servers_clock(self):
        self.configure(part_size='5m')
        for days in (400, -4000):
            self.server.offset = days * DAY
            for size in (100, PART + 1):
                key = self.dump(bytes(size), '/home', '0')
                host, fs, level, date, stamp = key.split(':')
                there = time.time() + days * DAY
                self.assertLess(abs(calendar.timegm(time.strptime(
                    stamp[:15], '%Y%m%dT%H%M%S')) - there), 60)
                self.assertIn(date, {time.strftime('%Y-%m-%d', time.localtime(there + more))
                                     for more in (0, -60)})
            self.succeed('dump', '/fixed', '0', '--fixed-key', data=b'data')
            result = self.run_program('dump', '/fixed', '0', '--fixed-key', data=b'data')
            self.assertEqual(result.status, 1)
            self.assertRegex(result.err, 'fixed:0:%s. exists, and nothing was changed' % date)
            self.succeed('delete', '/fixed', '0')


class VolumeTests(ProgramTestCase):
    """Objects that hold two parts, so that a stream needs several of them."""

    def setUp(self):
        ProgramTestCase.setUp(self)
        self.configure(part_size='5m', max_parts='2')

    def test_a_stream_goes_on_in_further_objects(self):
        for size, names in ((2 * PART, ['/end_000000']),
                            (2 * PART + 1, ['/end_000001', '/volume_000001']),
                            (4 * PART, ['/end_000001', '/volume_000001']),
                            (5 * PART, ['/end_000002', '/volume_000001', '/volume_000002'])):
            with self.subTest(size=size):
                self.server.objects.clear()
                del self.server.log[:]
                data = some_bytes(size)
                key = self.dump(data, '/home', '0')
                self.assertEqual(self.keys(), [key] + [key + name for name in names])
                creations = [request for request in self.server.log if request.operation in (
                    'PutObject', 'CompleteMultipartUpload')]
                self.assertEqual(creations[-1].key, key)
                for one in self.server.objects.values():
                    self.assertEqual(one.metadata['x-amz-meta-volume-size'], str(2 * PART))
                self.assertTrue(self.succeed('restore', '/home', '0').out == data)
        shown = json.loads(self.succeed('list', '--json').out.decode())
        self.assertEqual((shown['key'], shown['size'], shown['objects']), (key, size, 4))

    def place_set(self):
        """Place a set of three volumes, of parts smaller than real ones; returns key and data."""
        data = some_bytes(450)
        key = self.place(size=0)
        for number, name in enumerate(('', '/volume_000001', '/volume_000002', '/end_000002')):
            self.server.put(key + name, data[number * 200:(number + 1) * 200], parts=100,
                            modified=self.noon('2020-01-10'),
                            metadata={'x-amz-meta-volume-size': '200'})
        return key, data

    def test_a_set_is_one_dump(self):
        self.configure()            # whatever is configured later
        key, data = self.place_set()
        for labels in (['/home', '0'], ['-k', key]):
            self.assertTrue(self.succeed('restore', *labels).out == data)
        answer = json.loads(self.succeed('verify', '/home', '0', '--json').out.decode())
        self.assertEqual(answer, {'key': key, 'size': len(data), 'verified': 'etag'})
        self.assertIn(b'Level 0 2020-01-10:      450\n', self.succeed('list').out)
        self.assertEqual(self.succeed('delete', '-k', key, '-n').out.count(b'\n'), 1)
        self.succeed('delete', '/home', '0', '-w', '2020-01-10')
        self.assertEqual(self.keys(), [])
        self.assertEqual(self.asked('DeleteObject')[0], key)

    def test_a_set_with_a_hole_or_without_its_end_is_not_restored(self):
        for lost, message in ((['/volume_000001'], 'volume_000001.* is missing'),
                              (['/volume_000002'], 'end mark'),
                              (['/end_000002'], 'end mark is missing'),
                              (['/volume_000002', '/end_000002'], 'end mark is missing'),
                              (['/volume_000001', '/volume_000002'], 'end mark'),
                              (['/volume_000001', '/volume_000002', '/end_000002'], 'not whole')):
            for way in ('labels', 'key'):
                with self.subTest(lost, way=way):
                    self.server.objects.clear()
                    del self.server.log[:]
                    key, _ = self.place_set()
                    for name in lost:
                        self.server.objects.pop(key + name)
                    labels = ['/home', '0'] if way == 'labels' else ['-k', key]
                    result = self.must_fail(1, message, 'restore', *labels)
                    self.assertEqual(result.out, b'')
                    self.assertEqual(self.asked('GetObject'), [])
                    if way == 'labels':
                        self.must_fail(1, message, 'verify', *labels)

    def test_a_full_first_object_with_its_end_mark_is_whole(self):
        key, data = self.place_set()
        for name in ('/volume_000001', '/volume_000002', '/end_000002'):
            self.server.objects.pop(key + name)
        self.server.put(key + '/end_000000', b'')
        self.assertTrue(self.succeed('restore', '/home', '0').out == data[:200])
        self.succeed('verify', '-k', key)

    def test_an_object_with_a_name_like_that_of_a_volume_is_none(self):
        key, data = self.place_set()
        for name in ('/volume_1', '/volume_000001x', '/volume_', '/end_2', '/end_000002.bak',
                     '/Volume_000001', '/volume_000001/volume_000001'):
            self.server.put(key + name, b'forged')
        for labels in (['/home', '0'], ['-k', key]):
            self.assertTrue(self.succeed('restore', *labels).out == data)

    def test_volumes_beside_an_object_that_needs_none_do_not_spoil_it(self):
        key = '%s:/home:0:2020-01-10' % HOST
        self.dump(b'sound', '-w', '2020-01-10', '--fixed-key', '/home', '0')
        for name in ('/volume_000000', '/volume_000001', '/volume_000005', '/end_000000',
                     '/end_000009'):
            self.server.put(key + name, b'forged')
        for labels in (['/home', '0'], ['-k', key]):
            self.assertEqual(self.succeed('restore', *labels).out, b'sound')
        self.assertIn(b'Level 0 2020-01-10:        5\n', self.succeed('list').out)
        self.must_fail(1, 'delete -k', 'dump', '-k', key, '--overwrite', data=b'other')
        self.succeed('delete', '-k', key)
        self.assertEqual(self.keys(), [key + '/volume_000000'])     # that is no volume

    def test_volumes_of_another_dump_do_not_spoil_one(self):
        self.configure(part_size='5m', max_parts='1')
        for size, stray in ((PART, 2 * PART + 9), (2 * PART + 9, PART), (100, 2 * PART)):
            with self.subTest(size, stray=stray):
                self.server.objects.clear()
                self.dump(b'theirs' * stray, '-k', 'other')
                data = some_bytes(size)
                self.succeed('dump', '-k', 'mine', data=data)
                for key in self.keys():         # a dump under this key that was refused
                    if key.startswith('other/'):
                        name = key.replace('other', 'mine')
                        if name not in self.server.objects:
                            self.server.objects[name] = self.server.objects[key]
                self.assertEqual(self.succeed('restore', '-k', 'mine').out, data)

    def test_a_set_whose_metadata_were_lost_is_not_restored_in_part(self):
        key, _ = self.place_set()
        self.server.objects[key].metadata.clear()
        for labels in (['/home', '0'], ['-k', key]):
            self.assertEqual(self.must_fail(1, 'does not say how large', 'restore', *labels).out,
                             b'')

    def test_an_end_mark_alone_is_no_dump(self):
        self.server.put('key/end_000000', b'')
        for command in ('restore', 'verify', 'url', 'getacl'):
            self.must_fail(1, 'is missing', command, '-k', 'key')
        self.must_fail(1, 'is missing', 'putacl', '-k', 'key', data=b'<AccessControlPolicy/>')

    def test_a_set_is_not_overwritten(self):
        self.configure(part_size='5m', max_parts='1')
        for size in (PART, PART + 5):
            self.server.objects.clear()
            self.dump(bytes(size), '-k', 'key')
            before = dict(self.server.objects)
            for other in (1, PART, PART + 7):
                self.must_fail(1, 'has volumes of an earlier dump: `delete -k` that first',
                               'dump', '-k', 'key', '--overwrite', data=bytes(other))
            self.assertEqual(dict(self.server.objects), before)
            self.succeed('verify', '-k', 'key')

    def test_what_is_left_of_a_set_can_be_deleted_by_its_key(self):
        key, _ = self.place_set()
        self.server.objects.pop(key)
        self.must_fail(1, 'is missing', 'restore', '-k', key)
        self.succeed('delete', '-k', key)
        self.assertEqual(self.keys(), [])

    def test_an_absurd_number_does_not_hang_anything(self):
        for name in (':99999999999', '/chunk_999999999999', '/volume_999999999999',
                     ':' + '9' * 30):
            self.server.put('%s:/home:0:2020-01-10%s' % (HOST, name), b'')
        self.succeed('list')
        self.assertEqual(self.run_program('restore', '/home', '0').status, 1)

    def test_urls_are_not_given_for_what_can_not_be_restored(self):
        self.configure(part_size='5m', max_parts='1')
        key = self.dump(bytes(PART), '/home', '0')
        self.server.objects.pop(key + '/end_000000')
        self.must_fail(1, 'not whole', 'url', '/home', '0')
        self.server.put('cold', b'', storage_class='GLACIER')
        self.must_fail(3, 'archived', 'url', '-k', 'cold')

    def test_volumes_without_a_first_object_are_no_dump(self):
        key, _ = self.place_set()
        self.server.objects.pop(key)
        self.must_fail(1, 'no dump', 'restore', '/home', '0')
        self.assertRegex(self.succeed('list').out.decode(), r'Total data stored: 0 '
                         r'\(\$0\.00/month\)\nUnfinished uploads: 1, .*2020-01-10')
        self.assertEqual(self.succeed('list', '--json').out, b'')
        for one in self.server.objects.values():
            one.modified = time.time() - 29 * DAY
        self.succeed('clean', '1')
        self.assertEqual(len(self.keys()), 3)
        for one in self.server.objects.values():
            one.modified = time.time() - 31 * DAY
        self.succeed('clean', '1')
        self.assertEqual(self.keys(), [])

    def test_a_failure_in_a_later_volume_leaves_nothing(self):
        self.must_fail(1, 'exit status 1', 'dump', '/home', '0', '--', 'sh', '-c',
                  'head -c %d /dev/zero; exit 1' % (5 * PART + 1))
        self.assertEqual(len(set(self.asked('CreateMultipartUpload'))), 3)
        self.assertEqual((self.keys(), self.server.uploads), ([], {}))

    def test_a_key_with_volumes_of_an_earlier_dump_is_not_dumped_to(self):
        self.server.put('key/volume_000001', b'old')
        self.must_fail(1, "'key' has volumes", 'dump', '-k', 'key', data=b'new')
        self.assertEqual(self.keys(), ['key/volume_000001'])


class LegacyTests(ProgramTestCase):
    """What older versions left in the bucket."""

    def setUp(self):
        ProgramTestCase.setUp(self)
        self.stored = {}
        self.put('%s:/one:0:2009-10-07' % HOST, [''])
        self.put('%s:/chunks:0:2009-10-07' % HOST, ['/chunk_%06d' % n for n in range(3)])
        self.put('%s:/colons:0:2009-10-07' % HOST, [':%d' % n for n in range(12)])

    def put(self, key, names):
        pieces = [b'%d bottles; ' % number for number in range(len(names))]
        for name, piece in zip(names, pieces):
            self.server.put(key + name, piece, modified=self.noon('2009-10-07'))
        self.stored[key] = b''.join(pieces)

    def test_they_are_listed(self):
        self.assertEqual(self.succeed('list').out.decode(), '\n'.join((
            'Dumps for this host (%s):' % HOST,
            '/chunks', 'Level 0 2009-10-07:       33',
            '/colons', 'Level 0 2009-10-07:      134',
            '/one', 'Level 0 2009-10-07:       11',
            '', 'Total data stored: 178 ($0.00/month)', '')))
        lines = self.succeed('list', '--json').out.decode().splitlines()
        self.assertEqual([json.loads(line)['objects'] for line in lines], [3, 12, 1])

    def test_they_are_restored_verified_and_deleted(self):
        for key, data in self.stored.items():
            fs = key.split(':')[1]
            for labels in ([fs, '0'], ['-k', key]):
                with self.subTest(labels):
                    self.assertEqual(self.succeed('restore', *labels).out, data)
                    self.succeed('verify', *labels)
        self.succeed('delete', '-w', '2009-10-07', '/colons', '0')
        self.succeed('delete', '-k', '%s:/chunks:0:2009-10-07' % HOST)
        self.assertEqual(self.keys(), ['%s:/one:0:2009-10-07' % HOST])

    def test_they_are_cleaned_beside_new_ones(self):
        new = [self.place(fs) for fs in ('/one', '/chunks', '/colons')]
        self.succeed('clean', '1')
        self.assertEqual(self.keys(), sorted(new))

    def test_a_missing_chunk_is_an_error(self):
        for key, name in (('%s:/chunks:0:2009-10-07', '/chunk_000001'),
                          ('%s:/chunks:0:2009-10-07', '/chunk_000000'),
                          ('%s:/colons:0:2009-10-07', ':10')):
            with self.subTest(name):
                self.setUp()
                self.server.objects.pop(key % HOST + name)
                labels = key.split(':')[1:3]
                for argv in (['restore'] + labels, ['verify'] + labels,
                             ['restore', '-k', key % HOST]):
                    self.assertEqual(self.must_fail(1, '%s.* is missing' % name, *argv).out, b'')


# --- What is wrong with a command line ---------------------------------------

class UsageTests(ProgramTestCase):
    """Exit status 2, a line on standard error, and nothing read, sent or deleted."""

    def refuse(self, message, *argv, **options):
        with self.subTest(argv=ascii(argv)):
            self.refused(message, self.run_program(*argv, **options))

    def refuse_all(self, cases):
        """Run a table of (message, argv), some at a time."""
        for start in range(0, len(cases), 4):
            some = [(case, self.start(*case[1])) for case in cases[start:start + 4]]
            for (message, argv), process in some:
                with self.subTest(argv=ascii(argv)):
                    self.refused(message, self.finish(process, b'data'))

    def refused(self, message, result):
        self.assertEqual((result.status, result.out), (2, b''), result)
        self.assertRegex(result.err, r'\As3dump: [^\n]*(?:%s)[^\n]*\n\Z' % message)
        self.assertEqual(self.server.log, [])

    def test_command_lines(self):
        dump = ['dump', '/home', '0']
        self.refuse_all((
                ('no command', []),
                ('unknown command', ['backup']),
                ('unknown command', ['']),
                ('unknown option --bogus', dump + ['--bogus']),
                ('unknown option -Z', ['-Z'] + dump),
                ('--config', ['list', '-f']),
                ('dump takes FS and LEVEL', ['dump', '/home']),
                ('dump takes FS and LEVEL', dump + ['1']),
                ('restore takes FS and LEVEL', ['restore']),
                ('list takes', ['list', '/', '0']),
                ('init takes', ['init', 'now']),
                ('not both', dump + ['-k', 'key']),
                ('not both', ['delete', '/home', '0', '-k', 'key']),
                ('key is empty', ['dump', '-k', '']),
                ("FS '/a:b'", ['dump', '/a:b', '0']),
                ('FS is empty', ['dump', '', '0']),
                ('FS .*\\\\n', ['dump', '/a\nb', '0']),
                ('FS .*\\\\x9b', ['dump', '/a\x9bb', '0']),
                ("LEVEL 'x'", ['dump', '/home', 'x']),
                ("LEVEL '1.5'", ['dump', '/home', '1.5']),
                ('LEVEL', ['dump', '/home', '\u0663']),
                ('LEVEL is empty', ['restore', '/home', '']),
                ("'2026-02-30'", dump + ['-w', '2026-02-30']),
                ("'26-02-03'", dump + ['-w', '26-02-03']),
                ("'today'", dump + ['--date', 'today']),
                ("'0000-01-01'", dump + ['-w', '0000-01-01']),
                ("host label 'a/b'", dump + ['-h', 'a/b']),
                ("host label 'a:b'", ['clean', '1', '--host', 'a:b']),
                ('host label is empty', ['list', '-h', '']),
                ('more than 1000 bytes', ['dump', '/' * 1000, '0']),
                ('more than 1000 bytes', ['dump', '/' + 'ü' * 480, '0']),
                ('more than 1000 bytes', ['dump', '-k', 'k' * 1001]),
                ('clean takes', ['clean', '0']),
                ('clean takes', ['clean', '-1']),
                ('clean takes', ['clean', 'all']),
                ('clean takes', ['clean']),
                ('clean takes', ['clean', '1', '2']),
                ('--limit-rate', dump + ['-L', '0']),
                ('--limit-rate', dump + ['-L', '-1']),
                ('--limit-rate', dump + ['-L', 'abc']),
                ('--limit-rate', dump + ['-L', '']),
                ('--limit-rate', dump + ['-L', '1e3']),
                ('--limit-rate', dump + ['-L', '\u0663']),
                ('--limit-rate', dump + ['-L', '10\n']),
                ('--jobs', dump + ['-j', '0']),
                ('--min-size', dump + ['--min-size', 'some']),
                ('--accept-status', dump + ['--accept-status', '1,x', '--', 'true']),
                ('--expires', ['url', '/', '0', '--expires', '8d']),
                ('--expires', ['url', '/', '0', '--expires', '0s']),
                ('--expires', ['url', '/', '0', '--expires', 'soon']),
                ('restore takes no --overwrite', ['restore', '/', '0', '--overwrite']),
                ('list takes no --yes', ['list', '-y']),
                ('no program', dump + ['--']),
                ('not UTF-8', [b'dump', b'/h\xff', b'0'])))

    def test_the_stream_is_not_read(self):
        ours, theirs = os.pipe()
        os.write(theirs, b'unread')
        os.close(theirs)
        self.must_fail(2, 'no integer', 'dump', '/home', 'x', stdin=ours)
        with open(ours, 'rb') as pipe:
            self.assertEqual(pipe.read(), b'unread')

    def test_configurations(self):
        good = self.server.config()
        cases = (
                (':6: unknown key bucket', good + 'bucket name\n'),
                (':7: no value for region', good + '\nregion  # none\n'.replace('  # none', ' ')),
                (':6: region is set twice', good + 'region eu-west-1\n'),
                (':6: part_size', good + 'part_size 4m\n'),
                (':6: jobs', good + 'jobs many\n'),
                (':6: addressing', good + 'addressing sideways\n'),
                (':6: limit_rate', good + 'limit_rate 0\n'),
                ('UTF-8', good.encode() + b'profile \xff\n'),
                ('UTF-8|unknown key', b'\x7fELF\0\0\xff'),
                ('no bucket', good.replace('bucket_name', '#')),
                ('no credentials', good.replace('access_key_id', '#').replace('secret', '#')),
                ('half a key', good.replace('access_key_id', '#')),
                ('half a key', good.replace('secret_access_key', '#')),
                ('no URL', good.replace('http://', 'ftp://')),
                ('no URL', good.replace('http://', '')),
                ('no region', good.replace('us-east-1', 'us/east')),
                ('no bucket', ''))
        self.refuse_all([(message, ['list', '-f', self.write_config(text, '%d.conf' % number)])
                         for number, (message, text) in enumerate(cases)])
        path = self.write_config(good + 'bucket name\n', 'other config')
        self.refuse('%s:6: unknown key bucket' % re.escape(path), '-f', path, 'list')
        for message, path in (('No such file', 'missing'), ('Is a directory', '.')):
            self.refuse('cannot read %s: %s' % (re.escape(path), message), '-f', path, 'list')
            self.refuse(message, 'list', env={'S3DUMP_CONFIG': path})
        os.remove(self.config)
        os.symlink('nowhere', self.config)
        self.refuse('cannot read .*/.s3keys: No such file', 'list')
        os.remove(self.config)

    def test_a_terminal_where_data_is_expected(self):
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        self.addCleanup(os.close, slave)
        self.refuse('dump reads a stream', 'dump', '/home', '0', stdin=slave)
        self.refuse('putacl', 'putacl', '/home', '0', stdin=slave)
        self.refuse('restore writes a stream', 'restore', '/home', '0', stdout=slave)
        self.succeed('dump', '/home', '0', '--', 'echo', 'data', stdin=slave)

    def test_help_and_version(self):
        for argv in (['--help'], ['dump', '--help']):
            result = self.succeed(*argv)
            self.assertEqual(result.err, '')
            for word in (b'dump', b'restore', b'clean', b'--limit-rate', b'--host'):
                self.assertIn(word, result.out)
        self.assertRegex(self.succeed('--version').out, rb'\As3dump \d+\.\d+\S*\n\Z')
        os.remove(self.config)
        self.succeed('--help')


class ConfigurationTests(ProgramTestCase):

    def test_blanks_comments_and_carriage_returns_do_no_harm(self):
        lines = ['\ufeff# comment', ''] + [line.replace(' ', ' \t ') + '  '
                                          for line in self.server.config().splitlines()]
        for ending in ('\n', '\r\n'):
            self.write_config(ending.join(lines + ['   # more']))
            self.assertEqual(self.succeed('-q', 'clean', '1'), (0, b'', ''))

    def test_a_secret_that_others_may_read_is_warned_of(self):
        for mode in (0o640, 0o604, 0o644):
            path = self.write_config(self.server.config(), 'open', mode)
            self.assertRegex(self.succeed('-qf', path, 'clean', '1').err,
                             r'\As3dump: warning: %s .* chmod 600 .*\n\Z' % re.escape(path))
        self.write_config(self.server.config().replace('secret', '#'), 'open', 0o644)
        environment = {'AWS_ACCESS_KEY_ID': self.server.access_key,
                       'AWS_SECRET_ACCESS_KEY': self.server.secret_key}
        text = re.sub('access_key_id.*|secret_access.*', '', self.server.config())
        path = self.write_config(text, 'open', 0o644)
        self.assertEqual(self.succeed('-f', path, 'clean', '1', env=environment).err, '')

    def test_the_option_goes_before_the_variable_and_that_before_the_home_directory(self):
        for number in range(3):
            self.server.add_bucket('bucket%d' % number)
            self.write_config(self.server.config(bucket_name='bucket%d' % number),
                              ('first', 'second', '.s3keys')[number])
        variable = {'S3DUMP_CONFIG': 'second'}
        for argv, env in ((['-f', 'first'], variable), ([], variable), ([], {})):
            self.succeed('list', *argv, env=env)
        self.assertEqual([request.bucket for request in self.server.log
                          if request.operation == 'ListObjectsV2'],
                         ['bucket0', 'bucket1', 'bucket2'])

    def test_the_environment_alone_is_a_configuration(self):
        os.remove(self.config)
        environment = {'AWS_ACCESS_KEY_ID': self.server.access_key, 'S3DUMP_BUCKET': 'bucket',
                       'AWS_SECRET_ACCESS_KEY': self.server.secret_key,
                       'AWS_ENDPOINT_URL': self.server.url, 'AWS_REGION': 'us-east-1'}
        self.succeed('list', env=environment)
        self.assertEqual(self.succeed('list', env=environment, bare=True).err, '')
        del environment['AWS_SECRET_ACCESS_KEY']
        self.must_fail(2, 'half a key', 'list', env=environment)

    def test_the_key_may_come_from_where_the_aws_tools_find_it(self):
        self.write_config('endpoint %s\nbucket_name bucket\n' % self.server.url)
        self.server.add_user('TEMPORARY', 'secretOFuser', session_token='tokenOFuser')
        with CredentialServices() as services:
            services.issue('TEMPORARY', 'secretOFuser', 'tokenOFuser', 3600)
            path = self.write_config(services.web_identity_token, 'token')
            process = self.write_config('import json; print(json.dumps(dict(Version=1, AccessKeyId='
                                        '"TEMPORARY", SecretAccessKey="secretOFuser", '
                                        'SessionToken="tokenOFuser")))', 'process.py')
            profile = self.write_config('[profile of mine]\ncredential_process = %s %s\n' % (
                sys.executable, process), 'aws.config')
            for environment in (
                    {'AWS_ACCESS_KEY_ID': 'TEMPORARY', 'AWS_SECRET_ACCESS_KEY': 'secretOFuser',
                     'AWS_SESSION_TOKEN': 'tokenOFuser'},
                    {'AWS_PROFILE': 'of mine', 'AWS_CONFIG_FILE': profile},
                    {'AWS_WEB_IDENTITY_TOKEN_FILE': path, 'AWS_ROLE_ARN': services.role_arn,
                     'AWS_ENDPOINT_URL_STS': services.url},
                    {'AWS_CONTAINER_CREDENTIALS_FULL_URI': services.url + services.container_path},
                    {'AWS_EC2_METADATA_DISABLED': '',
                     'AWS_EC2_METADATA_SERVICE_ENDPOINT': services.url}):
                with self.subTest(environment):
                    result = self.succeed('-v', 'dump', '/', '0', data=b'data', env=environment)
                    self.assertEqual(self.server.log[-1].user, 'TEMPORARY')
                    self.assertNotRegex(result.err, 'secretOF|tokenOF|' + re.escape(
                        services.web_identity_token))
            self.assertEqual(services.violations, [])
            result = self.succeed('url', '/', '0', '--expires', '2h', env=environment)
            self.assertRegex(result.err, 'the URLs end with the key that signs them, at 20')

    def test_without_a_key_the_stream_is_not_read(self):
        self.write_config('endpoint %s\nbucket_name bucket\n' % self.server.url)
        with tempfile.TemporaryFile() as file:
            file.write(b'data')
            file.seek(0)
            self.must_fail(2, 'no credentials: .*no EC2 instance role', 'dump', '/', '0',
                           stdin=file)
            self.assertEqual(os.lseek(file.fileno(), 0, os.SEEK_CUR), 0)

    @unittest.skipIf(ssl is None, 'this Python has no ssl')
    def test_server_names_a_host_that_speaks_https(self):
        path = self.write_config(CERTIFICATE, 'server.pem')
        with S3Server(certfile=path) as server:
            text = server.config().replace('endpoint https://', 'server ')
            self.write_config(text)
            self.dump(b'data', '/home', '0')
            self.assertEqual(self.succeed('restore', '/home', '0').out, b'data')
            self.assertEqual(server.violations, [])
            self.write_config(re.sub('ca_bundle.*', '', text))
            self.must_fail(1, 'certificate is not accepted', 'list')

    def test_a_python_without_ssl_speaks_http_and_says_why_not_https(self):
        code = ('import runpy, sys; sys.modules["ssl"] = sys.modules["_ssl"] = None; '
                'sys.argv[0] = %r; runpy.run_path(%r, run_name="__main__")' % (PROGRAM, PROGRAM))
        without = PYTHON + ['-c', code]
        self.succeed('dump', '/home', '0', data=b'data', prefix=without)
        self.assertEqual(self.succeed('restore', '/home', '0', prefix=without).out, b'data')
        self.configure(endpoint='https://127.0.0.1')
        self.must_fail(2, 'built without ssl', 'list', prefix=without)


# --- The other commands ------------------------------------------------------

class ListTests(ProgramTestCase):

    def listing(self, *argv, **environment):
        return self.succeed('list', *argv, env=environment).out.decode('utf-8')

    def fill(self):
        gib = 1 << 30
        for fs, level, date, stamp, size, storage_class in (
                ('/home', '0', '2009-07-08', '', 54 * gib // 10, 'GLACIER'),
                ('/home', '0', '2026-11-22', '20261123T013405.123Z', 55 * gib // 10, 'STANDARD'),
                ('/', '0', '2009-10-07', '', 215 * gib // 10240, 'STANDARD'),
                ('/', '1', '2006-11-20', '', 14 << 10, 'STANDARD'),
                ('/home', '0', '2026-11-22', '20261122T213405.123Z', 1, 'STANDARD'),
                ('/', '10', '2006-11-21', '', 1023, 'STANDARD')):
            key = '%s:%s:%s:%s' % (HOST, fs, level, date)
            if stamp:
                key += ':%s-k2v9x0c2m7qdx3ha' % stamp
            self.server.put(key, b'', modified=self.noon(date), storage_class=storage_class)
            self.server.objects[key].data = Zeros(size)
        self.server.put('zebra:/:0:2020-01-01', bytes(5), modified=self.noon('2020-01-01'))
        self.server.put('readme.txt', bytes(2048), modified=self.noon('2020-01-01'))
        self.server.put('%s:no:dump' % HOST, bytes(1), modified=self.noon('2020-01-01'))
        del self.server.log[:]

    ours = '\n'.join((
        'Dumps for this host (%s):' % HOST,
        '/',
        'Level 0 2009-10-07:    21.5M',
        'Level 1 2006-11-20:    14.0k',
        'Level 10 2006-11-21:     1023',
        '/home',
        'Level 0 2009-07-08:     5.4G  GLACIER',
        'Level 0 2026-11-22 16:34:05:        1',
        'Level 0 2026-11-22 20:34:05:     5.5G',
        '\n'))

    def test_the_dumps_of_this_host(self):
        self.fill()
        self.assertEqual(self.listing(TZ='EST5'),
                         self.ours + 'Total data stored: 10.9G ($0.15/month)\n')
        self.assertEqual({request.query.get('prefix') for request in self.server.log}, {HOST + ':'})

    def test_the_dumps_of_a_file_system(self):
        self.fill()
        self.assertEqual(self.listing('/home', TZ='UTC0'), '\n'.join((
            'Dumps for this host (%s):' % HOST,
            '/home',
            'Level 0 2009-07-08:     5.4G  GLACIER',
            'Level 0 2026-11-22 21:34:05:        1',
            'Level 0 2026-11-22 01:34:05:     5.5G',
            '', 'Total data stored: 10.9G ($0.15/month)', '')))
        self.assertEqual(self.listing('/hom'), '\n'.join((
            'Dumps for this host (%s):' % HOST, '', 'Total data stored: 0 ($0.00/month)', '')))

    def test_the_dumps_of_another_host_and_of_all(self):
        self.fill()
        zebra = 'Dumps for zebra:\n/\nLevel 0 2020-01-01:        5\n\n'
        self.assertEqual(self.listing('-h', 'zebra'),
                         zebra + 'Total data stored: 5 ($0.00/month)\n')
        listing = self.listing('-a', TZ='EST5')
        sections = [self.ours, zebra] if HOST < 'zebra' else [zebra, self.ours]
        self.assertTrue(listing.startswith(''.join(sections)), listing)
        self.assertIn('\n\nTotal data stored: 10.9G ($0.15/month)\n', listing)
        self.assertRegex(listing, r'\nOther objects[^\n]*: 2, 2\.0k\n')

    def test_json_has_a_line_per_dump(self):
        self.fill()
        lines = [json.loads(line) for line in self.listing('-a', '--json').splitlines()]
        self.assertEqual(len(lines), 9)
        for line in lines:
            self.assertEqual(sorted(line), ['date', 'fs', 'host', 'key', 'level', 'objects', 'size',
                                            'storage_class', 'stored'])
        by_key = {line['key']: line for line in lines}
        self.assertEqual(by_key['%s:/home:0:2009-07-08' % HOST], {
            'key': '%s:/home:0:2009-07-08' % HOST, 'host': HOST, 'fs': '/home', 'level': '0',
            'date': '2009-07-08', 'stored': '2009-07-08T12:00:00Z', 'size': 54 * (1 << 30) // 10,
            'storage_class': 'GLACIER', 'objects': 1})
        other = by_key['readme.txt']
        self.assertEqual((other['host'], other['fs'], other['level'], other['date'], other['size']),
                         (None, None, None, None, 2048))
        self.assertEqual(len(self.listing('--json').splitlines()), 6 + 1)

    def test_unfinished_uploads_have_a_line_of_their_own(self):
        key = self.place()
        for number, days in enumerate((40, 3)):
            self.server.uploads[str(number)] = Upload(
                str(number), 'bucket', key, time.time() - days * DAY, {},
                {'storage_class': 'STANDARD'}, None)
        oldest = time.strftime('%Y-%m-%d', time.gmtime(time.time() - 40 * DAY))
        lines = self.listing(TZ='UTC0').splitlines()
        self.assertRegex(lines[-2], r'\ATotal data stored: 100 ')
        self.assertRegex(lines[-1], r'\AUnfinished uploads: 2, the oldest of %s' % oldest)
        self.server.quirks.add('no-uploads-list')
        self.assertRegex(self.listing(), r'\nTotal data stored: [^\n]*\n\Z')

    def test_an_empty_bucket(self):
        self.assertEqual(self.listing(), '\n'.join((
            'Dumps for this host (%s):' % HOST, '', 'Total data stored: 0 ($0.00/month)', '')))
        self.assertEqual(self.listing('--json'), '')

    def test_a_key_that_is_not_ascii_under_an_empty_environment(self):
        self.server.put('%s:/ünï→日本:0:2009-10-07' % HOST, b'data',
                        modified=self.noon('2009-10-07'))
        for locale in ({}, {'LC_ALL': 'C'}, {'LC_ALL': 'POSIX', 'PYTHONIOENCODING': 'ascii'}):
            result = self.succeed('-f', self.config, 'list', env=locale, bare=True)
            self.assertIn('\n/ünï→日本\nLevel 0 2009-10-07:        4\n', result.out.decode('utf-8'))
        result = self.succeed('-f', self.config, 'restore', '/ünï→日本', '0', bare=True)
        self.assertEqual(result.out, b'data')

    def test_more_than_a_page_of_keys(self):
        self.server.page_size = 2
        self.addCleanup(setattr, self.server, 'page_size', 1000)
        keys = sorted(self.place('/%d' % number) for number in range(5))
        lines = self.listing('--json').splitlines()
        self.assertEqual([json.loads(line)['key'] for line in lines], keys)


class CleanTests(ProgramTestCase):

    def clean(self, *argv):
        return self.succeed('clean', *argv)

    def test_it_keeps_the_most_recent_of_each_file_system_and_level(self):
        kept, gone = [], []
        for fs in ('/', '/home'):
            for level in ('0', '1'):
                for number in (1, 2, 3, 4):
                    key = self.place(fs, level, '2020-01-0%d' % number)
                    (kept if number > 2 else gone).append(key)
        result = self.clean('2')
        self.assertEqual(self.keys(), sorted(kept))
        self.assertEqual(result.out, b'')
        for key in gone:
            self.assertRegex(result.err, '(?m)^s3dump: deleted %s' % re.escape(key))
        self.assertEqual(self.clean('2'), (0, b'', ''))

    def test_it_goes_by_the_date_label_then_by_the_time_stored(self):
        kept = [self.place(date='2020-01-03', stored=self.noon('2020-01-03')),
                self.place(date='2020-01-02', stored=self.noon('2020-01-02') + 9)]
        self.place(date='2020-01-02', stored=self.noon('2020-01-02') + 1)
        self.place(date='2020-01-01', stored=self.noon('2020-01-09'))
        self.clean('2')
        self.assertEqual(self.keys(), sorted(kept))

    def test_a_dry_run_says_what_would_go_and_deletes_nothing(self):
        keys = [self.place(date='2020-01-0%d' % number) for number in (1, 2, 3)]
        result = self.clean('1', '-n')
        self.assertEqual(self.keys(), sorted(keys))
        self.assertNotIn('DeleteObject', self.server.operations())
        for key in keys[:2]:
            self.assertIn(key.encode(), result.out)
        self.assertNotIn(keys[2].encode(), result.out)

    def test_other_hosts_are_cleaned_only_when_asked(self):
        ours = [self.place(date='2020-01-0%d' % number) for number in (1, 2)]
        theirs = [self.place(date='2020-01-0%d' % number, host='other') for number in (1, 2)]
        longer = [self.place(date='2020-01-0%d' % number, host=HOST + '2') for number in (1, 2)]
        self.clean('1')
        self.assertEqual(self.keys(), sorted(ours[1:] + theirs + longer))
        self.clean('1', '-h', 'other')
        self.assertEqual(self.keys(), sorted(ours[1:] + theirs[1:] + longer))
        self.clean('1', '-a')
        self.assertEqual(self.keys(), sorted(ours[1:] + theirs[1:] + longer[1:]))

    def test_keys_that_are_no_dumps_are_never_touched(self):
        foreign = ['readme', HOST + ':', HOST + ':/home:0', HOST + ':/home:0:2020-02-30',
                   HOST + ':/home:x:2020-01-01', HOST + ':/home:0:2020-01-01:extra',
                   HOST + ':/home:0:2020-01-01.gz', HOST + ':/home:0:2020-01-01/notes',
                   HOST + ':/home:0:20200101', HOST + ':/ho:me:0:2020-01-01']
        for key in foreign:
            self.server.put(key, b'', modified=self.noon('2019-01-01'))
        kept = [self.place(date='2020-01-0%d' % number) for number in (1, 2)]
        self.clean('1', '-a', '--force')
        self.assertEqual(self.keys(), sorted(foreign + kept[1:]))

    def test_a_dump_that_can_not_be_restored_counts_for_nothing(self):
        good = self.place(date='2020-01-01')
        broken = '%s:/home:0:2020-01-02/chunk_000001' % HOST
        self.server.put(broken, bytes(100), modified=self.noon('2020-01-02'))
        self.assertIn('neither counted nor deleted', self.succeed('clean', '1').err)
        self.assertEqual(self.keys(), sorted([good, broken]))

    def test_a_date_in_the_future_counts_for_nothing(self):
        kept = [self.place(date='2020-01-01'), self.place(date='2020-01-02')]
        tomorrow = self.place(date='2020-01-04', stored=self.noon('2020-01-03'))
        forged = self.place(date='2020-01-06', stored=self.noon('2020-01-04'))
        result = self.run_program('clean', '2')
        self.assertIn(forged, result.err)
        self.assertEqual(self.keys(), sorted([kept[1], tomorrow, forged]))

    def test_a_group_that_would_shrink_is_left_alone(self):
        real = [self.place('/', date='2020-01-0%d' % number, size=1000) for number in (1, 2, 3)]
        false = [self.place('/', date='2020-01-0%d' % number, size=499) for number in (4, 5, 6)]
        others = [self.place('/home', date='2020-01-0%d' % number) for number in (1, 2, 3, 4)]
        result = self.run_program('clean', '3')
        self.assertEqual(result.status, 1)
        self.assertRegex(result.err, r'(?m)^s3dump: .* / level 0 is left alone.*--force')
        self.assertEqual(self.keys(), sorted(real + false + others[1:]))
        self.clean('3', '--force')
        self.assertEqual(self.keys(), sorted(false + others[1:]))

    def test_half_the_size_is_enough(self):
        for number in (1, 2, 3):
            self.place(date='2020-01-0%d' % number, size=1000)
        kept = [self.place(date='2020-01-0%d' % number, size=500) for number in (4, 5)]
        self.clean('2')
        self.assertEqual(self.keys(), sorted(kept))

    def test_it_goes_on_after_a_failure_and_fails_at_the_end(self):
        keys = [self.place(date='2020-01-0%d' % number) for number in (1, 2, 3, 4)]
        self.server.fault('DeleteObject', 'status', status=403, code='AccessDenied', times=None,
                          where=lambda exchange: exchange.key == keys[1])
        result = self.run_program('clean', '1')
        self.assertEqual(result.status, 1)
        self.assertEqual(self.keys(), sorted([keys[1], keys[3]]))
        self.assertRegex(result.err, r'(?m)^s3dump: cannot delete %s: .*AccessDenied' % keys[1])
        self.assertEqual(len(re.findall('(?m)^s3dump: deleted', result.err)), 2)

    def test_uploads_that_are_older_than_thirty_days_are_aborted(self):
        def unfinished(key, days):
            upload_id = '%d %s' % (days, key)
            self.server.uploads[upload_id] = Upload(
                upload_id, 'bucket', key, time.time() - days * DAY, {},
                {'storage_class': 'STANDARD'}, None)
            return upload_id

        dump = self.place()
        other = dump.replace(HOST, 'other', 1)
        old = [unfinished(dump, 31), unfinished(dump + '/volume_000001', 400)]
        kept = [unfinished(dump, 29), unfinished('%s:no dump' % HOST, 31)]
        theirs = unfinished(other, 31)
        self.clean('1', '-n')
        self.assertEqual(sorted(self.server.uploads), sorted(old + kept + [theirs]))
        self.clean('1')
        self.assertEqual(sorted(self.server.uploads), sorted(kept + [theirs]))
        self.clean('1', '-a')
        self.assertEqual(sorted(self.server.uploads), sorted(kept))
        self.server.quirks.add('no-uploads-list')
        self.clean('1')

    def test_the_first_object_of_a_set_goes_first(self):
        key = self.place(date='2020-01-01', metadata={'x-amz-meta-volume-size': '100'})
        for name in ('/volume_000001', '/volume_000002', '/end_000002'):
            self.server.put(key + name, b'', modified=self.noon('2020-01-01'))
        kept = self.place(date='2020-01-02')
        self.clean('1')
        self.assertEqual(self.keys(), [kept])
        self.assertEqual(self.asked('DeleteObject')[0], key)


class OtherCommandTests(ProgramTestCase):

    def test_delete_takes_the_dump_of_today_or_of_the_date(self):
        old = self.place(date='2020-01-01')
        self.must_fail(1, r"no dump of '/home' level 0", 'delete', '/home', '0')
        new = self.dump(b'data', '/home', '0')
        self.assertIn(new, self.succeed('delete', '/home', '0', '-n').out.decode())
        self.assertEqual(self.keys(), sorted([old, new]))
        self.succeed('delete', '/home', '0')
        self.assertEqual(self.keys(), [old])
        self.succeed('delete', '/home', '0', '-w', '2020-01-01')
        self.assertEqual(self.keys(), [])
        self.must_fail(1, "there is no object 'nothing'", 'delete', '-k', 'nothing')

    def test_delete_deletes_none_of_several(self):
        keys = sorted(self.place("/it's $HOME") for _ in range(3))
        result = self.must_fail(1, '3 dumps match', 'delete', "/it's $HOME", '0',
                                '-w', '2020-01-10')
        self.assertNotIn('DeleteObject', self.server.operations())
        lines = result.out.decode().splitlines()
        words = [shlex.split(line) for line in lines]
        self.assertEqual(sorted(words), [['-k', key] for key in keys])
        self.succeed('delete', *words[0])
        self.assertEqual(len(self.server.objects), 2)

    def test_an_acl_goes_out_and_in(self):
        key = self.dump(b'data', '/home', '0')
        acl = self.succeed('getacl', '/home', '0').out
        self.assertIn(b'AccessControlPolicy', acl)
        self.assertEqual(self.succeed('putacl', '/home', '0', data=acl), (0, b'', ''))
        self.assertEqual(self.asked('PutObjectAcl'), [key])
        self.assertEqual(self.succeed('getacl', '-k', key).out, acl)
        for data in (b'', b'nonsense', b'<Other/>', b'<a'):
            self.must_fail(1, 'AccessControlPolicy', 'putacl', '-k', key, data=data)
        self.server.quirks.add('no-acl')
        self.must_fail(1, 'GetObjectAcl', 'putacl', '-k', key, data=acl)
        self.assertEqual(self.server.objects[key].data, b'data')

    def test_urls_can_be_fetched_by_anybody(self):
        self.configure(part_size='5m', max_parts='2')
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for fs, data in (('/home', b'data'), ('/ü +%~"', some_bytes(2 * PART + 1))):
            self.dump(data, fs, '0')
            lines = self.succeed('url', fs, '0', '--expires', '7d').out.decode('ascii').splitlines()
            self.assertEqual(len(lines), 1 if len(data) == 4 else 2)
            fetched = b''
            for line in lines:
                self.assertIn('X-Amz-Expires=604800&', line)
                with opener.open(line, timeout=PATIENCE) as answer:
                    fetched += answer.read()
            self.assertTrue(fetched == data)
        self.assertIn(b'X-Amz-Expires=3600&', self.succeed('url', '/home', '0').out)

    def test_init_creates_the_bucket_and_tries_it(self):
        for region, bucket in (('us-east-1', 'one'), ('eu-west-1', 'two')):
            with S3Server(bucket, region=region, buckets=()) as server:
                self.write_config(server.config())
                for command, message in (('init', 'created'), ('initialize', 'is there')):
                    self.assertRegex(self.succeed(command).err,
                                     r'\As3dump: bucket %s %s' % (bucket, message))
                self.assertEqual(server.objects, {})
                self.assertEqual(server.violations, [])
                server.add_user('WRITER', 'sesame', allow=WRITE_ONLY | {'HeadBucket'})
                self.write_config(server.config(access_key_id='WRITER', secret_access_key='sesame'))
                result = self.run_program('init')
                self.assertEqual(result.status, 1)
                self.assertRegex(result.err, r'\As3dump: left behind: s3dump-init-\w+\n'
                                 r's3dump: init: GetObject [^\n]*AccessDenied[^\n]*\n\Z')


# --- Signals, pipes, terminals -----------------------------------------------

class SignalTests(ProgramTestCase):

    def setUp(self):
        ProgramTestCase.setUp(self)
        self.configure(part_size='5m')

    def stalled_dump(self, *argv, **options):
        """Start a dump whose first part stands still half-way; returns process and fault."""
        fault = self.server.fault('UploadPart', 'stall', when='body')
        process = self.start('dump', '/home', '0', *argv, **options)
        if '--' not in argv:
            process.stdin.write(bytes(PART + 1))
            process.stdin.flush()
        self.assertTrue(fault.event.wait(PATIENCE))
        return process, fault

    def end(self, process):
        """Wait for the end of the program without an end of its input."""
        process.wait(PATIENCE)
        return self.finish(process)

    def test_a_signal_in_the_middle_of_a_part_leaves_nothing(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            with self.subTest(number):
                process, _ = self.stalled_dump()
                process.send_signal(number)
                result = self.end(process)
                self.assertEqual((result.status, result.out), (128 + number, b''))
                self.assertRegex(result.err, r'\As3dump: [^\n]*signal %d[^\n]*\n\Z' % number)
                self.assertEqual((self.keys(), self.server.uploads), ([], {}))

    def test_a_signal_at_any_point_leaves_all_or_nothing(self):
        for operation, when, size, stored, message in (
                ('PutObject', 'start', 100, False, 'unknown'),
                ('PutObject', 'body', 100, False, 'unknown'),
                ('CreateMultipartUpload', 'reply', PART + 1, False, ''),
                ('CreateMultipartUpload', 'done', PART + 1, False, ''),
                ('UploadPart', 'start', PART + 1, False, ''),
                ('UploadPart', 'reply', PART + 1, False, ''),
                ('CompleteMultipartUpload', 'start', PART + 1, False, ''),
                ('CompleteMultipartUpload', 'reply', PART + 1, False, ''),
                ('CompleteMultipartUpload', 'done', PART + 1, True, 'completed already')):
            with self.subTest('%s %s' % (operation, when)):
                self.server.objects.clear()
                fault = self.server.fault(operation, 'stall', when=when)
                process = self.start('dump', '/home', '0')
                process.stdin.write(bytes(size))
                process.stdin.close()
                process.stdin = None
                self.assertTrue(fault.event.wait(PATIENCE))
                process.terminate()
                result = self.finish(process)
                self.assertEqual((result.status, result.out), (128 + signal.SIGTERM, b''))
                self.assertRegex(result.err, r'\A(s3dump: warning: [^\n]*%s[^\n]*\n)?'
                                 r's3dump: [^\n]*signal 15[^\n]*\n\Z' % message)
                self.assertEqual(message in result.err, True)
                self.assertEqual([len(found.data) for found in self.server.objects.values()],
                                 [size] if stored else [])
                self.assertEqual(self.server.uploads, {})

    def test_an_object_that_appears_after_a_signal_is_warned_of(self):
        working, finish = threading.Event(), threading.Event()
        self.server.on('PutObject', lambda *_: working.set() or finish.wait(PATIENCE))
        process = self.start('dump', '/home', '0')
        process.stdin.write(b'data')
        process.stdin.close()
        process.stdin = None
        self.assertTrue(working.wait(PATIENCE))
        process.terminate()
        result = self.finish(process)
        finish.set()
        until(self.keys, 'the object appears')
        self.assertRegex(result.err, 'warning: it is unknown whether .* was completed')

    def test_a_signal_while_a_failure_is_tidied_up_does_not_hide_it(self):
        self.server.fault('UploadPart', 'status', status=403, code='AccessDenied', times=None)
        abort = self.server.fault('AbortMultipartUpload', 'status', times=2, status=503)
        process = self.start('dump', '/home', '0')
        process.stdin.write(bytes(PART + 1))
        process.stdin.close()
        process.stdin = None
        self.assertTrue(abort.event.wait(PATIENCE))
        process.send_signal(signal.SIGINT)
        result = self.finish(process)
        self.assertRegex(result.err, 'UploadPart .*AccessDenied')
        self.assertIn(result.status, (1, 128 + signal.SIGINT))
        self.assertEqual(self.server.uploads, {})

    def test_a_signal_to_the_whole_pipeline_stores_nothing(self):
        for command, size in (('', 100), ('', PART + 7),
                              (' -- sh -c "head -c 100 /dev/zero; sleep 60"', 0)):
            for number in (signal.SIGINT, signal.SIGTERM):
                with self.subTest(command, size=size, number=number):
                    del self.server.log[:]
                    program = ' '.join(map(shlex.quote, PYTHON + [PROGRAM, 'dump', '-k', 'key']))
                    feed = '{ head -c %d /dev/zero; sleep 60; } | ' % size if size else ''
                    process = self.start('-c', feed + program + command, prefix=['/bin/sh'],
                                         start_new_session=True, stdin=subprocess.DEVNULL)
                    requests = ['HeadObject', 'ListObjectsV2', 'ListObjectsV2'] + [
                        'CreateMultipartUpload', 'UploadPart'] * (size > PART)
                    until(lambda: self.server.operations() == requests, 'it reads its stream')
                    os.killpg(process.pid, number)
                    _, err = process.communicate(timeout=PATIENCE)
                    self.assertIn(b's3dump: ended by signal %d' % number, err)
                    self.assertEqual((self.keys(), self.server.uploads), ([], {}))

    def test_a_second_signal_does_not_wait_for_the_abort(self):
        abort = self.server.fault('AbortMultipartUpload', 'stall', when='start')
        process, _ = self.stalled_dump()
        process.terminate()
        self.assertTrue(abort.event.wait(PATIENCE))
        process.terminate()
        self.assertEqual(self.end(process).status, -signal.SIGTERM)
        self.assertEqual(self.keys(), [])

    def test_what_a_kill_leaves_is_no_dump_and_is_counted(self):
        process, _ = self.stalled_dump()
        process.kill()
        self.end(process)
        self.assertEqual(self.keys(), [])
        result = self.succeed('list')
        self.assertIn(b'Unfinished uploads: 1,', result.out)

    def test_a_set_that_is_interrupted_is_kept_whole_or_not_at_all(self):
        self.configure(part_size='5m', max_parts='1')
        for key, stored in (('key', True), ('key/volume_000001', False)):
            with self.subTest(key):
                fault = self.server.fault('CompleteMultipartUpload', 'stall', when='done',
                                          where=lambda exchange, key=key: exchange.key == key)
                process = self.start('dump', '-k', 'key')
                process.stdin.write(bytes(2 * PART + 5))
                process.stdin.close()
                process.stdin = None
                self.assertTrue(fault.event.wait(PATIENCE))
                process.terminate()
                self.assertEqual(self.finish(process).status, 128 + signal.SIGTERM)
                self.assertEqual(self.server.uploads, {})
                self.assertEqual(len(self.keys()), 4 if stored else 0)
                if stored:
                    self.succeed('verify', '-k', 'key')
                    self.succeed('delete', '-k', 'key')

    def test_a_signal_ends_the_program_that_is_dumped_too(self):
        process, _ = self.stalled_dump(
            '--', 'sh', '-c', 'head -c %d /dev/zero; exec sleep 1000' % (PART + 1))
        process.terminate()
        result = self.finish(process)   # at the end of its standard error, which sleep has too
        self.assertEqual(result.status, 128 + signal.SIGTERM)
        self.assertEqual((self.keys(), self.server.uploads), ([], {}))

    def test_a_signal_while_the_stream_is_waited_for(self):
        process = self.start('dump', '-k', 'key')
        process.stdin.write(b'data')
        process.stdin.flush()
        until(lambda: not unread(process.stdin), 'what there is of the stream is read')
        process.send_signal(signal.SIGINT)
        self.assertEqual(self.end(process).status, 128 + signal.SIGINT)
        self.assertEqual(self.keys(), [])

    def test_a_signal_ends_a_restore(self):
        self.place(size=1000)
        fault = self.server.fault('GetObject', 'stall', bytes=500)
        process = self.start('restore', '/home', '0')
        self.assertTrue(fault.event.wait(PATIENCE))
        process.terminate()
        result = self.finish(process)
        self.assertEqual((result.status, result.out), (128 + signal.SIGTERM, b''))
        self.assertRegex(result.err, r'\As3dump: [^\n]*signal 15\n\Z')

    def test_hangup_is_ignored_under_nohup(self):
        process, fault = self.stalled_dump(
            prefix=['sh', '-c', 'trap "" HUP; exec "$@"', 'sh'] + PYTHON + [PROGRAM])
        process.send_signal(signal.SIGHUP)
        fault.release.set()
        self.assertEqual(self.finish(process).status, 0)

    def test_rate_signals_do_not_end_a_dump(self):
        for options in (['-L', '300m'], []):
            process, fault = self.stalled_dump(*options)
            for number in (signal.SIGUSR1, signal.SIGUSR2) * 3:
                process.send_signal(number)
            fault.release.set()
            self.assertEqual(self.finish(process).status, 0)

    def test_rate_signals_change_the_rate(self):
        self.place(size=12 << 20)           # more than the buffers of sockets hold; takes hours
        process = self.start('-L', '1k', 'restore', '/home', '0', stdout=subprocess.DEVNULL)
        until(self.server.operations, 'the first request')

        def faster():
            process.send_signal(signal.SIGUSR2)
            return self.asked('GetObject')

        until(faster, 'the end of the answer')
        self.assertEqual(self.finish(process).status, 0)


class PipeTests(ProgramTestCase):

    def test_a_reader_that_goes_away_is_no_message(self):
        self.place(size=100)
        for argv in (['restore', '/home', '0'], ['list'], ['getacl', '/home', '0'],
                     ['list', '--json'], ['url', '/home', '0']):
            with self.subTest(argv):
                ours, theirs = os.pipe()
                os.close(ours)
                result = self.run_program(*argv, stdout=theirs)
                os.close(theirs)
                self.assertEqual((result.status, result.err), (141, ''))

    @unittest.skipUnless(os.path.exists('/dev/full'), 'only Linux has /dev/full')
    def test_a_full_disk_fails(self):
        self.place(size=100)
        for argv in (['restore', '/home', '0'], ['list'], ['getacl', '/home', '0']):
            with self.subTest(argv), open('/dev/full', 'wb') as full:
                self.must_fail(1, argv[0] + ': .*No space left', *argv, stdout=full)

    def test_a_slow_reader_and_a_slow_writer_are_waited_for(self):
        self.place(size=1 << 20)
        data = bytes(1 << 20)
        restore = self.start('restore', '/home', '0')
        dump = self.start('dump', '/copy', '0', stdin=restore.stdout)
        self.assertEqual((self.finish(dump).status, self.finish(restore).status), (0, 0))
        self.assertTrue(self.succeed('restore', '/copy', '0').out == data)

    def test_pipes_that_do_not_block_do_no_harm(self):
        self.place(size=3 << 20)
        ours, theirs = os.pipe()
        os.set_blocking(ours, False)
        os.set_blocking(theirs, False)
        dump = self.start('dump', '/copy', '0', stdin=ours)
        restore = self.start('restore', '/home', '0', stdout=theirs)
        os.close(ours)
        os.close(theirs)
        self.assertEqual((self.finish(restore).status, self.finish(dump).status), (0, 0))
        self.assertTrue(self.succeed('restore', '/copy', '0').out == bytes(3 << 20))

    def closed(self, redirections):
        return ['sh', '-c', 'exec "$@" ' + redirections, 'sh'] + PYTHON + [PROGRAM]

    def test_closed_descriptors(self):
        key = self.dump(b'data', '/home', '0')
        self.must_fail(1, 'cannot read the stream', 'dump', '/home', '0', prefix=self.closed('<&-'))
        self.must_fail(1, 'restore: .*Bad file descriptor', 'restore', '/home', '0',
                  prefix=self.closed('>&-'))
        self.must_fail(1, 'list: .*Bad file descriptor', 'list', prefix=self.closed('<&- >&-'))
        result = self.succeed('restore', '/home', '0', prefix=self.closed('2>&- <&-'))
        self.assertEqual((result.out, result.err), (b'data', ''))
        self.assertEqual(self.keys(), [key])
        self.succeed('dump', '/home', '0', data=b'data', prefix=self.closed('>&- 2>&-'))
        self.succeed('dump', '/home', '0', '--', 'echo', prefix=self.closed('<&- >&- 2>&-'))
        self.assertEqual(len(self.keys()), 3)
        result = self.run_program('restore', '/none', '0', prefix=self.closed('2>&-'))
        self.assertEqual(result, (1, b'', ''))


class Terminal:
    """A pseudo-terminal: what is written to it is in *text*."""

    def __init__(self):
        self.master, self.slave = pty.openpty()
        self.text = ''

    def read_until(self, pattern):
        """Read until *pattern* is in the text, or to the end of it all where it is None."""
        end = time.monotonic() + PATIENCE
        while pattern is None or not re.search(pattern, self.text):
            readable, _, _ = select.select([self.master], [], [], max(0, end - time.monotonic()))
            if not readable:
                raise AssertionError('the terminal shows only %r' % self.text)
            try:
                data = os.read(self.master, 65536)
            except OSError:             # EIO: nobody has it open any more
                data = b''
            if not data:
                break
            self.text += data.decode('utf-8')
        return self.text

    def type(self, text):
        os.write(self.master, text.encode())

    def close_slave(self):
        if self.slave is not None:
            os.close(self.slave)
            self.slave = None

    def close(self):
        self.close_slave()
        os.close(self.master)


class TerminalTests(ProgramTestCase):

    def open_terminal(self):
        terminal = Terminal()
        self.addCleanup(terminal.close)
        return terminal

    def test_progress_is_shown_in_a_line_that_is_cleared(self):
        self.place(size=1000)
        for operation, argv, data in (('GetObject', ['restore', '/home', '0'], b''),
                                      ('PutObject', ['dump', '/home', '0'], bytes(1000))):
            with self.subTest(operation):
                when = {'when': 'body'} if data else {'bytes': 500}
                fault = self.server.fault(operation, 'stall', **when)
                terminal = self.open_terminal()
                process = self.start(*argv, stderr=terminal.slave)
                terminal.close_slave()
                process.stdin.write(data)
                process.stdin.close()
                process.stdin = None
                terminal.read_until(r'\r[0-9.]+k?  [0-9.]+k?/s  0:0\d')
                fault.release.set()
                self.assertEqual(len(self.finish(process).out), 1000 - len(data))
                text = terminal.read_until(None)
                self.assertEqual(process.returncode, 0)
                if not data:
                    self.assertRegex(text, r'\r[^\r]* [0-9]+%')
                self.assertRegex(text, r'\r\x1b\[Ks3dump: %s [^\r\n]*\r\n\Z' % argv[0])

    def test_quiet_is_silent_at_a_terminal_too(self):
        terminal = self.open_terminal()
        process = self.start('-q', 'dump', '/home', '0', stderr=terminal.slave)
        terminal.close_slave()
        self.assertEqual(self.finish(process, b'data').status, 0)
        self.assertEqual(terminal.read_until(None), '')

    def test_deleting_asks_where_somebody_can_answer(self):
        for argv in (['delete', '/home', '0', '-w', '2020-01-01'], ['clean', '1']):
            for typed, kept in (('n\n', 2), ('\n', 2), ('\x04', 2), ('y\n', 1)):
                with self.subTest(argv, typed=typed):
                    self.server.objects.clear()
                    for day in (1, 2):
                        self.place(date='2020-01-0%d' % day)
                    terminal = self.open_terminal()
                    process = self.start(*argv, stdin=terminal.slave, stderr=terminal.slave)
                    terminal.read_until(r'\? ')
                    terminal.type(typed)
                    process.wait(PATIENCE)
                    self.assertEqual(process.returncode, 0 if kept == 1 else 1)
                    self.finish(process)
                    self.assertEqual(len(self.server.objects), kept)
        for option in ('-y', '-n'):
            self.place(date='2020-01-01')
            terminal = self.open_terminal()
            result = self.run_program('clean', '1', option, stdin=terminal.slave)
            self.assertEqual(result.status, 0)
            self.assertNotIn('?', result.err)


class CronTests(ProgramTestCase):

    def test_nothing_is_imported_that_a_command_does_not_need(self):
        networks, more = {'http.client', 'socket', 'ssl'}, {'xml.etree', 'subprocess', 'json'}
        for argv, status, needed in (
                (['--help'], 0, set()), (['dump', '/'], 2, set()), (['--version'], 0, set()),
                (['dump', '/', '0'], 0, networks), (['list'], 0, networks | {'xml.etree'}),
                (['dump', '/', '0', '--', 'true'], 0, networks | {'subprocess'})):
            process = self.start(*argv, prefix=[sys.executable, '-v', '-I', '-S', PROGRAM])
            _, err = process.communicate(b'data', timeout=PATIENCE)
            self.assertEqual(process.returncode, status)
            imported = set(re.findall(r"^import '([\w.]+)'", err.decode(), re.MULTILINE))
            self.assertIn('s3', imported)
            self.assertEqual(imported & (networks | more) - ({'ssl'} if ssl is None else set()),
                             needed - ({'ssl'} if ssl is None else set()), argv)

    def test_a_line_says_what_was_done_and_quiet_none(self):
        for command in ('dump', 'restore', 'verify'):
            with self.subTest(command):
                result = self.succeed(command, '/home', '0', data=b'data')
                self.assertRegex(result.err, r'\As3dump: %s %s:/home:0:[^\n]* 4 [^\n]*\n\Z'
                                 % (command, HOST))
                self.assertEqual(self.succeed('-q', command, '/home', '0', data=b'data').err, '')
        self.succeed('delete', '-q', '-k', self.keys()[0])
        self.assertEqual(self.succeed('-q', 'init').err, '')

    def test_it_runs_through_a_link_and_from_anywhere(self):
        folder = os.path.join(self.home, 'bin')
        os.makedirs(folder)
        self.addCleanup(shutil.rmtree, folder)
        os.symlink(PROGRAM, os.path.join(folder, 's3dump'))
        os.symlink(sys.executable, os.path.join(folder, 'python3'))
        with open(os.path.join(folder, 's3.py'), 'w') as file:
            file.write('raise SystemExit("the wrong s3")\n')
        shutil.copy(file.name, self.home)
        self.addCleanup(os.remove, os.path.join(self.home, 's3.py'))
        environment = {'PATH': folder + ':/usr/bin:/bin', 'PYTHONDONTWRITEBYTECODE': '1'}
        for prefix, cwd in ((PYTHON + [os.path.join(folder, 's3dump')], self.home),
                            ([os.path.join(folder, 's3dump')], folder), (['s3dump'], '/'),
                            ([os.path.join('bin', 's3dump')], self.home)):
            self.succeed('list', prefix=prefix, env=environment, cwd=cwd)

    def test_it_needs_next_to_nothing(self):
        for command, out in (('dump', b''), ('restore', b'data')):
            self.assertEqual(self.succeed('-qf', self.config, command, '/home', '0',
                                          data=b'data', bare=True), (0, out, ''))

    def limited(self, limit, *argv, **options):
        """Run the program under a ulimit."""
        return self.run_program(*argv, prefix=['sh', '-c', limit + ' && exec "$@"', 'sh'] + PYTHON
                                + [PROGRAM], **options)

    def test_small_machines_are_large_enough(self):
        self.configure(part_size='5m')
        for limit in ('ulimit -n 64', 'ulimit -v 200000', 'umask 777', 'cd /proc'):
            with self.subTest(limit):
                self.server.objects.clear()
                data = bytes(2 * PART + 1)
                result = self.limited(limit, '-j', '1', 'dump', '-k', 'key', data=data)
                self.assertEqual(result.status, 0, result)
                result = self.limited(limit, '-j', '1', 'restore', '-k', 'key')
                self.assertEqual((result.status, result.out == data), (0, True), result.err)

    def test_a_machine_that_is_too_small_stores_nothing_and_says_so(self):
        self.configure(part_size='2g')
        result = self.limited('ulimit -v 1000000', 'dump', '/home', '0', data=b'data')
        self.assertEqual((result.status, self.keys()), (1, []))
        self.assertRegex(result.err, r'\As3dump: dump: out of memory; fewer jobs [^\n]*\n\Z')

    def test_a_server_that_stumbles_is_tried_again(self):
        self.server.fault('PutObject', 'status', status=500, code='InternalError')
        self.server.fault('PutObject', 'hangup', when='body')
        self.server.fault('PutObject', 'hangup', when='done')
        self.assertEqual(self.succeed('-q', 'dump', '/home', '0', data=b'data').err, '')
        self.server.fault('GetObject', 'cut', bytes=2)
        self.assertEqual(self.succeed('restore', '/home', '0').out, b'data')


# --- Faults ------------------------------------------------------------------

class FaultTests(ProgramTestCase):
    """What breaks, what the program says, how it ends, and what is in the bucket then.

    What can break at which request, and how often, is the subject of test_s3.py; here the
    program's part is looked at: one line, the right status, all or nothing.
    """

    DENIED = dict(status=403, code='AccessDenied', times=None)
    GONE = dict(status=404, code='NoSuchBucket', times=None)
    WRONG = dict(status=400, code='InvalidArgument', times=None)
    LARGE, SMALL = PART + 1, 100

    DUMPS = [
        # size, operation, kind, options, status, what standard error says
        (SMALL, 'PutObject', 'status', DENIED, 1, 'PutObject .*AccessDenied .403.: .*policy'),
        (SMALL, 'PutObject', 'status', GONE, 1, 'NoSuchBucket .404.: .*check bucket_name'),
        (SMALL, 'PutObject', 'status', WRONG, 1, 'InvalidArgument .400.'),
        (SMALL, 'PutObject', 'status', dict(status=403, code='InvalidAccessKeyId', times=None), 1,
         'InvalidAccessKeyId .*check access_key_id'),
        (SMALL, 'PutObject', 'status', dict(status=403, code='SignatureDoesNotMatch', times=None),
         1, 'SignatureDoesNotMatch .*check secret_access_key'),
        (SMALL, 'PutObject', 'flip', dict(at=3, times=None), 1, 'gave up after 5 attempts'),
        (SMALL, 'PutObject', 'redirect', dict(location='http://evil.example.com/', times=None), 1,
         'redirects to .*evil.example.com.*not followed'),
        (SMALL, 'PutObject', 'status', dict(status=200, body=b'<html>Log in</html>', times=None),
         1, 'no ETag'),
        (LARGE, 'CreateMultipartUpload', 'status', DENIED, 1, 'CreateMultipart.*AccessDenied'),
        (LARGE, 'CreateMultipartUpload', 'body', dict(body=b'<html/>'), 0, ''),
        (LARGE, 'CreateMultipartUpload', 'hangup', dict(when='done'), 0, ''),
        (LARGE, 'UploadPart', 'status', DENIED, 1, 'UploadPart .*AccessDenied'),
        (LARGE, 'UploadPart', 'status', GONE, 1, 'UploadPart .*NoSuchBucket'),
        (LARGE, 'UploadPart', 'refuse', dict(drain=True, times=None), 1, 'AccessDenied'),
        (LARGE, 'UploadPart', 'flip', dict(at=3), 0, ''),
        (LARGE, 'UploadPart', 'hangup', dict(when='body'), 0, ''),
        (LARGE, 'UploadPart', 'reset', dict(when='done'), 0, ''),
        (LARGE, 'CompleteMultipartUpload', 'status', DENIED, 1, 'AccessDenied'),
        (LARGE, 'CompleteMultipartUpload', 'status', WRONG, 1, 'InvalidArgument'),
        (LARGE, 'CompleteMultipartUpload', 'error200', dict(code='AccessDenied', times=None), 1,
         'CompleteMultipartUpload .*AccessDenied .200.*gave up after 5'),
        (LARGE, 'CompleteMultipartUpload', 'error200', {}, 0, ''),
        (LARGE, 'CompleteMultipartUpload', 'error200', dict(done=True), 0, ''),
        (LARGE, 'CompleteMultipartUpload', 'body', dict(body=b''), 0, ''),
        (LARGE, 'CompleteMultipartUpload', 'cut', dict(bytes=50), 0, ''),
        (LARGE, 'CompleteMultipartUpload', 'hangup', dict(when='done'), 0, ''),
        (LARGE, 'CompleteMultipartUpload', 'blanks', dict(count=20), 0, '')]

    RESTORES = [
        ('HeadObject', 'status', DENIED, 1, 'Forbidden .403.'),
        ('GetObject', 'status', DENIED, 1, 'GetObject .*AccessDenied'),
        ('GetObject', 'cut', dict(bytes=1000), 0, ''),
        ('GetObject', 'cut', dict(bytes=0, reset=True), 0, ''),
        ('GetObject', 'short', dict(n=1), 0, ''),
        ('GetObject', 'wrong-range', dict(by=1, times=None), 1, 'asked for bytes .* server sends'),
        ('GetObject', 'wrong-range', dict(by=1, lie=True), 1, 'data are damaged'),
        ('GetObject', 'ignore-range', dict(times=None), 0, ''),
        ('GetObject', 'flip', dict(at=5), 1, 'data are damaged'),
        ('GetObject', 'replace', dict(data=b'x'), 1, 'replaced while it was read'),
        ('GetObject', 'status', dict(status=403, code='InvalidObjectState', times=None), 3,
         'archive'),
        ('ListObjectsV2', 'status', DENIED, 1, 'ListObjectsV2.*AccessDenied'),
        ('ListObjectsV2', 'body', dict(body=b'<html/>', times=None), 1, 'where S3 says ListBucket'),
        ('ListObjectsV2', 'body', dict(body=b'<!DOCTYPE x><x/>', times=None), 1, 'document type'),
        ('ListObjectsV2', 'cut', dict(bytes=20), 0, '')]

    def said(self, result, message):
        """A summary after success, one line that fits *message* after a failure."""
        pattern = r'\As3dump: [^\n]*%s[^\n]*\n\Z' % (message if result.status else ' in 0:0')
        self.assertRegex(result.err, pattern)

    def test_dumps_are_stored_whole_or_not_at_all(self):
        self.configure(part_size='5m')
        for size, operation, kind, options, status, message in self.DUMPS:
            with self.subTest('%s %s %s' % (operation, kind, options)):
                self.server.objects.clear()
                self.server.uploads.clear()
                self.server.clear_faults()
                fault = self.server.fault(operation, kind, **options)
                result = self.run_program('dump', '/home', '0', data=bytes(size))
                self.assertEqual((result.status, result.out), (status, b''), result.err)
                self.said(result, message)
                self.assertGreater(fault.hits, 0)
                self.assertEqual([found.size for found in self.server.objects.values()],
                                 [] if status else [size])
                self.assertEqual(self.server.uploads, {})

    def test_restores_give_the_exact_bytes_or_an_error(self):
        data = os.urandom(2 * PART)
        self.configure(part_size='5m', jobs='1')
        key = self.dump(data, '/home', '0')
        kept = self.server.objects[key]
        for operation, kind, options, status, message in self.RESTORES:
            with self.subTest('%s %s %s' % (operation, kind, options)):
                self.server.objects[key] = kept
                self.server.clear_faults()
                fault = self.server.fault(operation, kind, **options)
                result = self.run_program('restore', '/home', '0')
                self.assertEqual(result.status, status, result.err)
                self.said(result, message)
                self.assertGreater(fault.hits, 0)
                self.assertEqual(status == 0, result.out == data)


# --- The sources -------------------------------------------------------------

class SourceTests(unittest.TestCase):

    files = {'s3.py': set(), 's3dump.py': {'s3'}, 'test_s3.py': {'s3'},
             'test_s3dump.py': {'test_s3'}}

    def test_only_the_standard_library_is_imported(self):
        library = [os.path.realpath(sysconfig.get_path(name)) for name in ('stdlib', 'platstdlib')]
        for name, ours in self.files.items():
            for module in sorted(self.imported(name) - ours):
                with self.subTest(name, module=module):
                    spec = importlib.util.find_spec(module)
                    if spec is None:
                        self.assertIn(module, ('ssl', 'fcntl'))     # not every Python has these
                    elif spec.origin not in ('built-in', 'frozen', None):
                        origin = os.path.realpath(spec.origin)
                        self.assertTrue(any(origin.startswith(path + os.sep) for path in library))
                        self.assertNotRegex(origin, '(site|dist)-packages')

    def imported(self, name):
        with open(os.path.join(HERE, name), encoding='utf-8') as file:
            tree = ast.parse(file.read(), name)
        found = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found.update(alias.name.partition('.')[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                self.assertEqual(node.level, 0)
                found.add(node.module.partition('.')[0])
        return found

    @unittest.skipIf(sys.version_info < (3, 8), 'ast knows no syntax but its own')
    def test_the_syntax_is_that_of_python_3_6(self):
        for name in self.files:
            with open(os.path.join(HERE, name), encoding='utf-8') as file:
                ast.parse(file.read(), name, feature_version=(3, 6))

    def test_each_file_names_its_interpreter_and_its_licence(self):
        for name in self.files:
            with open(os.path.join(HERE, name), encoding='utf-8') as file:
                self.assertEqual([file.readline() for _ in range(2)],
                                 ['#!/usr/bin/env python3\n',
                                  '# SPDX-License-Identifier: BSD-3-Clause\n'], name)
        for name in ('s3.py', 's3dump.py'):
            self.assertTrue(os.access(os.path.join(HERE, name), os.X_OK), name)


# --- A demonstration ---------------------------------------------------------

def demo():
    """Show the program at work on a real directory tree; returns an exit status."""
    folder = tempfile.mkdtemp()
    try:
        with S3Server() as server:
            os.mkdir(os.path.join(folder, 'bin'))
            os.symlink(sys.executable, os.path.join(folder, 'bin', 'python3'))
            os.symlink(PROGRAM, os.path.join(folder, 's3dump.py'))
            copy_library(os.path.join(folder, 'tree'), 'email', 'json')
            with open(os.path.join(folder, 'demo.conf'), 'w') as file:
                file.write(server.config())
            os.chmod(file.name, 0o600)
            print('An S3 server on this machine (%s), and a directory tree to save:\n' % server.url)
            return show(folder, (
                'cat demo.conf',
                'du -sk tree',
                'tar -c tree | ./s3dump.py -f demo.conf dump tree 0',
                './s3dump.py -f demo.conf list',
                './s3dump.py -f demo.conf verify tree 0',
                'mkdir back',
                './s3dump.py -f demo.conf restore tree 0 | tar -x -C back',
                'diff -r tree back/tree && echo identical',
                'date > tree/news',
                'tar -c tree | ./s3dump.py -f demo.conf dump tree 0',
                './s3dump.py -f demo.conf list',
                './s3dump.py -f demo.conf clean 1',
                './s3dump.py -f demo.conf list',
                './s3dump.py -f demo.conf restore tree 0 | tar -t | grep news'))
    finally:
        shutil.rmtree(folder)


def copy_library(folder, *packages):
    """Make a directory tree out of packages of the standard library."""
    for package in packages:
        shutil.copytree(os.path.join(sysconfig.get_path('stdlib'), package),
                        os.path.join(folder, package), ignore=shutil.ignore_patterns('__pycache__'))


def show(folder, commands):
    """Run shell commands as if they were typed, up to the first that fails."""
    environment = clean_environment(folder)
    environment['PATH'] = os.path.join(folder, 'bin') + ':' + environment['PATH']
    for command in commands:
        print('$ ' + command, flush=True)
        status = subprocess.call(['sh', '-c', command], cwd=folder, env=environment,
                                 stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT,
                                 timeout=PATIENCE)
        if status:
            print('\nThis should not have happened: exit status %d' % status)
            return 1
        print(flush=True)
    return 0


def clean_environment(home):
    """Return an environment in which nothing speaks of AWS, rclone or proxies."""
    environment = {name: value for name, value in os.environ.items() if not re.match(
        r'AWS_|RCLONE_|S3DUMP_|PYTHON|(https?|all|no)_proxy$', name, re.IGNORECASE)}
    return dict(environment, HOME=home)


# --- Against other servers ---------------------------------------------------

class Interop:
    """The program, the self-test and the AWS CLI against one server; counts what passed."""

    access_key, secret_key = 'INTEROPKEY', 'interop-secret-key'
    # Servers, and how they are reached.  All but moto check signatures.
    WAYS = (('moto', ''), ('rclone', ''), ('seaweedfs', ''), ('rclone', 'over TLS'),
            ('seaweedfs', 'through a proxy'), ('rclone', 'over TLS through a proxy'))

    def __init__(self, venv, folder, name, way):
        self.venv, self.folder, self.server = venv, folder, name
        self.name = ('%s %s' % (name, way)).rstrip()
        self.secure, self.proxied = 'TLS' in way, 'proxy' in way
        self.passed = self.failed = 0
        self.processes = []
        self.ports = self.free_ports(10)
        self.port = self.ports.pop()
        self.url = '%s://127.0.0.1:%d' % ('https' if self.secure else 'http', self.port)
        self.settings = 'ca_bundle %s\n' % self.path('certificate') if self.secure else ''
        with open(self.path('certificate'), 'w') as file:
            file.write(CERTIFICATE)
        self.environment = dict(
            clean_environment(folder), AWS_ACCESS_KEY_ID=self.access_key,
            AWS_SECRET_ACCESS_KEY=self.secret_key, AWS_DEFAULT_REGION='us-east-1',
            AWS_CONFIG_FILE=os.devnull, AWS_SHARED_CREDENTIALS_FILE=os.devnull,
            AWS_EC2_METADATA_DISABLED='true', AWS_REQUEST_CHECKSUM_CALCULATION='when_required',
            AWS_RESPONSE_CHECKSUM_VALIDATION='when_required', **{
                'AWS_CA_BUNDLE': self.path('certificate')} if self.secure else {})

    def free_ports(self, count):
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
            for each in sockets:
                each.bind(('127.0.0.1', 0))
            return [each.getsockname()[1] for each in sockets]

    def tool(self, name):
        return os.path.join(self.venv, 'bin', name)

    def path(self, name):
        return os.path.join(self.folder, name)

    def serve(self):
        """Start the server, and the proxy if there is to be one."""
        os.makedirs(self.path('data'))
        self.start(getattr(self, self.server)(), self.port, 'server.log')
        if self.server == 'seaweedfs':      # its parts find each other after they listen
            until(lambda: b'added volume server' in self.log('server.log'), 'it has a volume')
        if self.proxied:
            port = self.ports.pop()
            self.start([self.tool('proxy'), '--hostname', '127.0.0.1', '--port', str(port),
                        '--data-dir', self.path('proxy')], port, 'proxy.log')
            self.environment.update(HTTP_PROXY='http://127.0.0.1:%d' % port,
                                    HTTPS_PROXY='http://127.0.0.1:%d' % port)

    def moto(self):
        return [self.tool('moto_server'), '-H', '127.0.0.1', '-p', str(self.port)]

    def rclone(self):
        return [self.tool('rclone'), '--config', '', '--cache-dir', self.path('cache'),
                'serve', 's3', '--addr', '127.0.0.1:%d' % self.port,
                '--auth-key', '%s,%s' % (self.access_key, self.secret_key)] + self.secure * [
                    '--cert', self.path('certificate'), '--key', self.path('certificate')
                ] + [self.path('data')]

    def seaweedfs(self):
        with open(self.path('identities'), 'w') as file:
            json.dump({'identities': [{'name': 'interop', 'actions': ['Admin'], 'credentials': [
                {'accessKey': self.access_key, 'secretKey': self.secret_key}]}]}, file)
        ports = ['-%s.port%s=%d' % (part, kind, self.ports.pop()) for part in (
            'master', 'volume', 'filer') for kind in ('', '.grpc')]
        return [self.tool('weed'), 'server', '-ip=127.0.0.1', '-ip.bind=127.0.0.1',
                '-dir=' + self.path('data'), '-filer', '-s3', '-s3.port=%d' % self.port,
                '-s3.port.grpc=%d' % self.ports.pop(), '-s3.config=' + file.name,
                '-volume.max=10', '-master.volumeSizeLimitMB=512',
                '-master.telemetry=false'] + ports

    def log(self, name):
        with open(self.path(name), 'rb') as file:
            return file.read()

    def start(self, command, port, log):
        """Start a process that listens at a port."""
        with open(self.path(log), 'wb') as file:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                                       env=clean_environment(self.folder), cwd=self.folder)
        self.processes.append(process)

        def up():
            if process.poll() is not None:
                raise AssertionError('%s ended with status %d' % (self.name, process.returncode))
            try:
                socket.create_connection(('127.0.0.1', port), 5).close()
                return True
            except OSError:
                return False

        until(up, '%s listens' % self.name)

    def check(self, what, function, *args):
        """Print whether function(*args) went without an exception."""
        try:
            function(*args)
        except (AssertionError, OSError, ValueError, subprocess.SubprocessError) as error:
            self.failed += 1
            print('FAIL %s: %s: %s' % (self.name, what, error), flush=True)
        else:
            self.passed += 1
            print('ok   %s: %s' % (self.name, what), flush=True)

    def run(self, command, source=os.devnull, target=None):
        """Run a command from and to a file; its output, where target is None."""
        with open(source, 'rb') as stdin, open(target or self.path('output'), 'wb') as stdout:
            done = subprocess.run(command, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE,
                                  env=self.environment, cwd=self.folder, timeout=300)
        output = ''
        if target is None:
            with open(self.path('output'), 'rb') as file:
                output = file.read().decode('utf-8')
        if done.returncode:
            raise AssertionError('%s: exit status %d\n%s%s' % (
                ' '.join(map(os.path.basename, command[-5:])), done.returncode, output,
                done.stderr.decode('utf-8', 'replace')))
        return output

    def s3dump(self, config, *argv, **files):
        return self.run(PYTHON + [PROGRAM, '-f', self.path(config)] + list(argv), **files)

    def aws(self, *argv, **files):
        return self.run([self.tool('aws'), '--endpoint-url', self.url, 's3', 'cp', '--quiet']
                        + list(argv), **files)

    def same(self, one, other):
        if not filecmp.cmp(self.path(one), self.path(other), shallow=False):
            raise AssertionError('%s and %s differ' % (one, other))

    def everything(self):
        """All checks, against the running server."""
        for name, more in (('default', ''), ('small', 'part_size 5m\n')):
            with open(self.path(name), 'w') as file:
                file.write('endpoint %s\nregion us-east-1\nbucket_name bucket\naccess_key_id %s\n'
                           'secret_access_key %s\n%s%s' % (self.url, self.access_key,
                                                           self.secret_key, self.settings, more))
            os.chmod(file.name, 0o600)
        self.check('init', self.s3dump, 'default', 'init')
        if self.server != 'moto':
            self.check('a wrong key is refused', self.wrong_key)
        self.check('self-test', self.self_test)
        for config, size, what in (('default', 0, 'no byte'), ('default', 1, 'a byte'),
                                   ('small', PART, 'one part'),
                                   ('small', PART + 1, 'one part and a byte'),
                                   ('default', 200 * 10**6, '200 MB')):
            self.check('round trip of ' + what, self.round_trip, config, size)
        self.check("the AWS CLI's upload is restored", self.from_aws)
        self.check('the AWS CLI reads a dump', self.to_aws)
        self.check('tar -c, restore | tar -d', self.tar)
        if self.proxied:
            self.check('all this went through the proxy', self.through_proxy)

    def wrong_key(self):
        with open(self.path('default')) as file, open(self.path('wrong'), 'w') as wrong:
            wrong.write(file.read().replace(self.secret_key, 'another'))
        os.chmod(wrong.name, 0o600)
        try:
            self.s3dump('wrong', 'list')
        except AssertionError as error:
            if 'SignatureDoesNotMatch' not in str(error):
                raise
        else:
            raise AssertionError('this server checks no signatures')

    def through_proxy(self):
        requests = self.log('proxy.log').count(b':%d' % self.port)
        if requests < 20:
            raise AssertionError('it had %d requests only' % requests)

    def self_test(self):
        output = self.run([sys.executable, os.path.join(HERE, 's3.py'), '-f', self.path('default')])
        if not re.search(r'(?m)^\d+ passed, 0 failed', output) or 'FAIL' in output:
            raise AssertionError('the self-test says\n' + output)

    def make(self, size):
        """Write a file 'data' of that size."""
        block = some_bytes(1 << 20)
        with open(self.path('data.in'), 'wb') as file:
            for number in range(size // len(block)):
                file.write(b'%8d' % number + block[8:])
            file.write(block[:size % len(block)])

    def round_trip(self, config, size):
        self.make(size)
        labels = ['/some where+else', '0']
        said = json.loads(self.s3dump(config, 'dump', '--json', *labels,
                                      source=self.path('data.in')))
        self.s3dump(config, 'restore', *labels, target=self.path('data.out'))
        self.same('data.in', 'data.out')
        self.s3dump(config, 'verify', *labels)
        listed = json.loads(self.s3dump(config, 'list', '--json'))
        if (listed['key'], listed['size']) != (said['key'], size):
            raise AssertionError('list shows %r' % listed)
        self.s3dump(config, 'delete', *labels)
        if self.s3dump(config, 'list', '--json'):
            raise AssertionError('it is still there after delete')

    def from_aws(self):
        self.make(30 * 10**6)           # four parts of 8 MiB
        self.aws(self.path('data.in'), 's3://bucket/from aws')
        self.s3dump('default', 'restore', '-k', 'from aws', target=self.path('data.out'))
        self.same('data.in', 'data.out')
        said = json.loads(self.s3dump('default', 'verify', '--json', '-k', 'from aws'))
        if said['verified'] != 'etag':
            raise AssertionError('verified by %s' % said['verified'])

    def to_aws(self):
        self.make(40 * 10**6)
        said = json.loads(self.s3dump('default', 'dump', '--json', '/', '0',
                                      source=self.path('data.in')))
        self.aws('s3://bucket/' + said['key'], '-', target=self.path('data.out'))
        self.same('data.in', 'data.out')
        self.s3dump('default', 'delete', '-k', said['key'])

    def tar(self):
        copy_library(self.path('tree'), 'email', 'encodings', 'asyncio', 'unittest')
        program = ' '.join(map(shlex.quote, PYTHON + [PROGRAM, '-f', self.path('small')]))
        self.run(['sh', '-c', 'tar -c tree | %s dump tree 0' % program])
        self.run(['sh', '-c', '%s restore tree 0 | tar -d' % program])
        self.run(['sh', '-c', '%s dump tree 1 -- tar -c tree' % program])
        self.run(['sh', '-c', '%s restore tree 1 | tar -d' % program])


def end_process(process):
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def interop(venv):
    """Run against the servers that are installed in *venv*; returns an exit status."""
    passed = failed = 0
    for name, way in Interop.WAYS:
        folder = tempfile.mkdtemp()
        tests = Interop(os.path.abspath(venv), folder, name, way)
        try:
            tests.serve()
            tests.everything()
        except (AssertionError, OSError) as error:
            tests.failed += 1
            print('FAIL %s: %s' % (tests.name, error), flush=True)
        finally:
            for process in tests.processes:
                end_process(process)
            if tests.failed and os.path.exists(tests.path('server.log')):
                with open(tests.path('server.log'), errors='replace') as file:
                    print('The end of its log:\n' + file.read()[-2000:])
            shutil.rmtree(folder)
        passed, failed = passed + tests.passed, failed + tests.failed
    print('%d passed, %d failed' % (passed, failed))
    return 1 if failed else 0


# --- What it costs -----------------------------------------------------------

# A process as small as can be, that runs a command and tells what it took: whatever
# starts a process hands its own peak memory on to it.
METER = '''if True:
    import os, sys, time
    start = time.monotonic()
    child = os.fork()
    if not child:
        os.close(int(sys.argv[1]))
        os.execv(sys.argv[2], sys.argv[2:])
    status, usage = os.wait4(child, 0)[1:]
    os.write(int(sys.argv[1]), b'%d %f %f %f' % (
        status, time.monotonic() - start, usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss / 1024))
'''
Cost = collections.namedtuple('Cost', 'status seconds cpu peak')     # CPU seconds, MiB


class Bench:
    """The program, and the least that Python can do, against the server of the tests."""

    # direction, https, what is hashed or checked, settings
    ROWS = (('dump', False, 'sha256', {}), ('dump', True, 'sha256', {}),
            ('dump', True, 'crc32', {'checksum': 'crc32'}),
            ('restore', False, 'md5', {'checksum': 'none'}),
            ('restore', False, 'crc32', {'checksum': 'crc32'}),
            ('restore', True, 'crc32', {'checksum': 'crc32'}))

    def __init__(self, folder, size, keys, rows):
        self.folder, self.size, self.keys, self.rows = folder, size, keys, self.ROWS[:rows]
        self.certificate = os.path.join(folder, 'certificate')
        self.config = os.path.join(folder, 'config')
        with open(self.certificate, 'w') as file:
            file.write(CERTIFICATE)

    def run(self):
        """Print a line for each row; of more than 4 GiB only what shows how costs grow."""
        print('%-22s%15s%14s%9s%9s%10s\n%-22s%15s%14s%9s%9s%10s' % (
            '%.4g GiB' % (self.size / 2**30), 'MB/s', 'CPU s/GiB', 'ratio', 'peak', 'requests',
            '', '(floor)', '(floor)', 'of CPU', 'MiB', '/GiB'), flush=True)
        large = self.size > 4 << 30
        for direction, secure, check, settings in self.rows:
            if large and (secure or check == 'md5'):
                continue
            with self.server(secure, discard=check != 'md5') as server:     # whose ETags are others
                self.configure(server, settings)
                ours = self.measure([PROGRAM, '-q', '-f', self.config, 'dump', 'bench', '0'],
                                    self.size)
                if direction == 'restore':
                    server.requests()
                    ours = self.measure([PROGRAM, '-q', '-f', self.config, 'restore', 'bench', '0'])
                requests = server.requests()
                floor = None if large else self.measure(
                    [os.path.abspath(__file__), '--floor', direction, check, str(server.port),
                     self.certificate if secure else '', str(self.size)],
                    self.size * (direction == 'dump'))
                self.show('%s %s %s' % (direction, 'https' if secure else 'http', check),
                          ours, floor, requests)
        if self.keys:
            with self.server(False, keys=self.keys) as server:
                self.configure(server, {})
                cost = self.measure([PROGRAM, '-f', self.config, 'list', '-a'])
                print('list of %d objects: %.2f s, %.2f s of CPU, %.0f MiB, %d requests' % (
                    self.keys, cost.seconds, cost.cpu, cost.peak, server.requests()))

    def show(self, name, ours, floor, requests):
        def both(form, value):
            return form % value(ours) + (' (%s)' % form % value(floor) if floor else '')

        size = self.size
        print('%-22s%15s%14s%9s%9.1f%10.1f' % (
            name, both('%.0f', lambda cost: size / cost.seconds / 1e6),
            both('%.2f', lambda cost: cost.cpu * 2**30 / size),
            '%.2f' % (ours.cpu / floor.cpu) if floor else '', ours.peak,
            requests * 2**30 / size), flush=True)

    def configure(self, server, settings):
        with open(self.config, 'w') as file:
            file.write(server.config(**settings))
        os.chmod(self.config, 0o600)

    @contextlib.contextmanager
    def server(self, secure, discard=False, keys=0):
        """An S3Server in a process of its own; discard: it keeps only the sizes of what it gets."""
        server = S3Server(discard=discard, certfile=self.certificate if secure else None)
        asked, answered = os.pipe(), os.pipe()
        child = os.fork()
        if not child:
            for number in range(keys):
                server.put('h%05d:/:0:%s:20260101T000000.000Z-%016d' % (
                    number // 200, time.strftime('%Y-%m-%d', time.gmtime(number % 200 * DAY)),
                    number), b'')
            server.start()
            os.write(answered[1], b'%d' % server.port)
            while os.read(asked[0], 1):
                count = len(server.log)
                del server.log[:]
                os.write(answered[1], b'%d' % count)
            os._exit(0)

        def requests():
            """How many there were since this was asked before."""
            os.write(asked[1], b'?')
            return int(os.read(answered[0], 10))

        server.port, server.requests = int(os.read(answered[0], 10)), requests
        try:
            yield server
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            for descriptor in asked + answered:
                os.close(descriptor)

    def measure(self, argv, feed=0):
        """The Cost of a command that gets *feed* zeros, and whose output is thrown away."""
        reader, writer = os.pipe()
        process = subprocess.Popen(
            [sys.executable, '-I', '-S', '-c', METER, str(writer), sys.executable, *argv],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[writer],
            env=clean_environment(self.folder))
        os.close(writer)
        drain = threading.Thread(target=self.drain, args=[process.stdout])
        drain.start()
        zeros = memoryview(bytes(1 << 20))
        while feed:
            feed -= os.write(process.stdin.fileno(), zeros[:feed])
        process.stdin.close()
        drain.join()
        process.wait()
        with open(reader, 'rb') as report:
            cost = Cost(*map(float, report.read().split()))
        if cost.status:
            raise AssertionError('%s failed' % ' '.join(argv))
        return cost

    def drain(self, file):
        with file:
            while os.read(file.fileno(), 1 << 20):
                pass


def floor(direction, check, port, certfile, size):
    """The shortest loop that dumps or restores: one thread, one buffer, no retries."""
    server = S3Server(port=int(port), certfile=certfile or None)
    client, view = SigningClient(server), memoryview(bytearray(16 << 20))
    stream = open(0, 'rb')
    while direction == 'dump':
        count = stream.readinto(view)
        if not count:
            break
        if check == 'sha256':
            answer = client('PUT', '/bucket/floor', view[:count])
        else:
            answer = client('PUT', '/bucket/floor', view[:count], payload_hash='UNSIGNED-PAYLOAD',
                            x_amz_checksum_crc32=base64_crc32(zlib.crc32(view[:count])))
        if answer.status != 200:
            raise AssertionError(answer.content)
    if direction == 'restore':
        digest, crc, left = hashlib.md5(), 0, int(size)
        client('PUT', '/bucket/floor', view)
        connection = client.connect()
        while left:
            connection.request('GET', '/bucket/floor', headers=dict(client.sign(
                'GET', '/bucket/floor', {}, hashlib.sha256().hexdigest())))
            response = connection.getresponse()
            while True:
                block = view[:min(left, 256 << 10)]
                count = response.readinto(block)
                if not count:
                    break
                if check == 'md5':
                    digest.update(block[:count])
                else:
                    crc = zlib.crc32(block[:count], crc)
                os.write(1, block[:count])
                left -= count


def bench(size, keys, rows):
    """Show what dumps and restores of *size* bytes, and a listing, take on this machine."""
    folder = tempfile.mkdtemp()
    try:
        Bench(folder, size, keys, rows).run()
    finally:
        shutil.rmtree(folder)


if __name__ == '__main__':
    if sys.argv[1:] == ['--demo']:
        sys.exit(demo())
    if sys.argv[1:2] == ['--interop'] and len(sys.argv) == 3:
        sys.exit(interop(sys.argv[2]))
    if sys.argv[1:2] == ['--bench'] and len(sys.argv) == 5:
        sys.exit(bench(int(float(sys.argv[2]) * 2**30), int(sys.argv[3]), int(sys.argv[4])))
    if sys.argv[1:2] == ['--floor']:
        sys.exit(floor(*sys.argv[2:]))
    unittest.main()
