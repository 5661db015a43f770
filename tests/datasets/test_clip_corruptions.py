"""Corruptions of clips, each measured from its output against its definition."""

import colorsys
from typing import get_args

import numpy as np
import pytest
import torch

from geonorm.datasets import AppearanceShift, ClipCorruption, ClipTransform
from geonorm.datasets.clip_corruptions import (
    MINI_KINETICS_C,
    Corruption,
    display_values,
    linear_light,
)
from geonorm.datasets.clip_weather import plasma, rain

NAMES = get_args(Corruption)
# Of these, what is drawn is a function of (seed, index); the others draw nothing.
DRAWN = {"shot_noise", "rain", "fog", "packet_loss", "gain", "gamma", "cast", "flicker",
         "linear_noise"}  # fmt: skip
SHAPE = (18, 3, 40, 56)


def moving() -> torch.Tensor:
    """Return a clip in which a bright square crosses a coloured pattern."""
    rows, columns = np.mgrid[:40, :56]
    ground = np.stack([60 + 2 * columns, 40 + 3 * rows, 100 + 40 * np.sin(rows / 3)])
    film = np.repeat(ground[None], 18, 0)
    for frame in range(18):
        film[frame, :, 10:24, 2 * frame : 2 * frame + 14] = np.array([220, 180, 90])[:, None, None]
    return torch.from_numpy(film.round().astype(np.uint8))


def grey(value: int, *size: int) -> torch.Tensor:
    """Return a clip of one grey."""
    frames, height, width = size or (2, 64, 64)
    return torch.full((frames, 3, height, width), value, dtype=torch.uint8)


def corrupted(name: str, severity: int, clip: torch.Tensor, seed: int = 0, **options) -> np.ndarray:
    """Return what a corruption makes of a clip, in [0, 1]."""
    out = ClipCorruption(name, severity, **options)(clip, np.random.default_rng(seed))
    return out.double().numpy() / 255


def levels(name: str, clip: torch.Tensor, measure, **options) -> list[float]:
    """Return a measure of the clip at each level."""
    return [float(measure(corrupted(name, level, clip, **options))) for level in range(1, 6)]


def test_the_benchmark_has_twelve():
    assert len(set(MINI_KINETICS_C)) == 12
    assert set(MINI_KINETICS_C) < set(NAMES)
    assert len(NAMES) == 20


@pytest.mark.parametrize("name", NAMES)
def test_properties_of_all(name: str):
    clip = moving()
    before = clip.clone()
    assert tuple(clip.shape) == SHAPE
    same = ClipCorruption(name, 0)(clip, np.random.default_rng((1, 2)))
    assert torch.equal(same, clip)
    assert same.data_ptr() != clip.data_ptr()
    for severity in (1, 5):
        out = ClipCorruption(name, severity)(clip, np.random.default_rng((1, 2)))
        assert (out.dtype, tuple(out.shape)) == (torch.uint8, SHAPE)
        assert out.is_contiguous()
        again = ClipCorruption(name, severity)(clip, np.random.default_rng((1, 2)))
        assert torch.equal(again, out)
    others = [ClipCorruption(name, 5)(clip, np.random.default_rng((1, n))) for n in range(3, 11)]
    assert any(not torch.equal(other, out) for other in others) == (name in DRAWN)
    assert torch.equal(clip, before)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("saturate", "bit_error", "gain",
                                                                "packet_loss", "fog")])
def test_a_higher_level_changes_more(name: str):
    clip = moving()
    off = levels(name, clip, lambda out: np.square(out - clip.numpy() / 255).mean())
    assert sorted(off) == off
    assert off[4] > 1.5 * off[0] > 0


@pytest.mark.parametrize(("severity", "photons"), [*enumerate((60, 25, 12, 5, 3), 1)])
def test_shot_noise_is_poisson(severity: int, photons: int):
    """Light x gives values of mean x and variance x / c, each a whole number of photons."""
    value = 64 / 255  # low enough that few counts are cut off at white
    out = corrupted("shot_noise", severity, grey(64, 6, 100, 100))
    kept = out[out < 1]
    assert np.abs(kept * photons - np.round(kept * photons)).max() <= photons / 510 + 1e-9
    chances = np.array([1.0])
    for count in range(1, 200):
        chances = np.append(chances, chances[-1] * value * photons / count)
    chances *= np.exp(-value * photons)
    values = np.minimum(np.arange(200) / photons, 1)
    mean = (chances * values).sum()
    assert out.mean() == pytest.approx(mean, abs=0.005)
    spread = (chances * (values - mean) ** 2).sum()
    assert out.var() == pytest.approx(spread, rel=0.03)
    assert spread == pytest.approx(value / photons, rel=0.2)
    frames = (out - out.mean()).reshape(6, -1)
    assert np.abs(np.corrcoef(frames) - np.eye(6)).max() < 0.03


def test_contrast_is_about_the_mean_of_each_frame_and_channel():
    clip = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    clip[0, 0], clip[0, 1], clip[1, 0], clip[1, 1] = 40, 80, 120, 200
    clip[:, :, :8] += 50
    for severity, factor in enumerate((0.5, 0.4, 0.3, 0.2, 0.1), 1):
        out = corrupted("contrast", severity, clip) * 255
        means = clip.double().mean((2, 3))
        for frame in range(2):
            for channel in range(3):
                expected = (clip[frame, channel, [0, 15], 0] - means[frame, channel]) * factor
                found = out[frame, channel, [0, 15], 0] - means[frame, channel].item()
                assert found == pytest.approx(expected.numpy(), abs=0.51)


def every_colour() -> torch.Tensor:
    """Return a clip of one frame with colours of all hues, greys, black and white."""
    steps = torch.tensor([0, 20, 90, 128, 200, 255], dtype=torch.uint8)
    colours = torch.cartesian_prod(steps, steps, steps).T.reshape(3, 12, 18)
    return torch.nn.functional.pad(colours, (0, 0, 0, 4))[None]


@pytest.mark.parametrize(("name", "change"), [
    ("brightness", lambda h, s, v, level: (h, s, min(v + level / 10, 1))),
    ("saturate", lambda h, s, v, level: (h, min(s * (0.3, 0.1, 2, 5, 20)[level - 1]
                                                + (0, 0, 0, 0.1, 0.2)[level - 1], 1), v)),
])  # fmt: skip
@pytest.mark.parametrize("severity", range(1, 6))
def test_changes_of_hsv_are_those_of_the_standard_library(name: str, change, severity: int):
    clip = every_colour()
    out = corrupted(name, severity, clip)
    for row, column in np.ndindex(12, 18):
        hue, saturation, value = colorsys.rgb_to_hsv(*(clip[0, :, row, column] / 255).tolist())
        expected = colorsys.hsv_to_rgb(*change(hue, saturation, value, severity))
        assert out[0, :, row, column] == pytest.approx(expected, abs=0.51 / 255)


def test_saturation_turns_grey_reddish_as_the_benchmark_does():
    out = corrupted("saturate", 5, grey(200))[0, :, 0, 0] * 255
    assert out.tolist() == pytest.approx([200, 160, 160])
    pale = grey(200)
    pale[:, 1], pale[:, 2] = 198, 196  # a saturation of 0.02, which becomes 0.6
    out = corrupted("saturate", 5, pale)[0, :, 0, 0] * 255
    assert out.tolist() == pytest.approx([200, 140, 80], abs=0.51)


@pytest.mark.parametrize(("severity", "reach"), [*enumerate((3, 5, 7, 9, 11), 1)])
def test_motion_blur_is_a_mean_over_twice_as_many_frames(severity: int, reach: int):
    """Of 30 frames one is white: it shows, equally dim, in as many frames as the window has."""
    clip = grey(0, 30, 16, 16)
    clip[15] = 255
    seen = corrupted("motion_blur", severity, clip)[:, 0, 0, 0]
    # Frame i is the mean of i − c … i + c − 1: frame 15 shows in 16 − c … 15 + c.
    inside = np.arange(30) >= 16 - reach
    inside &= np.arange(30) <= 15 + reach
    widths = np.minimum(np.arange(30) + reach, 30) - np.maximum(np.arange(30) - reach, 0)
    assert seen == pytest.approx(inside / widths, abs=0.51 / 255)
    assert seen[15] == pytest.approx(1 / (2 * reach), abs=0.51 / 255)


@pytest.mark.parametrize(("severity", "rate"), [*enumerate((20, 16, 12, 9, 6), 1)])
def test_frame_rate_shows_so_many_frames_a_second(severity: int, rate: int):
    """Six seconds of 30 frames, each of its own grey: as many greys stay as frames are shown."""
    clip = torch.arange(180, dtype=torch.uint8)[:, None, None, None].expand(180, 3, 16, 16)
    shown = (corrupted("frame_rate", severity, clip, fps=30)[:, 0, 0, 0] * 255).round()
    assert len(set(shown)) == 6 * rate
    late = np.arange(180) - shown
    assert late.min() == 0
    assert late.max() <= np.ceil(30 / rate) - 1
    holds = np.unique(shown, return_counts=True)[1]
    assert holds.min() >= np.floor(30 / rate)
    assert holds.max() <= np.ceil(30 / rate)


def test_frame_rate_leaves_a_slower_clip():
    clip = moving()
    for severity, fps in ((1, 20), (2, 15), (5, 6)):
        assert torch.equal(
            ClipCorruption("frame_rate", severity, fps=fps)(clip, np.random.default_rng(0)), clip
        )


def test_fog_is_one_layer_for_the_whole_clip():
    """Frames that stand still stay still, and brighter frames get the same layer, scaled."""
    clip = grey(100, 3, 224, 224)
    clip[2] = 50
    for severity, strength in enumerate((1.5, 2, 2.5, 2.5, 3), 1):
        out = corrupted("fog", severity, clip)
        assert np.array_equal(out[0], out[1])
        assert np.array_equal(out[:, 0], out[:, 2])
        layers = []
        for frame, most in ((0, 100 / 255), (2, 50 / 255)):
            layer = (out[frame, 0] * (most + strength) / most - most) / strength
            layers.append(layer)
            step = (most + strength) / most / strength * 0.51 / 255
            assert -step < layer.min()
            assert layer.max() < 1 + step
        assert np.abs(layers[0] - layers[1]).max() < 4 * step
        assert layers[0].std() > 0.08


def test_fog_is_that_of_its_level():
    """(x + c p) m / (m + c), p being the corner of a plasma of 256 pixels each way."""
    clip = grey(100, 1, 224, 224)
    parameters = [(1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)]
    for severity, (strength, decay) in enumerate(parameters, 1):
        layer = plasma(256, decay, np.random.default_rng(0))[:224, :224]
        x = 100 / 255
        expected = (x + strength * layer) * x / (x + strength)
        assert corrupted("fog", severity, clip)[0, 1] == pytest.approx(expected, abs=0.51 / 255)


def test_fog_looks_the_same_at_any_size():
    """The layer of a small clip is the large one's, averaged over each small pixel."""
    large, small = grey(100, 1, 224, 224), grey(100, 1, 56, 56)
    coarse = corrupted("fog", 3, large)[0, 0].reshape(56, 4, 56, 4).mean((1, 3))
    fine = corrupted("fog", 3, small)[0, 0]
    assert np.corrcoef(coarse.ravel(), fine.ravel())[0, 1] > 0.98
    assert np.abs(coarse - fine).mean() < 0.01


def test_plasma_is_rougher_where_noise_decays_less():
    rough = [np.abs(np.diff(plasma(256, decay, np.random.default_rng(0)))).mean()
             for decay in (1.4, 1.7, 2.0)]  # fmt: skip
    assert rough[0] > 1.4 * rough[1] > 1.4 * rough[2]
    layer = plasma(64, 2, np.random.default_rng(1))
    assert (layer.min(), layer.max()) == (0, 1)
    joined = np.abs(layer[:, 0] - layer[:, -1]).mean(), np.abs(np.diff(layer)).mean()
    assert joined[0] < 3 * joined[1]


def test_plasma_by_hand():
    """A map of 2 × 2: corner 0, the middle and the edges are noise about the means around them."""
    rng = np.random.default_rng(5)
    first, second, third = (rng.uniform(-1, 1) for _ in range(3))
    heights = np.array([[0, first / 2 + second], [first / 2 + third, first]])
    heights -= heights.min()
    assert plasma(2, 3, np.random.default_rng(5)) == pytest.approx(heights / heights.max())


def test_plasma_height_by_height():
    """Each height is the mean of the four around it, and noise that falls by decay squared."""
    side, rng = 8, np.random.default_rng(3)
    heights, step, noise = np.zeros((side, side)), side, 1.0

    def near(row, column, *ways):
        return sum(heights[(row + y) % side, (column + x) % side] for y, x in ways) / 4

    while step >= 2:
        half = step // 2
        starts = range(0, side, step)
        corners = [(y, x) for y in (-half, half) for x in (-half, half)]
        edges = [(-half, 0), (half, 0), (0, -half), (0, half)]
        for down, right, ways in ((half, half, corners), (0, half, edges), (half, 0, edges)):
            drawn = rng.uniform(-noise, noise, (len(starts), len(starts)))
            for i, row in enumerate(starts):
                for j, column in enumerate(starts):
                    place = row + down, column + right
                    heights[place] = near(*place, *ways) + drawn[i, j]
        step, noise = half, noise / 1.7**2
    heights -= heights.min()
    assert plasma(8, 1.7, np.random.default_rng(3)) == pytest.approx(heights / heights.max())


@pytest.mark.parametrize("severity", range(1, 6))
def test_rain_is_streaks_of_the_length_and_number_told(severity: int):
    """On black a streak alone, blurred and seen through itself, has a third of its light."""
    out = corrupted("rain", severity, grey(0, 4, 224, 224))[:, 0]
    length = (10, 30, 60, 60, 80)[severity - 1] + 1
    count = 224 * 224 / (770, 770, 770, 500, 400)[severity - 1]
    darken = (0.8, 0.8, 0.7, 0.6, 0.5)[severity - 1]
    streaks = out > out.min() + darken * (220 / 255) ** 2 / 3 * 0.55
    assert not np.array_equal(streaks[0], streaks[1])
    covered = 1 - np.exp(-count * length / 224**2)
    assert streaks.mean() == pytest.approx(covered, rel=0.2)
    if severity == 1:  # in which few touch
        heights = [rows for frame in streaks for rows in heights_of_patches(frame)]
        assert np.median(heights) == length
        assert len(heights) == pytest.approx(4 * count, rel=0.25)
        alone = np.median(out[out > out.min() + darken * (220 / 255) ** 2 / 3 * 0.8])
        assert alone - out.min() == pytest.approx(darken * (220 / 255) ** 2 / 3, rel=0.05)


@pytest.mark.parametrize(("severity", "length"), [*enumerate((10, 30, 60, 60, 80), 1)])
def test_a_streak_is_as_long_as_told(severity: int, length: int):
    film = np.zeros((3, 224, 2, 3), np.float32)  # so narrow that it has one
    out = rain(film, severity, 25.0, np.random.default_rng(0))
    wet = (out > out.min() + 0.01).any((2, 3))
    assert wet.sum(1).tolist() == [length + 1] * 3


def test_a_streak_leans_to_the_left_by_one_column():
    film = np.zeros((8, 224, 5, 3), np.float32)  # so narrow that it has one
    out = rain(film, 2, 25.0, np.random.default_rng(0))
    for frame in (out > out.min() + 0.01).any(-1):
        rows, columns = frame.nonzero()
        top = columns[0]
        assert columns.tolist() == [top] * 16 + [max(top - 1, 0)] * 15
        assert np.ptp(rows) == 30
    low = rain(np.zeros((3, 16, 2, 3), np.float32), 1, 25.0, np.random.default_rng(0))
    assert (low > low.min() + 0.01).any((2, 3)).sum(1).tolist() == [2] * 3  # one long, ends told


def heights_of_patches(mask: np.ndarray) -> list[int]:
    """Return how many rows each patch of pixels that touch has."""
    left, heights = {tuple(place) for place in np.argwhere(mask)}, []
    while left:
        edge, rows = [left.pop()], set()
        while edge:
            row, column = edge.pop()
            rows.add(row)
            near = {(row + y, column + x) for y in (-1, 0, 1) for x in (-1, 0, 1)} & left
            left -= near
            edge += near
        heights.append(max(rows) - min(rows) + 1)
    return heights


def test_rain_covers_as_much_of_a_small_frame():
    shares = []
    for side in (224, 112, 56):
        clip = grey(0, 20, side, side)
        out = corrupted("rain", 4, clip)[:, 0]
        shares.append((out > out.min() + 0.05).mean())
    assert shares == pytest.approx([shares[0]] * 3, rel=0.25)


def test_rain_lightens_the_dark_and_lowers_contrast():
    clip = grey(20, 4, 112, 112)
    clip[..., 56:] = 230
    out = corrupted("rain", 5, clip)
    dark, bright = np.median(out[..., :56]), np.median(out[..., 56:])
    assert bright - dark == pytest.approx((230 - 20) / 255 * 0.5, rel=0.1)
    assert out[..., :56].std() > 3 * out[..., 56:].std()


@pytest.mark.parametrize("severity", range(1, 6))
def test_gain_is_a_factor_up_or_down(severity: int):
    factor = 2 ** (0.3 * severity)
    found = {round(float(corrupted("gain", severity, grey(80), seed)[0, 0, 0, 0] * 255))
             for seed in range(9)}  # fmt: skip
    assert found == {min(round(80 * factor), 255), round(80 / factor)}


def test_flicker_is_a_wave_of_gains():
    clip = moving()
    for severity in (1, 5):
        for seed in range(6):
            out = corrupted("flicker", severity, clip // 2, seed)
            gains = out.sum((1, 2, 3)) / (clip // 2).double().numpy().sum((1, 2, 3)) * 255
            part = out / np.maximum((clip // 2).double().numpy() / 255, 1e-9)
            assert np.abs(part / gains[:, None, None, None] - 1).max() < 0.1
            wave = (gains - 1) / (0.1 * severity)
            assert np.abs(wave).max() < 1.03
            # Any wave of one frequency obeys w(t + 1) + w(t − 1) = 2 cos(2π f) w(t).
            slope = np.linalg.lstsq(wave[1:-1, None], wave[2:] + wave[:-2], rcond=None)[0][0]
            assert 2 * np.cos(2 * np.pi * 0.4) - 0.1 < slope < 2 * np.cos(2 * np.pi * 0.1) + 0.1
            assert np.abs(wave[2:] + wave[:-2] - slope * wave[1:-1]).max() < 0.2


def test_light_is_that_of_srgb():
    light = linear_light(np.array([0, 0.04, 0.5, 1]))
    assert light == pytest.approx([0, 0.00309598, 0.2140411, 1], rel=1e-5)
    values = np.linspace(0, 1, 99)
    assert display_values(linear_light(values)) == pytest.approx(values)


@pytest.mark.parametrize(("severity", "white"), [*enumerate((800, 400, 200, 100, 50), 1)])
def test_linear_noise_has_its_spread_in_light(severity: int, white: int):
    """Variance x / c + (3 / c)² in light; in values a dark grey is noisier than a bright one."""
    for value in (150, 200):
        light = linear_light(np.array(value / 255))
        out = linear_light(corrupted("linear_noise", severity, grey(value, 4, 100, 100)))
        assert out.mean() == pytest.approx(light, rel=0.02)
        assert out.var() == pytest.approx(light / white + (3 / white) ** 2, rel=0.06)
    dark, bright = (corrupted("linear_noise", severity, grey(value, 4, 60, 60)).std()
                    for value in (50, 200))  # fmt: skip
    assert dark > 1.2 * bright


@pytest.mark.parametrize("kind", ["gamma", "cast", "blur"])
def test_those_of_appearance_shift_are_its_own(kind: str):
    out = ClipCorruption(kind, 4)(moving(), np.random.default_rng(3))
    assert torch.equal(out, AppearanceShift(kind, 4)(moving(), np.random.default_rng(3)))


def test_in_a_transform_it_is_a_function_of_seed_and_index():
    transform = ClipTransform((40, 56), train=False, shift=ClipCorruption("shot_noise", 4),
                              mean=(0, 0, 0), std=(1, 1, 1))  # fmt: skip
    clip = moving()
    first = transform(clip, (7, 0, 3))
    expected = corrupted("shot_noise", 4, clip, seed=(7, 0, 3, 1)).transpose(1, 0, 2, 3)
    assert first.numpy() == pytest.approx(expected, abs=1e-6)
    assert not torch.equal(transform(clip, (7, 0, 4)), first)
    assert not torch.equal(transform(clip, (8, 0, 3)), first)


@pytest.mark.parametrize(("arguments", "message"), [
    (("foggy", 1), "corruption 'foggy' is unknown; .*fog"),
    (("fog", 6), "severity must be 0, 1, 2, 3, 4 or 5; got 6"),
    (("fog", -1), "severity must be 0, 1, 2, 3, 4 or 5; got -1"),
    (("fog", 1, 0.0), "fps must be above 0 frames per second; got 0.0"),
    (("fog", 1, float("nan")), "fps must be above 0 frames per second; got nan"),
])  # fmt: skip
def test_bad_arguments(arguments, message: str):
    with pytest.raises(ValueError, match=message):
        ClipCorruption(*arguments)


def test_bad_clips():
    rng = np.random.default_rng(0)
    rainy = ClipCorruption("rain", 1)
    with pytest.raises(TypeError, match=r"expected a uint8 clip .* got torch\.float32"):
        rainy(moving().float(), rng)
    with pytest.raises(TypeError, match=r"expected a uint8 clip .* got ndarray"):
        rainy(moving().numpy(), rng)
    for shape in ((3, 40, 56), (2, 4, 40, 56), (0, 3, 40, 56), (2, 3, 15, 56), (2, 3, 56, 15),
                  (2, 3, 40, 56, 16)):  # fmt: skip
        with pytest.raises(ValueError, match=r"expected a clip \(T, 3, H, W\) of at least 1 frame"):
            rainy(torch.zeros(shape, dtype=torch.uint8), rng)
    assert repr(rainy) == "ClipCorruption('rain', severity=1, fps=25.0)"
