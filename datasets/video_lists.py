"""Sets of labelled videos, from class folders and from list files."""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from geonorm.datasets.video_index import video_index
from geonorm.datasets.video_io import UndecodableVideoError, VideoInfo
from geonorm.files import is_hidden

_Tree = TypeVar("_Tree", list[Any], dict[str, Any])

UNLABELLED = -1
SUFFIXES = (
    ".3gp", ".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts",
    ".webm", ".wmv",
)
# Byte-order marks; UTF-32's begins with UTF-16's.
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_PLAIN = re.compile(r"^(?P<path>.*\S)\s+(?P<label>\S+)$")
# SlowFast's lists may put the number of frames between the path and the label.
_WITH_FRAMES = re.compile(r"^(?P<path>.*\.\w+)\s+\d+\s+(?P<label>\S+)$")


class VideoSet:
    """Paths of videos with their labels, and the names of the classes.

    Args:
        videos: pairs of a path and a label in [0, len(classes)), or -1 where there is none.
        classes: names, in the order of the labels.

    Raises:
        ValueError: no video, or a label out of range.
    """

    def __init__(self, videos: Iterable[tuple[Path, int]], classes: Sequence[str]) -> None:
        self.videos = [(Path(path), int(label)) for path, label in videos]
        self.classes = tuple(classes)
        if not self.videos:
            raise ValueError("expected at least one video; the list is empty")
        for path, label in self.videos:
            if label != UNLABELLED and not 0 <= label < len(self.classes):
                raise ValueError(
                    f"labels must be in [0, {len(self.classes)}), or {UNLABELLED} for none; got "
                    f"{label} for {path}. Are they counted from 1, or is a class name missing?"
                )

    def infos(self, cache: str | Path | None = None) -> list[VideoInfo | UndecodableVideoError]:
        """Return what each video shows, or the error that opening it raises.

        Args:
            cache: folder of the index of headers; in the user's cache if not given.
        """
        return video_index([path for path, _ in self.videos], cache)

    def __len__(self) -> int:
        return len(self.videos)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} videos, {len(self.classes)} classes)"


class ClassFolders(VideoSet):
    """Videos in one folder per class: ``root/class/video.mp4``; classes in alphabetical order.

    Hidden files and folders, such as .DS_Store, are no videos and no classes.

    Args:
        root: the folder of class folders.
        classes: the names and their order, where they are not simply the sorted folders.

    Raises:
        ValueError: no folder, a folder that is no class, or a class without videos.
    """

    def __init__(self, root: str | Path, classes: Sequence[str] | None = None) -> None:
        root = Path(root)
        folders = [path.name for path in folders_in(folder(root))]
        names = list(folders if classes is None else classes)
        unknown = sorted(set(folders) - set(names))
        if unknown:
            raise ValueError(f"{root} holds folders that are none of the classes: {unknown}")
        videos = []
        for label, name in enumerate(names):
            found = sorted(videos_in(root / name)) if name in folders else []
            if not found:
                raise ValueError(
                    f"class folder {root / name} holds no videos (looked for files in "
                    f"{', '.join(SUFFIXES)}). Remove the folder or fill it"
                )
            videos += [(path, label) for path in found]
        super().__init__(videos, names)


class VideoList(VideoSet):
    """Videos in a text file of lines ``path label``, the paths perhaps with spaces.

    A third field between the two, as in SlowFast's lists, is the number of frames and is not used.
    Lines end in LF or CRLF; empty ones are passed over. The file is UTF-8, or UTF-16 or UTF-32 with
    a byte-order mark.

    Args:
        path: the list.
        root: what relative paths are relative to; the list's own folder if not given.
        classes: names in the order of the labels; else they are the numbers up to the largest.
        labelled: False for a list of paths alone (testing without labels).

    Raises:
        ValueError: the list is empty or in another encoding, a line has no label, or a label is out
            of range.
    """

    def __init__(
        self,
        path: str | Path,
        root: str | Path | None = None,
        classes: Sequence[str] | None = None,
        labelled: bool = True,
    ) -> None:
        base = Path(path).parent if root is None else Path(root)
        videos = []
        for number, line in lines_of(path):
            name, label = (line, UNLABELLED)
            if labelled:
                name, label = _path_and_label(line, f"{path}, line {number}")
            videos.append((base / name, label))
        if not videos:
            raise ValueError(f"expected lines of `path label`; {path} is empty")
        if classes is None:
            classes = [str(label) for label in range(max(label for _, label in videos) + 1)]
        super().__init__(videos, classes)


def text_of(path: str | Path) -> str:
    """Return a file's text: UTF-8, or what its byte-order mark says.

    Raises:
        ValueError: the bytes are no such text.
    """
    data = Path(path).read_bytes()
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        seen = "ISO-8859-1" if encoding == "utf-8" else encoding.upper()
        raise ValueError(
            f"expected text in UTF-8; {path} holds the byte 0x{data[error.start]:02X} in line "
            f"{line}, which is none in {encoding}. If it is {seen}, convert it: "
            f"iconv -f {seen} -t UTF-8"
        ) from error
    if "\0" in text:
        raise ValueError(
            f"expected text in UTF-8; {path} holds zero bytes, as UTF-16 without a byte-order mark "
            "does. Convert it: iconv -f UTF-16LE -t UTF-8"
        )
    return text


def lines_of(path: str | Path) -> Iterable[tuple[int, str]]:
    """Yield the number and the text of each line that holds any, without its line end."""
    for number, line in enumerate(io.StringIO(text_of(path), newline=None), 1):
        if line.strip():
            yield number, line.strip()


def json_of(path: str | Path, kind: type[_Tree]) -> _Tree:
    """Return the list or object in a JSON file, or raise ValueError naming the file."""
    text = text_of(path)
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(tree, kind):
        raise ValueError(f"{path}: expected a JSON {kind.__name__}; got {type(tree).__name__}")
    return tree


def label_of(value: object, where: str | Path) -> int:
    """Return a label that a file tells as a whole number, perhaps in quotes."""
    if not re.fullmatch(r"-?\d{1,6}", str(value)):
        raise ValueError(f"{where}: expected a whole number as the label; got {value!r}")
    return int(str(value))


def folder(path: str | Path) -> Path:
    """Return the path of a folder that exists, or raise ValueError."""
    if not Path(path).is_dir():
        raise ValueError(f"expected a folder; {path} is none. Is the dataset unpacked there?")
    return Path(path)


def videos_in(path: Path) -> Iterable[Path]:
    """Yield the video files of one folder, told by their suffixes, hidden ones left out."""
    return files_in(path, SUFFIXES)


def files_in(path: Path, suffixes: Sequence[str]) -> Iterable[Path]:
    """Yield the files of one folder that have one of these suffixes, hidden ones left out."""
    return (
        file for file in path.iterdir() if file.suffix.lower() in suffixes and not is_hidden(file)
    )


def folders_in(path: Path) -> list[Path]:
    """Return the folders in a folder in alphabetical order, hidden ones left out."""
    return sorted(each for each in path.iterdir() if each.is_dir() and not is_hidden(each))


def labels_of(names: Iterable[str]) -> dict[str, int]:
    """Return the label of each class name, in the order given."""
    return {name: label for label, name in enumerate(names)}


def _path_and_label(line: str, where: str) -> tuple[str, int]:
    """Split a line from the right, so that the path may hold spaces."""
    match = _WITH_FRAMES.match(line) or _PLAIN.match(line)
    if match is None or not re.fullmatch(r"-?\d{1,6}", match["label"]):
        raise ValueError(
            f"{where}: expected `path label`, the label a whole number below a million; "
            f"got {line[:200]!r}. "
            "For a list without labels say labelled=False"
        )
    if int(match["label"]) < 0:
        raise ValueError(f"{where}: labels count from 0; got {match['label']}")
    return match["path"], int(match["label"])
