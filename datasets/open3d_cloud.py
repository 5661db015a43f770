"""Points of `.ply` and `.pcd` files, by Open3D in a process of its own.

On a damaged file Open3D's readers may end the process, or give whatever stood in memory for the
points that are missing with nothing but a line on the terminal, and for files in text not even
that; whoever reads a folder of files must outlive it, and know.
"""

import ctypes
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

TIMEOUT = 120
_HEADER_BYTES = 1 << 16
# The headers of files in text, to their ends.
_TEXT = {
    ".ply": rb"\Aply\s+format ascii .*?^end_header\s*?\n",
    ".pcd": rb"\A.*?^DATA ascii\s*?\n",
}
_COUNTS = {".ply": rb"element vertex (\d{1,15})\s", ".pcd": rb"POINTS (\d{1,15})\s"}
# The best that PCD's compression can do; a header that tells of more points is damaged.
_MOST_POINTS_PER_BYTE = 100
# How Open3D and the reader of PLY within it say that they gave up on a file.
_COMPLAINT = re.compile(r"Open3D WARNING\] (Read P|\[ReadP)|RPly:")
_INTENSITIES = ("intensity", "scalar_intensity")


def read_cloud(path: Path) -> np.ndarray:
    """Return x, y, z and, where the file has it, the intensity of each point.

    Args:
        path: a `.ply` or `.pcd` file.

    Shape:
        - result: (N, 4) or (N, 3), float64

    Raises:
        ValueError: Open3D cannot read the file, or not every point that its header promises.
        RuntimeError: Open3D itself cannot be started.
    """
    promised = _promised_points(path)
    _check_text(path, promised)
    with tempfile.TemporaryDirectory() as folder:
        points = Path(folder) / "points.npy"
        # -P: the modules beside this one are not to be found under their bare names.
        command = [sys.executable, "-P", __file__, str(path), str(points)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT,
                check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise ValueError(f"{path} is damaged: not read within {TIMEOUT} s") from error
        said = " | ".join((done.stderr + done.stdout).strip().splitlines()[-2:])
        if "ModuleNotFoundError" in said or "ImportError" in said:
            raise RuntimeError(f"{path} is read by Open3D, which cannot be imported: {said}")
        if done.returncode or _COMPLAINT.search(done.stderr + done.stdout):
            raise ValueError(
                f"{path} cannot be read; it is truncated or damaged (Open3D ended with code "
                f"{done.returncode}: {said or 'no message'})"
            )
        rows = np.load(points)
    if len(rows) != promised:
        raise ValueError(
            f"{path} is truncated or damaged: its header promises {promised} points, {len(rows)} "
            f"can be read. Copy the file again ({said or 'Open3D says nothing'})"
        )
    return rows


def _promised_points(path: Path) -> int:
    """Return the number of points that the header tells."""
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    kind = path.suffix.lower()
    found = re.search(_COUNTS[kind], header)
    if found is None:
        raise ValueError(f"{path} is damaged: it has no header of a {kind} file with points")
    points = int(found[1])
    if points > _MOST_POINTS_PER_BYTE * path.stat().st_size:
        raise ValueError(
            f"{path} is truncated: its header promises {points} points, more than its "
            f"{path.stat().st_size} bytes can hold"
        )
    return points


def _check_text(path: Path, promised: int) -> None:
    """Refuse a file in text that has not a line of numbers for each point."""
    data = path.read_bytes()
    header = re.search(_TEXT[path.suffix.lower()], data[:_HEADER_BYTES], re.MULTILINE | re.DOTALL)
    if header is None:
        return
    # Other things may stand before the points of a .ply file, a line for each.
    others = re.match(rb"(.*?)element vertex", header[0], re.DOTALL)
    counts = re.findall(rb"element \w+ (\d{1,15})\s", others[1]) if others else []
    first = sum(map(int, counts))
    try:
        lines = [line for line in data[header.end() :].decode("ascii").splitlines() if line.strip()]
        points = lines[first : first + promised]
        rows = len(np.loadtxt(points, ndmin=2)) if points else 0
    except ValueError as error:
        raise ValueError(f"{path} is truncated or damaged: {error}") from error
    if rows != promised:
        raise ValueError(
            f"{path} is truncated or damaged: its header promises {promised} points; it has "
            f"{rows} lines of numbers. Copy the file again"
        )


def _read_here(path: str) -> np.ndarray:
    """Do the reading in this process."""
    import open3d as o3d

    cloud = o3d.t.io.read_point_cloud(
        path, remove_nan_points=False, remove_infinite_points=False
    ).point
    names = {name.lower(): name for name in cloud}
    columns = [cloud["positions"].numpy()] if "positions" in names else [np.zeros((0, 3))]
    intensity = next((names[name] for name in _INTENSITIES if name in names), None)
    if intensity is not None:
        columns.append(cloud[intensity].numpy().reshape(-1, 1))
    return np.concatenate([column.astype(np.float64) for column in columns], axis=1)


if __name__ == "__main__":
    np.save(sys.argv[2], _read_here(sys.argv[1]))
    # What was complained of must be heard, whether Python or C holds it back.
    sys.stdout.flush()
    ctypes.CDLL(None).fflush(None)
    # Open3D's own clean-up can crash after the work is done and saved.
    os._exit(0)
