"""Fog, snow and wet ground follow the laws of their papers."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from geonorm.datasets.scan import Scan
from geonorm.datasets.scan_weather import (
    EXTINCTIONS,
    _strongest,
    flakes,
    fog_return,
    in_fog,
    in_snow,
    on_wet_ground,
    wet_reflectivity,
)
from helpers.ring_scans import ray_scan


def test_fog_dims_by_the_way_there_and_back():
    seen = in_fog(ray_scan([10, 35]), alpha=0.03, beta=0, rng=np.random.default_rng(0))
    ratio = seen.intensity[1] / seen.intensity[0]
    assert ratio == pytest.approx(math.exp(-2 * 0.03 * (35 - 10)), rel=1e-5)
    assert seen.intensity[0] == pytest.approx(0.5 * math.exp(-0.6), rel=1e-5)
    assert not seen.moved.any()


@pytest.mark.parametrize(("alpha", "reach"), [(0.06, 50.0), (0.0, 4.0)])
def test_the_return_of_fog_is_the_integral_over_the_pulse(alpha, reach):
    best, where = fog_return(alpha)
    tau, light = 20e-9, 299_792_458.0

    def power(r0):
        """Sum over the fog from r0 backwards, in steps of half a millimetre."""
        r = np.arange(0.9, r0, 5e-4)
        t = 2 * (r0 - r) / light
        inside = t < 2 * tau
        value = np.sin(np.pi * t / (2 * tau)) ** 2 * ((r - 0.9) / 0.1).clip(0, 1)
        value = value * np.exp(-2 * alpha * r) / r**2
        return (value * inside).sum() * 5e-4 * 2 / light

    row = round(reach * 10)
    tried = np.arange(0, row + 1) / 10
    powers = [power(r0) for r0 in tried]
    assert best[row] == pytest.approx(max(powers), rel=2e-3)
    assert where[row] == pytest.approx(tried[int(np.argmax(powers))], abs=0.11)


def test_fog_that_returns_more_than_the_wall_is_seen_in_its_place():
    scan = ray_scan(np.linspace(5, 80, 4000))
    ranges = scan.points[:, 0].astype(np.float64)
    seen = in_fog(scan, alpha=0.06, beta=0.05, rng=np.random.default_rng(0))
    strength, distance = fog_return(0.06)
    row = (ranges * 10).astype(int)
    soft = 0.5 * ranges**2 * 0.05 * np.pi / 1e-6 * strength[row]
    hard = 0.5 * np.exp(-0.12 * ranges)
    np.testing.assert_array_equal(seen.moved, soft > hard)
    np.testing.assert_allclose(seen.intensity, np.maximum(soft, hard), rtol=1e-4)
    assert seen.intensity.max() > 1  # not cut off
    # The range is R0 times that of the fog, over a number drawn evenly from R0 - 10 to R0 + 10.
    far = seen.moved & (ranges > 15)
    offset = ranges[far] * distance[row][far] / seen.points[far, 0] - ranges[far]
    assert abs(offset).max() < 10.001
    assert offset.mean() == pytest.approx(0, abs=0.4)
    assert offset.std() == pytest.approx(20 / math.sqrt(12), rel=0.03)
    assert EXTINCTIONS == (0.0, 0.005, 0.01, 0.02, 0.03, 0.06)


def test_fog_is_put_no_farther_than_a_thousand_times_its_distance_times_that_of_the_wall():
    """Of walls nearer than 10 m the number that is drawn may be next to 0, and negative."""
    scan = ray_scan([8.0, 8.0, 8.0])
    _, distance = fog_return(0.06)
    for drawn, over in ((0.0, 1e-3), (-9e-4, 1e-3), (-0.5, -0.5), (0.5, 0.5)):
        rng = SimpleNamespace(uniform=lambda low, high, drawn=drawn: np.full_like(low, drawn))
        seen = in_fog(scan, alpha=0.06, beta=5.0, rng=rng)
        assert seen.moved.all()
        np.testing.assert_allclose(seen.points[:, 0], 8 * distance[80] / over, rtol=1e-5)


def test_flakes_of_the_three_levels_as_the_benchmark_tabulates_them():
    # Rain and share of the plane, as the names of its sampled flakes give them.
    for rate, speed, rain, filled in [
        (0.5, 2.0, 2.2383844962893775, 6.944444444444445e-07),
        (1.0, 1.6, 8.847991609353935, 1.7361111111111108e-06),
        (2.5, 1.6, 34.97475775452152, 4.340277777777777e-06),
    ]:
        number, mean = flakes(rate, speed)
        assert mean == pytest.approx(0.01 / (25.5 * rain**-0.48), rel=1e-9)
        assert number * math.pi * mean**2 / 2 == pytest.approx(filled, rel=1e-9)


def test_before_a_black_wall_every_flake_is_seen():
    scan = ray_scan(np.full(200_000, 12.0), intensity=0)
    seen = in_snow(scan, 2.5, 1.6, np.random.default_rng(0))
    number, _ = flakes(2.5, 1.6)
    expected = 1 - math.exp(-number * math.tan(0.0015) * (12**2 - 0.9**2))
    assert seen.moved.mean() == pytest.approx(expected, rel=0.03)
    at = seen.points[seen.moved, 0]
    assert 0.9 <= at.min() < 0.94
    assert at.max() <= 12
    # Evenly in the area of a triangle, but for a few beams with two flakes.
    assert np.square(at).mean() == pytest.approx((12**2 + 0.9**2) / 2, rel=0.06)
    assert seen.intensity.max() <= np.float32(0.9)
    assert not seen.lost.any()
    # A flake of diameter D, exponential with mean m, covers min(1, D / w) of a beam w wide: on
    # average m / w (1 - exp(-w / m)). Of two flakes the nearer is seen as a rule; far ones seldom.
    _, mean = flakes(2.5, 1.6)
    far = at > 6
    width = 2 * math.tan(0.0015) * at[far].astype(np.float64)
    covered = seen.intensity[seen.moved][far].mean() / 0.9
    assert covered == pytest.approx(np.mean(mean / width * -np.expm1(-width / mean)), rel=0.04)


def test_snow_takes_light_by_the_width_that_flakes_cover():
    number, mean = flakes(2.5, 1.6)
    for wall in (10.0, 40.0):
        scan = ray_scan(np.full(200_000, wall), intensity=1)
        seen = in_snow(scan, 2.5, 1.6, np.random.default_rng(1), noise_floor=0)
        taken = 1 - seen.intensity[~seen.moved]
        assert 0 < taken.mean() < number * mean * wall
        if wall == 40:
            least = number * mean * (40 - 15)
            assert seen.intensity[~seen.moved].max() == pytest.approx(1 - least, abs=1e-5)
        else:
            assert seen.intensity[~seen.moved].max() == 1


def test_what_is_weaker_than_the_noise_is_lost():
    ranges = np.linspace(2, 50, 1000)
    seen = in_snow(ray_scan(ranges), 0.5, 2.0, np.random.default_rng(0), noise_floor=3)
    weakest = np.quantile(0.5 / ranges**2, 0.01)
    power = seen.intensity / np.linalg.norm(seen.points, axis=1) ** 2
    np.testing.assert_array_equal(seen.lost, power < 3 * weakest)
    assert 0 < seen.lost.sum() < 1000


def test_of_each_beam_the_flake_that_returns_most_is_seen():
    beam, reflected = np.array([2, 0, 2, 0, 2]), np.array([0.9, 0.2, 0.4, 0.1, 0.6])
    r = np.array([3.0, 2.0, 1.0, 1.0, 1.5])
    power, at, share = _strongest(beam, reflected, r, 4)  # 0.1, 0.05, 0.4, 0.1 and 0.27
    np.testing.assert_allclose(power, [0.1, 0, 0.4, 0])
    np.testing.assert_array_equal(at, [1, 0, 1, 0])
    np.testing.assert_array_equal(share, [0.1, 0, 0.4, 0])


def test_what_is_next_to_the_sensor_is_seen_as_it_is_and_what_is_very_far_not_brighter():
    ranges = np.full(100, 0.5)
    ranges[7] = 0.56
    seen = in_snow(ray_scan(ranges), 2.5, 1.6, np.random.default_rng(0), noise_floor=1)
    np.testing.assert_array_equal(seen.intensity, np.float32(0.5))
    np.testing.assert_array_equal(seen.lost, ranges > 0.5)  # returns less than one in a hundred
    seen = in_snow(ray_scan(np.full(50, 2000.0)), 2.5, 1.6, np.random.default_rng(0))
    assert (seen.intensity[~seen.moved] == 0).all()
    assert (~seen.moved).sum() > 5


def test_water_mirrors_as_fresnel_says():
    straight = ((1.33 - 1.0003) / (1.33 + 1.0003)) ** 2
    brewster = math.atan(1.33 / 1.0003)
    shares = wet_reflectivity(np.array([0, brewster, math.pi / 2]), np.array([0.2, 0.3, 0.3]))
    assert shares[0] == pytest.approx((1 - straight) ** 2 * 0.2 / (1 - 0.2 * straight))
    assert shares[1:] == pytest.approx([0.3, 0])  # all of one polarization enters; none does


def ground(rows, reach=25.0, seed=0):
    """Return flat ground 1.8 m below the sensor that returns 0.4 cos θ, and which points it is."""
    rng = np.random.default_rng(seed)
    points = np.full((rows, 3), -1.8)
    points[:, :2] = rng.uniform(-reach, reach, (rows, 2))
    cosine = 1.8 / np.linalg.norm(points, axis=1)
    scan = Scan(points.astype(np.float32), (0.4 * cosine).astype(np.float32), None, "ground")
    return scan, cosine


def test_wet_ground_returns_what_the_formula_says():
    scan, cosine = ground(2000)
    which = np.ones(2000, dtype=bool)
    which[:500] = False
    intensity, kept = on_wet_ground(scan, which, water=0.6, noise_floor=0.3)
    np.testing.assert_array_equal(intensity[:500], scan.intensity[:500])
    assert kept[:500].all()
    for row in range(500, 540):  # the laser sends 15 · 0.4, so that ρ = 1/15
        angle = math.acos(cosine[row])
        film = float(wet_reflectivity(np.array([angle]), np.array([1 / 15]))[0])
        expected = 15 * 0.4 * cosine[row] * (0.5 / 15 + 0.5 * film / angle)
        assert intensity[row] == pytest.approx(min(expected, scan.intensity[row]), rel=1e-4)
        assert kept[row] == (expected > 0.3 * 0.4 * cosine[row])
    assert (intensity < scan.intensity * 0.999).any()


def test_dark_wet_ground_is_lost_and_little_ground_is_left_alone():
    scan, _ = ground(4000, reach=4.0)
    dark = scan.intensity * np.where(np.arange(4000) % 4 == 0, 0.1, 1.3).astype(np.float32)
    spotted = Scan(scan.points, dark, None, "spots")
    _, kept = on_wet_ground(spotted, np.ones(4000, dtype=bool), water=1.2, noise_floor=0.3)
    assert not kept[::4].any()
    assert kept[1::4].mean() > 0.95
    which = np.arange(4000) < 999
    intensity, kept = on_wet_ground(spotted, which, water=1.2, noise_floor=0.7)
    assert kept.all()
    np.testing.assert_array_equal(intensity, dark)


def test_ground_above_the_sensor_counts_as_grazed():
    scan, _ = ground(2000)
    scan.points[3] = (4, 0, 0.5)
    scan.intensity[3] = 1e-3
    intensity, _ = on_wet_ground(scan, np.ones(2000, dtype=bool), water=0.6, noise_floor=0.3)
    assert 0 < intensity[3] < 1e-3


def test_fog_beyond_its_table_is_that_of_its_end():
    seen = in_fog(ray_scan([350.0]), alpha=0.06, beta=0.05, rng=np.random.default_rng(0))
    strength, distance = fog_return(0.06)
    assert len(strength) == len(distance) == 2001
    assert seen.moved.all()
    assert seen.intensity[0] == pytest.approx(
        0.5 * 350**2 * 0.05 * np.pi / 1e-6 * strength[2000], rel=1e-5
    )
    assert 340 < distance[2000] * 350 / seen.points[0, 0] < 360


def test_returns_of_nothing_neither_count_for_the_noise_nor_are_lost():
    ranges = np.linspace(2, 50, 999)
    scan = ray_scan(ranges, intensity=0.5)
    scan.intensity[::3] = 0
    clear = scan.intensity > 0
    weakest = np.quantile(0.5 / ranges[clear] ** 2, 0.01)
    for options, floor in (({}, 0.7), ({"noise_floor": 3}, 3)):
        seen = in_snow(scan, 2.5, 1.6, np.random.default_rng(0), **options)
        power = seen.intensity / np.linalg.norm(seen.points, axis=1) ** 2
        expected = (power < floor * weakest) & (clear | seen.moved)
        np.testing.assert_array_equal(seen.lost, expected)
        assert (power < floor * weakest).sum() - expected.sum() > 0
    assert expected.sum() > 10


def test_no_flake_is_nearer_than_the_sensor_sees():
    seen = in_snow(ray_scan(np.full(200_000, 0.9), 0), 2.5, 1.6, np.random.default_rng(0))
    assert not seen.moved.any()


def test_a_thousand_points_of_ground_are_enough_and_a_full_texture_takes_no_more_water():
    scan, _ = ground(1000)
    wet = [
        on_wet_ground(scan, np.ones(1000, dtype=bool), water=water, noise_floor=0.7)[0]
        for water in (1.1, 1.2, 5.0)
    ]
    assert (wet[0] != wet[1]).any()
    assert (wet[1] < scan.intensity).any()
    np.testing.assert_array_equal(wet[1], wet[2])


def test_under_water_no_ground_counts_as_darker_than_a_twentieth():
    scan, cosine = ground(2000)
    spots = np.where(np.arange(2000) % 2 == 0, 0.6, 1.4)
    spotted = Scan(scan.points, scan.intensity * spots.astype(np.float32), None, "spots")
    intensity, _ = on_wet_ground(spotted, np.ones(2000, dtype=bool), 1.2, 0.3)
    distance = 1.8 / cosine
    slope, start = np.polyfit(distance, 0.4 * spots, 1)
    sent, angle = 15 * (slope * distance + start), np.arccos(cosine)
    film = wet_reflectivity(angle, (0.4 * spots / sent).clip(0.05, 1))
    expected = np.minimum(sent * cosine * film / angle, spotted.intensity)
    np.testing.assert_allclose(intensity, expected, rtol=1e-3)
    dark = 0.4 * spots / sent < 0.045
    assert (dark & (expected < spotted.intensity * 0.99)).sum() > 20
