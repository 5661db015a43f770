"""Report the results at the end of a run: the table of classes, figures and clips."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
from geonorm.training.confusion import write_matrix, write_rows
from geonorm.training.figures import confusion_figure, curve_figure
from geonorm.training.metrics_file import METRICS

if TYPE_CHECKING:  # it imports this file
    from geonorm.training.action.module import ActionModule

EXTREMES = 4  # clips drawn of the worst, and of the best
STAGES = {"val": "validate", "test": "test"}


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


def video_rows(
    result: VideoResult, paths: Sequence[Path], classes: Sequence[str]
) -> list[tuple[Any, ...]]:
    """Return file, class, its score and the predicted class of each judged video."""
    scores = result.scores.gather(1, result.labels[:, None])[:, 0].tolist()
    each = zip(
        result.numbers.tolist(), result.labels.tolist(), scores,
        result.scores.argmax(dim=1).tolist(), strict=True,
    )  # fmt: skip
    return [
        (paths[number], classes[label], score, classes[predicted])
        for number, label, score, predicted in each
    ]


class ActionReport(Callback):
    """Prints the table and draws figures and clips when a validation or test stands alone.

    Args:
        folder: where pictures go.
        num_clips: clips drawn, spread over the videos; where there are any, also the worst and the
            best of those that this process has judged, by the score of their class.
    """

    def __init__(self, folder: Path, num_clips: int) -> None:
        self.folder, self.num_clips = folder, num_clips
        self._forget()

    def _forget(self) -> None:
        self.clips: dict[int, ShownClip] = {}
        # By "worst" and "best": the score of the clip's class, its video, and the clip.
        self.extremes: dict[str, list[tuple[float, int, ShownClip]]] = {"worst": [], "best": []}

    def _keep(
        self, trainer: Trainer, module: ActionModule, logits: Tensor, batch: ClipBatch, kind: int
    ) -> None:
        """Keep one clip of some videos for the picture."""
        if trainer.state.fn == TrainerFn.FITTING or kind:
            return
        videos = len(module.scores[0].labels)
        wanted = set(np.linspace(0, videos - 1, self.num_clips).round().astype(int).tolist())
        for row, video in enumerate(batch.video_index.tolist()):
            probabilities, label = logits[row].float().softmax(dim=0), int(batch.label[row])
            clip = ShownClip(
                batch.video[row], label, int(probabilities.argmax()), float(probabilities.max())
            )
            if video in wanted and video not in self.clips:
                self.clips[video] = clip._replace(video=clip.video.float().cpu())
            if label >= 0 and self.num_clips:
                self._rank(float(probabilities[label]), video, clip)

    def _rank(self, score: float, video: int, clip: ShownClip) -> None:
        """Keep a clip if it is among the worst or the best so far; of a video its first one."""
        for name, sign in (("worst", 1), ("best", -1)):
            kept = self.extremes[name]
            if any(video == other for _, other, _ in kept):
                continue
            if len(kept) < EXTREMES or sign * score < sign * kept[-1][0]:
                kept.append((score, video, clip._replace(video=clip.video.float().cpu())))
                kept.sort(key=lambda each: sign * each[0])
                del kept[EXTREMES:]

    def _report(self, trainer: Trainer, module: ActionModule, stage: str) -> None:
        clips, extremes = self.clips, self.extremes
        self._forget()
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
        write_matrix(self.folder / f"{stage}_confusion.csv", result.matrix, module.classes)
        matrix = result.matrix.cpu().numpy()
        confusion_figure(matrix, module.classes, title, self.folder / f"{stage}_confusion.png")
        for logger in trainer.loggers:
            logger.save()
        metrics = self.folder / METRICS
        if metrics.is_file():
            curve_figure(metrics, "train/loss", "val/top1", self.folder / "curve.png")
        attached: Any = trainer  # Lightning declares no `datamodule`
        paths = [path for path, _ in attached.datamodule.judged(STAGES[stage])[0].videos]
        write_rows(
            self.folder / f"{stage}_videos.csv", ("video", "class", "score", "predicted"),
            video_rows(result, paths, module.classes),
        )  # fmt: skip
        form: ClipFormat = attached.datamodule.clip
        drawn = {"clips": [clips[video] for video in sorted(clips)]}
        drawn |= {name: [clip for *_, clip in kept] for name, kept in extremes.items()}
        for name, shown in drawn.items():
            if shown:
                draw_clips(
                    shown, module.classes, form.mean, form.std,
                    title if name == "clips" else f"{title}: the {name} clips",
                    self.folder / f"{stage}_{name}.png",
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
    """Lists, at the end of each stage, the files that could not be read and were not listed yet.

    Args:
        folder: where `left_out.csv` has all of them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.listed: set[tuple[Path, str]] = set()

    def teardown(self, trainer: Any, module: LightningModule, stage: str) -> None:
        """Print the list."""
        failures = trainer.datamodule.failures()
        if failures and trainer.is_global_zero:
            rows = [(each.path, each.kind, each.count) for each in failures]
            write_rows(self.folder / "left_out.csv", ("file", "what", "times"), rows)
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
