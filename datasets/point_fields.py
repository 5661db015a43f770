"""The columns of a scan among the named fields of a point-cloud file, in text or in binary."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

PADDING = "_"  # the name of fields that only fill up space
INTENSITIES = ("intensity", "scalar_intensity")
# The best that PCD's compression can do, and more than any other encoding does.
_MOST_POINTS_PER_BYTE = 100


class Field(NamedTuple):
    """One field of every point.

    Attributes:
        name: such as `x`; fields that only fill up space may share one.
        dtype: of one value, with its byte order.
        values: numbers of each point.
        length: dtype of the number before the values where each point has its own count, as a list
            in a PLY file has; then `values` says nothing.
    """

    name: str
    dtype: np.dtype
    values: int = 1
    length: np.dtype | None = None

    @property
    def size(self) -> int:
        """Bytes of one point, for a field that is no list."""
        return self.dtype.itemsize * self.values


def scan_columns(fields: Sequence[Field], path: Path) -> list[int]:
    """Return the places of x, y, z and, where there is one, the intensity among the fields.

    Raises:
        ValueError: x, y or z is missing, or one of the four is a list or several values.
    """
    places: dict[str, int] = {}
    for place, field in enumerate(fields):
        places.setdefault(field.name.lower(), place)
    missing = [axis for axis in "xyz" if axis not in places]
    if missing:
        raise ValueError(
            f"{path} has no {', '.join(missing)}; expected fields named x, y and z. Its points "
            f"have {', '.join(field.name for field in fields) or 'no fields'}; the file is of "
            "another kind, truncated or damaged"
        )
    names = [*"xyz", *(name for name in INTENSITIES if name in places)][:4]
    for name in names:
        field = fields[places[name]]
        if field.values != 1 or field.length is not None:
            many = "a list" if field.length is not None else f"{field.values} values"
            raise ValueError(f"{path}: expected one {name} for each point; got {many}")
    return [places[name] for name in names]


def single_fields(fields: Sequence[Field]) -> list[int]:
    """Return the places of the fields that are one number for each point, of each name the first.

    Those named `_` only fill up space.
    """
    single: dict[str, int] = {}
    for place, field in enumerate(fields):
        if field.values == 1 and field.length is None and field.name != PADDING:
            single.setdefault(field.name, place)
    return list(single.values())


def check_promise(promised: int, path: Path, size: int) -> None:
    """Refuse a header that promises more points than a file of this size can hold at all."""
    if promised > _MOST_POINTS_PER_BYTE * size:
        raise ValueError(
            f"{path} is truncated: its header promises {promised} points, more than its {size} "
            "bytes can hold"
        )


def too_few(promised: int, found: int, path: Path, what: str = "points") -> ValueError:
    """Return the error of a file that ends before its last point."""
    return ValueError(
        f"{path} is truncated or damaged: its header promises {promised} {what}, {found} can be "
        "read. Copy the file again"
    )


def text_rows(lines: Sequence[bytes], columns: int, path: Path) -> np.ndarray:
    """Return the numbers of lines in text, `columns` in each; (N, columns) float64."""
    if not lines:
        return np.zeros((0, columns))
    try:
        decoded = [line.decode("ascii") for line in lines]
        rows = np.loadtxt(decoded, ndmin=2, comments=None)
    except ValueError as error:
        raise ValueError(f"{path} is truncated or damaged: {error}") from error
    if rows.shape[1] != columns:
        raise ValueError(
            f"{path} is truncated or damaged: its header promises {columns} numbers for each "
            f"point; got {rows.shape[1]}"
        )
    return rows


def column(data: bytes, dtype: np.dtype, count: int, first: int, stride: int) -> np.ndarray:
    """Return numbers that stand in the data from byte `first` on, each `stride` bytes further."""
    # Of no points there may be no data, which numpy would refuse to look into.
    return np.ndarray(count, dtype, data, first, (stride,)) if count else np.empty(0, dtype)


def by_name(
    fields: Sequence[Field], columns: Sequence[np.ndarray], path: Path
) -> dict[str, np.ndarray]:
    """Return columns of numbers by the names of their fields, in the fields' types.

    Raises:
        ValueError: a number in text that its field's type does not hold.
    """
    found = {}
    for field, values in zip(fields, columns, strict=True):
        with np.errstate(invalid="ignore", over="ignore"):
            found[field.name] = typed = values.astype(field.dtype)
        if field.dtype.kind != "f" and (lost := values[typed != values]).size:
            raise ValueError(
                f"{path} is damaged: {field.name} has the value {lost[0]:g}, which its type, "
                f"{field.dtype}, does not hold"
            )
    return found


def exact_rows(names: Sequence[str], columns: Sequence[np.ndarray], path: Path) -> np.ndarray:
    """Return columns of numbers as float64, side by side.

    Raises:
        ValueError: whole numbers that float64 would round.
    """
    for name, column in zip(names, columns, strict=True):
        if column.dtype.kind in "iu" and column.size:
            largest = max(abs(int(column.min())), abs(int(column.max())))
            if largest > 2**53:
                raise ValueError(
                    f"{path}: {name} reaches {largest}, more than float64 can count exactly; "
                    "expected metres. Divide the column before it is saved"
                )
    with np.errstate(invalid="ignore", over="ignore"):  # of NaN, and of more than float64 holds
        return np.stack([column.astype(np.float64) for column in columns], axis=1)
