"""SemanticSTF as it is published."""

import numpy as np

SCANS = {"train": {"a": "rain"}, "val": {"fog_1": "dense_fog", "snow_2": "snow", "snow_3": "snow"},
         "test": {"b": "light_fog"}}  # fmt: skip
POINTS = 42


def rows(seed):
    """Return x, y, z, the intensity up to 255 and the ring of each point."""
    rng = np.random.default_rng(seed)
    places = rng.uniform([-20, -20, -2], [20, 20, 3], (POINTS, 3))
    intensity = np.arange(POINTS) * 255 / (POINTS - 1)
    return np.column_stack([places, intensity, rng.integers(0, 64, POINTS)]).astype("<f4")


def write_splits(root):
    """Write scans of every split in the published layout."""
    for split, scans in SCANS.items():
        for name in ("velodyne", "labels"):
            (root / split / name).mkdir(parents=True)
        for seed, scan in enumerate(scans):
            rows(seed).tofile(root / split / "velodyne" / f"{scan}.bin")
            labels = np.arange(POINTS, dtype="<u4") % 21
            labels.tofile(root / split / "labels" / f"{scan}.label")
        lines = [f"{scan}.bin,{weather}" for scan, weather in scans.items()]
        (root / split / f"{split}.txt").write_bytes("\r\n".join([*lines, ""]).encode())
    return root
