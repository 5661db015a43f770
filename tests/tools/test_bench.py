"""bench.py measures what it says: rounds in turn, A/A, percentiles, peak memory, rows in a CSV."""

import csv
import importlib
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from benchmarks.accuracy import accuracy_rows
from benchmarks.measure import Contender, Table, measure, peak_bytes
from benchmarks.plot import draw, newest
from benchmarks.report import COLUMNS, rows_of

TOOL = Path(__file__).resolve().parents[2] / "tools" / "bench.py"


def bench(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, TOOL, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)


@pytest.fixture(scope="module")
def rows_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Measure one stage of r3d_18 for a moment."""
    path = tmp_path_factory.mktemp("bench") / "rows.csv"
    done = bench("--suite", "video", "--only", "layer3", "--dtypes", '["float32"]',
                 "--seconds", 0.05, "--csv", path)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return path


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [*csv.DictReader(file)]


@pytest.mark.slow
def test_every_contender_has_a_row_in_both_layouts_and_works(rows_file):
    rows = read(rows_file)
    tables = {(row["layout"], row["work"]) for row in rows}
    assert len(tables) == 4
    names = {row["contender"] for row in rows}
    assert {"clone()", "BatchNorm3d", "InstanceNorm3d", "GroupNorm(C, C)", "ours"} <= names
    assert len(rows) == 4 * len(names)
    for row in rows:
        assert float(row["p20_ms"]) <= float(row["p50_ms"]) <= float(row["p80_ms"])
        assert int(row["rounds"]) >= 5
        assert (row["resolved"] == "yes") == (0.95 <= float(row["aa"]) <= 1.05)
        assert row["torch"] == torch.__version__
        assert row["device"]
        assert row["commit"]


@pytest.mark.slow
def test_ours_keeps_no_further_tensor(rows_file):
    for row in read(rows_file):
        if row["contender"] == "ours":
            kept = {"forward": 1, "forward+backward": 2}[row["work"]]  # output; one gradient
            excess = int(row["peak_bytes"]) - kept * int(row["input_bytes"])
            assert 0 <= excess < 0.05 * int(row["input_bytes"])


@pytest.mark.long
def test_figures_are_drawn_from_the_rows(rows_file, tmp_path):
    done = bench("--plot", tmp_path, "--csv", rows_file)
    assert done.returncode == 0, done.stdout + done.stderr
    (figure,) = tmp_path.iterdir()
    assert re.fullmatch(r"bench_video_float32_[a-z0-9_]+\.png", figure.name)  # and the device
    text = rows_file.with_suffix(".md").read_text()
    for row in read(rows_file):
        if row["contender"] == "ours":  # in a line of its table stand its time and its ratio
            table = text.partition(f", {row['work']}, {row['device']}\n")[2]
            (line,) = [
                line for line in table.splitlines()
                if line.startswith(f"| {row['shape']}") and f"| {row['layout']} |" in line
            ][:1]
            assert f"| {float(row['p50_ms']):.3g} | {float(row['to_baseline']):.2f} |" in line


def test_nothing_to_draw(tmp_path):
    with pytest.raises(ValueError, match="run a suite of tools"):
        draw(tmp_path / "none.csv", tmp_path)
    (tmp_path / "empty.csv").write_text(",".join(COLUMNS) + "\n")
    with pytest.raises(ValueError, match="holds no row of the suites"):
        draw(tmp_path / "empty.csv", tmp_path)


@pytest.mark.slow
def test_a_newer_row_of_the_same_contender_takes_the_place_of_the_older(rows_file):
    rows = read(rows_file)
    assert len(newest(rows)) == len(rows)
    later = [{**row, "p50_ms": "1"} for row in rows[:3]]
    assert [row["p50_ms"] for row in newest([*rows, *later])][:3] == ["1", "1", "1"]


def test_contenders_run_in_turn_and_the_baseline_twice():
    calls = []
    contenders = [Contender(name, lambda name=name: calls.append(name)) for name in "ab"]
    table = measure(contenders, "a", 0)
    rounds = calls[-3 * len(table.times["a"]):]
    assert all(sorted(rounds[k : k + 3]) == ["a", "a", "b"] for k in range(0, len(rounds), 3))
    assert set(table.times) == {"a", "b", "a again"}


def test_what_is_much_slower_sits_rounds_out_but_not_too_many():
    quick, slow = (
        Contender(name, lambda s=s: time.sleep(s)) for name, s in (("a", 0.002), ("b", 0.1))
    )
    table = measure([quick, slow], "a", 0)
    assert len(table.times["b"]) == 5
    assert len(table.times["a"]) == 40


def test_a_baseline_that_differs_from_itself_is_unresolved():
    table = Table("a", {"a": [1.0] * 5, "a again": [1.04] * 5, "b": [0.5, 0.5, 2.0]})
    assert table.resolved
    assert table.ratio("b") == 0.5
    table.times["a again"] = [1.06] * 5
    assert not table.resolved


def test_rates_count_the_bytes_that_have_to_move():
    contenders = [Contender("clone()", print, 2.0), Contender("a", print, 8.0)]
    table = Table("a", {"clone()": [1.0], "a": [8.0], "a again": [8.0]}, {"clone()": 0, "a": 0})
    copy, norm = rows_of({}, contenders, table, input_bytes=10**6)
    assert (copy["gb_per_s"], norm["gb_per_s"], norm["of_copy"]) == ("2.0", "1.0", "0.50")


@pytest.mark.parametrize("tensors", [1, 3])
def test_peak_memory_counts_what_is_alive_at_once(tensors):
    x = torch.zeros(100_000)

    def run():
        kept = [x.clone() for _ in range(tensors)]
        del kept
        x.clone()

    assert peak_bytes(run) == tensors * x.nbytes


def test_ours_is_never_less_accurate_than_others():
    """Of errors as the table prints them; without FMA a machine has the last bit worse."""
    if importlib.import_module("geonorm._C").instruction_set() == "any":
        pytest.skip("this machine has no AVX2")
    errors = {}
    for row in accuracy_rows(["float32", "bfloat16"]):
        key = (row["dtype"], row["shape"], row["work"])
        errors.setdefault(key, {})[row["contender"]] = float(row["error"])
    assert len(errors) == 16
    for key, found in errors.items():
        ours = {name: error for name, error in found.items() if name.startswith("ours")}
        others = [error for name, error in found.items() if name not in ours]
        assert len(ours) == 2
        assert max(ours.values()) <= min(others), key
    # The control: whoever takes E[x²] − E[x]², or rounds the mean, is far off here.
    far = errors["float32", "mean/std 10000", "forward"]
    assert far["torch InstanceNorm1d"] > 1000 * far["ours, rows"]


@pytest.mark.long
def test_the_way_from_a_file_to_a_result_is_measured_beside_other_ways(tmp_path):
    path = tmp_path / "rows.csv"
    done = bench("--suite", "pipeline", "--only", "bin read", "--seconds", 0.05, "--csv", path)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = read(path)
    assert [row["contender"] for row in rows] == ["np.fromfile", "ours"]
    assert {row["work"] for row in rows} == {"read"}
