"""Measure what instance norm is said to do: a study for each claim, with its verdict.

geonorm study list             the studies and their claims
geonorm study affine           one of them
geonorm study all --quick      what can be judged in seconds: exact statements and closed forms

Each study prints its tables with 95% intervals over the seeds, its tests, which were stated before,
and the verdict that follows from these alone; beside it the verdict under a mutation that must turn
it. A study that was stopped goes on where it was.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from geonorm.names import choices
from geonorm.studies import STUDIES, study_named
from geonorm.training.noise import silence
from geonorm.training.threads import share_cores


def study(
    name: str,
    quick: bool = False,
    seeds: int | None = None,
    first_seed: int = 0,
    data: Path | None = None,
    json: Path | None = None,
    figure: Path | None = None,
) -> int:
    """Run studies and return the exit status.

    Args:
        name: a study, "all", or "list".
        quick: leave out what takes long: trainings and large measurements.
        seeds: how many, 5 by default and 1 where it is quick; trainings need 3 to be judged.
        first_seed: the first of them, up to 99; one that nobody has looked at where tests were
            settled on others.
        data: a folder with a scan (SemanticKITTI's .bin) and films of your own, at any depth;
            $GEONORM_DATA by default. What needs them is left out without.
        json: where to write what was measured; a folder for all studies.
        figure: where to draw the figure, a PNG; a folder for all studies.
    """
    if name == "list":
        for each in STUDIES:
            print(f"{each}: {study_named(each).claim}")
        return 0
    if name != "all" and name not in STUDIES:
        raise ValueError(f"no study {name!r}; {choices(name, ['all', 'list', *STUDIES])}")
    from geonorm.studies.recordings import Recordings
    from geonorm.studies.report import USUAL_SEEDS, as_text, draw, write_json
    from geonorm.studies.run import run_study

    count = (1 if quick else USUAL_SEEDS) if seeds is None else seeds
    if count < 1:
        raise ValueError(f"--seeds must be 1 or more; got {count}")

    recordings = Recordings.of(data)
    verdicts = {}
    for each in STUDIES if name == "all" else [name]:
        drawn = range(first_seed, first_seed + count)
        outcome = run_study(study_named(each), drawn, recordings, quick=quick)
        print(as_text(outcome), end="\n\n", flush=True)
        verdicts[each] = outcome.verdict()
        if json is not None:
            write_json(outcome, json / f"{each}.json" if name == "all" else json)
        if figure is not None and not outcome.left_out:
            draw(outcome, figure / f"{each}.png" if name == "all" else figure)
        elif figure is not None:
            print(f"no figure: left out: {', '.join(outcome.left_out)}", file=sys.stderr)
    if name == "all":
        print("\n".join(f"{each}: {verdict}" for each, verdict in verdicts.items()))
    return 0


def main(arguments: Sequence[str]) -> int | str:
    """Run the command line; return the exit status, or what was wrong with the input."""
    share_cores()
    silence()
    from jsonargparse import ArgumentParser

    parser = ArgumentParser("geonorm study", description=__doc__)
    parser.add_function_arguments(study, skip={"quick"}, as_positional=True)
    parser.add_argument(
        "--quick", action="store_true",
        help="leave out what takes long: trainings and large measurements",
    )  # fmt: skip
    try:
        return study(**parser.parse_args([*arguments]).as_dict())
    except ValueError as error:
        return f"geonorm study: {error}"
