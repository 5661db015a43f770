"""Judge networks on corrupted data, cell by cell: any network, scans or videos."""

import sys
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from geonorm.training.shift.bootstrap import resamples
from geonorm.training.shift.cells import Cell, Cells
from geonorm.training.shift.measures import Scores

CLEAN = "clean"


class Task(Protocol):
    """What networks are judged on.

    Attributes:
        benchmark: name of the benchmark whose measures are taken.
        standard: its corruptions, over which its means go.
        corruptions: all that there are, the standard ones first.
        unit: what one item is called.
    """

    @property
    def benchmark(self) -> str: ...

    @property
    def standard(self) -> tuple[str, ...]: ...

    @property
    def corruptions(self) -> tuple[str, ...]: ...

    @property
    def unit(self) -> str: ...

    def levels(self, corruption: str) -> int:
        """Return the heaviest level of a corruption."""

    def read(self, item: int) -> Any:
        """Return an item as it is in the data."""

    def corrupt(self, sample: Any, item: int, corruption: str, level: int) -> Any:
        """Return a corrupted item; a ValueError says why the corruption does not apply to it."""

    def count(self, network: int, sample: Any) -> np.ndarray:
        """Return what a network got right and wrong of an item, in counts that add up."""

    def score(self, counts: np.ndarray) -> np.ndarray:
        """Return the score in [0, 1] of sums of counts, (R, …) to (R,)."""


def cells_of(task: Task, items: Sequence[int], corruptions: Sequence[str]) -> Iterator[Cell]:
    """Yield every cell, all of an item together."""
    for item in items:
        yield item, CLEAN, 0
        for name in corruptions:
            for level in range(1, task.levels(name) + 1):
                yield item, name, level


def count_cells(
    task: Task, kept: Sequence[Cells], items: Sequence[int], corruptions: Sequence[str]
) -> dict[str, str]:
    """Count what is missing, and keep it; return which corruptions do not apply, and why not.

    Args:
        task: what the networks are judged on.
        kept: of each network, in the task's order.
        items: numbers of the scans or videos.
        corruptions: by name.
    """
    left_out: dict[str, str] = {}
    sample, held = None, -1
    each = [*cells_of(task, items, corruptions)]
    done = sum(all(cell in cells for cells in kept) for cell in each)
    if done:
        print(f"{done} of {len(each)} cells were counted before")
    seconds = 0.5 if sys.stderr.isatty() else 20  # a log needs no more
    with tqdm(each, task.benchmark, unit="cell", mininterval=seconds, miniters=1) as bar:
        for cell in bar:
            item, name, level = cell
            lacking = [number for number, cells in enumerate(kept) if cell not in cells]
            if not lacking or name in left_out:
                continue
            if held != item:
                sample, held = task.read(item), item
            changed = sample
            if name != CLEAN:
                try:
                    changed = task.corrupt(sample, item, name, level)
                except ValueError as error:
                    left_out[name] = str(error)
                    continue
            for number in lacking:
                kept[number].add(cell, task.count(number, changed))
    return left_out


def scores_of(
    task: Task, cells: Cells, items: Sequence[int], corruptions: Sequence[str], weights: np.ndarray
) -> Scores:
    """Return the scores of a network whose cells are all counted.

    Args:
        task: what it was judged on.
        cells: its counts.
        items: numbers of the scans or videos, N.
        corruptions: those that apply.
        weights: how often each resample has each item, (R, N).

    Raises:
        ValueError: nothing can be judged, as not one item has a label.
    """

    def score(name: str, level: int) -> np.ndarray:
        counts = np.stack([cells[item, name, level] for item in items]).astype(np.float64)
        return task.score(np.tensordot(weights, counts, axes=1))

    clean = score(CLEAN, 0)
    if np.isnan(clean[0]):
        raise ValueError(
            f"not one {task.unit} has a label of the network's classes, so nothing can be judged"
        )
    return Scores(clean, {
        name: {level: score(name, level) for level in range(1, task.levels(name) + 1)}
        for name in corruptions
    })  # fmt: skip


def evaluate(
    task: Task,
    kept: Sequence[Cells],
    items: Sequence[int],
    corruptions: Sequence[str],
    draws: int = 1000,
    seed: int = 0,
) -> tuple[list[Scores], dict[str, str]]:
    """Judge networks on items and their corruptions.

    Args:
        task: what they are judged on.
        kept: what was counted before of each network, and is kept from now on.
        items: numbers of the scans or videos.
        corruptions: by name.
        draws: bootstrap resamples.
        seed: of the resamples, which are the same for all networks and corruptions.

    Returns:
        The scores of each network, and why each corruption that was left out does not apply.
    """
    left_out = count_cells(task, kept, items, corruptions)
    applied = [name for name in corruptions if name not in left_out]
    weights = resamples(len(items), draws, seed)
    return [scores_of(task, cells, items, applied, weights) for cells in kept], left_out
