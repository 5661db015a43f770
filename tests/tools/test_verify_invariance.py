"""verify_invariance.py passes on ours, and fails where it must."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from geonorm.commands.verify import check_device, main, scans_of
from geonorm.datasets.scan import Scan
from geonorm.training.invariance.points import gather, patterns, thinned
from geonorm.training.invariance.table import (
    Row,
    as_json,
    as_text,
    change,
    draw,
    uncontrolled,
)

ME = pytest.importorskip("MinkowskiEngine", reason="run tools/install_minkowski.py")

TOOL = Path(__file__).resolve().parents[2] / "tools" / "verify_invariance.py"


@pytest.fixture(scope="module")
def scan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a small scan of a slope with a wall, as float32 x, y, z, intensity."""
    rng = np.random.default_rng(0)
    ground = rng.uniform(-6, 6, (500, 2))
    ground = np.column_stack([ground, 0.3 * ground[:, 0] - 1.2])
    wall = np.column_stack([np.full(250, 3.0), rng.uniform(-6, 6, 250), rng.uniform(-1, 2, 250)])
    points = np.concatenate([ground, wall])
    path = tmp_path_factory.mktemp("scan") / "000000.bin"
    np.column_stack([points, rng.uniform(0, 1, len(points))]).astype(np.float32).tofile(path)
    return path


def verify(*arguments: str | Path) -> subprocess.CompletedProcess:
    command = [sys.executable, TOOL, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)


def test_ours_passes_with_every_control_moving(scan_file: Path, tmp_path: Path) -> None:
    rows_file, figure = tmp_path / "rows.json", tmp_path / "figure.png"
    assert main([f"--data={scan_file}", f"--json={rows_file}", f"--figure={figure}"]) == 0
    rows = json.loads(rows_file.read_text())
    points, video = {"op", "layer", "MinkUNet", "file to logits"}, {"video layer", "r3d_18"}
    assert {row["level"] for row in rows} == points | video
    assert sum(row["level"] in points for row in rows) == 28
    assert figure.stat().st_size > 10_000


@pytest.mark.slow  # 12 to 20 s
def test_batch_norm_in_our_place_fails(
    scan_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"--data={scan_file}", "--norm=batch"]) == 1
    said = capsys.readouterr().err
    for level in ("op", "layer", "MinkUNet", "file to logits"):
        assert f"BREACH {level}, one scan x7: ours must stay" in said
    for row in ("video layer, gain, offset, one clip", "r3d_18, gain 4, one clip"):
        assert f"BREACH {row}: THW must stay" in said


@pytest.mark.slow  # 23 s; of the parts there is tests/training/test_plain.py
def test_plain_scans_and_clips_need_neither_open3d_nor_pyav(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("open3d", "av"):
        (tmp_path / f"{name}.py").write_text(f"raise ModuleNotFoundError('no {name}')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = verify("--plain", "true", "--json", tmp_path / "rows.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("on cpu\n")
    assert len(json.loads((tmp_path / "rows.json").read_text())) == 40


def test_a_scan_is_measured_whole_and_in_two_parts(scan_file: Path) -> None:
    whole, front, low = scans_of(scan_file)
    assert (len(whole), whole.name) == (750, f"{scan_file} (whole)")
    ahead, below = whole.points[:, 0] > 0, whole.points[:, 2] < -1
    assert 0 < ahead.sum() < 750
    assert 0 < below.sum() < 750
    np.testing.assert_array_equal(front.points, whole.points[ahead])
    np.testing.assert_array_equal(low.points, whole.points[below])
    np.testing.assert_array_equal(low.intensity, whole.intensity[below])


def test_plain_scans_and_files_exclude_each_other(scan_file: Path) -> None:
    said = main(["--plain=true", f"--data={scan_file}"])
    assert str(said).startswith("geonorm verify: --plain draws scans and clips; it takes no")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_named() -> None:
    check_device("cpu")
    with pytest.raises(ValueError, match=r"--device cuda needs a GPU; torch .* sees none"):
        check_device("cuda")
    said = str(main(["--device=cuda"]))
    assert said.startswith("geonorm verify: --device cuda needs a GPU")
    assert "Use --device cpu" in said


@pytest.mark.skipif(ME.is_cuda_available(), reason="this MinkowskiEngine is built for CUDA")
def test_an_engine_built_for_the_cpu_alone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ValueError, match=r"needs a MinkowskiEngine that is built for CUDA.*--cuda"):
        check_device("cuda")


def test_a_row_fails_where_a_control_stays_or_ours_moves() -> None:
    assert Row("op", "x2", {"a": 0.0, "b": 0.5}, ("a",), 1e-5, ("b",)).breaches == []
    assert len(Row("op", "x2", {"a": 0.1, "b": 0.0}, ("a",), 1e-5, ("b",)).breaches) == 2
    nan = float("nan")
    assert len(Row("op", "x2", {"a": nan, "b": nan}, ("a",), 1e-5, ("b",)).breaches) == 2
    for value, breaches in ((None, 2), (1e-5, 1), (1e-2, 2), (0.011, 1)):
        row = Row("op", "x2", {"a": value, "b": value}, ("a",), 1e-5, ("b",))
        assert len(row.breaches) == breaches
    bare, led = (Row(level, "x2", {"a": 0.0, "b": 1.0}, ("a",), 1e-5, moves)
                 for level, moves in (("op", ()), ("layer", ("b",))))  # fmt: skip
    assert uncontrolled([bare]) == ["op"]
    assert uncontrolled([led, bare, led]) == ["op"]
    assert uncontrolled([bare, Row("op", "x3", {"b": 1.0}, (), 1e-5, ("b",)), led]) == []


def test_rows_stand_below_each_other() -> None:
    rows = [
        Row("op", "twice", {"ours": 0.0, "batch": 0.25, "none": 3e-7}, ("ours",), 1e-5, ("batch",)),
        Row("network", "x3", {"ours": 0.5, "layer": None}, ("ours",), 1e-5),
    ]
    assert as_text(rows) == (
        "level    input change  ours      batch     none      layer\n"
        "op       twice         0.0e+00*  2.5e-01!  3.0e-07          ok\n"
        "network  x3            5.0e-01*                      n/a    BREACH\n"
        "relative change of the output; * must stay, ! control that must move"
    )
    told = json.loads(as_json(rows))
    assert told[1]["changes"] == {"ours": 0.5, "layer": None}
    assert told[1]["breaches"] == ["ours must stay within 1e-05, moved 0.5"]


def test_a_change_is_relative_to_what_was_before() -> None:
    assert change(torch.tensor([3.0, 4.0]), torch.tensor([3.0, -1.0])) == 1.0
    assert change(torch.tensor([0.0, 2.0]), torch.tensor([6.0, 10.0])) == 5.0


def test_points_are_repeated_in_every_way() -> None:
    scan = torch.tensor([0] * 200 + [1] * 300)
    found = dict(patterns(scan))
    for k in (2, 3, 7):
        assert found[f"all scans x{k}"].tolist() == [k] * 500
        assert found[f"one scan x{k}"].tolist() == [1] * 200 + [k] * 300
    own = found["each point its own"]
    assert len(found) == 7
    for part in (own[:200], own[200:]):  # of each scan first 1 or 2 times, and at its end 5 or 6
        fifths = [sorted(set(fifth.tolist())) for fifth in part.view(5, -1)]
        assert fifths == [[number, number + 1] for number in range(1, 6)]


def test_points_of_scans_are_gathered_and_repeated_with_their_scan() -> None:
    one = Scan(np.float32([[3, 6, 9]]), np.float32([0.25]), None, "a")
    other = Scan(np.float32([[-3, 0, 1.5], [0, 0, 0]]), np.float32([0.5, 1]), None, "b")
    points = gather([one, other])
    assert points.scan.tolist() == [0, 1, 1]
    torch.testing.assert_close(points.places, torch.tensor(
        [[10, 20, 30], [-10, 0, 5], [0, 0, 0]], dtype=torch.float32))  # fmt: skip
    assert points.features[:, 3].tolist() == [0.25, 0.5, 1]
    twice = points.repeated(torch.tensor([1, 2, 1]))
    assert twice.scan.tolist() == [0, 1, 1, 1]
    assert torch.equal(twice.features, points.features[[0, 1, 1, 2]])
    field = twice.field(twice.features)
    assert torch.equal(field.C, torch.cat([twice.scan[:, None].float(), twice.places], 1))


def test_networks_are_shown_fewer_points_and_the_tool_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    points = np.arange(90_000, dtype=np.float32).reshape(-1, 3)
    scans = [Scan(points, np.zeros(30_000, "f4"), None, name) for name in "ab"]
    parts = thinned(scans)
    assert [len(part) for part in parts] == [10_000, 10_000]
    np.testing.assert_array_equal(parts[1].points, points[::3])
    said = "all 60,000 points; MinkUNet and file to logits: one in 3, 20,000 in all"
    assert said in capsys.readouterr().out
    assert [len(part) for part in thinned(parts)] == [10_000, 10_000]
    assert capsys.readouterr().out == ""


ON_SPARSE = """
import MinkowskiEngine as ME, torch, geonorm, sys
torch.manual_seed(0)
scan = torch.arange(3000) % 3
places = torch.rand(3000, 3) * 20
features = torch.randn(3000, 8) * (1 + scan[:, None]) + scan[:, None]
field = ME.TensorField(features, torch.cat([scan[:, None].float(), places], 1))
x = field.sparse()
def error(norm):
    y = norm(x).F.detach().double()
    worst = 0.0
    for b in range(3):
        rows = x.F[x.C[:, 0] == b].detach().double()
        want = (rows - rows.mean(0)) / (rows.var(0, unbiased=False) + norm_eps).sqrt()
        worst = max(worst, ((y[x.C[:, 0] == b] - want).norm() / want.norm()).nan_to_num(9.0).item())
    return worst
norm_eps = 1e-5 if sys.argv[1] == "ours" else 1e-8
kind = geonorm.SparseInstanceNorm if sys.argv[1] == "ours" else ME.MinkowskiInstanceNorm
print(error(kind(8)))
"""


def on_the_result_of_sparse(whose: str) -> float:
    """Return the norm's error on TensorField.sparse(), infinite where it crashes."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", ON_SPARSE, whose], text=True,
                          capture_output=True, timeout=120, check=False)  # fmt: skip
    return float(done.stdout.split()[-1]) if done.returncode == 0 else float("inf")


def test_ours_is_right_where_minkowskis_is_wrong() -> None:
    """MinkowskiInstanceNorm errs, gives NaN or crashes on what TensorField.sparse() made."""
    assert on_the_result_of_sparse("ours") < 1e-5
    assert on_the_result_of_sparse("theirs") > 1e-2


def test_the_figure_has_a_mark_for_every_change(tmp_path, monkeypatch):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = [
        Row("op", "twice", {"ours": 0.0, "batch": 0.3, "none": None, "layer": 2e-5}, ("ours",),
            1e-5, ("batch",)),
        Row("network", "twice", {"ours": 4e-7, "layer": 0.02}, ("ours",), 1e-5),
    ]  # fmt: skip
    kept = []
    monkeypatch.setattr(plt, "close", kept.append)
    draw(rows, tmp_path / "new" / "changes.png")
    monkeypatch.undo()
    [axes] = kept[0].axes
    marks = {line.get_label(): sorted(zip(line.get_ydata(), line.get_xdata(), strict=True))
             for line in axes.lines if len(line.get_label()) > 7}  # fmt: skip
    plt.close(kept[0])
    assert marks["ours, which must stay"] == [(0, 1e-9), (1, 4e-7)]  # 0 lies at the edge
    assert marks["controls, which must move"] == [(0, 0.3)]
    assert marks["other norms"] == [(0, 2e-5), (1, 0.02)]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["op: twice", "network: twice"]
    assert axes.get_ylim() == (1.5, -0.5)  # the first above, none at the edge
    assert (tmp_path / "new" / "changes.png").read_bytes().startswith(b"\x89PNG")
