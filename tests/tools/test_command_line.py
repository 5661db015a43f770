"""`geonorm`: its commands, and what it says of a wrong one and of a missing library."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from geonorm import __version__
from geonorm.__main__ import COMMANDS, main

WITHOUT = """
import sys
sys.modules[sys.argv[1]] = None  # as if it were not installed
from geonorm.__main__ import main
print(main(sys.argv[2:]))
"""


def test_the_commands_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"], ["-h"]):
        assert main(arguments) is None
        said = capsys.readouterr().out
        assert re.findall(r"^  ([a-z-]+)  ", said, re.MULTILINE) == [*COMMANDS]
    main(["--version"])
    assert capsys.readouterr().out == f"{__version__}\n"


def test_the_command_line_is_the_processes_own_by_default(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["--help", "--version"])
    assert main() is None
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize(("missing", "cure"), [
    ("submitit", "pip install 'geonorm[scale]'"), ("onnx.helper", "pip install 'geonorm[export]'"),
    ("mystery", "pip install 'geonorm[train]'"),
])  # fmt: skip
def test_a_library_is_named_by_what_brings_it(monkeypatch, missing: str, cure: str) -> None:
    def fail(arguments: list[str]) -> None:
        raise ModuleNotFoundError("no", name=missing)

    monkeypatch.setattr("geonorm.commands.doctor.main", fail)
    name = missing.partition(".")[0]
    assert str(main(["doctor"])).startswith(
        f"geonorm doctor: needs {name}, which is not installed: {cure} ("
    )


@pytest.mark.parametrize("name", ["geonorm.none", "geonorm", "", None])
def test_a_module_of_ours_that_is_missing_is_a_fault(monkeypatch, name: str | None) -> None:
    def fail(arguments: list[str]) -> None:
        raise ModuleNotFoundError("no", name=name)

    monkeypatch.setattr("geonorm.commands.doctor.main", fail)
    with pytest.raises(ModuleNotFoundError):
        main(["doctor"])


def test_an_unknown_command_is_told_from_a_near_one() -> None:
    assert re.fullmatch(
        r"geonorm: no command 'pedict'; choose from \['doctor', .*\]\. Did you mean 'predict'\?",
        str(main(["pedict"])),
    )


@pytest.mark.parametrize("name", [*COMMANDS])
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        ended = main([name, "--help"])
    except SystemExit as by_parser:
        ended = by_parser.code
    assert not ended
    assert len(capsys.readouterr().out.splitlines()) > 5


def test_the_program_imports_no_library_of_the_commands() -> None:
    code = ("import sys, geonorm.__main__\n"
            "print({'lightning', 'jsonargparse', 'numpy.random', 'MinkowskiEngine', 'av'} "
            "& sys.modules.keys())")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("missing", "command", "cure"),
    [
        ("lightning", ["train-seg"], "pip install 'geonorm[train]'"),
        ("MinkowskiEngine", ["verify", "--plain", "true"], "geonorm install-minkowski"),
        pytest.param("jsonargparse", ["predict", "a.ckpt", "b.bin"],
                     "pip install 'geonorm[train]'", marks=pytest.mark.slow),
    ],
)
def test_a_missing_library_is_named_with_its_cure(
    tmp_path: Path, missing: str, command: list[str], cure: str
) -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", WITHOUT, missing, *command],
                          cwd=tmp_path, capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    says = f"geonorm {command[0]}: needs {missing}, which is not installed: {cure}"
    assert done.stdout.startswith(says)
