#!/usr/bin/env python
"""What `make demo` runs: the built-in trainings one after another, and a table of their results."""

import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

TOOLS = Path(__file__).parent
RUNS = {
    "MinkUNet, instance norm": ["train_seg.py", "fit"],
    "each point alone (MLP)": ["train_seg.py", "fit", "--model.name", "PointMLP"],
}


def new_folder() -> Path:
    """Return a folder for this demonstration that no earlier one used."""
    numbered = (Path("runs") / "demo" / f"{number:03d}" for number in itertools.count(1))
    folder = next(folder for folder in numbered if not folder.exists())
    folder.mkdir(parents=True)
    return folder


def main() -> None:
    """Run every training and print its score, its time and where its pictures are."""
    folder = new_folder()
    lines = []
    for number, (title, (script, *arguments)) in enumerate(RUNS.items(), start=1):
        print(f"\n=== {number} of {len(RUNS)}: {title}", flush=True)
        run_dir = folder / f"{number}-{Path(script).stem}"
        start = time.monotonic()
        command = [sys.executable, TOOLS / script, *arguments, "--run_dir", run_dir]
        subprocess.run(list(map(str, command)), check=True)
        minutes = (time.monotonic() - start) / 60
        scores = json.loads((run_dir / "val.json").read_text())
        lines.append(f"{title:26s} mIoU {scores['miou']:.3f}   {minutes:4.1f} min   {run_dir}")
    print("\nOn streets that neither has seen; pictures, logs and checkpoints are in the folders:")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
