"""Backbones, each imported on first use: a user needs only the engine of the one they use."""

import sys
from importlib import import_module
from types import ModuleType

_EXPORTS = {
    "minkunet": (
        "MinkUNet14", "MinkUNet14A", "MinkUNet14B", "MinkUNet14C", "MinkUNet14D",
        "MinkUNet18", "MinkUNet18A", "MinkUNet18B", "MinkUNet18D",
        "MinkUNet34", "MinkUNet34A", "MinkUNet34B", "MinkUNet34C",
        "MinkUNet50", "MinkUNet101",
    ),
    "video_resnet": ("ResNet3D", "mc3_18", "r2plus1d_18", "r3d_18", "resnet3d"),
    "checkpoints": ("CheckpointReport", "load_checkpoint"),
}
_HOME = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    """Import the module that defines `name` and return the name from it."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {__all__}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    """List every public name, imported yet or not."""
    return sorted({*globals(), *__all__})


class _Models(ModuleType):
    """This package, in which `resnet3d` is the function and not the file of the same name."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in _HOME and isinstance(value, ModuleType):  # as importing a submodule does
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Models
