"""The simulated LiDAR: exact hits on hand-made scenes, and every argument doing what it says."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from geonorm.datasets.synthetic.lidar import SENSORS, LidarSensor, cast, rotation, sensor_named
from geonorm.datasets.synthetic.meshes import boxes, merge

EXACT = LidarSensor(
    beams=8, fov_down=-20, fov_up=20, azimuth_steps=180, min_range=0.0, max_range=100.0,
    range_noise=0.0, dropout=0.0, intensity_offset=0.0, gain_drift=0.0, offset_drift=0.0,
    intensity_noise=0.0, intensity_gain=0.5,
)  # fmt: skip
ROOM = boxes((-10, -10, -10), (10, 10, 10), label=2, albedo=0.5)  # every ray from inside meets it


def look(sensor, mesh=ROOM, orientation=None, seed=0):
    orientation = np.eye(3) if orientation is None else orientation
    return cast(sensor, mesh, np.zeros(3), orientation, np.random.default_rng(seed))


def ranges(scan):
    return np.linalg.norm(scan.points.astype(np.float64), axis=1)


def exact_ranges(scan):
    """Distance to the walls of ROOM along the ray of each point."""
    unit = scan.points.astype(np.float64) / ranges(scan)[:, None]
    return 10 / np.abs(unit).max(axis=1)


def test_casting_without_open3d_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "open3d.core", None)  # which makes importing it fail
    with pytest.raises(ImportError, match=r"needs Open3D, .*open3d\.core.*: pip install open3d"):
        look(EXACT)


def test_ray_meets_the_nearest_box_and_takes_its_label():
    near = boxes((5, -2, -2), (6, 2, 2), label=4, albedo=0.5)
    hidden = boxes((7, -1, -1), (8, 1, 1), label=6, albedo=0.5)
    left = boxes((-1, 3, -2), (1, 4, 2), label=7, albedo=0.5)
    scan = look(EXACT, merge([hidden, near, left]))
    assert set(scan.labels) == {4, 7}
    np.testing.assert_allclose(scan.points[scan.labels == 4, 0], 5, atol=1e-5)
    np.testing.assert_allclose(scan.points[scan.labels == 7, 1], 3, atol=1e-5)
    assert np.abs(scan.points[scan.labels == 4, 1]).max() <= 2 + 1e-5
    assert len(scan) < len(EXACT.directions())  # rays past all boxes return nothing


def test_nothing_in_reach_is_an_empty_scan():
    scan = look(replace(EXACT, max_range=5.0))
    assert len(scan) == 0
    assert scan.labels.dtype == np.int64


def test_rays_fill_the_field_of_view_evenly():
    scan = look(EXACT)
    assert len(scan) == 8 * 180
    elevation = np.degrees(np.arcsin(scan.points[:, 2] / ranges(scan)))
    rings = np.unique(elevation.round(3))
    np.testing.assert_allclose(rings, np.linspace(-20, 20, 8), atol=2e-3)
    azimuth = np.degrees(np.arctan2(scan.points[:, 1], scan.points[:, 0])) % 360
    steps = np.unique(azimuth.round(2) % 360)
    np.testing.assert_allclose(steps, np.arange(0, 360, 2), atol=2e-2)


def test_rays_go_ring_by_ring_from_the_lowest_and_each_from_ahead_to_the_left():
    rays = LidarSensor(beams=2, fov_down=-30, fov_up=0, azimuth_steps=4).directions()
    flat, down = np.cos(np.pi / 6), -0.5
    below = [[flat, 0, down], [0, flat, down], [-flat, 0, down], [0, -flat, down]]
    ahead = [[1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]]
    np.testing.assert_allclose(rays, below + ahead, atol=1e-6)


@pytest.mark.parametrize("beams", [1, 16, 64])
def test_beams_are_rings(beams):
    scan = look(replace(EXACT, beams=beams))
    elevation = np.degrees(np.arcsin(scan.points[:, 2] / ranges(scan)))
    assert len(np.unique(elevation.round(2))) == beams


def test_points_are_in_the_sensors_frame():
    wall = boxes((5, -50, -50), (6, 50, 50), label=1, albedo=0.5)
    ahead = look(EXACT, wall)
    turned = look(EXACT, wall, rotation(yaw=np.pi / 2, pitch=0.0, roll=0.0))
    np.testing.assert_allclose(ahead.points[:, 0], 5, atol=1e-4)
    np.testing.assert_allclose(turned.points[:, 1], -5, atol=1e-4)
    pitched = rotation(yaw=0.3, pitch=0.1, roll=-0.2)
    tilted = look(EXACT, wall, pitched)
    np.testing.assert_allclose((tilted.points @ pitched.T)[:, 0], 5, atol=1e-4)


def test_rotation_turns_each_axis_towards_the_next():
    """Roll is about x, ahead; pitch about y, to the left, so ahead goes down; yaw about z, up."""
    quarter, point = np.pi / 2, np.array([1, 2, 3])
    np.testing.assert_allclose(rotation(0, 0, quarter) @ point, (1, -3, 2), atol=1e-12)
    np.testing.assert_allclose(rotation(0, quarter, 0) @ point, (3, 2, -1), atol=1e-12)
    np.testing.assert_allclose(rotation(quarter, 0, 0) @ point, (-2, 1, 3), atol=1e-12)
    # Roll first, then pitch, then yaw.
    np.testing.assert_allclose(rotation(quarter, quarter, 0) @ point, (-2, 3, -1), atol=1e-12)
    np.testing.assert_allclose(rotation(quarter, 0, quarter) @ point, (3, 1, 2), atol=1e-12)
    np.testing.assert_allclose(rotation(0, quarter, quarter) @ point, (2, -3, -1), atol=1e-12)
    small = rotation(0.02, 0.03, 0.05)
    np.testing.assert_allclose(small - small.T, 2 * np.array(
        [[0, -0.02, 0.03], [0.02, 0, -0.05], [-0.03, 0.05, 0]]), atol=4e-3)  # fmt: skip


def test_a_sensor_pitched_down_sees_the_ground_ahead_nearer():
    ground = boxes((-300, -300, -6), (300, 300, -5), label=1, albedo=0.5)
    sensor = replace(EXACT, fov_down=-30, fov_up=-30, beams=1)
    level = look(sensor, ground)
    pitched = look(sensor, ground, rotation(yaw=0.0, pitch=0.2, roll=0.0))
    rolled = look(sensor, ground, rotation(yaw=0.0, pitch=0.0, roll=0.2))
    np.testing.assert_allclose(ranges(level), 10, rtol=1e-5)
    ahead, left = 0, 45
    for scan, ray in ((pitched, ahead), (rolled, left + 90)):
        np.testing.assert_allclose(ranges(scan)[ray], 5 / np.sin(np.pi / 6 + 0.2), rtol=1e-5)


def test_place_and_attitude_of_the_sensor_decide_what_is_met_and_under_which_angle():
    position, attitude = np.array([2.0, -5.0, 6.5]), rotation(yaw=0.4, pitch=0.2, roll=-0.3)
    scan = cast(EXACT, ROOM, position, attitude, np.random.default_rng(0), "in a room")
    assert scan.name == "in a room"
    rays = scan.points.astype(np.float64) @ attitude.T
    met = np.abs(rays + position)
    np.testing.assert_allclose(met.max(axis=1), 10, atol=1e-4)
    distance = ranges(scan)
    cosine = np.abs(rays)[np.arange(len(rays)), met.argmax(axis=1)] / distance
    returned = 0.5 * (0.72 * cosine + 0.37 * (1 - cosine**2)) / (1 + (distance / 60) ** 2)
    np.testing.assert_allclose(scan.intensity, 0.5 * np.sqrt(returned), atol=1e-4)


def test_dropout_loses_its_share():
    rays = len(EXACT.directions())
    assert len(look(EXACT)) == rays
    share = 1 - len(look(replace(EXACT, dropout=0.3))) / rays
    assert abs(share - 0.3) < 4 * np.sqrt(0.3 * 0.7 / rays)


def test_range_noise_has_its_standard_deviation_along_the_ray():
    quiet, noisy = look(EXACT), look(replace(EXACT, range_noise=0.2))
    assert np.abs(ranges(quiet) - exact_ranges(quiet)).max() < 1e-4
    error = ranges(noisy) - exact_ranges(noisy)
    assert abs(error.std() - 0.2) < 0.02
    assert abs(error.mean()) < 0.02


def test_returns_outside_the_range_limits_are_lost():
    everything = ranges(look(EXACT))
    assert everything.min() < 10.5
    assert everything.max() > 14
    kept = ranges(look(replace(EXACT, min_range=10.5, max_range=13.0)))
    assert kept.min() >= 10.5
    assert kept.max() <= 13.0
    assert len(kept) == ((everything >= 10.5) & (everything <= 13.0)).sum()


def test_intensity_follows_the_formula():
    wall = boxes((4, -9, -9), (5, 9, 9), label=1, albedo=0.64)
    sensor = replace(EXACT, response=0.5, falloff=30.0, intensity_gain=0.8, intensity_offset=0.1)
    for power, own in ((2, sensor), (3, replace(sensor, falloff_power=3.0, falloff=6.0))):
        scan = look(own, wall)
        distance = ranges(scan)
        cosine = 4 / distance
        back = 0.72 * cosine + 0.37 * (1 - cosine**2)
        expected = 0.8 * np.sqrt(0.64 * back / (1 + (distance / own.falloff) ** power)) + 0.1
        np.testing.assert_allclose(scan.intensity, expected, atol=1e-5)
        assert cosine.min() < 0.6  # the incidence angle mattered


@pytest.mark.parametrize(("albedo", "middle"), [(0.1, 20.0), (0.4, 40.0), (0.025, 10.0)])
def test_faint_returns_read_0_from_where_their_albedo_says(albedo, middle):
    sensor = replace(EXACT, beams=40, fov_down=-1.0, fov_up=1.0, azimuth_steps=3600,
                     intensity_offset=0.05, faint_range=20.0)  # fmt: skip
    shares = []
    for stretch in (np.exp(-0.25), 1.0, np.exp(0.25)):  # its spread, once less and once more
        distance = middle * stretch
        wall = boxes((distance, -1, -1), (distance + 1, 1, 1), label=3, albedo=albedo)
        scan, plain = look(sensor, wall), look(replace(sensor, faint_range=np.inf), wall)
        assert len(scan) == len(plain) > 200  # what is faint is seen
        faint = scan.intensity == 0
        np.testing.assert_array_equal(scan.intensity[~faint], plain.intensity[~faint])
        assert plain.intensity.min() > 0.05
        shares.append(faint.mean())
    np.testing.assert_allclose(shares, [0.159, 0.5, 0.841], atol=0.08)


def test_far_returns_of_a_surface_that_is_met_at_a_slant_are_fainter():
    sensor = replace(EXACT, beams=1, fov_down=0.0, fov_up=0.0, azimuth_steps=3600, faint_range=20.0)
    wall = boxes((17, -80, -5), (18, 80, 5), label=3, albedo=0.1)
    scan = look(sensor, wall)
    aside = np.abs(scan.points[:, 1])
    assert (scan.intensity[aside < 3] == 0).mean() < 0.45
    assert (scan.intensity[aside > 40] == 0).mean() > 0.9


def test_albedo_of_the_triangle_hit_is_what_returns():
    dark = boxes((5, -2, -2), (6, 2, 2), label=1, albedo=0.1)
    bright = boxes((-6, -2, -2), (-5, 2, 2), label=2, albedo=0.9)
    scan = look(replace(EXACT, response=1.0), merge([dark, bright]))
    one, other = (np.sort(scan.intensity[scan.labels == label]) for label in (1, 2))
    np.testing.assert_allclose(other, 9 * one, rtol=1e-4)


def test_gain_and_offset_move_intensity_and_nothing_else():
    base = look(EXACT)
    louder = look(replace(EXACT, intensity_gain=1.0))
    lifted = look(replace(EXACT, intensity_offset=0.2))
    np.testing.assert_allclose(louder.intensity, 2 * base.intensity, rtol=1e-5)
    np.testing.assert_allclose(lifted.intensity, base.intensity + 0.2, rtol=1e-5)
    for other in (louder, lifted):
        np.testing.assert_array_equal(other.points, base.points)


def test_gain_and_offset_drift_between_scans_only():
    sensor = replace(EXACT, gain_drift=0.2, offset_drift=0.05)
    base = look(EXACT).intensity
    for seed in range(3):
        drifted = look(sensor, seed=seed).intensity
        gain, offset = np.polyfit(base, drifted, 1)
        np.testing.assert_allclose(drifted, gain * base + offset, atol=1e-5)
        assert abs(gain - 1) > 1e-3
        np.testing.assert_array_equal(look(EXACT, seed=seed).intensity, base)


def test_the_logarithm_of_the_gain_is_normal():
    quiet = replace(EXACT, beams=2, azimuth_steps=8, intensity_gain=1e-3)
    base = look(quiet).intensity
    drifts = [look(replace(quiet, gain_drift=2.0), seed=s).intensity / base for s in range(100)]
    assert np.ptp(drifts, axis=1).max() < 1e-4 * np.max(drifts)
    logarithms = np.log(np.mean(drifts, axis=1))
    assert abs(logarithms.mean()) < 0.6
    assert 1.6 < logarithms.std() < 2.4


def test_intensity_stays_within_bounds():
    sensor = replace(EXACT, intensity_gain=3.0, intensity_offset=-0.8, intensity_noise=0.5)
    intensity = look(sensor).intensity
    assert intensity.dtype == np.float32
    assert intensity.min() == 0
    assert intensity.max() == 1


def test_the_named_sensors_differ():
    one, other = SENSORS["roof32"], SENSORS["mast64"]
    for name in ("beams", "fov_down", "fov_up", "height", "intensity_gain", "intensity_offset",
                 "response", "range_noise"):  # fmt: skip
        assert getattr(one, name) != getattr(other, name), name
    assert sensor_named("mast64") is other
    assert sensor_named(EXACT) is EXACT


AT_LEAST_0 = ("range_noise", "intensity_noise", "gain_drift", "offset_drift", "height_spread",
              "tilt", "min_range", "ring_drift")  # fmt: skip
ABOVE_0 = ("intensity_gain", "response", "falloff", "height", "dark_range", "falloff_power",
           "faint_range")  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beams": 0}, r"beams must be >= 1; got 0"),
        ({"azimuth_steps": 0}, r"azimuth_steps must be >= 1; got 0"),
        ({"fov_down": 10.0, "fov_up": -10.0}, r"\(fov_down, fov_up\) must be rising"),
        ({"fov_up": 95.0}, r"must be rising in \[-90, 90\]"),
        ({"min_range": 50.0}, r"\(min_range, max_range\) must be rising"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\); got 1.0"),
        ({"range_noise": -0.1}, r"range_noise must be >= 0; got -0.1"),
        ({"gain_drift": -1.0}, r"gain_drift must be >= 0"),
        ({"intensity_gain": 0.0}, r"intensity_gain must be > 0"),
        ({"falloff": 0.0}, r"falloff must be > 0"),
        ({"falloff_power": 0.0}, r"falloff_power must be > 0; got 0.0"),
        ({"faint_range": -1.0}, r"faint_range must be > 0; got -1.0"),
        ({"fov_down": -90.5}, r"must be rising in \[-90, 90\]"),
        ({"min_range": 30.0}, r"\(min_range, max_range\) must be rising; got \(30.0, 30.0\)"),
        ({"dropout": -0.1}, r"dropout must be in \[0, 1\); got -0.1"),
        *(({name: -0.1}, rf"{name} must be >= 0; got -0.1") for name in AT_LEAST_0),
        *(({name: 0.0}, rf"{name} must be > 0; got 0.0") for name in ABOVE_0),
    ],
)
def test_bad_sensor_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        LidarSensor(**arguments)


def test_the_smallest_values_of_a_sensor_are_accepted():
    still = dict.fromkeys(AT_LEAST_0, 0.0) | dict.fromkeys(ABOVE_0, 0.01)
    LidarSensor(1, -90.0, 90.0, 1, dropout=0.0, **still)


def test_returns_at_the_limits_of_the_range_are_kept():
    wall = boxes((5, -1.5, -2), (6, 2, 3), label=4, albedo=0.5)  # no edge where the ray ends
    ray = replace(EXACT, beams=1, fov_down=0.0, fov_up=0.0, azimuth_steps=1)
    for near, far in ((5.0, 6.0), (4.0, 5.0)):
        scan = look(replace(ray, min_range=near, max_range=far), wall)
        np.testing.assert_array_equal(scan.points, [[5, 0, 0]])
        assert scan.name == "scan"


def test_named_sensors_are_those_that_earlier_results_are_of():
    """Networks were trained and shifts were measured with these numbers, so they stay."""
    assert SENSORS["roof32"] == LidarSensor()
    assert SENSORS["mast64"] == LidarSensor(
        beams=64, fov_down=-28.0, fov_up=2.0, azimuth_steps=240, height=2.6,
        range_noise=0.03, dropout=0.15, intensity_gain=0.55, intensity_offset=0.2, response=0.8,
    )  # fmt: skip
    rings = SENSORS["hdl64"].elevations
    assert SENSORS["hdl64"] == LidarSensor(
        beams=64, fov_down=-24.33, fov_up=2.0, azimuth_steps=2083, height=1.73, height_spread=0.1,
        tilt=1.2, min_range=0.9, max_range=80.0, range_noise=0.015, dropout=0.01,
        intensity_gain=0.74, intensity_offset=0.0, gain_drift=0.2, offset_drift=0.03,
        intensity_noise=0.06, response=0.5, falloff=30.0, elevations=rings, dark_range=50.0,
        ring_drift=0.12, falloff_power=3.0, faint_range=28.0,
    )  # fmt: skip


def test_unknown_sensor_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"one of roof32, mast64, hdl64; got 'roof64'"):
        sensor_named("roof64")
