"""The networks that `geonorm train-action` trains, by name, and their weights."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from geonorm.models import ResNet3D, load_checkpoint, mc3_18, r2plus1d_18, r3d_18, resnet3d
from geonorm.models.norm import Norm
from geonorm.models.video_resnet import Padding
from geonorm.names import choices
from geonorm.norms.registry import Build

NETWORKS: dict[str, Callable[..., ResNet3D]] = {
    build.__name__: build for build in (r3d_18, mc3_18, r2plus1d_18)
}
NETWORKS |= {
    f"resnet3d_{depth}": partial(resnet3d, depth) for depth in (10, 18, 34, 50, 101, 152, 200)
}
# Half the width, a quarter of the weights: for two cores and some minutes.
NETWORKS["resnet3d_slim"] = partial(resnet3d, 10, width=32)

_DEPTHS = {f"layer{number}": number for number in (1, 2, 3, 4)} | {"fc": 5}


def rates_by_depth(
    network: nn.Module, backbone: float, decay: float
) -> list[tuple[float, list[nn.Parameter]]]:
    """Return groups of a network's parameters but the last layer's, with their parts of its rate.

    Args:
        network: what is trained.
        backbone: part of the last layer's rate at which all others learn.
        decay: each stage's rate as a part of the next one's (layer-wise decay, Clark et al., 2020):
            layer 4 learns at `decay` of the last layer's rate, and what precedes layer 1 at
            `decay`^5.
    """
    groups: dict[int, list[nn.Parameter]] = {depth: [] for depth in range(5)}
    for name, parameter in network.named_parameters():
        depth = _DEPTHS.get(name.partition(".")[0], 0)
        if depth < 5:
            groups[depth].append(parameter)
    if decay == 1:
        return [(backbone, [p for group in groups.values() for p in group])]
    return [(backbone * decay ** (5 - depth), group) for depth, group in groups.items()]


def build(
    name: str, norm: Norm, num_classes: int, weights: str | None = None,
    padding_mode: Padding = "zeros", input_norm: Build | None = None,
) -> ResNet3D:
    """Return a network, new or with weights to go on from, and print what became of these.

    Args:
        name: a key of NETWORKS.
        norm: a name, a callable, or a mapping from stage to either.
        num_classes: outputs for each clip.
        weights: a file, such as one of Hara's or of geonorm train-action; or the name of
            torchvision's weights of this network. The last layer is left as initialized where the
            weights were trained for another number of classes.
        padding_mode: what the convolutions see beyond the edge of a clip.
        input_norm: what builds a norm of the clip, given its number of channels; None for none.

    Raises:
        ValueError: an unknown name, or a file that does not fit.
    """
    if name not in NETWORKS:
        raise ValueError(f"no network {name!r}; {choices(name, NETWORKS)}")
    options: dict[str, Any] = {
        "norm": norm, "padding_mode": padding_mode, "input_norm": input_norm
    }  # fmt: skip
    if weights is None:
        return NETWORKS[name](num_classes, **options)
    if Path(weights).is_file():
        network = NETWORKS[name](num_classes, **options)
        print(load_checkpoint(network, weights, heads=("fc",)))
        return network
    if name.startswith("resnet3d_"):
        raise ValueError(f"weights of {name} must be a file; there is none at {weights!r}")
    network = NETWORKS[name](num_classes, **options, weights=weights)
    print(network.report)
    return network
