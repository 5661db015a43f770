"""Short runs of studies, away from the user's cache."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from geonorm.studies.outcome import Outcome
from geonorm.studies.recordings import Recordings
from geonorm.studies.report import from_json
from geonorm.studies.run import run_study
from geonorm.studies.study import Setting, Study

NOTHING = Recordings(None, ())
SETTING = Setting(3, "claimed", NOTHING)


def run_apart(study: Study, seeds: int, cache: Path, *, quick: bool = False) -> Outcome:
    """Run a study without recordings in a cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEONORM_CACHE", str(cache))
        return run_study(study, range(seeds), NOTHING, quick=quick)


def run_parts(study: Study, names: Sequence[str], seeds: int, cache: Path) -> Outcome:
    """Return the outcome of some parts of a study and of the tests that need no other."""
    parts = tuple(part for part in study.parts if part.name in names)
    tests = tuple(test for test in study.tests if test.quantity.part in names)
    return run_apart(replace(study, parts=parts, tests=tests), seeds, cache)


def of_docs(study: Study) -> Outcome:
    """Return the outcome that the documentation shows."""
    path = Path(__file__).resolve().parents[2] / "docs" / "studies" / f"{study.name}.json"
    return from_json(study, json.loads(path.read_text("utf-8")))
