"""Colours for the points of a scan: by class, by error, by a measured value or by instance."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from geonorm.datasets.label_ids import distinct_color
from geonorm.datasets.scan import IGNORE_INDEX
from geonorm.looking.page import packed

UNLABELLED = (80, 80, 80)
RIGHT, WRONG = (130, 150, 170), (255, 30, 30)
# From dark to light, as matplotlib's viridis goes.
_RAMP = np.array(
    [(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)], dtype=np.float64
)
_SIGNED = np.array(
    [(120, 200, 255), (30, 90, 220), (55, 55, 55), (220, 50, 30), (255, 210, 90)], dtype=np.float64
)
_OUTLIERS = 1.0  # percent at each end of a value's range that take the colours of the ends


@dataclass(frozen=True)
class Column:
    """One way to colour the points of a scan.

    Args:
        name: such as "class" or "height".
        index: number of each point's colour, uint8.
        colors: red, green and blue of each number, uint8.
        names: what each number stands for; None where the colours are a scale.
        low: value at the beginning of the scale.
        high: value at its end.

    Shape:
        - index: (N,); colors: (K, 3) with K at most 256
    """

    name: str
    index: np.ndarray
    colors: np.ndarray
    names: tuple[str, ...] | None = None
    low: float = 0.0
    high: float = 0.0

    def painted(self) -> np.ndarray:
        """Return the colour of each point, (N, 3) uint8."""
        colors: np.ndarray = self.colors[self.index]
        return colors

    def content(self) -> dict[str, Any]:
        """Return what the page is told."""
        return {
            "name": self.name, "index": packed(self.index), "colors": self.colors.tolist(),
            "names": self.names, "low": self.low, "high": self.high,
        }  # fmt: skip


def classes(
    name: str, numbers: np.ndarray, names: Sequence[str], colors: np.ndarray
) -> Column:
    """Return the colours of classes, grey where a point has none.

    Args:
        name: of the column.
        numbers: class of each point, 255 = none.
        names: of the classes.
        colors: theirs.

    Shape:
        - numbers: (N,); colors: (K, 3) uint8 with K at most 255
    """
    index = np.where(numbers == IGNORE_INDEX, len(names), numbers).astype(np.uint8)
    painted = np.vstack([colors, [UNLABELLED]]).astype(np.uint8)
    return Column(name, index, painted, (*names, "no label"))


def errors(predicted: np.ndarray, labels: np.ndarray) -> Column:
    """Return which points are predicted wrong, (N,) classes each; 255 = no label."""
    index = np.where(labels == IGNORE_INDEX, 2, predicted != labels).astype(np.uint8)
    colors = np.array([RIGHT, WRONG, UNLABELLED], dtype=np.uint8)
    return Column("error", index, colors, ("right", "wrong", "no label"))


def values(name: str, numbers: np.ndarray) -> Column:
    """Return the colours of numbers, (N,), on a scale between their percentiles 1 and 99."""
    low, high = np.percentile(numbers, (_OUTLIERS, 100 - _OUTLIERS)).astype(np.float64)
    share = np.clip((numbers - low) / (high - low if high > low else 1.0), 0, 1)
    places = np.linspace(0, len(_RAMP) - 1, 256)
    scale = np.stack([np.interp(places, range(len(_RAMP)), part) for part in _RAMP.T], axis=1)
    index = np.rint(255 * share).astype(np.uint8)
    return Column(name, index, np.rint(scale).astype(np.uint8), None, float(low), float(high))


def attributions(numbers: np.ndarray) -> Column:
    """Return the colours of numbers, (N,), blue below 0 and red above, evenly bright about it."""
    most = float(np.percentile(np.abs(numbers), 100 - _OUTLIERS)) or 1.0
    index = np.rint(255 * (0.5 + 0.5 * np.clip(numbers / most, -1, 1))).astype(np.uint8)
    return Column("attribution", index, signed_scale(), None, -most, most)


def signed_scale() -> np.ndarray:
    """Return 256 colours from blue by dark grey to red, (256, 3) uint8."""
    places = np.linspace(0, len(_SIGNED) - 1, 256)
    scale = np.stack([np.interp(places, range(len(_SIGNED)), part) for part in _SIGNED.T], axis=1)
    colors: np.ndarray = np.rint(scale).astype(np.uint8)
    return colors


def instances(numbers: np.ndarray) -> Column:
    """Return the colours of instances, (N,) numbers, 0 = none; beyond 255 two share a colour."""
    known = np.unique(numbers[numbers != 0])
    index = np.where(numbers == 0, 0, 1 + np.searchsorted(known, numbers) % 255).astype(np.uint8)
    count = min(len(known), 255)
    colors = np.array([UNLABELLED, *map(distinct_color, range(count))], dtype=np.uint8)
    shown = [", ".join(map(str, known[first::255])) for first in range(count)]
    return Column("instance", index, colors, ("none", *shown))
