"""Divisive normalization: each response over the pooled strength of its neighbourhood."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from geonorm.functional import Activation, divisive_norm
from geonorm.inputs import read
from geonorm.norms.base import AffineNorm, Device, Dtype
from geonorm.pooling import check_divisive, check_groups


class DivisiveNorm(AffineNorm):
    """Divide each response by the pooled strength of its neighbourhood.

        z = x − pool(x),  y = act(z / (eps + pool(|z|ⁿ))^(1/n) · weight + bias + residual)

    `pool` averages over the positions within a window that exist: padding and empty voxels do not
    count. Without a window it averages over the whole instance. It takes each channel by itself, or
    groups of channels together. Over the whole instance with exponent 2 that is instance norm, and
    group norm with groups.

    Args:
        num_features: number of channels C.
        eps: the semi-saturation constant, in the n-th power of the features' units: responses weak
            against it stay weak. With eps = sⁿ the n-th power of a response is half of its largest
            where the pool's strength is s, in units of the features.
        affine: learn a weight and a bias per channel.
        kernel_size: width of the window in positions (dense) or voxels of the tensor's stride
            (sparse), odd; None for the whole instance.
        num_groups: groups of successive channels that are pooled together, 1 for all channels; None
            for each channel by itself.
        channel_weights: how much each channel counts in the pool of its group, (C,), ≥ 0; None for
            all the same. They are a buffer, not learned.
        exponent: n, 1 or more.
        center: subtract the pooled mean; without, z = x.
        semi_saturation: the same as a share of the instance's own strength: its n-th power times
            what a pool over the whole instance gives is added to eps. What is weak against the rest
            of its own recording stays weak, at any gain of the recording.
        activation: what follows: None, "relu" or "leaky_relu".
        negative_slope: the factor of "leaky_relu" below zero.
        device, dtype: of the parameters.

    Shape:
        (B, C, L), (B, C, H, W), (B, C, T, H, W) or a MinkowskiEngine SparseTensor; without a window
        also (B, C, …) of more dimensions and every sparse kind that `InstanceNorm` takes. The
        output is of the same kind and dtype.

    Raises:
        ValueError: for an even window, groups that do not divide the channels, channel weights
            that do not fit, an exponent below 1, an eps that is not positive, a negative
            semi-saturation; on call, for another number of channels or dimensions.
        TypeError: on call, for a kind without neighbourhoods, where there is a window.

    A position alone in its window gives the bias if centred and not in a group. Without a window,
    `semi_saturation` scales the output and does nothing else. With a window, second derivatives are
    those of torch's pooling for dense tensors; MinkowskiEngine's pooling has none.

    From Carandini and Heeger (2012); in networks, Ren et al. (2017).

    >>> import torch
    >>> norm = DivisiveNorm(3, kernel_size=5)
    >>> norm(torch.randn(2, 3, 16, 16)).shape
    torch.Size([2, 3, 16, 16])
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        kernel_size: int | None = 5,
        num_groups: int | None = None,
        channel_weights: Sequence[float] | Tensor | None = None,
        exponent: float = 2.0,
        center: bool = True,
        semi_saturation: float = 0.0,
        activation: Activation | None = None,
        negative_slope: float = 0.01,
        device: Device = None,
        dtype: Dtype = None,
    ) -> None:
        super().__init__(
            num_features, eps, affine, activation=activation, negative_slope=negative_slope,
            device=device, dtype=dtype,
        )
        check_divisive(kernel_size, exponent, eps, semi_saturation)
        if channel_weights is not None:
            channel_weights = torch.as_tensor(
                channel_weights, device=device, dtype=dtype or torch.get_default_dtype()
            ).detach().clone()
        check_groups(num_features, num_groups, channel_weights)
        self.kernel_size, self.num_groups = kernel_size, num_groups
        self.exponent, self.center, self.semi_saturation = exponent, center, semi_saturation
        self.channel_weights: Tensor | None
        self.register_buffer("channel_weights", channel_weights)

    def forward(
        self,
        x: Any,
        batch_index: Tensor | None = None,
        *,
        num_instances: int | None = None,
        residual: Any = None,
    ) -> Any:
        """Return x normalized, as the kind that it is; arguments as of `InstanceNorm`."""
        return divisive_norm(
            read(x, batch_index, num_instances, self), kernel_size=self.kernel_size,
            num_groups=self.num_groups, channel_weights=self.channel_weights,
            exponent=self.exponent, center=self.center, semi_saturation=self.semi_saturation,
            residual=residual, **self.options,
        )

    def extra_repr(self) -> str:
        """Show what the constructor was given."""
        weights = None if self.channel_weights is None else self.channel_weights.tolist()
        options = {"num_groups": self.num_groups, "channel_weights": weights,
                   "semi_saturation": self.semi_saturation or None}  # fmt: skip
        return (
            f"{super().extra_repr()}, kernel_size={self.kernel_size}, exponent={self.exponent}, "
            f"center={self.center}"
            + "".join(f", {name}={value}" for name, value in options.items() if value is not None)
        )
