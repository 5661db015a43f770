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


AS_CLAIMED, REFUTED, NOT_SHOWN = "as claimed", "refuted", "not shown"


class Judgement(NamedTuple):
    """Whether a test passed: None where it was not judged, and then why."""

    test: Test
    passed: bool | None
    interval: Interval | None
    reason: str = ""

    @property
    def result(self) -> str:
        """Return the judgement in words, or why there is none.

        An interval that lies outside the test's band as a whole refutes the statement; one that
        lies across an end of the band shows neither the statement nor its contrary.
        """
        if self.passed is None or self.interval is None:
            return self.reason
        if self.passed:
            return AS_CLAIMED
        outside = self.interval.low >= self.test.below or self.interval.high <= self.test.above
        return REFUTED if outside else NOT_SHOWN


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
        cpu_seconds: the processor time of these; None where it was not recorded.
    """

    study: Study
    seeds: tuple[int, ...]
    quick: bool
    cells: Cells = field(default_factory=lambda: {variant: {} for variant in VARIANTS})
    left_out: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    cpu_seconds: float | None = None

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

    def with_result(self, result: str, variant: Variant = "claimed") -> list[str]:
        """Return the statements of the tests that came out so, such as "refuted"."""
        return [each.test.says for each in self.judge(variant) if each.result == result]

    def verdict(self, variant: Variant = "claimed") -> str:
        """Return what follows from the tests alone."""
        passed, refuted, open_ones = (
            self.with_result(result, variant) for result in (AS_CLAIMED, REFUTED, NOT_SHOWN)
        )
        judged, stated = len(passed) + len(refuted) + len(open_ones), len(self.study.tests)
        if not judged:
            return "too short to judge"
        unjudged = stated - judged
        rest = f" ({unjudged} of {stated} tests not judged)" if unjudged else ""
        if len(passed) == judged:
            return f"holds{rest}"
        head = "holds in part" if passed else "does not hold" if refuted else "is not shown"
        failed = {name: says for name, says in ((REFUTED, refuted), (NOT_SHOWN, open_ones)) if says}
        if variant != "claimed":
            counts = ", ".join(f"{len(says)} {name}" for name, says in failed.items())
            return f"{head}: of {judged} tests {counts}"
        return f"{head}: {'. '.join(f'{n}: ' + '; '.join(s) for n, s in failed.items())}{rest}"

    def turned(self, variant: Variant) -> list[int]:
        """Return the numbers, from 1, of the tests that pass as claimed and fail in a variant."""
        pairs = zip(self.judge(), self.judge(variant), strict=True)
        return [n for n, (a, b) in enumerate(pairs, 1) if a.passed and b.passed is False]
