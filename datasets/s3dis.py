"""S3DIS: rooms of six areas, as released in text and in the two forms in which it is processed."""

import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from geonorm.datasets.label_ids import LabelIds
from geonorm.datasets.pointcept import COLORS, POINTS, read_points, read_rows, room_folders
from geonorm.datasets.scan import Scan
from geonorm.datasets.scan_files import ScanFiles, check_complete, first_folder, known_split, own
from geonorm.datasets.scan_io import read_array, with_points
from geonorm.datasets.scan_layouts import looks_like

SPLITS = ("train", "val", "test")
AREAS = range(1, 7)
_RELEASE = "Stanford3dDataset_v1.2_Aligned_Version"
_ARRAYS = "stanford_indoor3d"  # as PointNet's script calls what it makes of the release
_SEGMENT = "segment.npy"
_COLUMNS = ("x", "y", "z", "red", "green", "blue")

# name and colour (RGB) in the order of the numbers in processed data
_CLASSES = (
    ("ceiling", (0, 255, 0)), ("floor", (0, 0, 255)), ("wall", (0, 255, 255)),
    ("beam", (255, 255, 0)), ("column", (255, 0, 255)), ("window", (100, 100, 255)),
    ("door", (200, 200, 100)), ("table", (170, 120, 200)), ("chair", (255, 0, 0)),
    ("sofa", (200, 100, 100)), ("bookcase", (10, 200, 100)), ("board", (200, 200, 200)),
    ("clutter", (50, 50, 50)),
)  # fmt: skip
_IDS = LabelIds("S3DIS", [(name, rgb, (i,)) for i, (name, rgb) in enumerate(_CLASSES)], (-1,))
_NUMBERS = {name: number for number, name in enumerate(_IDS.names)} | {
    "stairs": _IDS.names.index("clutter")  # some rooms have them; the benchmark does not
}

# Control bytes that stand in no text, and what they become: each has lost the bit of value 32.
_LOST_BIT = 0x20
_BROKEN = bytes(set(range(_LOST_BIT)) - set(b"\t\n\r"))
_MENDED = bytes.maketrans(_BROKEN, bytes(byte | _LOST_BIT for byte in _BROKEN))


class S3DIS(ScanFiles):
    """The rooms of S3DIS, 13 classes, with colours and, where processed, perhaps normals.

    Three layouts are known by their files. As released: `Area_N/ROOM/Annotations/CLASS_N.txt` with
    x, y, z, red, green and blue of each point, in which a few bytes are broken (`read_text`). As
    Pointcept processes it: `Area_N/ROOM/` with `coord.npy`, `color.npy`, `segment.npy` and perhaps
    `normal.npy`. As PointNet does: `Area_N_ROOM.npy`, (points, 7) with the class last. Coordinates
    are metres as the files have them; those of the release that is not aligned, and those that
    PointNet's script has moved, differ from the others'.

    Args:
        root: folder that holds those, `Stanford3dDataset_v1.2_Aligned_Version` or
            `stanford_indoor3d`.
        split: `"train"` (the areas but one), `"val"` or `"test"` (both the one), or a list of
            areas such as `[1, 3]`.
        test_area: number of the area that is not trained on. The usual one is 5; the mean over all
            six is the benchmark's other score.

    Raises:
        ValueError: a missing folder (naming the paths tried), an unknown split or area, areas,
            rooms or files that are missing, a class that S3DIS does not have, and, on reading a
            room, a broken file (naming it).

    Example:
        >>> S3DIS("/nowhere", split="val")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: no S3DIS under /nowhere; tried ...

    Source: Armeni et al., "3D Semantic Parsing of Large-Scale Indoor Spaces", 2016.
    """

    classes, colors, raw_ids = _IDS.names, _IDS.colors, _IDS.raw_ids

    def __init__(
        self, root: str | Path, split: str | Sequence[int] = "train", test_area: int = 5
    ) -> None:
        areas = _areas(split, test_area)
        folder = _folder(Path(root))
        rooms = {area: _rooms(folder, area) for area in areas}
        empty = [area for area, files in rooms.items() if not files]
        if empty:
            raise ValueError(
                f"S3DIS is incomplete: {folder} has no room of area {', '.join(map(str, empty))} "
                f"of those asked for, {', '.join(map(str, areas))}. Download or unpack them again"
                f"{looks_like(Path(root), 'S3DIS')}"
            )
        self.files = [file for area in areas for file in rooms[area]]
        check_complete("S3DIS", [part for room in self.files for part in _parts(room)])

    def __getitem__(self, index: int) -> Scan:
        file = self.files[index]
        if file.suffix == ".npy":
            points, extra, labels = _read_seven_columns(file)
        elif (file / POINTS).is_file():
            points, extra = read_points(file)
            labels = read_rows(file / _SEGMENT, len(points))
            labels = _IDS.train_ids(labels, file / _SEGMENT)
        else:
            points, extra, labels = _read_annotations(file)
        scan = Scan.from_raw(points, None, labels, _name(file), extra=extra)
        return with_points(scan, file)


def read_text(path: Path) -> tuple[np.ndarray, int]:
    """Read the points of a text file of the release, and mend its broken bytes.

    In a few bytes of the release one bit is lost, that of value 32: `-9.1\\x160` was -9.160 (6 is
    0x36), `103.0\\x100000` was 103.000000, and the zero byte in `185\\x00187` was a space. All that
    are known are control bytes, which no text has, so that they can be told from others.

    Args:
        path: lines of x, y, z in metres, red, green and blue from 0 to 255.

    Returns:
        the numbers, and how many bytes were mended.

    Shape:
        - result[0]: (N, 6), float64

    Raises:
        ValueError: a line that is no six numbers even so (naming it), or no line.
    """
    data = path.read_bytes()
    whole = data.translate(_MENDED).replace(b"\r", b"\n")  # loadtxt passes over empty lines
    mended = len(data) - len(data.translate(None, _BROKEN))
    try:
        text = whole.decode("ascii")
        rows = np.loadtxt(io.StringIO(text), ndmin=2, comments=None) if text.strip() else None
    except ValueError:
        rows = np.zeros((0, 0))
    if rows is None:
        raise ValueError(f"{path} is empty; expected lines of {', '.join(_COLUMNS)}")
    if rows.shape[1] != len(_COLUMNS):
        raise _broken_line(path, data)
    return rows, mended


_NUMBER = rb"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?:nan|inf)"
_LINE = re.compile(rb"\s*|\s*(?:(?:%b)\s+){5}(?:%b)\s*" % (_NUMBER, _NUMBER), re.IGNORECASE)


def _broken_line(path: Path, data: bytes) -> ValueError:
    """Return the error that names the first line which is no six numbers."""
    lines = data.translate(_MENDED).splitlines()
    number = next(i for i, line in enumerate(lines) if not _LINE.fullmatch(line))
    found = data.splitlines()[number][:80].decode("latin-1")
    return ValueError(
        f"{path}, line {number + 1}: expected six numbers, {', '.join(_COLUMNS)}; got {found!r}, "
        "which cannot be mended. Unpack the file again, or correct the line by hand"
    )


def _areas(split: str | Sequence[int], test_area: int) -> list[int]:
    """Return the numbers of the areas of a split."""
    if isinstance(split, str):
        held_out = known_split(split, SPLITS, "areas") != "train"
        areas = [area for area in AREAS if (area == test_area) == held_out]
        wrong = [] if test_area in AREAS else [test_area]
    else:
        areas = [int(area) for area in split]
        wrong = [area for area in areas if area not in AREAS]
    if wrong or not areas:
        raise ValueError(f"S3DIS has the areas 1 to 6; got {wrong or 'no area'}")
    return areas


def _folder(root: Path) -> Path:
    tried = (root, root / _RELEASE, root / _ARRAYS)
    return first_folder("S3DIS", root, tried, ("Area_[1-6]", "Area_[1-6]_*.npy"))


def _rooms(folder: Path, area: int) -> list[Path]:
    """Return the folder or file of each room of an area, those that its list names among them."""
    inside = folder / f"Area_{area}"
    if not inside.is_dir():
        return own(folder, f"Area_{area}_*.npy")
    rooms = room_folders(inside, "S3DIS")
    angles = inside / f"{inside.name}_alignmentAngle.txt"  # a line for each room of the release
    if angles.is_file():
        lines = angles.read_text(encoding="utf-8").splitlines()
        named = [line.split()[0] for line in lines if line.strip() and line[0] != "#"]
        rooms = sorted({*rooms, *(inside / name for name in named)})
    return rooms


def _parts(room: Path) -> list[Path]:
    """Return what must be there of a room."""
    if room.suffix == ".npy":
        return [room]
    if own(room, "*.npy"):
        return [room / name for name in (POINTS, COLORS, _SEGMENT)]
    return own(room / "Annotations", "*.txt") or [room / "Annotations" / "*.txt"]


def _name(room: Path) -> str:
    if room.suffix != ".npy":
        return f"{room.parent.name}/{room.name}"
    _, area, name = room.stem.split("_", 2)
    return f"Area_{area}/{name}"


def _read_seven_columns(file: Path) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Read a room that PointNet's script has written."""
    rows = read_array(file)
    if rows.ndim != 2 or rows.shape[1] != 7:
        raise ValueError(
            f"{file} must be (N, 7), {', '.join(_COLUMNS)} and the class; got {rows.shape}"
            + (": it has no labels" if rows.shape[1:] == (6,) else "")
        )
    labels = rows[:, 6].astype(np.int64)
    return rows[:, :3], {"color": rows[:, 3:6] / 255}, _IDS.train_ids(labels, file)


def _read_annotations(room: Path) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Read a room as released: a file for each object, named by its class; warn of mended bytes."""
    files = own(room / "Annotations", "*.txt")
    objects = [file.stem.rpartition("_")[0] or file.stem for file in files]
    unknown = [name for name in objects if name not in _NUMBERS]
    if unknown:
        counted = [f"{name} ({unknown.count(name)} objects)" for name in dict.fromkeys(unknown)]
        raise ValueError(
            f"{room / 'Annotations'} holds {', '.join(counted)}, which S3DIS does not have; it "
            f"has {', '.join(_NUMBERS)}"
        )
    read = [read_text(file) for file in files]
    broken = {file.name: mended for file, (_, mended) in zip(files, read, strict=True) if mended}
    if broken:
        counted = [f"{mended} in {name}" for name, mended in broken.items()]
        warnings.warn(
            f"{room / 'Annotations'}: broken bytes were mended, {', '.join(counted)}, as are "
            "known of the release",
            stacklevel=2,
        )
    rows = np.concatenate([each for each, _ in read])
    labels = np.repeat([_NUMBERS[name] for name in objects], [len(each) for each, _ in read])
    return rows[:, :3], {"color": rows[:, 3:] / 255}, labels
