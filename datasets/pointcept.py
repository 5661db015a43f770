"""Rooms as Pointcept processes them: a folder of `.npy` arrays for each, one row for each point."""

from pathlib import Path

import numpy as np

from geonorm.datasets.scan_files import own
from geonorm.datasets.scan_io import read_array

POINTS = "coord.npy"
COLORS = "color.npy"
NORMALS = "normal.npy"


def room_folders(folder: Path, dataset: str) -> list[Path]:
    """Return the folders of the rooms in a folder, in the order of names.

    Args:
        folder: of a split or an area.
        dataset: its name, for the error.

    Raises:
        ValueError: there is a file for each room instead, as Pointcept wrote before.
    """
    rooms = [path for path in own(folder) if path.is_dir()]
    if not rooms and (old := own(folder, "*.pth")):
        raise ValueError(
            f"{folder} holds one .pth file for each room of {dataset}, such as {old[0].name}, as "
            "Pointcept wrote before 2024; expected folders with coord.npy. Process the release "
            "again with a later Pointcept, or give the release itself"
        )
    return rooms


def read_points(room: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Read the points of a room, their colours and, where there are some, their normals.

    Args:
        room: a folder with `coord.npy`, `color.npy` and perhaps `normal.npy`.

    Shape:
        - result: (N, 3) metres; a dict of (N, 3), colours in [0, 1]

    Raises:
        ValueError: an array is broken or has another number of rows.
    """
    points = read_array(room / POINTS)
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"{room / POINTS} must be (N, 3); got {points.shape}")
    extra = {"color": read_rows(room / COLORS, len(points), 3) / 255}
    if (room / NORMALS).is_file():
        extra["normal"] = read_rows(room / NORMALS, len(points), 3)
    return points, extra


def read_rows(file: Path, num_points: int, columns: int | None = None) -> np.ndarray:
    """Read an array with a row for each point.

    Args:
        file: a `.npy` file.
        num_points: number of points of its room.
        columns: numbers of each point; None for one, without an axis of their own.

    Shape:
        - result: (num_points, columns) or (num_points,)

    Raises:
        ValueError: the file is broken or its array of another shape.
    """
    array = read_array(file)
    if columns is None and array.shape == (num_points, 1):
        array = array[:, 0]
    expected = (num_points,) if columns is None else (num_points, columns)
    if array.shape != expected:
        raise ValueError(f"{file} must be {expected}, as its room's points; got {array.shape}")
    return array
