"""What a study measured, and the verdict that follows from it."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from geonorm.studies.study import VARIANTS, Part, Quantity, Study, Test, Variant

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A mean over seeds and the ends of its 95% interval (Student's t)."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Interval":
        """Return the interval of some values; a single one stands for itself."""
        from scipy.stats import t

        values = list(values)
        mean = math.fsum(values) / len(values)
        if len(values) == 1:
            return cls(mean, mean, mean)
        variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
        quantile = float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
        half = quantile * math.sqrt(variance / len(values))
        return cls(mean, mean - half, mean + half)


class Judgement(NamedTuple):
    """Whether a test passed: None where it was not judged, and then why."""

    test: Test
    passed: bool | None
    interval: Interval | None
    reason: str = ""


# The values of a cell by seed, for each variant of a study.
Cells = dict[Variant, dict[Quantity, dict[int, float]]]


@dataclass
class Outcome:
    """The measurements of a study.

    Args:
        study: what was measured.
        seeds: the seeds.
        quick: whether long parts were left out.
        cells: the values.
        left_out: the parts that were not measured, and why.
        seconds: how long the measurements took, those of earlier sittings included.
    """

    study: Study
    seeds: tuple[int, ...]
    quick: bool
    cells: Cells = field(default_factory=lambda: {variant: {} for variant in VARIANTS})
    left_out: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def interval(self, quantity: Quantity, variant: Variant = "claimed") -> Interval:
        """Return the mean and interval of a cell."""
        return Interval.of(self.cells[variant][quantity].values())

    def mean(self, part: str, row: str, column: str) -> float:
        """Return the mean of a cell of the claimed variant."""
        return self.interval(Quantity(part, row, column)).mean

    def rows(self, part: Part, variant: Variant = "claimed") -> list[str]:
        """Return the names of the rows of a part."""
        return list(dict.fromkeys(q.row for q in self.cells[variant] if q.part == part.name))

    def judge(self, variant: Variant = "claimed") -> list[Judgement]:
        """Judge every test."""
        return [self._judge(test, variant) for test in self.study.tests]

    def _judge(self, test: Test, variant: Variant) -> Judgement:
        cells = self.cells[variant]
        quantities = [q for q in (test.quantity, test.minus) if q is not None]
        parts = [self.study.part(q.part) for q in quantities]
        for part in parts:
            if part.name in self.left_out:
                return Judgement(test, None, None, self.left_out[part.name])
            if variant != "claimed" and variant not in part.variants:
                return Judgement(test, None, None, "not measured")
        for quantity in quantities:
            if quantity not in cells:
                raise ValueError(
                    f"study {self.study.name}: a test needs [{quantity}], which was not measured; "
                    f"rows of that part: {self.rows(self.study.part(quantity.part), variant)}"
                )
        if any(part.long and part.seeded for part in parts) and len(self.seeds) < 3:
            return Judgement(test, None, None, "needs 3 seeds")
        values = cells[test.quantity]
        if test.minus is not None:
            other = cells[test.minus]
            if len(other) == 1:  # measured once: the same for all seeds
                other = dict.fromkeys(values, *other.values())
            values = {seed: value - other[seed] for seed, value in values.items() if seed in other}
        interval = Interval.of(values.values())
        # NaN fails either comparison.
        return Judgement(test, test.above < interval.low and interval.high < test.below, interval)

    def verdict(self, variant: Variant = "claimed") -> str:
        """Return what follows from the tests alone."""
        judged = [each for each in self.judge(variant) if each.passed is not None]
        if not judged:
            return "too short to judge"
        failed = [each.test.says for each in judged if not each.passed]
        open_ones = len(self.study.tests) - len(judged)
        rest = f" ({open_ones} of {len(self.study.tests)} tests not judged)" if open_ones else ""
        if not failed:
            return f"holds{rest}"
        head = "does not hold" if len(failed) == len(judged) else "holds in part"
        if variant != "claimed":
            return f"{head}: {len(failed)} of {len(judged)} tests refuted"
        return f"{head}: refuted: {'; '.join(failed)}{rest}"

    def turned(self, variant: Variant) -> list[int]:
        """Return the numbers, from 1, of the tests that pass as claimed and fail in a variant."""
        pairs = zip(self.judge(), self.judge(variant), strict=True)
        return [n for n, (a, b) in enumerate(pairs, 1) if a.passed and b.passed is False]
