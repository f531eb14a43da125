#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Lets each system call of some commands fail, once, by faults.c: `make faults`."""

import collections
import contextlib
import os
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))

from test_s3dump import SystemCallTests


def faults():
    """Let each call fail, four at a time, for they wait a lot; returns an exit status."""
    todo, results = collections.deque(), []

    def work(tests):
        while todo:
            fault = todo.popleft()
            try:
                tests.strike(*fault)
                results.append(True)
            except AssertionError as error:
                results.append(False)
                print('FAIL %s: %s %d %s: %s' % (
                    *fault, ' | '.join(str(error).splitlines())), flush=True)
            tests.doCleanups()

    with contextlib.ExitStack() as stack:
        all_tests = []
        for name in 'abcd':
            kind = type(name, (SystemCallTests,), {})       # each has a server of its own
            kind.setUpClass()
            stack.callback(kind.tearDownClass)
            all_tests.append(kind('strike'))
            all_tests[-1].setUp()
        todo.extend(all_tests[0].faults())
        threads = [threading.Thread(target=work, args=(tests,)) for tests in all_tests]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    print('%d passed, %d failed' % (results.count(True), results.count(False)))
    return 0 if all(results) else 1


if __name__ == '__main__':
    sys.exit(faults())
