"""The study of diffusion: its floor, its nets by place, its pictures, and its verdict."""

import pytest
import torch

from geonorm import GroupNorm, InstanceNorm
from geonorm.norms.no_norm import NoNorm
from geonorm.studies.diffusion import (
    LEVELS,
    NETS,
    SIDE,
    STUDY,
    by_level,
    floor,
    least_squares,
    lines,
    picture,
    some_clips,
)
from geonorm.studies.outcome import Outcome
from geonorm.studies.report import as_page, as_text
from helpers.studies import SETTING, of_docs, run_apart

MUTATED = SETTING._replace(variant="mutated")
CLIPS = "behind a last instance norm a clip's least error is its closed form, to 1%"


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run_apart(STUDY, 1, tmp_path_factory.mktemp("cache"), quick=True)


def test_verdict_and_what_turns_it(short: Outcome) -> None:
    assert [each.passed for each in short.judge()] == [True] * 3 + [None] * 9
    assert short.turned("mutated") == short.turned("broken") == [1, 2, 3]


def test_least_squares_against_torch() -> None:
    x, y = torch.randn(2, 50, dtype=torch.float64)
    table = torch.stack([x, torch.ones(50, dtype=torch.float64)], 1)
    residual = y - table @ torch.linalg.lstsq(table, y[:, None]).solution[:, 0]
    assert least_squares(x, y) == pytest.approx(float(residual.square().mean()))


def test_no_scale_and_shift_reach_below_the_floor_and_batch_norm_leaves_none() -> None:
    torch.manual_seed(0)
    found = floor("clip", SETTING)
    assert found["least error"] == pytest.approx(found["its closed form"], rel=1e-3)
    assert 0.3 < found["least error"] < 2.0  # of a variance of about one
    assert floor("clip", MUTATED)["least error"] < 1e-20


def test_clips_have_about_unit_deviation_and_differ_in_amplitude() -> None:
    clips = some_clips(256, 5)
    assert abs(clips.mean()) < 0.2
    assert clips.std() == pytest.approx(1.0, abs=0.2)
    sizes = clips.std((1, 2, 3, 4))
    assert sizes.quantile(0.9) / sizes.quantile(0.1) > 2.5


@pytest.mark.parametrize(("name", "expected"), [
    ("none", "nnn-"), ("encoder", "iin-"), ("decoder", "nni-"), ("both", "iii-"),
    ("last", "nnni"), ("encoder, group", "ggn-"), ("decoder, group", "nng-"),
    ("both, group", "ggg-"),
])  # fmt: skip
def test_places_of_norms(name: str, expected: str) -> None:
    from geonorm.models import VideoUNet

    net = VideoUNet(norm=NETS[name], widths=(4, 8))
    letters = {NoNorm: "n", InstanceNorm: "i", GroupNorm: "g", torch.nn.Identity: "-"}
    norms = [*(block.norm1 for block in (*net.down, *net.up)), net.output_norm]
    assert "".join(letters[type(norm)] for norm in norms) == expected


def test_pictures_survive_as_numbers() -> None:
    shades = torch.randint(64, (SIDE, SIDE)) / 63
    kept = lines(shades)
    assert len(kept) == 2 * SIDE
    torch.testing.assert_close(picture(kept.__getitem__), shades)


def test_means_over_levels() -> None:
    rows = by_level({level: float(level) for level in LEVELS})
    assert rows["high noise"] == 940.0
    assert rows["low noise"] == 125.0
    assert rows["mean"] == pytest.approx(sum(LEVELS) / 7)


@pytest.mark.filterwarnings("default")  # Lightning and diffusers warn about matters of their own
@pytest.mark.long
def test_a_net_that_ends_in_instance_norm_predicts_clips_worse() -> None:
    pytest.importorskip("diffusers")
    from geonorm.studies.diffusion import clip_errors

    plain, last = (clip_errors(column, SETTING, "clip") for column in ("none", "last"))
    assert last["low noise"] > 2 * plain["low noise"]


def test_what_the_page_says() -> None:
    outcome = of_docs(STUDY)
    assert outcome.turned("mutated")
    assert outcome.turned("broken")
    page = as_page(outcome)
    assert "{" not in page
    assert "A clip's pixels" not in page + as_text(outcome)  # for the figure alone
