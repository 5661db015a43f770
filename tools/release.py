"""Build the source distribution and the wheel, and check them in fresh environments.

  python tools/release.py                                    into dist/
  python tools/release.py --check python3.11 python3.13      and install and try them
  python tools/release.py --dist dist --check python3.13     try what is in dist/ already

The wheel is made of the source distribution, and that of the last commit, in a clone. A check
installs the source distribution with its extras `train` and `hub` into an environment of its own,
as a user does, and runs the layers, a training, a prediction from a shared folder and, with
--minkowski, MinkUNet. It needs nothing but Python.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SDIST = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
LAYERS = """
import geonorm, torch
from geonorm.models import r3d_18
clip = torch.randn(1, 3, 8, 32, 32)
if geonorm.backends()["cpp"] != "available":
    raise SystemExit(f"the C++ backend must be available; got {geonorm.backends()}")
if (shape := r3d_18(num_classes=5)(clip).shape) != (1, 5):
    raise SystemExit(f"r3d_18 must give (1, 5); got {tuple(shape)}")
rows, scan = torch.randn(9, 4), torch.arange(9) % 2
norm = geonorm.InstanceNorm(4)
for one in (0, 1):
    mine = rows[scan == one]
    expected = (mine - mine.mean(0)) / (mine.var(0, correction=0) + norm.eps).sqrt()
    torch.testing.assert_close(norm(rows, scan)[scan == one], expected)
print("layers of geonorm", geonorm.__version__, "work in", geonorm.__file__)
"""
FILM = """
import numpy as np
from geonorm.datasets.video_io import write_video
frames = np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3), dtype=np.uint8)
write_video("film.mp4", frames)
np.random.default_rng(1).random((500, 4), dtype=np.float32).tofile("scan.bin")
"""
SHORT = ["--data.num_workers=0", "--data.train.init_args.num_videos=12",
         "--data.val.init_args.num_videos=12", "--data.batch_size=6", "--data.clip.length=4",
         "--data.clip.size=36", "--data.clip.crop=32", "--model.name=resnet3d_10",
         "--trainer.max_epochs=1", "--trainer.accelerator=cpu"]  # fmt: skip
SHORT_SCANS = ["--data.num_workers=0", "--data.train.init_args.num_scans=2",
               "--data.val.init_args.num_scans=1", "--data.batch_size=1", "--data.voxel_size=0.8",
               "--trainer.max_epochs=1", "--trainer.accelerator=cpu"]  # fmt: skip


def run(*words: object, **options: object) -> None:
    """Run a command, shown, and end where it fails."""
    print("+", *words, flush=True)
    if (code := subprocess.run([*map(str, words)], check=False, **options).returncode) != 0:
        sys.exit(f"tools/release.py: {words[0]} ended with {code}")


def build(folder: Path) -> None:
    """Write the source distribution and, made of it, this machine's wheel into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        run("git", "clone", "--quiet", ROOT, f"{temporary}/clone")
        run(sys.executable, "-c", SDIST, folder, cwd=f"{temporary}/clone",
            stdout=subprocess.DEVNULL)  # fmt: skip
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
        "--no-cache-dir", "--wheel-dir", folder, sdist_in(folder))  # fmt: skip


def sdist_in(folder: Path) -> Path:
    """Return the one source distribution in a folder."""
    found = list(folder.glob("geonorm-*.tar.gz"))
    if len(found) != 1:
        sys.exit(f"tools/release.py: expected one geonorm-*.tar.gz in {folder}; got {len(found)}")
    return found[0]


def check(sdist: Path, interpreter: str, minkowski: bool) -> None:
    """Install a source distribution into a fresh environment and use it in an empty folder."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run(interpreter, "-m", "venv", folder / "fresh")
        python, geonorm = folder / "fresh/bin/python", folder / "fresh/bin/geonorm"
        pip = (python, "-m", "pip", "install", "--quiet", "--no-cache-dir",
               "--constraint", ROOT / "constraints.txt")  # fmt: skip
        run(*pip, "torch", "torchvision", "setuptools", "wheel", "ninja")
        run(*pip, "--no-build-isolation", f"geonorm[train,hub] @ {sdist.resolve().as_uri()}")
        (folder / "empty").mkdir()
        place = {"cwd": folder / "empty",
                 "env": os.environ | {"GEONORM_CACHE": str(folder / "cache")}}  # fmt: skip
        run(python, "-W", "error::DeprecationWarning:geonorm", "-c", LAYERS, **place)
        run(python, "-c", FILM, **place)
        run(geonorm, "train-action", *SHORT, **place)
        checkpoint = "runs/train_action/001/checkpoints/last.ckpt"
        run(geonorm, "share", checkpoint, "shared", "--licence=mit", **place)
        run(geonorm, "predict", "shared", "film.mp4", **place)
        if minkowski:
            run(geonorm, "install-minkowski", cwd=folder / "empty")
            run(geonorm, "train-seg", *SHORT_SCANS, **place)
            run(geonorm, "predict", "runs/train_seg/001/checkpoints/last.ckpt", "scan.bin", **place)
            run(geonorm, "doctor", **place)
        print(f"{sdist.name} works with {interpreter}", flush=True)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dist", type=Path, help="a folder with a source distribution to check")
    parser.add_argument("--check", nargs="+", default=[], metavar="PYTHON",
                        help="interpreters to make fresh environments with")  # fmt: skip
    parser.add_argument("--minkowski", action="store_true",
                        help="check networks for scans, too: builds MinkowskiEngine")  # fmt: skip
    options = parser.parse_args()
    if options.dist is None:
        build(ROOT / "dist")
    for interpreter in options.check:
        check(sdist_in(options.dist or ROOT / "dist"), interpreter, options.minkowski)


if __name__ == "__main__":
    main()
