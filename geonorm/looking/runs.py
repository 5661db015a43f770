"""The folder of a run or of an evaluation under shift, read as far as it is there."""

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from geonorm.training.confusion import read_matrix
from geonorm.training.metrics_file import METRICS, read_metrics

STAGES = ("val", "test")


@dataclass(frozen=True)
class Judgement:
    """What one validation or test has found.

    Args:
        scores: the content of its JSON file.
        matrix: counts by true and predicted class, (K, K), None where there are none.
        classes: their names.
        items: a row for each scan or video that was judged: its name and its scores.
        pictures: files of pictures by their title.
    """

    scores: dict[str, Any]
    matrix: np.ndarray | None
    classes: tuple[str, ...]
    items: list[dict[str, str]]
    pictures: dict[str, Path]

    @property
    def of_scans(self) -> bool:
        """True for scans, false for videos."""
        return "miou" in self.scores


@dataclass(frozen=True)
class Run:
    """A training, or a test of one.

    Args:
        name: its folder as it was given.
        config: value of every option, by its name with dots.
        versions: of the libraries and the machine, by stage.
        metrics: step and value of every number that was logged, (L, 2), by its name.
        judged: by "val" and "test".
        left_out: files that could not be read.
    """

    name: str
    config: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    metrics: dict[str, np.ndarray] = field(default_factory=dict)
    judged: dict[str, Judgement] = field(default_factory=dict)
    left_out: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Shift:
    """An evaluation under shift.

    Args:
        name: its folder as it was given.
        scores: the content of `scores.json`.
    """

    name: str
    scores: dict[str, Any]


def read_folder(folder: Path) -> Run | Shift:
    """Read the folder of a run, whether it ended or not, or of an evaluation under shift.

    Raises:
        ValueError: it is neither, or a file in it is damaged.
    """
    if (folder / "scores.json").is_file():
        return Shift(str(folder), _json(folder / "scores.json"))
    judged = {
        stage: _judgement(folder, stage) for stage in STAGES if (folder / f"{stage}.json").is_file()
    }
    config, metrics = folder / "config.yaml", folder / METRICS
    if not judged and not config.is_file() and not metrics.is_file():
        raise ValueError(
            f"{folder} is no folder of a run: it has no config.yaml, metrics.csv, val.json or "
            "test.json, nor the scores.json of geonorm evaluate-shift"
        )
    versions = folder / "versions.json"
    return Run(
        str(folder),
        _flat(yaml.safe_load(config.read_text(encoding="utf-8"))) if config.is_file() else {},
        _json(versions) if versions.is_file() else {},
        read_metrics(metrics) if metrics.is_file() else {},
        judged,
        _rows(folder / "left_out.csv"),
    )


def _judgement(folder: Path, stage: str) -> Judgement:
    scores, confusion = _json(folder / f"{stage}.json"), folder / f"{stage}_confusion.csv"
    matrix, classes = read_matrix(confusion) if confusion.is_file() else (None, [])
    items = _rows(folder / f"{stage}_scans.csv") or _rows(folder / f"{stage}_videos.csv")
    pictures = {"worst": "the worst clips", "best": "the best clips", "clips": "clips"}
    named = {
        title: folder / f"{stage}_{name}.png" for name, title in pictures.items()
    } | {item["scan"]: folder / item["picture"] for item in items if item.get("picture")}
    found = {title: path for title, path in named.items() if path.is_file()}
    return Judgement(
        scores, None if matrix is None else matrix.numpy(), tuple(classes), items, found
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged, or only half written: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold a JSON object; got {type(found).__name__}")
    return found


def _rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file, none where there is no such file."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _flat(content: Any, name: str = "") -> dict[str, Any]:
    """Return the values of nested mappings by their names joined with dots."""
    if not isinstance(content, dict) or not content:
        return {name: content}
    parts = ((f"{name}.{key}" if name else str(key), value) for key, value in content.items())
    return {key: value for part, inner in parts for key, value in _flat(inner, part).items()}
