"""Trees of scans in numbered sequences, written byte for byte as KITTI's benchmarks have them."""

import numpy as np


def rows(name, count):
    """Return x, y, z in metres and an intensity in [0, 1] of each point, of a name's own."""
    rng = np.random.default_rng([*name.encode()])
    return rng.uniform([-20, -20, -2, 0], [20, 20, 3, 1], (count, 4)).astype("<f4")


def write_scan(folder, sequence, frame, raw, instances=0):
    """Write a scan whose points have the ids `raw`; return its points.

    Args:
        folder: that of the sequences.
        sequence: such as "03".
        frame: its number.
        raw: ids, one for each point.
        instances: numbers of the instances, which stand in the high bits.
    """
    name = f"{frame:06d}"
    for kind in ("velodyne", "labels"):
        (folder / sequence / kind).mkdir(parents=True, exist_ok=True)
    points = rows(f"{sequence}/{name}", len(raw))
    (folder / sequence / "velodyne" / f"{name}.bin").write_bytes(points.tobytes())
    labels = (np.asarray(raw) + (np.asarray(instances) << 16)).astype("<u4")
    (folder / sequence / "labels" / f"{name}.label").write_bytes(labels.tobytes())
    return points


def train_ids_of(dataset, raw, index=0):
    """Return {id: train id} of the scan whose points have just these ids, one each."""
    return dict(zip(raw, dataset[index].labels.tolist(), strict=True))


def write_semanticposs(root):
    """Write two scans of each sequence of SemanticPOSS, and tags, in the published layout."""
    for sequence in range(6):
        for frame in (2, 1):
            write_scan(root / "dataset/sequences", f"{sequence:02d}", frame, range(23), 9)
            tag = root / f"dataset/sequences/{sequence:02d}/tag/{frame:06d}.tag"
            tag.parent.mkdir(exist_ok=True)
            tag.write_bytes((np.arange(40 * 1800) < 23).tobytes())
    return root


def write_synlidar(root):
    """Write a scan of each sequence of SynLiDAR, and what lies beside them, as in its README."""
    for sequence in range(13):
        write_scan(root, f"{sequence:02d}", 7, range(33), 3)
    (root / "annotations.yaml").write_text("labels:\n")
    (root / "read_data.py").touch()
    return root
