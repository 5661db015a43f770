"""Every corruption of scans is what its definition says, measured from its output."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geonorm.datasets import NuScenes, ScanCorruption
from geonorm.datasets.scan import IGNORE_INDEX, Scan
from geonorm.datasets.scan_corruptions import (
    GROUND,
    ROBO3D,
    VEHICLES,
    Corruption,
    levels,
    rings,
)
from geonorm.datasets.scan_weather import EXTINCTIONS, in_fog, in_snow, on_wet_ground
from geonorm.datasets.semantickitti import SemanticKITTI
from helpers.ring_scans import CLASSES, ray_scan, ring_scan

NAMES = get_args(Corruption)
CERTAIN = ("incomplete_echo", "cross_sensor", "duplication", "field_of_view", "wet_ground")


def corrupted(scan, name, severity, index=0, **options):
    corruption = ScanCorruption(name, severity, classes=CLASSES, **options)
    return corruption(scan, np.random.default_rng((5, index)))


def arrays(scan):
    return [scan.points, scan.intensity, scan.labels, scan.extra["echo"]]


def number(scan):
    return scan.extra["echo"][:, 0].astype(int)


def test_there_are_the_eight_of_robo3d_and_eight_more():
    assert set(ROBO3D) < set(NAMES)
    assert (len(ROBO3D), len(NAMES)) == (8, 16)
    assert [levels(name) for name in ("snow", "density")] == [3, 5]


@pytest.mark.parametrize("name", NAMES)
def test_level_0_changes_nothing_and_the_scan_given_stays_as_it_is(name):
    scan, before = ring_scan(), arrays(ring_scan())
    for array, unchanged in zip(arrays(corrupted(scan, name, 0)), before, strict=True):
        np.testing.assert_array_equal(array, unchanged)
    changed = corrupted(scan, name, levels(name))
    for array, unchanged in zip(arrays(scan), before, strict=True):
        np.testing.assert_array_equal(array, unchanged)
    assert any(
        a.shape != b.shape or (a != b).any() for a, b in zip(arrays(changed), before, strict=True)
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_and_the_index_alone_decide(name):
    scan, level = ring_scan(), levels(name)
    once, again, other = (corrupted(scan, name, level, index) for index in (3, 3, 4))
    for array, same in zip(arrays(once), arrays(again), strict=True):
        np.testing.assert_array_equal(array, same)
    if name not in (*CERTAIN, "intensity_gain", "intensity_offset"):  # those have but two signs
        assert len(once) != len(other) or (once.points != other.points).any()


@pytest.mark.parametrize("name", NAMES)
def test_labels_and_features_go_with_their_points(name):
    scan = ring_scan()
    for level in range(1, levels(name) + 1):
        changed = corrupted(scan, name, level)
        rows = number(changed)
        own = changed.labels == scan.labels[rows]
        assert (own | (changed.labels == IGNORE_INDEX)).all()
        if name not in ("fog", "snow", "motion_blur", "crosstalk", "range_noise"):
            assert own.all()
            np.testing.assert_array_equal(changed.points, scan.points[rows])
        if name in ("fog", "snow", "crosstalk"):  # what is elsewhere has no class
            moved = (changed.points != scan.points[rows]).any(1)
            np.testing.assert_array_equal(changed.labels == IGNORE_INDEX, moved)
            assert 0 < moved.sum() < len(changed)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 80), st.integers(0, 1000), st.sampled_from(NAMES))
def test_any_scan_gives_a_whole_scan(rows, seed, name):
    if name in ("beam_missing", "cross_sensor"):  # need rings
        return
    rng = np.random.default_rng(seed)
    scan = Scan(
        rng.normal(0, 20, (rows, 3)).astype(np.float32), rng.random(rows, dtype=np.float32),
        rng.integers(0, len(CLASSES), rows), "any",
    )  # fmt: skip
    for level in range(levels(name) + 1):
        changed = corrupted(scan, name, level)
        assert np.isfinite(changed.points).all()
        assert np.isfinite(changed.intensity).all()
        assert (rows == 0) == (len(changed) == 0) or name in ("incomplete_echo", "field_of_view")


def test_motion_blur_moves_the_scan_and_each_point():
    scan = ring_scan(steps=200)
    for level, deviation in enumerate((0.2, 0.25, 0.3), start=1):
        moves = np.stack(
            [corrupted(scan, "motion_blur", level, index).points - scan.points
             for index in range(60)]
        )  # fmt: skip
        spread = (moves - moves.mean(1, keepdims=True)).std((0, 1))
        expected = deviation * np.array([0.1, 0.1, 0.05])
        np.testing.assert_allclose(spread, expected, rtol=0.01)
        # Of 180 draws the deviation is known to 5 %.
        assert moves.mean(1).std() == pytest.approx(deviation, rel=0.16)


@pytest.mark.parametrize(
    ("beams", "lowest", "highest", "expected"),
    [(64, 4, 58, (14.0, 24.4, 32.2)), (32, 2, 28, (7.0, 12.2, 16.1))],
)
def test_beam_missing_draws_rings_with_replacement(beams, lowest, highest, expected):
    scan = ring_scan(beams, steps=10)
    for level, mean in enumerate(expected, start=1):
        gone = []
        for index in range(150):
            kept = corrupted(scan, "beam_missing", level, index, beams=beams)
            left, counts = np.unique(number(kept) // 10, return_counts=True)
            assert (counts == 10).all()
            gone.append(np.setdiff1d(np.arange(beams), left))
        assert np.mean([len(each) for each in gone]) == pytest.approx(mean, abs=0.4)
        drawn = np.unique(np.concatenate(gone))
        assert (drawn[0], drawn[-1]) == (lowest, highest)


def test_crosstalk_hits_a_share_and_the_intensity_too():
    scan = ring_scan(steps=500)
    for level, share in enumerate((0.006, 0.008, 0.01), start=1):
        changed = corrupted(scan, "crosstalk", level)
        hit = changed.labels == IGNORE_INDEX
        assert hit.sum() == int(share * len(scan))
        np.testing.assert_array_equal(changed.points[~hit], scan.points[~hit])
        np.testing.assert_array_equal(changed.intensity[~hit], scan.intensity[~hit])
        moves = np.column_stack([changed.points - scan.points, changed.intensity - scan.intensity])
        np.testing.assert_allclose(moves[hit].std(0), 3, rtol=0.2)
        assert changed.intensity.min() < 0
        assert changed.intensity.max() > 1


def test_incomplete_echo_takes_a_share_of_each_class_of_vehicles():
    scan = ring_scan()
    labels = scan.labels.copy()
    labels[labels == 2] = 1
    labels[:10] = 2  # a truck of ten points stays as it is
    scan = Scan(scan.points, scan.intensity, labels, "rings")
    before = np.bincount(labels)
    for level, share in enumerate((0.75, 0.85, 0.95), start=1):
        after = np.bincount(corrupted(scan, "incomplete_echo", level).labels)
        np.testing.assert_array_equal(after[[0, 2, 3, 4]], before[[0, 2, 3, 4]])
        assert after[1] == before[1] - int(share * before[1])


def test_cross_sensor_takes_beams_and_then_every_second_point():
    scan = ring_scan()
    for level, kept_rings in enumerate((48, 32, 15), start=1):
        changed = corrupted(scan, "cross_sensor", level)
        left = np.unique(number(changed) // 100)
        gone = {1: range(1, 64, 4), 2: range(1, 64, 2),
                3: [int(1 + 1.33 * i) for i in range(48) if 1 + 1.33 * i < 64]}[level]  # fmt: skip
        np.testing.assert_array_equal(left, np.setdiff1d(np.arange(64), gone))
        assert abs(len(left) - kept_rings) <= 1
        np.testing.assert_array_equal(np.unique(number(changed) % 100), np.arange(0, 100, 2))


def test_density_duplication_and_multiplicity_count():
    scan = ring_scan(steps=100)
    for level in range(1, 6):
        thinned = number(corrupted(scan, "density", level))
        assert len(thinned) == len(scan) - int(0.06 * level * len(scan))
        assert (np.diff(thinned) > 0).all()
        times = np.bincount(number(corrupted(scan, "duplication", level)))
        assert set(times) == {(2, 3, 4, 6, 8)[level - 1]}
        times = np.bincount(number(corrupted(scan, "multiplicity", level)))
        mean = (1, 2, 3, 5, 7)[level - 1]
        assert times.min() == 1
        assert (times - 1).mean() == pytest.approx(mean, rel=0.05)
        assert (times - 1).var() == pytest.approx(mean, rel=0.1)  # Poisson's


def test_intensity_gain_and_offset_have_two_signs_and_stay_in_the_range():
    scan = ring_scan()
    for level in range(1, 6):
        gains, offsets = set(), set()
        for index in range(20):
            louder = corrupted(scan, "intensity_gain", level, index).intensity
            inside = louder < 1
            gains.add(round(float((louder / scan.intensity)[inside].mean()), 4))
            moved = corrupted(scan, "intensity_offset", level, index).intensity
            inside = (moved > 0) & (moved < 1)
            offsets.add(round(float((moved - scan.intensity)[inside].mean()), 4))
            assert min(moved.min(), louder.min()) >= 0
            assert max(moved.max(), louder.max()) <= 1
        gain = 2 ** (0.3 * level)
        assert sorted(gains) == pytest.approx([1 / gain, gain], abs=1e-4)
        assert sorted(offsets) == pytest.approx([-0.08 * level, 0.08 * level], abs=1e-4)


def test_range_noise_is_along_the_ray():
    scan = ring_scan(steps=300)
    ranges = np.linalg.norm(scan.points, axis=1)
    for level in range(1, 6):
        moves = corrupted(scan, "range_noise", level).points - scan.points
        along = (moves * scan.points).sum(1) / ranges
        assert along.std() == pytest.approx(0.02 * level, rel=0.03)
        np.testing.assert_allclose(moves, (along / ranges)[:, None] * scan.points, atol=1e-5)


def test_range_noise_is_in_metres_next_to_the_sensor_too():
    scan = ray_scan(np.full(4000, 0.5))
    moves = corrupted(scan, "range_noise", 2).points - scan.points
    assert moves[:, 0].std() == pytest.approx(0.04, rel=0.05)


@pytest.mark.parametrize(
    ("level", "beta", "water", "snow"),
    [(1, 0.008, (0.2, 0.3), (0.5, 2.0)), (2, 0.05, (1.0, 0.3), (1.0, 1.6)),
     (3, 0.2, (1.2, 0.7), (2.5, 1.6))],
)  # fmt: skip
def test_weather_is_that_of_its_level(level, beta, water, snow):
    scan = ring_scan()
    rng = np.random.default_rng((5, 0))
    fog = in_fog(scan, rng.choice(EXTINCTIONS), beta, rng)
    changed = corrupted(scan, "fog", level)
    np.testing.assert_array_equal(changed.points, fog.points)
    np.testing.assert_array_equal(changed.intensity, fog.intensity)
    intensity, kept = on_wet_ground(scan, scan.labels == 0, *water)
    changed = corrupted(scan, "wet_ground", level)
    np.testing.assert_array_equal(changed.intensity, intensity[kept])
    np.testing.assert_array_equal(number(changed), np.flatnonzero(kept))
    flaky = in_snow(scan, *snow, np.random.default_rng((5, 0)))
    changed = corrupted(scan, "snow", level)
    np.testing.assert_array_equal(changed.points, flaky.points[~flaky.lost])
    np.testing.assert_array_equal(changed.intensity, flaky.intensity[~flaky.lost])


def test_field_of_view_keeps_what_is_ahead():
    scan = ring_scan(steps=360)
    azimuth = np.degrees(np.arctan2(scan.points[:, 1], scan.points[:, 0]))
    for level, half in enumerate((105, 90, 75, 60, 45), start=1):
        kept = number(corrupted(scan, "field_of_view", level))
        np.testing.assert_array_equal(kept, np.flatnonzero(abs(azimuth) < half))
        assert len(kept) == 64 * 2 * half


def test_cutout_takes_balls():
    scan = ring_scan(steps=100)
    size = len(scan) // 50
    for level, balls in enumerate((2, 3, 5, 7, 10), start=1):
        kept = corrupted(scan, "cutout", level)
        assert len(kept) == len(scan) - balls * size
    assert len(corrupted(scan.take(np.arange(3)), "cutout", 5)) == 1  # never all of them
    # Those that are gone at a level of one ball's points lie around one of them.
    gone = np.delete(scan.points, number(corrupted(scan, "cutout", 1)), axis=0)
    rest = corrupted(scan, "cutout", 1).points
    apart = np.linalg.norm(gone[:, None] - gone[None], axis=2)
    fits = [
        np.linalg.norm(rest - middle, axis=1).min() >= np.sort(row)[size - 1]
        for middle, row in zip(gone, apart, strict=True)
    ]
    assert any(fits)


def test_rings_of_a_real_scan_go_down(data_root):
    scan = SemanticKITTI(data_root / "semantickitti", ["00"])[0]
    found = rings(scan, 64)
    np.testing.assert_array_equal(np.unique(found), np.arange(64))
    slope = scan.points[:, 2] / np.linalg.norm(scan.points[:, :2], axis=1)
    median = np.array([np.median(slope[found == ring]) for ring in range(64)])
    assert (np.diff(median) < 0).all()


def test_what_is_asked_for_must_be_there():
    scan = ring_scan()
    shuffled = scan.take(np.random.default_rng(0).permutation(len(scan)))
    bare = Scan(scan.points, None, None, "bare")
    with pytest.raises(ValueError, match="scan rings has no 64 rings in the order of its points"):
        corrupted(shuffled, "beam_missing", 1)
    with pytest.raises(ValueError, match="azimuth starts again 31 times"):
        corrupted(ring_scan(31), "cross_sensor", 1)
    with pytest.raises(ValueError, match=r"wet_ground is for scans with labels.* bare has none"):
        corrupted(bare, "wet_ground", 1)
    for name in ("fog", "snow", "intensity_gain", "intensity_offset"):
        with pytest.raises(ValueError, match="scan bare has no feature 'intensity'"):
            corrupted(bare, name, 1)
    with pytest.raises(ValueError, match=r"incomplete_echo asks for the classes car, .*got none"):
        ScanCorruption("incomplete_echo")
    assert repr(ScanCorruption("fog", severity=2)) == "ScanCorruption('fog', severity=2)"
    with pytest.raises(ValueError, match=r"corruption 'fogg' is unknown; .*Did you mean 'fog'"):
        ScanCorruption("fogg")
    with pytest.raises(ValueError, match="severity of fog must be 0 to 3; got 4"):
        ScanCorruption("fog", 4)
    with pytest.raises(ValueError, match="beams must be the rings of the sensor, 16 or more"):
        ScanCorruption("beam_missing", beams=15)
    assert ScanCorruption("beam_missing", beams=16).sensor.beams == 16
    with pytest.raises(ValueError, match="severity of density must be 0 to 5; got -1"):
        ScanCorruption("density", -1)


def test_the_classes_that_wet_ground_and_incomplete_echoes_ask_for():
    for classes, ground, vehicles in (
        (SemanticKITTI.classes, {"road", "parking", "sidewalk", "other-ground"},
         {"car", "bicycle", "motorcycle", "truck", "other-vehicle"}),
        (NuScenes.classes, {"driveable_surface", "other_flat", "sidewalk"},
         {"car", "bicycle", "motorcycle", "truck", "bus", "construction_vehicle", "trailer"}),
    ):  # fmt: skip
        assert {*classes} & {*GROUND} == ground
        assert {*classes} & {*VEHICLES} == vehicles


def test_scans_without_labels_and_intensities_stay_without():
    whole = ring_scan(16)
    scan = Scan(whole.points, None, None, "bare")
    for name in ("motion_blur", "beam_missing", "crosstalk", "cross_sensor", "density", "cutout"):
        changed = corrupted(scan, name, 3, beams=16)
        assert (changed.intensity, changed.labels) == (None, None)
        assert len(changed) != len(scan) or (changed.points != scan.points).any()
    for name in ("fog", "snow"):
        changed = corrupted(Scan(whole.points, whole.intensity, None, "no labels"), name, 3)
        assert changed.labels is None


def test_rings_are_told_apart_where_the_azimuth_falls_from_its_last_fifth_to_its_first():
    turns = np.array([0.1, 0.79, 0.1, 0.81, 0.21, 0.81, 0.19, 0.9, 0.05, 0.7])
    points = np.column_stack([np.cos(turns * 2 * np.pi), np.sin(turns * 2 * np.pi), turns])
    scan = Scan(points.astype(np.float32), None, None, "rings")
    for beams in (6, 3):
        assert rings(scan, beams).tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 2, 2]
    assert rings(scan, 2).tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 1, 1]
    for beams in (7, 1):
        with pytest.raises(ValueError, match="azimuth starts again 3 times"):
            rings(scan, beams)
