"""docs/which_norm.md and its figure, written from the rows."""

from collections.abc import Sequence
from pathlib import Path

from geonorm.studies.outcome import Interval
from geonorm.tables import as_markdown
from geonorm.training.figures import plt
from grid.cells import BROKEN
from grid.claims import (
    ADVICE,
    CLAIMS,
    FEWEST_SEEDS,
    HOLDS,
    NOT_RUN,
    REFUTED,
    UNDECIDED,
    Claim,
    best,
    judge,
    named,
    plain,
    scores_of,
)  # fmt: skip
from grid.rows import Row
from grid.streets import NEAR, REAL
from grid.table import entries, in_percent, name_of

GROUPS = {
    "streets": ("clean", "other sensors", "Robo3D", "other corruptions", REAL, NEAR),
    "actions": ("clean", "Mini Kinetics-C", "other corruptions"),
}
KINDS = {"streets": "scans, MinkUNet", "actions": "clips, 3D-ResNet"}
HEAD = """# Which norm to use

Written from [experiments.csv](experiments.csv) by `tools/experiments.py --table true`; the full
tables are in [experiments](experiments.md). The networks are small and trained for minutes on
built-in data, so this page tells how norms differ, not how good a network gets. Every statement
below is a test on the rows, stated in `tools/grid/claims.py` before they were there: of the
differences between two entries, seed by seed, the 95% interval (Student's t) must lie on one side.
Where rows suggested a statement, only later seeds count, which are then named.
Test data are the same for all seeds, so the intervals tell of other trainings, and the real scan is
one scan.

## In short

Each of these stands here as long as the results below say so that it rests on:

{advice}

![Scores of every norm in every group of tests](figures/which_norm.png)

## What the rows say

In each situation, the norm of the highest mean, then all that are not shown to be worse than it (at
least {fewest} seeds each):

{table}
"""
OUT = "Differences are in points of mIoU for scans, and of top-1 for clips."


def _best_table(rows: Sequence[Row]) -> str:
    lines = [["data", "test", "norms", "anything in the grid"]]
    for data, groups in GROUPS.items():
        everything = [entry for entry in entries(data) if entry[0] != BROKEN]
        for group in groups:
            found = (best(rows, data, group, choices) for choices in (plain(data), everything))
            lines.append([KINDS[data], group, *map(named, found)])
    return as_markdown(lines)


def _conditions(claim: Claim) -> str:
    bound = f" (bound {100 * claim.above:+.0f})" if claim.above else ""
    return bound + (f" (seeds {', '.join(map(str, claim.seeds))})" if claim.seeds else "")


def _claims_table(claims: Sequence[Claim], rows: Sequence[Row]) -> str:
    lines = [["statement", "data", "test", "difference", "result"]]
    for claim in claims:
        result, differences = judge(claim, rows)
        known = in_percent(differences, "+") if result != NOT_RUN else ""
        shown = f"**{result}**" if result in (HOLDS, REFUTED) else result
        lines.append([claim.says, KINDS[claim.data], claim.test, known + _conditions(claim), shown])
    return as_markdown(lines)


def page(rows: Sequence[Row]) -> str:
    """Return docs/which_norm.md.

    Args:
        rows: of the grid.
    """
    advice = "\n".join(f"- {each.says}" for each in ADVICE if each.shown(rows)) or NOT_RUN
    parts = [HEAD.format(advice=advice, fewest=FEWEST_SEEDS, table=_best_table(rows)), OUT]
    results = [judge(claim, rows)[0] for claims in CLAIMS.values() for claim in claims]
    counts = [f"{results.count(each)} {each}" for each in (HOLDS, REFUTED, UNDECIDED, NOT_RUN)]
    parts.append(f"Of {len(results)} statements: {', '.join(counts)}.")
    for title, claims in CLAIMS.items():
        parts += [f"## {title}", _claims_table(claims, rows)]
    return "\n\n".join(parts) + "\n"


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw the mean of every norm in every group of tests, with its interval.

    Args:
        rows: of the grid.
        path: file to write.
    """
    figure, axes = plt.subplots(
        1, len(GROUPS), figsize=(11, 4.2), layout="constrained",
        width_ratios=[len(groups) for groups in GROUPS.values()],
    )  # fmt: skip
    for one, (data, groups) in zip(axes, GROUPS.items(), strict=True):
        norms = plain(data)
        for number, entry in enumerate(norms):
            places, means, ends = [], [], []
            for group_number, group in enumerate(groups):
                scores = list(scores_of(rows, data, entry, group).values())
                if scores:
                    interval = Interval.of(scores)
                    places.append(group_number + 0.12 * (number - (len(norms) - 1) / 2))
                    means.append(100 * interval.mean)
                    ends.append(100 * (interval.high - interval.mean))
            if places:
                one.errorbar(places, means, ends, fmt="o", markersize=4, capsize=2,
                             label=name_of(entry))  # fmt: skip
        one.set_xticks(range(len(groups)), [group.replace(" to", "\nto") for group in groups],
                       rotation=20)  # fmt: skip
        one.set_title(KINDS[data])
        one.set_ylabel("mIoU, %" if data == "streets" else "top-1, %")
        one.set_ylim(bottom=0)
        if not one.has_data():
            one.set_yticks([])
            one.text(0.5, 0.5, NOT_RUN, transform=one.transAxes, ha="center")
        one.grid(axis="y", alpha=0.3)
    if axes[0].has_data():
        axes[0].legend(fontsize=8, ncols=2)
    figure.savefig(path, dpi=110)
    plt.close(figure)
