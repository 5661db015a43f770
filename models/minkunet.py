"""MinkUNet, a sparse U-Net over voxels or points (Choy et al., 2019), with any norm."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from geonorm.models.minkunet_input import ME, check_input, voxelize, with_features
from geonorm.models.norm import (
    InputNorm,
    MakeNorm,
    Norm,
    norm_act,
    resolve,
    resolve_input,
    weights_for,
)
from geonorm.names import did_you_mean
from geonorm.norms.registry import NORMS
from geonorm.recompute import recomputable
from geonorm.sparse_convolution import ENGINES, SparseConvolution, SparseConvolutionTranspose


class _Placed:
    """Makes an engine's convolution obey `torch.device`."""

    kernel: nn.Parameter
    bias: nn.Parameter | None

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
        super().reset_parameters(is_transpose)  # type: ignore[misc]


class Convolution(_Placed, SparseConvolution):
    """A sparse convolution with He initialization (He et al., 2015)."""

    def _draw(self, is_transpose: bool) -> None:
        super()._draw(is_transpose)
        ME.utils.kaiming_normal_(self.kernel, mode="fan_out", nonlinearity="relu")


class ConvolutionTranspose(_Placed, SparseConvolutionTranspose):
    """A sparse transposed convolution."""


class _Residual(nn.Module):
    """Base of both blocks: the shortcut, projected where the number of channels changes.

    Args:
        channels: of the input.
        planes: of the 3-wide convolutions.
        make_norm: builds a norm for a number of channels.
        dimension: of space.
        last: whether the block ends its stage, after which some norms stand once more.
    """

    expansion = 1

    def __init__(
        self, channels: int, planes: int, make_norm: MakeNorm, dimension: int, *, last: bool
    ) -> None:
        super().__init__()
        out_channels = planes * self.expansion
        self.after = make_norm(out_channels, place="sum", activation="relu") if last else None
        tail = None if self.after is not None else "relu"
        self._add_branch(channels, planes, make_norm, dimension, tail)
        self.downsample = None
        if channels != out_channels:
            self.downsample = nn.Sequential(
                Convolution(channels, out_channels, kernel_size=1, dimension=dimension),
                make_norm(out_channels, place="shortcut"),
            )

    def _add_branch(
        self, channels: int, planes: int, make_norm: MakeNorm, dimension: int, tail: str | None
    ) -> None:
        """Make the modules of the branch, the last norm with the activation `tail`."""
        raise NotImplementedError

    def _branch(self, x: ME.SparseTensor) -> tuple[nn.Module, ME.SparseTensor]:
        """Return the branch's last norm and what goes into it."""
        raise NotImplementedError

    def forward(self, x: ME.SparseTensor) -> ME.SparseTensor:
        """Return relu(branch(x) + shortcut(x)), the sum normalized where there is a norm for it."""
        shortcut = x if self.downsample is None else self.downsample(x)
        norm, out = self._branch(x)
        if self.after is None:
            return norm_act(norm, out, shortcut)
        out = norm(out)
        return norm_act(self.after, with_features(out, out.F + shortcut.F))


class BasicBlock(_Residual):
    """Two 3-wide convolutions and a shortcut (He et al., 2016)."""

    def _add_branch(
        self, channels: int, planes: int, make_norm: MakeNorm, dimension: int, tail: str | None
    ) -> None:
        self.conv1 = Convolution(channels, planes, kernel_size=3, dimension=dimension)
        self.norm1 = make_norm(planes, place="first", activation="relu")
        self.conv2 = Convolution(planes, planes, kernel_size=3, dimension=dimension)
        self.norm2 = make_norm(planes, activation=tail)

    def _branch(self, x: ME.SparseTensor) -> tuple[nn.Module, ME.SparseTensor]:
        return self.norm2, self.conv2(norm_act(self.norm1, self.conv1(x)))


class Bottleneck(_Residual):
    """A 1-, a 3- and a 1-wide convolution and a shortcut; four times as wide outside as inside."""

    expansion = 4

    def _add_branch(
        self, channels: int, planes: int, make_norm: MakeNorm, dimension: int, tail: str | None
    ) -> None:
        wide = planes * self.expansion
        self.conv1 = Convolution(channels, planes, kernel_size=1, dimension=dimension)
        self.norm1 = make_norm(planes, place="first", activation="relu")
        self.conv2 = Convolution(planes, planes, kernel_size=3, dimension=dimension)
        self.norm2 = make_norm(planes, activation="relu")
        self.conv3 = Convolution(planes, wide, kernel_size=1, dimension=dimension)
        self.norm3 = make_norm(wide, activation=tail)

    def _branch(self, x: ME.SparseTensor) -> tuple[nn.Module, ME.SparseTensor]:
        x = norm_act(self.norm1, self.conv1(x))
        return self.norm3, self.conv3(norm_act(self.norm2, self.conv2(x)))


@recomputable
class Concatenate(nn.Module):
    """The channels of two tensors of the same voxels, side by side."""

    def forward(self, x: ME.SparseTensor, skip: ME.SparseTensor) -> ME.SparseTensor:
        """Return x with the channels of skip behind its own."""
        return ME.cat(x, skip)


# Public checkpoints have MinkowskiEngine's keys for batch norm.
NAMES = {**NORMS, "batch": ME.MinkowskiBatchNorm}
STAGES = {
    "stem": "stem",
    **{f"encoder{level}": "encoder" for level in (1, 2, 3)},
    "bottleneck": "bottleneck",
    **{f"decoder{level}": "decoder" for level in (1, 2, 3, 4)},
}
# (stage, convolution, norm, blocks) of each level; the names are those of the public checkpoints.
DOWN = (
    ("encoder1", "conv1p1s2", "bn1", "block1"),
    ("encoder2", "conv2p2s2", "bn2", "block2"),
    ("encoder3", "conv3p4s2", "bn3", "block3"),
    ("bottleneck", "conv4p8s2", "bn4", "block4"),
)
UP = (
    ("decoder1", "convtr4p16s2", "bntr4", "block5"),
    ("decoder2", "convtr5p8s2", "bntr5", "block6"),
    ("decoder3", "convtr6p4s2", "bntr6", "block7"),
    ("decoder4", "convtr7p2s2", "bntr7", "block8"),
)
STEM_WIDTH = 32
ENCODER = (32, 64, 128, 256)


class MinkUNet(nn.Module):
    """A sparse U-Net: stem, four strided encoders, four decoders with skips, a linear classifier.

    Given points (a `TensorField`), it averages them into voxels, and gives each point the output of
    its voxel. With `point_stem`, a linear layer, a norm and a ReLU see every point before that.

    Args:
        in_channels: features of each voxel or point.
        out_channels: outputs of each voxel or point, usually classes.
        norm: a name ("instance", "batch", "none", "ibn-a", "ibn-b", "group", "layer", "divisive" or
            "sync-batch", see docs/norms.md), a callable taking the number of channels, or a mapping
            from stage ("stem", "encoder", "bottleneck", "decoder", or one of "encoder1" to
            "encoder3" and "decoder1" to "decoder4") to either, with "default" for the rest.
        D: dimensions of space.
        point_stem: channels of the per-point stem; None for no such stem.
        convolution: what runs the convolutions: "geonorm", "minkowski", or "auto", geonorm's
            operator on the CPU and MinkowskiEngine's on CUDA. Parameters and checkpoints are the
            same.
        input_norm: a norm of the raw features, of points where points are given: a name; a callable
            taking the number of channels; or a mapping from the number of a channel to either, for
            this channel alone. An instance norm takes a gain and an offset of each channel out of
            each scan, intensity's as well as where the scan lies; `{3: "instance"}` of x, y, z and
            intensity the intensity's alone.

    Shape:
        - Input: `SparseTensor` or `TensorField` with features (N, in_channels).
        - Output: the same kind with features (N, out_channels), rows in the input's order.

    Raises:
        ValueError: for features of another width, another dimension, an unknown norm, stage or
            convolution.
        TypeError: for any other kind of input or for features that are not floating point.

    Edge cases: under instance norm a scan that falls into one voxel of a level keeps only the
    norm's bias there, as with every instance norm of one element.

    Example:
        >>> places = torch.tensor([[0, 0, 0, 0], [0, 1, 2, 3], [1, 5, 5, 5]], dtype=torch.int32)
        >>> scans = ME.SparseTensor(torch.rand(3, 4), places)
        >>> MinkUNet14A(in_channels=4, out_channels=19)(scans).F.shape
        torch.Size([3, 19])

    Source: 4D Spatio-Temporal ConvNets, Choy, Gwak and Savarese, CVPR 2019.
    """

    BLOCK: type[BasicBlock] | type[Bottleneck] = BasicBlock
    LAYERS: tuple[int, ...]
    PLANES: tuple[int, ...]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        norm: Norm = "instance",
        D: int = 3,  # noqa: N803  (the name under which MinkowskiEngine's users know it)
        point_stem: int | None = None,
        convolution: str = "auto",
        input_norm: InputNorm | None = None,
    ):
        super().__init__()
        if convolution not in ENGINES:
            raise ValueError(
                f"convolution must be one of {ENGINES}; got {convolution!r}."
                + did_you_mean(convolution, ENGINES)
            )
        self.in_channels, self.out_channels, self.dimension = in_channels, out_channels, D

        def maker(stage: str) -> MakeNorm:
            return partial(resolve, norm, stage, names=NAMES, stages=STAGES)

        self.input_norm = resolve_input(input_norm, in_channels, NAMES)
        self.point_linear: Any = None
        self.point_norm: Any = None
        if point_stem is not None:
            self.point_linear = ME.MinkowskiLinear(in_channels, point_stem, bias=False)
            self.point_norm = maker("stem")(point_stem, place="stem", activation="relu")
            in_channels = point_stem
        self.conv0p1s1 = Convolution(in_channels, STEM_WIDTH, kernel_size=5, dimension=D)
        self.bn0 = maker("stem")(STEM_WIDTH, place="stem", activation="relu")
        planes, depths = iter(self.PLANES), iter(self.LAYERS)
        width, skips = STEM_WIDTH, [STEM_WIDTH]
        for stage, conv, bn, block in DOWN:
            setattr(self, conv, Convolution(width, width, kernel_size=2, stride=2, dimension=D))
            setattr(self, bn, maker(stage)(width, activation="relu"))
            blocks, width = self._blocks(width, next(planes), next(depths), maker(stage))
            setattr(self, block, blocks)
            skips.append(width)
        skips.pop()
        for stage, conv, bn, block in UP:
            up = next(planes)
            deconvolution = ConvolutionTranspose(width, up, kernel_size=2, stride=2, dimension=D)
            setattr(self, conv, deconvolution)
            setattr(self, bn, maker(stage)(up, activation="relu"))
            blocks, width = self._blocks(up + skips.pop(), up, next(depths), maker(stage))
            setattr(self, block, blocks)
        self.concatenate = Concatenate()
        self.final = Convolution(width, out_channels, kernel_size=1, bias=True, dimension=D)
        for module in self.modules():
            if isinstance(module, SparseConvolution | SparseConvolutionTranspose):
                module.engine = convolution

    def _blocks(
        self, channels: int, planes: int, depth: int, make_norm: MakeNorm
    ) -> tuple[nn.Sequential, int]:
        """Return `depth` residual blocks and the number of channels they put out."""
        width = planes * self.BLOCK.expansion
        widths = [channels] + [width] * (depth - 1)
        blocks = [
            self.BLOCK(wide, planes, make_norm, self.dimension, last=number == depth)
            for number, wide in enumerate(widths, 1)
        ]
        return nn.Sequential(*blocks), width

    def forward(
        self, x: ME.SparseTensor | ME.TensorField, point_weights: torch.Tensor | None = None
    ) -> ME.SparseTensor | ME.TensorField:
        """Classify every row of x.

        Args:
            x: voxels or points.
            point_weights: for a `TensorField`, the weight of each point, (N,): in the average of
                its voxel, and in the norms of points, if those take weights. Weights of
                1 / multiplicity undo any duplication of points.
        """
        check_input(self, x, point_weights)
        if x.F.dtype != self.conv0p1s1.kernel.dtype:
            x = with_features(x, x.F.to(self.conv0p1s1.kernel.dtype))
        points = x
        if self.input_norm is not None:
            points = self.input_norm(points, **weights_for(self.input_norm, point_weights))
        if self.point_linear is not None:
            options = weights_for(self.point_norm, point_weights)
            points = norm_act(self.point_norm, self.point_linear(points), **options)
        if isinstance(x, ME.SparseTensor):
            return self._voxels(points)
        return self._voxels(voxelize(points, point_weights)).slice(points)

    def _voxels(self, x: ME.SparseTensor) -> ME.SparseTensor:
        """Run the U-Net proper."""
        x = norm_act(self.bn0, self.conv0p1s1(x))
        skips = [x]
        for _, conv, bn, block in DOWN:
            x = norm_act(getattr(self, bn), getattr(self, conv)(x))
            x = getattr(self, block)(x)
            skips.append(x)
        skips.pop()
        for _, conv, bn, block in UP:
            # Where a coordinate manager holds several maps of one stride, as when a field is
            # voxelized twice, only the skip's own key leads back to its voxels.
            skip = skips.pop()
            x = norm_act(getattr(self, bn), getattr(self, conv)(x, skip.coordinate_map_key))
            x = getattr(self, block)(self.concatenate(x, skip))
        return self.final(x)

    @staticmethod
    def candidates(shapes: Mapping[str, torch.Size]) -> Iterator[tuple[str, nn.Module]]:
        """Yield every variant, without memory, with the channels that a state dict's shapes tell.

        Args:
            shapes: the shape under each key of the state dict.
        """
        stem, final = shapes.get("conv0p1s1.kernel", ()), shapes.get("final.kernel", ())
        if len(stem) != 3 or len(final) != 2:
            return
        arguments: dict[str, Any] = {"in_channels": stem[1], "out_channels": final[1]}
        dimension = next((d for d in range(1, 7) if 5**d == stem[0]), None)
        if dimension is None:
            return
        if dimension != 3:
            arguments["D"] = dimension
        point_linear = shapes.get("point_linear.linear.weight", ())
        if len(point_linear) == 2:
            arguments["in_channels"] = point_linear[1]
            arguments["point_stem"] = point_linear[0]
        written = ", ".join(f"{key}={value}" for key, value in arguments.items())
        for variant in VARIANTS:
            with torch.device("meta"):
                model = variant(**arguments)
            yield f"{variant.__name__}({written})", model


class MinkUNet14(MinkUNet):
    """One basic block per level; decoder 256, 128, 96, 96."""

    LAYERS = (1, 1, 1, 1, 1, 1, 1, 1)
    PLANES = (*ENCODER, 256, 128, 96, 96)


class MinkUNet14A(MinkUNet14):
    """One basic block per level; decoder 128, 128, 96, 96."""

    PLANES = (*ENCODER, 128, 128, 96, 96)


class MinkUNet14B(MinkUNet14):
    """One basic block per level; decoder 128, 128, 128, 128."""

    PLANES = (*ENCODER, 128, 128, 128, 128)


class MinkUNet14C(MinkUNet14):
    """One basic block per level; decoder 192, 192, 128, 128."""

    PLANES = (*ENCODER, 192, 192, 128, 128)


class MinkUNet14D(MinkUNet14):
    """One basic block per level; decoder 384, 384, 384, 384."""

    PLANES = (*ENCODER, 384, 384, 384, 384)


class MinkUNet18(MinkUNet):
    """Two basic blocks per level; decoder 256, 128, 96, 96."""

    LAYERS = (2, 2, 2, 2, 2, 2, 2, 2)
    PLANES = (*ENCODER, 256, 128, 96, 96)


class MinkUNet18A(MinkUNet18):
    """Two basic blocks per level; decoder 128, 128, 96, 96."""

    PLANES = (*ENCODER, 128, 128, 96, 96)


class MinkUNet18B(MinkUNet18):
    """Two basic blocks per level; decoder 128, 128, 128, 128."""

    PLANES = (*ENCODER, 128, 128, 128, 128)


class MinkUNet18D(MinkUNet18):
    """Two basic blocks per level; decoder 384, 384, 384, 384."""

    PLANES = (*ENCODER, 384, 384, 384, 384)


class MinkUNet34C(MinkUNet):
    """2, 3, 4, 6 basic blocks down, 2 per level up; decoder 256, 128, 96, 96."""

    LAYERS = (2, 3, 4, 6, 2, 2, 2, 2)
    PLANES = (*ENCODER, 256, 128, 96, 96)


class MinkUNet34A(MinkUNet34C):
    """As MinkUNet34C; decoder 256, 128, 64, 64."""

    PLANES = (*ENCODER, 256, 128, 64, 64)


class MinkUNet34B(MinkUNet34C):
    """As MinkUNet34C; decoder 256, 128, 64, 32."""

    PLANES = (*ENCODER, 256, 128, 64, 32)


class MinkUNet50(MinkUNet34C):
    """As MinkUNet34C, of bottleneck blocks."""

    BLOCK = Bottleneck


class MinkUNet101(MinkUNet50):
    """As MinkUNet50 with 23 blocks at the bottleneck."""

    LAYERS = (2, 3, 4, 23, 2, 2, 2, 2)


MinkUNet34 = MinkUNet34C
VARIANTS = (
    MinkUNet14, MinkUNet14A, MinkUNet14B, MinkUNet14C, MinkUNet14D,
    MinkUNet18, MinkUNet18A, MinkUNet18B, MinkUNet18D,
    MinkUNet34A, MinkUNet34B, MinkUNet34C,
    MinkUNet50, MinkUNet101,
)
