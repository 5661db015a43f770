"""Say what is installed, what works, what is missing and the command that gets it.

Each kernel and engine is tried on something tiny. Exits with 1 where something that the commands of
geonorm need is missing, does not work, or was built for another torch.
"""

import os
import platform
import re
import subprocess
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

TRAIN = "pip install 'geonorm[train]'"
MINKOWSKI = "geonorm install-minkowski"
REINSTALL = (
    "pip install --force-reinstall --no-deps --no-cache-dir --no-build-isolation GEONORM, where "
    "GEONORM is the checkout or archive it came from"
)
KERNELS = {"reference": REINSTALL, "cpp": REINSTALL, "triton": "a GPU and its driver"}
# What is tried, by the name of its distribution, and the command that gets it.
ENGINES = {"MinkowskiEngine": MINKOWSKI, "spconv": "pip install spconv",
           "torch_geometric": "pip install torch_geometric"}  # fmt: skip
READERS = {"open3d": TRAIN, "av": TRAIN}
# What is only looked up.
LIBRARIES = ("torchvision", "numpy", "lightning", "torchmetrics", "jsonargparse", "tensorboard",
             "matplotlib", "pillow", "plotly", "captum", "tqdm")  # fmt: skip
NOT_NEEDED = ("triton", "spconv", "torch_geometric", "tensorboard", "plotly", "captum")
TIMEOUT = 120


class Finding(NamedTuple):
    """State of one kernel, engine or library.

    Args:
        name: what it is.
        state: "works", "installed", "missing" or "broken".
        detail: its version, and what was tried or went wrong.
        cure: the command that mends it.
    """

    name: str
    state: str
    detail: str
    cure: str = ""

    @property
    def is_problem(self) -> bool:
        """True if something must be done: what is not needed may be missing, but not broken."""
        return self.state == "broken" or (self.state == "missing" and self.name not in NOT_NEEDED)


def version(distribution: str) -> str | None:
    """Return the version of an installed distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def start_probe(name: str) -> subprocess.Popen[str]:
    """Start trying a kernel or engine in a process of its own, which may crash."""
    command = [sys.executable, "-W", "ignore", "-m", "geonorm.commands.probes", name]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            errors="replace", env=environment)  # fmt: skip


def outcome(name: str, detail: str, process: subprocess.Popen[str], cure: str) -> Finding:
    """Wait for a trial and return what it found."""
    try:
        said, complained = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return Finding(name, "broken", f"{detail}it does not end within {TIMEOUT} s", cure)
    if process.returncode == 0:
        return Finding(name, "works", detail + said.strip().rpartition("\n")[2])
    if process.returncode < 0:
        return Finding(name, "broken", f"{detail}ended by signal {-process.returncode}", cure)
    return Finding(name, "broken", detail + complained.strip().rpartition("\n")[2], cure)


def built_for(name: str) -> str | None:
    """Return the torch that a compiled part was built for, or None where that is not known."""
    if name == "MinkowskiEngine":
        # geonorm install-minkowski writes it into the version: 0.5.4+torch2.15.0.cpu.1a2b3c4d.
        stamp = re.search(r"\+torch(\d+\.\d+\.\d+)", version(name) or "")
        return stamp[1] if stamp else None
    note = Path(__file__).parents[1] / "_C_torch.txt"  # setup.py's
    return note.read_text(encoding="utf-8").strip() if note.is_file() else None


def check_torch(finding: Finding, torch_version: str, cure: str) -> Finding:
    """Return a finding, as broken where what was found was built for another torch.

    Args:
        finding: of something compiled.
        torch_version: the torch that is installed.
        cure: the command that builds it anew.
    """
    built = built_for(finding.name)
    if built is None:
        return finding
    if built.partition("+")[0] != torch_version.partition("+")[0]:
        other = f"built for torch {built}, and torch {torch_version} is installed"
        return finding._replace(state="broken", detail=f"{other}; {finding.detail}", cure=cure)
    return finding._replace(detail=f"{finding.detail}, built for torch {built}")


def kernels(torch_version: str) -> list[Finding]:
    """Try every backend that is there."""
    from geonorm import backends

    states = backends()
    running = {name: start_probe(name) for name, state in states.items() if state == "available"}
    found = []
    for name, cure in KERNELS.items():
        if name in running:
            finding = outcome(name, "", running[name], cure)
        else:
            finding = Finding(name, "missing", states[name], cure)
        found.append(check_torch(finding, torch_version, cure) if name == "cpp" else finding)
    return found


def tried(names: dict[str, str], torch_version: str) -> list[Finding]:
    """Try every engine or reader that is installed."""
    versions = {name: version(name) for name in names}
    running = {name: start_probe(name) for name, known in versions.items() if known}
    found = []
    for name, cure in names.items():
        if name not in running:
            found.append(Finding(name, "missing", "", cure))
            continue
        finding = outcome(name, f"{versions[name]}, ", running[name], cure)
        if name == "MinkowskiEngine":
            finding = check_torch(finding, torch_version, cure)
        found.append(finding)
    return found


def looked_up() -> list[Finding]:
    """Look up the libraries of the commands."""
    versions = {name: version(name) for name in LIBRARIES}
    return [
        Finding(name, "installed", known) if known else Finding(name, "missing", "", TRAIN)
        for name, known in versions.items()
    ]


def heading() -> str:
    """Return what is known of this machine, Python, torch and geonorm."""
    import torch

    import geonorm

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU is seen"
    return "\n".join([
        f"python {platform.python_version()} in {sys.prefix}, {platform.platform()}",
        f"torch {torch.__version__}, CUDA {torch.version.cuda or 'none'}: {gpu}",
        f"geonorm {geonorm.__version__} in {Path(geonorm.__file__).parent}",
    ])  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Print what is found; return 1 where there is a problem."""
    parser = ArgumentParser(prog="geonorm doctor", description=__doc__,
                            formatter_class=RawDescriptionHelpFormatter)  # fmt: skip
    parser.parse_args(arguments)
    import torch

    print(heading(), flush=True)
    here = str(torch.__version__)
    findings = []
    for title, found in (
        ("kernels", kernels(here)),
        ("engines", tried(ENGINES, here)),
        ("readers", tried(READERS, here)),
        ("libraries", looked_up()),
    ):
        print(f"\n{title}")
        for finding in found:
            print(f"  {finding.name:<17}{finding.state:<11}{finding.detail}", flush=True)
        findings += found
    problems = [finding for finding in findings if finding.is_problem]
    cures: dict[str, list[str]] = {}
    for problem in problems:
        cures.setdefault(problem.cure, []).append(problem.name)
    print("\nEverything that the commands need is here and works." if not problems else "")
    for cure, names in cures.items():
        print(f"{', '.join(names)}: {cure}")
    return 1 if problems else 0
