"""Run cells of the grid, go on with it after a stop, and say how far it is."""

import hashlib
import subprocess
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning.pytorch import LightningDataModule, LightningModule, seed_everything

from geonorm.files import written_whole
from geonorm.studies.broken import broken_instance_norm
from geonorm.studies.training import short_trainer
from grid.cells import BROKEN, DESIGN, RATES, Cell
from grid.rows import Row, append, best_rate, claimed, read
from grid.tests import Network

ROOT = Path(__file__).resolve().parents[2]


class Subject(Protocol):
    """What cells of one kind of data are trained and judged on."""

    @property
    def lr(self) -> float: ...

    def steps_of(self, cell: Cell) -> int:
        """Return the steps of a cell's training."""

    def module(self, cell: Cell, lr: float) -> LightningModule:
        """Return the module of a cell, before it is trained."""

    def data(self, cell: Cell) -> LightningDataModule:
        """Return what a cell is trained on."""

    def network(self, cell: Cell, module: Any) -> Network:
        """Return a trained module as what is judged."""

    def validation(self, cell: Cell, network: Network) -> float:
        """Return the score that learning rates are chosen by."""

    def scores(self, network: Network) -> dict[str, float]:
        """Return the score of every test."""


def commit() -> str:
    """Return the commit of the code, with a + where files that git knows differ from it."""
    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(ROOT), *words], check=True, capture_output=True, text=True
        ).stdout.strip()

    rows = "docs/experiments.csv"  # which the grid itself changes
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", f":!{rows}")
    return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")


def trained(
    subject: Subject, cell: Cell, lr: float, folder: Path
) -> tuple[LightningModule, float]:
    """Return the trained module of a cell, and the seconds of processor time that it took.

    Weights are kept: what only adapts a network at the test takes those of the same training.

    Args:
        subject: of the cell's data.
        cell: which one.
        lr: learning rate.
        folder: of the weights.
    """
    told = repr((DESIGN, subject, cell, lr))
    path = folder / f"{hashlib.sha256(told.encode()).hexdigest()[:20]}.pt"
    seed_everything(cell.seed, verbose=False)
    module = subject.module(cell, lr)
    if path.is_file():
        kept = torch.load(path, weights_only=True)
        module.load_state_dict(kept["weights"])
        return module.eval(), kept["cpu_s"]
    began = time.process_time()
    with warnings.catch_warnings():
        # One process, one thread, no logs: what Lightning advises against is what is wanted.
        warnings.filterwarnings("ignore", module="lightning")
        trainer = short_trainer(
            subject.steps_of(cell), gradient_clip_val=10.0, limit_val_batches=0,
            use_distributed_sampler=False,
        )  # fmt: skip
        trainer.fit(module, datamodule=subject.data(cell))
    cpu = time.process_time() - began
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as aside:
        torch.save({"weights": module.state_dict(), "cpu_s": cpu}, aside)
    return module.eval(), cpu


def judged(subject: Subject, cell: Cell, rate: str, folder: Path) -> Row:
    """Train a cell, judge it, and return its row.

    Args:
        subject: of the cell's data.
        cell: which one.
        rate: part of the base learning rate, a key of `RATES`.
        folder: of the weights.
    """
    wall, cpu = time.monotonic(), time.process_time()
    lr = subject.lr * RATES[rate]
    with broken_instance_norm() if cell.norm == BROKEN else nullcontext():
        module, training = trained(subject, cell.training, lr, folder)
        network = subject.network(cell, module)
        validation = subject.validation(cell, network)
        scores = {} if cell.rate else subject.scores(network)
    return Row(
        cell, rate, lr, subject.steps_of(cell), validation, scores, training,
        time.process_time() - cpu, time.monotonic() - wall, commit(),
    )  # fmt: skip


def run(
    subjects: Mapping[str, Subject],
    cells: Sequence[Cell],
    path: Path,
    folder: Path,
    minutes: float | None = None,
) -> int:
    """Run the cells that no row tells of yet; return how many are left, failed ones among them.

    A cell whose learning rate is not chosen yet waits, and one that another process runs is left to
    it. A cell that fails is told of and left.

    Args:
        subjects: by the name of the data.
        cells: in order.
        path: of the rows.
        folder: of weights and locks.
        minutes: after which no further cell is begun; None for no limit.
    """
    end = None if minutes is None else time.monotonic() + 60 * minutes
    failed: set[Cell] = set()
    spent: list[float] = []
    while True:
        rows = read(path)
        done = {row.cell for row in rows}
        left = [cell for cell in cells if cell not in done]
        for cell in left:
            if end is not None and time.monotonic() >= end:
                return len(left)
            rate = cell.rate or best_rate(rows, cell)
            if cell in failed or rate is None:
                continue
            with claimed(folder / "locks", cell) as mine:
                if not mine or cell in {row.cell for row in read(path)}:
                    continue
                row = _attempt(subjects[cell.data], cell, rate, folder / "weights")
                if row is None:
                    failed.add(cell)
                else:
                    append(path, row)
                    spent.append(row.wall_s)
                    _report(row, len(left), sum(spent) / len(spent))
            break  # an earlier one may have waited for this
        else:
            return len(left)


def _attempt(subject: Subject, cell: Cell, rate: str, folder: Path) -> Row | None:
    print(f"{time.strftime('%H:%M:%S')} {cell.title}", flush=True)
    try:
        return judged(subject, cell, rate, folder)
    except Exception:
        # One cell must not end a night's work; the command fails in the end.
        print(f"failed: {cell.title}\n{traceback.format_exc()}", flush=True)
        return None


def _report(row: Row, left: int, each: float) -> None:
    clean = f", clean {row.scores['clean']:.3f}" if row.scores else ""
    hours = (left - 1) * each / 3600
    print(
        f"  validation {row.validation:.3f}{clean}; {row.cpu_s:.0f} s of processor time, "
        f"{row.wall_s:.0f} s; {left - 1} cells left, {hours:.1f} h",
        flush=True,
    )
