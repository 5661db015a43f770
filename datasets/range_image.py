"""Places of the pixels of a rotating LiDAR's range image."""

import numpy as np


def uniform_inclinations(low: float, high: float, height: int) -> np.ndarray:
    """Return the inclinations of beams that share the angle between two equally, lowest first.

    Args:
        low: lower edge of the lowest beam, radians.
        high: upper edge of the highest beam, radians.
        height: number of beams.

    Example:
        >>> uniform_inclinations(-0.25, 0.75, 2)
        array([0. , 0.5])
    """
    return low + (high - low) * (np.arange(height) + 0.5) / height


def pixel_points(
    ranges: np.ndarray,
    inclinations: np.ndarray,
    extrinsic: np.ndarray,
    pixel_pose: np.ndarray,
    vehicle_pose: np.ndarray,
) -> np.ndarray:
    """Return where the pixels with a return lie in the vehicle's frame, row by row.

    Column c of W looks to π (1 − (2c + 1) / W), counterclockwise from the vehicle's front. The
    vehicle moves during a revolution, so that each pixel has a pose of its own; all are brought to
    one vehicle pose.

    Args:
        ranges: distance of each pixel from the sensor in metres; 0 or less where nothing returned.
        inclinations: angle of each row above the sensor's horizon, radians.
        extrinsic: transform from the sensor's frame to the vehicle's.
        pixel_pose: roll, pitch and yaw (radians) and x, y, z (metres) of the vehicle in the world
            at each pixel: turned about x first, then y, then z.
        vehicle_pose: transform from the frame of the vehicle, in which the points shall be, to the
            world.

    Shape:
        - ranges: (H, W); inclinations: (H,); pixel_pose: (H, W, 6)
        - extrinsic, vehicle_pose: (4, 4), rigid
        - result: (number of pixels with ranges > 0, 3), float64
    """
    row, column = np.nonzero(ranges > 0)
    heading = np.arctan2(extrinsic[1, 0], extrinsic[0, 0])
    azimuth = np.pi * (1 - (2 * column + 1) / ranges.shape[1]) - heading
    up = inclinations[row]
    sight = np.stack([np.cos(up) * np.cos(azimuth), np.cos(up) * np.sin(azimuth), np.sin(up)], 1)
    in_sensor = sight * ranges[row, column, None].astype(np.float64)
    in_vehicle = in_sensor @ extrinsic[:3, :3].T + extrinsic[:3, 3]
    pose = pixel_pose[row, column].astype(np.float64)
    in_world = np.einsum("nij,nj->ni", rotations(pose[:, :3]), in_vehicle) + pose[:, 3:]
    # The inverse of a rotation is its transpose; rows times R are R transposed times columns.
    result: np.ndarray = (in_world - vehicle_pose[:3, 3]) @ vehicle_pose[:3, :3]
    return result


def rotations(angles: np.ndarray) -> np.ndarray:
    """Return the rotations by roll, pitch and yaw: about x first, then y, then z.

    Args:
        angles: radians.

    Shape:
        - angles: (N, 3)
        - result: (N, 3, 3)
    """
    (sr, sp, sy), (cr, cp, cy) = np.sin(angles).T, np.cos(angles).T
    rows = [
        [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
        [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
        [-sp, cp * sr, cp * cr],
    ]
    return np.array(rows).transpose(2, 0, 1)
