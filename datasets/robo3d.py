"""SemanticKITTI-C and nuScenes-C, the corrupted scans that Robo3D publishes, read from disk."""

from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from geonorm.datasets.label_ids import LabelIds
from geonorm.datasets.nuscenes import NuScenes
from geonorm.datasets.scan import Scan
from geonorm.datasets.scan_corruptions import ROBO3D
from geonorm.datasets.scan_files import ScanFiles, check_complete, first_folder, own
from geonorm.datasets.scan_io import read_bin, with_points
from geonorm.datasets.semantickitti import CLASSES, IGNORED_RAW_IDS
from geonorm.names import choices

LEVELS = ("light", "moderate", "heavy")
# Ids of points that fog, snow and crosstalk moved, which are no class.
_MOVED_KITTI, _MOVED_NUSCENES = (21, 22, 23), (41, 42, 43)
_IDS = LabelIds("SemanticKITTI-C", CLASSES, IGNORED_RAW_IDS).and_ignored(_MOVED_KITTI)


class SemanticKITTIC(ScanFiles):
    """The scans of SemanticKITTI-C under a corruption, with the 19 classes of SemanticKITTI.

    They are those of sequence 08. Intensities are as stored: fog and crosstalk leave some outside
    [0, 1], and a reader that cuts them off changes the score.

    Args:
        root: folder that holds `fog`, `snow`, …, each with `light`, `moderate` and `heavy`, and in
            these `velodyne` and `labels`.
        corruption: `"fog"`, `"wet_ground"`, `"snow"`, `"motion_blur"`, `"beam_missing"`,
            `"crosstalk"`, `"incomplete_echo"` or `"cross_sensor"`.
        level: `"light"`, `"moderate"` or `"heavy"`.

    Raises:
        ValueError: a missing folder (naming it), an unknown corruption or level, a folder without
            scans, scans without labels, and, on reading a scan, a broken file (naming it).

    Example:
        >>> SemanticKITTIC("/nowhere", "fog", "heavy")
        Traceback (most recent call last):
        ValueError: no SemanticKITTI-C under /nowhere; tried /nowhere/fog/heavy/velodyne

    Source: Kong et al., "Robo3D: Towards Robust and Reliable 3D Perception against Corruptions",
    2023.
    """

    classes, colors, raw_ids = _IDS.names, _IDS.colors, _IDS.raw_ids

    def __init__(self, root: str | Path, corruption: str, level: str) -> None:
        folder = _folder(root, corruption, level)
        scans = first_folder("SemanticKITTI-C", Path(root), [folder / "velodyne"])
        self.files = own(scans, "*.bin")
        if not self.files:
            raise ValueError(f"no scans in {scans} (expected NNNNNN.bin files)")
        check_complete("SemanticKITTI-C", [_label_file(file) for file in self.files])
        self._prefix = f"{corruption}/{level}"

    def __getitem__(self, index: int) -> Scan:
        file = self.files[index]
        rows = read_bin(file)
        labels = _IDS.read(_label_file(file), len(rows))
        return as_stored(rows[:, :3], rows[:, 3], labels, f"{self._prefix}/{file.stem}", file)


class NuScenesC(NuScenes):
    """The key frames of nuScenes-C under a corruption, with the 16 classes of nuScenes.

    Corrupted scans and labels lie in the folders of nuScenes once more, under
    `CORRUPTION/LEVEL`; the tables are nuScenes' own.

    Args:
        root: folder that holds `fog`, `snow`, …, each with `light`, `moderate` and `heavy`, and in
            these `samples/LIDAR_TOP` and `lidarseg`.
        corruption: as of `SemanticKITTIC`.
        level: `"light"`, `"moderate"` or `"heavy"`.
        nuscenes: folder of nuScenes-lidarseg itself, as `NuScenes` takes it.
        split: `"val"`, of which the published scans are, or another with labels.

    Raises:
        ValueError: an unknown corruption or level, corrupted scans or labels that are missing, and
            what `NuScenes` raises.
    """

    def __init__(
        self, root: str | Path, corruption: str, level: str, nuscenes: str | Path,
        split: str = "val",
    ) -> None:
        if split == "test":
            raise ValueError("split must have labels, such as 'val'; got 'test'")
        folder = _folder(root, corruption, level)
        first_folder("nuScenes-C", Path(root), [folder / "samples" / "LIDAR_TOP"])
        super().__init__(nuscenes, split)
        self.files = [folder / file.relative_to(self.root) for file in self.files]
        self.labels = [folder / file.relative_to(self.root) for file in self.labels]
        check_complete("nuScenes-C", [*self.files, *self.labels])

    @cached_property
    def _ids(self) -> LabelIds:
        """The classes of nuScenes, and none for the ids of moved points."""
        return super()._ids.and_ignored(_MOVED_NUSCENES)

    def __getitem__(self, index: int) -> Scan:
        file = self.files[index]
        rows = read_bin(file, columns=5)
        labels = self._ids.read(self.labels[index], len(rows), "u1")
        return as_stored(rows[:, :3], rows[:, 3] / 255, labels, self.tokens[index], file)


def as_stored(
    points: np.ndarray, intensity: np.ndarray, labels: np.ndarray, name: str, file: Path
) -> Scan:
    """Return a scan whose intensities may lie outside [0, 1], without points that are not finite.

    Args:
        points: (N, 3), metres.
        intensity: (N,).
        labels: (N,), train ids.
        name: of the scan.
        file: that it was read from.
    """
    finite = np.isfinite(intensity)
    known = np.where(finite[:, None], points, np.nan)  # a point without an intensity goes, too
    scan = with_points(Scan.from_raw(known, None, labels, name), file)
    kept = slice(None) if scan.kept is None else scan.kept
    return replace(scan, intensity=intensity[kept].astype(np.float32))


def _folder(root: str | Path, corruption: str, level: str) -> Path:
    if corruption not in ROBO3D:
        raise ValueError(f"no corruption {corruption!r}; {choices(corruption, ROBO3D)}")
    if level not in LEVELS:
        raise ValueError(f"level must be one of {', '.join(LEVELS)}; got {level!r}")
    return Path(root) / corruption / level


def _label_file(file: Path) -> Path:
    return file.parent.parent / "labels" / f"{file.stem}.label"
