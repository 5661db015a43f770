"""One prediction from several views of a scan."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from geonorm.datasets.voxelize import ScanBatch


def mean_scores(
    views: Iterable[tuple[int, ScanBatch, Tensor]],
    point_logits: Callable[[ScanBatch], Tensor],
    num_points: int,
) -> tuple[Tensor, Tensor | None]:
    """Return each point's mean softmax over all views that show it, and its class by vote 0 alone.

    There is no second result where vote 0 is the only one.

    Args:
        views: the number of the vote, a batch, and where its points stand among all points.
        point_logits: the network's scores of each point of a batch, (P, K).
        num_points: of all scans together.

    Shape:
        - result: (N, K) and (N,)

    Raises:
        ValueError: a point is in no view.
    """
    total = torch.zeros(0)
    first: Tensor | None = None
    seen = torch.zeros(num_points, dtype=torch.int64)
    for vote, batch, rows in views:
        scores = point_logits(batch).float().softmax(1)
        if len(total) == 0:
            total = scores.new_zeros(num_points, scores.shape[1])
        if vote and first is None:
            first = total.argmax(1)
        total.index_add_(0, rows.to(total.device), scores)
        seen.index_add_(0, rows, torch.ones_like(rows))
    if not bool((seen > 0).all()):
        raise ValueError(f"every point must be in a view; {int((seen == 0).sum())} are in none")
    return total / seen[:, None].to(total.device), first
