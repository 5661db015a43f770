#!/usr/bin/env python
"""Train MinkUNet and r3d_18 for some steps on a device: do they learn, how long is a step, how big.

  python tools/gpu/steps.py --device cuda --steps 300 --csv steps.csv

Plain torch, without Lightning, so that it runs where only torch, numpy and MinkowskiEngine are.
Few scans and clips are shown over and over: a network whose gradients are right learns them by
heart. Exits with 1 where the loss does not fall to a tenth of what guessing costs, ln(classes);
fewer than 100 steps are too few to judge by.
"""

import argparse
import csv
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from geonorm.training.threads import share_cores

share_cores()

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from geonorm.training.invariance.plain import CLASSES, MOTIONS, clips, street  # noqa: E402

MUST_FALL_TO = 0.1  # of what guessing costs, ln(classes)
JUDGED_FROM = 100  # steps
WINDOW = 10  # steps whose losses are averaged, at both ends
WARM_UP = 5  # steps that compile, allocate and choose algorithms


def scan_batches(points: int, device: str) -> Iterator[tuple[object, Tensor]]:
    """Yield sparse tensors of two streets each, and the class of every voxel."""
    import MinkowskiEngine as ME

    from geonorm.datasets.voxelize import collate_scans

    drawn = [collate_scans([street(2 * i, points), street(2 * i + 1, points)], 0.2)
             for i in range(4)]  # fmt: skip
    for number in count():
        batch = drawn[number % len(drawn)]
        coordinates = batch.coordinates.to(device, non_blocking=True)
        features = batch.features.to(device, non_blocking=True)
        yield ME.SparseTensor(features, coordinates), batch.labels.to(device, non_blocking=True)


def clip_batches(frames: int, size: int, device: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield clips and their classes."""
    drawn = [clips(i, 8, frames, size) for i in range(4)]
    for number in count():
        video, labels = drawn[number % len(drawn)]
        yield video.to(device, non_blocking=True), labels.to(device, non_blocking=True)


def minkunet(norm: str) -> nn.Module:
    """Return the network for scans."""
    from geonorm.models import MinkUNet14A

    return MinkUNet14A(4, len(CLASSES), norm=norm)


def resnet(norm: str) -> nn.Module:
    """Return the network for clips."""
    from geonorm.models import r3d_18

    return r3d_18(num_classes=len(MOTIONS), norm=norm)


def train(network: nn.Module, batches: Iterator[tuple[object, Tensor]], steps: int, device: str,
          precision: str, forward: Callable[[object], Tensor], rate: float = 1e-3
          ) -> dict[str, object]:
    """Train and return the first and the last loss, the time of a step and the peak of memory."""
    cuda = device.startswith("cuda")
    wait = torch.cuda.synchronize if cuda else lambda: None
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate)
    losses, times = [], []
    half = precision == "bf16"
    for _ in range(steps):
        x, labels = next(batches)
        wait()
        start = time.perf_counter()
        with torch.autocast(device.split(":")[0], torch.bfloat16) if half else nullcontext():
            logits = forward(x).float()
            loss = F.cross_entropy(logits, labels, ignore_index=255)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        wait()
        times.append(time.perf_counter() - start)
        losses.append(loss.detach())
    known = torch.stack(losses).tolist()
    window = min(WINDOW, steps // 2)
    first, last = (statistics.fmean(part) for part in (known[:window], known[-window:]))
    peak = torch.cuda.max_memory_allocated() / 2**20 if cuda else float("nan")
    return {
        "steps": steps,
        "first loss": round(first, 4),
        "last loss": round(last, 4),
        "ms a step (p50)": round(1e3 * statistics.median(times[min(WARM_UP, steps - 1) :]), 2),
        "peak MiB": round(peak, 1),
        "learned": last <= MUST_FALL_TO * math.log(logits.shape[1]),
    }


def runs(arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Train each network in each way that the device has; yield a row for each."""
    device, steps = arguments.device, arguments.steps
    for norm, precision in (("instance", "float32"), ("batch", "float32"), ("instance", "bf16")):
        torch.manual_seed(0)
        network = minkunet(norm).to(device)
        result = train(network, scan_batches(arguments.points, device), steps, device, precision,
                       lambda x, network=network: network(x).F)  # fmt: skip
        yield {"network": "MinkUNet14A", "norm": norm, "precision": precision, "compile": "no",
               **result}  # fmt: skip
    compiled = ("no", "default", "reduce-overhead") if device.startswith("cuda") else ("no",)
    ways = [("instance", "float32", "no"), ("batch", "float32", "no")]
    ways += [("instance", "bf16", way) for way in compiled]
    for norm, precision, way in ways:
        torch.manual_seed(0)
        network = resnet(norm).to(device)
        if way != "no":
            network.compile(mode=way)
        result = train(network, clip_batches(arguments.frames, arguments.size, device), steps,
                       device, precision, network)  # fmt: skip
        yield {"network": "r3d_18", "norm": norm, "precision": precision, "compile": way, **result}


def main() -> int:
    """Run everything, print and write the rows; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--points", type=int, default=20_000, help="points of a scan")
    parser.add_argument("--frames", type=int, default=8, help="frames of a clip")
    parser.add_argument("--size", type=int, default=32, help="height and width of a clip")
    parser.add_argument("--csv", type=Path, default=Path("steps.csv"))
    arguments = parser.parse_args()  # fmt: skip
    name = "cpu"
    if arguments.device.startswith("cuda"):
        name = torch.cuda.get_device_name(arguments.device)
    judged, failed, ways = arguments.steps >= JUDGED_FROM, 0, 0
    with arguments.csv.open("w", newline="") as file:
        writer = None
        for row in runs(arguments):
            row |= {"device": name, "torch": torch.__version__}
            writer = writer or csv.DictWriter(file, row)
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(row)
            file.flush()
            failed += judged and not row["learned"]
            ways += 1
            print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    verdict = f"{failed} did not learn" if judged else "too few steps to judge by"
    print(f"{ways} ways to train, {arguments.steps} steps each: {verdict}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
