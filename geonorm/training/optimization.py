"""Optimizer and learning-rate schedule, the same options for every training tool."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import nn

from geonorm.training.progress import fraction_done

POLY_POWER = 0.9


class RunSchedule(torch.optim.lr_scheduler.LambdaLR):
    """LambdaLR that, restored, takes the rate of this run's schedule, not the last run's."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        rates = zip(self.optimizer.param_groups, self.base_lrs, self.lr_lambdas, strict=True)
        for group, base_rate, factor in rates:
            group["lr"] = base_rate * factor(self.last_epoch)


@dataclass(frozen=True)
class Optimization:
    """Settings of the optimizer and of its learning rate's schedule.

    Args:
        name: an optimizer of torch.optim, such as AdamW or SGD.
        lr: the highest learning rate.
        weight_decay: the optimizer's weight decay.
        options: further arguments of the optimizer, such as {momentum: 0.9, nesterov: true}.
        schedule: how the learning rate falls after the warm-up: a half cosine to 0, a polynomial
            of power 0.9 to 0, tenfold at each of the milestones, or not at all.
        warmup: part of the run, in [0, 1), during which the learning rate rises from 0 to lr.
        milestones: parts of the run after which schedule "step" divides the rate by ten.
    """

    name: str = "AdamW"
    lr: float = 2e-3
    weight_decay: float = 0.01
    options: dict[str, Any] = field(default_factory=dict)
    schedule: Literal["cosine", "poly", "step", "constant"] = "cosine"
    warmup: float = 0.05
    milestones: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup must be a part of the run in [0, 1); got {self.warmup}")
        if bool(self.milestones) != (self.schedule == "step"):
            raise ValueError(
                f"schedule 'step' needs milestones, and no other does; got {self.schedule!r} with "
                f"milestones {self.milestones}"
            )
        if not isinstance(getattr(torch.optim, self.name, None), type):
            known = ", ".join(sorted(n for n in torch.optim.__all__ if n[0].isupper()))
            raise ValueError(f"no optimizer {self.name!r} in torch.optim; choose one of {known}")

    def factor(self, done: float) -> float:
        """Return the learning rate as a part of `lr` when a part `done` of the run is over."""
        if done < self.warmup:
            return done / self.warmup
        left = max((1 - done) / (1 - self.warmup), 0.0)
        if self.schedule == "step":
            return 0.1 ** sum(done >= milestone for milestone in self.milestones)
        if self.schedule == "cosine":
            return (1 - math.cos(math.pi * left)) / 2
        return left**POLY_POWER if self.schedule == "poly" else 1.0

    def configure(
        self,
        module: LightningModule,
        rates: Iterable[tuple[float, Iterable[nn.Parameter]]] = (),
    ) -> OptimizerLRSchedulerConfig:
        """Return what LightningModule.configure_optimizers must return.

        The schedule depends on the part of the run that is over, worked out anew at every step
        from the trainer's own limits; a run resumed with other limits therefore goes on smoothly.

        Args:
            module: what is trained.
            rates: those of its parameters that learn at another rate, such as a backbone's, each
                group with its rate as a part of the others'.
        """
        apart = [(factor, list(parameters)) for factor, parameters in rates]
        named = {id(parameter) for _, parameters in apart for parameter in parameters}
        others = [p for p in module.parameters() if id(p) not in named]
        groups: list[dict[str, Any]] = [{"params": others}]
        groups += [{"params": each, "lr": self.lr * factor} for factor, each in apart if each]
        optimizer = getattr(torch.optim, self.name)(
            groups, lr=self.lr, weight_decay=self.weight_decay, **self.options
        )
        total_steps = module.trainer.estimated_stepping_batches
        # The middle of the step, so that none is wasted at zero.
        scheduler = RunSchedule(
            optimizer,
            lambda step: self.factor(fraction_done(module.trainer, step + 0.5, total_steps)),
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }
