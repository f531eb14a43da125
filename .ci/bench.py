#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Shows what dumps, restores and a listing cost: `make bench`.

    python3 .ci/bench.py GIB KEYS ROWS RUNS
"""

import collections
import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))

import s3dump
from test_s3 import CERTIFICATE, S3Server, SigningClient, base64_crc32
from test_s3dump import DAY, PROGRAM, clean_environment

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

    def __init__(self, folder, size, keys, rows, runs):
        self.folder, self.size, self.keys, self.runs = folder, size, keys, runs
        self.rows = self.ROWS[:rows]
        self.certificate = os.path.join(folder, 'certificate')
        self.config = os.path.join(folder, 'config')
        with open(self.certificate, 'w') as file:
            file.write(CERTIFICATE)

    def run(self):
        """Print a line of medians for each row; of more than 4 GiB what shows how costs grow."""
        print('%-22s%15s%14s%9s%9s%10s\n%-22s%15s%14s%9s%9s%10s' % (
            '%.4g GiB' % (self.size / 2**30), 'MB/s', 'CPU s/GiB', 'ratio', 'peak', 'requests',
            '', '(floor)', '(floor)', 'of CPU', 'MiB', '/GiB'), flush=True)
        large = self.size > 4 << 30
        for direction, secure, check, settings in self.rows:
            if large and (secure or check == 'md5'):
                continue
            with self.server(secure, discard=check != 'md5') as server:     # whose ETags are others
                self.configure(server, settings)
                if direction == 'restore':
                    self.transfer('dump', self.size)
                ours, floors, feed = [], [], self.size * (direction == 'dump')
                for _ in range(self.runs):
                    server.requests()
                    ours.append(self.transfer(direction, feed))
                    requests = server.requests()
                    if not large:
                        floors.append(self.floor(direction, check, server.port, secure, feed))
                self.show('%s %s %s' % (direction, 'https' if secure else 'http', check),
                          median(ours), floors and median(floors), requests)
        if self.keys:
            with self.server(False, keys=self.keys) as server:
                self.configure(server, {})
                cost = median([self.measure([PROGRAM, '-f', self.config, 'list', '-a'])
                               for _ in range(self.runs)])
                print('list of %d objects: %.2f s, %.2f s of CPU, %.0f MiB, %d requests' % (
                    self.keys, cost.seconds, cost.cpu, cost.peak,
                    server.requests() / self.runs))

    def transfer(self, direction, feed):
        return self.measure([PROGRAM, '-q', '-f', self.config, direction, 'bench', '0'], feed)

    def floor(self, direction, check, port, secure, feed):
        """The Cost of the shortest loop, but its start, which takes in all these tests."""
        costs = [self.measure([os.path.abspath(__file__), '--floor', direction, check, str(port),
                               self.certificate if secure else '', str(size)], feed and size)
                 for size in (self.size, 0)]
        return costs[0]._replace(seconds=costs[0].seconds - costs[1].seconds,
                                 cpu=costs[0].cpu - costs[1].cpu)

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
        try:
            while feed:
                feed -= os.write(process.stdin.fileno(), zeros[:feed])
        except BrokenPipeError:     # it says why it has ended
            pass
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


def median(costs):
    """The Cost of the medians."""
    return Cost(*(sorted(values)[len(costs) // 2] for values in zip(*costs)))


def floor(direction, check, port, certfile, size):
    """The shortest loop that dumps or restores: one thread, one buffer, no retries."""
    server = S3Server(port=int(port), certfile=certfile or None)
    client, view = SigningClient(server), memoryview(bytearray(16 << 20))
    stream = open(0, 'rb', buffering=0)
    for descriptor in (0, 1):
        s3dump.wide_pipe(descriptor)
    while direction == 'dump':
        count = got = stream.readinto(view)
        while got:
            got = stream.readinto(view[count:])
            count += got
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


def bench(gib, *numbers):
    """Show what dumps and restores of so many GiB, and a listing, take on this machine."""
    if not re.match(r'[0-9]*\.?[0-9]+( [0-9]+){2} 0*[1-9][0-9]*\Z', ' '.join([gib, *numbers])) or (
            float(gib) * 2**30 < 1):
        return 'GIB is more than 0, KEYS and ROWS are whole numbers, and RUNS is at least 1'
    folder = tempfile.mkdtemp()
    try:
        Bench(folder, int(float(gib) * 2**30), *map(int, numbers)).run()
    except AssertionError as error:
        return str(error)
    finally:
        shutil.rmtree(folder)


if __name__ == '__main__':
    if sys.argv[1:2] == ['--floor']:
        sys.exit(floor(*sys.argv[2:]))
    sys.exit(bench(*sys.argv[1:]))
