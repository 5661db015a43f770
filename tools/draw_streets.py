#!/usr/bin/env python
"""Draw a scan of a built-in town, one of a suburb and a real one side by side.

  python tools/draw_streets.py FOLDER [FILE]        FOLDER holds SemanticKITTI

From above in the colour of the height, along the rings in those of range and intensity. Of the real
scan only the bare points are read.
"""

import sys
from pathlib import Path

import numpy as np

from geonorm.datasets import Scan, SyntheticStreets
from geonorm.datasets.scan_io import read_scan
from geonorm.training.figures import plt

FILE = Path(__file__).resolve().parents[1] / "docs" / "figures" / "streets.png"
REAL = Path("sequences", "00", "velodyne", "000000.bin")
REACH = 40.0  # metres shown each way


def scans(folder: Path) -> dict[str, Scan]:
    """Return each column's scan.

    Args:
        folder: of SemanticKITTI.
    """
    return {
        "town, seen by roof32": SyntheticStreets(1, seed=6)[0],
        "suburb, seen by hdl64": SyntheticStreets(2, 9, "hdl64", "suburb")[1],
        "SemanticKITTI 00, a Velodyne HDL-64E": read_scan(folder / REAL),
    }


def main(folder: Path, file: Path) -> None:
    """Write the picture."""
    shown = scans(folder)
    figure, grid = plt.subplots(
        3, len(shown), figsize=(18, 10.5), layout="constrained", height_ratios=(6, 2, 2)
    )
    for column, (title, scan) in zip(grid.T, shown.items(), strict=True):
        size = 0.4 * (1e5 / len(scan)) ** 0.5
        x, y, z = scan.points[np.argsort(scan.points[:, 2])].T
        column[0].scatter(x, y, c=z, s=size, cmap="turbo", vmin=-3, vmax=2, linewidths=0)
        column[0].set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal")
        column[0].set_title(f"{title}: {len(scan):,} points")
        x, y, z = scan.points.T
        far = np.hypot(x, y)
        around, up = np.degrees(np.arctan2(y, x)), np.degrees(np.arctan2(z, far))
        for axes, color, top in ((column[1], far, 40), (column[2], scan.intensity, 0.7)):
            axes.scatter(-around, up, c=color, s=size, cmap="turbo", vmin=0, vmax=top, linewidths=0)
            axes.set(xlim=(-180, 180), ylim=(-26, 7))
        for axes in column:
            axes.set(xticks=[], yticks=[], facecolor="black")
    figure.savefig(file, dpi=65)
    plt.close(figure)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) == 3 else FILE)
