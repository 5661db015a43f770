"""Built-in videos: real files, drawn on first use, whose class is the motion alone."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

import av
import numpy as np
import torch
from tqdm import tqdm

from geonorm.datasets.appearance_shift import AppearanceShift
from geonorm.datasets.synthetic.action_drawing import MOTIONS, draw_action
from geonorm.datasets.video_io import write_video
from geonorm.datasets.video_lists import VideoSet
from geonorm.files import user_cache

FPS = 25
_VERSION = 2
_FOLDS = ("train", "val")
_NUM_VIDEOS = {"train": 600, "val": 240}
_COMPLETE = "complete.json"
_SILENT = 2.0  # seconds after which a bar shows how far drawing and encoding are


class _Recipe(NamedTuple):
    """All that the files depend on."""

    fold: str
    num_videos: int
    seed: int
    frames: int
    size: int
    shift: str
    codec: str


class SyntheticActions(VideoSet):
    """Films of a shape that moves in one of twelve ways, encoded to mp4 and read like any others.

    Translations, turns, zooms, bounces and lopsided swings, each with its reverse as another class
    (``geonorm.datasets.synthetic.action_drawing.MOTIONS``). Shape, texture, colours, ground, light,
    start and speed are drawn alike for every class, and in each single frame place, angle and size
    are spread alike, so nothing but motion tells the classes apart. Classes are equally frequent.

    The files of a recipe are made once, in a folder named by the recipe's hash; it is filled beside
    its place and moved there when complete, so two processes may ask for it at once.

    Args:
        fold: "train" or "val"; the two share no film.
        root: folder for the recipes' folders; ``synthetic-actions`` in the user's cache if not
            given.
        num_videos: number of films; 600 for training and 240 for validation if not given.
        seed: of everything drawn.
        frames: per film, at 25 frames per second.
        size: side of the square picture in pixels, even.
        shift: change of appearance laid on every film before it is encoded; "background" changes
            the ground and leaves the shape.

    Raises:
        ValueError: an unknown fold, an odd size, or fewer than one film or frame.
    """

    def __init__(
        self,
        fold: Literal["train", "val"] = "train",
        *,
        root: str | Path | None = None,
        num_videos: int | None = None,
        seed: int = 0,
        frames: int = 24,
        size: int = 72,
        shift: AppearanceShift | None = None,
    ) -> None:
        if fold not in _FOLDS:
            raise ValueError(f"fold must be one of {_FOLDS}; got {fold!r}")
        count = _NUM_VIDEOS[fold] if num_videos is None else num_videos
        if count < 1 or frames < 1 or size < 16 or size % 2:
            raise ValueError(
                "expected at least 1 film of 1 frame with an even side of at least 16 pixels; got "
                f"num_videos={count}, frames={frames}, size={size}"
            )
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        recipe = _Recipe(fold, count, seed, frames, size, repr(shift), codec)
        base = user_cache() / "synthetic-actions" if root is None else Path(root)
        self.folder = _made(base, recipe, shift)
        videos = [(self.folder / _name(i), i % len(MOTIONS)) for i in range(count)]
        super().__init__(videos, list(MOTIONS))


def _made(base: Path, recipe: _Recipe, shift: AppearanceShift | None) -> Path:
    """Return the folder of a recipe's films, making them if they are not all there."""
    text = json.dumps([_VERSION, *recipe])
    target = base / f"{recipe.fold}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    if (target / _COMPLETE).exists():
        return target
    base.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=base))
    try:
        with ThreadPoolExecutor(os.cpu_count()) as painters:
            numbers = range(recipe.num_videos)
            films = painters.map(lambda number: _film(unfinished, number, recipe, shift), numbers)
            title = f"{recipe.fold} videos, drawn and encoded once"
            # disable=None: shown on a terminal alone.
            bar = tqdm(films, title, recipe.num_videos, unit="video", delay=_SILENT, disable=None)
            for _ in bar:
                pass
        (unfinished / _COMPLETE).write_text(text, "utf-8")
        _put_in_place(unfinished, target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target


def _put_in_place(finished: Path, target: Path) -> None:
    """Move a complete folder to its name, unless another process has been faster."""
    if target.exists() and not (target / _COMPLETE).exists():
        shutil.rmtree(target)
    try:
        finished.rename(target)
    except OSError:
        if not (target / _COMPLETE).exists():
            raise


def _film(folder: Path, number: int, recipe: _Recipe, shift: AppearanceShift | None) -> None:
    """Draw and encode one film; its look and its motion come from separate draws of its number."""
    motion = list(MOTIONS)[number % len(MOTIONS)]
    key = (recipe.seed, _FOLDS.index(recipe.fold), number)
    film, cover = draw_action(motion, np.random.default_rng(key), recipe.frames, recipe.size)
    if shift is not None:
        clip = torch.from_numpy(film).permute(0, 3, 1, 2)
        foreground = torch.from_numpy(cover)[:, None]
        film = shift(clip, np.random.default_rng((*key, 1)), foreground).permute(0, 2, 3, 1).numpy()
    write_video(folder / _name(number), film, fps=FPS, codec=recipe.codec)


def _name(number: int) -> str:
    """Return a film's file name, which does not tell its class."""
    return f"{number:05d}.mp4"
