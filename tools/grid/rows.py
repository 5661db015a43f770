"""The rows of docs/experiments.csv: one for each cell, appended whole or not at all."""

import csv
import fcntl
import io
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from grid.cells import DESIGN, RATES, Cell


@dataclass(frozen=True)
class Row:
    """What is known of a cell.

    Args:
        cell: which one.
        rate: part of the base learning rate, a key of `RATES`.
        lr: the learning rate.
        steps: of the training.
        validation: score on validation data.
        scores: by test, such as "clean" or "fog 3"; none in a cell that judges a rate.
        train_cpu_s, cpu_s, wall_s: processor time of the training, of all, and time by the clock.
        commit: of the code.
        design: of the grid.
    """

    cell: Cell
    rate: str
    lr: float
    steps: int
    validation: float
    scores: Mapping[str, float]
    train_cpu_s: float
    cpu_s: float
    wall_s: float
    commit: str
    design: int = DESIGN


_CELL = [field.name for field in fields(Cell)]
_OTHERS = [f.name for f in fields(Row) if f.name not in ("cell", "rate", "scores")]
COLUMNS = [*_CELL, *_OTHERS, "lr_factor", "scores"]


def _written(row: Row) -> dict[str, object]:
    known = {name: value for name, value in vars(row).items() if name not in ("cell", "rate")}
    scores = {name: round(value, 4) for name, value in row.scores.items()}
    return known | asdict(row.cell) | {
        "lr_factor": row.rate,
        "lr": f"{row.lr:.4g}",
        "validation": f"{row.validation:.4f}",
        **{name: f"{known[name]:.1f}" for name in ("train_cpu_s", "cpu_s", "wall_s")},
        "scores": json.dumps(scores, separators=(",", ":")) if scores else "",
    }  # fmt: skip


def append(path: Path, row: Row) -> None:
    """Append a row, whatever other processes append meanwhile.

    A line that a killed process left unfinished goes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        before = file.read()
        whole = before[: before.rfind(b"\n") + 1]
        if len(whole) < len(before):
            file.truncate(len(whole))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        if not whole:
            writer.writeheader()
        writer.writerow(_written(row))
        file.write(text.getvalue().encode())
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> list[Row]:
    """Return the rows of this design; a line that is not finished yet is none.

    Raises:
        ValueError: the file has other columns, or a row that is none.
    """
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    reader = csv.DictReader(text[: text.rfind("\n") + 1].splitlines())
    if reader.fieldnames is not None and [*reader.fieldnames] != COLUMNS:
        raise ValueError(
            f"{path} must have the columns {', '.join(COLUMNS)}; got "
            f"{', '.join(reader.fieldnames)}. Move the file away to begin another"
        )
    rows = []
    for number, line in enumerate(reader, start=2):
        try:
            row = _parsed(line)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path} is damaged in line {number} ({error}); delete it") from error
        if row.design == DESIGN:
            rows.append(row)
    return rows


def _parsed(line: Mapping[str, str]) -> Row:
    cell = {name: line[name] for name in _CELL}
    scores = json.loads(line["scores"]) if line["scores"] else {}
    if line["lr_factor"] not in RATES:
        raise ValueError(f"lr_factor must be one of {', '.join(RATES)}; got {line['lr_factor']}")
    return Row(
        Cell(**{**cell, "seed": int(cell["seed"])}),
        line["lr_factor"], float(line["lr"]), int(line["steps"]), float(line["validation"]), scores,
        *(float(line[name]) for name in ("train_cpu_s", "cpu_s", "wall_s")),
        line["commit"], int(line["design"]),
    )  # fmt: skip


def best_rate(rows: Sequence[Row], cell: Cell) -> str | None:
    """Return the part of the base rate that is best on validation data; None while one is open.

    A training that failed, whose score is NaN, is worse than all others; of equals the nearest to
    the base comes first.

    Args:
        rows: of the grid.
        cell: whose rate is wanted.
    """
    found = {row.rate: row.validation for row in rows if row.cell.rate
             and row.cell.tuned == cell.tuned}  # fmt: skip
    if found.keys() < RATES.keys():
        return None
    order = sorted(RATES, key=lambda rate: abs(math.log(RATES[rate])))
    return max(order, key=lambda rate: -math.inf if math.isnan(found[rate]) else found[rate])


@contextmanager
def claimed(folder: Path, cell: Cell) -> Iterator[bool]:
    """Tell whether a cell is this process's; the system frees the cells of a killed process.

    Args:
        folder: of the locks.
        cell: which one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = cell.title.replace(", ", "-").replace(" ", "_").replace("/", "over")
    with (folder / f"{name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
