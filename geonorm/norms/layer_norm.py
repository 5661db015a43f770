"""Normalization of each position over its own channels."""

from typing import Any

from torch import Tensor

from geonorm.functional import layer_norm, read_positions
from geonorm.norms.base import AffineNorm


class LayerNorm(AffineNorm):
    """Normalize each position over its own channels: `F.layer_norm` on the features.

        y = act((x − mean) / √(var + eps) · weight + bias + residual)

    The statistics are those of one point, voxel or pixel over its channels, whatever its instance.
    They remove the gain of a whole scan, and every difference of gain between points. On rows this
    is what some libraries call an instance norm. `nn.LayerNorm` takes channels last, this one
    second.

    Args:
        num_features: number of channels C.
        eps: added to the variance.
        affine: learn a weight and a bias per channel.
        activation: what follows: None, "relu" or "leaky_relu".
        negative_slope: the factor of "leaky_relu" below zero.
        device, dtype: of the parameters.

    Shape:
        (N, C), (B, C, …), or any sparse kind that `InstanceNorm` takes; the output is of the same
        kind, dtype and memory format.

    Raises:
        ValueError: on call, for another number of channels.
        TypeError: on call, for another kind of input, or one that is not floating point.

    One channel gives the bias. State dicts of `nn.LayerNorm` load.

    From layer normalization (Ba et al., 2016).

    >>> import torch
    >>> norm = LayerNorm(8)
    >>> torch.allclose(norm(torch.randn(2, 8, 4, 4)).mean(1), torch.zeros(2, 4, 4), atol=1e-6)
    True
    """

    def forward(
        self,
        x: Any,
        batch_index: Tensor | None = None,
        *,
        num_instances: int | None = None,
        residual: Any = None,
    ) -> Any:
        """Return x normalized, as the kind that it is.

        Args:
            x: a dense tensor, rows (N, C) or any sparse kind.
            batch_index, num_instances: as of `InstanceNorm`; nothing depends on them.
            residual: is added before the activation: of x's kind, or features of its shape.
        """
        given = read_positions(x, batch_index, num_instances, self)
        return layer_norm(given, residual=residual, **self.options)
