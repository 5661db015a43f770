"""write-shards, and trainings from what it writes: the same bits as from loose files."""

import pytest
import torch
import train_action
import train_seg

from geonorm.datasets import JoinedScans, SyntheticStreets
from geonorm.training.checkpoints import read_run_checkpoint
from geonorm.training.segmentation.data import ScanData
from helpers.action_runs import QUICK, layout
from helpers.segmentation_runs import run_config
from helpers.semantickitti_trees import write_labelled

pytest.importorskip("webdataset")
pytestmark = pytest.mark.filterwarnings("default")


def weights(run):
    return read_run_checkpoint(run / "checkpoints/last.ckpt")["state_dict"]


def assert_same(run, other):
    ours, theirs = weights(run), weights(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_training_on_shards_is_training_on_loose_scans(tmp_path, capsys):
    write_labelled(tmp_path / "kitti")
    shards = tmp_path / "shards"
    words = ["write-shards", "--config=semantickitti", f"--data.root={tmp_path / 'kitti'}",
             "--data.num_workers=0", f"--shards={shards}", "--shard_size=4"]  # fmt: skip
    with pytest.raises(ValueError, match=r"--splits may be train, val, test; got vali"):
        train_seg.main([*words, "--splits=[train,vali]"])
    train_seg.main([*words, "--splits=[train,val]"])
    said = capsys.readouterr().out.splitlines()
    assert [line.rpartition("MiB")[2] for line in said] == [", 3 new shards", ", 1 new shards"]
    assert said[0].startswith(f"{shards}/train: 10 samples, ")
    with pytest.raises(ValueError, match="expected a folder to write to; give --shards FOLDER"):
        train_seg.main([word for word in words if "--shards" not in word])
    options = ["--model.name=PointMLP", "--trainer.max_epochs=2"]
    run_config("semantickitti", tmp_path / "kitti", tmp_path / "loose", *options)
    named = {name: f"{{root: {shards}, split: {name}}}" for name in ("train", "val")}
    splits = [f"--data.{name}={{class_path: ScanShards, init_args: {arguments}}}"
              for name, arguments in named.items()]  # fmt: skip
    run_config("semantickitti", shards, tmp_path / "packed", *options, *splits)
    assert_same(tmp_path / "loose", tmp_path / "packed")


@pytest.mark.slow
def test_training_on_shards_is_training_on_loose_videos(tmp_path, monkeypatch):
    monkeypatch.setenv("GEONORM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    films, lists = layout(tmp_path, "ucf101")
    data = [f"--data.root={films}", f"--data.train.init_args.annotations={lists}",
            f"--data.val.init_args.annotations={lists}", "--data.num_workers=0"]  # fmt: skip
    train_action.main(["write-shards", "--config=ucf101", *data, "--shards=shards"])
    # The validation videos are those of the test as well, and are written once.
    assert sorted(path.name for path in (tmp_path / "shards").iterdir()) == ["train", "val"]
    quick = [*QUICK, "--model.weights=null"]
    train_action.main(["fit", "--config=ucf101", *data, *quick, "--run_dir=loose"])
    splits = [f"--data.{name}{word}" for name in ("train", "val")
              for word in ("=ClipShards", f".split={name}", ".root=shards")]  # fmt: skip
    train_action.main(
        ["fit", "--config=ucf101", "--data.root=shards", *splits, *quick, "--run_dir=packed"]
    )
    assert_same(tmp_path / "loose", tmp_path / "packed")


def test_joined_scans_are_refused(tmp_path):
    joined = ScanData(train=lambda: JoinedScans([SyntheticStreets(1)]))
    with pytest.raises(ValueError, match="several data sets: write the shards of each, and join"):
        joined.write_shards("train", tmp_path, 4)
