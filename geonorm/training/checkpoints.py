"""Checkpoints of a run: written whole or not at all, and read with every checksum compared."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer

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
