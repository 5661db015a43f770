"""SemanticPOSS: scans of a campus, crowded with people, in the layout of SemanticKITTI."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from geonorm.datasets.label_ids import LabelIds
from geonorm.datasets.label_map import maps_of
from geonorm.datasets.sequences import Sequences

SPLITS = {"train": ("00", "01", "02", "04", "05"), "val": ("03",)}

# name, colour (RGB, SemanticKITTI's where it has the class), ids
CLASSES = (
    ("person", (255, 30, 30), (4, 5)),
    ("rider", (255, 40, 200), (6,)),
    ("car", (100, 150, 245), (7,)),
    ("trunk", (135, 60, 0), (8,)),
    ("plants", (0, 175, 0), (9,)),
    ("traffic-sign", (255, 0, 0), (10, 11, 12)),
    ("pole", (255, 240, 150), (13,)),
    ("trashcan", (150, 240, 255), (14,)),
    ("building", (255, 200, 0), (15,)),
    ("cone/stone", (50, 255, 255), (16,)),
    ("fence", (255, 120, 50), (17,)),
    ("bike", (100, 230, 245), (21,)),
    ("ground", (255, 0, 255), (22,)),
)
_IGNORED = (0, 1, 2, 3, 18, 19, 20)
_IDS = LabelIds("SemanticPOSS", CLASSES, _IGNORED)


class SemanticPOSS(Sequences):
    """The scans of SemanticPOSS, 13 classes, in the order of sequence and frame.

    The files are SemanticKITTI's in form, the ids are not: 22 is the ground. `tag`, which says
    which pixels of the sensor's 40 × 1800 image the points are, is not used.

    Args:
        root: folder that holds `sequences` or `dataset/sequences`.
        split: `"train"` (00, 01, 02, 04, 05), `"val"` (03), or a list of sequences.
        label_map: `"dglss"` for the classes of that map in place of these. As published, it counts
            trunks and plants as terrain, which are vegetation in all its other datasets.
        intensity_max: the files' intensity that counts as 1, such as 255.

    Raises:
        ValueError: a missing folder (naming the paths tried), an unknown split or map, a sequence
            without scans, scans without labels, and, on reading a scan, a broken file (naming it).

    Example:
        >>> SemanticPOSS.classes[-1], SemanticPOSS.label_maps
        ('ground', ('dglss',))

    Source: Pan et al., "SemanticPOSS: A Point Cloud Dataset with Large Quantity of Dynamic
    Instances", 2020.
    """

    ids, splits, places = _IDS, SPLITS, ("sequences", "dataset/sequences")
    classes, colors, raw_ids = _IDS.names, _IDS.colors, _IDS.raw_ids
    label_maps = maps_of("SemanticPOSS")

    def __init__(
        self,
        root: str | Path,
        split: str | Sequence[str] = "train",
        label_map: str | None = None,
        intensity_max: float = 1.0,
    ) -> None:
        if not intensity_max > 0:
            raise ValueError(f"intensity_max must be a positive number; got {intensity_max}")
        super().__init__(root, split, label_map)
        self.intensity_max = intensity_max

    def _intensity(self, raw: np.ndarray) -> np.ndarray:
        return raw / np.float32(self.intensity_max)
