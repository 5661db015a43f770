"""Tell how much of a run is over, in a bar or in lines."""

import sys
import time
from datetime import timedelta
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, Timer, TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm


def fraction_done(trainer: Trainer, step: float, total_steps: float) -> float:
    """Return the part of the run that is over, by its nearest limit: steps, epochs or time.

    Args:
        trainer: the trainer; its `max_time`, where set, counts as a limit.
        step: optimizer steps taken.
        total_steps: steps of the whole run, infinite where only time limits it.
    """
    done = step / total_steps
    options: Any = trainer  # Lightning declares no `callbacks`
    for callback in options.callbacks:
        if isinstance(callback, Timer) and (left := callback.time_remaining()) is not None:
            elapsed = callback.time_elapsed()
            done = max(done, elapsed / max(elapsed + left, 1e-9))
    return min(done, 1.0)


class _RunProgress(ProgressBar):
    """Base of both ways to show progress: the time left, and the network in one line."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._start = time.monotonic()
        self._first_step = trainer.global_step
        self._total_steps = trainer.estimated_stepping_batches
        weights = sum(p.numel() for p in pl_module.parameters() if p.requires_grad)
        if trainer.is_global_zero:
            print(f"{pl_module.title}: {weights:,} weights to train", flush=True)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        if trainer.training and trainer.global_step > self._first_step:
            before = self._first_step / self._total_steps
            done = fraction_done(trainer, trainer.global_step, self._total_steps)
            seconds = (time.monotonic() - self._start) * (1 - done) / max(done - before, 1e-9)
            metrics["left"] = str(timedelta(seconds=round(seconds)))
        return metrics


class RunProgressBar(_RunProgress, TQDMProgressBar):
    """Lightning's bar per epoch, with the time that the whole run still needs."""

    def init_sanity_tqdm(self) -> Tqdm:
        """Return a bar that is not shown: the check before the first epoch takes a moment."""
        return Tqdm(disable=True)


class RunProgressLines(_RunProgress):
    """A line every so many seconds and one at the end, where the output is no terminal.

    Args:
        seconds: between two lines, at least.
    """

    def __init__(self, seconds: float = 20.0) -> None:
        super().__init__()
        self.seconds = seconds
        self._shown = True

    def enable(self) -> None:
        """Show lines."""
        self._shown = True

    def disable(self) -> None:
        """Show no lines, as in all processes of a run but the first."""
        self._shown = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._said = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if time.monotonic() - self._said >= self.seconds:
            self._say(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._say(trainer, pl_module)

    def _say(self, trainer: Trainer, module: LightningModule) -> None:
        self._said = time.monotonic()
        shown = (
            f"{name} {value:.3f}" if isinstance(value, float) else f"{name} {value}"
            for name, value in self.get_metrics(trainer, module).items()
        )
        step = f"epoch {trainer.current_epoch}, step {trainer.global_step}"
        if self._shown:
            print(": ".join([step, ", ".join(shown)]), flush=True)


def run_progress() -> _RunProgress:
    """Return a bar where the output is a terminal, and lines where it is not."""
    return RunProgressBar() if sys.stdout.isatty() else RunProgressLines()
