"""MinkowskiEngine's convolutions on geonorm's operator; importing this imports the engine."""

from importlib import import_module
from typing import Any

import MinkowskiEngine as ME
import torch
from torch import Tensor, nn

from geonorm.inputs import read
from geonorm.kernel_maps import KernelMap, of_minkowski
from geonorm.ops.sparse_conv import sparse_conv

# What the engine's convolutions keep in __slots__, where copy and pickle do not see it.
SLOTS = (
    "in_channels", "out_channels", "is_transpose", "kernel_generator", "dimension", "use_mm",
)
ENGINES = ("auto", "geonorm", "minkowski")

# The engine imports its own modules by two names; this is the one that its classes come from.
_key_for: Any = import_module(ME.SparseTensor.__module__)._get_coordinate_map_key
_Engine: Any = object  # what the engine's classes add to it has no types


class _Convolution(_Engine):
    """Makes an engine's convolution run on sparse_conv, cast its input and survive a copy."""

    kernel: nn.Parameter
    bias: nn.Parameter | None
    engine: str = "auto"  # of ENGINES, the operator on the CPU and MinkowskiEngine on CUDA

    def forward(
        self, x: ME.SparseTensor, coordinates: ME.CoordinateMapKey | Tensor | None = None
    ) -> ME.SparseTensor:
        """Convolve x.

        Args:
            x: features (N, in_channels).
            coordinates: of the output, where these are not the engine's to choose.
        """
        self._refuse(x)
        if self.engine == "minkowski" or (x.F.is_cuda and self.engine == "auto"):
            if x.F.dtype != self.kernel.dtype:  # the engine takes nothing but its weights' own
                x = read(x).rebuild(x.F.to(self.kernel.dtype))
            return super().forward(x, coordinates)
        features, kernel = self._cast(x.F)
        if self.use_mm:
            key, out = x.coordinate_map_key, features.mm(kernel)
        else:
            key, joined = self._joined(x, coordinates)
            lists = joined.pairs, joined.back, joined.offsets
            out = sparse_conv(features, kernel, *lists, joined.num_out)
        if self.bias is not None:
            out = out + self.bias.to(out.dtype)
        return ME.SparseTensor(out, coordinate_map_key=key, coordinate_manager=x._manager)

    def _refuse(self, x: Any) -> None:
        """Refuse what the engine would meet with an assertion."""
        if not isinstance(x, ME.SparseTensor):
            raise TypeError(
                f"{type(self).__name__} takes MinkowskiEngine's SparseTensor; got "
                f"{type(x).__name__}: a TensorField becomes one by .sparse()"
            )
        if self.dimension != x.D or x.F.shape[1] != self.in_channels:
            raise ValueError(
                f"{type(self).__name__} takes features (N, {self.in_channels}) in "
                f"{self.dimension} dimensions; got {tuple(x.F.shape)} in {x.D}"
            )

    def _cast(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return features and kernel in one dtype, under autocast in autocast's."""
        device = features.device.type
        dtype = (torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device)
                 else self.kernel.dtype)
        return features.to(dtype), self.kernel.to(dtype)

    def _joined(self, x: ME.SparseTensor, coordinates: Any) -> tuple[Any, KernelMap]:
        """Return the key of the output's coordinates, and which rows meet."""
        generator, manager = self.kernel_generator, x._manager
        key, expands = _key_for(x, coordinates), generator.expand_coordinates
        if not key.is_key_set() and not self.is_transpose and not expands:
            key = manager.stride(x.coordinate_map_key, generator.kernel_stride)
        elif not key.is_key_set():
            # Only its own convolution makes new coordinates; one channel is the least it takes.
            none = torch.zeros(len(x.F), 1, device=x.F.device)
            self.conv.apply(
                none, none.new_zeros(generator.kernel_volume, 1, 1), generator,
                self.convolution_mode, x.coordinate_map_key, key, manager)
        return key, of_minkowski(manager, x.coordinate_map_key, key, generator, self.is_transpose)

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


class SparseConvolution(_Convolution, ME.MinkowskiConvolution):
    """MinkowskiEngine's convolution, of the same arguments and parameters, on sparse_conv."""


class SparseConvolutionTranspose(_Convolution, ME.MinkowskiConvolutionTranspose):
    """MinkowskiEngine's transposed convolution, on sparse_conv."""
