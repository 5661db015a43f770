"""The pieces of mutation testing: what is drawn, which tests are run, whether the faults apply."""

import json
import subprocess
import sys
import time
import tomllib
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import mutants_cpp
import pytest
from mutation.copy import record_of
from mutation.sample import (
    annotations,
    draw,
    executing_tests,
    lines_of_statement,
    part_of,
    runs_on_import,
    stages_of,
)

ROOT = Path(__file__).resolve().parents[2]
PARTS = tomllib.loads((ROOT / "tools" / "mutants.toml").read_text())["part"]


@dataclass(frozen=True)
class Mutation:
    module_path: Path
    start_pos: tuple[int, int]
    end_pos: tuple[int, int]
    operator_name: str
    occurrence: int


def mutations(places: dict[str, int]) -> list[Mutation]:
    """Return three mutations at each of so many places of each file, two operators of one line."""
    return [Mutation(Path(file), (line, 4), (line, 5), operator, line)
            for file, count in places.items() for line in range(1, count + 1)
            for operator in ("Add_Sub", "Add_Mul", "Add_Div")]  # fmt: skip


def test_a_seed_draws_the_same_mutants_in_whatever_order_they_are_listed() -> None:
    listed = mutations({"a.py": 30, "b.py": 20})
    drawn = list(draw(listed, seed=3))
    assert drawn == list(draw(reversed(listed), seed=3))
    assert drawn[:9] != list(draw(listed, seed=4))[:9]


def test_every_place_is_drawn_once_with_one_of_its_mutants() -> None:
    drawn = list(draw(mutations({"a.py": 30, "b.py": 20}), seed=1))
    assert len(drawn) == 50 == len({(m.module_path, m.start_pos) for m in drawn})
    assert len({m.operator_name for m in drawn}) == 3


def test_files_are_drawn_from_in_proportion_to_their_places() -> None:
    drawn = islice(draw(mutations({"a.py": 900, "b.py": 100}), seed=1), 500)
    share = Counter(str(m.module_path) for m in drawn)["b.py"]
    assert 50 - 5 * 4.8 < share < 50 + 5 * 4.8  # a hypergeometric deviation of 4.8


def test_the_longest_source_says_the_part_and_every_file_has_one_with_tests() -> None:
    assert part_of(Path("geonorm/norms/base.py"), PARTS)["source"] == "geonorm/norms"
    assert part_of(Path("geonorm/files.py"), PARTS)["source"] == "geonorm"
    for part in PARTS:
        assert (ROOT / part["source"]).exists()
        assert all(list(ROOT.glob(pattern)) for pattern in part["tests"])
    for folder in ("geonorm", "models", "datasets"):
        for file in (ROOT / folder).rglob("*.py"):
            assert part_of(file.relative_to(ROOT), PARTS)
    with pytest.raises(ValueError, match=r"tools/bench.py is in no part .* geonorm, .*datasets"):
        part_of(Path("tools/bench.py"), PARTS)


def test_tests_that_mirror_or_name_a_file_come_first() -> None:
    part = part_of(Path("datasets/ply.py"), PARTS)
    first, others = stages_of(Path("datasets/ply.py"), part, ROOT)
    assert "tests/datasets/test_point_files.py" in first  # which imports geonorm.datasets.ply
    assert "tests/datasets/test_clips.py" in others
    assert not set(first) & set(others)
    mirrored = stages_of(Path("datasets/clips.py"), part, ROOT)[0]
    assert "tests/datasets/test_clips_endurance.py" in mirrored


def test_annotations_are_found_and_nothing_else() -> None:
    code = "x: int | None = 1 | 2\ndef f(a: int | str = 3 | 4) -> int | None:\n    return a | x\n"
    places = list(annotations(code))
    found = [(line, column) for line, text in enumerate(code.splitlines(), 1)
             for column, letter in enumerate(text) if letter == "|"
             if any(begin <= (line, column) < end for begin, end in places)]  # fmt: skip
    assert found == [(1, 7), (2, 13), (2, 35)]


STATEMENTS = """\
@decorated(1)
def f(a=2,
      b=3):
    for k in range(
        a
    ):
        b += (k +
              1)
    try:
        return b
    except (ValueError,
            TypeError):
        return 5
"""


@pytest.mark.parametrize(
    ("line", "lines"),
    [(1, {1}), (2, {2, 3}), (3, {2, 3}), (5, {4, 5, 6}), (7, {7, 8}), (8, {7, 8}), (9, {9}),
     (10, {10}), (12, {11, 12}), (13, {13})],
)  # fmt: skip
def test_a_statement_ends_where_its_body_begins(line: int, lines: set[int]) -> None:
    assert lines_of_statement(STATEMENTS, line) == lines


def test_what_runs_on_import_is_told_from_what_a_test_calls() -> None:
    on_import = [line for line in range(1, 14) if runs_on_import(STATEMENTS, line)]
    assert on_import == [1, 2, 3]  # the decorator and the defaults
    assert runs_on_import("class A:\n    b = 1\n    def c(self):\n        return 2\n", 2)


def test_what_executes_the_lines_is_tried_by_time_and_of_a_function_in_turn() -> None:
    tests = [
        {"test": name, "seconds": seconds, "lines": {"a.py": lines, "b.py": [8]}}
        for name, seconds, lines in (
            ("test_a[1]", 5, [7]), ("test_a[2]", 1, [6, 7]), ("test_a[3]", 3, [7, 8]),
            ("test_b", 2, [1, 7]), ("test_other", 0.1, [6, 8]), ("test_c[1]", 4, [7]),
            ("test_d", 10, [7]),
        )
    ]  # fmt: skip
    ordered = ["test_a[2]", "test_b", "test_c[1]", "test_a[3]", "test_d", "test_a[1]"]
    assert executing_tests("a.py", {7, 9}, tests, seconds=100) == ordered
    assert executing_tests("a.py", {7}, tests, seconds=7.5) == ordered[:4]  # 1 + 2 + 4 before
    assert executing_tests("a.py", {7}, tests, seconds=7) == ordered[:3]
    assert executing_tests("c.py", {7}, tests, seconds=100) == []


MODULE = """\
def half(x):
    if x % 2:
        raise ValueError("odd")
    return x // 2
"""
TESTS = """\
import pytest
from datasets.halves import half

@pytest.fixture(scope="module")
def four():
    return half(8)

def test_even(four):
    assert half(four) == 2

@pytest.mark.parametrize("x", [1, 3])
def test_odd(x):
    with pytest.raises(ValueError, match="odd"):
        half(x)

def test_none():
    assert True
"""


def test_the_lines_that_each_test_executes_are_recorded(tmp_path: Path) -> None:
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "halves.py").write_text(MODULE)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nfilterwarnings = error\naddopts = -p no:dash -k 'not slow'\n"
    )
    (tmp_path / "test_halves.py").write_text(TESTS)
    (tmp_path / "test_wrong.py").write_text("def test_wrong():\n    assert 1 == 2\n")
    command = [sys.executable, ROOT / "tools" / "mutants_record.py", "records"]
    run = subprocess.run([*command, "test_wrong.py", "test_halves.py"], cwd=tmp_path,
                         check=False, capture_output=True, text=True)  # fmt: skip
    assert run.returncode == 1, run.stdout + run.stderr
    assert "1 failed, 4 passed" in run.stdout
    records = tmp_path / "records"
    tests = json.loads(record_of(records, str(tmp_path / "test_halves.py")).read_text())
    assert {test["test"].partition("::")[2]: test["lines"] for test in tests} == {
        "test_even": {"datasets/halves.py": [2, 4]},
        "test_odd[1]": {"datasets/halves.py": [2, 3]},
        "test_odd[3]": {"datasets/halves.py": [2, 3]},
        "test_none": {},
    }
    assert all(0 < test["seconds"] < 10 for test in tests)
    assert not record_of(records, str(tmp_path / "test_wrong.py")).exists()

    (tmp_path / "test_lasting.py").write_text("def test_slow():\n    assert 1 == 2\n")
    subprocess.run([*command, "test_lasting.py", "test_halves.py"], cwd=tmp_path, check=True)
    assert json.loads(record_of(records, str(tmp_path / "test_lasting.py")).read_text()) == []


ASKED = """
import os, sys, time
from pathlib import Path

def test_right():
    assert "torch" in sys.modules and "geonorm" not in sys.modules

def test_wrong():
    assert sys.argv[1:] == ["nothing"]

def test_lasting():
    Path("pid").write_text(str(os.getpid()))
    time.sleep(600)
"""


@pytest.mark.slow  # 15 s
def test_a_server_runs_tests_in_processes_that_have_torch(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p no:dash\n")
    (tmp_path / "test_asked.py").write_text(ASKED)
    script = [sys.executable, ROOT / "tools" / "mutants_server.py"]
    with subprocess.Popen([*script, "serve", "socket"], cwd=tmp_path) as server:
        try:
            while not (tmp_path / "socket").exists():
                assert server.poll() is None
                time.sleep(0.1)

            def ask(name: str) -> subprocess.Popen[str]:
                return subprocess.Popen(
                    [*script, "ask", "socket", "-q", f"test_asked.py::{name}"], cwd=tmp_path,
                    stdout=subprocess.PIPE, text=True)  # fmt: skip

            right = ask("test_right")
            assert "1 passed" in right.communicate()[0]
            assert right.returncode == 0
            wrong = ask("test_wrong")
            assert "FAILED test_asked.py::test_wrong" in wrong.communicate()[0]
            assert wrong.returncode == 1
            lasting = ask("test_lasting")
            while not (tmp_path / "pid").exists():
                time.sleep(0.1)
            lasting.kill()
            lasting.communicate()
            assert "1 passed" in ask("test_right").communicate()[0]
            assert not Path("/proc", (tmp_path / "pid").read_text()).exists()
        finally:
            server.kill()


def test_every_planted_fault_of_the_kernels_applies_and_says_what_it_is() -> None:
    patches = mutants_cpp.faults()
    assert len(patches) >= 20
    for patch in patches:
        mutants_cpp.apply(patch, ROOT, "--check")
        what, _, diff = patch.read_text().partition("\n\n")
        said = mutants_cpp.NEEDS.sub("", what).strip()
        assert said.endswith(".")
        assert len(said) < 100
        assert diff.startswith("--- a/geonorm/csrc/")
    assert all((ROOT / "tests" / "ops" / file).is_file() for file in mutants_cpp.TESTS)


def test_a_fault_that_does_not_apply_or_is_not_there_is_named(tmp_path: Path) -> None:
    patch = mutants_cpp.faults(["eps_forgotten"])[0]
    (tmp_path / "geonorm" / "csrc").mkdir(parents=True)
    (tmp_path / "geonorm" / "csrc" / "moments.h").write_text("int nothing;\n")
    with pytest.raises(ValueError, match="the fault eps_forgotten no longer applies; write it"):
        mutants_cpp.apply(patch, tmp_path)
    with pytest.raises(ValueError, match=r"there is no fault 'none' in .*faults"):
        mutants_cpp.faults(["none"])


def test_a_fault_that_this_processor_cannot_reach_is_left_out(tmp_path: Path) -> None:
    patch = tmp_path / "a.patch"
    has = next(word for word in Path("/proc/cpuinfo").read_text().split() if word.isalpha())
    for head, lacks in (("Wrong.", None), ("Wrong.\nNeeds: nothing_such", "nothing_such"),
                        (f"Wrong.\nNeeds: {has}", None)):  # fmt: skip
        patch.write_text(f"{head}\n\n--- a/b.cpp\n+++ b/b.cpp\n")
        assert mutants_cpp.lacking(patch) == lacks
    needs = [mutants_cpp.NEEDS.search(patch.read_text()) for patch in mutants_cpp.faults()]
    assert {found[1] for found in needs if found} == {"avx512_bf16"}
