"""Waymo Open Dataset, version 2: its components as Parquet files, with the columns it names."""

import numpy as np
import pyarrow as pa
from pyarrow import parquet

TOP, FRONT = 1, 2
NO_TURN = np.eye(4)
_KEYS = {"key.segment_context_name": pa.string(), "key.frame_timestamp_micros": pa.int64(),
         "key.laser_name": pa.int8()}  # fmt: skip


def write_table(root, part, segment, columns, rows):
    """Write a component's file of a segment.

    Args:
        root: folder of a split.
        part: folder of the component.
        columns: type of each column besides the keys, by name.
        rows: of the keys and those columns; keys that the component lacks are left out.
    """
    (root / part).mkdir(parents=True, exist_ok=True)
    types = {name: kind for name, kind in _KEYS.items() if name in rows[0]} | columns
    arrays = {name: pa.array([row[name] for row in rows], kind) for name, kind in types.items()}
    parquet.write_table(pa.table(arrays), root / part / f"{segment}.parquet", row_group_size=2)


def keys(segment, time=None, laser=None):
    """Return the keys of a row."""
    values = zip(_KEYS, (segment, time, laser), strict=True)
    return {name: value for name, value in values if value is not None}


def image_types(component, numbers, kind):
    """Return the types of the columns of images, one for each return."""
    names = [f"[{component}].range_image_return{number}" for number in numbers]
    return {f"{name}.values": pa.list_(kind) for name in names} | {
        f"{name}.shape": pa.list_(pa.int32(), 3) for name in names
    }


def images(component, each):
    """Return the cells of images by the number of their return; None where there is none."""
    cells = {}
    for number, image in each.items():
        name = f"[{component}].range_image_return{number}"
        cells[f"{name}.values"] = None if image is None else image.ravel().tolist()
        cells[f"{name}.shape"] = None if image is None else list(image.shape)
    return cells


def write_lidar(root, segment, frames):
    """Write range images: {time: {return: (H, W, 4)}}; those of another LiDAR stand between."""
    write_table(
        root, "lidar", segment, image_types("LiDARComponent", (1, 2), pa.float32()),
        [keys(segment, time, laser) | images("LiDARComponent", each if laser == TOP else other)
         for time, each in frames.items()
         for laser, other in ((FRONT, {1: np.full((1, 1, 4), 9.0), 2: None}), (TOP, None))],
    )  # fmt: skip


def write_poses(root, segment, frames):
    """Write the pose of each pixel, {time: (H, W, 6)}."""
    component = "LiDARPoseComponent"
    write_table(
        root, "lidar_pose", segment, image_types(component, (1,), pa.float32()),
        [keys(segment, time, TOP) | images(component, {1: pose}) for time, pose in frames.items()],
    )  # fmt: skip


def write_vehicle(root, segment, frames):
    """Write the pose of the vehicle, {time: (4, 4)}."""
    column = "[VehiclePoseComponent].world_from_vehicle.transform"
    write_table(
        root, "vehicle_pose", segment, {column: pa.list_(pa.float64(), 16)},
        [keys(segment, time) | {column: pose.ravel().tolist()} for time, pose in frames.items()],
    )  # fmt: skip


def write_calibration(root, segment, extrinsic, inclinations, low=0.0, high=0.0):
    """Write the calibration of the top LiDAR and of another."""
    names = ("extrinsic.transform", "beam_inclination.min", "beam_inclination.max",
             "beam_inclination.values")  # fmt: skip
    kinds = (pa.list_(pa.float64(), 16), pa.float64(), pa.float64(), pa.list_(pa.float64()))
    columns = [f"[LiDARCalibrationComponent].{name}" for name in names]
    other = (np.eye(4).ravel().tolist(), -1.0, 1.0, None)
    top = (extrinsic.ravel().tolist(), low, high, inclinations)
    write_table(
        root, "lidar_calibration", segment, dict(zip(columns, kinds, strict=True)),
        [keys(segment, None, laser) | dict(zip(columns, values, strict=True))
         for laser, values in ((FRONT, other), (TOP, top))],
    )  # fmt: skip


def write_labels(root, segment, frames):
    """Write labels: {time: {return: (H, W, 2)}}, the instance and the class."""
    component = "LiDARSegmentationLabelComponent"
    write_table(
        root, "lidar_segmentation", segment, image_types(component, (1, 2), pa.int32()),
        [keys(segment, time, TOP) | images(component, each) for time, each in frames.items()],
    )  # fmt: skip


def ids(time, shape=(4, 30)):
    """Return the ids of the pixels of two returns, every one of 0 to 22 in each."""
    first = np.arange(shape[0] * shape[1]).reshape(shape) % 23
    return {1: first, 2: (first + time) % 23}


def write_segment(root, segment, times=(10, 20, 30), labelled=(20, 10)):
    """Write a segment of a vehicle that stands still; no pixel of the second return at odd rows."""
    rng = np.random.default_rng([*segment.encode()])
    shape = (4, 30)
    frames = {}
    for time in times:
        both = rng.uniform((2, 0, 0, -1), (20, 3, 1, -1), (2, *shape, 4)).astype("f4")
        both[1, 1::2, :, 0] = -1
        frames[time] = {1: both[0], 2: both[1]}
    write_lidar(root, segment, frames)
    write_poses(root, segment, {time: np.zeros((*shape, 6)) for time in times})
    write_vehicle(root, segment, dict.fromkeys(times, NO_TURN))
    write_calibration(root, segment, NO_TURN, [-0.3, -0.2, -0.1, 0.1])
    if labelled:
        labels = {
            time: {number: np.stack([np.full(shape, 77), each], 2)
                   for number, each in ids(time, shape).items()}
            for time in labelled
        }  # fmt: skip
        write_labels(root, segment, labels)
    return frames


def write_waymo(root):
    """Write two segments to train on, one to validate on and one to test on."""
    for split, segments in {"training": ("b_1", "a_0"), "validation": ("c_2",)}.items():
        for segment in segments:
            write_segment(root / split, segment)
    write_segment(root / "testing", "d_3", labelled=())
    return root
