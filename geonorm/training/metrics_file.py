"""The log of a run, `metrics.csv`, as geonorm.training.run_logger writes it."""

import csv
from pathlib import Path

import numpy as np

METRICS = "metrics.csv"


def read_metrics(path: Path) -> dict[str, np.ndarray]:
    """Return step and value of every number that a run has logged, by its name.

    Of earlier runs in the same folder, whose logs are called metrics_001.csv and on, it has the
    steps before those that were taken again. A log without training says nothing of the steps.

    Args:
        path: the file.

    Shape:
        - each result: (L, 2), float64

    Raises:
        ValueError: a line before the last cannot be read.
    """
    found: dict[str, np.ndarray] = {}
    for log in [*sorted(path.parent.glob(f"{path.stem}_*{path.suffix}")), path]:
        new = _read(log)
        begin = _first_step(new)
        if begin is None:
            found = new if _first_step(found) is None else found
            continue
        kept = {name: pairs[pairs[:, 0] < begin] for name, pairs in found.items()}
        for name, pairs in new.items():
            kept[name] = np.concatenate([kept.get(name, pairs[:0]), pairs])
        found = {name: kept[name] for name in sorted(kept) if len(kept[name])}
    return found


def _first_step(logged: dict[str, np.ndarray]) -> float | None:
    """Return the step at which training begins in a log; None where there is no training in it."""
    steps = [pairs[0, 0] for name, pairs in logged.items() if name.startswith("train/")]
    return min(steps, default=None)


def _read(path: Path) -> dict[str, np.ndarray]:
    """Read one file; half a line at its end, of a process that was killed, is left out."""
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
