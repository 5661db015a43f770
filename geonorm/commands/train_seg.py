"""Train and test MinkUNet for the segmentation of LiDAR scans.

  geonorm train-seg                                  train on built-in streets, some minutes
  geonorm train-seg fit --config semantickitti --data.root FOLDER
  geonorm train-seg test --ckpt_path runs/train_seg/001/checkpoints/best.ckpt
  geonorm train-seg write-shards --config synlidar --data.root FOLDER --shards shards/synlidar

Subcommands: fit (the default), validate, test, write-shards (the data in few large files),
add-folds RUN ... (the scores of several runs' counts together, as for S3DIS' six areas). Every
option of one, for example of the model, the data or the trainer:

  geonorm train-seg fit --help

Often used: --model.name MinkUNet34C  --model.norm batch  --model.optim.lr 0.01
            --model.loss cross_entropy+lovasz  --model.class_weights inverse_log
            --data.voxel_size 0.05  --data.batch_size 8  --data.num_workers 4
            --trainer.max_epochs 50  --trainer.max_time 00:01:00:00  --trainer.precision bf16-mixed
            --trainer.devices 2  --run_dir FOLDER  --ckpt_path last.ckpt (fit: resume)
            --save_every 500 (steps, within an epoch too)
Large scans: --data.chunk 6   Test-time voting: test --data.votes 8
Average of the weights: --trainer.callbacks+=EMAWeightAveraging --trainer.callbacks.decay 0.999
Large batches: --trainer.accumulate_grad_batches 8
In a configuration: data.augment (RandomRotation, Mix3D, LaserMix, PolarMix, ChunkCrop, ...) and
data.train JoinedScans, several data sets in one training (docs/training_scans.md)

The classes of your own scans: geonorm predict runs/train_seg/001/checkpoints/best.ckpt a.bin b.ply
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import nn

from geonorm import SparseInstanceNorm
from geonorm.training.noise import silence
from geonorm.training.threads import share_cores


def main(
    arguments: Sequence[str], norm: Callable[[int], nn.Module] = SparseInstanceNorm
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
    from geonorm.training.cli import CONFIGS, TrainingCLI
    from geonorm.training.segmentation.data import ScanData
    from geonorm.training.segmentation.folds import add_folds
    from geonorm.training.segmentation.module import SegmentationModule
    from geonorm.training.write_shards import ShardCLI

    class Module(SegmentationModule):
        instance_norm = staticmethod(norm)

    config = CONFIGS / "streets.yaml"
    if arguments and arguments[0] == "add-folds":
        print(add_folds([Path(run) for run in arguments[1:]]))
    elif arguments and arguments[0] == "write-shards":
        ShardCLI(Module, ScanData, config, ["validate", *arguments[1:]], name="train_seg")
    else:
        TrainingCLI(Module, ScanData, config, arguments, name="train_seg")
