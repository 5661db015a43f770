"""The loss and the scores of a segmentation."""

import torch
from torch import Tensor
from torch.nn import functional

from geonorm.datasets.scan import IGNORE_INDEX


def scan_mean_loss(
    logits: Tensor,
    labels: Tensor,
    batch_index: Tensor,
    num_scans: int,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Return the mean over scans of each scan's mean cross entropy.

    Scans of different size weigh the same. Rows labelled 255 and scans without any other row
    count for nothing; where no scan is left the loss is 0, with gradient 0.

    Args:
        logits: scores of each row.
        labels: class of each row, 255 = none.
        batch_index: scan of each row.
        num_scans: number of scans.
        class_weights: weight of a row of each class in its scan's mean.

    Shape:
        - logits: (N, K); labels, batch_index: (N,); class_weights: (K,); result: a scalar.
    """
    losses = functional.cross_entropy(
        logits.to(torch.promote_types(logits.dtype, torch.float32)),
        labels,
        class_weights,
        ignore_index=IGNORE_INDEX,
        reduction="none",
    )
    known = labels != IGNORE_INDEX
    weights = known.to(losses.dtype)
    if class_weights is not None:
        weights = weights * class_weights[labels.where(known, 0)]
    zeros = losses.new_zeros(num_scans)
    total = zeros.index_add(0, batch_index, losses)
    weight = zeros.index_add(0, batch_index, weights)
    means = total / weight.where(weight > 0, 1)
    return means.sum() / (weight > 0).sum().clamp(min=1)


def class_iou(matrix: Tensor) -> Tensor:
    """Return each class's intersection over union, NaN for classes without a labelled point.

    Args:
        matrix: confusion matrix of counts, rows are true and columns are predicted classes.

    Shape:
        - matrix: (…, K, K); result: (…, K), float64.
    """
    matrix = matrix.double()
    hits = matrix.diagonal(dim1=-2, dim2=-1)
    true, predicted = matrix.sum(dim=-1), matrix.sum(dim=-2)
    return torch.where(true > 0, hits / (true + predicted - hits), torch.nan)
