"""train_seg.py from `.bin` files where Open3D is missing, and what a GPU run asks of the engine."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from train_seg import main

from geonorm.datasets.semantickitti import SemanticKITTI
from geonorm.training.invariance.plain import CLASSES, clips, street, write_semantickitti
from geonorm.training.segmentation.module import SegmentationModule
from geonorm.training.segmentation.networks import check_device, usable_accelerator

ME = pytest.importorskip("MinkowskiEngine", reason="run tools/install_minkowski.py")

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def without_open3d(tmp_path, monkeypatch):
    """Make Open3D missing for processes that are started, as it is where it was never installed."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "open3d.py").write_text("raise ModuleNotFoundError(\"No module named 'open3d'\")\n")
    monkeypatch.setenv("PYTHONPATH", str(hidden))
    monkeypatch.chdir(tmp_path)


def train_seg(*args):
    command = [sys.executable, TOOLS / "train_seg.py", *args, "--trainer.accelerator=cpu",
               "--trainer.enable_progress_bar=false", "--run_dir=run"]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.usefixtures("without_open3d")
def test_bin_files_are_learnt_and_the_skipped_pictures_named(tmp_path):
    write_semantickitti(tmp_path / "data", scans=2, points=600)
    done = train_seg("fit", "--config", "semantickitti_one_scan",
                     "--data.root=data", "--data.voxel_size=0.8", "--trainer.max_steps=2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Skipped the pictures val_scan0.png, val_scan1.png" in done.stdout
    assert "No module named 'open3d'" in done.stdout
    assert not (tmp_path / "run" / "val_scan0.png").exists()
    assert (tmp_path / "run" / "val_confusion.png").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("without_open3d")
def test_streets_say_that_they_need_open3d():
    done = train_seg("fit", "--trainer.max_steps=1", "--data.num_workers=0")
    assert done.returncode != 0
    assert "casting rays needs Open3D" in done.stderr
    assert "use scans from files" in done.stderr


def test_written_scans_are_read_with_their_classes(tmp_path):
    write_semantickitti(tmp_path, scans=2, points=400)
    scans = SemanticKITTI(tmp_path, ["00"])
    assert len(scans) == 2
    names = [SemanticKITTI.classes[i] for i in np.unique(scans[1].labels)]
    assert names == ["car", "road", "building", "pole"]
    np.testing.assert_array_equal(scans[1].points, street(1, 400).points)


def test_samples_are_a_function_of_their_seed_and_hold_every_class():
    first, again, other = street(3, 1000), street(3, 1000), street(4, 1000)
    np.testing.assert_array_equal(first.points, again.points)
    assert not np.array_equal(first.points, other.points)
    assert len(np.unique(first.labels)) == len(CLASSES)
    video, labels = clips(0, 40, 4, 16)
    assert video.shape == (40, 3, 4, 16, 16)
    assert labels.unique().tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(video[0, :, 0].sort().values.sum(), video[0, :, 3].sum())
    assert not torch.equal(video[0, :, 0], video[0, :, 3])


needs_cpu_build = pytest.mark.skipif(
    ME.is_cuda_available(), reason="this MinkowskiEngine is built for CUDA"
)


@needs_cpu_build
def test_a_gpu_that_the_engine_was_not_built_for_is_left_alone(monkeypatch, capsys):
    assert usable_accelerator("MinkUNet14A") == "auto"  # no GPU here, nothing to choose
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert usable_accelerator("PointMLP") == "auto"
    assert capsys.readouterr().out == ""
    assert usable_accelerator("MinkUNet14A") == "cpu"
    assert "built for the CPU alone: MinkUNet14A runs there" in capsys.readouterr().out


@pytest.mark.filterwarnings("default")
def test_the_network_chooses_the_accelerator_unless_the_user_does(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_semantickitti(tmp_path / "data", scans=1, points=300)
    monkeypatch.setattr(SegmentationModule, "auto_accelerator", "no such accelerator")
    arguments = ["fit", "--config", "semantickitti_one_scan",
                 "--data.root=data", "--trainer.fast_dev_run=true", "--run_dir=run",
                 "--data.voxel_size=0.8", "--trainer.enable_progress_bar=false"]  # fmt: skip
    with pytest.raises(ValueError, match="no such accelerator"):
        main(arguments)
    main([*arguments, "--trainer.accelerator=cpu"])
    assert "Logs, checkpoints and pictures" not in capsys.readouterr().out  # a trial run has none


@needs_cpu_build
def test_a_gpu_that_the_engine_was_not_built_for_is_refused():
    check_device(torch.device("cpu"))
    with pytest.raises(ValueError, match=r"run on cuda:0.*the CPU alone.*accelerator cpu"):
        check_device(torch.device("cuda:0"))
