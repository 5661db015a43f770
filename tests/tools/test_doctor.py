"""geonorm doctor: what it tries, what it calls broken, and the command that mends it."""

import os
import re
import subprocess
import sys

import pytest
import torch

from geonorm import backends
from geonorm.commands import doctor, probes
from geonorm.commands.doctor import MINKOWSKI, Finding, check_torch, outcome, start_probe


@pytest.mark.slow  # 22 s
def test_here_everything_that_is_needed_works() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-m", "geonorm", "doctor"], capture_output=True,
                          text=True, env=environment, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    states = dict(re.findall(r"^  (\S+) +(works|installed|missing|broken)", done.stdout, re.M))
    for name in ("reference", "cpp", "MinkowskiEngine", "open3d", "av"):
        assert states[name] == "works"
    assert states["lightning"] == "installed"
    assert states["triton"] == ("works" if torch.cuda.is_available() else "missing")
    assert f"torch {torch.__version__}" in done.stdout
    assert done.stderr == ""


def test_what_is_missing_is_a_problem_with_a_cure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def version(name: str) -> str | None:
        return None if name in ("MinkowskiEngine", "lightning", "spconv", "av") else "1.0"

    monkeypatch.setattr(doctor, "version", version)
    monkeypatch.setattr(doctor, "start_probe", lambda name: None)
    monkeypatch.setattr(doctor, "outcome", lambda name, detail, *_: Finding(name, "works", detail))
    assert doctor.main([]) == 1
    said = capsys.readouterr().out
    assert "Everything that the commands need" not in said
    assert re.search(r"  torch_geometric  works      1\.0, \n", said)
    assert re.search(r"  torchvision      installed  1\.0\n", said)
    assert re.search(r"MinkowskiEngine +missing", said)
    assert said.endswith(f"MinkowskiEngine: {MINKOWSKI}\n"
                         "av, lightning: pip install 'geonorm[train]'\n")  # fmt: skip
    monkeypatch.setattr(doctor, "version", lambda name: None if name == "spconv" else "1.0")
    assert doctor.main([]) == 0  # an engine that no command needs
    assert "Everything that the commands need is here" in capsys.readouterr().out


def test_a_trial_that_fails_or_crashes_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    crash = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    for code, says in ((crash, "1.0, ended by signal 11"), ("1 / 0", "1.0, ZeroDivisionError"),
                       ("import time; time.sleep(9)", "1.0, it does not end within 0.5 s")):
        monkeypatch.setattr(doctor, "TIMEOUT", 0.5 if "sleep" in code else 60)
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)  # fmt: skip
        finding = outcome("av", "1.0, ", process, "mend it")
        assert finding.state == "broken"
        assert finding.is_problem
        assert finding.detail.startswith(says)


@pytest.mark.parametrize(("code", "found"), [
    ("print('noise\\nright')", Finding("av", "works", "1.0, right")),
    ("print('right'); sys.exit('one\\ntwo')", Finding("av", "broken", "1.0, two", "mend it")),
])  # fmt: skip
def test_a_trial_tells_by_its_last_line(code: str, found: Finding) -> None:
    with subprocess.Popen([sys.executable, "-c", f"import sys; {code}"], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as process:  # fmt: skip
        assert outcome("av", "1.0, ", process, "mend it") == found


@pytest.mark.parametrize(("name", "state", "problem"), [
    ("av", "works", False), ("av", "installed", False), ("av", "missing", True),
    ("spconv", "missing", False), ("triton", "missing", False), ("spconv", "broken", True),
])  # fmt: skip
def test_what_is_not_needed_may_be_missing_but_not_broken(name, state, problem) -> None:
    assert Finding(name, state, "").is_problem == problem


def test_a_wrong_result_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    if backends()["cpp"] != "available":
        pytest.skip(backends()["cpp"])
    probes.PROBES["cpp"]()
    monkeypatch.setattr(probes, "INDEX", torch.tensor([0, 1, 0, 1, 1, 0, 2]))
    right = probes._instance_norm
    monkeypatch.setattr(probes, "_instance_norm", lambda *args: right(*args) * 1.001)
    with pytest.raises(ValueError, match=r"the result is wrong, by 1\.0e-03 of its norm"):
        probes.PROBES["reference"]()


def test_another_torch_than_it_was_built_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "version", lambda name: "0.5.4+torch2.14.1.cpu.1a2b3c4d")
    engine = Finding("MinkowskiEngine", "works", "0.5.4, right")
    right = check_torch(engine, "2.14.1+cu132", MINKOWSKI)
    assert right == engine._replace(detail="0.5.4, right, built for torch 2.14.1")
    broken = check_torch(engine, "2.15.0", MINKOWSKI)
    assert (broken.state, broken.cure) == ("broken", MINKOWSKI)
    assert broken.detail == "built for torch 2.14.1, and torch 2.15.0 is installed; 0.5.4, right"
    monkeypatch.setattr(doctor, "version", lambda name: "0.5.4")  # built by other hands
    assert check_torch(engine, "2.15.0", MINKOWSKI) == engine


def test_the_extension_says_which_torch_it_was_built_for(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(doctor, "__file__", str(tmp_path / "commands" / "doctor.py"))
    kernels = Finding("cpp", "works", "right")
    assert check_torch(kernels, "2.15.0", doctor.REINSTALL) == kernels  # nothing is known
    (tmp_path / "_C_torch.txt").write_text("2.14.0+cu130\n")
    broken = check_torch(kernels, "2.15.0", doctor.REINSTALL)
    assert broken.state == "broken"
    assert broken.detail.startswith("built for torch 2.14.0+cu130, and torch 2.15.0 is")
    assert check_torch(kernels, "2.14.0+cpu", doctor.REINSTALL).state == "works"


def test_a_probe_that_is_not_installed_fails_by_its_name() -> None:
    finding = outcome("no_such", "", start_probe("no_such"), "")
    assert finding == Finding("no_such", "broken", "KeyError: 'no_such'", "")
