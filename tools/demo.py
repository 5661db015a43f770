#!/usr/bin/env python
"""Show geonorm on built-in data: an invariance table and figure, then trainings, shortest first.

`make demo` runs this, some twenty minutes on two cores; `make demo QUICK=1` in three.
"""

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

TOOLS = Path(__file__).parent
# Each training, and its scores to show: the name in its val.json, and the name in the table.
SCANS = {"miou": "mIoU"}
VIDEOS = {"top1": "top-1", "still_top1": "one frame repeated: top-1"}
RUNS = {
    "scans: each point alone (MLP)": (["train_seg.py", "fit", "--model.name=PointMLP"], SCANS),
    "scans: MinkUNet, instance norm": (["train_seg.py", "fit"], SCANS),
    "videos: 3D-ResNet, instance norm in layers 1-2": (["train_action.py", "fit"], VIDEOS),
}
WHY = """The video network has instance norm in its stem, layer1 and layer2, and no norm in layer3
and layer4: of these small clips nine positions are left there, and a norm over nine values would
take out nearly all that tells one clip from another."""
BRIEF = """These trainings were too short to learn from: of twelve kinds of motion, one guess in
twelve is right by chance, 0.083. `make demo` without QUICK trains longer."""
QUICK = {
    "train_seg.py": ["--trainer.max_time=00:00:00:18", "--data.val.init_args.num_scans=6"],
    "train_action.py": ["--trainer.max_time=00:00:00:15", "--data.train.init_args.num_videos=360",
                        "--data.val.init_args.num_videos=48"],
}  # fmt: skip


def new_folder() -> Path:
    """Return a folder for this demonstration that no earlier one used."""
    numbered = (Path("runs") / "demo" / f"{number:03d}" for number in itertools.count(1))
    folder = next(folder for folder in numbered if not folder.exists())
    folder.mkdir(parents=True)
    return folder


def run(title: str, script: str, *arguments: object) -> float:
    """Run a script of this folder under a title; return its time in minutes."""
    print(f"\n=== {title}", flush=True)
    start = time.monotonic()
    subprocess.run([sys.executable, TOOLS / script, *map(str, arguments)], check=True)
    return (time.monotonic() - start) / 60


def main() -> None:
    """Run everything; print the scores, the time of each and where its pictures are."""
    folder, quick, lines = new_folder(), os.environ.get("QUICK", "") not in ("", "0"), []
    figure = folder / "invariance.png"
    run("What leaves each norm's output unchanged", "verify_invariance.py", "--plain=true",
        f"--figure={figure}")  # fmt: skip
    print(f"The same as a picture: {figure}")
    for number, (title, ((script, *arguments), names)) in enumerate(RUNS.items(), start=1):
        run_dir = folder / f"{number}-{Path(script).stem}"
        limits = QUICK[script] if quick else []
        heading = f"{number} of {len(RUNS)}: {title}"
        minutes = run(heading, script, *arguments, *limits, f"--run_dir={run_dir}")
        found = json.loads((run_dir / "val.json").read_text())
        scores = [f"{name} {found[key]:.3f}" for key, name in names.items()]
        lines.append(f"{title:48}{scores[0]:12}{minutes:5.1f} min   {run_dir}")
        lines += [f"{'':48}{score}" for score in scores[1:]]
    print("\nOn streets and videos kept from the trainings; pictures, logs and checkpoints are in "
          "the folders:")  # fmt: skip
    print("\n".join([*lines, "", WHY, *(["", BRIEF] if quick else [])]))


if __name__ == "__main__":
    main()
