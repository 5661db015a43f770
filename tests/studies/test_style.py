"""The study of style: its exact parts, their closed form, and what turns them."""

from pathlib import Path

import pytest
import torch

from geonorm.studies.outcome import Outcome
from geonorm.studies.style import STUDY, by_variance, exact, intensity, mixtures
from geonorm.studies.style_scans import (
    INTENSITY,
    OWN,
    POINTS,
    _inputs,
    _labels,
    apart,
    intensities,
    scans,
)
from geonorm.studies.style_transfer import contents, exchange, textures
from geonorm.style import StyleStatistics, mix_styles, style_statistics
from helpers.studies import SETTING, of_docs, run_parts


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Return the outcome of the parts that train nothing."""
    return run_parts(STUDY, ("exact", "mixtures"), 3, tmp_path_factory.mktemp("cache"))


def test_exchange_gives_each_instance_the_statistics_of_its_style() -> None:
    torch.manual_seed(0)
    content, style = torch.randn(3, 5, 6, 7), torch.randn(3, 5, 4, 4) * 3 + 2
    out = exchange(content, style, "instance")
    found, wanted = style_statistics(out), style_statistics(style)
    torch.testing.assert_close(found.mean, wanted.mean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.std, wanted.std, rtol=1e-4, atol=1e-4)
    plain = (content - content.mean((2, 3), keepdim=True)) / content.std(
        (2, 3), correction=0, keepdim=True)  # fmt: skip
    again = (out - out.mean((2, 3), keepdim=True)) / out.std((2, 3), correction=0, keepdim=True)
    torch.testing.assert_close(again, plain, rtol=1e-3, atol=1e-3)
    mixed = style_statistics(exchange(content, style, "batch"))
    assert (mixed.std - style_statistics(style).std).abs().max() > 0.05


def test_mixed_variances_are_those_of_a_case_worked_by_hand() -> None:
    a = StyleStatistics(torch.tensor([[0.0]]), torch.tensor([[1.0]]))
    b = StyleStatistics(torch.tensor([[4.0]]), torch.tensor([[7.0]]))
    assert mix_styles([a, b], (0.5, 0.5)).std.item() == 4.0
    mixed = by_variance([a, b], (0.5, 0.5))
    assert mixed.std.item() == pytest.approx(5.0)  # the root of (1 + 49) / 2
    assert mixed.mean.item() == 2.0


def test_mixtures_lie_on_the_line_and_variances_where_predicted() -> None:
    assert max(mixtures("deviations", SETTING).values()) < 1e-6
    bent = mixtures("variances", SETTING)
    assert bent["two styles"] > 1e-3
    assert bent["measured / predicted"] == pytest.approx(1, abs=1e-9)


def test_distance_of_intensities_is_wassersteins() -> None:
    assert apart(torch.tensor([0.0, 1.0]), torch.tensor([3.0, 2.0])) == pytest.approx(2.0)


def test_intensities_of_a_scan_come_to_the_other_sensors() -> None:
    found = intensity(INTENSITY, SETTING)
    assert found["share left"] < 0.2
    mutated = intensity(INTENSITY, SETTING._replace(variant="mutated"))
    assert mutated["share left"] > 2 * found["share left"]


def test_textures_differ_and_are_pictures() -> None:
    torch.manual_seed(0)
    found = textures(6)
    assert found.shape[:2] == (6, 3)
    assert found.min() >= 0
    assert found.max() <= 1
    assert (found[0] - found[1]).abs().max() > 0.1


def test_unseen_contents_are_of_other_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without random light: no picture of the one kind is among those of the other."""
    monkeypatch.setattr(torch, "randn", lambda *size: torch.zeros(size))
    seen, unseen = contents(300), contents(300, unseen=True)
    apart = torch.cdist(seen.flatten(1), unseen.flatten(1))
    assert apart.min() > 0.1
    assert torch.cdist(seen.flatten(1), contents(300).flatten(1)).min() < 1e-4


def test_scans_come_to_the_network_by_channel() -> None:
    chosen = scans(OWN, 2, 5)
    given = _inputs(chosen, intensities(chosen).features)
    assert given.shape == (2, 4, POINTS)
    for number, scan in enumerate(chosen):
        torch.testing.assert_close(given[number, 3], 2 * torch.from_numpy(scan.intensity))
        ratio = given[number, 2] / torch.from_numpy(scan.points[:, 2])
        torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))
    assert _labels(chosen).tolist() == [scan.labels.tolist() for scan in chosen]


def test_verdict_of_the_exact_parts_and_what_turns_it(short: Outcome) -> None:
    assert [each.passed for each in short.judge()] == [True] * 5
    assert {1, 2, 3, 4} <= {*short.turned("mutated")}
    assert {1, 2} <= {*short.turned("broken")}
    assert exact("clips, colours", SETTING)["statistics off the style's"] < 0.001


def test_the_page_shows_what_was_found() -> None:
    passed = {each.test.says: each.passed for each in of_docs(STUDY).judge()}
    assert passed["a decoded picture has the style: a tenth of the difference is left at most"]
    assert passed["batch norm in its place leaves more of it"]
    assert not passed["as worded: decoded pictures lie on the straight line too, to 1%"]


@pytest.mark.filterwarnings("default")  # Lightning warns about matters of its own
@pytest.mark.long
def test_decoded_pictures(tmp_path: Path) -> None:
    outcome = run_parts(STUDY, ("transfer",), 3, tmp_path)
    passed = {each.test.says: each.passed for each in outcome.judge()}
    assert passed.pop("as worded: decoded pictures lie on the straight line too, to 1%") is False
    assert all(passed.values())
