"""Pictures of segmented scans: true, predicted and wrong points side by side."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.lines import Line2D

from geonorm.datasets.scan import IGNORE_INDEX
from segmentation.render import render
from training.figures import plt

UNLABELLED = (80, 80, 80)
RIGHT, WRONG = (130, 150, 170), (255, 30, 30)


def paint(labels: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Return the colour of each point, grey where it has no class; (N,) to (N, 3) uint8."""
    table = np.full((IGNORE_INDEX + 1, 3), UNLABELLED, dtype=np.uint8)
    table[: len(colors)] = colors
    return table[labels]


def paint_errors(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return red for wrong, light for right and dark grey for unlabelled points."""
    painted = np.where((predicted == labels)[:, None], RIGHT, WRONG)
    return np.where((labels == IGNORE_INDEX)[:, None], UNLABELLED, painted).astype(np.uint8)


def draw_scan(
    points: np.ndarray,
    predicted: np.ndarray,
    labels: np.ndarray | None,
    classes: Sequence[str],
    colors: np.ndarray,
    title: str,
    path: Path,
) -> None:
    """Draw what was predicted for a scan, beside the truth and the errors where labels are known.

    Args:
        points: x, y, z in metres, (N, 3).
        predicted: class of each point, (N,).
        labels: true class of each point, 255 = none, (N,); or None.
        classes: names of the classes.
        colors: RGB of the classes, (K, 3) uint8.
        title: heading.
        path: file to write.

    Raises:
        RuntimeError: Open3D cannot render on this machine.
    """
    panels = {"predicted": paint(predicted, colors)}
    shown = np.bincount(predicted, minlength=len(classes)).astype(bool)
    if labels is not None:
        known = labels != IGNORE_INDEX
        accuracy = (predicted == labels)[known].mean() if known.any() else float("nan")
        panels = {
            "true": paint(labels, colors),
            **panels,
            f"wrong points in red ({accuracy:.1%} of the labelled points are right)": paint_errors(
                predicted, labels
            ),
        }
        shown |= np.bincount(labels[known], minlength=len(classes)).astype(bool)
    pictures = render(points, np.stack(list(panels.values())))
    legend = [
        Line2D([], [], marker="s", markersize=11, linestyle="", color=color / 255, label=name)
        for name, color, show in zip(classes, colors, shown, strict=True)
        if show
    ]
    grey = np.array(UNLABELLED) / 255
    legend.append(Line2D([], [], marker="s", markersize=11, linestyle="", color=grey,
                         label="no label"))  # fmt: skip
    figure, grid = plt.subplots(2, 2, figsize=(16, 11.2), layout="constrained", facecolor="black")
    for axes in grid.flat:
        axes.axis("off")
    for axes, name, picture in zip(grid.flat, panels, pictures, strict=False):
        axes.imshow(picture)
        axes.set_title(name, color="white", fontsize=15)
    grid.flat[-1].legend(
        handles=legend, loc="center", ncols=2, fontsize=16, labelcolor="white", frameon=False
    )
    figure.suptitle(title, color="white", fontsize=17)
    figure.savefig(path, dpi=100)
    plt.close(figure)
