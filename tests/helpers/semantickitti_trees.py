"""SemanticKITTI as it is published."""

import numpy as np

from helpers.scan_writers import rows, write


def write_scan(root, sequence, frame, points, raw):
    """Write x, y, z and intensity of a scan, and its ids where there are some."""
    folder = root / "sequences" / sequence
    (folder / "velodyne").mkdir(parents=True, exist_ok=True)
    write(folder / "velodyne" / f"{frame:06d}.bin", points.astype("<f4"))
    if raw is not None:
        (folder / "labels").mkdir(exist_ok=True)
        raw.astype("<u4").tofile(folder / "labels" / f"{frame:06d}.label")


def write_tested(root):
    """Write all 20,351 scans of the sequences that are tested on, of 1, 2 and 3 points in turn.

    Those of one length share a file.
    """
    counts = (921, 1061, 3281, 631, 1901, 1731, 491, 1801, 4981, 831, 2721)
    for count in (1, 2, 3):
        rows(count).tofile(root / f"{count}.bin")
    for sequence, scans in enumerate(counts, start=11):
        folder = root / f"sequences/{sequence}/velodyne"
        folder.mkdir(parents=True)
        for frame in range(scans):
            (folder / f"{frame:06d}.bin").hardlink_to(root / f"{1 + frame % 3}.bin")


def write_labelled(root):
    """Write a scan of each sequence that has labels."""
    for number in range(11):
        labels = np.random.default_rng(number).choice([0, 10, 40, 70], 300)
        write_scan(root, f"{number:02d}", 0, rows(seed=number), labels)
