"""Short trainings and tests of train-seg with a named configuration, in this process."""

import warnings
from contextlib import chdir
from pathlib import Path

from geonorm.training.cli import CONFIGS, TrainingCLI
from geonorm.training.segmentation.data import ScanData
from geonorm.training.segmentation.module import SegmentationModule

SMALL = [
    "--model.name=MinkUNetSlim", "--data.batch_size=2", "--data.num_workers=0",
    "--trainer.max_epochs=1", "--trainer.check_val_every_n_epoch=1", "--trainer.accelerator=cpu",
    "--trainer.logger=false", "--trainer.enable_progress_bar=false",
    "--num_pictures=0",  # Open3D takes longer to start than such a run
]  # fmt: skip

# Of the built-in streets, a few seconds.
STREETS = [
    "--data.train.init_args.num_scans=4", "--data.val.init_args.num_scans=2",
    "--data.voxel_size=0.8",
]  # fmt: skip


def run_config(config, root, run_dir, *words, subcommand="fit"):
    """Run a subcommand with a configuration of this package on the data in `root`, if it has any.

    The command line is returned when it is through. Paths are absolute: the run takes place in
    `run_dir`.
    """
    arguments = [
        subcommand, "--config", str(CONFIGS / f"{config}.yaml"), f"--run_dir={run_dir}", *SMALL,
        *([] if root is None else [f"--data.root={root}"]), *words,
    ]  # fmt: skip
    Path(run_dir).mkdir(parents=True, exist_ok=True)
    # Without a logger Lightning writes config.yaml into the current folder. It also warns of few
    # workers and other matters of its own.
    with chdir(run_dir), warnings.catch_warnings():
        warnings.simplefilter("default")
        return TrainingCLI(
            SegmentationModule, ScanData, CONFIGS / "streets.yaml", arguments, name="train_seg"
        )
