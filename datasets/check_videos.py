"""Scanning a set of videos before a training: every file is decoded to its end."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from geonorm.datasets.progress import in_threads
from geonorm.datasets.video_io import UndecodableVideoError, decoded_frames
from geonorm.datasets.video_lists import VideoSet
from geonorm.datasets.video_probe import probe

_SMALL = 32


@dataclass(frozen=True)
class Finding:
    """Something about one file that its user should know.

    Args:
        path: the file.
        kind: "unreadable" (left out of training), "damaged" (read with errors) or "odd" (read, but
            perhaps not as meant).
        detail: in words.
    """

    path: Path
    kind: Literal["unreadable", "damaged", "odd"]
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.path}: {self.detail}"


def check_data(videos: VideoSet) -> list[Finding]:
    """Decode every file of a set and return what is unreadable, damaged or odd, in its order.

    Odd are: a variable or unknown frame rate (clips at a given rate then follow the time stamps, or
    take the frames as they are), a picture stored sideways or mirrored (turned upright in reading),
    a side below 32 pixels, a single frame, and a file that is listed more than once.
    """
    paths = [path for path, _ in videos.videos]
    each = in_threads(_findings, paths, "decoding videos", os.cpu_count())
    found = [finding for findings in each for finding in findings]
    repeated = [path for path, count in Counter(paths).items() if count > 1]
    return found + [Finding(path, "odd", "listed more than once") for path in repeated]


def _findings(path: Path) -> list[Finding]:
    """Compare what the headers of one file say with what it decodes to."""
    try:
        info = probe(path)
        frames, errors, stored = decoded_frames(path)
    except UndecodableVideoError as error:
        return [Finding(path, "unreadable", str(error))]
    if frames == 0:
        return [Finding(path, "unreadable", f"not one of {info.frames} frames can be decoded")]
    found = []
    if errors or frames < info.frames:
        detail = f"{frames} of {info.frames} frames can be decoded, with {errors} errors"
        found.append(Finding(path, "damaged", detail))
    oddities = {
        f"variable frame rate, {info.fps:.2f} frames per second in the mean": info.variable_rate,
        "frame rate unknown": not info.fps,
        f"stored {stored}": stored,
        f"a picture of {info.width} by {info.height} pixels": min(info.width, info.height) < _SMALL,
        "a single frame": frames == 1,
    }
    return found + [Finding(path, "odd", detail) for detail, holds in oddities.items() if holds]
