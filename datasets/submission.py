"""The predictions that a benchmark's server takes: written, packed, and checked as it does."""

import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from geonorm.files import written_whole

_NAMED = 3  # files in an error


def check_every_scan(server: str, present: Iterable[str], expected: Iterable[str]) -> None:
    """Refuse scans that are not just those which a server judges, before they are predicted.

    Args:
        server: whose it is, for the error.
        present: names of the scans.
        expected: names of the scans that the server judges.

    Raises:
        ValueError: scans are missing, or the server does not know them.
    """
    names, known = {*present}, {*expected}
    missing, foreign = sorted(known - names), sorted(names - known)
    if missing:
        raise ValueError(
            f"{server} takes all {len(known):,} scans of its test split; {len(missing):,} of them "
            f"are not among these, such as {', '.join(missing[:_NAMED])}: test on the whole split "
            "of a whole download. To predict some of them, use geonorm predict"
        )
    if foreign:
        raise ValueError(f"{server} does not know the scans {', '.join(foreign[:_NAMED])}")


@dataclass(frozen=True)
class Submission:
    """The form in which a server takes the classes of every point of every scan.

    Args:
        server: whose it is, for errors.
        files: path in the zip of each scan's predictions, by the name of the scan.
        num_points: number of points in the file of the scan of that name.
        ids: id that is written for each class.
        dtype: of an id in a binary file, or `text` for one id in each line.
        others: further files of the zip, by path.

    Example:
        >>> streets = Submission("streets", {"a": "a.label"}, {"a": 3}.get, np.array([40, 70]))
        >>> np.frombuffer(streets.encode(np.array([1, 1]), np.array([True, False, True])), "<u4")
        array([70, 70, 70], dtype=uint32)

    Attributes:
        packed: name of the file in which all are packed.
        parts: what it is made of, for errors.
    """

    packed: ClassVar[str] = "submission.zip"
    parts: ClassVar[str] = "files"
    server: str
    files: Mapping[str, str]
    num_points: Callable[[str], int | None]
    ids: np.ndarray
    dtype: str = "<u4"
    others: Mapping[str, bytes] = field(default_factory=dict)

    def encode(self, predicted: np.ndarray, kept: np.ndarray | None) -> bytes:
        """Return the contents of a scan's file.

        Points that were left out when the scan was read have no place. Since no server takes a
        point without a class, they get the scan's commonest.

        Args:
            predicted: class of each point that was predicted, (N,).
            kept: which points of the scan's file these are, bool; None for all of them.
        """
        ids = self.ids[predicted]
        if kept is not None:
            whole = np.full(len(kept), self.ids[np.bincount(predicted).argmax()])
            whole[kept] = ids
            ids = whole
        if self.dtype == "text":
            return "".join(f"{number}\n" for number in ids.tolist()).encode()
        data: bytes = ids.astype(self.dtype).tobytes()
        return data

    def decode(self, data: bytes, path: str) -> np.ndarray:
        """Return the ids in a scan's file.

        Raises:
            ValueError: the file is in no such format.
        """
        try:
            if self.dtype == "text":
                return np.array([int(line) for line in data.decode("ascii").splitlines()])
            return np.frombuffer(data, self.dtype)
        except ValueError as error:
            kind = "one id in each line" if self.dtype == "text" else f"ids of {self.dtype}"
            raise ValueError(f"{path}: {self.server} takes {kind}; got {error}") from error

    def write(
        self, folder: Path, name: str, predicted: np.ndarray, kept: np.ndarray | None
    ) -> None:
        """Write the file of the scan `name` into `folder`, complete or not at all.

        Args:
            folder: what the zip will hold.
            name: of the scan.
            predicted: class of each point that was predicted, (N,).
            kept: which points of the scan's file these are; None for all of them.
        """
        path = folder / self.files[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as aside:
            aside.write_bytes(self.encode(predicted, kept))

    def pack(self, folder: Path, path: Path) -> None:
        """Pack what was written into `folder` as the zip `path` and check it.

        Raises:
            ValueError: the server would refuse the zip; it is not written then.
        """
        with written_whole(path) as aside:
            with zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED) as packed:
                for file in self._present(folder).values():
                    packed.write(folder / file, file)
                for file, data in self.others.items():
                    packed.writestr(file, data)
            self.check(aside)

    def check(self, path: str | Path) -> None:
        """Refuse a zip that the server would refuse.

        Args:
            path: the zip.

        Raises:
            ValueError: scans are missing, there are files that the server does not know or the same
                file twice, a file has another number of points than its scan, or an id that is no
                class.
        """
        with zipfile.ZipFile(path) as packed:
            names = [name for name in packed.namelist() if not name.endswith("/")]
            self._check_names(path, names)
            for scan, file in self.files.items():
                self._checked(packed.read(file), scan, file, path, self.num_points(scan))
            for file, data in self.others.items():
                if packed.read(file) != data:
                    raise ValueError(f"{file} in {path} must be {data!r}")

    def _present(self, folder: Path) -> dict[str, str]:
        """Return the scans of which there is a file in `folder`, and its path there."""
        return {scan: file for scan, file in self.files.items() if (folder / file).is_file()}

    def _checked(
        self, data: bytes, scan: str, file: str, among: str | Path, expected: int | None
    ) -> np.ndarray:
        """Return the ids of a scan, `expected` of them, from the data of its file in `among`."""
        ids = self.decode(data, file)
        if len(ids) != expected:
            raise ValueError(
                f"{file} in {among} must hold {expected} ids, one for each point of {scan}; got "
                f"{len(ids)}"
            )
        self._check_ids(ids, f"{file} in {among}")
        return ids

    def _check_ids(self, ids: np.ndarray, where: str) -> None:
        wrong = np.setdiff1d(ids, self.ids)
        if wrong.size:
            raise ValueError(
                f"{where} holds the id {wrong[0]}; {self.server} takes "
                f"{', '.join(map(str, sorted(self.ids.tolist())))}"
            )

    def _check_names(self, path: str | Path, names: list[str]) -> None:
        expected = {*self.files.values(), *self.others}
        missing, foreign = sorted(expected - {*names}), sorted({*names} - expected)
        if missing:
            inside = any(name.endswith("/" + missing[0]) for name in foreign)
            mend = "pack the contents of the folder, not the folder" if inside else (
                "predict every scan, without --trainer.limit_test_batches"
            )  # fmt: skip
            raise ValueError(
                f"{path} lacks {len(missing)} of {len(expected)} {self.parts} that {self.server} "
                f"takes, such as {', '.join(missing[:_NAMED])}; {mend}"
            )
        if foreign:
            raise ValueError(
                f"{path} holds {', '.join(foreign[:_NAMED])}, which {self.server} does not know"
            )
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        if twice:
            raise ValueError(
                f"{path} must hold each of the {self.parts} once; {', '.join(twice[:_NAMED])} "
                "stands in it more than once"
            )
