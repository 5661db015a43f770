"""Segmentation of corrupted scans, judged by the mean IoU."""

from collections.abc import Callable, Sequence
from typing import Any, get_args

import numpy as np
import torch
from torchmetrics.functional.classification import multiclass_confusion_matrix

from geonorm.datasets.scan import IGNORE_INDEX, Scan, ScanDataset
from geonorm.datasets.scan_corruptions import ROBO3D, Corruption, ScanCorruption, levels
from geonorm.training.segmentation.scores import class_iou

# Rings of the sensors that do not have 64.
BEAMS = {"NuScenes": 32, "SemanticPOSS": 40}


def beams_of(dataset: ScanDataset) -> int:
    """Return the rings of the sensor of a dataset."""
    if (sensor := getattr(dataset, "sensor", None)) is not None:
        beams: int = sensor.beams
        return beams
    return BEAMS.get(type(dataset).__name__, 64)


class ScanTask:
    """Scans under the corruptions of `geonorm.datasets.scan_corruptions`.

    A corrupted scan is the one that `Augmented(dataset, [ScanCorruption(…)], seed)` holds. Points
    are judged that have a label after the corruption.

    Args:
        networks: each returns the class of every point of a scan, as ScanPredictor does.
        dataset: labelled scans.
        beams: rings of the sensor.
        seed: of the corruptions.

    Raises:
        ValueError: beams that no sensor has.
    """

    benchmark, standard, unit = "Robo3D", ROBO3D, "scan"
    corruptions: tuple[str, ...] = get_args(Corruption)

    def __init__(
        self,
        networks: Sequence[Callable[[Scan], np.ndarray]],
        dataset: ScanDataset,
        beams: int = 64,
        seed: int = 0,
    ) -> None:
        ScanCorruption("density", beams=beams)  # beams are no reason to leave corruptions out
        self.networks, self.dataset, self.beams, self.seed = networks, dataset, beams, seed

    def levels(self, corruption: str) -> int:
        heaviest: int = levels(corruption)
        return heaviest

    def read(self, item: int) -> Scan:
        scan = self.dataset[item]
        if scan.labels is None:
            raise ValueError(f"scan {scan.name} has no labels, so nothing can be judged")
        return scan

    def corrupt(self, sample: Scan, item: int, corruption: Any, level: int) -> Scan:
        change = ScanCorruption(corruption, level, self.dataset.classes, self.beams)
        return change(sample, np.random.default_rng((self.seed, 0, item, 1)))

    def count(self, network: int, sample: Scan) -> np.ndarray:
        """Return the confusion matrix of a scan, (K, K), rows are true classes."""
        kinds = len(self.dataset.classes)
        if not len(sample):  # all of it is gone: nothing to judge
            return np.zeros((kinds, kinds), dtype=np.int64)
        predicted = self.networks[network](sample)
        whole = np.issubdtype(predicted.dtype, np.integer)
        shaped = predicted.shape == (len(sample),)
        if not (whole and shaped and predicted.min() >= 0 and predicted.max() < kinds):
            raise ValueError(
                f"a network must give each of the {len(sample)} points of {sample.name} one of "
                f"{kinds} classes, a whole number from 0; got {predicted.dtype} "
                f"{predicted.shape} from {predicted.min()} to {predicted.max()}"
            )
        matrix: np.ndarray = multiclass_confusion_matrix(
            torch.from_numpy(predicted), torch.from_numpy(sample.labels), kinds,
            ignore_index=IGNORE_INDEX, validate_args=False,
        ).numpy()  # fmt: skip
        return matrix

    def score(self, counts: np.ndarray) -> np.ndarray:
        """Return the mean IoU over the classes that have a point."""
        score: np.ndarray = class_iou(torch.from_numpy(counts)).nanmean(dim=-1).numpy()
        return score
