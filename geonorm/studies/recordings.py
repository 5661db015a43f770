"""Recordings of the user's own that the studies look at where there are any."""

import os
from collections.abc import Callable
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, NamedTuple

from geonorm.files import is_hidden

if TYPE_CHECKING:
    from geonorm.datasets import Scan


class Recordings(NamedTuple):
    """A LiDAR scan (SemanticKITTI's .bin) and films of a folder; either may be missing."""

    scan: Path | None
    videos: tuple[Path, ...]

    @classmethod
    def of(cls, folder: Path | None) -> "Recordings":
        """Return the first scan and all films below a folder.

        Args:
            folder: $GEONORM_DATA if not given; without it there are no recordings.

        Raises:
            ValueError: there is no such folder, or it holds neither.
        """
        from geonorm.datasets.video_lists import SUFFIXES as FILMS

        if folder is None:
            if "GEONORM_DATA" not in os.environ:
                return cls(None, ())
            folder = Path(os.environ["GEONORM_DATA"])
        if not folder.is_dir():
            raise ValueError(f"expected a folder of recordings; {folder} is none")
        files = [
            path
            for path in sorted(folder.rglob("*"))
            if path.is_file()
            and not any(is_hidden(folder / part) for part in path.relative_to(folder).parts)
        ]
        scans = [path for path in files if path.suffix == ".bin"]
        videos = tuple(path for path in files if path.suffix.lower() in FILMS)
        if not scans and not videos:
            raise ValueError(
                f"expected scans (.bin) or films ({', '.join(FILMS)}) below {folder}; found neither"
            )
        return cls(scans[0] if scans else None, videos)

    def read_scan(self) -> "Scan":
        """Return the scan.

        Raises:
            ValueError: there is none.
        """
        from geonorm.datasets.scan_io import read_scan

        if self.scan is None:
            raise ValueError(f"this part {self.lacks('scan')}")
        return read_scan(self.scan)

    def lacks(self, needs: str | None) -> str | None:
        """Return what to do for a part to be measured, or None where all is there.

        Args:
            needs: what the part needs, as `Part` takes it.
        """
        there: dict[str, tuple[str, Callable[[], bool]]] = {
            "scan": ("a scan: give --data", lambda: self.scan is not None),
            "videos": ("videos: give --data", lambda: bool(self.videos)),
            "sound": ("a film with sound: give --data", lambda: self.sound is not None),
            "speech": ("espeak-ng: apt-get install espeak-ng", lambda: bool(which("espeak-ng"))),
        }
        if needs is None:
            return None
        name, found = there[needs]
        return None if found() else f"needs {name}"

    @property
    def sound(self) -> Path | None:
        """Return the first film that has a sound track."""
        import av

        for path in self.videos:
            with av.open(str(path)) as container:
                if container.streams.audio:
                    return path
        return None
