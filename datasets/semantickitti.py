"""SemanticKITTI: one labelled LiDAR scan per file, in the layout its authors publish."""

from pathlib import Path

import numpy as np

from geonorm.datasets.label_ids import LabelIds
from geonorm.datasets.label_map import maps_of, shared_classes
from geonorm.datasets.sequences import Sequences
from geonorm.datasets.submission import Submission, check_every_scan

SPLITS = {
    "train": ("00", "01", "02", "03", "04", "05", "06", "07", "09", "10"),
    "val": ("08",),
    "test": tuple(str(sequence) for sequence in range(11, 22)),
}
# Scans of each of the sequences that the server judges.
TEST_SCANS = {
    "11": 921, "12": 1061, "13": 3281, "14": 631, "15": 1901, "16": 1731, "17": 491, "18": 1801,
    "19": 4981, "20": 831, "21": 2721,
}  # fmt: skip

# Predictions are written with the first id of each.
CLASSES = shared_classes("semantickitti", "SemanticKITTI")
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


class SemanticKITTI(Sequences):
    """The labelled scans of SemanticKITTI, 19 classes, in the order of sequence and frame.

    Args:
        root: folder that holds `sequences` or `dataset/sequences`.
        split: `"train"` (00 to 07, 09, 10), `"val"` (08), `"test"` (11 to 21, without labels), or
            a list of sequences such as `["00", "08"]`.
        label_map: `"dglss"` or `"lidog"` for the classes of a published map in place of these.

    Raises:
        ValueError: a missing folder (naming the paths tried), an unknown split, a sequence without
            scans, scans without labels, and, on reading a scan, a broken file (naming it).

    Example:
        >>> SemanticKITTI("/nowhere", split="val")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: no SemanticKITTI under /nowhere; tried ...

    Source: Behley et al., "SemanticKITTI: A Dataset for Semantic Scene Understanding of LiDAR
    Sequences", 2019.
    """

    ids, splits, places = _IDS, SPLITS, ("sequences", "dataset/sequences")
    unlabelled = SPLITS["test"]
    classes, colors, raw_ids = _IDS.names, _IDS.colors, _IDS.raw_ids
    label_maps = maps_of("SemanticKITTI")

    @property
    def submission(self) -> Submission | None:
        """What the benchmark takes, `sequences/NN/predictions/*.label`; None with labelled scans.

        It wants every scan of sequences 11 to 21; None, too, under the classes of a map.

        Raises:
            ValueError: some of those scans are not among these.
        """
        if self.classes != type(self).classes:
            return None
        if any(file.parent.parent.name not in SPLITS["test"] for file in self.files):
            return None
        scans = {f"{file.parent.parent.name}/{file.stem}": file for file in self.files}
        every = (f"{name}/{frame:06d}" for name, count in TEST_SCANS.items()
                 for frame in range(count))  # fmt: skip
        check_every_scan("SemanticKITTI", scans, every)
        return Submission(
            "SemanticKITTI",
            {name: "sequences/{}/predictions/{}.label".format(*name.split("/")) for name in scans},
            lambda name: scans[name].stat().st_size // 16,
            np.array(self.raw_ids),
        )
