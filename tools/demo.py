#!/usr/bin/env python
"""The demonstration: MinkUNet on built-in streets, and what a network without neighbourhoods does.

Both train equally long on the same streets and are judged on the same held-out ones.
"""

import json
import subprocess
import sys
from pathlib import Path

TOOLS = Path(__file__).resolve().parent
NETWORKS = {"MinkUNetSlim": "with instance norm", "PointMLP": "on each point's x, y, z, intensity"}


def main(args: list[str]) -> None:
    """Train both networks, handing on further options, and print their scores side by side."""
    scores = {}
    for name in NETWORKS:
        folder = Path("runs") / "demo" / name
        print(f"\n=== {name} ===", flush=True)
        subprocess.run(
            [sys.executable, TOOLS / "train_seg.py", "fit", "--model.name", name,
             "--run_dir", folder, *args], check=True,
        )  # fmt: skip
        scores[name] = json.loads((folder / "val.json").read_text())["miou"]
    print("\nmIoU on held-out streets after equal training time")
    for name, what in NETWORKS.items():
        print(f"  {name:<12} {scores[name]:.3f}  {what}")
    print(f"Pictures: {Path('runs') / 'demo' / 'MinkUNetSlim'}/*.png")


if __name__ == "__main__":
    main(sys.argv[1:])
