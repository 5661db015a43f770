"""What was counted of each scan or video under each corruption, kept so that a run can go on."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

Cell = tuple[int, str, int]  # number of the item, corruption, level


class Cells:
    """Counts of one network in a file that grows by a line for each cell.

    The name of the file is a digest of the header: whatever changes in it begins another file.

    Args:
        folder: where the file is, made if need be.
        header: what the counts depend on, beside the cell, as JSON can hold it.
        resume: keep what is there already.

    Raises:
        ValueError: a line of the file cannot be read; one that was cut off at the end, when the
            process was killed, is counted anew.
    """

    def __init__(self, folder: Path, header: dict[str, Any], resume: bool = True) -> None:
        told = json.dumps(header, sort_keys=True)
        self.path = folder / f"{hashlib.sha256(told.encode()).hexdigest()[:16]}.jsonl"
        self._counts: dict[Cell, np.ndarray] = {}
        folder.mkdir(parents=True, exist_ok=True)
        if resume and self.path.is_file():
            self._read()
        else:
            self.path.write_text(told + "\n", encoding="utf-8")

    def _read(self) -> None:
        text = self.path.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        if len(whole) < len(text):
            with self.path.open("r+b") as file:
                file.truncate(len(whole))
        for number, line in enumerate(whole.splitlines()[1:], start=2):
            try:
                item, corruption, level, counts = json.loads(line)
                self._counts[item, corruption, level] = np.array(counts, dtype=np.int64)
            except (ValueError, TypeError) as error:
                raise ValueError(
                    f"{self.path} is damaged in line {number} ({error}); delete it, or give "
                    "--resume false to count anew"
                ) from error

    def __contains__(self, cell: Cell) -> bool:
        return cell in self._counts

    def __getitem__(self, cell: Cell) -> np.ndarray:
        return self._counts[cell]

    def add(self, cell: Cell, counts: np.ndarray) -> None:
        """Keep the counts of a cell, in the file too."""
        self._counts[cell] = counts
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([*cell, counts.tolist()], separators=(",", ":")) + "\n")
