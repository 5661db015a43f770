"""Files of what a network looked at, beside its predictions: attributions and norms' statistics."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import nn

from geonorm.diagnostics import removed_statistics
from geonorm.files import written_whole
from geonorm.names import choices
from geonorm.style import StyleStatistics


@dataclass(frozen=True)
class Explanation:
    """What is written of how a network came to its predictions.

    Args:
        attribution: the method that tells what of the input the scores came from; None for none.
        target: name of the class whose score that is; by default what is predicted.
        statistics: write what each instance norm took out.
    """

    attribution: Literal["integrated_gradients"] | None = None
    target: str | None = None
    statistics: bool = False

    def __post_init__(self) -> None:
        if self.target is not None and self.attribution is None:
            raise ValueError(
                f"target {self.target!r} is the class of an attribution: give one "
                "(--attribution integrated_gradients), or leave it out"
            )

    @contextmanager
    def recorded(self, network: nn.Module) -> Iterator[dict[str, StyleStatistics]]:
        """Record the statistics that a network's norms take out, where they are wanted."""
        if not self.statistics:
            yield {}
            return
        with removed_statistics(network) as removed:
            yield removed


def number_of(target: str | None, classes: list[str]) -> int | None:
    """Return the number of a class.

    Raises:
        ValueError: an unknown class.
    """
    if target is not None and target not in classes:
        raise ValueError(f"no class {target!r}; {choices(target, classes)}")
    return None if target is None else classes.index(target)


def write_statistics(stem: Path, removed: Mapping[str, StyleStatistics]) -> None:
    """Write `stem`.statistics.npz, with arrays (instances, channels) NORM.mean and NORM.std.

    Where a norm has statistics of each frame or place, their mean over these is written.
    """
    arrays: dict[str, Any] = {
        f"{name}.{part}": values.flatten(2).mean(2).cpu().numpy() if values.ndim > 2
        else values.cpu().numpy()
        for name, each in removed.items()
        for part, values in (("mean", each.mean), ("std", each.std))
    }  # fmt: skip
    with written_whole(stem.with_name(f"{stem.name}.statistics.npz")) as aside:
        np.savez_compressed(aside, **arrays)


def read_statistics(stem: Path) -> list[dict[str, object]]:
    """Return what the page is told of the statistics that were written, none where there are none.

    Args:
        stem: path of the results without a suffix.
    """
    file = stem.with_name(f"{stem.name}.statistics.npz")
    if not file.is_file():
        return []
    with np.load(file) as arrays:
        names = [key.removesuffix(".mean") for key in arrays if key.endswith(".mean")]
        return [
            {"name": name, **{part: np.round(arrays[f"{name}.{part}"], 4).tolist()
                              for part in ("mean", "std")}}
            for name in names
        ]  # fmt: skip
