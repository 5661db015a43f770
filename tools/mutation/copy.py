"""A copy of the checkout in which sources may be broken."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv" / "bin" / "python"


def copy_checkout(to: Path) -> str:
    """Copy every file that git tracks or would add, and go there; return a digest of all of them.

    Python processes that are started there, and by these elsewhere, import the copy.
    """
    shutil.rmtree(to, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                            cwd=ROOT, check=True, capture_output=True, text=True)  # fmt: skip
    extension = [str(file.relative_to(ROOT)) for file in ROOT.glob("geonorm/_C*")]
    digest = hashlib.sha256()
    for name in [*listed.stdout.split("\0")[:-1], *extension]:
        if (ROOT / name).is_file():  # not one that is deleted and still in the index
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)
            digest.update(name.encode() + (to / name).read_bytes())
    # The editable install would find the checkout's: packages inside geonorm are found first.
    for package in ("models", "datasets"):
        (to / "geonorm" / package).symlink_to(Path("..", package))
    os.environ["PYTHONPATH"] = str(to)
    os.environ.setdefault("GEONORM_DATA", str(ROOT.parent / "shared" / "data"))
    os.chdir(to)
    subprocess.run([PYTHON, "-m", "compileall", "-q", "geonorm", "models", "datasets", "tests"],
                   check=True)  # fmt: skip
    return digest.hexdigest()


def pytest_command(files: list[str]) -> list[str]:
    """Return the command that runs test files until the first failure."""
    return [str(PYTHON), "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *files]
