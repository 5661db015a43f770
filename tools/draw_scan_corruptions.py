#!/usr/bin/env python
"""Draw each corruption of scans at its heaviest level, seen from above, coloured by intensity.

  python tools/draw_scan_corruptions.py                    a scan of the built-in streets
  python tools/draw_scan_corruptions.py --data FOLDER      the first scan of SemanticKITTI's 00
"""

import argparse
from pathlib import Path
from typing import get_args

import numpy as np

from geonorm.datasets import ScanCorruption, SemanticKITTI, SyntheticStreets
from geonorm.datasets.scan_corruptions import Corruption, levels
from geonorm.datasets.synthetic.lidar import LidarSensor
from geonorm.training.figures import plt

OUT = Path(__file__).resolve().parents[1] / "docs" / "figures" / "shift_scans.png"
SENSOR = LidarSensor(beams=64, azimuth_steps=900, fov_down=-24, fov_up=3)
REACH = 24.0  # metres shown each way


def main() -> None:
    """Draw the sheet and name it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of SemanticKITTI")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    dataset = SyntheticStreets(1, seed=3, sensor=SENSOR)
    if options.data is not None:
        dataset = SemanticKITTI(options.data, ["00"])
    clean = dataset[0]
    figure, grid = plt.subplots(3, 6, figsize=(15, 7.9), layout="constrained", facecolor="black")
    for axes, name in zip(grid.flat, ("clean", *get_args(Corruption), None), strict=True):
        axes.axis("off")
        if name is None:
            continue
        scan = clean
        if name != "clean":
            level = levels(name)
            change = ScanCorruption(name, level, dataset.classes, beams=64)
            scan = change(clean, np.random.default_rng((0, 0)))
            name = f"{name} {level}"
        axes.scatter(*scan.points[:, :2].T, c=scan.intensity, s=0.25, cmap="turbo", vmin=0, vmax=1,
                     linewidths=0)  # fmt: skip
        axes.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal")
        axes.set_title(f"{name} ({len(scan):,} points)", color="white", fontsize=10)
    figure.savefig(options.out, dpi=90)
    print(f"{options.out} shows {clean.name}")


if __name__ == "__main__":
    main()
