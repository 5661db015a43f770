"""How much of a run is over, and the progress bar that shows it."""

import time
from datetime import timedelta
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Timer, TQDMProgressBar


def fraction_done(trainer: Trainer, step: float, total_steps: float) -> float:
    """Return the part of the run that is over, by its nearest limit: steps, epochs or time.

    Args:
        trainer: the trainer; its `max_time`, where set, counts as a limit.
        step: optimizer steps taken.
        total_steps: steps of the whole run, infinite where only time limits it.
    """
    done = step / total_steps
    for callback in trainer.callbacks:
        if isinstance(callback, Timer) and (left := callback.time_remaining()) is not None:
            elapsed = callback.time_elapsed()
            done = max(done, elapsed / max(elapsed + left, 1e-9))
    return min(done, 1.0)


class RunProgressBar(TQDMProgressBar):
    """Lightning's bar per epoch, with the time that the whole run still needs."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._start = time.monotonic()
        self._first_step = trainer.global_step
        self._total_steps = trainer.estimated_stepping_batches

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        if trainer.training and trainer.global_step > self._first_step:
            before = self._first_step / self._total_steps
            done = fraction_done(trainer, trainer.global_step, self._total_steps)
            seconds = (time.monotonic() - self._start) * (1 - done) / max(done - before, 1e-9)
            metrics["left"] = str(timedelta(seconds=round(seconds)))
        return metrics
