"""Predictions to files."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from geonorm.datasets.semantickitti import SemanticKITTI, read_points
from geonorm.datasets.voxelize import ScanBatch


class PredictionWriter(Callback):
    """Writes a `.label` file for each predicted scan, with SemanticKITTI's ids where it has them.

    Points that are not finite get 0, unlabelled. A file appears complete or not at all.

    Args:
        folder: where the files go.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_predict_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Tensor, batch: ScanBatch, *_: Any
    ) -> None:
        self.folder.mkdir(exist_ok=True)
        known = module.classes == list(SemanticKITTI.classes)
        ids = np.array(SemanticKITTI.raw_ids if known else range(len(module.classes)), dtype="<u4")
        for index, name in enumerate(batch.names):
            finite = np.isfinite(read_points(name)).all(axis=1)
            labels = np.zeros(len(finite), dtype="<u4")
            labels[finite] = ids[outputs[batch.point_batch == index].cpu().numpy()]
            file = self.folder / f"{Path(name).stem}.label"
            aside = file.with_suffix(".tmp")
            labels.tofile(aside)
            os.replace(aside, file)
            print(f"{name}: {len(labels):,} labels in {file}")
