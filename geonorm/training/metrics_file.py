"""The log of a run, `metrics.csv`, which Lightning's CSVLogger writes."""

import csv
from pathlib import Path

import numpy as np


def read_metrics(path: Path) -> dict[str, np.ndarray]:
    """Return step and value of every number that a run has logged, by its name.

    A process that was killed while it wrote leaves half a line at the end; that is left out.

    Args:
        path: the file.

    Shape:
        - each result: (L, 2), float64

    Raises:
        ValueError: a line before the last cannot be read.
    """
    whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
    rows = csv.reader(whole.splitlines())
    head = next(rows, [])
    found: dict[str, list[tuple[float, float]]] = {}
    for number, row in enumerate(rows, start=2):
        cells = dict(zip(head, row, strict=False))
        try:
            if len(row) != len(head):
                raise ValueError(f"{len(row)} cells under {len(head)} names")
            step = float(cells.pop("step"))
            for name, cell in cells.items():
                if cell and name != "epoch":
                    found.setdefault(name, []).append((step, float(cell)))
        except (KeyError, ValueError) as error:
            raise ValueError(f"{path} is damaged in line {number}: {error}") from error
    return {name: np.array(pairs) for name, pairs in sorted(found.items())}
