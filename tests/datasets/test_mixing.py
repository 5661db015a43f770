"""Mixes of two scans: every point keeps its label and features, by hand, and repeatable."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from geonorm.datasets.augmented import Augmented
from geonorm.datasets.mixing import LaserMix, Mix3D, OneOf, PolarMix
from geonorm.datasets.scan import Scan
from geonorm.datasets.transforms import RandomFlip, RandomScale
from geonorm.training.segmentation.data import ScanData
from helpers.segmentation_runs import STREETS, run_config

THINGS = (0, 2, 5)


def rng(seed=0):
    return np.random.default_rng(seed)


def cloud(count, seed, name="a"):
    """Return a scan in which every row differs from all others in every feature."""
    draw = rng((seed, ord(name)))
    normal = draw.normal(size=(count, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    return Scan(
        draw.uniform(-20, 20, (count, 3)).astype("f4") * np.float32([1, 1, 0.3]),
        draw.uniform(0, 1, count).astype("f4"), draw.integers(0, 8, count), name, dropped=2,
        kept=np.ones(count + 2, bool), extra={"normal": normal.astype("f4"),
                                              "color": draw.uniform(0, 1, (count, 3)).astype("f4")},
    )  # fmt: skip


def rows(scan):
    """Return each point with all that is known of it, as a sorted list."""
    columns = [scan.points, scan.intensity[:, None], scan.labels[:, None], *(
        scan.extra[name] for name in sorted(scan.extra))]  # fmt: skip
    return sorted(map(tuple, np.concatenate(columns, axis=1, dtype=np.float64).tolist()))


def about_z(points, angle):
    x, y, z = points.astype(np.float64).T
    return np.stack([np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y,
                     z], axis=1)  # fmt: skip


pairs = given(
    sizes=st.tuples(st.integers(1, 40), st.integers(1, 40)), seed=st.integers(0, 10_000)
)


@settings(max_examples=60, deadline=None)
@pairs
def test_bands_of_elevation_share_out_both_scans(sizes, seed):
    a, b = cloud(sizes[0], seed), cloud(sizes[1], seed, "b")
    one, other = LaserMix()(a, b, rng(seed)), LaserMix()(b, a, rng(seed))
    if one is not a and other is not b:  # else a mix would have been empty
        assert rows(one) == sorted({*rows(one)})  # no point twice
        assert sorted(rows(one) + rows(other)) == sorted(rows(a) + rows(b))


@settings(max_examples=60, deadline=None)
@pairs
def test_a_swap_of_half_a_turn_shares_out_both_scans(sizes, seed):
    a, b = cloud(sizes[0], seed), cloud(sizes[1], seed, "b")
    swap = PolarMix(THINGS, swap=1, paste=0)
    one, other = swap(a, b, rng(seed)), swap(b, a, rng(seed))
    if one is not a and other is not b:
        assert sorted(rows(one) + rows(other)) == sorted(rows(a) + rows(b))


@settings(max_examples=60, deadline=None)
@pairs
def test_two_scenes_in_each_other_keep_all_points(sizes, seed):
    a, b = cloud(sizes[0], seed), cloud(sizes[1], seed, "b")
    assert rows(Mix3D(center=False)(a, b, rng())) == sorted(rows(a) + rows(b))
    moved = Mix3D()(a, b, rng())
    assert rows(moved.take(np.arange(len(a)))) == rows(a)
    theirs = moved.take(np.arange(len(a), len(moved)))
    shift = a.points.mean(0, dtype="f8") - b.points.mean(0, dtype="f8")
    np.testing.assert_allclose(theirs.points, b.points + shift, atol=1e-5)
    np.testing.assert_array_equal(theirs.labels, b.labels)
    np.testing.assert_array_equal(theirs.intensity, b.intensity)
    np.testing.assert_array_equal(theirs.extra["normal"], b.extra["normal"])


@settings(max_examples=60, deadline=None)
@pairs
def test_things_are_pasted_three_times_turned_about_the_sensor(sizes, seed):
    a, b = cloud(sizes[0], seed), cloud(sizes[1], seed, "b")
    mixed = PolarMix(THINGS, swap=0)(a, b, rng(seed))
    things = b.take(np.isin(b.labels, THINGS))
    count = len(things)
    assert len(mixed) == len(a) + 3 * count
    assert rows(mixed.take(np.arange(len(a)))) == rows(a)
    parts = [mixed.take(len(a) + copy * count + np.arange(count)) for copy in range(3)]
    for number, part in enumerate(parts):
        for name in ("labels", "intensity"):
            np.testing.assert_array_equal(getattr(part, name), getattr(things, name))
        np.testing.assert_array_equal(part.extra["color"], things.extra["color"])
        if count:
            turns = [np.arctan2(each.points[0, 1], each.points[0, 0]) for each in (part, things)]
            angle = (turns[0] - turns[1]) % (2 * np.pi)
            if number:
                assert (number - 1) * 2 * np.pi / 3 - 1e-5 < angle < number * 2 * np.pi / 3 + 1e-5
            np.testing.assert_allclose(part.points, about_z(things.points, angle), atol=1e-4)
            np.testing.assert_allclose(
                part.extra["normal"], about_z(things.extra["normal"], angle), atol=1e-5
            )
    assert rows(parts[0]) == rows(things)


def test_bands_by_hand():
    """Four bands of 7 degrees from 3 to -25; what lies beyond belongs to the outer ones."""
    angles = np.array([40, 2, -3, -5, -10.5, -12, -17, -19, -24, -60.0])
    bands = np.array([0, 0, 0, 1, 1, 2, 2, 3, 3, 3])
    turn = np.linspace(0, 6, len(angles))
    level, up = np.cos(np.radians(angles)), np.sin(np.radians(angles))
    points = 7 * np.stack([level * np.cos(turn), level * np.sin(turn), up], axis=1)
    a = Scan(points.astype("f4"), None, np.arange(10), "a")
    b = Scan(points.astype("f4"), None, 100 + np.arange(10), "b")
    mixed = LaserMix(num_areas=[4])(a, b, rng())
    expected = [*np.arange(10)[bands % 2 == 0], *(100 + np.arange(10))[bands % 2 == 1]]
    assert mixed.labels.tolist() == expected
    assert mixed.name == "a + b"
    assert mixed.kept is None


def test_every_number_of_bands_is_drawn():
    a, b = cloud(300, 0), cloud(300, 0, "b")
    possible = {n: rows(LaserMix([n])(a, b, rng())) for n in (3, 4, 5, 6)}
    found = [rows(LaserMix()(a, b, rng(seed))) for seed in range(60)]
    for each in possible.values():
        assert each in found
    assert all(each in possible.values() for each in found)


def test_half_turns_and_turned_things_are_drawn_evenly():
    ring = np.linspace(-np.pi, np.pi, 361)[:-1]
    points = np.stack([np.cos(ring), np.sin(ring), 0 * ring], axis=1).astype("f4")
    a = Scan(points, None, np.zeros(360, int), "a")
    b = Scan(points, None, np.ones(360, int), "b")
    counts = np.zeros(360)
    for seed in range(400):
        mixed = PolarMix([5], swap=1, paste=0)(a, b, rng(seed))
        own = np.degrees(np.arctan2(*mixed.points[mixed.labels == 1].T[1::-1]))
        assert 179 <= len(own) <= 181
        counts[np.round(own + 180).astype(int) % 360] += 1
    assert counts.sum() / 400 == pytest.approx(180, abs=0.5)
    # The half turn begins in [-180, 0): every place can be in it, the one ahead always is.
    assert counts.min() < 10
    assert counts[180] > 390
    swaps = sum(PolarMix([5], paste=0)(a, b, rng(seed)).labels.any() for seed in range(300))
    assert 120 < swaps < 180
    pastes = sum(len(PolarMix([1], swap=0, paste=0.25)(a, b, rng(s))) > 360 for s in range(300))
    assert 45 < pastes < 105


def test_nothing_left_is_the_first_scan():
    high = Scan(np.float32([[1, 0, 5]]), None, np.array([1]), "high")
    low = Scan(np.float32([[1, 0, -5]]), None, np.array([2]), "low")
    assert LaserMix(num_areas=[2])(low, high, rng()) is low


def test_one_of_several_by_their_probabilities():
    a, b = cloud(30, 0), cloud(20, 0, "b")
    choice = OneOf([Mix3D(center=False, probability=0.6), LaserMix([4], probability=0.2)])
    assert choice.probability == pytest.approx(0.8)
    both = sum(len(choice(a, b, rng(seed))) == 50 for seed in range(400))
    assert both == pytest.approx(300, abs=30)


class Clouds:
    classes, ignore_index = tuple("abcdefgh"), 255
    colors = np.zeros((8, 3), np.uint8)

    def __init__(self, number=5):
        self.number = number

    def set_epoch(self, epoch):
        pass

    def __len__(self):
        return self.number

    def __getitem__(self, index):
        return cloud(20 + index, index, chr(ord("a") + index))


def test_a_partner_is_any_other_scan_changed_by_what_stands_before():
    before, after = RandomScale(2, 2), RandomScale(3, 3)
    mixed = Augmented(Clouds(), [before, Mix3D(center=False, probability=1), after], seed=1)
    partners = set()
    for epoch in range(30):
        mixed.set_epoch(epoch)
        name = mixed[1].name
        own, partner = name.split(" + ")
        assert own == "b"
        partners.add(partner)
        expected = np.concatenate([Clouds()[1].points, Clouds()[ord(partner) - 97].points]) * 6
        np.testing.assert_allclose(mixed[1].points, expected, rtol=1e-6)
    assert partners == {"a", "c", "d", "e"}
    alone = Augmented(Clouds(1), [Mix3D(center=False, probability=1)])
    assert alone[0].name == "a + a"


def test_a_partner_draws_its_changes_for_itself():
    flips = [RandomFlip(), Mix3D(center=False, probability=1)]
    signs = set()
    for seed in range(200):
        mixed = Augmented(Clouds(2), flips, seed)[0]
        a, b = Clouds()[0].points, Clouds()[1].points
        signs.add((*np.sign(mixed.points[0] / a[0]), *np.sign(mixed.points[20] / b[0])))
    assert len(signs) == 16


def test_mixing_is_repeatable_and_rare_where_it_is_to_be():
    choice = OneOf([LaserMix(probability=0.3), PolarMix(THINGS, probability=0.2)])
    mixed = Augmented(Clouds(), [RandomFlip(), choice], seed=3)
    first = [rows(mixed[i]) for i in range(5)]
    loader = DataLoader(mixed, batch_size=None, num_workers=2)
    assert [rows(scan) for scan in loader] == first
    names = []
    for epoch in range(80):
        mixed.set_epoch(epoch)
        names += [mixed[i].name for i in range(5)]
    assert sum("+" in name for name in names) == pytest.approx(200, abs=30)


def test_a_mix_leaves_the_randomness_of_other_transforms_as_it_was():
    plain = Augmented(Clouds(), [RandomFlip(), RandomScale()], seed=3)
    never = Augmented(Clouds(), [RandomFlip(), RandomScale(), Mix3D(probability=0)], seed=3)
    assert [rows(plain[i]) for i in range(5)] == [rows(never[i]) for i in range(5)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LaserMix(num_areas=[1, 3]), r"2 bands or more; got \[1, 3\]"),
        (lambda: LaserMix(num_areas=[]), r"2 bands or more; got \[\]"),
        (lambda: LaserMix(pitch=(3, -25)), r"rising angles in \[-90, 90\] degrees; got \(3, -25\)"),
        (lambda: PolarMix([]), "instance_classes must be the labels of things; got none"),
        (lambda: PolarMix([1], swap=2), r"swap must be in \[0, 1\]; got 2"),
        (lambda: PolarMix([1], paste=-1), r"paste must be in \[0, 1\]; got -1"),
        (lambda: Mix3D(probability=1.5), r"probability must be in \[0, 1\]; got 1.5"),
        (lambda: OneOf([Mix3D(), LaserMix()]), "at most 1 together; got 1.8 for 2"),
        (lambda: OneOf([]), "at most 1 together; got 0 for 0"),
    ],
)  # fmt: skip
def test_options_that_cannot_be(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("mix", [Mix3D(), LaserMix(), PolarMix(THINGS)])
def test_scans_that_know_different_things_cannot_be_mixed(mix):
    a = cloud(30, 0)
    bare = Scan(a.points, None, a.labels, "bare")
    with pytest.raises(ValueError, match="bare has position, height, labels"):
        mix(a, bare, rng())
    unlabelled = Scan(a.points, a.intensity, None, "u", extra=a.extra)
    with pytest.raises(ValueError, match=r"which scan u lacks|u has position, height, intensity"):
        mix(a, unlabelled, rng())


def test_a_run_mixes_by_its_configuration(tmp_path):
    words = [
        "--model.name=PointMLP", "--data.augment+=LaserMix",
        "--data.augment.probability=0.5", "--data.augment+=PolarMix",
        "--data.augment.instance_classes=[8, 9, 10]",
    ]  # fmt: skip
    run_config("streets", None, tmp_path / "run", *STREETS, *words)
    text = (tmp_path / "run" / "config.yaml").read_text()
    for word in ("datasets.LaserMix", "probability: 0.5", "datasets.PolarMix", "swap: 0.5"):
        assert word in text
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 2
    assert ScanData(augment=[LaserMix()]).augment[0].num_areas == (3, 4, 5, 6)


def test_a_scene_without_points_moves_nothing():
    a = cloud(30, 0)
    none = a.take(np.arange(0))
    for one, other in ((a, none), (none, a)):
        assert rows(Mix3D()(one, other, rng())) == rows(a)


def test_a_mix_tells_of_both_scans():
    a, b = cloud(30, 0), cloud(20, 0, "b")
    for each in (Mix3D(), PolarMix(THINGS, swap=0, paste=0), PolarMix(THINGS, swap=1)):
        assert each(a, b, rng()).name == "a + b"
    more = replace(b, dropped=5, kept=None)
    assert Mix3D()(a, more, rng()).dropped == 7


@pytest.mark.parametrize("pitch", [(5, 5), (-91, 3), (-25, 91), (-25, 0, 3), (3,)])
def test_elevations_that_cannot_be(pitch):
    with pytest.raises(ValueError, match="pitch must be two rising angles"):
        LaserMix(pitch=pitch)


def test_limits_that_can_just_be():
    assert LaserMix([2], pitch=(-90, 90)).pitch == (-90, 90)
    assert OneOf([LaserMix(probability=0.5), Mix3D(probability=0.5)]).probability == 1
    assert OneOf([Mix3D(probability=1 / 10 + 1e-10) for _ in range(10)]).probability == 1
    for total in (0, 1.001):
        with pytest.raises(ValueError, match="above 0 and at most 1 together"):
            OneOf([Mix3D(probability=total / 2), LaserMix(probability=total / 2)])


def test_scans_of_one_sensor_are_of_one_domain_and_go_to_no_server():
    mixed = Augmented(Clouds(), [Mix3D()])
    assert (mixed.num_domains, mixed.submission) == (1, None)
    assert (mixed.classes, mixed.ignore_index) == (tuple("abcdefgh"), 255)
