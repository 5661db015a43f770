"""Retinex: the logarithm of an intensity, less that of its surround, in one contrast."""

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor

from geonorm import checks
from geonorm.functional import Activation, retinex_norm
from geonorm.inputs import read
from geonorm.norms.base import AffineNorm, Device, Dtype
from geonorm.pooling import scales_of


class RetinexNorm(AffineNorm):
    """Take the light out of intensities: the logarithm, less that of the surround, normalized.

        z = l − surround(l), l = log(x + floor)
        y = act(z / √(var(z) + eps) · weight + bias + residual)

    Light multiplies, so it is a sum in the logarithm. The surround is an estimate of it: the mean
    over the instance, which makes this instance norm of the logarithm; a mean with Gaussian weights
    around each position, or the mean of several such (single- and multi-scale Retinex); or nothing.
    Of light whose logarithm is a wave with the period p a Gaussian surround leaves the share
    1 − exp(−2 (π σ / p)²), and the same share of what the things themselves look like.

    Args:
        num_features: number of channels C.
        eps: added to the variance of z, in squared units of the natural logarithm.
        affine: learn a weight and a bias per channel.
        surround: the σ of a Gaussian, or several; "mean" for the whole instance; None for nothing.
            It is in positions of a dense tensor's last two dimensions (each frame of a clip by
            itself), or in units of a sparse tensor's coordinates: σ in metres over the voxel size.
        contrast: divide by the deviation of z over the instance.
        back: return exp(…) of it (before residual and activation): with `contrast=False` that is
            the intensity over the geometric mean of its surround.
        floor: added before the logarithm, in units of the features: what is dark against it counts
            as equally dark. It should be about the sensor's noise.
        activation: what follows: None, "relu" or "leaky_relu".
        negative_slope: the factor of "leaky_relu" below zero.
        device, dtype: of the parameters.

    Shape:
        (B, C, …), or with "mean" and None any sparse kind that `InstanceNorm` takes; with a
        Gaussian those that tell positions: MinkowskiEngine's and spconv's tensors, and
        torch_geometric's Data with pos. The output is of the same kind and dtype.

    Raises:
        ValueError: for a surround, a floor or an eps that is not positive; on call, for features
            below −floor (values are checked where `instance_norm` checks them), or positions more
            than some hundred σ apart.
        TypeError: on call, for a Gaussian surround of a kind without positions.

    For models that see intensities; `geonorm.convert` leaves it where it is. Jobson et al. take the
    logarithm of the surround's mean, where here it is the mean of the logarithm: so the sum of two
    lights leaves the sum of their rests. Rows are blurred on a grid of cells of σ/3, which reads
    the extent of the positions from the GPU.

    From Land and McCann (1971); scales from Jobson, Rahman and Woodell (1997).

    >>> import torch
    >>> norm = RetinexNorm(3, surround=(2.0, 8.0))
    >>> norm(torch.rand(2, 3, 16, 16)).shape
    torch.Size([2, 3, 16, 16])
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        surround: float | Sequence[float] | Literal["mean"] | None,
        contrast: bool = True,
        back: bool = False,
        floor: float = 1e-3,
        activation: Activation | None = None,
        negative_slope: float = 0.01,
        device: Device = None,
        dtype: Dtype = None,
    ) -> None:
        super().__init__(
            num_features, eps, affine, activation=activation, negative_slope=negative_slope,
            device=device, dtype=dtype,
        )
        checks.positive(floor=floor, eps=eps)
        self.surround = scales_of(surround)
        self.contrast, self.back, self.floor = contrast, back, floor

    def forward(
        self,
        x: Any,
        batch_index: Tensor | None = None,
        *,
        num_instances: int | None = None,
        residual: Any = None,
    ) -> Any:
        """Return x normalized, as the kind that it is; arguments as of `InstanceNorm`."""
        return retinex_norm(
            read(x, batch_index, num_instances, self), surround=self.surround,
            contrast=self.contrast, back=self.back, floor=self.floor, residual=residual,
            **self.options,
        )

    def extra_repr(self) -> str:
        """Show what the constructor was given."""
        return (
            f"{super().extra_repr()}, surround={self.surround!r}, contrast={self.contrast}, "
            f"back={self.back}, floor={self.floor}"
        )
