#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Runs the program against other S3 servers, out of a virtual environment: `make interop`.

Beside that aws_files.py holds it against the AWS CLI.

    python3 .ci/interop.py VENV
"""

import calendar
import contextlib
import filecmp
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))

from demo import copy_library
from test_s3 import CERTIFICATE
from test_s3dump import (HERE, HOST, PART, PROGRAM, PYTHON, clean_environment, some_bytes,
                         until)


class Interop:
    """The program, the self-test and the AWS CLI against one server; counts what passed."""

    access_key, secret_key = 'INTEROPKEY', 'interop-secret-key'
    VOLUMES, FULL = 'part_size 5m\nmax_parts 3\n', 3 * PART     # and what fills one volume
    # Servers, and how they are reached.  All but moto check signatures.
    WAYS = (('moto', ''), ('rclone', ''), ('seaweedfs', ''), ('rclone', 'over TLS'),
            ('seaweedfs', 'through a proxy'), ('rclone', 'over TLS through a proxy'))
    VERSIONED = ('moto', 'seaweedfs')       # those that keep versions
    # Which server's bucket is copied to which other one, and back.
    COPIES = (('moto', 'rclone'), ('rclone', 'seaweedfs'), ('seaweedfs', 'moto'))

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
                '-volume.max=50', '-master.volumeSizeLimitMB=512',
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
        except (AssertionError, LookupError, OSError, ValueError,
                subprocess.SubprocessError) as error:
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
        output, self.warnings = '', done.stderr.decode('utf-8', 'replace')
        if target is None:
            with open(self.path('output'), 'rb') as file:
                output = file.read().decode('utf-8')
        if done.returncode:
            raise AssertionError('%s: exit status %d\n%s%s' % (
                ' '.join(map(os.path.basename, command[-5:])), done.returncode, output,
                self.warnings))
        return output

    def s3dump(self, config, *argv, **files):
        return self.run(PYTHON + [PROGRAM, '-f', self.path(config)] + list(argv), **files)

    def aws(self, *argv, **files):
        return self.run([self.tool('aws'), '--endpoint-url', self.url, 's3', 'cp', '--quiet']
                        + list(argv), **files)

    def keys(self):
        """The keys of all objects that the bucket lists."""
        return sorted(json.loads(self.run(PYTHON + ['-c', """if True:
            import json, sys
            sys.path.insert(0, sys.argv[1])
            import s3
            with s3.Bucket(s3.load_config(sys.argv[2])) as bucket:
                print(json.dumps([entry.key for entry in bucket.list_objects()]))
            """, HERE, self.path('default')])))

    def equal(self, one, other):
        if one != other:
            raise AssertionError('%r is not %r' % (one, other))

    def same(self, one, other):
        if not filecmp.cmp(self.path(one), self.path(other), shallow=False):
            raise AssertionError('%s and %s differ' % (one, other))

    def configure(self, name, more='', bucket='bucket'):
        """Write a configuration of that name."""
        with open(self.path(name), 'w') as file:
            file.write('endpoint %s\nregion us-east-1\nbucket_name %s\naccess_key_id %s\n'
                       'secret_access_key %s\n%s%s' % (self.url, bucket, self.access_key,
                                                       self.secret_key, self.settings, more))
        os.chmod(file.name, 0o600)

    def everything(self):
        """All checks, against the running server."""
        self.configure('default')
        self.configure('small', 'part_size 5m\n')
        self.configure('volumes', self.VOLUMES)
        self.check('init', self.s3dump, 'default', 'init')
        if self.server != 'moto':
            self.check('a wrong key is refused', self.wrong_key)
        self.check('self-test', self.self_test)
        for config, size, what in (('default', 0, 'no byte'), ('default', 1, 'a byte'),
                                   ('small', PART, 'one part'),
                                   ('small', PART + 1, 'one part and a byte'),
                                   ('default', 200 * 10**6, '200 MB')):
            self.check('round trip of ' + what, self.round_trip, config, size)
        for size, objects in ((self.FULL, 2), (40 * 10**6, 4)):
            self.check('round trip of %d bytes in volumes' % size, self.round_trip, 'volumes',
                       size, objects)
        self.check('clean deletes all volumes of what goes, and no others', self.clean_volumes)
        self.check("the AWS CLI's upload is restored", self.from_aws)
        self.check('the AWS CLI reads a dump', self.to_aws)
        self.check('tar -c, restore | tar -d', self.tar)
        self.check('prometheus_client reads what check --metrics writes', self.metrics)
        if self.server in self.VERSIONED:
            self.check('what a thief deleted and overwrote comes back', self.drill)
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
        """Write the file data.in, of that size."""
        block = some_bytes(1 << 20)
        with open(self.path('data.in'), 'wb') as file:
            for number in range(size // len(block)):
                file.write(b'%8d' % number + block[8:])
            file.write(block[:size % len(block)])

    def round_trip(self, config, size, objects=1):
        self.make(size)
        labels = ['/some where+else', '0']
        said = json.loads(self.s3dump(config, 'dump', '--json', *labels,
                                      source=self.path('data.in')))
        self.s3dump(config, 'restore', *labels, target=self.path('data.out'))
        self.same('data.in', 'data.out')
        self.s3dump(config, 'verify', *labels)
        listed = json.loads(self.s3dump(config, 'list', '--json'))
        self.equal((listed['key'], listed['size'], listed['objects']), (said['key'], size, objects))
        if size:
            self.equal(json.loads(self.s3dump(config, 'check', '--json', *labels))['ok'], True)
        self.s3dump(config, 'delete', *labels)
        self.equal(self.keys(), [])

    def clean_volumes(self):
        """Of two dumps the older one goes, with all its volumes."""
        self.make(40 * 10**6)
        for date in ('2026-01-05', '2026-01-06'):
            self.s3dump('volumes', 'dump', '/home', '0', '-w', date, source=self.path('data.in'))
        before = self.keys()
        self.equal(len(before), 8)
        self.s3dump('volumes', 'clean', '1')
        self.equal(self.keys(), [key for key in before if ':2026-01-06:' in key])
        self.s3dump('volumes', 'restore', '/home', '0', target=self.path('data.out'))
        self.same('data.in', 'data.out')
        self.s3dump('volumes', 'delete', '/home', '0', '-w', '2026-01-06')
        self.equal(self.keys(), [])

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

    # (FS, bytes), the last of which the thief overwrites.
    STOLEN = (('/home', 300), ('/', 40 * 10**6), ('/srv', 9 * 10**6), ('/etc', 500))

    def drill(self):
        """With a stolen key everything is deleted, and some of it overwritten before."""
        aws = [self.tool('aws'), '--endpoint-url', self.url]
        self.configure('kept', self.VOLUMES, bucket='kept')
        self.s3dump('kept', 'init')
        self.run(aws + ['s3api', 'put-bucket-versioning', '--bucket', 'kept',
                        '--versioning-configuration', 'Status=Enabled'])
        for fs, size in self.STOLEN:
            self.make(size)
            key = json.loads(self.s3dump('kept', 'dump', '--json', fs, '0',
                                         source=self.path('data.in')))['key']
        before = self.s3dump('kept', 'list')
        at = self.next_second()
        self.next_second()
        self.make(7)
        self.aws(self.path('data.in'), 's3://kept/' + key)
        self.run(aws + ['s3', 'rm', '--quiet', '--recursive', 's3://kept'])
        self.equal(self.s3dump('kept', 'list', '--json'), '')
        self.equal(len(self.s3dump('kept', 'list', '--deleted', '--json').splitlines()), 4)
        self.equal(self.s3dump('kept', 'list', '--at', at), before)
        try:
            self.s3dump('kept', 'undelete', '--at', at)
            raise AssertionError('what lies below the rubbish is not left alone')
        except AssertionError as error:
            if key + ' is left alone: something newer lies on it' not in str(error):
                raise
        for fs, size in self.STOLEN:
            self.make(size)
            more = ['--at', at] if fs == '/etc' else []
            self.s3dump('kept', 'restore', fs, '0', *more, target=self.path('data.out'))
            self.same('data.in', 'data.out')
        self.s3dump('kept', 'dump', '-k', key, source=self.path('data.out'))
        self.equal(self.s3dump('kept', 'list'), before)
        self.s3dump('kept', 'clean', '1')

    def next_second(self):
        """Wait until another second has begun, and its end; return that, as --at takes it."""
        now = int(time.time())
        until(lambda: time.time() > now + 2, 'time passes')
        return time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(now + 1))

    def metrics(self):
        """What check --metrics tells of these labels is what a reader of Prometheus finds."""
        # SeaweedFS takes a backslash in a key for a slash
        fs = '/some "where"%s {else}, \xe4\u20ac' % ('' if self.server == 'seaweedfs' else '\\')
        self.make(1000)
        said = json.loads(self.s3dump('default', 'dump', '--json', fs, '0',
                                      source=self.path('data.in')))
        self.s3dump('default', 'check', '--metrics', '--locked', '0s', fs, target=self.path('prom'))
        found = dict(json.loads(self.run([self.tool('python'), '-c', """if True:
            import json, sys
            from prometheus_client.parser import text_fd_to_metric_families
            print(json.dumps([(sample.name, (sample.labels, sample.value))
                              for family in text_fd_to_metric_families(open(0, encoding='utf-8'))
                              for sample in family.samples]))
            """], source=self.path('prom'))))
        labels = {'host': HOST, 'fs': fs, 'level': '0'}
        stored = found.pop('s3dump_stored_timestamp_seconds')
        self.equal((stored[0], abs(stored[1] - time.time()) < 300), (labels, True))
        self.equal(found, {'s3dump_' + name: [labels, value] for name, value in (
            ('ok', 1), ('size_bytes', 1000), ('objects', 1), ('whole', 1),
            ('locked_until_timestamp_seconds', 0))})
        self.s3dump('default', 'delete', '-k', said['key'])

    # Copies of the bucket.

    # (FS, LEVEL, time by the stamp, bytes): none is stored in the order of the stamps.
    OLD = (('/home', '0', '2026-01-05 22:10:03', 300), ('/home', '0', '2026-01-05 02:10:03', 200),
           ('/home', '0', '2025-12-29 02:10:03', 400), ('/home', '1', '2026-01-06 02:10:03', 500),
           ('/', '0', '2026-01-12 02:10:03', 32 * 10**6), ('/', '0', '2026-01-05 02:10:03', FULL),
           ('pg', '0', '2026-01-05 02:10:03', 9 * 10**6))
    NEWEST = (('/home', '0', OLD[0]), ('/home', '1', OLD[3]), ('/', '0', OLD[4]),
              ('pg', '0', OLD[6]), ('new', '0', None))

    def copies(self, other):
        """What is said of dumps stays what it was when *other* holds a copy of the bucket."""
        self.configure('default')
        self.configure('volumes', self.VOLUMES)
        self.check('dumps with old stamps are stored', self.store_old)
        before = {}
        self.check('they are as old as their stamps, and in that order', lambda: before.update(
            self.said_of_dumps('default', warnings=False)))
        for what, options in (('rclone copy -M', ['-M']), ('rclone copy', [])):
            name = 'copy' + '-m' * len(options)
            for one, bucket, target, copy in ((self, 'bucket', other, name),
                                              (other, name, self, name + '-back')):
                self.check('%s %s: the same is said of all' % (
                    what, 'and back' if target is self else 'to ' + other.name),
                    self.copy, [self.tool('rclone'), '--config', '', '--retries', '1', 'copy',
                                *options, 'A:' + bucket, 'B:' + copy],
                    dict(one.rclone_remote('A'), **target.rclone_remote('B')), target, copy,
                    before, not options)
        if self.server == 'moto':
            self.configure('synced', bucket='synced')
            self.check('a bucket to copy to', self.s3dump, 'synced', 'init')
            self.check('aws s3 sync: the same is said of all', self.copy, [
                self.tool('aws'), '--endpoint-url', self.url, 's3', 'sync', '--quiet',
                's3://bucket', 's3://synced'], {}, self, 'synced', before, True)
        self.check('dump by dump: the same is said of all', self.copy_each, before)

    def rclone_remote(self, name):
        """The environment variables by which rclone knows this server as *name*."""
        providers = {'moto': 'Other', 'rclone': 'Rclone', 'seaweedfs': 'SeaweedFS'}
        return {'RCLONE_CONFIG_%s_%s' % (name, key): value for key, value in (
            ('TYPE', 's3'), ('PROVIDER', providers[self.server]), ('ENDPOINT', self.url),
            ('REGION', 'us-east-1'), ('ACCESS_KEY_ID', self.access_key),
            ('SECRET_ACCESS_KEY', self.secret_key))}

    def store_old(self):
        self.s3dump('default', 'init')
        for fs, level, stored, size in self.OLD:
            self.make(size)
            key = '%s:%s:%s:%s:%s.512Z-%016d' % (
                HOST, fs, level, stored[:10], re.sub('[-:]', '', stored).replace(' ', 'T'), size)
            self.s3dump('volumes', 'dump', '-k', key, source=self.path('data.in'))
        self.make(100)
        self.s3dump('default', 'dump', 'new', '0', source=self.path('data.in'))

    def copy(self, command, environment, target, bucket, before, warnings):
        """Copy a bucket by a command; what is said of the copy must be what was said *before*."""
        if not before:
            raise AssertionError('there is nothing to compare with')
        self.environment.update(environment)
        self.run(command)
        target.configure(bucket, bucket=bucket)
        after = target.said_of_dumps(bucket, warnings)
        for what in before:
            if before[what] != after[what]:
                raise AssertionError('%s says\n%s\nand said\n%s' % (what, after[what],
                                                                    before[what]))

    def copy_each(self, before):
        """Copy each dump, and verify the copies, as README does."""
        with open(os.path.join(HERE, 'README')) as file:
            examples = file.read().partition('\nCOPIES\n')[2].partition('\nWHAT IS PROMISED\n')[0]
        loop = re.search(r'(?ms)^    s3dump.py list -a.*?^    done$', examples).group(0)
        pipe = re.search('(?m)^    s3dump.py .* -- s3dump.py .*', examples).group(0)
        verify = re.search('s3dump.py -qf .*', loop).group(0)
        os.makedirs(self.path('bin'))
        os.symlink(PROGRAM, self.path('bin/s3dump.py'))
        self.configure('copykeys', self.VOLUMES, bucket='second')
        self.s3dump('copykeys', 'init')
        environment = dict(self.environment)
        self.environment.update(S3DUMP_CONFIG=self.path('default'),
                                PATH='%s:%s' % (self.path('bin'), os.environ['PATH']))
        self.copy(['sh', '-ec', loop.replace(verify, pipe + ' </dev/null')], {}, self, 'second',
                  before, False)
        self.equal(self.run(['sh', '-ec', loop]), '')
        self.aws(self.path('data.in'), 's3://second/' + json.loads(
            self.s3dump('default', 'list', '--json').splitlines()[0])['key'])
        self.equal(self.run(['sh', '-ec', loop]).count('BAD '), 1)
        self.environment = environment

    def said_of_dumps(self, config, warnings):
        """What all commands say of the dumps of OLD: {command: output}; only warnings beside it,
        if any."""
        said = {}

        def tell(*argv, **files):
            quiet = ['-q'] * (argv[0] != 'check')       # which would say nothing of good dumps
            said[' '.join(argv)] = output = self.s3dump(config, *quiet, *argv, **files)
            for line in self.warnings.splitlines():
                if not warnings or 'warning: ' not in line:
                    raise AssertionError('%s says %s' % (' '.join(argv), line))
            return output

        tell('list')
        tell('list', '--json')
        tell('clean', '-n', '1')
        for fs, level, newest in self.NEWEST:
            self.make(newest[3] if newest else 100)
            tell('restore', fs, level, target=self.path('data.out'))
            self.same('data.in', 'data.out')
            tell('verify', '--json', fs, level)
            found = json.loads(tell('check', '--json', '--max-age', '9999d', '--min-ratio', '0',
                                    fs, level))
            age = found.pop('age_seconds')
            stored = newest and calendar.timegm(time.strptime(newest[2], '%Y-%m-%d %H:%M:%S'))
            if not 0 <= age - (time.time() - stored if stored else 0) + 300 <= 600:
                raise AssertionError('%s level %s is said to be %d s old' % (fs, level, age))
            said['check %s %s' % (fs, level)] = found
            del said['check --json --max-age 9999d --min-ratio 0 %s %s' % (fs, level)]
        return said


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
    for ways in [[way] for way in Interop.WAYS] + [
            [(one, ''), (other, '')] for one, other in Interop.COPIES]:
        servers = [Interop(os.path.abspath(venv), tempfile.mkdtemp(), *way) for way in ways]
        tests = servers[0]
        try:
            for server in servers:
                server.serve()
            if len(servers) == 1:
                tests.everything()
            else:
                tests.copies(servers[1])
        except (AssertionError, OSError) as error:
            tests.failed += 1
            print('FAIL %s: %s' % (tests.name, error), flush=True)
        finally:
            for server in servers:
                for process in server.processes:
                    end_process(process)
                if tests.failed and os.path.exists(server.path('server.log')):
                    with open(server.path('server.log'), errors='replace') as file:
                        print('The end of the log of %s:\n%s' % (server.name, file.read()[-2000:]))
                shutil.rmtree(server.folder)
        passed, failed = passed + tests.passed, failed + tests.failed
    print('%d passed, %d failed' % (passed, failed))
    return 1 if failed else 0


def aws_files(venv):
    """Hold the program against the AWS CLI that is installed in *venv*; return the process."""
    return subprocess.Popen([os.path.join(venv, 'bin', 'python'),
                             os.path.join(HERE, '.ci', 'aws_files.py')])


if __name__ == '__main__':
    with aws_files(sys.argv[1]) as beside:      # waited for, however the servers' part ends
        status = interop(sys.argv[1])
    sys.exit(1 if beside.returncode or status else 0)
