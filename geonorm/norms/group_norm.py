"""Norms over groups of channels: of an instance, and of each point by itself."""

from typing import Any

import torch
from torch import Tensor, nn

from geonorm.checks import statistics_dtype
from geonorm.instances import check_channels, is_dense, laid_out_as, normalize_groups
from geonorm.norms.base import AffineNorm
from geonorm.sparse import with_features


class SparseGroupNorm(AffineNorm):
    """Normalize each group of channels over the positions of each instance together.

        y = (x − mean) / √(var + eps) · weight + bias

    The statistics are over all positions and the C / groups channels of a group. With one channel a
    group it is instance norm; with one group, layer norm over the whole instance. Weight and bias
    stay per channel.

    Args:
        num_groups: divides num_features.
        num_features: number of channels C.
        eps: added to the variance.
        affine: learn a weight and a bias per channel.

    Shape:
        (B, C, …), or any sparse kind of `geonorm.sparse` with features (N, C); the output is of the
        same kind and dtype.

    Raises:
        ValueError: for groups that do not divide the channels; on call, for another number of
            channels, a matrix, or an index that does not fit.
        TypeError: on call, for another kind of input, or one that is not floating point.

    State dicts of `nn.GroupNorm` load. Its output on a dense tensor is that of `nn.GroupNorm`.

    From group normalization (Wu and He, 2018).

    >>> norm = SparseGroupNorm(2, 6)
    >>> features, _ = norm((torch.randn(5, 6), torch.zeros(5).long()))
    >>> torch.allclose(features[:, :3].mean(), torch.zeros(()), atol=1e-6)
    True
    """

    def __init__(
        self,
        num_groups: int,
        num_features: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if num_groups < 1 or num_features % num_groups:
            raise ValueError(
                f"num_groups must divide num_features; got {num_groups} groups of {num_features} "
                "channels"
            )
        super().__init__(num_features, eps, affine, device, dtype)
        self.num_groups = num_groups

    def forward(self, x: Any, num_instances: int | None = None) -> Any:
        """Return x normalized, as the kind that it is.

        Args:
            x: a dense tensor or any sparse kind.
            num_instances: instances in the batch; needed for a pair on CUDA.
        """
        check_channels(x, self.num_features, self)
        return normalize_groups(
            x, self.num_groups, weight=self.weight, bias=self.bias, eps=self.eps,
            num_instances=num_instances,
        )

    def extra_repr(self) -> str:
        """Show what the constructor was given."""
        return f"{self.num_groups}, {super().extra_repr()}"


class PointLayerNorm(AffineNorm):
    """Normalize each position over its own channels: `F.layer_norm` on the features.

        y = (x − mean) / √(var + eps) · weight + bias

    The statistics are those of one point, voxel or pixel, over C. It knows nothing of instances: a
    gain of a whole scan goes, and so does every difference of gain between points. On a pair of
    features and index it is what some libraries call an instance norm.

    Args:
        num_features: number of channels C.
        eps: added to the variance.
        affine: learn a weight and a bias per channel.

    Shape:
        (N, C), (B, C, …), or any sparse kind of `geonorm.sparse`; the output is of the same kind,
        dtype and memory format.

    Raises:
        ValueError: on call, for another number of channels.
        TypeError: on call, for another kind of input, or one that is not floating point.

    One channel gives the bias. State dicts of `nn.LayerNorm` load.

    From layer normalization (Ba et al., 2016).

    >>> norm = PointLayerNorm(8)
    >>> torch.allclose(norm(torch.randn(2, 8, 4, 4)).mean(1), torch.zeros(2, 4, 4), atol=1e-6)
    True
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_features, eps, affine, device, dtype)

    def forward(self, x: Any) -> Any:
        """Return x normalized, as the kind that it is."""
        rows = is_dense(x) and x.ndim == 2
        features = check_channels((x, None) if rows else x, self.num_features, self)
        dtype = statistics_dtype(features)
        weight, bias = (None if p is None else p.to(dtype) for p in (self.weight, self.bias))
        out: Tensor = nn.functional.layer_norm(
            features.to(dtype).movedim(1, -1), (self.num_features,), weight, bias, self.eps
        )
        out = out.movedim(-1, 1).to(features.dtype)
        if not is_dense(x):
            return with_features(x, out)
        return laid_out_as(x, out)
