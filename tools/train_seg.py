#!/usr/bin/env python
"""Train and test MinkUNet with sparse instance norm; `geonorm train-seg` does the same.

  python tools/train_seg.py                          train on built-in streets, some minutes
  python tools/train_seg.py fit --config semantickitti --data.root FOLDER
  python tools/train_seg.py test --ckpt_path runs/train_seg/001/checkpoints/best.ckpt
  python tools/train_seg.py --help
"""

import sys
from collections.abc import Sequence

from geonorm import SparseInstanceNorm
from geonorm.commands import train_seg


def main(arguments: Sequence[str]) -> None:
    """Run the command line with the norm that `--model.norm instance` stands for."""
    train_seg.main(arguments, norm=SparseInstanceNorm)


if __name__ == "__main__":
    main(sys.argv[1:])
