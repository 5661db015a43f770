"""Classification of corrupted videos, judged by the share that is right."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from geonorm.datasets import ClipCorruption, ClipDataset
from geonorm.datasets.clip_corruptions import MINI_KINETICS_C, Corruption
from geonorm.datasets.video_io import UndecodableVideoError

_LEVELS = 5


class _Sample(NamedTuple):
    """A clip as it was decoded, (T, 3, H, W), or None where nothing of it is left; its class."""

    video: Tensor | None
    label: int
    item: int


class ClipTask:
    """Videos under the corruptions of `geonorm.datasets.clip_corruptions`.

    Of each video one clip is judged, the one that validation takes. A clip of which not one frame
    can be decoded, before or after the corruption, is left out, as the benchmark leaves out what
    its tools could not write.

    Args:
        networks: each returns the scores of the classes, (1, 3, T, H, W) to (1, K).
        dataset: labelled clips with the transform of their test, one of each video.
        seed: of the corruptions.

    Raises:
        ValueError: the dataset has several clips of each video.
    """

    benchmark, standard, unit = "Mini Kinetics-C", MINI_KINETICS_C, "video"
    corruptions: tuple[str, ...] = get_args(Corruption)

    def __init__(
        self, networks: Sequence[Callable[[Tensor], Tensor]], dataset: ClipDataset, seed: int = 0
    ) -> None:
        if len(dataset) != len(dataset.videos):
            raise ValueError(
                f"expected one clip of each of {len(dataset.videos)} videos; got {len(dataset)} "
                "clips. Give views=1"
            )
        self.networks, self.dataset, self.seed = networks, dataset, seed
        self.transform, dataset.transform = dataset.transform, None

    def levels(self, corruption: str) -> int:
        return _LEVELS

    def read(self, item: int) -> _Sample:
        clip = self.dataset[item]
        if clip.video_index != item:  # another has taken the place of one that cannot be decoded
            return _Sample(None, clip.label, item)
        return _Sample(clip.video, clip.label, item)

    def corrupt(self, sample: _Sample, item: int, corruption: Any, level: int) -> _Sample:
        if sample.video is None:
            return sample
        change = ClipCorruption(corruption, level, self.dataset.rate(item))
        rng = np.random.default_rng((self.seed, 0, item, 1))
        try:
            return sample._replace(video=change(sample.video, rng))
        except UndecodableVideoError:
            return sample._replace(video=None)

    def count(self, network: int, sample: _Sample) -> np.ndarray:
        """Return how many clips are right and how many were judged, (2,)."""
        if sample.video is None or sample.label < 0:
            return np.zeros(2, dtype=np.int64)
        video = sample.video
        if self.transform is not None:
            video = self.transform(video, (self.seed, 0, sample.item))
        with torch.inference_mode():
            scores = self.networks[network](video[None])
        if scores.shape != (1, len(self.dataset.classes)):
            raise ValueError(
                f"a network must give a clip a score for each of {len(self.dataset.classes)} "
                f"classes, (1, {len(self.dataset.classes)}); got {tuple(scores.shape)}"
            )
        return np.array([int(scores.argmax()) == sample.label, 1], dtype=np.int64)

    def score(self, counts: np.ndarray) -> np.ndarray:
        """Return the share of the judged clips that is right, NaN where none was."""
        right, judged = counts[..., 0], counts[..., 1]
        share: np.ndarray = np.divide(
            right, judged, out=np.full(np.shape(right), np.nan), where=judged > 0
        )
        return share
