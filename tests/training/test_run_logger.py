"""Numbers of an earlier run in the same folder are kept."""

from pathlib import Path

import pytest

from geonorm.training.metrics_file import read_metrics
from geonorm.training.run_logger import RunLogger


@pytest.mark.filterwarnings("ignore:.*exists and is not empty")  # as geonorm.training.noise does
def test_every_log_of_a_folder_is_kept(tmp_path):
    for run in range(3):
        logger = RunLogger(tmp_path)
        for step in range(2):
            logger.log_metrics({"train/loss": 10.0 * run + step}, step=step + run)
            logger.save()
        logger.finalize("success")
    logs = ("metrics_001.csv", "metrics_002.csv", "metrics.csv")
    assert sorted(path.name for path in tmp_path.glob("*.csv")) == sorted(logs)
    lines = [(tmp_path / name).read_text().split() for name in logs]
    assert [[line.split(",")[1] for line in each[1:]] for each in lines] == [
        ["0.0", "1.0"], ["10.0", "11.0"], ["20.0", "21.0"]
    ]  # fmt: skip
    found = read_metrics(tmp_path / "metrics.csv")
    assert found["train/loss"].tolist() == [[0, 0], [1, 10], [2, 20], [3, 21]]


def test_a_log_without_training_leaves_the_steps_as_they_were(tmp_path):
    logs = "metrics_001.csv", "metrics_002.csv", "metrics_003.csv", "metrics.csv"
    for name, text in zip(logs, ("test/loss\n0,1", "test/loss\n0,2", "train/loss\n0,3",
                                 "test/loss\n0,4"), strict=True):  # fmt: skip
        (tmp_path / name).write_text(f"step,{text}\n")
    found = read_metrics(tmp_path / "metrics.csv")
    assert {name: pairs.tolist() for name, pairs in found.items()} == {"train/loss": [[0, 3]]}
    (tmp_path / logs[2]).unlink()
    assert read_metrics(tmp_path / "metrics.csv")["test/loss"].tolist() == [[0, 4]]


def test_what_logs_nothing_leaves_the_folder_as_it_is(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,train/loss\n0,1\n")
    assert Path(RunLogger(tmp_path).log_dir) == tmp_path
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]
