"""Train networks on scans and videos with Lightning, judge them and predict with them.

Needs the extra `train`; each name is imported on first use.
"""

from importlib import import_module

_EXPORTS = {
    "action.data": ("ClipData", "ClipFormat"),
    "action.module": ("ActionModule",),
    "action.predictor": ("ClipPredictor",),
    "action.scores": ("VideoResult", "VideoScores"),
    "checkpoints": ("WholeCheckpoints", "read_run_checkpoint"),
    "optimization": ("Optimization",),
    "sampler": ("EpochLoader", "EpochSampler"),
    "segmentation.data": ("ScanData",),
    "segmentation.module": ("SegmentationModule",),
    "segmentation.predict": ("Output",),
    "segmentation.predictor": ("ScanPredictor",),
    "segmentation.scores": ("class_iou", "scan_mean_loss"),
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
