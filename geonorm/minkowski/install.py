"""Build and install MinkowskiEngine 0.5.4 from PyPI's source, for the Python that runs this.

  geonorm install-minkowski                          for the GPU where torch sees one, else the CPU
  geonorm install-minkowski --cuda --arch 9.0        for a GPU that is not here
  geonorm install-minkowski --cpu                    for the CPU, whatever is here

The wheel's version names what it was built for, as in 0.5.4+torch2.15.0.cpu.1a2b3c4d, so a wheel in
the cache, or an installed copy, is used again only where it fits: another torch, CUDA or
architecture is another version. What the build needs of pip, this fetches; what it needs of the
system, it names.
"""

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import warnings
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from geonorm.files import written_whole
from geonorm.minkowski.cuda import check_arches, cuda_environment, find_toolkit, gather
from geonorm.minkowski.host import check_host, host_compiler
from geonorm.minkowski.running import InstallError, Runner
from geonorm.minkowski.self_test import self_test
from geonorm.minkowski.source import (
    Target,
    build_settings,
    fetch_source,
    mend_source,
    pip,
    save_source,
)

# Packages that MinkowskiEngine imports, beside torch, and those that build it.
NEEDED = ("numpy",)
BUILD_TOOLS = ("setuptools", "wheel", "ninja")
# Memory of one compiler at its worst; of nvcc's, spmm.cu took 3.8 (measured, nvcc 13.2).
GIB_PER_JOB = {"cpu": 3, "cuda": 4}


def choose_target(arguments: argparse.Namespace) -> Target:
    """Return what to build for: as asked, or the GPUs that torch sees, or else the CPU.

    Raises:
        InstallError: CUDA is asked for, with neither a GPU nor an architecture.
    """
    version = metadata.version("torch")
    if arguments.cpu:
        return Target(version, blas=arguments.blas)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own about a driver that is too old
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        seen = {torch.cuda.get_device_capability(index) for index in range(count)}
    if not (seen or arguments.cuda):
        return Target(version, blas=arguments.blas)
    if torch.version.cuda is None:
        find_toolkit(None)  # raises: this torch is built for the CPU
    arches = arguments.arch or [f"{major}.{minor}" for major, minor in sorted(seen)]
    if not arches:
        raise InstallError(
            "--cuda without a GPU here needs the compute capability of the one it is for: "
            "--arch 9.0 (H100), 8.0 (A100), 8.9 (L4, RTX 40), 10.0 (B200)"
        )
    return Target(version, torch.version.cuda, tuple(arches), arguments.blas)


def wheel_path(wheel_dir: Path, target: Target) -> Path:
    """Return where the wheel for this Python, target and platform is cached."""
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    platform = re.sub(r"[-.]", "_", sysconfig.get_platform())
    return wheel_dir / f"minkowskiengine-{target.version}-{python}-{python}-{platform}.whl"


def is_installed(target: Target) -> bool:
    """Return whether exactly the wanted build is installed here."""
    try:
        return metadata.version("MinkowskiEngine") == target.version
    except metadata.PackageNotFoundError:
        return False


def build_environment(target: Target, scratch: Path, jobs: int) -> dict[str, str]:
    """Return the environment of the build, with what it needs laid out in scratch.

    MinkowskiEngine's setup script calls `pip uninstall MinkowskiEngine`, which would take away a
    working copy even where the build then fails; a `pip` that does nothing stands first on PATH.
    """
    for name in ("bin", "include", "lib"):
        (scratch / name).mkdir()
    (scratch / "bin" / "pip").symlink_to(shutil.which("true") or "/bin/true")
    torch_lib = Path(str(metadata.distribution("torch").locate_file("torch/lib")))
    check_host(target.blas, scratch, torch_lib)
    print(f"C++ compiler: {host_compiler()}")
    # Python's own flags ask for debug information, which takes as long as the compiling itself. New
    # setuptools take these in their place, and without -DNDEBUG every assertion would run.
    flags = " ".join([*os.environ.get("CFLAGS", "").split(), "-DNDEBUG", "-g0"])
    variables = {"TMPDIR": str(scratch), "MAX_JOBS": str(jobs), "CFLAGS": flags}
    if target.cuda is not None:
        toolkit = find_toolkit(target.cuda)
        print(f"CUDA toolkit {toolkit.version} in {toolkit.home}; torch has CUDA {target.cuda}; "
              f"compute capability {', '.join(target.arches)}")  # fmt: skip
        check_arches(target.arches, toolkit)
        gather(toolkit, scratch, target.cuda)
        variables |= cuda_environment(toolkit, target.arches, scratch, os.environ)
    before = {
        "PATH": [scratch / "bin", Path(sys.executable).parent],
        "CPATH": [scratch / "include"],
        "LIBRARY_PATH": [scratch / "lib"],
    }
    environment = os.environ | variables
    for name, folders in before.items():
        rest = [environment[name]] if environment.get(name) else []
        environment[name] = os.pathsep.join([*map(str, folders), *rest])
    return environment


def build(target: Target, wheel: Path, sdist: Path | None, jobs: int) -> None:
    """Build the wheel and move it, whole, into the cache."""
    wheel.parent.mkdir(parents=True, exist_ok=True)
    log = wheel.with_suffix(".log")
    log.unlink(missing_ok=True)
    print(f"building MinkowskiEngine {target.version} with {jobs} jobs; log: {log}", flush=True)
    with tempfile.TemporaryDirectory(prefix="minkowski-") as folder:
        scratch = Path(folder)
        environment = build_environment(target, scratch, jobs)
        device = "cpu" if target.cuda is None else "cuda"
        runner = Runner(log, environment, jobs, GIB_PER_JOB[device])
        source = fetch_source(scratch, sdist, runner)
        mend_source(source, target)
        runner.run(pip("wheel", "--verbose", *build_settings(target), "--wheel-dir",
                       scratch / "out", source))  # fmt: skip
        keep(next((scratch / "out").glob("*.whl")), wheel)


def keep(built: Path, wheel: Path) -> None:
    """Copy the wheel that a build has made into the cache, whole.

    Raises:
        InstallError: it has another name than the one that the cache is asked for.
    """
    if built.name.lower() != wheel.name.lower():
        raise InstallError(f"expected the wheel {wheel.name}, the build made {built.name}")
    with written_whole(wheel) as aside:
        shutil.copy(built, aside)


def default_jobs(cuda: bool) -> int:
    """Return the cores, or fewer where memory is shorter."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    gib = GIB_PER_JOB["cuda" if cuda else "cpu"]
    return max(1, min(os.cpu_count() or 1, memory // (gib * 2**30)))


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "geonorm" / "wheels"
    parser = argparse.ArgumentParser(
        prog="geonorm install-minkowski",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    device = parser.add_mutually_exclusive_group()
    device.add_argument("--cuda", action="store_true", help="for CUDA, even where no GPU is seen")
    device.add_argument("--cpu", action="store_true", help="for the CPU, even where a GPU is seen")
    parser.add_argument("--arch", nargs="+", metavar="CAPABILITY",
                        help="compute capabilities, such as 8.0 9.0; by default of the GPUs here")
    parser.add_argument("--blas", choices=("openblas", "torch"), default="openblas",
                        help="matrix products on the CPU: OpenBLAS, or those inside torch")
    parser.add_argument("--jobs", type=int, help="compilers at a time; by default one a core, or "
                        "fewer where memory is short")
    parser.add_argument("--wheel-dir", type=Path, default=cache, help=f"cache ({cache})")
    parser.add_argument("--sdist", type=Path, help="source archive to build from, with no network")
    parser.add_argument("--save-sdist", type=Path, metavar="FILE",
                        help="only fetch the source and pack it, for a machine with no network")
    parser.add_argument("--build-only", action="store_true",
                        help="build the wheel into the cache, unless it is there; install nothing")
    parser.add_argument("--self-test", action="store_true", help="only test what is installed")
    return parser.parse_args(arguments)  # fmt: skip


def save_sdist(file: Path) -> None:
    """Fetch the source and pack it."""
    with tempfile.TemporaryDirectory(prefix="minkowski-") as folder:
        environment = os.environ | {"TMPDIR": folder}
        source = fetch_source(Path(folder), None, Runner(Path(folder) / "log", environment))
        save_source(source, file)
    print(f"MinkowskiEngine's source is in {file}")


def fetch_missing(names: Sequence[str], log: Path) -> None:
    """Install by pip those packages that are not here.

    Raises:
        InstallError: there is no pip, or it fails.
    """
    if importlib.util.find_spec("pip") is None:
        raise InstallError(f"no pip in {sys.prefix}: {sys.executable} -m ensurepip --upgrade")
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        print(f"fetching {', '.join(missing)} by pip", flush=True)
        log.parent.mkdir(parents=True, exist_ok=True)
        Runner(log).run(pip("install", *missing))


def install(arguments: argparse.Namespace) -> None:
    """Install unless the wanted build is there already, then test it in a fresh interpreter.

    With `--build-only` it ends as soon as the wheel is in the cache.
    """
    if arguments.self_test:
        self_test()
        return
    if arguments.save_sdist:
        save_sdist(arguments.save_sdist)
        return
    target = choose_target(arguments)
    wheel = wheel_path(arguments.wheel_dir, target)
    if not is_installed(target):
        fetch_missing(NEEDED, wheel.with_suffix(".log"))
        if not wheel.exists():
            fetch_missing(BUILD_TOOLS, wheel.with_suffix(".log"))
            jobs = arguments.jobs or default_jobs(target.cuda is not None)
            build(target, wheel, arguments.sdist, jobs)
        if not arguments.build_only:
            Runner(wheel.with_suffix(".log")).run(pip(
                "install", "--no-deps", "--no-index", "--force-reinstall", "--no-cache-dir", wheel
            ))
    if arguments.build_only:
        return
    test = [sys.executable, "-m", "geonorm.minkowski.install", "--self-test"]
    if subprocess.run(test, check=False).returncode != 0:
        raise InstallError("it is installed and does not work; the self-test's message is above")


def main(arguments: Sequence[str]) -> str | None:
    """Run the command line; return what went wrong, in a few lines."""
    try:
        install(parse_arguments(arguments))
    except InstallError as error:
        return f"geonorm install-minkowski: {error}"
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
