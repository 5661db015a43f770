"""A small folder for each configuration of train-seg that needs data, in the layout it reads."""

from helpers import (
    nuscenes_trees,
    s3dis_trees,
    scan_folder_trees,
    scannet_trees,
    semantickitti_trees,
    semanticstf_trees,
    sequence_trees,
    waymo_trees,
)


def _scannet(root):
    for split, scenes in {"train": "ab", "val": "c", "test": "d"}.items():
        for scene in scenes:
            scannet_trees.write_processed(root, split, scene)


def _nuscenes(root):
    nuscenes_trees.write(root, "v1.0-trainval", ["0001", "0003"])
    nuscenes_trees.write(root, "v1.0-mini", ["0061", "0103"])


def _s3dis(root):
    for area in range(1, 7):
        s3dis_trees.write_released(root, area, "office_1")


WRITERS = {
    "nuscenes": _nuscenes,
    "s3dis": _s3dis,
    "scan_folder": scan_folder_trees.write_splits,
    "scannet": _scannet,
    "scannet200": _scannet,
    "semantickitti": semantickitti_trees.write_labelled,
    "semantickitti_mmdet3d": semantickitti_trees.write_labelled,
    "semantickitti_mmdet3d_mixes": semantickitti_trees.write_labelled,
    "semantickitti_one_scan": semantickitti_trees.write_labelled,
    "semanticposs": sequence_trees.write_semanticposs,
    "semanticstf": semanticstf_trees.write_splits,
    "synlidar": sequence_trees.write_synlidar,
    "waymo": waymo_trees.write_waymo,
}  # fmt: skip
