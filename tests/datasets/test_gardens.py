"""Suburbs with gardens: each thing has the shape that is said, and suburbs stay as they were."""

import numpy as np
import pytest

from geonorm.datasets.synthetic import garden_objects as garden
from geonorm.datasets.synthetic.street_objects import StreetClass
from geonorm.datasets.synthetic.streets import SyntheticStreets
from geonorm.datasets.synthetic.suburbs import OWN, Ground, _gardens, suburb

MANY = range(150)
# Corners of the things of seeds 3 and 4, their mean and their spread, as networks were trained on.
CORNERS = {
    "fan_tree": (1209, [-0.1462, 0.095, 3.5232], [0.7823, 0.7424, 1.2054]),
    "board": (64, [0.0, 0.0119, 0.7335], [0.4625, 0.0315, 0.8272]),
    "bed": (6078, [0.0164, 0.0096, 0.7483], [2.138, 0.8339, 0.2568]),
    "rail": (80, [-0.3091, 0.0, 0.4099], [2.156, 0.0406, 0.745]),
    "garage": (32, [0.0, 0.0, 1.411], [2.1043, 3.2168, 1.4136]),
}


def made(make, seed):
    return make(np.random.default_rng(seed))


def vertices(mesh, kind):
    return mesh.vertices[np.unique(mesh.triangles[mesh.labels == kind])]


def over(values, low, high, slack):
    """Whether values fill [low, high]: none is outside, and some are near both ends."""
    values = np.asarray(values)
    assert low - 1e-5 <= values.min() < low + slack
    assert high - slack < values.max() <= high + 1e-5


def test_stems_lean_outwards_from_one_foot():
    counts, feet, heights, leans, crowns = [], [], [], [], []
    for seed in MANY:
        mesh = made(garden.fan_tree, seed)
        wood = vertices(mesh, StreetClass.TRUNK)
        out = np.hypot(*wood.T[:2])
        # A foot of three rings of eight corners, and stems of three rings of six.
        stems = wood[24:].reshape(-1, 3, 6, 3)
        counts.append(len(stems))
        feet.append(out[8:16].mean())
        np.testing.assert_allclose(out[:8], feet[-1] * 1.3, rtol=1e-4)
        heights.append(np.ptp(stems[0, :, 0, 2]))
        middles = stems.mean(axis=2)
        reach = np.hypot(*middles.T[:2]).T  # (stem, ring)
        assert (np.diff(reach) > 0).all()
        leans += [*(np.ptp(reach, axis=1) / np.ptp(middles[..., 2], axis=1))]
        turns = np.unwrap(np.arctan2(middles[:, -1, 1], middles[:, -1, 0]))
        np.testing.assert_allclose(np.diff(turns), 2 * np.pi / len(stems), rtol=1e-3)
        crowns.append(len(vertices(mesh, StreetClass.VEGETATION)))
        assert set(mesh.labels) <= {StreetClass.TRUNK, StreetClass.VEGETATION}
    assert set(counts) == {3, 4, 5, 6, 7, 8}
    over(feet, 0.08, 0.5, 0.03)
    over(heights, 2.0, 5.0, 0.2)
    over(leans, 0.05, 0.6, 0.01)
    assert min(crowns) < 60 < 1500 < max(crowns)


def test_a_board_hangs_between_two_posts():
    halves, lows, sizes = [], [], []
    for seed in MANY:
        mesh = made(garden.board, seed)
        assert set(mesh.labels) == {StreetClass.POLE}
        posts = mesh.vertices[:24].reshape(2, 2, 6, 3)
        panel = mesh.vertices[24:]
        assert len(panel) == 8
        left, right = posts.mean(axis=(1, 2))[:, 0]
        assert left == pytest.approx(-right)
        np.testing.assert_allclose(posts[..., 2].min(), -0.3)
        np.testing.assert_allclose(posts[..., 2].max(), panel[:, 2].max())
        np.testing.assert_allclose([panel[:, 0].min(), panel[:, 0].max()], [left, right], atol=1e-6)
        in_front = np.ptp(posts[0, 0, :, 0]) / 2
        assert panel[:, 1].min() == pytest.approx(in_front, abs=1e-6)
        assert np.ptp(panel[:, 1]) == pytest.approx(0.02, abs=1e-6)
        halves.append(right)
        lows.append(panel[:, 2].min())
        sizes.append(np.ptp(panel[:, 2]))
    over(halves, 0.25, 0.8, 0.03)
    over(lows, 0.6, 1.4, 0.03)
    over(sizes, 0.4, 1.0, 0.03)


def test_a_bed_is_low_wide_and_full_of_leaves():
    longs, wides, tops = [], [], []
    for seed in MANY:
        mesh = made(garden.bed, seed)
        assert set(mesh.labels) == {StreetClass.VEGETATION}
        middles = mesh.vertices[mesh.triangles].mean(axis=1)
        longs.append(np.ptp(middles[:, 0]))
        wides.append(np.ptp(middles[:, 1]))
        tops.append(np.quantile(middles[:, 2], 0.95))
        density = len(middles) / (longs[-1] * wides[-1])
        assert 36 < density < 140
        # More leaves in the upper half than in the lower: the light meets a lid.
        assert (middles[:, 2] > 0.5 * tops[-1]).mean() > 0.55
    for sizes, lowest, highest in (
        (longs, (1.3, 2), (7, 8.5)), (wides, (0.7, 1.2), (4.4, 5.5)), (tops, (0.15, 0.35), (1, 1.7))
    ):  # fmt: skip
        assert lowest[0] < min(sizes) < lowest[1]
        assert highest[0] < max(sizes) < highest[1]


def test_a_rail_is_posts_and_one_bar_or_two():
    halves, tops, counts = [], [], set()
    for seed in MANY:
        mesh = made(garden.rail, seed)
        assert set(mesh.labels) == {StreetClass.FENCE}
        boxes = mesh.vertices.reshape(-1, 8, 3)
        size = np.ptp(boxes, axis=1)
        bars = size[:, 0] > 1.9
        halves.append(boxes[bars][..., 0].max())
        tops.append(boxes[~bars][..., 2].max())
        counts.add(int(bars.sum()))
        middles = boxes[bars][..., 2].mean(axis=1)
        np.testing.assert_allclose(middles, [tops[-1], tops[-1] / 2][: bars.sum()], rtol=1e-5)
        assert boxes[~bars][..., 2].min() == pytest.approx(-0.5)
        between = np.diff(boxes[~bars][..., 0].mean(axis=1))
        np.testing.assert_allclose(between, between[0], rtol=1e-4)
        assert 1.19 < between[0] < 2.51
    assert counts == {1, 2}
    over(halves, 1.0, 6.0, 0.15)
    over(tops, 0.35, 1.1, 0.03)


def test_a_garage_has_walls_in_the_ground_and_a_roof_that_hangs_over():
    sides, tops, eaves = [], [], []
    for seed in MANY:
        mesh = made(garden.garage, seed)
        assert set(mesh.labels) == {StreetClass.BUILDING}
        walls, roof = mesh.vertices.reshape(2, 8, 3)
        assert walls[:, 2].min() == -1.0
        assert roof[:, 2].min() == walls[:, 2].max()
        assert np.ptp(roof[:, 2]) == pytest.approx(0.15, abs=1e-6)
        np.testing.assert_allclose(walls.mean(axis=0)[:2], 0, atol=1e-6)
        sides += [*walls.max(axis=0)[:2]]
        tops.append(walls[:, 2].max())
        beyond = roof.max(axis=0) - walls.max(axis=0)
        assert beyond[0] == pytest.approx(beyond[1], abs=1e-5)
        eaves.append(beyond[0])
        assert mesh.albedo[-1] == pytest.approx(0.7 * mesh.albedo[0])
    over(sides, 1.2, 3.4, 0.05)
    over(tops, 1.8, 2.9, 0.05)
    over(eaves, 0.0, 0.3, 0.02)


@pytest.mark.parametrize("name", CORNERS)
def test_things_are_those_that_networks_were_trained_on(name):
    things = [made(getattr(garden, name), seed).vertices for seed in (3, 4)]
    corners = np.concatenate(things).astype(np.float64)
    count, mean, spread = CORNERS[name]
    assert len(corners) == count
    np.testing.assert_allclose(corners.mean(axis=0), mean, atol=2e-4)
    np.testing.assert_allclose(corners.std(axis=0), spread, atol=2e-4)


def test_gardens_are_added_to_the_same_suburb():
    added = {}
    for seed in range(2):
        plain, full = (suburb(1.73, np.random.default_rng(seed), gardens=gardens).mesh
                       for gardens in (False, True))  # fmt: skip
        own = (plain.labels == OWN).sum()
        before = len(plain.triangles) - own  # the car that carries the sensor comes last
        assert np.array_equal(plain.triangles[:before], full.triangles[:before])
        assert np.array_equal(plain.labels[:before], full.labels[:before])
        for kind in np.unique(full.labels[before:]):
            added[int(kind)] = added.get(int(kind), 0) + 1
    assert set(added) == {StreetClass.BUILDING, StreetClass.FENCE, StreetClass.VEGETATION,
                          StreetClass.TRUNK, StreetClass.POLE, OWN}  # fmt: skip


ADDED = {
    2: ([24, 288, 10641, 152, 0], [-21.54, -27.41, 2.74]),
    5: ([144, 252, 13956, 128, 252], [-20.81, -7.65, 0.2]),
}

WEIGHED = {2: (-341.92, 316.04, 5.0), 5: (-30.79, 996.69, -34.62)}


@pytest.mark.parametrize("seed", ADDED)
def test_so_many_things_stand_in_gardens_and_none_where_the_car_is(seed):
    mesh, position, _ = suburb(1.73, np.random.default_rng(seed), gardens=True)
    before = (suburb(1.73, np.random.default_rng(seed)).mesh.labels != OWN).sum()
    new = np.arange(len(mesh.labels)) >= before
    new &= mesh.labels != OWN
    counts, middle = ADDED[seed]
    kinds = np.bincount(mesh.labels[new], minlength=len(StreetClass))
    assert kinds[StreetClass.BUILDING : StreetClass.POLE + 1].tolist() == counts
    assert kinds.sum() == sum(counts)
    places = mesh.vertices[mesh.triangles[new]].astype(np.float64)
    np.testing.assert_allclose(places.mean(axis=(0, 1)), middle, atol=0.02)
    assert np.hypot(*(places.mean(axis=1) - position).T[:2]).min() > 1.5
    # Weighed so that a thing that is turned another way shows.
    solid = np.isin(mesh.labels[new], [StreetClass.BUILDING, StreetClass.FENCE, StreetClass.POLE])
    weights = np.arange(solid.sum()) * 31 % 17 - 8.0
    np.testing.assert_allclose(weights @ places[solid].mean(axis=1), WEIGHED[seed], atol=0.05)


def test_what_stands_in_gardens_keeps_its_own_distance_from_the_car():
    asked = set()
    for seed in range(3):
        draw = np.random.default_rng(seed)
        assert _gardens(Ground(draw), lambda x, y, gap: asked.add(gap), draw) == []
    assert asked == {1.0, 2.5, 3.0, 5.0}


def test_scans_of_gardens_are_drawn_by_seed_and_index():
    gardens, again = (SyntheticStreets(3, 5, "hdl64", "gardens")[2] for _ in range(2))
    assert np.array_equal(gardens.points, again.points)
    assert len(gardens) != len(SyntheticStreets(3, 5, "hdl64", "suburb")[2])
