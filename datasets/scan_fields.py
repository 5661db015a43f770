"""Everything that a file of points knows of each, by name, whatever the kind of file."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from geonorm.datasets.las import read_las_fields
from geonorm.datasets.pcd import read_pcd_fields
from geonorm.datasets.ply import read_ply_fields
from geonorm.datasets.scan_io import read_array

SUFFIXES = (".ply", ".pcd", ".npy", ".npz", ".bin", ".las", ".laz")
# What tables of three columns hold, by the names that they go by in .npz files.
_TABLES = {
    ("x", "y", "z"): ("xyz", "points", "point", "coord", "coords", "pos"),
    ("red", "green", "blue"): ("rgb", "color", "colors"),
    ("nx", "ny", "nz"): ("normal", "normals"),
}
_ONE_NAME = {
    "r": "red", "g": "green", "b": "blue", "normal_x": "nx", "normal_y": "ny", "normal_z": "nz",
    "return_number": "echo",
}  # fmt: skip
_PACKED = ("rgb", "rgba")  # as PCL calls the three colours in one number
_BY_CLOUDCOMPARE = "scalar_"


def read_fields(path: Path, columns: Sequence[str]) -> dict[str, np.ndarray]:
    """Read all fields of the points in a file, by their names in lower case.

    Other programs' names become one: CloudCompare's `scalar_Intensity` is `intensity`, `r` is
    `red`, `normal_x` is `nx`, `return_number` is `echo`, and PCL's `rgb` is taken apart.

    Args:
        path: a file whose name ends in one of `SUFFIXES`.
        columns: names of the columns of an array without names (`.npy`, `.npz`) and of a `.bin`
            file, which is float32.

    Shape:
        - result: (N,) each, of the file's types

    Raises:
        ValueError: a truncated, damaged or empty file, another number of columns, fields of
            different lengths, or no x, y and z.
    """
    if not path.is_file() or path.stat().st_size == 0:
        raise ValueError(f"{path} is empty or no file; expected one scan")
    readers: Mapping[str, Callable[[], dict[str, np.ndarray]]] = {
        ".ply": lambda: read_ply_fields(path),
        ".pcd": lambda: read_pcd_fields(path),
        ".npy": lambda: _of_array(read_array(path), columns, path),
        ".npz": lambda: _of_archive(path, columns),
        ".bin": lambda: _of_array(_read_bin(path, columns), columns, path),
        ".las": lambda: read_las_fields(path),
        ".laz": lambda: read_las_fields(path),
    }
    fields: dict[str, np.ndarray] = {}
    for name, values in readers[path.suffix.lower()]().items():
        name = name.lower().removeprefix(_BY_CLOUDCOMPARE)
        parts = _unpacked(values) if name in _PACKED else {_ONE_NAME.get(name, name): values}
        fields = parts | fields
    _check(fields, path)
    return fields


def _check(fields: Mapping[str, np.ndarray], path: Path) -> None:
    missing = [axis for axis in "xyz" if axis not in fields]
    if missing:
        raise ValueError(
            f"{path} has no {', '.join(missing)}; its points have {', '.join(sorted(fields))}"
        )
    lengths = {name: len(values) for name, values in fields.items()}
    if len({*lengths.values()}) > 1:
        told = ", ".join(f"{count} of {name}" for name, count in lengths.items())
        raise ValueError(f"{path}: expected one value of each field for each point; got {told}")


def _read_bin(path: Path, columns: Sequence[str]) -> np.ndarray:
    size, row = path.stat().st_size, 4 * len(columns)
    if size % row:
        raise ValueError(
            f"{path} is truncated: expected a multiple of {row} bytes, float32 {', '.join(columns)}"
            f" of each point; got {size}. Copy the file again, or name its columns by columns="
        )
    return np.fromfile(path, "<f4").reshape(-1, len(columns))


def _of_array(
    array: np.ndarray, columns: Sequence[str], path: Path
) -> dict[str, np.ndarray]:
    """Return the fields of an array, which has names for them or columns."""
    if array.dtype.names is not None and array.ndim == 1:
        return {name: array[name] for name in array.dtype.names}
    if array.ndim != 2 or array.shape[1] != len(columns) or array.dtype.kind not in "fiu":
        raise ValueError(
            f"{path}: expected numbers, (N, {len(columns)}): {', '.join(columns)}; got "
            f"{array.dtype} {array.shape}. Name the columns that it has by columns="
        )
    return dict(zip(columns, array.T, strict=True))


def _of_archive(path: Path, columns: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the fields of a `.npz` file: arrays of a number for each point, and tables."""
    fields: dict[str, np.ndarray] = {}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    # A damaged archive can raise anything that zipfile, zlib and numpy's own parser raise.
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read as a .npz archive; it is truncated or damaged "
            f"({type(error).__name__}: {error})"
        ) from error
    for name, array in arrays.items():
        table = next((axes for axes, names in _TABLES.items() if name.lower() in names), columns)
        if array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]
        if array.ndim == 2 and (table is not columns or array.shape[1] == len(columns)):
            fields |= _of_array(array, table, path)
        elif array.ndim == 1 and array.dtype.kind in "fiu":
            fields[name] = array
    return fields


def _unpacked(values: np.ndarray) -> dict[str, np.ndarray]:
    """Return red, green and blue of numbers that hold them in 24 bits, as PCL's files do."""
    bits = np.ascontiguousarray(values).view("<u4") if values.dtype.itemsize == 4 else values
    parts = {"red": 16, "green": 8, "blue": 0}
    return {name: (bits.astype("u4") >> shift & 255).astype("u1") for name, shift in parts.items()}
