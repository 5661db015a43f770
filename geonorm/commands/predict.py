"""Classify the points of scans, or videos, with a checkpoint of a training.

  geonorm predict runs/train_seg/001/checkpoints/best.ckpt a.bin b.ply c.pcd d.npy
  geonorm predict runs/train_action/001/checkpoints/best.ckpt a.mp4 b.avi

The checkpoint tells whether the files are scans or videos. A folder stands for the scans in it, and
with --watch for those that a recording puts there while the command runs.
"""

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from geonorm.training.noise import silence
from geonorm.training.threads import share_cores

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

SCANS = """For each scan, FOLDER gets a .label file with the id of every point's class in
SemanticKITTI (0 where a value is not finite), and a picture. Scans are .bin (float32 x, y, z,
intensity), .npy of shape (N, 4), .ply and .pcd; x, y, z in metres, x ahead and z up."""
VIDEOS = "For each video, FOLDER gets a film with the scores below, and a strip of frames."


def seconds(word: str) -> float:
    """Return a time; jsonargparse's own float knows no infinity."""
    return float(word)


def parser() -> "ArgumentParser":
    """Return the parser of the command line."""
    from jsonargparse import ArgumentParser

    made = ArgumentParser(prog="geonorm predict", description=__doc__)
    made.add_argument("checkpoint", help="a file that geonorm train-seg or train-action wrote, a "
                      "folder of geonorm share, or hf://OWNER/NAME")
    made.add_argument("files", nargs="+", help="scans, folders of scans, or videos")
    made.add_argument("--out", metavar="FOLDER", default="predictions",
                      help="where the results go (predictions)")
    made.add_argument("--device", default="auto", help="cpu, cuda or auto: a GPU where it can be")
    made.add_argument("--attribution", choices=("integrated_gradients",),
                      help="write what of the input the scores came from, for geonorm view")
    made.add_argument("--target", metavar="CLASS",
                      help="the class whose score an attribution is of (what is predicted)")
    made.add_argument("--statistics", type=bool, default=False, help="write the means and "
                      "deviations that the instance norms took out, for geonorm view (false)")
    scans = made.add_argument_group("of scans", SCANS)
    scans.add_argument("--resume", type=bool, default=False,
                       help="keep a list of what is done, and go on where it ends (false)")
    scans.add_argument("--watch", type=seconds, metavar="SECONDS",
                       help="go on with scans that come into the folders, until none has for so "
                       "long, or for ever (inf), or until a signal ends the command; resumes, too")
    scans.add_argument("--format", choices=("label", "npy"), default="label",
                       help="npy: the numbers of the classes instead, 255 for none")
    scans.add_argument("--pictures", type=bool, default=True, help="draw each scan (true)")
    scans.add_argument("--ply", type=bool, default=False,
                       help="write the points in their classes' colours too (false)")
    scans.add_argument("--intensity_max", type=float, default=1.0,
                       help="intensity in the files that counts as 1, such as 255 (1)")
    scans.add_argument("--votes", type=int, default=1,
                       help="views of each scan whose scores are averaged (1)")
    scans.add_argument("--chunk", type=float, metavar="METRES",
                       help="edge of the overlapping squares into which large scans are cut (none)")
    scans.add_argument("--overlap", type=float, default=0.5,
                       help="share of a square's edge that lies in the next one too (0.5)")
    scans.add_argument("--domain", type=int,
                       help="of a network with domain norms: the data set they are like, from 0")
    videos = made.add_argument_group("of videos", VIDEOS)
    videos.add_argument("--views", type=int, help="clips of each video whose scores are averaged")
    videos.add_argument("--num_workers", type=int, default=0, help="processes that decode (0)")
    return made  # fmt: skip


def usable_device(asked: str, scans: bool) -> str:
    """Return the device that "auto" stands for: a GPU where torch and the engine can use one."""
    import torch

    if asked != "auto":
        return asked
    if not torch.cuda.is_available():
        return "cpu"
    if scans:
        import MinkowskiEngine as ME

        return "cuda" if ME.is_cuda_available() else "cpu"
    return "cuda"


@contextmanager
def ended_by_signals(stop: Event) -> Iterator[None]:
    """Set an event at the first SIGINT or SIGTERM in the block; the second has its usual effect."""

    def handle(number: int, _: object) -> None:
        stop.set()
        restore()
        print("ends after this scan", file=sys.stderr, flush=True)

    def restore() -> None:
        for each, handler in before.items():
            signal.signal(each, handler)

    before = {each: signal.signal(each, handle) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        restore()


def predict(options: Any) -> int:
    """Predict every file; return 1 where one could not be read."""
    from geonorm.training.attributions import Explanation
    from geonorm.training.sharing import located, read_network

    explanation = Explanation(options.attribution, options.target, options.statistics)
    checkpoint, folder = located(options.checkpoint), Path(options.out)
    files = [Path(file) for file in options.files]
    kinds = {"ScanData", "ClipData"} & read_network(checkpoint).keys()
    if kinds == {"ScanData"}:
        from geonorm.datasets.views import Viewing
        from geonorm.training.segmentation.predict import Output
        from geonorm.training.segmentation.predictor import ScanPredictor
        from geonorm.training.segmentation.stream import Stream

        output = Output(options.format, options.pictures, options.ply)
        device = usable_device(options.device, scans=True)
        viewing = Viewing(options.votes, options.chunk, options.overlap)
        predictor = ScanPredictor(checkpoint, device, options.domain, viewing)
        stream = Stream(options.resume, options.watch)
        with ended_by_signals(stream.stop) if stream.keeps_journal else nullcontext():
            failed = predictor.predict_files(
                files, folder, output, options.intensity_max, stream, explanation
            )
        return 1 if failed else 0
    if kinds == {"ClipData"}:
        from geonorm.training.action.predictor import ClipPredictor

        if options.resume or options.watch is not None:
            raise ValueError("--resume and --watch are of scans; the network is of videos")
        device = usable_device(options.device, scans=False)
        clips = ClipPredictor(checkpoint, device, options.views)
        return 1 if clips.predict_files(files, folder, options.num_workers, explanation) else 0
    raise ValueError(
        f"{checkpoint} does not say what it was trained on, scans or videos; expected a checkpoint "
        "of geonorm train-seg or train-action"
    )


def main(arguments: Sequence[str]) -> int | str:
    """Run the command line; return the exit status, or what was wrong with the input."""
    share_cores()
    silence()
    for stream in (sys.stdout, sys.stderr):  # names of files need not be text
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        return predict(parser().parse_args(list(arguments)))
    except ValueError as error:
        return f"geonorm predict: {error}"
