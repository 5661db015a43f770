"""Suburbs and the sensor of real recordings, against their numbers; towns as they were."""

from dataclasses import replace

import numpy as np
import pytest

from geonorm.datasets.synthetic.lidar import SENSORS, LidarSensor, cast, rotation
from geonorm.datasets.synthetic.meshes import boxes, heightfield, merge
from geonorm.datasets.synthetic.street_objects import ALBEDO, StreetClass
from geonorm.datasets.synthetic.streets import SyntheticStreets, street
from geonorm.datasets.synthetic.suburbs import (
    INFRARED,
    OWN,
    REACH,
    Ground,
    _borders,
    _clear_of,
    _houses,
    _infrared,
    _own_car,
    _people,
    _plants,
    _posts,
    _spots,
    _vehicles,
    _wild_hedge,
    suburb,
)

HDL64 = SENSORS["hdl64"]
EXACT = replace(HDL64, range_noise=0.0, dropout=0.0, ring_drift=0.0, gain_drift=0.0,
                offset_drift=0.0, intensity_noise=0.0)  # fmt: skip
FLAT = heightfield(np.array([-90.0, 90.0]), np.array([-90.0, 90.0]), np.full((2, 2), -1.73),
                   StreetClass.ROAD, 0.9)  # fmt: skip


def look(sensor, mesh, seed=0):
    return cast(sensor, mesh, np.zeros(3), np.eye(3), np.random.default_rng(seed))


def angles(scan):
    """Elevation and azimuth of each point in degrees."""
    x, y, z = scan.points.astype(np.float64).T
    return np.degrees(np.arctan2(z, np.hypot(x, y))), np.degrees(np.arctan2(y, x))


@pytest.fixture(scope="module")
def scans():
    dataset = SyntheticStreets(num_scans=6, seed=5, sensor="hdl64", style="suburb")
    return [dataset[index] for index in range(len(dataset))]


def level(seed=0):
    """Ground of one straight road 8 m wide, without slopes, kerbs, walks and verges."""
    ground = Ground(np.random.default_rng(seed))
    ground.roads = [replace(ground.roads[0], bend=0.0, half=4.0)]
    ground.ends = [0]
    for name in ("verge", "walk", "step", "bank", "grade"):
        setattr(ground, name, np.zeros(2))
    ground.waves = []
    return ground


def heights(ground, x, y):
    return ground.height(*np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float)))


def test_a_town_is_the_default_to_the_bit():
    # The draws and their order, written out: what towns were before there were suburbs.
    rng = np.random.default_rng((7, 0, 2))
    sensor = SENSORS["roof32"]
    mesh, position = street(sensor, rng)
    lean = np.radians(sensor.tilt) * rng.standard_normal(2)
    turn = rotation(rng.uniform(-np.pi, np.pi), *lean)
    rays = sensor.directions()
    before = cast(sensor, mesh, position, turn, rng)
    default, named = (SyntheticStreets(3, 7, **style)[2] for style in ({}, {"style": "town"}))
    for field in ("points", "intensity", "labels"):
        np.testing.assert_array_equal(getattr(default, field), getattr(before, field))
        np.testing.assert_array_equal(getattr(named, field), getattr(before, field))
    assert len(before) < len(rays)


def test_a_suburb_is_seen_from_its_car_at_the_sensors_height():
    sensor = LidarSensor(beams=4, azimuth_steps=90, height=2.0, height_spread=0.5, tilt=3.0)
    scan = SyntheticStreets(3, 7, sensor, "suburb")[2]
    rng = np.random.default_rng((7, 0, 2))
    view = suburb(2.0 + 0.5 * rng.uniform(-1, 1), rng)
    lean = np.radians(3.0) * rng.standard_normal(2)
    before = cast(sensor, view.mesh, view.position, rotation(view.yaw, *lean), rng)
    own = before.labels == OWN
    assert own.sum() > 10
    assert scan.name == "street-seed7-epoch0-2"
    for field in ("points", "intensity", "labels"):
        np.testing.assert_array_equal(getattr(scan, field), getattr(before, field)[~own])


COUNTS = [2219, 1228, 790, 2179, 1058, 467, 247, 233, 608, 2112, 235]
INTENSITY = 5021.566


def test_a_town_has_the_points_that_it_had():
    # Counted at commit 9b58f50, before sensors knew elevations, dark surfaces and drifts of rings.
    scan = SyntheticStreets(4, 5)[3]
    assert len(scan) == pytest.approx(11376, abs=3)  # a ray at an edge may fall to either side
    assert np.bincount(scan.labels, minlength=11) == pytest.approx(COUNTS, abs=3)
    assert scan.intensity.astype(np.float64).sum() == pytest.approx(INTENSITY, rel=1e-3)


def test_a_sensor_without_drifting_rings_draws_what_it_drew():
    rng, known = np.random.default_rng(3), np.random.default_rng(3)
    sensor = replace(SENSORS["roof32"], dropout=0.3)
    room = boxes((-9, -9, -9), (9, 9, 9), label=1, albedo=0.5)
    scan = cast(sensor, room, np.zeros(3), np.eye(3), rng)
    kept = known.random(32 * 420) >= 0.3  # drop-out, gain, offset, and two kinds of noise
    known.standard_normal(2 + 2 * kept.sum())
    assert len(scan) == kept.sum()
    assert rng.random() == known.random()


def test_even_rings_that_are_told_are_those_that_are_not_to_the_bit():
    even = LidarSensor(beams=16)
    told = replace(even, elevations=tuple(np.linspace(even.fov_down, even.fov_up, 16)))
    np.testing.assert_array_equal(told.directions(), even.directions())


def test_the_sensor_has_the_angles_of_its_specification():
    room = boxes((-9, -9, -9), (9, 9, 9), label=1, albedo=0.9)
    up, around = angles(look(EXACT, room))
    rings = np.sort(np.unique(up.round(2)))
    rings = rings[np.concatenate([[True], np.diff(rings) > 0.1])]
    assert len(rings) == 64
    np.testing.assert_allclose(rings[[0, 31, 32, 63]], [-24.33, -8.83, -8.33, 2.0], atol=0.02)
    np.testing.assert_allclose(np.diff(rings[:32]), 1 / 2, atol=0.02)
    np.testing.assert_allclose(np.diff(rings[32:]), 1 / 3, atol=0.02)
    level_ring = np.sort(around[np.abs(up - rings[40]) < 0.05])
    # 10 turns a second and 0.1728 degrees, as the manual's table of resolutions has it.
    assert np.median(np.diff(level_ring)) == pytest.approx(0.1728, abs=3e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"elevations": (-10.0, 2.0)}, "elevations must be one for each of 64 beams; got 2"),
        ({"elevations": (0.0,) * 64}, "elevations must be rising from -24.33 to 2.0; got"),
        ({"fov_up": 5.0}, "elevations must be rising from -24.33 to 5.0; got"),
        ({"elevations": (*np.linspace(-24.33, 2, 64), 3.0)}, "for each of 64 beams; got 65"),
        ({"fov_down": -25.0}, "elevations must be rising from -25.0 to 2.0; got"),
        ({"elevations": (-24.33, *np.linspace(1, 1.5, 61), 1.2, 2.0)}, "must be rising from -24"),
        ({"elevations": (-24.33, *np.linspace(1, 1.5, 61), 1.5, 2.0)}, "must be rising from -24"),
        ({"dark_range": 0.0}, "dark_range must be > 0; got 0.0"),
        ({"ring_drift": -0.1}, "ring_drift must be >= 0; got -0.1"),
    ],
)
def test_bad_values_of_a_sensor_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(HDL64, **changes)


def test_an_unknown_style_is_refused():
    with pytest.raises(ValueError, match=r"no style 'suburbs'.*suburb"):
        SyntheticStreets(1, style="suburbs")


@pytest.mark.parametrize(("albedo", "far"), [(0.1, 50.0), (0.025, 25.0), (0.2, 70.7)])
def test_dark_surfaces_are_lost_from_where_their_albedo_says(albedo, far):
    for distance, seen in ((far - 1, True), (far + 1, False)):
        wall = boxes((distance, -2, -2), (distance + 1, 2, 2), label=3, albedo=albedo)
        assert (len(look(EXACT, wall)) > 0) is seen


def test_rings_differ_in_gain_by_their_drift():
    room = boxes((-9, -9, -9), (9, 9, 9), label=1, albedo=0.3)
    sensor = replace(EXACT, intensity_offset=0.0, azimuth_steps=90, dropout=0.4)
    ratios = []
    for seed in range(4):
        plain, drifted = (look(replace(sensor, ring_drift=drift), room, seed)
                          for drift in (0.0, 0.2))  # fmt: skip
        ratio = np.log(drifted.intensity / plain.intensity)
        up = angles(plain)[0].round(1)
        each = [ratio[up == ring] for ring in np.unique(up)]
        assert len(each) == 64
        np.testing.assert_allclose([np.ptp(own) for own in each], 0, atol=1e-5)  # a ring has one
        ratios.append([own[0] for own in each])
    assert np.std(ratios) == pytest.approx(0.2, rel=0.15)
    assert not np.allclose(ratios[0], ratios[1])


def test_slopes_are_those_of_the_ground():
    ground = level()
    ground.grade = np.array([0.05, -0.03])
    mesh = ground.mesh(np.zeros(3), np.random.default_rng(0))
    scan = cast(EXACT, mesh, np.array([0, 0, 1.73]), np.eye(3), np.random.default_rng(0))
    near = (np.abs(scan.points[:, 1]) < 3) & (np.abs(scan.points[:, 0]) < 15)
    x, y, z = scan.points[near].astype(np.float64).T
    z = z - 0.02 * (4 - np.abs(y)).clip(0, 3)  # the crown of the road
    slope = np.linalg.lstsq(np.column_stack([x, y, np.ones_like(x)]), z, rcond=None)[0]
    np.testing.assert_allclose(slope, [0.05, -0.03, -1.73], atol=3e-3)


def test_kerb_walk_verge_and_bank_lie_where_they_are_told():
    ground = level()
    ground.step, ground.verge, ground.walk = np.array([0.1, 0]), np.array([1, 0]), np.array([2, 0])
    ground.bank, ground.level = np.array([0.2, -0.1]), np.array([5.0, 10.0])
    across = [-30, -8, -3, 0, 3, 4.5, 6, 7.5, 9, 30]
    edges = ground.kind(np.zeros(3), np.array([4.0, 5.0, 7.0])).tolist()
    assert edges == [StreetClass.TERRAIN, StreetClass.SIDEWALK, StreetClass.TERRAIN]
    kinds = [StreetClass(kind).name for kind in ground.kind(np.zeros(10), np.array(across, float))]
    assert kinds == ["TERRAIN", "TERRAIN", "ROAD", "ROAD", "ROAD", "TERRAIN", "SIDEWALK",
                     "TERRAIN", "TERRAIN", "TERRAIN"]  # fmt: skip
    expected = [-1.0, -0.4, 0.02, 0.06, 0.02, 0.1, 0.1, 0.1 + 0.2 * 0.5, 0.1 + 0.2 * 2, 1.1]
    np.testing.assert_allclose(heights(ground, 0.0, across), expected, atol=1e-9)


def test_corners_of_crossings_are_rounded_and_roads_may_end():
    ground = level()
    cross = replace(ground.roads[0], x=10.0, yaw=np.pi / 2, half=3.0)
    ground.roads, ground.ends = [*ground.roads, cross], [0, 0]
    at = np.array
    assert ground.edge(at([10.0]), at([20.0]))[0] == pytest.approx(-3.0, abs=1e-3)
    assert ground.edge(at([-20.0]), at([0.0]))[0] == pytest.approx(-4.0, abs=1e-3)
    # 0.3 m from both edges, outside the square corner, is road: 0.3 - 1.5 log 2 < 0.
    assert ground.edge(at([13.3]), at([4.3]))[0] == pytest.approx(0.3 - 1.5 * np.log(2))
    ground.ends = [0, 1]  # the side of it where `along` is positive, y > 0, stays
    assert ground.edge(at([10.0]), at([-20.0]))[0] == pytest.approx(16.0, abs=1e-3)
    assert ground.edge(at([10.0]), at([20.0]))[0] == pytest.approx(-3.0, abs=1e-3)


def test_a_place_on_a_road_is_found_again():
    road = replace(Ground(np.random.default_rng(3)).roads[0], x=4.0, y=-3.0, yaw=0.7, bend=0.01)
    x, y, heading = road.place(12.0, -2.5)
    ahead, left = road.along(np.array(x), np.array(y))
    assert (float(ahead), float(left)) == pytest.approx((12.0, -2.5))
    further = road.place(12.01, -2.5)
    assert np.arctan2(further[1] - y, further[0] - x) == pytest.approx(heading, abs=1e-3)


def test_spots_lie_as_far_outside_of_all_roads_as_they_are_asked_to():
    """Beyond the end of a road, where another begins, no spot of its own is."""
    found, drawn = 0, 0
    for seed in range(20):
        ground = Ground(np.random.default_rng(seed))
        for low, high in ((0.5, 3.0), (4.0, 20.0)):
            x, y, _ = np.array(_spots(ground, np.random.default_rng(seed), 60, low, high)).T
            edges = ground.edge(x, y)
            assert low - 0.3 <= edges.min() < edges.max() <= high + 0.3
            assert max(np.abs(x).max(), np.abs(y).max()) < REACH
            found, drawn = found + len(x), drawn + 60
    assert 0.5 < found / drawn < 0.95


@pytest.mark.parametrize("seed", range(3))
def test_the_car_hides_just_what_lies_behind_it(seed):
    sensor = replace(EXACT, azimuth_steps=360)
    own = _own_car(1.73, np.random.default_rng(seed))
    scan = look(replace(sensor, min_range=0.0), merge([FLAT, own]))
    # Each ray against each box, slab by slab.
    rays = sensor.directions().astype(np.float64)
    corners = own.vertices.reshape(-1, 8, 3).astype(np.float64)
    low, high = corners.min(axis=1), corners.max(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        enter, leave = low / rays[:, None], high / rays[:, None]
    first, last = np.minimum(enter, leave).max(axis=2), np.maximum(enter, leave).min(axis=2)
    hidden = ((first < last) & (first > 0)).any(axis=1)
    assert (scan.labels == OWN).sum() == pytest.approx(hidden.sum(), abs=hidden.sum() * 0.01)
    ground = rays[:, 2] < -1.73 / sensor.max_range
    expected = (ground & ~hidden).sum()
    assert (scan.labels != OWN).sum() == pytest.approx(expected, abs=hidden.sum() * 0.01)
    assert 0.02 < hidden.mean() < 0.3


def test_scans_have_no_point_of_the_car_and_a_blind_zone_round_it(scans):
    for scan in scans:
        assert scan.labels.min() >= 0
        flat = np.linalg.norm(scan.points[:, :2], axis=1)
        assert np.quantile(flat, 0.001) > 2.0
    ahead = [s.points[np.abs(s.points[:, 1]) < 0.4] for s in scans]
    aside = [s.points[np.abs(s.points[:, 0]) < 0.4] for s in scans]
    far = np.median([np.quantile(np.abs(p[:, 0]), 0.02) for p in ahead])
    wide = np.median([np.quantile(np.abs(p[:, 1]), 0.02) for p in aside])
    assert far > wide + 0.5  # a bonnet is longer than a car is wide


def test_foliage_lets_light_in_where_a_box_does_not():
    rng = np.random.default_rng(1)
    hedge = _wild_hedge(8.0, rng).moved((0, 8, -1.5))
    depth = look(EXACT, hedge).points[:, 1]
    assert np.quantile(depth, 0.9) - np.quantile(depth, 0.1) > 0.25
    wall = boxes((-4, 7, -1.5), (4, 9, 0.5), label=5, albedo=0.5)
    solid = look(EXACT, wall).points[:, 1]
    assert np.ptp(solid) < 0.01


def test_the_top_of_a_wild_hedge_goes_up_and_down_along_it_not_across():
    def unevenness(places, heights):
        parts = np.digitize(places, np.linspace(places.min(), places.max(), 13)[1:-1])
        return np.ptp([heights[parts == part].max() for part in range(12)])

    hedges = [_wild_hedge(8.0, np.random.default_rng(seed)).vertices.T for seed in range(8)]
    along, across = (np.mean([unevenness(hedge[axis], hedge[2]) for hedge in hedges])
                     for axis in (0, 1))  # fmt: skip
    assert along > 1.5 * across


def test_grass_and_leaves_outshine_asphalt_in_the_infrared():
    albedo = [ALBEDO[StreetClass.ROAD][1], ALBEDO[StreetClass.TERRAIN][0]]
    parts = [boxes((0, 0, 0), (1, 1, 1), kind, tone)
             for kind, tone in zip((StreetClass.ROAD, StreetClass.TERRAIN), albedo, strict=True)]
    road, grass = _infrared(merge(parts)).albedo.reshape(2, 12)
    np.testing.assert_allclose(road, INFRARED[StreetClass.ROAD][1], rtol=1e-5)
    np.testing.assert_allclose(grass, INFRARED[StreetClass.TERRAIN][0], rtol=1e-5)
    assert road.max() < grass.min()


def test_scans_are_well_formed_and_every_class_is_seen(scans):
    counts = sum(np.bincount(scan.labels, minlength=len(StreetClass)) for scan in scans)
    shares = dict(zip(SyntheticStreets.classes, counts / counts.sum(), strict=True))
    assert min(shares.values()) > 0.001, shares
    assert max(shares.values()) < 0.6, shares
    for scan in scans:
        assert 60_000 < len(scan) < 64 * 2083
        assert scan.dropped == 0
        assert np.isfinite(scan.points).all()
        assert scan.labels.max() < len(StreetClass)


def test_seed_and_index_alone_decide(scans):
    again = SyntheticStreets(num_scans=5, seed=5, sensor="hdl64", style="suburb")[3]
    assert again.name == scans[3].name
    np.testing.assert_array_equal(again.points, scans[3].points)
    np.testing.assert_array_equal(again.labels, scans[3].labels)
    assert len(scans[3]) != len(scans[4])


def test_of_ten_suburbs_two_have_one_road_five_two_and_three_three():
    counts = [len(Ground(np.random.default_rng(seed)).roads) for seed in range(500)]
    np.testing.assert_allclose(np.bincount(counts) / 500, [0, 0.2, 0.5, 0.3], atol=0.04)


def test_things_keep_their_distance_from_the_car():
    free = _clear_of(np.array([10.0, -20.0, 3.0]), 2.5)
    for far in (5.4, 5.6):  # 2.5 and the room of the thing, 3 m
        at = (10 + far * np.cos(2), -20 + far * np.sin(2))
        assert free(*at, 3.0) is (far > 5.5)
    rooms = {}
    for grow in (_houses, _borders, _plants, _posts, _vehicles, _people):
        asked = rooms[grow.__name__] = set()
        for seed in range(2):
            rng = np.random.default_rng(seed)
            parts = grow(Ground(rng), lambda x, y, room, asked=asked: asked.add(room), rng)
            assert parts == []
    assert rooms == {"_houses": {9}, "_borders": {2}, "_plants": {2}, "_posts": {0},
                     "_vehicles": {3, 6}, "_people": {0}}  # fmt: skip


def test_the_car_stands_on_a_road_with_room_around_it():
    for seed in range(4):
        view = suburb(1.73, np.random.default_rng(seed))
        triangles = view.mesh.vertices[view.mesh.triangles] - view.position
        middle = triangles.mean(axis=1)
        flat = np.linalg.norm(middle[:, :2], axis=1)
        ground = np.isin(view.mesh.labels, [0, 1, 2])
        under = ground & (flat < 0.3)
        assert (view.mesh.labels[under] == StreetClass.ROAD).all()
        assert middle[under, 2].mean() == pytest.approx(-1.73, abs=0.05)
        others = ~ground & (view.mesh.labels != OWN)
        assert flat[others].min() > 1.5
