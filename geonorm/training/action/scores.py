"""The scores of a classification of videos."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import Module
from torchmetrics import Metric
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_confusion_matrix,
)

from geonorm.tables import as_html


class VideoResult(NamedTuple):
    """Scores of the classes predicted for a set of videos.

    Args:
        top1: part of the videos whose class has the highest mean score of the video's views.
        top5: part of the videos whose class is among the five highest (or all, if fewer).
        clip_top1: part of the single views whose class has the highest score.
        loss: mean cross entropy of the views.
        videos: how many were judged; those without a label and those unread were not.
        clips: how many views they had in all.
        matrix: confusion matrix of counts (K, K), rows are true classes.
        numbers: place of each judged video in its data set, (N,).
        labels: class of each, (N,).
        scores: mean score of each class over its views, (N, K).
    """

    top1: float
    top5: float
    clip_top1: float
    loss: float
    videos: int
    clips: int
    matrix: Tensor
    numbers: Tensor
    labels: Tensor
    scores: Tensor

    def class_accuracy(self) -> Tensor:
        """Return the part of each class's videos that are right, NaN where it has none; (K,)."""
        return self.matrix.diagonal() / self.matrix.sum(dim=1)

    def _repr_html_(self) -> str:
        """Return the scores as a table, for notebooks."""
        return as_html([
            ["top-1", "top-5", "top-1 of views", "loss", "videos", "views"],
            [f"{self.top1:.1%}", f"{self.top5:.1%}", f"{self.clip_top1:.1%}", f"{self.loss:.3f}",
             str(self.videos), str(self.clips)],
        ])  # fmt: skip


class VideoScores(Metric):
    """Scores of videos, each from the mean of the softmax of its views.

    Args:
        num_videos: how many videos there are.
        num_classes: how many classes.
    """

    sums: Tensor
    labels: Tensor
    clips: Tensor
    hits: Tensor
    losses: Tensor

    full_state_update = False
    higher_is_better = True

    def __init__(self, num_videos: int, num_classes: int) -> None:
        super().__init__()
        # float32, whatever Lightning makes of torch's default.
        sums = torch.zeros(num_videos, num_classes, dtype=torch.float32)
        self.add_state("sums", sums, dist_reduce_fx="sum")
        self.add_state("labels", torch.full((num_videos,), -1), dist_reduce_fx="max")
        for name in ("clips", "hits", "losses"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> Module:
        """Move the sums with the network, but in their own precision, whatever the network's."""
        return super()._apply(lambda tensor: fn(tensor).to(tensor.dtype), exclude_state)

    def update(self, logits: Tensor, labels: Tensor, videos: Tensor) -> None:
        """Add a batch of clips.

        Args:
            logits: scores of the classes.
            labels: class of each clip, -1 where it is not known.
            videos: number of the video that each clip is of.

        Shape:
            - logits: (B, K); labels, videos: (B,).
        """
        known = labels >= 0
        logits, labels, videos = logits[known].float(), labels[known], videos[known]
        self.sums.index_add_(0, videos, logits.softmax(dim=1))
        self.labels[videos] = labels
        self.clips += len(labels)
        self.hits += (logits.argmax(dim=1) == labels).sum()
        self.losses += torch.nn.functional.cross_entropy(logits, labels, reduction="sum")

    def compute(self) -> VideoResult:
        """Return the scores of the videos seen so far.

        Raises:
            ValueError: not one clip with a label.
        """
        if not self.clips:
            raise ValueError("nothing can be judged: not one video has a label; use predict")
        seen = self.labels >= 0
        numbers = seen.nonzero()[:, 0]
        sums, labels = self.sums[seen], self.labels[seen]
        classes = sums.shape[1]
        best = {
            k: multiclass_accuracy(sums, labels, classes, average="micro", top_k=k).item()
            for k in (1, min(5, classes))
        }
        return VideoResult(
            top1=best[1],
            top5=best[min(5, classes)],
            clip_top1=(self.hits / self.clips).item(),
            loss=(self.losses / self.clips).item(),
            videos=len(labels),
            clips=int(self.clips),
            matrix=multiclass_confusion_matrix(sums, labels, classes),
            numbers=numbers,
            labels=labels,
            scores=sums / sums.sum(dim=1, keepdim=True),  # of each view they add up to 1
        )
