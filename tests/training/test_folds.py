"""Scores of the summed counts of several runs."""

import pytest
import torch
import train_seg

from geonorm.training.confusion import read_matrix, write_matrix, write_rows
from geonorm.training.segmentation.folds import add_folds

CLASSES = ["wall", "floor, or not", "beam"]
FIRST = torch.tensor([[90, 10, 0], [0, 0, 0], [0, 1, 3]])
SECOND = torch.tensor([[5, 5, 0], [20, 60, 20], [0, 0, 0]])


@pytest.fixture
def runs(tmp_path):
    for name, matrix in (("001", FIRST), ("002", SECOND)):
        (tmp_path / name).mkdir()
        write_matrix(tmp_path / name / "val_confusion.csv", matrix, CLASSES)
    return [tmp_path / "001", tmp_path / "002"]


def test_the_counts_of_runs_are_added(runs, capsys):
    """Worked by hand: the sum is [[95, 15, 0], [20, 60, 20], [0, 1, 3]]."""
    matrix, classes = read_matrix(runs[1] / "val_confusion.csv")
    assert torch.equal(matrix, SECOND)
    assert classes == CLASSES
    train_seg.main(["add-folds", *map(str, runs)])
    lines = [line.rsplit(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == ["wall", f"{95 / 130:.3f}", "110"]
    assert lines[2] == ["floor, or not", f"{60 / 116:.3f}", "100"]
    assert lines[3] == ["beam", f"{3 / 24:.3f}", "4"]
    text = add_folds(runs)
    assert f"{(95 / 130 + 60 / 116 + 3 / 24) / 3:.3f}         214" in text
    accuracy = (95 / 110 + 60 / 100 + 3 / 4) / 3
    assert text.endswith(
        f"overall accuracy {158 / 214:.3f}, mean accuracy {accuracy:.3f}, over 2 runs"
    )


def test_names_that_are_no_utf8_are_written_as_they_can_be_read(tmp_path):
    write_rows(tmp_path / "a.csv", ("file", "n"), [("b\udcff.mp4", 3)])
    assert (tmp_path / "a.csv").read_bytes() == b"file,n\r\nb\\udcff.mp4,3\r\n"


def test_a_class_without_points_counts_for_nothing(runs):
    text = add_folds(runs[:1])
    assert f"mean accuracy {(0.9 + 0.75) / 2:.3f}, over 1 runs" in text
    assert "mean of the 2 classes present" in text
    assert [line.split()[-2:] for line in text.splitlines()[2:3]] == [["absent", "0"]]


def test_what_has_no_sum_is_refused(runs):
    with pytest.raises(ValueError, match=r"expected the folders of runs, .*; got none"):
        add_folds([])
    with pytest.raises(ValueError, match=r"no .*test_confusion.csv: expected the folder of a run"):
        add_folds(runs, "test")
    file = runs[1] / "val_confusion.csv"
    write_matrix(file, SECOND[:2, :2], CLASSES[:2])
    with pytest.raises(ValueError, match=r"002 and .*001 have different classes, and have no sum"):
        add_folds(runs)
    file.write_text(file.read_text().replace("wall,5", "roof,5"))
    with pytest.raises(ValueError, match="is no confusion matrix: its rows and columns differ"):
        read_matrix(file)
    file.write_text("true class,wall\nwall,many\n")
    with pytest.raises(ValueError, match=r"holds something else than counts: .*'many'"):
        read_matrix(file)
    for text in ("", "true class,wall\nwall,1,2\n", "true class,wall,beam\nwall,1,2\n"):
        file.write_text(text)
        with pytest.raises(ValueError, match="is no confusion matrix: its rows and columns differ"):
            read_matrix(file)
    with pytest.raises(ValueError, match="longer"):
        write_matrix(file, SECOND, CLASSES[:2])


def test_a_class_of_one_point_counts_as_any(tmp_path):
    write_matrix(tmp_path / "val_confusion.csv", torch.tensor([[9, 1], [1, 0]]), ["wall", "beam"])
    assert "overall accuracy 0.818, mean accuracy 0.450, over 1 runs" in add_folds([tmp_path])
