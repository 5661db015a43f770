"""Short trainings within a study, by Lightning."""

import logging
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import IterableDataset

_Net = TypeVar("_Net", bound=nn.Module)


class _Batches(IterableDataset[Any]):
    """The batches that a function draws, one after another."""

    def __init__(self, draw: Callable[[], Any]) -> None:
        self.draw = draw

    def __iter__(self) -> Any:
        while True:
            yield self.draw()


class _Fit(LightningModule):
    """A network, its loss and its optimizer."""

    def __init__(
        self, model: nn.Module, loss: Callable[[nn.Module, Any], Tensor], rate: float, steps: int
    ) -> None:
        super().__init__()
        self.model, self.loss, self.rate, self.steps = model, loss, rate, steps

    def training_step(self, batch: Any, number: int) -> Tensor:
        return self.loss(self.model, batch)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.model.parameters(), self.rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.rate, self.steps)
        return {"optimizer": optimizer,
                "lr_scheduler": {"scheduler": schedule, "interval": "step"}}  # fmt: skip


def short_trainer(steps: int, **options: Any) -> Trainer:
    """Return a trainer on the CPU that takes some steps, keeps nothing and says nothing.

    Args:
        steps: how many.
        options: further ones, of `Trainer`.
    """
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    return Trainer(
        max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, **options,
    )  # fmt: skip


def fit(
    model: _Net,
    draw: Callable[[], Any],
    loss: Callable[[nn.Module, Any], Tensor],
    *,
    steps: int,
    rate: float = 3e-3,
) -> _Net:
    """Train a network for some steps of AdamW on the one-cycle schedule; return it in eval mode.

    Args:
        model: the network.
        draw: returns the next batch.
        loss: of the network on a batch.
        steps: how many.
        rate: the highest learning rate.
    """
    loader: Iterable[Any] = torch.utils.data.DataLoader(_Batches(draw), batch_size=None)
    short_trainer(steps).fit(_Fit(model, loss, rate, steps).train(), loader)
    return model.eval()


def cross_entropy(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Return the mean cross entropy of a network's scores on a batch."""
    return nn.functional.cross_entropy(model(batch[0]), batch[1])
