"""What a scan knows beside places: features that a network is given, and that follow points."""

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from geonorm.datasets.label_ids import LabelIds
from geonorm.datasets.scan import Scan
from geonorm.datasets.transforms import RandomFlip, RandomIntensity, RandomRotation
from geonorm.datasets.voxelize import collate_scans, num_channels
from geonorm.training.segmentation.data import ScanData


def room(**changed):
    """Return three points with everything known."""
    rng = np.random.default_rng(0)
    normals = rng.normal(size=(3, 3))
    extra = {"color": rng.uniform(0, 1, (3, 3)), "normal": normals, "echo": [[1], [2], [1]]}
    points = np.array([[0.0, 0, 2], [5, 0, 1], [9, 0, 4]])
    values = {"points": points, "intensity": np.array([0.1, 0.2, 0.3]), "labels": None,
              "name": "room", "extra": extra} | changed  # fmt: skip
    return Scan.from_raw(**values)


def test_features_by_hand():
    scan = room()
    batch = collate_scans([scan], 0.5, features={
        "height": 2.0, "color": [1.0, 2.0, 4.0], "echo": 2.0, "position": [20.0, 20.0, 2.0],
    })  # fmt: skip
    expected = np.column_stack([
        [0.5, 0.0, 1.5], scan.extra["color"] / [1, 2, 4], [0.5, 1, 0.5],
        scan.points / [20, 20, 2],
    ])  # fmt: skip
    np.testing.assert_allclose(batch.point_features, expected, rtol=1e-6)
    np.testing.assert_allclose(batch.features[batch.inverse], expected, rtol=1e-6)
    assert ScanData(features={"color": 1.0, "echo": 1.0}).in_channels == 4
    assert ScanData().in_channels == 4
    widths = {"position": 3, "height": 1, "intensity": 1, "color": 3, "normal": 3, "echo": 1}
    assert {name: num_channels({name: 1.0}) for name in widths} == widths
    assert num_channels({"color": [2.0], "echo": [3.0], "position": 4}) == 7


def test_positions_within_the_clip_range_and_heights_as_they_are():
    batch = collate_scans([room()], 0.5, [-1, -1, 0, 6, 1, 3], {"position": 1.0, "height": 1.0})
    assert batch.point_features[2].tolist() == [6, 0, 3, 3]


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({}, "must name at least one of position, height"),
        ({"colour": 1.0}, "no feature 'colour'; .* Did you mean 'color'"),
        ({"color": [1.0, 2.0]}, "scale of color must be a positive number, or 3 of them"),
        ({"color": [1.0, 0.0, 2.0]}, "scale of color must be a positive number, or 3 of them"),
        ({"height": -1.0}, "scale of height must be a positive number, or 1 of them; got -1.0"),
        ({"height": 0.0}, r"scale of height must be a positive number, .*; got 0\.0"),
    ],
)
def test_wrong_features(features, message):
    with pytest.raises(ValueError, match=message):
        num_channels(features)


def test_extras_follow_their_points():
    scan = room(points=np.array([[0.0, 0, 2], [np.nan, 0, 1], [9, 0, 4]]))
    assert scan.dropped == 1
    assert scan.extra["echo"].tolist() == [[1], [1]]
    assert scan.kept.tolist() == [True, False, True]
    turned = scan.take(np.array([1, 0, 1]))
    np.testing.assert_array_equal(turned.extra["color"], scan.extra["color"][[1, 0, 1]])
    rng = np.random.default_rng(0).uniform(0, 1, (3, 3))
    rng[2, 1] = np.inf
    assert room(extra={"color": rng}).kept.tolist() == [True, True, False]


def test_values_of_points_that_are_left_out_are_not_refused():
    scan = room(
        points=np.array([[0.0, 0, 2], [5, 0, 1], [9, np.inf, 4]]), intensity=np.array([0, 1, 7.0]),
        extra={"color": np.array([[0.0, 0, 0], [1, 1, 1], [-3, 0, 9]])},
    )  # fmt: skip
    assert scan.kept.tolist() == [True, True, False]
    assert scan.intensity.tolist() == [0, 1]
    assert scan.extra["color"].tolist() == [[0, 0, 0], [1, 1, 1]]


def test_a_scan_stays_as_it_is_and_is_equal_to_itself_alone():
    scan = room()
    with pytest.raises(FrozenInstanceError):
        scan.name = "another"
    assert {scan: 1}.get(replace(scan)) is None
    taken = replace(scan, offset=(1.0, 2.0, 3.0), domain=4, dropped=5).take(np.array([2, 2]))
    assert (taken.name, taken.offset, taken.domain, taken.dropped, taken.labels) == (
        "room", (1.0, 2.0, 3.0), 4, 5, None
    )  # fmt: skip
    assert (len(taken), taken.intensity.tolist()) == (2, [np.float32(0.3)] * 2)


def test_a_scan_without_points_has_every_feature():
    empty = room().take(np.array([], int))
    shapes = {name: empty.feature(name).shape for name in empty.features}
    assert shapes == {"position": (0, 3), "height": (0, 1), "intensity": (0, 1), "color": (0, 3),
                      "normal": (0, 3), "echo": (0, 1)}  # fmt: skip


def test_normals_turn_with_the_points():
    scan = replace(room(), points=room().extra["normal"])  # so that both must stay equal
    for transform in (RandomRotation(x=20, y=30), RandomFlip(x=1, y=0)):
        changed = transform(scan, np.random.default_rng(1))
        np.testing.assert_allclose(changed.extra["normal"], changed.points, atol=1e-6)
        assert np.abs(changed.points - scan.points).max() > 0.1
        np.testing.assert_array_equal(changed.extra["color"], scan.extra["color"])


def test_wrong_extras():
    with pytest.raises(ValueError, match="extra may be color, normal, echo; got speed"):
        room(extra={"speed": np.ones((3, 1))})
    with pytest.raises(ValueError, match=r"color must be \(3, 3\), one per point; got \(3, 4"):
        room(extra={"color": np.ones((3, 4))})
    with pytest.raises(ValueError, match=r"room: color must be in \[0, 1\]; got 0 to 255"):
        room(extra={"color": np.full((3, 3), 255)})
    with pytest.raises(ValueError, match=r"room: color must be in \[0, 1\]; got -0.5 to 1"):
        room(extra={"color": np.array([[0, 1, 0], [0, -0.5, 0], [0, 0, 0]])})
    with pytest.raises(ValueError, match=r"room: intensity must be in \[0, 1\]; got -0.1 to 0.5"):
        room(intensity=np.array([0.2, 0.5, -0.1]))
    with pytest.raises(ValueError, match=r"labels must be \(3,\), one per point; got \(4,\)"):
        room(labels=np.zeros(4))
    with pytest.raises(ValueError, match=r"points must be \(N, 3\); got \(3,\)"):
        room(points=np.zeros(3))
    with pytest.raises(TypeError, match="normal must be float32; got float64"):
        replace(room(), extra={"normal": np.zeros((3, 3))})
    with pytest.raises(TypeError, match="intensity must be float32; got float64"):
        replace(room(), intensity=np.zeros(3))
    with pytest.raises(ValueError, match=r"echo must be \(3, 1\), one per point; got \(3, 3\)"):
        replace(room(), extra={"echo": np.zeros((3, 3), np.float32)})
    with pytest.raises(ValueError, match="scan room has no feature 'intensity'; it has pos"):
        RandomIntensity()(room(intensity=None), np.random.default_rng(0))


def test_ids_of_classes():
    ids = LabelIds("streets", [("road", (1, 2, 3), (40, 60)), ("car", (4, 5, 6), (10,))], (0,))
    assert ids.train_ids(np.array([10, 40, 0, 60]), "a").tolist() == [1, 0, 255, 0]
    numbered = ids.numbered(first=1, ignored=(0, 3))
    assert numbered.train_ids(np.array([1, 2, 3, 0]), "a").tolist() == [0, 1, 255, 255]
    assert (numbered.raw_ids, numbered.names) == ((1, 2), ("road", "car"))
    raw = np.array([7, 7, -3, 90, 91, 92, 93])
    for outside in (-1, 61):
        with pytest.raises(ValueError, match=rf"a holds class id {outside} \(1 points\), which"):
            ids.train_ids(np.array([0, outside, 60]), "a")
    with pytest.raises(ValueError, match=r"92 \(1 points\), which streets does not have"):
        ids.train_ids(raw[:6], "a")
    with pytest.raises(ValueError, match=r"^a holds class id -3 \(1 points\), 7 \(2 points\), 9.* "
                       "and 1 more ids, which streets does not have"):  # fmt: skip
        ids.train_ids(raw, "a")
