"""A dataset of scans under random transforms, repeatable to the bit."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from geonorm.datasets.joined_scans import peers_of
from geonorm.datasets.mixing import ScanMix
from geonorm.datasets.scan import Scan, ScanDataset
from geonorm.datasets.submission import Submission
from geonorm.datasets.transforms import ScanTransform


class Augmented(Dataset[Scan]):
    """The scans of a dataset, each changed by the transforms one after another.

    What is random is a function of (seed, epoch, index, place of the transform) alone, so neither
    workers, nor processes, nor resuming change it. Classes, colours and the like are the dataset's.

    A ScanMix gets a partner from the same dataset (of JoinedScans the one of those joined), another
    scan where there is one, changed by the transforms before the mix, each drawn anew.

    Args:
        dataset: scans, such as SemanticKITTI.
        transforms: applied in this order.
        seed: of all that is random.

    Raises:
        ValueError: a negative seed or epoch.
        TypeError: a transform that is neither a ScanTransform nor a ScanMix.

    Example:
        >>> from geonorm.datasets import RandomFlip, RandomScale, SyntheticStreets
        >>> streets = Augmented(SyntheticStreets(4), [RandomFlip(), RandomScale()], seed=1)
        >>> len(streets), streets.classes[0]
        (4, 'road')
    """

    def __init__(
        self,
        dataset: ScanDataset,
        transforms: Sequence[ScanTransform | ScanMix],
        seed: int = 0,
    ) -> None:
        if seed < 0:
            raise ValueError(f"seed must be >= 0; got {seed}")
        for transform in transforms:
            if not isinstance(transform, ScanTransform | ScanMix):
                raise TypeError(
                    "transforms must be ScanTransforms, such as RandomFlip(), or ScanMixes, such "
                    f"as Mix3D(); got {transform!r}"
                )
        self.dataset, self.transforms, self.seed = dataset, tuple(transforms), seed
        self.classes = dataset.classes
        self.colors = dataset.colors
        self.ignore_index = dataset.ignore_index
        # Shared memory, so that set_epoch also reaches workers that live on between epochs.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def num_domains(self) -> int:
        """How many domains the scans come from."""
        return getattr(self.dataset, "num_domains", 1)

    @property
    def submission(self) -> Submission | None:
        """What a server takes for these scans, if there is one for them."""
        return getattr(self.dataset, "submission", None)

    def set_epoch(self, epoch: int) -> None:
        """Choose the scans and the changes of an epoch."""
        if epoch < 0:
            raise ValueError(f"epoch must be >= 0; got {epoch}")
        self.dataset.set_epoch(epoch)
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Scan:
        return self._changed(index, self.transforms, (self.seed, int(self._epoch), index))

    def _changed(
        self, index: int, transforms: Sequence[ScanTransform | ScanMix], key: tuple[int, ...]
    ) -> Scan:
        """Return a scan after some transforms, the place of each being added to the key."""
        scan = self.dataset[index]
        # From 1: numpy pads keys with zeros, and (seed, epoch, index) may be the dataset's own.
        for place, transform in enumerate(transforms, 1):
            rng = np.random.default_rng((*key, place))
            if isinstance(transform, ScanTransform):
                scan = transform(scan, rng)
            elif rng.random() < transform.probability:
                others = [each for each in peers_of(self.dataset, index) if each != index]
                other = others[rng.integers(len(others))] if others else index
                partner = self._changed(other, transforms[: place - 1], (*key, place))
                scan = transform(scan, partner, rng)
        return scan
