"""Range images: 2 × 3 pixels by hand, and every pixel against matrices."""

import numpy as np
import pytest

from geonorm.datasets.range_image import pixel_points, rotations, uniform_inclinations


def about(axis, angle):
    """Return the rotation about an axis, 0 to 2, as a matrix."""
    a, b = [each for each in range(3) if each != axis]
    turn = np.eye(3)
    turn[a, a] = turn[b, b] = np.cos(angle)
    turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
    return turn if axis != 1 else turn.T


def rigid(turn, place):
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turn, place
    return matrix


def test_two_rows_of_three_pixels_by_hand():
    """Columns look to 120°, 0° and −120° of the vehicle, whatever way the sensor is mounted."""
    ranges = np.array([[0, 10, -1], [5, 0, 20]], dtype=np.float32)
    inclinations = np.arcsin([0.6, -0.8])  # with cosines 0.8 and 0.6
    extrinsic = rigid(about(2, np.pi / 2), [1, 0, 2])  # turned to the left, 2 m above the ground
    still = np.zeros((2, 3, 6))
    points = pixel_points(ranges, inclinations, extrinsic, still, np.eye(4))
    root = np.sqrt(3) / 2
    expected = [
        [1 + 8, 0, 2 + 6],
        [1 - 3 * 0.5, 3 * root, 2 - 4],
        [1 - 12 * 0.5, -12 * root, 2 - 16],
    ]
    np.testing.assert_allclose(points, expected, atol=1e-12)

    # One pixel is seen when the vehicle is at (100, 50, 0) in the world and looks to the left, ...
    pose = still.copy()
    pose[0, 1] = [0, 0, np.pi / 2, 100, 50, 0]
    # ... and all are wanted in the frame of a vehicle at (100, 40, 0) that looks to the left.
    vehicle = rigid(about(2, np.pi / 2), [100, 40, 0])
    moved = pixel_points(ranges, inclinations, extrinsic, pose, vehicle)
    # (9, 0, 8) is (100, 59, 8) in the world, 19 m ahead of that vehicle.
    np.testing.assert_allclose(moved[0], [19, 0, 8], atol=1e-12)
    # The others were seen from the world's origin: (x, y) is (y − 40, 100 − x) for it.
    np.testing.assert_allclose(moved[1], [3 * root - 40, 100 - expected[1][0], -2], atol=1e-12)


def test_pixels_by_matrices():
    rng = np.random.default_rng(0)
    ranges = rng.uniform(1, 50, (4, 7)).astype(np.float32)
    inclinations = np.sort(rng.uniform(-0.4, 0.1, 4))[::-1]
    turn = about(2, 0.7) @ about(1, 0.1) @ about(0, -0.2)
    extrinsic = rigid(turn, [1.5, -0.3, 2.1])
    pose = rng.uniform(-1, 1, (4, 7, 6)) * [0.1, 0.1, 3, 500, 500, 5]
    pose = pose.astype(np.float32)  # as files have it
    vehicle = rigid(about(2, 1.1) @ about(0, 0.3), [200, -300, 4])
    found = pixel_points(ranges, inclinations, extrinsic, pose, vehicle).reshape(4, 7, 3)
    for row in range(4):
        for column in range(7):
            azimuth = ((7 - column - 0.5) / 7 * 2 - 1) * np.pi - np.arctan2(turn[1, 0], turn[0, 0])
            sight = about(2, azimuth) @ about(1, -inclinations[row]) @ [1, 0, 0]
            roll, pitch, yaw, *place = pose[row, column].tolist()
            at = rigid(about(2, yaw) @ about(1, pitch) @ about(0, roll), place)
            point = [*(sight * ranges[row, column]), 1]
            expected = np.linalg.inv(vehicle) @ at @ extrinsic @ point
            np.testing.assert_allclose(found[row, column], expected[:3], atol=1e-10)


def test_roll_pitch_and_yaw_in_their_order():
    quarter = np.pi / 2
    turned = rotations(np.array([[quarter, 0, quarter], [0, quarter, quarter]]))
    # About x: (1, 2, 3) to (1, −3, 2), then about z: to (3, 1, 2). About y: to (3, 2, −1), then z.
    np.testing.assert_allclose(turned @ [1, 2, 3], [[3, 1, 2], [-2, 3, -1]], atol=1e-12)


def test_uniform_inclinations():
    np.testing.assert_allclose(uniform_inclinations(-0.4, 0.4, 4), [-0.3, -0.1, 0.1, 0.3])


@pytest.mark.parametrize("shape", [(2, 3), (1, 1)])
def test_nothing_returned(shape):
    nothing = pixel_points(np.zeros(shape, "f4"), np.zeros(shape[0]), np.eye(4),
                           np.zeros((*shape, 6)), np.eye(4))  # fmt: skip
    assert nothing.shape == (0, 3)
