"""Divisive normalization: each response over the pooled strength of its neighbourhood."""

from typing import Any

from torch import Tensor

from geonorm.functional import Activation, divisive_norm
from geonorm.inputs import read
from geonorm.norms.base import AffineNorm, Device, Dtype


class DivisiveNorm(AffineNorm):
    """Divide each response by the pooled strength of its neighbourhood, channel by channel.

        z = x − pool(x),  y = act(z / (eps + pool(|z|ⁿ))^(1/n) · weight + bias + residual)

    `pool` averages over the positions within a window that exist: padding and empty voxels do not
    count. Without a window it averages over the whole instance; with exponent 2 that is instance
    norm.

    Args:
        num_features: number of channels C.
        eps: the semi-saturation constant, in the n-th power of the features' units: responses weak
            against it stay weak.
        affine: learn a weight and a bias per channel.
        kernel_size: width of the window in positions (dense) or voxels of the tensor's stride
            (sparse), odd; None for the whole instance.
        exponent: n, 1 or more.
        center: subtract the pooled mean; without, z = x.
        activation: what follows: None, "relu" or "leaky_relu".
        negative_slope: the factor of "leaky_relu" below zero.
        device, dtype: of the parameters.

    Shape:
        (B, C, L), (B, C, H, W), (B, C, T, H, W) or a MinkowskiEngine SparseTensor; without a window
        also (B, C, …) of more dimensions and every sparse kind that `InstanceNorm` takes. The
        output is of the same kind and dtype.

    Raises:
        ValueError: for an even window, an exponent below 1, an eps that is not positive; on call,
            for another number of channels or dimensions.
        TypeError: on call, for a kind without neighbourhoods, where there is a window.

    A position alone in its window gives the bias if centred. With a window, second derivatives are
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
        exponent: float = 2.0,
        center: bool = True,
        activation: Activation | None = None,
        negative_slope: float = 0.01,
        device: Device = None,
        dtype: Dtype = None,
    ) -> None:
        super().__init__(
            num_features, eps, affine, activation=activation, negative_slope=negative_slope,
            device=device, dtype=dtype,
        )
        if kernel_size is not None and (kernel_size < 1 or kernel_size % 2 == 0):
            raise ValueError(f"kernel_size must be odd, or None for all; got {kernel_size}")
        if not exponent >= 1:
            raise ValueError(f"exponent must be 1 or more; got {exponent}")
        if not eps > 0:
            raise ValueError(f"eps must be positive; got {eps}")
        self.kernel_size, self.exponent, self.center = kernel_size, exponent, center

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
            exponent=self.exponent, center=self.center, residual=residual, **self.options,
        )

    def extra_repr(self) -> str:
        """Show what the constructor was given."""
        return (
            f"{super().extra_repr()}, kernel_size={self.kernel_size}, exponent={self.exponent}, "
            f"center={self.center}"
        )
