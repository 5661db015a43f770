"""Scans for the viewer: their points, and what is known and predicted of each."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geonorm.datasets.label_ids import LabelIds, distinct_color
from geonorm.datasets.scan import IGNORE_INDEX, Scan
from geonorm.datasets.scan_io import read_array, read_scan
from geonorm.datasets.semantickitti import SemanticKITTI
from geonorm.files import distinct_stems
from geonorm.looking import columns
from geonorm.looking.columns import Column
from geonorm.looking.page import packed
from geonorm.training.attributions import read_statistics

MOST_POINTS = 1_000_000  # in a page: about 25 bytes each


@dataclass(frozen=True)
class Panel:
    """A scan as it is shown.

    Args:
        title: heading.
        points: x, y, z in metres, float32.
        columns: the ways to colour them.
        statistics: what the norms of a network took out, `name`, `mean` and `std` of each.

    Shape:
        - points: (N, 3)
    """

    title: str
    points: np.ndarray
    columns: tuple[Column, ...]
    statistics: Sequence[dict[str, Any]] = ()

    def content(self) -> dict[str, Any]:
        """Return what the page is told."""
        return {
            "title": self.title, "points": packed(self.points),
            "columns": [column.content() for column in self.columns],
            "statistics": self.statistics,
        }  # fmt: skip


class Legend:
    """The classes of label and prediction files, and the numbers that stand for them.

    Args:
        numbers: number in the files of each class by its name, as `classes.json` of geonorm
            predict tells; SemanticKITTI's classes where None.

    Attributes:
        names: of the classes.
        colors: (K, 3) uint8.
    """

    def __init__(self, numbers: dict[str, int] | None = None) -> None:
        kitti = SemanticKITTI.ids
        self.numbers = numbers
        if numbers is None or numbers.keys() <= {*kitti.names}:
            self.names, self.colors, self._ids = kitti.names, kitti.colors, kitti
            return
        self.names = tuple(numbers)
        rows = [
            (name, distinct_color(place), (number,))
            for place, (name, number) in enumerate(numbers.items())
        ]
        self._ids = LabelIds("classes.json of the predictions", rows, ignored=(0,))
        self.colors = self._ids.colors

    def read(self, path: Path, points: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Read class and instance of every point of a scan's file; 255 and 0 stand for none.

        Args:
            path: a `.label` file, or the `.npy` file that geonorm predict writes, whose numbers are
                places in `classes.json`, 255 for none.
            points: how many the scan's file has.

        Shape:
            - result: (points,) int64, and (points,) or None where the file tells no instances

        Raises:
            ValueError: another kind of file or number of labels, or an unknown class.
        """
        if path.suffix == ".label":
            if not path.is_file():
                raise ValueError(f"{path} is not a file; expected one label for each point")
            labels = self._ids.read(path, points)
            instances = np.fromfile(path, dtype="<u4") >> 16
            return labels, instances if instances.any() else None
        if path.suffix != ".npy":
            raise ValueError(f"{path}: expected labels in a file that ends in .label or .npy")
        numbers = read_array(path)
        if numbers.shape != (points,) or numbers.dtype.kind not in "iu":
            raise ValueError(
                f"{path} must hold a whole number for each of {points} points, ({points},); got "
                f"{numbers.dtype} {numbers.shape}"
            )
        names = self.names if self.numbers is None else tuple(self.numbers)
        place = np.full(IGNORE_INDEX + 1, -1)
        place[: len(names)] = [self.names.index(name) for name in names]
        place[IGNORE_INDEX] = IGNORE_INDEX
        inside = (numbers >= 0) & (numbers <= IGNORE_INDEX)
        labels = np.where(inside, place[np.where(inside, numbers, 0)], -1)
        if (labels < 0).any():
            raise ValueError(
                f"{path} holds class {numbers[labels < 0][0]}; expected 0 to {len(names) - 1}, or "
                f"{IGNORE_INDEX} for none"
            )
        return labels, None


def legend_of(folder: Path) -> Legend:
    """Return the classes of a folder that geonorm predict wrote.

    Raises:
        ValueError: it has no `classes.json`.
    """
    file = folder / "classes.json"
    if not file.is_file():
        raise ValueError(f"no {file}: expected the folder that geonorm predict wrote for scans")
    return Legend(json.loads(file.read_text(encoding="utf-8")))


def _predicted(folder: Path, stem: str) -> Path:
    for suffix in (".label", ".npy"):
        if (folder / f"{stem}{suffix}").is_file():
            return folder / f"{stem}{suffix}"
    raise ValueError(
        f"{folder} has no {stem}.label and no {stem}.npy: predict the same files that are shown"
    )


def panels(
    files: Sequence[Path],
    labels: Sequence[Path] = (),
    predictions: Sequence[Path] = (),
    intensity_max: float = 1.0,
) -> list[Panel]:
    """Return each scan, once for each folder of predictions.

    Args:
        files: scans that `geonorm.datasets.read_scan` reads.
        labels: a file of labels for each scan, or none.
        predictions: folders that `geonorm predict` wrote for the same files.
        intensity_max: intensity in the files that counts as 1.

    Raises:
        ValueError: labels for some scans only, or a file that is missing, damaged or of another
            scan.
    """
    if labels and len(labels) != len(files):
        raise ValueError(
            f"--labels must be one file for each scan, {len(files)}; got {len(labels)}"
        )
    folders: list[tuple[Path | None, Legend]] = [
        (folder, legend_of(folder)) for folder in predictions
    ] or [(None, Legend())]
    stems = distinct_stems(files)
    several = len(files) * len(folders)
    found = []
    for number, (file, stem) in enumerate(stems.items()):
        scan = read_scan(file, intensity_max)
        for folder, legend in folders:
            known, instances = _read(legend, labels[number], scan) if labels else (None, None)
            guess = None if folder is None else _read(legend, _predicted(folder, stem), scan)[0]
            made = _columns(scan, legend, known, instances, guess)
            statistics: list[dict[str, Any]] = []
            if folder is not None:
                made += _attribution(folder / f"{stem}.attribution.npy", scan)
                statistics = read_statistics(folder / stem)
            title = file.name if folder is None else f"{file.name}, {folder}"
            panel = Panel(title, scan.points, made, statistics)
            found.append(_thinned(panel, MOST_POINTS // several))
    return found


def _read(legend: Legend, path: Path, scan: Scan) -> tuple[np.ndarray, np.ndarray | None]:
    """Return class and instance of the points that are left of a scan."""
    kept = slice(None) if scan.kept is None else scan.kept
    labels, instances = legend.read(path, len(scan) + scan.dropped)
    return labels[kept], None if instances is None else instances[kept]


def _attribution(path: Path, scan: Scan) -> tuple[Column, ...]:
    """Return the colours of an attribution that geonorm predict wrote, none where it did not."""
    if not path.is_file():
        return ()
    values = read_array(path)
    points = len(scan) + scan.dropped
    if values.ndim != 2 or len(values) != points:
        raise ValueError(
            f"{path} must hold numbers for each of {points} points, ({points}, features); got "
            f"{values.shape}"
        )
    kept = slice(None) if scan.kept is None else scan.kept
    return (columns.attributions(values[kept].sum(axis=1)),)


def _columns(
    scan: Scan,
    legend: Legend,
    labels: np.ndarray | None,
    instances: np.ndarray | None,
    predicted: np.ndarray | None,
) -> tuple[Column, ...]:
    found = []
    if labels is not None:
        found.append(columns.classes("class", labels, legend.names, legend.colors))
    if predicted is not None:
        found.append(columns.classes("prediction", predicted, legend.names, legend.colors))
        if labels is not None:
            found.append(columns.errors(predicted, labels))
    if scan.intensity is not None and scan.intensity.any():
        found.append(columns.values("intensity", scan.intensity))
    found.append(columns.values("height", scan.points[:, 2]))
    if instances is not None:
        found.append(columns.instances(instances))
    return tuple(found)


def _thinned(panel: Panel, most: int) -> Panel:
    """Return a panel of so many points at most, whose title then says how many there were."""
    count = len(panel.points)
    if count <= most:
        return panel
    rows = np.linspace(0, count - 1, most).astype(np.int64)
    made = tuple(
        Column(each.name, each.index[rows], each.colors, each.names, each.low, each.high)
        for each in panel.columns
    )
    title = f"{panel.title} ({most:,} of {count:,} points)"
    return Panel(title, panel.points[rows], made, panel.statistics)
