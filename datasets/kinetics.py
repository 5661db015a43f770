"""Kinetics-400, -600 and -700 (Kay et al. 2017; Carreira et al. 2018, 2019)."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

from geonorm.datasets.progress import in_threads
from geonorm.datasets.video_lists import UNLABELLED, VideoSet, folder, labels_of, text_of
from geonorm.files import is_hidden


class Kinetics(VideoSet):
    """Clips ``root/<split>/<class>/<id>_<start>_<end>.mp4`` in the order of the official CSV file.

    The file's columns are label, youtube_id, time_start, time_end and split (seconds, whole or
    not); the test file may lack the label, and its clips then lie in ``root/test`` itself or in
    any class folder. A class folder may spell spaces as underscores. Clips that are no longer to
    be had are missing on disk: they stay in the list and are reported as unreadable.

    Args:
        root: the folder that holds the folder of each split.
        annotations: the CSV file of one split.
        classes: names and their order; the sorted labels of the file if not given.

    Raises:
        ValueError: a missing column, no rows, or a label that is none of ``classes``.
    """

    def __init__(
        self, root: str | Path, annotations: str | Path, classes: Sequence[str] | None = None
    ) -> None:
        root = folder(root)
        rows = _rows(Path(annotations))
        if classes is None:
            classes = sorted({row["label"] for row in rows if row.get("label")})
        labels = labels_of(classes)
        unknown = sorted({row["label"] for row in rows if row.get("label")} - set(labels))
        if unknown:
            raise ValueError(f"{annotations} holds labels that are none of the classes: {unknown}")

        def placed(numbered: tuple[int, dict[str, str]]) -> tuple[Path, int]:
            number, row = numbered
            try:
                path = _path(root, row)
            except (TypeError, ValueError, OverflowError) as error:
                raise ValueError(
                    f"{annotations}, row {number}: expected youtube_id, time_start and time_end in "
                    f"seconds, and split; got {row}"
                ) from error
            return path, labels.get(row.get("label", ""), UNLABELLED)

        videos = in_threads(placed, list(enumerate(rows, 2)), "looking for videos")
        super().__init__(videos, classes)


def _rows(path: Path) -> list[dict[str, str]]:
    """Read the CSV file and check its columns."""
    reader = csv.DictReader(io.StringIO(text_of(path), newline=""))
    try:
        columns, rows = reader.fieldnames or (), list(reader)
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: no CSV: {error}") from error
    missing = {"youtube_id", "time_start", "time_end", "split"} - set(columns)
    if missing:
        raise ValueError(
            f"{path}: expected the columns label, youtube_id, time_start, time_end, split; "
            f"missing are {sorted(missing)}"
        )
    return rows


def _path(root: Path, row: dict[str, str]) -> Path:
    """Return where a clip lies, or where it should if it lies nowhere."""
    start, end = (int(float(row[key])) for key in ("time_start", "time_end"))
    name = f"{row['youtube_id']}_{start:06d}_{end:06d}.mp4"
    home = root / row["split"]
    label = row.get("label") or ""
    others = [] if label else sorted(place for place in home.glob("*") if not is_hidden(place))
    places = [home / label, home / label.replace(" ", "_"), *others]
    return next(
        (place / name for place in places if os.path.exists(place / name)), home / label / name
    )
