"""Vertices of `.ply` files, the Stanford polygon format, in text or in binary."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from geonorm.datasets.point_fields import (
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
from geonorm.files import written_whole

_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4",
    "float": "f4", "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2",
    "int32": "i4", "uint32": "u4", "float32": "f4", "float64": "f8",
}  # fmt: skip
_ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}
_LONGEST_HEADER = 1 << 16  # bytes
_LINE_END = re.compile(rb"\r\n|\n|\r")


class _Element(NamedTuple):
    """A table of the file: its rows are vertices, faces or anything else."""

    name: str
    rows: int
    fields: list[Field]


def read_ply(path: Path) -> np.ndarray:
    """Read x, y, z and, where the file has it, the intensity of each vertex.

    Properties may be of any type, lists among them, in any order. Faces and all other elements are
    passed over, but must be there: without them the file is truncated.

    Args:
        path: a `.ply` file.

    Shape:
        - result: (N, 4) or (N, 3), float64

    Raises:
        ValueError: the file is truncated or damaged, or its vertices have no x, y or z.

    Source: Turk, "The PLY Polygon File Format", 1994.
    """
    fields, columns = _read(path, lambda fields: scan_columns(fields, path))
    return exact_rows([field.name for field in fields], columns, path)


def read_vertices(path: Path, names: Sequence[str]) -> np.ndarray:
    """Read chosen properties of each vertex, such as its colours or its label.

    Args:
        path: a `.ply` file.
        names: of the properties, such as `red`.

    Shape:
        - result: (N, len(names)), float64

    Raises:
        ValueError: the file is truncated or damaged, or its vertices lack a property.
    """

    def places(fields: Sequence[Field]) -> list[int]:
        present = [field.name for field in fields]
        missing = [name for name in names if name not in present]
        if missing:
            raise ValueError(
                f"{path} has no {', '.join(missing)}; its points have {', '.join(present)}"
            )
        return [present.index(name) for name in names]

    fields, columns = _read(path, places)
    return exact_rows([field.name for field in fields], columns, path)


def read_ply_fields(path: Path) -> dict[str, np.ndarray]:
    """Read every property of the vertices that is one number, by its name.

    Args:
        path: a `.ply` file.

    Shape:
        - result: (N,) each, of the property's type

    Raises:
        ValueError: the file is truncated or damaged.
    """
    return by_name(*_read(path, single_fields), path)


def count_vertices(path: Path) -> int:
    """Return the number of vertices that the header of a `.ply` file promises."""
    with path.open("rb") as file:
        _, elements, _ = _header(file.read(_LONGEST_HEADER), path)
    return next((element.rows for element in elements if element.name == "vertex"), 0)


def _read(
    path: Path, choose: Callable[[Sequence[Field]], list[int]]
) -> tuple[list[Field], list[np.ndarray]]:
    """Return the properties that are chosen by their places, and their values."""
    data = path.read_bytes()
    text, elements, start = _header(data, path)
    place = next((i for i, element in enumerate(elements) if element.name == "vertex"), None)
    if place is None:
        raise ValueError(f"{path} is damaged: it has no header of a .ply file with vertices")
    fields = elements[place].fields
    check_promise(elements[place].rows, path, len(data))
    chosen = choose(fields)
    picked = [fields[i] for i in chosen]
    if text:
        return picked, list(_text_vertices(data[start:], elements, place, path)[:, chosen].T)
    columns: list[np.ndarray] = []
    for number, element in enumerate(elements):
        found, start = _columns(
            data, element, start, chosen if number == place else [], path
        )
        columns += found
    return picked, columns


def _header(data: bytes, path: Path) -> tuple[bool, list[_Element], int]:
    """Return whether the file is in text, its elements, and where their rows begin."""
    end = _LINE_END.search(data[:100])
    if end is None or data[: end.start()].rstrip() != b"ply":
        raise ValueError(f"{path} is damaged: it has no header of a .ply file, which begins ply")
    order, elements, start = "", list[_Element](), end.end()
    while True:
        stop = data.find(end[0], start)
        if stop < 0:
            raise ValueError(f"{path} is truncated or damaged: its header has no end_header")
        line = data[start:stop].decode("latin-1")
        start = stop + len(end[0])
        words = line.split()
        match words:
            case ["end_header"] if order:
                return order == "=", elements, start
            case [] | ["comment" | "obj_info", *_]:
                continue
            case ["format", encoding, "1.0"] if encoding in _ORDERS and not order:
                order = _ORDERS[encoding]
            case ["element", name, count] if re.fullmatch("[0-9]{1,15}", count):
                elements.append(_Element(name, int(count), []))
            case ["property", "list", length, kind, name] if (
                {length, kind} <= _TYPES.keys() and elements and _TYPES[length][0] != "f"
            ):
                types = [np.dtype(order + _TYPES[each]) for each in (kind, length)]
                elements[-1].fields.append(Field(name, types[0], 1, types[1]))
            case ["property", kind, name] if kind in _TYPES and elements:
                elements[-1].fields.append(Field(name, np.dtype(order + _TYPES[kind])))
            case _:
                raise ValueError(
                    f"{path} is damaged: {line.strip()[:60]!r} is no line of a .ply file's header"
                )


def _text_vertices(
    data: bytes, elements: list[_Element], place: int, path: Path
) -> np.ndarray:
    """Return the numbers of each vertex of a file in text; a list counts as one, its length."""
    lines = [line for line in data.splitlines() if line.strip()]
    start, vertices = 0, list[bytes]()
    for number, element in enumerate(elements):
        if not element.fields:
            continue
        if start + element.rows > len(lines):
            raise too_few(element.rows, len(lines) - start, path, _rows_of(element))
        end = start + element.rows
        numbers = [_without_lists(line, element.fields, path) for line in lines[start:end]]
        start = end
        if number == place:
            vertices = numbers
    return text_rows(vertices, len(elements[place].fields), path)


def _without_lists(line: bytes, fields: list[Field], path: Path) -> bytes:
    """Return a line of text with the length alone of each list."""
    words, kept, at = line.split(), [], 0
    for field in fields:
        kept += words[at : at + 1]
        listed = words[at] if field.length is not None and at < len(words) else b"0"
        if not listed.isdigit():
            raise ValueError(f"{path} is damaged: a list of {listed.decode('latin-1')!r} values")
        at += 1 + int(listed)
    if at != len(words):
        raise ValueError(
            f"{path} is truncated or damaged: a line has {len(words)} numbers; its header promises "
            f"{at}"
        )
    return b" ".join(kept)


def _rows_of(element: _Element) -> str:
    return "points" if element.name == "vertex" else f"rows of {element.name}"


def _columns(
    data: bytes, element: _Element, start: int, chosen: list[int], path: Path
) -> tuple[list[np.ndarray], int]:
    """Return the chosen columns of an element in binary, and where its last row ends."""
    fields, count = element.fields, element.rows
    if any(field.length is not None for field in fields):
        begins, end = _begins(data, element, start, path)
        octets = np.frombuffer(data, dtype=np.uint8)
        columns = []
        for place in chosen:
            dtype = fields[place].dtype
            spans = begins[:, place, None] + np.arange(dtype.itemsize)
            columns.append(octets[spans].view(dtype)[:, 0])
        return columns, end
    stride = sum(field.size for field in fields)
    end = start + stride * count
    if end > len(data):
        raise too_few(count, (len(data) - start) // stride, path, _rows_of(element))
    first = start + np.cumsum([0, *(field.size for field in fields)])
    return [
        column(data, fields[place].dtype, count, int(first[place]), stride)
        for place in chosen
    ], end


def _begins(
    data: bytes, element: _Element, start: int, path: Path
) -> tuple[np.ndarray, int]:
    """Return at which byte each field of each row begins, (rows, fields), and where the last ends.

    Rows with lists differ in length, so that each must be walked through; but for those of a mesh
    of triangles alone, of which there are many.
    """
    if element.rows == 0:
        return np.zeros((0, len(element.fields)), dtype=np.int64), start
    first, end = _walk(data, element, start, path, rows=1)
    stride = end - start
    lengths = [
        column(data, field.length, element.rows, int(place), stride)
        for place, field in zip(first[0], element.fields, strict=True)
        if field.length is not None and start + stride * element.rows <= len(data)
    ]
    if lengths and all((length == length[0]).all() for length in lengths):
        return (
            first + stride * np.arange(element.rows)[:, None], start + stride * element.rows
        )
    return _walk(data, element, start, path, element.rows)


def _walk(
    data: bytes, element: _Element, start: int, path: Path, rows: int
) -> tuple[np.ndarray, int]:
    """Return what _begins does for the first rows, from one to the next."""
    steps = [(field.size, field.length) for field in element.fields]
    begins, at = [], start
    for row in range(rows):
        for size, length in steps:
            begins.append(at)
            if length is None:
                at += size
                continue
            octets = data[at : at + length.itemsize]
            if length.str[0] == ">":
                octets = octets[::-1]
            number = int.from_bytes(octets, "little", signed=length.kind == "i")
            if number < 0:
                raise ValueError(f"{path} is damaged: a list of {number} values")
            at += length.itemsize + size * number
        if at > len(data):
            raise too_few(element.rows, row, path, _rows_of(element))
    return np.array(begins, dtype=np.int64).reshape(rows, len(steps)), at


def write_ply(path: Path, points: np.ndarray, colors: np.ndarray) -> None:
    """Write coloured points as a binary PLY file, complete or not at all.

    Args:
        path: the file.
        points: x, y, z, float32 or float64, which the file keeps.
        colors: red, green and blue, uint8.

    Shape:
        - points, colors: (N, 3)

    Raises:
        ValueError: different numbers of points and colours.
    """
    kind = "double" if points.dtype == np.float64 else "float"
    rows = np.empty(len(points), [("xyz", f"<{_TYPES[kind]}", 3), ("rgb", "u1", 3)])
    rows["xyz"], rows["rgb"] = points, colors
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
    header += [f"property {kind} {name}" for name in ("x", "y", "z")]
    header += [f"property uchar {name}" for name in ("red", "green", "blue")]
    text = "\n".join([*header, "end_header\n"])
    with written_whole(path) as aside:
        aside.write_bytes(text.encode() + rows.tobytes())
