"""The claims of docs/which_norm.md as tests of the grid's rows; they were stated before the rows.

Each compares two entries of the tables seed by seed. It holds as claimed where the 95% interval of
the differences lies above a bound, is refuted where it lies below, and is open otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from geonorm.studies.outcome import Interval
from grid.cells import BROKEN, EVERYWHERE, FRESH
from grid.rows import Row
from grid.streets import NEAR, REAL
from grid.table import BASE, Entry, entries, groups_of, judged, name_of, tests_of

HOLDS, REFUTED, UNDECIDED, NOT_RUN = "holds", "refuted", "not decided", "not run yet"
FEWEST_SEEDS = 3
MARGIN = 0.01  # by which «no worse» may be worse


@dataclass(frozen=True)
class Claim:
    """A statement about two entries.

    Args:
        says: the statement.
        data: "streets" or "actions".
        one, other: entries; the difference is that of the first and the second.
        test: a group of tests or a single one.
        above: what the difference must exceed, a part of 1.
        seeds: the only ones that count, where rows of others suggested the claim; all if empty.
    """

    says: str
    data: str
    one: Entry
    other: Entry
    test: str
    above: float = 0.0
    seeds: tuple[int, ...] = ()


def _place(place: str) -> Entry:
    return "instance", place, ""


def _rival(rival: str, norm: str = "batch") -> Entry:
    return norm, EVERYWHERE, rival


def _norm(norm: str) -> Entry:
    return norm, EVERYWHERE, ""


INSTANCE = _norm("instance")
BETTER = "instance norm is better than batch norm"
INTENSITY_ALONE = (
    "batch norm with an instance norm of the intensity alone is better than instance norm "
    "everywhere"
)
STEM = "instance norm at the stem alone is better than batch norm"
STEM_ALONE = "instance norm at the stem alone is no worse than everywhere"
ADABN = "AdaBN is better than batch norm"
ADABN_NO_WORSE = "AdaBN is no worse than batch norm"
LATE = (
    "late in a 3D-ResNet, where an instance has nine and four positions and global pooling "
    "follows, it is worse than batch norm"
)
BUT_LAST = (
    "with batch norm in its last stage alone, where an instance has four positions and global "
    "pooling follows, a 3D-ResNet of instance norms is better than with them everywhere"
)
FIFTY = (
    "with fifty positions in the last two stages, not nine and four, a 3D-ResNet of instance norms "
    "is better"
)
BOTH = "with both, fifty positions and batch norm in its last stage, it is better than everywhere"
BOTH_NO_WORSE = "with both it is no worse than batch norm with as many positions"
BUT_TWO = (
    "with batch norm in its last two stages a 3D-ResNet of instance norms is better than with them "
    "everywhere"
)

CLAIMS = {
    "Where training and test are alike": (
        Claim("batch norm is better than instance norm", "streets", BASE, INSTANCE, "clean"),
        Claim("batch norm is better than instance norm", "actions", BASE, INSTANCE, "clean"),
        Claim("IBN-a is no worse than batch norm", "streets", _norm("ibn-a"), BASE, "clean",
              -MARGIN),
        Claim("IBN-a is no worse than batch norm", "actions", _norm("ibn-a"), BASE, "clean",
              -MARGIN),
        Claim("group norm is better than layer norm", "streets", _norm("group"), _norm("layer"),
              "clean"),
        Claim("batch norm is better than no norm", "streets", BASE, _norm("none"), "clean"),
        Claim(STEM, "streets", _place("stem"), BASE, "clean", seeds=FRESH["streets"]),
        Claim("no norm is no worse than batch norm", "actions", _norm("none"), BASE, "clean",
              -MARGIN, FRESH["actions"]),
        Claim(ADABN_NO_WORSE, "actions", _rival("adabn"), BASE, "clean", -MARGIN,
              FRESH["actions"]),
    ),
    "Another sensor, another light": (
        Claim(BETTER, "streets", INSTANCE, BASE, "other sensors"),
        Claim(BETTER, "streets", INSTANCE, BASE, "other intensity law"),
        Claim(BETTER, "streets", INSTANCE, BASE, "intensity_gain"),
        Claim("instance norm on the input of a network with batch norms is better than none",
              "streets", _place("input"), BASE, "intensity_gain"),
        Claim(BETTER, "streets", INSTANCE, BASE, REAL),
        Claim(BETTER, "streets", INSTANCE, BASE, NEAR),
        Claim(BETTER, "actions", INSTANCE, BASE, "gain"),
        Claim(BETTER, "actions", INSTANCE, BASE, "gamma"),
        Claim("instance norm is better than group norm", "streets", INSTANCE, _norm("group"),
              "other sensors"),
        Claim(STEM, "streets", _place("stem"), BASE, "other sensors", seeds=FRESH["streets"]),
        Claim(STEM, "streets", _place("stem"), BASE, REAL, seeds=FRESH["streets"]),
        Claim(STEM_ALONE, "streets", _place("stem"), INSTANCE, "other sensors", -MARGIN,
              FRESH["streets"]),
    ),
    "Weather, damage and codecs": (
        Claim(BETTER, "streets", INSTANCE, BASE, "Robo3D"),
        Claim(BETTER, "actions", INSTANCE, BASE, "Mini Kinetics-C"),
        Claim("IBN-a is better than batch norm", "streets", _norm("ibn-a"), BASE, "Robo3D"),
        Claim("no norm is better than batch norm", "actions", _norm("none"), BASE,
              "Mini Kinetics-C", seeds=FRESH["actions"]),
    ),
    "Instance norm and its rivals": (
        Claim("instance norm is better than batch norm with the statistics of the test's batches",
              "streets", INSTANCE, _rival("test batch"), "other sensors"),
        Claim("instance norm is better than AdaBN", "streets", INSTANCE, _rival("adabn"),
              "other sensors"),
        Claim("instance norm is better than Tent", "streets", INSTANCE, _rival("tent"),
              "other sensors"),
        Claim("instance norm is better than batch norm with augmentation", "streets", INSTANCE,
              _rival("augmented"), "other sensors"),
        Claim("augmentation helps instance norm too", "streets", _rival("augmented", "instance"),
              INSTANCE, "other sensors"),
        *(Claim(INTENSITY_ALONE, "streets", _rival("intensity"), INSTANCE, test,
                seeds=FRESH["streets"])
          for test in ("clean", "other sensors", "Robo3D", "other corruptions")),
        Claim("instance norm is better than AdaBN", "actions", INSTANCE, _rival("adabn"),
              "Mini Kinetics-C"),
        Claim(ADABN, "actions", _rival("adabn"), BASE, "Mini Kinetics-C",
              seeds=FRESH["actions"]),
        Claim("instance norm is better than batch norm with augmentation", "actions", INSTANCE,
              _rival("augmented"), "gain"),
    ),
    "Where instance norm loses, and why": (
        Claim("without it at the bottom, where an instance has few voxels, instance norm is better "
              "than everywhere", "streets", _place("encoder"), INSTANCE, "clean"),
        Claim("at the bottom alone it is worse than batch norm", "streets", BASE, _place("bottom"),
              "clean"),
        Claim(LATE, "actions", BASE, _place("late"), "clean"),
        Claim(BUT_LAST, "actions", _place("but last"), INSTANCE, "clean"),
        Claim("with batch norm in its last stage alone a 3D-ResNet of instance norms is no worse "
              "than one of batch norms", "actions", _place("but last"), BASE, "clean", -MARGIN),
        Claim(FIFTY, "actions", _rival("unstrided", "instance"), INSTANCE, "clean"),
        Claim("with fifty positions there it is still worse than batch norm with as many",
              "actions", _rival("unstrided"), _rival("unstrided", "instance"), "clean"),
        Claim(BOTH, "actions", ("instance", "but last", "unstrided"), INSTANCE, "clean"),
        Claim(BOTH_NO_WORSE, "actions", ("instance", "but last", "unstrided"),
              _rival("unstrided"), "clean", -MARGIN),
        Claim(BUT_TWO, "actions", _place("but last two"), INSTANCE, "clean"),
        Claim("with batch norm in its last two stages a 3D-ResNet of instance norms is no worse "
              "than one of batch norms", "actions", _place("but last two"), BASE, "clean",
              -MARGIN),
        Claim("early in a 3D-ResNet it is no worse than batch norm", "actions", _place("early"),
              BASE, "clean", -MARGIN),
    ),
    "Control": (
        Claim("a norm over the batch under instance norm's name is worse than instance norm",
              "streets", INSTANCE, _norm(BROKEN), "other sensors"),
        Claim("a norm over the batch under instance norm's name is worse than instance norm",
              "actions", INSTANCE, _norm(BROKEN), "gain"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Advice:
    """What to use, and the results of claims that it rests on.

    Args:
        says: what to use in which situation.
        rests: of each claim that it rests on: what the claim says, "streets" or "actions", the
            test, and the result that it must have.
    """

    says: str
    rests: tuple[tuple[str, str, str, str], ...]

    def shown(self, rows: Sequence[Row]) -> bool:
        """Return whether the rows have every result that the advice rests on."""
        known = {(claim.says, claim.data, claim.test): claim
                 for claims in CLAIMS.values() for claim in claims}  # fmt: skip
        return all(judge(known[*about], rows)[0] == result for *about, result in self.rests)


ADVICE = (
    Advice(
        '**Scans, a MinkUNet: instance norm in place of batch norm** (`norm="instance"`). It is '
        "better on another sensor, also than batch norm that is adapted at the test or trained "
        "with augmentation, better in other weather, and better where nothing changes.",
        (
            (BETTER, "streets", "other sensors", HOLDS),
            (BETTER, "streets", "Robo3D", HOLDS),
            ("batch norm is better than instance norm", "streets", "clean", REFUTED),
            ("instance norm is better than AdaBN", "streets", "other sensors", HOLDS),
            ("instance norm is better than Tent", "streets", "other sensors", HOLDS),
            ("instance norm is better than batch norm with augmentation", "streets",
             "other sensors", HOLDS),
        ),
    ),
    Advice(
        "**IBN-a is a choice, too**: no worse than batch norm where nothing changes, and better in "
        "other weather and on damaged scans.",
        (
            ("IBN-a is no worse than batch norm", "streets", "clean", HOLDS),
            ("IBN-a is better than batch norm", "streets", "Robo3D", HOLDS),
        ),
    ),
    Advice(
        "**Better still, an instance norm of the intensity alone**: batch norm inside the network, "
        'and in front of it `input_norm={3: "instance"}`. It is better than instance norm '
        "everywhere where nothing changes, on other sensors and under corruptions of intensity, "
        "density and range, and worse in other weather.",
        (
            (INTENSITY_ALONE, "streets", "clean", HOLDS),
            (INTENSITY_ALONE, "streets", "other sensors", HOLDS),
            (INTENSITY_ALONE, "streets", "other corruptions", HOLDS),
            (INTENSITY_ALONE, "streets", "Robo3D", REFUTED),
        ),
    ),
    Advice(
        "**The smallest step from batch norm is an instance norm at the stem alone** "
        '(`norm={"default": "batch", "stem": "instance"}`): better than batch norm on other '
        "sensors and where nothing changes, and on other sensors no worse than instance norm "
        "everywhere.",
        (
            (STEM, "streets", "clean", HOLDS), (STEM, "streets", "other sensors", HOLDS),
            (STEM_ALONE, "streets", "other sensors", HOLDS),
        ),
    ),
    Advice(
        "**From simulated towns to the real scan, instance norm everywhere does not help**: it is "
        "worse than batch norm there, also within 30 m, and no norm gets far. Whether it helps at "
        "the stem alone, five seeds do not tell. [Scenes that are nearer to it](training_scans.md) "
        "do.",
        (
            (BETTER, "streets", REAL, REFUTED), (BETTER, "streets", NEAR, REFUTED),
            (STEM, "streets", REAL, UNDECIDED),
        ),
    ),
    Advice(
        "**Clips, a 3D-ResNet: batch norm, with the statistics of the test's clips where these "
        "are at hand** (AdaBN): that is better under Mini Kinetics-C. Instance norm everywhere "
        "loses. Batch norm in front of the global pooling and fifty positions in the last two "
        "stages, not nine and four, make it better together, which neither is shown to do alone, "
        "but not as good as batch norm.",
        (
            ("batch norm is better than instance norm", "actions", "clean", HOLDS),
            (BETTER, "actions", "Mini Kinetics-C", REFUTED),
            (ADABN, "actions", "Mini Kinetics-C", HOLDS),
            (BUT_LAST, "actions", "clean", UNDECIDED), (FIFTY, "actions", "clean", UNDECIDED),
            (BOTH, "actions", "clean", HOLDS), (BOTH_NO_WORSE, "actions", "clean", REFUTED),
        ),
    ),
)  # fmt: skip


def scores_of(rows: Sequence[Row], data: str, entry: Entry, test: str) -> dict[int, float]:
    """Return the score of an entry in a group of tests, or a single test, by seed."""
    found = {}
    for seed, row in judged(rows, data).get(entry, {}).items():
        known = tests_of(row.scores) | groups_of(data, row.scores)
        if test in known:
            found[seed] = known[test]
    return found


def judge(claim: Claim, rows: Sequence[Row]) -> tuple[str, list[float]]:
    """Return what the rows say of a claim, and the differences by seed."""
    one, other = (scores_of(rows, claim.data, entry, claim.test)
                  for entry in (claim.one, claim.other))  # fmt: skip
    shared = sorted(one.keys() & other.keys())
    differences = [one[seed] - other[seed] for seed in shared
                   if not claim.seeds or seed in claim.seeds]  # fmt: skip
    if len(differences) < FEWEST_SEEDS:
        return NOT_RUN, differences
    interval = Interval.of(differences)
    if interval.low > claim.above:
        return HOLDS, differences
    return (REFUTED if interval.high < claim.above else UNDECIDED), differences


def best(rows: Sequence[Row], data: str, test: str, choices: Sequence[Entry]) -> list[Entry]:
    """Return the entry of the highest mean, and all that are not shown to be worse.

    Entries of too few seeds are left out.

    Args:
        rows: of the grid.
        data: "streets" or "actions".
        test: a group of tests or a single one.
        choices: to choose from.
    """
    scores = {entry: scores_of(rows, data, entry, test) for entry in choices}
    scores = {entry: each for entry, each in scores.items() if len(each) >= FEWEST_SEEDS}
    if not scores:
        return []
    order = sorted(scores, key=lambda entry: -fmean(scores[entry].values()))
    first = order[0]
    found = [first]
    for entry in order[1:]:
        shared = sorted(scores[first].keys() & scores[entry].keys())
        lead = [scores[first][seed] - scores[entry][seed] for seed in shared]
        if len(lead) >= FEWEST_SEEDS and Interval.of(lead).low <= 0:
            found.append(entry)
    return found


def plain(data: str) -> list[Entry]:
    """Return the norms everywhere, without a rival and without the control."""
    return [entry for entry in entries(data) if entry[1:] == BASE[1:] and entry[0] != BROKEN]


def named(found: Sequence[Entry]) -> str:
    """Return entries in words, the best first."""
    return ", ".join(map(name_of, found)) or NOT_RUN
