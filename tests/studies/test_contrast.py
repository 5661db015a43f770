"""The study of contrast and brightness: its samples, its closed form, and what edges let in."""

import pytest
import torch
from torch.nn import functional as F

from geonorm.studies.contrast import (
    EDGES,
    EPS,
    STUDY,
    UNREAD,
    Padding,
    behind_a_network,
    behind_a_resnet,
    network,
    photographed,
    relit,
    shares,
)
from geonorm.studies.outcome import Outcome
from geonorm.studies.report import as_page
from helpers.studies import SETTING, of_docs, run_parts


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run_parts(STUDY, ("frames", "eps"), 3, tmp_path_factory.mktemp("cache"))


def test_every_channel_of_a_relit_frame_has_the_contrast_and_brightness_drawn_for_it() -> None:
    frames = torch.rand(5, 3, 8, 10) * torch.tensor([1.0, 3.0, 0.2]).view(3, 1, 1)
    sample = relit(frames)
    deviations = sample.frames.flatten(2).std(2, correction=0)
    torch.testing.assert_close(deviations, sample.contrast.exp()[:, None].expand(5, 3))
    torch.testing.assert_close(sample.frames.flatten(2).mean(2),
                               sample.brightness[:, None].expand(5, 3))  # fmt: skip
    before, after = frames[2, 1].flatten().double(), sample.frames[2, 1].flatten()
    assert torch.corrcoef(torch.stack([before, after]))[0, 1] == pytest.approx(1)


def test_contrast_and_brightness_are_drawn_apart() -> None:
    sample = relit(torch.rand(4000, 3, 2, 2))
    drawn = torch.stack([sample.contrast, sample.brightness])
    assert abs(torch.corrcoef(drawn)[0, 1]) < 0.06
    torch.testing.assert_close(drawn.std(1), torch.tensor([0.7, 0.2]).double(), atol=0.02, rtol=0)


def test_camera_clips_and_rounds() -> None:
    light = torch.tensor([-0.2, 0.0, 0.5, 0.5 + 1 / 255, 0.9999, 3.0], dtype=torch.float64)
    assert (photographed(light) * 255).tolist() == pytest.approx([0, 0, 128, 128, 255, 255])


def test_closed_form_for_two_frames_by_hand() -> None:
    # Deviations 0.1 and 0.2 behind eps 0.01: 0.1/sqrt(0.02) and 0.2/sqrt(0.05).
    x = torch.tensor([[-0.1, 0.1], [-0.2, 0.2]], dtype=torch.float64).view(2, 1, 1, 2)
    out = F.instance_norm(x, eps=0.01).abs()[:, 0, 0, 0]
    assert out.tolist() == pytest.approx([0.1 / 0.02**0.5, 0.2 / 0.05**0.5])
    left = float((out[1] / out[0]).log() / torch.tensor(2.0).log())  # of the octave between them
    assert left == pytest.approx(1 - 0.5 * float(torch.tensor(2.5).log() / torch.tensor(2.0).log()))
    assert all(abs(ratio - 1) < 1e-9 for ratio in shares("ratio", SETTING).values())


def test_what_is_left_rises_with_eps() -> None:
    left = [*shares("instance", SETTING).values()]
    assert left == sorted(left)
    assert left[0] < 1e-3
    assert left[-1] > 0.9


def test_verdict_and_what_turns_it(short: Outcome) -> None:
    passed = {each.test.says: each.passed for each in short.judge()}
    assert passed == {
        "instance norm leaves under 1% of the spread of contrast": True,
        "instance norm leaves under 1% of the spread of brightness": True,
        "batch norm leaves the spread of contrast": True,
        "batch norm leaves the spread of brightness": True,
        f"the closed form tells to 1% how much of it is left at an eps of {EPS:g}": True,
        "the closed form tells to 1% how much of it is left at an eps of 0.1": True,
        "as worded: behind instance norm contrast is almost uncorrelated with what it was": False,
        "as worded: behind instance norm brightness is almost uncorrelated with what it was": True,
        "contrast is almost uncorrelated for a reader that sees differences of 1%": True,
        "the same reader finds the contrast behind batch norm": True,
    }
    assert short.verdict().startswith("holds in part: refuted: as worded: behind instance norm con")
    assert 1 in short.turned("mutated")
    assert {1, 2, 5, 6, 8} <= {*short.turned("broken")}


@pytest.mark.parametrize("padding", EDGES.values())
def test_an_offset_passes_a_network_only_at_zeros(padding: Padding) -> None:
    torch.manual_seed(1)
    model = network("instance", padding, SETTING).double()
    frames = torch.randn(2, 3, 24, 24, dtype=torch.float64)
    moved = (model(frames + 1.5) - model(frames)).norm() / model(frames).norm()
    assert moved < 1e-9 if padding == "replicate" else moved > 0.05


def test_an_instance_norm_on_the_input_makes_zeros_harmless() -> None:
    torch.manual_seed(1)
    model = network("instance, input instance", "zeros", SETTING).double()
    frames = torch.randn(2, 3, 24, 24, dtype=torch.float64)
    assert (model(frames + 1.5) - model(frames)).norm() / model(frames).norm() < 1e-9


@pytest.mark.long
def test_brightness_is_read_behind_zero_padding_alone() -> None:
    torch.manual_seed(0)
    bright = "brightness, {}, linear"
    alone = behind_a_network("instance", SETTING)
    assert alone[bright.format("edges repeated")] < 0.1 < alone[bright.format("zero padding")]
    assert behind_a_network("batch", SETTING)[bright.format("edges repeated")] > 0.9
    aided = behind_a_network("instance, input instance", SETTING)
    assert aided[bright.format("zero padding")] < 0.1
    broad = behind_a_network("instance", SETTING._replace(variant="mutated"))
    assert broad["contrast, edges repeated, linear"] > 0.3


@pytest.mark.long
def test_a_resnet_lets_brightness_in_at_zeros() -> None:
    found = {edges: behind_a_resnet(f"instance, {edges}", SETTING)["brightness"] for edges in EDGES}
    assert found["edges repeated"] < 0.1 < found["zero padding"]


def test_what_the_page_says() -> None:
    outcome = of_docs(STUDY)
    assert outcome.turned("mutated")
    assert outcome.turned("broken")
    assert outcome.mean("eps", "eps 1e-05", "ratio") == pytest.approx(1, abs=0.01)
    assert "{" not in as_page(outcome)
    failed = [each.test.says for each in outcome.judge() if not each.passed]
    assert f"brightness {UNREAD} with zero padding" in failed
