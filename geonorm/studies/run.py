"""Run a study: every column of every part, seed and variant; what was measured before is kept."""

import hashlib
import importlib.metadata
import inspect
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from geonorm._version import __version__
from geonorm.files import user_cache
from geonorm.studies.broken import broken_instance_norm
from geonorm.studies.outcome import Outcome
from geonorm.studies.recordings import Recordings
from geonorm.studies.study import VARIANTS, Part, Quantity, Setting, Study, Variant

# What a study is written in; a change there changes no measurement.
_FRAME = {f"{__package__}.{name}" for name in ("study", "outcome", "report", "recordings")}
# What a study draws for training and for testing, it draws from numbers of its own that lie a
# multiple of this apart, and adds the seed.
APART = 100


class Run(NamedTuple):
    """One measurement: a column of a part."""

    part: Part
    column: str
    seed: int
    variant: Variant

    @property
    def key(self) -> str:
        """Return its name in the file of finished runs."""
        return json.dumps([self.part.name, self.column, self.seed, self.variant])


def run_study(
    study: Study, seeds: Sequence[int], recordings: Recordings, *, quick: bool = False
) -> Outcome:
    """Measure what is not measured yet and return everything.

    Each finished run is added to a file in the user's cache at once, so that a run that was
    stopped goes on where it was. Another version of the study's file, or of a file beside
    it that it is built on, starts over.

    Args:
        study: what to run.
        seeds: one number or more.
        recordings: of the user's own.
        quick: leave out long parts.

    Raises:
        ValueError: no seeds, the same one twice, or one that is not from 0 to 99.
    """
    if not seeds or len({*seeds}) != len(seeds):
        raise ValueError(f"expected different seeds, one or more; got {list(seeds)}")
    if wrong := [seed for seed in seeds if not 0 <= seed < APART]:
        raise ValueError(
            f"expected seeds from 0 to {APART - 1}; got {wrong}: with others a study would be "
            "tested with recordings that it is trained with"
        )
    outcome = Outcome(study, tuple(seeds), quick)
    parts = []
    for part in study.parts:
        if lacking := recordings.lacks(part.needs):
            outcome.left_out[part.name] = lacking
        elif quick and part.long:
            outcome.left_out[part.name] = "too short to judge"
        else:
            parts.append(part)
    runs = [*_runs(study, parts, seeds)]
    store = _store(study, recordings)
    done = _read(store)
    before = sum(run.key in done for run in runs)
    # disable=None: shown on a terminal alone.
    for run in (bar := tqdm(runs, study.name, unit="run", disable=None)):
        if run.key not in done:
            bar.set_postfix_str(f"{before} of an earlier sitting; {run.part.name} {run.column}")
            begin, begin_cpu = time.perf_counter(), time.process_time()
            values = _measure(run, recordings)
            done[run.key] = {"values": values, "seconds": time.perf_counter() - begin,
                             "cpu_seconds": time.process_time() - begin_cpu}  # fmt: skip
            with store.open("a") as file:
                file.write(json.dumps({"run": run.key, **done[run.key]}) + "\n")
        outcome.seconds += done[run.key]["seconds"]
        cells = outcome.cells[run.variant]
        for row, value in done[run.key]["values"].items():
            quantity = Quantity(run.part.name, row, run.column)
            cells.setdefault(quantity, {})[run.seed] = value
    worked = [done[run.key].get("cpu_seconds") for run in runs]  # older files lack it
    outcome.cpu_seconds = None if None in worked else math.fsum(worked)
    return outcome


def _runs(study: Study, parts: list[Part], seeds: Sequence[int]) -> Iterator[Run]:
    """Yield all runs: the claimed ones first, and the first seed of everything before the next."""
    for variant in VARIANTS:
        for number, seed in enumerate(seeds):
            for part in parts:
                if variant != "claimed" and variant not in part.variants:
                    continue
                if number >= (part.most_seeds or len(seeds)) or (number and not part.seeded):
                    continue
                columns = part.columns if variant == "claimed" else study.judged_columns(part)
                for column in columns:
                    yield Run(part, column, seed if part.seeded else 0, variant)


def _measure(run: Run, recordings: Recordings) -> dict[str, float]:
    """Run one measurement from its seed."""
    torch.manual_seed(run.seed)
    with broken_instance_norm() if run.variant == "broken" else nullcontext():
        values = run.part.measure(run.column, Setting(run.seed, run.variant, recordings))
    return {row: float(value) for row, value in values.items()}


def _store(study: Study, recordings: Recordings) -> Path:
    """Return the file of finished runs, named by all that they depend on."""
    text = json.dumps([
        *_sources(study), __version__, importlib.metadata.version("torch"),
        [str(path) for path in (recordings.scan, *recordings.videos) if path],
    ])  # fmt: skip
    folder = user_cache() / "studies"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{study.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.jsonl"


def _sources(study: Study) -> list[str]:
    """Return the text of the study's file and of the files beside it that it is built on."""
    module = inspect.getmodule(study.parts[0].measure)
    todo, found = [module.__name__] if module else [], set()
    while todo:
        name = todo.pop()
        found.add(name)
        values = vars(sys.modules[name]).values()
        homes = {str(getattr(value, "__module__", "")) for value in values}
        beside = {home for home in homes if home.startswith(__package__ + ".")}
        todo += beside - _FRAME - found
    return [inspect.getsource(sys.modules[name]) for name in sorted(found)]


def _read(store: Path) -> dict[str, Any]:
    """Return the finished runs of a file; a last line that was cut off is measured again."""
    if not store.exists():
        return {}
    lines = store.read_text().splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        store.write_text("".join(lines[:-1]))
        lines.pop()
    return {entry.pop("run"): entry for entry in map(json.loads, lines)}
