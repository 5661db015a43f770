"""The networks that `geonorm train-seg` trains, by name."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

import geonorm.models
from geonorm import DomainBatchNorm, DomainInstanceNorm, set_domain
from geonorm.datasets.voxelize import ScanBatch
from geonorm.models.minkunet import ME, MinkUNet
from geonorm.models.norm import InputNorm, Norm
from geonorm.names import choices

CHANNELS = 4  # of scans of the street: x, y, z and intensity


class MinkUNetSlim(geonorm.models.MinkUNet14A):
    """MinkUNet14A with narrower levels, a fifth of its weights: for two cores and some minutes."""

    PLANES = (32, 32, 64, 128, 64, 48, 32, 32)


class PointMLP(nn.Sequential):
    """A perceptron on x, y, z and intensity of each point alone: what no neighbourhood can tell."""

    def __init__(self, in_channels: int, out_channels: int, width: int = 128) -> None:
        layers: list[nn.Module] = []
        for channels in (in_channels, width, width):
            layers += [nn.Linear(channels, width), nn.BatchNorm1d(width), nn.ReLU()]
        super().__init__(*layers, nn.Linear(width, out_channels))


def names() -> list[str]:
    """Return the name of every network."""
    published = (
        name for name in geonorm.models.__all__ if name.startswith("MinkUNet") and "_" not in name
    )
    return ["PointMLP", "MinkUNetSlim", *published]


def build(
    name: str,
    norm: Norm,
    num_classes: int,
    in_channels: int = CHANNELS,
    input_norm: InputNorm | None = None,
) -> MinkUNet | PointMLP:
    """Return a new network.

    Args:
        name: one of `names()`.
        norm: norm of a MinkUNet; PointMLP has its own.
        num_classes: outputs of each row.
        in_channels: features of each row.
        input_norm: norm of a MinkUNet's input, or of some of its channels; None for none.

    Raises:
        ValueError: an unknown name, or an input norm for PointMLP.
    """
    if name not in names():
        raise ValueError(f"no network {name!r}; {choices(name, names())}")
    if name == "PointMLP":
        if input_norm is not None:
            raise ValueError(
                "PointMLP sees each point alone and takes no input_norm: leave it out, or take a "
                "MinkUNet"
            )
        return PointMLP(in_channels, num_classes)
    network: type[MinkUNet] = (
        MinkUNetSlim if name == "MinkUNetSlim" else getattr(geonorm.models, name)
    )
    return network(in_channels, num_classes, norm=norm, input_norm=input_norm)


def usable_accelerator(name: str) -> str:
    """Return what Lightning's accelerator "auto" stands for: the CPU where the engine has no more.

    Args:
        name: of the network.
    """
    if name == "PointMLP" or ME.is_cuda_available() or not torch.cuda.is_available():
        return "auto"
    print(
        f"MinkowskiEngine {ME.__version__} is built for the CPU alone: {name} runs there, though "
        "torch sees a GPU (geonorm install-minkowski --cuda builds for both)"
    )
    return "cpu"


def check_device(device: torch.device) -> None:
    """Refuse a GPU that this build of MinkowskiEngine cannot use.

    Raises:
        ValueError: the device is a GPU and the engine is built for the CPU alone.
    """
    if device.type == "cuda" and not ME.is_cuda_available():
        raise ValueError(
            f"the network would run on {device}, and MinkowskiEngine {ME.__version__} is built for "
            "the CPU alone: run geonorm install-minkowski --cuda, or give --trainer.accelerator "
            "cpu"
        )


def check_precision(precision: str) -> None:
    """Refuse a precision of the trainer in which MinkowskiEngine has no convolutions.

    Raises:
        ValueError: the weights would be neither float32 nor float64.
    """
    if precision not in ("32-true", "64-true", "16-mixed", "bf16-mixed"):
        raise ValueError(
            f"MinkowskiEngine's convolutions take float32 and float64; --trainer.precision "
            f"{precision} makes the weights others. Take bf16-mixed or 16-mixed, in which the "
            "convolutions stay in float32, or --model.name PointMLP"
        )


def has_domains(network: nn.Module) -> bool:
    """Return whether a network has norms that need to know where each scan comes from."""
    norms = DomainInstanceNorm | DomainBatchNorm
    return any(isinstance(module, norms) for module in network.modules())


def domains_told(network: nn.Module, batch: ScanBatch) -> AbstractContextManager[Any]:
    """Tell the domain norms of a network, if it has any, the domain of each scan of a batch.

    Raises:
        ValueError: the domain of a scan is not known.
    """
    if not has_domains(network):
        return nullcontext()
    for name, domain in zip(batch.names, batch.domains, strict=True):
        if domain is None:
            raise ValueError(
                f"the network's norms need the domain of each scan, and that of {name} is not "
                "known: say it by JoinedScans([...], domains=[...]), also for validation, or by "
                "geonorm predict --domain"
            )
    return set_domain(network, [domain for domain in batch.domains if domain is not None])


def voxel_logits(network: MinkUNet, batch: ScanBatch) -> Tensor:
    """Return the scores of the classes for each voxel of a batch."""
    logits: Tensor = network(ME.SparseTensor(batch.features, batch.coordinates)).F
    return logits
