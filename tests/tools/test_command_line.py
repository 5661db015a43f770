"""`geonorm`: its commands, and what it says of a wrong one and of a missing library."""

import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from threading import Event

import pytest
import torch

from geonorm import __version__
from geonorm.__main__ import COMMANDS, PACKAGES, main
from geonorm.commands import evaluate_shift, export, probes, report, share, submit, view
from geonorm.commands.evaluate_shift import split
from geonorm.commands.predict import ended_by_signals, usable_device
from geonorm.commands.predict import parser as predict_parser
from geonorm.studies import STUDIES, study_named

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


def test_what_a_cure_installs_has_the_library() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    extras = tomllib.loads(text)["project"]["optional-dependencies"]
    names = {"sklearn": "scikit-learn", "google": "protobuf"}
    of_extras = {name: re.fullmatch(r"pip install 'geonorm\[(.*)\]'", cure)
                 for name, cure in PACKAGES.items()}  # fmt: skip
    assert [name for name, cure in of_extras.items() if cure is None] == ["MinkowskiEngine"]
    for name, cure in of_extras.items():
        assert cure is None or names.get(name, name) in " ".join(extras[cure[1]]), name
    # And the other way: each library of an extra other than the default one is known.
    told = " ".join([names.get(name, name) for name in PACKAGES])
    for extra in ("studies", "data", "scale", "export", "hub"):
        for needed in extras[extra]:
            library = re.match(r"[\w-]*", needed)[0].removeprefix("praat-")
            assert library in told, needed


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


def test_predictions_run_on_a_gpu_where_the_engine_can_use_one(monkeypatch) -> None:
    engine = pytest.importorskip("MinkowskiEngine")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(engine, "is_cuda_available", lambda: True)
    assert [usable_device("auto", scans) for scans in (True, False)] == ["cpu", "cpu"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [usable_device("auto", scans) for scans in (True, False)] == ["cuda", "cuda"]
    monkeypatch.setattr(engine, "is_cuda_available", lambda: False)
    assert [usable_device("auto", scans) for scans in (True, False)] == ["cpu", "cuda"]
    assert [usable_device(name, True) for name in ("cuda:1", "cpu")] == ["cuda:1", "cpu"]


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_for_an_end_and_the_second_is_as_usual(which, capsys) -> None:
    def handlers() -> list[object]:
        return [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]

    stop, before = Event(), handlers()
    with ended_by_signals(stop):
        assert all(one is not other for one, other in zip(handlers(), before, strict=True))
        assert not stop.is_set()
        signal.raise_signal(which)
        assert stop.is_set()
        assert handlers() == before
    assert capsys.readouterr().err == "ends after this scan\n"
    with pytest.raises(RuntimeError), ended_by_signals(stop):
        raise RuntimeError
    assert handlers() == before


@pytest.mark.parametrize(("command", "words", "plain"), [
    (evaluate_shift, [], {
        "checkpoints": [], "names": None, "corruptions": None, "samples": None, "baseline": None,
        "summarize": None, "out": Path("shift"), "resume": True, "resamples": 1000, "seed": 0,
        "device": "auto", "config": None, "beams": None, "domain": None,
    }),
    (export, ["a.ckpt", "a.onnx"], {"compile": False}),
    (report, ["a"], {"runs": [Path("a")], "out": Path("report.html")}),
    (submit, ["train-seg"], {"cluster": "slurm", "nodes": 1, "tasks": 1, "gpus": None, "cpus": 8,
                             "hours": 24.0, "partition": None, "wait": False}),
    (share, ["a.ckpt", "a", "--licence=mit"], {"licence": "mit", "push": None, "private": False}),
    (view, ["a.bin"], {"predictions": [], "out": Path("view.html"), "labels": [], "color": None,
                       "intensity_max": 1.0, "window": False}),
])  # fmt: skip
def test_commands_by_default(command, words: list[str], plain: dict[str, object]) -> None:
    told = command.parser().parse_args(words)
    assert {name: getattr(told, name) for name in plain} == plain


def test_so_many_samples_or_all() -> None:
    for word, samples in (("5", 5), ("all", "all")):
        told = evaluate_shift.parser().parse_args([f"--samples={word}"])
        assert told.samples == samples


def test_predict_by_default() -> None:
    told = predict_parser().parse_args(["a.ckpt", "a.bin", "b.bin"])
    assert (told.checkpoint, told.files) == ("a.ckpt", ["a.bin", "b.bin"])
    plain = {
        "out": "predictions", "device": "auto", "attribution": None, "target": None,
        "statistics": False, "resume": False, "watch": None, "format": "label", "pictures": True,
        "ply": False, "intensity_max": 1.0, "votes": 1, "chunk": None, "overlap": 0.5,
        "domain": None, "views": None, "num_workers": 0,
    }  # fmt: skip
    assert {name: getattr(told, name) for name in plain} == plain
    assert predict_parser().parse_args(["a.ckpt", "a", "--watch=inf"]).watch == float("inf")


@pytest.mark.parametrize("words", [["--data.root"], ["a.ckpt", "--data.root", "--seed=1"]])
def test_an_option_of_the_data_needs_a_value(words: list[str]) -> None:
    assert main(["evaluate-shift", *words]) == (
        "geonorm evaluate-shift: --data.root needs a value: --data.root VALUE"
    )
    assert split(["--data.a=--b"]) == ([], ["--data.a=--b"])


def test_scores_are_summarized_or_checkpoints_judged() -> None:
    said = main(["evaluate-shift", "a.ckpt", "b.ckpt", "--summarize=a.csv"])
    assert str(said).endswith("judges no checkpoint; got a.ckpt, b.ckpt too")
    assert "expected checkpoints of geonorm train-seg" in str(main(["evaluate-shift"]))


def test_studies_are_listed_and_told_from_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert listed == [f"{name}: {study_named(name).claim}" for name in STUDIES]
    said = str(main(["study", "afine"]))
    assert re.search(r"no study 'afine'; choose .* Did you mean 'affine'", said)
    for name in ("affine", "all"):
        assert main(["study", name, "--seeds=0"]) == (
            "geonorm study: --seeds must be 1 or more; got 0"
        )


def test_a_probe_knows_a_right_result_from_a_wrong_one() -> None:
    right = torch.tensor([[3.0, 4.0]])
    probes._expect(right * (1 + 5e-6), right)
    for wrong in (right * (1 + 2e-5), right * torch.nan, -right):
        with pytest.raises(ValueError, match="the result is wrong, by"):
            probes._expect(wrong, right)


@pytest.mark.parametrize("name", ["MinkowskiEngine", "spconv", "torch_geometric", "av"])
def test_probes_pass_here(name: str) -> None:
    pytest.importorskip(name)
    assert re.search(r"right on cpu|decodes h264", probes.PROBES[name]())
