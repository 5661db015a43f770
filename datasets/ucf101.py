"""UCF101 (Soomro et al. 2012): 13,320 clips of 101 actions, three official splits."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from geonorm.datasets.video_lists import VideoSet, folder, labels_of, lines_of


class UCF101(VideoSet):
    """Clips ``root/Class/v_Class_gXX_cYY.avi`` in the order of an official list.

    Classes are in the order of ``classInd.txt``, which differs from that of sorted folders. A
    video's class is its folder; file names differ from it in case (``HandstandPushups`` holds
    ``v_HandStandPushups_*``), and so do some copies of the folders, which are found all the same.

    Args:
        root: the folder of class folders.
        annotations: the folder of ``classInd.txt``, ``trainlist0N.txt`` and ``testlist0N.txt``.
        fold: "train" or "test".
        split: 1, 2 or 3.

    Raises:
        ValueError: a folder is missing, or a line does not fit ``classInd.txt``.
        FileNotFoundError: a list is missing.
    """

    def __init__(
        self,
        root: str | Path,
        annotations: str | Path,
        fold: Literal["train", "test"],
        split: Literal[1, 2, 3] = 1,
    ) -> None:
        if fold not in ("train", "test") or split not in (1, 2, 3):
            raise ValueError(
                f"fold must be 'train' or 'test', split 1, 2 or 3; got {fold!r}, {split}"
            )
        root, annotations = folder(root), folder(annotations)
        classes = _classes(annotations / "classInd.txt")
        labels = {name.casefold(): label for name, label in labels_of(classes).items()}
        list_path = annotations / f"{fold}list{split:02d}.txt"
        videos = []
        for number, line in lines_of(list_path):
            name, _, given = line.partition(" ")
            label = labels.get(name.partition("/")[0].casefold())
            if label is None or (given and given.strip() != str(label + 1)):
                raise ValueError(
                    f"{list_path}, line {number}: expected `Class/video.avi` and, in training, its "
                    f"number in classInd.txt; got {line!r}"
                )
            videos.append((_on_disk(root, name), label))
        super().__init__(videos, classes)


def _classes(path: Path) -> list[str]:
    """Read lines `number name`, numbered from 1."""
    pairs = [line.split(maxsplit=1) for _, line in lines_of(path)]
    if any(len(pair) != 2 for pair in pairs) or [pair[0] for pair in pairs] != [
        str(number) for number in range(1, len(pairs) + 1)
    ]:
        raise ValueError(f"{path}: expected lines `1 Name`, `2 Name`, ...; got something else")
    return [name for _, name in pairs]


def _on_disk(root: Path, name: str) -> Path:
    """Return the path as listed, or the one that differs from it in case only if that exists."""
    path = root
    for part in name.split("/"):
        exact = path / part
        if not os.path.exists(exact) and os.path.isdir(path):
            alike = [found for found in path.iterdir() if found.name.casefold() == part.casefold()]
            exact = alike[0] if len(alike) == 1 else exact
        path = exact
    return path
