"""Build the C++ kernels with one planted fault at a time and name the test that fails of it.

    .venv/bin/python tools/mutants_cpp.py [NAME ...]

The faults are the patches in tools/faults, NAME without .patch; all of them by default. Each is
applied to a copy of the checkout under build/faults, where only what it touches is built anew. A
run that was stopped goes on when it is started again, and begins anew where a file has changed.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from mutation.copy import PYTHON, ROOT, copy_checkout, digest_of, pytest_command

FAULTS = ROOT / "tools" / "faults"
WORK = ROOT / "build" / "faults"
COPY, BUILT, RESULTS = WORK / "copy", WORK / "built", WORK / "results.json"
TESTS = [f"test_{file}.py" for file in (
    "segment_norm", "axis_norm", "segment_norm_residual", "axis_norm_residual",
    "segment_norm_autograd", "axis_norm_autograd", "segment_norm_properties",
    "function_transforms", "backends", "sparse_conv", "sparse_conv_autograd",
)]  # fmt: skip
NEEDS = re.compile(r"^Needs: (\w+)$", re.MULTILINE)
SECONDS = 900  # for the tests, which take a fifth of it on two cores


def faults(names: list[str] | None = None) -> list[Path]:
    """Return the patches of that name, or all."""
    patches = [FAULTS / f"{name}.patch" for name in names or ()] or sorted(FAULTS.glob("*.patch"))
    for patch in patches:
        if not patch.is_file():
            raise ValueError(f"there is no fault {patch.stem!r} in {FAULTS}")
    return patches


def apply(patch: Path, root: Path, *options: str) -> None:
    """Apply a patch to a tree; raise ValueError where it does not fit any more."""
    # Without a repository around it: git would take the paths as those of the checkout.
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(root.parent)}
    done = subprocess.run(["git", "apply", *options, patch], cwd=root, env=environment,
                          capture_output=True, text=True, check=False)  # fmt: skip
    if done.returncode:
        raise ValueError(f"the fault {patch.stem} no longer applies; write it anew for the code as "
                         f"it is now\n{done.stderr}")  # fmt: skip


def lacking(patch: Path) -> str | None:
    """Return the instructions that a fault sits in and this machine does not have, or None."""
    needed = NEEDS.search(patch.read_text())
    if needed is None or needed[1] in Path("/proc/cpuinfo").read_text().split():
        return None
    return needed[1]


def build() -> None:
    """Build the extension of the copy, whose objects are kept where their sources are unchanged."""
    for file in Path("geonorm").glob("_C*"):
        file.unlink()
    done = subprocess.run([PYTHON, "setup.py", "--quiet", "build_ext", "--inplace"],
                          capture_output=True, text=True, check=False)  # fmt: skip
    if done.returncode or not list(Path("geonorm").glob("_C*.so")):
        sys.exit(f"the extension is not built\n{done.stdout[-4000:]}{done.stderr[-2000:]}")


def first_failure(fault: str = "") -> str | None:
    """Return the first test that fails, or how the tests ended else, or None where all pass."""
    conv = fault.startswith("conv_")
    names = sorted(TESTS, key=lambda name: ("conv" in name) != conv)  # the likeliest first
    files = [f"tests/ops/{name}" for name in names]
    try:
        done = subprocess.run(pytest_command(files), capture_output=True, text=True, check=False,
                              timeout=SECONDS)  # fmt: skip
    except subprocess.TimeoutExpired:
        return "timeout"
    if done.returncode == 0:
        return None
    failed = re.search(r"^(?:FAILED|ERROR) (.*?)(?: - |$)", done.stdout, re.MULTILINE)
    return failed[1] if failed else f"ended with {done.returncode}\n{done.stderr[-500:]}"


def prepare() -> dict[str, str | None]:
    """Build the kernels as they are, unless that is done, and return the results so far."""
    digest = digest_of(copy_checkout(COPY))
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    if results.get("digest") == digest:
        return results
    shutil.rmtree(BUILT, ignore_errors=True)
    # Optimized less, they are built in half the time; the arithmetic is the same.
    setup = Path("setup.py").read_text()
    Path("setup.py").write_text(setup.replace('"-O3"', '"-O1"'))
    build()
    if failed := first_failure():
        sys.exit(f"the tests fail without a fault, mend that first: {failed}")
    shutil.copytree(COPY, BUILT, symlinks=True)
    return {"digest": digest}


def main() -> None:
    """Try every fault that has no result yet, and list all results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    patches = faults(parser.parse_args().names)
    for patch in patches:
        apply(patch, ROOT, "--check")
    out_of_reach = {patch: needed for patch in patches if (needed := lacking(patch))}
    for patch, needed in out_of_reach.items():
        print(f"{patch.stem:40} left out, this machine has no {needed}")
    patches = [patch for patch in patches if patch not in out_of_reach]
    results = prepare()
    for patch in patches:
        if patch.stem not in results:
            os.chdir(WORK)
            shutil.rmtree(COPY)
            shutil.copytree(BUILT, COPY, symlinks=True)
            os.chdir(COPY)
            apply(patch, COPY)
            build()
            results[patch.stem] = first_failure(patch.stem)
            RESULTS.write_text(json.dumps(results, indent=1))
        print(f"{patch.stem:40} {results[patch.stem] or 'SURVIVED'}", flush=True)
    survived = [patch.stem for patch in patches if results[patch.stem] is None]
    print(f"{len(patches) - len(survived)} of {len(patches)} caught")
    sys.exit(1 if survived else 0)


if __name__ == "__main__":
    main()
