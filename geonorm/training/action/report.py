"""Report the results at the end of a run: the table of classes, figures and clips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from geonorm.datasets import FileReport
from geonorm.training.action.data import ClipBatch, ClipFormat
from geonorm.training.action.pictures import ShownClip, draw_clips
from geonorm.training.action.scores import VideoResult
from geonorm.training.figures import confusion_figure, curve_figure

if TYPE_CHECKING:  # it imports this file
    from geonorm.training.action.module import ActionModule


def table(result: VideoResult, classes: list[str]) -> str:
    """Return the accuracy of each class and of all videos as text.

    Args:
        result: the scores.
        classes: names of the classes.
    """
    accuracy, videos = result.class_accuracy(), result.matrix.sum(dim=1)
    width = max(len("class"), *map(len, classes)) + 2
    lines = [f"{'class':<{width}}{'top-1':>7}{'videos':>9}"]
    for name, value, count in zip(classes, accuracy.tolist(), videos.tolist(), strict=True):
        shown = f"{value:7.3f}" if count else f"{'absent':>7}"
        lines.append(f"{name:<{width}}{shown}{int(count):>9,}")
    lines.append(f"{'top-1':<{width}}{result.top1:7.3f}{result.videos:>9,}")
    if len(classes) > 5:
        lines.append(f"{'top-5':<{width}}{result.top5:7.3f}{result.videos:>9,}")
    if result.clips > result.videos:
        lines.append(f"{'clips':<{width}}{result.clip_top1:7.3f}{result.clips:>9,}")
    return "\n".join(lines)


def summary(results: list[VideoResult], classes: list[str]) -> dict[str, Any]:
    """Return the scores as JSON holds them; the second result, if any, is of still clips."""
    result = results[0]
    accuracy = dict(zip(classes, result.class_accuracy().tolist(), strict=True))
    scores = {
        "top1": result.top1,
        "top5": result.top5,
        "clip_top1": result.clip_top1,
        "videos": result.videos,
        "clips": result.clips,
        "classes": {name: value for name, value in accuracy.items() if value == value},
    }
    if len(results) > 1:
        scores["still_top1"] = results[1].top1
    return scores


class ActionReport(Callback):
    """Prints the table and draws figures and clips when a validation or test stands alone.

    Args:
        folder: where pictures go.
        num_clips: clips drawn, spread over the videos.
    """

    def __init__(self, folder: Path, num_clips: int) -> None:
        self.folder, self.num_clips = folder, num_clips
        self.clips: dict[int, ShownClip] = {}

    def _keep(
        self, trainer: Trainer, module: ActionModule, logits: Tensor, batch: ClipBatch, kind: int
    ) -> None:
        """Keep one clip of some videos for the picture."""
        if trainer.state.fn == TrainerFn.FITTING or kind:
            return
        videos = len(module.scores[0].labels)
        wanted = set(np.linspace(0, videos - 1, self.num_clips).round().astype(int).tolist())
        for row, video in enumerate(batch.video_index.tolist()):
            if video in wanted and video not in self.clips:
                probabilities = logits[row].float().softmax(dim=0)
                self.clips[video] = ShownClip(
                    batch.video[row].float().cpu(),
                    int(batch.label[row]),
                    int(probabilities.argmax()),
                    float(probabilities.max()),
                )

    def _report(self, trainer: Trainer, module: ActionModule, stage: str) -> None:
        clips, self.clips = self.clips, {}
        if trainer.state.fn == TrainerFn.FITTING or not trainer.is_global_zero:
            return
        result, *still = module.results
        print(f"\n{table(result, module.classes)}")
        if still:
            print(
                f"each video's middle frame alone, repeated: top-1 {still[0].top1:.3f} "
                f"(by chance {1 / len(module.classes):.3f})"
            )
        scores = summary(module.results, module.classes)
        (self.folder / f"{stage}.json").write_text(json.dumps(scores, indent=2) + "\n")
        title = f"{stage}: {module.title}, top-1 {result.top1:.3f}"
        matrix = result.matrix.cpu().numpy()
        confusion_figure(matrix, module.classes, title, self.folder / f"{stage}_confusion.png")
        for logger in trainer.loggers:
            logger.save()
        metrics = self.folder / "metrics.csv"
        if metrics.is_file():
            curve_figure(metrics, "train/loss", "val/top1", self.folder / "curve.png")
        if not clips:
            return
        attached: Any = trainer  # Lightning declares no `datamodule`
        form: ClipFormat = attached.datamodule.clip
        draw_clips(
            [clips[video] for video in sorted(clips)], module.classes, form.mean, form.std,
            title, self.folder / f"{stage}_clips.png",
        )  # fmt: skip

    def on_validation_batch_end(
        self, trainer: Trainer, module: Any, outputs: Any, batch: Any,
        batch_idx: int, dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        self._keep(trainer, module, outputs, batch, dataloader_idx)

    def on_validation_end(self, trainer: Trainer, module: Any) -> None:
        self._report(trainer, module, "val")

    def on_test_batch_end(
        self, trainer: Trainer, module: Any, outputs: Any, batch: Any,
        batch_idx: int, dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        self._keep(trainer, module, outputs, batch, dataloader_idx)

    def on_test_end(self, trainer: Trainer, module: Any) -> None:
        self._report(trainer, module, "test")


class FailedFiles(Callback):
    """Lists, at the end of each stage, the files that could not be read and were not listed yet."""

    def __init__(self) -> None:
        self.listed: set[tuple[Path, str]] = set()

    def teardown(self, trainer: Any, module: LightningModule, stage: str) -> None:
        """Print the list."""
        failures = trainer.datamodule.failures()
        new = [report for report in failures if (report.path, report.kind) not in self.listed]
        self.listed |= {(report.path, report.kind) for report in new}
        if trainer.is_global_zero:
            print_failures(new)


def print_failures(failures: list[FileReport]) -> None:
    """Print the files that could not be read, if there are any."""
    if failures:
        print(f"\n{len(failures)} files could not be read, or not in full:")
    for report in failures:
        print(f"  {report.kind}, met {report.count} times: {report.path}")
