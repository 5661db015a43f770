"""ScanNet v2 and ScanNet200: reconstructed rooms, as released and as Pointcept processes them."""

import csv
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from geonorm.datasets.label_ids import LabelIds
from geonorm.datasets.ply import count_vertices, read_vertices
from geonorm.datasets.pointcept import COLORS, POINTS, read_points, read_rows, room_folders
from geonorm.datasets.scan import Scan
from geonorm.datasets.scan_files import ScanFiles, check_complete, first_folder, known_split
from geonorm.datasets.scan_io import read_array, with_points
from geonorm.datasets.scannet_classes import SCANNET20, SCANNET200
from geonorm.datasets.submission import Submission, check_every_scan

SPLITS = ("train", "val", "test")
_FOLDERS = ("train", "val", "test", "scans", "scans_test")
_UNLABELLED = ("test", "scans_test")
TEST_SCENES = tuple(f"scene{number:04d}_00" for number in range(707, 807))
_CATEGORIES = "scannetv2-labels.combined.tsv"


class ScanNet(ScanFiles):
    """The rooms of ScanNet v2, 20 classes, with colours and, where processed, normals.

    Two layouts are known by their folders. As released: `scans/SCENE/SCENE_vh_clean_2.ply` with
    `SCENE_vh_clean_2.labels.ply`, and `scans_test/SCENE/SCENE_vh_clean_2.ply`. As Pointcept
    processes it: `train/SCENE/`, `val/SCENE/` and `test/SCENE/` with `coord.npy`, `color.npy`,
    `normal.npy` and `segment20.npy`. Coordinates are metres as the files have them.

    Args:
        root: folder that holds those.
        split: `"train"` (1201 scenes), `"val"` (312), `"test"` (100, without labels), or a list of
            scenes such as `["scene0000_00"]`.
        lists: folder of `scannetv2_train.txt`, `scannetv2_val.txt` and `scannetv2_test.txt`, which
            the release lacks (they are in Tasks/Benchmark of github.com/ScanNet/ScanNet); by
            default `root`. Processed data need none.

    Raises:
        ValueError: a missing folder (naming the paths tried) or list, an unknown split, scenes
            that are missing, a file per scene (`SCENE.pth`, an older layout), and, on reading a
            scene, a broken file (naming it).

    Example:
        >>> ScanNet("/nowhere", split="val")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: no ScanNet under /nowhere; tried ...

    Source: Dai et al., "ScanNet: Richly-annotated 3D Reconstructions of Indoor Scenes", 2017.
    """

    ids: LabelIds = SCANNET20
    classes, colors, raw_ids = SCANNET20.names, SCANNET20.colors, SCANNET20.raw_ids
    segments = "segment20.npy"

    def __init__(
        self, root: str | Path, split: str | Sequence[str] = "train", lists: Path | None = None
    ) -> None:
        self.root = Path(root)
        folders = [self.root / name for name in _FOLDERS]
        first_folder("ScanNet", self.root, folders)
        if not isinstance(split, str):
            scenes = [str(scene) for scene in split]
        elif (self.root / known_split(split, SPLITS, "scenes")).is_dir():
            folders = [self.root / split]
            scenes = [room.name for room in room_folders(folders[0], "ScanNet")]
        else:
            scenes = _listed_scenes(split, Path(lists or root))
        if not scenes:
            raise ValueError(f"split must name at least one scene; got {split!r}")
        places = [[folder / scene for folder in folders if (folder / scene).is_dir()]
                  for scene in scenes]  # fmt: skip
        self.files = [
            found[0] if found else self.root / "scans" / scene
            for found, scene in zip(places, scenes, strict=True)
        ]
        points = [points_file(file) for file in self.files]
        check_complete("ScanNet", points, self.root)
        colors = [file.with_name(COLORS) for file in points if file.name == POINTS]
        check_complete("ScanNet", colors)

    @property
    def submission(self) -> Submission | None:
        """What the benchmark takes, `SCENE.txt` with an id for each vertex; None with labels.

        Raises:
            ValueError: some of the 100 scenes that it judges are not among these.
        """
        if any(file.parent.name not in _UNLABELLED for file in self.files):
            return None
        check_every_scan(self.ids.dataset, (file.name for file in self.files), TEST_SCENES)
        return Submission(
            self.ids.dataset,
            {file.name: f"{file.name}.txt" for file in self.files},
            self._num_points,
            np.array(self.raw_ids),
            "text",
        )

    def _num_points(self, scene: str) -> int:
        file = points_file(next(file for file in self.files if file.name == scene))
        return count_vertices(file) if file.suffix == ".ply" else len(read_array(file))

    def __getitem__(self, index: int) -> Scan:
        folder = self.files[index]
        file = points_file(folder)
        if file.suffix == ".npy":
            points, extra = read_points(folder)
        else:
            rows = read_vertices(file, ("x", "y", "z", "red", "green", "blue"))
            points, extra = rows[:, :3], {"color": rows[:, 3:] / 255}
        labels = None
        if folder.parent.name not in _UNLABELLED:
            labels = self._labels(folder, file.suffix == ".npy", len(points))
        scan = Scan.from_raw(points, None, labels, folder.name, extra=extra)
        return with_points(scan, file)

    def _labels(self, folder: Path, processed: bool, num_points: int) -> np.ndarray:
        """Return the train ids of a labelled scene."""
        if not processed:
            return self._released_labels(folder, num_points)
        file = folder / self.segments
        _check_labels(folder, [file])
        return self.ids.numbered().train_ids(read_rows(file, num_points), file)

    def _released_labels(self, folder: Path, num_points: int) -> np.ndarray:
        file = folder / f"{folder.name}_vh_clean_2.labels.ply"
        _check_labels(folder, [file])
        raw = read_vertices(file, ("label",))[:, 0]
        _check_length(file, len(raw), num_points)
        return self.ids.train_ids(raw.astype(np.int64), file)


class ScanNet200(ScanNet):
    """The rooms of ScanNet v2 under the 200 categories of ScanNet200.

    Folders, splits and errors are those of `ScanNet`. As released, the categories come from
    `SCENE.aggregation.json`, `SCENE_vh_clean_2.0.010000.segs.json` and, in `root`,
    `scannetv2-labels.combined.tsv`; in processed data from `segment200.npy`.

    Args:
        root: as of `ScanNet`.
        split: as of `ScanNet`.
        lists: as of `ScanNet`.

    Source: Rozenberszki et al., "Language-Grounded Indoor 3D Semantic Segmentation in the Wild",
    2022.
    """

    ids = SCANNET200
    classes, colors, raw_ids = SCANNET200.names, SCANNET200.colors, SCANNET200.raw_ids
    segments = "segment200.npy"

    @cached_property
    def _category_ids(self) -> dict[str, int]:
        """The id of each category that the annotators wrote."""
        file = self.root / _CATEGORIES
        if not file.is_file():
            raise ValueError(
                f"ScanNet200 needs {file}, which comes with ScanNet's download script "
                "(--label_map)"
            )
        with file.open(newline="", encoding="utf-8") as lines:
            rows = csv.DictReader(lines, delimiter="\t")
            return {row["raw_category"]: int(row["id"]) for row in rows}

    def _released_labels(self, folder: Path, num_points: int) -> np.ndarray:
        segs = folder / f"{folder.name}_vh_clean_2.0.010000.segs.json"
        groups = folder / f"{folder.name}.aggregation.json"
        _check_labels(folder, [segs, groups])
        segment = np.array(json.loads(segs.read_bytes())["segIndices"], dtype=np.int64)
        _check_length(segs, len(segment), num_points)
        category = np.zeros(segment.max() + 1, dtype=np.int64)
        for group in json.loads(groups.read_bytes())["segGroups"]:
            category[group["segments"]] = self._category_ids.get(group["label"], 0)
        return self.ids.train_ids(category[segment], groups)


def points_file(folder: Path) -> Path:
    """Return the file with the points of a scene, as processed or, otherwise, as released."""
    processed = folder / POINTS
    released = folder / f"{folder.name}_vh_clean_2.ply"
    return processed if processed.is_file() or folder.parent.name in SPLITS else released


def _listed_scenes(split: str, folder: Path) -> list[str]:
    file = folder / f"scannetv2_{split}.txt"
    if not file.is_file():
        raise ValueError(
            f"no list of ScanNet's scenes {file}, which the release lacks; take it from "
            "Tasks/Benchmark of github.com/ScanNet/ScanNet and name its folder by lists="
        )
    return file.read_text().split()


def _check_labels(scene: Path, files: Sequence[Path]) -> None:
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise ValueError(f"{scene} has no labels; expected them in {', '.join(missing)}")


def _check_length(file: Path, found: int, num_points: int) -> None:
    if found != num_points:
        raise ValueError(
            f"{file} must hold {num_points} labels, one for each vertex; got {found}"
        )
