#!/usr/bin/env python
"""Measure what instance norm is said to do; `geonorm study NAME` does the same.

  python tools/study.py list             the studies and their claims
  python tools/study.py affine           one of them
  python tools/study.py all --quick      what can be judged in seconds
"""

import sys

from geonorm.commands.study import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
