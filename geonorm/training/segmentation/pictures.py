"""Pictures of segmented scans: true, predicted and wrong points side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.lines import Line2D

from geonorm.datasets.scan import IGNORE_INDEX
from geonorm.files import written_whole
from geonorm.looking.columns import RIGHT, UNLABELLED, WRONG
from geonorm.training.figures import plt, printable
from geonorm.training.segmentation.render import render


def paint(labels: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Return the colour of each point, grey where it has no class; (N,) to (N, 3) uint8."""
    table = np.full((IGNORE_INDEX + 1, 3), UNLABELLED, dtype=np.uint8)
    table[: len(colors)] = colors
    painted: np.ndarray = table[labels]
    return painted


def paint_errors(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return red for wrong, light for right and dark grey for unlabelled points."""
    painted = np.where((predicted == labels)[:, None], RIGHT, WRONG)
    return np.where((labels == IGNORE_INDEX)[:, None], UNLABELLED, painted).astype(np.uint8)


@dataclass(frozen=True)
class SegmentedScan:
    """One scan to draw.

    Args:
        name: heading of the picture.
        points: x, y, z in metres, (N, 3).
        predicted: class of each point, (N,).
        labels: true class of each point, 255 = none, (N,).
    """

    name: str
    points: np.ndarray
    predicted: np.ndarray
    labels: np.ndarray

    def panels(self, colors: np.ndarray) -> dict[str, np.ndarray]:
        """Return the title and the colouring of each panel; the truth only where it is known."""
        known = self.labels != IGNORE_INDEX
        predicted = {"predicted": paint(self.predicted, colors)}
        if not known.any():
            return predicted
        right = (self.predicted == self.labels)[known].mean()
        return {
            "true": paint(self.labels, colors),
            **predicted,
            f"wrong points in red ({right:.1%} of the labelled points are right)": paint_errors(
                self.predicted, self.labels
            ),
        }


def draw_scans(
    scans: Sequence[SegmentedScan],
    classes: Sequence[str],
    colors: np.ndarray,
    paths: Sequence[Path],
) -> None:
    """Draw what was predicted for each scan, beside the truth and the errors where it is known.

    Args:
        scans: what to draw.
        classes: names of the classes.
        colors: RGB of the classes, (K, 3) uint8.
        paths: file to write for each scan.

    Raises:
        RuntimeError: Open3D cannot render on this machine.
    """
    panels = [scan.panels(colors) for scan in scans]
    rendered = render([
        (scan.points, np.stack(list(each.values())))
        for scan, each in zip(scans, panels, strict=True)
    ])  # fmt: skip
    for scan, each, pictures, path in zip(scans, panels, rendered, paths, strict=True):
        rows = (len(each) + 2) // 2  # one more panel than pictures, for the legend
        figure, grid = plt.subplots(
            rows, 2, figsize=(16, 5.6 * rows), layout="constrained", facecolor="black"
        )
        for axes in grid.flat:
            axes.axis("off")
        for axes, title, picture in zip(grid.flat, each, pictures, strict=False):
            axes.imshow(picture)
            axes.set_title(title, color="white", fontsize=15)
        handles = _legend(scan, classes, colors)
        grid.flat[-1].legend(
            handles=handles, loc="center", ncols=2, fontsize=16, labelcolor="white", frameon=False
        )
        figure.suptitle(printable(scan.name), color="white", fontsize=17)
        with written_whole(path) as aside:
            figure.savefig(aside, dpi=100)
        plt.close(figure)


def _legend(scan: SegmentedScan, classes: Sequence[str], colors: np.ndarray) -> list[Line2D]:
    """Return a square for each class in the picture, and one for points without a label."""
    present = np.union1d(scan.predicted, scan.labels)
    entries = [(classes[i], colors[i]) for i in present if i != IGNORE_INDEX]
    if IGNORE_INDEX in present and (scan.labels != IGNORE_INDEX).any():
        entries.append(("no label", UNLABELLED))
    return [
        Line2D([], [], marker="s", markersize=11, linestyle="", color=np.divide(color, 255),
               label=name)
        for name, color in entries
    ]  # fmt: skip
