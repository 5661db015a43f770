#!/usr/bin/env python
"""Measure what a training moves and takes here, and work out runs on 1 to 1,000 GPUs from it.

  python tools/cost_model.py measure             bytes and times on this machine, as a table
  python tools/cost_model.py plan --network MinkUNet34C --step 0.2 --batch 2 --samples 19130

`measure` writes 120 scans of 120,000 points as loose files and as shards, and reads both in turns.
`plan` takes the seconds of a step on one GPU, which nobody has measured here: measure yours, with
the throughput in the log of a run. The gradients are exchanged by rings, each GPU sending and
receiving nearly twice their bytes; nothing is assumed to overlap with computing.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed, multiprocessing, nn

from geonorm.datasets import ScanShards, SemanticKITTI, SyntheticStreets, collate_scans
from geonorm.datasets.scan_shards import write_scan_shards
from geonorm.models.minkunet import ME
from geonorm.training.action import networks as clips
from geonorm.training.segmentation import networks as scans

SCANS, POINTS, ROUNDS = 120, 120_000, 7
GPUS = (1, 8, 64, 256, 1000)
BYTES = {"scan": 17 * POINTS, "clip": 300_000}  # of a sample, for the plan; measure yours


def network(name: str) -> nn.Module:
    """Return a network of train-seg for 19 classes, or of train-action for 400."""
    of_scans = name.startswith("MinkUNet")
    return scans.build(name, "instance", 19) if of_scans else clips.build(name, "instance", 400)


def gradient_bytes(name: str) -> int:
    """Return how many bytes of gradients each step exchanges, in float32."""
    return 4 * sum(weight.numel() for weight in network(name).parameters())


def write(folder: Path) -> None:
    """Write scans in SemanticKITTI's layout."""
    rng = np.random.default_rng(0)
    place = folder / "sequences/00"
    for name in ("velodyne", "labels"):
        (place / name).mkdir(parents=True)
    for number in range(SCANS):
        rows = np.hstack([rng.normal(0, 20, (POINTS, 3)), rng.random((POINTS, 1))]).astype("<f4")
        rows.tofile(place / f"velodyne/{number:06d}.bin")
        ids = rng.choice([10, 40, 50, 70], POINTS).astype("<u4")
        ids.tofile(place / f"labels/{number:06d}.label")


def rate(dataset: SemanticKITTI | ScanShards, order: np.ndarray) -> float:
    """Return how many scans a second one process reads, in an order."""
    start = time.perf_counter()
    for number in order:
        dataset[int(number)]
    return len(order) / (time.perf_counter() - start)


def step_seconds(name: str) -> float:
    """Return the seconds of a forward and backward pass of one sample, by one core."""
    model = network(name)
    if name.startswith("MinkUNet"):
        batch = collate_scans([SyntheticStreets(1)[0]], voxel_size=0.1)
        inputs: Any = ME.SparseTensor(batch.features, batch.coordinates)
        print(f"{name}: a scan of {len(batch.points):,} points, {len(batch.features):,} voxels")
    else:
        inputs = torch.randn(1, 3, 16, 112, 112)
    times = []
    for _ in range(4):
        start = time.perf_counter()
        out = model(inputs)
        (out if isinstance(out, torch.Tensor) else out.F).square().mean().backward()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def exchange(rank: int, folder: str) -> None:
    """Time gloo's sum of 32 MB over two processes of this machine."""
    distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    gradients, times = torch.ones(8_000_000), []
    for _ in range(6):
        start = time.perf_counter()
        distributed.all_reduce(gradients)
        times.append(time.perf_counter() - start)
    if rank == 0:
        print(f"gloo, two processes of this machine: {statistics.median(times):.3f} s for 32 MB")
    distributed.destroy_process_group()


def measure() -> None:
    """Print the bytes of gradients, and the rates of reading, as medians of rounds in turns."""
    for name in ("MinkUNet14A", "MinkUNet18", "MinkUNet34C", "r3d_18"):
        print(f"{name}: {gradient_bytes(name) / 1e6:.1f} MB of gradients a step")
    for name in ("MinkUNet14A", "r3d_18"):
        print(f"{name}: {step_seconds(name):.2f} s forward and backward, one sample, one core")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        multiprocessing.spawn(exchange, (folder,), nprocs=2)
        write(root)
        loose = SemanticKITTI(root, ["00"])
        write_scan_shards(loose, root / "shards/train")
        read = {"loose": loose, "again": loose, "shards": ScanShards(root / "shards")}
        rates: dict[str, list[float]] = {name: [] for name in read}
        for seed in range(ROUNDS):
            order = np.random.default_rng(seed).permutation(SCANS)
            for name, dataset in read.items():
                rates[name].append(rate(dataset, order))
        size = sum(path.stat().st_size for path in root.glob("shards/train/*.tar")) / SCANS
    print(f"{20 * POINTS / 1e6:.2f} MB of a loose scan, {size / 1e6:.2f} MB in a shard")
    for name, found in rates.items():
        spread = f"{min(found):.0f} to {max(found):.0f}"
        print(f"{name}: {statistics.median(found):.0f} scans/s by one process ({spread})")


def plan(options: argparse.Namespace) -> None:
    """Print what a run needs for each number of GPUs."""
    gradients = gradient_bytes(options.network)
    size = BYTES["scan" if options.network.startswith("MinkUNet") else "clip"]
    print("| GPUs | exchange, ms | step, ms | samples/s | epoch, min | read, GB/s | efficiency |")
    print("|---|---|---|---|---|---|---|")
    for gpus in GPUS:
        exchange = 2 * (gpus - 1) / gpus * gradients / (options.link * 1e9)
        step = options.step + exchange
        speed = gpus * options.batch / step
        print(f"| {gpus:,} | {1e3 * exchange:.1f} | {1e3 * step:.1f} | {speed:,.0f} "
              f"| {options.samples / speed / 60:.2f} | {speed * size / 1e9:.2f} "
              f"| {options.step / step:.0%} |")  # fmt: skip


def main() -> None:
    """Run the command line."""
    raw = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("measure")
    planned = commands.add_parser("plan")
    planned.add_argument("--network", default="MinkUNet34C")
    planned.add_argument("--step", type=float, required=True, help="seconds of a step on one GPU")
    planned.add_argument("--batch", type=int, default=2, help="samples in a step on one GPU")
    planned.add_argument("--samples", type=int, default=19130, help="in an epoch")
    planned.add_argument("--link", type=float, default=25.0, help="GB/s between two GPUs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    measure() if options.command == "measure" else plan(options)


if __name__ == "__main__":
    main()
