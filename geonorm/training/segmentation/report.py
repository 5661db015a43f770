"""Report the results at the end of a run: the table of classes, figures and pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from geonorm.datasets.scan import IGNORE_INDEX
from geonorm.datasets.voxelize import ScanBatch
from geonorm.training.confusion import write_matrix, write_rows
from geonorm.training.figures import confusion_figure, curve_figure
from geonorm.training.metrics_file import METRICS
from geonorm.training.segmentation.folds import table
from geonorm.training.segmentation.pictures import SegmentedScan, draw_scans
from geonorm.training.segmentation.scores import class_iou

if TYPE_CHECKING:  # it imports this file
    from geonorm.training.segmentation.module import SegmentationModule


EXTREMES = 2  # scans drawn beyond the first of the data: so many of the worst, so many of the best


class ScanScore(NamedTuple):
    """Scores of one scan.

    Args:
        place: number of the scan among those that this process has judged.
        name: of the scan.
        miou: mean IoU of the classes that are in it, NaN where no point has a label.
        accuracy: part of its labelled points that is right, likewise.
        points: how many have a label.
    """

    place: int
    name: str
    miou: float
    accuracy: float
    points: int


def scan_score(place: int, name: str, predicted: Tensor, labels: Tensor, count: int) -> ScanScore:
    """Return the scores of a scan.

    Args:
        place: its number.
        name: likewise.
        predicted: class of each point, (N,).
        labels: likewise, 255 = none.
        count: of classes.
    """
    known = labels != IGNORE_INDEX
    pairs = labels[known] * count + predicted[known]
    matrix = torch.bincount(pairs, minlength=count * count).view(count, count).cpu()
    points = int(matrix.sum())
    accuracy = int(matrix.diagonal().sum()) / points if points else torch.nan
    return ScanScore(place, name, class_iou(matrix).nanmean().item(), accuracy, points)


class SegmentationReport(Callback):
    """Prints the table and draws figures and pictures when a validation or test stands alone.

    Of several processes each keeps the scans that it judges itself, and the first one reports.

    Args:
        folder: where pictures go.
        num_pictures: scans drawn, the first of the data; where there are any, also the worst two
            and the best two by their mean IoU.
    """

    def __init__(self, folder: Path, num_pictures: int) -> None:
        self.folder, self.num_pictures = folder, num_pictures
        self._forget()

    def _forget(self) -> None:
        self.scores: list[ScanScore] = []
        self.scans: dict[int, SegmentedScan] = {}  # what will be drawn, by the scan's place

    def _keep(
        self, trainer: Trainer, module: SegmentationModule, predicted: Tensor, batch: ScanBatch
    ) -> None:
        """Keep the scores of all scans, and those scans that will be drawn."""
        if trainer.state.fn == TrainerFn.FITTING:
            return
        for index, name in enumerate(batch.names):
            rows, place = batch.point_batch == index, len(self.scores)
            labels = batch.point_labels[rows]
            self.scores.append(
                scan_score(place, name, predicted[rows], labels, len(module.classes))
            )
            drawn = self._drawn([*(self.scores[kept] for kept in self.scans), self.scores[-1]])
            if place in drawn:
                # numpy has no bfloat16, which --trainer.precision may have made of the points.
                arrays = (batch.points[rows].float(), predicted[rows], labels)
                self.scans[place] = SegmentedScan(name, *(each.cpu().numpy() for each in arrays))
            self.scans = {kept: scan for kept, scan in self.scans.items() if kept in drawn}

    def _drawn(self, among: Sequence[ScanScore]) -> set[int]:
        """Return the places of the scans to draw: those kept so far hold the extremes of all."""
        if not self.num_pictures:
            return set()
        known = (score for score in among if score.points)  # the others' mIoU is NaN
        ranked = sorted(known, key=lambda score: (score.miou, score.place))
        judged = [score.place for score in ranked]
        return {*range(self.num_pictures), *judged[:EXTREMES], *judged[-EXTREMES:]}

    def _report(self, trainer: Trainer, module: SegmentationModule, stage: str) -> None:
        scores, scans = self.scores, [self.scans[place] for place in sorted(self.scans)]
        numbers = {place: number for number, place in enumerate(sorted(self.scans))}
        self._forget()
        if trainer.state.fn == TrainerFn.FITTING or not trainer.is_global_zero:
            return
        write_rows(
            self.folder / f"{stage}_scans.csv", ("scan", "miou", "accuracy", "points", "picture"),
            [(*score[1:], f"{stage}_scan{numbers[score.place]}.png"
              if score.place in numbers else "") for score in scores],
        )  # fmt: skip
        if module.matrix.any():
            self._scores(trainer, module, stage)
        else:
            print("No point has a label: there are no scores")
        if not scans:
            return
        colors = np.array(module.colors, dtype=np.uint8)
        paths = [self.folder / f"{stage}_scan{number}.png" for number in range(len(scans))]
        try:
            draw_scans(scans, module.classes, colors, paths)
        except RuntimeError as error:
            skipped = ", ".join(path.name for path in paths)
            print(f"Skipped the pictures {skipped}, cannot render here: {error}")

    def _scores(self, trainer: Trainer, module: SegmentationModule, stage: str) -> None:
        """Print the table, write the scores, and draw the confusions and the curve."""
        matrix = module.matrix.cpu()
        print(f"\n{table(matrix, module.classes)}\n")
        iou = class_iou(matrix)
        miou = iou.nanmean().item()
        named = dict(zip(module.classes, iou.tolist(), strict=True))
        scores = {"miou": miou, "iou": {k: v for k, v in named.items() if v == v}}
        if (alone := module.miou_first_vote) is not None:
            scores["miou_first_vote"] = alone
            print(f"mIoU by the first vote alone, as without voting: {alone:.3f}\n")
        (self.folder / f"{stage}.json").write_text(json.dumps(scores, indent=2) + "\n")
        write_matrix(self.folder / f"{stage}_confusion.csv", matrix, module.classes)
        title = f"{stage}: {module.title}, mIoU {miou:.3f}"
        confusion_figure(
            matrix.numpy(), module.classes, title, self.folder / f"{stage}_confusion.png"
        )
        for logger in trainer.loggers:
            logger.save()
        metrics = self.folder / METRICS
        if metrics.is_file():
            curve_figure(metrics, "train/loss", "val/miou", self.folder / "curve.png")

    def on_validation_batch_end(
        self, trainer: Trainer, module: Any, outputs: Any, batch: Any, *rest: Any
    ) -> None:
        self._keep(trainer, module, outputs, batch)

    def on_validation_end(self, trainer: Trainer, module: Any) -> None:
        self._report(trainer, module, "val")

    def on_test_batch_end(
        self, trainer: Trainer, module: Any, outputs: Any, batch: Any, *rest: Any
    ) -> None:
        self._keep(trainer, module, outputs, batch)

    def on_test_end(self, trainer: Trainer, module: Any) -> None:
        self._report(trainer, module, "test")
