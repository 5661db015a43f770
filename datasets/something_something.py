"""Something-Something v2 (Goyal et al. 2017): 220,847 clips of 174 actions told by motion."""

from __future__ import annotations

import os
from pathlib import Path

from geonorm.datasets.video_lists import UNLABELLED, VideoSet, folder, json_of, label_of


class SomethingSomethingV2(VideoSet):
    """Clips ``videos/<id>.webm`` (or .mp4) with the class that their template names.

    The labels file maps a template without its brackets to a number: the template "Holding
    [something]" is the class "Holding something". The test file has no templates.

    Args:
        root: the folder of the clips.
        annotations: the JSON list of one split: train, validation or test.
        labels: the JSON file of all classes.

    Raises:
        ValueError: the labels do not count from 0, or a template is none of them.
    """

    def __init__(self, root: str | Path, annotations: str | Path, labels: str | Path) -> None:
        root = folder(root)
        numbers = {
            name: label_of(label, labels) for name, label in json_of(labels, dict).items()
        }
        if sorted(numbers.values()) != list(range(len(numbers))):
            raise ValueError(f"{labels}: expected every number from 0 to {len(numbers) - 1} once")
        entries = []
        for item in json_of(annotations, list):
            if not (isinstance(item, dict) and "id" in item):
                raise ValueError(f"{annotations}: expected items with an `id`; got {item}")
            label = UNLABELLED
            if "template" in item:
                name = str(item["template"]).replace("[", "").replace("]", "")
                if name not in numbers:
                    raise ValueError(f"{annotations}: {name!r} is none of the classes in {labels}")
                label = numbers[name]
            entries.append((_path(root, item["id"]), label))
        super().__init__(entries, sorted(numbers, key=numbers.__getitem__))


def _path(root: Path, name: str) -> Path:
    """Return the clip in the container it was kept in; the published one is WebM."""
    converted = root / f"{name}.mp4"
    return converted if os.path.exists(converted) else root / f"{name}.webm"
