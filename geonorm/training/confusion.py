"""What a validation or test found, in CSV files: the confusion matrix, and scores of each item."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def write_matrix(path: Path, matrix: Tensor, classes: Sequence[str]) -> None:
    """Write the counts of a confusion matrix, a row for each true class.

    Args:
        path: a CSV file.
        matrix: the counts.
        classes: names of the classes.

    Shape:
        - matrix: (K, K)
    """
    rows = [[name, *map(int, row)] for name, row in zip(classes, matrix.tolist(), strict=True)]
    write_rows(path, ["true class", *classes], rows)


def write_rows(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write rows below their heading; names that are no UTF-8 are written as they can be read."""
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(rows)


def read_matrix(path: Path) -> tuple[Tensor, list[str]]:
    """Read what `write_matrix` wrote: the counts, (K, K) int64, and the names of the classes.

    Raises:
        ValueError: there is no such file, or it holds something else.
    """
    if not path.is_file():
        raise ValueError(f"no {path}: expected the folder of a run that was validated or tested")
    with path.open(newline="") as file:
        head, *rows = list(csv.reader(file)) or [[]]
    try:
        counts = torch.tensor([[int(count) for count in row[1:]] for row in rows])
    except ValueError as error:
        raise ValueError(f"{path} holds something else than counts: {error}") from error
    classes = head[1:]
    if [row[0] for row in rows] != classes or counts.shape != (len(classes), len(classes)):
        raise ValueError(f"{path} is no confusion matrix: its rows and columns differ")
    return counts, classes
