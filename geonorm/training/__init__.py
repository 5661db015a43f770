"""Train networks on scans and videos with Lightning, judge them and predict with them.

Needs the extra `train`; each name is imported on first use.
"""

from geonorm.lazy import lazily

__all__, __getattr__, __dir__ = lazily(__name__, {
    "action.data": ("ClipData", "ClipFormat"),
    "action.module": ("ActionModule",),
    "action.predictor": ("ClipPredictor",),
    "action.scores": ("VideoResult", "VideoScores"),
    "attributions": ("Explanation",),
    "checkpoints": ("WholeCheckpoints", "read_run_checkpoint"),
    "optimization": ("Optimization",),
    "sampler": ("EpochLoader", "EpochSampler"),
    "segmentation.data": ("ScanData",),
    "segmentation.module": ("SegmentationModule",),
    "segmentation.predict": ("Output",),
    "segmentation.predictor": ("ScanPredictor",),
    "segmentation.scores": ("class_iou", "scan_mean_loss"),
})
