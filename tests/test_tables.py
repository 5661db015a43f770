"""What notebooks show of reports and scores: well-formed tables with the right cells."""

from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from torch import nn

import geonorm
from geonorm.convert.conversion import Conversion, ConversionReport
from geonorm.models import load_checkpoint
from geonorm.tables import as_html
from geonorm.training.action.scores import VideoResult
from geonorm.training.shift.comparison import Comparison
from geonorm.training.shift.measures import MEAN, Scores


def shown(report):
    """Return the cells of what a notebook shows, line by line, and the notes below."""
    root = ElementTree.fromstring(f"<div>{report._repr_html_()}</div>")
    lines = [["".join(cell.itertext()) for cell in line] for line in root.find("table")]
    assert {cell.tag for cell in root.find("table")[0]} == {"th"}
    assert {cell.tag for line in root.find("table")[1:] for cell in line} <= {"td"}
    return lines, [note.text for note in root.findall("p")]


def test_text_is_not_markup():
    lines = [["<b>"], ["**a & b**"], ["****"], ["**c**"]]
    root = ElementTree.fromstring(f"<div>{as_html(lines)}</div>")
    assert [cell.text for cell in root.iter("th")] == ["<b>"]
    assert [cell.text for cell in root.iter("b")] == ["a & b", "c"]
    assert [cell.text for cell in root.iter("td")] == [None, "****", None]


def test_a_conversion():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1),
                          nn.GroupNorm(2, 4), nn.ReLU())  # fmt: skip
    lines, notes = shown(geonorm.convert(model))
    assert lines == [
        ["norm", "before", "now", "affine", "carried over"],
        ["1", "BatchNorm2d", "InstanceNorm", "kept", ""],
        ["3", "GroupNorm", "InstanceNorm", "kept", ""],
    ]
    assert notes == ["2 norms converted"]


def test_a_conversion_with_data_tells_changes():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval()
    report = geonorm.convert(model, data=[torch.randn(2, 3, 8, 8) for _ in range(2)])
    lines, notes = shown(report)
    assert lines[0][-1] == "change"
    assert float(lines[1][-1]) == pytest.approx(report.rows[0].change, rel=0.05)
    assert lines[1][3] == "fitted"
    assert notes[1] == str(report).splitlines()[-1]
    assert f"by {report.fitted_change:.3g} with fitted ones" in notes[1]


def test_a_conversion_tells_what_was_carried_and_leaves_out_what_is_not_known():
    rows = (Conversion("a", "Old", "New", "kept", "hooks"),
            Conversion("b", "Old", "New", "fitted", change=0.375))  # fmt: skip
    lines, _ = shown(ConversionReport(rows))
    assert lines[1:] == [["a", "Old", "New", "kept", "hooks", ""],
                         ["b", "Old", "New", "fitted", "", "0.38"]]  # fmt: skip


def test_a_norm_beside_a_pool_is_warned_of_below():
    report = ConversionReport((), blind={"a": "pool"})
    assert shown(report)[1][-1].startswith("'a' stands beside the global pool 'pool'")


def test_a_checkpoint():
    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))
    batch = {f"module.{key}": value for key, value in model.state_dict().items()}
    geonorm.convert(model)
    lines, notes = shown(load_checkpoint(model, batch))
    assert lines == [
        ["", "tensors", "state dict"],
        ["kept", "4", "0.weight, 0.bias, 1.weight, 1.bias"],
        ["dropped", "3", "1.running_mean, 1.running_var, 1.num_batches_tracked"],
    ]
    assert notes == []


def test_scores_of_videos():
    each = (torch.arange(4), torch.tensor([0, 1, 0, 1]), torch.eye(2).repeat(2, 1))
    lines, _ = shown(VideoResult(0.75, 1.0, 0.625, 0.5, 4, 8, torch.eye(2), *each))
    assert dict(zip(*lines, strict=True)) == {
        "top-1": "75.0%", "top-5": "100.0%", "top-1 of views": "62.5%", "loss": "0.500",
        "videos": "4", "views": "8",
    }  # fmt: skip


def test_scores_under_shift():
    fog = {MEAN: np.array([0.4]), 1: np.array([0.6]), 2: np.array([0.2])}
    network = Scores(np.array([0.8]), {"fog": fog})
    lines, notes = shown(Comparison({"a": network}, {"all": ["fog"]}, "mIoU"))
    assert lines == [
        ["corruption", "mIoU", "RR"], ["clean", "80.00", ""], ["fog", "40.00", "50.00"],
        ["mean of all (1)", "40.00", "50.00"],
    ]  # fmt: skip
    assert notes[0].startswith("In percent.")
