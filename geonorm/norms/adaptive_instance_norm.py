"""Adaptive instance normalization: the content of one input in the style of another."""

from typing import Any

from torch import Tensor

from geonorm.functional import Activation, adaptive_instance_norm
from geonorm.inputs import read
from geonorm.norms.base import Norm
from geonorm.style import StyleStatistics, fit_style, style_statistics


class AdaptiveInstanceNorm(Norm):
    """Give a content the mean and the standard deviation of a style, channel by channel.

        y = act((x − mean(x)) / √(var(x) + eps) · std(style) + mean(style) + residual)

    Args:
        num_features: number of channels C.
        eps: added to both variances, in squared units of the features; a content is its own style.
        activation: what follows in the same pass: None, "relu" or "leaky_relu".
        negative_slope: the factor of "leaky_relu" below zero.

    Shape:
        content (B, C, …), rows (N, C) or any sparse kind; style of any kind and size with C
        channels and one instance or B. The output is of the kind and dtype of the content.

    Raises:
        ValueError: on call, for another number of channels or of style's instances, or an empty
            style.
        TypeError: on call, for another kind of input, or one that is not floating point.

    A content whose channel is constant becomes the style's mean. There are no parameters; without
    an activation the output is linear in the style's statistics, and gradients of any order flow
    into both inputs.

    From arbitrary style transfer (Huang and Belongie, 2017).

    >>> import torch
    >>> from geonorm import Rows
    >>> norm = AdaptiveInstanceNorm(3)
    >>> clip, scan = torch.randn(2, 3, 4, 8, 8), torch.rand(50, 3)
    >>> styled = norm(clip, Rows(scan, torch.zeros(50).long()))
    >>> torch.allclose(styled.mean((2, 3, 4)), scan.mean(0).expand(2, 3), atol=1e-5)
    True
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        *,
        activation: Activation | None = None,
        negative_slope: float = 0.01,
    ) -> None:
        super().__init__()
        self.num_features, self.eps = num_features, eps
        self.set_activation(activation, negative_slope)

    def forward(
        self,
        content: Any,
        style: Any,
        batch_index: Tensor | None = None,
        *,
        num_instances: int | None = None,
        residual: Any = None,
    ) -> Any:
        """Return the content in the style.

        Args:
            content: a dense tensor, rows or any sparse kind.
            style: a dense tensor, `geonorm.Rows`, any sparse kind, or `StyleStatistics`.
            batch_index: the instance of each row of the content, for rows alone.
            num_instances: instances of the content; needed for rows on CUDA.
            residual: is added before the activation: of the content's kind, or features of its
                shape.
        """
        given = read(content, batch_index, num_instances, self)
        if not isinstance(style, StyleStatistics):
            style = style_statistics(style, eps=self.eps)
        std, mean = fit_style(style, given.features, given.num_instances)
        return adaptive_instance_norm(
            given, mean, std, residual=residual, eps=self.eps, activation=self.activation,
            negative_slope=self.negative_slope,
        )
