"""A trained network as a function from a video to the scores of its classes."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from geonorm.datasets import ClipDataset, FileReport, VideoSet
from geonorm.files import distinct_stems, written_whole
from geonorm.style import StyleStatistics
from geonorm.training.action.attribution import ClipAttributions, middle_box, of_views
from geonorm.training.action.data import ClipFormat, clips_of
from geonorm.training.action.module import ActionModule
from geonorm.training.action.predict import top_classes, write_film
from geonorm.training.action.report import print_failures
from geonorm.training.attributions import Explanation, number_of, write_statistics
from geonorm.training.sharing import located, read_network, restored


class ClipPredictor:
    """A checkpoint of `geonorm train-action` with the clips that it was trained on.

    Args:
        checkpoint: a file that `geonorm train-action` wrote, a folder that `geonorm share` wrote,
            or `hf://owner/name`.
        device: where to predict.
        views: clips of each video, spread over it, whose scores are averaged; by default as many
            as the run's `--data.views`.

    Attributes:
        classes: names of the classes.

    Raises:
        ValueError: the file is missing or damaged, or says nothing of its clips.
    """

    def __init__(
        self, checkpoint: str | Path, device: str = "cpu", views: int | None = None
    ) -> None:
        told = read_network(located(checkpoint))
        clips = told.get("ClipData")
        if clips is None:
            raise ValueError(
                f"{checkpoint} does not say what its clips are; expected a checkpoint of geonorm "
                "train-action"
            )
        self.clip, self.views = ClipFormat(**clips["clip"]), views or clips["views"]
        self.module = restored(ActionModule, told, device)
        self.classes: list[str] = self.module.classes

    def __call__(self, video: str | Path) -> np.ndarray:
        """Return the score of each class, in [0, 1], the mean over the video's views.

        Args:
            video: any file that FFmpeg decodes.

        Shape:
            - result: (K,), float32

        Raises:
            ValueError: the file cannot be decoded.
        """
        dataset = self._clips([Path(video)])
        scores: np.ndarray = next(self._scores(dataset, 0))[1].mean(axis=0)
        return scores

    def attribution(self, video: str | Path, target: str | None = None) -> ClipAttributions:
        """Return what each place of a video's clips added to a score, by integrated gradients.

        Args:
            video: any file that FFmpeg decodes.
            target: name of the class whose score it is; by default the highest.

        Raises:
            ValueError: an unknown class, or the file cannot be decoded.
            ModuleNotFoundError: captum is not installed: `pip install 'geonorm[train]'`.
        """
        number = number_of(target, self.classes)
        dataset = self._clips([Path(video)])
        if number is None:
            number = int(next(self._scores(dataset, 0))[1].mean(axis=0).argmax())
        return self._attribution(dataset, 0, number)

    def _attribution(self, dataset: ClipDataset, place: int, target: int) -> ClipAttributions:
        """Return the attributions of the views of a dataset's video."""
        views = range(place * self.views, (place + 1) * self.views)
        clips = torch.stack([dataset[view].video for view in views]).to(self.module.device)
        values, gaps = of_views(self.module, clips, target)
        size = dataset._read(place, 0, (0, 0, views[0])).video.shape[1:3]
        box = middle_box(size, (self.clip.crop, self.clip.crop))
        frames = np.stack([dataset.frames(view) for view in views])
        return ClipAttributions(values, frames, box, target, gaps)

    def predict_files(
        self, files: Sequence[Path], folder: Path, num_workers: int = 0,
        explanation: Explanation = Explanation(),  # noqa: B008  (frozen)
    ) -> list[FileReport]:  # fmt: skip
        """Predict videos, write a film and a strip of each, and `predictions.json`, a list of all.

        No two files share a name, and each appears complete or not at all. What cannot be decoded
        is left out and listed at the end.

        Args:
            files: videos.
            folder: where the results go, made if need be.
            num_workers: processes that decode.
            explanation: what to write of how the network came to its predictions.

        Returns:
            What could not be read, or not in full.

        Raises:
            ValueError: not one of the files can be decoded.
        """
        target = number_of(explanation.target, self.classes)
        dataset = self._clips(files)
        readable = [path for path, _ in dataset.videos]
        stems, found = distinct_stems(readable), {}
        for place, scores, removed in self._scores(dataset, num_workers, explanation):
            path = readable[place]
            stem = folder / stems[path]
            folder.mkdir(parents=True, exist_ok=True)
            write_film(path, scores, self.classes, stem)
            top = top_classes(scores.mean(axis=0), self.classes)
            found[str(path)] = {name: score for _, name, score in top}
            print(f"\n{path}: {stem}.mp4 and .png")
            for _, name, score in top:
                print(f"  {score:.3f}  {name}")
            if removed:
                write_statistics(stem, removed)
            if explanation.attribution:
                number = top[0][0] if target is None else target
                explained = self._attribution(dataset, place, number)
                explained.write(stem)
                print(f"  attribution of {self.classes[number]} in {stem}.attribution.npz, "
                      f"complete but for {max(explained.gaps):.1%}")  # fmt: skip
        if found:
            with written_whole(folder / "predictions.json") as aside:
                aside.write_text(json.dumps(found, indent=2) + "\n")
        failures: list[FileReport] = dataset.report()
        print_failures(failures)
        return failures

    def _clips(self, files: Sequence[Path]) -> ClipDataset:
        videos = VideoSet([(file, -1) for file in dict.fromkeys(files)], ())
        return clips_of(videos, self.clip, views=self.views)

    def _scores(
        self, dataset: ClipDataset, num_workers: int, explanation: Explanation = Explanation(),  # noqa: B008
    ) -> Iterator[tuple[int, np.ndarray, dict[str, StyleStatistics]]]:  # fmt: skip
        """Yield the number of each video that can be decoded, and the scores of its views.

        And what its norms took out, if that is wanted.
        """
        views = [
            list(range(first, first + self.views)) for first in range(0, len(dataset), self.views)
        ]
        loader = DataLoader(dataset, batch_sampler=views, num_workers=num_workers)
        for place, batch in enumerate(loader):
            # A file that cannot be decoded is replaced by another, which has its own turn.
            if (batch.video_index != place).any():
                continue
            with explanation.recorded(self.module) as removed, torch.inference_mode():
                logits = self.module(batch.video.to(self.module.device))
            yield place, logits.float().softmax(dim=1).cpu().numpy(), removed
