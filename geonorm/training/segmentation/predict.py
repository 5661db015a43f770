"""Write what was predicted for scans: labels, pictures and coloured points."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from geonorm.datasets.ply import write_ply
from geonorm.datasets.scan import IGNORE_INDEX, Scan
from geonorm.datasets.semantickitti import SemanticKITTI
from geonorm.files import written_whole
from geonorm.training.segmentation.pictures import SegmentedScan, draw_scans, paint


@dataclass(frozen=True)
class Output:
    """Choice of the files that are written for each scan.

    Args:
        format: `label` writes SemanticKITTI's uint32 ids (0 = no class), `npy` the numbers of the
            classes (255 = no class), both one for each point of the file.
        pictures: draw each scan.
        ply: write the points in the colours of their classes too.
    """

    format: Literal["label", "npy"] = "label"
    pictures: bool = True
    ply: bool = False


def label_ids(classes: list[str]) -> np.ndarray:
    """Return the id in a `.label` file of each class.

    SemanticKITTI's ids where it knows every class; else 1, 2, ... in order.
    """
    known = dict(zip(SemanticKITTI.classes, SemanticKITTI.raw_ids, strict=True))
    if set(classes) <= known.keys():
        return np.array([known[name] for name in classes], dtype="<u4")
    return np.arange(1, len(classes) + 1, dtype="<u4")


def write_labels(
    path: Path, predicted: np.ndarray, kept: np.ndarray | None, classes: list[str]
) -> int:
    """Write a class for every point of the file that was read; return their number.

    Args:
        path: a `.label` or `.npy` file.
        predicted: class of each point that was predicted, (N,).
        kept: which points of the file these are, bool; None for all. The others have no class.
        classes: names of the classes.
    """
    npy = path.suffix == ".npy"
    values = predicted if npy else label_ids(classes)[predicted]
    whole = np.full(len(values) if kept is None else len(kept), IGNORE_INDEX if npy else 0,
                    dtype=np.int64 if npy else "<u4")  # fmt: skip
    whole[slice(None) if kept is None else kept] = values
    with written_whole(path) as aside:
        np.save(aside, whole) if npy else whole.tofile(aside)
    return len(whole)


def write_attribution(stem: Path, values: np.ndarray, kept: np.ndarray | None) -> Path:
    """Write `stem`.attribution.npy, float32 (points of the file, C), and return its path.

    Args:
        stem: path of the results without a suffix.
        values: of the points that were predicted, (N, C).
        kept: which points of the file these are, bool; None for all. The others have 0.
    """
    path = stem.with_name(f"{stem.name}.attribution.npy")
    whole = np.zeros((len(values) if kept is None else len(kept), values.shape[1]), "<f4")
    whole[slice(None) if kept is None else kept] = values
    with written_whole(path) as aside:
        np.save(aside, whole)
    return path


def write_scan(
    scan: Scan, predicted: np.ndarray, classes: list[str], colors: np.ndarray, stem: Path,
    output: Output,
) -> str:
    """Write what was predicted for a scan, but for its picture, and return that in words.

    Args:
        scan: what was read from a file; `scan.name` is the file.
        predicted: class of each of its points, (N,).
        classes: names of the classes.
        colors: RGB of the classes, (K, 3) uint8.
        stem: path of the results without a suffix.
        output: which files to write.
    """  # fmt: skip
    file = stem.with_name(f"{stem.name}.{output.format}")
    count = write_labels(file, predicted, scan.kept, classes)
    if output.ply:
        # float64 for the coordinates of a map, float32 for those of a sensor.
        places = scan.points + np.array(scan.offset) if any(scan.offset) else scan.points
        write_ply(stem.with_name(f"{stem.name}.ply"), places, paint(predicted, colors))
    return f"{scan.name}: {count:,} labels in {file}"


def draw_predicted(
    scans: list[tuple[Scan, np.ndarray]], classes: list[str], colors: np.ndarray, stems: list[Path]
) -> None:
    """Draw scans with the classes predicted for them, or say why they cannot be drawn here."""
    paths = [stem.with_name(f"{stem.name}.png") for stem in stems]
    shown = [
        SegmentedScan(scan.name, scan.points, predicted, np.full(len(scan), IGNORE_INDEX))
        for scan, predicted in scans
    ]
    try:
        draw_scans(shown, classes, colors, paths)
    except RuntimeError as error:
        skipped = ", ".join(path.name for path in paths)
        print(f"Skipped the pictures {skipped}, cannot render here: {error}")


def numbers_in_files(classes: list[str], output: Output) -> dict[str, int]:
    """Return the number that stands for each class in the files of an output."""
    ids = range(len(classes)) if output.format == "npy" else label_ids(classes).tolist()
    return dict(zip(classes, ids, strict=True))
