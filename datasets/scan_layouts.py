"""Tell by its files which dataset of scans a folder looks like."""

from collections.abc import Sequence
from pathlib import Path

from geonorm.files import is_hidden

# Dataset, paths that only its folder holds, and what opens it.
_LAYOUTS = (
    ("nuScenes", ("v1.0-*/sample_data.json",), "--config nuscenes"),
    ("ScanNet", ("scans/scene*", "train/*/segment20.npy", "val/*/segment20.npy"),
     "--config scannet"),
    ("S3DIS", ("Area_[1-6]/*/Annotations", "Area_[1-6]/*/segment.npy", "Area_[1-6]_*.npy"),
     "--config s3dis"),
    ("SemanticPOSS", ("sequences/*/tag", "dataset/sequences/*/tag"), "--config semanticposs"),
    ("SynLiDAR", ("annotations.yaml",), "--config synlidar"),
    ("SemanticKITTI", ("sequences/*/velodyne", "dataset/sequences/*/velodyne"),
     "--config semantickitti"),
    ("SemanticSTF", ("train/velodyne", "val/velodyne"), "--config semanticstf"),
    ("Waymo", tuple(f"{split}/lidar/*.parquet" for split in ("training", "validation", "testing")),
     "--config waymo"),
    ("version 1 of Waymo", ("*.tfrecord",),
     "take version 2, in Parquet, which needs no TensorFlow"),
    ("S3DIS in blocks of PointNet", ("ply_data_all_*.h5",), "take the release itself"),
    ("S3DIS of KPConv", ("original_ply/Area_*.ply",), "take the release itself"),
    ("KITTI's detection benchmark", ("training/velodyne",),
     "its scans have no labels of points; SemanticKITTI's are those of the odometry benchmark"),
    ("KITTI's raw recordings", ("20??_??_??/*/velodyne_points",),
     "their scans have no labels of points; SemanticKITTI's are those of the odometry benchmark"),
)  # fmt: skip
_FOLDERS = 50  # inside a folder that are looked into


def looks_like(root: Path, wanted: str) -> str:
    """Return a sentence on what a folder, the one around it or those in it look like, or nothing.

    Args:
        root: folder in which the wanted dataset was not found.
        wanted: its name.
    """
    inside = [path for path in sorted(root.glob("*")) if path.is_dir() and not is_hidden(path)]
    for folder in (root, root.parent, *inside[:_FOLDERS]):
        for dataset, patterns, mend in _LAYOUTS:
            if (folder, dataset) == (root, wanted) or not _has_any(folder, patterns):
                continue
            mend = "give that folder" if dataset == wanted else mend
            return f". {folder} looks like {dataset}: {mend}"
    return ""


def _has_any(folder: Path, patterns: Sequence[str]) -> bool:
    return any(next(folder.glob(pattern), None) is not None for pattern in patterns)
