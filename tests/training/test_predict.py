"""geonorm predict on scans: every kind of file and of output, complete or not at all."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from train_seg import main

from geonorm.__main__ import main as command
from geonorm.datasets import SemanticKITTI, read_scan
from geonorm.datasets.ply import read_ply, write_ply
from geonorm.datasets.synthetic.streets import SyntheticStreets
from geonorm.files import distinct_stems, written_whole
from geonorm.looking.scans import panels
from geonorm.training import ScanPredictor
from geonorm.training.segmentation.predict import label_ids, write_attribution, write_labels
from helpers.rendering import renders
from helpers.scan_writers import rows, write

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.filterwarnings("default")  # as users run it


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the folder of a run of two steps on built-in streets."""
    folder = tmp_path_factory.mktemp("predict") / "run"
    main([
        "fit", "--data.train.init_args.num_scans=2", "--data.val.init_args.num_scans=1",
        "--data.voxel_size=0.8", "--data.batch_size=1", "--data.num_workers=0",
        "--data.clip_range=[-40, -40, -4, 40, 40, 20]", "--trainer.max_epochs=1",
        "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false",
        f"--run_dir={folder}", "--num_pictures=0",
    ])  # fmt: skip
    return folder


@pytest.fixture
def predict(run, tmp_path, monkeypatch):
    """Return a function that predicts files and returns the folder of what was written."""
    monkeypatch.chdir(tmp_path)

    def predict(*arguments):
        checkpoint = str(run / "checkpoints" / "last.ckpt")
        said = command(["predict", checkpoint, "--out=new/out", *arguments])
        if said:
            raise ValueError(said)
        return Path("new/out")

    return predict


def names_in(folder):
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def test_every_kind_of_file_gives_the_same_labels_each_its_own_file(predict):
    points = rows(1000)
    points[17, 1] = np.nan
    files = [write(Path(name), points) for name in ("a.bin", "a.ply", "a.pcd", "a.npy")]
    other = write(Path("other.npy"), rows(1000, seed=1))
    folder = predict(*map(str, files), str(other), "--pictures=false")
    stems = ["a", "a_2", "a_3", "a_4"]
    assert names_in(folder) == {*(f"{stem}.label" for stem in [*stems, "other"]), "classes.json"}
    labels = [np.fromfile(folder / f"{stem}.label", "<u4") for stem in stems]
    assert len(labels[0]) == 1000
    assert labels[0][17] == 0
    known = json.loads((folder / "classes.json").read_text())
    assert set(np.delete(labels[0], 17)) <= set(known.values())
    assert known["road"] == 40  # the street's classes are SemanticKITTI's by name
    assert all(np.array_equal(labels[0], same) for same in labels[1:])
    assert not np.array_equal(labels[0], np.fromfile(folder / "other.label", "<u4"))


def test_numbers_of_classes_pictures_and_coloured_points(predict, run, capsys):
    points = rows(1000)
    points[17, 1] = np.nan
    write(Path("street.bin"), points)
    folder = predict("street.bin", "--format=npy", "--ply=true")
    files = {"street.npy", "street.ply", "classes.json"}
    said = capsys.readouterr().out
    assert ("cannot render here" in said) == (not renders())
    assert "street.bin: 1,000 labels in new/out/street.npy" in said.splitlines()  # and not 1/1
    assert "ms of each" not in said
    if renders():
        files.add("street.png")
    assert names_in(folder) == files
    numbers = np.load(folder / "street.npy")
    assert (numbers.shape, numbers.dtype, numbers[17]) == ((1000,), np.int64, 255)
    classes = json.loads((folder / "classes.json").read_text())
    assert list(classes) == list(SyntheticStreets.classes)
    assert list(classes.values()) == list(range(11))
    predictor = ScanPredictor(run / "checkpoints" / "last.ckpt")
    scan = read_scan("street.bin")
    np.testing.assert_array_equal(numbers[scan.kept], predictor(scan))
    import open3d

    cloud = open3d.io.read_point_cloud(str(folder / "street.ply"))
    np.testing.assert_allclose(cloud.points, scan.points, rtol=1e-6)
    colors = SyntheticStreets.colors[predictor(scan)]
    np.testing.assert_array_equal(np.round(np.asarray(cloud.colors) * 255), colors)


@pytest.mark.slow
def test_attributions_and_statistics_of_every_point_of_the_file(predict, run, capsys):
    points = rows(400)
    points[17, 1] = np.nan
    write(Path("street.bin"), points)
    wanted = ["--attribution=integrated_gradients", "--statistics=true", "--pictures=false"]
    folder = predict("street.bin", *wanted)
    values = np.load(folder / "street.attribution.npy")
    assert (values.shape, values.dtype, np.abs(values[17]).sum()) == ((400, 4), np.float32, 0)
    assert re.search(r"street.attribution.npy, complete but for 0\.\d% at", capsys.readouterr().out)
    predictor, scan = ScanPredictor(run / "checkpoints" / "last.ckpt"), read_scan("street.bin")
    np.testing.assert_allclose(
        values[scan.kept], predictor.attribution(scan).values, rtol=1e-3, atol=1e-6
    )
    with np.load(folder / "street.statistics.npz") as told:
        assert told["network.bn0.mean"].shape == (1, 32)
        assert (told["network.bn0.std"] > 0).all()
    names = [column.name for column in panels([Path("street.bin")], [], [folder])[0].columns]
    assert names[-1] == "attribution"
    few = read_scan(write(Path("few.bin"), rows(3)))
    never = next(name for number, name in enumerate(predictor.classes)
                 if number not in predictor(few))  # fmt: skip
    predict("few.bin", *wanted, f"--target={never}")
    assert f"few.bin is predicted as {never}" in capsys.readouterr().out
    assert not (folder / "few.attribution.npy").exists()
    with pytest.raises(ValueError, match=r"no class 'rod'.*Did you mean 'road'"):
        predict("street.bin", *wanted, "--target=rod")
    for several in (["--votes=2"], ["--chunk=20"]):
        for one in wanted[:2]:
            with pytest.raises(ValueError, match="are of one look at a scan: leave out --votes"):
                predict("street.bin", one, *several)
    with pytest.raises(ValueError, match="'road' is the class of an attribution: give one"):
        predict("street.bin", "--target=road")


def test_a_name_that_is_not_utf8(predict):
    name = os.fsdecode(b"b\xff.bin")
    write(Path(name), rows(1000))
    folder = predict(name)
    assert len(np.fromfile(folder / os.fsdecode(b"b\xff.label"), "<u4")) == 1000
    assert (folder / os.fsdecode(b"b\xff.png")).is_file() == renders()


def test_coordinates_of_a_map_come_back(predict):
    """UTM's, in float64: the classes are those of the scan about its middle."""
    middle = np.array([513_001.0, 5_403_600.0, 312.0])
    about, there = rows(1000), rows(1000).astype(np.float64)
    about[:, :3] -= np.rint(np.median(about[:, :3], axis=0))
    there[:, :3] = about[:, :3] + middle
    np.save("there.npy", there)
    np.save("about.npy", about)
    folder = predict("there.npy", "about.npy", "--pictures=false", "--ply=true")
    labels = [np.fromfile(folder / f"{name}.label", "<u4") for name in ("there", "about")]
    assert np.array_equal(*labels)
    assert len(np.unique(labels[0])) > 1
    colored = read_ply(folder / "there.ply")
    np.testing.assert_allclose(colored, there[:, :3], rtol=0, atol=2e-6)
    assert b"property double x" in (folder / "there.ply").read_bytes()
    np.testing.assert_array_equal(read_ply(folder / "about.ply"), about[:, :3])
    assert b"property float x" in (folder / "about.ply").read_bytes()


@pytest.mark.parametrize("kind", ["bin", "npy", "ply", "pcd"])
def test_of_a_truncated_file_nothing_is_written(predict, kind):
    path = write(Path(f"cut.{kind}"), rows())
    path.write_bytes(path.read_bytes()[:-99])
    with pytest.raises(ValueError, match=rf"cut\.{kind} .*truncated"):
        predict(str(path))
    assert names_in(Path("new")) == set()


def test_nothing_is_predicted_where_one_file_is_plainly_missing_or_cut(predict, capsys):
    write(Path("whole.bin"), rows())
    with pytest.raises(ValueError, match=r"gone\.bin is not a file; expected a scan"):
        predict("whole.bin", "gone.bin")
    with pytest.raises(SystemExit, match=r"^2$"):
        predict()
    assert "arguments are required: files" in capsys.readouterr().err
    assert names_in(Path("new")) == set()


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.label"
    write_labels(path, np.array([1, 0]), None, ["road", "car"])
    before = path.read_bytes()
    with pytest.raises(IndexError):
        write_labels(path, np.array([1, 2]), None, ["road", "car"])
    with pytest.raises(TypeError), written_whole(path) as aside:
        aside.write_bytes([aside.write_bytes(b"half"), "no number"])
    assert path.read_bytes() == before == np.array([10, 40], "<u4").tobytes()
    assert names_in(tmp_path) == {"a.label"}
    with pytest.raises(ValueError, match="could not broadcast"):
        write_ply(tmp_path / "b.ply", np.zeros((3, 3)), np.zeros((2, 3), "u1"))
    assert names_in(tmp_path) == {"a.label"}


def test_attributions_stand_at_the_points_of_the_file(tmp_path):
    values = np.array([[1.0, 2.0], [3.0, 4.0]])
    path = write_attribution(tmp_path / "a.b", values, np.array([False, True, False, True]))
    assert path == tmp_path / "a.b.attribution.npy"
    assert np.load(path).tolist() == [[0, 0], [1, 2], [0, 0], [3, 4]]
    whole = np.load(write_attribution(tmp_path / "c", values, None))
    assert (whole.tolist(), whole.dtype) == (values.tolist(), np.float32)


def test_ids_of_classes():
    assert label_ids(list(SemanticKITTI.classes)).tolist() == list(SemanticKITTI.raw_ids)
    assert label_ids(["car", "road"]).tolist() == [10, 40]
    assert label_ids(["car", "sofa"]).tolist() == [1, 2]  # never 0, which is no class


def test_inputs_of_one_stem_do_not_share_a_name():
    files = [Path(name) for name in ("x/a.bin", "y/a.bin", "a_2.ply", "x/a.bin", "a.pcd")]
    assert list(distinct_stems(files).values()) == ["a", "a_2", "a_2_2", "a_3"]


def documented_python():
    """Return the documentation's lines that predict the points of a scan from Python."""
    page = (ROOT / "docs/predicting.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    return next(block for block in blocks if "ScanPredictor" in block)


@pytest.mark.slow
def test_the_lines_of_the_documentation_predict_from_python(run, tmp_path):
    write(tmp_path / "a.ply", rows())
    shutil.copytree(run, tmp_path / "runs" / "train_seg" / "001")
    assert len([line for line in documented_python().splitlines() if line.strip()]) <= 5
    done = subprocess.run(
        [sys.executable, "-c", documented_python()], cwd=tmp_path, capture_output=True, text=True,
        env={"PATH": "/usr/bin:/bin"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(np.fromfile(tmp_path / "a.label", "<u4")) == 300


def test_the_predictor_says_what_it_needs(run, tmp_path):
    import torch

    with pytest.raises(ValueError, match=r"last\.ckpt'? is not a file"):
        ScanPredictor(tmp_path / "last.ckpt")
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["ScanData"].pop("position")["batches"] == 2  # where training goes on
    assert checkpoint["ScanData"] == {
        "voxel_size": 0.8, "clip_range": [-40, -40, -4, 40, 40, 20],
        "features": {"position": [20, 20, 2], "intensity": 1},
    }  # fmt: skip
    del checkpoint["ScanData"]
    torch.save(checkpoint, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"other\.ckpt does not say how its scans were made into"):
        ScanPredictor(tmp_path / "other.ckpt")
    predictor = ScanPredictor(run / "checkpoints" / "last.ckpt")
    with pytest.raises(ValueError, match=r"a path that ends in \.label or \.npy; got a\.txt"):
        predictor.write(read_scan(write(tmp_path / "a.bin", rows())), "a.txt")


def test_every_point_of_a_real_scan_gets_a_label(predict, data_root):
    scan = data_root / "semantickitti/sequences/00/velodyne/000000.bin"
    folder = predict(str(scan), "--pictures=false")
    labels = np.fromfile(folder / "000000.label", "<u4")
    assert len(labels) == 123_389
    assert len(np.unique(labels)) > 1
