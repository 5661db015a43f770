"""Files of scans in every kind that read_scan takes, written without what reads them."""

from pathlib import Path

import numpy as np


def rows(count=300, seed=0):
    """Return x, y, z in metres and an intensity in [0, 1], float32 (count, 4)."""
    rng = np.random.default_rng(seed)
    return rng.uniform([-20, -20, -2, 0], [20, 20, 3, 1], (count, 4)).astype("<f4")


def ply(points, names=("x", "y", "z", "intensity"), text=False, dtype="<f4"):
    """Return the bytes of a PLY file."""
    kind = "ascii" if text else "binary_little_endian"
    header = ["ply", f"format {kind} 1.0", f"element vertex {len(points)}"]
    number = {"<f4": "float", "<f8": "double"}[dtype]
    header += [f"property {number} {name}" for name in names]
    return _file([*header, "end_header"], points[:, : len(names)].astype(dtype), text)


def pcd(points, names=("x", "y", "z", "intensity"), text=False, dtype="<f4"):
    """Return the bytes of a PCD file."""
    ones = " ".join("1" * len(names))
    header = [
        "# .PCD v0.7 - Point Cloud Data file format", "VERSION 0.7", f"FIELDS {' '.join(names)}",
        f"SIZE {ones.replace('1', dtype[-1])}", f"TYPE {ones.replace('1', 'F')}", f"COUNT {ones}",
        f"WIDTH {len(points)}", "HEIGHT 1", "VIEWPOINT 0 0 0 1 0 0 0", f"POINTS {len(points)}",
        f"DATA {'ascii' if text else 'binary'}",
    ]  # fmt: skip
    return _file(header, points[:, : len(names)].astype(dtype), text)


def _file(header, points, text):
    if text:
        header += [" ".join(map(repr, row)) for row in points.tolist()]
    body = b"" if text else np.ascontiguousarray(points).tobytes()
    return "\n".join([*header, ""]).encode() + body


def write(path: Path, points, **options):
    """Write points to a file of the kind that its name tells, and return its path."""
    kind = path.suffix
    if kind == ".npy":
        np.save(path, points)
    else:
        data = {".bin": lambda p: p.tobytes(), ".ply": ply, ".pcd": pcd}[kind](points, **options)
        path.write_bytes(data)
    return path
