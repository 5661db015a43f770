"""Build and install MinkowskiEngine 0.5.4 from PyPI's source, for the Python that runs this.

The wheel's version names what it was built for, as in 0.5.4+torch2.15.0.cu132.cpu.1a2b3c4d, so a
wheel in the cache, or an installed copy, is used again only where it fits: another torch is another
version. Run it with the interpreter to install into: `.venv/bin/python tools/install_minkowski.py`.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

VERSION = "0.5.4"
LAST_LINES = 40


class Edit(NamedTuple):
    """One change to the source: `old` must stand in `file` exactly once."""

    file: str
    old: str
    new: str
    why: str


MOVED_NAME = "Python 3.10 removed Sequence from collections; it is in collections.abc"
EDITS = [
    *(
        Edit(
            f"MinkowskiEngine/{file}.py",
            "from collections import Sequence",
            "from collections.abc import Sequence",
            MOVED_NAME,
        )
        for file in (
            "MinkowskiCommon",
            "MinkowskiCoordinateManager",
            "MinkowskiTensorField",
            "utils/quantization",
        )
    ),
    Edit(
        "MinkowskiEngine/MinkowskiKernelGenerator.py",
        "from collections import Sequence, namedtuple",
        "from collections import namedtuple\nfrom collections.abc import Sequence",
        MOVED_NAME,
    ),
]


class InstallError(Exception):
    """What went wrong and what to do about it."""


def wanted_version() -> str:
    """Return MinkowskiEngine's version with what it is built for as its local part."""
    torch_version = metadata.version("torch").replace("+", ".")
    digest = hashlib.sha256(repr(EDITS).encode()).hexdigest()[:8]
    return f"{VERSION}+torch{torch_version}.cpu.{digest}"


def wheel_path(wheel_dir: Path) -> Path:
    """Return where the wheel for this Python, torch and platform is cached."""
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    platform = re.sub(r"[-.]", "_", sysconfig.get_platform())
    return wheel_dir / f"minkowskiengine-{wanted_version()}-{python}-{python}-{platform}.whl"


def is_installed() -> bool:
    """Return whether exactly the wanted build is installed here."""
    try:
        return metadata.version("MinkowskiEngine") == wanted_version()
    except metadata.PackageNotFoundError:
        return False


def build_environment(scratch: Path, jobs: int) -> dict[str, str]:
    """Return the environment of the build.

    MinkowskiEngine's setup script calls `pip uninstall MinkowskiEngine`, which would take away a
    working copy even where the build then fails; a `pip` that does nothing stands first on PATH.
    """
    harmless = scratch / "bin"
    harmless.mkdir()
    (harmless / "pip").symlink_to(shutil.which("true") or "/bin/true")
    path = os.pathsep.join([str(harmless), str(Path(sys.executable).parent), os.environ["PATH"]])
    return os.environ | {"PATH": path, "TMPDIR": str(scratch), "MAX_JOBS": str(jobs)}


def pip(*arguments: str | Path) -> list[str]:
    """Return the command line of this interpreter's pip."""
    return [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]


BUILD_SETTINGS = ["--no-deps", "--no-build-isolation", "--no-cache-dir", "--use-pep517",
                  "--config-settings=--global-option=--blas=openblas"]  # fmt: skip


def fetch_source(scratch: Path, sdist: Path | None, log: Path, environment: dict[str, str]) -> Path:
    """Unpack the source, from the given sdist or through pip, and return its folder."""
    if sdist is not None:
        with tarfile.open(sdist) as archive:
            archive.extractall(scratch / "sdist", filter="data")
        pattern = "sdist/*/setup.py"
    else:
        # `pip download` cannot pass the BLAS setting this setup script needs to tell its metadata;
        # a dry run can, and with --no-clean it leaves the source where TMPDIR points.
        run(pip("install", "--dry-run", "--ignore-installed", "--no-clean",
                "--no-binary=MinkowskiEngine", *BUILD_SETTINGS, f"MinkowskiEngine=={VERSION}"),
            log, environment)  # fmt: skip
        pattern = "pip-install-*/*/setup.py"
    found = list(scratch.glob(pattern))
    if len(found) != 1:
        raise InstallError(f"expected one source folder {scratch / pattern}, found {len(found)}")
    return found[0].parent


def mend_source(source: Path) -> None:
    """Apply EDITS and stamp the version; refuse a source in which an edit has no single place."""
    stamp = Edit(
        "MinkowskiEngine/__init__.py",
        f'__version__ = "{VERSION}"',
        f'__version__ = "{wanted_version()}"',
        "the wheel says what it was built for",
    )
    for edit in [*EDITS, stamp]:
        text = (source / edit.file).read_text()
        if text.count(edit.old) != 1:
            raise InstallError(
                f"{edit.file}: expected {edit.old!r} exactly once, found it {text.count(edit.old)} "
                f"times; this is not MinkowskiEngine {VERSION}'s source"
            )
        (source / edit.file).write_text(text.replace(edit.old, edit.new))


def run(command: list[str], log: Path, environment: dict[str, str] | None = None) -> None:
    """Run a command into the log, showing the compiler's progress; raise with the log's end."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    with process, log.open("a") as file:
        for line in process.stdout or ():
            file.write(line)
            file.flush()
            if step := re.match(r"\s*\[(\d+/\d+)\]", line):
                print(f"\r  compiled {step[1]}", end="", flush=True)
                if len(set(step[1].split("/"))) == 1:
                    print()
    if process.returncode != 0:
        tail = "\n".join(log.read_text().splitlines()[-LAST_LINES:])
        raise InstallError(f"{' '.join(command[:5])} … failed:\n{tail}\nThe whole log: {log}")


def build(wheel: Path, sdist: Path | None, jobs: int) -> None:
    """Build the wheel and move it, whole, into the cache."""
    wheel.parent.mkdir(parents=True, exist_ok=True)
    log = wheel.with_suffix(".log")
    log.unlink(missing_ok=True)
    print(f"building MinkowskiEngine {wanted_version()} with {jobs} jobs; log: {log}", flush=True)
    with tempfile.TemporaryDirectory(prefix="minkowski-") as folder:
        scratch = Path(folder)
        environment = build_environment(scratch, jobs)
        source = fetch_source(scratch, sdist, log, environment)
        mend_source(source)
        run(pip("wheel", "--verbose", *BUILD_SETTINGS, "--wheel-dir", scratch / "out", source),
            log, environment)  # fmt: skip
        built = next((scratch / "out").glob("*.whl"))
        if built.name.lower() != wheel.name.lower():
            raise InstallError(f"expected the wheel {wheel.name}, the build made {built.name}")
        partial = wheel.with_suffix(".partial")
        shutil.copy(built, partial)
        partial.replace(wheel)


def self_test() -> None:
    """Run quantization, convolution, pooling and a transposed convolution, forward and backward."""
    import MinkowskiEngine as ME
    import torch

    torch.manual_seed(0)
    points = torch.randint(0, 12, (500, 3), dtype=torch.int32)
    coordinates, index = ME.utils.sparse_quantize(points, return_index=True)
    batched = ME.utils.batched_coordinates([coordinates, coordinates])
    features = torch.randn(len(batched), 4, requires_grad=True)
    x = ME.SparseTensor(features, batched)
    down = ME.MinkowskiConvolution(4, 8, kernel_size=3, stride=2, dimension=3)
    up = ME.MinkowskiConvolutionTranspose(8, 8, kernel_size=2, stride=2, dimension=3)
    pooled = ME.MinkowskiGlobalAvgPooling()(up(down(x)))
    pooled.F.square().sum().backward()
    if len(index) != len(coordinates) or pooled.F.shape != (2, 8):
        raise InstallError(f"self-test: expected (2, 8) pooled features, got {pooled.F.shape}")
    gradient = features.grad
    if gradient is None or not gradient.isfinite().all() or not gradient.any():
        raise InstallError("self-test: the gradient of the features is missing, zero or not finite")
    print(f"MinkowskiEngine {ME.__version__}: self-test passed")


def default_jobs() -> int:
    """Return the cores, or fewer where memory (3 GiB a compiler) is shorter."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(os.cpu_count() or 1, memory // (3 * 2**30)))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "geonorm" / "wheels"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=default_jobs(), help="compilers at a time")
    parser.add_argument("--wheel-dir", type=Path, default=cache, help=f"cache ({cache})")
    parser.add_argument("--sdist", type=Path, help="source archive to build from, with no network")
    parser.add_argument("--self-test", action="store_true", help="only test what is installed")
    return parser.parse_args()


def main() -> None:
    """Install unless the wanted build is there already, then test it in a fresh interpreter."""
    arguments = parse_arguments()
    if arguments.self_test:
        self_test()
        return
    wheel = wheel_path(arguments.wheel_dir)
    if not is_installed():
        if not wheel.exists():
            build(wheel, arguments.sdist, arguments.jobs)
        run(pip("install", "--no-deps", "--no-index", "--force-reinstall", "--no-cache-dir", wheel),
            wheel.with_suffix(".log"))  # fmt: skip
    subprocess.run([sys.executable, __file__, "--self-test"], check=True)


if __name__ == "__main__":
    try:
        main()
    except InstallError as error:
        sys.exit(f"install_minkowski: {error}")
