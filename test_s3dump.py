#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Tests of s3dump.py, which is run as a user and as cron run it.

Nearly every test starts the program as a process of its own, in a directory that isn't
its own, with little in the environment, and looks at what everybody can see:
exit status, standard output, standard error, and what is on the server, the
one of test_s3.py, afterwards.  Whatever a test is about, no run may show a
traceback or the secret key, and the server may have nothing to object to.
"""

import argparse
import array
import ast
import calendar
import collections
import contextlib
import datetime
import errno
import fcntl
import hashlib
import importlib.util
import itertools
import json
import os
import pty
import pydoc
import random
import re
import resource
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
import urllib.parse
import urllib.request
import zlib

from test_s3 import (CERTIFICATE, WRITE_ONLY, CredentialServices, Proxy, S3Server, SigningClient,
                     Upload, Zeros, load_tests, s3, ssl, urlopen)

import s3dump

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAM = os.path.join(HERE, 's3dump.py')
PYTHON = [sys.executable, '-W', 'error', '-bb', '-I', '-S']
# As s3dump.pyz runs it: Python keeps what it has compiled, which a program of its own is not, and
# a test that starts it ten times takes a third less time.
COMPILED = PYTHON + ['-c', 'import os, sys; sys.path.insert(0, %r); import s3dump; '
                     'os._exit(s3dump.main())' % HERE]
HOST = os.uname().nodename.split('.')[0] or 'localhost'
PART = 5 << 20
ENVIRONMENT = {'PATH': os.environ.get('PATH', os.defpath), 'AWS_EC2_METADATA_DISABLED': 'true'}
PATIENCE = 60           # seconds after which what has not happened will not
DAY = 86400

Result = collections.namedtuple('Result', 'status out err')


assert load_tests       # that is for unittest


def setUpModule():
    """Load the program, and let the signals of these tests reach it, though we run under nohup or
    with &."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    global LOADER
    LOADER = Loader(ENVIRONMENT)


def tearDownModule():
    LOADER.close()


def until(condition, what):
    """Wait for the moment when condition() is true."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError('it never happened: ' + what)
        time.sleep(0.01)


def unread(pipe):
    """Return how many bytes wait in a pipe."""
    count = array.array('i', [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]


def some_bytes(size):
    """Return binary data: every byte value, and no two parts alike."""
    every = bytes(range(256))
    return b''.join(b'%16d' % number + every for number in range(size // 272 + 1))[:size]


def url_path(key):
    """Return what the URL of an object has behind the host."""
    return '/bucket/' + urllib.parse.quote(key, safe='/-._~')


def in_shell(script, program=COMPILED):
    """What runs the program, "$@", by a line of sh."""
    return ['sh', '-c', script, 'sh'] + program


def in_python(code):
    """What runs the program in an interpreter where *code* has made something different."""
    return PYTHON + ['-c', '%s\n%s' % (code, COMPILED[-1])]


def clean_environment(home):
    """Return an environment in which nothing speaks of AWS, rclone or proxies."""
    environment = {name: value for name, value in os.environ.items() if not re.match(
        r'AWS_|RCLONE_|S3DUMP_|PYTHON|((https?|all|no)_proxy|(REQUESTS|CURL)_CA_BUNDLE|'
        r'SSL_CERT_FILE|SSL_CERT_DIR)$', name, re.IGNORECASE)}
    return dict(environment, HOME=home)


class Loader:
    """A process that has loaded the program, and runs it in a child whenever it is asked to.

    A run leaves nothing to the next one: each begins where one in a Python of its own has imported
    the modules, in a fifth of the time.
    """

    # A request is the repr() of a pid to wait for, or of (argv, environment, folder); the latter
    # comes with four descriptors: standard input, output and error, and one that only the child
    # keeps, so that whoever has its other end sees when the child ends.
    CODE = """if True:
        import array, ast, contextlib, gc, os, socket, sys, time
        sys.path.insert(0, %r)
        import s3dump
        # What it imports when it needs it
        import calendar, email.utils, http.client, random, xml.etree.ElementTree
        with contextlib.suppress(ImportError):
            import ssl
        if hasattr(gc, 'freeze'):
            gc.freeze()                 # so that children need no copies
        s3dump.parse(['list'])          # whose regular expressions Python compiles once
        child = None
        with socket.socket(fileno=int(sys.argv.pop())) as control:
            while child != 0:
                text, more = control.recvmsg(1 << 16, socket.CMSG_SPACE(16))[:2]
                while text and not text.endswith(b'\\n'):
                    text += control.recv(1 << 16)
                if not text:
                    sys.exit()
                request = ast.literal_eval(text.decode())
                if isinstance(request, int):
                    answer = os.waitpid(request, 0)[1]
                else:
                    given = array.array('i', more[0][2])
                    answer = child = os.fork()
                    for number in range(3):
                        if not child:
                            os.dup2(given[number], number)
                        os.close(given[number])
                    if child:
                        os.close(given[3])
                if child != 0:
                    control.sendall(b'%%d\\n' %% answer)
        argv, environment, folder = request
        sys.argv += map(os.fsdecode, argv)
        os.environb.update(environment)
        os.chdir(folder)
        time.tzset()
        random.seed()                   # Python does so only since 3.7
        os._exit(s3dump.main())""" % HERE

    def __init__(self, environment):
        self.control, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                PYTHON + ['-c', self.CODE, str(theirs.fileno())], pass_fds=[theirs.fileno()],
                env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def ask(self, request, *descriptors):
        """Return the number that is the answer: a pid, or what waitpid() says."""
        self.control.sendmsg([b'%r\n' % (request,)], [
            (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', descriptors))])
        answer = b''
        while not answer.endswith(b'\n'):
            answer += self.control.recv(100) or b'gone\n'
        return int(answer)

    def close(self):
        self.control.close()
        self.process.wait()


class Child:
    """The program in a child of a Loader; its methods are those of subprocess.Popen."""

    def __init__(self, loader, argv, env, cwd, stdin, stdout, stderr):
        self.loader, self.returncode = loader, None
        self.runs, alive = os.pipe()
        descriptors = []
        for name, stream in (('stdin', stdin), ('stdout', stdout), ('stderr', stderr)):
            ours = None
            if stream == subprocess.PIPE:
                reader, writer = os.pipe()
                stream, ours = (reader, open(writer, 'wb')) if name == 'stdin' else (
                    writer, open(reader, 'rb'))
            elif stream == subprocess.DEVNULL:
                stream = os.open(os.devnull, os.O_RDWR)
            else:
                stream = os.dup(stream if isinstance(stream, int) else stream.fileno())
            setattr(self, name, ours)
            descriptors.append(stream)
        descriptors.append(alive)
        env = {os.fsencode(name): os.fsencode(value) for name, value in env.items()}
        self.pid = loader.ask((argv, env, cwd), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)

    def wait(self, timeout=None):
        if self.returncode is None:
            if not select.select([self.runs], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired('s3dump', timeout)
            os.close(self.runs)
            status = self.loader.ask(self.pid)
            self.returncode = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else status >> 8
        return self.returncode

    def poll(self):
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def communicate(self, data=None, timeout=PATIENCE):
        said, end = {}, time.monotonic() + timeout

        def write():
            with contextlib.suppress(BrokenPipeError), self.stdin:
                self.stdin.write(data or b'')

        def read(file):
            said[file] = file.read()

        threads = [threading.Thread(target=write, daemon=True)] if self.stdin else []
        threads += [threading.Thread(target=read, args=(file,), daemon=True)
                    for file in (self.stdout, self.stderr) if file]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0, end - time.monotonic()))
        if any(thread.is_alive() for thread in threads):
            raise subprocess.TimeoutExpired('s3dump', timeout)
        self.wait(max(0, end - time.monotonic()))
        return said.get(self.stdout), said.get(self.stderr)


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
        cls.server.close()
        shutil.rmtree(cls.home)

    def setUp(self):
        server = self.server
        self.end_faults()
        server.quirks.clear()
        for kept in (server.objects, server.uploads, server.log, server.hooks, server.demands):
            kept.clear()
        self.configure()

    def tearDown(self):
        self.assertEqual(self.server.violations, [])

    def end_faults(self):
        """Drop the server's faults and connections.  Requests that a client left behind, killed or
        having given up, are done and logged before this returns: no later fault strikes them."""
        self.server.clear_faults()
        self.server.stop()
        self.server.start()

    def configure(self, **settings):
        """Write the configuration file."""
        self.write_file(self.server.config(**settings))

    def write_file(self, text, name='.s3keys', mode=0o600):
        """Write a file in the home directory, the configuration if no other; returns its path."""
        path = os.path.join(self.home, name)
        with open(path, 'wb') as file:
            file.write(text.encode('utf-8') if isinstance(text, str) else text)
        os.chmod(path, mode)
        return path

    # Running the program.

    def start(self, *argv, prefix=(), bare=False, env={}, **options):
        """Start the program with the arguments argv (they are UTF-8, whatever our locale).

        Options: prefix, what runs it, in place of the LOADER; env, more for the environment, or
        with bare=True all of it; others as of Popen.
        """
        environment = {} if bare else dict(ENVIRONMENT, HOME=self.home)
        environment.update(env)
        settings = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                        cwd=self.home, env=environment)
        settings.update(options)
        words = [word if isinstance(word, bytes) else word.encode('utf-8')
                 for word in [*prefix, *argv]]
        if prefix or bare or any(name.startswith('LC_') for name in env):   # what Python looks at
            process = subprocess.Popen(words if prefix else COMPILED + words, **settings)
        else:
            process = Child(LOADER, words, **settings)
        self.addCleanup(self.put_away, process)
        return process

    def put_away(self, process):
        if process.poll() is None:
            process.kill()
            process.wait()
        for file in (process.stdin, process.stdout, process.stderr):
            if file is not None:
                file.close()

    def feed(self, process, data):
        """Write all of its standard input."""
        process.stdin.write(data)
        process.stdin.close()
        process.stdin = None        # communicate() would flush it

    def finish(self, process, data=None):
        """Wait for the end of the program; returns its Result, which is fit to be seen."""
        out, err = process.communicate(data, timeout=PATIENCE)
        return Result(process.returncode, out or b'', self.readable(out or b'', err or b''))

    def readable(self, out, err):
        """Return as text what was said on standard error, which is fit to be seen, as is out."""
        err = err.decode('utf-8')
        for text in (out.decode('latin-1'), err):
            self.assertNotIn(self.server.secret_key, text)
        self.assertNotRegex(err, 'Traceback|Exception ignored|Warning:|internal error|Fatal')
        self.assertNotRegex(err, '[^\n\r\x20-\x7e\x80-\U0010ffff]')
        return err

    def run_program(self, *argv, data=None, **options):
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

    def must_not_read(self, status, message, *argv):
        """The same, before anything of its standard input is read."""
        with tempfile.TemporaryFile() as file:
            file.write(b'data')
            file.seek(0)
            self.must_fail(status, message, *argv, stdin=file)
            self.assertEqual(os.lseek(file.fileno(), 0, os.SEEK_CUR), 0)

    def dump(self, data, *argv, **options):
        """Dump data; returns the key."""
        before = set(self.server.objects)
        self.succeed('dump', *argv, data=data, **options)
        new = sorted(set(self.server.objects) - before)
        return new[0] if new else None

    # What is on the server, and who.

    def place(self, fs='/home', level='0', date='2020-01-10', host=HOST, size=100, stored=None,
              data=None, **attributes):
        """Place a dump of data, or of *size* bytes, stored at noon of its date unless said; returns
        its key."""
        if stored is None:
            stored = self.noon(date)
        stamp = time.strftime('%Y%m%dT%H%M%S.000Z', time.gmtime(stored))
        key = '%s:%s:%s:%s:%s-%016d' % (host, fs, level, date, stamp, next(self.serial))
        attributes.setdefault('metadata', {'x-amz-meta-dump-id': 'placed',
                                           'x-amz-meta-volume-size': str(1 << 50)})
        self.server.put(key, data or bytes(size), modified=stored, **attributes)
        return key

    def place_upload(self, upload_id, key, age):
        """Place an unfinished upload, begun *age* seconds ago."""
        self.server.uploads[upload_id] = Upload(
            upload_id, self.server.bucket, key, time.time() - age, {'storage_class': 'STANDARD'},
            None)

    def noon(self, date):
        return calendar.timegm(time.strptime(date + ' 12', '%Y-%m-%d %H'))

    def keys(self):
        return sorted(self.server.objects)

    def parts_left(self):
        """Return the keys of the unfinished uploads that hold parts; one whose id was lost is
        empty."""
        return [upload.key for upload in self.server.uploads.values() if upload.parts]

    def asked(self, operation):
        """Return the keys of the requests of this kind, in their order."""
        return [request.key for request in self.server.log if request.operation == operation]


# --- Dump and restore --------------------------------------------------------

class RoundTripTests(ProgramTestCase):

    def test_streams_of_any_length_come_back_as_they_were(self):
        self.configure(part_size='5m')
        for size, parts in ((1, 1), (PART - 1, 1), (PART, 1), (PART + 1, 2),
                            (2 * PART + 12345, 3)):
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

    def test_the_summary_says_all_that_a_log_should_hold(self):
        self.configure(part_size='5m', max_parts=1)
        key = self.summarized_key(
            self.run_program('dump', '/home', '0', data=bytes(PART + 5)),
            r'5\.0M \(%d bytes\) in \d+\.\d\d s, [0-9.]+M/s, 2 parts, 2 volumes, checked: sha256, '
            r'0 retries' % (PART + 5))
        self.server.fault('GetObject', 'cut', bytes=1000, where=lambda each: each.key == key)
        for command in ('restore', 'verify'):
            self.assertEqual(key, self.summarized_key(
                self.run_program(command, '/home', '0'),
                r'5\.0M \(%d bytes\) in \d+\.\d\d s, [0-9.]+M/s, 2 volumes, checked: etag, %s' % (
                    PART + 5, '1 retry' if command == 'restore' else '0 retries')))
        self.configure(checksum='crc32')
        self.summarized_key(self.run_program('dump', '/home', '0', data=b'1'),
                            r'1 \(1 byte\) in .* 1 part, 1 volume, checked: crc32, 0 retries')

    def summarized_key(self, result, summary):
        """The key in the only line of a program that succeeded."""
        self.assertEqual(result.status, 0, result)
        match = re.match(r's3dump: [a-z]+ (\S+): %s\n\Z' % summary, result.err)
        self.assertIsNotNone(match, result.err)
        self.assertIn(match.group(1), self.server.objects)
        return match.group(1)

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

    def test_restore_says_what_a_dump_builds_upon(self):
        def lines(*argv):
            self.server.log.clear()
            found = self.succeed('restore', *argv).err.splitlines()
            self.assertEqual(self.server.operations().count('ListObjectsV2'), 2)
            return [line for line in found if not line.startswith('s3dump: restore ')]

        full = self.place(date='2020-01-05')
        tuesday = self.place(level='1', date='2020-01-07')
        self.place(level='2', date='2020-01-07', stored=self.noon('2020-01-07') - 1)
        self.place('/home/x', date='2020-01-08')
        self.assertEqual(lines('/home', '0'), [])
        self.assertEqual(lines('/home', '1'), ['s3dump: %s builds upon %s' % (tuesday, full)])
        thursday = self.place(level='2', date='2020-01-09')
        self.assertEqual(lines('/home', '2'), ['s3dump: %s builds upon %s' % (thursday, tuesday)])
        self.assertEqual(lines('-q', '/home', '2'), [])
        newer = self.place(date='2020-01-12')
        self.place(date='9999-01-12', stored=self.noon('2020-01-12'))
        warning = 's3dump: warning: %s is newer, and %s does not build upon it'
        self.assertEqual(lines('-q', '/home', '1'), [warning % (newer, tuesday)])
        self.assertEqual(lines('/home', '2', '-w', '2020-01-09'), [
            's3dump: %s builds upon %s' % (thursday, tuesday), warning % (newer, thursday)])
        for key in (full, newer):
            del self.server.objects[key]
        self.assertEqual(lines('/home', '1'), [
            's3dump: %s builds upon no dump that is here' % tuesday])
        self.assertEqual(self.succeed('verify', '/home', '2').err.count('\n'), 1)
        self.assertEqual(self.succeed('restore', '-k', thursday).err.count('\n'), 1)

    def test_a_dump_of_an_impossible_date_is_not_the_newest(self):
        self.dump(b'real', '/home', '0')
        self.dump(b'forged', '/home', '0', '-w', '9999-12-31')
        result = self.succeed('restore', '/home', '0')
        self.assertEqual(result.out, b'real')
        self.assertRegex(result.err, '9999-12-31.* and not to be trusted')
        for key in self.keys():         # a server whose clock is wrong
            self.server.objects[key].modified = 0
        self.assertEqual(self.succeed('restore', '/home', '0').out, b'forged')

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
            self.must_fail(1, r"%s: no dump of '/home' level 0 of 2020-01-04 .*; `s3dump.py list`"
                           % command,
                           command, '/home', '0', '-w', '2020-01-04')

    def test_a_program_is_run_in_place_of_a_pipe(self):
        for script, *options in (('printf data',),
                                 ('printf data; exit 1', '--accept-status', '1'),
                                 ('printf data; exit 1', '--accept-status', '3,1')):
            with self.subTest(script, options=options):
                self.server.objects.clear()
                self.succeed('-q', 'dump', '/home', '0', *options, '--', 'sh', '-c', script)
                self.assertEqual(self.succeed('restore', '/home', '0').out, b'data')

    def test_a_program_that_fails_or_is_killed_stores_nothing(self):
        for message, script, *options in (
                ('exit status 1', 'printf data; exit 1'),
                ('exit status 2', 'printf data; exit 2', '--accept-status', '3,1'),
                ('signal 9', 'printf data; kill -9 $$'),
                ('signal 9', 'printf data; kill -9 $$', '--accept-status', '9,137'),
                ('signal 15', 'kill -15 $$')):
            with self.subTest(script, options=options):
                self.must_fail(1, message + ': nothing is stored', '-q', 'dump', '/home', '0',
                               *options, '--', 'sh', '-c', script)
                self.assertEqual(self.keys(), [])

    def test_a_program_that_can_not_be_ended_hides_nothing(self):
        refused = in_python('''if True:
            import subprocess

            def refuse(*_):             # as if it were root's, by sudo
                raise PermissionError(1, 'Operation not permitted')

            subprocess.Popen.send_signal = refuse
            ''')
        self.server.fault('UploadPart', 'status', times=None, status=403, code='AccessDenied')
        self.must_fail(1, 'AccessDenied.*: nothing is stored', 'dump', '/home', '0', '--',
                       'cat', '/dev/zero', prefix=refused)
        process = self.start('dump', '/home', '0', '--', 'sh', '-c', 'echo; touch runs; '
                             'exec sleep 9 2>&-', prefix=refused, cwd=self.home)
        until(lambda: os.path.exists(os.path.join(self.home, 'runs')), 'it runs')
        start = time.monotonic()
        process.terminate()
        result = self.finish(process)
        self.assertLess(time.monotonic() - start, 8)
        self.assertEqual((result.status, result.err), (
            128 + signal.SIGTERM, 's3dump: ended by signal 15: nothing is stored\n'))
        self.assertEqual(self.keys(), [])

    def test_the_arguments_of_a_program_are_its_own(self):
        self.succeed('dump', '/home', '0', '--', 'printf', '%s,', '-q', '--', 'a b', '--json')
        self.assertEqual(self.succeed('restore', '/home', '0').out, b'-q,--,a b,--json,')

    def test_a_program_that_is_not_there_stores_nothing(self):
        for program in ('no-such-program', '/', self.config):
            with self.subTest(program):
                self.must_fail(1, 'cannot start %s: ' % re.escape(program),
                               'dump', '/home', '0', '--', program)
        self.assertEqual(self.keys(), [])

    def test_a_program_that_fails_after_some_parts_stores_nothing(self):
        self.configure(part_size='5m')
        self.must_fail(1, 'exit status 7: nothing is stored', '-j', '1', 'dump', '/home', '0',
                       '--', 'sh', '-c', 'head -c %d /dev/zero; exit 7' % (2 * PART + 1))
        self.assertIn('CreateMultipartUpload', self.server.operations())
        self.assertEqual((self.keys(), self.server.uploads), ([], {}))

    def test_a_stream_shorter_than_min_size_stores_nothing(self):
        self.configure(part_size='5m')
        for size, least in ((0, '1'), (1, '2'), (1023, '1k'), (2 * PART + 1, '11m')):
            with self.subTest(size=size):
                self.must_fail(1, r'%d byte%s, less than --min-size \d+' % (size, 's'[size == 1:]),
                               '-j', '1', 'dump', '/home', '0', '--min-size', least,
                               data=bytes(size))
                self.assertEqual((self.keys(), self.server.uploads), ([], {}))
        for size, least in ((1024, '1k'), (0, '0')):
            self.succeed('dump', '/home', '0', '--min-size', least, data=bytes(size))

    def test_a_stream_that_breaks_off_with_an_error_stores_nothing(self):
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
        path = self.write_file('0123456789', 'file')
        with open(path, 'rb', buffering=0) as file:
            file.seek(4)
            self.succeed('dump', '/home', '0', stdin=file)
        with open(os.path.join(self.home, 'back'), 'wb') as file:
            self.succeed('restore', '/home', '0', stdout=file)
        with open(file.name, 'rb') as file:
            self.assertEqual(file.read(), b'456789')

    def test_json_tells_what_was_done(self):
        self.configure(part_size='5m')
        said = json.loads(self.succeed('dump', '/home', '0', '--json', data=bytes(PART + 1)).out)
        key, = self.keys()
        self.assertGreater(said.pop('seconds'), 0)
        self.assertEqual(said, {'key': key, 'size': PART + 1, 'parts': 2, 'objects': 1,
                                'retries': 0})
        self.assertEqual(json.loads(self.succeed('--json', 'verify', '/home', '0').out),
                         {'key': key, 'size': PART + 1, 'verified': 'etag'})

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
        self.dump(b'', '/', '0', '--storage-class', 'STANDARD')     # not every server knows classes
        self.assertNotIn('x-amz-storage-class', self.server.log[-1].headers)

    def test_what_the_server_refuses_is_said_in_a_line(self):
        self.server.add_user('READER', 'sesame', allow={'ListObjectsV2', 'GetObject', 'HeadObject'})
        self.configure(access_key_id='READER', secret_access_key='sesame')
        self.must_fail(1, r"PutObject .*: AccessDenied \(403\).*\[request \w+\].*s3:PutObject is",
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
                ("it's?#", '../"\'`$x\\&a=b<c>;{d}|[e]^*!@(),', '-1', '2020-01-01'),
                ('hôst', '/ünï→日本/😀', '0', '2020-12-31')):
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
                if host == 'hôst':
                    self.assertIn('\n%s\nLevel %s %s:' % (fs, level, date),
                                  self.succeed('list', fs, '-h', host).out.decode('utf-8'))
                self.succeed('delete', *labels)
                self.assertEqual(self.keys(), [])

    def test_a_slash_at_the_end_of_fs_is_dropped(self):
        for typed, fs in (('/home/', '/home'), ('a//', 'a'), ('/', '/'), ('//', '/')):
            key = self.dump(b'data', typed, '0')
            self.assertEqual(key.split(':')[1], fs)
            self.assertEqual(self.succeed('restore', fs, '0').out, b'data')
        self.must_fail(2, 'the FS is empty', 'dump', '', '0')

    def test_dumps_that_were_stored_with_a_slash_at_the_end_of_fs_are_found(self):
        base = self.place('/home/', date='2020-01-01')
        self.place('/home/x', date='2020-01-01')
        self.place('/home', '1', date='2020-01-02')
        self.place('/home:', '0')                   # no dump
        self.server.put(HOST + ':/home/:0:2019-01-01/chunk_000000', b'old',
                        modified=self.noon('2019-01-01'))
        self.place('/x/', host=HOST + '2')
        lines = ['/home', 'Level 0 2019-01-01:        3', 'Level 0 2020-01-01:      100',
                 'Level 1 2020-01-02:      100', '']
        for fs in ('/home', '/home/'):
            self.assertIn(base, self.succeed('restore', fs, '0').err)
            self.assertEqual(self.succeed('restore', fs, '0', '-w', '2019-01-01').out, b'old')
            self.assertIn('builds upon ' + base, self.succeed('restore', fs, '1').err)
            self.assertIn(base, self.run_program('check', fs, '0').out.decode())
            self.assertIn(base, self.succeed(
                'delete', '-n', fs, '0', '-w', '2020-01-01').out.decode())
            self.assertEqual(self.succeed('list', fs).out.decode().splitlines()[1:-1], lines)
        listing = self.succeed('list', '-a').out.decode()
        self.assertEqual(listing.count('\n/home\n'), 1)
        self.assertIn('\n'.join(lines), listing)
        self.assertIn('Dumps for %s2:\n/x\nLevel 0 2020-01-10:' % HOST, listing)
        self.assertEqual(self.succeed('list', '-a', '/home/').out.decode().splitlines()[1:-1],
                         lines)
        self.assertEqual({json.loads(line)['fs'] for line in self.succeed(
            'list', '-a', '--json').out.splitlines()}, {'/home', '/home/x', '/x', None})
        self.assertIn('\ngo   %s:/home/:0:2019-01-01 ' % HOST,
                      self.succeed('clean', '1', '-n').out.decode())

    def test_the_newest_is_found_with_and_without_a_slash_at_the_end_of_fs(self):
        self.place('/home', date='2020-01-02')
        self.place('/home/', date='2020-01-03')
        twice = self.place('/home//', date='2020-01-04')
        for fs in ('/home', '/home/'):
            self.server.log.clear()
            self.assertIn(':2020-01-03', self.succeed('verify', fs, '0').err)
            self.assertEqual(len(self.asked('ListObjectsV2')), 2)
        self.assertIn('keep %s' % twice, self.succeed('clean', '1', '-n').out.decode())
        root = self.place('//', date='2020-01-05')
        self.assertIn('verify %s' % root, self.succeed('verify', '/', '0').err)

    def test_a_slash_at_the_end_of_fs_may_be_out_of_bounds(self):
        self.dump(b'data', '/home', '0')
        self.server.fault('ListObjectsV2', 'status', status=403, code='AccessDenied', times=None,
                          where=lambda exchange: '/home/' in exchange.query['prefix'])
        for command in ('restore', 'list', 'check'):
            words = ['/home'] if command == 'list' else ['/home', '0']
            self.assertNotIn('AccessDenied', self.succeed(command, *words).err)

    def test_a_literal_key_of_any_kind_is_taken_as_it_is(self):
        for key in ('/a/b//c', 'a b+c%d~e ü', '-', '--', 'x' * 1000):
            with self.subTest(ascii(key)):
                self.assertEqual(self.dump(b'data', '-k' + key), key)
                self.assertEqual(self.succeed('restore', '-k' + key).out, b'data')
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
        self.must_not_read(1, "'taken' exists", 'dump', '-k', 'taken')
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
        result = self.run_program('-j', '1', 'dump', '/', '0', '--', 'sh', '-c',
                                  'head -c %d /dev/zero; exit 1' % (2 * PART + 1))
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
        noon = DAY // 2 - time.time() % DAY         # far from midnight
        for days in (400, -4000):
            self.server.offset = days * DAY + noon
            for size in (100, PART + 1):
                key = self.dump(bytes(size), '/home', '0')
                date, stamp = key.split(':')[3:]
                there = time.time() + self.server.offset
                self.assertLess(abs(calendar.timegm(time.strptime(
                    stamp[:15], '%Y%m%dT%H%M%S')) - there), PATIENCE)
                self.assertEqual(date, time.strftime('%Y-%m-%d', time.localtime(there)))
            self.succeed('dump', '/fixed', '0', '--fixed-key', data=b'data')
            result = self.run_program('dump', '/fixed', '0', '--fixed-key', data=b'data')
            self.assertEqual(result.status, 1)
            self.assertRegex(result.err, 'fixed:0:%s. exists and was not changed' % date)
            self.succeed('delete', '/fixed', '0')


class VolumeTests(ProgramTestCase):
    """Objects that hold two parts, so that a stream needs several of them."""

    def setUp(self):
        ProgramTestCase.setUp(self)
        self.configure(part_size='5m', max_parts='2')

    def test_a_stream_goes_on_in_further_objects(self):
        for size, names in ((2 * PART, ['.end_000000']),
                            (2 * PART + 1, ['.end_000001', '.volume_000001']),
                            (4 * PART, ['.end_000001', '.volume_000001'])):
            with self.subTest(size=size):
                self.server.objects.clear()
                self.server.log.clear()
                data = some_bytes(size)
                key = self.dump(data, '/home', '0')
                self.assertEqual(self.keys(), [key] + [key + name for name in names])
                creations = [request for request in self.server.log if request.operation in (
                    'PutObject', 'CompleteMultipartUpload')]
                self.assertEqual(creations[-1].key, key)
                for one in self.server.objects.values():
                    self.assertEqual(one.metadata['x-amz-meta-volume-size'], str(2 * PART))
                self.assertTrue(self.succeed('restore', '/home', '0').out == data)
        shown = json.loads(self.succeed('list', '--json').out)
        self.assertEqual((shown['key'], shown['size'], shown['objects']), (key, size, 3))

    def place_set(self):
        """Place a set of three volumes, of parts smaller than real ones; returns key and data."""
        data = some_bytes(450)
        key = self.place(size=0)
        for number, name in enumerate(('', '.volume_000001', '.volume_000002', '.end_000002')):
            self.server.put(key + name, data[number * 200:(number + 1) * 200], parts=100,
                            modified=self.noon('2020-01-10'),
                            metadata={'x-amz-meta-volume-size': '200'})
        return key, data

    def test_a_set_is_one_dump(self):
        self.configure()            # whatever is configured later
        key, data = self.place_set()
        for labels in (['/home', '0'], ['-k', key]):
            self.assertTrue(self.succeed('restore', *labels).out == data)
        self.assertEqual(json.loads(self.succeed('verify', '/home', '0', '--json').out),
                         {'key': key, 'size': len(data), 'verified': 'etag'})
        self.assertIn(b'Level 0 2020-01-10:      450\n', self.succeed('list').out)
        self.assertEqual(self.succeed('delete', '-k', key, '-n').out.count(b'\n'), 1)
        self.succeed('delete', '/home', '0', '-w', '2020-01-10')
        self.assertEqual(self.keys(), [])
        self.assertEqual(self.asked('DeleteObject')[0], key)

    def test_a_set_with_a_hole_or_without_its_end_is_not_restored(self):
        for lost, message in ((['.volume_000001'], 'volume_000001.* is missing'),
                              (['.volume_000002'], 'end mark'),
                              (['.end_000002'], 'end mark is missing'),
                              (['.volume_000002', '.end_000002'], 'end mark is missing'),
                              (['.volume_000001', '.volume_000002'], 'end mark'),
                              (['.volume_000001', '.volume_000002', '.end_000002'], 'not whole')):
            for way in ('labels', 'key'):
                with self.subTest(lost, way=way):
                    self.server.objects.clear()
                    self.server.log.clear()
                    key, _ = self.place_set()
                    for name in lost:
                        self.server.objects.pop(key + name)
                    labels = ['/home', '0'] if way == 'labels' else ['-k', key]
                    result = self.must_fail(1, message, 'restore', *labels)
                    self.assertEqual(result.out, b'')
                    self.assertEqual(self.asked('GetObject'), [])
                    if way == 'labels' and len(lost) == 3:
                        self.must_fail(1, message, 'verify', *labels)

    def test_a_full_first_object_with_its_end_mark_is_whole(self):
        key, data = self.place_set()
        for name in ('.volume_000001', '.volume_000002', '.end_000002'):
            self.server.objects.pop(key + name)
        self.server.put(key + '.end_000000', b'')
        self.assertTrue(self.succeed('restore', '/home', '0').out == data[:200])
        self.succeed('verify', '-k', key)

    def test_an_object_with_a_name_like_that_of_a_volume_is_none(self):
        key, data = self.place_set()
        for name in ('/volume_000001', 'xvolume_000001', '/end_000001', '.volume_1',
                     '.volume_000001x', '.volume_', '.end_2', '.end_000002.bak',
                     '/Volume_000001', '.volume_000001.volume_000001'):
            self.server.put(key + name, b'forged')
        for labels in (['/home', '0'], ['-k', key]):
            self.assertTrue(self.succeed('restore', *labels).out == data)

    def test_volumes_beside_an_object_that_needs_none_do_not_spoil_it(self):
        key = '%s:/home:0:2020-01-10' % HOST
        self.dump(b'sound', '-w', '2020-01-10', '--fixed-key', '/home', '0')
        for name in ('.volume_000000', '.volume_000001', '.volume_000005', '.end_000000',
                     '.end_000009'):
            self.server.put(key + name, b'forged')
        for labels in (['/home', '0'], ['-k', key]):
            self.assertEqual(self.succeed('restore', *labels).out, b'sound')
        self.assertIn(b'Level 0 2020-01-10:        5\n', self.succeed('list').out)
        self.must_fail(1, 'delete -k', 'dump', '-k', key, '--overwrite', data=b'other')
        self.succeed('delete', '-k', key)
        self.assertEqual(self.keys(), [key + '.volume_000000'])     # that is no volume

    def test_volumes_of_another_dump_do_not_spoil_one(self):
        self.configure(part_size='5m', max_parts='1')
        for size, stray in ((PART, 2 * PART + 9), (2 * PART + 9, PART), (100, 2 * PART)):
            with self.subTest(size, stray=stray):
                self.server.objects.clear()
                self.dump(bytes(stray), '-k', 'other')
                data = some_bytes(size)
                self.succeed('dump', '-k', 'mine', data=data)
                for key in self.keys():         # a dump under this key that was refused
                    if key.startswith('other/'):
                        name = key.replace('other', 'mine')
                        if name not in self.server.objects:
                            self.server.objects[name] = self.server.objects[key]
                self.assertEqual(self.succeed('restore', '-k', 'mine').out, data)

    def test_a_set_that_was_copied_without_metadata_is_whole_by_names_and_sizes(self):
        key, data = self.place_set()
        for one in self.server.objects.values():
            one.metadata.clear()
        for labels in (['/home', '0'], ['-k', key]):
            result = self.succeed('restore', *labels)
            self.assertTrue(result.out == data)
            self.assertIn('warning: %s has no metadata' % key, result.err)
        self.assertIn(b'Level 0 2020-01-10:      450\n', self.succeed('list').out)
        self.assertIn(b' good', self.succeed('check', '/home', '0', '--max-age', '99999d').out)
        self.place(date='2020-01-11', size=450)
        self.succeed('clean', '1')
        self.assertEqual(len(self.keys()), 1)

    def test_a_copy_whose_small_objects_kept_their_metadata_is_whole(self):
        """As `aws s3 sync` makes it."""
        self.configure(part_size='5m', max_parts='1')
        data = some_bytes(2 * PART + 9)
        key = self.dump(data, '/home', '0')
        for name in ('', '.volume_000001'):
            self.server.objects[key + name].metadata.clear()
        self.assertTrue(self.succeed('restore', '/home', '0').out == data)
        self.server.put(key, bytes(PART - 1))       # and this one has never had any
        self.must_fail(1, 'has %d bytes, but a full volume' % (PART - 1), 'restore', '/home', '0')

    def test_a_set_whose_metadata_do_not_agree_or_that_lost_an_object_is_not_restored(self):
        names = ['', '.volume_000001', '.volume_000002', '.end_000002']
        for bare, lost in ([names[:1], []], [names, names[1:2]], [names, names[3:]],
                           [names, names[2:3]]):
            self.server.objects.clear()
            key, _ = self.place_set()
            for name in bare:
                self.server.objects[key + name].metadata.clear()
            for name in lost:
                del self.server.objects[key + name]
            if not lost:
                self.server.objects[key + names[2]].metadata['x-amz-meta-dump-id'] = 'another'
            for labels in (['/home', '0'], ['-k', key]):
                with self.subTest(bare, lost=lost, labels=labels):
                    result = self.run_program('restore', *labels)
                    self.assertEqual((result.status, result.out), (1, b''))
                    self.assertNotIn('delete', result.err)

    def test_a_volume_that_is_shorter_or_longer_than_it_can_be_is_not_whole(self):
        self.configure(part_size='5m', max_parts='1')
        key = self.dump(some_bytes(2 * PART + 9), '/home', '0')
        whole = [(each, one, one.metadata) for each, one in self.server.objects.items()]
        for name, size in (('', PART - 1), ('.volume_000001', PART - 1), ('', PART // 2),
                           ('.volume_000001', 0), ('.volume_000002', PART + 1)):
            for bare in (False, True):
                for each, one, metadata in whole:
                    one.metadata = {} if bare else metadata
                    self.server.objects[each] = one
                self.server.put(key + name, bytes(size),
                                metadata=self.server.objects[key + name].metadata)
                message = '%s. has %d bytes, but a full volume %d' % (name, size, PART)
                if bare and not name:       # then it is the others that are too long
                    message = ' bytes, but a full volume %d' % size
                with self.subTest(name, size=size, bare=bare):
                    self.assertEqual(self.must_fail(1, message, 'restore', '-k', key).out, b'')
                    if size == PART - 1:
                        self.must_fail(1, message, 'restore', '/home', '0')
                        self.assertRegex(self.succeed('list').out.decode(), message)
                        self.assertRegex(self.run_program('check', '/home', '0').out.decode(),
                                         'FAILED.* not whole.*' + message)
                        self.assertIn('neither counted', self.succeed('clean', '1').err)

    def test_a_full_object_that_was_cut_is_not_whole(self):
        self.configure(part_size='5m', max_parts='1')
        key = self.dump(bytes(PART), '/home', '0')
        self.server.put(key, bytes(PART - 100), metadata=self.server.objects[key].metadata)
        for labels in (['/home', '0'], ['-k', key]):
            self.must_fail(1, 'bytes, but a full volume', 'restore', *labels)
        self.assertIn(b'FAILED', self.run_program('check', '/home', '0').out)

    def test_a_copy_of_one_object_without_metadata_draws_a_warning(self):
        """It may be the first of several."""
        key = self.dump(b'data', '/home', '0')
        old = self.dump(b'old', '/old', '0', '--fixed-key')
        for one in self.server.objects.values():
            one.metadata.clear()
        for labels, warned in ((['/home', '0'], True), (['-k', key], True), (['/old', '0'], False),
                               (['-k', old], False)):
            self.assertEqual('has no metadata' in self.succeed('verify', *labels).err, warned)

    def test_volumes_are_stored_where_a_key_can_not_also_be_a_directory(self):
        self.server.quirks.add('directories')
        data = some_bytes(2 * PART + 1)
        for labels in (['/home', '0'], ['-k', 'some/key']):
            self.dump(data, *labels)
            self.assertTrue(self.succeed('restore', *labels).out == data)

    def test_an_end_mark_alone_is_no_dump(self):
        self.server.put('key.end_000000', b'')
        for command in ('restore', 'verify', 'url', 'getacl'):
            self.must_fail(1, 'is missing', command, '-k', 'key')
        self.must_fail(1, 'is missing', 'putacl', '-k', 'key', data=b'<AccessControlPolicy/>')

    def test_a_set_is_not_overwritten(self):
        self.configure(part_size='5m', max_parts='1')
        for size in (PART, PART + 5):
            self.server.objects.clear()
            self.dump(bytes(size), '-k', 'key')
            before = dict(self.server.objects)
            for other in (1, PART + 7):
                self.must_fail(1, 'has volumes of an earlier dump: `delete -k` it first',
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
        for name in (':99999999999', '/chunk_999999999999', '.volume_999999999999',
                     ':' + '9' * 30):
            self.server.put('%s:/home:0:2020-01-10%s' % (HOST, name), b'')
        self.succeed('list')
        self.assertEqual(self.run_program('restore', '/home', '0').status, 1)

    def test_urls_are_not_given_for_what_can_not_be_restored(self):
        self.configure(part_size='5m', max_parts='1')
        key = self.dump(bytes(PART), '/home', '0')
        self.server.objects.pop(key + '.end_000000')
        self.must_fail(1, 'not whole', 'url', '/home', '0')
        self.server.put('cold', b'data', storage_class='GLACIER')
        self.must_fail(3, 'archived', 'url', '-k', 'cold')

    def test_a_bucket_gets_the_headers_that_it_demands(self):
        settings = {'bucket_owner': '123456789012', 'request_payer': 'requester',
                    'acl': 'bucket-owner-full-control', 'tagging': 'kept by=root'}
        self.server.demands.update({
            'x-amz-expected-bucket-owner': '123456789012', 'x-amz-request-payer': 'requester',
            'x-amz-acl': 'bucket-owner-full-control', 'x-amz-tagging': 'kept%20by=root'})
        self.must_fail(1, 'AccessDenied', 'list')
        self.configure(**settings)
        key = self.dump(b'data', '/home', '0')
        self.assertEqual(self.server.objects[key].tags, {'kept by': 'root'})
        self.assertIn(b'/home', self.succeed('list').out)
        self.assertEqual(self.succeed('restore', '-k', key).out, b'data')
        with urlopen(self.succeed('url', '-k', key).out.decode().strip()) as answer:
            self.assertEqual(answer.read(), b'data')
        self.succeed('delete', '-k', key)
        self.succeed('init')
        self.configure(**dict(settings, bucket_owner='210987654321'))       # it is another's now
        self.must_fail(1, 'AccessDenied', 'dump', '/home', '0', data=b'data')
        self.assertEqual(self.keys(), [])

    def test_what_a_crash_left_is_as_old_as_its_youngest_volume(self):
        key, _ = self.place_set()
        self.server.objects.pop(key)
        for one in self.server.objects.values():
            one.modified = time.time() - 31 * DAY
        one.modified = time.time() - 29 * DAY       # of a dump that takes weeks, and goes on
        self.succeed('clean', '1')
        self.assertEqual(len(self.keys()), 3)

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

    def test_a_failure_in_a_later_volume_stores_nothing(self):
        self.must_fail(1, 'exit status 1', '-j', '1', 'dump', '/home', '0', '--', 'sh', '-c',
                       'head -c %d /dev/zero; exit 1' % (6 * PART + 1))
        self.assertEqual(len(set(self.asked('CreateMultipartUpload'))), 3)
        self.assertEqual((self.keys(), self.server.uploads), ([], {}))

    def test_a_key_with_volumes_of_an_earlier_dump_is_not_dumped_to(self):
        self.server.put('key.volume_000001', b'old')
        self.must_fail(1, "'key' has volumes", 'dump', '-k', 'key', data=b'new')
        self.assertEqual(self.keys(), ['key.volume_000001'])


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

    def test_dumps_of_older_versions_are_listed(self):
        self.assertEqual(self.succeed('list').out.decode(), '\n'.join((
            'Dumps for this host (%s):' % HOST,
            '/chunks', 'Level 0 2009-10-07:       33',
            '/colons', 'Level 0 2009-10-07:      134',
            '/one', 'Level 0 2009-10-07:       11',
            '', 'Total data stored: 178 ($0.00/month)', '')))
        lines = self.succeed('list', '--json').out.splitlines()
        self.assertEqual([json.loads(line)['objects'] for line in lines], [3, 12, 1])

    def test_dumps_of_older_versions_are_restored_verified_and_deleted(self):
        for key, data in self.stored.items():
            fs = key.split(':')[1]
            for labels in ([fs, '0'], ['-k', key]):
                with self.subTest(labels):
                    self.assertEqual(self.succeed('restore', *labels).out, data)
                    self.succeed('verify', *labels)
        self.succeed('delete', '-w', '2009-10-07', '/colons', '0')
        self.succeed('delete', '-k', '%s:/chunks:0:2009-10-07' % HOST)
        self.assertEqual(self.keys(), ['%s:/one:0:2009-10-07' % HOST])

    def test_dumps_of_older_versions_are_cleaned_beside_new_ones(self):
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
        """Run a table of (message, argv)."""
        for message, argv in cases:
            self.refuse(message, *argv, data=b'data')

    def refused(self, message, result):
        self.assertEqual((result.status, result.out), (2, b''), result)
        self.assertRegex(result.err, r'\As3dump: [^\n]*(?:%s)[^\n]*\n\Z' % message)
        self.assertEqual(self.server.log, [])

    def test_a_wrong_command_line_is_refused(self):
        dump = ['dump', '/home', '0']
        self.refuse_all((
                ('no command: dump, restore', ['-q']),
                ('unknown command .dmp. .did you mean dump', ['dmp', '/home', '0']),
                ('unknown option --storageclass .did you mean --storage-class',
                 dump + ['--storageclass', 'X']),
                ("--completion: 'fish' is not one of bash, zsh", ['--completion', 'fish']),
                ('unknown option --keep .did you mean --keep-daily or', ['clean', '--keep', '3']),
                ('unknown option --bogus; see', ['list', '--bogus']),
                ('unknown option -c; a PROGRAM goes after --', dump + ['tar', '-cz']),
                ('dump takes FS LEVEL .-- PROGRAM', dump + ['tar', 'cz']),
                ("--limit-rate: '--' is not a rate", dump + ['--limit-rate=--']),
                ('--json or --long, not both', ['list', '--json', '--long']),
                ('--at or --deleted, not both', ['list', '--at', '3d', '--deleted']),
                ('verify takes no --deleted', ['verify', '/', '0', '--deleted']),
                ('--locked', ['check', '/', '0', '--locked', 'long']),
                ("--patience: '8d' is not a time from 1s to 7d", ['list', '--patience', '8d']),
                ('unknown command', ['backup']),
                ('unknown command', ['']),
                ('unknown option -Z', ['-Z'] + dump),
                # up to Python 3.12, and later
                ("argument 'x'|unknown option -x", ['list', '-ax']),
                ("argument '1'|unknown option -1", ['dump', '/home', '-q1']),
                ('--config', ['list', '-f']),
                ('dump takes FS LEVEL', ['dump', '/home']),
                ('dump takes FS LEVEL', dump + ['1']),
                ('restore takes FS LEVEL', ['restore']),
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
                ("LEVEL ''", ['restore', '/home', '']),
                ("'2026-02-30'", dump + ['-w', '2026-02-30']),
                ("'26-02-03'", dump + ['-w', '26-02-03']),
                ("'today'", dump + ['--date', 'today']),
                ("'0000-01-01'", dump + ['-w', '0000-01-01']),
                ("host label 'a/b'", dump + ['-h', 'a/b']),
                ("host label 'a:b'", ['clean', '1', '--host', 'a:b']),
                ('host label is empty', ['list', '-h', '']),
                ('more than 1000 bytes', ['dump', '/x' * 500, '0']),
                ('more than 1000 bytes', ['dump', '/' + 'ü' * 480, '0']),
                ('more than 1000 bytes', ['dump', '-k', 'k' * 1001]),
                ("how many dumps to keep: '0' is not a number from 1", ['clean', '0']),
                ("how many dumps to keep: '-1' is not a number from 1", ['clean', '-1']),
                ("how many dumps to keep: '0' is not a number from 1",
                 ['clean', '0', '--keep-daily', '7']),
                ("how many dumps to keep: 'all' is not a number from 1", ['clean', 'all']),
                ('clean takes', ['clean']),
                ('clean takes', ['clean', '1', '/', '0', '2']),
                ('--limit-rate', dump + ['-L', '0']),
                ('--limit-rate', dump + ['-L', '-1']),
                ('--limit-rate', dump + ['-L', 'abc']),
                ('--limit-rate', dump + ['-L', '']),
                ('--limit-rate', dump + ['-L', '1e3']),
                ('--limit-rate', dump + ['-L', '\u0663']),
                ('--limit-rate', dump + ['-L', '10\n']),
                ("--jobs: '0' is not a number from 1 to 64, or auto", dump + ['-j', '0']),
                ('--min-size', dump + ['--min-size', 'some']),
                ('--accept-status', dump + ['--accept-status', '1,x', '--', 'true']),
                ('--expires', ['url', '/', '0', '--expires', '8d']),
                ('--expires', ['url', '/', '0', '--expires', '0s']),
                ('--expires', ['url', '/', '0', '--expires', 'soon']),
                ('restore takes no --overwrite', ['restore', '/', '0', '--overwrite']),
                ('--overwrite needs -k KEY or --fixed-key', dump + ['--overwrite']),
                ('--accept-status needs a PROGRAM', dump + ['--accept-status', '1']),
                ('--retain-mode needs --retain', dump + ['--retain-mode', 'governance']),
                ('--tier needs --thaw', ['verify', '/', '0', '--tier', 'standard']),
                ('list takes no --yes', ['list', '-y']),
                ('no program', dump + ['--']),
                ('not UTF-8', [b'dump', b'/h\xff', b'0'])))

    def test_options_of_the_original_go_with_any_of_its_commands(self):
        key, theirs = self.place(), self.place(host='other')
        acl = self.succeed('getacl', '-k', key).out
        everything = ['-iak', '', '-w', 'never', '-f', self.config, '-qL', '300m', '-h', HOST]
        for command in ('list', 'init', 'initialize', 'clean 3'):
            self.succeed(*everything, *command.split())
        everything[1:4] = key, '-w', 'never'
        for command in ('restore', 'retrieve', 'getacl', 'putacl', 'delete'):
            self.succeed(*everything, command, data=acl)
        self.succeed('dump', '-ak', 'key', '-w', '2009-12-31', data=b'data')
        self.assertEqual(self.keys(), ['key', theirs])
        self.succeed('-i', '-a', 'delete', '/home', '0', '-w', '2020-01-10', '-h', 'other')
        self.assertEqual(self.keys(), ['key'])

    def test_options_of_ours_are_strict(self):
        self.refuse_all([('%s takes no --%s' % (command, long), [command, '/', '0', option, 'x'])
                         for command, option, long in (
                             ('verify', '-i', 'infrequent-access'), ('verify', '-a', 'all'),
                             ('check', '-i', 'infrequent-access'), ('url', '-a', 'all'),
                             ('url', '-i', 'infrequent-access'))] + [
            ('check takes no --key', ['check', '-k', 'x', '/', '0']),
            ('check takes no --date', ['check', '-w', '2009-12-31', '/', '0']),
            ('-k KEY takes neither', ['url', '-k', 'x', '-w', '2009-12-31']),
            ('-k KEY takes neither', ['dump', '-k', 'x', '--fixed-key']),
            ('not both', ['restore', '-k', 'x', '/', '0']),
            ('list takes no --storage-class', ['list', '--storage-class', 'STANDARD']),
            ("'never'", ['delete', '/', '0', '-w', 'never'])])

    def test_a_wrong_command_line_leaves_the_stream_unread(self):
        self.must_not_read(2, 'not an integer', 'dump', '/home', 'x')

    def test_a_wrong_configuration_is_refused(self):
        good = self.server.config()
        cases = (
                (':6: unknown setting bucket', good + 'bucket name\n'),
                (':7: region: it has no value', good + '\nregion \n'),
                (':6: region: it is set twice', good + 'region eu-west-1\n'),
                (':6: part_size', good + 'part_size 4m\n'),
                (':6: jobs', good + 'jobs many\n'),
                (':6: addressing', good + 'addressing sideways\n'),
                (':6: limit_rate', good + 'limit_rate 0\n'),
                (":6: patience: '0s' is not a time", good + 'patience 0s\n'),
                ('UTF-8', good.encode() + b'profile \xff\n'),
                ('UTF-8|unknown setting', b'\x7fELF\0\0\xff'),
                ('no bucket: .* into .*/10.conf', good.replace('bucket_name', '#')),
                ('no credentials: .* into .*/11.conf; there is no access_key_id in the conf',
                 good.replace('access_key_id', '#').replace('secret', '#')),
                ('is incomplete', good.replace('access_key_id', '#')),
                ('is incomplete', good.replace('secret_access_key', '#')),
                ('not a URL', good.replace('http://', 'ftp://')),
                ('not a URL', good.replace('http://', '')),
                ('not a valid region', good.replace('us-east-1', 'us/east')),
                ('no bucket', ''))
        self.refuse_all([(message, ['list', '-f', self.write_file(text, '%d.conf' % number)])
                         for number, (message, text) in enumerate(cases)])
        path = self.write_file(good + 'bucket name\n', 'other config')
        self.refuse('%s:6: unknown setting bucket' % re.escape(path), '-f', path, 'list')
        for message, path in (('No such file', 'missing'), ('Is a directory', '.')):
            self.refuse('cannot read %s: %s' % (re.escape(path), message), '-f', path, 'list')
            self.refuse(message, 'list', env={'S3DUMP_CONFIG': path})
        self.refuse("cannot read '': No such file", '-f', '', 'list')   # of a variable, unset
        os.remove(self.config)
        os.symlink('nowhere', self.config)
        self.refuse('cannot read .*/.s3keys: No such file', 'list')
        os.remove(self.config)

    def test_a_terminal_where_data_is_expected_is_refused(self):
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        self.addCleanup(os.close, slave)
        self.refuse('dump reads a stream', 'dump', '/home', '0', stdin=slave)
        self.refuse('putacl', 'putacl', '/home', '0', stdin=slave)
        self.refuse('restore writes a stream', 'restore', '/home', '0', stdout=slave)
        self.succeed('dump', '/home', '0', '--', 'echo', 'data', stdin=slave)

    def test_without_arguments_it_says_the_first_steps(self):
        result = self.run_program()
        self.assertEqual((result.status, result.out), (2, b''))
        for text in ('no command', 'init', 'dump /home 0', 'restore /home 0', '--help'):
            self.assertIn(text, result.err)
        self.assertLess(max(map(len, result.err.splitlines())), 80)

    def test_help_tells_what_a_command_takes_and_needs_no_configuration(self):
        for argv, words, others in (
                (['--help'], '--retain dump restore clean --limit-rate --host', ''),
                (['dump', '--help'], '--retain --key --limit-rate', '--keep-daily --thaw'),
                (['--help', 'initialize'], 'create the bucket', '--key restore'),
                (['help', 'list'], '--long', '--key --thaw')):
            result = self.succeed(*argv)
            text = result.out.decode()
            self.assertEqual(result.err, '')
            self.assertEqual([word for word in words.split() if word not in text], [])
            self.assertEqual([word for word in others.split() if word in text], [])
            self.assertLess(max(map(len, text.splitlines())), 80)
        self.assertRegex(self.succeed('--version').out, rb'\As3dump \d+\.\d+\S*\n\Z')
        os.remove(self.config)
        self.succeed('--help')
        for command in s3dump.COMMANDS:
            text = self.succeed('--help', command).out.decode()
            self.assertLess(max(map(len, text.splitlines())), 80)
            self.assertIn('usage: s3dump.py %s ' % command, text)
            self.assertEqual(re.findall('(?m)^options of (.*):$', text),    # its own come first
                             [command] * (command != 'init') + ['all commands'])


class CompletionTests(ProgramTestCase):

    @unittest.skipUnless(shutil.which('bash'), 'there is no bash')
    def test_a_shell_completes_commands_and_options(self):
        script = self.succeed('--completion', 'bash').out.decode()
        words = re.search("-W '(.*)' s3dump.py s3dump s3dump.pyz\n", script).group(1)
        self.assertEqual(words.split(), [*s3dump.COMMANDS, *s3dump.ALIASES, *(
            flag for each in s3dump.OPTIONS for flag in each.flags)])
        subprocess.check_call(['bash', '-c', script])
        zsh = self.succeed('--completion', 'zsh').out.decode()
        self.assertIn(script, zsh)
        if shutil.which('zsh'):
            subprocess.check_call(['zsh', '-c', 'autoload -U compinit && compinit -D; ' + zsh])


class ConfigurationTests(ProgramTestCase):

    def test_blanks_comments_and_carriage_returns_do_no_harm(self):
        lines = ['\ufeff# comment', ''] + [line.replace(' ', ' \t ') + '  '
                                          for line in self.server.config().splitlines()]
        for ending in ('\n', '\r\n'):
            self.write_file(ending.join(lines + ['   # more']))
            self.assertEqual(self.succeed('-q', 'clean', '1'), (0, b'', ''))

    def test_a_secret_that_others_may_read_is_warned_of(self):
        self.place('/', stored=time.time())
        for mode in (0o640, 0o604, 0o644):
            path = self.write_file(self.server.config(), 'open', mode)
            self.assertRegex(self.succeed('-f', path, 'check', '/', '0').err,
                             r'\As3dump: warning: %s .* chmod 600 .*\n\Z' % re.escape(path))
            self.assertEqual(self.succeed('-qf', path, 'check', '/', '0').err, '')
        self.write_file(self.server.config().replace('secret', '#'), 'open', 0o644)
        environment = {'AWS_ACCESS_KEY_ID': self.server.access_key,
                       'AWS_SECRET_ACCESS_KEY': self.server.secret_key}
        text = re.sub('access_key_id.*|secret_access.*', '', self.server.config())
        path = self.write_file(text, 'open', 0o644)
        self.assertEqual(self.succeed('-f', path, 'list', env=environment).err, '')

    def test_the_option_goes_before_the_variable_and_that_before_the_home_directory(self):
        for number in range(3):
            self.server.add_bucket('bucket%d' % number)
            self.write_file(self.server.config(bucket_name='bucket%d' % number),
                              ('first', 'second', '.s3keys')[number])
        variable = {'S3DUMP_CONFIG': 'second'}
        for argv, env in ((['-f', 'first'], variable), ([], variable), ([], {})):
            self.succeed('list', '-q', *argv, env=env)
        self.assertEqual([request.bucket for request in self.server.log
                          if request.operation == 'ListObjectsV2'],
                         ['bucket0', 'bucket1', 'bucket2'])

    def test_the_environment_alone_is_a_configuration(self):
        os.remove(self.config)
        environment = {'AWS_ACCESS_KEY_ID': self.server.access_key, 'S3DUMP_BUCKET': 'bucket',
                       'AWS_SECRET_ACCESS_KEY': self.server.secret_key,
                       'AWS_ENDPOINT_URL': self.server.url, 'AWS_REGION': 'us-east-1'}
        self.succeed('list', env=environment)
        self.assertEqual(self.succeed('list', env=environment, bare=True).err,
                         's3dump: there is no dump of host %s\n' % HOST)
        del environment['AWS_SECRET_ACCESS_KEY']
        self.must_fail(2, 'is incomplete', 'list', env=environment)

    def test_the_key_may_come_from_where_the_aws_tools_find_it(self):
        self.write_file('endpoint %s\nbucket_name bucket\n' % self.server.url)
        self.server.add_user('TEMPORARY', 'secretOFuser', session_token='tokenOFuser')
        with CredentialServices() as services:
            services.issue('TEMPORARY', 'secretOFuser', 'tokenOFuser', 3600)
            path = self.write_file(services.web_identity_token, 'token')
            process = self.write_file('import json; print(json.dumps(dict(Version=1, AccessKeyId='
                                        '"TEMPORARY", SecretAccessKey="secretOFuser", '
                                        'SessionToken="tokenOFuser")))', 'process.py')
            profile = self.write_file('[profile of mine]\ncredential_process = %s %s\n' % (
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
            self.assertRegex(result.err, 'the URLs end with the credentials that sign them, at 20')

    def test_without_a_key_the_stream_is_not_read(self):
        self.write_file('endpoint %s\nbucket_name bucket\n' % self.server.url)
        self.must_not_read(2, 'no credentials: .*no EC2 instance role', 'dump', '/', '0')

    def test_the_host_label_is_that_of_the_first_who_says(self):
        variable = {'S3DUMP_HOST': 'variable'}
        for argv, settings, env, label in (
                (['-h', 'option'], {'host': 'file'}, variable, 'option'),
                ([], {'host': 'bü ro'}, dict(variable, LC_ALL='C'), 'bü ro'),
                ([], {}, dict(variable, S3DUMP_HOST='bü ro', LC_ALL='C'), 'bü ro'),
                ([], {}, {'S3DUMP_HOST': ''}, HOST)):
            self.configure(**settings)
            self.server.objects.clear()
            key = self.dump(b'data', '/home', '0', *argv, env=env)
            self.assertEqual(key.split(':')[0], label)
            self.succeed('check', '/home', '0', *argv, env=env)
            self.place(host='other')
            out = self.succeed('list', '-a', env=env).out.decode()
            self.assertEqual('Dumps for this host (%s):\n/home' % label in out, not argv)
            self.assertEqual(out.count('Dumps for this host ('), not argv)
            self.assertIn('Dumps for other:', out)
            self.succeed('clean', '1', *argv, env=env)
            self.succeed('delete', '-k', key)

    def test_a_wrong_host_label_is_told_by_where_it_is_set(self):
        for label in ('a:b', 'a/b', 'a\x1bb'):
            path = self.write_file(self.server.config() + 'host %s\n' % label, 'bad')
            self.must_fail(2, '%s:6: host: .* is not a label' % re.escape(path), '-f', path, 'list')
            self.must_fail(2, r'\$S3DUMP_HOST: host label', 'list', env={'S3DUMP_HOST': label})
            self.succeed('list', '-q', '-h', 'good', env={'S3DUMP_HOST': label})
        self.must_fail(2, r'\$S3DUMP_HOST: .*not UTF-8', 'list', env={'S3DUMP_HOST': b'b\xfcro'})
        self.assertEqual(self.server.operations().count('ListObjectsV2'), 3)

    @unittest.skipIf(ssl is None, 'this Python has no ssl')
    def test_server_names_a_host_that_speaks_https(self):
        path = self.write_file(CERTIFICATE, 'server.pem')
        with S3Server(certfile=path) as server:
            text = server.config().replace('endpoint https://', 'server ')
            self.write_file(text)
            self.dump(b'data', '/home', '0')
            self.assertEqual(self.succeed('restore', '/home', '0').out, b'data')
            self.assertEqual(server.violations, [])
            self.write_file(re.sub('ca_bundle.*', '', text))
            self.must_fail(1, 'certificate is not accepted', 'list')

    def test_a_machine_may_have_any_name(self):
        def named(name):
            return in_python("""if True:
                import collections, os
                name = collections.namedtuple('Name', 'nodename')(os.fsdecode(%r))
                os.uname = lambda: name""" % name)

        for env in ({'LC_ALL': 'C'}, {'LC_ALL': 'C.UTF-8'}):
            self.assertIn(b'(localhost)', self.succeed('list', env=env, prefix=named(b'')).out)
            key = self.dump(b'data', '/', '0', env=env, prefix=named('büro.example'.encode()))
            self.assertEqual(key.split(':')[0], 'büro')
            for name in (b'b\xfcro', b'a:b'):
                self.must_fail(2, "this machine's name: .* -h NAME, or `host NAME`", 'list',
                               env=env, prefix=named(name))
                self.assertIn('Dumps for büro:\n', self.succeed(
                    '-h', 'büro', 'list', env=env, prefix=named(name)).out.decode())

    def test_a_python_without_ssl_speaks_http_and_says_why_not_https(self):
        without = in_python('import sys; sys.modules["ssl"] = sys.modules["_ssl"] = None')
        self.succeed('dump', '/home', '0', data=b'data', prefix=without)
        self.assertEqual(self.succeed('restore', '/home', '0', prefix=without).out, b'data')
        self.configure(endpoint='https://127.0.0.1')
        self.must_fail(2, 'built without ssl', 'list', prefix=without)


# --- Listing and rotation ----------------------------------------------------

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

    def test_the_dumps_of_this_host_are_listed_with_what_they_cost(self):
        self.fill()
        self.assertEqual(self.listing(TZ='EST5'),
                         self.ours + 'Total data stored: 10.9G ($0.15/month)\n')
        self.assertEqual({request.query.get('prefix') for request in self.server.log}, {HOST + ':'})

    def test_one_file_system_is_listed_alone(self):
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

    def test_another_host_and_all_hosts_are_listed_when_asked(self):
        self.fill()
        zebra = 'Dumps for zebra:\n/\nLevel 0 2020-01-01:        5\n\n'
        self.assertEqual(self.listing('-h', 'zebra'),
                         zebra + 'Total data stored: 5 ($0.00/month)\n')
        listing = self.listing('-a', TZ='EST5')
        sections = [self.ours, zebra] if HOST < 'zebra' else [zebra, self.ours]
        self.assertTrue(listing.startswith(''.join(sections)), listing)
        self.assertIn('\n\nTotal data stored: 10.9G ($0.15/month)\n', listing)
        self.assertRegex(listing, r'\nOther objects[^\n]*: 2, 2\.0k\n')

    def test_nothing_is_printed_before_the_first_answer(self):
        self.fill()
        for argv in ([], ['-a'], ['/home']):
            self.server.fault('ListObjectsV2', 'status', status=403, code='AccessDenied')
            self.assertEqual(self.must_fail(1, 'AccessDenied', 'list', *argv).out, b'')

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
            self.place_upload(str(number), key, days * DAY)
        oldest = time.strftime('%Y-%m-%d', time.gmtime(time.time() - 40 * DAY))
        lines = self.listing(TZ='UTC0').splitlines()
        self.assertRegex(lines[-2], r'\ATotal data stored: 100 ')
        self.assertRegex(lines[-1], r'\AUnfinished uploads: 2, the oldest of %s' % oldest)
        client = SigningClient(self.server)
        self.addCleanup(client.close)
        path = url_path(key)
        upload_id = re.search('<UploadId>(.*)</UploadId>', client(
            'POST', path + '?uploads=').body.decode()).group(1)
        for number in (1, 2):
            client('PUT', '%s?partNumber=%d&uploadId=%s' % (path, number, upload_id),
                   bytes(1000 * number))
        self.assertIn('\nUnfinished uploads: 3, 2.9k, the oldest', self.listing(TZ='UTC0'))
        self.server.quirks.add('no-uploads-list')
        self.assertRegex(self.listing(), r'\nTotal data stored: [^\n]*\n\Z')

    def test_only_what_belongs_to_a_file_system_is_counted_with_it(self):
        for number, fs in enumerate(('/home', '/srv', '/srv')):
            self.place_upload(str(number), self.place(fs), 60)
        for number, fs in enumerate(('/home', '/srv', '/srv', '/srv')):
            self.server.put('%s:%s:0:2020-01-%02d.end_000001' % (HOST, fs, number + 1), b'')
        self.place_upload('no dump', HOST + ':note', 60)
        for argv, count in ([], 8), (['/home'], 2), (['/srv'], 5):
            for more in [], ['-a']:
                self.assertIn('\nUnfinished uploads: %d, the oldest' % count,
                              self.listing(*argv, *more))

    def test_the_size_of_more_than_a_hundred_unfinished_uploads_is_not_asked_for(self):
        for number in range(101):
            self.place_upload(str(number), HOST + ':/home:0:2020-01-10', 60)
        self.assertIn('\nUnfinished uploads: 101, the oldest of', self.listing())
        self.assertNotIn('ListParts', self.server.operations())
        self.server.uploads.popitem()
        self.assertIn('\nUnfinished uploads: 100, the oldest of', self.listing())
        self.assertEqual(len(self.asked('ListParts')), 100)

    def test_a_line_per_dump_is_fit_for_sort_and_awk(self):
        keys = [self.place('/', size=2000), self.place('/my home', size=30, metadata={}),
                self.place('/x', host='other', storage_class='GLACIER')]
        self.server.put('note', bytes(7), modified=self.noon('2020-01-01'))
        self.server.put(keys[1] + '.end_000004', b'', modified=self.noon('2020-01-01'))
        rows = [(2000, '2020-01-10T12:00:00Z', 1, 'STANDARD', 'whole', keys[0]),
                (30, '2020-01-10T12:00:00Z', 2, 'STANDARD', 'broken', keys[1]),
                (100, '2020-01-10T12:00:00Z', 1, 'GLACIER', 'whole', keys[2]),
                (7, '2020-01-01T12:00:00Z', 1, 'STANDARD', 'other', 'note')]
        self.assertEqual(self.listing('--long', '-a'), ''.join(
            '%15d %s %3d %-12s %-6s %s\n' % row for row in sorted(rows, key=lambda row: row[5])))
        self.assertEqual([line.split(None, 5)[5] for line in self.listing(
            '--long').splitlines()], keys[:2])

    def test_a_key_that_may_only_list_is_enough(self):
        self.server.add_user('LISTER', 'sesame', allow={'ListObjectsV2'})
        self.configure(access_key_id='LISTER', secret_access_key='sesame')
        self.server.put(self.place() + '.end_000000', b'')
        self.assertRegex(self.listing(), r'\nLevel 0 2020-01-10:      100\n\nTotal [^\n]*\n\Z')

    def test_an_empty_bucket_has_a_total_of_nothing(self):
        self.assertEqual(self.listing(), '\n'.join((
            'Dumps for this host (%s):' % HOST, '', 'Total data stored: 0 ($0.00/month)', '')))
        self.assertEqual(self.listing('--json'), '')

    def test_a_host_without_dumps_is_told_which_hosts_there_are(self):
        self.server.page_size = 2
        self.addCleanup(setattr, self.server, 'page_size', 1000)
        self.server.put('note', b'')
        self.server.put('crashed:/:0:2020-01-01.volume_000001', b'')
        for host in ('web', 'mail', 'web', 'm\x1bl'):
            self.place(host=host)
        for argv in ([], ['/home']):
            result = self.succeed('list', *argv)
            self.assertEqual(result.err, 's3dump: there is no dump of host %s; there are dumps of '
                             'm\\x1bl, mail, web (-h NAME, or -a for all)\n' % HOST)
            self.assertIn(b'\nTotal data stored: 0', result.out)
        for argv in (['-q'], ['-a'], ['--json'], ['--long'], ['-h', 'mail']):
            self.assertEqual(self.succeed('list', *argv).err, '')
        self.assertEqual(self.succeed('list', 'home', '-h', 'web').err, 's3dump: there is no dump '
                         'of home of host web; there are dumps of /home\n')
        self.assertEqual(self.succeed('list', '--deleted', '-h', 'web').err, '')
        self.assertIn('there are dumps of m', self.succeed('list', 'web').err)
        for number in range(30):
            self.place(host='node%d' % number)
        self.assertIn(', node24 and 13 more (-h', self.succeed('list').err)
        for status, code in ((403, 'AccessDenied'), (400, 'InvalidRequest')):
            self.server.fault('ListObjectsV2', 'status', status=status, code=code, times=None,
                              where=lambda exchange: not exchange.query['prefix'])
            self.assertEqual(self.succeed('list', '/x').err,
                             's3dump: there is no dump of host %s\n' % HOST)
            self.server.clear_faults()

    def test_a_key_that_is_not_ascii_is_listed_and_restored_in_any_locale(self):
        self.server.put('%s:/ünï→日本:0:2009-10-07' % HOST, b'data',
                        modified=self.noon('2009-10-07'))
        for locale in ({}, {'LC_ALL': 'C'}, {'LC_ALL': 'POSIX', 'PYTHONIOENCODING': 'ascii'}):
            result = self.succeed('-f', self.config, 'list', env=locale, bare=True)
            self.assertIn('\n/ünï→日本\nLevel 0 2009-10-07:        4\n', result.out.decode('utf-8'))
        result = self.succeed('-f', self.config, 'restore', '/ünï→日本', '0', bare=True)
        self.assertEqual(result.out, b'data')

    def test_more_than_a_page_of_keys_is_listed(self):
        self.server.page_size = 2
        self.addCleanup(setattr, self.server, 'page_size', 1000)
        keys = sorted(self.place('/%d' % number) for number in range(5))
        lines = self.listing('--json').splitlines()
        self.assertEqual([json.loads(line)['key'] for line in lines], keys)


class CleanTests(ProgramTestCase):

    def clean(self, *argv, status=0, **options):
        result = self.run_program('clean', *argv, **options)
        self.assertEqual(result.status, status, result.err)
        return result

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
        self.assertEqual(self.clean('2', '-q'), (0, b'', ''))

    def test_it_goes_by_the_date_label_then_by_the_time_stored(self):
        kept = [self.place(date='2020-01-03', stored=self.noon('2020-01-03')),
                self.place(date='2020-01-02', stored=self.noon('2020-01-02') + 9)]
        self.place(date='2020-01-02', stored=self.noon('2020-01-02') + 1)
        self.place(date='2020-01-01', stored=self.noon('2020-01-09'))
        self.clean('2')
        self.assertEqual(self.keys(), sorted(kept))

    def test_a_dry_run_says_what_would_go_and_deletes_nothing(self):
        keys = [self.place(date='2020-01-0%d' % number) for number in (1, 2, 3)]
        result = self.clean('1', '-n', '--keep-yearly', '1')
        self.assertEqual(self.keys(), sorted(keys))
        self.assertNotIn('DeleteObject', self.server.operations())
        self.assertEqual(result.out.decode(), ''.join((
            'keep %s       100  last, yearly\n' % keys[2], 'go   %s       100\n' % keys[1],
            'go   %s       100\n' % keys[0],
            '2 dumps would go, which saves 200 ($0.00/month)\n')))
        self.assertIn('\n1 dump would go, which saves 100 ', self.clean('2', '-n').out.decode())

    def test_it_is_said_that_there_is_nothing_to_delete(self):
        self.place()
        self.assertEqual(self.clean('1').err, 's3dump: nothing to delete\n')
        self.assertEqual(self.clean('1', '-q').err, '')
        self.place_upload('id', HOST + ':/home:0:2020-01-10', 40 * DAY)
        self.assertEqual(self.clean('1').err, 's3dump: deleted an unfinished upload of %s\n'
                         % (HOST + ':/home:0:2020-01-10'))
        self.assertEqual(self.server.uploads, {})

    def test_calendar_rules_keep_what_n_does_not(self):
        keys = [self.place(date=date) for date in (
            '2019-05-05', '2020-01-01', '2020-01-02', '2020-01-03')]
        self.clean('1', '--keep-yearly', '2')
        self.assertEqual(self.keys(), [keys[0], keys[3]])
        self.assertIn(b' 100  monthly\n', self.clean('--keep-monthly', '1', '-n').out)
        self.clean('--keep-monthly', '1')
        self.assertEqual(self.keys(), [keys[3]])

    def test_what_a_kept_dump_builds_upon_is_kept_unless_forced(self):
        base = self.place(date='2020-01-01')
        middle = self.place(level='1', date='2020-01-02')
        top = self.place(level='2', date='2020-01-03')
        gone = self.place(level='1', date='2020-01-04')
        kept = [self.place(level='1', date='2020-01-06'), self.place(date='2020-01-05')]
        said = 's3dump: %s is kept: %s builds upon it\n'
        said = said % (middle, top) + said % (base, middle)
        result = self.clean('1', '-n')
        self.assertIn('keep %s       100  base\n' % base, result.out.decode())
        self.assertEqual((result.out.count(b'\nkeep'), result.err), (4, said))
        self.assertEqual(self.clean('1').err, said + 's3dump: deleted %s, 100\n' % gone)
        self.assertEqual(self.clean('1', '-q'), (0, b'', ''))
        self.assertEqual(self.keys(), sorted([base, middle, top] + kept))
        self.assertEqual(self.clean('1', '--force').err, ''.join(
            's3dump: %s\n' % text for text in (
                '%s goes all the same: %s builds upon it' % (middle, top),
                'deleted %s, 100' % middle, 'deleted %s, 100' % base)))
        self.assertEqual(self.keys(), sorted([top] + kept))

    def test_a_base_is_kept_for_what_is_locked_or_left_alone_or_not_asked_for(self):
        base = self.place(date='2020-01-01')
        locked = self.place(level='1', date='2020-01-02', legal_hold='ON')
        kept = [self.place(level='1', date='2020-01-04'), self.place(date='2020-01-03')]
        self.assertIn('%s is kept: %s builds upon it\n' % (base, locked), self.clean('1').err)
        self.server.objects[locked].legal_hold = None
        for level, left in (('0', 4), ('1', 3), ('0', 2)):
            self.clean('1', '/home', level)
            self.assertEqual(len(self.keys()), left)
        self.assertEqual(self.keys(), sorted(kept))
        base = self.place(date='2020-01-01')
        self.place(level='1', date='2020-01-02', size=1000)
        self.assertIn('level 1 is left alone', self.clean('1', '--min-ratio', '0.5', status=1).err)
        self.assertIn(base, self.keys())

    def test_bases_that_a_thief_makes_do_not_make_what_is_kept_look_large(self):
        real = [self.place(date='2020-01-%02d' % day, size=1000) for day in range(1, 11)]
        for day in (5, 8):
            self.place(level='1', date='2020-01-%02d' % day, size=1)
            self.place(date='2020-02-%02d' % day, size=1)
        self.assertIn('level 0 is left alone', self.clean('2', status=1).err)
        self.assertLessEqual(set(real), set(self.keys()))

    def test_bases_that_stay_are_none_that_would_go(self):
        base = self.place(date='2020-01-01', size=1000)
        kept = [self.place(level='1', date='2020-01-02'), self.place(date='2020-01-03')]
        self.assertIn('%s is kept: %s' % (base, kept[0]), self.clean('1').err)
        self.assertEqual(self.keys(), sorted([base] + kept))

    def test_a_base_that_is_missing_is_pointed_out(self):
        orphan = self.place(level='2', fs='/x', date='2020-01-05')
        self.place(fs='/x', date='2020-01-06')
        self.assertEqual(self.clean('1', '-n').err, 's3dump: %s is kept, but there is no older '
                         'dump of a lower level\n' % orphan)
        self.assertNotIn('builds upon', self.clean('1', '-q').err)

    def test_it_is_done_for_one_file_system_or_one_level_alone(self):
        def fill():
            self.server.objects.clear()
            for host in (HOST, 'other'):
                for fs in ('/home', '/home/', '/home/x'):
                    for level in ('0', '1'):
                        for day in (1, 2, 3):
                            self.place(fs, level, '2020-01-0%d' % day, host)

        for argv, hosts, filesystems, levels in (
                ('1', 1, ['/home', '/home/', '/home/x'], '01'),
                ('1 /home', 1, ['/home', '/home/'], '01'),
                ('1 /home/ 1', 1, ['/home', '/home/'], '1'),
                ('1 /home/x 1 -a', 2, ['/home/x'], '1'),
                ('/home 1 --keep-yearly 1', 1, ['/home', '/home/'], '1'),
                ('--keep-yearly 1 -a', 2, ['/home', '/home/', '/home/x'], '01')):
            with self.subTest(argv):
                fill()
                before = set(self.keys())
                self.clean(*argv.split(), '--force')
                gone = [key.split(':')[:3] for key in before.difference(self.keys())]
                self.assertEqual(sorted(set(map(tuple, gone))), sorted(
                    (host, fs, level) for host in (HOST, 'other')[:hosts] for fs in filesystems
                    for level in levels))

    def test_a_file_system_without_dumps_is_told_so(self):
        self.place()
        self.assertEqual(self.clean('1', '/hme').err, 's3dump: there is no dump of /hme of host '
                         '%s; there are dumps of /home\ns3dump: nothing to delete\n' % HOST)

    def test_what_a_crash_left_goes_where_it_was_asked_for(self):
        for fs in ('/home', '/x'):
            for level in '01':
                self.place_upload(fs + level, '%s:%s:%s:2020-01-10' % (HOST, fs, level), 40 * DAY)
                self.server.put('%s:%s:%s:2020-01-10.volume_000001' % (HOST, fs, level), b'',
                                modified=self.noon('2020-01-10'))
        for argv, left in ((['/home', '1'], 3), (['/home'], 2), (['/x', '0', '-a'], 1), ([], 0)):
            self.clean('1', *argv)
            self.assertEqual((len(self.keys()), len(self.server.uploads)), (left, left))

    def test_tiny_dumps_do_not_hide_that_large_ones_would_go(self):
        real = [self.place(date='2020-01-%02d' % day, size=1000) for day in range(1, 11)]
        junk = [self.place(date='2020-02-%02d' % day, size=1) for day in range(1, 4)]
        for _ in range(40):
            self.place(date='2001-01-01', size=1)
        self.assertIn('is left alone', self.clean('3', status=1).err)
        self.assertLessEqual(set(real + junk), set(self.keys()))

    def test_a_dry_run_says_that_what_is_locked_stays(self):
        lock = {'lock_mode': 'GOVERNANCE', 'lock_until': int(time.time()) + DAY}
        held = [self.place(date='2020-01-0%d' % day, **lock) for day in (2, 1)]
        left = HOST + ':/x:0:2020-01-01'
        self.server.put(s3.volume_key(left, 1), b'', modified=self.noon('2020-01-01'), **lock)
        kept = self.place(date='2020-01-03')
        result = self.clean('1', '-n')
        self.assertEqual(result.out.decode(), ''.join((
            'keep %s       100  last\n' % kept, 'keep %s       100  locked\n' % held[0],
            'keep %s       100  locked\n' % held[1],
            '0 dumps would go, which saves 0 ($0.00/month)\n')))
        self.assertEqual(result.err, ''.join('s3dump: %s is locked until %s\n' % (
            key, s3.utc(lock['lock_until'])) for key in held + [left]))
        self.assertEqual(self.clean('1').err, result.err + 's3dump: nothing to delete\n')
        for argv in (['-n'], []):
            result = self.run_program('delete', '-k', held[0], *argv)
            self.assertEqual((result.status, result.out), (1, b''))
            self.assertRegex(result.err, 'is locked until .*\n.*nothing was deleted')

    def test_the_locks_of_all_that_would_go_are_asked_for_side_by_side(self):
        keys = [self.place(date='2020-01-0%d' % day) for day in (1, 2, 3, 4)]
        stalled = self.server.fault('HeadObject', 'stall', when='start')
        process = self.start('clean', '1')
        until(lambda: len(self.asked('HeadObject')) == 2, 'the other locks')
        stalled.release.set()
        self.assertEqual(self.finish(process).status, 0)
        self.assertEqual(sorted(self.asked('HeadObject')), keys[:3])
        self.assertEqual(self.keys(), keys[3:])

    def test_a_lock_of_any_volume_keeps_the_whole_dump(self):
        self.configure(part_size='5m', max_parts='1')
        self.succeed('dump', '/home', '0', '-w', '2020-01-01', '--retain', '30',
                     data=bytes(PART + 1))
        self.assertNotIn(400, [request.status for request in self.server.log])
        first = min(self.keys())
        self.server.objects[first].lock_until = time.time() - 1
        before = self.keys()
        kept = self.place(date='2020-01-03', size=PART + 1)
        self.assertRegex(self.clean('1').err, 'is locked until 2')
        self.assertEqual(self.keys(), sorted(before + [kept]))

    def test_a_legal_hold_has_no_end_and_keeps_a_dump(self):
        held = self.place(date='2020-01-01', legal_hold='ON')
        kept = self.place(date='2020-01-02')
        for argv in (['delete', '-k', held], ['delete', '-k', held, '-n']):
            result = self.run_program(*argv)
            self.assertEqual((result.status, result.out), (1, b''))
            self.assertEqual(result.err, 's3dump: %s is under a legal hold\n'
                             's3dump: %s: nothing was deleted\n' % (held, argv[0]))
        self.assertIn('keep %s       100  locked\n' % held, self.clean('1', '-n').out.decode())
        self.assertIn('%s is under a legal hold\n' % held, self.clean('1').err)
        self.assertEqual(self.keys(), [held, kept])

    def test_a_condition_that_is_refused_does_not_stop_a_deletion(self):
        for status, code in ((501, 'NotImplemented'), (400, 'InvalidArgument'),
                             (403, 'AccessDenied')):
            self.server.objects.clear()
            self.place(date='2020-01-01')
            kept = self.place(date='2020-01-02')
            self.server.fault('DeleteObject', 'status', status=status, code=code)
            self.server.fault('HeadObject', 'status', status=403, times=None)   # lists, deletes
            self.clean('1')
            self.assertEqual(self.keys(), [kept])
            self.server.clear_faults()

    def test_what_was_replaced_since_it_was_listed_stays(self):
        old = self.place(date='2020-01-01', size=100)
        self.place(date='2020-01-02')

        def replace(server, exchange):
            if old in server.objects and server.objects[old].size == 100:
                server.put(old, b'newer')

        self.server.on('DeleteObject', replace)
        self.assertIn('was replaced since it was listed', self.clean('1', status=1).err)
        self.assertEqual(self.server.objects[old].size, 5)
        self.server.hooks.clear()
        self.server.quirks.add('plain-etag')    # a server that lists other ETags than it knows
        self.server.fault('DeleteObject', 'status', status=412, code='PreconditionFailed')
        self.clean('1', '--force')
        self.assertNotIn(old, self.server.objects)

    def test_a_copy_of_the_bucket_changes_neither_order_nor_age(self):
        """All that a copy tells of time is its own day."""
        old = self.place(date='2020-01-01', level='1', storage_class='STANDARD_IA')
        keys = [self.place(date='2020-01-02', level='1', stored=self.noon('2020-01-02') + second)
                for second in (1, 2, 3)]
        late = self.place(fs='/late', date='2020-01-05', stored=self.noon('2020-01-02'))
        for number, key in enumerate([old, *reversed(keys), late]):     # as they were copied
            self.server.objects[key].modified = time.time() - 3600 + number
        for line in self.succeed('list', '--json').out.splitlines():
            shown = json.loads(line)
            stamp = shown['key'].split(':')[4]
            self.assertEqual(re.sub('[-:]', '', shown['stored'])[:15], stamp[:15])
        result = self.run_program('check', '/home', '1')
        self.assertRegex(result.out.decode(), 'FAILED.*dump is [0-9]+ years old.*' + keys[2])
        self.assertIn(keys[2], self.succeed('verify', '/home', '1').err)
        self.assertIn(late, self.clean('1', '-n').err)                  # dated later than stored
        self.assertNotIn('Amazon bills', self.clean('1').err)
        self.assertEqual(self.keys(), sorted([keys[2], late]))

    def test_a_stamp_later_than_the_day_it_was_stored_gains_nothing(self):
        self.place(date='2020-01-01')
        real = self.place(date='2020-01-02')
        forged = self.place(date='2020-01-06', stored=self.noon('2020-01-06'))
        self.server.objects[forged].modified = self.noon('2020-01-02')
        self.assertIn(forged, self.clean('1').err)
        self.assertEqual(self.keys(), sorted([real, forged]))

    def test_differences_have_any_size_unless_a_ratio_is_named(self):
        def place():
            self.server.objects.clear()
            for day, size in enumerate((9000, 9000, 100, 100), 1):
                for level in ('0', '1'):
                    self.place(level=level, date='2020-01-0%d' % day, size=size)

        for argv, left, status in (([], (4, 2), 1), (['--min-ratio', '0.01'], (2, 2), 0),
                                   (['--min-ratio', '0'], (2, 2), 0), (['--force'], (2, 2), 0),
                                   (['--min-ratio', '0.5'], (4, 4), 1),
                                   (['--min-ratio', '0.5', '--force'], (2, 2), 0)):
            with self.subTest(argv):
                place()
                err = self.clean('2', '-q', *argv, status=status).err
                self.assertEqual('less than 0.5 times as large' in err, bool(status))
                levels = [key.split(':')[2] for key in self.keys()]
                self.assertEqual((levels.count('0'), levels.count('1')), left)

    def test_what_is_locked_is_said_and_the_rest_goes(self):
        self.succeed('dump', '/home', '0', '-w', '2020-01-01', '--retain', '30', data=b'data')
        locked = self.keys()[0]
        found = self.server.objects[locked]
        self.assertEqual(found.lock_mode, 'GOVERNANCE')
        self.assertAlmostEqual(found.lock_until, time.time() + 30 * DAY, delta=60)
        gone = self.place(date='2020-01-02', size=4)
        kept = self.place(date='2020-01-03', size=4)
        result = self.clean('1')
        self.assertRegex(result.err, '%s is locked until 2' % re.escape(locked))
        self.assertEqual(self.clean('1', '-q').err, '')
        self.assertEqual(self.keys(), sorted([locked, kept]))
        self.assertNotIn(gone, self.keys())
        self.assertRegex(self.run_program('delete', '-k', locked).err,
                         'is locked until .*\n.*nothing was deleted')

    def test_a_listing_in_another_order_tears_no_dump_apart(self):
        self.server.quirks.add('unsorted')
        sizes = {'x-amz-meta-dump-id': 'placed', 'x-amz-meta-volume-size': '100'}
        for host in 'db1', 'db2', HOST:
            for fs in '/', '/home', '/home/', 'pg':
                for date in '2020-01-01', '2020-01-02':
                    key = self.place(fs, date=date, host=host, metadata=sizes)
                    for end in '.volume_000001', '.volume_000002', '.end_000002':
                        self.server.put(key + end, bytes(100 * ('v' in end)), metadata=sizes,
                                        modified=self.noon(date))
        for name in 'page_size', 'in_order':
            self.addCleanup(setattr, self.server, name, getattr(self.server, name))
        for self.server.page_size in 1000, 7:
            listed = self.succeed('list', '-a', '--long').out.split()
            self.assertEqual([listed.count(word) for word in (b'whole', b'broken')], [24, 0])
            self.assertEqual(self.succeed('list', '-a').out.count(b'Dumps for'), 3)
            self.assertEqual(self.succeed('check', '-a', '--max-age', '9999d').out,
                             b'OK: 9 groups of 3 hosts\n')
        self.server.in_order = 30
        self.assertEqual(self.clean('-a', '1', '-q').err, '')
        self.assertEqual(len(self.keys()), 9 * 4)
        self.server.quirks.clear()
        self.assertEqual(self.succeed('list', '-a', '--long').out.count(b' whole '), 9)

    def test_a_key_that_may_not_read_what_it_deletes_is_enough(self):
        self.server.add_user('CLEANER', 'sesame', allow={'ListObjectsV2', 'DeleteObject'})
        self.configure(access_key_id='CLEANER', secret_access_key='sesame')
        self.place(date='2020-01-01')
        kept = self.place(date='2020-01-02')
        self.clean('1')
        self.assertEqual(self.keys(), [kept])

    def test_a_deletion_that_saves_nothing_yet_is_said(self):
        self.place(date='2020-01-01', storage_class='GLACIER', stored=time.time() - 10 * DAY)
        self.place(date='2020-01-02', storage_class='GLACIER')
        self.assertRegex(self.clean('1', '-n').err, r'\As3dump: Amazon bills 1 dump of these until '
                         '%s all the same, for their storage class\n' % (
                             s3.utc(time.time() + 80 * DAY)[:10]))
        self.assertEqual(self.clean('1', '-q').err, '')         # cron is not told each week

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

    def test_a_host_without_dumps_is_told_so(self):
        key = self.place(host='renamed')
        nothing = 's3dump: nothing to delete\n'
        none = 's3dump: there is no dump of host ' + HOST
        self.assertEqual(self.clean('1').err, none + '; there are dumps of renamed (-h NAME, or -a '
                         'for all)\n' + nothing)
        for argv in (['-a'], ['-h', 'renamed']):
            self.assertEqual(self.clean('1', *argv).err, nothing)
        self.assertEqual(self.clean('1', '-q').err, '')
        self.assertEqual(self.keys(), [key])
        self.server.objects.clear()
        self.assertEqual(self.clean('1').err, none + '\n' + nothing)

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
        self.assertIn('neither counted nor deleted', self.clean('1').err)
        self.assertEqual(self.keys(), sorted([good, broken]))

    def test_a_date_in_the_future_counts_for_nothing(self):
        kept = [self.place(date='2020-01-01'), self.place(date='2020-01-02')]
        tomorrow = self.place(date='2020-01-04', stored=self.noon('2020-01-03'))
        forged = self.place(date='2020-01-06', stored=self.noon('2020-01-04'))
        self.assertIn(forged, self.clean('2').err)
        self.assertEqual(self.keys(), sorted([kept[1], tomorrow, forged]))

    def test_a_group_that_would_shrink_is_left_alone(self):
        real = [self.place('/', date='2020-01-0%d' % number, size=1000) for number in (1, 2, 3)]
        false = [self.place('/', date='2020-01-0%d' % number, size=499) for number in (4, 5, 6)]
        others = [self.place('/home', date='2020-01-0%d' % number) for number in (1, 2, 3, 4)]
        self.assertRegex(self.clean('3', status=1).err,
                         r'(?m)^s3dump: .* / level 0 is left alone.* --min-ratio 0$')
        self.assertEqual(self.keys(), sorted(real + false + others[1:]))
        self.clean('3', '--min-ratio', '0')
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
        result = self.clean('1', status=1)
        self.assertEqual(self.keys(), sorted([keys[1], keys[3]]))
        self.assertRegex(result.err, '(?m)^s3dump: cannot delete %s, 100: .*Denied' % keys[1])
        self.assertEqual(len(re.findall('(?m)^s3dump: deleted', result.err)), 2)

    def test_a_server_that_is_down_is_not_waited_for_once_per_dump(self):
        keys = [self.place(date='2020-01-0%d' % number) for number in (1, 2, 3, 4)]
        self.server.fault('DeleteObject', 'status', status=500, code='Broken', times=None)
        result = self.clean('1', '--patience', '1s', status=1)
        self.assertRegex(result.err, r'\As3dump: clean: DeleteObject [^\n]*Broken[^\n]*\n\Z')
        self.assertEqual(self.keys(), sorted(keys))

    def test_what_a_dump_needs_that_could_not_be_deleted_stays(self):
        base, top, other = (self.place(date='2020-01-0%d' % number, level=level)
                            for number, level in ((1, '0'), (2, '1'), (3, '0')))
        self.place('/var', date='2020-01-01')
        kept = [self.place(date='2020-01-09', level='1'), self.place(date='2020-01-08'),
                self.place('/var', date='2020-01-08')]
        self.server.fault('DeleteObject', 'status', status=403, code='AccessDenied', times=None,
                          where=lambda exchange: exchange.key == top)
        result = self.clean('1', status=1)
        self.assertEqual(self.keys(), sorted([base, top, other] + kept))
        self.assertIn('s3dump: %s stays with what builds upon it' % base, result.err)
        self.server.clear_faults()
        self.clean('1')
        self.assertEqual(self.keys(), sorted(kept))

    @unittest.skipIf(ssl is None, 'this Python has no ssl')
    def test_a_network_that_fails_ends_it(self):
        path = self.write_file(CERTIFICATE, 'server.pem')
        with S3Server(certfile=path, quirks=['close']) as server, Proxy() as proxy:
            self.write_file(server.config())
            for number in (1, 2, 3, 4):
                server.put('%s:/home:0:2020-01-0%d' % (HOST, number), b'',
                           modified=self.noon('2020-01-0%d' % number))
            server.on('DeleteObject', lambda *_: setattr(proxy, 'refuse_status', 403))
            # without -W error: that of 3.6 warns of the socket of a tunnel that was refused
            result = self.clean('1', status=1, env={'HTTPS_PROXY': proxy.url},
                                prefix=[sys.executable, '-I', '-S', PROGRAM])
            self.assertRegex(result.err, r'\As3dump: deleted .*\ns3dump: clean: DeleteObject .*: '
                             r'Tunnel connection failed: 403[^\n]*\n\Z')
            self.assertEqual(len(server.objects), 3)

    def test_uploads_that_are_older_than_thirty_days_are_aborted(self):
        def unfinished(key, days):
            upload_id = '%d %s' % (days, key)
            self.place_upload(upload_id, key, days * DAY)
            return upload_id

        dump = self.place()
        other = dump.replace(HOST, 'other', 1)
        old = [unfinished(dump, 31), unfinished(dump + '.volume_000001', 400)]
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
        for name in ('.volume_000001', '.volume_000002', '.end_000002'):
            self.server.put(key + name, bytes({'1': 100, '2': 5}[name[-1]] * ('v' in name)),
                            modified=self.noon('2020-01-01'))
        kept = self.place(date='2020-01-02', size=200)
        self.clean('1')
        self.assertEqual(self.keys(), [kept])
        self.assertEqual(self.asked('DeleteObject')[0], key)


def days(first, count):
    """Return the date labels of so many days in a row, the oldest first."""
    start = datetime.datetime.strptime(first, '%Y-%m-%d').date()
    return [(start + datetime.timedelta(days=i)).isoformat() for i in range(count)]


def label_and_stored(dump):
    """Split a dump of these cases into ('YYYY-MM-DD', 'YYYY-MM-DD HH:MM')."""
    label, at, stored = dump.partition(' @ ')
    if at:
        return label, stored
    day, _, hour = dump.partition(' ')
    return day, day + ' ' + (hour or '00:00')


THREE_DAYS = ['2026-01-01', '2026-01-02', '2026-01-03']

# 5 dumps on 3 days; index: 0, 1 = 5th; 2, 3 = 6th; 4 = 7th
FIVE_ON_THREE_DAYS = ['2026-01-05 01:00', '2026-01-05 09:00', '2026-01-06 01:00',
                      '2026-01-06 23:59', '2026-01-07 00:00']

# 6 dumps, two a day
TWO_A_DAY = ['2026-01-01 06:00', '2026-01-01 18:00', '2026-01-02 06:00',
             '2026-01-02 18:00', '2026-01-03 06:00', '2026-01-03 18:00']

# 2026-01-01 (Thursday) is 0, 01-04 (Sunday) 3, 01-31 30, 02-01 (Sunday) 31, 02-09 (Monday) 39
FORTY = days('2026-01-01', 40)

# the ends and beginnings of months of 31, 28, 31, 30 days
MONTH_ENDS = ['2026-01-31', '2026-02-01', '2026-02-28', '2026-03-01', '2026-03-31',
              '2026-04-01', '2026-04-30', '2026-05-01']

# 2025-11-20 is 0, 11-30 10, 12-31 41, 2026-01-01 42, 01-04 (Sun) 45, 01-11 (Sun) 52,
# 01-18 (Sun) 59
SIXTY = days('2025-11-20', 60)

# 2024-01-01 is 0, 2024-12-31 365, 2025-12-31 730, 2026-01-31 761, 02-28 789, 03-01 (Sun) 790,
# 03-10 (Tue) 799
EIGHT_HUNDRED = days('2024-01-01', 800)

# (name, options, dumps, kept): expectations worked out by hand.  A dump is 'DATE', 'DATE HH:MM' or
# 'DATE @ TIME STORED', times in UTC; kept holds the indices of those that are kept.
ROTATIONS = [

    # ---- N alone ------------------------------------------------------------------------

    ('n 2 of 3: the oldest is nothing special to n', {'n': 2}, THREE_DAYS, [1, 2]),
    ('n is more than there are', {'n': 10}, THREE_DAYS, [0, 1, 2]),
    ('n counts dumps, not days', {'n': 2}, FIVE_ON_THREE_DAYS, [3, 4]),
    ('n within one day goes by the time stored', {'n': 2},
     ['2026-01-05 09:00', '2026-01-05 17:00', '2026-01-05 01:00'], [0, 1]),
    ('empty group, all rules',
     {'n': 1, 'daily': 1, 'weekly': 1, 'monthly': 1, 'yearly': 1}, [], []),

    # ---- daily --------------------------------------------------------------------------

    ('daily 3, several a day: no counts left for the oldest', {'daily': 3},
     FIVE_ON_THREE_DAYS, [1, 3, 4]),
    ('daily 4, several a day: one count left, the oldest is kept', {'daily': 4},
     FIVE_ON_THREE_DAYS, [0, 1, 3, 4]),
    ('daily, counts left: of the oldest day the newest and the oldest, not the middle',
     {'daily': 9},
     ['2026-01-01 01:00', '2026-01-01 02:00', '2026-01-01 03:00', '2026-01-02 01:00'],
     [0, 2, 3]),
    ('daily 2, all on one day: the newest and the oldest', {'daily': 2},
     ['2026-01-05 01:00', '2026-01-05 02:00', '2026-01-05 03:00'], [0, 2]),
    ('daily over gaps of weeks: days without dumps use up nothing', {'daily': 4},
     ['2026-01-01', '2026-01-22', '2026-02-19', '2026-02-20', '2026-05-01'], [1, 2, 3, 4]),
    ('daily: the same day of the month in other months and years is another day', {'daily': 3},
     ['2025-01-15', '2025-02-15', '2026-02-15', '2026-03-15'], [1, 2, 3]),
    ('daily: one minute on both sides of midnight', {'daily': 2},
     ['2026-01-05 00:00', '2026-01-05 23:59', '2026-01-06 00:00'], [1, 2]),

    # ---- weekly -------------------------------------------------------------------------

    # 7 weeks in all: Monday 39 and the Sundays 38, 31, 24, 17, 10, 3
    ('weekly is exactly the number of weeks: the oldest goes', {'weekly': 7}, FORTY,
     [3, 10, 17, 24, 31, 38, 39]),
    ('weekly is one more than the weeks: the oldest stays', {'weekly': 8}, FORTY,
     [0, 3, 10, 17, 24, 31, 38, 39]),
    # 2026-02-28 Sat, 03-01 Sun | 03-02 Mon, 03-08 Sun
    ('weekly: weeks begin on Monday', {'weekly': 2},
     ['2026-02-28', '2026-03-01', '2026-03-02', '2026-03-08'], [1, 3]),
    ('weekly 4 over gaps of weeks: the oldest takes the last count', {'weekly': 4},
     ['2026-01-05', '2026-01-07', '2026-02-18', '2026-04-01', '2026-04-02'], [0, 1, 2, 4]),
    # 2025-03-03..09 and 2026-03-02..08 are both week 10
    ('weekly: the same week number of two years is two weeks', {'weekly': 2},
     ['2025-03-05', '2025-03-06', '2026-03-05'], [1, 2]),

    # 2020-12-26 Sat, 12-27 Sun: W52 | 12-28 Mon .. 2021-01-03 Sun: W53 | 01-04 Mon: 2021-W01
    ('week 53 of 2020 is one week', {'weekly': 3},
     ['2020-12-26', '2020-12-27', '2020-12-28', '2020-12-31', '2021-01-01', '2021-01-03',
      '2021-01-04'], [1, 5, 6]),
    # 12-28 Sat, 12-29 Sun: 2024-W52 | 12-30 Mon .. 01-05 Sun: 2025-W01
    ('2024-12-30 is in week 1 of 2025', {'weekly': 2},
     ['2024-12-28', '2024-12-29', '2024-12-30', '2025-01-02', '2025-01-05'], [1, 4]),
    # week 1 of 2024 and week 1 of 2025, all in calendar year 2024
    ('two weeks 1 in calendar year 2024', {'weekly': 2},
     ['2024-01-01', '2024-01-02', '2024-12-30'], [1, 2]),
    # 12-25 Sun: 2022-W51 | 12-26 Mon .. 2023-01-01 Sun: 2022-W52 | 01-02 Mon: 2023-W01
    ('2023-01-01, a Sunday, is in week 52 of 2022', {'weekly': 3},
     ['2022-12-24', '2022-12-25', '2022-12-26', '2023-01-01', '2023-01-02'], [1, 3, 4]),

    # ---- monthly ------------------------------------------------------------------------

    ('monthly 4: months of 31, 28, 30 days', {'monthly': 4}, MONTH_ENDS, [2, 4, 6, 7]),
    ('monthly 5: the oldest is alone in its month', {'monthly': 5}, MONTH_ENDS,
     [0, 2, 4, 6, 7]),
    ('monthly: the same month of two years is two months', {'monthly': 2},
     ['2025-03-10', '2025-03-20', '2026-03-10'], [1, 2]),
    ('monthly over the new year: a week is one, the months are two', {'monthly': 2},
     ['2026-12-30', '2026-12-31', '2027-01-01', '2027-01-02'], [1, 3]),

    # ---- yearly -------------------------------------------------------------------------

    ('yearly 3 over gaps: no counts left for the oldest', {'yearly': 3},
     ['2015-05-05', '2015-06-06', '2019-01-01', '2019-12-31', '2026-07-07'], [1, 3, 4]),
    ('yearly goes by the calendar year, not the ISO year', {'yearly': 2},
     ['2024-12-29', '2024-12-30', '2024-12-31', '2025-01-01'], [2, 3]),
    ('yearly goes by the calendar year, not the ISO year, the other way', {'yearly': 2},
     ['2026-12-30', '2026-12-31', '2027-01-01', '2027-01-04'], [1, 3]),
    ('one dump, yearly 5', {'yearly': 5}, ['2026-01-01'], [0]),

    # ---- combined -----------------------------------------------------------------------

    # n: 3 4 5; daily: 5 3 (the dumps that n keeps use up counts of daily as well)
    ('n 3, daily 2: daily counts from the newest, not from behind n', {'n': 3, 'daily': 2},
     TWO_A_DAY, [3, 4, 5]),
    # n: 3 4 5; daily: 5 3 1 and the oldest 0
    ('n 3, daily 4: the oldest of daily', {'n': 3, 'daily': 4}, TWO_A_DAY, [0, 1, 3, 4, 5]),
    # 2026-03-02 Mon 0, 03-08 Sun 6, 03-15 Sun 13; daily: 12 13; weekly: 6 13
    ('daily 2, weekly 2: the newest counts for both', {'daily': 2, 'weekly': 2},
     days('2026-03-02', 14), [6, 12, 13]),
    # daily: 12 13; weekly: 13 6 and the oldest 0
    ('daily 2 has no counts left, weekly 3 has: the oldest', {'daily': 2, 'weekly': 3},
     days('2026-03-02', 14), [0, 6, 12, 13]),
    # n: 57 58 59; daily: 56 57 58 59; weekly: 59 52 45; monthly: 59 41 10; yearly: 59 41
    ('all rules, no counts left',
     {'n': 3, 'daily': 4, 'weekly': 3, 'monthly': 3, 'yearly': 2}, SIXTY,
     [10, 41, 45, 52, 56, 57, 58, 59]),
    ('all rules, a count of monthly left: the oldest',
     {'n': 3, 'daily': 4, 'weekly': 3, 'monthly': 4, 'yearly': 2}, SIXTY,
     [0, 10, 41, 45, 52, 56, 57, 58, 59]),
    # daily: 793..799; weekly: Tue 799 and the Sundays 797 790 783 776;
    # monthly, the last days from 2026-03 back to 2025-04: 799 789 761 730 699 669 638 608 577
    # 546 516 485; yearly: 799 730 365 and the oldest 0
    ('daily 7, weekly 5, monthly 12, yearly 10 of 800 days',
     {'daily': 7, 'weekly': 5, 'monthly': 12, 'yearly': 10}, EIGHT_HUNDRED,
     [0, 365, 485, 516, 546, 577, 608, 638, 669, 699, 730, 761, 776, 783, 789, 790,
      793, 794, 795, 796, 797, 798, 799]),
    # newest first: 1 (2026) | 3 0 (2025) | 4 2 (2024); the oldest is in the middle
    ('shuffled, yearly 4', {'yearly': 4},
     ['2025-02-02', '2026-01-01', '2024-05-05', '2025-12-31', '2024-06-06'], [1, 2, 3, 4]),

    # ---- label and time stored on different days ----------------------------------------

    ('one label stored on three UTC days, daily 2: the newest and the oldest', {'daily': 2},
     ['2026-03-01 @ 2026-02-28 23:30', '2026-03-01 @ 2026-03-02 04:00', '2026-03-01 12:00'],
     [0, 1]),
    # 02-28 | 02-28 is another label than 03-01 although stored on the same UTC day
    ('two labels stored on one UTC day: two days', {'daily': 2},
     ['2026-02-28 10:00', '2026-02-28 12:00', '2026-03-01 @ 2026-02-28 23:30'], [1, 2]),
    # label Sunday 03-01, stored on Monday 03-02 (UTC); 02-27 Fri is in the week of 03-01
    ('a Sunday label stored on Monday is the old week', {'weekly': 2},
     ['2026-02-27', '2026-02-28', '2026-03-01 @ 2026-03-02 04:00', '2026-03-04'], [2, 3]),
    ('the label decides what is newer, before the time stored', {'n': 1},
     ['2026-01-01 @ 2025-12-31 14:30', '2025-12-31 @ 2026-01-01 05:00'], [0]),
    ('the oldest is the oldest label, whenever it was stored', {'monthly': 2},
     ['2026-02-15', '2026-02-01 @ 2026-03-05 10:00', '2026-02-20'], [1, 2]),

    # ---- equal times stored -------------------------------------------------------------

    ('equal times stored, the label decides, daily', {'daily': 2},
     ['2026-03-01 12:00', '2026-03-02 @ 2026-03-01 12:00', '2026-02-28 @ 2026-03-01 12:00'],
     [0, 1]),
    ('equal in label and time: both go', {'daily': 1},
     ['2026-03-01 12:00', '2026-03-01 12:00', '2026-03-02 10:00'], [2]),
    ('equal in label and time, alone, daily 2: the newest and the oldest', {'daily': 2},
     ['2026-03-01 12:00', '2026-03-01 12:00'], [0, 1]),
]


class RotationTests(unittest.TestCase):

    def kept(self, options, dumps):
        """Return the indices of the dumps that the plan keeps, and why."""
        entries = []
        for number, dump in enumerate(dumps):
            label, stored = label_and_stored(dump)
            entries.append(s3.ListEntry(
                'h:/:0:%s:%sT%s00.000Z-%016d' % (label, *stored.replace('-', '').replace(
                    ':', '').split(), number), 1, calendar.timegm(
                        time.strptime(stored, '%Y-%m-%d %H:%M')), 'STANDARD', '', ''))
        planned = s3dump.plan(s3dump.group(entries)[0], options.get('n', 0), options)
        return {int(one.key[-16:]): reasons for one, reasons in planned if reasons}

    def test_each_rule_keeps_what_was_worked_out_by_hand(self):
        for name, options, dumps, kept in ROTATIONS:
            with self.subTest(name):
                self.assertEqual(sorted(self.kept(options, dumps)), kept)

    def test_the_rules_that_keep_a_dump_are_named(self):
        self.assertEqual(self.kept({'n': 1, 'daily': 2, 'weekly': 2, 'yearly': 3}, [
            '2025-12-29', '2026-01-01', '2026-01-05', '2026-01-06']), {
                3: ['last', 'daily', 'weekly', 'yearly'], 2: ['daily'], 1: ['weekly'],
                0: ['yearly']})


# --- The other commands ------------------------------------------------------

class CheckTests(ProgramTestCase):
    """One line, for cron and for monitoring."""

    def check(self, status, message, *argv):
        result = self.run_program('check', '/home', '0', *argv)
        self.assertEqual((result.status, result.err), (status, ''))
        self.assertRegex(result.out.decode(), r'\A%s: /home level 0 of [^\n]*%s[^\n]*\n\Z' % (
            'FAILED' if status else 'OK', message))
        return result

    def ago(self, hours, size=100, **attributes):
        return self.place(date='2020-01-10', stored=time.time() - hours * 3600, size=size,
                          **attributes)

    def test_a_dump_is_good_that_is_recent_and_large_enough(self):
        self.check(1, 'there is no dump')
        key = self.ago(1)
        self.check(0, 'the newest dump is good; 100, 60 min old, ' + re.escape(key))
        self.server.objects.clear()
        self.ago(27)
        self.check(1, 'is 27 h old, 60 min more than is allowed')
        self.check(0, 'good', '--max-age', '2d')
        for hours in range(48, 480, 24):
            self.ago(hours, 2 * hours)
        self.check(1, 'has 100, less than 0.5 times 312, the median of the 10 dumps before',
                   '--max-age', '2d')
        self.check(0, 'good', '--max-age', '2d', '--min-ratio', '0.1')
        self.ago(2, 600, storage_class='GLACIER')
        self.check(0, 'good; 600, 2 h old, .*  GLACIER .not readable now.')

    def test_a_difference_may_be_of_any_size(self):
        for hours in (25, 1):
            self.place(level='1', date='2020-01-10', stored=time.time() - hours * 3600,
                       size=1000 if hours == 25 else 1)
        self.assertIn(b'OK', self.succeed('check', '/home', '1').out)
        self.assertIn(b'less than 0.5', self.run_program('check', '/home', '1', '--min-ratio',
                                                         '0.5').out)

    def test_of_two_dumps_of_one_second_all_commands_choose_the_same(self):
        stored = int(time.time()) - 3600
        date = time.strftime('%Y-%m-%d', time.gmtime(stored))
        keys = [self.place(date=date, stored=stored) for _ in range(4)]
        names = ['%s:/home:0:%s:%s-%016d' % (HOST, date, time.strftime(
            '%Y%m%dT%H%M%S.999Z', time.gmtime(stored)), number) for number in (7, 3, 5)]
        names.append('%s:/home:0:%s' % (HOST, date))
        for key in names:
            self.server.put(key, b'data', modified=stored)
        newest = names[0]
        self.check(0, newest, '--min-ratio', '0')
        for command in ('verify', 'restore'):
            self.assertIn(newest, self.succeed(command, '/home', '0').err)
        self.succeed('clean', '1', '--force')
        self.assertEqual((self.keys(), len(keys)), ([newest], 4))

    def test_the_newest_is_the_one_stored_last(self):
        self.place(date='2010-01-01', stored=time.time() - 3600)
        self.place(date='2020-01-01', stored=time.time() - 72 * 3600)
        self.check(0, 'good')

    def test_what_nobody_can_have_dumped_counts_for_nothing(self):
        self.ago(72)
        self.place(date='9999-12-31', stored=time.time() - 3600)
        result = self.run_program('check', '/home', '0')
        self.assertEqual(result.status, 1)
        self.assertIn(b'is 3 days old', result.out)
        self.assertIn('9999-12-31', result.err)

    def test_an_empty_dump_and_a_server_that_refuses_are_failures(self):
        self.ago(1, 0)
        self.check(1, 'the newest dump is empty')
        self.server.fault('ListObjectsV2', 'status', times=None, status=403, code='AccessDenied')
        self.check(1, 'is unknown: ListObjectsV2.*AccessDenied')
        said = json.loads(self.run_program('check', '/home', '0', '--json').out)
        self.assertEqual((said['ok'], said['key']), (False, None))

    def test_a_dump_that_is_not_whole_fails(self):
        self.configure(part_size='5m', max_parts='1')
        self.dump(bytes(PART + 1), '/home', '0')
        self.check(0, 'good')
        end = [key for key in self.keys() if 'end_' in key][0]
        mark = self.server.objects.pop(end)
        self.check(1, 'is not whole: its end mark is missing')
        self.server.objects[end] = mark
        volume = [key for key in self.keys() if 'volume_' in key][0]
        del self.server.objects[volume]
        self.check(1, 'is not whole')
        del self.server.objects[end]
        self.check(1, 'is not whole: .*neither a further one nor an end mark')
        self.server.objects[self.keys()[0]].storage_class = 'GLACIER'
        self.check(1, 'is not whole: .*neither a further one nor an end mark')

    def test_an_upload_under_way_is_told(self):
        self.place_upload('id', HOST + ':/home:0:2020-01-10', 60)
        self.check(1, 'no dump; an upload is under way or was broken off')

    def test_quiet_tells_only_failures_and_json_tells_all(self):
        key = self.ago(1)
        self.assertEqual(self.succeed('check', '/home', '0', '-q'), (0, b'', ''))
        said = json.loads(self.succeed('check', '/home', '0', '--json').out)
        self.assertAlmostEqual(said.pop('age_seconds'), 3600, delta=60)
        labels = {'host': HOST, 'fs': '/home', 'level': '0'}
        self.assertEqual(said, dict(labels, key=key, ok=True, reason='', size=100))
        self.assertEqual(self.succeed('check', '/home', '0', '--json', '-q'), (0, b'', ''))
        result = self.run_program('check', '/none', '0', '--json')
        self.assertEqual((result.status, json.loads(result.out)), (1, dict(
            labels, fs='/none', key=None, ok=False, reason='there is no dump', age_seconds=None,
            size=None)))
        result = self.run_program('check', '/none', '0', '-q')
        self.assertEqual((result.status, result.err), (1, ''))
        self.assertIn(b'FAILED', result.out)


class CheckAllTests(ProgramTestCase):
    """All groups of dumps at once: a line for each that is not good, and one that counts."""

    NIGHTS = range(1, 240, 24)
    misdated = ''                       # what is said of them

    def series(self, fs='/home', level='0', host='mail', ages=NIGHTS, size=1000):
        """Place dumps of so many hours ago, the newest first; returns their keys."""
        now = int(time.time())
        return [self.place(fs, level, time.strftime('%Y-%m-%d', time.gmtime(
            now - age * 3600)), host, size, now - age * 3600) for age in ages]

    def check(self, status, *argv):
        """Return the lines that `check` prints."""
        result = self.run_program('check', *argv)
        self.assertEqual((result.status, result.err), (status, self.misdated), result)
        return result.out.decode().splitlines()

    def found(self, *argv):
        """Return {(host, fs, level): reason} of what is not good."""
        said = map(json.loads, self.check(1, '-a', '-q', '--json', *argv))
        return {(each['host'], each['fs'], each['level']): each['reason'] for each in said}

    def expect(self, text):
        return self.write_file(text, 'expected')

    def test_what_is_good_is_counted(self):
        for host in ('mail', 'shop'):
            for fs in ('/', '/home', 'pg'):
                self.series(fs, host=host)
        self.place('/home/', '0', host='shop')      # as older versions named it
        self.assertEqual(self.check(0, '-a'), ['OK: 6 groups of 2 hosts'])
        self.assertEqual([request.query['prefix'] for request in self.server.log], [''])
        self.assertEqual(self.check(0, '-a', '-q'), [])
        self.assertEqual(self.check(0, '-h', 'mail'), ['OK: 3 groups of 1 host'])
        self.assertEqual(self.check(0, '-h', 'mail', 'pg'), ['OK: 1 group of 1 host'])
        self.assertEqual(self.check(0, '-a', 'pg', '0'), ['OK: 2 groups of 2 hosts'])

    def test_where_nothing_is_nothing_is_good(self):
        said = ['FAILED: %s: there is no dump' % HOST]
        self.assertEqual(self.check(1, '-a'), ['FAILED: all hosts: there is no dump'])
        self.series()
        self.assertEqual((self.check(1), self.check(1, '-q')), (said, said))
        self.assertEqual(self.check(1, '-a', '/none'), [
            'FAILED: /none of all hosts: there is no dump'])
        self.assertEqual(json.loads(self.check(1, '/none', '--json')[0]), {
            'host': HOST, 'fs': '/none', 'level': None, 'key': None, 'ok': False, 'size': None,
            'reason': 'there is no dump', 'age_seconds': None})

    def test_every_fault_is_found(self):
        self.series()
        shrunk = self.series('shrunk')[0]
        self.server.objects[shrunk].data = bytes(400)
        self.series('silent', ages=range(3 * 24, 300, 24))
        self.place('silent', '0', '9999-12-31', 'mail', stored=time.time() - 60)    # a thief's
        empty = self.series('empty')[0]
        self.server.objects[empty].data = b''
        self.configure(part_size='5m', max_parts='1')
        for fs in ('hole', 'end', 'alone', 'whole', 'strange'):
            key = self.dump(bytes(2 * PART), fs, '0', '-h', 'mail')
            for name in {'hole': ['.volume_000001'], 'end': ['.end_000001'],
                         'alone': ['.volume_000001', '.end_000001']}.get(fs, ()):
                del self.server.objects[key + name]
        self.server.put(key + '.volume_000009', b'', metadata={'x-amz-meta-dump-id': 'x'})
        thief = [key for key in self.keys() if '9999' in key][0]
        self.misdated = 's3dump: %s is dated later than the day it was stored, and not to be ' \
            'trusted; `delete -k` it if it is not yours\n' % thief
        lines = self.check(1, '-a', '--expect', self.expect('mail never 0'))
        self.assertEqual(lines.pop(), 'FAILED: 7 of 10 groups of 1 host')
        for line, pattern in zip(lines, (
                'alone level 0 of mail: the newest dump is not whole: it is as large as .*',
                'empty level 0 .* is empty; .*', 'end .* not whole: its end mark .*',
                'hole .* not whole: its last volume is number 0, but .* says 1; 5.0M, .*',
                'never level 0 of mail: there is no dump',
                'silent .* is 3 days old, [0-9]+ (h|min) more than is allowed; .*',
                'shrunk .* has 400, less than 0.5 times 1000, .* of the 9 dumps before it; .*')):
            self.assertRegex(line, 'FAILED: %s$' % pattern)
        self.assertEqual(len(lines), 7)
        self.assertEqual(len(self.found('--locked', '1d')), 9)

    def test_only_of_volumes_is_asked(self):
        self.series()
        self.series('pg', size=PART - 1, ages=[1])
        self.configure(part_size='5m', max_parts='2')
        whole = [self.dump(bytes(size), fs, '0') for fs, size in (
            ('one', PART), ('two', 2 * PART), ('three', 3 * PART))]
        self.dump(b'data', 'four', '0')
        self.server.log.clear()
        self.assertEqual(self.check(0, '-a'), ['OK: 6 groups of 2 hosts'])
        self.assertEqual(sorted(self.asked('HeadObject')), sorted(whole))
        self.assertEqual(len(self.server.log), 4)

    def test_a_dump_that_lost_its_volumes_is_reported_whatever_its_part_size(self):
        self.configure(part_size='6000000', max_parts='2')
        key = self.dump(bytes(12000005), '/home', '0')
        for other in set(self.keys()) - {key}:
            del self.server.objects[other]
        self.assertRegex(self.check(1, '-a')[0], 'is not whole: ')

    def test_locks_are_asked_for_side_by_side(self):
        newest = [self.series(fs)[0] for fs in ('/', '/home', 'pg')]
        for key in newest[:2]:
            vars(self.server.objects[key]).update(lock_mode='GOVERNANCE',
                                                  lock_until=int(time.time()) + 30 * DAY)
        self.server.log.clear()
        self.assertEqual(self.found('--locked', '7d'), {('mail', 'pg', '0'): (
            'the newest dump is not locked, or these credentials may not see its lock')})
        self.assertEqual(sorted(self.asked('HeadObject')), sorted(newest))
        self.assertEqual(len(self.found('--locked', '40d')), 3)

    def test_a_full_dump_replaces_a_difference_for_a_while(self):
        self.series(level='1', ages=range(5 * 24, 400, 24))
        for fulls, found in ((range(47, 1000, 7 * 24), {}),
                             (range(49, 1000, 7 * 24), {('mail', '/home', '1'): (
                                 'the newest dump is 5 days old, 60 min more than is allowed')})):
            keys = self.series(ages=fulls)
            if found:
                self.assertEqual(self.found(), found)
            else:
                self.check(0, '-a')
            for key in keys:
                del self.server.objects[key]

    def test_what_retired_is_counted(self):
        self.series()
        self.series('old', ages=range(91 * 24, 3000, 24))
        self.series('once', ages=[91 * 24], size=0)
        self.series('slow', ages=range(91 * 24, 9000, 60 * 24))     # not too old
        self.assertEqual(self.check(0, '-a'), ['OK: 2 groups of 1 host, 2 retired'])
        self.assertEqual([json.loads(line)['ok'] for line in self.check(0, '-a', '--json')],
                         [True] * 4)
        self.assertEqual(self.check(0, '-a', '--retired', '80d', '-q'), [])
        lines = self.check(1, '-a', '--retired', '92d')
        self.assertEqual(lines[-1], 'FAILED: 2 of 4 groups of 1 host')
        self.assertIn('old level 0 of mail', lines[0] + lines[1])
        path = self.expect('mail pg 0\n')
        for argv in ([], ['--expect', path]):       # whoever names one doesn't think so
            self.assertIn('FAILED: old level 0 of mail: ', self.check(
                1, '-h', 'mail', 'old', '0', *argv)[0])

    def test_one_age_may_go_for_all(self):
        self.series('/', ages=[30])
        self.series(ages=range(30, 300, 24))
        self.assertEqual(self.check(0, '-a'), ['OK: 2 groups of 1 host'])
        self.assertEqual(len(self.found('--max-age', '29h')), 2)
        self.check(0, '-a', '--max-age', '31h')

    def test_what_is_expected_must_be_there(self):
        self.series(host=HOST)
        self.series('My "Files"', host='desk', ages=[100 * 24, 101 * 24])
        self.series('pg', host='shop', ages=[30, 60])
        path = self.expect('# what there must be\n\n%s /home/ 0   # daily\n'
                           "desk 'My \"Files\"' 0\nshop pg 0 28h\nshop pg 1 2d\n" % HOST)
        lines = self.check(1, '--expect', path)
        self.assertRegex('\n'.join(lines), (
            'FAILED: pg level 0 of shop: the newest dump is 30 h old, 2 h more than is .*\n'
            'FAILED: pg level 1 of shop: there is no dump\nFAILED: 2 of 4 groups of 3 hosts$'))
        self.assertEqual(self.check(1, '-a', '--expect', path), lines)
        self.assertEqual(len(self.check(1, '--expect', path, '--max-age', '99d')), 4)
        self.assertEqual(len(self.check(1, '--expect', path, '-a', 'pg', '1')), 2)
        for text, said in (('mail /home', 'line 2 of .* is not HOST FS LEVEL .MAX-AGE.: 2 words'),
                           ('mail /home zero', "line 2 of .*: LEVEL 'zero' is not an integer"),
                           ('ma:l /home 0', 'line 2 of .*: host label'),
                           ('mail /home 0 long', "line 2 of .*: 'long' is not a time"),
                           ('mail "/home 0', 'line 2 of .*: No closing quotation'),
                           (b'mail /\xff 0', "utf-8")):
            path = self.expect(b'mail / 0\n' + (text if isinstance(text, bytes) else text.encode()))
            self.must_fail(2, '--expect: .*%s' % said, 'check', '--expect', path)
        self.must_fail(2, '--expect: .*No such file.*nowhere', 'check', '--expect', 'nowhere')

    def test_a_server_that_refuses_leaves_all_unknown(self):
        self.server.fault('ListObjectsV2', 'status', times=None, status=403, code='AccessDenied')
        said = 'the state of the dumps is unknown: ListObjectsV2.*AccessDenied'
        self.assertRegex('\n'.join(self.check(1, '-a')), 'FAILED: all hosts: %s' % said)
        found = json.loads(self.check(1, '--json')[0])
        self.assertRegex(found.pop('reason'), said)
        self.assertEqual(found, {'host': HOST, 'fs': None, 'level': None, 'key': None, 'ok': False,
                                 'size': None, 'age_seconds': None})
        result = self.run_program('check', '-a', '--metrics')
        self.assertEqual((result.status, result.out), (1, b''))
        self.assertRegex(result.err, r'\As3dump: check: ListObjectsV2.*AccessDenied')
        self.assertRegex(self.check(3, '-a', '--nagios')[0],
                         r'\AS3DUMP UNKNOWN: check: ListObjectsV2.*AccessDenied')

    def test_an_upload_under_way_is_told(self):
        self.series(ages=range(72, 300, 24))
        self.place_upload('id', 'mail:/home:0:2020-01-10', 60)
        self.place_upload('other', 'mail:/home:1:2020-01-10', 60)
        self.place_upload('old', 'mail:/home:0:2020-01-10', 3 * DAY)
        for argv in ['-a'], ['--expect', self.expect('mail /home 0 26h\n')]:
            self.assertRegex(self.check(1, *argv)[0], '^[^;]*;[^;]*; an upload is '
                             'under way or was broken off, begun [0-9TZ:-]+$')

    def test_one_form_at_a_time(self):
        for one, other in itertools.combinations(('--json', '--metrics', '--nagios'), 2):
            if other != '--nagios':
                self.must_fail(2, 'takes one of --json, --metrics and', 'check', one, other)
        self.assertEqual(self.check(3, '--json', '--nagios'), [
            'S3DUMP UNKNOWN: check takes one of --json, --metrics and --nagios; '
            'see s3dump.py --help'])

    PERFORMANCE = 'groups=%d;;;0 failed=%d;;;0 age=[0-9]+s;;;0 size=[0-9]+B;;;0'

    def test_a_plugin_of_nagios(self):
        keys = self.series(host='a|b')
        self.series('/', host='a|b')
        for change, status, text, failed in (
                (lambda: None, 0, 'OK: 2 groups of 1 host', 0),
                (lambda: vars(self.server.objects[keys[0]]).update(data=bytes(10)), 1,
                 r'WARNING: 1 of 2 groups of 1 host; /home level 0 of a\\x7cb: the newest .*', 1),
                (lambda: self.series('x', ages=range(72, 300, 24)), 2,
                 'CRITICAL: 2 of 3 groups of 2 hosts; x level 0 .* days old.*; /home level .*', 2)):
            change()
            for more in (), ('-q',):
                line, = self.check(status, '-a', '--nagios', *more)
                self.assertRegex(line, r'\AS3DUMP %s \| %s\Z' % (
                    text, self.PERFORMANCE % (2 + (status == 2), failed)))
        self.assertRegex(self.check(2, '/none', '0', '--nagios')[0],
                         'S3DUMP CRITICAL: 1 of 1 group of 1 host; /none level 0 of .*: there is')
        self.assertRegex(self.check(1, '-h', 'a|b', '/', '0', '--nagios', '--locked', '1d')[0],
                         'S3DUMP WARNING: 1 of 1 group of 1 host; / level 0 .* is not locked')
        for more in (['--max-age', 'old'], ['-f', 'none'], ['-w', 'date']):
            self.assertRegex(self.check(3, '--nagios', *more)[0], 'S3DUMP UNKNOWN: .*%s' % more[1])
        self.must_fail(1, 'none', 'dump', '/', '0', '--', 'none', '--nagios')

    METRIC = re.compile(r'(\w+)\{host="(.*)",fs="(.*)",level="(.*)"\} (\S+)')

    def test_a_group_of_misdated_dumps_is_not_good_but_where_the_servers_clock_is_wrong(self):
        now = int(time.time())
        for fs, stamp in (('forged', '20200101'), ('clock', '20990101')):
            self.server.put('mail:%s:0:2099-01-01:%sT000000.000Z-%016d' % (fs, stamp, 1), b'data',
                            modified=now)
        self.server.put('mail:bare:0:2099-01-01', b'data', modified=now)
        said = [json.loads(line) for line in
                self.run_program('check', '-a', '--json').out.decode().splitlines()]
        self.assertEqual({each['fs']: each['reason'] for each in said}, {
            'clock': '', 'bare': 'the newest dump is dated later than the day when it was stored',
            'forged': 'retired'})       # since it says that it is as old as its stamp
        result = self.run_program('check', '-a', '--nagios')
        self.assertEqual(result.status, 1)

    def test_a_file_of_what_is_expected_may_begin_with_a_mark_of_its_encoding(self):
        self.series()
        self.assertEqual(self.check(0, '-a', '--expect', self.expect('\ufeffmail /home 0\n')),
                         ['OK: 1 group of 1 host'])
        self.must_fail(2, "--expect: No such file or directory: /nowhere", 'check', '--expect',
                       '/nowhere')

    def test_two_groups_whose_labels_look_alike_are_one_sample(self):
        for fs in 'a\x01b', 'a\\x01b':
            self.series(fs)
        lines = self.check(0, '-a', '--metrics')
        self.assertEqual(len([line for line in lines if line.startswith('s3dump_size')]), 1)

    def test_metrics_for_prometheus(self):
        fs = 'a "b"\\c'
        key = self.series(fs)[0]
        self.series(level='1', ages=range(72, 300, 24))
        self.series('old', ages=[9999])
        vars(self.server.objects[key]).update(legal_hold='ON')
        lines = self.check(0, '-a', '--metrics', '--locked', '0s', '--expect',
                           self.expect('mail pg 0'))
        self.assertEqual(sum(line.endswith('"} +Inf') for line in lines), 1)
        said = {}
        for name, samples in itertools.groupby(
                lines, lambda line: re.search(r's3dump_(\w+)', line).group(1)):
            first, *samples = samples
            self.assertEqual(first, '# TYPE s3dump_%s gauge' % name)
            said[name] = {self.METRIC.match(line).groups()[2]: float(line.split()[-1])
                          for line in samples}
        fs = r'a \"b\"\\c'
        stored = said.pop('stored_timestamp_seconds')
        self.assertAlmostEqual(stored[fs], time.time() - 3600, delta=60)
        self.assertEqual(said.pop('due_timestamp_seconds'), {
            name: when + 2 * DAY for name, when in stored.items()})
        self.assertEqual(said, {
            'ok': {fs: 1, '/home': 0, 'pg': 0}, 'size_bytes': {fs: 1000, '/home': 1000},
            'objects': {fs: 1, '/home': 1}, 'whole': {fs: 1, '/home': 1},
            'locked_until_timestamp_seconds': {fs: float('inf'), '/home': 0}})
        self.assertNotIn('locked', ''.join(self.check(0, '-a', '--metrics')))

    def test_memory_is_for_a_file_system_not_for_all(self):
        code = PYTHON + ['-c', 'import sys, tracemalloc; sys.path.insert(0, %r); import s3dump; '
                         'tracemalloc.start(); s3dump.main(); '
                         'print(tracemalloc.get_traced_memory()[1])' % HERE]
        self.server.page_size, peaks = 100, []
        try:
            for count in (20, 200):
                self.server.objects.clear()
                for number in range(30):
                    self.series(host='host%d' % number, ages=range(1, count + 1), size=1)
                result = self.finish(self.start('check', '-a', prefix=code))
                said, peak = result.out.splitlines()
                self.assertEqual(said, b'OK: 30 groups of 30 hosts')
                peaks.append(int(peak))
        finally:
            self.server.page_size = 1000
        self.assertLess(peaks[1] - peaks[0], 10 ** 6)


class RhythmTests(unittest.TestCase):
    """How old the newest dump may be, as its group has it."""

    NOW = 1780272000                    # 2026-06-01, a Monday, at 0:00 UTC
    HOUR = 3600

    # (name, ages of dumps in hours, how old the newest may be); 7 h ago is 17:00 on Sunday
    LIMITS = (
        ('two are no rhythm', [7, 31], None),
        ('a day', [7, 31, 55], 48),
        ('a week', range(7, 2000, 168), 336 + 24),
        ('a month', range(7, 9000, 720), 1440 + 24),
        ('a quarter', range(7, 9000, 2184), 4368 + 24),
        ('an hour', range(7, 50), 26),
        ('twelve copied in an hour, and three weeks', [7, 175, 343, *[500] * 12], 336 + 24),
        ('three of an afternoon, and two nights', [7, 31, 64, 65, 66], 48),
        ('six hours', range(7, 200, 6), 26),
        ('twelve hours', range(7, 300, 12), 26),
        ('twice a week', [7, 55, 175, 223, 343, 391, 511], 168 + 24),
        ('Saturdays and Sundays', [7, 31, 175, 199, 343, 367, 511], 168 + 24),
        ('six hours, one of them missed', [7, 19, *range(25, 200, 6)], 26),
        ('by hand, on one day', [7, 8, 9], None),
        ('a missed night', [7, 55, 79, 103, 127], 48),
        ('three missed nights', [7, 55, 103, 151, 175, 199], 96 + 24),
        ('a long outage', [7, 991, 1015], 1968 + 24),
        ('a long outage, a night later', [7, 31, 991, 1015], 48),
        ('rotation kept five days, and months',
         [7, 31, 55, 79, 103, 823, 1543, 2263, 2983, 3703], 48),
        ('rotation kept three weeks, and months', [7, 175, 343, 1063, 1783, 2503], 336 + 24),
        ('three by hand on one day', [7, 31, 38, 39, 40, 55, 79], 48),
        ('by hand on three days of a week', [7, 60, 84, 109, 175, 343, 511, 679], 336 + 24),
        ('three by hand on one of few days', [7, 8, 86, 250, 251, 744], 328 + 24),
        ('now and then', [7, 60, 203, 232, 294], 106 + 24),
        ('weekdays', [*range(55, 160, 24), *range(223, 320, 24)], 48 + 72),
        ('Sunday to Thursday', [*range(79, 176, 24), *range(247, 340, 24)], 48 + 72),
        ('Mondays, Wednesdays and Fridays', [55, 103, 151, 223, 271], 96 + 24),
        ('Tuesday to Saturday', [*range(31, 150, 24), *range(199, 300, 24)], 48 + 72),
        ('twelve of one day', range(7, 19), 26),
        ('weekdays, three times', [hour + day for day in (*range(48, 160, 24), *range(216, 320, 24))
                                   for hour in (7, 11, 15)], 26 + 72),
        ('weekdays but Wednesday', [55, 79, 127, 151, 223, 247, 295, 319], 72 + 72),
        ('weekdays, but five are too few to know', range(55, 160, 24), 48),
        ('Fridays', range(55, 2000, 168), 336 + 24))

    # What runs at a site: (days of the week, from Sunday on, the hour, FS, LEVEL).
    README = (('0', 2.2, '/home', '0'), ('123456', 2.2, '/home', '1'), ('0123456', 2.7, 'pg', '0'))
    OFFICE = (('5', 19, '/home', '0'), ('1234', 19, '/home', '1'), ('12345', 19.5, 'pg', '0'))
    HANOI = tuple((str(day), 23.5, '/', level) for day, level in enumerate('0325476'))
    OFTEN = tuple(('0123456', hour, '/', '0') for hour in range(1, 24, 6))
    HOLIDAYS = ((1, 1), (1, 6), (4, 3), (4, 6), (5, 1), (5, 14), (5, 25), (12, 24), (12, 25))
    FIRST = datetime.date(2026, 1, 4)       # a Sunday
    SUMMER = datetime.date(2026, 3, 29), datetime.date(2026, 10, 25)

    def setUp(self):
        self.now, self.args = self.NOW, s3dump.parse(['check', '-a'])
        self.bucket = s3.Bucket({
            'endpoint': 'http://127.0.0.1:1', 'bucket_name': 'bucket', 'access_key_id': 'id',
            'secret_access_key': 'key'}, {}, clock=lambda: self.now)

    def dump(self, stored, fs='/', level='0', size=1000):
        """Return a Dump that a host stored; its clock says which day it is."""
        key = 'h:%s:%s:%s-%016d' % (fs, level, time.strftime(
            '%Y-%m-%d:%Y%m%dT%H%M%S.123Z', time.gmtime(stored)), stored)
        return s3dump.group([s3.ListEntry(key, size, stored, 'STANDARD', '', '')])[0][0]

    def verdicts(self, dumps):
        """Return the Verdicts on *dumps*, all of one file system."""
        return [each if each.severity is None else s3dump.fault(self.bucket, self.args, each)
                for each in s3dump.assess(self.args, dumps, self.now)]

    def test_what_is_seldom_dumped_is_missed_before_it_retires(self):
        for days in (1, 7, 30, 91, 365):
            dumps = [self.dump(self.NOW - number * days * DAY) for number in range(5)]
            severities, limit = [], self.verdicts(dumps)[0].limit
            for silent in (limit - DAY, limit + DAY, max(90 * DAY, 2 * limit) + DAY):
                self.now = self.NOW + silent
                severities += [each.severity for each in self.verdicts(dumps)]
            self.assertEqual(severities, [0, 2, None], days)

    def test_the_limit_is_twice_the_usual_interval(self):
        for name, ages, limit in self.LIMITS:
            with self.subTest(name):
                dumps = [self.dump(self.NOW - age * self.HOUR) for age in ages]
                random.Random(1).shuffle(dumps)
                verdict, = self.verdicts(dumps)
                self.assertEqual(verdict.limit, limit and limit * self.HOUR)
                self.assertEqual(verdict.due, limit and self.NOW + (
                    limit - min(ages)) * self.HOUR)

    def year(self, jobs, keep, seed, off=(), by_hand=6, last=362):
        """Return what is not good on any morning: [(days since the first, fs, level, reason)].

        Some nights are missed, but none twice in a row; clocks are a bit wrong, change to summer
        time and back, and in July the dumps run in the evening; on some days somebody dumps by
        hand, once or three times.  last: the day after which nothing is dumped any more.
        """
        chance, dumps, found = random.Random(seed), collections.defaultdict(list), []
        missed, hands = set(), [chance.randrange(362) for _ in range(by_hand)]
        for number in range(min(362, last + 40)):
            day = self.FIRST + datetime.timedelta(number)
            midnight = calendar.timegm(day.timetuple()) - self.HOUR * (
                2 if self.SUMMER[0] <= day < self.SUMMER[1] else 1)
            self.now, silent = midnight + 15 * self.HOUR // 2, number > last
            # neither that of a move to the evening is missed, nor the one before: with both, there
            # is no dump in 53 hours
            night = chance.random() < 0.05 and day.month == (day + datetime.timedelta(
                1)).month == (day - datetime.timedelta(1)).month
            later = []
            for days, hour, fs, level in jobs:
                if silent or (day.month, day.day) in off or str(day.isoweekday() % 7) not in days:
                    continue
                if night and not missed:
                    missed.add((fs, level))
                    continue
                missed.discard((fs, level))
                one = self.dump(midnight + int(self.HOUR * (
                    hour + 20 * (hour < 3 and day.month == 7))) + chance.randrange(-290, 600),
                    fs, level, 1000 + number)
                (dumps[fs] if one.stored < self.now else later).append(one)
            for (fs, level), group in itertools.product(
                    [job[2:] for job in jobs], dumps.values() if day.isoweekday() == 7 else ()):
                for one, reasons in s3dump.plan([one for one in group if one.labels[1:3] == (
                        fs, level)], keep, {'monthly': 12}):
                    if not reasons:
                        group.remove(one)
            for group in dumps.values():
                found += [(number, *each.labels[1:], each.reason)
                          for each in self.verdicts(group) if each.severity]
            for one in later:
                dumps[one.labels.fs].append(one)
            for _ in range(0 if silent else hands.count(number) * chance.choice((1, 3))):
                fs = chance.choice(sorted(dumps))
                dumps[fs].append(self.dump(self.now + chance.randrange(12 * self.HOUR), fs, '0',
                                           1000 + number))
        return found

    def test_a_year_has_no_false_alarm(self):
        for seed in (101, 113, 132):
            self.assertEqual(self.year(self.README, 5, seed), [])
        self.assertEqual(self.year(self.HANOI, 4, 1), [])
        self.assertEqual(self.year(self.OFTEN, 12, 1, by_hand=0), [])
        found = self.year(self.OFFICE, 10, 1, self.HOLIDAYS, 0)
        self.assertEqual([each for each in found if each[0] > 14], [], 'it has yet to learn before')

    def test_silence_is_found(self):
        for seed in range(3):
            last = 60 + 50 * seed
            found = self.year(self.README, 5, seed, by_hand=0, last=last)
            first = {each[1:3]: each[0] - last for each in reversed(found)}
            self.assertLess(first.pop(('/home', '0')), 22)
            self.assertLess(first.pop(('/home', '1')), 10)
            self.assertEqual(first, {('pg', '0'): 2})


class ThawTests(ProgramTestCase):

    def setUp(self):
        ProgramTestCase.setUp(self)
        self.configure(part_size='5m', max_parts='1', storage_class='GLACIER')
        self.data = some_bytes(PART + 9)
        self.dump(self.data, '/home', '0')

    def states(self):
        return [self.server.objects[key].restore for key in self.keys() if 'end_' not in key]

    def test_an_archived_dump_is_asked_for_and_then_restored(self):
        self.must_fail(3, 'archived in GLACIER and not readable now; `restore --thaw DAYS` makes',
                       'restore', '/home', '0')
        for _ in range(2):
            self.must_fail(3, 'was asked for .bulk.: 2 of its 2 objects .* up to 12 hours; '
                           "repeat the command then with -k '%s' in place of "
                           'FS LEVEL$' % min(self.keys()),
                           'restore', '/home', '0', '--thaw', '3', '--tier', 'bulk')
            self.assertEqual(self.states(), ['ongoing', 'ongoing'])
        self.assertEqual(len(self.asked('RestoreObject')), 2)
        self.assertEqual({self.server.objects[key].restore_request for key in self.keys()
                          if 'end_' not in key}, {(3, 'Bulk')})
        first = min(self.keys())
        self.server.thaw(first, 3)
        self.must_fail(3, '1 of its 2 objects', 'verify', '/home', '0', '--thaw', '3')
        for key in self.keys():
            self.server.thaw(key, 3)
        self.assertEqual(self.succeed('restore', '/home', '0', '--thaw', '3').out, self.data)
        self.assertEqual(self.succeed('restore', '/home', '0').out, self.data)

    def test_wait_restores_as_soon_as_the_dump_is_readable(self):
        def soon(server, exchange):
            if len(self.asked('RestoreObject')) == 2:
                for key in self.keys():
                    server.thaw(key, 1)

        self.server.on('HeadObject', soon)
        result = self.succeed('restore', '/home', '0', '--thaw', '1', '--wait')
        self.assertEqual(result.out, self.data)
        self.assertRegex(result.err, 'up to 5 hours\n')

    def test_a_dump_that_is_waited_for_is_asked_for_once(self):
        def forget(server, exchange):
            for key in self.keys():
                server.objects[key].restore = None

        self.server.on('HeadObject', forget)
        process = self.start('restore', '/home', '0', '--thaw', '1', '--wait')
        until(lambda: self.asked('RestoreObject') and self.server.operations()[-4:] == [
            'HeadObject', 'GetObject'] * 2, 'it looks again')
        process.terminate()
        self.finish(process)
        self.assertEqual(len(self.asked('RestoreObject')), 2)

    def test_where_the_class_is_but_a_label_there_is_nothing_to_thaw(self):
        self.server.quirks.add('class-is-a-label')
        for argv in ([], ['--thaw', '3'], ['--thaw', '3', '--wait']):
            self.assertEqual(self.succeed('restore', '/home', '0', *argv).out, self.data)
        self.succeed('check', '/home', '0')
        self.assertEqual(len(self.succeed('url', '/home', '0').out.splitlines()), 2)
        self.assertEqual(self.asked('RestoreObject'), [])

    def test_what_can_neither_be_read_nor_thawed_is_an_error(self):
        for status, code in ((501, 'NotImplemented'), (405, 'MethodNotAllowed')):
            self.server.clear_faults()
            self.server.fault('RestoreObject', 'status', status=status, code=code)
            self.must_fail(1, 'RestoreObject .*' + code, 'restore', '/home', '0', '--thaw', '3')

    def test_a_wrong_or_forbidden_thaw_fails(self):
        self.must_fail(2, '--wait needs --thaw', 'restore', '/home', '0', '--wait')
        self.must_fail(2, 'takes no --thaw', 'list', '--thaw', '3')
        self.must_fail(2, 'not one of exp', 'restore', '/', '0', '--thaw', '3', '--tier', 'fast')
        self.server.fault('RestoreObject', 'status', times=None, status=403, code='AccessDenied')
        self.must_fail(1, 'RestoreObject .*AccessDenied', 'restore', '/home', '0', '--thaw', '3')

    def test_listings_tell_what_is_readable(self):
        entry = s3.ListEntry('h:/:0:2020-01-01', 5, 0, 'GLACIER', '', 'done')
        dump = s3dump.group([entry])[0][0]
        self.assertEqual(dump.state(), '  GLACIER (readable now)')
        for restore, text in (('ongoing', '  GLACIER (being restored)'), ('', '  GLACIER')):
            dump.pieces[0] = entry._replace(restore=restore)
            self.assertEqual(dump.state(), text)


class DeleteAclUrlInitTests(ProgramTestCase):

    def test_delete_takes_the_dump_of_today_or_of_the_date(self):
        noon = {'TZ': 'XYZ%d' % (time.gmtime().tm_hour - 12)}     # there it is far from midnight
        old = self.place(date='2020-01-01')
        self.must_fail(1, r"no dump of '/home' level 0", 'delete', '/home', '0')
        new = self.dump(b'data', '/home', '0', env=noon)
        self.assertIn(new, self.succeed('delete', '/home', '0', '-n', env=noon).out.decode())
        self.assertEqual(self.keys(), sorted([old, new]))
        self.succeed('delete', '/home', '0', env=noon)
        self.assertEqual(self.keys(), [old])
        self.succeed('delete', '/home', '0', '-w', '2020-01-01')
        self.assertEqual(self.keys(), [])
        self.must_fail(1, "there is no object 'nothing'", 'delete', '-k', 'nothing')
        key = self.place()
        self.server.fault('DeleteObject', 'status', status=403, code='AccessDenied', times=None)
        self.must_fail(1, 'cannot delete .*AccessDenied', 'delete', '-k', key)

    def test_it_is_said_what_builds_upon_what_goes(self):
        keys = [self.place(level=level, date='2020-01-0' + level) for level in '123']
        self.server.put('note', b'')
        for key, said in zip(keys + ['note'], ('2 dumps build', '1 dump builds', None, None)):
            self.assertEqual(self.succeed('delete', '-n', '-k', key).err, said and (
                's3dump: warning: %s upon %s, up to %s: without it, what they restore is not what '
                'was dumped\n' % (said, key, keys[2])) or '')
        self.assertIn('2 dumps build', self.succeed(
            'delete', '-q', '/home', '1', '-w', '2020-01-01').err)

    def test_delete_deletes_none_of_several(self):
        keys = sorted(self.place("/it's $HOME") for _ in range(3))
        result = self.must_fail(1, '3 dumps match and none was deleted: choose one by -k KEY',
                                'delete', "/it's $HOME", '0', '-w', '2020-01-10')
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

    @unittest.skipUnless(shutil.which('curl'), 'there is no curl here')
    def test_the_lines_for_curl_restore_a_dump_and_go_on_where_it_broke_off(self):
        self.configure(part_size='5m', max_parts='1')
        data = some_bytes(2 * PART + 9)
        self.dump(data, '-k', 'some/../dump')
        result = self.succeed('url', '-k', 'some/../dump')
        self.write_file(result.out, 'urls')
        line = re.search(r'file part: (.*)\n', result.err).group(1)
        self.write_file(b'left behind by another dump', 'part')
        cut = self.server.fault('GetObject', 'cut', bytes=3 << 20, times=2)
        line = line.replace('sleep 5', 'sleep 0').replace('--retry 5', '--retry 0')
        done = subprocess.run(['sh', '-c', line], cwd=self.home, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, env=clean_environment(self.home),
                              timeout=PATIENCE)
        self.assertEqual((done.returncode, done.stdout == data), (0, True), done.stderr)
        self.assertEqual(cut.hits, 2)
        asked = [request.headers.get('range') for request in self.server.log
                 if request.operation == 'GetObject']
        self.assertEqual(asked[:2], [None, 'bytes=%d-' % (3 << 20)])
        self.server.fault('GetObject', 'status', status=403, code='AccessDenied', times=None)
        self.assertEqual(subprocess.call(['sh', '-c', line], cwd=self.home, timeout=PATIENCE,
                                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL), 1)
        self.assertEqual(self.succeed('url', '-q', '-k', 'some/../dump').err, '')

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
                self.write_file(server.config())
                for command, message in (('init', 'was created: '), ('initialize', 'is there: ')):
                    self.assertRegex(self.succeed(command).err,
                                     r'\As3dump: the bucket %s %s' % (bucket, message))
                self.assertEqual(server.objects, {})
                self.assertEqual(server.violations, [])
                server.add_user('WRITER', 'sesame', allow=WRITE_ONLY | {'HeadBucket'})
                self.write_file(server.config(access_key_id='WRITER', secret_access_key='sesame'))
                result = self.run_program('init')
                self.assertEqual(result.status, 1)
                self.assertRegex(result.err, r'\As3dump: left behind: [^\s:]+:s3dump-init-\w+\n'
                                 r's3dump: init: GetObject [^\n]*AccessDenied[^\n]*\n\Z')


    def test_init_passes_with_a_policy_by_prefix(self):
        self.server.add_user('REDLANCE', 'sesame', prefix='redlance:')
        self.write_file(self.server.config(access_key_id='REDLANCE', secret_access_key='sesame'))
        self.succeed('init', '-h', 'redlance')
        self.assertEqual(self.keys(), [])
        self.must_fail(1, 'PutObject [^\n]*AccessDenied', 'init', '-h', 'other')

    def test_init_finds_out_that_the_endpoint_names_the_bucket(self):
        self.server.quirks.add('object-for-bucket')
        self.must_fail(2, 'made an object where a bucket was asked for', 'init')
        self.assertEqual(self.keys(), [])
        self.server.put('bucket', b'')
        self.must_fail(2, 'is not in the listing of the bucket: does `endpoint`', 'init')
        self.assertEqual(self.keys(), ['bucket'])


class IntruderTests(ProgramTestCase):
    """Somebody has the machine, its write-only key, and these sources."""

    def test_nothing_of_what_is_stored_is_lost(self):
        server = self.server
        self.configure(part_size='5m')
        whole = self.dump(b'precious', '/home', '0')
        fixed = self.dump(b'precious too', '/home', '0', '--fixed-key', '-w', '2020-01-01')
        owner = SigningClient(server)
        self.addCleanup(owner.close)
        upload = owner('POST', '/bucket/begun?uploads=')
        upload_id = re.search(b'<UploadId>(.*)</UploadId>', upload.body).group(1).decode()
        before = dict(server.objects)
        # writeonly.json and bucket.json of the README: PutObject and AbortMultipartUpload are
        # allowed; what creates an object has to carry If-None-Match.
        server.add_user('THIEF', 'stolen', allow=WRITE_ONLY | {'AbortMultipartUpload'},
                        conditional=True)
        thief = SigningClient(server, 'THIEF', 'stolen')
        self.addCleanup(thief.close)

        star = {'if_none_match': '*'}
        for name, answer in (
                ('overwrite', thief('PUT', url_path(fixed), b'x')),
                ('overwrite, with the condition', thief('PUT', url_path(whole), b'x', **star)),
                ('overwrite by another ETag', thief('PUT', url_path(fixed), b'x', if_match='"x"')),
                ('read', thief('GET', url_path(fixed))), ('look', thief('HEAD', url_path(fixed))),
                ('look for a guess', thief('HEAD', url_path(whole[:-1]))),
                ('list', thief('GET', '/bucket?list-type=2')),
                ('list uploads', thief('GET', '/bucket?uploads=')),
                ('list parts', thief('GET', '/bucket/begun?uploadId=' + upload_id)),
                ('delete', thief('DELETE', url_path(fixed))),
                ('thaw', thief('POST', url_path(fixed) + '?restore=', b'<RestoreRequest/>')),
                ('read the ACL', thief('GET', url_path(fixed) + '?acl=')),
                ('set the ACL', thief('PUT', url_path(fixed) + '?acl=', b'<AccessControlPolicy/>')),
                ('complete an upload', thief('POST', '/bucket/begun?uploadId=guess',
                                             b'<CompleteMultipartUpload/>', **star)),
                ('set the policy', thief('PUT', '/bucket?policy=', b'{}')),
                ('let all expire', thief('PUT', '/bucket?lifecycle=', b'<x/>')),
                ('stop versions', thief('PUT', '/bucket?versioning=', b'<x/>')),
                ('delete the bucket', thief('DELETE', '/bucket'))):
            with self.subTest(name):
                self.assertIn(answer.status, (403, 404, 412, 501), answer)
                if 'overwrite' not in name:
                    self.assertNotIn(b'precious', answer.body)
        self.assertEqual(dict(server.objects), before)
        self.assertEqual(list(server.uploads), [upload_id])
        self.configure(access_key_id='THIEF', secret_access_key='stolen', part_size='5m')
        for size in (100, PART + 1):
            self.dump(bytes(size), '/home', '1')        # the machine's own dumps still work
        for command in (['list'], ['restore', '/home', '0'], ['delete', '-k', fixed],
                        ['clean', '1'], ['restore', '-k', whole]):
            self.assertEqual(self.run_program(*command).status, 1, command)
        self.must_fail(1, 'PreconditionFailed|AccessDenied', 'dump', '-k', fixed, data=b'x')
        self.must_fail(1, 'AccessDenied', 'dump', '-k', fixed, '--overwrite', data=b'x')
        self.assertEqual({key: server.objects[key] for key in before}, before)
        server.violations.clear()        # what the thief did was not proper


# --- Versions ----------------------------------------------------------------

class VersionTestCase(ProgramTestCase):
    """A bucket that keeps versions."""

    def setUp(self):
        ProgramTestCase.setUp(self)
        self.server.versioning = 'Enabled'
        self.addCleanup(vars(self.server).update, versioning='', offset=0)

    def hours_pass(self, hours=1):
        """Let all that is there become older."""
        for key in set(self.server.objects) | set(self.server.objects.stacks):
            for version in self.server.objects.versions(key):
                version.modified -= 3600 * hours

    def ago(self, hours):
        """The time so many hours ago, as --at takes it."""
        return time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(time.time() - 3600 * hours))


class AtTests(VersionTestCase):
    """What was there is listed, restored and checked, whatever became of it."""

    def test_an_age_goes_by_the_servers_clock_though_an_answer_is_lost(self):
        self.server.offset = 400 * DAY
        key = self.place(stored=int(time.time()) + 400 * DAY - 2 * 3600)
        self.server.delete(key)
        self.server.fault('*', 'hangup', times=1)
        self.assertIn(key, self.succeed('list', '--at', '1h', '--json').out.decode())
        self.assertIn("no dump of '/nix' level 0 for host %s (-h NAME: another); `s3dump.py list "
                      '--at` shows' % HOST,
                      self.run_program('restore', '/nix', '0', '--at', '1h').err)

    def test_every_command_sees_the_bucket_as_it_was(self):
        data = {key: self.dump(key.encode(), *key.split()) for key in ('/home 0', '/home 1')}
        before = self.succeed('list').out
        self.hours_pass(3)
        self.dump(b'newer', '/home', '0')
        self.hours_pass(1)
        self.succeed('clean', '1', '--force')
        self.succeed('delete', '-k', data['/home 1'])
        then = self.ago(2)
        for labels, key in data.items():
            self.must_fail(1, 'no object', 'restore', '-k', key)
            for argv in (labels.split(), ['-k', key]):
                result = self.succeed('restore', *argv, '--at', then)
                self.assertEqual(result.out.decode(), labels)
                self.assertIn(key, result.err)
                self.assertEqual(json.loads(self.succeed(
                    'verify', '--json', *argv, '--at', then).out)['key'], key)
                url, = self.succeed('url', *argv, '--at', then).out.decode().split()
                with urlopen(url) as answer:
                    self.assertEqual(answer.read().decode(), labels)
        self.assertEqual(self.succeed('list', '--at', then).out, before)
        self.assertEqual(self.succeed('restore', '/home', '0').out, b'newer')
        self.assertEqual(self.succeed('restore', '/home', '0', '--at', self.ago(0.5)).out, b'newer')
        self.must_fail(1, 'no dump of', 'restore', '/home', '0', '--at', '2009-12-31')
        self.must_fail(1, 'there is no object', 'restore', '-k', 'x', '--at', then)

    def test_an_age_goes_by_the_servers_clock(self):
        self.server.offset = 9000 * DAY
        key = self.dump(b'data', '/home', '0')
        self.hours_pass(3)
        self.succeed('delete', '-k', key)
        self.assertEqual(self.run_program('verify', '/home', '0', '--at', '4h').status, 1)
        self.assertEqual(self.succeed('restore', '/home', '0', '--at', '2h').out, b'data')

    def test_volumes_and_the_chunks_of_older_versions_come_back_from_below(self):
        self.configure(part_size='5m', max_parts='1')
        data = some_bytes(2 * PART + 7)
        key, old = self.dump(data, '/home', '0', '--fixed-key'), HOST + ':/old:0:2009-10-07'
        for number in range(3):
            self.server.put('%s/chunk_%06d' % (old, number), b'%d' % number)
        before, then = self.keys(), self.ago(1)
        self.hours_pass(2)
        for each in before:
            self.server.put(each, b'rubbish')
            self.server.delete(each)
        self.server.put(before[0], b'more')
        for argv in (['/home', '0'], ['-k', key]):
            self.assertEqual(self.succeed('restore', *argv, '--at', then).out, data)
            self.assertEqual(len(self.succeed('url', *argv, '--at', then).out.split()), 3)
        for argv in (['/old', '0'], ['-k', old]):
            self.assertEqual(self.succeed('restore', *argv, '--at', then).out, b'012')

    def test_what_lies_in_an_archive_is_thawed_by_its_version(self):
        self.configure(storage_class='GLACIER')
        key = self.dump(b'data', '/home', '0', '--fixed-key')
        cold = self.server.objects[key]
        self.hours_pass(2)
        self.server.put(key, b'rubbish')
        argv = ['/home', '0', '--at', '1h', '--thaw', '2']
        self.assertEqual(self.run_program('restore', *argv).status, 3)
        self.assertEqual((cold.restore, cold.restore_request), ('ongoing', (2, 'Standard')))
        cold.restore = self.server.now() + DAY
        self.assertEqual(self.succeed('restore', *argv).out, b'data')

    def test_check_counts_ages_up_to_then(self):
        self.place(stored=time.time() - 60 * 3600)
        for status, ago, text in ((0, 40, '20 h old'), (1, 20, 'is 40 h old'),
                                  (1, 61, 'there is no dump')):
            result = self.run_program('check', '/home', '0', '--at', self.ago(ago))
            self.assertEqual(result.status, status)
            self.assertIn(text, result.out.decode())
        self.dump(bytes(100), '/home', '0')
        self.place_upload('id', HOST + ':/home:0:2020-01-10', 60)
        tomorrow = time.strftime('%Y-%m-%d', time.localtime(time.time() + DAY))
        self.assertRegex(self.succeed('check', '/home', '0', '--at', tomorrow).out,
                         b', [0-9]+ s old')
        self.assertIn(b'Unfinished uploads: 1', self.succeed('list').out)
        self.assertNotIn(b'Unfinished', self.succeed('list', '--at', tomorrow).out)

    def test_a_time_is_a_day_a_moment_or_an_age(self):
        self.addCleanup(time.tzset)
        self.addCleanup(os.environ.update, TZ=os.environ.get('TZ', ''))
        os.environ['TZ'] = 'CET-1CEST,M3.5.0,M10.5.0/3'
        time.tzset()
        for text, utc in (('2026-11-20', '2026-11-20 22:59:59'), ('2026-07-31 06:00', None),
                          ('2026-07-31T06:00', '2026-07-31 04:00:00'),
                          ('2026-11-20 06:00:07', '2026-11-20 05:00:07'),
                          ('2026-03-29', '2026-03-29 21:59:59'),
                          ('2026-10-25', '2026-10-25 22:59:59'),
                          ('2027-12-31', '2027-12-31 22:59:59')):
            if utc:
                self.assertEqual(s3dump.parse_at(text), calendar.timegm(time.strptime(
                    utc, '%Y-%m-%d %H:%M:%S')), text)
        self.assertEqual([s3dump.parse_at(text) for text in ('3d', '1s')], [-3 * DAY, -1])
        for text in ('', '2026', '2026-02-30', '2026-11-20 24:00', '2026-11-20 06:60',
                     '2026-11-20 6:00', '2026-11-20 06:00 ', '1066-10-14', '0d', '3', 'now'):
            with self.assertRaises(ValueError):
                s3dump.parse_at(text)
        self.must_fail(2, 'is not a time: 2009-12-31, ', 'list', '--at', 'yesterday')
        self.must_fail(2, 'dump takes no --at', 'dump', '/home', '0', '--at', '3d')


class UndeleteTests(VersionTestCase):
    """What was deleted comes back, if only delete markers hide it."""

    def lose(self, *keys):
        for key in keys:
            self.server.delete(key)

    def test_what_a_thief_of_read_write_credentials_did_is_undone(self):
        server, data = self.server, {}
        self.configure(part_size='5m', max_parts='1')
        for fs, size, more in (('/', 9, []), ('/', 10, []), ('/home', PART + 1, []),
                               ('/srv', 11, ['--fixed-key']), ('/set', 2 * PART, [])):
            data[self.dump(some_bytes(size), fs, '0', *more)] = some_bytes(size)
        other = self.dump(b'of another', '/', '0', '-h', 'other')
        data[other] = b'of another'
        old = HOST + ':/old:0:2009-10-07'
        for number in range(3):
            server.put('%s/chunk_%06d' % (old, number), b'%d' % number)
        data[old], before = b'012', self.keys()
        listed = self.succeed('list', '-a').out
        self.hours_pass(2)
        # readwrite.json of the README
        server.add_user('THIEF', 'stolen', allow=WRITE_ONLY | {
            'ListObjectsV2', 'ListMultipartUploads', 'GetObject', 'HeadObject', 'DeleteObject',
            'AbortMultipartUpload', 'ListParts'})
        thief = SigningClient(server, 'THIEF', 'stolen')
        self.addCleanup(thief.close)
        versions = {key: server.objects[key].version_id for key in before}
        replaced = {key for key in data if key != old and (':/:' in key or ':/set:' in key)}
        for key in before:
            if key in replaced:
                self.assertEqual(thief('PUT', url_path(key), b'rubbish').status, 200)
            if key not in replaced or ':/set:' in key or key == other:
                self.assertEqual(thief('DELETE', url_path(key)).status, 204)
            answer = thief('DELETE', '%s?versionId=%s' % (url_path(key), versions[key]))
            self.assertEqual(answer.status, 403)
        self.assertEqual(thief('PUT', '/bucket?lifecycle=', b'<x/>').status, 501)
        self.assertEqual(thief('PUT', '/bucket?versioning=', b'<x/>').status, 501)
        self.configure(access_key_id='THIEF', secret_access_key='stolen')
        self.assertEqual(self.run_program('undelete', '-a').status, 1)
        self.configure(part_size='5m', max_parts='1')
        for key in data:
            if key not in replaced:
                self.assertEqual(self.run_program('restore', '-k', key).status, 1)

        planned = self.run_program('undelete', '-a', '-n', '--at', '1h')
        result = self.run_program('undelete', '-a', '--at', '1h')
        self.assertEqual((planned.status, result.status), (1, 1))
        self.assertEqual(planned.out.decode().replace('would bring', 's3dump: brought'), ''.join(
            line for line in result.err.splitlines(True) if 'brought back ' in line
            and 'not everything' not in line))
        told = dict(re.findall(r"s3dump: (\S+) is left alone: something newer lies on it; "
                               r"`s3dump.py (restore .*)` reads it", result.err))
        self.assertEqual(set(told), replaced)
        for key in data:
            command = shlex.split(told[key]) if key in told else ['restore', '-k', key]
            self.assertEqual(self.succeed(*command).out, data[key], command)
            if key in told and ':/set:' not in key:         # and it can take its place again
                program = ' '.join(map(shlex.quote, COMPILED))
                self.succeed('dump', '-k', key, '--overwrite', '--', 'sh', '-c',
                             '%s %s' % (program, told[key]))
                self.assertEqual(self.succeed('restore', '-k', key).out, data[key])
        listed = [line for line in listed.splitlines() if b':' in line]
        self.assertEqual([line for line in self.succeed('list', '-a', '--at', '1h').out.splitlines()
                          if b':' in line], listed)
        self.assertEqual(set(self.keys()), {key for key in before if ':/set:' not in key})

    def test_what_is_asked_for_comes_back_and_nothing_else(self):
        keys = {(host, fs, level, date): self.place(fs, level, date, host=host)
                for host in (HOST, 'other') for fs in ('/', '/home')
                for level in ('0', '1') for date in ('2020-01-01', '2020-01-02')}
        there = self.place(date='2020-01-03')
        for argv, wanted in (
                ([], lambda host, fs, level, date: host == HOST),
                (['/home'], lambda host, fs, level, date: host == HOST and fs == '/home'),
                (['/home/', '1'], lambda *each: each[:3] == (HOST, '/home', '1')),
                (['/', '0', '-w', '2020-01-02'],
                 lambda *each: each == (HOST, '/', '0', '2020-01-02')),
                (['-h', 'other'], lambda host, *_: host == 'other'),
                (['-a', '/'], lambda host, fs, *_: fs == '/'), (['-a'], lambda *_: True),
                (['-k', keys[HOST, '/', '1', '2020-01-01']],
                 lambda *each: each == (HOST, '/', '1', '2020-01-01'))):
            with self.subTest(argv):
                self.lose(*keys.values())
                expected = sorted([there] + [key for labels, key in keys.items()
                                             if wanted(*labels)])
                planned = self.succeed('undelete', '-n', *argv)
                self.assertEqual((planned.err, self.keys()), ('', [there]))
                result = self.succeed('undelete', *argv)
                self.assertEqual(self.keys(), expected)
                self.assertEqual(sorted(re.findall('brought back (.*), 100\n', result.err)
                                        + [there]), expected)
                self.assertEqual(planned.out.decode().count('\n'), len(expected) - 1)
                self.assertEqual(self.succeed('undelete', '-q', *argv), (0, b'', ''))
        self.assertEqual(self.succeed('undelete', '/none').err,
                         's3dump: there is nothing to bring back\n')
        self.must_fail(1, 'there is no object', 'undelete', '-k', 'x')

    def test_any_object_comes_back_by_its_key(self):
        self.dump(b'data', '-k', 'notes')
        self.succeed('delete', '-k', 'notes')
        self.succeed('undelete', '-a')
        self.assertEqual(self.keys(), [])       # it is no dump
        self.succeed('undelete', '-k', 'notes')
        self.assertEqual(self.succeed('restore', '-k', 'notes').out, b'data')

    def test_a_set_comes_back_whole_or_not_at_all(self):
        self.configure(part_size='5m', max_parts='1')
        key = self.dump(bytes(2 * PART + 1), '/home', '0')
        self.succeed('delete', '/home', '0')
        for skip in range(4):
            fault = self.server.fault('DeleteObject', 'status', skip=skip, status=403,
                                      code='AccessDenied')
            result = self.run_program('undelete')
            self.assertEqual(result.status, 1)
            self.assertRegex(result.err, 'cannot bring back %s.*s3:DeleteObjectVersion is not '
                             'allowed' % re.escape(key))
            self.assertEqual(fault.hits, 1)
            self.assertNotIn(key, self.server.objects)
            self.succeed('delete', '-k', key) if skip else None
        self.succeed('undelete')
        self.succeed('verify', '/home', '0')
        self.succeed('delete', '/home', '0')
        volume, = [each for each in self.server.objects.stacks if 'volume_000001' in each]
        self.server.objects.keep(volume, self.server.objects.versions(volume)[:-1])
        result = self.run_program('undelete')
        self.assertEqual(result.status, 1)
        self.assertRegex(result.err, ' is left alone: .*volume_000001. is missing')
        for each in list(self.server.objects.stacks):
            if each != key:
                self.server.objects.keep(each, [])
        result = self.run_program('undelete', '/home')
        self.assertRegex(result.err, ' is left alone: it is as large as a volume can be')
        self.assertEqual((result.status, self.keys()), (1, []))

    def test_without_versions_there_is_nothing_to_bring_back(self):
        self.server.versioning = ''
        self.place()
        self.succeed('clean', '1')
        self.lose(self.place(date='2019-01-01'))
        self.assertEqual(self.succeed('undelete').err, 's3dump: there is nothing to bring back\n')

    def test_what_is_left_of_a_dump_without_its_first_object_stays_hidden(self):
        for end in '.volume_000001', '.end_000001':
            self.server.put('KEY' + end, b'')
        self.succeed('delete', '-y', '-k', 'KEY')
        result = self.run_program('undelete', '-y', '-k', 'KEY')
        self.assertEqual(result.status, 1)
        self.assertIn("KEY is left alone: 'KEY' is missing", result.err)
        self.assertEqual(self.keys(), [])


class HiddenTests(VersionTestCase):
    """list --deleted, and what deleting says of it."""

    def test_what_is_deleted_is_listed_since_when_and_at_what_cost(self):
        self.place(date='2020-01-03', size=7)
        for date, host, size in (('2020-01-01', HOST, 1 << 30), ('2020-01-02', HOST, 1 << 30),
                                 ('2020-01-01', HOST + 'x', 5)):
            key = self.place(date=date, host=host, size=0)
            self.server.objects[key].data = Zeros(size)
            for day in ('2026-01-05', '2026-01-06'):
                self.server.delete(key, self.noon(day))
        self.server.put('notes', b'data')
        self.server.delete('notes', self.noon('2026-01-05'))
        for key in (HOST + ':/x:0:2019-01-01.volume_000001', 'kept'):   # an orphan
            self.server.put(key, b'data')
        noon = time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(self.noon('2026-01-05')))
        dump = 'Level 0 2020-01-0%%d:     1.0G  deleted %s' % noon
        lines = ['Dumps for this host (%s):' % HOST, '/home', dump % 1, dump % 2]
        end = 'Total data hidden: 2.0G ($0.05/month)'
        self.assertEqual(self.succeed('list', '--deleted').out.decode().splitlines(),
                         lines + ['', end])
        self.assertEqual(self.succeed('list', '--deleted', '/home').out.decode().splitlines(),
                         lines + ['', end])
        of_all = self.succeed('list', '--deleted', '-a').out.decode()
        self.assertEqual(of_all.splitlines(), lines + [
            '', 'Dumps for %sx:' % HOST, '/home', 'Level 0 2020-01-01:        5  deleted ' + noon,
            '', 'Other objects, not dumps: 1, 4', '', end])
        said = [json.loads(line) for line in
                self.succeed('list', '--deleted', '--json').out.splitlines()]
        self.assertEqual([each['deleted'] for each in said], ['2026-01-05T12:00:00Z'] * 2)
        line, _ = self.succeed('list', '--deleted', '--long').out.decode().splitlines()
        self.assertEqual(line.split()[:2] + line.split()[4:], [
            str(1 << 30), '2020-01-01T12:00:00Z', 'whole', '2026-01-05T12:00:00Z', said[0]['key']])
        self.assertEqual(self.succeed('list', '--deleted', '/none').out.decode().splitlines()[-1],
                         'Total data hidden: 0 ($0.00/month)')

    def test_a_set_is_hidden_since_its_first_object_went(self):
        self.configure(part_size='5m', max_parts='1')
        self.dump(bytes(PART + 1), '/home', '0')
        for hour, key in enumerate(self.keys()):
            self.server.delete(key, self.noon('2026-01-05') + 3600 * hour)
        said = json.loads(self.succeed('list', '--deleted', '--json').out)
        self.assertEqual((said['deleted'], said['objects'], said['size']),
                         ('2026-01-05T12:00:00Z', 3, PART + 1))

    def test_it_is_said_once_that_what_is_deleted_is_only_hidden(self):
        said = 'this bucket keeps versions: what is deleted is hidden, not freed'
        for versioning in ('', 'Enabled', 'Suspended'):
            self.server.versioning = versioning
            for argv in (['clean', '1'], ['delete', '/home', '0', '-w', '2020-01-03']):
                for quiet in ([], ['-q']):
                    self.server.objects.clear()
                    for day in (1, 2, 3):
                        self.place(date='2020-01-0%d' % day)
                    planned = self.succeed(*argv, '-n', *quiet)
                    result = self.succeed(*argv, *quiet)
                    self.assertEqual(result.err.count(said), 1 if versioning and not quiet else 0)
                    self.assertNotIn(said, planned.err)
                    self.assertEqual(set(self.server.log[-1].query), set())


class LockTests(ProgramTestCase):
    """Until when dumps are locked is listed, and checked."""

    def lock(self, key, days, **attributes):
        found = self.server.objects[key]
        found.lock_mode, found.lock_until = 'GOVERNANCE', int(time.time()) + days * DAY
        vars(found).update(attributes)
        return time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(found.lock_until))

    def test_locks_are_listed(self):
        keys = [self.place(date='2020-01-0%d' % day) for day in (1, 2, 3, 4)]
        first, other = self.lock(keys[0], 9), self.place(host='other')
        self.server.objects[keys[3]].metadata['x-amz-object-lock-retain-until-date'] = 'soon'
        self.lock(keys[1], -1)
        self.lock(keys[2], 1, legal_hold='ON')
        self.assertNotIn('lock', self.succeed('list').out.decode())
        self.assertEqual(self.asked('HeadObject'), [])
        there = time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(
            self.server.objects[keys[0]].lock_until))
        self.assertEqual([line[28:] for line in
                          self.succeed('list', '--locks').out.decode().splitlines()[2:6]],
                         ['  locked until ' + there, '  not locked', '  locked until released',
                          '  not locked'])
        self.assertEqual(sorted(self.asked('HeadObject')), keys)
        said = [json.loads(line) for line in
                self.succeed('list', '-a', '--locks', '--json').out.splitlines()]
        self.assertEqual({each['key']: each['locked_until'] for each in said}, dict(zip(
            keys + [other], [first, None, 'released', None, None])))
        self.assertEqual([line.split()[5] for line in
                          self.succeed('list', '--locks', '--long').out.decode().splitlines()],
                         [first, '-', 'released', '-'])
        for status in (403, 404):
            self.server.fault('HeadObject', 'status', status=status, code='', times=None)
            self.assertEqual(self.succeed('list', '--locks').out.count(b'not locked'), 4)
            self.server.clear_faults()
        self.server.fault('HeadObject', 'status', status=400, code='Broken', times=None)
        self.must_fail(1, r'HeadObject .*: BadRequest \(400\): \(gave up', 'list', '--locks')

    def test_a_dump_is_locked_as_long_as_all_of_its_objects_are(self):
        self.configure(part_size='5m', max_parts='1')
        self.dump(bytes(2 * PART), '/home', '0')
        ends = [self.lock(key, days) for days, key in zip((30, 20, 10), self.keys())]
        said = json.loads(self.succeed('list', '--locks', '--json').out)
        self.assertEqual((said['locked_until'], said['objects']), (ends[2], 3))
        key = self.keys()[0] + '.volume_000009'         # somebody else's
        self.server.put(key, b'', metadata={'x-amz-meta-dump-id': 'x'})
        said = json.loads(self.succeed('list', '--locks', '--json').out)
        self.assertEqual((said['locked_until'], said['objects']), (ends[2], 4))

    def test_check_wants_a_lock_that_lasts(self):
        key = self.place(date='2020-01-10', stored=time.time() - 3600)
        self.check(1, 'not locked, or these credentials may not see its lock', '30d')
        until = self.lock(key, 30)
        self.check(0, 'good', '29d')
        self.check(1, 'is locked until %s only' % until, '31d')
        self.lock(key, 30, legal_hold='ON')
        self.check(0, 'good', '9999d')
        self.server.fault('HeadObject', 'status', status=403, times=None)
        self.check(1, 'may not see its lock', '1d')

    def check(self, status, text, least):
        result = self.run_program('check', '/home', '0', '--locked', least)
        self.assertEqual((result.status, result.err), (status, ''))
        self.assertIn(text, result.out.decode())


# What was done to a bucket: when, to which key, and what was put there (None: it was deleted), by
# which dump.
Event = collections.namedtuple('Event', 'when key data dump')


class History:
    """A random history of the dumps of a host: the model of a bucket that keeps versions.

    It knows nothing of versions, only what was done, in order, and which objects each dump has.
    """

    FULL = 10                       # bytes of a volume

    def __init__(self, chance, host):
        self.chance, self.events, self.now = chance, [], 1577880000
        self.members = {}           # the keys of each dump, by its number
        self.families = {'%s:%s:%d:2020-01-0%d' % (
            host, chance.choice(('/', '/home')), chance.randint(0, 1), number):
            chance.choice(('one', 'set', 'set', '/chunk_%06d', ':%d')) for number in range(1, 4)}
        for number in range(chance.randint(2, 9)):
            self.now += chance.choice((0, 0, 1, 60, 3600))
            deed = chance.choice((self.dump, self.delete, self.delete, self.delete_some,
                                  self.overwrite)) if number else self.dump
            deed(chance.choice(sorted(self.families)))

    def put(self, key, size, dump):
        self.events.append(Event(self.now, key, os.urandom(size), dump))
        self.now += self.chance.choice((0, 0, 1))

    def dump(self, key):
        kind, count, dump = self.families[key], self.chance.randint(2, 4), len(self.members)
        sizes = {key: self.chance.randint(1, self.FULL - 1)}
        if kind == 'set':
            sizes = {'%s.volume_%06d' % (key, number): self.FULL for number in range(1, count)}
            sizes['%s.volume_%06d' % (key, count - 1)] = self.chance.randint(1, self.FULL)
            sizes.update({'%s.end_%06d' % (key, count - 1): 0, key: self.FULL})
        elif kind != 'one':
            sizes = {key + kind % number: 5 for number in range(count)}
        self.members[dump] = set(sizes)
        for each, size in sizes.items():
            self.put(each, size, dump)

    def delete(self, key):
        for each in sorted(self.state(self.now)):
            if each.startswith(key):
                self.events.append(Event(self.now, each, None, None))

    def delete_some(self, key):
        for each in sorted({event.key for event in self.events if event.key.startswith(key)}):
            if self.chance.random() < 0.3:          # what is there, or was deleted already
                self.events.append(Event(self.now, each, None, None))

    def overwrite(self, key):
        for each in sorted({event.key for event in self.events if event.key.startswith(key)}):
            if self.chance.random() < 0.3:
                self.members[len(self.members)] = {each}
                self.put(each, 3, len(self.members) - 1)

    def metadata(self, event):
        """What is stored with an object, but older versions didn't."""
        kind, = [kind for key, kind in self.families.items() if event.key.startswith(key)]
        return {'x-amz-meta-dump-id': 'dump%d' % event.dump,
                'x-amz-meta-volume-size': str(self.FULL)} if kind in ('one', 'set') else {}

    def state(self, when):
        """What was there: {key: Event}."""
        there = {}
        for event in self.events:
            if event.when <= when:
                there[event.key] = event
        return {key: event for key, event in there.items() if event.data is not None}

    def undeleted(self):
        """What there would be if nothing had been deleted."""
        return {event.key: event for event in self.events if event.data is not None}

    def objects(self, key, there):
        """The Events of the objects of a dump in this state, in order; None if it isn't whole."""
        if self.families[key] in ('one', 'set'):
            first = there.get(key)
            if first and all(each in there and there[each].dump == first.dump
                             for each in self.members[first.dump]):
                return [there[each] for each in sorted(
                    self.members[first.dump], key=lambda each: ('.end' in each, each))]
            return None
        found = [key + self.families[key] % number for number in range(9)]
        found = [each in there for each in found]
        count = sum(found)
        return [there[key + self.families[key] % number] for number in range(count)] if (
            count and all(found[:count])) else None

    def undelete(self, then):
        """What undelete must make of it, and whether it must leave a dump alone; then: the state
        that it is to bring back."""
        after, alone = self.state(self.now + 9), False
        for key in self.families:
            first = then.get(key)
            counted = [event for event in then.values() if event.key.startswith(key) and (
                self.families[key] not in ('one', 'set') or first and event.dump == first.dump)]
            later = [event for old in counted for event in
                     self.events[self.events.index(old) + 1:] if event.key == old.key]
            whole = self.objects(key, then)
            if later and (whole is None or any(event.data is not None for event in later)):
                alone = True
            elif later:
                after.update((event.key, event) for event in whole)
        return after, alone


class HistoryTests(VersionTestCase):
    """--at and undelete, held against the model in 300 random histories."""

    def setUp(self):
        VersionTestCase.setUp(self)
        self.bucket = s3.Bucket(s3.load_config(self.config), environ={})
        self.addCleanup(self.bucket.close)
        self.errors = tempfile.TemporaryFile()
        self.addCleanup(self.errors.close)
        self.addCleanup(os.close, os.dup(2))
        stderr = os.dup(2)
        self.addCleanup(os.close, stderr)
        self.addCleanup(os.dup2, stderr, 2)
        os.dup2(self.errors.fileno(), 2)

    def commands(self, *argv):
        """Return what makes a command line like this one, for a host, with other arguments."""
        like = vars(s3dump.parse([*argv, '-q']))
        return lambda host, **other: argparse.Namespace(**dict(like, host=host, here=HOST, **other))

    def histories(self, count):
        for seed in range(count):
            history = History(random.Random(seed), 'h%d' % seed)
            for event in history.events:
                if event.data is None:
                    self.server.delete(event.key, event.when)
                else:
                    self.server.put(event.key, event.data, modified=event.when,
                                    metadata=history.metadata(event))
            yield seed, 'h%d' % seed, history

    def same(self, there, found):
        self.assertEqual({key: zlib.crc32(data) for key, data in found.items()},
                         {key: zlib.crc32(event.data) for key, event in there.items()})

    def test_what_was_there_is_seen(self):
        verify = self.commands('verify', '/', '0')
        for seed, host, history in self.histories(300):
            with self.subTest(seed=seed):
                when = history.chance.choice(history.events).when + history.chance.choice((-1, 0))
                there, self.bucket.at = history.state(when), when
                listed = list(self.bucket.list_objects(host + ':'))
                self.assertEqual([(entry.key, entry.etag.strip('"'), entry.modified, entry.size)
                                  for entry in listed],
                                 [(key, hashlib.md5(event.data).hexdigest(), event.when,
                                   len(event.data)) for key, event in sorted(there.items())])
                self.restored(verify, history, history.chance.choice(sorted(history.families)),
                              there)

    def restored(self, verify, history, key, there):
        """A dump is read back as it was, or refused if it wasn't whole."""
        host, fs, level, date = key.split(':')
        expected, pieces = history.objects(key, there), []
        args = verify(host, fs=fs, level=level, date=date)
        try:
            found = s3dump.find_whole(self.bucket, args)
            self.bucket.download(found.keys, lambda view: pieces.append(bytes(view)),
                                 ended=bool(found.ends))
        except s3.Error:
            self.assertIsNone(expected)
        else:
            self.assertEqual(b''.join(pieces), b''.join(event.data for event in expected))

    def test_what_was_deleted_comes_back(self):
        undelete = self.commands('undelete', '-y')
        for seed, host, history in self.histories(300):
            with self.subTest(seed=seed):
                args = undelete(host)
                then = history.undeleted()
                if seed % 2:
                    args.at = history.chance.choice(history.events).when
                    then = history.state(args.at)
                after, alone = history.undelete(then)
                before = self.versions(host)
                asked = len(self.server.log)
                s3dump.set_at(self.bucket, args)
                try:
                    s3dump.undelete(self.bucket, args)
                except s3.Error as error:
                    self.assertIn('not everything can be brought back', str(error))
                    self.assertTrue(alone)
                else:
                    self.assertFalse(alone)
                self.same(after, {key: found.data for key, found in self.server.objects.items()
                                  if key.startswith(host + ':')})
                self.assertEqual(self.versions(host), before)
                self.in_order(history, [request.key for request in self.server.log[asked:]
                                        if request.operation == 'DeleteObject'])

    def versions(self, host):
        return {key: [found.version_id for found in versions if not found.marker]
                for key, versions in self.server.objects.stacks.items()
                if key.startswith(host + ':')}

    def in_order(self, history, deleted):
        """The first object of a set came back last."""
        for key in history.families:
            of_set = [each for each in deleted if each.startswith(key)]
            if key in of_set:
                self.assertEqual(set(of_set[of_set.index(key):]), {key})


Made = collections.namedtuple('Made', 'number level key files names base')


class Nights:
    """A random history of files and of their dumps: the model of what restoring them must give.

    It knows what each dump was made upon, as dump(8) notes that when it makes one, and what was
    there then; it knows of no chain.
    """

    SCHEMES = (lambda night: (0, 3, 2, 5, 4, 7, 6, 9, 8, 9)[night % 10],        # Tower of Hanoi
               lambda night: (0, 4, 3, 4, 2, 4, 3, 4, 1, 4, 3, 4, 2, 4, 3, 4)[night % 16],
               lambda night: 0 if night % 14 == 0 else 1 if night % 7 == 0 else 2,
               lambda night: 0 if night % 14 == 0 else 1 + night % 7)   # upon the night before

    def __init__(self, seed):
        self.chance = chance = random.Random(seed)
        scheme = self.SCHEMES[seed % 5] if seed % 5 < 4 else lambda night: chance.randint(0, 3)
        self.made, self.states, files, noted = [], [], {}, {}
        gaps = chance.choice((0, 0.1, 0.4))
        for night in range(chance.randint(1, 24)):
            for time_of_day in range(chance.choice((1, 1, 1, 2))):
                for name in chance.sample(range(8), chance.randint(0, 4)):
                    if chance.random() < 0.3:
                        files.pop(name, None)
                    else:
                        files[name] = len(self.made), chance.random()
                level = scheme(night)
                base = max((one for lower, one in noted.items() if lower < level), default=None)
                if chance.random() < gaps or (level and not base):
                    continue                        # nothing is stored, and nothing noted
                changed = {name: what for name, what in files.items()
                           if not base or base.number < what[0]}
                noted[level] = one = Made(
                    len(self.made), level, '%s:/home:%d:2020-01-%02d:202001%02dT1%d0000.000Z-%s' % (
                        HOST, level, night + 1, night + 1, time_of_day, '%016d' % seed),
                    changed, set(files), base)
                self.made.append(one)
                self.states.append(dict(files))
        lost = chance.choice((0, 0, 0.2, 0.6))      # what was deleted
        self.left = {one.number: one for one in self.made if chance.random() >= lost}

    def needed(self, one):
        """Return the numbers of the dumps that it takes to restore one, in order."""
        found = []
        while one:
            found.append(one.number)
            if one.base and one.base.number in self.left:
                one = one.base
            else:
                older = [each for number, each in self.left.items()
                         if number < one.number and each.level < one.level]
                one = older[-1] if older else None
        return found[::-1]

    def restore(self, dumps):
        """Return the files that one has who restores these one after the other."""
        files = {}
        for one in dumps:
            files.update(one.files)
            files = {name: what for name, what in files.items() if name in one.names}
        return files


class ChainTests(unittest.TestCase):

    def test_a_chain_is_what_it_takes_in_2000_random_histories(self):
        restored = 0
        for seed in range(2000):
            history = Nights(seed)
            of_key = {one.key: one for one in history.left.values()}
            entries = [s3.ListEntry(key, 1, 2e9, 'STANDARD', '', '') for key in of_key]
            history.chance.shuffle(entries)
            seen = set()
            for chain in s3dump.chains(s3dump.group(entries)[0]):
                found = [of_key[one.key] for one in chain]
                newest = found[-1]
                self.assertEqual([one.number for one in found], history.needed(newest), seed)
                if all(one.base is below for one, below in zip(found, [None] + found)):
                    self.assertEqual(history.restore(found), history.states[newest.number], seed)
                    restored += 1
                seen.add(newest.number)
            self.assertEqual(seen, set(history.left))
        self.assertGreater(restored, 10000)


class ChainsLeftTests(ProgramTestCase):
    """What clean leaves can be restored as before, in random histories."""

    def test_clean_leaves_what_its_rules_keep_and_all_that_is_built_upon_and_no_more(self):
        bucket = s3.Bucket(s3.load_config(self.config), environ={})
        self.addCleanup(bucket.close)
        for seed in range(100):
            history = Nights(seed)
            self.server.objects.clear()
            for one in history.left.values():
                self.server.put(one.key, b'1', metadata={'x-amz-meta-volume-size': '9'})
            count = history.chance.randint(1, 3)
            levels = {one.level for one in history.left.values()}
            asked = history.chance.choice([None, *levels])
            kept = []
            for level in levels:
                of_level = [one for one in history.left.values() if one.level == level]
                kept += of_level[-count:] if asked in (None, level) else of_level
            needed = {number for one in kept for number in history.needed(one)}
            argv = ['clean', str(count), '/home'] + [str(asked)] * (asked is not None)
            s3dump.clean(bucket, s3dump.parse(argv + ['-qy', '-h', HOST]))
            self.assertEqual(self.keys(), sorted(history.left[number].key for number in needed))
            if kept:
                date = history.chance.choice(self.keys()).split(':')[3]
                chain = history.needed(history.left[max(
                    number for number in needed
                    if history.left[number].key.split(':')[3] <= date)])
                argv = ['restore', '--chain', '/home', '-h', HOST, '-w', date]
                try:
                    found = s3dump.find_chain(bucket, s3dump.parse(argv))
                except s3.Error as error:
                    self.assertIn('builds upon a dump of level 0', str(error))
                    self.assertGreater(history.left[chain[0]].level, 0)
                else:
                    self.assertEqual([one.key for one in found],
                                     [history.left[number].key for number in chain])


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

    def test_a_signal_in_the_middle_of_a_part_stores_nothing(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            with self.subTest(number):
                process, _ = self.stalled_dump()
                process.send_signal(number)
                result = self.end(process)
                self.assertEqual((result.status, result.out), (128 + number, b''))
                self.assertEqual(result.err, 's3dump: ended by signal %d: nothing is stored\n'
                                 % number)
                self.assertEqual((self.keys(), self.server.uploads), ([], {}))

    def test_a_signal_at_any_point_leaves_all_or_nothing(self):
        cases = (
            ('PutObject', 'start', 100, False, 'unknown'),
            ('PutObject', 'body', 100, False, 'unknown'),
            ('CreateMultipartUpload', 'reply', PART + 1, False, ''),
            ('CreateMultipartUpload', 'done', PART + 1, False, ''),
            ('UploadPart', 'start', PART + 1, False, ''),
            ('UploadPart', 'reply', PART + 1, False, ''),
            ('CompleteMultipartUpload', 'start', PART + 1, False, ''),
            ('CompleteMultipartUpload', 'reply', PART + 1, False, ''),
            ('CompleteMultipartUpload', 'done', PART + 1, True, 'completed already'))
        started = []
        for number, (operation, when, size, *_) in enumerate(cases):    # side by side: one wait
            fault = self.server.fault(
                operation, 'stall', when=when,
                where=lambda exchange, label=':case%d:' % number: label in exchange.key)
            process = self.start('dump', 'case%d' % number, '0')
            self.feed(process, bytes(size))
            self.assertTrue(fault.event.wait(PATIENCE))
            process.terminate()
            started.append(process)
        for number, (operation, when, size, stored, message) in enumerate(cases):
            with self.subTest('%s %s' % (operation, when)):
                result = self.finish(started[number])
                self.assertEqual((result.status, result.out), (128 + signal.SIGTERM, b''))
                self.assertRegex(result.err, r'\A(s3dump: warning: [^\n]*%s[^\n]*\n)?'
                                 r's3dump: ended by signal 15%s\n\Z' % (
                                     message, '' if message else ': nothing is stored'))
                self.assertIn(message, result.err)
                self.assertEqual([len(found.data) for key, found in self.server.objects.items()
                                  if ':case%d:' % number in key], [size] if stored else [])
        self.assertEqual(self.parts_left(), [])

    def listen(self):
        listener = socket.socket()
        self.addCleanup(listener.close)
        listener.bind(('127.0.0.1', 0))
        listener.listen(0)
        return listener, listener.getsockname()[1]

    def connecting(self, port):
        """Return the ports whose connections to a port are answered by nothing."""
        with open('/proc/net/tcp') as file:     # which may skip a line, or have it twice
            return {int(found, 16) for found in re.findall(
                r':(\w{4}) \w{8}:%04X 02 ' % port, file.read())}

    def ended_soon(self, process, start=None):
        """End the program by a signal, unless it got it at *start*; returns what it said."""
        if start is None:
            start = time.monotonic()
            process.terminate()
        process.wait(PATIENCE)
        self.assertLess(time.monotonic() - start, 5)
        self.assertEqual(process.returncode, 128 + signal.SIGTERM)
        return self.finish(process).err

    # What runs the program where it asks nobody for the time, so that it reads its stream
    TIMELESS = in_python('import sys; sys.path.insert(0, %r); import s3\n'
                         's3.Bucket.learn_clock = lambda bucket: None' % HERE)

    def test_a_signal_before_the_server_ever_answered_ends_it_at_once(self):
        started = []
        for size, scheme in itertools.product((100, PART), ('http', 'https')):  # side by side
            listener, port = self.listen()
            self.configure(endpoint='%s://127.0.0.1:%d' % (scheme, port), part_size='5m')
            process = self.start('dump', '/home', '0', prefix=self.TIMELESS)
            self.feed(process, bytes(size))
            accepted, _ = listener.accept()
            self.addCleanup(accepted.close)
            accepted.recv(1)
            process.terminate()
            started.append((size, scheme, process, time.monotonic()))
        for size, scheme, process, start in started:
            with self.subTest(scheme, size=size):
                err = self.ended_soon(process, start)
                if scheme == 'https' or size == PART:   # it has begun, or only said hello
                    self.assertEqual(err, 's3dump: ended by signal 15: nothing is stored\n')
                else:
                    self.assertRegex(err, 'unknown whether|may be left behind')

    @unittest.skipUnless(os.path.exists('/proc/net/tcp'), 'not Linux')
    def test_a_signal_while_the_server_is_connected_to_ends_it_at_once(self):
        listener, port = self.listen()
        ours = set()
        for _ in range(4):          # more than it has room for
            client = socket.socket()
            self.addCleanup(client.close)
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
            ours.add(client.getsockname()[1])
        self.configure(endpoint='http://127.0.0.1:%d' % port, part_size='5m')
        for size in (0, 100, PART):
            process = self.start('dump', '/home', '0', **{'prefix': self.TIMELESS} if size else {})
            if size:                # else it waits to be told the time
                self.feed(process, bytes(size))
            until(lambda: self.connecting(port) - ours, 'it connects')
            self.assertEqual(self.ended_soon(process),
                             's3dump: ended by signal 15: nothing is stored\n')

    def test_a_signal_while_a_name_is_looked_up_ends_it_at_once(self):
        process = self.start('dump', '/home', '0', prefix=in_python(
            'import os, socket, time; socket.getaddrinfo = lambda *_, **__: '
            'os.write(1, b"looks") and time.sleep(100)'))
        self.feed(process, b'data')
        self.assertEqual(process.stdout.read(5), b'looks')
        self.assertEqual(self.ended_soon(process),
                         's3dump: ended by signal 15: nothing is stored\n')

    def test_a_signal_while_the_server_stands_still_ends_it_soon(self):
        self.server.fault('AbortMultipartUpload', 'stall', when='start', times=None)
        process, _ = self.stalled_dump()
        self.assertRegex(self.ended_soon(process), "'.*' may be left behind: [^\n]+\n"
                         's3dump: ended by signal 15: nothing is stored\n')

    def test_a_signal_while_credentials_are_waited_for_ends_it_soon(self):
        self.write_file(re.sub('(?m)^.*_key.*\n', '', self.server.config(profile='x')))
        aws = self.write_file('[profile x]\ncredential_process = sh -c "echo >&2; exec sleep 99"\n',
                              'aws')
        for argv in (['list'], ['dump', '/home', '0']):
            process = self.start(*argv, env={'AWS_CONFIG_FILE': aws})
            self.assertEqual(process.stderr.read(1), b'\n')
            self.assertRegex(self.ended_soon(process), 's3dump: ended by signal 15')

    def test_a_signal_in_an_outage_ends_it_soon_however_long_that_may_last(self):
        self.configure(part_size='5m', patience='7d')
        for operation, argv in (('UploadPart', ['dump', '/home', '0']),
                                ('GetObject', ['restore', '/home', '0'])):
            fault = self.server.fault(operation, 'status', times=None)
            with tempfile.TemporaryFile() as file:
                file.truncate(PART + 1)
                process = self.start(*argv, '-v', stdin=file)
            until(lambda: fault.hits > 5, 'it has tried again')
            self.assertRegex(self.ended_soon(process), r'; next try in [0-9.]+ s\n(.*\n)*'
                             's3dump: ended by signal 15')
            self.assertEqual(self.parts_left(), [])
            self.server.clear_faults()
            self.dump(bytes(PART + 1), '/home', '0')

    def test_an_object_that_appears_after_a_signal_is_warned_of(self):
        working, finish = threading.Event(), threading.Event()
        self.server.on('PutObject', lambda *_: working.set() or finish.wait(PATIENCE))
        process = self.start('dump', '/home', '0')
        self.feed(process, b'data')
        self.assertTrue(working.wait(PATIENCE))
        process.terminate()
        result = self.finish(process)
        finish.set()
        until(self.keys, 'the object appears')
        self.assertRegex(result.err, r'warning: it is unknown whether .* was completed\n'
                         r's3dump: ended by signal 15\n\Z')

    def test_a_signal_while_a_failure_is_tidied_up_does_not_hide_it(self):
        self.server.fault('UploadPart', 'status', status=403, code='AccessDenied', times=None)
        abort = self.server.fault('AbortMultipartUpload', 'status', times=2, status=503)
        process = self.start('dump', '/home', '0')
        self.feed(process, bytes(PART + 1))
        self.assertTrue(abort.event.wait(PATIENCE))
        process.send_signal(signal.SIGINT)
        result = self.finish(process)
        self.assertRegex(result.err, 'UploadPart .*AccessDenied')
        self.assertIn(result.status, (1, 128 + signal.SIGINT))
        self.assertEqual(self.server.uploads, {})

    def test_a_signal_that_comes_while_one_is_looked_for_is_not_lost(self):
        class Late(s3dump.Signals):
            _pending = None

            def look(self):
                found = self._pending
                if not self.came:
                    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
                return found

            pending = property(look, lambda self, number: setattr(self, '_pending', number))

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        signals = Late()
        signals.catch()
        signals.poll()
        self.assertTrue(signals.came)
        self.assertRaises(s3dump.Stopped, signals.poll)

    def test_a_signal_to_the_whole_pipeline_stores_nothing(self):
        for command, size in (('', 100), ('', PART + 7),
                              (' -- sh -c "head -c 100 /dev/zero; exec sleep 60"', 0)):
            for number in (signal.SIGINT, signal.SIGTERM):
                with self.subTest(command, size=size, number=number):
                    self.server.log.clear()
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
        for number, end in ((signal.SIGTERM, signal.SIGTERM),
                            (signal.SIGQUIT, signal.SIGKILL)):  # a core would hold the secret
            abort = self.server.fault('AbortMultipartUpload', 'stall', when='start')
            process, _ = self.stalled_dump()
            process.terminate()
            self.assertTrue(abort.event.wait(PATIENCE))
            process.send_signal(number)
            self.assertEqual(self.end(process).status, -end)
            self.assertEqual(self.keys(), [])

    def test_two_signals_at_once_end_it(self):
        for _ in range(5):
            process, _ = self.stalled_dump()
            for number in (signal.SIGINT, signal.SIGTERM):
                process.send_signal(number)
            process.wait(PATIENCE)
            self.assertIn(self.end(process).status, (
                128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGINT, -signal.SIGTERM))
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
        for key, stored in (('key', True), ('key.volume_000001', False)):
            with self.subTest(key):
                fault = self.server.fault('CompleteMultipartUpload', 'stall', when='done',
                                          where=lambda exchange, key=key: exchange.key == key)
                process = self.start('dump', '-k', 'key')
                self.feed(process, bytes(2 * PART + 5))
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
            '--', 'sh', '-c', 'trap "touch tidied; kill \\$!; exit" TERM; head -c %d /dev/zero; '
            'sleep 1000 & wait' % (PART + 1))
        process.terminate()
        result = self.finish(process)   # at the end of its standard error, which sleep has too
        self.assertEqual(result.status, 128 + signal.SIGTERM)
        self.assertTrue(os.path.exists(os.path.join(self.home, 'tidied')))
        self.assertEqual((self.keys(), self.server.uploads), ([], {}))

    def test_a_signal_ends_a_program_that_ignores_it_soon(self):
        self.server.fault('AbortMultipartUpload', 'stall', when='start', times=None)
        process, _ = self.stalled_dump('--', 'sh', '-c', 'trap "" TERM; head -c %d /dev/zero; '
                                       'exec sleep 1000' % (PART + 1))
        self.assertIn('ended by signal 15: nothing is stored\n', self.ended_soon(process))

    def test_a_signal_is_heard_though_nobody_reads_standard_error(self):
        ours, theirs = os.pipe()
        with open(ours, 'rb'), open(theirs, 'wb', buffering=0) as full:
            os.set_blocking(theirs, False)
            while full.write(bytes(4096)):
                pass
            os.set_blocking(theirs, True)
            for argv, data in ((['list', '-v'], b''), (['dump', '-v', '/home', '0'], bytes(PART))):
                self.server.log.clear()
                process = self.start(*argv, stderr=full)
                process.stdin.write(data)
                process.stdin.flush()
                until(lambda: self.server.log, 'it has something to say')
                self.ended_soon(process)
                self.assertEqual((self.keys(), self.parts_left()), ([], []))

    def test_a_signal_while_the_stream_is_waited_for_stores_nothing(self):
        process = self.start('dump', '-k', 'key')
        process.stdin.write(b'data')
        process.stdin.flush()
        until(lambda: not unread(process.stdin), 'what there is of the stream is read')
        process.send_signal(signal.SIGINT)
        self.assertEqual(self.end(process), (128 + signal.SIGINT, b'', 's3dump: ended by signal 2: '
                                             'nothing is stored\n'))
        self.assertEqual(self.keys(), [])

    def test_an_upload_whose_id_is_on_its_way_at_a_signal_is_aborted(self):
        self.server.add_user('WRITER', 'sesame', allow=WRITE_ONLY | {'AbortMultipartUpload'})
        self.configure(access_key_id='WRITER', secret_access_key='sesame', part_size='5m',
                       max_parts='1', jobs='2')
        creation = self.server.fault('CreateMultipartUpload', 'stall', when='done')
        process = self.start('dump', '/home', '0', prefix=in_python(
            'import sys; sys.path.insert(0, %r); import s3; s3.GRACE = %d' % (HERE, PATIENCE)))
        process.stdin.write(bytes(PART))
        process.stdin.flush()
        self.assertTrue(creation.event.wait(PATIENCE))
        process.terminate()
        creation.release.set()
        self.assertRegex(self.end(process).err, r'\As3dump: ended by signal 15: nothing '
                         r'is stored\n\Z')
        self.assertEqual((self.keys(), self.server.uploads), ([], {}))

    def test_a_signal_ends_a_restore(self):
        self.place(size=1000)
        fault = self.server.fault('GetObject', 'stall', bytes=500)
        process = self.start('restore', '/home', '0')
        self.assertTrue(fault.event.wait(PATIENCE))
        process.terminate()
        result = self.finish(process)
        self.assertEqual((result.status, result.out), (128 + signal.SIGTERM, b''))
        self.assertRegex(result.err, r'\As3dump: [^\n]*signal 15\n\Z')

    def test_a_signal_while_a_thread_starts_leaves_no_thread_behind(self):
        self.place(size=2 * PART)
        self.server.fault('GetObject', 'stall', times=None)
        result = self.run_program('-j', '2', 'restore', '/home', '0', prefix=in_python("""if True:
            import _thread, os, signal, sys, time

            def profile(frame, event, argument):
                if event == 'c_return' and argument is _thread.start_new_thread:
                    started.append(1)
                    if len(started) == 2:
                        sys.setprofile(None)
                        signal.pthread_kill(_thread.get_ident(), signal.SIGTERM)

            def count(status, leave=os._exit):
                end = time.monotonic() + 10
                while _thread._count() and time.monotonic() < end:
                    time.sleep(0.01)
                print(_thread._count(), flush=True)
                leave(status)

            started = []

            os._exit = count
            sys.setprofile(profile)"""))
        self.assertEqual((result.status, result.out), (128 + signal.SIGTERM, b'0\n'))

    def test_a_signal_that_python_loses_ends_the_output(self):
        process = self.start('list', prefix=in_python("""if True:
            import os, signal, sys, threading

            class Last:
                def __del__(self):      # whatever it raises is ignored
                    try:
                        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
                    except BaseException:
                        print('lost', file=sys.stderr, flush=True)
                        raise

            def profile(frame, event, argument):
                if event == 'c_call' and argument is os.write:
                    sys.setprofile(None)
                    Last()

            sys.setprofile(profile)"""))
        out, err = process.communicate(timeout=PATIENCE)
        self.assertIn(b'lost', err)
        self.assertEqual((process.returncode, out.count(b'\n')), (128 + signal.SIGTERM, 1))

    def test_hangup_is_ignored_under_nohup(self):
        process, fault = self.stalled_dump(prefix=in_shell('trap "" HUP; exec "$@"'))
        process.send_signal(signal.SIGHUP)
        fault.release.set()
        self.assertEqual(self.finish(process).status, 0)

    def test_signals_that_were_blocked_from_the_start_are_heard(self):
        blocked = """if True:
            import os, signal
            signal.pthread_sigmask(signal.SIG_BLOCK, {
                signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2,
                signal.SIGCHLD, signal.SIGPIPE})
            """
        process, _ = self.stalled_dump(prefix=in_python(blocked))
        process.send_signal(signal.SIGUSR1)
        process.terminate()
        self.assertEqual(self.end(process).status, 128 + signal.SIGTERM)
        self.assertEqual((self.keys(), self.server.uploads), ([], {}))
        self.must_fail(128 + signal.SIGHUP, 'ended by signal 1', 'list', prefix=in_python(
            blocked + 'os.kill(os.getpid(), signal.SIGUSR2); os.kill(os.getpid(), signal.SIGHUP)'))
        code = 'import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, ()))'
        key = self.dump(None, '/home', '0', '--', sys.executable, '-c', code,
                        prefix=in_python(blocked))
        self.assertEqual(self.server.objects[key].data, b'set()\n')

    def test_rate_signals_do_not_end_a_dump(self):
        for options in (['-L', '300m'], []):
            process, fault = self.stalled_dump(*options)
            for number in (signal.SIGUSR1, signal.SIGUSR2) * 3:
                process.send_signal(number)
            fault.release.set()
            self.assertEqual(self.finish(process).status, 0)

    def test_rate_signals_do_not_end_what_is_about_to_begin(self):
        path = os.path.join(self.home, 'fifo')
        os.mkfifo(path, 0o600)
        process = self.start('-f', path, 'list')
        opened = []

        def open_fifo():
            with contextlib.suppress(OSError):      # ENXIO until somebody reads
                opened.append(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
            return opened

        until(open_fifo, 'it reads its configuration')
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            process.send_signal(number)
        with open(opened[0], 'w') as file:
            file.write(self.server.config())
        self.assertEqual(self.finish(process).status, 0)

    def test_no_signal_makes_a_low_rate_higher_that_is_to_halve_it(self):
        limit, numbers = s3.RateLimit(500), (signal.SIGUSR1, signal.SIGUSR2)
        for number, before in zip(numbers, map(signal.getsignal, numbers)):
            self.addCleanup(signal.signal, number, before)
        s3dump.catch_rate_signals(limit)
        for number, rate in ((signal.SIGUSR1, 500), (signal.SIGUSR2, 1000), (signal.SIGUSR2, 2000),
                             (signal.SIGUSR1, 1024), (signal.SIGUSR1, 1024)):
            os.kill(os.getpid(), number)
            self.assertEqual(limit.rate, rate)

    def test_rate_signals_change_the_rate(self):
        self.place(size=12 << 20)           # more than the buffers of sockets hold; takes hours
        process = self.start('-L', '1k', 'restore', '/home', '0', stdout=subprocess.DEVNULL)
        until(self.server.operations, 'the first request')

        def faster():
            process.send_signal(signal.SIGUSR2)
            return self.asked('GetObject') or process.poll() is not None

        until(faster, 'the end of the answer')
        result = self.finish(process)
        self.assertEqual(result.status, 0, result)


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

    @unittest.skipUnless(os.path.exists('/dev/full'), 'only Linux has /dev/full')
    def test_a_full_disk_fails_what_is_asked_for_anything(self):
        self.place(size=100)
        for argv in (['--help'], ['--version'], ['list', '--json'], ['list', '--long'],
                     ['check', '/home', '0'], ['verify', '/home', '0', '-q', '--json'],
                     ['clean', '1', '-n'], ['url', '/home', '0'], ['--completion', 'zsh']):
            with self.subTest(argv), open('/dev/full', 'wb') as full:
                self.must_fail(1, r'\w+: .*No space left', *argv, stdout=full)

    @unittest.skipUnless(os.path.exists('/dev/full'), 'only Linux has /dev/full')
    def test_a_standard_error_that_takes_nothing_changes_no_status(self):
        ours, theirs = os.pipe()
        os.close(ours)
        self.addCleanup(os.close, theirs)
        unbuffered = [*COMPILED[:-2], '-u', *COMPILED[-2:]]     # where even a flush may fail
        for script, options in (('exec "$@" 2>/dev/full', {}), ('exec "$@" 2>&-', {}),
                                ('exec "$@"', {'stderr': theirs})):
            for status, argv in ((0, ['dump', '/home', '0']), (0, ['dump', '/home', '0', '-v']),
                                 (0, ['restore', '/home', '0']), (0, ['restore', '-v', '-k', 'k']),
                                 (0, ['clean', '1', '--force']), (0, ['clean', '1', '-v', '-a']),
                                 (1, ['restore', '/none', '0']), (2, ['dump']), (2, [])
                                 )[::1 if 'full' in script else 4]:
                with self.subTest(argv, script=script):
                    self.server.objects.clear()
                    self.server.put('k', b'data')
                    old = self.place(date='2020-01-01')
                    self.place(date='2020-01-02')
                    result = self.run_program(*argv, data=b'data', prefix=in_shell(
                        script, COMPILED if argv else unbuffered), **options)
                    self.assertEqual((result.status, result.err), (status, ''))
                    self.assertEqual(old in self.keys(), 'clean' not in argv)
                    self.assertEqual(len(self.keys()), 4 if '0' in argv and 'dump' in argv else
                                     2 if 'clean' in argv else 3)

    def test_a_disk_that_is_full_only_when_it_is_closed_fails(self):
        self.place(size=100)
        with tempfile.TemporaryFile() as file:
            self.must_fail(1, 'restore: No space left', '-q', 'restore', '/home', '0', stdout=file,
                           prefix=in_python("""if True:
                import errno, os
                close = os.close

                def late(descriptor):       # as NFS is
                    full = os.path.sameopenfile(descriptor, 1)
                    close(descriptor)
                    if full:
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

                os.close = late"""))

    def test_a_parent_that_ignores_the_end_of_children_hides_no_failure(self):
        ignoring = in_python('import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)')
        for script, message in (('echo half; exit 1', 'ended with exit status 1'),
                                ('head -c 20000000 /dev/zero; exit 3', 'exit status 3'),
                                ('echo half; kill -9 $$', 'was ended by signal 9')):
            self.must_fail(1, message + '.*: nothing is stored', 'dump', '/home', '0', '--', 'sh',
                           '-c', script, prefix=ignoring)
        self.assertEqual(self.keys(), [])
        self.succeed('dump', '/home', '0', '--', 'echo', 'whole', prefix=ignoring)

    def test_an_exit_status_that_is_lost_is_a_failure(self):
        lost = in_python("""if True:
            import os
            waitpid = os.waitpid

            def steal(pid, options):
                while waitpid(pid, 0) == (0, 0):
                    pass
                raise ChildProcessError(10, 'No child processes')

            os.waitpid = steal""")
        self.must_fail(1, 'how echo ended is not known: nothing is stored', 'dump', '/home', '0',
                       '--', 'echo', 'data', prefix=lost)
        self.assertEqual(self.keys(), [])

    def test_a_restore_can_be_piped_into_a_dump(self):
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

    def test_an_acl_may_come_through_a_pipe_that_does_not_block(self):
        key = self.place()
        acl = self.succeed('getacl', '-k', key).out
        ours, theirs = os.pipe()
        os.set_blocking(ours, False)
        process = self.start('putacl', '-k', key, stdin=ours)
        os.close(ours)
        with open(theirs, 'wb', buffering=0) as pipe:
            for half in (acl[:99], acl[99:]):
                pipe.write(half)
                until(lambda: not unread(pipe), 'it is read')
        self.assertEqual(self.finish(process), (0, b'', ''))
        self.assertEqual(self.asked('PutObjectAcl'), [key])

    def test_a_limit_to_the_size_of_files_is_told_in_a_line(self):
        self.place(size=3000)
        for argv in (['restore', '/home', '0'], ['list', '--json']):
            with tempfile.TemporaryFile() as file:
                self.must_fail(1, 'File too large', *argv, stdout=file, prefix=in_python(
                    'import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (99, 99))'))

    def closed(self, redirections):
        return in_shell('exec "$@" ' + redirections)

    def test_closed_descriptors_fail_only_where_they_are_needed(self):
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


class IntoProgramTests(ProgramTestCase):
    """restore FS LEVEL -- PROGRAM: it sees the end of what is whole, and of nothing else."""

    # What a program makes of a dump looks whole only if it has seen its end.
    KEEP = 'cat > part && mv part whole'

    def setUp(self):
        ProgramTestCase.setUp(self)
        self.folder = tempfile.mkdtemp(dir=self.home)

    def whole(self):
        """What looks whole, if anything does."""
        try:
            with open(os.path.join(self.folder, 'whole'), 'rb') as file:
                return file.read()
        except FileNotFoundError:
            return None

    def into(self, script, *argv, **options):
        """Start a restore into a line of sh."""
        return self.start('restore', *(argv or ('/home', '0')), '--', 'sh', '-c', script,
                          cwd=self.folder, **options)

    def refuse(self, message, script, *argv, **options):
        """Restore into a line of sh, which must fail."""
        result = self.finish(self.into(script, *argv, **options))
        self.assertEqual(result.status, 1, result)
        self.assertRegex(result.err, r'\As3dump: restore: [^\n]*(?:%s)[^\n]*\n\Z' % message)
        return result

    def test_a_program_reads_all_of_a_dump(self):
        self.configure(part_size='5m')
        for size in (0, 1, 70000, 2 * PART + 1):
            data = some_bytes(size)
            key = self.dump(data, '/home', '0')
            for argv in ((), ('-q', '-k', key)):
                result = self.finish(self.into('echo said; ' + self.KEEP, *argv))
                self.assertEqual((result.status, result.out), (0, b'said\n'), result.err)
                self.assertTrue(self.whole() == data)
                self.assertRegex(result.err, r'\A\Z' if argv else r'\As3dump: restore %s: [^\n]*'
                                 r'\(%d bytes?\)[^\n]*\n\Z' % (key, size))
        self.succeed('retrieve', '/home', '0', '--', 'cmp', '-', self.folder + '/whole')

    def test_a_damaged_dump_never_ends(self):
        for size, script in (
                (100, self.KEEP), (3 << 20, self.KEEP), (3 << 20, 'cat | { %s; }' % self.KEEP),
                (3 << 20, 'trap "" TERM; ' + self.KEEP),
                # one that goes on when the first of them has ended
                (3 << 20, 'exec 3<&0; (trap "" TERM; %s) <&3 & wait' % self.KEEP)):
            key = self.place(size=size)
            with self.subTest(script, size=size):
                self.server.fault('GetObject', 'flip', at=5)
                self.refuse(re.escape(key) + '.*data are damaged', script)
                self.assertIsNone(self.whole())

    def test_a_program_has_two_seconds_to_tidy_up(self):
        self.place(size=3 << 20)    # so that it runs when the last byte comes
        self.server.fault('GetObject', 'flip', at=5)
        self.refuse('damaged', 'exec 3<&0; (trap "touch child; exit" TERM; cat <&3 >part & wait) & '
                    'trap "touch parent; wait; exit" TERM; wait')
        self.assertEqual(sorted(os.listdir(self.folder)), ['child', 'parent', 'part'])

    def test_nothing_is_started_for_what_can_not_be_restored(self):
        self.refuse('no dump of', 'touch whole')
        key = self.place(metadata={'x-amz-meta-volume-size': '100'})
        self.refuse('not whole', 'touch whole', '-k', key)
        self.assertIsNone(self.whole())

    def test_a_program_that_ends_early_has_failed(self):
        for size in (100, 3 << 20):
            key = self.place(size=size)
            for script in ('exit 0', 'head -c 10', 'head -c 10; exit 3'):
                with self.subTest(script, size=size):
                    result = self.refuse('sh ended before it had read all: %s is not restored'
                                         % key, script, '/home', '0', '--accept-status', '3')
                    self.assertEqual(result.out, bytes(10 * ('head' in script)))
        self.assertEqual(self.finish(self.into('head -c %d' % size)).status, 0)

    def test_how_a_program_ends_is_told(self):
        key = self.place(size=100)
        for script, message in (('cat; exit 3', 'sh ended with exit status 3'),
                                ('exit 3', 'sh ended with exit status 3'),
                                ('cat; kill -9 $$', 'sh was ended by signal 9')):
            self.refuse('%s: %s is not restored' % (message, key), script)
        self.succeed('restore', '/home', '0', '--accept-status', '1,3', '--', 'sh', '-c',
                     'cat; exit 3')
        for program, message in (('/nowhere/x', 'No such file'), ('', 'No such file|denied'),
                                 (self.home, 'Permission denied')):
            self.must_fail(1, 'cannot start .*(%s)' % message, 'restore', '/home', '0', '--',
                           program)
        self.must_fail(1, 'how cat ended is not known: %s is not restored' % key, 'restore',
                       '/home', '0', '--', 'cat', prefix=in_python("""if True:
            import os
            waitpid = os.waitpid

            def steal(pid, options):
                waitpid(pid, 0)
                raise ChildProcessError(10, 'No child processes')

            os.waitpid = steal"""))

    def test_a_signal_ends_the_program_too(self):
        self.place(size=100)
        for stall, number, script in (
                (True, signal.SIGINT, self.KEEP), (True, signal.SIGHUP, self.KEEP),
                (False, signal.SIGTERM, 'cat > part; touch read; sleep 99'),
                (True, signal.SIGQUIT, self.KEEP),
                (True, signal.SIGINT, 'trap "" TERM; touch read; ' + self.KEEP)):
            with self.subTest(script, number=number):
                fault = self.server.fault('GetObject', 'stall', bytes=50)
                if not stall:
                    fault.release.set()
                process = self.into(script)
                self.assertTrue(fault.event.wait(PATIENCE))
                read = os.path.join(self.folder, 'read')
                until(lambda: 'read' not in script or os.path.exists(read), 'it runs')
                start = time.monotonic()
                process.send_signal(number)
                if 'trap' in script:            # one more, while that is waited for
                    process.send_signal(signal.SIGTERM)
                result = self.finish(process)   # when none has its standard error any more
                self.assertLess(time.monotonic() - start, 5)
                self.assertIn(result.status, (128 + number, 128 + signal.SIGTERM))
                self.assertRegex(result.err, r'\As3dump: ended by signal \d+\n\Z')
                self.assertIsNone(self.whole())
                if 'read' in script:
                    os.remove(read)

    def test_a_program_that_can_not_be_ended_is_warned_of(self):
        key = self.place(size=100)
        for kill in ('raise PermissionError(1, "Operation not permitted")',     # somebody else's
                     'pass'):           # or a dying disk doesn't let go of it
            self.server.fault('GetObject', 'flip', at=5)
            result = self.finish(self.into('cat > part', prefix=[
                sys.executable, '-I', '-S', '-c', """if True:
                import os, sys

                def kill(*_):
                    %s

                os.killpg = kill
                """ % kill + COMPILED[-1]]))
            self.assertEqual(result.status, 1)
            self.assertRegex(result.err, r'\As3dump: warning: sh cannot be killed[^\n]*\n'
                             r's3dump: restore: [^\n]*%s[^\n]*damaged[^\n]*\n\Z' % key)

    def test_a_reader_that_is_slow_to_end_is_waited_for(self):
        self.place(size=100)
        terminal = Terminal()
        self.addCleanup(terminal.close)
        os.mkfifo(os.path.join(self.folder, 'fifo'))
        process = self.into('cat > part; read line < fifo', stdout=terminal.slave,
                            stderr=terminal.slave)
        terminal.read_until(r'  waiting for the reader\r')
        with open(os.path.join(self.folder, 'fifo'), 'w') as fifo:
            fifo.write('go on\n')
        self.assertEqual(self.finish(process).status, 0)

    def test_more_than_a_thousand_open_files_are_no_matter(self):
        if 0 <= resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 2000:
            self.skipTest('so many files may not be open here')
        key = self.dump(b'data', '/home', '0')
        many = in_python('import os, resource; resource.setrlimit(resource.RLIMIT_NOFILE, (\n'
                         '    2000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))\n'
                         'held = [os.dup(0) for _ in range(1100)]')
        self.assertEqual(self.succeed('restore', '-k', key, '--', 'cat', prefix=many).out, b'data')


class ChainOfDumpsTests(ProgramTestCase):
    """restore --chain FS -- PROGRAM."""

    def setUp(self):
        ProgramTestCase.setUp(self)
        self.full = self.dump(b'full ', '/home', '0', '-w', '2020-01-05')
        self.dump(b'monday ', '/home', '1', '-w', '2020-01-06')
        self.tuesday = self.dump(b'tuesday ', '/home', '1', '-w', '2020-01-07')
        self.wednesday = self.dump(b'wednesday ', '/home', '2', '-w', '2020-01-08')
        self.dump(b'other', '/home/x', '0')
        self.dump(b'other', '/home', '1', '-h', 'other')

    def chain(self, *argv, **options):
        """Return what PROGRAM read of each dump."""
        out = self.succeed('restore', '--chain', '/home', *argv, '--', 'sh', '-c',
                           'echo "<$(cat)>"', **options).out.decode()
        return re.findall('<(.*) >', out)

    def plan(self, *argv):
        result = self.succeed('restore', '--chain', '/home', *argv)
        return re.findall('(?m)^would restore (.*), [0-9]+$', result.out.decode())

    def test_a_program_runs_for_each_dump_in_order(self):
        self.assertEqual(self.chain(), ['full', 'tuesday', 'wednesday'])
        self.assertEqual(self.chain('-w', '2020-01-06'), ['full', 'monday'])
        self.assertEqual(self.chain('-w', '2020-01-05'), ['full'])
        self.dump(b'newer ', '/home/', '0', '-w', '2020-01-08')
        self.assertEqual(self.chain(), ['newer'])
        self.assertEqual(self.chain('-w', '2020-01-07'), ['full', 'tuesday'])
        result = self.run_program('restore', '--chain', '/home', '--', 'cat', '-w')
        self.assertEqual((result.status, result.out), (1, b''))

    def test_a_line_is_said_of_each(self):
        self.assertEqual(re.findall('(?m)^s3dump: restore (.*?): [0-9]', self.succeed(
            'restore', '--chain', '/home', '--', 'cat').err), [
                self.full, self.tuesday, self.wednesday])
        self.assertEqual(self.succeed('-q', 'restore', '--chain', '/home', '--', 'cat'),
                         (0, b'full tuesday wednesday ', ''))

    def test_the_status_of_each_is_shown(self):
        terminal = Terminal()
        self.addCleanup(terminal.close)
        self.server.fault('GetObject', 'stall', bytes=3,
                          where=lambda exchange: exchange.key == self.tuesday)
        self.start('restore', '--chain', '/home', '--', 'cat', stderr=terminal.slave)
        terminal.read_until(r's3dump: restore [^\n]*\n[^\n]*  no answer for [2-9] s\r')

    def test_the_plan_is_printed_and_nothing_is_run(self):
        plan = [self.full, self.tuesday, self.wednesday]
        self.assertEqual(self.plan(), plan)
        self.assertEqual(self.plan('-n', '--', 'touch', 'whole'), plan)
        self.assertEqual(self.plan('-w', '2020-01-07'), plan[:2])
        self.assertEqual(self.succeed('restore', '-n', '/home', '1').out.decode(),
                         'would restore %s, 8\n' % self.tuesday)
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        self.addCleanup(os.close, slave)
        self.succeed('restore', '--chain', '/home', stdout=slave)
        self.assertEqual(self.asked('GetObject'), [])
        self.assertNotIn('whole', os.listdir(self.home))

    def test_the_first_that_fails_is_the_last(self):
        result = self.run_program('restore', '--chain', '/home', '--', 'sh', '-c',
                                  'grep -v tuesday || exit 7')
        self.assertEqual((result.status, result.out), (1, b'full \n'))
        self.assertRegex(result.err, r'\As3dump: restore %s: [^\n]*\ns3dump: restore: sh ended '
                         r'with exit status 7: %s is not restored\n\Z' % (self.full, self.tuesday))

    def test_what_can_not_be_restored_at_all_is_not_begun(self):
        def refuse(status, message, *argv):
            self.assertEqual(self.must_fail(status, message, 'restore', '--chain', '/home', *argv,
                                            '--', 'echo', 'begun').out, b'')

        refuse(1, "no dump of '/home' up to 2020-01-04 for host", '-w', '2020-01-04')
        self.server.objects[self.tuesday].storage_class = 'GLACIER'
        self.server.objects[self.wednesday].storage_class = 'GLACIER'
        refuse(3, 'archived in GLACIER')
        argv = 'restore', '--chain', '/home', '--thaw', '2'
        self.assertIn(b'would restore', self.succeed(*argv, '-n').out)
        self.assertEqual(self.asked('RestoreObject'), [])
        self.must_fail(3, '%s with .*: 2 of its 3 objects .* 5 hours; .* with -w 2020-01-08$'
                       % self.full, *argv)
        self.server.objects[self.tuesday].storage_class = 'DEEP_ARCHIVE'    # as it is older
        self.must_fail(3, 'thawing takes up to 12 hours', *argv)
        refuse(3, '%s with .*: 2 of its 3 objects' % self.full, '--thaw', '2')
        self.assertEqual(self.asked('RestoreObject'), [self.tuesday, self.wednesday])
        for key in (self.tuesday, self.wednesday):
            self.server.thaw(key, 2)
        self.assertIn(b'would restore', self.succeed(*argv).out)
        self.server.log.clear()
        self.server.put(self.tuesday + '.volume_000002', b'x', metadata=self.server.objects[
            self.tuesday].metadata)
        refuse(1, 'volume_000001. is missing')
        self.server.objects.pop(self.full)
        refuse(1, self.tuesday + ' builds upon a dump of level 0, and none is here')

    def test_a_date_that_can_not_be_is_not_believed(self):
        self.dump(b'forged ', '/home', '0', '-w', '9999-01-01')
        self.assertEqual(self.chain(), ['full', 'tuesday', 'wednesday'])

    def test_a_command_line_that_makes_no_sense_is_refused(self):
        for message, argv in (
                ('restore takes --chain FS', ['--chain', '/home', '0']),
                ('restore takes --chain FS', ['--chain']),
                ('--chain takes FS, not -k|takes --chain FS', ['--chain', '-k', 'key']),
                ('restore takes FS LEVEL', ['/home', '--', 'cat']),
                ('no program', ['/home', '0', '--'])):
            self.must_fail(2, message, 'restore', *argv)
        self.must_fail(2, 'verify takes no --chain', 'verify', '--chain', '/home')

    @unittest.skipUnless(shutil.which('tar'), 'there is no tar')
    def test_the_increments_of_tar_bring_back_what_was_there_and_nothing_else(self):
        """By levels as of the Tower of Hanoi; what was deleted stays away."""
        tree, chance, states = os.path.join(self.home, 'tree'), random.Random(18), {}
        shutil.rmtree(tree, ignore_errors=True)
        os.mkdir(tree)
        noted = {}                              # what tar noted, by level
        for day, level in enumerate((0, 3, 2, 5, 4, 1, 3), 10):
            for number in range(12):
                path = os.path.join(tree, *'abc'[:number % 4], 'file %d' % number)
                if chance.random() < 0.4:
                    os.makedirs(os.path.dirname(path), exist_ok=True)
                    self.write_file(str(chance.random()), path)
                elif chance.random() < 0.3 and os.path.exists(path):
                    os.remove(path)
            if day in (12, 15):
                shutil.rmtree(os.path.join(tree, 'a', 'b'), ignore_errors=True)
            noted[level] = os.path.join(self.home, 'level%d' % level)
            with contextlib.suppress(FileNotFoundError):
                os.remove(noted[level])
            below = [name for lower, name in noted.items() if lower < level]
            if level:
                shutil.copy(max(below, key=os.path.getmtime), noted[level])
            self.succeed('dump', 'tree', str(level), '-w', '2020-02-%d' % day, '--', 'tar', '-c',
                         '-g', noted[level], '-C', self.home, 'tree')
            states['2020-02-%d' % day] = os.path.join(self.home, 'was%d' % day)
            shutil.copytree(tree, states['2020-02-%d' % day])
        for date, state in sorted(states.items())[2:]:
            back = tempfile.mkdtemp(dir=self.home)
            self.succeed('restore', '--chain', 'tree', '-w', date, '--', 'tar', '-x', '-g',
                         '/dev/null', '-C', back)
            subprocess.check_call(['diff', '-r', state, os.path.join(back, 'tree')])


class Terminal:
    """A pseudo-terminal: what is written to it is in *text*."""

    def __init__(self):
        self.master, self.slave = pty.openpty()
        self.text = ''

    def read_until(self, pattern):
        """Read until *pattern* is in the text; None: until nobody else has the terminal open."""
        if pattern is None:
            self.close_slave()
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

    def screen(self):
        """Return the lines that somebody sees, once nobody else has the terminal open."""
        lines, column = [''], 0
        for piece in re.findall(r'[\r\n]|\x1b\[J|[^\r\n\x1b]+', self.read_until(None)):
            if piece == '\n':
                lines.append('')
            elif piece == '\r':
                column = 0
            elif piece == '\x1b[J':
                lines[-1] = lines[-1][:column]
            else:
                lines[-1] = lines[-1][:column] + piece + lines[-1][column + len(piece):]
                column += len(piece)
        return lines

    def resize(self, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack('4H', 24, columns, 0, 0))

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

    def start_at(self, terminal, *argv, data=b'data', **options):
        """Start the program with its standard error there, and all of its standard input."""
        process = self.start(*argv, stderr=terminal.slave, **options)
        if process.stdin:
            self.feed(process, data)
        return process

    def test_progress_is_shown_in_a_line_that_is_cleared(self):
        self.place(size=10**6)
        for operation, stall, command, size, more in (
                ('GetObject', {'bytes': 10**6 // 2}, 'restore', 10**6, '  5[0-9]%'),
                ('PutObject', {'when': 'body'}, 'dump', 0, '')):
            with self.subTest(operation):
                fault = self.server.fault(operation, 'stall', **stall)
                terminal = self.open_terminal()
                process = self.start_at(terminal, command, '/home', '0')
                terminal.read_until(
                    r'\r\x1b\[J[0-9.]+k?  [0-9.]+k?/s  \d+:\d\d%s(  [^\r]* left)?\r' % more)
                fault.release.set()
                result = self.finish(process)
                self.assertEqual((result.status, len(result.out)), (0, size))
                self.assertRegex(terminal.read_until(None),
                                 r'\r\x1b\[Js3dump: %s [^\r\n]*\r\n\Z' % command)

    def test_a_retry_under_way_is_shown_in_a_line_that_fits_after_a_resize(self):
        self.server.fault('PutObject', 'status', status=500, code='InternalError', times=None)
        terminal = self.open_terminal()
        terminal.resize(200)
        process = self.start_at(
            terminal, '-v', 'dump', '-k', 'key', data=bytes(44000),
            prefix=in_python('import random; random.uniform = lambda *_: 1.2'))     # each pause
        terminal.read_until(r'0:\d\d  InternalError \(500\), next try in \d+ s\r')
        terminal.resize(20)
        terminal.text = ''
        terminal.read_until(r'\x1b\[J[0-9][^\r]{18}\r')
        terminal.text = re.search(r'(?s)\x1b\[J[0-9][^\r]{18}\r.*', terminal.text).group()
        terminal.read_until(r'\r\x1b\[Js3dump: PutObject [^\r\n]*InternalError[^\r\n]*\r\n')
        self.server.clear_faults()
        self.assertEqual(self.finish(process).status, 0)
        text = terminal.read_until(None)
        self.assertNotRegex(text, r'\x1b\[J(\d\d\d\.\dk|-)')   # what is sent again counts once
        self.assertLess(max(map(len, re.findall(r'\x1b\[J([0-9][^\r\n]*)\r', text))), 20)
        self.assertRegex(text, r's3dump: dump [^\r\n]* [1-9]\d* retries\r\n\Z')

    def test_a_slow_stream_is_told_from_a_slow_server_and_a_slow_reader(self):
        self.place(size=3 << 20)
        terminals = [self.open_terminal() for _ in range(4)]
        self.server.fault('PutObject', 'stall', when='reply')
        self.server.fault('GetObject', 'stall', bytes=1000, where=lambda exchange: any(
            request.operation == 'GetObject' for request in self.server.log))
        self.start('restore', '/home', '0', stderr=terminals[0].slave)
        until(lambda: self.asked('GetObject'), 'it has all data')
        self.start('dump', '/home', '0', stderr=terminals[1].slave)
        self.start_at(terminals[2], 'dump', '/home', '0')
        self.start('restore', '/home', '0', stderr=terminals[3].slave)
        terminals[0].read_until(r'  waiting for the reader\r')
        terminals[1].read_until(r'  waiting for the stream\r')
        for number in (2, 3):
            terminals[number].read_until(r'  no answer for [2-9] s\r')
            self.assertNotIn('waiting', terminals[number].text)
        for number in (0, 1):
            self.assertNotIn('answer', terminals[number].text)

    def test_what_a_command_waits_for_is_shown_and_cleared(self):
        self.place(size=300)
        commands = ['list -q', 'list', 'check /home 0', 'init', 'delete -y /home 0', 'clean -y 1',
                    'url /home 0', 'getacl /home 0', 'putacl /home 0']
        acl = self.succeed('getacl', '/home', '0').out
        self.server.fault('*', 'status', status=500, code='InternalError', times=None)
        started = []
        for command in commands:
            terminal = self.open_terminal()
            started.append((command, terminal, self.start_at(
                terminal, *command.split(), data=acl,
                prefix=in_python('import random; random.uniform = lambda *_: 1.2'))))
        for command, terminal, _ in started:
            if '-q' not in command:
                terminal.read_until(r'\r\x1b\[JInternal[^\r]* \(500\), next try in [12] s\r')
        self.server.clear_faults()
        for command, terminal, process in started:
            with self.subTest(command):
                failed = command.split()[0] in ('check', 'delete')      # it is old
                self.assertEqual(self.finish(process).status, failed)
                self.assertNotIn('Error', ''.join(terminal.screen()))
                self.assertEqual('\x1b' in terminal.text, '-q' not in command)

    def test_a_line_of_status_mangles_neither_output_nor_questions(self):
        keys = [self.place(fs=fs, date=date) for fs in ('/a', '/b', '/c')
                for date in ('2020-01-%02d' % day for day in range(1, 13))]
        listing = self.succeed('list').out.decode().splitlines()
        self.server.page_size = 24          # the last file system is on the next
        self.addCleanup(setattr, self.server, 'page_size', 1000)
        page = self.server.fault('ListObjectsV2', 'stall', skip=1)
        question, output = self.open_terminal(), self.open_terminal()
        listed = self.start('list', stdout=output.slave, stderr=output.slave)
        output.read_until('Dumps for this host')
        self.assertTrue(page.event.wait(PATIENCE))
        whole = self.server.fault('ListObjectsV2', 'stall')
        asked = self.start('clean', '1', stdin=question.slave, stderr=question.slave)
        for terminal in (question, output):
            terminal.read_until(r'\x1b\[Jno answer for [2-9] s\r')
        whole.release.set()
        question.read_until(r'\? \[y/N\] ')
        shown = re.findall('no answer for ([0-9]+) s', output.text)[-1]
        output.read_until('no answer for %d s' % (int(shown) + 2))
        page.release.set()
        self.assertEqual(self.finish(listed).status, 0)
        self.assertEqual(output.screen(), listing + [''])
        deletion = self.server.fault('DeleteObject', 'stall', when='start')
        question.type('y\n')
        question.read_until(r'\? \[y/N\] (y\r\n)?\r\x1b\[Jno answer for [2-9] s\r')
        deletion.release.set()
        self.assertEqual(self.finish(asked).status, 0)
        self.assertEqual(self.keys(), keys[11::12])
        self.assertRegex('\n'.join(question.screen()), r'\A([^ ]*, 100\n){33}'
                         r'Delete 33 dumps, 3.2k\? \[y/N\] y\n'
                         r'(s3dump: deleted [^ ]*, 100\n){33}\Z')

    def test_a_system_without_threads_is_told_of_in_a_line(self):
        terminal = self.open_terminal()
        self.place(size=1000)
        process = self.start('restore', '/home', '0', stderr=terminal.slave, prefix=in_python(
            """if True:
            import _thread

            def start(function, arguments):
                raise RuntimeError('no more threads')

            _thread.start_new_thread = start"""))
        self.assertEqual(self.finish(process)[:2], (1, b''))
        self.assertEqual(terminal.read_until(None), 's3dump: restore: cannot start a thread: '
                         'ulimit -u, or memory, is too small\r\n')

    def test_it_is_shown_how_much_of_a_file_is_dumped(self):
        path = self.write_file(bytes(3 * 10**6), 'data')
        fault = self.server.fault('PutObject', 'stall', when='reply')
        terminal = self.open_terminal()
        with open(path, 'rb') as file:
            file.seek(10**6)
            process = self.start_at(terminal, 'dump', '/home', '0', stdin=file)
        terminal.read_until(r'\r[^\r]* 100%')
        fault.release.set()
        self.assertEqual(self.finish(process).status, 0)

    def test_a_terminal_that_knows_nothing_shows_the_summary_only(self):
        fault = self.server.fault('PutObject', 'stall', when='body', times=None)
        dumb, other = self.open_terminal(), self.open_terminal()
        processes = [self.start_at(dumb, 'dump', '/home', '0', env={'TERM': 'dumb'}),
                     self.start_at(other, 'dump', '/home', '0')]
        other.read_until(r'0:0[2-9]')
        fault.release.set()
        for process in processes:
            self.assertEqual(self.finish(process).status, 0)
        self.assertRegex(dumb.read_until(None), r'\As3dump: dump [^\r\n]*\r\n\Z')

    def test_nothing_is_shown_below_the_summary(self):
        ours, theirs = os.pipe()
        with open(ours, 'rb'), open(theirs, 'wb', buffering=0) as full:
            os.set_blocking(theirs, False)
            while full.write(bytes(4096)):
                pass
            os.set_blocking(theirs, True)
            terminal, other = self.open_terminal(), self.open_terminal()
            self.start_at(terminal, 'dump', '/home', '0', '--json', stdout=full)
            terminal.read_until(r's3dump: dump [^\r\n]*\r\n')
            self.server.fault('PutObject', 'stall', when='body')
            self.start_at(other, 'dump', '/home', '0')
            other.read_until(r'0:0[2-9]')
            self.assertEqual(select.select([terminal.master], [], [], 0)[0], [])

    def test_a_signal_after_the_dump_was_stored_comes_too_late(self):
        terminal = self.open_terminal()
        termios.tcflow(terminal.slave, termios.TCOOFF)      # holds it up where it clears its line
        process = self.start_at(terminal, 'dump', '/home', '0', '--json')
        until(lambda: self.keys() and not self.server.live, 'all is sent')
        process.terminate()
        termios.tcflow(terminal.slave, termios.TCOON)
        result = self.finish(process)
        self.assertEqual(result.status, 0)
        self.assertEqual([json.loads(result.out)['key']], self.keys())

    def test_in_the_background_it_does_not_write_over_what_is_typed(self):
        prefix = in_python('''if True:
            import fcntl, os, sys, termios
            def go_on_as_a_child():
                child = os.fork()
                if child:
                    os._exit(os.waitpid(child, 0)[1] >> 8)
            go_on_as_a_child()
            os.setsid()
            fcntl.ioctl(2, termios.TIOCSCTTY, 0)
            go_on_as_a_child()
            if sys.argv[-1] == 'behind':
                os.setpgid(0, 0)''')
        fault = self.server.fault('PutObject', 'stall', when='reply', times=2)
        shown, processes = {}, []
        for key in 'behind', 'before':
            shown[key] = self.open_terminal()
            processes.append(self.start_at(shown[key], 'dump', '-k', key, prefix=prefix))
        shown['before'].read_until(r'(?s)no answer.*no answer')
        fault.release.set()
        self.assertEqual([self.finish(process).status for process in processes], [0, 0])
        self.assertRegex(shown['behind'].read_until(None), r"\As3dump: dump behind: [^\r]*\r\n\Z")

    def test_quiet_is_silent_at_a_terminal_too(self):
        terminal = self.open_terminal()
        process = self.start('-q', 'dump', '/home', '0', stderr=terminal.slave)
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
                    os.set_blocking(terminal.slave, argv[0] == 'clean')
                    process = self.start(*argv, stdin=terminal.slave, stderr=terminal.slave)
                    shown = terminal.read_until(r'N\] ')
                    if argv[0] == 'clean':
                        self.assertEqual(shown, '%s, 100\r\nDelete 1 dump, 100? [y/N] '
                                         % self.keys()[0])
                    terminal.type(typed)
                    self.assertEqual(self.finish(process).status, 0 if kept == 1 else 1)
                    self.assertEqual(len(self.server.objects), kept)
                    self.assertRegex(terminal.read_until(None), r'N\] [^s]*\r\n(s3dump: .*\r\n)+\Z')
        self.place(date='2020-01-03')
        terminal = self.open_terminal()
        process = self.start('clean', '1', stdin=terminal.slave, stderr=terminal.slave)
        terminal.read_until(r'N\] ')
        process.send_signal(signal.SIGINT)
        self.assertEqual(self.finish(process).status, 128 + signal.SIGINT)
        self.assertIn('N] \r\ns3dump: ended by signal 2\r\n', terminal.read_until(None))
        for option in ('-y', '-n'):
            for _ in range(3):
                self.place(date='2020-01-01')
            terminal = self.open_terminal()
            result = self.run_program('clean', '1', option, stdin=terminal.slave)
            self.assertEqual(result.status, 0)
            self.assertNotIn('?', result.err)

    def test_a_credential_process_can_ask(self):
        answer = self.write_file(json.dumps({
            'Version': 1, 'AccessKeyId': self.server.access_key,
            'SecretAccessKey': self.server.secret_key}), 'answer')
        aws = self.write_file('[profile x]\ncredential_process = sh -c "read code && cat %s"\n'
                              % answer, 'aws')
        self.write_file(re.sub('(?m)^.*_key.*\n', '', self.server.config(profile='x')))
        terminal = self.open_terminal()
        process = self.start('list', stdin=terminal.slave, env={'AWS_CONFIG_FILE': aws})
        terminal.type('123456\n')
        self.assertEqual(self.finish(process).status, 0)

    def test_undelete_asks_too(self):
        self.server.versioning = 'Enabled'
        self.addCleanup(setattr, self.server, 'versioning', '')
        keys = [self.place(date='2020-01-0%d' % day) for day in (1, 2)]
        for key in keys:
            self.server.delete(key)
        for typed, there in (('n\n', []), ('y\n', keys)):
            terminal = self.open_terminal()
            process = self.start('undelete', stdin=terminal.slave, stderr=terminal.slave)
            self.assertEqual(terminal.read_until(r'N\] '), ''.join(
                '%s, 100\r\n' % key for key in keys) + 'Bring back these? [y/N] ')
            terminal.type(typed)
            self.assertEqual(self.finish(process).status, 0 if there else 1)
            self.assertEqual(self.keys(), there)

    def test_all_that_goes_is_named_before_somebody_is_asked(self):
        keys = [self.place(date='2020-01-0%d' % day, size=1 << 20) for day in (1, 2, 3)]
        orphan = HOST + ':/x:0:2020-01-01'
        self.server.put(s3.volume_key(orphan, 1), b'', modified=self.noon('2020-01-01'))
        self.place_upload('id', orphan, 40 * DAY)
        terminal = self.open_terminal()
        process = self.start('-q', 'clean', '1', stdin=terminal.slave, stderr=terminal.slave)
        self.assertEqual(terminal.read_until(r'N\] ').replace('\r', ''), (
            '%s, 1.0M\n%s, 1.0M\nthe orphans of %s\nan unfinished upload of %s\n'
            'Delete 2 dumps, 2.0M? [y/N] ' % (keys[1], keys[0], orphan, orphan)))
        terminal.type('y\n')
        self.assertEqual(self.finish(process).status, 0)
        self.assertEqual((self.keys(), self.server.uploads), ([keys[2]], {}))


# What an example begins with: of a shell, which has no columns; or typed, with what it says below.
FORMS = (
    ('typed', r'\$ '), ('variable', '(?=[A-Z_]+=)'), ('cron', r'(?:[0-9*][0-9*/,-]* ){5} +'),
    ('expr', 'expr: '), ('started', r'(?:ExecStart=|.* job: "| *command_line +)/usr/local/bin/'),
    ('shell', r'(?!.*\S   +[^# ])(?=(?:\./)?s3dump\.py [a-z-]|s3\.py(?: -|\n)|[^{]* \| |(?:alias|'
              r'aws|curl|dd|flock|gpg|pg_dump|python3|rclone|s3|set|source|ssh|tar|while|zfs) \S)'))


def examples(text):
    """Yield the examples in README: for each paragraph that has any a list of (kind, text).

    An indented paragraph has, if it doesn't end as a sentence does.  Kinds are those of FORMS, and
    config, expect and NAME.json; NAME begins the text before it, or is the last that is there.
    """
    end = 0
    for match in re.finditer(r'(?m)(?<=\n\n)(?: {4}.*\n)+', text):
        paragraph = re.sub('(?m)^' + re.match(' +', match.group()).group(), '', match.group())
        first_words = {line.split(' ')[0] for line in paragraph.splitlines()}
        found = []
        if re.match(r' *\{ "', paragraph):
            before, end = text[end:match.start()], match.end() - 1
            found = [((re.findall(r'\n\n(\w+\.json)', before)
                       or re.findall(r'\w+\.json', before))[-1], paragraph)]
        elif first_words <= set(s3.SETTINGS):
            found = [('config', paragraph)]
        elif re.match(r'(\w+ +[^|\n]+ +\d(  \d+\w)?\n)+\Z', paragraph):
            found = [('expect', paragraph)]
        elif not re.search(r"[a-z)`'][.:]\n\Z", paragraph):
            found = list(commands(paragraph))
        if found:
            yield found


def commands(paragraph):
    """Yield (kind, text) of each command in a paragraph."""
    while paragraph:
        begin = None
        for kind, form in FORMS:
            begin = begin or re.match('(?P<%s>%s)' % (kind, form), paragraph)
        command, _, paragraph = paragraph[begin.end() if begin else 0:].partition('\n')
        if begin:
            while unfinished(begin.group() + command):
                line, _, paragraph = paragraph.partition('\n')
                command += '\n' + line
            if begin.lastgroup == 'cron':
                command = begin.group() + command
            elif begin.lastgroup == 'started':          # YAML would fold it
                command = re.sub(r'" \}$', '', re.sub(r'(?<!\\)\n +', ' ', command))
            elif begin.lastgroup == 'typed':
                command = re.sub(r'   +\(.*', '', command)
            yield begin.lastgroup, command


def unfinished(command):
    """Whether the next line belongs to it."""
    try:
        shlex.split(command, comments=True)
    except ValueError:                  # of an open quote, or a backslash at the end
        return True
    return bool(re.search(r'(\||&&|^set .*)\Z', command)) or (
        len(re.findall(r'\bdo\b', command)) > len(re.findall(r'\bdone\b', command)))


def crontab():
    """The variables in README's crontab, and its lines of a day and an hour: (when, command)."""
    with open(os.path.join(HERE, 'README'), encoding='utf-8') as file:
        found = [example for paragraph in examples(file.read()) for example in paragraph]
    return (dict(text.split('=', 1) for kind, text in found if kind == 'variable'),
            [re.match('(.*?)  +(.*)', text).groups() for kind, text in found
             if kind == 'cron' and text[0] != '*'])


# What stands in for programs that a test can't run, or that write where it mustn't: lines of sh.
# $ROOT is what they, and tar, dd and gpg, take for the root directory.
STAND_INS = {
    'sh': '[ "$1" = -c ] && cd() { command cd "$ROOT$1"; } && shift && eval "$1"',
    'zfs': '''case "$*" in
        "send "[!-]*@*|"send -i @"*" "*@*) cat $ROOT/dev/sda ;;
        "receive "*|"receive -u "*) cat >>$ROOT/mnt/received ;;
        *) exit 1 ;; esac''',
    'pg_dump': '[ "$*" = "-Fc shop" ] && cat $ROOT/dev/sda',
    'pg_dumpall': '[ $# = 0 ] && cat $ROOT/dev/sda',
    'su': '[ "$1 $2" = "postgres -c" ] && eval "$3"',
    'pg_restore': '[ "$*" = "-C -d postgres" ] && cat >$ROOT/mnt/shop',
    'psql': '[ $# = 0 ] && cat >$ROOT/mnt/shop',
    'mysqldump': '[ "$*" = "--single-transaction --flush-privileges -A -R -E" ] && pg_dumpall',
    'mysql': '[ $# = 0 ] && cat >$ROOT/mnt/shop',
    'restore': '[ "$*" = "-rf -" ] && cat >>restored',                  # that of dump(8)
    'ssh': 'shift; eval "$*"',
    'flock': '[ "$1" = -n ] && : >$ROOT$2 && shift 2 && exec "$@"',
    'gpg': 'cat',                       # unless it is there
    'rclone': ':',
    'aws': '''for a do case $a in file:*) cat "${a#file://}" >/dev/null || exit ;; esac; done
        case "$*" in
        "s3 cp s3://BUCKET/"*" -") exec s3dump.py -q restore -k "${3#s3://BUCKET/}" ;;
        "s3 ls "*) exec s3dump.py list -a --long ;; esac''',
    'curl': '''for url do :; done
        case $url in https://hc-ping.com/*) ;; *) exec python3 -c "import sys, urllib.request
sys.stdout.buffer.write(urllib.request.urlopen('$url').read())" ;; esac''',
}
MOVED = '''for a do
    shift
    case $a in
    $ROOT*|/dev/null) ;;
    /*) a=$ROOT$a ;;
    [io]f=/*) a=${a%%%%=*}=$ROOT${a#*=} ;;
    esac
    set -- "$@" "$a"
done
exec %s "$@"'''

# Each example: what is in it, its status, what it must have said or done (see evidence), and what
# comes before it, if anything.  The first that fits counts; one without a status has its own test.
BACK, STORED = 'payload', r'(?s)stored [^\n]*BUCKET: .*payload'
RUNS = (
    (r'^([A-Z_]+=|alias|s3\.py|python3 -W|s3dump_ok |set -o pipefail; tar "\$@")', None, None),
    (r'^source <\(s3dump\.py --completion', 0, r'\A\Z'),
    (r'^aws s3 cp ', 0, BACK),
    (r'^aws s3 ls --recursive ', 0, 'whole  mail:/home:0:'),
    (r'^aws s3 mb s3://BUCKET\Z', 0, r'\A\Z'),
    (r'^aws (s3api (restore-object|(list|abort)-multipart-uploads?|put-('
     r'bucket-policy|bucket-versioning|(bucket-lifecycle|object-lock)-configuration))|'
     r'iam (create-user|(put|delete)-user-policy|(create|delete)-access-key))'
     r'(\s(\\\n *)?--(bucket|key|policy|access-key-id|upload-id|[a-z-]+-(name|document|'
     r'configuration|request)) \S+)+\Z', 0, r'\A\Z'),
    (r'^(rclone copy -M first:BUCKET second:COPY|aws s3 sync s3://BUCKET s3://COPY)$', 0, r'\A\Z'),
    (r'curl -fsS "\$url"', 0, BACK, 's3dump.py -q -h mail url / 0 >urls'),
    (r'f copykeys verify -k "\$key"', 0, r'\nBAD \S+:/home:0:2026-11-10\n\Z', lambda test: [
        test.server.objects.pop(key) for key in test.keys() if not re.search('photo:0|-10$', key)]),
    (r'-f copykeys dump -k "\$key"', 0, r'(?s)stored [^\n]*COPY: .*payload'),
    (r'\bdump\b|\$FULL', 0, STORED),
    (r'\$DIFF', 0, r'(?s)stored \S+:/home:1:.*home/me/'),
    (r'restore --chain [/\w]+$', 0, r'\Awould restore \S+:0:'),
    (r'restore --thaw ', 3, 'was asked for'),
    (r'gpg --batch -q .* -d', 0, BACK, 'ln -s $ROOT/root/pass; for level in 0 1; do '
     's3dump.py -q -h mail restore photo $level | gpg --batch -q --pinentry-mode loopback -c '
     '--passphrase-file pass | s3dump.py -q -h mail dump /home $level; done'),
    (r'gpg -d', 0, BACK, 's3dump.py -q restore photo 0 | gpg -qe --batch --trust-model '
     'always -r backup@example.com | s3dump.py -q dump /home 0'),
    (r"'tar -tz > /dev/null'", 0, 'checked: etag'),
    (r'tar -tz', 0, r'\nhome/me/letter\n'),
    (r'\brestore\b', 0, BACK, 'rm -rf $ROOT/mnt/*'),
    (r'-h web1 list', 0, r'(?s)\A(?!.*(warning|stored )).*(\ngone web1:[^\n]*){4}\Z',
     lambda test: [test.place(fs, level, host='web1') for fs in ('/', '/my home')
                   for level in '01']),
    (r' (verify|init)\b', 0, 'checked: |it can be written, read and deleted from'),
    (r' list --at ', 0, r'\npg/shop\nLevel 0 2026-11-14:'),
    (r'"broken"', 0, r'\A +\d+ [^\n]* broken +desk:/:0:2026-11-14\n\Z', lambda test: [
        test.server.put('desk:/:0:2026-11-14' + end, b'') for end in ('', '.end_000002')]),
    (r'BEGIN \{ p', 0, '(?m)^     2.30 desk$', lambda test: vars(
        test.server.objects[test.place(host='desk')]).update(data=Zeros(100 << 30))),
    (r' list .*--locks', 0, r'(?s)\A(?!.*photo).* whole  - +\S+:pg/shop'),
    (r' list -a --long \| sort', 0, ' whole  mail:'),
    (r' (list (-a )?--deleted|undelete .*-n\b)', 0, r'pg/shop(\n.* |:0:)2026-11-14'),
    (r' list', 0, r'pg/shop'),
    (r' undelete\b', 0, r'\nstored \S+:pg/shop:0:2026-11-14'),
    (r' delete ', 0, r'\ngone |\Awould delete \S+, \d+\n\Z'),
    (r' check .*--nagios', 0, r'\AS3DUMP OK: \d\d groups'),
    (r' check .*--metrics', 0, r'file root/\S+: # TYPE s3dump_ok gauge\n'),
    (r' -q check ', 0, r'\A\Z'),
    (r' check -a', 0, r'\AOK: \d\d groups of 2 hosts\n\Z'),
    (r' check /home 0', 0, r'\AOK: /home level 0 of mail: '),
    (r' clean .*-n$', 0, r'\ngo   \S+:/home:1:'),
    (r' clean ', 0, r'\ngone \S+:/home:1:', lambda test: test.arrange()),
    (r' url ', 0, 'http://127.0.0.1'),
    (r' getacl ', 0, r'file desk/acl.xml: <\?xml[^<]*<AccessControlPolicy '),
    (r' putacl ', 0, r'\nstored \S+:0:'),
)

# Lets Amazon's client, version 1, parse lines, and run those that are not for its cloud.
AWSCLI = r'''if True:
    import shlex, sys
    from awscli.clidriver import create_clidriver
    for line in sys.argv[1:]:
        words = shlex.split(line.replace('\\\n', ''), comments=True)[1:]
        words += {'sync': ['--dryrun'], 'ls': [], 'cp': [], 'mb': []}.get(
            words[1], ['--generate-cli-skeleton', 'output'])
        if words[1] == 'mb':    # which takes neither, and no capitals in the name of a bucket
            words[2] = words[2].lower()
        if create_clidriver().main(words) and words[0] == 's3':
            sys.exit(line)
'''

# What the actions in policies allow, in words of the test server.
RIGHTS = {
    's3:ListBucket': {'HeadBucket', 'ListObjects', 'ListObjectsV2'},
    's3:ListBucketVersions': {'ListObjectVersions'},
    's3:ListBucketMultipartUploads': {'ListMultipartUploads'},
    's3:GetObject': {'GetObject', 'HeadObject'}, 's3:PutObject': WRITE_ONLY,
    's3:GetObjectVersion': {'GetObjectVersion', 'HeadObjectVersion'},
    's3:GetObjectRetention': set(), 's3:GetObjectLegalHold': set(),
    's3:DeleteObject': {'DeleteObject'}, 's3:DeleteObjectVersion': {'DeleteObjectVersion'},
    's3:AbortMultipartUpload': {'AbortMultipartUpload'}, 's3:RestoreObject': {'RestoreObject'},
    's3:ListMultipartUploadParts': {'ListParts'},
}
# And what can be done with each policy; all else is refused.
MAY = {
    'readwrite.json': 'dump restore other list check clean', 'rotation.json': 'list check clean',
    'writeonly.json': 'dump', 'fleet.json': 'dump restore list check',
    'restore.json': 'restore other list check thaw',
    'recover.json': 'restore other list check undelete',
}


@unittest.skipUnless(all(map(shutil.which, ('bash', 'tar', 'gzip', 'bzip2', 'awk', 'make'))),
                     'there is no bash, tar, gzip, bzip2, awk or make')
class ExampleTests(ProgramTestCase):
    """Every example in README, and in the help, is run as it stands, and does what it says."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.server.close()
        cls.server = S3Server(bucket='BUCKET', buckets=['BUCKET', 'COPY']).start()
        with open(os.path.join(HERE, 'README'), encoding='utf-8') as file:
            cls.readme = file.read()
        cls.paragraphs = [*examples(cls.readme), *examples(
            re.sub('(?m)^  (.*?)(   .*)?$', r'    \1', s3dump.__doc__))]
        cls.found = [example for paragraph in cls.paragraphs for example in paragraph]
        cls.documents = {}
        for kind, text in cls.found:
            if kind.endswith('.json'):
                document = json.loads(text)
                if 'ID' in document:            # a rule more
                    cls.documents[kind]['Rules'].append(document)
                else:
                    cls.documents[kind] = document
        cls.now, cls.bin, gpg = [os.path.join(cls.home, name) for name in ('now', 'bin', 'gpg')]
        cls.root, cls.work = cls.now + '/root', cls.now + '/desk'
        cls.environment = dict(
            ENVIRONMENT, HOME=cls.now + '/user', GNUPGHOME=gpg, ROOT=cls.root,
            key=HOST + ':/home:0:2026-11-10', **{
                name: cls.root * (name in 'DP') + value for name, value in crontab()[0].items()})
        os.mkdir(gpg, 0o700)
        with open(os.path.join(gpg, 'gpg.conf'), 'w') as file:
            file.write('s2k-count 1024\n')          # for else it takes a second
        moved = ['tar', 'dd', 'mv'] + ['gpg'] * (
            shutil.which('gpg') is not None and not subprocess.call(
                ['gpg', '-q', '--batch', '--passphrase', '', '--quick-generate-key',
                 'backup@example.com', 'future-default', 'default', 'never'],
                env=cls.environment, stderr=subprocess.DEVNULL))
        with contextlib.suppress(OSError):      # the key is like one from elsewhere: unsigned
            os.remove(os.path.join(gpg, 'trustdb.gpg'))
        scripts = {name: '#!/bin/sh\n' + text for name, text in [*STAND_INS.items(), *(
            (name, MOVED % shutil.which(name)) for name in moved)]}
        for name, call in ('s3', 'sys.exit(s3.main(sys.argv[1:]))'), (
                's3dump', 'os._exit(s3dump.main())'):
            scripts[name + '.py'] = (
                '#!%s -bbISWerror\nimport os, sys\nsys.path.insert(0, %r)\nimport %s\n%s'
                % (sys.executable, HERE, name, call))
        cls.kept = b'a kept payload\n'
        cls.disk = subprocess.check_output(['bzip2'], input=cls.kept)
        cls.packed = subprocess.check_output(
            ['sh', '-c', 'mkdir -p home/me && cat >home/me/letter && tar -cz home'],
            input=cls.kept, cwd=tempfile.mkdtemp(dir=cls.home))
        os.mkdir(cls.bin)
        for name, text in scripts.items():
            with open(os.path.join(cls.bin, name), 'w') as file:
                file.write(text + '\n')
            os.chmod(file.name, 0o755)
        os.symlink(sys.executable, os.path.join(cls.bin, 'python3'))
        cls.environment['PATH'] = cls.bin + ':' + ENVIRONMENT['PATH']

    @classmethod
    def tearDownClass(cls):
        if shutil.which('gpgconf'):
            subprocess.call(['gpgconf', '--kill', 'gpg-agent'], env=cls.environment)
        # It removes its sockets after it has answered: here they are out of its reach.
        os.rename(cls.environment['GNUPGHOME'], os.path.join(cls.home, 'ended'))
        super().tearDownClass()

    def arrange(self):
        """Let there be the files and the dumps that the examples are about."""
        shutil.rmtree(self.now, ignore_errors=True)
        for folder in ('dev', 'mnt', 'root', 'run/lock', 'var/lib/s3dump', 'var/lib/node_exporter',
                       '../user'):
            os.makedirs(os.path.join(self.root, folder))
        for folder in 'root/home/me', 'root/etc', 'desk/photo':
            os.makedirs(os.path.join(self.now, folder))
            self.write_file('a fresh payload\n', 'now/%s/letter' % folder)
        self.write_file('a password\n', 'now/root/root/pass')
        self.write_file('a fresh payload\n', 'now/desk/notes.txt')
        self.write_file(b'a fresh payload\n' + bytes(1 << 20), 'now/root/dev/sda')
        for name in 'recover', 's3keys', 'FILE', '../user/.s3keys':
            self.write_file(self.server.config(), 'now/desk/' + name)
        self.write_file(self.server.config(bucket_name='COPY'), 'now/desk/copykeys')
        for name, document in self.documents.items():
            self.write_file(json.dumps(document), 'now/desk/' + name)
        for name in 's3.py', 's3dump.py':
            os.symlink(os.path.join(self.bin, name), os.path.join(self.work, name))
        for bucket in self.server.buckets.values():
            bucket.clear()
        self.server.versioning = 'Enabled'
        today, now = time.strftime('%Y-%m-%d'), time.time()
        for level, host, (fs, data) in itertools.product('01', (HOST, 'mail'), (
                ('/', self.packed), ('/home', self.packed), ('photo', self.packed),
                ('sda', self.disk), ('tank/home', self.kept), ('pg/shop', self.kept),
                ('pg', self.packed))):
            self.place(fs, level, today, host, data=data, stored=now - 900 + int(level))
        self.place('/home', '0', '2025-01-05', data=self.packed, storage_class='GLACIER')
        self.place('/home', '0', '2026-11-15', data=self.packed)
        for date in ['2026-10-%02d' % day for day in range(1, 20)] + ['2026-11-17']:
            self.place('/home', '1', date)
        self.server.delete(self.place('pg/shop', '0', '2026-11-14', data=self.kept),
                           self.noon('2026-11-25'))
        for key in 'KEY', 'notes/2026.txt', 'mail:/home:0:2009-07-08', self.environment['key']:
            self.server.put(key, self.packed, modified=self.noon('2026-11-10'))
        for key, found in self.server.objects.items():
            if ':photo:' in key:
                found.lock_mode, found.lock_until = 'COMPLIANCE', now + 9000
            if key != self.environment['key']:
                self.server.put(key, found.data, bucket='COPY', metadata=found.metadata)

    def shell(self, command, shell='bash', **more):
        """Run a command; returns its status, and what it said."""
        done = subprocess.run([shell, '-c', command], env=dict(self.environment, **more),
                              cwd=self.work, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=PATIENCE)
        said = done.stdout.decode('latin-1')
        self.assertNotRegex(said, 'Traceback|Exception|' + self.server.secret_key)
        return done.returncode, said

    def as_typed(self, kind, command):
        """Run an example where its kind is at home."""
        if kind == 'cron':
            return self.shell(re.sub('^' + dict(FORMS)['cron'], '', command), '/bin/sh',
                              PATH=self.bin + ':' + crontab()[0]['PATH'])
        if '--completion zsh' in command:
            return self.shell('autoload -U compinit && compinit -D; ' + command, 'zsh') if (
                shutil.which('zsh')) else (0, '')
        if command.startswith('s3 '):           # sh, unlike bash, knows an alias
            alias, = [text for _, text in self.found if text.startswith('alias ')]
            return self.shell(alias + '\n' + command, '/bin/sh')
        return self.shell(command)

    def state(self):
        """All files and objects, by their kinds and names."""
        found = {}
        for folder, _, names in os.walk(self.now):
            for name in names:
                path = os.path.join(folder, name)
                with open(path, 'rb') as file:
                    found['file ' + os.path.relpath(path, self.now)] = file.read()
        for name, bucket in self.server.buckets.items():
            found.update(('stored %s in %s' % (key, name), each.acl or each)
                         for key, each in bucket.items())
        return found

    def evidence(self, before):
        """What has become different: files and stored objects, unpacked, and deleted objects."""
        after = self.state()
        return ''.join(['\n%s: %s' % (name, self.unpack(getattr(new, 'data', new)))
                        for name, new in after.items() if before.get(name) != new]
                       + ['\ngone ' + name[7:] for name in before if name not in after])

    def unpack(self, data):
        for magic, program in ((b'\x1f\x8b', ['gzip', '-d']), (b'BZh', ['bzip2', '-d']), (
                b'[\x84\x85\x8c]', ['gpg', '-q', '--batch', '--pinentry-mode', 'loopback',
                                    '--passphrase-file', self.root + '/root/pass', '-d'])):
            if re.match(magic, data):
                return self.unpack(subprocess.run(
                    program, input=data, stdout=subprocess.PIPE, env=self.environment).stdout)
        return data.decode('latin-1')

    def entry(self, command):
        """What RUNS has for a command."""
        for entry in RUNS:
            if re.search(entry[0], re.sub(' +# .*', '', command)):
                return entry
        self.fail('RUNS knows nothing of this example: ' + command)

    def run_paragraphs(self, wanted):
        """Run the examples of the paragraphs that fit, one after the other."""
        for paragraph in self.paragraphs:
            if paragraph[0][0] not in dict(FORMS) or not wanted('\n'.join(
                    text for _, text in paragraph)):
                continue
            self.arrange()
            for kind, command in paragraph:
                with self.subTest(command):
                    self.run_example(kind, command, *self.entry(command)[1:])

    def run_example(self, kind, command, status, means, *first):
        if status is None:
            return
        for each in first:
            if callable(each):
                each(self)
            else:
                self.assertEqual(self.shell(each), (0, ''))
        before = self.state()
        result, said = self.as_typed(kind, command)
        said += self.evidence(before)
        self.assertEqual(result, status, said)
        self.assertRegex(said, means)
        labels = re.search(r'(?:^| )dump ([^ -]\S*) ([0-9])\b', command)
        if labels:
            self.assertIn('\nstored %s:%s:%s:' % ((HOST,) + labels.groups()), said)

    def test_what_dumps(self):
        self.run_paragraphs(lambda text: ' dump ' in text)

    def test_what_restores(self):
        self.run_paragraphs(lambda text: 'restore ' in text and ' dump ' not in text)

    def test_all_others(self):
        self.run_paragraphs(lambda text: 'restore ' not in text and ' dump ' not in text)

    def test_nothing_is_known_that_is_not_there(self):
        used = {self.entry(text)[0] for kind, text in self.found if kind in dict(FORMS)}
        self.assertEqual([entry[0] for entry in RUNS if entry[0] not in used], [])

    def test_a_difference_brings_back_what_cron_dumped(self):
        (_, full), (_, difference), (_, pg) = crontab()[1][:3]
        restore, = [text for _, text in self.found
                    if text.startswith('s3dump.py restore --chain /home -- ')]
        self.arrange()
        me = os.path.join(self.root, 'home/me')
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as unix:     # of which tar is silent
            unix.bind(os.path.relpath(os.path.join(self.root, 'home/socket')))
        self.assertEqual(self.shell(full, '/bin/sh'), (0, ''))
        os.rename(me + '/letter', me + '/reply')
        self.assertEqual(self.shell(difference, '/bin/sh'), (0, ''))
        status, said = self.shell(restore)
        self.assertEqual((status, said.count('\n')), (0, 2), said)
        self.assertEqual(os.listdir(os.path.join(self.root, 'mnt/home/me')), ['reply'])
        os.remove(self.root + '/dev/sda')               # the data base is down
        before = self.keys()
        status, said = self.shell(pg, '/bin/sh')
        self.assertEqual((status, self.keys()), (1, before))
        self.assertIn('nothing is stored', said)
        self.server.objects.clear()
        self.assertEqual(self.shell(crontab()[1][-1][1], '/bin/sh'), (
            1, 'FAILED: all hosts: there is no dump\n'))

    @unittest.skipUnless(shutil.which('gpg'), 'there is no gpg')
    def test_a_script_encrypts_what_cron_dumps(self):
        self.arrange()
        script = re.sub('(?m)^    ', '', re.search(
            r'(?m)^    #!/bin/bash\n(?:    .*\n)+', self.readme).group())
        encrypted = {name: self.environment[name].replace(' tar ', ' tar-gpg ')
                     for name in ('FULL', 'DIFF')}
        for recipient, status in ('backup@example.com', 0), ('nobody@example.com', 1):
            self.write_file(script.replace('backup@example.com', recipient),
                            self.bin + '/tar-gpg', 0o755)
            for _, command in crontab()[1][:2]:
                with self.subTest(command, recipient=recipient):
                    before = set(self.keys())
                    result, said = self.shell(command, '/bin/sh', **encrypted)
                    stored = set(self.keys()) - before
                    self.assertEqual((result, len(stored)), (status, 1 - status), said)
                    for data in [self.server.objects[key].data for key in stored]:
                        self.assertRegex(data, b'\\A[\x84\x85]')
                        self.assertIn('home/me/', self.unpack(data))
        self.assertNotEqual(os.path.getsize(self.root + '/var/lib/s3dump/home'), 0)
        self.write_file(script, self.bin + '/tar-gpg', 0o755)
        self.assertEqual(self.shell('tar-gpg -c nowhere >archive')[0], 2)

    def test_the_index_leads_to_where_something_begins(self):
        index, _, text = self.readme.partition('\nKNOW THIS FIRST\n')
        targets = re.findall('/(\\^.*?)(?:  |$)', index.partition('\nWHERE IS')[2], re.MULTILINE)
        self.assertGreater(len(targets), 20)
        for target in targets:
            with self.subTest(target):      # its first line that less finds
                found = re.search('(?m)' + target, text)
                self.assertEqual(text[found.start() - 2:found.start()], '\n\n')

    def test_the_sections_that_the_programs_name_are_there(self):
        for name in 's3.py', 's3dump.py':
            with open(os.path.join(HERE, name), encoding='utf-8') as file:
                for section in re.findall('README, ([A-Z]{2}[A-Z ]*)', file.read()):
                    self.assertRegex(self.readme, '\n%s.*\n-----' % section)

    def test_the_first_part_is_short_and_fits_a_terminal(self):
        self.assertLessEqual(self.readme.partition('\nPART TWO')[0].count('\n'), 250)
        self.assertLessEqual(max(map(len, self.readme.splitlines())), 80)

    def test_policies_permit_what_they_are_for_and_no_more(self):
        commands = {'list': ['list'], 'check': ['check', '/', '0'], 'dump': ['dump', '/', '0'],
                    'other': ['restore', '/', '0', '-h', 'mail'],
                    'restore': ['restore', '/home', '0'], 'clean': ['clean', '1', '/home', '1'],
                    'undelete': ['undelete', 'pg/shop', '0'],
                    'thaw': ['restore', '--thaw', '1', '/home', '0', '-w', '2025-01-05']}
        policies = {name: document for name, document in self.documents.items()
                    if 'Statement' in document}
        deny, = policies.pop('bucket.json')['Statement']
        self.assertEqual(deny, {
            'Sid': deny['Sid'], 'Effect': 'Deny', 'Principal': '*', 'Action': 's3:PutObject',
            'Resource': 'arn:aws:s3:::BUCKET/*', 'Condition': {
                'Null': {'s3:if-none-match': 'true'},
                'Bool': {'s3:ObjectCreationOperation': 'true'}}})
        self.assertEqual(set(policies), set(MAY))
        for name, policy in policies.items():
            user = self.server.add_user('SOMEBODY', 'secret', allow=set(), conditional=True)
            self.assertEqual(policy['Version'], '2012-10-17')
            user.prefix = HOST + ':' if name == 'fleet.json' else ''
            for statement in json.loads(json.dumps(policy['Statement']).replace(
                    '${aws:username}', HOST)):
                actions = statement.pop('Action')
                for action in [actions] if isinstance(actions, str) else actions:
                    user.allow |= RIGHTS[action]
                    on_bucket = {'Effect': 'Allow', 'Resource': 'arn:aws:s3:::BUCKET'}
                    if user.prefix:
                        on_bucket['Condition'] = {'StringLike': {'s3:prefix': user.prefix + '*'}}
                    self.assertEqual(statement, on_bucket if 'ListBucket' in action else {
                        'Effect': 'Allow', 'Resource': 'arn:aws:s3:::BUCKET/%s*' % user.prefix})
            self.arrange()
            del self.server.log[:]
            self.configure(access_key_id='SOMEBODY', secret_access_key='secret', part_size='5m')
            for command, argv in commands.items():
                with self.subTest(name, command=command):
                    result = self.run_program(*argv, data=b'data')
                    self.assertEqual(result.status, 1 if command not in MAY[name].split()
                                     else 3 if command == 'thaw' else 0, result)
                    if result.status == 0 and name == 'readwrite.json':
                        self.assertEqual([request.operation for request in self.server.log
                                          if request.status == 403 and request.operation], [])
            if 'dump' in MAY[name]:                 # and an upload that fails is aborted
                self.run_program('dump', '/', '0', '--', 'sh', '-c', 'head -c 6m /dev/zero; exit 1')
                self.assertNotIn(('AbortMultipartUpload', 403), [
                    (request.operation, request.status) for request in self.server.log])

    def test_files_are_what_they_are_for(self):
        self.arrange()
        for kind, text in self.found:
            with self.subTest(text):
                if kind == 'config':
                    s3.Bucket(s3.load_config(self.write_file(text)))
                elif kind == 'expect':
                    self.write_file(text, 'now/desk/expect')
                    self.assertEqual(self.shell('s3dump.py check --expect expect'), (
                        1, 'FAILED: My Files level 0 of desk: there is no dump\n'
                        'FAILED: 1 of 29 groups of 3 hosts\n'))
                elif kind == 'expr':
                    metrics = self.shell('s3dump.py check -a --metrics')[1]
                    for name in re.findall(r's3dump_\w+', text):
                        self.assertIn('\n%s{host="%s",' % (name, HOST), metrics)

        known = {'AbortIncompleteMultipartUpload': ['DaysAfterInitiation'],
                 'NoncurrentVersionExpiration': ['NoncurrentDays'],
                 'Expiration': ['ExpiredObjectDeleteMarker']}
        for rule in self.documents['lifecycle.json']['Rules']:
            self.assertEqual((rule['Status'], rule['Filter']), ('Enabled', {'Prefix': ''}))
            for name in set(rule) - {'ID', 'Status', 'Filter'}:
                self.assertEqual(list(rule[name]), known[name])

    def test_the_self_test_prints_what_is_shown_and_the_demonstration_ends_well(self):
        self.arrange()
        self.server.versioning = ''
        demonstration = self.start(                 # meanwhile
            prefix=['make', '-C', HERE, 'demo', 'PYTHON=' + sys.executable])
        command, = [text for _, text in self.found if text.startswith('s3.py')]
        status, said = self.shell(command)
        self.server.violations.clear()              # for it sends damaged data, too
        shown = re.search(r'(?m)^    \$ s3\.py .*\n((?:    .*\n)+)', self.readme).group(1)
        shown, said = [re.sub(r'(?m)^    |(?:Python|TLS|bucket) .*|\d[\d.]*', '', text)
                       for text in (shown, said)]
        self.assertEqual(status, 0)
        self.assertRegex(said, r'(?s)\A%s\Z' % re.escape(shown).replace(r'\.\.\.', '.*'))
        self.assertEqual(demonstration.wait(PATIENCE), 0)

    def test_list_prints_what_readme_shows(self):
        host, shown = re.search(r'\$ s3dump\.py list\n {4}Dumps for this host \((.*)\):\n'
                                r'((?:.*\n)*? {4}Total .*\n)', self.readme).groups()
        for line in shown.splitlines():
            found = re.match(r' *Level (.) (\S{10}) ?(\S*): +(\S+)(.)(?:  (\S+))?$', line)
            if not found:
                fs = line.strip()
                continue
            level, date, clock, size, unit, storage_class = found.groups()
            stored = time.strptime(date + (clock or '12:00:00'), '%Y-%m-%d%H:%M:%S')
            key = self.place(fs, level, date, host, stored=time.mktime(stored),
                             storage_class=storage_class or 'STANDARD')
            self.server.objects[key].data = Zeros(int(float(size) * 1024 ** ' kMG'.index(unit)))
        self.assertEqual(self.succeed('list', env={'S3DUMP_HOST': host}).out.decode(),
                         'Dumps for this host (%s):\n' % host + re.sub('(?m)^    ', '', shown))

    def test_make_and_the_tests_have_what_is_said(self):
        with open(os.path.join(HERE, 'Makefile')) as file:
            targets = re.findall('(?m)^(.+?):', file.read())
        for name in re.findall(r'(?:\n    |`)make ([a-z][\w.]*)', self.readme):
            self.assertIn(name, targets)
        for _, text in self.found:
            for name in re.findall(r'python3 .* test_s3dump\.(\w+)$', text):
                self.assertIn(name, globals())
            for name in re.findall('python3 .* -k ([a-z_]+)', text):
                self.assertTrue([method for case in globals().values() for method in dir(case)
                                 if method.startswith('test_') and name in method])

    @unittest.skipUnless(importlib.util.find_spec('awscli'), 'this Python has no awscli')
    def test_amazons_client_takes_its_commands(self):
        self.arrange()
        self.server.versioning = ''
        lines = [re.sub(r' \|.*', '', text) for _, text in self.found if text.startswith('aws ')]
        done = subprocess.run(
            [sys.executable, '-c', AWSCLI] + lines, cwd=self.work, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=PATIENCE, env=dict(
                clean_environment(self.home), AWS_ENDPOINT_URL=self.server.url,
                AWS_ACCESS_KEY_ID=self.server.access_key, AWS_DEFAULT_REGION=self.server.region,
                AWS_SECRET_ACCESS_KEY=self.server.secret_key))
        # Names like ID are too short for it.
        said = re.sub('\nInvalid length .*', '', done.stdout.decode('latin-1'))
        self.assertEqual(done.returncode, 0, said)
        self.assertNotRegex(said, 'usage:|Error|Unknown|Missing|Invalid|must be')
        self.server.violations.clear()

    @unittest.skipUnless(shutil.which('systemd-analyze'), 'there is no systemd')
    def test_systemd_takes_the_units(self):
        text = re.sub('(?m)^ *', '', re.search(
            r'(?ms)^    \[Unit\].*?^    WantedBy=.*?$', self.readme).group(0))
        service, timer, more = text.partition('[Timer]')
        self.write_file(service.replace('/usr/local/bin/s3dump.py', PROGRAM), 's3dump.service')
        self.write_file('[Service]\nType=oneshot\nExecStart=/bin/true\n', 'mail@.service')
        self.write_file(timer + more, 's3dump.timer')
        for name in 's3dump.service', 's3dump.timer':
            done = subprocess.run(['systemd-analyze', 'verify', os.path.join(self.home, name)],
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            self.assertEqual((done.returncode, done.stdout), (0, b''), name)


# Runs one command after the other, each at its time.  Its input: lines of JSON, [seconds by which
# the clock is ahead, arguments...]; its output: all that a command says, a NUL and its status.
CRON = '''if True:
    import json, os, sys, time
    real, ahead = time.time, 0
    time.time = lambda: real() + ahead
    sys.path.insert(0, %r)
    import s3dump
    for line in sys.stdin:
        ahead, *argv = json.loads(line)
        os.write(1, b'\\0%%d\\n' %% s3dump.run(argv))
''' % HERE


class YearTests(ProgramTestCase):
    """README's crontab from one January to the next, with the sizes that a mail server has."""

    FIRST = datetime.date(2026, 1, 4)       # a Sunday
    COPIED = datetime.date(2026, 5, 13)     # the Wednesday when somebody copies 60 GB
    GB = 10 ** 9

    def setUp(self):
        ProgramTestCase.setUp(self)
        self.random = random.Random(20260104)
        self.full, self.changed, self.pg = 40 * self.GB, 0, 2 * self.GB
        self.placed = collections.defaultdict(list)     # (FS, LEVEL): [(time, key)], all there were
        self.complaints = []
        self.dump(b'data', '/', '0')
        self.metadata = self.server.objects.popitem()[1].metadata
        self.cron = self.start(prefix=PYTHON + ['-c', CRON], stderr=subprocess.STDOUT,
                               env={'TZ': 'UTC'})

    def tearDown(self):
        self.server.offset = 0
        ProgramTestCase.tearDown(self)

    def size(self, fs, level, day):
        """How large the dump of that day is."""
        if fs == 'pg':
            self.pg += self.random.randrange(self.GB // 200)
            return self.pg
        if level == '0':                    # takes in what the differences had
            self.full += self.changed if self.changed > 50 * self.GB else self.changed // 10
            self.changed = 0
            return self.full
        self.changed += self.random.randrange(self.GB // 5, self.GB // 2)
        if day == self.COPIED:
            self.changed += 60 * self.GB
        return self.changed

    def store(self, fs, level, day, now):
        """Place a dump that begins now, as `dump` would; its data are only a length."""
        key = '%s:%s:%s:%s:%s-%016d' % (HOST, fs, level, day, time.strftime(
            '%Y%m%dT%H%M%S.123Z', time.gmtime(now)), next(self.serial))
        self.server.put(key, b'', modified=now, metadata=self.metadata)
        self.server.objects[key].data = Zeros(self.size(fs, level, day))
        self.placed[fs, level].append((now, key))

    def run_at(self, now, argv):
        """Run a command; cron would mail what it says."""
        self.server.offset = now - time.time()
        self.cron.stdin.write(json.dumps([self.server.offset] + argv).encode() + b'\n')
        self.cron.stdin.flush()
        said = b''
        while not re.search(br'\0\d+\n\Z', said):
            self.assertTrue(select.select([self.cron.stdout], [], [], PATIENCE)[0], argv)
            more = os.read(self.cron.stdout.fileno(), 1 << 16)
            self.assertTrue(more, said)
            said += more
        if said != b'\x000\n':
            self.complaints.append('%s: %s: %s' % (
                time.strftime('%Y-%m-%d', time.gmtime(now)), ' '.join(argv), said.decode()))

    def look(self, day):
        """What must be restorable on each day is there."""
        fulls, differences = self.placed['/home', '0'], self.placed['/home', '1']
        for one in fulls[-1:] + self.placed['pg', '0'][-1:] + [
                one for one in differences[-1:] if one > fulls[-1]]:
            if one[1] not in self.server.objects:
                self.complaints.append('%s: %s is gone' % (day, one[1]))
        for one in differences:
            base = max((full for full in fulls if full < one), default=one)
            if one[1] in self.server.objects and base[1] not in self.server.objects:
                self.complaints.append('%s: %s lacks its base, %s' % (day, one[1], base[1]))

    def test_in_a_year_cron_has_nothing_to_mail_and_every_dump_that_matters_is_there(self):
        variables, lines = crontab()
        table = []                  # (seconds after midnight, days of the week, command's words)
        for when, command in lines:
            minute, hour, day, month, weekdays = when.split()
            self.assertEqual((day, month), ('*', '*'))
            first, _, last = weekdays.replace('*', '0-6').partition('-')
            command = re.sub(r'\$([A-Z]+)', lambda match: variables[match.group(1)], command)
            words = shlex.split(command.partition('s3dump.py ')[2])
            table.append((3600 * int(hour) + 60 * int(minute),
                          range(int(first), int(last or first) + 1), words))
        self.assertEqual(sum('dump' in words for _, _, words in table), 3)
        self.assertEqual(sum('clean' in words for _, _, words in table), 1)
        self.assertEqual(sum('check' in words for _, _, words in table), 1)
        for number in range(370):
            day = self.FIRST + datetime.timedelta(number)
            # All checks when the 60 GB come and when these go, else those of a day a week.
            eventful = (day - self.COPIED).days in (*range(-1, 14), *range(28, 40))
            for seconds, weekdays, words in sorted(table, key=lambda line: line[0]):
                now = calendar.timegm(day.timetuple()) + seconds
                if day.isoweekday() % 7 not in weekdays:
                    continue
                if 'dump' in words:
                    self.store(*words[words.index('dump') + 1:][:2], day, now)
                elif 'clean' in words or eventful or number % 8 == 0:
                    self.run_at(now, words)
            self.look(day)
        self.assertEqual(self.complaints, [])
        for (fs, level), placed in self.placed.items():     # and of each month one is left
            months = {key.split(':')[3][:7] for _, key in placed}
            left = [key.split(':')[3][:7] for key in self.keys() if key.split(':')[1:3] == [
                fs, level]]
            self.assertEqual(sorted(set(left)), sorted(months)[-12:])
            self.assertLess(len(left), 5 + 12 + 7, 'since the last Sunday there were up to seven')


class CronTests(ProgramTestCase):

    def test_nothing_is_imported_that_a_command_does_not_need(self):
        networks, more = {'http.client', 'socket', 'ssl'}, {'xml.etree', 'subprocess', 'json'}
        for argv, status, needed in (
                (['--help'], 0, set()), (['dump', '/'], 2, set()), (['--version'], 0, set()),
                (['dump', '/', '0'], 0, networks), (['list'], 0, networks | {'xml.etree'}),
                (['dump', '/', '0', '--', 'true'], 0, networks | {'subprocess'})):
            process = self.start(*argv, prefix=[sys.executable, '-uvIS', PROGRAM])
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

    def test_a_python_without_docstrings_will_do(self):
        prefix = [sys.executable, '-OO', PROGRAM]
        self.succeed('dump', '/home', '0', data=b'data', prefix=prefix)
        self.assertEqual(self.succeed('restore', '/home', '0', prefix=prefix).out, b'data')
        self.assertIn(b'--retain', self.succeed('--help', prefix=prefix).out)

    def limited(self, limit, *argv, **options):
        return self.run_program(*argv, prefix=in_shell(limit + ' && exec "$@"'), **options)

    def test_small_machines_are_large_enough(self):
        self.configure(part_size='5m')
        for limit in ('ulimit -n 64', 'ulimit -v 200000', 'umask 777', 'cd /proc'):
            with self.subTest(limit):
                self.server.objects.clear()
                data = bytes(PART + 1)
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

    def test_it_is_as_patient_as_it_is_told_to_be(self):
        self.server.fault('PutObject', 'status', times=None)
        for argv, more in ((['--patience', '1s'], {}), ([], {'patience': '1s'}),
                           (['--patience', '1s'], {'patience': '7d'})):
            self.configure(**more)
            self.must_fail(1, r'gave up after [0-9]+ attempts', 'dump', '/home', '0', *argv,
                           data=b'data')

    # What runs the program where time passes only while it waits to try again
    WAITING = in_python('import sys; sys.path.insert(0, %r); import s3; now = [0]\n'
                        'init = s3.Bucket.__init__\n'
                        's3.Bucket.__init__ = lambda *args, **more: init(\n'
                        '    *args, **more, monotonic=lambda: now[0],\n'
                        '    wait=lambda _, seconds: now.append(now.pop() + seconds))' % HERE)

    def test_an_outage_of_hours_is_told_of_once_an_hour_though_it_is_to_be_quiet(self):
        self.server.fault('PutObject', 'status', times=None)
        result = self.run_program('-q', 'dump', '/home', '0', '--patience', '5h', data=b'data',
                                  prefix=self.WAITING)
        self.assertEqual(result.status, 1)
        lines = result.err.splitlines()
        self.assertEqual([re.sub('.*(nothing has moved.*)', r'\1', line) for line in lines[:-1]], [
            'nothing has moved for %s: SlowDown (503); giving up after 5 h' % hours
            for hours in ('60 min', '2 h', '3 h', '4 h')])
        self.assertRegex(lines[-1], 'gave up after [0-9]+ attempts')

    def test_only_transfers_outlast_a_quarter_of_an_hour(self):
        for name in ('dump /home 0', 'restore /home 0', 'verify /home 0', 'check /home 0', 'list'):
            for patience, most in ((['--patience', '7d'], 7 * DAY), (['--patience', '5m'], 300),
                                   ([], 900)):
                args = s3dump.parse([*name.split(), '-f', self.config, *patience])
                with s3dump.open_bucket(args) as bucket:
                    self.assertEqual(bucket.patience, most if ' 0' in name
                                     and 'check' not in name else min(900, most))


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
        (SMALL, 'PutObject', 'status', DENIED, 1,
         'PutObject .*AccessDenied .403.: .*s3:PutObject is not allowed'),
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
        ('GetObject', 'wrong-range', dict(by=1, times=None), 1, 'asked for bytes .* and sends'),
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
        pattern = r'\As3dump: [^\n]*%s[^\n]*\n\Z' % (
            message if result.status else r' bytes?. in \d+\.\d\d s, ')
        self.assertRegex(result.err, pattern)

    def test_dumps_are_stored_whole_or_not_at_all(self):
        self.configure(part_size='5m')
        for size, operation, kind, options, status, message in self.DUMPS:
            with self.subTest('%s %s %s' % (operation, kind, options)):
                self.end_faults()
                self.server.objects.clear()
                self.server.uploads.clear()
                fault = self.server.fault(operation, kind, **options)
                result = self.run_program('dump', '/home', '0', data=bytes(size))
                self.assertEqual((result.status, result.out), (status, b''), result.err)
                self.said(result, message)
                self.assertGreater(fault.hits, 0)
                self.assertEqual([found.size for found in self.server.objects.values()],
                                 [] if status else [size])
                self.assertEqual(result.err.endswith(': nothing is stored\n'), bool(
                    re.search(r' [(]40[034][)]', result.err)), result.err)
                self.assertEqual(self.parts_left(), [])

    def little_memory(self, more, *argv, **options):
        """Run the program with so many MiB of memory more than --help needs."""
        if not hasattr(self, 'least'):
            self.least = next(mib for mib in range(8, 1000, 4) if self.run_program(
                '--help', prefix=in_shell('ulimit -v %d; "$@" 2>&1 || exit 9' % (mib << 10),
                                          PYTHON + [PROGRAM]), stdout=subprocess.DEVNULL
            ).status == 0)
        # glibc may find room for 64 MiB of its own for a thread, or may not, as chance has it
        return self.run_program(*argv, prefix=in_shell(
            'export MALLOC_ARENA_MAX=1; ulimit -v %d; exec "$@"' % (self.least + more << 10),
            PYTHON + [PROGRAM]), **options)

    def test_where_memory_has_no_room_for_all_buffers_a_dump_comes_and_goes(self):
        self.configure(part_size='32m')
        data = bytes((96 << 20) + 1)
        result = self.little_memory(104, 'dump', '-k', 'key', data=data)
        self.assertEqual((result.status, self.keys()), (0, ['key']), result.err)
        result = self.little_memory(104, 'restore', '-k', 'key')
        self.assertEqual((result.status, result.out == data), (0, True), result.err)

    def test_with_little_memory_it_ends_with_a_line(self):
        self.configure(part_size='5m')
        data = bytes(2 * PART + 1)
        for mib in range(0, 60, 10):
            with self.subTest(mib):
                result = self.little_memory(mib, 'dump', '-k', 'key%d' % mib, data=data)
                self.assertRegex(result.err, r'\A(s3dump: warning: [^\n]*\n)?s3dump: [^\n]*\n\Z')
                self.assertEqual('key%d' % mib in self.keys(), result.status == 0)
                if result.status:
                    self.assertRegex(result.err, 'memory')

    def test_a_system_without_a_limit_of_the_address_space_will_do(self):    # OpenBSD
        self.succeed('dump', '-k', 'key', data=b'data', prefix=in_python(
            'import resource; del resource.RLIMIT_AS'))

    def test_what_can_not_be_loaded_is_told_of_in_a_line(self):
        for change in ('sys.modules["argparse"] = None', 'collections.namedtuple = fail'):
            code = ('import collections, pkgutil, runpy, sys\ndef fail(*_):\n'
                    '    raise MemoryError()\n%s\nrunpy.run_path(%r, run_name="__main__")')
            prefix = PYTHON + ['-c', code % (change, PROGRAM)]
            self.must_fail(1, 'out of memory, or not all of it is here', '--help', prefix=prefix)
            for place in ('/dev/full', '&-'):
                result = self.run_program(prefix=in_shell('exec "$@" 2>' + place, prefix))
                self.assertEqual((result.status, result.err), (1, ''))

    def test_a_ca_that_can_not_be_loaded_is_told_of_before_the_stream_is_read(self):
        self.write_file(self.server.config(endpoint='https://127.0.0.1:1', ca_bundle='/missing'))
        self.must_not_read(2, 'cannot load ca_bundle /missing', 'dump', '/home', '0')

    def test_a_module_that_is_not_there_is_not_certainly_out_of_memory(self):
        self.must_fail(1, 'out of memory, or this Python is not complete', 'list', prefix=in_python(
            'import sys; sys.modules["xml.etree.ElementTree"] = None'))

    def test_restores_give_the_exact_bytes_or_an_error(self):
        data = os.urandom(PART + 1000)
        self.configure(part_size='5m', jobs='1')
        key = self.dump(data, '/home', '0')
        kept = self.server.objects[key]
        for operation, kind, options, status, message in self.RESTORES:
            with self.subTest('%s %s %s' % (operation, kind, options)):
                self.end_faults()
                self.server.objects[key] = kept
                fault = self.server.fault(operation, kind, **options)
                result = self.run_program('restore', '/home', '0')
                self.assertEqual(result.status, status, result.err)
                self.said(result, message)
                self.assertGreater(fault.hits, 0)
                self.assertEqual(status == 0, result.out == data)


class SystemCallTests(ProgramTestCase):
    """Any one system call of a dump, a restore or a clean fails, once: by .ci/faults.c where
    there is a cc, else by strace, which can do so with calls that no Python makes as it starts.

    Whichever it is: status 0 only if all was done, no object that is part of a dump, nothing
    gone that stays, no traceback, no hang.
    """

    CALLS = collections.OrderedDict((       # in the order of faults.c, each with its errors
        ('waitpid', ('ECHILD',)), ('mmap', ('ENOMEM',)), ('fork', ('EAGAIN', 'ENOMEM')),
        ('pthread_create', ('EAGAIN',)), ('poll', ('ENOMEM',)),
        ('recv', ('ECONNRESET', 'ETIMEDOUT')), ('send', ('EPIPE', 'ECONNRESET')),
        ('connect', ('ECONNREFUSED', 'ETIMEDOUT')), ('read', ('EIO',)),
        ('write', ('ENOSPC', 'EIO'))))
    TRACED = {'waitpid': 'wait4', 'poll': 'poll', 'recv': 'recvfrom', 'send': 'sendto',
              'connect': 'connect'}
    COMMANDS = collections.OrderedDict((    # arguments, all calls to try, those that are a sample
        ('dump', ('dump /home 0 -- cat stream', 'waitpid mmap fork pthread_create poll recv send '
                  'connect read write', 'waitpid mmap fork pthread_create poll recv send')),
        ('failing dump', ('dump /home 0 -- sh -c "cat stream; exit 1"', 'waitpid mmap fork poll',
                          'waitpid')),
        ('dump of a file', ('dump /home 0', 'read', 'read')),
        ('restore', ('restore -k old', 'mmap pthread_create poll recv send connect read write',
                     'connect write')),
        ('restore into a program', ('restore -k old -- sh -c "cat > part && mv part whole"',
                                    'waitpid mmap fork pthread_create poll recv send read write',
                                    'waitpid recv')),
        ('clean', ('clean 2', 'mmap poll recv send connect read write', 'send'))))
    DATA = some_bytes(3 * PART - 5)
    LIMIT = 30                              # seconds

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.library = os.path.join(cls.home, 'faults.so')
        if not cls.works('cc', '-shared', '-fPIC', '-o', cls.library,
                         os.path.join(HERE, '.ci', 'faults.c'), '-ldl', '-lpthread'):
            cls.library = None
            if not cls.works('strace', '-qq', '-e', 'inject=poll:error=ENOMEM:when=99', 'true'):
                cls.tearDownClass()
                raise unittest.SkipTest('there is neither cc nor strace')
        with open(os.path.join(cls.home, 'stream'), 'wb') as file:
            file.write(cls.DATA)
        cls.old = cls.server.put('old', cls.DATA, parts=PART)

    @staticmethod
    def works(*command):
        return sys.platform.startswith('linux') and shutil.which(command[0]) and not (
            subprocess.call(command, stderr=subprocess.DEVNULL))

    def setUp(self):
        super().setUp()
        self.configure(part_size='5m')

    def strike(self, command, call='none', number=0, error='0'):
        """Run a command of which the call of this number fails; returns how many of each it made.

        AssertionError says what is wrong then.
        """
        objects = self.server.objects
        for kept in (objects, self.server.uploads, self.server.log):
            kept.clear()
        whole = os.path.join(self.home, 'whole')
        if command.startswith('restore'):
            objects['old'] = self.old
            with contextlib.suppress(FileNotFoundError):
                os.remove(whole)
        elif command == 'clean':
            for day in range(10, 14):
                self.place(date='2020-01-%d' % day)
        dumps = self.keys()
        counts = os.path.join(self.home, 'counts')
        prefix, env = PYTHON + ['-X', 'faulthandler', '-c', """if True:
            import os, sys
            sys.argv[0] = %r
            sys.path.insert(0, os.path.dirname(sys.argv[0]))
            import s3dump
            if %r:
                os.write(-77, b'')          # here the counts begin
            os._exit(s3dump.main())""" % (PROGRAM, self.library)], {}
        if self.library:
            env = {'LD_PRELOAD': self.library, 'FAULT_COUNTS': counts,
                   'FAULT': '%s:%d:%d' % (call, number, getattr(errno, error, 0))}
        else:
            prefix = ['strace', '-f', '-qq', '-o', counts, '-e', 'trace=' + ','.join(
                self.TRACED.values())] + (['-e', 'inject=%s:error=%s:when=%d' % (
                    self.TRACED[call], error, number)] if number else []) + prefix
        with open(os.path.join(self.home, 'stream'), 'rb') as stream, \
                tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = self.start(*shlex.split(self.COMMANDS[command][0]), stdin=stream,
                                 stdout=out, stderr=err, prefix=prefix, env=env,
                                 start_new_session=True)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(self.LIMIT)
            hangs = process.poll() is None
            if hangs:
                os.killpg(process.pid, signal.SIGABRT)      # to see where
                process.wait()
            out.seek(0)
            err.seek(0)
            said = err.read().decode()
            self.assertFalse(hangs, 'it hangs\n' + said)
            self.assertNotRegex(said, 'Traceback|Exception ignored|Warning:|internal error|Fatal')
            status, same = process.returncode, out.read() == self.DATA
        self.assertGreaterEqual(status, 0, said)
        if command == 'restore':
            self.assertTrue(same or status, 'status 0, but its data are not whole')
        elif command == 'restore into a program':
            there = os.path.exists(whole)
            self.assertTrue(there or status, 'status 0, but its data are not there')
            if there:
                with open(whole, 'rb') as file:
                    self.assertTrue(file.read() == self.DATA, 'what looks whole is not')
        elif command == 'clean':
            self.assertEqual(self.keys()[-2:], dumps[-2:], 'what stays is gone')
            self.assertTrue(status or self.keys() == dumps[-2:], 'status 0, but not all is gone')
        else:
            for found in objects.values():
                self.assertNotEqual(command, 'failing dump', 'it is stored all the same')
                self.assertTrue(found.data == self.DATA, 'what is stored is not whole')
            self.assertTrue(status or len(objects) == 1, 'status 0, but not one dump is stored')
            self.assertTrue(status or not self.parts_left(), 'status 0, but an upload is left')
        if not number:                      # else nothing of that would mean anything
            self.assertEqual(status, int(command == 'failing dump'), said)
        self.assertEqual(self.server.violations, [])
        with open(counts, 'rb') as file:
            text = file.read()
        if self.library:
            return dict(zip(self.CALLS, array.array('i', text)))
        # strace counts in each thread
        calls = collections.Counter(re.findall(r'(?m)^(\d+) +(\w+)\(', text.decode()))
        return {call: max([count for (_, name), count in calls.items()
                           if name == self.TRACED.get(call)] or [0]) for call in self.CALLS}

    def faults(self, sample=False):
        """All that can be, or a sample: (command, call, number, error), its errors in turn."""
        found = []
        for command, (_, *calls) in self.COMMANDS.items():
            counts = self.strike(command)
            for call in calls[sample].split():
                numbers = range(counts[call])
                if sample and counts[call]:
                    numbers = [zlib.crc32((command + call).encode()) % counts[call]]
                errors = self.CALLS[call]
                found += [(command, call, number + 1, errors[number % len(errors)])
                          for number in numbers]
        return found

    def test_a_call_that_fails_is_survived_or_named(self):
        struck = 0
        for fault in self.faults(sample=True):
            with self.subTest('%s: %s %d %s' % fault):
                struck += self.strike(*fault)[fault[1]] >= fault[2]
        self.assertGreater(struck, 0)


# --- The sources -------------------------------------------------------------

@unittest.skipUnless(shutil.which('make'), 'there is no make')
class InstallTests(ProgramTestCase):

    def make(self, target, *variables):
        subprocess.check_output(['make', '-s', '-B', '-C', self.folder, target,
                                 'PYTHON=' + sys.executable] + list(variables))

    def setUp(self):
        super().setUp()
        self.folder = tempfile.mkdtemp(dir=self.home)
        for name in ('Makefile', 's3.py', 's3dump.py'):
            shutil.copy(os.path.join(HERE, name), self.folder)

    def test_one_file_of_both_is_the_same_whenever_it_is_made(self):
        path, made = os.path.join(self.folder, 's3dump.pyz'), []
        for when in (10**9, 1.5 * 10**9):
            for name in ('s3.py', 's3dump.py'):
                os.utime(os.path.join(self.folder, name), (when, when))
            self.make('s3dump.pyz')
            with open(path, 'rb') as file:
                made.append(file.read())
        self.assertEqual(made[0], made[1])
        self.succeed('dump', '/home', '0', data=b'data', prefix=PYTHON + [path])
        self.assertEqual(self.succeed('restore', '/home', '0', prefix=PYTHON + [path]).out, b'data')

    def test_what_is_installed_runs_from_anywhere(self):
        self.make('install', 'DESTDIR=' + self.folder, 'PREFIX=/opt')
        link = os.path.join(self.folder, 'link')
        os.symlink(os.path.join(self.folder, 'opt', 'bin', 's3dump.py'), link)
        self.succeed('dump', '/home', '0', data=b'data', prefix=PYTHON + [link])
        self.assertTrue(os.access(link, os.X_OK))


class SourceTests(unittest.TestCase):

    def test_pydoc_shows_the_library_and_all_of_it_is_documented(self):
        text = pydoc.plain(pydoc.render_doc(s3))
        for name in ('class Bucket', 'upload(self, ', 'load_config(', 'class IntegrityError'):
            self.assertIn(name, text)
        for name in ('class Request', 'class Workers', 'PROXY', 'canonical_query', 'SelfTest'):
            self.assertNotIn(name, text)
        errors = {name for name, thing in vars(s3).items() if isinstance(thing, type)
                  and issubclass(thing, s3.Error)}
        self.assertEqual(errors - set(s3.__all__), set())
        for name in s3.__all__:
            thing = getattr(s3, name)
            self.assertTrue(thing.__doc__ and not re.match(name + r'\(', thing.__doc__), name)
            for method, function in vars(thing).items() if isinstance(thing, type) else ():
                if not method.startswith('_') and callable(getattr(thing, method)):
                    self.assertTrue(function.__doc__, (name, method))

    def test_the_program_uses_nothing_private_of_the_library(self):
        with open(PROGRAM, encoding='utf-8') as file:
            tree = ast.parse(file.read())
        self.assertEqual([(node.lineno, node.attr) for node in ast.walk(tree)
                          if isinstance(node, ast.Attribute) and re.match(
                              '_(?!_|replace|exit)', node.attr)
                          and getattr(node.value, 'id', '') != 'self'], [])

    files = {'s3.py': set(), 's3dump.py': {'s3'}, 'test_s3.py': {'s3'},
             'test_s3dump.py': {'s3dump', 'test_s3'},
             '.ci/demo.py': {'test_s3', 'test_s3dump'},
             '.ci/interop.py': {'demo', 'test_s3', 'test_s3dump'},
             '.ci/soak.py': {'test_s3'}, '.ci/faults.py': {'test_s3dump'},
             '.ci/bench.py': {'s3dump', 'test_s3', 'test_s3dump'}}

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


if __name__ == '__main__':
    unittest.main()
