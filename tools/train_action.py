#!/usr/bin/env python
"""Train, test and use 3D-ResNets for the classification of actions in videos.

  python tools/train_action.py                       train on built-in videos, some minutes
  python tools/train_action.py fit --config ucf101 --data.root FOLDER
  python tools/train_action.py test --ckpt_path runs/train_action/001/checkpoints/best.ckpt
  python tools/train_action.py predict --ckpt_path FILE.ckpt --data.files [a.mp4,b.avi]
  python tools/train_action.py check-data --config ucf101

Subcommands: fit (the default), validate (one clip of each video), test (the mean over several
clips of each), predict (any video file), check-data (decode everything, list what is wrong).
Every option of one, for example of the model, the data or the trainer:

  python tools/train_action.py fit --help

Often used: --model.name r3d_18  --model.norm batch  --model.optim.lr 0.01
            --data.clip.length 16  --data.clip.crop 112  --data.batch_size 8  --data.num_workers 4
            --trainer.max_epochs 50  --trainer.max_time 00:01:00:00  --trainer.precision bf16-mixed
            --trainer.devices 2  --run_dir FOLDER  --ckpt_path last.ckpt (fit: resume)
On a GPU: --trainer.accelerator gpu  --model.compile reduce-overhead (CUDA graphs)
Fine-tuning: --model.weights KINETICS400_V1 (or a file)  --model.backbone_lr_factor 0.1
Is it the motion? test --data.still only: every clip is one frame repeated.
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
    from geonorm.training.action.check import CheckCLI
    from geonorm.training.action.data import ClipData
    from geonorm.training.action.module import ActionModule
    from geonorm.training.cli import CONFIGS, TrainingCLI

    default_config = CONFIGS / "actions.yaml"
    if args and args[0] == "check-data":
        CheckCLI(ActionModule, ClipData, default_config, ["validate", *args[1:]])
    else:
        TrainingCLI(ActionModule, ClipData, default_config, args)


if __name__ == "__main__":
    main(sys.argv[1:])
