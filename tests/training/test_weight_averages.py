"""Lightning's average of weights and its accumulation of gradients, with what train-seg trains."""

import pytest
import torch
import train_action
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging

from geonorm.datasets import SyntheticStreets
from geonorm.training.optimization import Optimization
from geonorm.training.segmentation.data import ScanData
from geonorm.training.segmentation.module import SegmentationModule
from geonorm.training.segmentation.predictor import ScanPredictor
from helpers.action_runs import FILMS, QUICK
from helpers.segmentation_runs import STREETS, run_config

as_users_run_it = pytest.mark.filterwarnings("default")
STEADY = Optimization("SGD", lr=0.05, weight_decay=0.0, schedule="constant", warmup=0.0)


class Recorder(Callback):
    """Keeps the weights after every step."""

    def __init__(self):
        self.kept = []

    def on_train_batch_end(self, trainer, module, *rest):
        weights = module.network.state_dict()
        self.kept.append({name: value.clone() for name, value in weights.items()})


def fit(tmp_path, module, batch_size=1, **options):
    data = ScanData(
        train=lambda: SyntheticStreets(4), val=lambda: SyntheticStreets(1, seed=1),
        voxel_size=1.0, batch_size=batch_size, num_workers=0,
    )  # fmt: skip
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, default_root_dir=tmp_path,
        **({"max_epochs": 1} | options),
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    return module


@as_users_run_it
@pytest.mark.parametrize("name", ["PointMLP", "MinkUNetSlim"])
def test_the_average_is_torchs_by_hand(tmp_path, name):
    recorder = Recorder()
    torch.manual_seed(0)
    module = SegmentationModule(name, optim=STEADY)  # its network is built for the data
    module = fit(tmp_path, module, callbacks=[recorder, EMAWeightAveraging(decay=0.6)])
    assert len(recorder.kept) == 4
    key = next(key for key, value in recorder.kept[0].items() if value.ndim > 1)
    average = recorder.kept[0][key]
    for later in recorder.kept[1:]:
        average = 0.6 * average + 0.4 * later[key]
    found = module.network.state_dict()[key]
    torch.testing.assert_close(found, average)
    assert (found - recorder.kept[-1][key]).abs().max() > 1e-4


@pytest.mark.slow
@as_users_run_it
def test_a_run_keeps_the_average_and_goes_on_with_the_weights(tmp_path):
    words = [
        *STREETS, "--model.name=PointMLP", "--model.optim.schedule=constant",
        "--model.optim.warmup=0", "--trainer.callbacks+=EMAWeightAveraging",
        "--trainer.callbacks.decay=0.9",
    ]  # fmt: skip
    run_config("streets", None, tmp_path / "two", *words, "--trainer.max_epochs=2")
    run_config("streets", None, tmp_path / "one", *words)
    run_config("streets", None, tmp_path / "more", *words, "--trainer.max_epochs=2",
               f"--ckpt_path={tmp_path / 'one' / 'checkpoints' / 'last.ckpt'}")  # fmt: skip
    one, two, more = (
        torch.load(tmp_path / run / "checkpoints" / "last.ckpt", weights_only=True)
        for run in ("one", "two", "more")
    )
    weights = one["state_dict"].keys()
    assert any((one["state_dict"][k] != one["current_model_state"][k]).any() for k in weights)
    assert more["global_step"] == two["global_step"] == 4
    for part in ("state_dict", "current_model_state"):
        for key in weights:
            assert torch.equal(more[part][key], two[part][key]), (part, key)
    path = tmp_path / "two" / "checkpoints" / "last.ckpt"
    used = ScanPredictor(path).module.state_dict()  # what is predicted with is the average
    assert all(torch.equal(used[key], two["state_dict"][key]) for key in weights)


@pytest.mark.slow
@as_users_run_it
def test_networks_for_videos_are_averaged_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train_action.main([
        "fit", *QUICK, *FILMS, "--run_dir=run", "--trainer.callbacks+=EMAWeightAveraging",
        "--trainer.callbacks.decay=0.9",
    ])  # fmt: skip
    kept = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    average, weights = kept["state_dict"], kept["current_model_state"]
    assert average.keys() == weights.keys()
    assert {"model.fc.weight", "model.conv1.weight"} <= average.keys()
    assert float((average["model.fc.weight"] - weights["model.fc.weight"]).norm()) > 0


@as_users_run_it
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_accumulated_batches_are_one_batch_for_instance_norms(tmp_path, norm):
    found = []
    for size, steps in ((4, 1), (1, 4), (2, 2)):
        torch.manual_seed(0)
        module = SegmentationModule("MinkUNetSlim", norm, optim=STEADY)
        fit(tmp_path, module, size, precision="64-true", accumulate_grad_batches=steps)
        assert module.trainer.global_step == 1
        found.append(torch.cat([value.flatten() for value in module.network.parameters()]))
    before = SegmentationModule("MinkUNetSlim", norm, classes=list(SyntheticStreets.classes))
    assert sum(value.numel() for value in before.network.parameters()) == len(found[0])
    for other in found[1:]:
        difference = float((other - found[0]).norm() / found[0].norm())
        assert difference < 1e-10 if norm == "instance" else difference > 1e-4
