"""Record the conditions of a measurement: the allocator, the machine, the versions."""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from geonorm.training.threads import share_cores

# glibc keeps freed memory instead of returning it to the system, where the next tensor would have
# to be faulted in page by page: nothing is mapped by itself (a threshold above 32 MiB is refused in
# silence), and the heap never shrinks.
PINNED = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_TOP_PAD_": str(1 << 28),
}


def pin_allocator() -> None:
    """Start this program again with the allocator pinned and threads that sleep, unless it is."""
    if all(os.environ.get(name) == value for name, value in PINNED.items()):
        return
    os.environ.update(PINNED)
    share_cores()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _commit() -> str:
    """Return the commit of the checkout, with + after it where files differ from it."""
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "geonorm")
    return (git("rev-parse", "--short", "HEAD") or "none") + ("+" if changed else "")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


@cache
def device_columns() -> dict[str, str]:
    """Return the columns that are equal for every row of one run."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "device": torch.cuda.get_device_name() if cuda else _processor(),
        "threads": "" if cuda else str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "minkowski": _installed("MinkowskiEngine"),
        "geonorm": _installed("geonorm"),
        "commit": _commit(),
    }
