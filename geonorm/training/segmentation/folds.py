"""The counts of a segmentation: as a table, and summed over the folds of a data set."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from geonorm.training.confusion import read_matrix
from geonorm.training.segmentation.scores import class_iou


def table(matrix: Tensor, classes: list[str]) -> str:
    """Return the IoU of each class and their mean as text.

    Args:
        matrix: confusion matrix, rows are true classes.
        classes: names of the classes.
    """
    iou, points = class_iou(matrix), matrix.sum(dim=1)
    width = max(len("class"), *map(len, classes)) + 2
    lines = [f"{'class':<{width}}{'IoU':>7}{'points':>12}"]
    for name, value, count in zip(classes, iou.tolist(), points.tolist(), strict=True):
        shown = f"{value:7.3f}" if count else f"{'absent':>7}"
        lines.append(f"{name:<{width}}{shown}{int(count):>12,}")
    present = int((points > 0).sum())
    lines.append(
        f"{'mIoU':<{width}}{iou.nanmean().item():7.3f}{int(points.sum()):>12,}"
        f"  mean of the {present} classes present"
    )
    return "\n".join(lines)


def add_folds(runs: Sequence[Path], stage: str = "val") -> str:
    """Return the scores of the summed counts of several runs as text.

    This is how S3DIS is scored over its six areas: every point is counted once, in the run that
    did not train on it. The mean of six scores is another number.

    Args:
        runs: folders of runs.
        stage: what they were judged in, "val" or "test".

    Raises:
        ValueError: no run, a run without counts, or runs of different classes.
    """
    if not runs:
        raise ValueError("expected the folders of runs, such as runs/train_seg/001; got none")
    found = [read_matrix(run / f"{stage}_confusion.csv") for run in runs]
    for run, (_, classes) in zip(runs, found, strict=True):
        if classes != found[0][1]:
            raise ValueError(f"{run} and {runs[0]} have different classes, and have no sum")
    matrix = torch.stack([counts for counts, _ in found]).sum(0)
    hits, true = matrix.diagonal().double(), matrix.sum(1).double()
    overall = (hits.sum() / true.sum()).item()
    mean = (hits / true)[true > 0].mean().item()
    return (
        f"{table(matrix, found[0][1])}\n"
        f"overall accuracy {overall:.3f}, mean accuracy {mean:.3f}, over {len(runs)} runs"
    )
