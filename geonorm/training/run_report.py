"""Write what a run's report needs, and the report itself when the run ends."""

import json
import os
import platform
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from geonorm.files import written_whole

LIBRARIES = ("geonorm", "torch", "torchvision", "numpy", "lightning", "MinkowskiEngine", "av")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that are installed, and the machine."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return found | {"machine": platform.platform(), "cores": str(os.cpu_count()), "GPU": gpu}


def write_own_report(folder: Path) -> None:
    """Write `report.html` into the folder of a run, or say why there is none.

    A training that is done must not fail for it.
    """
    if find_spec("plotly") is None:
        print("Skipped report.html: plotly is not installed (pip install 'geonorm[train]')")
        return
    from geonorm.looking.report import write_report

    try:
        write_report([folder], folder / "report.html")
    except ValueError as error:
        print(f"Skipped report.html: {error}")


class RunReport(Callback):
    """Keeps the versions of each stage in `versions.json`, and writes `report.html` at its end.

    Of a training the report follows its validation. It comes after callbacks that write results.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if not trainer.is_global_zero:
            return
        file = self.folder / "versions.json"
        told = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        with written_whole(file) as aside:
            aside.write_text(
                json.dumps({**told, stage: versions()}, indent=2) + "\n", encoding="utf-8"
            )

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            self._write(trainer)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        if isinstance(exception, KeyboardInterrupt):
            self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        options: Any = trainer  # Lightning declares no `fast_dev_run`
        if not trainer.is_global_zero or options.fast_dev_run:
            return
        for logger in trainer.loggers:
            logger.save()
        write_own_report(self.folder)
