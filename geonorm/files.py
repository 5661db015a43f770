"""Files that appear complete or not at all, names that are hidden, and the folder of the cache."""

import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

LEAST_FREE = 2**20  # bytes
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


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to, which then becomes `path`, or nothing on an error.

    Each caller gets a path of its own, so that two processes may write the same file at once.

    Raises:
        OSError: there is no room for the file; whatever the library that wrote it says of that.
    """
    aside = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.part{path.suffix}")
    try:
        yield aside
        os.replace(aside, path)
    except (OSError, RuntimeError) as error:
        if (reason := _no_room(error, path.parent)) is not None:
            raise OSError(
                errno.ENOSPC,
                f"cannot write {path}: {reason}. What was there before is as it was; make room, or "
                "name a folder on another disk",
            ) from error
        raise
    finally:
        aside.unlink(missing_ok=True)


def _no_room(error: BaseException | None, folder: Path) -> str | None:
    """Return why a file found no room, or None where the error is of another kind.

    torch, numpy and FFmpeg each say something else of a full disk, or nothing that tells.
    """
    if folder.is_dir() and (free := shutil.disk_usage(folder).free) < LEAST_FREE:
        return f"the disk is full ({free / 2**20:.1f} MiB free)"
    while error is not None:
        number = getattr(error, "errno", None)
        if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return os.strerror(number)
        error = error.__cause__ or error.__context__
    return None


def distinct_stems(paths: Iterable[Path]) -> dict[Path, str]:
    """Return a name for the results of each file, its own but where an earlier one has that."""
    stems: dict[Path, str] = {}
    for path in dict.fromkeys(paths):
        stems[path] = free_stem(path, stems.values())
    return stems


def free_stem(path: Path, taken: Collection[str]) -> str:
    """Return a name for the results of a file, its own but where that is taken."""
    stem, number = path.stem, 1
    while stem in taken:
        number += 1
        stem = f"{path.stem}_{number}"
    return stem
