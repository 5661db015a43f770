"""Normalization over groups of channels of an instance."""

from typing import Any

from torch import Tensor

from geonorm.functional import Activation, group_norm
from geonorm.inputs import read
from geonorm.norms.base import AffineNorm, Device, Dtype


class GroupNorm(AffineNorm):
    """Normalize each group of channels over the positions of each instance together.

        y = act((x − mean) / √(var + eps) · weight + bias + residual)

    The statistics are over all positions and the C / groups channels of a group. With one channel a
    group it is instance norm; with one group, layer norm over the whole instance. Weight and bias
    stay per channel.

    Args:
        num_features: number of channels C.
        eps: added to the variance.
        affine: learn a weight and a bias per channel.
        num_groups: divides num_features.
        activation: what follows, in the same pass for rows: None, "relu" or "leaky_relu".
        negative_slope: the factor of "leaky_relu" below zero.
        device, dtype: of the parameters.

    Shape:
        (B, C, …), or any sparse kind that `InstanceNorm` takes; the output is of the same kind and
        dtype.

    Raises:
        ValueError: for groups that do not divide the channels; on call, for another number of
            channels, a matrix without an index, or an index that does not fit.
        TypeError: on call, for another kind of input, or one that is not floating point.

    State dicts of `nn.GroupNorm` load. Its output on a dense tensor is that of `nn.GroupNorm`,
    which takes the number of groups first.

    From group normalization (Wu and He, 2018).

    >>> import torch
    >>> norm = GroupNorm(6, num_groups=2)
    >>> features = norm(torch.randn(5, 6), torch.zeros(5).long())
    >>> torch.allclose(features[:, :3].mean(), torch.zeros(()), atol=1e-6)
    True
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        num_groups: int,
        activation: Activation | None = None,
        negative_slope: float = 0.01,
        device: Device = None,
        dtype: Dtype = None,
    ) -> None:
        if num_groups < 1 or num_features % num_groups:
            raise ValueError(
                f"num_groups must divide num_features; got {num_groups} groups of {num_features} "
                "channels"
            )
        super().__init__(
            num_features, eps, affine, activation=activation, negative_slope=negative_slope,
            device=device, dtype=dtype,
        )
        self.num_groups = num_groups

    def forward(
        self,
        x: Any,
        batch_index: Tensor | None = None,
        *,
        num_instances: int | None = None,
        residual: Any = None,
    ) -> Any:
        """Return x normalized, as the kind that it is; arguments as of `InstanceNorm`."""
        given = read(x, batch_index, num_instances, self)
        return group_norm(given, self.num_groups, residual=residual, **self.options)

    def extra_repr(self) -> str:
        """Show what the constructor was given."""
        return f"{super().extra_repr()}, num_groups={self.num_groups}"
