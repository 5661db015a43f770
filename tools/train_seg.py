#!/usr/bin/env python
"""Train, test and use MinkUNet for the segmentation of LiDAR scans.

  python tools/train_seg.py                          train on built-in streets, some minutes
  python tools/train_seg.py fit --config semantickitti --data.root FOLDER
  python tools/train_seg.py test --ckpt_path runs/train_seg/001/checkpoints/best.ckpt
  python tools/train_seg.py predict --ckpt_path FILE.ckpt --data.files a.bin b.ply c.pcd d.npy

Subcommands: fit (the default), validate, test, predict. Every option of one, for example of the
model, the data or the trainer:

  python tools/train_seg.py fit --help

Often used: --model.name MinkUNet34C  --model.norm batch  --model.optim.lr 0.01
            --data.voxel_size 0.05  --data.batch_size 8  --data.num_workers 4
            --trainer.max_epochs 50  --trainer.max_time 00:01:00:00  --trainer.precision bf16-mixed
            --trainer.devices 2  --run_dir FOLDER  --ckpt_path last.ckpt (fit: resume)

predict reads x, y, z in metres, x ahead and z up, and an intensity in [0, 1] (other sensors:
--data.intensity_max 255), and writes to FOLDER/predictions: --output.format label (SemanticKITTI's
ids) or npy (numbers of classes), --output.pictures true, --output.ply false (coloured points).
"""

import sys

from geonorm.training.threads import share_cores


def main(args: list[str]) -> None:
    """Run the command line."""
    if args and set(args) <= {"-h", "--help"}:
        print(__doc__)
        return
    share_cores()
    # Imported here so that the help above appears at once.
    from geonorm.training.cli import CONFIGS, TrainingCLI
    from geonorm.training.segmentation.data import ScanData
    from geonorm.training.segmentation.module import SegmentationModule

    default_config = CONFIGS / "streets.yaml"
    TrainingCLI(SegmentationModule, ScanData, default_config, args)


if __name__ == "__main__":
    main(sys.argv[1:])
