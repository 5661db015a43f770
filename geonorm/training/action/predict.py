"""Predictions to files: a film with the scores below, a strip of frames, and a list."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from geonorm.datasets import Clip
from geonorm.datasets.synthetic.actions import FPS
from geonorm.datasets.video_io import read_frames, write_video
from geonorm.datasets.video_probe import probe
from geonorm.files import written_whole
from geonorm.training.action.pictures import draw_strip, spread

TOP = 5
MOST_FRAMES = 250
SHORT_SIDE = 240
ROW, FONT = 22, 14
BACK, BAR, TEXT = (24, 24, 24), (44, 110, 170), (235, 235, 235)


def top_classes(scores: np.ndarray, classes: list[str]) -> list[tuple[int, str, float]]:
    """Return number, name and score of the highest classes, the highest first."""
    order = np.argsort(-scores, kind="stable")[:TOP]
    return [(int(number), classes[number], float(scores[number])) for number in order]


def annotate(
    frames: np.ndarray, scores: np.ndarray, top: list[tuple[int, str, float]]
) -> np.ndarray:
    """Return frames with a bar for each of the highest classes below, both sides even.

    Args:
        frames: uint8 (T, H, W, 3).
        scores: of the views (V, K); each part of the film shows its own view's.
        top: number, name and mean score of the classes to show.
    """
    count, height, width = frames.shape[:3]
    film = np.empty((count, (height + ROW * len(top) + 1) // 2 * 2, (width + 1) // 2 * 2, 3), "u1")
    film[:] = BACK
    film[:, :height, :width] = frames
    for view, scored in enumerate(scores):
        panel = _panel([(name, float(scored[number])) for number, name, _ in top], film.shape[2])
        part = slice(count * view // len(scores), count * (view + 1) // len(scores))
        film[part, height : height + len(panel)] = panel
    return film


def _panel(rows: list[tuple[str, float]], width: int) -> np.ndarray:
    """Draw names and scores, each on a bar as long as its score."""
    image = Image.new("RGB", (width, ROW * len(rows)), BACK)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(FONT)
    for row, (name, score) in enumerate(rows):
        top = row * ROW
        draw.rectangle((0, top + 2, round(score * (width - 1)), top + ROW - 3), fill=BAR)
        draw.text((6, top + ROW // 2), name, TEXT, font, anchor="lm")
        draw.text((width - 6, top + ROW // 2), f"{score:.2f}", TEXT, font, anchor="rm")
    return np.asarray(image)


class PredictionWriter(Callback):
    """Writes an annotated film and a strip of frames for each predicted file, and a list of all.

    Files appear complete or not at all.

    Args:
        folder: where the files go.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.views: dict[int, list[np.ndarray]] = defaultdict(list)
        self.found: dict[str, dict[str, float]] = {}
        self.stems: set[str] = set()

    def on_predict_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Tensor, batch: Clip, *_: Any
    ) -> None:
        wanted = trainer.datamodule.datasets["predict"].views
        for video, path, scores in zip(
            batch.video_index.tolist(), batch.path, outputs.float().cpu().numpy(), strict=True
        ):
            self.views[video].append(scores)
            # More views than wanted stand in for a file that cannot be decoded.
            if len(self.views[video]) == wanted and trainer.is_global_zero:
                self._write(Path(path), np.stack(self.views[video]), module.classes)

    def _write(self, path: Path, scores: np.ndarray, classes: list[str]) -> None:
        """Print, draw and write what was predicted for a file."""
        top = top_classes(scores.mean(axis=0), classes)
        self.found[str(path)] = {name: score for _, name, score in top}
        self.folder.mkdir(parents=True, exist_ok=True)
        stem = self._stem(path)
        info = probe(path)
        rate = info.fps or FPS
        numbers = spread(info.frames, MOST_FRAMES)
        # A longer film is shown faster, and whole.
        frames = read_frames(path, numbers.tolist(), size=SHORT_SIDE, info=info).video
        with written_whole(self.folder / f"{stem}.mp4") as aside:
            write_video(aside, annotate(frames, scores, top), fps=max(round(rate), 1))
        shown = spread(len(frames))
        draw_strip(
            frames[shown], numbers[shown] / rate, [name for _, name, _ in top],
            [score for *_, score in top], path.name, self.folder / f"{stem}.png",
        )  # fmt: skip
        print(f"\n{path}: {self.folder / stem}.mp4 and .png")
        for _, name, score in top:
            print(f"  {score:.3f}  {name}")

    def _stem(self, path: Path) -> str:
        """Return a name for the results that no other file of this run has."""
        stem, number = path.stem, 1
        while stem in self.stems:
            number += 1
            stem = f"{path.stem}_{number}"
        self.stems.add(stem)
        return stem

    def on_predict_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Write the list of all files."""
        if trainer.is_global_zero and self.found:
            with written_whole(self.folder / "predictions.json") as aside:
                aside.write_text(json.dumps(self.found, indent=2) + "\n")
