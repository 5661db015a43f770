"""The study of gain and offset: its closed forms, its camera, and that its verdict can turn."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from geonorm.studies.affine import GAINS, NOISES, STUDY, camera, closed_forms, gain, night, noise
from geonorm.studies.outcome import Outcome
from geonorm.studies.study import Setting
from helpers.studies import SETTING, run_parts


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Return the outcome of the parts that take moments, and of the tests that need no other."""
    return run_parts(STUDY, ("gain", "forms", "camera"), 2, tmp_path_factory.mktemp("cache"))


def clips(setting: Setting = SETTING) -> torch.Tensor:
    from geonorm.studies.affine import _clips

    return _clips(setting).double()


@pytest.mark.parametrize("factor", GAINS)
def test_closed_form_of_a_gain_is_what_torch_measures(factor: float) -> None:
    x = clips()[:1]
    before, after = F.instance_norm(x), F.instance_norm(x * factor)
    measured = float((after - before).norm() / before.norm())
    assert gain("closed form", SETTING)[f"gain {factor:g}"] == pytest.approx(measured, rel=1e-8)


@pytest.mark.parametrize("share", NOISES)
def test_closed_form_of_noise_is_what_torch_measures(share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 1, 400_000, generator=generator, dtype=torch.float64)
    y = x + share * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    before, after = F.instance_norm(x, eps=0), F.instance_norm(y, eps=0)
    measured = float((after - before).norm() / before.norm())
    assert noise("closed form", SETTING)[f"noise {share:g}"] == pytest.approx(measured, rel=0.005)


def test_closed_forms_are_met_and_the_mutation_misses_them() -> None:
    for column, tolerance in (("gain", 1e-9), ("noise", 0.01)):
        (claimed,) = closed_forms(column, SETTING).values()
        assert claimed < tolerance
    (mutated,) = closed_forms("gain", SETTING._replace(variant="mutated")).values()
    assert mutated > 0.1


def test_verdict_and_what_turns_it(short: Outcome) -> None:
    passed = {each.test.says: each.passed for each in short.judge()}
    assert passed == {
        "a gain of 0.001 leaves the output as it is, to 1%": False,
        "a gain of 0.1 leaves the output as it is, to 1%": False,
        "a gain of 4 leaves the output as it is, to 1%": True,
        "a gain of 1000 leaves the output as it is, to 1%": True,
        "an offset of 1 leaves the output as it is, to 1%": True,
        "an offset of 10,000 leaves the output as it is, to 1%": True,
        "a gain of -1 flips the sign and does nothing else": True,
        "after a ReLU a gain of -1 leaves the output as it is, to 1%": False,
        "the closed form tells the change under any gain to 1%": True,
        "the closed form tells the change under any noise to 1%": True,
        "light of 1/32 and 8 bits leave the output as it is, to 1%": False,
    }
    assert short.verdict().startswith("holds in part: refuted: a gain of 0.001")
    assert {3, 4, 5, 6, 7, 9} <= {*short.turned("mutated")}
    assert {3, 4, 5, 6, 7, 9} <= {*short.turned("broken")}


def test_camera_rounds_clips_and_bends() -> None:
    x = torch.tensor([0.0, 0.2, 0.9])
    changes = camera(x)
    assert changes["8 bits at gain 1/32"].mul(255).tolist() == pytest.approx([0, 2, 7])
    assert changes["clipped at gain 4"].tolist() == pytest.approx([0, 0.8, 1])
    assert changes["gamma 2"].tolist() == pytest.approx([0, 0.04, 0.81])
    assert len(changes) == 9


def test_night_has_the_light_and_the_noise_that_it_says() -> None:
    x = torch.full((200_000,), 0.8)
    dark = night(x, torch.Generator().manual_seed(0), gain=0.25)
    assert dark.mul(255).sub(dark.mul(255).round()).abs().max() < 1e-4  # 8 bits
    assert float(dark.mean()) == pytest.approx(0.2, rel=1e-3)
    photons, rounding = 0.2 / 4000, (1 / 255) ** 2 / 12
    assert float(dark.var()) == pytest.approx(photons + rounding, rel=0.02)


@pytest.mark.filterwarnings("default")  # Lightning warns about matters of its own
@pytest.mark.long
def test_trained_by_day_with_each_norm(tmp_path: Path) -> None:
    outcome = run_parts(STUDY, ("trained",), 3, tmp_path)
    by_day = [each.passed for each in outcome.judge() if each.test.says.startswith("by day")]
    assert by_day == [True, True]
    assert outcome.mean("trained", "night", "instance") > 0.5 > outcome.mean("trained", "night",
                                                                              "none")  # fmt: skip
