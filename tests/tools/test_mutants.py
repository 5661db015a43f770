"""The pieces of mutation testing: what is drawn, which tests are run, whether the faults apply."""

import tomllib
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import mutants_cpp
import pytest
from mutation.sample import annotations, draw, part_of, stages_of

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


def test_every_planted_fault_of_the_kernels_applies_and_says_what_it_is() -> None:
    patches = mutants_cpp.faults()
    assert len(patches) >= 20
    for patch in patches:
        mutants_cpp.apply(patch, ROOT, "--check")
        what, _, diff = patch.read_text().partition("\n\n")
        assert what.endswith(".")
        assert len(what) < 100
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
