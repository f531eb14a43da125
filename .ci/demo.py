#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Shows the program at work, and checks that it is: `make demo`."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))

from test_s3 import S3Server
from test_s3dump import PATIENCE, PROGRAM, clean_environment


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
            print('An S3 server on this machine, %s,\nand a directory tree to save:\n' % server.url)
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


if __name__ == '__main__':
    sys.exit(demo())
