"""Predictions to files, and a trained network as a function of a scan."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from geonorm.datasets.ply import write_ply
from geonorm.datasets.scan import IGNORE_INDEX
from geonorm.datasets.semantickitti import SemanticKITTI
from geonorm.datasets.voxelize import ScanBatch
from geonorm.files import distinct_stems, written_whole
from geonorm.training.segmentation.pictures import SegmentedScan, draw_scans, paint


@dataclass(frozen=True)
class Output:
    """What predict leaves of each file.

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


class PredictionWriter(Callback):
    """Writes the classes of each predicted file, its picture, and a list of the ids.

    Files appear complete or not at all, and no two inputs share one.

    Args:
        folder: where the files go.
        output: which files.
    """

    def __init__(self, folder: Path, output: Output) -> None:
        self.folder, self.output = folder, output

    def on_predict_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.stems = distinct_stems(map(Path, trainer.datamodule.files))

    def on_predict_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Tensor, batch: ScanBatch, *_: Any
    ) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        colors = np.array(module.colors, dtype=np.uint8)
        pictures: dict[Path, SegmentedScan] = {}
        for index, name in enumerate(batch.names):
            rows = batch.point_batch == index
            predicted, points = outputs[rows].cpu().numpy(), batch.points[rows].cpu().numpy()
            stem = self.folder / self.stems[Path(name)]
            file = stem.with_name(f"{stem.name}.{self.output.format}")
            count = write_labels(file, predicted, batch.kept[index], module.classes)
            print(f"{name}: {count:,} labels in {file}")
            if self.output.ply:
                # float64 for the coordinates of a map, float32 for those of a sensor.
                offset = batch.offsets[index]
                places = points + np.array(offset) if any(offset) else points
                write_ply(stem.with_name(f"{stem.name}.ply"), places, paint(predicted, colors))
            unknown = np.full(len(points), IGNORE_INDEX)
            pictures[stem.with_name(f"{stem.name}.png")] = SegmentedScan(
                name, points, predicted, unknown
            )
        if self.output.pictures:
            try:
                draw_scans([*pictures.values()], module.classes, colors, [*pictures])
            except RuntimeError as error:
                skipped = ", ".join(path.name for path in pictures)
                print(f"Skipped the pictures {skipped}, cannot render here: {error}")

    def on_predict_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Write which number in the files stands for which class."""
        if trainer.is_global_zero and self.folder.is_dir():
            npy = self.output.format == "npy"
            ids = range(len(module.classes)) if npy else label_ids(module.classes).tolist()
            table = dict(zip(module.classes, ids, strict=True))
            with written_whole(self.folder / "classes.json") as aside:
                aside.write_text(json.dumps(table, indent=2) + "\n")
