"""The study of video: its scenes, its decomposition of variance, its statistics, its verdict."""

from pathlib import Path

import pytest
import torch

from geonorm.studies.outcome import Outcome
from geonorm.studies.report import as_page
from geonorm.studies.study import Setting
from geonorm.studies.video import (
    CASTS,
    CHANCE,
    EXPOSURES,
    NORMS,
    STUDY,
    changes,
    of_films,
    probed,
    recorded,
    scenes,
    shares,
    statistics,
)
from helpers.studies import SETTING, of_docs, run_parts


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run_parts(STUDY, ("changes", "variance"), 5, tmp_path_factory.mktemp("cache"))


def test_shares_of_clips_whose_parts_are_known() -> None:
    t, h, w = torch.arange(4.0), torch.arange(6.0), torch.arange(5.0)
    picture = (h[:, None] * w - h.mean() * w.mean())[None].expand(4, 6, 5)
    frames = (t - t.mean())[:, None, None].expand(4, 6, 5)
    moving = frames * (h - h.mean())[:, None] * (w - w.mean())  # no mean along any axis
    parts = [part / part.square().mean().sqrt() for part in (picture - picture.mean(), frames,
                                                              moving)]
    clip = 3 * parts[0] + 2 * parts[1] + 1 * parts[2] + 7
    clips = torch.stack([clip, -0.1 * clip])[:, None].expand(2, 3, 4, 6, 5)
    expected = torch.tensor([9, 4, 1]).double() / 14
    torch.testing.assert_close(shares(clips), expected.expand(2, 3), atol=1e-6, rtol=0)


def test_shares_weigh_channels_by_their_variance() -> None:
    still = torch.randn(1, 1, 1, 6, 6).expand(1, 1, 4, 6, 6)
    flicker = torch.randn(1, 1, 4, 1, 1).expand(1, 1, 4, 6, 6)
    still, flicker = (x / x.std(correction=0) for x in (still, flicker))
    (found,) = shares(torch.cat([3 * still, flicker], 1))
    assert found.tolist() == pytest.approx([0.9, 0.1, 0.0], abs=1e-6)


def test_every_scene_is_lit_as_its_classes_say() -> None:
    torch.manual_seed(0)
    made = scenes(400, SETTING)
    gains = torch.tensor(EXPOSURES)[made.labels["exposure"]][:, None]
    colours = torch.tensor(CASTS)[made.labels["cast"]]
    plain = made.clips / (gains * colours).view(-1, 3, 1, 1, 1)
    # Its light apart, every class has the same mean and spread, and a tenth of jitter.
    for label in made.labels.values():
        means = torch.stack([plain[label == k].mean((2, 3, 4)).mean(0) for k in label.unique()])
        torch.testing.assert_close(means, means.mean(0).expand_as(means), rtol=0.15, atol=0)
    assert {k: len(v.unique()) for k, v in made.labels.items()} == {
        "exposure": 2, "cast": 3, "layout": 2, "motion": 4}  # fmt: skip
    assert {k: 1 / len(v.unique()) for k, v in made.labels.items()} == CHANCE


def test_bars_stand_still_and_are_upright_or_flat() -> None:
    torch.manual_seed(0)
    made = scenes(200, SETTING)
    still = made.clips.mean(2)
    across, down = (still.diff(dim=axis).square().mean((1, 2, 3)) for axis in (3, 2))
    upright = made.labels["layout"] == 0
    assert (across / down)[upright].median() > 1.5
    assert (across / down)[~upright].median() < 1 / 1.5


@pytest.mark.parametrize(("axis", "column"), [(4, 7), (3, 8)])
@pytest.mark.parametrize("step", [1, -1])
def test_statistics_tell_where_things_go(axis: int, column: int, step: int) -> None:
    wave = (torch.arange(32) * 0.4).sin()
    film = torch.stack([wave.roll(step * t) for t in range(6)])  # (T, places)
    shape = [1, 1, 6, 1, 1]
    shape[axis] = 32
    clip = film.view(shape).expand(1, 3, 6, 32, 32)
    found = statistics(clip).view(9, 3)
    assert (found[column].sign() == -step).all()
    assert found[15 - column].abs().max() < 1e-6
    assert statistics(clip.flip(2)).view(9, 3)[column].sign().eq(step).all()


def test_exact_statements_with_each_norm() -> None:
    found = {name: changes(name, SETTING) for name in NORMS}
    for name in ("THW", "HW"):
        assert found[name]["twice the exposure"] < 0.01
        assert found[name]["a colour cast"] < 0.01
    assert found["THW"]["flicker (a gain by frame)"] > 0.1 > 0.01 > (
        found["HW"]["flicker (a gain by frame)"])
    assert found["T"]["a still picture added"] < 1e-9 < 0.1 < found["THW"]["a still picture added"]
    for name in ("none", "batch"):
        assert min(found[name].values()) > 0.1


def test_verdict_and_what_turns_it(short: Outcome) -> None:
    failed = [each.test.says for each in short.judge() if not each.passed]
    assert failed == [
        "as worded: the deviation that a norm over THW divides by is mostly motion's"]
    assert short.verdict().startswith("holds in part: refuted: as worded: the deviation")
    assert {1, 2, 3} <= {*short.turned("mutated")}
    assert {*range(1, 10)} <= {*short.turned("broken")}


@pytest.mark.long
def test_light_goes_and_motion_stays_for_a_linear_reader() -> None:
    torch.manual_seed(0)
    found = {name: probed(name, SETTING) for name in ("batch", "THW", "T")}
    assert found["batch"]["exposure"] > 0.8
    assert found["THW"]["exposure"] < 0.6
    assert found["THW"]["motion"] > 0.8
    assert found["THW"]["layout"] > 0.8
    assert found["T"]["layout"] < 0.6


@pytest.mark.long
def test_a_noisy_camera_gives_the_exposure_away_behind_a_norm() -> None:
    torch.manual_seed(0)
    assert recorded("THW", SETTING)["exposure"] > 0.8


def test_each_film_has_a_row(data_root: Path) -> None:
    from geonorm.studies.recordings import Recordings

    setting = Setting(0, "claimed", Recordings.of(data_root / "ucf101"))
    found = {share: of_films(share, setting) for share in ("layout", "flicker", "motion")}
    assert len(found["layout"]) == 3
    for row in found["layout"]:
        assert sum(values[row] for values in found.values()) == pytest.approx(1)
        assert found["layout"][row] > 0.5 > found["motion"][row]


def test_what_the_page_says() -> None:
    outcome = of_docs(STUDY)
    assert outcome.turned("mutated")
    assert outcome.turned("broken")
    assert "{" not in as_page(outcome)
    assert sum(outcome.mean("variance", "built-in actions", share)
               for share in ("layout", "flicker", "motion")) == pytest.approx(1)  # fmt: skip
