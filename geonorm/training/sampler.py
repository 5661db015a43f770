"""The order of training samples, a function of (seed, epoch) and of nothing else."""

import time
from collections.abc import Iterator, Mapping, Sized
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
        self.first = 0  # where this process begins in its share of the epoch
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
        return iter(self._indices()[self.first :])

    def __len__(self) -> int:
        return len(self._indices())


class EpochLoader(DataLoader[Any]):
    """DataLoader that goes on within an epoch, and measures how long it is waited for.

    Its state is how many batches of the epoch were given. Restored, it begins with the next one
    and reads none of those before. Workers fetch nothing before the first batch
    of an epoch is asked for: Lightning makes the iterator of a resumed run before it restores the
    epoch, and they would fetch in the order, and of the augmentation, of epoch 0.

    Its sampler is an EpochSampler.

    Attributes:
        waited: seconds for which batches have been waited for, all together.
    """

    waited = 0.0
    _given = 0
    _restored: dict[str, int] | None = None

    def _shares(self) -> dict[str, int]:
        """Return what an epoch's batches depend on beside the epoch."""
        sampler: Any = self.sampler
        return {
            "seed": sampler.seed, "batch_size": self.batch_size or 1,
            "processes": sampler.world_size, "samples": len(sampler.dataset),
        }  # fmt: skip

    def state_dict(self) -> dict[str, int]:
        """Return where in an epoch this is."""
        sampler: Any = self.sampler
        place = {"epoch": sampler.epoch, "batches": self._given, "length": len(self)}
        return place | self._shares()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin, in the epoch of the state, where the state was taken.

        Raises:
            ValueError: that was within an epoch, and it would now be divided in another way.
        """
        shares = self._shares()
        then = {name: state[name] for name in shares}
        if 0 < state["batches"] < state["length"] and then != shares:
            raise ValueError(
                f"the checkpoint is from within an epoch, divided by {then}; got {shares}. Go on "
                "as before, or from a checkpoint of an epoch's end"
            )
        self._restored = state

    def __iter__(self) -> Any:  # an iterator, where torch names its own class of them
        sampler: Any = self.sampler
        restored, self._restored = self._restored, None
        again = restored is not None and restored["epoch"] == sampler.epoch
        self._given = restored["batches"] if restored is not None and again else 0
        sampler.first = self._given * (self.batch_size or 1)
        batches = super().__iter__()
        while True:
            asked = time.monotonic()
            batch = next(batches, None)
            self.waited += time.monotonic() - asked
            if batch is None:
                return
            self._given += 1
            yield batch


def without_position(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint tells of a data module but for where in an epoch it was."""
    return {name: value for name, value in told.items() if name != "position"}


class EpochData(LightningDataModule):
    """Data module whose training, resumed, goes on within an epoch: its checkpoints tell where."""

    _position: dict[str, int] | None = None

    def setup(self, stage: str) -> None:
        """Forget where another run was."""
        self._position = None

    def state_dict(self) -> dict[str, Any]:
        """Return where in an epoch the training loader is."""
        loader = None if self.trainer is None else self.trainer.train_dataloader
        return {} if loader is None else {"position": loader.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over where in an epoch the training loader is to begin."""
        self._position = state_dict.get("position")

    def placed(self, loader: "EpochLoader") -> "EpochLoader":
        """Return a training loader that begins where the checkpoint says, if there is one."""
        if self._position is not None:
            loader.load_state_dict(self._position)
        return loader


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
