"""Transforms of clips and shifts of appearance: the same in every frame, drawn from the key."""

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
        assert 1.6 < spread < 2.1  # cut off at four deviations, and rounded to bytes


def test_background_leaves_the_foreground(still: Tensor) -> None:
    foreground = torch.zeros(6, 1, 40, 56)
    foreground[..., 10:20, 10:20] = 1
    shifted = AppearanceShift("background", 5)(still, np.random.default_rng(0), foreground)
    assert torch.equal(shifted[..., 10:20, 10:20], still[..., 10:20, 10:20])
    assert (shifted != still).float().mean() > 0.8


def test_shift_in_a_transform_depends_on_the_key(still: Tensor) -> None:
    transform = ClipTransform(32, train=False, shift=AppearanceShift("background", 4))
    first = transform(still, (0, 0, 1))
    assert torch.equal(transform(still, (0, 0, 1)), first)
    assert not torch.equal(transform(still, (0, 0, 2)), first)
    assert not torch.equal(ClipTransform(32, train=False)(still, (0, 0, 1)), first)


@pytest.mark.parametrize(("options", "message"), [
    ({"crop": 0}, "crop must be a side"),
    ({"crop": (1, 2, 3)}, "crop must be a side"),
    ({"crop": 8, "scale": (0.5, 2.0)}, "scale must be shares"),
    ({"crop": 8, "flip": 2.0}, "flip must be a probability"),
    ({"crop": 8, "jitter": 3.0}, "jitter must be in"),
])
def test_bad_arguments(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClipTransform(train=True, **options)


def test_bad_clips(still: Tensor) -> None:
    with pytest.raises(TypeError, match=r"expected a uint8 clip .* got torch\.float32"):
        ClipTransform(8, train=False)(still.float(), (0, 0, 0))
    with pytest.raises(TypeError, match=r"expected a uint8 clip .*\(3, 40, 56\)"):
        ClipTransform(8, train=False)(still[0], (0, 0, 0))
    with pytest.raises(ValueError, match=r"as large as the crop \(64, 64\); got \(40, 56\)"):
        ClipTransform(64, train=False)(still, (0, 0, 0))
    with pytest.raises(TypeError, match="expected a uint8 clip"):
        AppearanceShift("blur")(still.float(), np.random.default_rng(0))


def test_bad_shifts() -> None:
    with pytest.raises(ValueError, match=r"kind must be one of brightness, .*; got 'fog'"):
        AppearanceShift("fog")
    with pytest.raises(ValueError, match="severity must be 1, 2, 3, 4 or 5; got 6"):
        AppearanceShift("blur", 6)
