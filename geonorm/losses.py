"""Losses of style transfer on every kind of input, and of segmentation on rows."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from geonorm.inputs import Input, read
from geonorm.ops.backends import checks_values
from geonorm.style import StyleStatistics, fit_style, style_statistics


def content_loss(x: Any, target: Any, batch_index: Tensor | None = None) -> Tensor:
    """Return the mean squared difference of features at the same positions.

    Args:
        x: a dense tensor, rows or any sparse kind.
        target: of x's kind with the same positions, or a tensor of the shape of its features.
        batch_index: the instance of each row, for rows alone.

    Shape:
        (B, C, …) or rows (N, C) twice -> ()

    Raises:
        ValueError: another shape, or other coordinates.
        TypeError: no known kind, or not floating point.

    From Huang and Belongie (2017), equation 12, whose target is what `AdaptiveInstanceNorm` puts
    out.

    >>> float(content_loss(torch.zeros(1, 2, 4), torch.full((1, 2, 4), 3.0)))
    9.0
    """
    features, wanted = read(x, batch_index).with_residual(target)
    return F.mse_loss(features, wanted)


def style_loss(
    x: Any, style: Any, batch_index: Tensor | None = None, *, num_instances: int | None = None
) -> Tensor:
    """Return how far means and deviations of channels are from a style's, squared, in the mean.

    Args:
        x: a dense tensor, rows or any sparse kind.
        style: `geonorm.style.StyleStatistics` of one instance or of as many as x has, or what they
            are taken of: a dense tensor or any sparse kind.
        batch_index: the instance of each row of x, for rows alone.
        num_instances: instances of x; needed for rows on CUDA.

    Shape:
        (B, C, …) or rows (N, C) -> ()

    Raises:
        ValueError: other channels, another number of instances, or an instance without positions.
        TypeError: no known kind, or not floating point.

    From Huang and Belongie (2017), equation 13, for the features of one layer: add those of
    several.

    >>> x = torch.randn(1, 3, 8, 8)
    >>> float(style_loss(x + 2, x)) - 4 < 1e-5
    True
    """
    wanted = style if isinstance(style, StyleStatistics) else style_statistics(style)
    found = style_statistics(x, batch_index, num_instances)
    std, mean = fit_style(wanted, found.mean, len(found.mean))
    return F.mse_loss(found.mean, mean) + F.mse_loss(found.std, std)


def gram_loss(
    x: Any, style: Any, batch_index: Tensor | None = None, *, num_instances: int | None = None
) -> Tensor:
    """Return the mean squared difference of the Gram matrices of channels.

    An instance's matrix is the mean over its positions of the products of two channels each.

    Args:
        x: a dense tensor, rows or any sparse kind.
        style: a dense tensor or any sparse kind of one instance, or of as many as x has.
        batch_index: the instance of each row of x, for rows alone.
        num_instances: instances of x; needed for rows on CUDA.

    Shape:
        (B, C, …) or rows (N, C) -> ()

    Raises:
        ValueError: other channels, or another number of instances.
        TypeError: no known kind, or not floating point.

    From Gatys, Ecker and Bethge (2016).

    >>> x = torch.randn(1, 3, 8, 8)
    >>> float(gram_loss(x.flip(-1), x)) < 1e-10  # where things are makes no difference
    True
    """
    found, wanted = _gram(read(x, batch_index, num_instances)), _gram(read(style))
    if found.shape[1:] != wanted.shape[1:] or len(wanted) not in (1, len(found)):
        raise ValueError(
            f"style must have {found.shape[1]} channels and one instance or {len(found)}; got "
            f"{wanted.shape[1]} channels and {len(wanted)} instances"
        )
    return F.mse_loss(found, wanted.expand_as(found))


def total_variation_loss(x: Any) -> Tensor:
    """Return the mean absolute difference between neighbours.

    Args:
        x: a dense tensor; a sparse tensor, whose neighbours are the voxels one stride away along
            one axis, where a missing voxel has no difference; or a torch_geometric Data, whose
            neighbours are joined by an edge, of either direction.

    Shape:
        (B, C, …) or features (N, C) -> (); 0 where there are no neighbours

    Raises:
        TypeError: another kind: rows and points have no neighbours.
        ValueError: a graph without edges.

    From Rudin, Osher and Fatemi (1992), anisotropic.

    >>> float(total_variation_loss(torch.tensor([[[0.0, 1.0, 3.0]]])))
    1.5
    """
    given = read(x)
    if given.instance is None:
        steps = [x.diff(dim=axis) for axis in range(2, x.ndim)]
    elif given.kind.neighbours is not None:
        here, there = given.features[given.kind.neighbours(x)]
        steps = [there - here]
    else:
        raise TypeError(
            "neighbours need a dense tensor, voxels or a graph with edges; got "
            f"{given.kind.name}, whose points have none: voxelize them, or join them by the edges "
            "of a torch_geometric Data"
        )
    differences = torch.cat([step.flatten() for step in steps]).abs()
    return differences.sum() / max(differences.numel(), 1)


def lovasz_softmax(
    logits: Tensor,
    labels: Tensor,
    batch_index: Tensor | None = None,
    num_instances: int | None = None,
    *,
    ignore_index: int = 255,
) -> Tensor:
    """Return the Lovász-softmax loss: a convex stand-in for one minus the mean IoU.

    With p the softmax and m = 1 − p[c] on rows of class c, p[c] on others, class c costs

        ∫₀¹ Δ({rows: m ≥ t}) dt,   Δ(M) = |M| / |M ∪ {rows of class c}|,

    Δ being the Jaccard loss if exactly the rows M were wrong. The mean is taken over the classes
    that an instance has, then over the instances that have a labelled row.

    Args:
        logits: scores of each row.
        labels: class of each row.
        batch_index: the instance of each row; by default all are one.
        num_instances: instances of the batch; by default those that the index names.
        ignore_index: label of rows that count for nothing.

    Shape:
        logits (N, K); labels, batch_index (N,) -> (); 0, with gradient 0, without a labelled row

    Raises:
        ValueError: other shapes, or labels that are neither classes nor ignored.
        TypeError: labels that are not integers.

    From Berman, Triki and Blaschko, "The Lovász-Softmax loss" (2018).

    >>> sure = torch.tensor([[9.0, -9.0], [9.0, -9.0]])
    >>> lovasz_softmax(sure, torch.tensor([0, 1]))  # IoU 1/2 and 0
    tensor(0.7500)
    """
    _check_rows(logits, labels, batch_index, ignore_index)
    rows = (labels != ignore_index).nonzero().flatten()
    classes = labels.index_select(0, rows).long()
    index = torch.zeros_like(classes) if batch_index is None else batch_index.long()[rows]
    if num_instances is None:
        num_instances = int(index.max()) + 1 if len(index) else 1
    scores = logits.index_select(0, rows)
    p = scores.to(torch.promote_types(scores.dtype, torch.float32)).softmax(1)
    is_class = F.one_hot(classes, p.shape[1]).bool()
    counts = torch.zeros(num_instances, p.shape[1], dtype=torch.int64, device=p.device)
    counts.index_add_(0, index, is_class.long())
    m = torch.where(is_class, 1 - p, p)
    order = m.detach().argsort(dim=0, descending=True, stable=True)
    order = order.gather(0, index[order].argsort(dim=0, stable=True))
    slopes = _jaccard_slopes(is_class.gather(0, order), index.sort().values, counts)
    # In float64: one float32 number would lose digits over the rows of a scan.
    costs = slopes.new_zeros(counts.shape).index_add(
        0, index.sort().values, m.gather(0, order) * slopes
    )
    present = (counts > 0).sum(1)
    means = costs.sum(1) / present.clamp(min=1)  # a class that is absent costs nothing
    return (means.sum() / (present > 0).sum().clamp(min=1)).to(p.dtype)


def _jaccard_slopes(hit: Tensor, index: Tensor, counts: Tensor) -> Tensor:
    """Return by how much each row raises the Jaccard loss when it joins the wrong rows above it.

    As differences of that loss these numbers, of about 1/N, would lose their digits.

    Args:
        hit: (N, K), whether a row is of the class, the worst rows of each instance first.
        index: (N,), the instance of each row, sorted.
        counts: (B, K), rows of each class.
    """
    sizes = torch.bincount(index, minlength=len(counts))
    starts = (sizes.cumsum(0) - sizes)[index, None]
    total = counts[index]
    before = counts.cumsum(0) - counts  # rows of the class in earlier instances
    wrong_hits = hit.long().cumsum(0) - before[index]
    place = torch.arange(1, len(hit) + 1, device=hit.device)[:, None] - starts
    union = (total + place - wrong_hits).double()
    # Of class c: the union stays. Of another class: (T − F)/(U − 1) becomes (T − F)/U.
    joins = (total - wrong_hits) / (union * (union - 1).clamp(min=1))
    return torch.where(hit, 1 / union, joins) * (total > 0)


def inverse_log_weights(counts: Tensor) -> Tensor:
    """Return a weight for each class from the numbers of its points: 1 / ln(1.02 + share).

    A class of all points weighs 1.42 and a class without any 50.5.

    Args:
        counts: points of each class.

    Shape:
        (K,) -> (K,), float32

    Raises:
        ValueError: a negative count, or no points at all.

    From Paszke et al., "ENet" (2016).

    >>> inverse_log_weights(torch.tensor([75, 25, 0]))
    tensor([ 1.7514,  4.1838, 50.4983])
    """
    if counts.ndim != 1 or not bool((counts >= 0).all()) or not bool(counts.sum() > 0):
        raise ValueError(
            f"counts must be (K,) numbers of points, not all of them 0; got {counts.tolist()}"
        )
    share = counts.double() / counts.double().sum()
    return (1 / (1.02 + share).log()).float()


def _check_rows(
    logits: Tensor, labels: Tensor, batch_index: Tensor | None, ignore_index: int
) -> None:
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"expected logits (N, K) and labels (N,); got {tuple(logits.shape)} and "
            f"{tuple(labels.shape)}"
        )
    if batch_index is not None and batch_index.shape != labels.shape:
        raise ValueError(
            f"batch_index must be {tuple(labels.shape)}, the instance of each row; got "
            f"{tuple(batch_index.shape)}"
        )
    if labels.is_floating_point() or labels.is_complex():
        raise TypeError(f"labels must be integers; got {labels.dtype}")
    if checks_values(labels.device):
        known = labels[labels != ignore_index]
        if len(known) and not 0 <= int(known.min()) <= int(known.max()) < logits.shape[1]:
            raise ValueError(
                f"labels must be classes in [0, {logits.shape[1]}) or {ignore_index}; got "
                f"{int(known.min())} to {int(known.max())}"
            )


def _gram(given: Input) -> Tensor:
    """Return the mean product of two channels each, (B, C, C)."""
    x = given.features
    if given.instance is None:
        rows = x.flatten(2)
        return rows @ rows.mT / max(rows.shape[2], 1)
    products = x.unsqueeze(2) * x.unsqueeze(1)
    total = x.new_zeros(given.num_instances, *products.shape[1:])
    counts = torch.bincount(given.instance, minlength=given.num_instances).clamp(min=1)
    total = total.index_add(0, given.instance, products)
    return total / counts.to(x.dtype)[:, None, None]
