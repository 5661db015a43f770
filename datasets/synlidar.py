"""SynLiDAR: scans rendered in virtual towns, with labels without error."""

from pathlib import Path

from geonorm.datasets.label_ids import LabelIds
from geonorm.datasets.label_map import maps_of
from geonorm.datasets.scan_files import own
from geonorm.datasets.sequences import Sequences

_ALL = tuple(f"{number:02d}" for number in range(13))
# The release has no split for validation; that the last sequence serves for it is our choice.
SPLITS = {"all": _ALL, "train": _ALL[:-1], "val": _ALL[-1:]}

# name and colour (RGB, SemanticKITTI's where it has the class) of the ids 1, 2, …
CLASSES = (
    ("car", (100, 150, 245)),
    ("pick-up", (60, 100, 220)),
    ("truck", (80, 30, 180)),
    ("bus", (100, 80, 250)),
    ("bicycle", (100, 230, 245)),
    ("motorcycle", (30, 60, 150)),
    ("other-vehicle", (0, 0, 255)),
    ("road", (255, 0, 255)),
    ("sidewalk", (75, 0, 75)),
    ("parking", (255, 150, 255)),
    ("other-ground", (175, 0, 75)),
    ("female", (255, 30, 30)),
    ("male", (215, 30, 30)),
    ("kid", (255, 110, 110)),
    ("crowd", (160, 30, 30)),
    ("bicyclist", (255, 40, 200)),
    ("motorcyclist", (150, 30, 90)),
    ("building", (255, 200, 0)),
    ("other-structure", (255, 150, 0)),
    ("vegetation", (0, 175, 0)),
    ("trunk", (135, 60, 0)),
    ("terrain", (150, 240, 80)),
    ("traffic-sign", (255, 0, 0)),
    ("pole", (255, 240, 150)),
    ("traffic-cone", (255, 90, 20)),
    ("fence", (255, 120, 50)),
    ("garbage-can", (150, 240, 255)),
    ("electric-box", (90, 140, 150)),
    ("table", (180, 140, 90)),
    ("chair", (140, 100, 60)),
    ("bench", (100, 80, 50)),
    ("other-object", (50, 255, 255)),
)
_IDS = LabelIds(
    "SynLiDAR", [(name, color, (id_,)) for id_, (name, color) in enumerate(CLASSES, 1)], (0,)
)


class SynLiDAR(Sequences):
    """The scans of SynLiDAR, 32 classes, in the order of sequence and frame.

    Args:
        root: folder that holds the sequences `00` to `12`, or `sequences` with these.
        split: `"all"` (00 to 12), on which others train; `"train"` (00 to 11) and `"val"` (12),
            our choice, since the release has no split; or a list of sequences.
        label_map: `"semantickitti"` or `"lidog"` for the classes of a published map in place of
            these.

    Raises:
        ValueError: a missing folder (naming the paths tried), an unknown split or map, a sequence
            without scans or still in parts, scans without labels, and, on reading a scan, a broken
            file (naming it).

    Example:
        >>> SynLiDAR.classes[1], SynLiDAR.label_maps
        ('pick-up', ('lidog', 'semantickitti'))

    Source: Xiao et al., "Transfer Learning from Synthetic to Real LiDAR Point Cloud for Semantic
    Segmentation", 2022.
    """

    ids, splits, places = _IDS, SPLITS, ("sequences", "")
    holds = ("*/velodyne", "[01][0-9]?*")  # the second are parts that must be joined
    classes, colors, raw_ids = _IDS.names, _IDS.colors, _IDS.raw_ids
    label_maps = maps_of("SynLiDAR")

    @classmethod
    def _mend(cls, folder: Path, sequence: str) -> str:
        parts = [file.name for file in own(folder, f"{sequence}?*") if file.is_file()]
        if not parts:
            return super()._mend(folder, sequence)
        return (
            f"it is still packed in {', '.join(parts)}. Join parts into a file elsewhere, as in "
            f"`cat {sequence}* > ../{sequence}.tar.gz`, since {sequence}* would name a file here "
            "the next time, and unpack it"
        )
