"""Lightning's options in the forms that they may take, and its precisions, in both tools."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import train_action
import train_seg

from geonorm import InstanceNorm
from geonorm.training import VideoScores
from geonorm.training.action.module import ActionModule
from geonorm.training.cli import _listed, run_folder
from geonorm.training.norm_option import norm_in_words, with_factories
from geonorm.training.segmentation.module import SegmentationModule
from geonorm.training.segmentation.networks import build, check_precision, names
from helpers.action_runs import FILMS, QUICK, found
from helpers.segmentation_runs import STREETS, run_config

SCANS = [
    "fit", "--model.name=PointMLP", "--data.train.init_args.num_scans=2",
    "--data.val.init_args.num_scans=1", "--data.voxel_size=0.8", "--data.batch_size=1",
    "--data.num_workers=0", "--trainer.max_epochs=1", "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false", "--run_dir=run",
    "--num_pictures=0",
]  # fmt: skip
pytestmark = pytest.mark.filterwarnings("default")  # as users run it


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Run each test in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GEONORM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GEONORM_RUN_DIR", "")  # whatever the test makes of it ends with the test
    return tmp_path


def test_runs_are_numbered_and_the_processes_of_one_share_its_folder(here, monkeypatch):
    """Processes of a run that share its folder are in tests/training/test_distributed.py."""
    for number in (1, 2, 3):
        assert run_folder(None, "action") == Path(f"runs/action/{number:03d}")
    for rank, number in (("1", "003"), ("0", "004")):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert run_folder(None, "action") == Path(f"runs/action/{number}")
    assert run_folder(here / "mine" / "run", "action") == here / "mine" / "run"
    folders = sorted(path.name for path in Path("runs/action").iterdir())
    assert folders == ["001", "002", "003", "004"]
    assert (here / "mine" / "run").is_dir()


@pytest.mark.parametrize(
    "options",
    [
        ["--trainer.callbacks=LearningRateMonitor"],
        pytest.param(["--trainer.callbacks=EarlyStopping", "--trainer.callbacks.monitor=val/miou"],
                     marks=pytest.mark.slow),
        ["--trainer.callbacks+=LearningRateMonitor", "--trainer.callbacks+=ModelSummary"],
        ["--trainer.callbacks=[{class_path: LearningRateMonitor}]"],
        pytest.param(
            ["--trainer.callbacks=TQDMProgressBar", "--trainer.enable_progress_bar=true"],
            marks=pytest.mark.slow,
        ),
        pytest.param(["--trainer.plugins=TorchCheckpointIO"], marks=pytest.mark.slow),
        ["--trainer.plugins+=LightningEnvironment"],
        ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=logs"],
        ["--trainer.logger=false"],
    ],
    ids=" ".join,
)
def test_options_in_every_form(here, options):
    train_seg.main([*SCANS, *options])
    assert found(here / "run")["miou"] >= 0
    assert (here / "run" / "checkpoints" / "last.ckpt").is_file()
    assert (here / "run" / "metrics.csv").is_file() == ("logger" not in options[0])


def test_barebones(here):
    bare = [option for option in SCANS if "progress_bar" not in option]
    train_seg.main([*bare, "--trainer.barebones=true"])
    assert not (here / "run" / "checkpoints").exists()


# In bf16, torch's own convolution of a 7×7 stem ends the process on one CPU.
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["16-true", "64-true"])
def test_clips_are_judged_in_every_precision(here, precision):
    quick = [option for option in QUICK if "precision" not in option]
    small = ["--data.clip.size=20", "--data.clip.crop=16"]
    options = [*FILMS, *quick, *small, f"--trainer.precision={precision}", "--run_dir=run"]
    train_action.main(["fit", *options])
    scores = found(here / "run")
    assert (scores["videos"], scores["clips"]) == (12, 12)


def test_scores_are_summed_in_their_own_precision():
    """Counts beyond 2048 are no more in float16, and a sum of small parts stands still."""
    scores = VideoScores(1, 2).half()
    assert scores.to(torch.bfloat16) is scores
    logits = torch.tensor([[1.0, 0.0]], dtype=torch.float16).expand(3000, 2)
    scores.update(logits, torch.zeros(3000, dtype=torch.long), torch.zeros(3000, dtype=torch.long))
    result = scores.compute()
    assert result.clips == 3000
    assert scores.sums.dtype == torch.float32
    expected = 3000 * torch.tensor([1.0, 0.0]).softmax(0)
    torch.testing.assert_close(scores.sums[0], expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_points_are_drawn_in_every_precision(here, precision):
    train_seg.main([*SCANS, f"--trainer.precision={precision}"])
    assert (here / "run" / "val_confusion.png").is_file()


@pytest.mark.parametrize("precision", ["16-true", "bf16-true"])
def test_minkunet_refuses_a_precision_without_convolutions(precision):
    refusal = rf"take float32 and float64; --trainer.precision {precision} .*Take bf16-mixed"
    with pytest.raises(ValueError, match=refusal):
        train_seg.main([*SCANS, "--model.name=MinkUNetSlim", f"--trainer.precision={precision}"])
    for usable in ("32-true", "64-true", "16-mixed", "bf16-mixed"):
        check_precision(usable)


def test_a_bar_tells_the_score(tmp_path):
    words = ["--model.name=PointMLP", "--trainer.max_steps=1"]
    trainer = run_config("streets", None, tmp_path / "run", *STREETS, *words).trainer
    shown = trainer.progress_bar_metrics
    assert shown["val/miou"] == pytest.approx(float(trainer.callback_metrics["val/miou"]))


def test_a_network_that_is_there_is_kept():
    """As one from a checkpoint, which a trainer is then asked to judge."""
    module = SegmentationModule("PointMLP", classes=["a"])
    data = SimpleNamespace(classes=["a"], colors=None, in_channels=4, num_domains=1)
    module._trainer = SimpleNamespace(datamodule=data)
    network = module.network
    module.configure_model()
    assert module.network is network is not None


def test_data_of_other_features_or_classes_than_the_network_are_refused():
    module = SegmentationModule("PointMLP", classes=["a", "b"], in_channels=5)
    assert [layer.out_features for layer in module.network if hasattr(layer, "out_features")] == [
        128, 128, 128, 2]  # fmt: skip
    data = SimpleNamespace(classes=["a", "b"], in_channels=5)
    module._trainer = SimpleNamespace(datamodule=data)
    module.setup("validate")
    for channels in (4, 6):
        data.in_channels = channels
        told = rf"the checkpoint takes 5 features of each voxel; the data have {channels}: give"
        with pytest.raises(ValueError, match=told):
            module.setup("validate")
    data.classes = ["b", "a"]
    with pytest.raises(ValueError, match="knows the classes a, b; the data have b, a"):
        module.setup("validate")


def test_every_network_of_scans_by_name():
    assert names()[:2] == ["PointMLP", "MinkUNetSlim"]
    assert {"MinkUNet14A", "MinkUNet34C"} <= {*names()}
    assert not any("_" in name for name in names())
    slim = build("MinkUNetSlim", "batch", 3, in_channels=5)
    assert slim.PLANES == (32, 32, 64, 128, 64, 48, 32, 32)
    assert slim.conv0p1s1.in_channels == 5
    assert slim.final.out_channels == 3
    assert build("PointMLP", "batch", 3)[0].in_features == 4


def test_networks_are_named_in_words():
    """Before a training, in its figures and in tables of several networks."""
    def scans(*arguments):
        return SegmentationModule(*arguments, classes=["a"]).title

    assert scans("MinkUNetSlim", "batch") == "MinkUNetSlim, batch norm"
    assert scans("PointMLP") == "PointMLP"
    mixed = {"default": "batch", "stem": "instance"}
    assert scans("MinkUNet14A", mixed) == "MinkUNet14A, batch norm, instance in stem"
    assert ActionModule("r3d_18", "instance").title == "r3d_18, instance norm"
    several = {"default": "batch", "a": "none", "b": "batch", "c": "none", "d": "none"}
    assert norm_in_words(several) == "batch norm, none in a, c and d"
    assert norm_in_words({"stem": "none"}) == "none in stem"
    assert norm_in_words("none") == "no norm"
    assert norm_in_words({"default": "none", "stem": "batch"}) == "no norm, batch in stem"


def test_an_option_may_be_absent_one_thing_or_several():
    assert _listed(None) == []
    assert _listed("one") == ["one"]
    given = ["one", 2]
    assert _listed(given) == _listed(tuple(given)) == given
    assert _listed(given) is not given  # what is added to it is not added to the option


def test_names_of_norms_stand_for_what_builds_them():
    factories = {"own": InstanceNorm}
    assert with_factories("own", factories) is InstanceNorm
    assert with_factories("batch", factories) == "batch"
    mixed = {"default": "batch", "stem": "own"}
    assert with_factories(mixed, factories) == {"default": "batch", "stem": InstanceNorm}
    assert mixed["stem"] == "own"


def test_a_norm_of_the_input_is_an_option():
    module = SegmentationModule("MinkUNetSlim", "batch", classes=["a"], input_norm="instance")
    assert isinstance(module.network.input_norm, InstanceNorm)
    assert module.hparams["input_norm"] == "instance"  # travels in the checkpoint
    one = SegmentationModule("MinkUNetSlim", "batch", classes=["a"], input_norm={3: "instance"})
    assert [*one.network.input_norm.norms] == ["3"]
    assert one.hparams["input_norm"] == {3: "instance"}
    assert SegmentationModule("MinkUNetSlim", classes=["a"]).network.input_norm is None
    with pytest.raises(ValueError, match="PointMLP sees each point alone and takes no input_norm"):
        SegmentationModule("PointMLP", classes=["a"], input_norm="instance")
