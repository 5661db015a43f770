"""The index of many videos: kept, made anew when a file changes, and never an earlier version's."""

import hashlib
import json
import os
from pathlib import Path

import av
import pytest

from geonorm.datasets import video_index as index_module
from geonorm.datasets.video_index import video_index
from geonorm.datasets.video_io import UndecodableVideoError
from geonorm.datasets.video_probe import probe
from helpers.video_files import encode, numbered_film


@pytest.fixture
def films(tmp_path: Path) -> list[Path]:
    return [encode(tmp_path / f"film {i}.mp4", numbered_film(30)) for i in range(4)]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_index_is_read_once_and_again_when_a_file_changes(
    films: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def counted(path: Path) -> object:
        opened.append(path)
        return probe(path)

    monkeypatch.setattr(index_module, "probe", counted)
    films[2].write_bytes(b"no video")
    first = video_index(films, cache)
    assert sorted(opened) == films
    again = video_index(films, cache)
    assert len(opened) == 4
    assert again[:2] == first[:2]
    assert isinstance(again[2], UndecodableVideoError)
    assert str(again[2]) == str(first[2])
    encode(films[2], numbered_film(9))
    assert video_index(films, cache)[2].frames == 9
    assert len(opened) == 8
    os.utime(films[0], (1, 1))
    video_index(films, cache)
    assert len(opened) == 12
    kept = sorted(cache.iterdir())
    assert len(kept) == 3
    assert all(len(json.loads(file.read_text())) == 4 for file in kept)


def test_index_goes_to_the_users_cache(
    films: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEONORM_CACHE", str(tmp_path / "mine"))
    video_index(films)
    assert len(list((tmp_path / "mine/video-index").glob("*.json"))) == 1
    monkeypatch.delenv("GEONORM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    video_index(films)
    assert len(list((tmp_path / "user/geonorm/video-index").glob("*.json"))) == 1


def test_index_of_an_earlier_version_is_not_used(films: list[Path], cache: Path) -> None:
    """The first version counted packets: its numbers must not come back."""
    digest = hashlib.sha256(b"geonorm video index 1")
    for film in films:
        status = film.stat()
        digest.update(f"\n{film}\t{status.st_size} {status.st_mtime_ns}".encode())
    cache.mkdir()
    old = cache / f"{digest.hexdigest()[:32]}.json"
    old.write_text(json.dumps([[151, 25.0, 96, 48, [0], True, False]] * 4))
    assert [info.frames for info in video_index(films, cache)] == [30] * 4
    assert len(list(cache.iterdir())) == 2


def test_index_is_made_anew_by_another_ffmpeg(
    films: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video_index(films, cache)
    video_index(films, cache)
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(av, "library_versions", {**av.library_versions, "libavcodec": (1, 2, 3)})
    video_index(films, cache)
    assert len(list(cache.iterdir())) == 2


def test_index_tells_files_apart_by_place_size_and_time(tmp_path: Path, cache: Path) -> None:
    paths = [tmp_path / folder / "a.mp4" for folder in ("first", "second")]
    for path, frames in zip(paths, (5, 9), strict=True):
        path.parent.mkdir()
        data = encode(tmp_path / "b.mp4", numbered_film(frames)).read_bytes()
        path.write_bytes(data.ljust(9999, b"\0"))
        os.utime(path, (1, 1))
    assert [video_index([path], cache)[0].frames for path in paths] == [5, 9]
    paths[0].write_bytes(paths[1].read_bytes()[:-1])
    os.utime(paths[0], (1, 1))
    assert video_index(paths[:1], cache)[0].frames == 9


def test_index_of_another_version_or_length_is_made_anew(
    films: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = video_index(films, cache)
    [kept] = cache.iterdir()
    kept.write_text("[]")
    assert video_index(films, cache) == expected
    monkeypatch.setattr(index_module, "_VERSION", index_module._VERSION + 1)
    video_index(films, cache)
    assert len(list(cache.iterdir())) == 2


def test_kept_index_tells_what_probe_tells(tmp_path: Path, cache: Path) -> None:
    """Uneven times and keyframes survive the file."""
    paths = [
        encode(tmp_path / "a.mp4", numbered_film(9), times=[0, 4, 5, 9, 30, 31, 32, 40, 50]),
        encode(tmp_path / "b.avi", numbered_film(30), codec="mpeg4", options={"g": "7"}),
    ]
    expected = [probe(path) for path in paths]
    assert expected[0].times[:3] == (0.0, 0.04, 0.05)
    assert len(expected[1].keyframes) == 5
    assert video_index(paths, cache) == video_index(paths, cache) == expected
