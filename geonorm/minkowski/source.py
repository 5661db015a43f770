"""MinkowskiEngine's source: where it comes from, and the few places in it that must change."""

import hashlib
import sys
import tarfile
from pathlib import Path
from typing import NamedTuple

from geonorm.minkowski.edits import CPU_EDITS, CUDA_EDITS, EDITS, UNITS, Edit
from geonorm.minkowski.running import InstallError, Runner

VERSION = "0.5.4"
HEADER = Path(__file__).with_name("cuda13.h")


class Target(NamedTuple):
    """Target of a wheel: another target is another version, in the cache and installed.

    Args:
        torch: version of torch.
        cuda: version of the CUDA that torch was built with; None for the CPU alone.
        arches: compute capabilities, such as ("9.0",); none for the CPU.
        blas: whose matrix products run on the CPU, "openblas" or "torch".
    """

    torch: str
    cuda: str | None = None
    arches: tuple[str, ...] = ()
    blas: str = "openblas"

    @property
    def edits(self) -> tuple[Edit, ...]:
        """The changes that this target needs."""
        return EDITS + (CPU_EDITS if self.cuda is None else CUDA_EDITS)

    @property
    def version(self) -> str:
        """MinkowskiEngine's version with the target as its local part."""
        parts: list[object] = [(edit.file, edit.old, edit.new) for edit in self.edits]
        parts.append(UNITS if self.cuda is None else HEADER.read_text())
        if self.blas != "openblas":
            parts.append(self.blas)
        digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:8]
        names = [f"sm{arch.replace('.', '').replace('+', '').lower()}" for arch in self.arches]
        device = "cpu" if self.cuda is None else ".".join([f"cuda{self.cuda}", *names])
        return f"{VERSION}+torch{self.torch.replace('+', '.')}.{device}.{digest}"


def pip(*arguments: str | Path) -> list[str]:
    """Return the command line of this interpreter's pip."""
    return [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]


def build_settings(target: Target) -> list[str]:
    """Return pip's arguments for a build: in this environment, with the setup script's options."""
    # Any BLAS must be named: left to itself, the script imports numpy.distutils, which is gone.
    device = "--cpu_only" if target.cuda is None else "--force_cuda"
    # In one setting: of two with one name, pip before 23.1 (Debian 12's) keeps the last alone.
    return ["--no-deps", "--no-build-isolation", "--no-cache-dir", "--use-pep517",
            f"--config-settings=--global-option=--blas=openblas {device}"]  # fmt: skip


def fetch_source(scratch: Path, sdist: Path | None, runner: Runner) -> Path:
    """Unpack the source, from the given sdist or through pip, and return its folder."""
    if sdist is not None:
        if not sdist.is_file():
            raise InstallError(f"no source archive {sdist}; make one with --save-sdist FILE")
        with tarfile.open(sdist) as archive:
            archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4
            archive.extractall(scratch / "sdist")
        pattern = "sdist/*/setup.py"
    else:
        # `pip download` cannot pass the BLAS setting this setup script needs to tell its metadata;
        # a dry run can, and with --no-clean it leaves the source where TMPDIR points.
        runner.run(pip("install", "--dry-run", "--ignore-installed", "--no-clean",
                       "--no-binary=MinkowskiEngine", *build_settings(Target("")),
                       f"MinkowskiEngine=={VERSION}"))  # fmt: skip
        pattern = "pip-install-*/*/setup.py"
    found = list(scratch.glob(pattern))
    if len(found) != 1:
        raise InstallError(f"expected one source folder {scratch / pattern}, found {len(found)}")
    return found[0].parent


def save_source(source: Path, sdist: Path) -> None:
    """Pack a source folder, as it came, for a machine without a network."""
    sdist.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(sdist, "w:gz") as archive:
        archive.add(source, f"MinkowskiEngine-{VERSION}")


def mend_source(source: Path, target: Target) -> None:
    """Apply the edits, write the CPU's units and stamp the version.

    Raises:
        InstallError: an edit has no place in this source, or more than one.
    """
    stamp = Edit(
        "MinkowskiEngine/__init__.py",
        f'__version__ = "{VERSION}"',
        f'__version__ = "{target.version}"',
        "the wheel says what it was built for",
        "ever",
    )
    for edit in [*target.edits, stamp]:
        file = source / edit.file
        count = file.read_text().count(edit.old) if file.is_file() else 0
        if count != 1:
            raise InstallError(
                f"{edit.file}: expected {edit.old!r} exactly once, found it {count} times; this is "
                f"not MinkowskiEngine {VERSION}'s source"
            )
        file.write_text(file.read_text().replace(edit.old, edit.new))
    if target.cuda is None:
        for unit, sources in UNITS.items():
            lines = [f'#include "{name}.cpp"\n' for name in sources]
            (source / "src" / f"{unit}.cpp").write_text("".join(lines))
