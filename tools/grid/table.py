"""The tables of the grid from its rows and nothing else; what has no row is «not run yet»."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from statistics import fmean

from geonorm.datasets.clip_corruptions import MINI_KINETICS_C
from geonorm.datasets.scan_corruptions import ROBO3D
from geonorm.studies.outcome import Interval
from geonorm.tables import as_markdown
from grid.cells import EVERYWHERE, RATES, Cell, grid
from grid.rows import Row, best_rate
from grid.streets import NEAR, OTHER_SENSORS, REAL

OPEN = "not run yet"
BASE = ("batch", EVERYWHERE, "")
TITLES = {"streets": "Streets, mIoU of a MinkUNet", "actions": "Actions, top-1 of a 3D-ResNet"}
BENCHMARKS = {"streets": ("Robo3D", ROBO3D), "actions": ("Mini Kinetics-C", MINI_KINETICS_C)}
HEAD = """# Every norm under every shift

Written from [experiments.csv](experiments.csv) by `tools/experiments.py --table true`. Each number
is a mean over the seeds of short trainings, in percent, with the ends of its 95% interval
(Student's t) where there are two seeds or more. The trainings are far from what long ones reach,
and the intervals tell of other seeds on the same test data: the real scan is one scan.

A corruption is judged at two levels, the heaviest and one in the middle, and scores are means over
them; so they are not those of the benchmarks. The learning rate of each norm and place is the best
of three on validation data, with a seed that is not among those judged; a rival has the rate of the
norm that it is added to. What each row does is said in `tools/grid/cells.py` and
`tools/grid/rivals.py`.
"""
Entry = tuple[str, str, str]  # norm, place, rival


def tests_of(scores: Mapping[str, float]) -> dict[str, float]:
    """Return the score of each test, the mean over its levels; without those of single classes.

    >>> tests_of({"clean": 0.5, "fog 2": 0.25, "fog 3": 0.75, "16 beams": 0.125, "a: b": 0.0})
    {'clean': 0.5, 'fog': 0.5, '16 beams': 0.125}
    """
    found: dict[str, list[float]] = {}
    for name, score in scores.items():
        test, _, level = name.rpartition(" ")
        if ": " not in name:
            found.setdefault(test if test and level.isdigit() else name, []).append(score)
    return {test: fmean(each) for test, each in found.items()}


def groups_of(data: str, scores: Mapping[str, float]) -> dict[str, float]:
    """Return the score of each group of tests, the mean over its tests.

    Args:
        data: "streets" or "actions".
        scores: of a row.
    """
    each = tests_of(scores)
    benchmark, names = BENCHMARKS[data]
    apart = {"clean", REAL, NEAR, *OTHER_SENSORS}
    groups = {
        "clean": ["clean"],
        "other sensors": [*OTHER_SENSORS],
        benchmark: [*names],
        "other corruptions": [name for name in each if name not in (*names, *apart)],
        REAL: [REAL],
        NEAR: [NEAR],
    }
    return {
        group: fmean(each[test] for test in tests)
        for group, tests in groups.items() if tests and all(test in each for test in tests)
    }  # fmt: skip


def judged(rows: Iterable[Row], data: str) -> dict[Entry, dict[int, Row]]:
    """Return the rows of each entry by seed."""
    found: dict[Entry, dict[int, Row]] = {}
    for row in rows:
        cell = row.cell
        if cell.data == data and not cell.rate and cell.variant == "plain":
            found.setdefault((cell.norm, cell.place, cell.rival), {})[cell.seed] = row
    return found


def entries(data: str) -> list[Entry]:
    """Return the entries of the tables in the order of the grid."""
    cells = (cell for cell in grid() if cell.data == data and not cell.rate)
    return [*dict.fromkeys((cell.norm, cell.place, cell.rival) for cell in cells)]


def name_of(entry: Entry) -> str:
    """Return the name of an entry in the tables."""
    norm, place, rival = entry
    words = [norm if place == EVERYWHERE else f"{norm} ({place})", rival]
    return " + ".join(word for word in words if word)


def in_percent(values: Sequence[float], sign: str = "") -> str:
    """Return a mean in percent with its interval, signed on demand."""
    if not values:
        return OPEN
    mean, low, high = (100 * value for value in Interval.of(values))
    ends = f" [{low:{sign}.1f}, {high:{sign}.1f}]" if len(values) > 1 else ""
    return f"{mean:{sign}.1f}{ends}"


def scores_table(rows: Sequence[Row], data: str) -> str:
    """Return the score of every entry in every group of tests."""
    seen = judged(rows, data)
    named = {entry: [groups_of(data, row.scores) for row in seen.get(entry, {}).values()]
             for entry in entries(data)}  # fmt: skip
    columns = [*dict.fromkeys(group for each in named.values() for one in each for group in one)]
    columns = columns or ["clean"]
    lines = [["norm", "seeds", *columns]]
    for entry, each in named.items():
        cells = [in_percent([one[group] for one in each if group in one]) for group in columns]
        lines.append([name_of(entry), f"{len(each)} of {_seeds(entry, data)}", *cells])
    return as_markdown(lines)


def _seeds(entry: Entry, data: str) -> int:
    return sum((cell.data, cell.norm, cell.place, cell.rival) == (data, *entry)
               and not cell.rate and cell.variant == "plain" for cell in grid())  # fmt: skip


def differences_table(rows: Sequence[Row], data: str) -> str:
    """Return by how much every entry differs from batch norm, seed by seed."""
    seen = judged(rows, data)
    base = seen.get(BASE, {})
    columns: dict[str, None] = {}
    found: dict[Entry, list[dict[str, float]]] = {}
    for entry in entries(data):
        if entry == BASE:
            continue
        found[entry] = []
        for seed, row in seen.get(entry, {}).items():
            if seed in base:
                own, other = (groups_of(data, each.scores) for each in (row, base[seed]))
                found[entry].append({group: own[group] - other[group]
                                     for group in own if group in other})  # fmt: skip
                columns |= dict.fromkeys(found[entry][-1])
    lines = [["norm", *(columns or ["clean"])]]
    for entry, each in found.items():
        cells = [in_percent([one[group] for one in each if group in one], "+")
                 for group in lines[0][1:]]  # fmt: skip
        lines.append([name_of(entry), *cells])
    return as_markdown(lines)


def tests_table(rows: Sequence[Row], data: str) -> str:
    """Return the mean score of every norm in every single test."""
    seen = judged(rows, data)
    plain = [entry for entry in entries(data) if entry[1:] == BASE[1:]]
    means = {entry: [tests_of(row.scores) for row in seen.get(entry, {}).values()]
             for entry in plain}  # fmt: skip
    tests = dict.fromkeys(test for each in means.values() for one in each for test in one)
    lines = [["test", *map(name_of, plain)]]
    for test in tests:
        values = ([one[test] for one in means[entry] if test in one] for entry in plain)
        lines.append([test, *(f"{100 * fmean(each):.1f}" if each else "" for each in values)])
    return as_markdown(lines)


def rates_table(rows: Sequence[Row], data: str) -> str:
    """Return the validation score of every learning rate; the chosen one is bold."""
    lines = [["norm", *(f"base times {rate}" for rate in RATES)]]
    tuned = dict.fromkeys(cell.tuned for cell in grid() if cell.data == data and cell.rate)
    for _, norm, place in tuned:
        found = {row.rate: row for row in rows
                 if row.cell.rate and row.cell.tuned == (data, norm, place)}  # fmt: skip
        best = best_rate(rows, Cell(data, norm, place))
        cells = []
        for rate in RATES:
            mark = "**" if rate == best else ""
            score = f"{mark}{100 * found[rate].validation:.1f}{mark}" if rate in found else OPEN
            cells.append(score)
        lines.append([name_of((norm, place, "")), *cells])
    return as_markdown(lines)


def variants_table(rows: Sequence[Row]) -> str:
    """Return how networks do on the real scan that were trained on each kind of streets."""
    cells = [replace(cell, seed=0) for cell in grid() if cell.data == "streets" and not cell.rate]
    lines = [["norm", "trained on", "seeds", "clean", REAL, NEAR]]
    kinds: dict[Cell, list[Cell]] = {}  # on plain streets first, then on the others
    for cell in dict.fromkeys(cell for cell in cells if cell.variant != "plain"):
        plain = replace(cell, variant="plain")
        kinds.setdefault(plain, [plain]).append(cell)
    for cell in chain.from_iterable(kinds.values()):
        each = [row.scores for row in rows if replace(row.cell, seed=0) == cell]
        values = [in_percent([scores[test] for scores in each]) for test in ("clean", REAL, NEAR)]
        name = name_of((cell.norm, cell.place, cell.rival))
        lines.append([name, cell.variant, f"{len(each)} of {cells.count(cell)}", *values])
    return as_markdown(lines)


def gap_table(rows: Sequence[Row]) -> str:
    """Return what part of the gap to the real scan each entry closes, on each kind of streets.

    The gap is that of batch norm, trained on plain streets with the same seed: from its score on
    those to its score on the real scan.
    """
    base = judged(rows, "streets").get(BASE, {})
    found: dict[Cell, list[float]] = {
        replace(cell, seed=0): [] for cell in grid() if cell.data == "streets" and not cell.rate
    }
    for row in rows:
        kind = replace(row.cell, seed=0)
        if kind in found and row.cell.seed in base:
            start = base[row.cell.seed].scores
            found[kind].append((row.scores[REAL] - start[REAL]) / (start["clean"] - start[REAL]))
    lines = [["norm", "trained on", "seeds", "closed, %"]]
    for cell, each in found.items():
        entry = cell.norm, cell.place, cell.rival
        if (entry, cell.variant) != (BASE, "plain"):
            lines.append([name_of(entry), cell.variant, str(len(each)), in_percent(each, "+")])
    return as_markdown(lines)


def page(rows: Sequence[Row]) -> str:
    """Return the page of all tables.

    Args:
        rows: of the grid.
    """
    parts = [HEAD]
    for data, title in TITLES.items():
        parts += [
            f"## {title}", scores_table(rows, data),
            "By how much each differs from batch norm of the same seed, in points:",
            differences_table(rows, data), "Every test, norms everywhere:",
            tests_table(rows, data), "Learning rates, on validation data:",
            rates_table(rows, data),
        ]  # fmt: skip
    parts += [
        "## Streets that are nearer to the real scan",
        "Suburbs are described in [](training_scans.md); `clean` are towns. The real scan is one "
        "scan: intervals are over seeds only.",
        variants_table(rows),
        "What part each closes of the gap to the real scan that batch norm on plain streets has. "
        "It is 0 where an entry scores on the real scan what batch norm does, and 100 where it "
        "scores there what batch norm scores on its own streets:",
        gap_table(rows),
    ]
    spent = sum(row.cpu_s for row in rows) / 3600
    commits = ", ".join(dict.fromkeys(row.commit for row in rows)) or "none"
    parts.append(f"{len(rows)} cells, {spent:.1f} hours of processor time, at commits {commits}.")
    return "\n\n".join(parts) + "\n"
