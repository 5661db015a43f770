"""Style as adaptive instance norm means it: mean and deviation of each channel, and mixtures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from geonorm.checks import positive, statistics_dtype
from geonorm.inputs import Input, read
from geonorm.ops.backends import checks_values
from geonorm.pooling import moments


@dataclass(frozen=True)
class StyleStatistics:
    """Statistics of a style: a mean and a standard deviation √(var + eps) per instance and channel.

    Shape:
        mean (B, C), std (B, C), float32 or, for float64 features, float64.
    """

    mean: Tensor
    std: Tensor


def style_statistics(
    x: Any,
    batch_index: Tensor | None = None,
    num_instances: int | None = None,
    *,
    eps: float = 1e-5,
) -> StyleStatistics:
    """Return the mean and the standard deviation √(var + eps) of every channel of every instance.

    They are differentiable, twice too, so a style loss trains through them; the eps keeps the
    gradient finite where a channel is constant.

    Args:
        x: a dense tensor, rows or any sparse kind.
        batch_index: the instance of each row, for rows alone.
        num_instances: instances in the batch; needed for rows on CUDA.
        eps: added to the biased variance.

    Shape:
        (B, C, …) or rows (N, C) -> (B, C) twice

    Raises:
        ValueError: an instance without positions has no style; an eps that is not positive.
        TypeError: x is of no known kind, or not floating point.

    From arbitrary style transfer (Huang and Belongie, 2017).

    >>> style = style_statistics(torch.randn(2, 3, 16, 16) * 5 + 1)
    >>> style.mean.shape, style.std.shape
    (torch.Size([2, 3]), torch.Size([2, 3]))
    """
    positive(eps=eps)
    given = read(x, batch_index, num_instances)
    _refuse_empty(given)
    mean, var = moments(given)
    return StyleStatistics(mean, (var + eps).sqrt())


def interpolate(a: StyleStatistics, b: StyleStatistics, alpha: float) -> StyleStatistics:
    """Return the style between two: (1 − alpha) · a + alpha · b, in mean and in deviation.

    Adaptive instance norm is linear in these, so its output moves along a straight line.

    Args:
        a: where alpha is 0.
        b: where alpha is 1; one instance stands for as many as the other has.
        alpha: from 0 to 1: beyond, a deviation could turn negative.

    Raises:
        ValueError: alpha outside [0, 1], or styles whose shapes do not fit each other.

    >>> a, b = (StyleStatistics(torch.full((1, 2), v), torch.full((1, 2), v)) for v in (1.0, 5.0))
    >>> interpolate(a, b, 0.25).mean
    tensor([[2., 2.]])
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie in [0, 1]; got {alpha}")
    return mix_styles((a, b), (1 - alpha, alpha))


def mix_styles(styles: Sequence[StyleStatistics], weights: Sequence[float]) -> StyleStatistics:
    """Return the weighted mean of several styles.

    Args:
        styles: one or more; those of one instance stand for as many as the others have.
        weights: one for each style, not negative, summing to 1.

    Raises:
        ValueError: no styles, another number of weights, a negative one, another sum, or styles
            whose shapes do not fit each other.

    >>> one = StyleStatistics(torch.ones(1, 2), torch.ones(1, 2))
    >>> mix_styles([one, one, one], [0.5, 0.25, 0.25]).std
    tensor([[1., 1.]])
    """
    if len(styles) != len(weights) or not styles:
        raise ValueError(
            f"expected one or more styles and a weight for each; got {len(styles)} styles and "
            f"{len(weights)} weights"
        )
    if min(weights) < 0 or not abs(sum(weights) - 1) < 1e-6:
        raise ValueError(
            f"weights must not be negative and must sum to 1; got {list(weights)}, which sum to "
            f"{sum(weights)}"
        )
    shapes = [tuple(style.mean.shape) for style in styles]
    if len({shape[1:] for shape in shapes}) > 1 or len({shape[0] for shape in shapes} - {1}) > 1:
        raise ValueError(
            "styles must have the same channels, and one instance or as many as each other; got "
            f"means of shapes {', '.join(map(str, shapes))}"
        )
    pairs = [*zip(weights, styles, strict=True)]
    zero = torch.zeros(())
    return StyleStatistics(
        sum((weight * style.mean for weight, style in pairs), zero),
        sum((weight * style.std for weight, style in pairs), zero),
    )


def fit_style(style: StyleStatistics, content: Tensor, instances: int) -> tuple[Tensor, Tensor]:
    """Return deviation and mean, (B, C), for a content of so many instances.

    Raises:
        ValueError: another number of channels, or of instances unless it is one; another device.
    """
    shape = (instances, content.shape[1])
    if style.mean.shape != style.std.shape or style.mean.ndim != 2:
        raise ValueError(
            "style statistics must be two tensors (B, C); got mean "
            f"{tuple(style.mean.shape)} and std {tuple(style.std.shape)}"
        )
    if style.mean.shape[1] != shape[1]:
        raise ValueError(
            f"style must have the content's {shape[1]} channels; got {style.mean.shape[1]}"
        )
    if style.mean.shape[0] not in (1, instances):
        raise ValueError(
            f"style must have one instance or the content's {instances}; got {style.mean.shape[0]}"
        )
    if style.mean.device != content.device:
        raise ValueError(
            f"style is on {style.mean.device}, the content on {content.device}; move one"
        )
    dtype = statistics_dtype(content)
    return style.std.to(dtype).expand(shape), style.mean.to(dtype).expand(shape)


def _refuse_empty(given: Input) -> None:
    """Refuse a style of no instances, or one of whose instances has no positions."""
    index = given.instance
    if given.features.numel() == 0:
        raise ValueError(
            f"an empty style has no statistics; got features {tuple(given.features.shape)}"
        )
    if index is not None and checks_values(index.device):
        counts = torch.bincount(index, minlength=given.num_instances)
        if bool((counts == 0).any()):
            empty = torch.nonzero(counts == 0).flatten().tolist()
            raise ValueError(f"an empty style has no statistics; instances {empty} have no rows")
