"""Train, predict, verify and install from the command line: `geonorm`, or `python -m geonorm`."""

import sys
from collections.abc import Sequence
from importlib import import_module

from geonorm._version import __version__
from geonorm.names import choices

# The module of each command, which is imported when it is called, and what it does.
COMMANDS = {
    "train-seg": ("geonorm.commands.train_seg", "train and test MinkUNet on scans"),
    "train-action": ("geonorm.commands.train_action", "train and test 3D-ResNets on videos"),
    "submit": ("geonorm.commands.submit", "run a training on SLURM, or by several processes"),
    "predict": ("geonorm.commands.predict", "classify the points of scans, or videos"),
    "view": ("geonorm.commands.view", "show scans or videos in a page, with predictions"),
    "report": ("geonorm.commands.report", "write a page about runs, one or several side by side"),
    "export": ("geonorm.commands.export", "write a network for videos as ONNX or a program"),
    "share": ("geonorm.commands.share", "write a folder that shares a network, for the hub too"),
    "evaluate-shift": ("geonorm.commands.evaluate_shift", "measure how scores fall under shift"),
    "verify": ("geonorm.commands.verify", "measure what leaves each norm unchanged, and what not"),
    "study": ("geonorm.commands.study", "measure what instance norm is said to do"),
    "install-minkowski": ("geonorm.minkowski.install", "build and install MinkowskiEngine"),
    "doctor": ("geonorm.commands.doctor", "say what is installed, what works and what is missing"),
}
# The package that holds each module that a command may lack, where they have different names.
PACKAGES = {
    "MinkowskiEngine": "geonorm install-minkowski",
    "diffusers": "pip install 'geonorm[studies]'",
    "fairlearn": "pip install 'geonorm[studies]'",
    "google": "pip install 'geonorm[data]'",  # protobuf
    "huggingface_hub": "pip install 'geonorm[hub]'",
    "laspy": "pip install 'geonorm[data]'",
    "lazrs": "pip install 'geonorm[data]'",
    "onnx": "pip install 'geonorm[export]'",
    "onnxruntime": "pip install 'geonorm[export]'",
    "onnxscript": "pip install 'geonorm[export]'",
    "parselmouth": "pip install 'geonorm[studies]'",
    "pyarrow": "pip install 'geonorm[data]'",
    "safetensors": "pip install 'geonorm[hub]'",
    "scipy": "pip install 'geonorm[studies]'",
    "sklearn": "pip install 'geonorm[studies]'",
    "submitit": "pip install 'geonorm[scale]'",
    "webdataset": "pip install 'geonorm[scale]'",
}


def usage() -> str:
    """Return the list of commands."""
    lines = [f"  {name:<20}{does}" for name, (_, does) in COMMANDS.items()]
    return "\n".join([
        f"geonorm {__version__}: instance normalization for point clouds and video\n",
        "usage: geonorm COMMAND ...\n",
        *lines,
        "\ngeonorm COMMAND --help shows the options of a command.",
    ])  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int | str | None:
    """Run a command and return its exit status, or what went wrong.

    Args:
        arguments: the command line without the program's name; this process's by default.
    """
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help"):
        print(usage())
        return None
    if name == "--version":
        print(__version__)
        return None
    if name not in COMMANDS:
        return f"geonorm: no command {name!r}; {choices(name, COMMANDS)}"
    try:
        status: int | str | None = import_module(COMMANDS[name][0]).main(rest)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "geonorm"):
            raise
        cure = PACKAGES.get(missing, "pip install 'geonorm[train]'")
        return (
            f"geonorm {name}: needs {missing}, which is not installed: {cure} "
            "(geonorm doctor lists all that is missing)"
        )
    return status


if __name__ == "__main__":
    sys.exit(main())
