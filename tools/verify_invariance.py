#!/usr/bin/env python
"""Check that instance norm is invariant where it claims to be, and that others are not.

  python tools/verify_invariance.py                     on built-in scans and videos
  python tools/verify_invariance.py --data scan.bin     on a SemanticKITTI scan of your own
  python tools/verify_invariance.py --video film.mp4    on a video of your own
  python tools/verify_invariance.py --norm batch        batch norm in our place: must fail
  python tools/verify_invariance.py --device cuda       on a GPU

`geonorm verify` does the same.
"""

import sys

from geonorm.commands.verify import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
