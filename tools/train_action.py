#!/usr/bin/env python
"""Train and test 3D-ResNets with instance norm over time and space; as `geonorm train-action`.

  python tools/train_action.py                       train on built-in videos, some minutes
  python tools/train_action.py fit --config ucf101 --data.root FOLDER
  python tools/train_action.py test --ckpt_path runs/train_action/001/checkpoints/best.ckpt
  python tools/train_action.py check-data --config ucf101
  python tools/train_action.py --help
"""

import sys
from collections.abc import Sequence

from geonorm import SpatioTemporalInstanceNorm
from geonorm.commands import train_action


def main(arguments: Sequence[str]) -> None:
    """Run the command line with the norm that `--model.norm instance` stands for."""
    train_action.main(arguments, norm=SpatioTemporalInstanceNorm)


if __name__ == "__main__":
    main(sys.argv[1:])
