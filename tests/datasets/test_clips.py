"""The clip dataset: what is random, what loops, and files that fail."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from geonorm.datasets import Clip, ClipDataset, VideoSet
from geonorm.datasets.video_io import read_frames
from helpers.video_files import (
    damage,
    encode,
    headers_only,
    noisy_film,
    numbered_film,
    numbers_of,
    sound,
)

FRAMES = 30


@pytest.fixture
def films(tmp_path: Path) -> list[Path]:
    return [encode(tmp_path / f"film {i}.mp4", numbered_film(FRAMES)) for i in range(4)]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def as_set(paths: list[Path]) -> VideoSet:
    return VideoSet([(path, i % 2) for i, path in enumerate(paths)], ["even", "odd"])


def numbers(video: Tensor) -> list[int]:
    """Read the frame numbers of a uint8 clip (T, C, H, W)."""
    return numbers_of(video.permute(0, 2, 3, 1).numpy())


def test_an_item(films: list[Path], cache: Path) -> None:
    data = ClipDataset(as_set(films), length=8, step=2, sampling="dense", size=24, cache=cache)
    clip = data[3]
    assert isinstance(clip, Clip)
    assert (clip.video.dtype, tuple(clip.video.shape)) == (torch.uint8, (8, 3, 24, 48))
    assert (clip.label, clip.video_index, clip.path) == (1, 3, str(films[3]))
    assert numbers(clip.video) == list(range(7, 23, 2))
    assert data.classes == ("even", "odd")
    with pytest.raises(ValueError, match="epoch must be >= 0; got -1"):
        data.set_epoch(-1)
    for index in (4, -1):
        with pytest.raises(IndexError, match=rf"index must be in \[0, 4\); got {index}"):
            data[index]
    assert data.report() == []


def test_a_batch_has_the_form_of_an_item(films: list[Path], cache: Path) -> None:
    data = ClipDataset(as_set(films), length=4, cache=cache)
    batch = next(iter(DataLoader(data, batch_size=4)))
    assert isinstance(batch, Clip)
    assert tuple(batch.video.shape) == (4, 4, 3, 48, 96)
    assert batch.label.tolist() == [0, 1, 0, 1]
    assert batch.video_index.tolist() == [0, 1, 2, 3]
    assert list(batch.path) == [str(film) for film in films]


def test_random_clips_are_a_function_of_seed_epoch_and_index(
    films: list[Path], cache: Path
) -> None:
    def starts(seed: int, epoch: int, workers: int = 0) -> list[int]:
        data = ClipDataset(as_set(films), length=3, seed=seed, cache=cache)
        data.set_epoch(epoch)
        loader = DataLoader(data, batch_size=None, num_workers=workers)
        return [numbers(clip.video)[0] for clip in loader]

    first = starts(0, 0)
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    assert starts(0, 0) == first
    assert starts(0, 0, workers=2) == first
    assert starts(0, 1) != first
    assert starts(1, 0) != first
    assert len(set(first)) > 1


def test_epochs_reach_workers_that_persist(films: list[Path], cache: Path) -> None:
    data = ClipDataset(as_set(films), length=3, cache=cache)
    loader = DataLoader(data, batch_size=None, num_workers=2, persistent_workers=True)
    epochs = []
    for epoch in (0, 1, 0):
        data.set_epoch(epoch)
        epochs.append([numbers(clip.video)[0] for clip in loader])
    assert epochs[0] == epochs[2] != epochs[1]


def test_dense_views_share_the_index_of_their_video(films: list[Path], cache: Path) -> None:
    data = ClipDataset(as_set(films), length=4, sampling="dense", views=3, cache=cache)
    assert len(data) == 12
    assert [data[i].video_index for i in range(12)] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert [numbers(data[i].video)[0] for i in (3, 4, 5)] == [0, 13, 26]


def test_sampling_kinds(films: list[Path], cache: Path) -> None:
    videos = as_set(films)
    uniform = ClipDataset(videos, length=5, sampling="uniform", cache=cache)
    assert numbers(uniform[0].video) == [3, 9, 15, 21, 27]
    parts = ClipDataset(videos, length=5, sampling="segments", cache=cache)
    first = numbers(parts[0].video)
    assert [number // 6 for number in first] == [0, 1, 2, 3, 4]
    parts.set_epoch(1)
    assert numbers(parts[0].video) != first
    still = ClipDataset(videos, length=5, sampling="still", cache=cache)
    assert numbers(still[0].video) == [15] * 5
    slower = ClipDataset(videos, length=5, sampling="dense", fps=10, cache=cache)
    assert np.diff(numbers(slower[0].video)).tolist() == [2, 3, 2, 3]


def test_views_and_repeats_are_counted_video_by_video(films: list[Path], cache: Path) -> None:
    repeated = ClipDataset(as_set(films), length=2, repeats=3, sampling="segments", cache=cache)
    assert len(repeated) == 12
    assert [repeated[i].video_index for i in (0, 2, 3, 11)] == [0, 0, 1, 3]
    drawn = [repeated.frames(i).tolist() for i in range(12)]
    assert [numbers(repeated[i].video) for i in (4, 11)] == [drawn[4], drawn[11]]
    assert len({*map(tuple, drawn[:3])}) > 1
    repeated.set_epoch(1)
    assert [repeated.frames(i).tolist() for i in range(12)] != drawn
    assert numbers(repeated[4].video) == repeated.frames(4).tolist()
    views = ClipDataset(as_set(films), length=2, sampling="dense", views=3, portion=(0.5, 1),
                        cache=cache)  # fmt: skip
    before = [views.frames(i).tolist() for i in (3, 4, 5)]
    views.set_epoch(1)
    assert [views.frames(i).tolist() for i in (3, 4, 5)] == before == [[15, 16], [21, 22], [28, 29]]


@pytest.mark.parametrize(("options", "rate"), [
    ({"step": 2}, 12.5), ({"step": 2, "fps": 10}, 5), ({"length": 6, "sampling": "uniform"}, 5),
    ({"length": 6, "sampling": "segments", "portion": (0.5, 1.0)}, 10),
    ({"length": 6, "sampling": "uniform", "portion": (0.5, 0.51), "fps": 10}, 150),
])  # fmt: skip
def test_a_clip_knows_its_rate(
    films: list[Path], cache: Path, options: dict[str, object], rate: float
) -> None:
    """Of 30 frames at 25 a second."""
    assert ClipDataset(as_set(films), cache=cache, **options).rate(3) == pytest.approx(rate)


def test_a_part_of_an_uneven_film_is_sampled_at_its_own_times(tmp_path: Path, cache: Path) -> None:
    """Its last six frames come after 0, 0.04, 0.2, 0.24, 0.6 and 0.64 seconds."""
    times = [0, 4, 8, 12, 16, 20, 30, 34, 50, 54, 90, 94]
    film = encode(tmp_path / "a.mp4", numbered_film(12), times=times, options={"bf": "0"})
    for step, expected in ((1, [7, 7, 9]), (2, [7, 9, 9])):
        data = ClipDataset(as_set([film]), length=3, step=step, fps=10, portion=(0.5, 1),
                           sampling="dense", cache=cache)  # fmt: skip
        assert data.frames(0).tolist() == numbers(data[0].video) == expected
    alone = ClipDataset(as_set([film]), length=2, fps=10, portion=(0.5, 0.51), cache=cache)
    assert alone.frames(0).tolist() == [6, 6]


def test_portions_do_not_meet(films: list[Path], cache: Path) -> None:
    first = ClipDataset(as_set(films), length=4, portion=(0, 0.5), cache=cache)
    last = ClipDataset(
        as_set(films), length=4, portion=(0.5, 1), sampling="dense", views=6, cache=cache
    )
    seen = set()
    for epoch in range(6):
        first.set_epoch(epoch)
        seen |= {frame for i in range(4) for frame in numbers(first[i].video)}
    later = {frame for i in range(24) for frame in numbers(last[i].video)}
    assert max(seen) < 15 <= min(later)
    assert max(later) == 29


@pytest.mark.parametrize(("frames", "portion", "expected"), [
    (1, (0, 0.5), 0), (2, (0.5, 0.6), 1), (3, (0.9, 1.0), 2),
])  # fmt: skip
def test_the_smallest_portion_is_a_frame(
    tmp_path: Path, cache: Path, frames: int, portion: tuple[float, float], expected: int
) -> None:
    film = encode(tmp_path / "short.mp4", numbered_film(frames))
    data = ClipDataset(as_set([film]), length=2, portion=portion, cache=cache)
    assert numbers(data[0].video) == [expected] * 2


def test_a_clip_longer_than_its_video_loops(tmp_path: Path, cache: Path) -> None:
    film = encode(tmp_path / "short.mp4", numbered_film(5))
    data = ClipDataset(as_set([film]), length=12, cache=cache)
    assert numbers(data[0].video) == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]


def test_transform_gets_the_clip_and_the_key(films: list[Path], cache: Path) -> None:
    keys = []

    def transform(video: Tensor, key: tuple[int, int, int]) -> Tensor:
        keys.append(key)
        return video.float().transpose(0, 1)

    data = ClipDataset(as_set(films), length=4, seed=7, transform=transform, cache=cache)
    data.set_epoch(2)
    assert tuple(data[3].video.shape) == (3, 4, 48, 96)
    assert keys == [(7, 2, 3)]
    views = ClipDataset(as_set(films), length=4, seed=7, transform=transform, cache=cache,
                        sampling="dense", views=3)  # fmt: skip
    keys.clear()
    views.set_epoch(2)
    for item in (6, 7, 8):
        views[item]
    assert keys == [(7, 0, 6), (7, 0, 7), (7, 0, 8)]


def test_unopenable_files_are_left_out_and_named_once(
    films: list[Path], cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    films[1].write_bytes(b"no video")
    sound(films[2])
    data = ClipDataset(as_set(films), length=4, cache=cache)
    assert [path for path, _ in data.videos] == [films[0], films[3]]
    assert [data[i].label for i in range(2)] == [0, 1]
    assert [(r.path, r.kind) for r in data.report()] == [
        (films[1], "left out"), (films[2], "left out"),
    ]
    said = [record.getMessage() for record in caplog.records]
    assert sum(str(films[1]) in text and "no video" in text for text in said) == 1
    assert sum(str(films[2]) in text and "audio only" in text for text in said) == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_undecodable_file_is_replaced_counted_and_named_once(
    films: list[Path], cache: Path, caplog: pytest.LogCaptureFixture, workers: int
) -> None:
    headers_only(films[1], noisy_film(9))
    data = ClipDataset(as_set(films), length=4, cache=cache)
    assert data.report() == []
    with caplog.at_level(logging.WARNING):
        for epoch in range(3):
            data.set_epoch(epoch)
            clips = list(DataLoader(data, batch_size=None, num_workers=workers))
            assert [clip.video_index for clip in clips] == [0, 2, 2, 3]
            assert [clip.label for clip in clips] == [0, 0, 0, 1]
    assert [(r.path, r.kind, r.count) for r in data.report()] == [(films[1], "skipped", 3)]
    if workers == 0:
        said = [record.getMessage() for record in caplog.records]
        assert len(said) == 1
        assert f"{films[1]} is skipped" in said[0]


def test_damaged_file_is_read_and_counted(tmp_path: Path, cache: Path) -> None:
    film = damage(encode(tmp_path / "a.mp4", noisy_film(), options={"g": "10"}))
    data = ClipDataset(as_set([film]), length=40, cache=cache)
    assert data[0].video.shape[0] == 40
    assert [(r.path, r.kind, r.count) for r in data.report()] == [(film, "damaged", 1)]


def test_errors_alone_are_damage(tmp_path: Path, cache: Path) -> None:
    film = encode(tmp_path / "a.avi", noisy_film(), codec="mpeg4", options={"g": "10"})
    damage(film, start=0.5, length=0.01)
    data = ClipDataset(as_set([film]), length=40, sampling="uniform", cache=cache)
    read = read_frames(film, range(40))
    assert read.errors > 0
    assert read.length is None
    assert tuple(data[0].video.shape) == (40, 3, 48, 96)
    assert [(r.path, r.kind, r.count) for r in data.report()] == [(film, "damaged", 1)]


def test_a_file_shorter_than_promised_is_damage(films: list[Path], cache: Path) -> None:
    """Replaced after the index was read."""
    data = ClipDataset(as_set(films), length=30, sampling="uniform", cache=cache)
    encode(films[1], numbered_film(20))
    assert numbers(data[1].video) == [n % 20 for n in range(30)]
    assert [(r.path, r.kind, r.count) for r in data.report()] == [(films[1], "damaged", 1)]


def test_the_first_video_takes_the_place_of_the_last(films: list[Path], cache: Path) -> None:
    headers_only(films[3], noisy_film(9))
    clip = ClipDataset(as_set(films), length=4, cache=cache)[3]
    assert (clip.video_index, clip.path, clip.label) == (0, str(films[0]), 0)


def test_twenty_videos_in_a_row_end_the_run(
    films: list[Path], tmp_path: Path, cache: Path
) -> None:
    hollow = headers_only(tmp_path / "hollow.mp4", noisy_film(9))
    paths = []
    for number in range(20):
        paths.append(tmp_path / f"{number:02d}.mp4")
        paths[-1].write_bytes(hollow.read_bytes())
    data = ClipDataset(as_set([*paths, films[0]]), length=4, cache=cache)
    assert data[1].path == str(films[0])
    with pytest.raises(ValueError, match=r"20 videos in a row cannot be decoded, from .*00.mp4 on"):
        data[0]


def test_nothing_to_read_is_an_error(films: list[Path], cache: Path) -> None:
    for film in films:
        headers_only(film, noisy_film(9))
    data = ClipDataset(as_set(films), length=4, cache=cache)
    with pytest.raises(ValueError, match="4 videos in a row cannot be decoded"):
        data[2]
    for film in films:
        film.write_bytes(b"no video")
    with pytest.raises(ValueError, match="not one of 4 videos can be opened"):
        ClipDataset(as_set(films), length=4, cache=cache)


@pytest.mark.parametrize(("options", "message"), [
    ({"length": 0}, "length, step and views must be at least 1; got 0, 1, 1"),
    ({"step": 0}, "length, step and views must be at least 1; got 16, 0, 1"),
    ({"views": 0}, "length, step and views must be at least 1; got 16, 1, 0"),
    ({"repeats": 0}, "repeats must be at least 1, .*; got 0 with 'random'"),
    ({"repeats": 2, "sampling": "dense"}, "repeats must be .* 1 unless .*; got 2 with 'dense'"),
    ({"fps": 0.0}, "fps must be above 0"),
    ({"fps": float("nan")}, "fps must be above 0"),
    ({"sampling": "centre"}, "sampling must be one of"),
    ({"views": 3}, "several views need sampling='dense'"),
    ({"portion": (0.5, 0.5)}, "portion must be fractions"),
    ({"portion": (-0.1, 0.5)}, "portion must be fractions"),
    ({"portion": (0.5, 1.1)}, "portion must be fractions"),
    ({"seed": -1}, "seed must be at least 0"),
])
def test_bad_arguments(
    films: list[Path], cache: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ClipDataset(as_set(films), cache=cache, **options)
