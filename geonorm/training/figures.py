"""Figures of a run: the confusion matrix and the curve of loss and score."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

from geonorm.training.metrics_file import read_metrics

matplotlib.use("Agg")
from matplotlib import pyplot as plt

_LARGEST_SIDE = 30.0  # inches, of the confusions of a hundred classes and more


def printable(name: str) -> str:
    """Return the name of a file as text that can be drawn, where its bytes are no UTF-8."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def confusion_figure(matrix: np.ndarray, names: Sequence[str], title: str, path: Path) -> None:
    """Draw a confusion matrix as the part of each true class that was predicted as each class.

    Args:
        matrix: counts; rows are true and columns are predicted classes.
        names: the classes.
        title: heading.
        path: file to write.
    """
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = min(max(5.0, 0.48 * len(names) + 2.2), _LARGEST_SIDE)
    size = min(10.0, 0.3 * 72 * side / len(names))
    figure, axes = plt.subplots(figsize=(side + 0.8, side), layout="constrained")
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(shares >= 0.005):
        share = shares[row, column]
        axes.text(
            column, row, f"{100 * share:.0f}%", ha="center", va="center", fontsize=0.7 * size,
            color="white" if share > 0.6 else "black",
        )  # fmt: skip
    axes.set_xticks(
        range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=size
    )
    axes.set_yticks(range(len(names)), names, fontsize=size)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(title)
    figure.colorbar(image, shrink=0.75, label="part of the true class")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def curve_figure(metrics: Path, loss: str, score: str, path: Path) -> bool:
    """Draw the training loss and the validation score over steps; return whether there were any.

    Args:
        metrics: the CSV file that `RunLogger` writes.
        loss: column of the training loss.
        score: column of the validation score, in [0, 1].
        path: file to write.
    """
    logged, nothing = read_metrics(metrics), np.empty((0, 2))
    losses, scores = logged.get(loss, nothing), logged.get(score, nothing)
    if not len(losses):
        return False
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    axes.plot(*losses.T, color="tab:blue", linewidth=1)
    axes.set_xlabel("step")
    axes.set_ylabel(loss, color="tab:blue")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    right = axes.twinx()
    right.plot(*scores.T, color="tab:red", marker="o", markersize=4)
    right.set_ylabel(score, color="tab:red")
    right.set_ylim(0, 1)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return True
