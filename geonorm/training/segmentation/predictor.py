"""A trained network as a function from a scan to the classes of its points."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geonorm.datasets.scan import Scan
from geonorm.datasets.scan_io import check_file, read_scan
from geonorm.datasets.views import Viewing, collate_views
from geonorm.datasets.voxelize import collate_scans
from geonorm.files import distinct_stems, written_whole
from geonorm.training.segmentation.module import SegmentationModule
from geonorm.training.segmentation.networks import check_device, has_domains
from geonorm.training.segmentation.predict import (
    Output,
    draw_predicted,
    numbers_in_files,
    write_labels,
    write_scan,
)
from geonorm.training.sharing import located, read_network, restored

DRAWN_AT_A_TIME = 4  # scans; starting Open3D for each would take longer than drawing it


class ScanPredictor:
    """A checkpoint of `geonorm train-seg` with the voxels that it was trained on.

    Args:
        checkpoint: a file that `geonorm train-seg` wrote, a folder that `geonorm share` wrote, or
            `hf://owner/name`.
        device: where to predict.
        domain: number of the sensor or data set that the scans come from, for a network with
            domain norms.
        viewing: in which pieces and how often a scan is seen.

    Attributes:
        classes: names of the classes.
        colors: RGB of each class, (K, 3) uint8.

    Raises:
        ValueError: the file is missing or damaged, or says nothing of its voxels; or the device is
            a GPU for which MinkowskiEngine is not built; or the network has domain norms and no
            domain is given.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        device: str = "cpu",
        domain: int | None = None,
        viewing: Viewing = Viewing(),  # noqa: B008  (frozen)
    ) -> None:
        told = read_network(located(checkpoint))
        voxels = told.get("ScanData")
        if voxels is None:
            raise ValueError(
                f"{checkpoint} does not say how its scans were made into voxels; expected a "
                "checkpoint of geonorm train-seg"
            )
        # Where its training was within an epoch is no matter of voxels.
        self.voxels: dict[str, Any] = {k: v for k, v in voxels.items() if k != "position"}
        module = restored(SegmentationModule, told, device)
        if module.name != "PointMLP":
            check_device(torch.device(device))
        self.module, self.domain, self.viewing = module, domain, viewing
        if domain is None and module.network is not None and has_domains(module.network):
            raise ValueError(
                f"{checkpoint} was trained on {module.hparams['num_domains']} domains: say which "
                "one the scans are of (--domain 0 for the first)"
            )
        self.classes: list[str] = module.classes
        self.colors = np.array(module.colors, dtype=np.uint8)

    def __call__(self, scan: Scan) -> np.ndarray:
        """Return the class of each point, a number into `classes`.

        Args:
            scan: as `geonorm.datasets.read_scan` gives it.

        Shape:
            - result: (N,), int64
        """
        if self.domain is not None:
            scan = replace(scan, domain=self.domain)
        if self.viewing.several:
            batch = collate_views([scan], self.viewing, **self.voxels)
        else:
            batch = collate_scans([scan], **self.voxels)
        batch = self.module.transfer_batch_to_device(batch, self.module.device, 0)
        with torch.inference_mode():
            classes: np.ndarray = self.module(batch).cpu().numpy()
        return classes

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

    def predict_files(
        self,
        files: Sequence[Path],
        folder: Path,
        output: Output = Output(),  # noqa: B008  (frozen)
        intensity_max: float = 1.0,
    ) -> None:
        """Predict scans and write the results, and `classes.json`, which explains the numbers.

        No two files share a name, and each appears complete or not at all.

        Args:
            files: scans that `geonorm.datasets.read_scan` reads.
            folder: where the results go, made if need be.
            output: which results to write.
            intensity_max: intensity in the files that counts as 1.

        Raises:
            ValueError: a file is missing or damaged; where that shows at once, before any result.
        """
        for file in files:
            check_file(file)
        stems = distinct_stems(files)
        waiting: list[tuple[Scan, np.ndarray]] = []
        drawn: list[Path] = []
        for number, (file, stem) in enumerate(stems.items(), start=1):
            scan = read_scan(file, intensity_max)
            predicted = self(scan)
            folder.mkdir(parents=True, exist_ok=True)
            write_scan(scan, predicted, self.classes, self.colors, folder / stem, output)
            waiting.append((scan, predicted))
            drawn.append(folder / stem)
            if len(waiting) == DRAWN_AT_A_TIME or number == len(stems):
                if output.pictures:
                    draw_predicted(waiting, self.classes, self.colors, drawn)
                waiting, drawn = [], []
        with written_whole(folder / "classes.json") as aside:
            table = numbers_in_files(self.classes, output)
            aside.write_text(json.dumps(table, indent=2) + "\n")
