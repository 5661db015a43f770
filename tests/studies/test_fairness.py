"""The study of fairness: its groups, its measures, and what turns its quick verdict."""

from pathlib import Path

import numpy as np
import pytest
import torch

from geonorm.datasets import SyntheticStreets
from geonorm.datasets.voxelize import collate_scans
from geonorm.studies import fairness
from geonorm.studies.fairness import (
    BATCH_INPUT,
    BLACK,
    BRIGHT,
    DARK,
    FREE,
    IN,
    MEAN,
    NONE_FREE,
    SENSOR,
    STD,
    STUDY,
    ZERO,
    balanced_clips,
    differences,
    exposed,
    network,
    normalized,
    scans,
    seen_by,
    sensed,
    spurious,
    tied_clips,
)
from geonorm.studies.outcome import Outcome
from helpers.studies import SETTING, of_docs, run_parts


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Return the outcome of networks with random weights."""
    return run_parts(STUDY, ("random weights",), 3, tmp_path_factory.mktemp("cache"))


def test_differences_of_a_case_worked_by_hand() -> None:
    labels = torch.tensor([0, 0, 1, 1, 0, 0, 1, 1])
    groups = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    answers = torch.tensor([0, 0, 0, 1, 0, 1, 1, 1])
    found = differences(labels, answers, groups)
    assert found == {
        "accuracy": 0.75,
        "demographic parity difference": 0.5,  # 1 of 4 against 3 of 4 are called 1
        "equalized odds difference": 0.5,  # of true 1 a half against all; of true 0 none and a half
        "accuracy of the worst cell": 0.5,
    }


def test_groups_are_tied_in_training_and_balanced_in_testing() -> None:
    tied = tied_clips(400, 0.95, IN, 3)
    assert float((tied.groups == tied.labels).float().mean()) == pytest.approx(0.95, abs=0.03)
    free = tied_clips(400, 0.5, IN, 3)
    assert float((free.groups == free.labels).float().mean()) == pytest.approx(0.5, abs=0.08)
    tested = balanced_clips(120, IN, 3)
    cells = torch.bincount(2 * tested.labels + tested.groups)
    assert cells.tolist() == [30, 30, 30, 30]


def test_a_group_has_its_exposure_and_a_network_a_standardized_clip() -> None:
    generator = torch.Generator().manual_seed(0)
    clips, groups = torch.full((4000, 3, 1, 1, 1), 0.5), torch.arange(4000) % 2
    seen = exposed(clips, groups, generator).flatten(1)[:, 0].log()
    for group, gain in enumerate((DARK, BRIGHT)):
        assert float(seen[groups == group].mean().exp()) == pytest.approx(0.5 * gain, rel=0.02)
        assert float(seen[groups == group].std()) == pytest.approx(0.15, rel=0.1)
    black, ours = balanced_clips(8, BLACK, 3), balanced_clips(8, IN, 3)
    torch.testing.assert_close(ours.clips, (black.clips - MEAN) / STD)
    assert not torch.equal(balanced_clips(8, SENSOR, 3).clips, ours.clips)


def test_a_sensor_has_the_noise_that_it_says() -> None:
    seen = sensed(torch.full((300_000,), 0.5), torch.Generator().manual_seed(0)) * 255
    assert float((seen - seen.round()).abs().max()) < 1e-4  # 8 bits
    assert float(seen.mean()) == pytest.approx(127.5, rel=1e-3)
    electrons = (0.5 * 2000 + 10**2) / 2000**2 * 255**2  # photons, read noise
    assert float(seen.var()) == pytest.approx(electrons + 1 / 12, rel=0.02)


def test_networks_differ_in_what_their_names_say() -> None:
    assert network(IN, SETTING).layers[0].padding_mode == "replicate"
    assert network(ZERO, SETTING).layers[0].padding_mode == "zeros"
    kinds = [type(network(IN, s).layers[1]).__name__
             for s in (SETTING, SETTING._replace(variant="mutated"))]  # fmt: skip
    assert kinds == ["InstanceNorm", "BatchNorm"]


def test_a_dark_sensor_and_a_normalized_intensity() -> None:
    scan = SyntheticStreets(1, seed=5)[0]
    bright, dark = (seen_by(scan, which, 1.1, 0.3) for which in (False, True))
    light = scan.feature("intensity")
    np.testing.assert_allclose(bright.feature("intensity"), light * 0.9 * 1.1, rtol=1e-6)
    np.testing.assert_allclose(dark.feature("intensity"), light * 0.25 * 1.1 + 0.3, rtol=1e-6)
    mixed, alone = collate_scans([bright, dark], 0.4), collate_scans([bright], 0.4)
    found = normalized(mixed)
    of = [found.features[mixed.coordinates[:, 0] == number] for number in (0, 1)]
    torch.testing.assert_close(of[0], of[1], rtol=0, atol=2e-2)  # eps
    torch.testing.assert_close(of[0], normalized(alone).features)
    torch.testing.assert_close(found.features[:, :3], mixed.features[:, :3])
    assert float(of[1][:, 3].mean()) == pytest.approx(0, abs=1e-5)
    assert float(of[1][:, 3].std()) == pytest.approx(1, abs=5e-3)


@pytest.mark.parametrize(("column", "tied"), [("none", 0.95), (NONE_FREE, 0.5), (FREE, 0.5)])
def test_what_is_tied_in_a_column(column: str, tied: float, monkeypatch) -> None:
    asked = []

    def train(net, seen, setting, steps):
        asked.append((net, float((seen.groups == seen.labels).float().mean())))
        return net.eval()

    monkeypatch.setattr(fairness, "_trained", train)
    spurious(column, SETTING)
    ((net, share),) = asked
    assert share == pytest.approx(tied, abs=0.05)
    assert type(net.layers[1]).__name__ == ("BatchNorm" if column == FREE else "NoNorm")


@pytest.mark.parametrize(("column", "offset"), [("batch", 0.3), (BATCH_INPUT, 0.0)])
def test_both_sensors_are_tested_as_they_are_trained(column, offset, monkeypatch) -> None:
    """Without training: what comes to the network, and from which sensor."""
    drawn, tested = [], []
    monkeypatch.setattr(fairness, "fit", lambda net, draw, *_, **__: drawn.append(draw()) or net)

    def score(net, batches, classes):
        tested.append(torch.cat([batch.features[:, 3] for batch in batches]))
        return 0.5 - 0.1 * len(tested)

    monkeypatch.setattr(fairness, "voxel_iou", score)
    found = scans(column, SETTING, offset)
    assert found["disparity"] == pytest.approx(0.1)
    bright, dark = tested
    if column == BATCH_INPUT:
        assert [float(x.std()) for x in (bright, dark, drawn[0].features[:, 3])] == pytest.approx(
            [1, 1, 1], abs=0.02)  # fmt: skip
    else:
        # Each scan has a gain of its own, too.
        assert float(dark.std() / bright.std()) == pytest.approx(DARK / BRIGHT, rel=0.3)
        assert float(dark.mean()) > 0.3


@pytest.mark.slow
def test_quick_verdict_and_what_turns_it(quick: Outcome) -> None:
    passed = {each.test.quantity.column: each.passed for each in quick.judge()}
    assert passed == {"batch": True, IN: True, ZERO: False, BLACK: True, SENSOR: False}
    for variant in ("mutated", "broken"):
        assert quick.turned(variant) == [2, 4]


def test_the_page_shows_what_was_found() -> None:
    found = of_docs(STUDY)
    passed = {each.test.says: each.passed for each in found.judge()}
    assert passed["a cue that is tied to the label makes a network of batch norms unfair"]
    assert passed["one of instance norms with repeated edges stays fair"]
    assert not passed["one of instance norms with zero padding stays fair"]


@pytest.mark.filterwarnings("default")  # Lightning warns about matters of its own
@pytest.mark.long
def test_trained_networks(tmp_path: Path) -> None:
    outcome = run_parts(STUDY, ("signal",), 3, tmp_path)
    assert [each.passed for each in outcome.judge()] == [True, True]
