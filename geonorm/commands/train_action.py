"""Train and test 3D-ResNets for the classification of actions in videos.

  geonorm train-action                               train on built-in videos, some minutes
  geonorm train-action fit --config ucf101 --data.root FOLDER
  geonorm train-action test --ckpt_path runs/train_action/001/checkpoints/best.ckpt
  geonorm train-action check-data --config ucf101
  geonorm train-action write-shards --config ucf101 --shards shards/ucf101

Subcommands: fit (the default), validate (one clip of each video), test (the mean over several
clips of each), check-data (decode everything, list what is wrong), write-shards (the data in few
large files). Every option of one, for
example of the model, the data or the trainer:

  geonorm train-action fit --help

Often used: --model.name r3d_18  --model.norm batch  --model.optim.lr 0.01
            --data.clip.length 16  --data.clip.crop 112  --data.batch_size 8  --data.num_workers 4
            --trainer.max_epochs 50  --trainer.max_time 00:01:00:00  --trainer.precision bf16-mixed
            --trainer.devices 2  --run_dir FOLDER  --ckpt_path last.ckpt (fit: resume)
            --save_every 500 (steps, within an epoch too)
On a GPU: --trainer.accelerator gpu  --model.compile reduce-overhead (CUDA graphs)
Fine-tuning: --model.weights KINETICS400_V1 (or a file)  --model.backbone_lr_factor 0.1
Is it the motion? test --data.still only: every clip is one frame repeated.

The actions in your own videos: geonorm predict runs/train_action/001/checkpoints/best.ckpt a.mp4
"""

from collections.abc import Callable, Sequence

from torch import nn

from geonorm import SpatioTemporalInstanceNorm
from geonorm.training.noise import silence
from geonorm.training.threads import share_cores


def main(
    arguments: Sequence[str], norm: Callable[[int], nn.Module] = SpatioTemporalInstanceNorm
) -> None:
    """Run the command line.

    Args:
        arguments: what follows the program's name.
        norm: what `--model.norm instance` builds, given the number of channels.
    """
    if arguments and set(arguments) <= {"-h", "--help"}:
        print(__doc__)
        return
    share_cores()
    silence()
    # Imported here so that the help above appears at once.
    from geonorm.training.action.check import CheckCLI
    from geonorm.training.action.data import ClipData
    from geonorm.training.action.module import ActionModule
    from geonorm.training.cli import CONFIGS, TrainingCLI
    from geonorm.training.write_shards import ShardCLI

    class Module(ActionModule):
        instance_norm = staticmethod(norm)

    config = CONFIGS / "actions.yaml"
    if arguments and arguments[0] == "check-data":
        CheckCLI(Module, ClipData, config, ["validate", *arguments[1:]], name="train_action")
    elif arguments and arguments[0] == "write-shards":
        ShardCLI(Module, ClipData, config, ["validate", *arguments[1:]], name="train_action")
    else:
        TrainingCLI(Module, ClipData, config, arguments, name="train_action")
