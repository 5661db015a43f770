"""Adaptive instance normalization: the content of one input in the style of another."""

from typing import Any

from torch import nn

from geonorm.instances import check_channels, is_dense, normalize
from geonorm.sparse import layout_of
from geonorm.style import StyleStatistics, fit_style, style_statistics


class AdaptiveInstanceNorm(nn.Module):
    """Give a content the mean and the standard deviation of a style, channel by channel.

        y = (x − mean(x)) / √(var(x) + eps) · std(style) + mean(style)

    Args:
        num_features: number of channels C.
        eps: added to both variances, in squared units of the features; a content is its own style.

    Shape:
        content (B, C, …) or any sparse kind with features (N, C); style of any kind and size with C
        channels and one instance or B. The output is of the kind and dtype of the content.

    Raises:
        ValueError: on call, for another number of channels or of style's instances, or an empty
            style.
        TypeError: on call, for another kind of input, or one that is not floating point.

    A content whose channel is constant becomes the style's mean. There are no parameters; the
    output is linear in the style's statistics, and gradients of any order flow into both inputs.

    From arbitrary style transfer (Huang and Belongie, 2017).

    >>> import torch
    >>> norm = AdaptiveInstanceNorm(3)
    >>> clip, scan = torch.randn(2, 3, 4, 8, 8), (torch.rand(50, 3), torch.zeros(50).long())
    >>> styled = norm(clip, scan)
    >>> torch.allclose(styled.mean((2, 3, 4)), scan[0].mean(0).expand(2, 3), atol=1e-5)
    True
    """

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_features, self.eps = num_features, eps

    def forward(self, content: Any, style: Any, num_instances: int | None = None) -> Any:
        """Return the content in the style.

        Args:
            content: a dense tensor or any sparse kind.
            style: the same, or `StyleStatistics`.
            num_instances: instances of the content; needed for a pair on CUDA.
        """
        features = check_channels(content, self.num_features, self)
        if not isinstance(style, StyleStatistics):
            style = style_statistics(style, self.eps)
        dense = is_dense(content)
        instances = len(content) if dense else layout_of(content, num_instances).num_instances
        std, mean = fit_style(style, features, instances)
        return normalize(
            content, weight=std, bias=mean, eps=self.eps, num_instances=num_instances
        )

    def extra_repr(self) -> str:
        """Show what the constructor was given."""
        return f"{self.num_features}, eps={self.eps}"
