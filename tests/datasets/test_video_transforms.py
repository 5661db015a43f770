"""Transforms of clips and shifts of appearance: the same in every frame, drawn from the key."""

import colorsys

import numpy as np
import pytest
import torch
from torch import Tensor

from geonorm.datasets import AppearanceShift, ClipTransform

KINDS = ["brightness", "contrast", "cast", "gamma", "noise", "blur", "background"]


@pytest.fixture
def still() -> Tensor:
    """One random picture, six times: whatever differs between frames afterwards is a fault."""
    picture = torch.randint(0, 256, (1, 3, 40, 56), generator=torch.Generator().manual_seed(0))
    return picture.to(torch.uint8).repeat(6, 1, 1, 1)


def full() -> ClipTransform:
    return ClipTransform(32, train=True, scale=(0.3, 1.0), flip=0.5, jitter=0.4)


def test_test_time_is_the_centre_normalized(still: Tensor) -> None:
    out = ClipTransform((32, 24), train=False, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4),
                        flip=1.0, jitter=1.0)(still, (0, 0, 0))
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.4])
    crop = still[:, :, 4:36, 16:40].float() / 255
    expected = ((crop - mean.view(3, 1, 1)) / std.view(3, 1, 1)).transpose(0, 1)
    assert out.dtype == torch.float32
    assert out.is_contiguous()
    torch.testing.assert_close(out, expected)


def test_a_crop_that_is_scaled_down_is_an_average_of_all_its_pixels() -> None:
    """Sixteen pixels of noise make one, of a fifth of the deviation; four would leave a half."""
    noise = torch.randint(0, 256, (1, 3, 128, 128), generator=torch.Generator().manual_seed(0))
    transform = ClipTransform(32, train=True, scale=(1.0, 1.0), mean=(0, 0, 0), std=(1, 1, 1))
    out = transform(noise.to(torch.uint8), (0, 0, 0))
    assert 0.1 < float(out.std() / (noise / 255).std()) < 0.3


def test_every_frame_is_transformed_alike(still: Tensor) -> None:
    for index in range(8):
        out = full()(still, (0, 0, index))
        assert tuple(out.shape) == (3, 6, 32, 32)
        assert torch.equal(out, out[:, :1].expand_as(out))


def test_randomness_is_a_function_of_the_key(still: Tensor) -> None:
    transform = full()
    first = transform(still, (0, 1, 2))
    torch.manual_seed(3)
    state = torch.get_rng_state()
    assert torch.equal(transform(still, (0, 1, 2)), first)
    assert torch.equal(torch.get_rng_state(), state)
    for key in ((1, 1, 2), (0, 2, 2), (0, 1, 3)):
        assert not torch.equal(transform(still, key), first)


def test_mirroring_is_off_unless_asked_for(still: Tensor) -> None:
    plain = ClipTransform((40, 56), train=True)(still, (0, 0, 0))
    flipped = ClipTransform((40, 56), train=True, flip=1.0)(still, (0, 0, 0))
    assert torch.equal(plain, ClipTransform((40, 56), train=False)(still, (0, 0, 0)))
    assert torch.equal(flipped, plain.flip(-1))


def places() -> Tensor:
    """Return a clip whose red tells the column and whose green the row, both times 4."""
    video = torch.zeros(2, 3, 40, 56, dtype=torch.uint8)
    video[:, 0] = 4 * torch.arange(56, dtype=torch.uint8)
    video[:, 1] = 4 * torch.arange(40, dtype=torch.uint8)[:, None]
    return video


def plain(crop: int | tuple[int, int], **options: object) -> ClipTransform:
    """Return a transform that leaves values from 0 to 1 as they are."""
    return ClipTransform(crop, train=True, mean=(0, 0, 0), std=(1, 1, 1), **options)


def test_flip_is_as_frequent_as_told() -> None:
    flipped = [
        bool(out[0, 0, 0, 0] > out[0, 0, 0, -1])
        for out in (plain((40, 56), flip=0.2)(places(), (0, 0, i)) for i in range(300))
    ]
    assert 35 < sum(flipped) < 90


def test_random_crops_reach_everywhere_and_are_not_resized() -> None:
    corners = set()
    for index in range(400):
        out = (plain((36, 50))(places(), (0, 0, index))[:, 0] * 255 / 4).round().int()
        assert torch.equal(out[0, 0], out[0, 0, 0] + torch.arange(50))
        assert torch.equal(out[1, :, 0], out[1, 0, 0] + torch.arange(36))
        corners.add((int(out[1, 0, 0]), int(out[0, 0, 0])))
    assert corners == {(row, column) for row in range(5) for column in range(7)}


def test_resized_crops_cover_the_share_asked_for() -> None:
    shares = []
    for index in range(100):
        out = plain(32, scale=(0.2, 0.3))(places(), (0, 0, index))[:, 0] * 255 / 4
        spans = [out[channel].max() - out[channel].min() + 1 for channel in range(2)]
        shares.append(float(spans[0] / 56 * spans[1] / 40))
    assert 0.17 < min(shares) < 0.22
    assert 0.27 < max(shares) < 0.33


def test_jitter_of_hue_is_a_quarter_of_the_others() -> None:
    """A grey clip changes in brightness alone, by up to the strength; a red one in hue too."""
    red, grey = torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.full((1, 3, 8, 8), 100)
    red[:, 0] = 160
    hues, levels = [], []
    for index in range(200):
        r, g, b = plain(8, jitter=0.4)(red, (0, 0, index))[:, 0, 0, 0].tolist()
        hue = colorsys.rgb_to_hsv(r, g, b)[0]
        hues.append(min(hue, 1 - hue))
        out = plain(8, jitter=0.4)(grey.to(torch.uint8), (0, 0, index))
        levels.append(float(out[0, 0, 0, 0]) * 255 / 100)
    assert 0.085 < max(hues) < 0.105
    # Contrast, about a grey rounded down, takes a little more.
    assert 0.55 < min(levels) < 0.65
    assert 1.35 < max(levels) < 1.45


def test_augmentation_and_its_order() -> None:
    """RandAugment takes bytes, two changes of a picture, so it comes before the numbers."""
    every = {"scale": (0.5, 1.0), "flip": 0.5, "jitter": 0.4, "rand_augment": 30}
    steps = ClipTransform(8, train=True, **every).steps.transforms
    names = ["RandomResizedCrop", "RandomHorizontalFlip", "ColorJitter", "RandAugment", "ToDtype",
             "Normalize"]  # fmt: skip
    assert [type(step).__name__ for step in steps] == names
    assert (steps[3].num_ops, steps[3].magnitude) == (2, 30)
    steps = ClipTransform(8, train=False, **every).steps.transforms
    assert [type(step).__name__ for step in steps] == ["CenterCrop", "ToDtype", "Normalize"]
    steps = ClipTransform(8, train=True).steps.transforms
    assert [type(step).__name__ for step in steps] == ["RandomCrop", "ToDtype", "Normalize"]


def test_a_shift_shares_no_randomness_with_the_choice_of_frames(still: Tensor) -> None:
    """The key itself draws those; numpy gives (0, 0, 1) and (0, 0, 1, 0) the same numbers."""
    shift = AppearanceShift("noise", 5)
    whole = ClipTransform((40, 56), train=False, shift=shift, mean=(0, 0, 0), std=(1, 1, 1))
    got = whole(still, (0, 0, 1)).transpose(0, 1)
    own = shift(still, np.random.default_rng((0, 0, 1, 1))).float() / 255
    shared = shift(still, np.random.default_rng((0, 0, 1))).float() / 255
    torch.testing.assert_close(got, own)
    assert (got - shared).abs().mean() > 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_shift_changes_every_frame_alike_and_grows(still: Tensor, kind: str) -> None:
    changes = []
    for severity in (1, 3, 5):
        shifted = AppearanceShift(kind, severity)(still, np.random.default_rng(0))
        assert (shifted.dtype, shifted.shape) == (torch.uint8, still.shape)
        alike = torch.equal(shifted, shifted[:1].expand_as(shifted))
        assert alike == (kind != "noise")
        changes.append((shifted.float() - still.float()).abs().mean().item())
    assert 0.5 < changes[0] < changes[1] < changes[2]
    again = AppearanceShift(kind, 5)(still, np.random.default_rng(0))
    assert torch.equal(again, shifted)


def test_shifts_worked_by_hand() -> None:
    video = torch.tensor([51, 102, 204], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 8, 8)
    rng = np.random.default_rng
    brighter = {int(AppearanceShift("brightness", 5)(video, rng(i))[0, 0, 0, 0]) for i in range(9)}
    assert brighter == {0, round(51 + 0.45 * 255)}
    contrast = AppearanceShift("contrast", 5)(video, rng(0))[0, :, 0, 0].tolist()
    assert contrast == [round((value - 119) * 0.15 + 119) for value in (51, 102, 204)]
    gammas = {int(AppearanceShift("gamma", 5)(video, rng(i))[0, 1, 0, 0]) for i in range(9)}
    assert gammas == {round(255 * 0.4**3), round(255 * 0.4 ** (1 / 3))}
    cast = AppearanceShift("cast", 5)(video, rng(0))[0, :, 0, 0] / video[0, :, 0, 0]
    assert cast.min() == pytest.approx(0.3, abs=0.01)
    assert cast.max() > 0.4
    blurred = AppearanceShift("blur", 5)(video, rng(0))
    assert torch.equal(blurred, video)


@pytest.mark.parametrize("severity", [1, 2, 3, 4])
def test_shifts_below_full_strength_worked_by_hand(severity: int) -> None:
    """At full strength a product with it, a quotient and a power are all the same."""
    strength = severity / 5
    video = torch.tensor([51, 102, 204], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 8, 8)

    def firsts(kind: str) -> list[list[int]]:
        shift = AppearanceShift(kind, severity)
        return [shift(video, np.random.default_rng(i))[0, :, 0, 0].tolist() for i in range(9)]

    step = 0.45 * strength * 255
    brighter = {red for red, *_ in firsts("brightness")}
    assert brighter == {max(round(51 - step), 0), round(51 + step)}
    contrasts = [round((value - 119) * (1 - 0.85 * strength) + 119) for value in (51, 102, 204)]
    assert firsts("contrast") == [contrasts] * 9
    exponent = 1 + 2 * strength
    gammas = {green for _, green, _ in firsts("gamma")}
    assert gammas == {round(255 * 0.4**exponent), round(255 * 0.4 ** (1 / exponent))}
    gains = np.array(firsts("cast")) / [51, 102, 204]
    assert np.abs(gains.min(1) - (1 - 0.7 * strength)).max() < 0.01
    assert (1 - 0.35 * strength) < gains.max() <= 1
    assert len(set(gains.argmin(1))) == 3


def test_contrast_is_about_the_mean_of_the_clip() -> None:
    """A dark and a bright frame draw near to each other; about their own means they would not."""
    video = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    video[0], video[1] = 40, 200
    video[1, :, :2] = 100
    mean = (40 * 2 + 200 + 100) / 4
    shifted = AppearanceShift("contrast", 4)(video, np.random.default_rng(0))
    for value in (40, 100, 200):
        got = shifted[video == value].unique().tolist()
        assert got == [round((value - mean) * (1 - 0.85 * 0.8) + mean)]


@pytest.mark.parametrize("severity", [1, 3])
def test_noise_has_the_deviation_told_and_is_drawn_per_frame(severity: int) -> None:
    video = torch.full((3, 3, 60, 60), 128, dtype=torch.uint8)
    out = AppearanceShift("noise", severity)(video, np.random.default_rng(0)).double() / 255
    assert float(out.std()) == pytest.approx(0.3 * severity / 5, rel=0.03)
    assert abs(float(out.mean()) - 128 / 255) < 0.003
    frames = (out - out.mean()).flatten(1)
    assert np.abs(np.corrcoef(frames) - np.eye(3)).max() < 0.05


@pytest.mark.parametrize("severity", [2, 5])
def test_background_is_a_coloured_texture_of_the_share_told(severity: int) -> None:
    """White and black behind the same texture differ by what the texture leaves of them."""
    share = 0.7 * severity / 5
    on = [
        AppearanceShift("background", severity)(
            torch.full((2, 3, 48, 48), value, dtype=torch.uint8), np.random.default_rng(0)
        ).int()
        for value in (0, 255)
    ]
    inside = (on[0] > 0) & (on[1] < 255)
    left = (on[1] - on[0])[inside]
    assert inside.float().mean() > 0.8
    assert (left - 255 * (1 - share)).abs().max() <= 1
    texture = on[0][0].double() / 255 / share
    assert 0.4 < float(texture.mean()) < 0.6
    assert float(texture.std()) > 0.2
    assert np.abs(np.corrcoef(texture.flatten(1)) - np.eye(3)).max() < 0.7


@pytest.mark.parametrize(("height", "width"), [(50, 100), (100, 50)])
def test_blur_is_relative_to_the_shorter_side(height: int, width: int) -> None:
    """A point of light spreads by 0.04 · 50 = 2 pixels, both ways alike."""
    video = torch.zeros(1, 3, height, width, dtype=torch.uint8)
    middle = (height // 2, width // 2)
    video[:, :, middle[0] - 1 : middle[0] + 2, middle[1] - 1 : middle[1] + 2] = 255
    light = AppearanceShift("blur", 5)(video, np.random.default_rng(0))[0, 0].double()
    for side, profile in enumerate((light.sum(1), light.sum(0))):
        places = torch.arange(len(profile)) - middle[side]
        spread = ((profile * places**2).sum() / profile.sum() - 2 / 3) ** 0.5
        assert 1.6 < spread < 2.1  # cut off, and rounded to bytes
        # A pixel beside the middle, and two deviations.
        assert places[profile > 0].abs().max() == 1 + 2 * 2


def test_background_has_six_cells_each_way() -> None:
    """On as many pixels it is the cells themselves."""
    out = AppearanceShift("background", 5)(
        torch.zeros(2, 3, 6, 6, dtype=torch.uint8), np.random.default_rng(4)
    )
    cells = np.random.default_rng(4).random((3, 6, 6), dtype=np.float32)
    assert np.array_equal(out[1], np.round(255 * np.float32(0.7) * cells))


def test_background_leaves_the_foreground(still: Tensor) -> None:
    foreground = torch.zeros(6, 1, 40, 56)
    foreground[..., 10:20, 10:20] = 1
    foreground[..., 20:30, :] = 0.75
    shift = AppearanceShift("background", 5)
    shifted = shift(still, np.random.default_rng(0), foreground)
    assert torch.equal(shifted[..., 10:20, 10:20], still[..., 10:20, 10:20])
    assert (shifted != still).float().mean() > 0.8
    whole = shift(still, np.random.default_rng(0)).double()
    difference = (shifted - (still + (whole - still) / 4)).abs()
    within = ((whole > 0) & (whole < 255))[..., 20:30, :]  # a texture may be brighter than white
    assert difference[..., 20:30, :][within].max() < 1  # each is rounded


def test_shift_in_a_transform_depends_on_the_key(still: Tensor) -> None:
    transform = ClipTransform(32, train=False, shift=AppearanceShift("background", 4))
    first = transform(still, (0, 0, 1))
    assert torch.equal(transform(still, (0, 0, 1)), first)
    assert not torch.equal(transform(still, (0, 0, 2)), first)
    assert not torch.equal(ClipTransform(32, train=False)(still, (0, 0, 1)), first)


@pytest.mark.parametrize(("options", "message"), [
    ({"crop": 0}, "crop must be a side"),
    ({"crop": (1, 2, 3)}, "crop must be a side"),
    ({"crop": (8, 0)}, "crop must be a side"),
    ({"crop": (8,)}, "crop must be a side"),
    ({"crop": 8, "rand_augment": 31}, "rand_augment must be a magnitude from 0 to 30; got 31"),
    ({"crop": 8, "rand_augment": -1}, "rand_augment must be a magnitude from 0 to 30; got -1"),
    ({"crop": 8, "scale": (0.5, 2.0)}, "scale must be shares"),
    ({"crop": 8, "scale": (0.0, 0.5)}, "scale must be shares"),
    ({"crop": 8, "scale": (0.6, 0.5)}, "scale must be shares"),
    ({"crop": 8, "flip": -0.1}, "flip must be a probability"),
    ({"crop": 8, "jitter": -0.1}, "jitter must be in"),
    ({"crop": 8, "flip": 2.0}, "flip must be a probability"),
    ({"crop": 8, "jitter": 3.0}, "jitter must be in"),
])
def test_bad_arguments(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClipTransform(train=True, **options)


def test_the_smallest_crop_and_one_of_the_whole_frame(still: Tensor) -> None:
    assert ClipTransform(1, train=False)(still, (0, 0, 0)).shape == (3, 6, 1, 1)
    assert ClipTransform((40, 56), train=False)(still, (0, 0, 0)).shape == (3, 6, 40, 56)


def test_bad_clips(still: Tensor) -> None:
    with pytest.raises(TypeError, match=r"expected a uint8 clip .* got torch\.float32"):
        ClipTransform(8, train=False)(still.float(), (0, 0, 0))
    with pytest.raises(TypeError, match=r"expected a uint8 clip .*\(3, 40, 56\)"):
        ClipTransform(8, train=False)(still[0], (0, 0, 0))
    with pytest.raises(ValueError, match=r"as large as the crop \(64, 64\); got \(40, 56\)"):
        ClipTransform(64, train=False)(still, (0, 0, 0))
    with pytest.raises(ValueError, match=r"as large as the crop \(8, 64\); got \(40, 56\)"):
        ClipTransform((8, 64), train=False)(still, (0, 0, 0))
    with pytest.raises(TypeError, match="expected a uint8 clip"):
        AppearanceShift("blur")(still.float(), np.random.default_rng(0))


def test_bad_shifts() -> None:
    with pytest.raises(ValueError, match=r"kind must be one of brightness, .*; got 'fog'"):
        AppearanceShift("fog")
    for severity in (0, 6):
        with pytest.raises(ValueError, match=f"severity must be 1, 2, 3, 4 or 5; got {severity}"):
            AppearanceShift("blur", severity)
    assert repr(AppearanceShift("blur", 2)) == "AppearanceShift('blur', severity=2)"
