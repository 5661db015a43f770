"""Runs the steps of the build: output to the log, progress to the screen, failures explained."""

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, TextIO

LAST_LINES = 40


class InstallError(Exception):
    """The build failed; the message says why and what to do."""


class MissingPackageError(InstallError):
    """Something that this machine lacks and a package of Debian holds.

    Args:
        message: what is missing.
        package: what holds it.
    """

    def __init__(self, message: str, package: str) -> None:
        super().__init__(message)
        self.package = package


class KnownFailure(NamedTuple):
    """A failure that the log gives away: a pattern of what it says, and what to do."""

    pattern: str
    advice: str


KNOWN_FAILURES = (
    KnownFailure(
        # The kernel's killer says so to the compiler driver; a limit (ulimit -v) to the compiler.
        r"Killed signal|died due to signal 9|[Oo]ut of memory allocating|virtual memory exhausted"
        r"|Cannot allocate memory|\bstd::bad_alloc\b",
        "A compiler ran out of memory. Give fewer of them at a time (each takes up to {gib} GiB): "
        "--jobs {fewer}",
    ),
    KnownFailure(
        r"cblas\.h: No such file|cannot find -lopenblas",
        "OpenBLAS is missing: apt-get install libopenblas-dev, or build on the matrix products "
        "inside torch: --blas torch",
    ),
    KnownFailure(
        r"Python\.h: No such file",
        "Python's own headers are missing: apt-get install python3-dev (python3.12-dev, ...)",
    ),
    KnownFailure(
        r"(?:cusparse|cublas\w*|cusolver\w*)\.h: No such file|cannot find -l(?:cusparse|cudart)",
        "A library of CUDA is missing; run the installer with --cuda, which looks for it first "
        "and names the package that holds it",
    ),
)


def diagnosis(log: str, jobs: int, gib_per_job: int) -> str | None:
    """Return what to do about a known failure, or None where the log shows none.

    Args:
        log: what the failed step said.
        jobs: compilers that ran at a time.
        gib_per_job: memory that one may take.
    """
    for failure in KNOWN_FAILURES:
        if re.search(failure.pattern, log):
            return failure.advice.format(fewer=max(1, jobs // 2), gib=gib_per_job)
    return None


class Runner(NamedTuple):
    """Runs commands into one log.

    Args:
        log: file that everything said is added to.
        environment: of the commands; by default this process's.
        jobs: compilers at a time, for the advice.
        gib_per_job: memory that one may take, likewise.
    """

    log: Path
    environment: dict[str, str] | None = None
    jobs: int = 1
    gib_per_job: int = 3

    def run(self, command: list[str]) -> None:
        """Run a command to its end; raise with the known cause and the end of the log."""
        start = self.log.stat().st_size if self.log.exists() else 0
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=self.environment, errors="replace",
        )  # fmt: skip
        with process, self.log.open("a") as file:
            _follow(process.stdout or (), file)
        if process.returncode != 0:
            said = self.log.read_text()[start:]
            tail = "\n".join(said.splitlines()[-LAST_LINES:])
            # Signal 9 to the command itself, not to a compiler it started.
            text = said if process.returncode != -9 else f"{said}\nKilled signal"
            advice = diagnosis(text, self.jobs, self.gib_per_job)
            raise InstallError(
                f"{' '.join(command[:5])} … failed:\n{tail}\nThe whole log: {self.log}"
                + (f"\n{advice}" if advice else "")
            )


def _follow(lines: Iterable[str], file: TextIO) -> None:
    """Copy lines to a file as they come, showing how many files are compiled of how many."""
    for line in lines:
        file.write(line)
        file.flush()
        if step := re.match(r"\s*\[(\d+)/(\d+)\]", line):
            done, total = step.groups()
            print(f"\r  compiled {done}/{total}", end="\n" if done == total else "", flush=True)
