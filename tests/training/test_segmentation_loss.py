"""The losses that train-seg trains by, and class weights from the points of the training scans."""

import math

import numpy as np
import pytest
import torch

from geonorm.datasets import Scan, SyntheticStreets, collate_scans
from geonorm.losses import lovasz_softmax
from geonorm.training.segmentation.data import LabelCounts
from geonorm.training.segmentation.module import SegmentationModule
from geonorm.training.segmentation.predictor import ScanPredictor
from geonorm.training.segmentation.scores import scan_mean_loss
from helpers.segmentation_runs import STREETS, run_config

STREET = SyntheticStreets.classes
POINT_MLP = [*STREETS, "--model.name=PointMLP"]


def checkpoint_of(run):
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.mark.parametrize("loss", ["cross_entropy", "lovasz", "cross_entropy+lovasz"])
def test_each_loss_is_the_sum_of_its_parts_over_scans(loss):
    weights = None if loss == "lovasz" else [0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 5.5]
    module = SegmentationModule(
        "PointMLP", loss=loss, class_weights=weights, classes=list(STREET)
    ).eval()
    batch = collate_scans([SyntheticStreets(2)[0], SyntheticStreets(2)[1]], voxel_size=0.8)
    logits = module.network(batch.point_features)
    rows = (logits, batch.point_labels, batch.point_batch)
    parts = {
        "cross_entropy": scan_mean_loss(
            *rows, 2, None if weights is None else torch.tensor(weights)
        ),
        "lovasz": lovasz_softmax(*rows, 2),
    }
    assert parts["cross_entropy"] > 1.1 * parts["lovasz"]
    expected = sum(parts[name] for name in loss.split("+"))
    torch.testing.assert_close(module._loss(rows, batch), expected)


@pytest.fixture(scope="module")
def weighted(tmp_path_factory):
    """Return the folder of a run with both losses and counted weights."""
    run = tmp_path_factory.mktemp("weighted") / "run"
    run_config("streets", None, run, *POINT_MLP, "--model.loss=cross_entropy+lovasz",
               "--model.class_weights=inverse_log")  # fmt: skip
    return run


def test_weights_follow_from_the_points_of_the_training_scans(weighted):
    streets = SyntheticStreets(4, seed=0)
    labels = np.concatenate([streets[i].labels for i in range(4)])
    share = np.bincount(labels[labels != 255], minlength=len(STREET)) / (labels != 255).sum()
    expected = [1 / math.log(1.02 + part) for part in share]
    assert max(expected) > 3 * min(expected)
    found = checkpoint_of(weighted)["state_dict"]["weights"]
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_weights_travel_in_the_checkpoint(weighted, tmp_path, capsys):
    checkpoint = checkpoint_of(weighted)
    checkpoint["state_dict"]["weights"] += 1  # so that nobody can count them
    path = tmp_path / "checkpoints" / "last.ckpt"
    path.parent.mkdir()
    torch.save(checkpoint, path)
    changed = checkpoint["state_dict"]["weights"]
    assert ScanPredictor(path).module.weights.tolist() == changed.tolist()
    run_config("streets", None, tmp_path, *POINT_MLP, "--model.loss=cross_entropy+lovasz",
               "--model.class_weights=inverse_log", f"--ckpt_path={path}",
               "--trainer.max_epochs=2")  # fmt: skip
    assert "Class weights from" not in capsys.readouterr().out  # they are not counted again
    assert checkpoint_of(tmp_path)["epoch"] == 2
    assert checkpoint_of(tmp_path)["state_dict"]["weights"].tolist() == changed.tolist()


def test_a_run_without_counted_weights_keeps_none():
    given = SegmentationModule("PointMLP", class_weights=[1.0] * 11, classes=list(STREET))
    plain = SegmentationModule("PointMLP", classes=list(STREET))
    assert given.state_dict().keys() == plain.state_dict().keys()
    assert "weights" not in plain.state_dict()
    counted = SegmentationModule("PointMLP", class_weights="inverse_log", classes=list(STREET))
    assert counted.weights.tolist() == [1] * 11


def test_lovasz_has_no_class_weights():
    with pytest.raises(ValueError, match="class_weights are those of the cross entropy, which"):
        SegmentationModule(loss="lovasz", class_weights="inverse_log")


def test_scans_without_labels_cannot_be_counted():
    class Unlabelled:
        classes = ("a", "b")

        def __len__(self):
            return 1

        def __getitem__(self, index):
            return Scan(np.zeros((1, 3), "f4"), None, None, "07/000001")

    for weights in ([1.0] * 10, [1.0] * 12):
        told = rf"class_weights must be 11 numbers, one for each of .*; got {len(weights)}$"
        with pytest.raises(ValueError, match=told):
            SegmentationModule("PointMLP", class_weights=weights, classes=list(STREET))
    with pytest.raises(ValueError, match="class weights need labels, which scan 07/000001 lacks"):
        LabelCounts(Unlabelled())[0]
