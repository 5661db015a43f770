"""SemanticKITTI: one labelled LiDAR scan per file, in the layout its authors publish."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from geonorm.datasets.label_ids import LabelIds
from geonorm.datasets.scan import Scan
from geonorm.datasets.scan_files import ScanFiles, first_folder, own
from geonorm.datasets.scan_io import read_bin, with_points
from geonorm.datasets.submission import Submission

SPLITS = {
    "train": ("00", "01", "02", "03", "04", "05", "06", "07", "09", "10"),
    "val": ("08",),
    "test": tuple(str(sequence) for sequence in range(11, 22)),
}

# name, colour (RGB; the official map is BGR), raw ids; predictions are written with the first id.
CLASSES = (
    ("car", (100, 150, 245), (10, 252)),
    ("bicycle", (100, 230, 245), (11,)),
    ("motorcycle", (30, 60, 150), (15,)),
    ("truck", (80, 30, 180), (18, 258)),
    ("other-vehicle", (0, 0, 255), (20, 13, 16, 256, 257, 259)),
    ("person", (255, 30, 30), (30, 254)),
    ("bicyclist", (255, 40, 200), (31, 253)),
    ("motorcyclist", (150, 30, 90), (32, 255)),
    ("road", (255, 0, 255), (40, 60)),
    ("parking", (255, 150, 255), (44,)),
    ("sidewalk", (75, 0, 75), (48,)),
    ("other-ground", (175, 0, 75), (49,)),
    ("building", (255, 200, 0), (50,)),
    ("fence", (255, 120, 50), (51,)),
    ("vegetation", (0, 175, 0), (70,)),
    ("trunk", (135, 60, 0), (71,)),
    ("terrain", (150, 240, 80), (72,)),
    ("pole", (255, 240, 150), (80,)),
    ("traffic-sign", (255, 0, 0), (81,)),
)
IGNORED_RAW_IDS = (0, 1, 52, 99)
_IDS = LabelIds("SemanticKITTI", CLASSES, IGNORED_RAW_IDS)


def read_labels(path: str | Path, num_points: int) -> np.ndarray:
    """Read a `.label` file as train ids, 255 = ignore; the instance in the high bits is dropped.

    Args:
        path: a SemanticKITTI label file.
        num_points: number of points of its scan.

    Shape:
        - result: (num_points,), int64

    Raises:
        ValueError: another number of labels than points, or a class id the dataset does not have.
    """
    return _IDS.read(path, num_points)


class SemanticKITTI(ScanFiles):
    """The labelled scans of SemanticKITTI, 19 classes, in the order of sequence and frame.

    Args:
        root: folder that holds `sequences` or `dataset/sequences`.
        split: `"train"` (00 to 07, 09, 10), `"val"` (08), `"test"` (11 to 21, without labels), or
            a list of sequences such as `["00", "08"]`.

    Raises:
        ValueError: a missing folder (naming the paths tried), an unknown split, a sequence without
            scans, and, on reading a scan, a broken file (naming it).

    Example:
        >>> SemanticKITTI("/nowhere", split="val")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: no SemanticKITTI under /nowhere; tried ...

    Source: Behley et al., "SemanticKITTI: A Dataset for Semantic Scene Understanding of LiDAR
    Sequences", 2019.
    """

    classes, colors, raw_ids = _IDS.names, _IDS.colors, _IDS.raw_ids

    def __init__(self, root: str | Path, split: str | Sequence[str] = "train") -> None:
        if isinstance(split, str):
            if split not in SPLITS:
                raise ValueError(
                    f"split must be one of {', '.join(SPLITS)} or a list of sequences; "
                    f"got {split!r}" + (f". Did you mean [{split!r}]?" if split.isdigit() else "")
                )
            sequences: Sequence[str] = SPLITS[split]
        else:
            sequences = [str(sequence).zfill(2) for sequence in split]
        folder = self._sequences_folder(Path(root))
        self.files = [
            file for sequence in sequences for file in self._scan_files(folder / sequence)
        ]
        if not self.files:
            raise ValueError(f"split must name at least one sequence; got {split!r}")

    @staticmethod
    def _sequences_folder(root: Path) -> Path:
        return first_folder(
            "SemanticKITTI", root, (root / "sequences", root / "dataset" / "sequences")
        )

    @staticmethod
    def _scan_files(sequence: Path) -> list[Path]:
        files = own(sequence / "velodyne", "*.bin")
        if not files:
            raise ValueError(
                f"no scans in {sequence / 'velodyne'} (expected NNNNNN.bin files); give the "
                f"sequences you have as a list, such as split=['00']"
            )
        return files

    @property
    def submission(self) -> Submission | None:
        """What the benchmark takes, `sequences/NN/predictions/*.label`; None with labelled scans.

        It wants every scan of sequences 11 to 21.
        """
        if any(file.parent.parent.name not in SPLITS["test"] for file in self.files):
            return None
        scans = {f"{file.parent.parent.name}/{file.stem}": file for file in self.files}
        return Submission(
            "SemanticKITTI",
            {name: "sequences/{}/predictions/{}.label".format(*name.split("/")) for name in scans},
            lambda name: scans[name].stat().st_size // 16,
            np.array(self.raw_ids),
        )

    def __getitem__(self, index: int) -> Scan:
        file = self.files[index]
        sequence = file.parent.parent
        rows = read_bin(file)
        labels = None
        if sequence.name not in SPLITS["test"]:
            label_file = sequence / "labels" / f"{file.stem}.label"
            if not label_file.is_file():
                raise ValueError(f"{file} has no labels; expected them in {label_file}")
            labels = read_labels(label_file, len(rows))
        scan = Scan.from_raw(rows[:, :3], rows[:, 3], labels, f"{sequence.name}/{file.stem}")
        return with_points(scan, file)
