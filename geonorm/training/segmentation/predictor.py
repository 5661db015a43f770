"""A trained network as a function from a scan to the classes of its points."""

from pathlib import Path

import numpy as np
import torch

from geonorm.datasets.scan import Scan
from geonorm.datasets.voxelize import collate_scans
from geonorm.training.checkpoints import read_run_checkpoint
from geonorm.training.segmentation.module import SegmentationModule
from geonorm.training.segmentation.predict import write_labels


class Predictor:
    """A checkpoint of train_seg.py with the voxels that it was trained on, ready to predict.

    Args:
        checkpoint: a file that train_seg.py wrote.
        device: where to predict.

    Attributes:
        classes: names of the classes.
        colors: RGB of each class, (K, 3) uint8.

    Raises:
        ValueError: the file is missing or damaged, or says nothing of its voxels.
    """

    def __init__(self, checkpoint: str | Path, device: str = "cpu") -> None:
        self.voxels = read_run_checkpoint(Path(checkpoint)).get("ScanData")
        if self.voxels is None:
            raise ValueError(
                f"{checkpoint} does not say how its scans were made into voxels; expected a "
                "checkpoint of train_seg.py"
            )
        module = SegmentationModule.load_from_checkpoint(checkpoint, map_location=device)
        self.module = module.eval()
        self.classes = module.classes
        self.colors = np.array(module.colors, dtype=np.uint8)

    def __call__(self, scan: Scan) -> np.ndarray:
        """Return the class of each point, a number into `classes`.

        Args:
            scan: as `geonorm.datasets.read_scan` gives it.

        Shape:
            - result: (N,), int64
        """
        batch = collate_scans([scan], **self.voxels)
        batch = self.module.transfer_batch_to_device(batch, self.module.device, 0)
        with torch.inference_mode():
            return self.module(batch).cpu().numpy()

    def write(self, scan: Scan, path: str | Path) -> np.ndarray:
        """Predict, write a `.label` or `.npy` file for every point of the scan's file, and return.

        Args:
            scan: as `geonorm.datasets.read_scan` gives it.
            path: what to write; it appears complete or not at all.

        Raises:
            ValueError: another suffix.
        """
        if Path(path).suffix not in (".label", ".npy"):
            raise ValueError(f"expected a path that ends in .label or .npy; got {path}")
        predicted = self(scan)
        write_labels(Path(path), predicted, scan.kept, self.classes)
        return predicted
