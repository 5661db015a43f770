"""Recordings of the user's own that the studies look at where there are any."""

import os
from pathlib import Path
from typing import NamedTuple

_FILMS = (".avi", ".mp4", ".mkv", ".mov", ".webm")


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
        if folder is None:
            if "GEONORM_DATA" not in os.environ:
                return cls(None, ())
            folder = Path(os.environ["GEONORM_DATA"])
        if not folder.is_dir():
            raise ValueError(f"expected a folder of recordings; {folder} is none")
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        scans = [path for path in files if path.suffix == ".bin"]
        videos = tuple(path for path in files if path.suffix.lower() in _FILMS)
        if not scans and not videos:
            raise ValueError(
                f"expected scans (.bin) or films ({', '.join(_FILMS)}) below {folder}; found "
                "neither"
            )
        return cls(scans[0] if scans else None, videos)

    def has(self, needs: str | None) -> bool:
        """Tell whether what a part needs is there."""
        return {"scan": self.scan is not None, "videos": bool(self.videos), None: True}[needs]
