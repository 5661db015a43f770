"""Scores and measures of several networks side by side: as rows, as JSON and as a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from geonorm import tables
from geonorm.training.shift.bootstrap import interval
from geonorm.training.shift.evaluate import CLEAN
from geonorm.training.shift.measures import MEAN, Measures, Scores, mean_over, measure

COLUMNS = ("network", "group", "corruption", "level", "score", "low", "high")
OTHERS = "others"


@dataclass(frozen=True)
class Comparison:
    """The scores of networks on the same data.

    Args:
        networks: scores by the name of the network.
        groups: corruptions by the name of the group over which means go, such as Robo3D.
        score: what the score is, such as mIoU.
        baseline: name and scores of what CE divides by.
        left_out: why each corruption that is not here does not apply.
        sizes: how many corruptions each group would have, where some are left out.
        about: further facts, for the JSON file.
    """

    networks: Mapping[str, Scores]
    groups: Mapping[str, Sequence[str]]
    score: str
    baseline: tuple[str, Scores] | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    def measures(self, network: str) -> dict[str, dict[str, Measures]]:
        """Return the measures of a network by group and corruption."""
        baseline = None if self.baseline is None else self.baseline[1]
        each = measure(self.networks[network], baseline)
        return {group: {name: each[name] for name in names} for group, names in self.groups.items()}

    def notes(self) -> list[str]:
        """Return what a reader must know: what was left out, and what CE divides by."""
        notes = [
            "In percent. RR: part of the clean score that is left; in the mean rows stand mPC, mRR "
            "(for videos called rPC)" + (" and mCE." if self.baseline else "."),
        ]
        notes += [f"left out: {name}: {reason}" for name, reason in self.left_out.items()]
        if self.baseline is None:
            return notes
        name, scores = self.baseline
        notes.append(f"CE is by {name}")
        lacking = [each for names in self.groups.values() for each in names
                   if each not in scores.corrupted]  # fmt: skip
        if lacking:
            notes.append(f"no CE, as the baseline has no score: {', '.join(lacking)}")
        return notes

    def _repr_html_(self) -> str:
        """Return the table and the notes, for notebooks."""
        return tables.as_html(table(self), self.notes())


def rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Return a row for each network, corruption and level, the clean score first."""
    found = []
    for network, scores in comparison.networks.items():
        parts: list[tuple[str, str, int | None, np.ndarray]] = [("", CLEAN, MEAN, scores.clean)]
        for group, names in comparison.groups.items():
            for name in names:
                levels = scores.corrupted[name]
                parts += [(group, name, level, values) for level, values in levels.items()]
        for group, name, level, values in parts:
            cells = (network, group, name, "" if level is MEAN else level, *interval(values))
            found.append(dict(zip(COLUMNS, cells, strict=True)))
    return found


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Return all scores and measures with their intervals."""
    return {
        "score": comparison.score,
        **comparison.about,
        "baseline": comparison.baseline and comparison.baseline[0],
        "left_out": dict(comparison.left_out),
        "networks": {name: _network_json(comparison, name) for name in comparison.networks},
    }


def _network_json(comparison: Comparison, network: str) -> dict[str, Any]:
    scores = comparison.networks[network]
    groups = {}
    for group, each in comparison.measures(network).items():
        groups[group] = {
            "mean": _measures_json(mean_over([*each.values()])),
            "corruptions": {
                name: {
                    **_measures_json(measures),
                    "levels": {
                        str(level): _json(values)
                        for level, values in scores.corrupted[name].items() if level is not MEAN
                    },
                }
                for name, measures in each.items()
            },
        }  # fmt: skip
    return {"clean": _json(scores.clean), "groups": groups}


def _measures_json(measures: Measures) -> dict[str, Any]:
    return {
        "score": _json(measures.score),
        "retained": _json(measures.retained),
        "error": None if measures.error is None else _json(measures.error),
        "over": measures.over,
        "error_over": measures.error_over,
    }


def _json(values: np.ndarray) -> list[float | None]:
    """Return the score, low and high; JSON has no NaN."""
    value, low, high = interval(values)
    return [value if np.isfinite(value) else None, low, high]


def percent(values: np.ndarray | None) -> str:
    """Return a score in percent, with its interval.

    >>> percent(np.array([0.1234]))
    '12.34'
    """
    if values is None:
        return ""
    value, low, high = interval(values)
    return _digits(value) if low is None or high is None else (
        f"{_digits(value)} [{_digits(low)}, {_digits(high)}]"
    )


def _digits(share: float) -> str:
    return f"{100 * share:.2f}" if np.isfinite(share) else "none"


def as_markdown(comparison: Comparison) -> str:
    """Return the table of all networks, in percent, and the notes."""
    written = tables.as_markdown(table(comparison))
    return "\n".join([written, "", *comparison.notes()]) + "\n"


def table(comparison: Comparison) -> list[list[str]]:
    """Return the lines of the table of all networks, in percent, the first its head."""
    single = len(comparison.networks) == 1
    columns = [comparison.score, "RR", *(["CE"] if comparison.baseline else [])]
    head = ["corruption"] + [
        column if single else f"{network}: {column}"
        for network in comparison.networks for column in columns
    ]
    lines = [head, ["clean"]]
    for scores in comparison.networks.values():
        lines[-1] += [percent(scores.clean), *[""] * (len(columns) - 1)]
    each = [comparison.measures(network) for network in comparison.networks]
    for group, names in comparison.groups.items():
        lines += [[name, *_cells([m[group][name] for m in each], columns)] for name in names]
        means = [mean_over([*m[group].values()]) for m in each]
        lines.append([_mean_name(comparison, group, means[0]), *_cells(means, columns)])
    return lines


def _cells(each: Sequence[Measures], columns: Sequence[str]) -> list[str]:
    return [percent(values) for m in each
            for values in (m.score, m.retained, m.error)[: len(columns)]]  # fmt: skip


def _mean_name(comparison: Comparison, group: str, measures: Measures) -> str:
    """Return the name of a row of means, which says over how many corruptions they go."""
    size = comparison.sizes.get(group, measures.over)
    count = str(size) if measures.over == size else f"{measures.over} of {size}"
    error = "" if measures.error_over in (0, measures.over) else f"; CE {measures.error_over}"
    return f"**mean of {group} ({count}{error})**"
