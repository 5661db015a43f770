"""HMDB51 (Kuehne et al. 2011): 6,766 clips of 51 actions, three official splits."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from geonorm.datasets.video_lists import VideoSet, folder, lines_of
from geonorm.files import is_hidden

_USES = {"0": None, "1": "train", "2": "test"}


class HMDB51(VideoSet):
    """Clips ``root/class/*.avi`` as the files ``<class>_test_split<N>.txt`` assign them.

    Lines of those files are ``name.avi use``, the use 0 (in neither fold), 1 (training) or 2
    (testing); names may hold spaces, ``#``, ``(`` and ``!``. Classes are in alphabetical order.

    Args:
        root: the folder of class folders.
        annotations: the folder of the split files.
        fold: "train" or "test".
        split: 1, 2 or 3.

    Raises:
        ValueError: a folder or the split's files are missing, or a line is not as above.
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
        root = folder(root)
        ending = f"_test_split{split}.txt"
        found = folder(annotations).glob(f"*{ending}")
        lists = sorted(path for path in found if not is_hidden(path))
        if not lists:
            raise ValueError(f"expected files <class>{ending}; {annotations} holds none")
        classes = [path.name.removesuffix(ending) for path in lists]
        videos = []
        for label, (path, name) in enumerate(zip(lists, classes, strict=True)):
            for number, line in lines_of(path):
                video, _, use = line.rpartition(" ")
                if not video or use not in _USES:
                    raise ValueError(
                        f"{path}, line {number}: expected `name.avi` and 0, 1 or 2; got {line!r}"
                    )
                if _USES[use] == fold:
                    videos.append((root / name / video.strip(), label))
        super().__init__(videos, classes)
