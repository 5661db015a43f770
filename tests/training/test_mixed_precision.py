"""One step of training under bf16-mixed, by Lightning on the CPU."""

from functools import partial

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from geonorm.datasets.synthetic.streets import SyntheticStreets
from geonorm.training.segmentation.data import ScanData
from geonorm.training.segmentation.module import SegmentationModule


class DtypeOfLogits(Callback):
    """Keeps the dtype that the network gives."""

    def on_fit_start(self, trainer, module):
        module.network.register_forward_hook(lambda *args: setattr(self, "dtype", args[2].F.dtype))


def one_step(name, precision):
    """Return the loss, the dtype of the logits, and how far each weight moved."""
    torch.manual_seed(0)
    module = SegmentationModule(
        name, classes=list(SyntheticStreets.classes), colors=SyntheticStreets.colors.tolist()
    )
    before = {key: weight.detach().clone() for key, weight in module.network.named_parameters()}
    logits = DtypeOfLogits()
    trainer = Trainer(
        precision=precision, max_steps=1, accelerator="cpu", logger=False, callbacks=[logits],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        limit_val_batches=0, use_distributed_sampler=False,
    )  # fmt: skip
    streets = partial(SyntheticStreets, num_scans=1)
    data = ScanData(
        partial(streets, seed=0), partial(streets, seed=1), voxel_size=1.0, batch_size=1,
        num_workers=0,
    )  # fmt: skip
    trainer.fit(module, data)
    moved = {
        key: (weight.detach() - before[key]).abs().max().item()
        for key, weight in module.network.named_parameters()
    }
    return trainer.callback_metrics["train/loss"].item(), logits.dtype, moved


@pytest.mark.filterwarnings("default")  # Lightning warns about matters of its own
@pytest.mark.parametrize("name", ["MinkUNet18", pytest.param("MinkUNet50", marks=pytest.mark.slow)])
def test_networks_train_under_bf16_mixed(name):
    exact, dtype, _ = one_step(name, "32-true")
    assert dtype is torch.float32
    loss, dtype, moved = one_step(name, "bf16-mixed")
    assert dtype is torch.bfloat16
    assert loss != exact  # bfloat16 has 8 bits, so an equal loss means that it was not used
    assert loss == pytest.approx(exact, rel=0.005)
    assert all(0 < distance < 1 for distance in moved.values()), moved
