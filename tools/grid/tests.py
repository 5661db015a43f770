"""All tests of a network as one task of `geonorm.training.shift`, their samples kept in memory."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from geonorm.training.shift.cells import Cells
from geonorm.training.shift.evaluate import CLEAN, Task, evaluate

# A middle and the heaviest level, of three and of five: all of them would take twice as long.
LEVELS = {3: (2, 3), 5: (3, 5)}


class Test(NamedTuple):
    """How the samples of a test are made.

    Attributes:
        levels: its levels, (0,) where it has none.
        make: returns the sample of an item at a level, None where there is no such item.
    """

    levels: Sequence[int]
    make: Callable[[int, int], Any]


class Seen(NamedTuple):
    """A sample, all those of its test, and its number among them."""

    samples: Sequence[Any]
    item: int
    sample: Any


class Samples:
    """The samples of all tests, each made once.

    Args:
        tests: by name, `clean` among them.
        items: of the largest test.
    """

    def __init__(self, tests: Mapping[str, Test], items: int) -> None:
        self.tests, self.items = dict(tests), items
        self._kept: dict[tuple[str, int], list[Any]] = {}

    def __call__(self, test: str, level: int) -> list[Any]:
        """Return the samples of a test at a level."""
        if (test, level) not in self._kept:
            make = self.tests[test].make
            self._kept[test, level] = [make(item, level) for item in range(self.items)]
        return self._kept[test, level]


# Of all samples of a test, the number of one of them, and what the base task makes of that one.
Network = Callable[[Sequence[Any], int, Any], Any]


class EveryTest:
    """A network under all tests, which are the corruptions of this task.

    Args:
        samples: of the tests.
        base: what counts and scores; its one network becomes this task's.
        network: what is judged.
        empty: counts of nothing.
    """

    benchmark, unit = "tests", "item"

    def __init__(self, samples: Samples, base: Any, network: Network, empty: np.ndarray) -> None:
        self.samples, self.base, self.empty = samples, base, empty
        self.corruptions = self.standard = tuple(n for n in samples.tests if n != CLEAN)
        self._seen = Seen([], 0, None)
        base.networks = [lambda given: network(self._seen.samples, self._seen.item, given)]

    def levels(self, corruption: str) -> int:
        return len(self.samples.tests[corruption].levels)

    def read(self, item: int) -> Seen:
        return self._one(CLEAN, 0, item)

    def corrupt(self, sample: Seen, item: int, corruption: str, level: int) -> Seen:
        own = self.samples.tests[corruption].levels[level - 1]
        return self._one(corruption, own, item)

    def _one(self, test: str, level: int, item: int) -> Seen:
        samples = self.samples(test, level)
        return Seen(samples, item, samples[item])

    def count(self, network: int, sample: Seen) -> np.ndarray:
        self._seen = sample
        if sample.sample is None:
            return self.empty
        counts: np.ndarray = self.base.count(network, sample.sample)
        return counts

    def score(self, counts: np.ndarray) -> np.ndarray:
        score: np.ndarray = self.base.score(counts)
        return score


def judge(task: EveryTest) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Return the score of every test, and what was counted in each, both by test and level.

    Raises:
        ValueError: a test does not apply to its samples.
    """
    with TemporaryDirectory() as folder:
        cells = Cells(Path(folder), {})
        items = range(task.samples.items)
        checked: Task = task
        (found,), left_out = evaluate(checked, [cells], items, task.corruptions, draws=0)
        if left_out:
            raise ValueError(f"tests do not apply to their samples: {left_out}")
        scores, counts = {CLEAN: float(found.clean[0])}, {}
        for test in task.corruptions:
            for number, level in enumerate(task.samples.tests[test].levels, 1):
                name = f"{test} {level}" if level else test
                scores[name] = float(found.corrupted[test][number][0])
                counts[name] = sum(cells[item, test, number] for item in items)
    return scores, counts
