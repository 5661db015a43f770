"""An index of many videos: the frames of each, probed once and kept in the user's cache."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import av

from geonorm.datasets.progress import in_threads
from geonorm.datasets.video_io import UndecodableVideoError, VideoInfo
from geonorm.datasets.video_probe import probe
from geonorm.files import user_cache, written_whole

logger = logging.getLogger(__name__)

# Raised with every change of what probe returns: an index kept by an earlier version is not used.
_VERSION = 2


def video_index(
    paths: Sequence[Path], cache: str | Path | None = None
) -> list[VideoInfo | UndecodableVideoError]:
    """Return what each video shows, or the error that opening it raises.

    The result is kept in one file named by a hash of every path, size and time of change, and of
    the versions of this index and of FFmpeg, so that a file that is added, repaired or replaced
    makes a new index.

    Args:
        paths: the files, in the order of the result.
        cache: folder to keep the index in; ``video-index`` in the user's cache if not given.
    """
    folder = user_cache() / "video-index" if cache is None else Path(cache)
    file = folder / f"{_fingerprint(paths)}.json"
    entries = _kept(file) if file.exists() else None
    if entries is None or len(entries) != len(paths):
        logger.info("probing %d videos, once; kept in %s", len(paths), file)
        rows = in_threads(_row, paths, "probing videos")
        file.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(file) as aside:
            aside.write_text(json.dumps(rows, separators=(",", ":")), "utf-8")
        entries = [info_of(row) for row in rows]
    return entries


def _kept(file: Path) -> list[VideoInfo | UndecodableVideoError] | None:
    """Return the index in a file, or None where the file is damaged and is to be made anew."""
    try:
        return [info_of(row) for row in json.loads(file.read_text("utf-8"))]
    except (ValueError, TypeError, RecursionError):
        logger.warning("%s is damaged", file)
        return None


def _fingerprint(paths: Sequence[Path]) -> str:
    """Hash what the index depends on: the files, its own form, and what reads the files."""
    digest = hashlib.sha256(f"geonorm video index {_VERSION} {av.library_versions}".encode())
    for path in paths:
        try:
            status = path.stat()
            state = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            state = "missing"
        digest.update(f"\n{path.absolute()}\t{state}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def _row(path: Path) -> str | tuple[Any, ...]:
    """Return what a video shows as JSON can hold it, or the words of the error."""
    try:
        return astuple(probe(path))
    except UndecodableVideoError as error:
        return str(error)


def info_of(row: str | list[Any] | tuple[Any, ...]) -> VideoInfo | UndecodableVideoError:
    """Return what a row of a kept index stands for, an error's words or a VideoInfo's fields."""
    if isinstance(row, str):
        return UndecodableVideoError(row)
    frames, fps, width, height, keyframes, enterable, times = row
    return VideoInfo(frames, fps, width, height, tuple(keyframes), enterable, tuple(times))
