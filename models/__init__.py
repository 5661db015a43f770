"""Backbones, each imported on first use: a user needs only the engine of the one they use."""

from typing import TYPE_CHECKING

from geonorm.lazy import lazily

if TYPE_CHECKING:  # what is imported on first use, said to type checkers
    from geonorm.models.checkpoints import CheckpointReport as CheckpointReport
    from geonorm.models.checkpoints import load_checkpoint as load_checkpoint
    from geonorm.models.checkpoints import save_weights as save_weights
    from geonorm.models.minkunet import MinkUNet14 as MinkUNet14
    from geonorm.models.minkunet import MinkUNet14A as MinkUNet14A
    from geonorm.models.minkunet import MinkUNet14B as MinkUNet14B
    from geonorm.models.minkunet import MinkUNet14C as MinkUNet14C
    from geonorm.models.minkunet import MinkUNet14D as MinkUNet14D
    from geonorm.models.minkunet import MinkUNet18 as MinkUNet18
    from geonorm.models.minkunet import MinkUNet18A as MinkUNet18A
    from geonorm.models.minkunet import MinkUNet18B as MinkUNet18B
    from geonorm.models.minkunet import MinkUNet18D as MinkUNet18D
    from geonorm.models.minkunet import MinkUNet34 as MinkUNet34
    from geonorm.models.minkunet import MinkUNet34A as MinkUNet34A
    from geonorm.models.minkunet import MinkUNet34B as MinkUNet34B
    from geonorm.models.minkunet import MinkUNet34C as MinkUNet34C
    from geonorm.models.minkunet import MinkUNet50 as MinkUNet50
    from geonorm.models.minkunet import MinkUNet101 as MinkUNet101
    from geonorm.models.public_weights import MinkUNet34C_Weights as MinkUNet34C_Weights
    from geonorm.models.public_weights import ResNet3D_18_Weights as ResNet3D_18_Weights
    from geonorm.models.public_weights import ResNet3D_34_Weights as ResNet3D_34_Weights
    from geonorm.models.public_weights import ResNet3D_50_Weights as ResNet3D_50_Weights
    from geonorm.models.public_weights import ResNet3D_101_Weights as ResNet3D_101_Weights
    from geonorm.models.public_weights import ResNet3D_152_Weights as ResNet3D_152_Weights
    from geonorm.models.public_weights import ResNet3D_200_Weights as ResNet3D_200_Weights
    from geonorm.models.torchvision_weights import MC3_18_Weights as MC3_18_Weights
    from geonorm.models.torchvision_weights import R2Plus1D_18_Weights as R2Plus1D_18_Weights
    from geonorm.models.torchvision_weights import R3D_18_Weights as R3D_18_Weights
    from geonorm.models.video_resnet import ResNet3D as ResNet3D
    from geonorm.models.video_resnet import mc3_18 as mc3_18
    from geonorm.models.video_resnet import r2plus1d_18 as r2plus1d_18
    from geonorm.models.video_resnet import r3d_18 as r3d_18
    from geonorm.models.video_resnet import resnet3d as resnet3d
    from geonorm.models.video_unet import VideoUNet as VideoUNet
    from geonorm.models.weights import Recipe as Recipe
    from geonorm.models.weights import Weights as Weights
    from geonorm.models.weights import fetch as fetch

__all__, __getattr__, __dir__ = lazily(__name__, {
    "minkunet": (
        "MinkUNet14", "MinkUNet14A", "MinkUNet14B", "MinkUNet14C", "MinkUNet14D",
        "MinkUNet18", "MinkUNet18A", "MinkUNet18B", "MinkUNet18D",
        "MinkUNet34", "MinkUNet34A", "MinkUNet34B", "MinkUNet34C",
        "MinkUNet50", "MinkUNet101",
    ),
    "video_resnet": ("ResNet3D", "mc3_18", "r2plus1d_18", "r3d_18", "resnet3d"),
    "video_unet": ("VideoUNet",),
    "checkpoints": ("CheckpointReport", "load_checkpoint", "save_weights"),
    "weights": ("Recipe", "Weights", "fetch"),
    "public_weights": (
        "MinkUNet34C_Weights", "ResNet3D_18_Weights", "ResNet3D_34_Weights",
        "ResNet3D_50_Weights", "ResNet3D_101_Weights", "ResNet3D_152_Weights",
        "ResNet3D_200_Weights",
    ),
    "torchvision_weights": ("MC3_18_Weights", "R2Plus1D_18_Weights", "R3D_18_Weights"),
})
