"""3D-ResNets for video: torchvision's three of 18 layers and Hara's of 10 to 200, with any norm.

Clips are float (B, 3, T, H, W); logits are (B, num_classes). With `norm="instance"` every norm is a
`geonorm.SpatioTemporalInstanceNorm` over T, H and W. A norm over fewer axes is a callable:
`norm=lambda channels: SpatioTemporalInstanceNorm(channels, axes="HW")`. A norm over T alone is
degenerate wherever T is 1: one element is its own mean, so the output is the bias whatever the
input. Hara's nets halve T four times, so at 16 frames their `layer4` has T = 1 (torchvision's r3d
and r2plus1d halve it three times, mc3 never); give such a norm a mapping that spares that stage,
such as `norm={"default": t_norm, "layer4": "instance"}`.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from geonorm.models.checkpoints import CheckpointReport, load_checkpoint
from geonorm.models.norm import InputNorm, MakeNorm, Norm, norm_act, resolve, resolve_input
from geonorm.models.weights import Weights

Kind = Literal["3d", "2d", "2+1d"]
Padding = Literal["zeros", "replicate"]
Triple = tuple[int, int, int]

STAGES = {"stem": "stem"} | {f"layer{number}": "encoder" for number in (1, 2, 3, 4)}


def norm_factory(norm: Norm, stage: str) -> MakeNorm:
    """Return what builds the norms of one stage, given a number of channels and perhaps a place."""
    return partial(resolve, norm, stage, stages=STAGES)


def norm_relu(make_norm: MakeNorm, channels: int) -> tuple[nn.Module, nn.Module]:
    """Return a norm and the ReLU after it: one kernel where the norm has an activation, else two.

    The second module is there in both cases, so the numbering of state-dict keys stays.
    """
    norm = make_norm(channels, activation="relu")
    fused = getattr(norm, "activation", None) == "relu"
    return norm, nn.Identity() if fused else nn.ReLU(inplace=True)


def conv3d(inputs: int, outputs: int, kernel: Triple, stride: Triple = (1, 1, 1)) -> nn.Conv3d:
    """Return a convolution without bias, padded so that stride 1 keeps the size."""
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    return nn.Conv3d(inputs, outputs, kernel, stride, padding, bias=False)


def strides(kind: Kind, stride: int) -> Triple:
    """Return the stride along T, H, W; a two-dimensional convolution leaves T alone."""
    return (1 if kind == "2d" else stride), stride, stride


def convolution(
    kind: Kind, inputs: int, outputs: int, middle: int, stride: int, make_norm: MakeNorm
) -> nn.Module:
    """Return a 3×3×3 convolution, a 1×3×3 one, or 1×3×3 then 3×1×1 with a norm between them."""
    if kind == "3d":
        return conv3d(inputs, outputs, (3, 3, 3), (stride, stride, stride))
    if kind == "2d":
        return conv3d(inputs, outputs, (1, 3, 3), (1, stride, stride))
    return nn.Sequential(
        conv3d(inputs, middle, (1, 3, 3), (1, stride, stride)),
        *norm_relu(make_norm, middle),
        conv3d(middle, outputs, (3, 1, 1), (stride, 1, 1)),
    )


class ResidualBlock(nn.Module):
    """A chain of convolutions and norms, added to its input and rectified.

    Args:
        chain: the modules of the residual branch by name, in order of use. The last is a norm, or
            a convolution and a norm.
        shortcut: what brings the input to the branch's size; None where it has it already.
        after: a norm of the sum, or None.
    """

    def __init__(
        self, chain: "OrderedDict[str, nn.Module]", shortcut: nn.Module | None,
        after: nn.Module | None, *, nested: bool,
    ) -> None:
        super().__init__()
        self.nested = nested
        for name, module in chain.items():
            self.add_module(name, module)
        self.downsample = shortcut
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(branch(x) + shortcut(x)), the sum normalized where there is a norm for it."""
        chain: list[Any] = [module for name, module in self._modules.items()
                            if name not in ("downsample", "after")]
        *hidden, last = chain
        out, norm = x, last
        for module in hidden:
            out = module(out)
        if self.nested:
            out, norm = last[0](out), last[1]
        shortcut = x if self.downsample is None else self.downsample(x)
        if self.after is None:
            result: Tensor = norm_act(norm, out, shortcut)
        else:
            result = norm_act(self.after, norm(out) + shortcut)
        return result


def residual_block(
    kind: Kind, inputs: int, planes: int, stride: int, make_norm: MakeNorm,
    *, bottleneck: bool, nested: bool, last_of_stage: bool = False,
) -> ResidualBlock:
    """Build one block under torchvision's names (`conv1.0`, `conv1.1`) or Hara's (`conv1`, `bn1`).

    Args:
        kind: the kind of its 3×3×3 convolutions.
        inputs: channels of its input.
        planes: channels of its 3×3×3 convolutions; a bottleneck puts out four times as many.
        stride: of the first 3×3×3 convolution.
        make_norm: builds a norm for a number of channels.
        bottleneck: 1×1×1, 3×3×3, 1×1×1 in place of 3×3×3 twice.
        nested: torchvision's names in place of Hara's.
        last_of_stage: the block after which a norm of the sum stands, if there is one.
    """
    # The published count of planes between 1×3×3 and 3×1×1: both convolutions of a block share it.
    middle = inputs * planes * 27 // (inputs * 9 + planes * 3)
    outputs = planes * 4 if bottleneck else planes
    if bottleneck:
        convolutions = [
            conv3d(inputs, planes, (1, 1, 1)),
            convolution(kind, planes, planes, middle, stride, make_norm),
            conv3d(planes, outputs, (1, 1, 1)),
        ]
    else:
        convolutions = [
            convolution(kind, inputs, planes, middle, stride, make_norm),
            convolution(kind, planes, planes, middle, 1, make_norm),
        ]
    *hidden, last = convolutions
    after = make_norm(outputs, place="sum", activation="relu") if last_of_stage else None
    first = partial(make_norm, place="first")
    makers: list[MakeNorm] = [first, *[make_norm] * len(hidden[1:])]
    steps: list[tuple[nn.Module, ...]] = [
        (conv, *norm_relu(maker, planes)) for conv, maker in zip(hidden, makers, strict=True)
    ]
    steps.append((last, make_norm(outputs, activation="relu" if after is None else None)))

    chain: OrderedDict[str, nn.Module] = OrderedDict()
    for number, step in enumerate(steps, 1):
        if nested:
            chain[f"conv{number}"] = nn.Sequential(*step)
        else:
            names = (f"conv{number}", f"bn{number}", f"relu{number}")
            chain.update(zip(names, step, strict=False))
    if stride == 1 and inputs == outputs:
        return ResidualBlock(chain, None, after, nested=nested)
    shortcut = conv3d(inputs, outputs, (1, 1, 1), strides(kind, stride))
    projection = nn.Sequential(shortcut, make_norm(outputs, place="shortcut"))
    return ResidualBlock(chain, projection, after, nested=nested)


def stem(
    design: Literal["3d", "2+1d", "hara"], make_norm: MakeNorm
) -> "OrderedDict[str, nn.Module]":
    """Return the modules before the first block, by name: clips of 3 channels to 64."""
    if design == "hara":
        norm, relu = norm_relu(make_norm, 64)
        return OrderedDict(
            conv1=conv3d(3, 64, (7, 7, 7), (1, 2, 2)), bn1=norm, relu=relu,
            maxpool=nn.MaxPool3d(kernel_size=3, stride=2, padding=1),
        )
    if design == "3d":
        return OrderedDict(stem=nn.Sequential(
            conv3d(3, 64, (3, 7, 7), (1, 2, 2)), *norm_relu(make_norm, 64)
        ))
    return OrderedDict(stem=nn.Sequential(
        conv3d(3, 45, (1, 7, 7), (1, 2, 2)), *norm_relu(make_norm, 45),
        conv3d(45, 64, (3, 1, 1)), *norm_relu(make_norm, 64),
    ))


_HARA_BLOCKS = {
    10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3),
    101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3),
}


def check_clips(x: Tensor, channels: int) -> None:
    """Refuse what is no batch of floating-point clips of so many channels."""
    if x.ndim != 5 or x.shape[1] != channels:
        raise ValueError(
            f"clips must be (B, {channels}, T, H, W); got {tuple(x.shape)}. One clip needs "
            f"unsqueeze(0); frames-first clips (B, T, {channels}, H, W) need transpose(1, 2)"
        )
    if not x.is_floating_point():
        raise TypeError(f"clips must be floating point; got {x.dtype}. Use x.float() / 255")


def check_padding_mode(padding_mode: str) -> None:
    """Refuse what is no name of what convolutions see beyond the edge of a clip."""
    if padding_mode not in get_args(Padding):
        raise ValueError(
            f"padding_mode must be one of {', '.join(get_args(Padding))}; got {padding_mode!r}"
        )


class ResNet3D(nn.Module):
    """A 3D-ResNet: its modules applied in order, from clip to logits.

    Args:
        modules: every module by its state-dict name, in order of use; the last is `fc`.
        padding_mode: what the convolutions see beyond the edge of a clip.

    Attributes:
        report: what was kept and dropped of the `weights` it was built with, or None; print it.

    Shape:
        (B, 3, T, H, W) float -> (B, num_classes)

    Raises:
        ValueError: where the input is not (B, 3, T, H, W).
        TypeError: where it is not floating point.
    """

    def __init__(
        self, modules: "OrderedDict[str, nn.Module]", padding_mode: Padding = "zeros"
    ) -> None:
        super().__init__()
        check_padding_mode(padding_mode)
        for name, module in modules.items():
            self.add_module(name, module)
        self.report: CheckpointReport | None = None
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                module.padding_mode = padding_mode if any(module.padding) else "zeros"
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of each clip."""
        check_clips(x, 3)
        for module in self.children():
            x = module(x)
        return x

    @staticmethod
    def candidates(shapes: Mapping[str, torch.Size]) -> Iterator[tuple[str, nn.Module]]:
        """Yield every net, without memory, with as many classes as a state dict's shapes tell."""
        classes = next(iter(shapes.get("fc.bias", ())), None)
        if classes is None:
            return
        named = {f"{build.__name__}(num_classes={classes})": build
                 for build in (r3d_18, mc3_18, r2plus1d_18)}
        named |= {f"resnet3d({depth}, num_classes={classes})": partial(resnet3d, depth)
                  for depth in _HARA_BLOCKS}
        for name, build in named.items():
            with torch.device("meta"):
                model = build(num_classes=classes)
            yield name, model


def _build(
    stem_design: Literal["3d", "2+1d", "hara"], kinds: tuple[Kind, Kind, Kind, Kind],
    blocks: tuple[int, int, int, int],
    num_classes: int, norm: Norm, *, bottleneck: bool = False, nested: bool = True,
    width: int = 64, padding_mode: Padding = "zeros", input_norm: InputNorm | None = None,
) -> ResNet3D:
    """Build any of the nets; the arguments are what differs between them."""
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    if (first := resolve_input(input_norm, 3)) is not None:
        modules["input_norm"] = first
    modules |= stem(stem_design, partial(norm_factory(norm, "stem"), place="stem"))
    channels = 64
    for number, (kind, depth) in enumerate(zip(kinds, blocks, strict=True), 1):
        stage, planes = f"layer{number}", width * 2 ** (number - 1)
        layer = nn.Sequential()
        for position in range(depth):
            stride = 2 if position == 0 and number > 1 else 1
            layer.append(residual_block(
                kind, channels, planes, stride, norm_factory(norm, stage),
                bottleneck=bottleneck, nested=nested, last_of_stage=position == depth - 1,
            ))
            channels = planes * 4 if bottleneck else planes
        modules[stage] = layer
    modules["avgpool"] = nn.AdaptiveAvgPool3d(1)
    modules["flatten"] = nn.Flatten()
    modules["fc"] = nn.Linear(channels, num_classes)
    return ResNet3D(modules, padding_mode)


def r3d_18(
    num_classes: int = 400, norm: Norm = "instance", weights: str | Weights | None = None, *,
    padding_mode: Padding = "zeros", input_norm: InputNorm | None = None,
) -> ResNet3D:
    """Build torchvision's r3d_18: every convolution 3×3×3 (Tran et al., CVPR 2018).

    Parameter counts and state-dict keys are torchvision's; with `norm="batch"` its files load
    strictly and its outputs follow.

    Args:
        num_classes: number of logits; where it is not 400, `weights` leave `fc` as initialized.
        norm: "instance", "batch", "none", "ibn-a", "ibn-b", "group", "layer", "divisive" or
            "sync-batch" (docs/norms.md), a callable taking the number of channels, or a mapping
            from "stem", "layer1" … "layer4", "encoder" (the four) or "default" to either.
        weights: a member of `geonorm.models.R3D_18_Weights` or its name, such as "KINETICS400_V1"
            for torchvision's, trained with batch norm on Kinetics-400 (63.2% top-1). With another
            norm the convolutions and the affine parameters are kept and running statistics
            dropped; the model's `report` lists them.
        padding_mode: what convolutions see beyond the edge of a clip: "zeros", as published, or
            "replicate", the nearest position. Zeros let an offset of the input, such as the
            exposure of a standardized clip, pass any instance norm (docs/studies).
        input_norm: a norm of the clip before all else: a name; a callable taking the number of
            channels, such as `lambda channels: SpatioTemporalInstanceNorm(channels, axes="T")`; or
            a mapping from the number of a channel to either, for this channel alone.

    Shape:
        (B, 3, T, H, W) -> (B, num_classes)

    Raises:
        ValueError: for an unknown norm, stage, name of weights or mode of padding.
        TypeError: for any other kind of norm.
        OSError: where the weights are neither on disk nor to be had; says where to put the file.
        ValueError: their file has another hash.

    Example:
        >>> logits = r3d_18(num_classes=5)(torch.randn(1, 3, 8, 32, 32))
        >>> logits.shape
        torch.Size([1, 5])
    """
    model = _build("3d", ("3d", "3d", "3d", "3d"), (2, 2, 2, 2), num_classes, norm,
                   padding_mode=padding_mode, input_norm=input_norm)
    return _with_weights(model, "r3d_18", weights)


def mc3_18(
    num_classes: int = 400, norm: Norm = "instance", weights: str | Weights | None = None, *,
    padding_mode: Padding = "zeros", input_norm: InputNorm | None = None,
) -> ResNet3D:
    """Build torchvision's mc3_18: 3×3×3 in layer 1, 1×3×3 above, T kept (Tran et al., CVPR 2018).

    Arguments, shapes and errors are those of `r3d_18`; top-1 on Kinetics-400 is 64.0%.
    """
    model = _build("3d", ("3d", "2d", "2d", "2d"), (2, 2, 2, 2), num_classes, norm,
                   padding_mode=padding_mode, input_norm=input_norm)
    return _with_weights(model, "mc3_18", weights)


def r2plus1d_18(
    num_classes: int = 400, norm: Norm = "instance", weights: str | Weights | None = None, *,
    padding_mode: Padding = "zeros", input_norm: InputNorm | None = None,
) -> ResNet3D:
    """Build torchvision's r2plus1d_18: 1×3×3 then 3×1×1, norms between (Tran et al., CVPR 2018).

    Arguments, shapes and errors are those of `r3d_18`; top-1 on Kinetics-400 is 67.5%.
    """
    kinds: tuple[Kind, Kind, Kind, Kind] = ("2+1d", "2+1d", "2+1d", "2+1d")
    model = _build("2+1d", kinds, (2, 2, 2, 2), num_classes, norm,
                   padding_mode=padding_mode, input_norm=input_norm)
    return _with_weights(model, "r2plus1d_18", weights)


def resnet3d(
    depth: int, num_classes: int = 400, norm: Norm = "instance", width: int = 64, *,
    padding_mode: Padding = "zeros", input_norm: InputNorm | None = None,
) -> ResNet3D:
    """Build a 3D-ResNet of Hara, Kataoka and Satoh (CVPR 2018), parameters and keys theirs.

    A published file loads through `load_checkpoint(model, path)`.

    Args:
        depth: 10, 18 or 34 (basic blocks), 50, 101, 152 or 200 (bottlenecks).
        num_classes: number of logits.
        norm: as in `r3d_18`.
        width: planes of layer1, which each further stage doubles; 64 are published. The stem
            always has 64 channels, as in Hara's wide nets.
        padding_mode: as in `r3d_18`.
        input_norm: as in `r3d_18`.

    Shape:
        (B, 3, T, H, W) -> (B, num_classes)

    Raises:
        ValueError: for another depth, a width below 1, or an unknown norm, stage or padding.
        TypeError: for any other kind of norm.

    Example:
        >>> model = resnet3d(10, num_classes=5, norm="batch")
        >>> type(model.layer1[0].bn1), model.layer1[0].bn1.activation
        (<class 'geonorm.norms.batch_norm.BatchNorm'>, 'relu')
    """
    if depth not in _HARA_BLOCKS:
        raise ValueError(f"depth must be one of {list(_HARA_BLOCKS)}; got {depth!r}")
    if width < 1:
        raise ValueError(f"width must be at least 1; got {width}")
    return _build(
        "hara", ("3d", "3d", "3d", "3d"), _HARA_BLOCKS[depth], num_classes, norm,
        bottleneck=depth >= 50, nested=False, width=width, padding_mode=padding_mode,
        input_norm=input_norm,
    )


def _with_weights(model: ResNet3D, name: str, weights: str | Weights | None) -> ResNet3D:
    """Load torchvision's weights of that name into the model, where any are asked for."""
    if weights is None:
        return model
    if isinstance(weights, str):
        from geonorm.models import torchvision_weights

        known = getattr(torchvision_weights, _WEIGHTS[name]).__members__
        if weights not in known:
            raise ValueError(
                f"weights of {name} must be one of {list(known)} or None; got {weights!r}"
            )
        weights = known[weights]
    model.report = load_checkpoint(model, weights, heads=("fc", "input_norm"))
    return model


_WEIGHTS = {"r3d_18": "R3D_18_Weights", "mc3_18": "MC3_18_Weights",
            "r2plus1d_18": "R2Plus1D_18_Weights"}  # fmt: skip
