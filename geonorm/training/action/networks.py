"""The networks that `geonorm train-action` trains, by name, and their weights."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from geonorm.models import ResNet3D, load_checkpoint, mc3_18, r2plus1d_18, r3d_18, resnet3d
from geonorm.models.norm import Norm
from geonorm.models.video_resnet import Padding
from geonorm.names import choices

NETWORKS: dict[str, Callable[..., ResNet3D]] = {
    build.__name__: build for build in (r3d_18, mc3_18, r2plus1d_18)
}
NETWORKS |= {
    f"resnet3d_{depth}": partial(resnet3d, depth) for depth in (10, 18, 34, 50, 101, 152, 200)
}
# Half the width, a quarter of the weights: for two cores and some minutes.
NETWORKS["resnet3d_slim"] = partial(resnet3d, 10, width=32)


def build(
    name: str, norm: Norm, num_classes: int, weights: str | None = None,
    padding_mode: Padding = "zeros",
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

    Raises:
        ValueError: an unknown name, or a file that does not fit.
    """
    if name not in NETWORKS:
        raise ValueError(f"no network {name!r}; {choices(name, NETWORKS)}")
    options: dict[str, Any] = {"norm": norm, "padding_mode": padding_mode}
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
