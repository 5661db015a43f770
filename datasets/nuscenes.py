"""nuScenes-lidarseg: labelled key frames, found through the JSON tables of the release."""

import json
import mmap
import re
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from geonorm.datasets.label_ids import ClassRow, LabelIds
from geonorm.datasets.label_map import maps_of, shared_classes
from geonorm.datasets.scan import Scan
from geonorm.datasets.scan_files import ScanFiles, check_complete, first_folder, known_split
from geonorm.datasets.scan_io import read_bin, with_points
from geonorm.datasets.submission import Submission

VERSIONS = {
    "train": "v1.0-trainval", "val": "v1.0-trainval", "test": "v1.0-test",
    "mini_train": "v1.0-mini", "mini_val": "v1.0-mini",
}  # fmt: skip
# Scenes of the tables that are for validation; all others are trained on.
VAL_SCENES = """
0003 0012-0018 0035-0036 0038-0039 0092-0110 0221 0268-0278 0329-0332 0344-0346 0519-0524 0552-0565
0625-0627 0629-0630 0632-0638 0770-0771 0775 0777-0778 0780-0784 0794-0800 0802 0904-0917 0919-0931
0962-0963 0966-0969 0971-0972 1059-1073
"""
MINI_VAL_SCENES = "0103 0916"

# name, colour (RGB, ours), names of its categories
CLASSES: tuple[ClassRow, ...] = (
    ("barrier", (112, 128, 144), ("movable_object.barrier",)),
    ("bicycle", (220, 20, 60), ("vehicle.bicycle",)),
    ("bus", (255, 127, 80), ("vehicle.bus.bendy", "vehicle.bus.rigid")),
    ("car", (255, 158, 0), ("vehicle.car",)),
    ("construction_vehicle", (233, 150, 70), ("vehicle.construction",)),
    ("motorcycle", (255, 61, 99), ("vehicle.motorcycle",)),
    ("pedestrian", (0, 0, 230), (
        "human.pedestrian.adult", "human.pedestrian.child",
        "human.pedestrian.construction_worker", "human.pedestrian.police_officer",
    )),
    ("traffic_cone", (47, 79, 79), ("movable_object.trafficcone",)),
    ("trailer", (255, 140, 0), ("vehicle.trailer",)),
    ("truck", (255, 99, 71), ("vehicle.truck",)),
    ("driveable_surface", (0, 207, 191), ("flat.driveable_surface",)),
    ("other_flat", (175, 0, 75), ("flat.other",)),
    ("sidewalk", (75, 0, 75), ("flat.sidewalk",)),
    ("terrain", (112, 180, 60), ("flat.terrain",)),
    ("manmade", (222, 184, 135), ("static.manmade",)),
    ("vegetation", (0, 175, 0), ("static.vegetation",)),
)  # fmt: skip
_FIRST_ID = 1  # of the server; 0 is no class and refused
_META = {"use_camera": False, "use_lidar": True, "use_radar": False, "use_map": False,
         "use_external": False}  # fmt: skip
_AGAIN = "unpack nuScenes' metadata again"
_LIDARSEG = "unpack nuScenes-lidarseg, a download of its own, into the same folder"


class NuScenes(ScanFiles):
    """The key frames of nuScenes' LiDAR, 16 classes, in the order of scene and time.

    The tables of the release say which file is which: `category.json`, `sample_data.json`,
    `sample.json`, `scene.json` and, for labels, `lidarseg.json`. Classes are found by the names
    of their categories, since their numbers differ between descriptions.

    Args:
        root: folder that holds `v1.0-trainval`, `samples/LIDAR_TOP` and `lidarseg`.
        split: `"train"` (700 scenes), `"val"` (150), `"test"` (150, without labels),
            `"mini_train"` (8) or `"mini_val"` (2).
        label_map: `"dglss"` or `"lidog"` for the classes of a published map in place of these.

    Raises:
        ValueError: a missing folder (naming the paths tried) or table, an unknown split or map, a
            table that is cut off or lacks a category, scans that are missing, and, on reading a
            scan, a broken file (naming it).

    Example:
        >>> NuScenes("/nowhere", split="val")
        Traceback (most recent call last):
        ValueError: no nuScenes under /nowhere; tried /nowhere/v1.0-trainval

    Source: Fong et al., "Panoptic nuScenes: A Large-Scale Benchmark for LiDAR Panoptic
    Segmentation and Tracking", 2022; Caesar et al., "nuScenes: A multimodal dataset for autonomous
    driving", 2020.
    """

    classes = tuple(name for name, _, _ in CLASSES)
    colors = np.array([color for _, color, _ in CLASSES], dtype=np.uint8)
    raw_ids = tuple(range(_FIRST_ID, _FIRST_ID + len(CLASSES)))
    label_maps = maps_of("nuScenes")

    def __init__(
        self, root: str | Path, split: str = "train", label_map: str | None = None
    ) -> None:
        self._classes = CLASSES if label_map is None else shared_classes(label_map, "nuScenes")
        self.classes = tuple(name for name, _, _ in self._classes)
        self.colors = np.array([color for _, color, _ in self._classes], dtype=np.uint8)
        version = VERSIONS[known_split(split, tuple(VERSIONS))]
        self.root, self.labelled = Path(root), split != "test"
        self.tables = first_folder("nuScenes", self.root, [self.root / version])
        scenes = {row["token"]: row["name"] for row in self._table("scene.json")}
        scene_of = {row["token"]: scenes[row["scene_token"]] for row in self._table("sample.json")}
        frames = [
            (scene_of[row["sample_token"]], row["timestamp"], row["token"], row["filename"])
            for row in _rows(self.tables / "sample_data.json")
        ]
        frames = sorted(frame for frame in frames if _is_in(frame[0], split))
        self.tokens = [token for _, _, token, _ in frames]
        self.files = [self.root / name for _, _, _, name in frames]
        if not self.files:
            raise ValueError(f"{self.tables} has no scene of the split {split!r}")
        self.labels = self._label_files() if self.labelled else []
        check_complete("nuScenes", [*self.files, *self.labels])

    def _label_files(self) -> list[Path]:
        rows = self._table("lidarseg.json")
        named = {row["sample_data_token"]: self.root / row["filename"] for row in rows}
        lacking = [token for token in self.tokens if token not in named]
        if lacking:
            raise ValueError(
                f"{len(lacking)} of {len(self.tokens)} scans have no labels, such as {lacking[0]}; "
                f"expected them in {self.tables / 'lidarseg.json'}: {_LIDARSEG}"
            )
        return [named[token] for token in self.tokens]

    def _table(self, name: str) -> list[dict[str, Any]]:
        file = self.tables / name
        if not file.is_file():
            mend = _LIDARSEG if name == "lidarseg.json" else _AGAIN
            raise ValueError(f"no table {file}; {mend}")
        try:
            rows: list[dict[str, Any]] = json.loads(file.read_bytes())
        except ValueError as error:
            raise ValueError(f"{file} is cut off or damaged ({error}); {_AGAIN}") from error
        return rows

    @cached_property
    def _ids(self) -> LabelIds:
        """The classes under the numbers that category.json gives their categories."""
        table = self._table("category.json")
        numbers = {row["name"]: row["index"] for row in table if "index" in row}
        lacking = {name for _, _, names in self._classes for name in names} - numbers.keys()
        if lacking:
            raise ValueError(
                f"{self.tables / 'category.json'} gives no index of {', '.join(sorted(lacking))}; "
                f"it is that of nuScenes without labels of points: {_LIDARSEG}"
            )
        rows = [
            (name, color, [numbers[each] for each in names])
            for name, color, names in self._classes
        ]
        return LabelIds("nuScenes", rows, numbers.values())

    @property
    def submission(self) -> Submission | None:
        """What the benchmark takes: a file of bytes 1 to 16 for each key frame; None with labels.

        None, too, under the classes of a map. Besides it wants `test/submission.json`, which says
        that LiDAR alone was used.
        """
        if self.labelled or self.classes != type(self).classes:
            return None
        files = dict(zip(self.tokens, self.files, strict=True))
        return Submission(
            "nuScenes",
            {token: f"lidarseg/test/{token}_lidarseg.bin" for token in self.tokens},
            lambda token: files[token].stat().st_size // 20,
            np.array(self.raw_ids),
            "u1",
            {"test/submission.json": json.dumps({"meta": _META}).encode()},
        )

    def __getitem__(self, index: int) -> Scan:
        file = self.files[index]
        rows = read_bin(file, columns=5)
        labels = self._ids.read(self.labels[index], len(rows), "u1") if self.labelled else None
        scan = Scan.from_raw(rows[:, :3], rows[:, 3] / 255, labels, self.tokens[index])
        return with_points(scan, file)


def _is_in(scene: str, split: str) -> bool:
    """Tell whether a scene of a split's tables is of that split."""
    if split == "test":
        return True
    held_out = _numbers(MINI_VAL_SCENES if "mini" in split else VAL_SCENES)
    return (scene.removeprefix("scene-") in held_out) == split.endswith("val")


@cache
def _numbers(ranges: str) -> set[str]:
    """Return the numbers of ranges such as `0012-0018`, as four digits."""
    pairs = [each.split("-") for each in ranges.split()]
    return {f"{n:04d}" for pair in pairs for n in range(int(pair[0]), int(pair[-1]) + 1)}


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of the table of all sensors that are key frames of the LiDAR.

    It has more than two million rows, which would take gigabytes if read as a whole; no row holds
    another, so that they can be told apart by their braces.
    """
    if not file.is_file() or file.stat().st_size == 0:
        raise ValueError(f"no table {file}, or an empty one; {_AGAIN}")
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as text:
        if text[-64:].rstrip()[-1:] != b"]":
            raise ValueError(f"{file} is cut off or damaged: it has no end; {_AGAIN}")
        for found in re.finditer(rb"\{[^{}]*\}", text):
            if b"samples/LIDAR_TOP/" in found[0]:
                yield json.loads(found[0])
