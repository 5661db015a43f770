"""Files that appear complete or not at all."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to, which then becomes `path`, or nothing on an error."""
    aside = path.with_name(f".{path.stem}.part{path.suffix}")
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
