"""How fast a training goes, in its log: points or clips a second, and the wait for data."""

import time
from typing import Any

import torch
from lightning.pytorch import Callback


class Throughput(Callback):
    """Logs what all processes together train on in a second, and their share of time without data.

    Both are means since the last line of the log. Validation counts for nothing. The data module
    names what is counted, `unit`, and counts it in a batch, `count`; its training loader is an
    EpochLoader, which measures how long it keeps training waiting.
    """

    def __init__(self) -> None:
        self._count, self._since = 0, 0.0

    def _begin(self, trainer: Any) -> None:
        self._count, self._since = 0, time.monotonic()
        self._waited = trainer.train_dataloader.waited

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._begin(trainer)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self._paused = time.monotonic()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self._since += time.monotonic() - self._paused

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch, and log where Lightning logs its own."""
        self._count += trainer.datamodule.count(batch)
        if not trainer._logger_connector.should_update_logs:
            return
        seconds = time.monotonic() - self._since
        waited = trainer.train_dataloader.waited - self._waited
        sums = torch.tensor([self._count, seconds, waited], device=trainer.strategy.root_device)
        count, seconds, waited = trainer.strategy.reduce(sums, reduce_op="sum").tolist()
        found = {
            f"throughput/{trainer.datamodule.unit}_per_s": count * trainer.world_size / seconds,
            "throughput/waiting_for_data": waited / seconds,
        }
        for logger in trainer.loggers:
            logger.log_metrics(found, step=trainer.fit_loop.epoch_loop._batches_that_stepped)
        self._begin(trainer)
