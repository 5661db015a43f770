"""Files that appear complete or not at all, names that are hidden, and the folder of the cache."""

import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

# What file systems, network drives and desktops leave beside the user's own files.
_LEFT_BEHIND = (
    "$RECYCLE.BIN", "@eaDir", "#recycle", "lost+found", "System Volume Information", "__MACOSX",
)  # fmt: skip


def is_hidden(path: Path) -> bool:
    """Tell whether a file or folder is not the user's own: its name begins with a dot, or is known.

    Macs put a file ``._name`` beside each file on foreign disks, and desktops a ``.Trash-1000``.
    """
    return path.name.startswith(".") or path.name in _LEFT_BEHIND


def user_cache() -> Path:
    """Return the folder for what can be made again: $GEONORM_CACHE, or geonorm in the user's."""
    if "GEONORM_CACHE" in os.environ:
        return Path(os.environ["GEONORM_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "geonorm"


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to, which then becomes `path`, or nothing on an error.

    Each caller gets a path of its own, so that two processes may write the same file at once.
    """
    aside = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.part{path.suffix}")
    try:
        yield aside
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def distinct_stems(paths: Iterable[Path]) -> dict[Path, str]:
    """Return a name for the results of each file, its own but where an earlier one has that."""
    stems: dict[Path, str] = {}
    for path in dict.fromkeys(paths):
        stem, number = path.stem, 1
        while stem in stems.values():
            number += 1
            stem = f"{path.stem}_{number}"
        stems[path] = stem
    return stems
