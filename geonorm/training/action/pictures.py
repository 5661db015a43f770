"""Pictures of classified clips: frames side by side, what they show and what was predicted."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from geonorm.files import written_whole
from geonorm.training.figures import plt, printable

COLUMNS = 8
RIGHT, WRONG, BAR = "tab:green", "tab:red", "tab:blue"


class ShownClip(NamedTuple):
    """A clip and what the network makes of it.

    Args:
        video: the network's input, float (3, T, H, W).
        label: its class, -1 if not known.
        predicted: the class with the highest score.
        score: that score, in [0, 1].
    """

    video: Tensor
    label: int
    predicted: int
    score: float


def spread(count: int, columns: int = COLUMNS) -> np.ndarray:
    """Return up to `columns` numbers spread over [0, count), the first and last among them."""
    return np.unique(np.linspace(0, count - 1, columns).round().astype(int))


def draw_clips(
    clips: Sequence[ShownClip],
    classes: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    title: str,
    path: Path,
) -> None:
    """Draw a row of frames for each clip, with its class and the predicted one.

    Args:
        clips: at least one clip.
        classes: names of the classes.
        mean: what was subtracted from red, green and blue.
        std: what they were divided by.
        title: heading.
        path: file to write.
    """
    columns = spread(clips[0].video.shape[1])
    shift, scale = (torch.tensor(values).view(3, 1, 1, 1) for values in (mean, std))
    figure, grid = plt.subplots(
        len(clips), len(columns), figsize=(1.3 * len(columns) + 2.6, 1.35 * len(clips) + 0.6),
        layout="constrained", squeeze=False,
    )  # fmt: skip
    for row, clip in zip(grid, clips, strict=True):
        frames = (clip.video * scale + shift).clamp(0, 1).permute(1, 2, 3, 0).numpy()
        for axes, frame in zip(row, columns, strict=True):
            axes.imshow(frames[frame])
            axes.set_xticks([])
            axes.set_yticks([])
        text = f"{classes[clip.predicted]} {clip.score:.2f}"
        if clip.predicted != clip.label and clip.label >= 0:
            text += f"\nis {classes[clip.label]}"
        row[0].set_ylabel(
            text, rotation=0, ha="right", va="center", fontsize=9,
            color=RIGHT if clip.predicted == clip.label else WRONG,
        )  # fmt: skip
    figure.suptitle(title)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def draw_strip(
    frames: np.ndarray,
    seconds: Sequence[float],
    names: Sequence[str],
    scores: Sequence[float],
    title: str,
    path: Path,
) -> None:
    """Draw frames of a video in a row, the highest classes below; complete or not at all.

    Args:
        frames: uint8 (T, H, W, 3).
        seconds: time of each frame.
        names: classes, the highest first.
        scores: their scores, in [0, 1].
        title: heading.
        path: file to write.
    """
    height, width = frames.shape[1:3]
    picture = 2.0 * height / width
    bars = 0.28 * len(names) + 0.5
    figure = plt.figure(figsize=(2.0 * len(frames), picture + bars + 0.9), layout="constrained")
    top, bottom = figure.subfigures(
        2, 1, squeeze=False, height_ratios=[picture + 0.7, bars]
    ).ravel()
    for axes, frame, second in zip(
        np.atleast_1d(top.subplots(1, len(frames))), frames, seconds, strict=True
    ):
        axes.imshow(frame)
        axes.set_title(f"{second:.1f} s", fontsize=9)
        axes.axis("off")
    axes = bottom.subplots()
    axes.barh(range(len(names)), scores, color=BAR, height=0.7)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    for row, score in enumerate(scores):
        axes.text(score + 0.005, row, f"{score:.2f}", va="center", fontsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    top.suptitle(printable(title))
    with written_whole(path) as aside:
        figure.savefig(aside, dpi=100)
    plt.close(figure)
