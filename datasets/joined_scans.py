"""Several data sets of scans in one training, each scan with the domain that it comes from."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from geonorm.datasets.label_map import in_words
from geonorm.datasets.scan import Scan, ScanDataset


class JoinedScans(Dataset[Scan]):
    """Several data sets of the same classes as one, each scan with its domain's id.

    With weights every epoch has each data set's share of scans, whatever its size: a data set goes
    through all its scans, in an order of their own, before it begins again, from epoch to epoch.
    Which scans these are is a function of (seed, epoch) alone. Without weights every scan comes
    once, in order, as is right for validation.

    Args:
        datasets: such as SemanticKITTI and NuScenes with a `label_map` each.
        domains: id of each data set's domain, from 0; by default 0, 1, 2, … in order. Networks with
            domain norms (`--model.norm domain-instance`) have parameters of their own for each.
        weights: share of each data set in an epoch, in any unit; equal numbers balance them.
        length: scans in an epoch with weights; by default as many as the data sets have.
        seed: of the order within each data set.
        root: must be None; each data set has its own.

    Raises:
        ValueError: no data set, other classes than the first one's, a list of another length, a
            domain below 0, a weight that is not positive, length without weights or so small
            that a data set gets none, a negative seed or epoch, a root.
        IndexError: an index outside [0, length).

    Example:
        >>> from geonorm.datasets import SyntheticStreets
        >>> roof, mast = SyntheticStreets(9), SyntheticStreets(3, sensor="mast64")
        >>> both = JoinedScans([roof, mast], weights=[1, 1])
        >>> len(both), both[0].domain, both[11].domain
        (12, 0, 1)
    """

    def __init__(
        self,
        datasets: list[ScanDataset],
        domains: list[int] | None = None,
        weights: list[float] | None = None,
        length: int | None = None,
        seed: int = 0,
        root: str | Path | None = None,
    ) -> None:
        if root is not None:
            raise ValueError(
                f"data sets that are joined need a folder each, and --data.root {root} is one: "
                "give each its own root in the configuration"
            )
        self.datasets: list[Any] = list(datasets)
        self.domains = list(range(len(datasets))) if domains is None else list(domains)
        self.weights, self.seed = weights, seed
        self._check()
        self.classes, self.colors = self.datasets[0].classes, self.datasets[0].colors
        self.ignore_index = self.datasets[0].ignore_index
        self.counts = self._shares(length)
        self._ends = list(accumulate(self.counts))
        # Shared memory, so that set_epoch also reaches workers that live on between epochs.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def _check(self) -> None:
        number = len(self.datasets)
        if not number:
            raise ValueError("datasets must hold at least one data set; got none")
        for dataset in self.datasets[1:]:
            if tuple(dataset.classes) != tuple(self.datasets[0].classes):
                raise ValueError(
                    "data sets that are joined must have the same classes in the same order; got "
                    f"{in_words(self.datasets[0].classes)} and {in_words(dataset.classes)}"
                )
        if len(self.domains) != number or min(self.domains) < 0:
            raise ValueError(f"domains must be {number} ids from 0; got {self.domains}")
        if self.weights is not None and (len(self.weights) != number or min(self.weights) <= 0):
            raise ValueError(f"weights must be {number} positive numbers; got {self.weights}")
        if self.seed < 0:
            raise ValueError(f"seed must be >= 0; got {self.seed}")

    def _shares(self, length: int | None) -> list[int]:
        """Return how many scans of each data set an epoch has."""
        lengths = [len(dataset) for dataset in self.datasets]
        if self.weights is None:
            if length is not None:
                raise ValueError(
                    "without weights every scan comes once; leave length out, or give weights"
                )
            return lengths
        total = sum(lengths) if length is None else length
        # Where the shares end, rounded: no share is off by one or more.
        ends = [round(total * end / sum(self.weights)) for end in accumulate(self.weights)]
        counts: list[int] = np.diff([0, *ends]).tolist()
        if min(counts) < 1:
            raise ValueError(
                f"length must give each data set at least one scan; {total} scans in shares of "
                f"{self.weights} give {counts}"
            )
        return counts

    @property
    def num_domains(self) -> int:
        """How many domains there are, up to the largest id."""
        return max(self.domains) + 1

    def set_epoch(self, epoch: int) -> None:
        """Choose the scans of an epoch."""
        if epoch < 0:
            raise ValueError(f"epoch must be >= 0; got {epoch}")
        for dataset in self.datasets:
            dataset.set_epoch(epoch)
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return self._ends[-1]

    def peers(self, index: int) -> range:
        """Return the indices of the scans that are of the same data set as this one."""
        which = self._which(index)
        return range(self._ends[which] - self.counts[which], self._ends[which])

    def _which(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"index must be in [0, {len(self)}); got {index}")
        return bisect_right(self._ends, index)

    def __getitem__(self, index: int) -> Scan:
        which = self._which(index)
        dataset, place = self.datasets[which], index - self.peers(index).start
        if self.weights is not None:
            place = self._place(which, int(self._epoch) * self.counts[which] + place)
        scan: Scan = replace(dataset[place], domain=self.domains[which])
        return scan

    def _place(self, which: int, turn: int) -> int:
        """Return the scan of a data set at its turn, counted over all epochs."""
        rounds, place = divmod(turn, len(self.datasets[which]))
        order = np.random.default_rng((self.seed, which, rounds))
        return int(order.permutation(len(self.datasets[which]))[place])


def peers_of(dataset: Any, index: int) -> Sequence[int]:
    """Return the indices of the scans that one may be mixed with: those of the same data set."""
    return dataset.peers(index) if isinstance(dataset, JoinedScans) else range(len(dataset))
