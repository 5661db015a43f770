"""Scans of the user's own, in folders or lists, with a table of classes beside them."""

import csv
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from geonorm.datasets.label_ids import LabelIds, distinct_color
from geonorm.datasets.scan import Scan
from geonorm.datasets.scan_fields import SUFFIXES, read_fields
from geonorm.datasets.scan_files import ScanFiles, check_complete
from geonorm.datasets.scan_io import map_offset, read_array, with_points
from geonorm.datasets.scan_layouts import looks_like
from geonorm.files import is_hidden

# Names that the label of a point goes by, in the order in which they are looked for.
LABELS = ("label", "labels", "class", "classification", "class_id", "segment", "semantic")
_BESIDE = (".label", ".labels", ".txt")
_LABEL_FOLDER = "labels"
_LARGEST_ID = 0xFFFF  # of a table; those of .label files have 16 bits
_TYPES = {"u1": 255.0, "u2": 65535.0, "f4": 1.0, "f8": 1.0}  # colour that counts as 1


class ScanFolder(ScanFiles):
    """The scans of a folder, with classes that the user names in a table.

    Scans are `.ply`, `.pcd`, `.npy`, `.npz`, `.bin`, `.las` and `.laz` files with x, y and z in
    metres and whatever else they know of each point: `intensity`, `red` `green` `blue`, `nx` `ny`
    `nz`, and `echo` or `return_number` become the features of these names. Map coordinates, such as
    UTM's, are moved to about the scan's median, which `Scan.offset` tells.

    The labels are ids, one for each point, in a file beside the scan or in a folder `labels` beside
    that of the scans: `SCAN.label` (uint32, of which the low 16 bits count), `SCAN.labels` or
    `SCAN.txt` (one in each line), or `labels/SCAN.npy`. Otherwise they are a field of the scan.

    Args:
        root: folder with a sub-folder for each split, at any depth, or with a list `SPLIT.txt` of
            the paths of its scans, which goes before the sub-folder.
        split: its name, such as `"train"`.
        classes: table of the classes (CSV, by default `classes.csv` in `root`) with the columns
            `id` and `name`, and perhaps `red`, `green` and `blue` from 0 to 255. Several ids of one
            name are one class; an id without a name is no class, and not scored.
        columns: names of the columns of `.bin` files, of float32, and of plain arrays. Those that
            mean nothing here may have any name.
        label: name of the field with the labels; by default the first of `LABELS` that is there.
        intensity_max: the intensity that counts as 1.
        color_max: the colour that counts as 1; by default the largest of the field's type.

    Raises:
        ValueError: no such split (naming the paths tried), a split without scans, a listed scan
            that is missing, a table of classes that is missing or wrong, and, on reading a scan, a
            broken file, labels that are missing, and ids that the table does not have.

    Example:
        >>> ScanFolder("/nowhere", split="val")
        Traceback (most recent call last):
        ValueError: no split 'val'; tried /nowhere/val.txt and /nowhere/val
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        classes: Path | None = None,
        columns: Sequence[str] = ("x", "y", "z", "intensity"),
        label: str | None = None,
        intensity_max: float = 1.0,
        color_max: float | None = None,
    ) -> None:
        self.root = Path(root)
        self.columns, self.label = tuple(columns), label
        self.intensity_max, self.color_max = intensity_max, color_max
        self.files = _listed(self.root, split) or _found(self.root, split)
        self._ids = read_classes(Path(classes or self.root / "classes.csv"))
        self.classes, self.colors = self._ids.names, self._ids.colors
        self.raw_ids = self._ids.raw_ids

    def __getitem__(self, index: int) -> Scan:
        file = self.files[index]
        fields = read_fields(file, self.columns)
        places = np.stack([fields[axis].astype(np.float64) for axis in "xyz"], axis=1)
        offset = map_offset(places)
        intensity = None
        if "intensity" in fields:
            intensity = _share(file, fields["intensity"], self.intensity_max, "intensity")
        scan = Scan.from_raw(
            places - offset, intensity, self._labels(file, fields, len(places)),
            self._name(file), offset, self._extra(file, fields),
        )  # fmt: skip
        return with_points(scan, file)

    def _name(self, file: Path) -> str:
        return str(file.relative_to(self.root) if file.is_relative_to(self.root) else file)

    def _extra(self, file: Path, fields: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the further features that the fields make."""
        extra = {}
        if {"red", "green", "blue"} <= fields.keys():
            rgb = [fields[name] for name in ("red", "green", "blue")]
            usual = _TYPES.get(rgb[0].dtype.str[1:], 255.0)
            largest = usual if self.color_max is None else self.color_max
            self._check_depth(file, rgb)
            extra["color"] = _share(file, np.stack(rgb, axis=1), largest, "color")
        if {"nx", "ny", "nz"} <= fields.keys():
            extra["normal"] = np.stack([fields[name] for name in ("nx", "ny", "nz")], axis=1)
        if "echo" in fields:
            extra["echo"] = fields["echo"][:, None]
        return extra

    def _check_depth(self, file: Path, rgb: Sequence[np.ndarray]) -> None:
        """Refuse colours of 8 bits in fields of 16, which would be next to black."""
        most = max(each.max(initial=0) for each in rgb)
        if self.color_max is None and rgb[0].dtype.str[1:] == "u2" and 0 < most <= 255:
            raise ValueError(
                f"{file} has colours up to {most} in fields of 16 bits; if they are of 8 bits, as "
                "it seems, give color_max=255, otherwise 65535"
            )

    def _labels(
        self, file: Path, fields: dict[str, np.ndarray], num_points: int
    ) -> np.ndarray:
        """Return the train ids of a scan, from the file beside it or its own field."""
        beside = [path for path in _label_files(file) if path.is_file()]
        if len(beside) > 1:
            raise ValueError(
                f"{file} has several files of labels, {', '.join(map(str, beside))}; expected one"
            )
        if beside:
            return _read_labels(beside[0], num_points, self._ids)
        names = LABELS if self.label is None else (self.label.lower(),)
        found = next((name for name in names if name in fields), None)
        if found is None:
            raise ValueError(
                f"{file} has no labels; expected a field {' or '.join(names)} (it has "
                f"{', '.join(sorted(fields))}), or one of {', '.join(map(str, _label_files(file)))}"
            )
        return self._ids.train_ids(_whole(fields[found], file), file)


def read_classes(path: Path) -> LabelIds:
    """Read a table of classes.

    Args:
        path: a CSV file with the columns `id` and `name`, and perhaps `red`, `green` and `blue`.

    Raises:
        ValueError: the file is missing, lacks a column or a class, or a line is wrong (naming it).
    """
    if not path.is_file():
        raise ValueError(
            f"no table of classes {path}; expected a line id,name and one such as 40,road for each "
            "id in the labels, or another path as classes="
        )
    ids: dict[str, list[int]] = {}
    colors: dict[str, tuple[int, int, int]] = {}
    ignored: list[int] = []
    with path.open(newline="", encoding="utf-8-sig") as lines:
        table = csv.DictReader(lines, skipinitialspace=True)
        if not {"id", "name"} <= {*(table.fieldnames or ())}:
            raise ValueError(f"{path} must begin with a line id,name; got {table.fieldnames}")
        for row in table:
            try:
                id_, name = _id(row["id"]), (row["name"] or "").strip()
                if id_ in ignored or any(id_ in each for each in ids.values()):
                    raise ValueError(f"{id_} is there twice")
                color = _color(row)
            except ValueError as error:
                raise ValueError(f"{path}, line {table.line_num}: {error}") from error
            (ids.setdefault(name, []) if name else ignored).append(id_)
            if color is not None:
                colors.setdefault(name, color)
    if not ids:
        raise ValueError(f"{path} names no class")
    named = [(name, colors.get(name, distinct_color(i)), ids[name]) for i, name in enumerate(ids)]
    return LabelIds(str(path), named, ignored)


def _id(word: str | None) -> int:
    if not re.fullmatch(r"\s*[+-]?[0-9]{1,9}\s*", word or ""):
        raise ValueError(f"an id must be a whole number; got {word!r}")
    id_ = int(word or "")
    if abs(id_) > _LARGEST_ID:
        raise ValueError(f"an id must be from -{_LARGEST_ID} to {_LARGEST_ID}; got {id_}")
    return id_


def _color(row: dict[str, str | None]) -> tuple[int, int, int] | None:
    words = [(row.get(name) or "").strip() for name in ("red", "green", "blue")]
    if not any(words):
        return None
    if not all(word.isascii() and word.isdigit() and int(word) <= 255 for word in words):
        raise ValueError(f"red, green and blue must be from 0 to 255; got {', '.join(words)}")
    red, green, blue = map(int, words)
    return red, green, blue


def _listed(root: Path, split: str) -> list[Path]:
    """Return the scans of a list, none where there is no list."""
    path = root / f"{split}.txt"
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    files = [root / line.strip() for line in lines if line.strip()]
    if not files:
        raise ValueError(f"{path} lists no scan; expected a path in each line")
    for file in files:
        _check_kind(file, f"{path}: ")
    check_complete(f"the list {path}", files)
    return files


def _found(root: Path, split: str) -> list[Path]:
    """Return the scans in the sub-folder of a split."""
    folder = root / split
    if not folder.is_dir():
        raise ValueError(
            f"no split {split!r}; tried {root / split}.txt and {folder}{looks_like(root, '')}"
        )
    files = sorted(_walk(folder, frozenset()))
    scans = [file for file in files if file.suffix.lower() in SUFFIXES]
    if not scans:
        raise ValueError(f"no scans in {folder}; expected files that end in {', '.join(SUFFIXES)}")
    known = {(_scan_folder(file), file.stem) for file in scans}
    lone = [file for file in files if file.suffix in _BESIDE[:2]
            and (_scan_folder(file), file.stem) not in known]  # fmt: skip
    if lone:
        raise ValueError(
            f"{folder} is incomplete: {len(lone)} files of labels have no scan, such as {lone[0]}"
        )
    return scans


def _scan_folder(file: Path) -> Path:
    """Return what the places of a scan and of its labels have in common."""
    return file.parent.parent


def _walk(folder: Path, around: frozenset[str]) -> Iterator[Path]:
    """Yield the user's files in a folder and those inside it, but for folders of labels' arrays.

    Links to folders are followed, but not to one that is around them.
    """
    place = os.path.realpath(folder)
    if place in around:
        return
    for path in folder.iterdir():
        if is_hidden(path):
            continue
        if path.is_dir():
            yield from _walk(path, around | {place})
        elif folder.name != _LABEL_FOLDER or path.suffix in _BESIDE:
            yield path


def _check_kind(file: Path, where: str) -> None:
    if file.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{where}{file}: expected a file that ends in {', '.join(SUFFIXES)}")


def _label_files(scan: Path) -> list[Path]:
    """Return where the labels of a scan may be."""
    beside = [scan.with_suffix(suffix) for suffix in _BESIDE]
    folder = scan.parent.parent / _LABEL_FOLDER
    return beside + [folder / f"{scan.stem}{suffix}" for suffix in (*_BESIDE, ".npy")]


def _read_labels(path: Path, num_points: int, ids: LabelIds) -> np.ndarray:
    """Read the labels in a file beside a scan."""
    if path.suffix == ".label":
        return ids.read(path, num_points)
    if path.suffix == ".npy":
        labels = read_array(path)
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
    else:
        try:
            text = path.read_text(encoding="ascii")
            if "_" in text:  # Python reads 1_0 as 10
                raise ValueError("an underscore")
            labels = np.array(text.split(), dtype=np.float64)
        except ValueError as error:
            raise ValueError(f"{path}: expected one id in each line; got {error}") from error
    if labels.shape != (num_points,):
        raise ValueError(
            f"{path} must hold {num_points} labels, one per point; got {labels.shape}"
        )
    return ids.train_ids(_whole(labels, path), path)


def _whole(labels: np.ndarray, path: Path) -> np.ndarray:
    """Return labels as whole numbers, which other programs keep as fractions."""
    if labels.dtype.kind in "iu":
        return labels.astype(np.int64)
    wrong = ~(np.isfinite(labels) & (labels == np.round(labels)))
    if wrong.any():
        raise ValueError(
            f"{path}: labels must be whole numbers; got {labels[wrong][0]} and {wrong.sum()} such"
        )
    whole: np.ndarray = labels.astype(np.int64)
    return whole


def _share(file: Path, values: np.ndarray, largest: float, name: str) -> np.ndarray:
    """Return values as a share of the largest."""
    if not largest > 0:
        raise ValueError(f"{name}_max must be a positive number; got {largest}")
    share: np.ndarray = values.astype(np.float64) / largest
    if share.max(initial=0) > 1 or share.min(initial=0) < 0:
        raise ValueError(
            f"{file}: {name} is from {values.min():g} to {values.max():g}, not from 0 to "
            f"{largest:g}; give {name}_max={values.max():g}, or the sensor's largest"
        )
    return share
