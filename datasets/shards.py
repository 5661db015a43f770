"""Data sets in few large files: webdataset's tar shards, with an index that finds each sample.

A folder holds `shard-000000.tar` and on, a list of the members of each beside it, and `index.json`.
Samples are read by their number, in any order, so that shards take the place of loose files in
every respect: the same order, the same augmentation, the same batches. Other programs read them as
webdatasets.
"""

import json
import os
import tarfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset

from geonorm.datasets.progress import progress
from geonorm.files import written_whole

INDEX = "index.json"
_VERSION = 1
# Members of a sample, by their suffix: where it begins in its shard, its bytes, and their CRC-32.
Members = dict[str, tuple[int, int, int]]


@dataclass(frozen=True)
class Sample:
    """Where a sample lies.

    Args:
        shard: the file.
        members: its parts.
    """

    shard: Path
    members: Members

    def read(self) -> dict[str, bytes]:
        """Return the bytes of each member.

        Raises:
            ValueError: they are not those that were written.
        """
        with self.shard.open("rb") as file:
            return {suffix: _member(file, suffix, *place) for suffix, place in self.members.items()}


class Shards:
    """The samples of a folder of shards.

    Attributes:
        about: what the writer said of all of them, such as the classes.

    Args:
        folder: what `write_shards` wrote.
        kind: of the samples, "scans" or "clips".

    Raises:
        ValueError: no folder of whole shards (saying what is missing), or of another kind.
    """

    def __init__(self, folder: str | Path, kind: str) -> None:
        self.folder = Path(folder)
        index = self.folder / INDEX
        if not index.is_file():
            begun = any(self.folder.glob("shard-*.tar"))
            raise ValueError(
                f"no {INDEX} in {folder}: "
                + ("write-shards has not finished there, run it again"
                   if begun else "expected a folder that geonorm train-... write-shards wrote")
            )  # fmt: skip
        told = json.loads(index.read_text("utf-8"))
        if told["kind"] != kind or told["version"] != _VERSION:
            raise ValueError(
                f"{folder} holds shards of {told['kind']}, version {told['version']}; expected "
                f"{kind}, version {_VERSION}"
            )
        self.about: dict[str, Any] = told["about"]
        self.samples = [
            Sample(self.folder / name, {k: (v[0], v[1], v[2]) for k, v in members.items()})
            for name, shard in told["shards"].items() for members in shard["samples"]
        ]  # fmt: skip
        wrong = [name for name, shard in told["shards"].items()
                 if _size(self.folder / name) != shard["bytes"]]  # fmt: skip
        if wrong:
            raise ValueError(
                f"{len(wrong)} of {len(told['shards'])} shards in {folder} are missing or of "
                f"another length, such as {wrong[0]}: copy them again"
            )


class _Writing(Dataset[dict[str, Any]]):
    """Shards yet to be written; getting one writes it, in a loader's worker."""

    def __init__(
        self, folder: Path, sample: Callable[[int], Mapping[str, bytes]], count: int, size: int
    ) -> None:
        from webdataset import TarWriter  # in this process, whose user is told where it is missing

        self.folder, self.sample, self.count, self.size = folder, sample, count, size
        self.tar_writer = TarWriter

    def __len__(self) -> int:
        return -(-self.count // self.size)

    def __getitem__(self, number: int) -> dict[str, Any]:
        path = self.folder / f"shard-{number:06d}.tar"
        listed = path.with_suffix(".json")
        if (kept := _whole(path, listed)) is not None:
            return kept
        listed.unlink(missing_ok=True)
        numbers = range(number * self.size, min((number + 1) * self.size, self.count))
        with written_whole(path) as aside:
            samples = self._write(aside, numbers)
        shard = {"bytes": path.stat().st_size, "samples": samples}
        with written_whole(listed) as aside:
            aside.write_text(json.dumps(shard), "utf-8")
        if _whole(path, listed) is None:
            raise OSError(f"{path} does not hold what was written to it: is the disk sound?")
        return shard | {"new": True}

    def _write(self, path: Path, numbers: range) -> list[Members]:
        """Write samples to a file and return where their members lie."""
        sums: dict[str, int] = {}
        with path.open("wb") as file:
            # The time would make each writing of the same samples another file.
            with self.tar_writer(file, encoder=False, mtime=0.0) as tar:
                for number in numbers:
                    sample = self.sample(number)
                    tar.write({"__key__": f"{number:08d}", **sample})
                    sums |= {f"{number:08d}.{k}": zlib.crc32(v) for k, v in sample.items()}
            file.flush()
            os.fsync(file.fileno())
        with tarfile.open(path) as tar:
            found: dict[str, Members] = {}
            for member in tar:
                key, _, suffix = member.name.partition(".")
                place = (member.offset_data, member.size, sums[member.name])
                found.setdefault(key, {})[suffix] = place
        return list(found.values())


def write_shards(
    folder: str | Path,
    kind: str,
    sample: Callable[[int], Mapping[str, bytes]],
    count: int,
    about: Mapping[str, Any],
    size: int = 128,
    workers: int = 0,
) -> int:
    """Write samples as shards and return how many shards are new.

    A writing that was stopped goes on: shards that are there and whole, by the sum of each member,
    are kept. Every shard is read back before it counts as written, and `index.json` comes last.

    Args:
        folder: where to; it may hold a part of the same shards.
        kind: of the samples.
        sample: returns the members of a sample, by their suffixes, given its number.
        count: number of samples.
        about: what to say of all of them; as JSON holds it.
        size: samples in a shard.
        workers: processes that write.

    Raises:
        ValueError: no sample, no sample in a shard, or the folder holds shards of other data.
        OSError: a shard cannot be written, or not be read back.
    """
    if count < 1 or size < 1:
        raise ValueError(f"expected samples, and at least 1 in a shard; got {count} and {size}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    head = {"version": _VERSION, "kind": kind, "count": count, "size": size, "about": dict(about)}
    _check_same(folder, json.loads(json.dumps(head)))
    writing = _Writing(folder, sample, count, size)
    loader = DataLoader(writing, batch_size=None, num_workers=workers)
    written = list(progress(loader, len(writing), f"writing shards to {folder}"))
    new: int = sum(shard.pop("new", False) for shard in written)
    names = (f"shard-{number:06d}.tar" for number in range(len(written)))
    with written_whole(folder / INDEX) as aside:
        index = head | {"shards": dict(zip(names, written, strict=True))}
        aside.write_text(json.dumps(index, separators=(",", ":")), "utf-8")
    return new


def _check_same(folder: Path, head: dict[str, Any]) -> None:
    """Note what is being written, or refuse to go on where something else was."""
    noted = folder / "writing.json"
    if not noted.exists():
        with written_whole(noted) as aside:
            aside.write_text(json.dumps(head), "utf-8")
    elif (before := json.loads(noted.read_text("utf-8"))) != head:
        other = [name for name in head if before[name] != head[name]]
        raise ValueError(
            f"{folder} holds shards of other data ({', '.join(other)} differ): remove them, or "
            "name another folder"
        )


def _whole(path: Path, listed: Path) -> dict[str, Any] | None:
    """Return what a finished shard holds; None where it is missing, unfinished or damaged."""
    if not listed.is_file():
        return None
    shard: dict[str, Any] = json.loads(listed.read_text("utf-8"))
    if _size(path) != shard["bytes"]:
        return None
    try:
        for members in shard["samples"]:
            Sample(path, members).read()
    except ValueError:
        return None
    return shard


def _member(file: Any, suffix: str, start: int, length: int, checksum: int) -> bytes:
    """Return a part of an open shard."""
    file.seek(start)
    data: bytes = file.read(length)
    if zlib.crc32(data) != checksum:
        raise ValueError(
            f"{file.name} is damaged: the {suffix} at byte {start} fails its checksum. Copy the "
            "shard again, or run write-shards again, which replaces it"
        )
    return data


def _size(path: Path) -> int:
    size: int = path.stat().st_size if path.is_file() else -1
    return size
