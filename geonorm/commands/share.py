"""Write a folder that shares a trained network, and put it on the Hugging Face hub.

  geonorm share runs/train_seg/001/checkpoints/best.ckpt shared/street --licence mit

The folder has the weights as safetensors, the settings and a model card made of the run. It stands
wherever a checkpoint does, such as in geonorm predict; so does hf://OWNER/NAME.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geonorm.training.noise import silence

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


def parser() -> "ArgumentParser":
    """Return the parser of the command line."""
    from jsonargparse import ArgumentParser

    made = ArgumentParser(prog="geonorm share", description=__doc__)
    made.add_argument("checkpoint", help="a file that geonorm train-seg or train-action wrote")
    made.add_argument("folder", help="what to write")
    made.add_argument("--licence", required=True,
                      help="of the weights, by its SPDX name: mit, cc-by-4.0, ...")
    made.add_argument("--push", metavar="OWNER/NAME",
                      help="upload the folder to the Hugging Face hub under this name")
    made.add_argument("--private", type=bool, default=False,
                      help="make it there for its owner alone (false)")
    return made  # fmt: skip


def run(options: Any) -> None:
    """Write the folder, upload it where asked for, and print what was done."""
    from geonorm.training.sharing import push, share

    folder = Path(options.folder)
    share(Path(options.checkpoint), folder, options.licence)
    print(f"{folder}: weights, settings and README.md, the model card, which shows the run's "
          "configuration, paths of data among it: read it before others do")  # fmt: skip
    if options.push is not None:
        print(push(folder, options.push, private=options.private))


def main(arguments: Sequence[str] | None = None) -> str | None:
    """Run the command and return what went wrong."""
    silence()
    options = parser().parse_args(arguments)
    try:
        run(options)
    except ValueError as error:
        return f"geonorm share: {error}"
    return None
