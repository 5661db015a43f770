"""Export a network for videos, for programs that run without geonorm.

  geonorm export runs/train_action/001/checkpoints/best.ckpt action.onnx
  geonorm export runs/train_action/001/checkpoints/best.ckpt action.pt2

.onnx has standard operators and is checked by onnxruntime against torch; .pt2 is a program of
torch.export, compiled for this kind of processor with --compile true.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geonorm.training.noise import silence
from geonorm.training.threads import share_cores

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


def parser() -> "ArgumentParser":
    """Return the parser of the command line."""
    from jsonargparse import ArgumentParser

    made = ArgumentParser(prog="geonorm export", description=__doc__)
    made.add_argument("checkpoint", help="a file that geonorm train-action wrote, or a folder of "
                      "geonorm share")
    made.add_argument("file", help="what to write: a file that ends in .onnx or .pt2")
    made.add_argument("--compile", type=bool, default=False,
                      help="of .pt2: compile it by AOTInductor (false)")
    return made  # fmt: skip


def run(options: Any) -> None:
    """Write the file and print what its users must know."""
    import torch

    from geonorm.export import decomposed, exported, to_onnx
    from geonorm.files import written_whole
    from geonorm.training.action.predictor import ClipPredictor

    path = Path(options.file)
    if path.suffix not in (".onnx", ".pt2"):
        raise ValueError(f"expected a file that ends in .onnx or .pt2; got {path}")
    if path.suffix == ".onnx" and options.compile:
        raise ValueError("--compile is of .pt2; leave it out or name another file")
    predictor = ClipPredictor(options.checkpoint)
    path.parent.mkdir(parents=True, exist_ok=True)
    clip, network = predictor.clip, predictor.module.network()
    frames = clip.length
    while frames < 32:  # of which the last stage of every network still has two
        frames *= 2
    example = torch.randn(2, 3, frames, clip.crop, clip.crop)
    notes = {
        "classes": json.dumps(predictor.classes), "mean": json.dumps(clip.mean),
        "std": json.dumps(clip.std), "frames": str(clip.length),
    }  # fmt: skip
    if path.suffix == ".onnx":
        worst = to_onnx(network, example, path, notes=notes)
        print(f"onnxruntime's scores differ from torch's by {worst:.1e} of the largest")
    else:
        program = decomposed(exported(network, example, dynamic=(0, 2)))
        with written_whole(path) as aside:
            if options.compile:
                torch._inductor.aoti_compile_and_package(program, package_path=str(aside))
            else:
                torch.export.save(program, aside, extra_files=notes)
    print(
        f"{path}: takes clips (batch, 3, frames, {clip.crop}, {clip.crop}) in [0, 1], less the "
        f"mean {clip.mean} and over the deviation {clip.std} of the colours, and gives scores "
        f"(batch, {len(predictor.classes)}) before the softmax. Trained on {clip.length} frames"
    )


def main(arguments: Sequence[str] | None = None) -> str | None:
    """Run the command and return what went wrong."""
    share_cores()
    silence()
    options = parser().parse_args(arguments)
    try:
        run(options)
    except ValueError as error:
        return f"geonorm export: {error}"
    return None
