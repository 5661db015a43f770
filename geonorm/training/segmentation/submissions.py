"""Write what a benchmark's server takes when a network is tested on its unlabelled scans."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from torch import Tensor

from geonorm.datasets.submission import Submission
from geonorm.datasets.voxelize import ScanBatch


class SubmissionWriter(Callback):
    """Writes each scan's predictions in a test, then packs and checks them, where a server waits.

    Args:
        folder: of the run; gets `submission/` and what is packed of it, such as `submission.zip`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.submission: Submission | None = None

    def on_test_start(self, trainer: Any, module: Any) -> None:  # it declares no `datamodule`
        self.submission = trainer.datamodule.datasets["test"].submission

    def on_test_batch_end(
        self, trainer: Trainer, module: Any, outputs: Any, batch: Any, *rest: Any
    ) -> None:
        if self.submission is not None:
            self._write(self.submission, outputs, batch)

    def _write(self, submission: Submission, predicted: Tensor, batch: ScanBatch) -> None:
        for index, name in enumerate(batch.names):
            classes = predicted[batch.point_batch == index].cpu().numpy()
            submission.write(self.folder / "submission", name, classes, batch.kept[index])

    def on_test_end(self, trainer: Trainer, module: Any) -> None:
        if self.submission is None:
            return
        trainer.strategy.barrier()  # until every process has written its scans
        if trainer.is_global_zero:
            packed = self.folder / self.submission.packed
            self.submission.pack(self.folder / "submission", packed)
            print(f"{packed} holds {len(self.submission.files):,} scans for "
                  f"{self.submission.server}, checked")  # fmt: skip
