"""Instance normalization of sparse tensors."""

from typing import Any

import torch
from torch import Tensor

from geonorm.functional import Activation, normalize_rows
from geonorm.norms.base import AffineNorm
from geonorm.sparse import features_of, layout_of, with_features


class SparseInstanceNorm(AffineNorm):
    """Normalize each channel over the rows of each instance of a sparse tensor.

        y = act((x − mean) / √(var + eps) · weight + bias)

    A gain and an offset of a scan's features, channel by channel, leave the output as it is.

    Args:
        num_features: number of channels C.
        eps: added to the variance, in squared units of the features.
        affine: learn a weight and a bias per channel.
        activation: what follows in the same pass: "none", "relu" or "leaky_relu".
        negative_slope: the factor of "leaky_relu" below zero.

    Shape:
        A MinkowskiEngine SparseTensor or TensorField with features (N, C), or a pair (features,
        batch_index (N,)); the output is of the same kind, with the same coordinate key and manager.

    Raises:
        ValueError: on call, for another number of channels, or an index or weights that do not fit.
        TypeError: on call, for anything else than those kinds or for integer features.

    An instance of one row, or of equal rows, gives the bias; a batch without rows stays without.
    State dicts of MinkowskiInstanceNorm load (its eps is fixed at 1e-8: ask for the same to get the
    same function), and those of MinkowskiBatchNorm without their running statistics, with a
    warning.

    From instance normalization (Ulyanov et al., 2016).

    >>> norm = SparseInstanceNorm(16)
    >>> scan = torch.tensor([0, 0, 1, 0, 1, 1])
    >>> features, _ = norm((torch.randn(6, 16) * 3 + 7, scan))
    >>> torch.allclose(features[scan == 0].mean(0), torch.zeros(16), atol=1e-5)
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
            x: a SparseTensor, a TensorField or a pair (features, batch_index).
            point_weights: how often each row counts, (N,), ≥ 0.
            num_instances: instances in the batch; needed for a pair on CUDA.
        """
        features, layout = features_of(x), layout_of(x, num_instances)
        if features.dim() == 2 and features.shape[1] != self.num_features:
            raise ValueError(
                f"features must be (N, {self.num_features}); got {tuple(features.shape)}. Did you "
                f"mean {type(self).__name__}({features.shape[1]})?"
            )
        out = normalize_rows(
            features, layout.index, layout.num_instances, weight=self.weight, bias=self.bias,
            point_weights=point_weights, eps=self.eps, activation=self.activation,
            negative_slope=self.negative_slope,
        )
        return with_features(x, out)

    def extra_repr(self) -> str:
        """Show what the constructor was given."""
        tail = "" if self.activation == "none" else f", activation={self.activation!r}"
        return super().extra_repr() + tail
