"""Point-cloud and video datasets, each imported on first use: no one needs another's libraries."""

from importlib import import_module

_EXPORTS = {
    "scan": ("Scan",),
    "scan_io": ("read_scan",),
    "semantickitti": ("SemanticKITTI",),
    "synthetic.streets": ("SyntheticStreets",),
    "transforms": (
        "ElasticDistortion", "RandomDrop", "RandomFlip", "RandomIntensity", "RandomJitter",
        "RandomRotation", "RandomScale", "ScanTransform", "SphereCrop",
    ),
    "augmented": ("Augmented",),
    "voxelize": ("collate_scans",),
    "clips": ("Clip", "ClipDataset", "FileReport"),
    "video_lists": ("ClassFolders", "VideoList", "VideoSet"),
    "ucf101": ("UCF101",),
    "hmdb51": ("HMDB51",),
    "kinetics": ("Kinetics",),
    "something_something": ("SomethingSomethingV2",),
    "diving48": ("Diving48",),
    "synthetic.actions": ("SyntheticActions",),
    "video_transforms": ("ClipTransform",),
    "appearance_shift": ("AppearanceShift",),
    "check_videos": ("Finding", "check_data"),
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
