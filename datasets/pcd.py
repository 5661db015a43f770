"""Points of `.pcd` files, PCL's format: text, binary, or binary compressed by LZF."""

import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from geonorm.datasets.point_fields import (
    PADDING,
    Field,
    by_name,
    check_promise,
    column,
    exact_rows,
    scan_columns,
    single_fields,
    text_rows,
    too_few,
)

# numpy's letter and the sizes in bytes that PCL knows of each TYPE.
_TYPES = {"F": ("f", (4, 8)), "I": ("i", (1, 2, 4, 8)), "U": ("u", (1, 2, 4, 8))}
_KINDS = ("ascii", "binary", "binary_compressed")


def read_pcd(path: Path) -> np.ndarray:
    """Read x, y, z and, where the file has it, the intensity of each point.

    Fields may be of any TYPE, SIZE and COUNT, in any order; those named `_` fill up space. Without
    SIZE, TYPE or COUNT a field is one float32, and without POINTS there are WIDTH times HEIGHT.

    Args:
        path: a `.pcd` file.

    Shape:
        - result: (N, 4) or (N, 3), float64

    Raises:
        ValueError: the file is truncated or damaged, or its points have no x, y or z.

    Source: the PCD format of the Point Cloud Library, versions 0.5 to 0.7.
    """
    fields, columns = _read(path, lambda fields: scan_columns(fields, path))
    return exact_rows([field.name for field in fields], columns, path)


def read_pcd_fields(path: Path) -> dict[str, np.ndarray]:
    """Read every field that is one number for each point, by its name.

    Args:
        path: a `.pcd` file.

    Shape:
        - result: (N,) each, of the field's type

    Raises:
        ValueError: the file is truncated or damaged.
    """
    return by_name(*_read(path, single_fields), path)


def _read(
    path: Path, choose: Callable[[Sequence[Field]], list[int]]
) -> tuple[list[Field], list[np.ndarray]]:
    """Return the fields that are chosen by their places, and their values."""
    data = path.read_bytes()
    header, start = _header(data, path)
    fields, promised = _fields(header, path), _promised(header, path)
    check_promise(promised, path, len(data))
    chosen = choose(fields)
    picked = [fields[place] for place in chosen]
    kind = header["DATA"][0]
    if kind == "ascii":
        lines = [line for line in data[start:].splitlines() if line.strip()]
        if len(lines) < promised:
            raise too_few(promised, len(lines), path)
        rows = text_rows(lines[:promised], sum(field.values for field in fields), path)
        first = np.cumsum([0] + [field.values for field in fields])
        return picked, list(rows[:, first[chosen]].T)
    if kind == "binary":
        stride = sum(field.size for field in fields)
        found = (len(data) - start) // stride
        if found < promised:
            raise too_few(promised, found, path)
        first = start + np.cumsum([0] + [field.size for field in fields])
        return picked, [
            column(data, fields[place].dtype, promised, int(first[place]), stride)
            for place in chosen
        ]
    return _compressed(data[start:], fields, choose, promised, path)


def _header(data: bytes, path: Path) -> tuple[dict[str, list[str]], int]:
    """Return the words of each line of the header by the line's first, and where the data begin."""
    header: dict[str, list[str]] = {}
    start = 0
    while "DATA" not in header:
        end = data.find(b"\n", start)
        if end < 0:
            raise ValueError(
                f"{path} is truncated or damaged: it has no header of a .pcd file, whose last line "
                f"is DATA and one of {', '.join(_KINDS)}"
            )
        key, *words = data[start:end].decode("latin-1").split() or ["#"]
        header.setdefault("FIELDS" if key == "COLUMNS" else key, words)
        start = end + 1
    if len(header["DATA"]) != 1 or header["DATA"][0] not in _KINDS:
        raise ValueError(
            f"{path} is damaged: DATA must be one of {', '.join(_KINDS)}; "
            f"got {' '.join(header['DATA'])!r}"
        )
    return header, start


def _fields(header: dict[str, list[str]], path: Path) -> list[Field]:
    names = header.get("FIELDS", [])
    fields = []
    for key, default in (("SIZE", "4"), ("TYPE", "F"), ("COUNT", "1")):
        words = header.setdefault(key, [default] * len(names))
        if len(words) != len(names):
            raise ValueError(
                f"{path} is damaged: {key} must have a value for each of {len(names)} FIELDS; "
                f"got {len(words)}"
            )
    for name, size, kind, count in zip(
        names, header["SIZE"], header["TYPE"], header["COUNT"], strict=True
    ):
        letter, sizes = _TYPES.get(kind, ("", ()))
        if size not in map(str, sizes):
            raise ValueError(
                f"{path} is damaged: field {name} is of TYPE {kind} and SIZE {size}; expected F of "
                "4 or 8 bytes, or I or U of 1, 2, 4 or 8"
            )
        number = _number(count, "COUNT", path)
        if number == 0:
            raise ValueError(f"{path} is damaged: field {name} has COUNT 0; expected 1 or more")
        fields.append(Field(name, np.dtype(f"<{letter}{size}"), number))
    return fields


def _promised(header: dict[str, list[str]], path: Path) -> int:
    """Return the number of points that the header tells."""
    numbers = {}
    for key in ("WIDTH", "HEIGHT", "POINTS"):
        if key in header:
            numbers[key] = _number(" ".join(header[key]), key, path)
    width, points = numbers.get("WIDTH"), numbers.get("POINTS")
    grid = None if width is None else width * numbers.get("HEIGHT", 1)
    if points is None and grid is None:
        raise ValueError(f"{path} is damaged: its header has neither POINTS nor WIDTH")
    if points is not None and grid is not None and points != grid:
        raise ValueError(
            f"{path} is damaged: its header has {points} POINTS, but WIDTH times HEIGHT is {grid}"
        )
    return points if points is not None else grid or 0


def _number(word: str, key: str, path: Path) -> int:
    if not (word.isascii() and word.isdigit() and len(word) <= 15):
        raise ValueError(f"{path} is damaged: {key} must be a whole number; got {word[:40]!r}")
    return int(word)


def _compressed(
    data: bytes, fields: list[Field], choose: Callable[[Sequence[Field]], list[int]],
    promised: int, path: Path,
) -> tuple[list[Field], list[np.ndarray]]:  # fmt: skip
    """Return the chosen columns of compressed data, which hold one field after another."""
    if len(data) < 8:
        raise ValueError(f"{path} is truncated: it ends before its compressed points")
    packed, unpacked = struct.unpack_from("<II", data)
    # PCL leaves the padding out, other writers do not; the size tells.
    whole = promised * sum(field.size for field in fields)
    present = [field for field in fields if field.name != PADDING]
    if unpacked == whole:
        present = fields
    elif unpacked != promised * sum(field.size for field in present):
        raise ValueError(
            f"{path} is damaged: {promised} points need {whole} bytes, but {unpacked} are said to "
            "be compressed"
        )
    values = lzf_decompressed(data[8 : 8 + packed], unpacked, path)
    first = np.cumsum([0] + [promised * field.size for field in present])
    chosen = choose(present)
    return [present[place] for place in chosen], [
        column(values, present[place].dtype, promised, int(first[place]), present[place].size)
        for place in chosen
    ]


def lzf_decompressed(data: bytes, size: int, path: Path) -> bytes:
    """Return what LZF compressed.

    A byte below 32 stands before as many literal bytes and one more. Any other holds in its upper
    three bits a length less two (seven: the next byte is added to it), in its lower five bits and
    the byte that follows how far back the bytes to repeat begin, less one.

    Args:
        data: compressed bytes.
        size: number of bytes expected.
        path: the file they are from, named in errors.

    Raises:
        ValueError: the data end early, refer to what is not there, or give another number of bytes.
    """
    out = bytearray()
    position = 0
    try:
        while position < len(data) and len(out) <= size:
            control = data[position]
            position += 1
            if control < 32:
                out += data[position : position + control + 1]
                position += control + 1
                continue
            length = control >> 5
            if length == 7:
                length += data[position]
                position += 1
            length += 2
            back = ((control & 31) << 8) + data[position] + 1
            position += 1
            begin = len(out) - back
            if begin < 0:
                raise IndexError
            found = out[begin : begin + length]
            if back < length:  # what is repeated overlaps what it makes
                found = (found * (length // back + 1))[:length]
            out += found
    except IndexError as error:
        raise ValueError(
            f"{path} is truncated or damaged: its compressed points end within one"
        ) from error
    if len(out) != size:
        raise ValueError(
            f"{path} is truncated or damaged: its compressed points unpack to {len(out)} bytes or "
            f"more; expected {size}. Copy the file again"
        )
    return bytes(out)
