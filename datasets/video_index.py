"""What the headers of many videos tell, read once and kept in the user's cache."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from pathlib import Path

from geonorm.datasets.video_decode import UndecodableVideoError, VideoInfo, probe

logger = logging.getLogger(__name__)

_VERSION = 1
_READERS = 4


def user_cache() -> Path:
    """Return the folder for what can be made again: $GEONORM_CACHE, or geonorm in the user's."""
    if "GEONORM_CACHE" in os.environ:
        return Path(os.environ["GEONORM_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "geonorm"


def video_index(
    paths: Sequence[Path], cache: str | Path | None = None
) -> list[VideoInfo | UndecodableVideoError]:
    """Return the headers of each video, or the error that opening it raises.

    The result is kept in one file named by a hash of every path, size and time of change, so a
    file that is added, repaired or replaced makes a new index. It is written beside its place and
    then moved there: a reader sees all of it or none.

    Args:
        paths: the files, in the order of the result.
        cache: folder to keep the index in; ``video-index`` in the user's cache if not given.
    """
    folder = user_cache() / "video-index" if cache is None else Path(cache)
    file = folder / f"{_fingerprint(paths)}.json"
    entries = _kept(file) if file.exists() else None
    if entries is None or len(entries) != len(paths):
        logger.info("reading the headers of %d videos, once; kept in %s", len(paths), file)
        with ThreadPoolExecutor(_READERS) as readers:
            rows = list(readers.map(_row, paths))
        write_atomically(file, json.dumps(rows, separators=(",", ":")))
        entries = [_entry(row) for row in rows]
    return entries


def _kept(file: Path) -> list[VideoInfo | UndecodableVideoError] | None:
    """Return the index in a file, or None where the file is damaged and is to be made anew."""
    try:
        return [_entry(row) for row in json.loads(file.read_text("utf-8"))]
    except (ValueError, TypeError, RecursionError):
        logger.warning("%s is damaged", file)
        return None


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that whoever opens it finds the whole text or no file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        file.write(text)
    os.replace(file.name, path)


def _fingerprint(paths: Sequence[Path]) -> str:
    """Hash what the index depends on: the files, and the form of the index."""
    digest = hashlib.sha256(f"geonorm video index {_VERSION}".encode())
    for path in paths:
        try:
            status = path.stat()
            state = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            state = "missing"
        digest.update(f"\n{path.absolute()}\t{state}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def _row(path: Path) -> str | tuple[object, ...]:
    """Return the headers as JSON can hold them, or the words of the error."""
    try:
        return astuple(probe(path))
    except UndecodableVideoError as error:
        return str(error)


def _entry(row: str | Sequence) -> VideoInfo | UndecodableVideoError:
    """Return what a row of the kept index stands for."""
    if isinstance(row, str):
        return UndecodableVideoError(row)
    frames, fps, width, height, keyframes, enterable, variable_rate = row
    return VideoInfo(frames, fps, width, height, tuple(keyframes), enterable, variable_rate)
