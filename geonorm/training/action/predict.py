"""Write what was predicted for a video: a film with the scores below, a strip, and the scores."""

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

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


def write_film(path: Path, scores: np.ndarray, classes: list[str], stem: Path) -> None:
    """Write a film, `stem`.mp4, a strip, `stem`.png, and all scores, `stem`.scores.json.

    Each appears complete or not at all. The scores are told for each part of the video, seconds.

    Args:
        path: the video.
        scores: of its views, (V, K).
        classes: names of the classes.
        stem: path of the results without a suffix.
    """
    top = top_classes(scores.mean(axis=0), classes)
    info = probe(path)
    numbers = spread(info.frames, MOST_FRAMES)
    # A longer film is shown faster, and whole.
    frames = read_frames(path, numbers.tolist(), size=SHORT_SIDE, info=info).video
    with written_whole(stem.with_name(f"{stem.name}.mp4")) as aside:
        write_video(aside, annotate(frames, scores, top), fps=max(round(info.rate), 1))
    shown = spread(len(frames))
    draw_strip(
        frames[shown], info.seconds[numbers[shown]], [name for _, name, _ in top],
        [score for *_, score in top], path.name, stem.with_name(f"{stem.name}.png"),
    )  # fmt: skip
    part = info.duration / len(scores)
    views = [
        {"from": view * part, "to": (view + 1) * part,
         "scores": dict(zip(classes, scored.tolist(), strict=True))}
        for view, scored in enumerate(scores)
    ]  # fmt: skip
    with written_whole(stem.with_name(f"{stem.name}.scores.json")) as aside:
        aside.write_text(json.dumps({"video": path.name, "views": views}, indent=2) + "\n")
