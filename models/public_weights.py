"""Public weights of MinkUNet and of Hara's 3D-ResNets, one enum for each backbone."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from geonorm.models.weights import Recipe, Weights

CHOY = "https://github.com/chrischoy/SpatioTemporalSegmentation#model-zoo"
HARA = "https://github.com/kenshohara/3D-ResNets-PyTorch#pre-trained-models"
# Of red, green and blue in [0, 1], over Kinetics, as Hara's training subtracts and divides by them.
HARA_MEAN, HARA_STD = (0.4345, 0.4051, 0.3775), (0.2768, 0.2713, 0.2737)
# Classes of the sets that Hara's files are named by: Kinetics-700, Moments in Time, STAIR Actions.
HARA_CLASSES = {"K": 700, "M": 339, "S": 100}


def _hara_transforms() -> Callable[..., Any]:
    """Return what makes of frames (T, 3, H, W), uint8, a clip as Hara's tests see it."""
    from torchvision.transforms import v2

    from geonorm.datasets import ClipTransform

    resize = v2.Resize(112, antialias=True)
    crop = ClipTransform(112, train=False, mean=HARA_MEAN, std=HARA_STD)
    return lambda frames: crop(resize(frames), (0, 0, 0))


def of_hara(depth: int, sets: str) -> Recipe:
    """Return the recipe of a 3D-ResNet that Hara, Kataoka and Satoh published.

    Args:
        depth: of the network.
        sets: initials of the data sets, such as "KM".
    """
    return Recipe(
        network=f"resnet3d({depth})",
        file=f"r3d{depth}_{sets}_200ep.pth",
        url=HARA,
        transforms=_hara_transforms,
        licence="MIT, as the repository; the terms of the data sets are their own",
        num_classes=sum(HARA_CLASSES[name] for name in sets),
        direct=False,  # a folder of Google Drive
        source="Kataoka et al., Would Mega-scale Datasets Further Enhance Spatiotemporal 3D CNNs?, "
        "2020",
    )


class ResNet3D_18_Weights(Weights):  # noqa: N801
    """Weights of `resnet3d(18)`: Hara's, on Kinetics-700 (K) and Moments in Time (M)."""

    K = of_hara(18, "K")
    KM = of_hara(18, "KM")


class ResNet3D_34_Weights(Weights):  # noqa: N801
    """Weights of `resnet3d(34)`: Hara's, on Kinetics-700 (K) and Moments in Time (M)."""

    K = of_hara(34, "K")
    KM = of_hara(34, "KM")


class ResNet3D_50_Weights(Weights):  # noqa: N801
    """Weights of `resnet3d(50)`: Hara's, on Kinetics-700 (K), Moments (M), STAIR Actions (S)."""

    K = of_hara(50, "K")
    KM = of_hara(50, "KM")
    KMS = of_hara(50, "KMS")
    KS = of_hara(50, "KS")
    M = of_hara(50, "M")
    MS = of_hara(50, "MS")
    S = of_hara(50, "S")


class ResNet3D_101_Weights(Weights):  # noqa: N801
    """Weights of `resnet3d(101)`: Hara's, on Kinetics-700 (K) and Moments in Time (M)."""

    K = of_hara(101, "K")
    KM = of_hara(101, "KM")


class ResNet3D_152_Weights(Weights):  # noqa: N801
    """Weights of `resnet3d(152)`: Hara's, on Kinetics-700 (K) and Moments in Time (M)."""

    K = of_hara(152, "K")
    KM = of_hara(152, "KM")


class ResNet3D_200_Weights(Weights):  # noqa: N801
    """Weights of `resnet3d(200)`: Hara's, on Kinetics-700 (K) and Moments in Time (M)."""

    K = of_hara(200, "K")
    KM = of_hara(200, "KM")


def _scannet_classes() -> tuple[str, ...]:
    from geonorm.datasets import ScanNet

    return ScanNet.classes


def _scannet_transforms(subtracted: float) -> Callable[..., Any]:
    """Return what makes a batch of voxels of one scan that has colours.

    Args:
        subtracted: from red, green and blue in [0, 1].
    """
    import numpy as np

    from geonorm.datasets import collate_scans

    def prepare(scan: Any) -> Any:
        color = scan.feature("color") - np.float32(subtracted)
        shifted = replace(scan, extra={"color": color})
        return collate_scans([shifted], voxel_size=0.02, features={"color": 1.0})

    return prepare


class MinkUNet34C_Weights(Weights):  # noqa: N801
    """Weights of `MinkUNet34C(3, 20)`: Choy's on ScanNet, trained with batch norm."""

    SCANNET_TRAIN = Recipe(
        network="MinkUNet34C(3, 20)",
        file="MinkUNet34C-train-conv1-5.pth",
        url="https://node1.chrischoy.org/data/publications/minknet/MinkUNet34C-train-conv1-5.pth",
        transforms=partial(_scannet_transforms, 0.5),
        licence="MIT, as the repository; the terms of ScanNet are its own",
        num_classes=20,
        metrics={"ScanNet val": {"mIoU": 72.219}},
        classes=_scannet_classes,
        source=CHOY,
    )
    SCANNET_EXAMPLE = Recipe(
        network="MinkUNet34C(3, 20)",
        file="minkowskiengine-weights.pth",
        url="http://cvgl.stanford.edu/data2/minkowskiengine/weights.pth",
        transforms=partial(_scannet_transforms, 0.0),
        licence="MIT, as the repository; the terms of ScanNet are its own",
        num_classes=20,
        classes=_scannet_classes,
        source="examples/indoor.py of MinkowskiEngine 0.5.4",
    )
    DEFAULT = SCANNET_TRAIN
