"""The report that a run writes of itself: after an interruption, and where plotly is missing."""

import json
import os
import sys
from importlib import metadata
from types import SimpleNamespace

import pytest
from lightning.pytorch import Trainer

from geonorm.__main__ import main as command
from geonorm.training.run_report import RunReport, write_own_report
from helpers.run_folders import write_run


@pytest.fixture
def trainer(tmp_path):
    return Trainer(logger=False, accelerator="cpu", enable_checkpointing=False,
                   enable_progress_bar=False, default_root_dir=tmp_path)  # fmt: skip


@pytest.mark.filterwarnings("default")
def test_who_interrupts_a_run_gets_its_report(tmp_path, trainer):
    run = write_run(tmp_path / "run")
    page, callback = run / "report.html", RunReport(run)
    callback.on_exception(trainer, None, ValueError("no interruption"))
    assert not page.exists()
    callback.teardown(trainer, None, "fit")  # the validation that follows writes it
    assert not page.exists()
    callback.on_exception(trainer, None, KeyboardInterrupt())
    assert "Plotly.newPlot" in page.read_text()
    page.unlink()
    callback.teardown(trainer, None, "test")
    assert page.exists()


@pytest.mark.filterwarnings("default")
def test_versions_of_each_stage_are_kept(tmp_path, trainer):
    run = write_run(tmp_path / "run")
    RunReport(run).setup(trainer, None, "test")
    told = json.loads((run / "versions.json").read_text())
    assert told["fit"] == {"torch": "2.15.0", "cores": "2"}  # as write_run has it
    assert told["test"]["python"] == sys.version.partition(" ")[0]
    assert {"torch", "geonorm", "numpy", "av", "machine", "GPU"} < told["test"].keys()
    assert told["test"]["lightning"] == metadata.version("lightning")
    assert told["test"]["cores"] == str(os.cpu_count())


def test_the_first_process_alone_keeps_versions_and_writes_the_report(tmp_path, trainer):
    run = write_run(tmp_path / "run")
    (run / "versions.json").unlink()
    other = SimpleNamespace(is_global_zero=False, fast_dev_run=False, loggers=[])
    RunReport(run).setup(other, None, "fit")
    RunReport(run).teardown(other, None, "test")
    assert not {"versions.json", "report.html"} & {path.name for path in run.iterdir()}
    RunReport(run).setup(trainer, None, "fit")
    assert [*json.loads((run / "versions.json").read_text())] == ["fit"]


def test_a_trial_of_a_run_writes_no_report(tmp_path):
    run = write_run(tmp_path / "run")
    trial = Trainer(fast_dev_run=True, logger=False, accelerator="cpu", enable_progress_bar=False,
                    enable_checkpointing=False, default_root_dir=tmp_path)  # fmt: skip
    RunReport(run).teardown(trial, None, "test")
    assert not (run / "report.html").exists()


def test_without_plotly_a_run_goes_on_and_the_command_names_the_cure(
    tmp_path, monkeypatch, capsys
):
    run = write_run(tmp_path / "run")
    for name in [name for name in sys.modules if name.partition(".")[0] == "plotly"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "plotly", None)
    write_own_report(run)
    assert "Skipped report.html: plotly is not installed" in capsys.readouterr().out
    assert not (run / "report.html").exists()
    monkeypatch.chdir(tmp_path)
    assert "geonorm report: needs plotly, which is not installed" in command(["report", "run"])


def test_a_run_that_left_nothing_to_report_ends_all_the_same(tmp_path, capsys):
    write_own_report(tmp_path)
    assert f"Skipped report.html: {tmp_path} is no folder of a run" in capsys.readouterr().out
    assert not (tmp_path / "report.html").exists()
