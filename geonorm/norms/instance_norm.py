"""Instance normalization of whatever comes: dense tensors and every kind of sparse one."""

from typing import Any

import torch
from torch import Tensor

from geonorm.functional import Activation
from geonorm.instances import check_channels, normalize
from geonorm.norms.base import AffineNorm


class InstanceNorm(AffineNorm):
    """Normalize each channel over the positions of each instance, dense or sparse.

        y = act((x − mean) / √(var + eps) · weight + bias)

    The positions are the rows of an instance, or all elements of a dense tensor's third and later
    dimensions. `SparseInstanceNorm` and `SpatioTemporalInstanceNorm` are the same function for one
    kind of input each, `AxisInstanceNorm` for other axes.

    Args:
        num_features: number of channels C.
        eps: added to the variance, in squared units of the features.
        affine: learn a weight and a bias per channel.
        activation: what follows in the same pass: "none", "relu" or "leaky_relu".
        negative_slope: the factor of "leaky_relu" below zero.

    Shape:
        (B, C, …), or any sparse kind of `geonorm.sparse` with features (N, C); the output is of the
        kind, dtype and memory format of the input.

    Raises:
        ValueError: on call, for another number of channels, a matrix, or an index that does not
            fit.
        TypeError: on call, for another kind of input, or one that is not floating point.

    An instance of one position, or of equal ones, gives the bias. State dicts of torch's and
    MinkowskiEngine's instance and batch norms load, running statistics dropped with a warning.

    From instance normalization (Ulyanov et al., 2016).

    >>> norm = InstanceNorm(4)
    >>> norm(torch.randn(2, 4, 8, 8)).shape
    torch.Size([2, 4, 8, 8])
    >>> features, _ = norm((torch.randn(6, 4) + 3, torch.tensor([0, 0, 1, 0, 1, 1])))
    >>> torch.allclose(features[[0, 1, 3]].mean(0), torch.zeros(4), atol=1e-5)
    True
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        activation: Activation = "none",
        negative_slope: float = 0.01,
    ) -> None:
        super().__init__(num_features, eps, affine, device, dtype)
        self.activation, self.negative_slope = activation, negative_slope

    def forward(
        self, x: Any, point_weights: Tensor | None = None, num_instances: int | None = None
    ) -> Any:
        """Return x normalized, as the kind that it is.

        Args:
            x: a dense tensor or any sparse kind.
            point_weights: how often each row counts, (N,), ≥ 0; of sparse kinds only.
            num_instances: instances in the batch; needed for a pair on CUDA.
        """
        check_channels(x, self.num_features, self)
        return normalize(
            x, weight=self.weight, bias=self.bias, eps=self.eps, activation=self.activation,
            negative_slope=self.negative_slope, num_instances=num_instances,
            point_weights=point_weights,
        )

    def extra_repr(self) -> str:
        """Show what the constructor was given."""
        tail = "" if self.activation == "none" else f", activation={self.activation!r}"
        return super().extra_repr() + tail
