"""Augmentation of scans: each transform by hand, and randomness that can be repeated."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from geonorm.datasets.augmented import Augmented
from geonorm.datasets.scan import Scan
from geonorm.datasets.synthetic.streets import SyntheticStreets
from geonorm.datasets.transforms import (
    ElasticDistortion,
    RandomDrop,
    RandomFlip,
    RandomIntensity,
    RandomJitter,
    RandomRotation,
    RandomScale,
    SphereCrop,
    interpolated,
)

ALL = [
    RandomRotation(x=2.8, y=2.8), RandomScale(), RandomFlip(), RandomJitter(),
    RandomDrop(probability=1), ElasticDistortion(probability=1), RandomIntensity(), SphereCrop(40),
]  # fmt: skip


def rng(seed=0):
    return np.random.default_rng(seed)


def scan_of(points, labels=True):
    points = np.array(points, dtype=np.float32)
    intensity = np.linspace(0.1, 0.9, len(points), dtype=np.float32)
    return Scan(points, intensity, np.arange(len(points)) if labels else None, "by hand", 3)


def cloud(count=60):
    return scan_of(rng().uniform(-5, 5, (count, 3)))


def same(one, other):
    pairs = [(one.points, other.points), (one.intensity, other.intensity)]
    return all(np.array_equal(*pair) for pair in [*pairs, (one.labels, other.labels)])


def test_rotation_by_hand():
    scan = scan_of([[1, 0, 5], [0, 2, 5]])
    angle = np.radians(rng().uniform(-90, 90))
    turned = RandomRotation(z=90)(scan, rng()).points
    expected = [
        [np.cos(angle), np.sin(angle), 5], [-2 * np.sin(angle), 2 * np.cos(angle), 5]
    ]  # fmt: skip
    np.testing.assert_allclose(turned, expected, rtol=1e-6)


def test_rotation_covers_its_range_and_keeps_distances():
    angles = []
    for seed in range(300):
        x, y, z = RandomRotation(z=30)(scan_of([[1, 0, 0]]), rng(seed)).points[0]
        assert z == 0
        angles.append(np.degrees(np.arctan2(y, x)))
    assert -30 <= min(angles) < -28
    assert 28 < max(angles) <= 30
    scan = cloud()
    tilted = RandomRotation(z=180, x=20, y=20)(scan, rng())
    before, after = (np.linalg.norm(s.points, axis=1) for s in (scan, tilted))
    np.testing.assert_allclose(after, before, rtol=1e-5)
    assert np.abs(tilted.points[:, 2] - scan.points[:, 2]).max() > 0.1


@pytest.mark.parametrize(("axis", "first", "second"), [("x", 1, 2), ("y", 2, 0), ("z", 0, 1)])
def test_each_limit_of_rotation_is_that_of_its_own_axis(axis, first, second):
    """A turn about an axis keeps its coordinate and leads the next axis towards the one after."""
    limits = {"x": 0, "y": 0, "z": 0, axis: 40}
    angles, scan = [], scan_of(np.eye(3))
    for seed in range(300):
        turned = RandomRotation(**limits)(scan, rng(seed)).points
        np.testing.assert_array_equal(turned["xyz".index(axis)], scan.points["xyz".index(axis)])
        angles.append(np.degrees(np.arctan2(turned[first, second], turned[first, first])))
        np.testing.assert_allclose(turned[second, first], -turned[first, second], rtol=1e-6)
    assert -40 <= min(angles) < -38
    assert 38 < max(angles) <= 40


def test_rotation_turns_about_x_then_y_then_z():
    scan = cloud()
    generator = rng()
    z, y, x = (generator.uniform(-limit, limit) for limit in np.radians((90, 50, 20)))
    expected = scan.points.astype(np.float64)
    for first, second, angle in ((1, 2, x), (2, 0, y), (0, 1, z)):
        one, other = expected[:, first].copy(), expected[:, second].copy()
        expected[:, first] = np.cos(angle) * one - np.sin(angle) * other
        expected[:, second] = np.sin(angle) * one + np.cos(angle) * other
    turned = RandomRotation(z=90, y=50, x=20)(scan, rng()).points
    np.testing.assert_allclose(turned, expected, rtol=1e-4, atol=1e-5)


def test_scale_by_hand():
    assert RandomScale(2, 2)(scan_of([[1, 2, 3]]), rng()).points.tolist() == [[2, 4, 6]]
    factors = [RandomScale()(scan_of([[1, 1, 1]]), rng(seed)).points[0] for seed in range(200)]
    assert (np.ptp(factors, axis=1) == 0).all()
    assert 0.9 <= np.min(factors) < 0.91 < 1.09 < np.max(factors) <= 1.1


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [(1, 0, [-1, 2, 3]), (0, 1, [1, -2, 3]), (1, 1, [-1, -2, 3]), (0, 0, [1, 2, 3])],
)
def test_flip_by_hand(x, y, expected):
    assert RandomFlip(x, y)(scan_of([[1, 2, 3]]), rng()).points.tolist() == [expected]


def test_flip_does_both_signs_independently():
    signs = [RandomFlip()(scan_of([[1, 1, 1]]), rng(seed)).points[0] for seed in range(50)]
    assert len({tuple(sign) for sign in signs}) == 4


def test_jitter_by_hand():
    scan = scan_of(np.zeros((50_000, 3)))
    moves = RandomJitter(sigma=0.005, clip=1)(scan, rng()).points
    assert moves.std() == pytest.approx(0.005, rel=0.02)
    assert abs(moves.mean()) < 1e-4
    within = [(np.abs(moves) < k * 0.005).mean() for k in (1, 2)]
    assert within == pytest.approx([0.6827, 0.9545], abs=0.005)  # normal
    assert np.abs(np.corrcoef(moves.T) - np.eye(3)).max() < 0.02  # each axis for itself
    clipped = RandomJitter(sigma=1e6, clip=0.25)(scan, rng()).points
    assert set(np.unique(np.abs(clipped)).tolist()) == {0.25}
    assert same(RandomJitter(sigma=0, clip=0)(scan, rng()), scan)


def test_drop_by_hand():
    scan = scan_of([[i, i, i] for i in range(10)])
    kept = RandomDrop(ratio=0.3, probability=1)(scan, rng())
    assert len(kept) == 7
    assert kept.labels.tolist() == sorted(set(kept.labels.tolist()))
    assert kept.points[:, 0].tolist() == kept.labels.tolist()
    np.testing.assert_array_equal(kept.intensity, scan.intensity[kept.labels])
    assert len(RandomDrop(ratio=0.29, probability=1)(scan, rng())) == 8  # two whole points go
    assert len(RandomDrop(ratio=1, probability=1)(scan, rng())) == 1
    assert same(RandomDrop(ratio=1, probability=0)(scan, rng()), scan)
    losing = sum(len(RandomDrop()(scan, rng(seed))) < 10 for seed in range(300))
    assert 35 < losing < 90


def test_interpolation_by_hand():
    lattice = rng().standard_normal((4, 3, 5, 2)).astype(np.float32)
    at_nodes = interpolated(lattice, np.array([[1.0, 2, 3], [5, -1, 8]]))
    np.testing.assert_array_equal(at_nodes, lattice[[1, 1], [2, 2], [3, 3]])
    between = interpolated(lattice, np.array([[1.25, 2, 3], [1, 2.5, 3]]))
    by_hand = [
        0.75 * lattice[1, 2, 3] + 0.25 * lattice[2, 2, 3], (lattice[1, 2, 3] + lattice[1, 0, 3]) / 2
    ]  # fmt: skip
    np.testing.assert_allclose(between, by_hand, rtol=1e-6)


def test_elastic_distortion_is_smooth_and_of_the_promised_size():
    scan = scan_of(rng().uniform(-40, 40, (20_000, 3)))
    bend = ElasticDistortion([1.0], [0.9], probability=1)
    moves = bend(scan, rng()).points - scan.points
    # [1, 2, 3, 2, 1] / 9 along three axes leaves (19 / 81) ** 1.5 of the standard deviation at the
    # nodes, and interpolation takes some of it in between.
    at_nodes = 0.9 * (19 / 81) ** 1.5
    assert 0.6 * at_nodes < moves.std() < at_nodes
    near = scan_of(scan.points + np.float32([0.02, 0, 0]))
    differences = bend(near, rng()).points - near.points - moves
    assert differences.std() < 0.1 * moves.std()
    far = scan_of(scan.points + np.float32([2.5, 0, 0]))
    differences = bend(far, rng()).points - far.points - moves
    assert differences.std() > 0.8 * moves.std()


@pytest.mark.parametrize("axis", range(3))
def test_the_lattice_of_an_elastic_distortion_lies_elsewhere_every_time(axis):
    """Displacements are linear between nodes, so along a line their slope changes at nodes."""
    spacing, steps = 0.8, 16
    line = np.full((8 * steps + 1, 3), 0.3)
    line[:, axis] = np.arange(8 * steps + 1) * spacing / steps
    scan, places = scan_of(line), []
    for seed in range(40):
        bent = ElasticDistortion([spacing], [160.0], probability=1)(scan, rng(seed)).points
        moves = (bent - scan.points)[:, axis].astype(np.float64)
        changes = np.abs(np.diff(moves, 2)).reshape(8 * steps - 1)
        # A node between two points changes the slope at both of them.
        share = [changes[phase::steps].sum() for phase in range(steps)]
        assert np.sort(share)[:-2].sum() < 1e-3 * sum(share)
        places.append(int(np.argmax(share)))
    assert len(set(places)) > 8


def test_an_elastic_distortion_is_equally_smooth_along_every_axis():
    """Two averages of three nodes leave neighbours 16 / 19 alike, and 10 / 19 those beyond."""
    near, beyond = 16 / 19, 10 / 19
    # Between nodes, on the average over the way from one to the next.
    expected = (2 * near / 3 + (1 + beyond) / 6) / (2 / 3 + near / 3)
    points = rng().uniform(0, 32, (20_000, 3))
    bend = ElasticDistortion([1.0], [1.0], probability=1)
    for axis in range(3):
        alike = []
        for seed in range(4):
            moves = [bend(scan_of(at), rng(seed)).points - scan_of(at).points
                     for at in (points, points + np.eye(3)[axis])]  # fmt: skip
            alike.append(np.corrcoef(*(move.ravel() for move in moves))[0, 1])
        assert np.mean(alike) == pytest.approx(expected, abs=0.02)


def test_an_elastic_distortion_bends_what_the_level_before_has_bent():
    def bent(scan, levels, generator):
        draws = SimpleNamespace(
            random=lambda: 0.0, uniform=generator.uniform, standard_normal=generator.standard_normal
        )
        return ElasticDistortion(*zip(*levels, strict=True))(scan, draws)

    scan, levels, generator = cloud(), [(0.3, 2.0), (0.9, 5.0)], rng()
    both = bent(scan, levels, rng())
    first = bent(scan, levels[:1], generator)
    second = bent(first, levels[1:], generator)
    np.testing.assert_allclose(both.points, second.points, atol=1e-4)
    assert np.abs(first.points - scan.points).mean() > 0.05
    assert np.abs(second.points - first.points).mean() > 0.2


def test_elastic_distortion_bears_stray_points():
    scan = scan_of([[0, 0, 0], [1e6, -1e6, 1e6]])
    moves = ElasticDistortion(probability=1)(scan, rng()).points - scan.points
    assert 0 < np.abs(moves[0]).max() < 2
    assert np.isfinite(moves).all()
    assert same(ElasticDistortion(probability=0)(scan, rng()), scan)


def test_sphere_crop_is_nearest_in_all_three_axes():
    scan = scan_of([[0, 0, 0], [0, 9, 0], [1, 0, 5], [7, 0, 0], [0, 0, 20]])
    kept = {0: (0, 2), 1: (0, 1), 2: (0, 2), 3: (0, 3), 4: (2, 4)}  # by the point in the middle
    seen = set()
    for seed in range(40):
        middle = int(rng(seed).integers(5))
        assert tuple(SphereCrop(2)(scan, rng(seed)).labels) == kept[middle]
        seen.add(middle)
    assert len(seen) == 5


def test_intensity_by_hand():
    scan = Scan(np.zeros((3, 3), "f4"), np.array([0.1, 0.4, 0.9], "f4"), None, "by hand")
    doubled = RandomIntensity(2, 2, offset=0)(scan, rng()).intensity
    np.testing.assert_allclose(doubled, [0.2, 0.8, 1.0])
    darker = RandomIntensity(1, 1, offset=1)(scan, rng()).intensity
    np.testing.assert_allclose(darker, [0, 0, 0.9 + 2 * rng().random(2)[1] - 1], rtol=1e-5)
    generator = rng()
    gain, offset = generator.uniform(0.8, 1.2), generator.uniform(-0.05, 0.05)
    changed = RandomIntensity()(scan, rng()).intensity
    np.testing.assert_allclose(changed, np.array([0.1, 0.4, 0.9]) * gain + offset, rtol=1e-5)
    assert changed.dtype == np.float32


def test_sphere_crop_by_hand():
    scan = scan_of([[x, 0, 0] for x in (0, 100, 1, 101, 2, 102)])
    seen = set()
    for seed in range(20):
        crop = SphereCrop(3)(scan, rng(seed))
        assert crop.points[:, 0].tolist() in ([0, 1, 2], [100, 101, 102])
        seen.add(tuple(crop.labels.tolist()))
    assert seen == {(0, 2, 4), (1, 3, 5)}
    assert SphereCrop(6)(scan, rng()) is scan


@pytest.mark.parametrize("transform", ALL, ids=lambda t: type(t).__name__)
def test_every_transform_leaves_its_input_alone_and_depends_on_the_generator(transform):
    scan, pristine = cloud(), cloud()
    once, again, other = (transform(scan, rng(seed)) for seed in (1, 1, 2))
    assert same(scan, pristine)
    assert same(once, again)
    assert not same(once, other)
    assert (once.name, once.dropped) == ("by hand", 3)
    unlabelled = transform(scan_of(scan.points, labels=False), rng(1))
    assert unlabelled.labels is None
    np.testing.assert_array_equal(unlabelled.points, once.points)


@pytest.mark.parametrize("transform", ALL, ids=lambda t: type(t).__name__)
def test_every_transform_bears_scans_of_one_point_and_none(transform):
    assert len(transform(scan_of([[1, 2, 3]]), rng())) == 1
    assert len(transform(scan_of(np.zeros((0, 3))), rng())) == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomRotation(z=400), r"z must be an angle in \[0, 180\] degrees; got 400"),
        (lambda: RandomRotation(x=-1), "x must be an angle"),
        (lambda: RandomRotation(y=float("nan")), "y must be an angle"),
        (lambda: RandomScale(1.1, 0.9), "0 < low <= high; got 1.1 and 0.9"),
        (lambda: RandomScale(0, 1), "0 < low <= high; got 0 and 1"),
        (lambda: RandomFlip(x=2), r"x must be in \[0, 1\]; got 2"),
        (lambda: RandomFlip(y=-1), r"y must be in \[0, 1\]; got -1"),
        (lambda: RandomJitter(sigma=-1), "metres >= 0; got -1 and 0.02"),
        (lambda: RandomJitter(clip=-1), "metres >= 0; got 0.005 and -1"),
        (lambda: RandomDrop(ratio=1.5), r"ratio must be in \[0, 1\]; got 1.5"),
        (lambda: RandomDrop(probability=-1), r"probability must be in \[0, 1\]"),
        (lambda: ElasticDistortion([1, 2], [1]), r"equally long; got \[1, 2\], \[1\]"),
        (lambda: ElasticDistortion([], []), "equally long"),
        (lambda: ElasticDistortion([0], [1]), r"metres > 0 and magnitude metres >= 0; got \[0\]"),
        (lambda: ElasticDistortion([1], [-1]), r"magnitude metres >= 0; got \[1\] and \[-1\]"),
        (lambda: ElasticDistortion(probability=7), r"probability must be in \[0, 1\]"),
        (lambda: RandomIntensity(-1, 1), "0 < low <= high; got -1 and 1"),
        (lambda: RandomIntensity(offset=2), r"offset must be in \[0, 1\]; got 2"),
        (lambda: SphereCrop(0), "max_points must be >= 1; got 0"),
        (lambda: Augmented(SyntheticStreets(1), [], seed=-1), "seed must be >= 0; got -1"),
        # Streets refuse it as well.
        (lambda: Augmented(Still(), []).set_epoch(-1), "epoch must be >= 0; got -1"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_augmented_refuses_other_callables():
    with pytest.raises(TypeError, match="must be ScanTransforms, such as RandomFlip"):
        Augmented(SyntheticStreets(1), [RandomFlip])


class Still(torch.utils.data.Dataset):
    """Three equal scans, so that whatever differs comes from the transforms."""

    classes, colors, ignore_index = ("road",), np.zeros((1, 3), np.uint8), 255
    epoch = None

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return cloud()


TWICE = (RandomJitter(), RandomJitter())


def augmented(seed=0, epoch=0, transforms=TWICE):
    data = Augmented(Still(), transforms, seed)
    data.set_epoch(epoch)
    return data


def test_augmentation_is_a_function_of_seed_epoch_index_and_place():
    assert same(augmented()[1], augmented()[1])
    in_another_order = augmented()
    assert same([in_another_order[i] for i in (2, 0, 1)][2], augmented()[1])
    others = (augmented(seed=1)[1], augmented(epoch=1)[1], augmented()[2])
    assert not any(same(augmented()[1], other) for other in others)
    first = RandomJitter()(cloud(), rng((0, 0, 1, 1))).points - cloud().points
    both = augmented()[1].points - cloud().points
    assert np.abs(both - 2 * first).max() > 1e-3


def test_augmentation_shares_no_randomness_with_the_dataset():
    """Numpy pads keys with zeros: place 0 would draw what the dataset's own key draws."""
    key = (0, 0, 1)
    assert rng(key).random() == rng((*key, 0)).random()
    once = augmented(transforms=[RandomScale()])[1]
    assert not same(once, RandomScale()(cloud(), rng(key)))


def test_augmented_passes_on_the_epoch_and_what_the_dataset_is():
    data = augmented(epoch=4)
    assert data.dataset.epoch == 4
    assert (len(data), data.classes, data.ignore_index) == (3, ("road",), 255)
    assert same(augmented(transforms=[])[0], cloud())


def test_a_new_epoch_reaches_workers_that_live_on():
    data = augmented()
    loader = DataLoader(data, None, num_workers=1, persistent_workers=True)
    for epoch in (0, 1, 0):
        data.set_epoch(epoch)
        for index, scan in enumerate(loader):
            assert same(scan, augmented(epoch=epoch)[index])
