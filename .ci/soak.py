#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Dumps and restores while everything goes wrong: `make soak`.

    python3 .ci/soak.py [COUNT [SEED]]
"""

import os
import random
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir))

from test_s3 import Soak


def soak(count, seed):
    """`python3 test_s3.py --soak [COUNT [SEED]]`: the same for longer."""
    print('%d dumps and restores, seed %d' % (count, seed))
    for name, number in sorted(Soak().rounds(count, seed).items()):
        print('%-16s %d' % (name, number))


if __name__ == '__main__':
    soak(int((sys.argv[1:] or [500])[0]), int((sys.argv[2:] or [random.randrange(10**9)])[0]))
