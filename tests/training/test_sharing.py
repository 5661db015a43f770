"""Folders that share a trained network: in place of its checkpoint, whole, with a card; the hub."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

pytest.importorskip("safetensors", reason="pip install 'geonorm[hub]'")
from train_action import main as train

from geonorm import __version__
from geonorm.__main__ import main
from geonorm.models import load_checkpoint, resnet3d
from geonorm.training import ClipPredictor
from geonorm.training.model_card import model_card
from geonorm.training.sharing import located, read_shared
from helpers.action_runs import FILMS, QUICK
from helpers.hub import COMMIT, hub
from helpers.scan_writers import rows, write
from helpers.segmentation_runs import STREETS, run_config
from helpers.video_files import encode, numbered_film

pytestmark = pytest.mark.filterwarnings("default")  # as users run it


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the folder of a run of one step, of a network whose scores are not all alike."""
    folder = tmp_path_factory.mktemp("shared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEONORM_CACHE", str(folder / "cache"))
        patch.setenv("GEONORM_RUN_DIR", "")
        train(["fit", *FILMS, *QUICK, f"--run_dir={folder / 'run'}", "--num_pictures=0",
               "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1"])  # fmt: skip
    return folder / "run"


@pytest.fixture(scope="module")
def shared(run):
    """Return the shared folder of that run."""
    folder = run.parent / "some" / "folder"
    said = main(["share", str(run / "checkpoints/last.ckpt"), str(folder), "--licence=cc-by-4.0"])
    assert said is None
    return folder


def test_a_shared_folder_stands_for_its_checkpoint(run, shared, tmp_path, monkeypatch):
    assert {path.name for path in shared.iterdir()} == {"model.safetensors", "config.json",
                                                        "README.md"}  # fmt: skip
    mine, theirs = ClipPredictor(run / "checkpoints/last.ckpt"), ClipPredictor(str(shared))
    for key, tensor in mine.module.state_dict().items():
        assert torch.equal(theirs.module.state_dict()[key], tensor), key
    film = encode(tmp_path / "film.mp4", numbered_film(20))
    scores = mine(film)
    assert scores.std() > 1e-3
    np.testing.assert_array_equal(theirs(film), scores)
    monkeypatch.chdir(tmp_path)
    assert main(["predict", str(shared), "film.mp4", "--out=out"]) == 0
    told = json.loads(Path("out/predictions.json").read_text())["film.mp4"]
    assert max(told.values()) == pytest.approx(scores.max().item())


def test_the_weights_alone_are_those_of_the_network(run, shared):
    model = resnet3d(10, num_classes=12, norm="instance")
    load_checkpoint(model, shared / "model.safetensors")
    trained = ClipPredictor(run / "checkpoints/last.ckpt").module.model
    assert torch.equal(model.fc.weight, trained.fc.weight)


def test_the_card_tells_the_run(run, shared):
    header, _, text = (shared / "README.md").read_text()[4:].partition("\n---\n")
    told = yaml.safe_load(header)
    assert (told["license"], told["library_name"]) == ("cc-by-4.0", "geonorm")
    assert told["pipeline_tag"] == "video-classification"
    assert text.startswith("\n# resnet3d_10, instance norm, none in layer3 and layer4\n")
    scores = json.loads((run / "val.json").read_text())
    assert "| score | validation |" in text
    assert f"| top5 | {scores['top5']:.4f} |" in text
    assert f"| videos | {scores['videos']} |" in text
    assert f"| jerk left | {scores['classes']['jerk left']:.4f} |" in text
    blocks = [yaml.safe_load(part) for part in text.split("```yaml")[1:] for part in
              [part.partition("```")[0]]]  # fmt: skip
    assert blocks[0]["clip"]["length"] == 4
    assert blocks[1]["model"]["optim"]["name"] == "SGD"
    assert blocks[1]["trainer"] == {
        "max_epochs": 1, "max_steps": -1, "max_time": "00:00:07:45", "precision": "32-true",
        "accumulate_grad_batches": 1,
    }  # fmt: skip
    assert f"geonorm {__version__}" in text
    assert f"torch {torch.__version__.partition('+')[0]}" in text


def test_the_card_of_a_network_of_scans(tmp_path):
    config = {
        "geonorm_version": "9.8", "licence": "mit", "epoch": 3, "global_step": 40,
        "hyper_parameters": {"name": "MinkUNet14A", "norm": "batch", "classes": ["road", "car"]},
        "ScanData": {"voxel_size": 0.25},
    }  # fmt: skip
    scores = {"miou": 0.5, "iou": {"road": 0.75, "car": None, "bus": math.nan}, "name": "words"}
    for stage, more in (("val", {}), ("test", {"miou": 0.25, "points": 7})):
        (tmp_path / f"{stage}.json").write_text(json.dumps({**scores, **more}))
    card = model_card(config, tmp_path / "checkpoints" / "best.ckpt")
    header, _, text = card[4:].partition("\n---\n")
    told = yaml.safe_load(header)
    assert told["tags"][2:] == ["point-cloud", "semantic-segmentation"]
    assert "pipeline_tag" not in told
    for line in (
        "# MinkUNet14A, batch norm", "2 classes: road, car.", "| score | test | validation |",
        "| miou | 0.2500 | 0.5000 |", "| points | 7 | - |", "| class | test | validation |",
        "| road | 0.7500 | 0.7500 |", "| car | - | - |", "| bus | - | - |", "voxel_size: 0.25",
        "geonorm predict FOLDER scan.bin ", "Licence of the weights: mit.", "with geonorm 9.8, ",
        "The run's folder has no configuration.", "Of best.ckpt, after epoch 3, step 40; the",
        "A network that gives each point of a scan a class, trained with",
    ):  # fmt: skip
        assert line in text
    assert "words" not in text


def test_the_card_tells_the_options_that_results_follow_from(tmp_path):
    config = {
        "geonorm_version": "9.8", "licence": "mit", "epoch": 3, "global_step": 40,
        "hyper_parameters": {"name": "r3d_18", "norm": "none", "classes": ["wave"]},
        "ClipData": {"clip": {"length": 16}, "views": (1, 2), "root": Path("films")},
    }  # fmt: skip
    trainer = {"max_epochs": 3, "max_steps": 40, "max_time": "00:01", "precision": "32-true",
               "accumulate_grad_batches": 2, "gradient_clip_val": 0.5}  # fmt: skip
    options = {"seed_everything": 7, "model": {"name": "r3d_18"}, "data": {"votes": 2}}
    other = {"run_dir": "run", "trainer": {**trainer, "devices": 2, "logger": None}}
    for told in (trainer, {"max_epochs": 3}):
        other["trainer"] |= dict.fromkeys(trainer) | told
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(options | other))
        text = model_card(config, tmp_path / "checkpoints" / "best.ckpt")
        head, *blocks = text.split("```yaml")
        data, training = (yaml.safe_load(block.partition("```")[0]) for block in blocks)
        assert data == {"clip": {"length": 16}, "views": [1, 2], "root": "films"}
        assert training == options | {"trainer": told}
    assert yaml.safe_load(head[4:].partition("\n---\n")[0])["tags"] == [
        "geonorm", "instance-normalization", "video"
    ]  # fmt: skip
    for line in ("# r3d_18, no norm", "A network that names the action in a video, trained with",
                 "geonorm predict FOLDER film.mp4 ", "has no file of scores"):  # fmt: skip
        assert line in text
    (tmp_path / "config.yaml").write_text("model: {name: r3d_18}\n")
    card = model_card(config, tmp_path / "checkpoints" / "best.ckpt")
    assert yaml.safe_load(card.split("```yaml")[2].partition("```")[0]) == {
        "model": {"name": "r3d_18"}, "trainer": {}
    }  # fmt: skip


@pytest.mark.parametrize("form", [0, 2])
def test_a_folder_of_another_format_is_refused(form, tmp_path):
    told = {"format": form, "sha256": "", "geonorm_version": "7.5"}
    (tmp_path / "config.json").write_text(json.dumps(told))
    with pytest.raises(ValueError, match=rf"geonorm 7.5 in format {form}; expected 1: install"):
        read_shared(tmp_path)


def test_a_folder_that_is_not_whole_is_refused(shared, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(shared, folder)
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # safetensors itself would not notice
    with pytest.raises(ValueError, match=r"wrong hash of .*model\.safetensors: its .* get the fol"):
        ClipPredictor(folder)
    weights.unlink()
    with pytest.raises(ValueError, match=r"copy has no model\.safetensors: get it again"):
        ClipPredictor(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "format": 2}))
    with pytest.raises(ValueError, match=r"in format 2; expected 1: install that version"):
        read_shared(folder)
    for broken in ("{", "[]", '{"format": 1}'):
        (folder / "config.json").write_text(broken)
        with pytest.raises(ValueError, match=r"no folder of geonorm share: config\.json is missin"):
            read_shared(folder)
    assert "no folder of geonorm share" in main(["predict", str(tmp_path), "film.mp4"])


def test_what_cannot_be_shared_is_refused(run, tmp_path):
    checkpoint = run / "checkpoints/last.ckpt"
    for licence in ("", "my own"):
        said = main(["share", str(checkpoint), str(tmp_path / "new"), f"--licence={licence}"])
        assert "licence must be the SPDX name of one" in said
    told = torch.load(checkpoint, weights_only=True)
    del told["ClipData"]
    torch.save(told, tmp_path / "other.ckpt")
    said = main(["share", str(tmp_path / "other.ckpt"), str(tmp_path / "new"), "--licence=mit"])
    assert "other.ckpt does not say what it was trained on" in said
    assert not (tmp_path / "new").exists()


def test_sharing_into_a_folder_again_replaces_what_was_there(run, shared, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(shared, folder)
    told = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    told["state_dict"]["model.fc.bias"] += 1
    torch.save(told, tmp_path / "other.ckpt")
    assert main(["share", str(tmp_path / "other.ckpt"), str(folder), "--licence=mit"]) is None
    bias = read_shared(folder)["state_dict"]["model.fc.bias"]
    assert torch.equal(bias, told["state_dict"]["model.fc.bias"])
    assert "The run's folder has no file of scores" in (folder / "README.md").read_text()


def test_a_name_that_is_no_address_of_the_hub_is_refused():
    pytest.importorskip("huggingface_hub", reason="pip install 'geonorm[hub]'")
    assert located("some/folder") == Path("some/folder")
    with pytest.raises(ValueError, match="hf://a b/c cannot be had from the hub: Repo id must use"):
        located("hf://a b/c")


def ours(*words, **variables):
    """Run a command of geonorm in a process of its own, which must end well unless told."""
    return subprocess.run(
        [sys.executable, "-m", "geonorm", *map(str, words)], capture_output=True, text=True,
        env=os.environ | {"no_proxy": "127.0.0.1", **variables}, check=False,
    )  # fmt: skip


@pytest.mark.long
def test_to_the_hub_and_back_in_other_processes(tmp_path, monkeypatch):
    """Of scans; the hub is one on this machine, and huggingface_hub itself talks to it."""
    run_config("streets", None, tmp_path / "run", *STREETS, "--trainer.max_steps=2")
    checkpoint = tmp_path / "run/checkpoints/last.ckpt"
    monkeypatch.chdir(tmp_path)
    write(Path("a.bin"), rows(2000))
    with hub() as (address, models):
        variables = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home")}
        words = ["share", checkpoint, "folder", "--licence=mit", "--push=me/street"]
        done = ours(*words, HF_TOKEN="hf_wrong", **variables)
        assert done.returncode == 1
        assert "me/street cannot be written on the hub: " in done.stderr
        assert "`hf auth login` keeps a token" in done.stderr
        assert models == {}
        done = ours(*words, HF_TOKEN="hf_right", **variables)
        assert done.returncode == 0, done.stderr
        assert f"/me/street/commit/{COMMIT}" in done.stdout
        assert {name: models["me/street"][name] for name in models["me/street"]} == {
            path.name: path.read_bytes() for path in Path("folder").iterdir()
        }
        for source, out in ((checkpoint, "here"), ("hf://me/street", "there")):
            done = ours("predict", source, "a.bin", f"--out={out}", "--pictures=false", **variables)
            assert done.returncode == 0, done.stderr
        done = ours("predict", "hf://me/nothing", "a.bin", "--out=nowhere", **variables)
        assert done.returncode == 1
        assert "hf://me/nothing cannot be had from the hub: 404" in done.stderr
    here, there = (np.fromfile(f"{out}/a.label", "<u4") for out in ("here", "there"))
    assert len(np.unique(here)) > 1
    np.testing.assert_array_equal(here, there)
