"""The classes of a benchmark and the ids that stand for them in its files."""

import colorsys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geonorm.datasets.scan import IGNORE_INDEX

Color = tuple[int, int, int]
# Name, colour and what stands for a class: ids, or names where a table gives these ids.
ClassRow = tuple[str, Color, Sequence[Any]]
_UNKNOWN = -1
_NAMED = 5  # ids in an error
_GOLDEN = 0.618034  # turns of the colour wheel from one class to the next


def distinct_color(number: int) -> Color:
    """Return a colour for the class of a number, unlike those of the classes around it."""
    shade = colorsys.hsv_to_rgb(number * _GOLDEN % 1, 0.45 + number % 3 * 0.2, 0.9)
    red, green, blue = (round(255 * part) for part in shade)
    return red, green, blue


class LabelIds:
    """A table of classes that leads from the ids in label files to train ids 0, 1, ….

    Args:
        dataset: its name, for errors.
        classes: name, colour (RGB, 0 to 255) and ids of each class in the order of the train ids;
            a class that the files do not have has no ids.
        ignored: ids that become 255.

    Attributes:
        names: of the classes.
        colors: (K, 3) uint8.
        known: all ids that the files may hold.

    Example:
        >>> ids = LabelIds("streets", [("road", (255, 0, 255), (40, 60))], ignored=(0,))
        >>> ids.train_ids(np.array([60, 0, 40]), "a.label")
        array([  0, 255,   0])
    """

    def __init__(
        self,
        dataset: str,
        classes: Sequence[ClassRow],
        ignored: Iterable[int],
    ) -> None:
        self.dataset, self._classes = dataset, tuple(classes)
        self.names = tuple(name for name, _, _ in classes)
        self.colors = np.array([color for _, color, _ in classes], dtype=np.uint8)
        table = dict.fromkeys(ignored, IGNORE_INDEX)
        table |= {id_: train for train, (_, _, ids) in enumerate(classes) for id_ in ids}
        self.known = frozenset(table)
        self._lowest = min(table)
        self._table = np.full(max(table) - self._lowest + 1, _UNKNOWN, dtype=np.int64)
        self._table[np.array(list(table)) - self._lowest] = list(table.values())

    @property
    def raw_ids(self) -> tuple[int, ...]:
        """The first id of each class, with which predictions are written."""
        return tuple(ids[0] for _, _, ids in self._classes)

    def and_ignored(self, ids: Iterable[int]) -> "LabelIds":
        """Return the same classes where further ids become 255."""
        return LabelIds(self.dataset, self._classes, (*self.known, *ids))

    def numbered(self, first: int = 0, ignored: Iterable[int] = (-1,)) -> "LabelIds":
        """Return the same classes under the ids first, first + 1, …, as processed data have them.

        Args:
            first: id of the first class.
            ignored: ids that become 255.
        """
        classes = [
            (name, color, (number,))
            for number, (name, color, _) in enumerate(self._classes, start=first)
        ]
        return LabelIds(self.dataset, classes, ignored)

    def train_ids(self, raw: np.ndarray, path: str | Path) -> np.ndarray:
        """Return the train id of each id, 255 where it is ignored.

        Args:
            raw: ids, integers of any dtype.
            path: the file that they come from, for the error.

        Raises:
            ValueError: ids that the dataset does not have, each with its number of points.
        """
        places = raw.astype(np.int64) - self._lowest
        inside = (places >= 0) & (places < len(self._table))
        labels = np.where(inside, self._table[np.where(inside, places, 0)], _UNKNOWN)
        ids, counts = np.unique(raw[labels == _UNKNOWN], return_counts=True)
        if ids.size:
            counted = [f"{i} ({n} points)" for i, n in zip(ids[:_NAMED], counts, strict=False)]
            more = f" and {ids.size - _NAMED} more ids" if ids.size > _NAMED else ""
            raise ValueError(
                f"{path} holds class id {', '.join(counted)}{more}, which {self.dataset} does "
                f"not have; is it a label file of another dataset?"
            )
        return labels

    def read(self, path: str | Path, num_points: int, dtype: str = "<u4") -> np.ndarray:
        """Read a file of one id for each point as train ids.

        Args:
            path: a binary file.
            num_points: number of points of its scan.
            dtype: of an id; of four bytes the low two count, since the others are the instance.

        Shape:
            - result: (num_points,), int64

        Raises:
            ValueError: another number of labels than points, or an unknown id.
        """
        data, size = Path(path).read_bytes(), np.dtype(dtype).itemsize
        if len(data) != size * num_points:
            raise ValueError(
                f"{path} must hold {num_points} labels of {size} bytes, one per point; "
                f"got {len(data)} bytes = {len(data) / size:g} labels"
            )
        return self.train_ids(np.frombuffer(data, dtype).astype(np.int64) & 0xFFFF, path)
