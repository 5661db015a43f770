"""Scans that come one after another: a folder's, a recording's that goes on, a sequence's."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from geonorm.datasets.scan_io import SUFFIXES, check_file
from geonorm.files import free_stem, is_hidden, written_whole

JOURNAL = "predicted.jsonl"
SETTLED = 1.0  # seconds without a change after which a file counts as written
POLL = 0.25  # seconds between two looks at a folder

State = tuple[int, int]  # size in bytes and time of the last change in ns


@dataclass(frozen=True)
class Stream:
    """How a sequence of scans is gone through.

    Args:
        resume: keep a journal of what is done, and leave out what an earlier journal names.
        watch: after the files that are there, wait for further ones in the folders until none has
            come for so many seconds, or for ever (infinity); None for those that are there alone. A
            recording is resumed, too.
        stop: set by another thread or a signal to end after the current scan.

    Raises:
        ValueError: a wait that is not positive.
    """

    resume: bool = False
    watch: float | None = None
    stop: Event = field(default_factory=Event)

    def __post_init__(self) -> None:
        if self.watch is not None and not self.watch > 0:
            raise ValueError(f"watch must be a positive number of seconds; got {self.watch}")

    @property
    def keeps_journal(self) -> bool:
        """Whether there is a journal."""
        return self.resume or self.watch is not None


def state_of(file: Path) -> State:
    """Return what tells one state of a file from another."""
    told = file.stat()
    return told.st_size, told.st_mtime_ns


def scans_in(folder: Path) -> list[Path]:
    """Return the scans of a folder, not of those within it, by name."""
    return sorted(
        path for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not is_hidden(path) and path.is_file()
    )  # fmt: skip


class Arrivals:
    """Yields scans: those of a list of files and folders, then those that come into the folders.

    None is yielded where there is none for the moment.

    Args:
        sources: files and folders.
        stream: whether and how long to wait.
        is_done: tells of a file and its state whether nothing is to be done.

    Attributes:
        waiting: files that are known to come next.
        left_out: files with which nothing was to be done.

    Raises:
        ValueError: a file is plainly missing or damaged; or there is nothing to predict or wait
            for.
    """

    def __init__(
        self, sources: Sequence[Path], stream: Stream, is_done: Callable[[Path, State], bool]
    ) -> None:
        self.folders = [source for source in sources if source.is_dir()]
        self.stream, self.is_done = stream, is_done
        self.seen: dict[Path, State] = {}  # as they were yielded or left out
        self._looked: dict[Path, tuple[State, float]] = {}  # and since when
        self.waiting = self.left_out = 0
        self.first: list[Path] = []
        for source in sources:
            found = scans_in(source) if source in self.folders else [source]
            if not found and stream.watch is None:
                raise ValueError(f"no scan in {source}; expected files that end in "
                                 f"{', '.join(SUFFIXES)}")  # fmt: skip
            if source not in self.folders or stream.watch is None:
                for file in found:
                    check_file(file)
                self.first += found
        self.first = list(dict.fromkeys(self.first))
        self.seen |= {file: state_of(file) for file in self.first}
        if stream.watch is not None and not self.folders:
            raise ValueError(
                "there is no folder to watch, only files: name the folder that scans come into"
            )

    def __iter__(self) -> Iterator[Path | None]:
        yield from self._each(self.first)
        if self.stream.watch is None:
            return
        last = time.monotonic()
        while not self.stream.stop.is_set():
            ready = self._ready()
            yield from self._each(ready)
            if ready:
                last = time.monotonic()
            elif time.monotonic() - last >= self.stream.watch:
                return
            else:
                yield None
                self.stream.stop.wait(POLL)

    def _each(self, files: list[Path]) -> Iterator[Path]:
        wanted = []
        for file in files:
            if self.is_done(file, self.seen[file]):
                self.left_out += 1
            else:
                wanted.append(file)
        for number, file in enumerate(wanted, start=1):
            self.waiting = len(wanted) - number
            if self.stream.stop.is_set():
                return
            yield file

    def _ready(self) -> list[Path]:
        """Return the files that came or changed and seem to be written."""
        ready, looked = [], {}
        for file in (file for folder in self.folders for file in scans_in(folder)):
            try:
                state = state_of(file)
            except FileNotFoundError:  # a recorder's ring, which deletes its oldest file
                continue
            if self.seen.get(file) == state:
                continue
            before, since = self._looked.get(file, (None, 0.0))
            since = since if before == state else time.monotonic()
            looked[file] = (state, since)
            # A file that was moved here is older than our look at it.
            rests = max(time.monotonic() - since, time.time() - state[1] / 1e9)
            if state[0] and rests >= SETTLED:
                ready.append(file)
                self.seen[file] = state
        self._looked = looked
        return ready


class Journal:
    """A list of what was predicted into a folder, one line for each scan, and by what settings.

    A line is written when all results of its scan are whole. A process that is killed leaves at
    worst results without a line, which are made again, and a part of a line, which does not count.

    Args:
        folder: of the results.
        settings: what they follow from; None to keep no journal.

    Raises:
        ValueError: the folder has results of other settings.
    """

    def __init__(self, folder: Path, settings: dict[str, Any] | None) -> None:
        self.folder, self.settings, self.path = folder, settings, folder / JOURNAL
        self.entries: dict[str, dict[str, Any]] = {}
        self.taken: set[str] = set()
        if settings is None:
            return
        settings = json.loads(json.dumps(settings))
        lines = self._lines()
        if lines and (before := lines[0].get("settings")) != settings:
            changed = [key for key in settings if (before or {}).get(key) != settings[key]]
            raise ValueError(
                f"{self.path} is of results by other settings ({', '.join(changed)}): name another "
                "folder (--out), or delete the file to have all results made again"
            )
        for line in lines[1:]:
            self.entries[line["file"]] = line
        self.taken = {entry["stem"] for entry in self.entries.values()}
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".*.????????.part*"):  # of a process that was killed
            left.unlink()
        with written_whole(self.path) as aside:
            kept = [{"settings": settings}, *self.entries.values()]
            aside.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")

    def _lines(self) -> list[dict[str, Any]]:
        """Return the whole lines of the file, which end where a process was killed."""
        if not self.path.is_file():
            return []
        text = self.path.read_text(encoding="utf-8")
        *whole, _ = text.split("\n")
        return [json.loads(line) for line in whole]

    def has(self, file: Path, state: State, suffix: str) -> bool:
        """Tell whether a file was predicted in that state, and its labels are there."""
        entry = self.entries.get(str(file.absolute()))
        return (
            entry is not None
            and (entry["size"], entry["modified"]) == state
            and (self.folder / f"{entry['stem']}{suffix}").is_file()
        )

    def stem(self, file: Path) -> str:
        """Return the name of a file's results, its own but where another's have that."""
        entry = self.entries.get(str(file.absolute()))
        stem = free_stem(file, self.taken) if entry is None else str(entry["stem"])
        self.taken.add(stem)
        return stem

    def add(self, file: Path, state: State, stem: str, seconds: dict[str, float]) -> None:
        """Write down that a file in that state is done."""
        if self.settings is None:
            return
        name = str(file.absolute())
        entry = {"file": name, "stem": stem, "size": state[0], "modified": state[1],
                 "seconds": {part: round(value, 4) for part, value in seconds.items()}}  # fmt: skip
        self.entries[name] = entry
        with self.path.open("a", encoding="utf-8") as journal:
            journal.write(json.dumps(entry) + "\n")


class Latency:
    """The time that each scan took, by parts, as a table of medians and 95th percentiles.

    >>> latency = Latency()
    >>> for scan in range(3):
    ...     latency.add({"read": 0.01, "network": 0.1 + scan / 10})
    >>> print(latency)
    ms of each of 3 scans       p50      p95
    read                       10.0     10.0
    network                   200.0    290.0
    all                       210.0    300.0
    """

    def __init__(self) -> None:
        self.seconds: list[dict[str, float]] = []

    def add(self, seconds: dict[str, float]) -> None:
        """Count one scan."""
        self.seconds.append(seconds)

    def __str__(self) -> str:
        parts = dict.fromkeys(part for each in self.seconds for part in each)
        rows = {part: [each.get(part, 0.0) for each in self.seconds] for part in parts}
        rows["all"] = [sum(each.values()) for each in self.seconds]
        lines = [f"{f'ms of each of {len(self.seconds)} scans':<22}{'p50':>9}{'p95':>9}"]
        for part, values in rows.items():
            p50, p95 = np.percentile(values, [50, 95]) * 1e3
            lines.append(f"{part:<22}{p50:>9.1f}{p95:>9.1f}")
        return "\n".join(lines)
