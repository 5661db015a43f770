"""How much of a run is left, in lines, by a clock that moves ten seconds in each step."""

import re
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.trainer.states import RunningStage
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from geonorm.training import progress
from geonorm.training.progress import RunProgressBar, RunProgressLines, fraction_done, run_progress

pytestmark = pytest.mark.filterwarnings("default")  # Lightning warns about matters of its own


class Timed(LightningModule):
    """Takes ten seconds for a step."""

    title = "a line"

    def __init__(self, clock):
        super().__init__()
        self.net, self.clock = nn.Linear(2, 1), clock
        self.still = nn.Parameter(torch.ones(5), requires_grad=False)

    def training_step(self, batch, index):
        self.clock.now += 10
        return self.net(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def fit(clock, folder, steps, seconds, **options):
    trainer = Trainer(
        max_steps=steps, callbacks=[RunProgressLines(seconds)], accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    data = DataLoader(TensorDataset(torch.ones(8, 2)), batch_size=1)
    trainer.fit(Timed(clock), data, **options)
    return trainer


def left(text):
    return re.findall(r"step (\d+): .*?left ([\d:]+)", text)


def test_a_run_is_over_by_its_nearest_limit():
    endless = SimpleNamespace(callbacks=[])
    assert [fraction_done(endless, step, 40) for step in (0, 10, 40, 41)] == [0, 0.25, 1, 1]
    assert fraction_done(endless, 10, float("inf")) == 0
    timer = Timer(duration={"seconds": 400})
    timed = SimpleNamespace(callbacks=[timer])
    for began, done in ((100, 0.25), (300, 0.75), (500, 1.0)):
        timer._start_time[RunningStage.TRAINING] = time.monotonic() - began
        assert fraction_done(timed, 20, 40) == pytest.approx(max(done, 0.5), abs=0.01)


def test_what_is_left_is_what_the_steps_so_far_took_by_those_to_come(clock, tmp_path, capsys):
    trainer = fit(clock, tmp_path, 4, seconds=0)
    text = capsys.readouterr().out
    assert "a line: 3 weights to train" in text
    expected = [("1", "0:00:30"), ("2", "0:00:20"), ("3", "0:00:10"), ("4", "0:00:00")]
    assert left(text)[:4] == expected
    trainer.save_checkpoint(tmp_path / "four.ckpt")

    # Two of six steps are left to a run that goes on, and it has itself made none.
    clock.now += 5000
    fit(clock, tmp_path, 6, seconds=0, ckpt_path=tmp_path / "four.ckpt")
    assert left(capsys.readouterr().out)[:2] == [("5", "0:00:10"), ("6", "0:00:00")]


def test_a_terminal_has_a_bar_and_other_output_lines(monkeypatch):
    for terminal, kind in ((True, RunProgressBar), (False, RunProgressLines)):
        monkeypatch.setattr(sys.stdout, "isatty", lambda answer=terminal: answer)
        assert type(run_progress()) is kind
    assert RunProgressBar().init_sanity_tqdm().disable


def test_lines_are_so_many_seconds_apart_and_one_comes_at_the_end(clock, tmp_path, capsys):
    fit(clock, tmp_path, 7, seconds=30)
    steps = re.findall(r"step (\d+):", capsys.readouterr().out)
    assert steps == ["3", "6", "7"]
