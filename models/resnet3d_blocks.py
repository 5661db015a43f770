"""What 3D-ResNets are made of: convolutions of three kinds, residual blocks and stems."""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from geonorm import SpatioTemporalInstanceNorm
from geonorm.models.norm_argument import FAMILY, Names, Norm, NormFactory, resolve

Kind = Literal["3d", "2d", "2+1d"]
Triple = tuple[int, int, int]

STAGES = {"stem": "stem"} | {f"layer{number}": "encoder" for number in (1, 2, 3, 4)}
NORMS: Names = {**FAMILY, "instance": SpatioTemporalInstanceNorm, "batch": nn.BatchNorm3d}


def norm_factory(norm: Norm, stage: str) -> NormFactory:
    """Return what builds the norms of one stage, given a number of channels and perhaps a place."""
    return partial(resolve, norm, stage, names=NORMS, stages=STAGES)


def norm_relu(make_norm: NormFactory, channels: int) -> tuple[nn.Module, nn.Module]:
    """Return a norm and the ReLU after it: one kernel where the norm has an activation, else two.

    The second module is there in both cases, so the numbering of state-dict keys stays.
    """
    norm = make_norm(channels)
    if getattr(norm, "activation", None) != "none":
        return norm, nn.ReLU(inplace=True)
    norm.activation = "relu"
    return norm, nn.Identity()


def conv3d(inputs: int, outputs: int, kernel: Triple, stride: Triple = (1, 1, 1)) -> nn.Conv3d:
    """Return a convolution without bias, padded so that stride 1 keeps the size."""
    padding = tuple(size // 2 for size in kernel)
    return nn.Conv3d(inputs, outputs, kernel, stride, padding, bias=False)


def strides(kind: Kind, stride: int) -> Triple:
    """Return the stride along T, H, W; a two-dimensional convolution leaves T alone."""
    return (1 if kind == "2d" else stride), stride, stride


def convolution(
    kind: Kind, inputs: int, outputs: int, middle: int, stride: int, make_norm: NormFactory
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
        chain: the modules of the residual branch by name, in order of use.
        shortcut: what brings the input to the branch's size; None where it has it already.
        after: a norm of the sum, or None.
    """

    def __init__(
        self, chain: "OrderedDict[str, nn.Module]", shortcut: nn.Module | None,
        after: nn.Module | None = None,
    ) -> None:
        super().__init__()
        for name, module in chain.items():
            self.add_module(name, module)
        self.downsample = shortcut
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(branch(x) + shortcut(x)), the sum normalized where there is a norm for it."""
        out = x
        for name, module in self._modules.items():
            if name not in ("downsample", "after"):
                out = module(out)
        out += x if self.downsample is None else self.downsample(x)
        if self.after is not None:
            out = self.after(out)
        return F.relu(out, inplace=True)


def residual_block(
    kind: Kind, inputs: int, planes: int, stride: int, make_norm: NormFactory,
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
    after = make_norm(outputs, place="sum") if last_of_stage else None
    first = partial(make_norm, place="first")
    makers = [first, *[make_norm] * len(hidden[1:])]
    steps: list[tuple[nn.Module, ...]] = [
        (conv, *norm_relu(maker, planes)) for conv, maker in zip(hidden, makers, strict=True)
    ]
    steps.append((last, make_norm(outputs)))

    chain: OrderedDict[str, nn.Module] = OrderedDict()
    for number, step in enumerate(steps, 1):
        if nested:
            chain[f"conv{number}"] = nn.Sequential(*step)
        else:
            names = (f"conv{number}", f"bn{number}", f"relu{number}")
            chain.update(zip(names, step, strict=False))
    if stride == 1 and inputs == outputs:
        return ResidualBlock(chain, None, after)
    shortcut = conv3d(inputs, outputs, (1, 1, 1), strides(kind, stride))
    projection = nn.Sequential(shortcut, make_norm(outputs, place="shortcut"))
    return ResidualBlock(chain, projection, after)


def stem(
    design: Literal["3d", "2+1d", "hara"], make_norm: Callable[[int], nn.Module]
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
