#!/usr/bin/env python
"""What `make demo` runs: the built-in trainings one after another, and a table of their results."""

import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

TOOLS = Path(__file__).parent
# Each training, and its scores to show: the name in its val.json, and the name in the table.
SCANS = {"miou": "mIoU"}
VIDEOS = {"top1": "top-1", "still_top1": "one frame repeated: top-1"}
RUNS = {
    "scans: MinkUNet, instance norm": (["train_seg.py", "fit"], SCANS),
    "scans: each point alone (MLP)": (["train_seg.py", "fit", "--model.name", "PointMLP"], SCANS),
    "videos: 3D-ResNet, instance norm": (["train_action.py", "fit"], VIDEOS),
}


def new_folder() -> Path:
    """Return a folder for this demonstration that no earlier one used."""
    numbered = (Path("runs") / "demo" / f"{number:03d}" for number in itertools.count(1))
    folder = next(folder for folder in numbered if not folder.exists())
    folder.mkdir(parents=True)
    return folder


def main() -> None:
    """Run every training and print its scores, its time and where its pictures are."""
    folder = new_folder()
    lines = []
    for number, (title, ((script, *arguments), names)) in enumerate(RUNS.items(), start=1):
        print(f"\n=== {number} of {len(RUNS)}: {title}", flush=True)
        run_dir = folder / f"{number}-{Path(script).stem}"
        start = time.monotonic()
        command = [sys.executable, TOOLS / script, *arguments, "--run_dir", run_dir]
        subprocess.run(list(map(str, command)), check=True)
        minutes = (time.monotonic() - start) / 60
        found = json.loads((run_dir / "val.json").read_text())
        scores = [f"{name} {found[key]:.3f}" for key, name in names.items()]
        lines.append(f"{title:34}{scores[0]:12}{minutes:5.1f} min   {run_dir}")
        lines += [f"{'':34}{score}" for score in scores[1:]]
    print("\nOn streets and videos that none has seen; pictures, logs and checkpoints are in the "
          "folders:")  # fmt: skip
    print("\n".join(lines))


if __name__ == "__main__":
    main()
