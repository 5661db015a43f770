"""Batches that mix data sets: each scan has its own domain in every norm, in training and after."""

import MinkowskiEngine as ME
import numpy as np
import pytest
import torch
import yaml
from torch.nn import functional

from geonorm import set_domain
from geonorm.commands.predict import main as predict
from geonorm.datasets import JoinedScans, SyntheticStreets, collate_scans
from geonorm.datasets.scan_io import read_scan
from geonorm.training.segmentation.module import SegmentationModule
from geonorm.training.segmentation.predictor import ScanPredictor
from helpers.segmentation_runs import run_config

STREET = list(SyntheticStreets.classes)
NORMS = ["domain-instance", "domain-batch"]


def module_with(norm, num_domains=2):
    torch.manual_seed(3)
    module = SegmentationModule("MinkUNetSlim", norm, classes=STREET, num_domains=num_domains)
    with torch.no_grad():  # else every domain begins alike
        for name, value in module.named_parameters():
            if "norm" in name or "bn" in name:
                value.add_(0.3 * torch.randn(value.shape))
    return module.double()


def batch_of(scans):
    batch = collate_scans(scans, voxel_size=1.0)
    return batch._replace(features=batch.features.double())


@pytest.fixture(scope="module")
def scans():
    joined = JoinedScans([SyntheticStreets(2), SyntheticStreets(2, sensor="mast64")])
    return [joined[i] for i in (0, 2, 1, 3)]  # domains 0, 1, 0, 1


def gradients(module, batch, domain=None):
    """Return the gradient of the cross entropy summed over voxels."""
    module.zero_grad()
    if domain is None:
        logits, labels, _ = module._rows(batch)
    else:
        given = batch._replace(domains=[domain] * len(batch.names))
        logits, labels, _ = module._rows(given)
    loss = functional.cross_entropy(logits, labels, ignore_index=255, reduction="sum")
    loss.backward()
    return {name: value.grad.clone() for name, value in module.named_parameters()
            if value.grad is not None}  # fmt: skip


@pytest.mark.parametrize("norm", NORMS)
def test_gradients_of_a_mixed_batch_are_those_of_its_halves(scans, norm):
    module = module_with(norm)
    together = gradients(module, batch_of(scans))
    halves = [gradients(module, batch_of(scans[start::2])) for start in (0, 1)]
    names = {*halves[0], *halves[1]}
    assert together.keys() == names
    scale = max(value.abs().max() for value in together.values())
    for name in names:
        parts = [half[name] for half in halves if name in half]
        torch.testing.assert_close(together[name], sum(parts), rtol=1e-10, atol=1e-10 * scale)
    for number, half in enumerate(halves):  # neither half reaches the other's parameters
        rows = half["network.bn0.weight" if norm == "domain-instance" else
                    f"network.bn0.norms.{number}.weight"]  # fmt: skip
        if norm == "domain-instance":
            assert (rows[1 - number] == 0).all()
            assert (rows[number] != 0).all()
        else:
            other = half.get(f"network.bn0.norms.{1 - number}.weight")
            assert other is None or (other == 0).all()
            assert (rows != 0).all()


@pytest.mark.parametrize("norm", NORMS)
def test_one_domain_for_the_whole_batch_is_something_else(scans, norm):
    """PDNorm in Pointcept reads the first scan's domain for all."""
    module = module_with(norm)
    together = gradients(module, batch_of(scans))
    first = gradients(module, batch_of(scans), domain=0)
    name = next(key for key in together if key.endswith("kernel"))
    assert (together[name] - first[name]).norm() > 0.01 * together[name].norm()


@pytest.mark.parametrize("norm", NORMS)
def test_ids_that_the_network_does_not_have_are_refused(scans, norm):
    module = module_with(norm)
    batch = batch_of(scans[:2])
    for domains, message in (([0, 2], r"\[0, 2\); got \[0, 2\]"), ([-1, 0], r"got \[-1, 0\]"),
                             ([0], "one for each of the 2 instances")):  # fmt: skip
        with pytest.raises(ValueError, match=message), set_domain(module.network, domains):
            module.network(ME.SparseTensor(batch.features, batch.coordinates))
    for domains in ([0, 2], [-1, 0]):
        with pytest.raises(ValueError, match=r"domain must lie in \[0, 2\)"):
            module._rows(batch._replace(domains=domains))
    with pytest.raises(ValueError, match=r"that of street-seed0-epoch0-0 is not known: say it by"):
        module._rows(batch._replace(domains=[None, 1]))


def test_other_norms_need_no_domain(scans):
    module = module_with("instance")
    batch = batch_of(scans[:2])
    known = module._rows(batch)[0]
    torch.testing.assert_close(module._rows(batch._replace(domains=[None, None]))[0], known)


CONFIG = """
data:
  train:
    class_path: geonorm.datasets.joined_scans.JoinedScans
    init_args:
      datasets:
        - class_path: geonorm.datasets.synthetic.streets.SyntheticStreets
          init_args: {num_scans: 5}
        - class_path: geonorm.datasets.synthetic.streets.SyntheticStreets
          init_args: {num_scans: 1, sensor: mast64}
      weights: [1, 1]
      length: 4
  val:
    class_path: geonorm.datasets.joined_scans.JoinedScans
    init_args:
      datasets:
        - class_path: geonorm.datasets.synthetic.streets.SyntheticStreets
          init_args: {num_scans: 2, seed: 1, sensor: mast64}
      domains: [1]
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the folder of a run on two sensors by their weights."""
    folder = tmp_path_factory.mktemp("domains")
    (folder / "two.yaml").write_text(CONFIG)
    run_config("streets", None, folder / "run", "--config", str(folder / "two.yaml"),
               "--data.voxel_size=0.8", "--model.norm=domain-instance")  # fmt: skip
    return folder / "run"


def test_a_run_on_two_sensors(run):
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 2  # of two scans each
    assert checkpoint["hyper_parameters"]["num_domains"] == 2
    weight = checkpoint["state_dict"]["network.bn0.weight"]
    assert weight.shape[0] == 2
    assert (weight != 1).all()  # both domains have been trained
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["data"]["train"]["init_args"]["weights"] == [1, 1]


def test_predicting_needs_the_domain(run, tmp_path):
    checkpoint = run / "checkpoints" / "last.ckpt"
    scan = SyntheticStreets(1, seed=7)[0]
    with pytest.raises(ValueError, match=r"was trained on 2 domains: say which one.*--domain 0"):
        ScanPredictor(checkpoint)
    classes = [ScanPredictor(checkpoint, domain=domain)(scan) for domain in (0, 1)]
    assert (classes[0] != classes[1]).any()
    with pytest.raises(ValueError, match=r"domain must lie in \[0, 2\)"):
        ScanPredictor(checkpoint, domain=2)(scan)
    file = tmp_path / "a.npy"
    np.save(file, np.column_stack([scan.points, scan.intensity]))
    words = [str(checkpoint), str(file), "--format=npy", "--pictures=false", "--device=cpu"]
    assert "say which one" in predict([*words, f"--out={tmp_path / 'no'}"])
    assert predict([*words, f"--out={tmp_path / 'out'}", "--domain=1"]) == 0
    expected = ScanPredictor(checkpoint, domain=1)(read_scan(file))
    assert np.load(tmp_path / "out" / "a.npy").tolist() == expected.tolist()


@pytest.mark.parametrize("domains", ["null", "[2]"])
def test_validation_data_say_their_domain_too(tmp_path, domains):
    (tmp_path / "two.yaml").write_text(CONFIG.replace("domains: [1]", f"domains: {domains}"))
    words = ["--config", str(tmp_path / "two.yaml"), "--data.voxel_size=0.8",
             "--model.norm=domain-batch", "--trainer.num_sanity_val_steps=1"]  # fmt: skip
    if domains == "null":
        words += ["--data.val=SyntheticStreets", "--data.val.num_scans=2"]
    with pytest.raises(ValueError, match=r"is not known|domain must lie in \[0, 2\)"):
        run_config("streets", None, tmp_path / "run", *words)
