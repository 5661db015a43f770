"""Instance normalization of dense tensors over the axes that one names."""

from torch import Tensor

from geonorm.functional import Activation, normalize_axes
from geonorm.norms.base import AffineNorm, Device, Dtype


class AxisInstanceNorm(AffineNorm):
    """Take mean and variance over the named axes out of every instance and channel.

        y = act((x − mean) / √(var + eps) · weight + bias + residual)

    What the axes are decides what goes: a gain and an offset that are constant along all of them.
    In a spectrogram, `axes="T"` takes out what a microphone does to each frequency band, `axes="F"`
    the loudness of each moment, `axes="FT"` the loudness of the recording.

    Args:
        num_features: size of the channel axis C.
        eps: added to the variance.
        affine: learn a weight and a bias per channel.
        layout: one letter per dimension, "B" (instance) and "C" (channel) among them, such as
            "BCTHW", "BTCHW" or "BCFT".
        axes: the letters of the dimensions to normalize over, any but B and C.
        activation: what follows in the same pass: None, "relu" or "leaky_relu".
        negative_slope: the factor of "leaky_relu" below zero.
        device, dtype: of the parameters.

    Shape:
        Floating point, dimensions as in `layout`, with or without B; the output has the shape,
        dtype and memory format of the input.

    Raises:
        ValueError: for a layout or axes that make no sense; on call, for another number of
            dimensions or channels, or an axis without elements.
        TypeError: on call, for an input that is not floating point.

    An instance of one element, or of equal ones, gives the bias. So does a mean over the same axes
    directly behind this norm, whatever the input: a network over tokens ("BNC", axes "N") that
    ends in this norm and the mean over its tokens is at chance. Put a layer norm there, or read a
    class token. State dicts of torch's own instance and batch norms load; running statistics are
    dropped with a warning.

    From instance normalization (Ulyanov et al., 2016).

    >>> import torch
    >>> spectrogram = torch.rand(2, 1, 64, 100)
    >>> norm = AxisInstanceNorm(1, layout="BCFT", axes="T", eps=1e-9)
    >>> microphone = torch.rand(64, 1) + 0.5  # a gain per frequency band
    >>> torch.allclose(norm(spectrogram * microphone), norm(spectrogram), atol=1e-4)
    True
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        layout: str,
        axes: str,
        activation: Activation | None = None,
        negative_slope: float = 0.01,
        device: Device = None,
        dtype: Dtype = None,
    ) -> None:
        super().__init__(
            num_features, eps, affine, activation=activation, negative_slope=negative_slope,
            device=device, dtype=dtype,
        )
        _check_names(layout, axes)
        self.layout, self.axes = layout, axes
        kept = [letter for letter in layout if letter not in "BC"]
        self._order = [layout.index(letter) for letter in ["B", "C", *kept]]
        self._back = [self._order.index(dim) for dim in range(len(layout))]
        self._moved = self._order != sorted(self._order)
        self._axes = sorted(2 + kept.index(letter) for letter in axes)

    def forward(self, x: Tensor, *, residual: Tensor | None = None) -> Tensor:
        """Return x normalized, in its own shape, dtype and memory format.

        Args:
            x: dimensions as in `layout`.
            residual: is added before the activation, of x's shape and dtype.
        """
        if x.ndim not in (len(self.layout), len(self.layout) - 1):
            raise ValueError(
                f"{type(self).__name__} takes {self.layout} or, for one instance, "
                f"{self.layout.replace('B', '')}; got {x.ndim} dimensions, {tuple(x.shape)}"
            )
        if not x.is_floating_point():
            raise TypeError(
                f"x must be floating point; got {x.dtype}. Convert it first: x.float()"
            )
        batch = self._ordered(x)
        if batch.shape[1] != self.num_features:
            raise ValueError(
                f"expected {self.num_features} channels in {self.layout}; got {batch.shape[1]} in "
                f"{tuple(x.shape)}. Did you mean {type(self).__name__}({batch.shape[1]})?"
            )
        if x.numel() == 0:
            self._check_axes(batch, x)
        if residual is not None:
            if residual.shape != x.shape:
                raise ValueError(
                    f"residual must have the shape of x, {tuple(x.shape)}; got "
                    f"{tuple(residual.shape)}"
                )
            residual = self._ordered(residual)
        out = normalize_axes(batch, self._axes, self.weight, self.bias, self.eps, self.activation,
                             self.negative_slope, residual)
        out = out.permute(self._back) if self._moved else out
        return out if x.ndim == len(self.layout) else out.squeeze(self._order[0])

    def _ordered(self, x: Tensor) -> Tensor:
        """Return x with batch and channels first."""
        batch = x if x.ndim == len(self.layout) else x.unsqueeze(self._order[0])
        return batch.permute(self._order) if self._moved else batch

    def _check_axes(self, batch: Tensor, x: Tensor) -> None:
        """Refuse an axis without elements."""
        empty = [self.layout[self._order[dim]] for dim in self._axes if batch.shape[dim] == 0]
        if empty:
            raise ValueError(
                f"there is nothing to normalize along {empty[0]}: {tuple(x.shape)} has size 0 "
                f"there; leave such inputs out"
            )

    def extra_repr(self) -> str:
        """Show what the constructor was given."""
        return (
            f"{self.num_features}, eps={self.eps}, affine={self.affine}, layout={self.layout!r}, "
            f"axes={self.axes!r}{self._activation_repr()}"
        )


class SpatioTemporalInstanceNorm(AxisInstanceNorm):
    """Take the appearance of a clip out of its features: mean and variance over T, H, W or some.

        y = act((x − mean) / √(var + eps) · weight + bias + residual)

    `axes="THW"` takes out a gain and an offset per clip and channel; "T" what is constant in time,
    position by position (and so any still picture); "HW" what is constant over each frame, such as
    flicker. Where T is 1, a norm over T alone gives the bias whatever the input.

    Args:
        num_features: size of the channel axis C.
        eps: added to the variance.
        affine: learn a weight and a bias per channel.
        axes: one, two or three of the letters T, H, W.
        activation: what follows in the same pass: None, "relu" or "leaky_relu".
        negative_slope: the factor of "leaky_relu" below zero.
        device, dtype: of the parameters.

    Shape:
        (B, C, T, H, W) or (C, T, H, W), floating point; the output has the shape, dtype and memory
        format of the input.

    Raises:
        ValueError: for axes other than T, H, W; on call, for another number of dimensions or
            channels, or no frames.
        TypeError: on call, for an input that is not floating point.

    One element gives the bias. State dicts of `nn.InstanceNorm3d(C, affine=True)` load, and those
    of `nn.BatchNorm3d` without their running statistics, with a warning; by default torch's
    instance norms have no parameters: `affine=False` is their equal.

    From instance normalization (Ulyanov et al., 2016).

    >>> import torch
    >>> clips = torch.randn(2, 16, 8, 28, 28).contiguous(memory_format=torch.channels_last_3d)
    >>> out = SpatioTemporalInstanceNorm(16)(clips)
    >>> out.is_contiguous(memory_format=torch.channels_last_3d)
    True
    >>> torch.allclose(out.mean((2, 3, 4)), torch.zeros(2, 16), atol=1e-5)
    True
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        axes: str = "THW",
        activation: Activation | None = None,
        negative_slope: float = 0.01,
        device: Device = None,
        dtype: Dtype = None,
    ) -> None:
        super().__init__(
            num_features, eps, affine, layout="BCTHW", axes=axes, activation=activation,
            negative_slope=negative_slope, device=device, dtype=dtype,
        )


def _check_names(layout: str, axes: str) -> None:
    """Refuse a layout without B or C, letters that occur twice, and axes it does not have."""
    if len({*layout}) != len(layout) or not {*layout} > {"B", "C"}:
        raise ValueError(
            f"layout must name every dimension by a letter of its own, B and C and at least one "
            f"more, such as 'BCTHW'; got {layout!r}"
        )
    choices = "".join(letter for letter in layout if letter not in "BC")
    unknown = [letter for letter in axes if letter not in choices]
    if not axes or unknown or len({*axes}) != len(axes):
        found = f"{axes!r}, where {unknown[0]!r} is unknown" if unknown else repr(axes)
        raise ValueError(
            f"axes must be one or more of the letters {choices!r}, each once; got {found}"
        )
