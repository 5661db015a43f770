"""Diving48 (Li et al. 2018): 18,000 dives of 48 kinds over nearly the same background."""

from __future__ import annotations

from pathlib import Path

from geonorm.datasets.video_lists import VideoSet, folder, json_of, label_of

NUM_CLASSES = 48


class Diving48(VideoSet):
    """Clips ``videos/<vid_name>.mp4`` with the labels of the official JSON list.

    Args:
        root: the folder of the clips.
        annotations: the JSON list of one split, items of ``vid_name`` and ``label``.
        vocabulary: the JSON list of the classes, each a list of its four parts; without it the
            classes are named by their numbers.

    Raises:
        ValueError: an item lacks its name or label, or a label is out of range.
    """

    def __init__(
        self, root: str | Path, annotations: str | Path, vocabulary: str | Path | None = None
    ) -> None:
        root = folder(root)
        classes = [str(label) for label in range(NUM_CLASSES)]
        if vocabulary is not None:
            classes = [" ".join(parts) for parts in json_of(vocabulary, list)]
        entries = []
        for item in json_of(annotations, list):
            if not (isinstance(item, dict) and {"vid_name", "label"} <= item.keys()):
                raise ValueError(f"{annotations}: expected `vid_name` and `label`; got {item}")
            label = label_of(item["label"], annotations)
            entries.append((root / f"{item['vid_name']}.mp4", label))
        super().__init__(entries, classes)
