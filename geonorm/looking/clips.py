"""Clips for the viewer: their frames, and the scores of their classes over time."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geonorm.datasets.video_io import read_frames
from geonorm.datasets.video_probe import probe
from geonorm.files import distinct_stems
from geonorm.looking import columns
from geonorm.looking.page import picture
from geonorm.training.attributions import read_statistics

MOST_FRAMES = 250  # of a video, spread over it
SHORT_SIDE = 240  # pixels
QUALITY = 75  # percent, of JPEG
LINES = 5  # classes whose scores are drawn


def clips(files: Sequence[Path], predictions: Sequence[Path] = ()) -> list[dict[str, Any]]:
    """Return what the page is told of each video, once for each folder of predictions.

    Args:
        files: videos that FFmpeg decodes.
        predictions: folders that `geonorm predict` wrote for the same files.

    Raises:
        ValueError: a video that cannot be decoded, or one that was not predicted.
    """
    found = []
    for file, stem in distinct_stems(files).items():
        shown = _frames(file)
        if not predictions:
            found.append(shown)
        for folder in predictions:
            title = f"{file.name}, {folder}"
            found.append({
                **shown, "title": title, **_scores(folder / f"{stem}.scores.json"),
                "heat": _heat(folder / f"{stem}.attribution.npz", shown["numbers"]),
                "statistics": read_statistics(folder / stem),
            })  # fmt: skip
    return found


def _frames(file: Path) -> dict[str, Any]:
    info = probe(file)
    count = min(info.frames, MOST_FRAMES)
    numbers = np.unique(np.linspace(0, info.frames - 1, count).round().astype(int))
    read = read_frames(file, numbers.tolist(), size=_side(info.height, info.width), info=info)
    return {
        "title": file.name, "size": read.video.shape[1:3], "numbers": numbers.tolist(),
        "seconds": info.seconds[numbers].tolist(), "duration": info.duration,
        "frames": [picture(frame, "jpeg", QUALITY) for frame in read.video],
    }  # fmt: skip


def _heat(file: Path, numbers: Sequence[int]) -> dict[str, Any] | None:
    """Return an attribution that geonorm predict wrote as pictures that lie over the frames.

    Frames between those that the network saw have the nearest one's, beyond them none.
    """
    if not file.is_file():
        return None
    with np.load(file) as told:
        values, frames, box = told["values"], told["frames"].ravel(), told["box"]
    heat = columns.attributions(values.ravel()).painted().reshape(*values.shape, 3)
    strength = np.abs(values) / max(float(np.percentile(np.abs(values), 99)), 1e-30)
    alpha = np.rint(255 * np.sqrt(np.clip(strength, 0, 1))).astype(np.uint8)
    pictures = np.concatenate([heat, alpha[..., None]], axis=-1).reshape(-1, *values.shape[2:], 4)
    known, first = np.unique(frames, return_index=True)
    nearest = np.abs(np.subtract.outer(numbers, known)).argmin(axis=1)
    apart = int(np.median(np.diff(known))) if len(known) > 1 else 1
    near = np.abs(known[nearest] - numbers) <= max(apart / 2, 0.5)
    return {
        "box": box.tolist(), "pictures": [picture(pictures[at], "webp", 90) for at in first],
        "at": [int(place) if close else None for place, close in zip(nearest, near, strict=True)],
    }  # fmt: skip


def _side(height: int, width: int) -> int:
    return min(SHORT_SIDE, height, width)


def _scores(file: Path) -> dict[str, Any]:
    """Return the scores of the highest classes in each part of a video, from `geonorm predict`."""
    if not file.is_file():
        raise ValueError(
            f"no {file}: expected the scores that geonorm predict wrote; predict the same videos "
            "that are shown"
        )
    views = json.loads(file.read_text(encoding="utf-8"))["views"]
    names = [*views[0]["scores"]]
    scores = np.array([[view["scores"][name] for name in names] for view in views])
    highest = np.argsort(-scores.mean(axis=0), kind="stable")[:LINES]
    return {
        "names": [names[number] for number in highest],
        "views": [
            {"from": view["from"], "to": view["to"], "scores": row[highest].tolist()}
            for view, row in zip(views, scores, strict=True)
        ],
    }
