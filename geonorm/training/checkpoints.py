"""Checkpoints of a run: written whole or not at all, and read with every checksum compared."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from geonorm.files import written_whole
from geonorm.models.checkpoints import read_checkpoint


class WholeCheckpoints(TorchCheckpointIO):
    """Keeps the checkpoint of a run whole, whenever the process or the machine stops.

    Lightning's own way moves a file from the folder of temporary files, which, where that lies on
    another disk, is a copy that can stop half way. Files are read with `weights_only=True`: code
    in them is never run.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        if storage_options is not None:
            raise TypeError(f"storage_options must be None for local files; got {storage_options}")
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        # What a process that was killed while it wrote has left; a run has one writer.
        for left in path.parent.glob(f".{path.stem}.*.part{path.suffix}"):
            left.unlink()
        with written_whole(path) as aside, aside.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())

    def load_checkpoint(self, path: str | Path, *_: Any, **__: Any) -> dict[str, Any]:
        return read_run_checkpoint(Path(path))


class LastCheckpoint(Callback):
    """Writes a checkpoint of the end of training, which the last validation may not have seen.

    It comes before callbacks that change the weights at that moment, such as averages: what is
    resumed from it goes on with the weights as they were.

    Args:
        path: what to write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.checkpoint_callback is not None:
            trainer.save_checkpoint(self.path, weights_only=False)


class StepCheckpoint(Checkpoint):
    """Writes the last checkpoint anew every so many steps of the optimizer.

    As a Checkpoint it comes after all other callbacks, such as averages of weights, which have then
    seen the step.

    Args:
        path: what to write.
        every: steps from one to the next.

    Raises:
        ValueError: fewer than one step.
    """

    def __init__(self, path: Path, every: int) -> None:
        if every < 1:
            raise ValueError(f"--save_every must be at least 1 step; got {every}")
        self.path, self.every = path, every

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # A batch whose gradient is only added to the next one's takes no step.
        self._seen = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self._seen:
            return
        self._seen = trainer.global_step
        if self._seen % self.every == 0:
            trainer.save_checkpoint(self.path, weights_only=False)


def read_run_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU; refuse one that is damaged, and tell which one to take instead.

    Args:
        path: a file within the folder of a run's checkpoints.

    Raises:
        ValueError: the file is missing, truncated, corrupted, or no checkpoint of Lightning.
    """
    try:
        return _read(path)
    except ValueError as error:
        raise ValueError(f"{error}. {_instead_of(path)}") from error


def _read(path: Path) -> dict[str, Any]:
    checkpoint = read_checkpoint(path)
    if not isinstance(checkpoint, dict) or not {"state_dict", "epoch"} <= checkpoint.keys():
        raise ValueError(f"{path} is no checkpoint of a run: it has no state_dict and epoch")
    return checkpoint


def _instead_of(path: Path) -> str:
    """Name the newest checkpoint beside a damaged one that is whole."""
    others = [file for file in path.parent.glob("[!.]*.ckpt") if file != path]
    for other in sorted(others, key=lambda file: file.stat().st_mtime, reverse=True):
        try:
            epoch = _read(other)["epoch"]
        except ValueError:
            continue
        return f"The newest whole one beside it: --ckpt_path {other} (epoch {epoch})"
    return f"There is no whole one beside it in {path.parent}"
