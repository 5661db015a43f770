#!/usr/bin/env python
"""Measure how far scores fall when data are corrupted, as the command of that name does.

  python tools/evaluate_shift.py runs/train_seg/001/checkpoints/best.ckpt
  python tools/evaluate_shift.py --summarize scores.csv --baseline base.csv
"""

import sys

from geonorm.commands.evaluate_shift import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
