"""Draw two scans of the built-in streets and what each mix makes of them, seen from above.

    python tools/draw_mixes.py [FILE]

The upper row has the colours of the two scans, the lower one those of the classes.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from geonorm.datasets import LaserMix, Mix3D, PolarMix, Scan, SyntheticStreets
from geonorm.training.figures import plt
from geonorm.training.segmentation.pictures import paint

FILE = Path(__file__).resolve().parents[1] / "docs" / "figures" / "mixing.png"
SOURCES = np.array([(0, 0, 0), (70, 150, 255), (255, 150, 30)], dtype=np.uint8)
THINGS = [SyntheticStreets.classes.index(name) for name in ("car", "truck", "person")]


def scans() -> dict[str, Scan]:
    """Return each panel's scan; which of the two a point is from is its feature `echo`."""
    streets = SyntheticStreets(6, seed=6, sensor="mast64")
    one, two = (
        replace(scan, extra={"echo": np.full((len(scan), 1), number, dtype=np.float32)})
        for number, scan in enumerate((streets[0], streets[2]), 1)
    )
    mixes = (Mix3D(center=False), LaserMix([6]), PolarMix(THINGS, swap=1.0))
    made = {type(mix).__name__: mix(one, two, np.random.default_rng(4)) for mix in mixes}
    return {"a scan": one, "its partner": two, **made}


def main(file: Path) -> None:
    """Write the picture."""
    shown = scans()
    figure, grid = plt.subplots(2, len(shown), figsize=(18, 7.4), layout="constrained")
    for column, (title, scan) in zip(grid.T, shown.items(), strict=True):
        column[0].set_title(f"{title}: {len(scan):,} points")
        sources = SOURCES[scan.feature("echo")[:, 0].astype(int)]
        classes = paint(scan.labels, SyntheticStreets.colors)
        for axes, colors in zip(column, (sources, classes), strict=True):
            axes.scatter(*scan.points.T[:2], s=0.6, c=colors / 255, linewidths=0)
            axes.set(xlim=(-22, 22), ylim=(-22, 22), aspect="equal", xticks=[], yticks=[])
            axes.set_facecolor("black")
    figure.savefig(file, dpi=70)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FILE)
