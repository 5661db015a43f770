"""The order of training samples, a function of (seed, epoch) and of nothing else."""

from collections.abc import Iterator, Sized
from typing import Any

import numpy as np
from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import DataLoader, Sampler


class EpochSampler(Sampler[int]):
    """Indices of a dataset for one process among several, without padding.

    Shuffled, every process gets equally many, so that all take the same number of steps; what is
    left over (fewer than there are processes) differs from epoch to epoch. In order, the
    processes share out all indices, and some may get one more.

    Args:
        dataset: what the indices are of; its `set_epoch`, if any, is called when training.
        shuffle: whether this is for training.
        seed: seed of the order.
        rank, world_size: number of this process and of all.
        repeats: shuffled, so many neighbours among the indices are one sample's and stay together:
            among the first `block` · `repeats` indices are all of `block` samples, each of them
            once before any comes again, and so on.
        block: samples between a sample and its repetition.
    """

    def __init__(
        self,
        dataset: Sized,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        repeats: int = 1,
        block: int = 1,
    ) -> None:
        self.repeats, self.block = repeats, block
        self.dataset, self.shuffle, self.seed = dataset, shuffle, seed
        self.rank, self.world_size = rank, world_size
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch (Lightning calls this before each)."""
        self.epoch = epoch
        if self.shuffle and hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)

    def _indices(self) -> range | list[int]:
        total = len(self.dataset)
        if not self.shuffle:
            return range(self.rank, total, self.world_size)
        rng = np.random.default_rng([self.seed, self.epoch])
        samples = total // self.repeats
        shuffled: list[int] = rng.permutation(samples).tolist()
        order = shuffled[self.rank : samples - samples % self.world_size : self.world_size]
        return [
            sample * self.repeats + repetition
            for first in range(0, len(order), self.block)
            for repetition in range(self.repeats)
            for sample in order[first : first + self.block]
        ]

    def __iter__(self) -> Iterator[int]:
        return iter(self._indices())

    def __len__(self) -> int:
        return len(self._indices())


class EpochLoader(DataLoader[Any]):
    """DataLoader whose workers fetch nothing before the first batch of an epoch is asked for.

    Lightning makes the iterator of a resumed run before it restores the epoch: workers would fetch
    batches in the order, and of the augmentation, of epoch 0.
    """

    def __iter__(self) -> Any:  # an iterator, where torch names its own class of them
        yield from super().__iter__()


def trainer_of(data: LightningDataModule) -> Trainer:
    """Return the trainer that a data module loads for.

    Raises:
        ValueError: no trainer has it yet, so how many processes share the data is not known.
    """
    if data.trainer is None:
        raise ValueError(
            "expected a trainer, which tells how many processes share the data; this "
            f"{type(data).__name__} has none. Give it to one: trainer.fit(module, datamodule=data)"
        )
    return data.trainer
