"""mCE, mRR, mPC, rPC and their intervals, on tables worked by hand and on published ones."""

import csv
import re

import numpy as np
import pytest

from geonorm.__main__ import main as command
from geonorm.training.shift.bootstrap import interval, resamples
from geonorm.training.shift.comparison import Comparison, as_json, as_markdown, percent
from geonorm.training.shift.heat_map import draw
from geonorm.training.shift.measures import MEAN, Scores, mean_over, measure
from geonorm.training.shift.score_files import read_baseline, read_scores, write_scores

# MinkUNet18 on SemanticKITTI-C, clean 62.76 (Kong et al., ICCV 2023): three levels and RR.
ROBO3D = {
    "fog": (61.71, 58.32, 47.59, 89.02),
    "wet_ground": (58.38, 52.38, 51.21, 86.03),
    "snow": (55.50, 53.70, 50.65, 84.89),
    "motion_blur": (42.78, 31.62, 24.35, 52.45),
    "beam_missing": (60.70, 56.78, 51.47, 89.74),
    "crosstalk": (59.87, 58.47, 56.68, 92.96),
    "incomplete_echo": (57.89, 54.68, 50.72, 86.73),
    "cross_sensor": (57.53, 52.08, 28.53, 73.37),
}


def scores(clean, **corrupted):
    """Return Scores of numbers, the levels being 1, 2, ..."""
    return Scores(np.array([clean]), {
        name: {level: np.array([value]) for level, value in enumerate(values, start=1)}
        for name, values in corrupted.items()
    })  # fmt: skip


# Neither is the baseline of itself. Errors under fog: 0.4 + 0.6 + 0.8 = 1.8 over 0.3 + 0.5 + 0.7 =
# 1.5; under snow 0.3 + 0.5 + 0.7 = 1.5 over 0.2 + 0.3 + 0.5 = 1.
NETWORK = scores(0.8, fog=(0.6, 0.4, 0.2), snow=(0.7, 0.5, 0.3))
BASELINE = scores(0.9, fog=(0.7, 0.5, 0.3), snow=(0.8, 0.7, 0.5))


def written(path, rows, head="corruption,level,score"):
    """Write a CSV file of scores and return its path."""
    path.write_text("\n".join([head, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def published(path):
    """Write Robo3D's table, in percent, as a CSV file."""
    rows = [(name, level, score) for name, (*levels, _) in ROBO3D.items()
            for level, score in enumerate(levels, start=1)]  # fmt: skip
    return written(path, [("clean", "", 62.76), *rows])


def cells(table):
    """Return the cells of a Markdown table by row and column."""
    lines = [[cell.strip(" *") for cell in line.strip("|").split("|")]
             for line in table.splitlines() if line.startswith("|")]  # fmt: skip
    head, _, *rows = lines
    return {row[0]: dict(zip(head, row, strict=True)) for row in rows}


def test_a_table_worked_by_hand():
    found = measure(NETWORK, BASELINE)
    assert found["fog"].score[0] == pytest.approx(0.4)
    assert found["fog"].retained[0] == pytest.approx(0.5)
    assert found["fog"].error[0] == pytest.approx(1.2)
    assert found["snow"].retained[0] == pytest.approx(0.625)
    assert found["snow"].error[0] == pytest.approx(1.5)
    mean = mean_over([*found.values()])
    assert mean.score[0] == pytest.approx(0.45)  # mPC
    assert mean.retained[0] == pytest.approx(0.5625)  # mRR, and rPC: 0.45 / 0.8
    assert mean.error[0] == pytest.approx(1.35)  # mCE; the errors' ratio would be 3.3 / 2.5


def test_the_baseline_against_the_network_is_another_number():
    found = measure(BASELINE, NETWORK)
    assert found["fog"].error[0] == pytest.approx(1.5 / 1.8)
    assert mean_over([*found.values()]).error[0] == pytest.approx((1.5 / 1.8 + 1 / 1.5) / 2)
    assert mean_over([*found.values()]).retained[0] == pytest.approx((0.5 + 2 / 3) / 2 / 0.9)


def test_of_a_clean_score_of_0_nothing_can_be_left(tmp_path):
    found = measure(scores(0.0, fog=(0.1, 0.3)), scores(0.9, fog=(0.7, 0.5)))["fog"]
    assert np.isnan(found.retained[0])
    assert found.error[0] == pytest.approx(1.6 / 0.8)
    comparison = Comparison({"a": scores(0.0, fog=(0.1,))}, {"all": ["fog"]}, "mIoU")
    assert cells(as_markdown(comparison))["fog"] == {
        "corruption": "fog", "mIoU": "10.00", "RR": "none",
    }  # fmt: skip
    as_written = as_json(comparison)["networks"]["a"]["groups"]["all"]["mean"]
    assert as_written["retained"] == [None, None, None]
    draw(comparison, tmp_path / "heat_map.png")
    assert (tmp_path / "heat_map.png").read_bytes().startswith(b"\x89PNG")


def test_a_mean_over_levels_stands_for_them():
    means = Scores(NETWORK.clean, {"fog": {MEAN: np.array([0.4])}, "snow": {MEAN: np.array([0.5])}})
    of_baseline = {"fog": {MEAN: np.array([0.5])}, "snow": {MEAN: np.array([2 / 3])}}
    others = Scores(BASELINE.clean, of_baseline)
    for network, baseline in ((means, BASELINE), (NETWORK, BASELINE), (NETWORK, others)):
        errors = [m.error[0] for m in measure(network, baseline).values()]
        assert errors == pytest.approx([1.2, 1.5])


def test_a_corruption_that_the_baseline_lacks_has_no_error():
    found = measure(NETWORK, scores(0.9, snow=(0.8, 0.7, 0.5)))
    assert found["fog"].error is None
    assert [(m.over, m.error_over) for m in found.values()] == [(1, 0), (1, 1)]
    assert mean_over([*measure(NETWORK).values()]).error_over == 0
    mean = mean_over([*found.values()])
    assert (mean.over, mean.error_over) == (2, 1)
    assert mean.error[0] == pytest.approx(1.5)


@pytest.mark.parametrize(("network", "baseline", "message"), [
    (NETWORK, scores(0.9, fog=(1.0, 1.0, 1.0)), r"no error under fog, and CE divides by"),
    (NETWORK, scores(0.9, fog=(0.7, 0.5)), r"fog must have the same levels.*1, 2, 3 and 1, 2$"),
])  # fmt: skip
def test_measures_that_there_are_not(network, baseline, message):
    with pytest.raises(ValueError, match=message):
        measure(network, baseline)


def test_a_resample_in_which_the_baseline_makes_no_error_is_no_reason_to_refuse_it():
    clean = np.array([0.8, 0.7, 0.9])
    judged = Scores(clean, {"fog": {1: np.array([0.4, 0.5, 0.3])}})
    other = Scores(clean, {"fog": {1: np.array([0.5, 1.0, 1.0])}})
    assert measure(judged, other)["fog"].error.tolist() == [1.2, np.inf, np.inf]
    error = as_json(Comparison({"a": judged}, {"all": ["fog"]}, "mIoU", ("b", other)))
    assert error["networks"]["a"]["groups"]["all"]["mean"]["error"] == [1.2, None, None]
    with pytest.raises(ValueError, match="no error under fog"):
        measure(judged, Scores(clean, {"fog": {1: np.array([1.0, 0.5, 0.5])}}))


def test_the_published_table_of_robo3d(tmp_path, capsys):
    file = published(tmp_path / "minkunet18.csv")
    assert command(["evaluate-shift", f"--summarize={file}", f"--baseline={file}"]) == 0
    found = cells(capsys.readouterr().out)
    for name, (*_, retained) in ROBO3D.items():
        assert float(found[name]["RR"]) == pytest.approx(retained, abs=0.011)
        assert found[name]["CE"] == "100.00"
    mean = found["mean of all (8)"]
    assert float(mean["RR"]) == pytest.approx(81.90, abs=0.005)
    assert mean["CE"] == "100.00"


def test_the_published_rpc_of_a_3d_resnet(tmp_path, capsys):
    """3D ResNet-18 on Mini Kinetics-C: clean 66.2, mPC 53.3, rPC 80.5."""
    file = written(tmp_path / "r18.csv", [("clean", "", 66.2), ("all twelve", "", 53.3)])
    assert command(["evaluate-shift", f"--summarize={file}"]) == 0
    mean = cells(capsys.readouterr().out)["mean of all (1)"]
    assert (mean["score"], mean["RR"]) == ("53.30", "80.51")


def test_shares_and_percent_are_told_apart_in_each_file(tmp_path, capsys):
    shares = written(tmp_path / "a.csv", [("clean", "", 0.8), ("fog", 1, 0.6), ("fog", 2, 0.2)])
    percent = written(tmp_path / "b.csv", [("clean", "", 90), ("fog", 1, 70), ("fog", 2, 0.5)])
    assert command(["evaluate-shift", f"--summarize={shares}", f"--baseline={percent}"]) == 0
    said = capsys.readouterr().out
    fog = cells(said)["fog"]
    assert (fog["score"], fog["RR"]) == ("40.00", "50.00")
    assert float(fog["CE"]) == pytest.approx(100 * 1.2 / (0.3 + 0.995), abs=0.005)
    assert "CE is by b" in said


@pytest.mark.parametrize(("clean", "fog", "shown"), [
    (1, 0.5, ("100.00", "50.00")), (100, 25, ("100.00", "25.00")), (1.5, 0.25, ("1.50", "0.25")),
])  # fmt: skip
def test_a_clean_score_of_all_is_1_or_100(tmp_path, capsys, clean, fog, shown):
    file = written(tmp_path / "a.csv", [("clean", "", clean), ("fog", 1, fog)])
    assert command(["evaluate-shift", f"--summarize={file}"]) == 0
    table = cells(capsys.readouterr().out)
    assert (table["clean"]["score"], table["fog"]["score"]) == shown


def test_a_file_of_a_spreadsheet_is_read(tmp_path):
    """With a byte order mark, spaces, and a baseline whose name is told."""
    file = tmp_path / "a.csv"
    text = "corruption,level,score,network\nclean, ,0.8,mine\n fog , 2 ,0.5,mine\n"
    file.write_text(text, encoding="utf-8-sig")
    read, groups = read_scores(file)
    assert read == {"mine": Scores(np.array([0.8]), {"fog": {2: np.array([0.5])}})}
    assert groups == {"": ["fog"]}
    assert read_baseline(file, ["rain", "fog"])[0] == "mine"
    file.write_text("")
    with pytest.raises(ValueError, match="it lacks corruption, level, score"):
        read_scores(file)


def test_groups_are_those_of_the_file_and_others(tmp_path, capsys):
    rows = [("", "clean", "", 0.8), ("Mini Kinetics-C", "fog", 1, 0.5), ("", "dust", 1, 0.4)]
    file = written(tmp_path / "a.csv", rows, "group,corruption,level,score")
    assert command(["evaluate-shift", f"--summarize={file}"]) == 0
    assert [*cells(capsys.readouterr().out)] == [
        "clean", "fog", "mean of Mini Kinetics-C (1 of 12)", "dust", "mean of others (1)",
    ]  # fmt: skip


def test_scores_that_were_written_are_read(tmp_path):
    """With all their networks and groups: what evaluate-shift wrote can be summarized."""
    networks = {"one": NETWORK, "two": BASELINE}
    comparison = Comparison(networks, {"Robo3D": ["fog"], "others": ["snow"]}, "mIoU")
    write_scores(comparison, tmp_path / "scores.csv")
    read, groups = read_scores(tmp_path / "scores.csv")
    assert groups == {"Robo3D": ["fog"], "others": ["snow"]}
    assert read.keys() == networks.keys()
    for name, expected in networks.items():
        assert read[name].clean == expected.clean
        assert read[name].corrupted == expected.corrupted
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert len(rows) == 2 * (1 + 3 + 3)
    assert rows[2] == {"network": "one", "group": "Robo3D", "corruption": "fog", "level": "2",
                       "score": "0.4", "low": "", "high": ""}  # fmt: skip


def test_a_mean_over_fewer_than_the_benchmark_has_says_so(tmp_path, capsys):
    rows = [("", "clean", "", 0.8), ("Robo3D", "fog", 1, 0.5), ("Robo3D", "snow", 1, 0.4)]
    head = "group,corruption,level,score"
    file = written(tmp_path / "a.csv", rows, head)
    base = written(tmp_path / "b.csv", [rows[0], rows[1]], head)
    command(["evaluate-shift", f"--summarize={file}", f"--baseline={base}"])
    said = capsys.readouterr().out
    assert "**mean of Robo3D (2 of 8; CE 1)**" in said
    assert "no CE, as the baseline has no score: snow" in said


CLEAN, FOG = ("clean", "", 0.8), ("fog", 1, 0.5)
BAD_FILES = {
    "two rows for a level": ([CLEAN, FOG, FOG], r"fog has a row too many; expected one for each"),
    "a mean beside levels": ([CLEAN, FOG, ("fog", "", 0.4)], r"fog has a row too many"),
    "levels beside a mean": ([CLEAN, ("fog", "", 0.4), FOG], r"fog has a row too many"),
    "two clean rows": ([CLEAN, CLEAN, FOG], r"clean has a row too many"),
    "no clean row": ([FOG], r"has no row `clean` with an empty level"),
    "only the clean row": ([CLEAN], r"has no score of a corruption, only the clean"),
    "no rows": ([], r"has no rows below its columns"),
    "a level in words": ([CLEAN, ("fog", "light", 0.5)], r"line 3: level must be.*'light' and"),
    "a level 0": ([CLEAN, ("fog", 0, 0.5)], r"line 3: level must be 1 or more; got 0"),
    "a score in words": ([CLEAN, ("fog", 1, "low")], r"line 3: level must be.*and 'low'"),
    "a negative score": ([CLEAN, ("fog", 1, -0.1)], r"line 3: a score must be in \[0, 1\].*-0\.1"),
    "more than 100": ([CLEAN, ("fog", 1, 101)], r"line 3: a score must be.*got 101"),
    "no number": ([CLEAN, ("fog", 1, "nan")], r"line 3: a score must be.*got nan"),
    "no score in a row": ([CLEAN, ("fog", 1)], r"line 3: level must be.*got '1' and None"),
    "a row cut off": ([CLEAN, ("fog",)], r"line 3: level must be.*got None and None"),
    "a clean score of 0": ([("clean", "", 0), FOG], r"clean score must be above 0"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_files_of_scores(tmp_path, kind):
    rows, message = BAD_FILES[kind]
    said = command(["evaluate-shift", f"--summarize={written(tmp_path / 'bad.csv', rows)}"])
    assert isinstance(said, str)
    assert said.startswith("geonorm evaluate-shift: ")
    assert re.search(message, said)
    assert "bad.csv" in said


def test_a_score_of_nothing_is_a_score(tmp_path):
    networks, _ = read_scores(written(tmp_path / "a.csv", [CLEAN, ("fog", 1, 0), ("snow", 2, 1)]))
    corrupted = networks[""].corrupted
    assert corrupted == {"fog": {1: np.array([0.0])}, "snow": {2: np.array([1.0])}}


def test_files_that_do_not_go_together(tmp_path):
    good = written(tmp_path / "good.csv", [CLEAN, FOG])

    def said(*words):
        return command(["evaluate-shift", f"--summarize={good}", *words])

    assert "no file" in said(f"--baseline={tmp_path / 'none.csv'}")
    other = written(tmp_path / "other.csv", [CLEAN, ("rain", 1, 0.5)])
    assert re.search(r"has none of the corruptions fog; it has rain", said(f"--baseline={other}"))
    rows = [(name, *row) for name in ("a", "b") for row in (CLEAN, FOG)]
    two = written(tmp_path / "two.csv", rows, "network,corruption,level,score")
    assert re.search(r"must be one network; .* has a, b", said(f"--baseline={two}"))
    rows[-1] = ("b", "snow", 1, 0.5)
    two = written(tmp_path / "two.csv", rows, "network,corruption,level,score")
    found = command(["evaluate-shift", f"--summarize={two}"])
    assert re.search(r"b and a must have the same corruptions; got snow and fog", found)
    rows[-2:] = [("b", *FOG)]
    two = written(tmp_path / "two.csv", rows, "network,corruption,level,score")
    found = command(["evaluate-shift", f"--summarize={two}"])
    assert re.search(r"no row `clean` with an empty level of b; the score", found)
    headless = written(two, [CLEAN], "corruption,a,score")
    found = command(["evaluate-shift", f"--summarize={headless}"])
    assert re.search(r"must have the columns corruption, level, score; it lacks level", found)
    assert re.search(r"judges no checkpoint; got a\.ckpt too", said("a.ckpt"))


def test_an_interval_worked_by_hand():
    """Of 41 resamples with the scores 0, 1, ..., 40, a 40th lies below 1 and above 39."""
    values = np.random.default_rng(0).permutation(41).astype(float)
    assert interval(np.concatenate([[17.0], values])) == (17, 1, 39)
    assert percent(np.concatenate([[17.0], values]) / 40) == "42.50 [2.50, 97.50]"


def test_no_interval_of_one_item_or_of_what_has_no_score():
    assert resamples(1, 1000, seed=0).tolist() == [[1.0]]
    assert interval(np.array([0.5])) == (0.5, None, None)
    assert interval(np.array([0.5, np.nan, 0.4])) == (0.5, None, None)


def test_resamples_draw_each_item_as_often_as_any():
    weights = resamples(5, 20_000, seed=3)
    assert weights.shape == (20_001, 5)
    assert weights[0].tolist() == [1] * 5
    drawn = weights[1:]
    assert (drawn.sum(axis=1) == 5).all()
    assert drawn.mean(axis=0) == pytest.approx(np.ones(5), abs=0.03)
    assert drawn.var(axis=0) == pytest.approx(np.full(5, 0.8), abs=0.03)  # 5 · 1/5 · 4/5
    assert np.array_equal(weights, resamples(5, 20_000, seed=3))
    assert not np.array_equal(weights, resamples(5, 20_000, seed=4))


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    """Of a score of 0.7, over 150 items and 1500 experiments."""
    hits = np.random.default_rng(1).random((1500, 150)) < 0.7
    weights = resamples(150, 500, seed=0)
    found = [interval(weights @ row / 150) for row in hits]
    covered = np.mean([low <= 0.7 <= high for _, low, high in found])
    assert 0.925 < covered < 0.965


def test_measures_have_intervals_of_the_same_resamples():
    """Score and clean score rise and fall together, so RR has no width here, and CE has."""
    clean = np.array([0.8, 0.4, 0.6])
    judged = Scores(clean, {"fog": {1: clean / 2}})
    other = Scores(np.array([0.9]), {"fog": {1: np.array([0.5])}})
    entry = as_json(Comparison({"a": judged}, {"all": ["fog"]}, "mIoU", ("b", other)))
    assert (entry["score"], entry["baseline"], entry["left_out"]) == ("mIoU", "b", {})
    mean = entry["networks"]["a"]["groups"]["all"]["mean"]
    assert (mean["over"], mean["error_over"]) == (1, 1)
    found = entry["networks"]["a"]["groups"]["all"]["corruptions"]["fog"]
    assert found["retained"] == pytest.approx([0.5, 0.5, 0.5])
    low, high = np.percentile([0.2, 0.3], (2.5, 97.5))
    assert found["score"] == pytest.approx([0.4, low, high])
    assert found["levels"]["1"] == found["score"]
    assert found["error"] == pytest.approx([1.2, (1 - high) / 0.5, (1 - low) / 0.5])


def test_a_mean_over_levels_has_no_level_in_the_files(tmp_path):
    levels = {"fog": {MEAN: np.array([0.25])}, "snow": {2: np.array([0.5])}}
    comparison = Comparison({"a": Scores(np.array([0.5]), levels)}, {"all": [*levels]}, "mIoU")
    each = as_json(comparison)["networks"]["a"]["groups"]["all"]["corruptions"]
    assert [each[name]["levels"] for name in levels] == [{}, {"2": [0.5, None, None]}]
    assert each["fog"]["score"] == [0.25, None, None]
    write_scores(comparison, tmp_path / "a.csv")
    assert read_scores(tmp_path / "a.csv")[0]["a"].corrupted == levels
    text = (tmp_path / "a.csv").read_text().split()
    assert text[2:] == ["a,all,fog,,0.25,,", "a,all,snow,2,0.5,,"]


def test_networks_stand_side_by_side_in_the_table():
    comparison = Comparison(
        {"one": NETWORK, "two": BASELINE}, {"Robo3D": ["fog"], "others": ["snow"]}, "mIoU",
        ("one", NETWORK), {"rain": "it has no rings"}, {"Robo3D": 8},
    )  # fmt: skip
    table = as_markdown(comparison)
    found = cells(table)
    assert [*found] == ["clean", "fog", "mean of Robo3D (1 of 8)", "snow", "mean of others (1)"]
    assert [*found["clean"].values()] == ["clean", "80.00", "", "", "90.00", "", ""]
    assert (found["fog"]["one: RR"], found["fog"]["two: RR"]) == ("50.00", "55.56")
    assert found["fog"]["two: CE"] == "83.33"
    assert found["fog"]["one: CE"] == "100.00"
    assert "left out: rain: it has no rings" in table
    as_written = as_json(comparison)
    assert as_written["left_out"] == {"rain": "it has no rings"}
    mean = as_written["networks"]["two"]["groups"]["Robo3D"]["mean"]
    assert (mean["over"], mean["error_over"]) == (1, 1)
    assert "CE is by one" in table


def test_the_notes_tell_what_stands_in_the_table_and_what_does_not():
    networks, groups = {"one": NETWORK}, {"all": ["fog", "snow"]}
    (alone,) = Comparison(networks, groups, "mIoU").notes()
    assert alone.endswith("mPC, mRR (for videos called rPC).")
    lacking = ("two", scores(0.9, snow=(0.8, 0.7, 0.5)))
    first, *others = Comparison(networks, groups, "mIoU", lacking).notes()
    assert first.endswith("mPC, mRR (for videos called rPC) and mCE.")
    assert others == ["CE is by two", "no CE, as the baseline has no score: fog"]


def test_the_script_does_the_same(tmp_path, capsys):
    from evaluate_shift import main

    file = published(tmp_path / "scores.csv")
    assert main([f"--summarize={file}"]) == 0
    head = capsys.readouterr().out.partition("\n")[0]
    assert head == "| corruption | score | RR |"
