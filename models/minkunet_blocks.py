"""The parts of MinkUNet: convolutions of any float dtype, norm with ReLU, residual blocks."""

from collections.abc import Callable

import torch
from torch import nn

from geonorm.sparse import with_features

try:
    import MinkowskiEngine as ME
except ImportError as error:
    raise ImportError(
        f"MinkUNet needs MinkowskiEngine, which cannot be imported here ({error}); "
        "run `python tools/install_minkowski.py` from the geonorm checkout"
    ) from error

MakeNorm = Callable[..., nn.Module]  # of a number of channels and perhaps place=
# What the engine's convolutions keep in __slots__, where copy and pickle do not see it.
SLOTS = (
    "in_channels", "out_channels", "is_transpose", "kernel_generator", "dimension", "use_mm",
)


class _Mended:
    """Makes an engine's convolution cast its input, obey `torch.device` and survive a copy."""

    def forward(
        self, x: ME.SparseTensor, coordinates: ME.CoordinateMapKey | None = None
    ) -> ME.SparseTensor:
        # The 1x1 kernel is a matrix product and returns half precision under autocast; the other
        # kernels take nothing but the dtype of their own weights.
        if x.F.dtype != self.kernel.dtype:
            x = with_features(x, x.F.to(self.kernel.dtype))
        return super().forward(x, coordinates)

    def reset_parameters(self, is_transpose: bool = False) -> None:
        # The engine allocates through torch.FloatTensor, which is always on the CPU.
        if self.kernel.device != (device := torch.empty(0).device):
            self.kernel = nn.Parameter(torch.empty(self.kernel.shape, device=device))
            if self.bias is not None:
                self.bias = nn.Parameter(torch.empty(self.bias.shape, device=device))
        # There is nothing to draw on the meta device, and torch takes its time over it.
        if not self.kernel.is_meta:
            self._draw(is_transpose)

    def _draw(self, is_transpose: bool) -> None:
        super().reset_parameters(is_transpose)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, **{name: getattr(self, name) for name in SLOTS}}

    def __setstate__(self, state: dict[str, object]) -> None:
        super().__setstate__({key: value for key, value in state.items() if key not in SLOTS})
        for name in SLOTS:
            setattr(self, name, state[name])
        if "bias" not in self._parameters:
            self.bias = None
        self.conv = (
            ME.MinkowskiConvolutionTransposeFunction
            if self.is_transpose
            else ME.MinkowskiConvolutionFunction
        )


class Convolution(_Mended, ME.MinkowskiConvolution):
    """A sparse convolution with He initialization (He et al., 2015)."""

    def _draw(self, is_transpose: bool) -> None:
        super()._draw(is_transpose)
        ME.utils.kaiming_normal_(self.kernel, mode="fan_out", nonlinearity="relu")


class ConvolutionTranspose(_Mended, ME.MinkowskiConvolutionTranspose):
    """A sparse transposed convolution."""


def norm_relu(norm: nn.Module, x: ME.SparseTensor | ME.TensorField, **options: torch.Tensor):
    """Return max(norm(x), 0), of the kind of x; the one place where a ReLU follows a norm."""
    x = norm(x, **options)
    return with_features(x, torch.relu(x.F))


class _Residual(nn.Module):
    """What both blocks share: the shortcut, projected where the number of channels changes."""

    expansion = 1

    def __init__(self, channels: int, planes: int, make_norm: MakeNorm, dimension: int):
        super().__init__()
        out_channels = planes * self.expansion
        self._add_branch(channels, planes, make_norm, dimension)
        self.downsample = self.after = None
        if channels != out_channels:
            self.downsample = nn.Sequential(
                Convolution(channels, out_channels, kernel_size=1, dimension=dimension),
                make_norm(out_channels, place="shortcut"),
            )

    def forward(self, x: ME.SparseTensor) -> ME.SparseTensor:
        """Return relu(branch(x) + shortcut(x)), the sum normalized where there is a norm for it."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self._branch(x)
        out = with_features(out, out.F + shortcut.F)
        if self.after is not None:
            out = self.after(out)
        return with_features(out, torch.relu(out.F))


class BasicBlock(_Residual):
    """Two 3-wide convolutions and a shortcut (He et al., 2016)."""

    def _add_branch(self, channels: int, planes: int, make_norm: MakeNorm, dimension: int) -> None:
        self.conv1 = Convolution(channels, planes, kernel_size=3, dimension=dimension)
        self.norm1 = make_norm(planes, place="first")
        self.conv2 = Convolution(planes, planes, kernel_size=3, dimension=dimension)
        self.norm2 = make_norm(planes)

    def _branch(self, x: ME.SparseTensor) -> ME.SparseTensor:
        return self.norm2(self.conv2(norm_relu(self.norm1, self.conv1(x))))


class Bottleneck(_Residual):
    """A 1-, a 3- and a 1-wide convolution and a shortcut; four times as wide outside as inside."""

    expansion = 4

    def _add_branch(self, channels: int, planes: int, make_norm: MakeNorm, dimension: int) -> None:
        wide = planes * self.expansion
        self.conv1 = Convolution(channels, planes, kernel_size=1, dimension=dimension)
        self.norm1 = make_norm(planes, place="first")
        self.conv2 = Convolution(planes, planes, kernel_size=3, dimension=dimension)
        self.norm2 = make_norm(planes)
        self.conv3 = Convolution(planes, wide, kernel_size=1, dimension=dimension)
        self.norm3 = make_norm(wide)

    def _branch(self, x: ME.SparseTensor) -> ME.SparseTensor:
        x = norm_relu(self.norm1, self.conv1(x))
        return self.norm3(self.conv3(norm_relu(self.norm2, self.conv2(x))))
