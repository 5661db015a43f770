"""Divisive normalization: each response over the pooled strength of its neighbourhood."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from geonorm.checks import statistics_dtype
from geonorm.instances import check_channels, is_dense, moments, spread
from geonorm.norms.base import AffineNorm
from geonorm.sparse import features_of, with_features

_AVERAGE: tuple[Callable[..., Tensor], ...] = (
    nn.functional.avg_pool1d, nn.functional.avg_pool2d, nn.functional.avg_pool3d
)


class DivisiveNorm(AffineNorm):
    """Divide each response by the pooled strength of its neighbourhood, channel by channel.

        z = x − pool(x),  y = z / (eps + pool(|z|ⁿ))^(1/n) · weight + bias

    `pool` averages over the positions within a window that exist: padding and empty voxels do not
    count. Without a window it averages over the whole instance; with exponent 2 that is instance
    norm.

    Args:
        num_features: number of channels C.
        kernel_size: width of the window in positions (dense) or voxels of the tensor's stride
            (sparse), odd; None for the whole instance.
        exponent: n, 1 or more.
        center: subtract the pooled mean; without, z = x.
        eps: the semi-saturation constant, in the n-th power of the features' units: responses weak
            against it stay weak.
        affine: learn a weight and a bias per channel.

    Shape:
        (B, C, L), (B, C, H, W), (B, C, T, H, W) or a MinkowskiEngine SparseTensor; without a window
        also (B, C, …) of more dimensions and every sparse kind of `geonorm.sparse`. The output is
        of the same kind and dtype.

    Raises:
        ValueError: for an even window, an exponent below 1, an eps that is not positive; on call,
            for another number of channels or dimensions.
        TypeError: on call, for a kind without neighbourhoods, where there is a window.

    A position alone in its window gives the bias if centred. With a window, second derivatives are
    those of torch's pooling for dense tensors; MinkowskiEngine's pooling has none.

    From Carandini and Heeger (2012); in networks, Ren et al. (2017).

    >>> norm = DivisiveNorm(3, kernel_size=5)
    >>> norm(torch.randn(2, 3, 16, 16)).shape
    torch.Size([2, 3, 16, 16])
    """

    def __init__(
        self,
        num_features: int,
        kernel_size: int | None = 5,
        exponent: float = 2.0,
        center: bool = True,
        eps: float = 1e-5,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_features, eps, affine, device, dtype)
        if kernel_size is not None and (kernel_size < 1 or kernel_size % 2 == 0):
            raise ValueError(f"kernel_size must be odd, or None for all; got {kernel_size}")
        if not exponent >= 1:
            raise ValueError(f"exponent must be 1 or more; got {exponent}")
        if not eps > 0:
            raise ValueError(f"eps must be positive; got {eps}")
        self.kernel_size, self.exponent, self.center = kernel_size, exponent, center

    def forward(self, x: Any, num_instances: int | None = None) -> Any:
        """Return x normalized, as the kind that it is.

        Args:
            x: a dense tensor or any sparse kind.
            num_instances: instances in the batch; needed for a pair on CUDA.
        """
        features = check_channels(x, self.num_features, self)
        pool = self._pool(x, num_instances)
        z = features.to(statistics_dtype(features))
        if self.center:
            # An average of numbers far from zero loses the digits that tell them apart: what an
            # instance has in common goes first, without gradient, as none of it is left in z.
            offset = moments(_same_kind(x, z.detach()), num_instances)[0]
            z = z - spread(offset, x, num_instances)
            z = z - pool(z)
        if self.exponent == 2:
            out = z * (pool(z.square()) + self.eps).rsqrt()
        else:
            out = z * (pool(z.abs().pow(self.exponent)) + self.eps).pow(-1 / self.exponent)
        shape = (1, -1, *(1,) * (out.ndim - 2))
        if self.weight is not None and self.bias is not None:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return _same_kind(x, out.to(features.dtype))

    def _pool(self, x: Any, num_instances: int | None) -> Callable[[Tensor], Tensor]:
        """Return what averages features over the neighbourhoods of x."""
        if self.kernel_size is None:
            return lambda z: spread(moments(_same_kind(x, z), num_instances)[0], x, num_instances)
        if is_dense(x):
            if x.ndim > 5:
                raise ValueError(
                    "a window needs (B, C, L), (B, C, H, W) or (B, C, T, H, W); got "
                    f"{tuple(x.shape)}. Use kernel_size=None"
                )
            return _window(_AVERAGE[x.ndim - 3], self.kernel_size, x)
        if not (hasattr(x, "coordinate_manager") and hasattr(x, "coordinate_map_key")):
            raise TypeError(
                "a window needs a dense tensor or a MinkowskiEngine SparseTensor, whose engine "
                f"finds neighbours; got {type(x).__name__}. Use kernel_size=None"
            )
        average_pooling = import_module("MinkowskiEngine").MinkowskiAvgPooling
        local = average_pooling(self.kernel_size, stride=1, dimension=x.D)
        return lambda z: features_of(local(with_features(x, z), x.coordinate_map_key))

    def extra_repr(self) -> str:
        """Show what the constructor was given."""
        return (
            f"{self.num_features}, kernel_size={self.kernel_size}, exponent={self.exponent}, "
            f"center={self.center}, eps={self.eps}, affine={self.affine}"
        )


def _window(
    average: Callable[..., Tensor], width: int, x: Tensor
) -> Callable[[Tensor], Tensor]:
    """Return what averages over the elements of a window that exist, of any size against x's."""
    # torch's own padding will not do: avg_pool3d takes no input smaller than its window.
    margins = [width // 2] * 2 * (x.ndim - 2)

    def pad(z: Tensor) -> Tensor:
        return average(nn.functional.pad(z, margins), width, 1)

    share = pad(x.new_ones((1, 1, *x.shape[2:]), dtype=statistics_dtype(x)))
    return lambda z: pad(z) / share


def _same_kind(x: Any, features: Tensor) -> Any:
    return features if is_dense(x) else with_features(x, features)
