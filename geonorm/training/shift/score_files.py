"""Scores in CSV files: those that `geonorm evaluate-shift` wrote, and those obtained elsewhere."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from geonorm.training.shift.comparison import COLUMNS, OTHERS, Comparison, rows
from geonorm.training.shift.evaluate import CLEAN
from geonorm.training.shift.measures import MEAN, Scores

# The corruptions of each benchmark, of which a file may have fewer.
SIZES = {"Robo3D": 8, "Mini Kinetics-C": 12}
NEEDED = ("corruption", "level", "score")


def write_scores(comparison: Comparison, path: Path) -> None:
    """Write a row for each network, corruption and level."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows(comparison))


def read_scores(path: Path) -> tuple[dict[str, Scores], dict[str, list[str]]]:
    """Return the scores of each network in a file, and the corruptions of each group.

    The columns are `corruption`, `level`, which may be empty for a mean over levels, and `score`;
    `network` and `group`, if they are there, tell several apart. A row `clean` is needed. Where any
    score is above 1, all of the file's are taken as percent.

    Args:
        path: a CSV file.

    Raises:
        ValueError: the file is missing, lacks a column or the row `clean`, or has a row that is no
            score, twice the same, or both a mean and levels of a corruption; or a clean score is 0.
    """
    lines = _lines(path)
    percent = max(line[3] for line in lines) > 1
    networks: dict[str, dict[str, dict[int | None, np.ndarray]]] = {}
    groups: dict[str, dict[str, None]] = {}
    for network, name, level, score, group in lines:
        levels = networks.setdefault(network, {}).setdefault(name, {})
        if level in levels or (levels and MEAN in (level, *levels)):
            raise ValueError(
                f"{path}: {name} has a row too many{_of(network)}; expected one for each level, or "
                "one with an empty level for their mean"
            )
        levels[level] = np.array([score / 100 if percent else score])
        if name != CLEAN:
            groups.setdefault(group, {})[name] = None
    for network, found in networks.items():
        if MEAN not in found.get(CLEAN, {}):
            raise ValueError(
                f"{path} has no row `clean` with an empty level{_of(network)}; the score without "
                "corruption is needed"
            )
        if not found[CLEAN][MEAN][0] > 0:
            raise ValueError(
                f"{path}: the clean score must be above 0{_of(network)}, as others are divided by "
                f"it; got {found[CLEAN][MEAN][0]}"
            )
        if len(found) == 1:
            raise ValueError(f"{path} has no score of a corruption{_of(network)}, only the clean")
    scores = {
        network: Scores(found.pop(CLEAN)[MEAN], found) for network, found in networks.items()
    }
    return scores, {group: [*names] for group, names in groups.items()}


def _of(network: str) -> str:
    return f" of {network}" if network else ""


def _lines(path: Path) -> list[tuple[str, str, int | None, float, str]]:
    """Return network, corruption, level, score as it stands, and group of each row."""
    if not path.is_file():
        raise ValueError(f"no file {path}; expected a CSV file with columns {', '.join(NEEDED)}")
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = [name for name in NEEDED if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(
                f"{path} must have the columns {', '.join(NEEDED)}; it lacks {', '.join(missing)}"
            )
        lines = []
        for number, row in enumerate(reader, start=2):
            try:
                level = int(row["level"]) if row["level"].strip() else MEAN
                score = float(row["score"])
            except (ValueError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"{path}, line {number}: level must be a whole number or empty, and score a "
                    f"number; got {row['level']!r} and {row['score']!r}"
                ) from error
            if level is not MEAN and level < 1:
                raise ValueError(f"{path}, line {number}: level must be 1 or more; got {level}")
            if not 0 <= score <= 100:
                raise ValueError(
                    f"{path}, line {number}: a score must be in [0, 1], or percent in [0, 100]; "
                    f"got {row['score']}"
                )
            name = row["corruption"].strip()
            lines.append((row.get("network") or "", name, level, score, row.get("group") or ""))
    if not lines:
        raise ValueError(f"{path} has no rows below its columns {', '.join(NEEDED)}")
    return lines


def summary(path: Path, baseline: Path | None) -> Comparison:
    """Return the comparison that files of scores tell.

    Args:
        path: scores of one or several networks.
        baseline: scores of one network, that CE divides by.

    Raises:
        ValueError: a file is bad, the networks have other corruptions, the baseline's file has
            several networks, or none of the corruptions.
    """
    networks, groups = read_scores(path)
    named = {name or path.stem: scores for name, scores in networks.items()}
    first, *others = named.items()
    for name, scores in others:
        if scores.corrupted.keys() != first[1].corrupted.keys():
            raise ValueError(
                f"{path}: {name} and {first[0]} must have the same corruptions; got "
                f"{', '.join(scores.corrupted)} and {', '.join(first[1].corrupted)}"
            )
    by_group = {group or OTHERS: names for group, names in groups.items()}
    if [*groups] == [""]:
        by_group = {"all": groups[""]}
    base = None if baseline is None else read_baseline(baseline, [*first[1].corrupted])
    return Comparison(named, by_group, "score", base, sizes=SIZES)


def read_baseline(path: Path, corruptions: Sequence[str]) -> tuple[str, Scores]:
    """Return the name and the scores of a baseline in a file.

    Args:
        path: the file.
        corruptions: those of a network that is compared with it.

    Raises:
        ValueError: the file is bad, or has several networks or none of the corruptions.
    """
    networks, _ = read_scores(path)
    if len(networks) != 1:
        raise ValueError(
            f"the baseline must be one network; {path} has {', '.join(networks)}. Leave one in"
        )
    (name, scores), = networks.items()
    if not scores.corrupted.keys() & {*corruptions}:
        raise ValueError(
            f"the baseline {path} has none of the corruptions {', '.join(corruptions)}; it "
            f"has {', '.join(scores.corrupted)}"
        )
    return name or path.stem, scores
