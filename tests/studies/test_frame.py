"""Stated tests, verdicts, resuming, the broken norm and what is written of a study."""

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import MinkowskiEngine as ME
import numpy as np
import pytest
import torch

from geonorm import AdaptiveInstanceNorm, AxisInstanceNorm, InstanceNorm
from geonorm.datasets.video_io import write_video
from geonorm.studies import clips, density, federated, points, run
from geonorm.studies.broken import broken_instance_norm
from geonorm.studies.outcome import Interval, Outcome
from geonorm.studies.recordings import Recordings
from geonorm.studies.report import as_json, as_page, as_summary, as_text, draw, from_json, number
from geonorm.studies.run import run_study
from geonorm.studies.study import Part, Quantity, Setting, Study, Test
from geonorm.style import style_statistics
from helpers.sounds import write_film_with_sound
from helpers.studies import NOTHING

CALLS: list[tuple[str, int, str]] = []


def levels(column: str, setting: Setting) -> Mapping[str, float]:
    """Return 1, 2, 3, ... by seed for the column "low", ten more for "high", 0 as mutated."""
    CALLS.append((column, setting.seed, setting.variant))
    base = 0.0 if setting.mutated else 10.0 * (column == "high") + setting.seed + 1
    return {"level": base, "half": base / 2}


def plot(outcome: Outcome, figure: Any) -> None:
    figure.subplots().plot([outcome.mean("levels", "level", c) for c in ("low", "high")])


STUDY = Study(
    name="frame", title="A frame", claim="High is higher than low", sources=("Nobody (2026)",),
    tests=(
        Test("high lies over ten", Quantity("levels", "level", "high"), above=10.0),
        Test("high exceeds low by ten", Quantity("levels", "level", "high"), above=9.9, below=10.1,
             minus=Quantity("levels", "level", "low")),
        Test("low lies under one", Quantity("levels", "level", "low"), below=1.0),
    ),
    parts=(Part("levels", "Levels", ("low", "high", "unused"), levels),),
    mutation="all is zero.", notes="Low is {levels|level|low}, high {levels|half|high}.",
    advice="Take {levels|level|high}.", draw=plot,
)  # fmt: skip


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep finished runs in a folder of this test's, and count its calls alone."""
    monkeypatch.setenv("GEONORM_CACHE", str(tmp_path / "cache"))
    CALLS.clear()


def test_interval_is_students() -> None:
    mean, low, high = Interval.of([1.0, 2.0, 6.0])
    assert mean == 3
    half = 4.302652729911275 * (7 / 3) ** 0.5  # t of two degrees of freedom; variance 7
    assert (low, high) == pytest.approx((3 - half, 3 + half))
    assert Interval.of([5.0]) == (5, 5, 5)


def test_verdict_follows_from_whole_intervals() -> None:
    outcome = run_study(STUDY, range(3), NOTHING)
    # high is 11, 12, 13: 12 ± 2.48; its difference from low is 10 in every seed; low is 2 ± 2.48.
    assert [each.passed for each in outcome.judge()] == [False, True, False]
    assert [each.result for each in outcome.judge()] == ["not shown", "as claimed", "not shown"]
    assert outcome.verdict() == "holds in part: not shown: high lies over ten; low lies under one"
    assert [each.passed for each in outcome.judge("mutated")] == [False, False, True]
    assert outcome.turned("mutated") == [2]
    assert outcome.turned("broken") == []


@pytest.mark.parametrize(
    ("above", "below", "verdict"),
    [
        (1.0, 20.0, "holds"),
        (9.5, 14.5, "holds"),
        (9.6, 20.0, "is not shown: not shown: it lies there"),  # 12 ± 2.48 lies across 9.6
        (13.0, 20.0, "is not shown: not shown: it lies there"),
        (1.0, 12.5, "is not shown: not shown: it lies there"),
        (11.0, 13.0, "is not shown: not shown: it lies there"),
        (14.5, 20.0, "does not hold: refuted: it lies there"),
        (1.0, 9.5, "does not hold: refuted: it lies there"),
    ],
)
def test_verdict_of_one_test(above: float, below: float, verdict: str) -> None:
    only = Test("it lies there", Quantity("levels", "level", "high"), above=above, below=below)
    assert run_study(replace(STUDY, tests=(only,)), range(3), NOTHING).verdict() == verdict


def test_verdict_keeps_refuted_and_not_shown_apart() -> None:
    high = Quantity("levels", "level", "high")
    study = replace(STUDY, tests=(
        Test("a", high, above=1.0), Test("b", high, above=14.5), Test("c", high, above=13.0),
        Test("d", high, below=9.5),
    ))  # fmt: skip
    outcome = run_study(study, range(3), NOTHING)
    assert outcome.with_result("refuted") == ["b", "d"]
    assert outcome.verdict() == "holds in part: refuted: b; d. not shown: c"
    # As mutated all is 0, without an interval.
    assert outcome.verdict("mutated") == "holds in part: of 4 tests 3 refuted"
    assert outcome.verdict("broken") == "holds in part: of 4 tests 2 refuted, 1 not shown"
    page = as_page(outcome)
    assert page.splitlines()[2:7] == [
        "**This claim holds in part:** High is higher than low.", "", "Refuted: b; d.", "",
        "Not shown: c.",
    ]  # fmt: skip
    assert "high] < 9.5` | 12.0 ± 2.48 | refuted | as claimed | refuted |" in page
    assert "| holds in part | 4 | 1 | 2 | 1 | 1 | 0 |" in as_summary([outcome])
    assert "found 12.0 ± 2.48: not shown" in as_text(outcome)


def test_one_value_at_the_edge_is_refuted() -> None:
    """A band has no edge of its own, and a value that is measured once has no interval."""
    high = Quantity("levels", "level", "high")
    study = replace(STUDY, tests=(Test("under", high, below=11.0), Test("over", high, above=11.0)))
    outcome = run_study(study, range(1), NOTHING)
    assert outcome.verdict() == "does not hold: refuted: under; over"


def test_nan_passes_nothing() -> None:
    part = Part("levels", "Levels", ("low",), lambda column, setting: {"level": float("nan")})
    test = Test("finite", Quantity("levels", "level", "low"), above=-1e300, below=1e300)
    study = replace(STUDY, tests=(test,), parts=(part,))
    outcome = run_study(study, range(2), NOTHING)
    assert [each.passed for each in outcome.judge()] == [False]
    assert outcome.verdict() == "is not shown: not shown: finite"


def test_trainings_need_three_seeds() -> None:
    study = replace(STUDY, parts=(replace(STUDY.parts[0], long=True),))
    assert run_study(study, range(2), NOTHING).verdict() == "too short to judge"
    assert run_study(study, range(3), NOTHING).verdict() != "too short to judge"
    quick = run_study(study, range(5), NOTHING, quick=True)
    assert quick.verdict() == "too short to judge"
    assert quick.left_out == {"levels": "too short to judge"}
    assert "left out: too short to judge" in as_text(quick)


def test_what_needs_recordings_is_left_out() -> None:
    scan, films = (replace(STUDY.parts[0], name=f"{need} part", needs=need)
                   for need in ("scan", "videos"))  # fmt: skip
    outcome = run_study(replace(STUDY, parts=(*STUDY.parts, scan, films)), range(3), NOTHING)
    assert {*outcome.left_out} == {"scan part", "videos part"}
    assert all("--data" in reason for reason in outcome.left_out.values())
    assert outcome.verdict().startswith("holds in part")


def test_what_does_not_depend_on_the_seed_is_measured_once() -> None:
    study = replace(STUDY, parts=(replace(STUDY.parts[0], seeded=False),))
    outcome = run_study(study, range(5), NOTHING)
    assert [call for call in CALLS if call[2] == "claimed"] == [
        (column, 0, "claimed") for column in ("low", "high", "unused")
    ]
    assert outcome.interval(Quantity("levels", "level", "high")) == (11, 11, 11)


def test_part_of_fewer_seeds() -> None:
    study = replace(STUDY, parts=(replace(STUDY.parts[0], most_seeds=2),))
    outcome = run_study(study, range(5), NOTHING)
    assert outcome.cells["claimed"][Quantity("levels", "level", "low")] == {0: 1, 1: 2}
    assert {seed for _, seed, _ in CALLS} == {0, 1}


def test_variants_measure_what_is_judged_and_no_more() -> None:
    run_study(STUDY, range(3), NOTHING)
    assert {column for column, _, variant in CALLS if variant == "mutated"} == {"low", "high"}
    assert {column for column, _, variant in CALLS if variant == "claimed"} == {
        "low", "high", "unused"
    }  # fmt: skip


def test_stopped_study_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = run._measure

    def stopped(*args: Any) -> dict[str, float]:
        if len(CALLS) == 4:
            raise KeyboardInterrupt
        return measure(*args)

    monkeypatch.setattr(run, "_measure", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_study(STUDY, range(3), NOTHING)
    monkeypatch.setattr(run, "_measure", measure)
    (store,) = (tmp_path / "cache" / "studies").iterdir()
    store.write_text(store.read_text() + '{"run": "cut o')  # as a killed process leaves it
    outcome = run_study(STUDY, range(3), NOTHING)
    assert len(CALLS) == len({*CALLS}) == 3 * 3 + 2 * 2 * 3
    assert outcome.mean("levels", "level", "low") == 2
    run_study(STUDY, range(4), NOTHING)  # one seed more
    assert len(CALLS) == len({*CALLS}) == 4 * 3 + 2 * 2 * 4


def test_finished_runs_are_kept_by_all_that_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of the study's file or of a helper that it uses makes another file of runs."""
    own, helper = Path(points.__file__).read_text(), Path(density.__file__).read_text()
    assert {own, helper} <= {*run._sources(points.STUDY)}
    assert Path(run.__file__).parent.joinpath("report.py").read_text() not in run._sources(
        points.STUDY
    )
    # Through the file of its clients:
    assert Path(clips.__file__).read_text() in run._sources(federated.STUDY)
    before = run._store(points.STUDY, NOTHING)
    monkeypatch.setattr(run, "_sources", lambda study: [own, helper + "# changed"])
    assert run._store(points.STUDY, NOTHING) != before


def test_unknown_column_and_a_test_without_bounds() -> None:
    with pytest.raises(ValueError, match="no such column: levels: level, hihg"):
        replace(STUDY, tests=(Test("x", Quantity("levels", "level", "hihg"), above=0),))
    with pytest.raises(ValueError, match="expected below, above or both"):
        Test("x", Quantity("levels", "level", "high"))
    lost = replace(STUDY, tests=(Test("x", Quantity("levels", "leevl", "high"), above=0),))
    with pytest.raises(ValueError, match="was not measured; rows of that part"):
        run_study(lost, range(3), NOTHING).judge()
    with pytest.raises(ValueError, match="different seeds, one or more"):
        run_study(STUDY, [1, 1], NOTHING)
    for seeds in ([99, 100], [-1, 0]):
        with pytest.raises(ValueError, match="expected seeds from 0 to 99; got"):
            run_study(STUDY, seeds, NOTHING)


def test_other_seeds_are_recorded_and_shown() -> None:
    outcome = run_study(STUDY, range(50, 53), NOTHING)
    assert {seed for _, seed, _ in CALLS} == {50, 51, 52}
    assert as_json(outcome)["seeds"] == [50, 51, 52]
    page = as_page(outcome)
    assert "seeds 50 to 52" in page
    assert "`geonorm study frame --first_seed 50 --seeds 3` measures all of this again" in page
    assert "seeds 50 to 52" in as_text(outcome)
    assert "`geonorm study frame` measures" in as_page(run_study(STUDY, range(5), NOTHING))
    assert "seeds 1, 4" in as_text(run_study(STUDY, [1, 4], NOTHING))
    assert "seeds 7," in as_text(run_study(STUDY, [7], NOTHING))


def test_processor_time_is_added_up_and_shown() -> None:
    def busy(column: str, setting: Setting) -> Mapping[str, float]:
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass
        return levels(column, setting)

    def idle(column: str, setting: Setting) -> Mapping[str, float]:
        time.sleep(0.05)
        return levels(column, setting)

    found = {}
    for measure in (busy, idle):
        study = replace(STUDY, name=measure.__name__,
                        parts=(replace(STUDY.parts[0], measure=measure),))  # fmt: skip
        run_study(study, range(2), NOTHING)
        found[measure] = run_study(study, range(2), NOTHING)  # kept runs count as well
    runs = 2 * (3 + 2 * 2)
    assert found[busy].cpu_seconds == pytest.approx(runs * 0.05, rel=0.3)
    assert found[idle].seconds >= runs * 0.05
    assert found[idle].cpu_seconds < 0.3 * found[idle].seconds
    assert from_json(STUDY, as_json(found[busy])).cpu_seconds == pytest.approx(
        found[busy].cpu_seconds, abs=0.06
    )
    assert "minutes of processor time" in as_page(found[busy])
    assert "processor" not in as_page(replace(found[busy], cpu_seconds=None))


def test_json_comes_back_and_makes_the_page(tmp_path: Path) -> None:
    outcome = run_study(STUDY, range(3), NOTHING)
    entry = json.loads(json.dumps(as_json(outcome)))
    again = from_json(STUDY, entry)
    assert again.cells == outcome.cells
    assert again.verdict() == outcome.verdict() == entry["verdict"]
    assert entry["mutation_turns"] == [2]
    page = as_page(again)
    assert page == as_page(outcome)
    assert page.splitlines()[2:5] == [
        "**This claim holds in part:** High is higher than low.", "",
        "Not shown: high lies over ten; low lies under one.",
    ]  # fmt: skip
    assert "Low is 2.00, high 6.00." in page
    assert "| level | 2.00 ± 2.48 | 12.0 ± 2.48 | 2.00 ± 2.48 |" in page
    assert "turns test 2" in page
    assert "| holds in part | 3 | 1 | 0 | 2 | 1 | 0 |" in as_summary([again])
    assert "**A frame.** Take 12.0. [More](frame.md)" in as_summary([again])
    busy, older = replace(again, cpu_seconds=90.0), replace(again, seconds=150.0, cpu_seconds=None)
    assert "All of them together took 4 minutes: of processor time" in as_summary([busy, older])
    assert "**What to do with it.** Take 12.0." in page
    draw(again, tmp_path / "frame.png")
    assert (tmp_path / "frame.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="its tests are not those of the JSON file"):
        from_json(replace(STUDY, tests=STUDY.tests[:1]), entry)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.5, "0.500"),
        (1.2345, "1.23"),
        (12.345, "12.3"),
        (1234.5, "1230"),
        (0.00123, "0.0012"),
        (0.000123, "1.2e-04"),
        (-3.0, "-3.00"),
        (float("nan"), "nan"),
    ],
)
def test_numbers_as_text(value: float, text: str) -> None:
    assert number(value) == text


def reference(x: torch.Tensor, dims: tuple[int, ...]) -> torch.Tensor:
    mean = x.mean(dims, keepdim=True)
    return (x - mean) / (x.var(dims, correction=0, keepdim=True) + 1e-5).sqrt()


def test_broken_norm_mixes_the_instances() -> None:
    x = torch.randn(3, 4, 5, 6, dtype=torch.float64)
    x = x * torch.tensor([1.0, 5.0, 9.0]).view(3, 1, 1, 1)
    rows, index = torch.randn(7, 4, dtype=torch.float64), torch.tensor([0, 1, 0, 2, 1, 1, 0])
    rows = rows * (1.0 + index)[:, None]
    norm = InstanceNorm(4, affine=False).double()
    axis = AxisInstanceNorm(4, affine=False, layout="BTFC", axes="T").double()
    sparse = ME.SparseTensor(rows.float(), torch.cat([index[:, None], torch.arange(7)[:, None] * 2,
                             torch.zeros(7, 2)], 1).int())  # fmt: skip
    added = torch.randn_like(x) * torch.tensor([2.0, 7.0, 3.0]).view(3, 1, 1, 1) + 4
    adaptive, looks = AdaptiveInstanceNorm(4), style_statistics(added)

    def in_style(plain: torch.Tensor) -> torch.Tensor:
        return plain * looks.std[..., None, None] + looks.mean[..., None, None]

    with broken_instance_norm():
        assert torch.allclose(norm(x), reference(x, (0, 2, 3)))
        assert torch.allclose(norm(x, residual=added), reference(x, (0, 2, 3)) + added)
        assert torch.allclose(norm(rows, index), reference(rows, (0,)))
        assert torch.allclose(axis(x.movedim(1, 3)), reference(x, (0, 2)).movedim(1, 3))
        out = InstanceNorm(4, affine=False)(sparse)
        assert torch.allclose(out.F, reference(sparse.F, (0,)), atol=1e-5)
        styled = adaptive(x, added)
        assert torch.allclose(styled, in_style(reference(x, (0, 2, 3))))
        means, stds = (each[index] for each in (looks.mean, looks.std))
        assert torch.allclose(adaptive(rows, looks, index), reference(rows, (0,)) * stds + means)
    with pytest.raises(RuntimeError, match="on purpose"), broken_instance_norm():
        raise RuntimeError("on purpose")
    assert torch.allclose(norm(x), reference(x, (2, 3)))
    assert torch.allclose(axis(x.movedim(1, 3)), reference(x, (2,)).movedim(1, 3))
    assert torch.allclose(adaptive(x, added), in_style(reference(x, (2, 3))))


def test_recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEONORM_DATA", raising=False)
    assert Recordings.of(None) == NOTHING
    with pytest.raises(ValueError, match="expected a folder of recordings"):
        Recordings.of(tmp_path / "none")
    with pytest.raises(ValueError, match="found neither"):
        Recordings.of(tmp_path)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / ".trash").mkdir()
    for name in ("b.bin", "a.bin", "film.AVI", "notes.txt", "._0.bin", ".trash/0.mp4"):
        (tmp_path / "deep" / name).touch()
    found = Recordings.of(tmp_path)
    assert found == Recordings(tmp_path / "deep" / "a.bin", (tmp_path / "deep" / "film.AVI",))
    monkeypatch.setenv("GEONORM_DATA", str(tmp_path))
    assert Recordings.of(None) == found
    assert found.lacks("scan") is None
    assert found.lacks(None) is None
    assert NOTHING.lacks("scan") == "needs a scan: give --data"
    with pytest.raises(ValueError, match="this part needs a scan: give --data"):
        NOTHING.read_scan()
    assert NOTHING.lacks("videos") == "needs videos: give --data"
    assert NOTHING.lacks("sound") == "needs a film with sound: give --data"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert NOTHING.lacks("speech") == "needs espeak-ng: apt-get install espeak-ng"
    (tmp_path / "espeak-ng").touch(0o755)
    assert NOTHING.lacks("speech") is None


def test_the_film_with_sound_is_found(tmp_path: Path) -> None:
    film = np.zeros((2, 16, 16, 3), np.uint8)
    write_video(tmp_path / "a.mp4", film)
    assert Recordings.of(tmp_path).sound is None
    write_film_with_sound(tmp_path / "b.mkv", np.zeros(160))
    found = Recordings.of(tmp_path)
    assert found.sound == tmp_path / "b.mkv"
    assert found.lacks("sound") is None
