"""What a study consists of: a claim, tests that are stated before it runs, and measurements."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from geonorm.studies.recordings import Recordings

if TYPE_CHECKING:
    from geonorm.studies.outcome import Outcome

# A study is run as it stands, with one thing changed that must turn its verdict, and with an
# instance norm that takes its statistics over the whole batch.
Variant = Literal["claimed", "mutated", "broken"]
VARIANTS: tuple[Variant, ...] = ("claimed", "mutated", "broken")


class Setting(NamedTuple):
    """What a measurement is given beside its column.

    Args:
        seed: of everything that it draws; torch's generator is seeded with it already.
        variant: "mutated" asks for the study's mutation; "broken" is done by the runner.
        recordings: the user's scan and films, which may be missing.
    """

    seed: int
    variant: Variant
    recordings: Recordings

    @property
    def mutated(self) -> bool:
        """Return whether the study's mutation is asked for."""
        return self.variant == "mutated"


@dataclass(frozen=True)
class Part:
    """One table of a study, in which every column can be measured by itself.

    Args:
        name: in the JSON file and in `Quantity`.
        title: what its numbers are, with their unit.
        columns: what is compared: mostly norms.
        measure: returns the value of each row for a column; rows keep the order of the first one.
        seeded: whether it depends on the seed; what does not is measured once.
        long: whether it is left out of a quick run: trainings, and large measurements.
        most_seeds: with how many seeds it is measured at most; all of them if not given.
        needs: recordings, or espeak-ng for "speech", without which it is left out.
        variants: the variants under which it is measured beside the claimed one.
        shown: whether there is a table of it; pixels of a picture are for the figure alone.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    measure: Callable[[str, Setting], Mapping[str, float]]
    seeded: bool = True
    long: bool = False
    most_seeds: int | None = None
    needs: Literal["scan", "videos", "sound", "speech"] | None = None
    variants: tuple[Variant, ...] = ("mutated", "broken")
    shown: bool = True


class Quantity(NamedTuple):
    """A cell of a table: the name of its part, its row and its column."""

    part: str
    row: str
    column: str

    def __str__(self) -> str:
        return f"{self.part}: {self.row}, {self.column}"


@dataclass(frozen=True)
class Test:
    """A statement that a measurement can refute.

    The 95% interval over the seeds must lie on the stated side as a whole; a value that was
    measured once stands for itself.

    Args:
        says: the statement in words.
        quantity: what is judged.
        below: where it must lie under this.
        above: where it must lie over this.
        minus: a second quantity that is taken off the first, seed by seed.
    """

    __test__ = False  # no test of pytest's

    says: str
    quantity: Quantity
    below: float = float("inf")
    above: float = float("-inf")
    minus: Quantity | None = None

    def __post_init__(self) -> None:
        if self.below == float("inf") and self.above == float("-inf"):
            raise ValueError(f"test {self.says!r}: expected below, above or both; got neither")

    @property
    def condition(self) -> str:
        """Return quantity, direction and size in words."""
        what = f"[{self.quantity}]" + (f" - [{self.minus}]" if self.minus else "")
        low = "" if self.above == float("-inf") else f"{self.above:g} < "
        high = "" if self.below == float("inf") else f" < {self.below:g}"
        return f"{low}{what}{high}"


@dataclass(frozen=True)
class Study:
    """A claim about instance norm, and how it is tested.

    Args:
        name: on the command line and of its page.
        title: heading of its page.
        claim: one sentence, as it is commonly made.
        sources: papers (authors, year) that make the claim or define what is measured.
        tests: stated before anything runs; the verdict follows from these alone.
        parts: the tables.
        mutation: what is changed that must turn the verdict.
        notes: paragraphs of the page in Markdown, where ``{part|row|column}`` stands for a mean.
        advice: what follows for a practitioner, in one to three sentences, in the same way.
        draw: draws one figure of an outcome into a matplotlib figure.
        not_about: where the broken norm turns no test: why the claim is not about instance norm.
    """

    name: str
    title: str
    claim: str
    sources: tuple[str, ...]
    tests: tuple[Test, ...]
    parts: tuple[Part, ...]
    mutation: str
    notes: str
    advice: str
    draw: Callable[["Outcome", Any], None]
    not_about: str = ""

    def __post_init__(self) -> None:
        known = {part.name: part.columns for part in self.parts}
        for test in self.tests:
            for quantity in (test.quantity, test.minus):
                if quantity is not None and quantity.column not in known.get(quantity.part, ()):
                    raise ValueError(
                        f"study {self.name}: no such column: {quantity}; expected one of {known}"
                    )

    def part(self, name: str) -> Part:
        """Return the part of that name."""
        return next(part for part in self.parts if part.name == name)

    def judged_columns(self, part: Part) -> tuple[str, ...]:
        """Return the columns of a part that some test looks at, which variants measure."""
        used = {q.column for t in self.tests for q in (t.quantity, t.minus)
                if q is not None and q.part == part.name}  # fmt: skip
        return tuple(column for column in part.columns if column in used)
