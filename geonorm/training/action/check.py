"""`check-data`: every file of the training, validation and test videos decoded to its end."""

import sys
from collections import Counter
from typing import Any

from lightning.pytorch import LightningModule

from geonorm.datasets import VideoSet, check_data
from geonorm.training.action.data import ClipData
from geonorm.training.cli import DataCLI


class CheckCLI(DataCLI):
    """A command line that looks at every file."""

    def validate(self, model: LightningModule, datamodule: ClipData, **_: Any) -> None:
        """Print what is wrong, and end with an error code where a file cannot be read."""
        given = [name for name, factory in datamodule.factories.items() if factory]
        named = {name: datamodule.videos(name) for name in given}
        videos = list(dict.fromkeys(video for found in named.values() for video in found.videos))
        findings = check_data(VideoSet(videos, next(iter(named.values())).classes))
        for finding in findings:
            print(finding)
        for name, found in named.items():
            print(f"{name}: {len(found):,} videos, {len(found.classes)} classes")
        kinds = Counter(finding.kind for finding in findings)
        print(", ".join(f"{kinds[kind]} {kind}" for kind in ("unreadable", "damaged", "odd")))
        if kinds["unreadable"]:
            sys.exit(1)
