"""Which mutants are drawn, and which tests are run for them."""

import ast
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

Place = tuple[int, int]


def part_of(source: Path, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the part of the configuration that a source file belongs to."""
    holding = [part for part in parts if source.is_relative_to(part["source"])]
    if not holding:
        raise ValueError(f"{source} is in no part of tools/mutants.toml; its sources are "
                         f"{', '.join(part['source'] for part in parts)}")  # fmt: skip
    return max(holding, key=lambda part: len(part["source"]))


def stages_of(source: Path, part: dict[str, Any], root: Path) -> list[list[str]]:
    """Return the test files that mirror or name a source file, then the others of its part."""
    files = sorted({file for pattern in part["tests"] for file in root.glob(pattern)})
    inside = source if source.parts[0] == "geonorm" else Path("geonorm", source)
    name = re.compile(rf"\b{re.escape('.'.join(inside.with_suffix('').parts))}\b")
    first = [file for file in files if file.stem.startswith(f"test_{source.stem}")
             or name.search(file.read_text(encoding="utf-8"))]  # fmt: skip
    stages = [first, [file for file in files if file not in first]]
    return [[str(file.relative_to(root)) for file in stage] for stage in stages if stage]


def lines_of_statement(code: str, line: int) -> set[int]:
    """Return the lines of the statement around a line, without those of the body inside it."""
    tree = ast.parse(code)
    around = [node for node in ast.walk(tree) if isinstance(node, (ast.stmt, ast.excepthandler))
              and node.lineno <= line <= (node.end_lineno or 0)]  # fmt: skip
    if not around:
        return {line}  # of a decorator
    innermost = max(around, key=lambda node: node.lineno)
    body = getattr(innermost, "body", None)
    last = max(line, body[0].lineno - 1) if body else innermost.end_lineno
    return set(range(innermost.lineno, last + 1))


def runs_on_import(code: str, line: int) -> bool:
    """Tell whether a line is executed when its file is imported, and not when a test calls it."""
    return not any(
        isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        and (node.body[0] if isinstance(node.body, list) else node.body).lineno <= line
        <= (node.end_lineno or 0)
        for node in ast.walk(ast.parse(code))
    )  # fmt: skip


def executing_tests(source: str, lines: set[int], tests: Sequence[dict[str, Any]],
             seconds: float) -> list[str]:  # fmt: skip
    """Return tests that execute some of these lines, in order of the time they take.

    The second case of a function counts as twice as long, the third as three times: what the first
    lets pass, the next may do, too.

    Args:
        source: the file that the lines are of.
        lines: the numbers of the lines.
        tests: as tools/mutants_record.py writes them.
        seconds: no further test once those before take as long.
    """
    cases: Counter[str] = Counter()
    ranked = []
    for test in sorted(tests, key=lambda test: test["seconds"]):
        if not lines.isdisjoint(test["lines"].get(source, ())):
            function = test["test"].partition("[")[0]
            cases[function] += 1
            ranked.append((cases[function] * test["seconds"], test["seconds"], test["test"]))
    ranked.sort()
    before = accumulate((took for _, took, _ in ranked), initial=0.0)
    return [name for (_, _, name), so_far in zip(ranked, before, strict=False) if so_far < seconds]


def annotations(code: str) -> Iterator[tuple[Place, Place]]:
    """Return where annotations begin and end, as (line, column): they compute nothing."""
    for node in ast.walk(ast.parse(code)):
        for found in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if isinstance(found, ast.AST):
                yield (found.lineno, found.col_offset), (found.end_lineno, found.end_col_offset)


def draw(mutants: Iterable[Any], seed: int) -> Iterator[Any]:
    """Yield one mutant of each place, in random order, all of them if so many are taken.

    Drawn by place, so that an operator with ten replacements weighs as much as a number with two.

    Args:
        mutants: cosmic-ray's mutations: module_path, start_pos, end_pos, operator_name, occurrence.
    """
    places = defaultdict(list)
    for mutant in mutants:
        places[str(mutant.module_path), mutant.start_pos, mutant.end_pos].append(mutant)
    chance = random.Random(seed)
    for place in chance.sample(sorted(places), len(places)):
        yield chance.choice(sorted(places[place], key=lambda m: (m.operator_name, m.occurrence)))
