"""Evaluate checkpoints under shift, and write and show the results."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

import geonorm
from geonorm.files import sha256_of, written_whole
from geonorm.names import choices
from geonorm.training.run_report import write_own_report
from geonorm.training.shift.cells import Cells
from geonorm.training.shift.comparison import OTHERS, Comparison, as_json, as_markdown
from geonorm.training.shift.evaluate import Task, evaluate
from geonorm.training.shift.heat_map import draw
from geonorm.training.shift.measures import Scores
from geonorm.training.shift.score_files import read_baseline, write_scores
from geonorm.training.shift.tasks import Judged


@dataclass(frozen=True)
class Options:
    """Options of an evaluation.

    Args:
        samples: how many scans or videos, spread over all; "all", or None for some minutes' work.
        corruptions: which; None for all.
        seed: of the corruptions and the resamples.
        resamples: bootstrap resamples for the intervals.
        resume: go on with what was counted before.

    Raises:
        ValueError: no sample, a negative seed, or fewer than 100 resamples.
    """

    samples: int | Literal["all"] | None = None
    corruptions: Sequence[str] | None = None
    seed: int = 0
    resamples: int = 1000
    resume: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.samples, int) and self.samples < 1:
            raise ValueError(f"--samples must be 1 or more, or all; got {self.samples}")
        if self.seed < 0:
            raise ValueError(f"--seed must be 0 or more; got {self.seed}")
        if self.resamples < 100:
            raise ValueError(
                "--resamples must be 100 or more, as an interval leaves out 2.5% of them on each "
                f"side; got {self.resamples}"
            )


def evaluate_checkpoints(
    judged: Judged,
    checkpoints: Sequence[Path],
    folder: Path,
    options: Options = Options(),
    names: Sequence[str] | None = None,
    baseline: str | None = None,
) -> Comparison:
    """Judge checkpoints under every corruption, or go on with it, and return the comparison.

    Args:
        judged: the checkpoints' networks and data.
        checkpoints: their files.
        folder: where counts are kept.
        options: what is judged.
        names: of the networks; by default their descriptions.
        baseline: what CE divides by, one of the checkpoints, its name, or a CSV file of scores.

    Raises:
        ValueError: an unknown corruption or baseline, names that are not as many as checkpoints
            or twice the same, or no corruption that applies.
    """
    task = judged.task
    called = network_names(checkpoints, names, judged.titles)
    corruptions = known_corruptions(task, options.corruptions)
    base = find_baseline(baseline, called, checkpoints, corruptions)
    items = spread(judged.total, options.samples or judged.samples)
    digests = [sha256_of(checkpoint) for checkpoint in checkpoints]
    kept = [
        Cells(folder / "cells", _header(judged, each), resume=options.resume) for each in digests
    ]
    found, left_out = evaluate(
        task, kept, items, corruptions, options.resamples, options.seed
    )
    networks = dict(zip(called, found, strict=True))
    groups = {
        task.benchmark: [name for name in task.standard if name in found[0].corrupted],
        OTHERS: [name for name in found[0].corrupted if name not in task.standard],
    }
    if not found[0].corrupted:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise ValueError(f"not one corruption applies to these data: {reasons}")
    return Comparison(
        networks,
        {group: members for group, members in groups.items() if members},
        judged.score,
        (base, networks[base]) if isinstance(base, str) else base,
        left_out,
        {task.benchmark: len(task.standard)},
        {
            "samples": len(items), "of": judged.total, "unit": task.unit,
            "resamples": options.resamples, "geonorm": geonorm.__version__, **judged.facts,
            "checkpoints": {
                name: {"file": str(file), "sha256": digest}
                for name, file, digest in zip(called, checkpoints, digests, strict=True)
            },
        },
    )  # fmt: skip


def _header(judged: Judged, checkpoint: str) -> dict[str, object]:
    return {
        "checkpoint": checkpoint, "benchmark": judged.task.benchmark,
        "geonorm": geonorm.__version__, **judged.facts,
    }  # fmt: skip


def spread(total: int, samples: int | Literal["all"]) -> list[int]:
    """Return numbers of items spread evenly over a dataset.

    >>> spread(10, 4)
    [0, 3, 6, 9]
    """
    count = total if samples == "all" else min(samples, total)
    numbers: list[int] = np.linspace(0, total - 1, count).round().astype(int).tolist()
    return numbers


def network_names(
    checkpoints: Sequence[Path], names: Sequence[str] | None, titles: Sequence[str]
) -> list[str]:
    """Return a name for each checkpoint, its description where none is given.

    Raises:
        ValueError: not one name for each, the same twice, or the same checkpoint twice.
    """
    if len({checkpoint.resolve() for checkpoint in checkpoints}) < len(checkpoints):
        raise ValueError(
            f"each checkpoint must be given once; got {', '.join(map(str, checkpoints))}"
        )
    if names is None:
        found: list[str] = []
        for title in titles:
            before = titles[: len(found)].count(title)
            found.append(f"{title} ({before + 1})" if before else title)
        return found
    if len(names) != len(checkpoints) or len({*names}) < len(names):
        raise ValueError(
            f"--names must be {len(checkpoints)} different names, one for each checkpoint; got "
            f"{', '.join(names)}"
        )
    return [*names]


def known_corruptions(task: Task, wanted: Sequence[str] | None) -> list[str]:
    """Return the wanted corruptions in the task's order, all where none are named.

    Raises:
        ValueError: an unknown one.
    """
    for name in wanted or ():
        if name not in task.corruptions:
            raise ValueError(f"no corruption {name!r}; {choices(name, task.corruptions)}")
    return [name for name in task.corruptions if not wanted or name in wanted]


def find_baseline(
    baseline: str | None,
    names: Sequence[str],
    checkpoints: Sequence[Path],
    corruptions: Sequence[str],
) -> str | tuple[str, Scores] | None:
    """Return the name of the network that is the baseline, or what a file tells of another.

    Raises:
        ValueError: it is none of the networks, and the file is bad.
    """
    if baseline is None or baseline in names:
        return baseline
    for name, checkpoint in zip(names, checkpoints, strict=True):
        if checkpoint.resolve() == Path(baseline).resolve():
            return name
    if Path(baseline).suffix == ".csv":
        return read_baseline(Path(baseline), corruptions)
    raise ValueError(
        f"--baseline must be a CSV file of scores or one of the checkpoints and their names "
        f"{', '.join(names)}; got {baseline!r}"
    )


def write_results(comparison: Comparison, folder: Path) -> None:
    """Write scores.csv, scores.json, table.md, heat_map.png and report.html, each complete.

    Args:
        comparison: what is written.
        folder: that of `evaluate_checkpoints`.
    """
    with written_whole(folder / "scores.csv") as aside:
        write_scores(comparison, aside)
    with written_whole(folder / "scores.json") as aside:
        aside.write_text(json.dumps(as_json(comparison), indent=2) + "\n", encoding="utf-8")
    with written_whole(folder / "table.md") as aside:
        aside.write_text(as_markdown(comparison), encoding="utf-8")
    draw(comparison, folder / "heat_map.png")
    write_own_report(folder)
