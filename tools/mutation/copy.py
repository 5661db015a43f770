"""A copy of the checkout in which sources may be broken."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

SOURCES = ["geonorm", "models", "datasets"]
ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv" / "bin" / "python"
# Slow tests notice as well; what takes minutes would be run again and again.
OPTIONS = ["-q", "-p", "no:cacheprovider", "-m", "not long and not cuda"]


def copy_checkout(to: Path) -> dict[str, str]:
    """Copy every file that git tracks or would add, and go there; return the digest of each.

    Python processes that are started there, and by these elsewhere, import the copy.
    """
    shutil.rmtree(to, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                            cwd=ROOT, check=True, capture_output=True, text=True)  # fmt: skip
    extension = [str(file.relative_to(ROOT)) for file in ROOT.glob("geonorm/_C*")]
    digests = {}
    for name in [*listed.stdout.split("\0")[:-1], *extension]:
        if (ROOT / name).is_file():  # not one that is deleted and still in the index
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)
            digests[name] = hashlib.sha256((to / name).read_bytes()).hexdigest()
    # The editable install would find the checkout's: packages inside geonorm are found first.
    for package in SOURCES[1:]:
        (to / "geonorm" / package).symlink_to(Path("..", package))
    os.environ["PYTHONPATH"] = str(to)
    os.environ.setdefault("GEONORM_DATA", str(ROOT.parent / "shared" / "data"))
    os.chdir(to)
    subprocess.run([PYTHON, "-m", "compileall", "-q", *SOURCES, "tests"],
                   check=True)  # fmt: skip
    return digests


def pytest_command(files: list[str]) -> list[str]:
    """Return the command that runs test files until the first failure."""
    return [str(PYTHON), "-m", "pytest", "-x", *OPTIONS, *files]


def digest_of(digests: dict[str, str]) -> str:
    """Return one digest for several files."""
    return hashlib.sha256(repr(sorted(digests.items())).encode()).hexdigest()


def record_of(folder: Path, test_file: str) -> Path:
    """Return where the record of a test file as it is now lies; see tools/mutants_record.py."""
    return folder / f"{hashlib.sha256(Path(test_file).read_bytes()).hexdigest()}.json"
