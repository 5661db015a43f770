"""Predictions from chunks and votes: equal to the plain one where they must be, else the mean."""

import json

import numpy as np
import pytest
import torch

from geonorm.commands.predict import main as predict
from geonorm.datasets import SyntheticStreets, Viewing, collate_scans
from geonorm.datasets.scan_io import read_scan
from geonorm.datasets.views import chunks, collate_views, seen
from geonorm.training.segmentation.data import ScanData
from geonorm.training.segmentation.module import SegmentationModule
from geonorm.training.segmentation.predictor import ScanPredictor
from geonorm.training.segmentation.voting import mean_scores
from helpers.segmentation_runs import STREETS, run_config

VOXELS = {"voxel_size": 0.8, "clip_range": None}


@pytest.fixture(scope="module")
def scans():
    return [SyntheticStreets(2, seed=5)[i] for i in range(2)]


@pytest.fixture(scope="module", params=["MinkUNetSlim", "PointMLP"])
def module(request):
    torch.manual_seed(1)
    return SegmentationModule(request.param, classes=list(SyntheticStreets.classes)).eval()


def softmax_of(module, scan):
    """Return the softmax of each point of one scan by the plain network."""
    batch = collate_scans([scan], **VOXELS)
    logits = module._rows(batch)[0].detach()
    return (logits if module.name == "PointMLP" else logits[batch.inverse]).softmax(1)


def test_one_chunk_that_covers_all_is_the_whole_scan(module, scans):
    plain = module(collate_scans(scans, **VOXELS))
    alone = torch.cat([softmax_of(module, scan) for scan in scans])
    with torch.no_grad():
        batch = collate_views(scans, Viewing(chunk=100.0), **VOXELS)
        scores, by_first = module.scores(batch)
        assert module(batch).tolist() == plain.tolist()
    assert by_first is None
    torch.testing.assert_close(scores, alone, rtol=0, atol=0)
    assert len(plain.unique()) > 1


def test_scores_are_the_mean_over_chunks_and_votes_that_show_a_point(module, scans):
    viewing = Viewing(votes=3, chunk=30.0, overlap=0.5)
    with torch.no_grad():
        scores, by_first = module.scores(collate_views(scans, viewing, **VOXELS))
    start = 0
    for scan in scans:
        total = np.zeros((len(scan), 11))
        counts = np.zeros(len(scan))
        first = None
        for vote in range(3):
            for rows in chunks(scan.points, 30.0):
                total[rows] += softmax_of(module, seen(scan.take(rows), vote, 0.8)).numpy()
                counts[rows] += 1
            first = total.argmax(1) if first is None else first
        own = slice(start, start + len(scan))
        np.testing.assert_allclose(scores[own], total / counts[:, None], atol=1e-6)
        assert (by_first[own].numpy() == first).mean() > 0.999  # equal but for ties
        assert len({*counts.tolist()}) > 1
        start += len(scan)
    torch.testing.assert_close(scores.sum(1), torch.ones(len(scores)))


def test_a_point_that_no_view_shows_is_an_error(scans):
    batch = collate_scans(scans[:1], **VOXELS)
    rows = torch.arange(len(batch.points))[:-7]
    views = [(0, batch, rows)]
    with pytest.raises(ValueError, match="every point must be in a view; 7 are in none"):
        mean_scores(views, lambda batch: torch.zeros(len(rows), 2), len(batch.points))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("voted") / "run"
    run_config("streets", None, folder, *STREETS, "--data.num_workers=1", "--data.chunk=100")
    return folder


def scores_of(folder):
    return json.loads((folder / "test.json").read_text())


@pytest.mark.slow
def test_a_test_with_one_vote_is_a_test_without(run, tmp_path):
    words = [*STREETS, f"--ckpt_path={run}/checkpoints/last.ckpt"]
    found = {}
    for name, more in {"plain": [], "one": ["--data.votes=1"], "covered": ["--data.chunk=100"],
                       "voted": ["--data.votes=2", "--data.chunk=40"]}.items():  # fmt: skip
        run_config("streets", None, tmp_path / name, *words, *more, subcommand="test")
        found[name] = scores_of(tmp_path / name)
    assert found["one"] == found["plain"]
    assert found["covered"]["iou"] == found["plain"]["iou"]
    assert found["voted"]["iou"] != found["plain"]["iou"]
    assert "miou_first_vote" not in found["covered"]
    assert found["voted"]["miou_first_vote"] != found["voted"]["miou"]


@pytest.mark.slow
def test_both_scores_are_logged(run, tmp_path, capsys):
    words = [*STREETS, f"--ckpt_path={run}/checkpoints/last.ckpt", "--trainer.logger=true"]
    found = {}
    for votes in (1, 4):
        folder = tmp_path / str(votes)
        run_config("streets", None, folder, *words, f"--data.votes={votes}", subcommand="test")
        text = (folder / "metrics.csv").read_text().splitlines()
        found[votes] = dict(zip(text[0].split(","), text[1].split(","), strict=True))
    assert "test/miou_first_vote" not in found[1]
    assert float(found[4]["test/miou_first_vote"]) == pytest.approx(float(found[1]["test/miou"]))
    assert scores_of(tmp_path / "4")["miou_first_vote"] == scores_of(tmp_path / "1")["miou"]
    assert f"as without voting: {scores_of(tmp_path / '1')['miou']:.3f}" in capsys.readouterr().out
    assert found[4]["test/miou"] != found[1]["test/miou"]


@pytest.mark.slow
def test_predicting_in_chunks_with_votes(run, tmp_path):
    checkpoint = run / "checkpoints" / "last.ckpt"
    scan = SyntheticStreets(1, seed=7)[0]
    file = tmp_path / "a.npy"
    np.save(file, np.column_stack([scan.points, scan.intensity]))
    words = [str(checkpoint), str(file), "--format=npy", "--pictures=false", "--device=cpu"]
    found = {}
    for name, more in {"plain": [], "covered": ["--chunk=100"],
                       "voted": ["--chunk=25", "--votes=4", "--overlap=0.2"]}.items():  # fmt: skip
        assert predict([*words, f"--out={tmp_path / name}", *more]) == 0
        found[name] = np.load(tmp_path / name / "a.npy")
    np.testing.assert_array_equal(found["covered"], found["plain"])
    assert (found["voted"] != found["plain"]).any()
    by_hand = ScanPredictor(checkpoint, viewing=Viewing(4, 25.0, 0.2))(read_scan(file))
    np.testing.assert_array_equal(found["voted"], by_hand)
    assert "votes must be 1 or more; got 0" in predict([*words, "--votes=0"])


def test_training_is_as_it_was():
    """Only validation and test are cut, and only the test votes."""
    data = ScanData(votes=4, chunk=9.0, overlap=0.25)
    assert data.viewing == {
        "train": Viewing(), "val": Viewing(1, 9.0, 0.25), "test": Viewing(4, 9.0, 0.25)
    }  # fmt: skip
    assert not any(each.several for each in ScanData().viewing.values())
    with pytest.raises(ValueError, match="votes must be 1 or more; got 0"):
        ScanData(votes=0)
