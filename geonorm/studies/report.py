"""A study's outcome as text for the terminal, as JSON, and as a page of the documentation."""

import json
import math
import re
from pathlib import Path
from typing import Any

from geonorm.files import written_whole
from geonorm.studies.outcome import AS_CLAIMED, NOT_SHOWN, REFUTED, Interval, Outcome
from geonorm.studies.study import VARIANTS, Part, Quantity, Study, Variant
from geonorm.tables import as_markdown

USUAL_SEEDS = 5  # of a study, if not said otherwise


def number(value: float) -> str:
    """Return a number with three significant digits."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    value = float(f"{value:.2e}")
    if 1e-3 <= abs(value) < 1e4:
        digits = max(0, 2 - math.floor(math.log10(abs(value))))
        return f"{value:.{min(digits, 4)}f}"
    return f"{value:.1e}"


def _cell(interval: Interval) -> str:
    half = (interval.high - interval.low) / 2
    return number(interval.mean) + (f" ± {number(half)}" if half > 0 else "")


def _table(outcome: Outcome, part: Part, variant: Variant = "claimed") -> list[list[str]]:
    """Return the cells of a part's table as text, its head first."""
    lines = [["", *part.columns]]
    for row in outcome.rows(part, variant):
        quantities = (Quantity(part.name, row, column) for column in part.columns)
        lines.append([row, *(
            _cell(outcome.interval(q, variant)) if q in outcome.cells[variant] else ""
            for q in quantities
        )])  # fmt: skip
    return lines


def as_text(outcome: Outcome) -> str:
    """Return tables, tests and verdicts for a terminal."""
    study = outcome.study
    text = [f"{study.title}\nclaim: {study.claim}\n"]
    for part in study.parts:
        if not part.shown:
            continue
        if part.name in outcome.left_out:
            text.append(f"{part.name}: left out: {outcome.left_out[part.name]}\n")
            continue
        lines = _table(outcome, part)
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        text.append(f"{part.name}: {part.title}")
        text += ["  " + "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip()
                 for line in lines]  # fmt: skip
        text.append("")
    text.append("tests (95% intervals over seeds)")
    for i, each in enumerate(outcome.judge(), 1):
        mark = f"not judged ({each.reason})" if each.passed is None else each.result
        found = "" if each.interval is None else f", found {_cell(each.interval)}"
        text.append(f"  {i}. {each.test.says}\n     {each.test.condition}{found}: {mark}")
    text += [f"\nverdict: {outcome.verdict()}", f"mutation: {study.mutation}"]
    for variant in VARIANTS[1:]:
        name = {"mutated": "under the mutation", "broken": "with a broken instance norm"}[variant]
        text.append(f"verdict {name}: {outcome.verdict(variant)}; {_turned(outcome, variant)}")
    text.append(f"seeds {_seeds(outcome)}, {_time(outcome)}")
    return "\n".join(text)


def _seeds(outcome: Outcome) -> str:
    """Return the seeds in words."""
    first, last = outcome.seeds[0], outcome.seeds[-1]
    if outcome.seeds == tuple(range(first, last + 1)) and first < last:
        return f"{first} to {last}"
    return ", ".join(map(str, outcome.seeds))


def _command(outcome: Outcome) -> str:
    """Return the command that measures the same again."""
    first, count = outcome.seeds[0], len(outcome.seeds)
    begin = f" --first_seed {first}" if first else ""
    many = f" --seeds {count}" if count != USUAL_SEEDS else ""
    return f"geonorm study {outcome.study.name}{begin}{many}"


def _turned(outcome: Outcome, variant: Variant) -> str:
    turned = outcome.turned(variant)
    return f"turns test {', '.join(map(str, turned))}" if turned else "turns no test"


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Return everything that a page, a figure and a reader's own analysis need."""
    study = outcome.study
    return {
        "name": study.name,
        "claim": study.claim,
        "sources": list(study.sources),
        "test": [{"says": each.test.says, "condition": each.test.condition,
                  "passed": each.passed, "result": each.result, "reason": each.reason,
                  "interval": each.interval and list(each.interval)} for each in outcome.judge()],
        "rows": [{"variant": variant, "part": q.part, "row": q.row, "column": q.column,
                  "values": {str(seed): value for seed, value in values.items()}}
                 for variant in VARIANTS for q, values in outcome.cells[variant].items()],
        "left_out": outcome.left_out,
        "verdict": outcome.verdict(),
        "mutation": study.mutation,
        "mutation_verdict": outcome.verdict("mutated"),
        "mutation_turns": outcome.turned("mutated"),
        "broken_verdict": outcome.verdict("broken"),
        "broken_turns": outcome.turned("broken"),
        "seeds": list(outcome.seeds),
        "quick": outcome.quick,
        "seconds": round(outcome.seconds, 1),
        "cpu_seconds": None if outcome.cpu_seconds is None else round(outcome.cpu_seconds, 1),
    }  # fmt: skip


def from_json(study: Study, entry: dict[str, Any]) -> Outcome:
    """Return the outcome that a JSON file holds.

    Raises:
        ValueError: the file is of other tests than the study states now.
    """
    outcome = Outcome(study, tuple(entry["seeds"]), entry["quick"], left_out=entry["left_out"],
                      seconds=entry["seconds"], cpu_seconds=entry["cpu_seconds"])  # fmt: skip
    for row in entry["rows"]:
        quantity = Quantity(row["part"], row["row"], row["column"])
        outcome.cells[row["variant"]][quantity] = {int(s): v for s, v in row["values"].items()}
    stated = [[test.says, test.condition] for test in study.tests]
    if stated != [[test["says"], test["condition"]] for test in entry["test"]]:
        raise ValueError(
            f"study {study.name}: its tests are not those of the JSON file; run it again: "
            f"geonorm study {study.name} --json FILE"
        )
    return outcome


def draw(outcome: Outcome, path: Path) -> None:
    """Draw the study's figure."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure = plt.figure(figsize=(9, 4.5), layout="constrained")
    outcome.study.draw(outcome, figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as aside:
        figure.savefig(aside, dpi=120)
    plt.close(figure)


def as_page(outcome: Outcome) -> str:
    """Return the study's page in Markdown: the verdict first."""
    study = outcome.study
    verdict, *_ = outcome.verdict().partition(":")
    failed = {result: outcome.with_result(result) for result in (REFUTED, NOT_SHOWN)}
    text = [
        f"# {study.title}",
        f"**This claim {verdict}:** {_sentence(study.claim)}",
        *(f"{result.capitalize()}: {_sentence('; '.join(says))}"
          for result, says in failed.items() if says),
        f"![{study.title}](../figures/studies/{study.name}.png)",
        _filled(study.notes, outcome),
        f"**What to do with it.** {_filled(study.advice, outcome)}",
        "## What was tested",
        "The tests were stated before the study ran. A statement is *as claimed* where the whole "
        f"95% interval (Student's t, seeds {_seeds(outcome)} or the first of them) lies on the "
        "stated side, *refuted* where all of it lies on the other, and *not shown* where it lies "
        "across.",
        _markdown([["", "statement", "condition", "found", "result", "mutation", "broken norm"], *[
            [str(i), each[0].test.says, f"`{each[0].test.condition}`",
             "" if each[0].interval is None else _cell(each[0].interval),
             *(one.result for one in each)]
            for i, each in enumerate(zip(
                *(outcome.judge(variant) for variant in VARIANTS), strict=True), 1)
        ]]),
        f"- Mutation: {study.mutation} Verdict: {outcome.verdict('mutated')}; "
        f"{_turned(outcome, 'mutated')}.",
        "- Broken norm: instance norm takes its statistics over the whole batch. Verdict: "
        f"{outcome.verdict('broken')}; {_turned(outcome, 'broken')}. {study.not_about}".rstrip(),
        "## What was measured",
    ]  # fmt: skip
    for part in study.parts:
        if not part.shown:
            continue
        text.append(f"{part.title} (`{part.name}`).")
        if part.name in outcome.left_out:
            text.append(f"Left out: {outcome.left_out[part.name]}.")
        else:
            text.append(_markdown(_table(outcome, part)))
    text += [
        "Sources: " + "; ".join(study.sources) + ".",
        f"`{_command(outcome)}` measures all of this again; these numbers took {_time(outcome)}.",
    ]
    return "\n\n".join(text) + "\n"


def _sentence(text: str) -> str:
    return text if text.endswith(".") else text + "."


def _time(outcome: Outcome) -> str:
    if outcome.cpu_seconds is not None:
        return (f"{outcome.cpu_seconds / 60:.1f} minutes of processor time, "
                f"{outcome.seconds / 60:.1f} by the clock beside other work")  # fmt: skip
    return f"{outcome.seconds / 60:.1f} minutes on two cores"


def _filled(notes: str, outcome: Outcome) -> str:
    """Return the notes with the means of the cells that they name."""

    def mean(match: re.Match[str]) -> str:
        part, row, column = match[1].split("|")
        return number(outcome.mean(part, row, column))

    return re.sub(r"\{([^{}|]+\|[^{}|]+\|[^{}|]+)\}", mean, notes.strip())


def _markdown(lines: list[list[str]]) -> str:
    """Return a table in Markdown, its head first."""
    return as_markdown([[cell.replace("|", "\\|") for cell in line] for line in lines])


def as_summary(outcomes: list[Outcome]) -> str:
    """Return the table of all claims in Markdown, and what follows from each."""
    lines = [["study", "claim", "verdict", "tests", AS_CLAIMED, REFUTED, NOT_SHOWN,
              "turned by the mutation", "by the broken norm"]]  # fmt: skip
    for outcome in outcomes:
        study = outcome.study
        results = [each.result for each in outcome.judge()]
        lines.append([
            f"[{study.title}]({study.name}.md)", study.claim,
            outcome.verdict().partition(":")[0], f"{len(results)}",
            *(f"{results.count(result)}" for result in (AS_CLAIMED, REFUTED, NOT_SHOWN)),
            *(f"{len(outcome.turned(variant))}" for variant in VARIANTS[1:]),
        ])  # fmt: skip
    advice = [f"**{outcome.study.title}.** {_filled(outcome.study.advice, outcome)} "
              f"[More]({outcome.study.name}.md)" for outcome in outcomes]  # fmt: skip
    spent = math.fsum(outcome.seconds if outcome.cpu_seconds is None else outcome.cpu_seconds
                      for outcome in outcomes)  # fmt: skip
    time = (f"All of them together took {spent / 60:.0f} minutes: of processor time where a page "
            "tells it, else by the clock on two cores.")  # fmt: skip
    return "\n\n".join([_markdown(lines), time, "## What to do with it", *advice])


def write_json(outcome: Outcome, path: Path) -> None:
    """Write an outcome as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as aside:
        aside.write_text(json.dumps(as_json(outcome), indent=1) + "\n", "utf-8")
