"""Report the results at the end of a run: the table of classes, figures and pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from geonorm.datasets.voxelize import ScanBatch
from geonorm.training.figures import confusion_figure, curve_figure
from geonorm.training.segmentation.folds import table, write_matrix
from geonorm.training.segmentation.pictures import SegmentedScan, draw_scans
from geonorm.training.segmentation.scores import class_iou

if TYPE_CHECKING:  # it imports this file
    from geonorm.training.segmentation.module import SegmentationModule


class SegmentationReport(Callback):
    """Prints the table and draws figures and pictures when a validation or test stands alone.

    Args:
        folder: where pictures go.
        num_pictures: scans drawn, the first of the data.
    """

    def __init__(self, folder: Path, num_pictures: int) -> None:
        self.folder, self.num_pictures = folder, num_pictures
        self.scans: list[SegmentedScan] = []

    def _keep(self, trainer: Trainer, predicted: Tensor, batch: ScanBatch) -> None:
        """Keep the first scans for the pictures."""
        if trainer.state.fn == TrainerFn.FITTING:
            return
        for index, name in enumerate(batch.names[: self.num_pictures - len(self.scans)]):
            rows = batch.point_batch == index
            # numpy has no bfloat16, which --trainer.precision may have made of the points.
            arrays = (batch.points[rows].float(), predicted[rows], batch.point_labels[rows])
            self.scans.append(SegmentedScan(name, *(array.cpu().numpy() for array in arrays)))

    def _report(self, trainer: Trainer, module: SegmentationModule, stage: str) -> None:
        scans, self.scans = self.scans, []
        if trainer.state.fn == TrainerFn.FITTING or not trainer.is_global_zero:
            return
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
        metrics = self.folder / "metrics.csv"
        if metrics.is_file():
            curve_figure(metrics, "train/loss", "val/miou", self.folder / "curve.png")

    def on_validation_batch_end(
        self, trainer: Trainer, module: Any, outputs: Any, batch: Any, *rest: Any
    ) -> None:
        self._keep(trainer, outputs, batch)

    def on_validation_end(self, trainer: Trainer, module: Any) -> None:
        self._report(trainer, module, "val")

    def on_test_batch_end(
        self, trainer: Trainer, module: Any, outputs: Any, batch: Any, *rest: Any
    ) -> None:
        self._keep(trainer, outputs, batch)

    def on_test_end(self, trainer: Trainer, module: Any) -> None:
        self._report(trainer, module, "test")
