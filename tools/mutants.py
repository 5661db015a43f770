"""Change the sources in one small way at a time and list the changes that no test notices.

    make mutants [SEED=0] [COUNT=100] [FOLDER=geonorm/norms] [WITHOUT=geonorm/norms/base.py]
                 [MINUTES=30] [AGAIN=1]

cosmic-ray makes the changes, in a copy of the checkout under build/mutants. A run that was stopped
goes on when it is started again with the same numbers. CONTRIBUTING.md says how to read the result.
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import islice
from pathlib import Path

from cosmic_ray.commands.init import init
from cosmic_ray.modules import find_modules
from cosmic_ray.mutating import mutate_and_test, mutate_code
from cosmic_ray.plugins import get_operator
from cosmic_ray.util import read_python_source
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkerOutcome, WorkItem, WorkResult
from mutation.copy import OPTIONS, PYTHON, ROOT, SOURCES, copy_checkout, digest_of, record_of
from mutation.sample import (
    annotations,
    draw,
    executing_tests,
    lines_of_statement,
    part_of,
    runs_on_import,
    stages_of,
)

CONFIGURATION = tomllib.loads((ROOT / "tools" / "mutants.toml").read_text(encoding="utf-8"))
SECONDS = 60  # of the tests that execute a mutant's statement, as long as they take by themselves


@cache
def annotations_of(path: Path) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return where the annotations of a file are."""
    return list(annotations(path.read_text(encoding="utf-8")))


def computes(mutation: MutationSpec) -> bool:
    """Whether a mutation is one that a test could notice; see tools/mutants.toml."""
    name = mutation.operator_name.rpartition("/")[2]
    at = mutation.start_pos
    return not (
        any(re.fullmatch(operator, name) for operator in CONFIGURATION["exclude-operators"])
        or any(begin <= at < end for begin, end in annotations_of(mutation.module_path))
    )


def can_be_made(mutation: MutationSpec) -> bool:
    """Whether the changed file is Python: the star before keyword arguments is taken for a product.

    AttributeError: cosmic-ray 8.7 does not make `except module.Error` another one.
    """
    operator = get_operator(mutation.operator_name)(**mutation.operator_args)
    code = read_python_source(mutation.module_path)
    try:
        compile(mutate_code(code, operator, mutation.occurrence), mutation.module_path, "exec")
    except (AttributeError, SyntaxError):
        return False
    return True


def mutations_of(paths: list[Path]) -> list[MutationSpec]:
    """Return every mutation that cosmic-ray knows for these files."""
    with use_db(":memory:") as everything:
        init(paths, everything, {})
        return [item.mutations[0] for item in everything.work_items]


def draw_session(session: WorkDB, options: argparse.Namespace) -> None:
    """Fill a session with mutants drawn from all those of a folder."""
    sources = [Path(source) for source in ([options.folder] if options.folder else SOURCES)]
    # In the copy, models and datasets are also inside geonorm, by links.
    files = {file.resolve().relative_to(Path.cwd()) for file in find_modules(sources)}
    if options.without:
        files = {file for file in files if not file.is_relative_to(options.without)}
    drawn = draw(filter(computes, mutations_of(sorted(files))), options.seed)
    made = islice(filter(can_be_made, drawn), options.count)
    session.add_work_items(WorkItem.single(f"{number:04}", mutation)
                           for number, mutation in enumerate(made, 1))  # fmt: skip


def record(part: dict, records: Path) -> list[dict]:
    """Return which lines the tests of a part execute; fail unless they pass without any change."""
    files = [file for stage in stages_of(Path(part["source"]), part, Path()) for file in stage]
    if missing := [file for file in files if not record_of(records, file).is_file()]:
        print(f"recording {len(missing)} files of tests of {part['source']}", flush=True)
        command = [PYTHON, "tools/mutants_record.py", records, *missing]
        if subprocess.run(command, check=False).returncode:
            sys.exit(f"the tests of {part['source']} fail without any change; mend them first")
    return [test for file in files for test in recorded(record_of(records, file))]


@cache
def recorded(file: Path) -> list[dict]:
    """Read a record."""
    return json.loads(file.read_text())


@contextmanager
def test_server() -> Iterator[list[str]]:
    """Start tools/mutants_server.py here; yield the command that has it run pytest."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["tools/mutants_server.py", "serve", f"{folder}/socket"]
        server = subprocess.Popen([PYTHON, *command],
                                  env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"})
        try:
            while not Path(command[-1]).exists():
                if server.poll() is not None:
                    sys.exit("the server of tests has ended; what it said is above")
                time.sleep(0.1)
            yield [sys.executable, command[0], "ask", command[-1]]
        finally:
            server.kill()
            server.wait()


def run_mutant(mutation: MutationSpec, part: dict, records: Path, server: list[str], *,
               again: bool) -> WorkResult:  # fmt: skip
    """Run the tests that execute a mutant's statement, or those of its part.

    All of its part where no test executes the statement, or every one that imports the file, as
    with defaults, and where it runs again: among them are those that execute it in a process of
    their own, which are not recorded.
    """
    path = mutation.module_path
    if mutation not in mutations_of([path]):
        return WorkResult(WorkerOutcome.NO_TEST, f"{path} has changed since")
    code, line = path.read_text(encoding="utf-8"), mutation.start_pos[0]
    executing = []
    if not again and not runs_on_import(code, line):  # of which any test may see the effect
        lines = lines_of_statement(code, line)
        executing = executing_tests(str(path), lines, record(part, records), SECONDS)
    stages = [executing] if executing else stages_of(path, part, Path())
    for files in stages:
        command = shlex.join([*server, "-x", *OPTIONS, *files])
        result = mutate_and_test([mutation], command, part["timeout"])
        if result.test_outcome != TestOutcome.SURVIVED:
            break
    return result


def outcome(result: WorkResult) -> str:
    """Return how a mutant ended; caught only where it says which test or import failed."""
    if result.test_outcome == TestOutcome.SURVIVED:
        return "survived"
    if result.output == "timeout":
        return "timeout"
    failed = re.search(r"^(FAILED|ERROR|ImportError while) ", result.output or "", re.MULTILINE)
    return "caught" if failed else "error"


def report(session: WorkDB) -> None:
    """Print how many were caught in each part, and the difference that each survivor makes."""
    table, rows = {}, []
    for item, result in session.completed_work_items:
        part = part_of(item.mutations[0].module_path, CONFIGURATION["part"])["source"]
        table.setdefault(part, Counter())[outcome(result)] += 1
        if outcome(result) != "caught":
            printed = (result.output or "")[-600:] if outcome(result) == "error" else ""
            rows.append(f"{outcome(result)}: {item.job_id}\n{result.diff or ''}\n{printed}")
    print(*sorted(rows), sep="\n")
    table["all"] = sum(table.values(), Counter())
    for part, counts in sorted(table.items()):
        print(f"{part:24}", *(f"{counts[name]:5} {name}" for name in
                              ("caught", "survived", "timeout", "error")))  # fmt: skip
    print(f"{session.num_work_items - session.num_results} not yet run")


def main() -> None:
    """Draw the mutants if they are not yet drawn, run those that are left and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--folder", help="a folder or file; all of the package by default")
    parser.add_argument("--without", help="a folder or file inside it to draw nothing from")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after these")
    parser.add_argument("--again", action="store_true",
                        help="run all tests of their part on those that were not caught")
    options = parser.parse_args()
    place = (options.folder or "all").strip("/").replace("/", "-")
    folder = ROOT / "build" / "mutants" / f"{place}-{options.count}-{options.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    digests = copy_checkout(folder / "copy")
    # A record is that of one test file; whatever else lies beside the tests may have a part in it.
    others = {name: digest for name, digest in digests.items()
              if not re.search(r"/test_[^/]*\.py$|\.md$", name)}  # fmt: skip
    records = ROOT / "build" / "mutants" / "records" / digest_of(others)
    end = time.monotonic() + 60 * options.minutes
    with use_db(str(folder / "session.sqlite")) as session, test_server() as server:
        if not session.num_work_items:
            draw_session(session, options)
        items = sorted(session.pending_work_items, key=lambda item: item.job_id)
        if options.again:
            items = [item for item, result in session.completed_work_items
                     if outcome(result) != "caught"]  # fmt: skip
        for item in items:
            if time.monotonic() > end:
                break
            part = part_of(item.mutations[0].module_path, CONFIGURATION["part"])
            result = run_mutant(item.mutations[0], part, records, server, again=options.again)
            session.set_result(item.job_id, result)
            print(outcome(result), item.mutations[0].module_path, flush=True)
        report(session)


if __name__ == "__main__":
    main()
