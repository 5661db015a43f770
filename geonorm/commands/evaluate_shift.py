"""Measure how far the scores of checkpoints fall when their data are corrupted.

  geonorm evaluate-shift runs/train_seg/001/checkpoints/best.ckpt
  geonorm evaluate-shift --summarize scores.csv --baseline base.csv

The first judges checkpoints on the validation data of their run, clean and under every corruption,
and writes scores.csv, scores.json, table.md, heat_map.png and report.html; a run that was stopped
goes on where it was. The second prints the same measures for scores obtained elsewhere: a CSV file
with the columns corruption, level (empty for a mean over levels) and score, and a row clean.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from geonorm.training.noise import silence
from geonorm.training.threads import share_cores

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

DATA = """By default those of the first checkpoint's run. Its options, such as --data.root FOLDER or
--data.val.init_args.num_scans 8, are those of geonorm train-seg or train-action."""


def parser() -> "ArgumentParser":
    """Return the parser of the command line, but for the options of the data."""
    from jsonargparse import ArgumentParser

    made = ArgumentParser(prog="geonorm evaluate-shift", description=__doc__)
    made.add_argument("checkpoints", nargs="*", type=Path,
                      help="files of geonorm train-seg, or of train-action")
    made.add_argument("--names", nargs="+", type=str, help="of the networks, in the tables")
    made.add_argument("--corruptions", nargs="+", type=str, help="which (all that apply)")
    made.add_argument("--samples", type=int | Literal["all"] | None, default=None,
                      help="scans or videos to judge, spread over the data, or all (16, 60)")
    made.add_argument("--baseline", type=str | None, default=None,
                      help="what CE divides by: a CSV file of scores, or one of the checkpoints")
    made.add_argument("--summarize", metavar="FILE", type=Path | None, default=None,
                      help="print the measures of these scores, and judge nothing")
    made.add_argument("--out", metavar="FOLDER", type=Path, default=Path("shift"),
                      help="where the results go (shift)")
    made.add_argument("--resume", type=bool, default=True,
                      help="go on with what was counted before (true)")
    made.add_argument("--resamples", type=int, default=1000,
                      help="bootstrap resamples for the intervals (1000)")
    made.add_argument("--seed", type=int, default=0,
                      help="of the corruptions and the resamples (0)")
    made.add_argument("--device", default="auto", help="cpu, cuda or auto: a GPU where it can be")
    data = made.add_argument_group("of the data", DATA)
    data.add_argument("--config", type=str | None, default=None,
                      help="the configuration of a training, a file or a name")
    data.add_argument("--beams", type=int | None, default=None,
                      help="rings of the sensor (those of the dataset)")
    data.add_argument("--domain", type=int | None, default=None,
                      help="domain of the scans, where a network has domain norms")
    return made  # fmt: skip


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the options of the command and those of the data, `--data.name=value` each.

    >>> split(["a.ckpt", "--data.root", "b", "--seed=1", "--data.label_map=dglss"])
    (['a.ckpt', '--seed=1'], ['--data.root=b', '--data.label_map=dglss'])
    """
    own: list[str] = []
    data: list[str] = []
    words = iter(arguments)
    for word in words:
        if not word.startswith("--data."):
            own.append(word)
        elif "=" in word:
            data.append(word)
        elif (value := next(words, "--")).startswith("--"):
            raise ValueError(f"{word} needs a value: {word} VALUE")
        else:
            data.append(f"{word}={value}")
    return own, data


def evaluate_shift(options: Any, data: Sequence[str]) -> None:
    """Judge checkpoints or summarize scores, and print the table."""
    if options.summarize is not None:
        from geonorm.training.shift.comparison import as_markdown
        from geonorm.training.shift.score_files import summary

        if options.checkpoints:
            raise ValueError(
                f"--summarize reads scores and judges no checkpoint; got "
                f"{', '.join(map(str, options.checkpoints))} too"
            )
        base = None if options.baseline is None else Path(options.baseline)
        print(as_markdown(summary(options.summarize, base)), end="")
        return
    if not options.checkpoints:
        raise ValueError(
            "expected checkpoints of geonorm train-seg or train-action, or --summarize; got neither"
        )
    from geonorm.training.shift.comparison import as_markdown
    from geonorm.training.shift.run import Options, evaluate_checkpoints, write_results
    from geonorm.training.shift.tasks import judged_on

    chosen = Options(
        options.samples, options.corruptions, options.seed, options.resamples, options.resume
    )
    judged = judged_on(
        options.checkpoints, options.config, data, options.device, options.beams, options.domain,
        options.seed,
    )  # fmt: skip
    comparison = evaluate_checkpoints(
        judged, options.checkpoints, options.out, chosen, options.names, options.baseline
    )
    write_results(comparison, options.out)
    about = comparison.about
    print(f"\n{about['samples']} of {about['of']} {about['unit']}s\n")
    print(as_markdown(comparison))
    print(f"scores.csv, scores.json, table.md, heat_map.png and report.html are in {options.out}")


def main(arguments: Sequence[str]) -> int | str:
    """Run the command line; return the exit status, or what was wrong with the input."""
    share_cores()
    silence()
    try:
        own, data = split(arguments)
        evaluate_shift(parser().parse_args(own), data)
    except ValueError as error:
        return f"geonorm evaluate-shift: {error}"
    return 0
