"""Built-in videos: real files, made once, whose class is the motion and nothing else."""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from geonorm.datasets import AppearanceShift, ClipDataset, SyntheticActions
from geonorm.datasets.synthetic import actions as synthetic_videos
from geonorm.datasets.synthetic.action_drawing import MOTIONS, Beat, Pose, _texture, draw_action
from geonorm.datasets.video_io import read_frames
from geonorm.datasets.video_probe import probe


def poses(motion: str, count: int = 1000) -> np.ndarray:
    """Return (count, T, 4): x, y, angle in turns and size of random films, all modulo 1."""
    out = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        x, y, angle, size = (np.full(24, start) for start in rng.random(4))
        pose = Pose(x, y, angle * 2 * np.pi, size)
        beat = Beat(rng.uniform(0.7, 1.4) * np.arange(24), rng.uniform(0.2, 0.32), rng.random())
        MOTIONS[motion](pose, beat)
        out.append(np.stack([pose.x, pose.y, pose.angle / (2 * np.pi), pose.size], -1) % 1)
    return np.stack(out)


@pytest.mark.parametrize("motion", MOTIONS)
def test_no_single_frame_tells_the_class(motion: str) -> None:
    """Place, angle and size are even in [0, 1) in the first, a middle and the last frame."""
    drawn = poses(motion)
    for frame in (0, 11, 23):
        for coordinate in range(4):
            values = np.sort(drawn[:, frame, coordinate])
            # Kolmogorov's distance; 2.2 / sqrt(n) is passed once in eight thousand by chance.
            distance = np.abs(values - np.linspace(0, 1, len(values))).max()
            assert distance < 2.2 / np.sqrt(len(values))


def steps(motion: str) -> np.ndarray:
    """Return the changes from frame to frame, in (-0.5, 0.5]."""
    return (np.diff(poses(motion, 60), axis=1) + 0.5) % 1 - 0.5


@pytest.mark.parametrize(("motion", "coordinate", "sign"), [
    ("move left", 0, -1), ("move right", 0, 1), ("move up", 1, -1), ("move down", 1, 1),
    ("turn clockwise", 2, 1), ("turn anticlockwise", 2, -1), ("zoom in", 3, 1), ("zoom out", 3, -1),
])
def test_steady_motions_change_one_thing_one_way(motion: str, coordinate: int, sign: int) -> None:
    changes = steps(motion)
    assert (np.sign(changes[..., coordinate]) == sign).all()
    others = [other for other in range(4) if other != coordinate]
    assert np.abs(changes[..., others]).max() < 1e-9


@pytest.mark.parametrize(("motion", "reverse", "coordinate"), [
    ("bounce on the floor", "bounce on the ceiling", 1), ("jerk right", "jerk left", 0),
])
def test_returning_motions_mirror_their_reverse(
    motion: str, reverse: str, coordinate: int
) -> None:
    there, back = steps(motion)[..., coordinate], steps(reverse)[..., coordinate]
    assert np.allclose(there, -back)
    assert (there > 0).any()
    assert (there < 0).any()


def test_jerks_are_fast_one_way_and_slow_the_other() -> None:
    there = steps("jerk right")[..., 0]
    assert np.median(there[there > 0]) > 2 * np.median(-there[there < 0])


def test_bounces_turn_sharply_at_the_floor_only() -> None:
    sudden = np.diff(steps("bounce on the floor")[..., 1], axis=1)
    assert (sudden > 0).mean() > 0.7
    assert np.abs(sudden[sudden < 0]).mean() > 3 * sudden[sudden > 0].mean()


def test_appearance_is_the_same_for_every_class() -> None:
    """With the same draws the first frame looks alike up to where a bounce or swing begins."""
    first = [draw_action(motion, np.random.default_rng(3))[0][0] for motion in list(MOTIONS)[:8]]
    assert all(np.array_equal(first[0], other) for other in first)
    later = [draw_action(motion, np.random.default_rng(3))[0][9] for motion in MOTIONS]
    for i in range(len(later)):
        for j in range(i):
            assert not np.array_equal(later[i], later[j])


def test_shape_shows_and_is_covered_where_said() -> None:
    film, cover = draw_action("turn clockwise", np.random.default_rng(0), frames=6, size=64)
    assert (film.dtype, film.shape, cover.shape) == (np.uint8, (6, 64, 64, 3), (6, 64, 64))
    assert 0.02 < cover.mean() < 0.5
    moved = np.abs(np.diff(film.astype(int), axis=0)).max(-1)
    outside = (cover[1:] == 0) & (cover[:-1] == 0)
    assert moved[outside].max() == 0
    assert moved[~outside].mean() > 2


@pytest.mark.parametrize("seed", range(12))
def test_textures_are_plain_stripes_checks_or_a_slope(seed: int) -> None:
    right, down = np.random.default_rng(0).uniform(-1.4, 1.4, (2, 500)).astype(np.float32)
    rng = np.random.default_rng(seed)
    pattern = rng.integers(4)
    rate, start, tilt = rng.uniform(4, 9), rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi)
    along = np.cos(tilt) * right + np.sin(tilt) * down
    across = np.cos(tilt) * down - np.sin(tilt) * right
    waves = np.sin(rate * along + start)
    shares = [0 * along, 2 * waves + 0.5, 3 * waves * np.sin(rate * across) + 0.5,
              0.5 + 0.5 * along]  # fmt: skip
    found = _texture(right, down, np.random.default_rng(seed))
    np.testing.assert_allclose(found, shares[pattern].clip(0, 1), atol=1e-4)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> SyntheticActions:
    return SyntheticActions("val", root=tmp_path_factory.mktemp("films"), num_videos=24)


def test_files_are_real_and_read_like_any_others(films: SyntheticActions) -> None:
    assert films.classes == tuple(MOTIONS)
    assert [label for _, label in films.videos] == [*range(12), *range(12)]
    info = probe(films.videos[5][0])
    assert (info.frames, info.fps, info.width, info.height) == (24, 25.0, 72, 72)
    drawn, _ = draw_action("turn anticlockwise", np.random.default_rng((0, 1, 5)))
    read = read_frames(films.videos[5][0], range(24), info=info).video
    error = np.abs(read.astype(int) - drawn).mean()
    assert error < 12
    other, _ = draw_action("turn anticlockwise", np.random.default_rng((0, 1, 17)))
    assert np.abs(read.astype(int) - other).mean() > 3 * error


@pytest.mark.parametrize(("fold", "number"), [("train", 600), ("val", 240)])
def test_as_many_films_as_said(tmp_path: Path, fold: str, number: int) -> None:
    films = SyntheticActions(fold, root=tmp_path, frames=1, size=16)
    classes = np.array([label for _, label in films.videos])
    assert len(films) == len(list(tmp_path.glob("*/*.mp4"))) == number
    assert np.array_equal(np.bincount(classes), np.full(12, number // 12))


def test_names_do_not_tell_the_class(films: SyntheticActions) -> None:
    assert {path.parent for path, _ in films.videos} == {films.folder}
    assert all(path.stem.isdigit() for path, _ in films.videos)


def test_made_once(films: SyntheticActions) -> None:
    root = films.folder.parent
    times = [path.stat().st_mtime_ns for path, _ in films.videos]
    again = SyntheticActions("val", root=root, num_videos=24)
    assert again.videos == films.videos
    assert [path.stat().st_mtime_ns for path, _ in again.videos] == times
    assert [path.name for path in root.iterdir()] == [films.folder.name]


def test_a_bar_shows_how_far_long_drawing_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    SyntheticActions("train", root=tmp_path, num_videos=3, frames=4)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(synthetic_videos, "_SILENT", 0.0)
    SyntheticActions("val", root=tmp_path / "log", num_videos=3, frames=4)
    assert capsys.readouterr().err == ""  # no terminal
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    SyntheticActions("val", root=tmp_path, num_videos=3, frames=4)
    assert "val videos, drawn and encoded once: 100%" in capsys.readouterr().err


def test_incomplete_folder_is_made_anew(tmp_path: Path) -> None:
    first = SyntheticActions("train", root=tmp_path, num_videos=3, frames=4)
    data = first.videos[0][0].read_bytes()
    (first.folder / "complete.json").unlink()
    first.videos[0][0].write_bytes(b"half a film")
    second = SyntheticActions("train", root=tmp_path, num_videos=3, frames=4)
    assert second.folder == first.folder
    assert second.videos[0][0].read_bytes() == data
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_is_found_again_by_all_that_its_films_depend_on(tmp_path: Path) -> None:
    root = tmp_path / "not" / "there"
    films = SyntheticActions("val", root=root, num_videos=3, seed=5, frames=4, size=16)
    text = (films.folder / "complete.json").read_text()
    assert json.loads(text) == [2, "val", 3, 5, 4, 16, "None", "libx264"]
    assert films.folder == root / f"val-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    assert sorted(path.name for path in films.folder.glob("*.mp4")) == [
        "00000.mp4", "00001.mp4", "00002.mp4"
    ]
    info = probe(films.videos[2][0])
    assert (info.frames, info.width, info.height) == (4, 16, 16)
    drawn, _ = draw_action("move up", np.random.default_rng((5, 1, 2)), 4, 16)
    assert np.abs(read_frames(films.videos[2][0], range(4)).video.astype(int) - drawn).mean() < 12


def test_films_are_for_training_and_in_the_users_cache_if_nothing_else_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEONORM_CACHE", str(tmp_path))
    films = SyntheticActions(num_videos=1, frames=1)
    assert films.folder.parent == tmp_path / "synthetic-actions"
    assert json.loads((films.folder / "complete.json").read_text())[1:4] == ["train", 1, 0]
    assert synthetic_videos._NUM_VIDEOS == {"train": 600, "val": 240}


def test_who_comes_second_leaves_a_complete_folder_as_it_is(tmp_path: Path) -> None:
    films = SyntheticActions("val", root=tmp_path, num_videos=2, frames=1)
    before = sorted(path.stat().st_mtime_ns for path in films.folder.iterdir())
    late = tmp_path / "late"
    late.mkdir()
    (late / "complete.json").write_text("late")
    synthetic_videos._put_in_place(late, films.folder)
    assert sorted(path.stat().st_mtime_ns for path in films.folder.iterdir()) == before
    with pytest.raises(OSError, match="nowhere"):
        synthetic_videos._put_in_place(late, tmp_path / "nowhere" / "films")


def test_folds_seeds_and_shifts_are_other_films(tmp_path: Path) -> None:
    options = {"root": tmp_path, "num_videos": 1, "frames": 4}
    made = [
        SyntheticActions("train", **options),
        SyntheticActions("val", **options),
        SyntheticActions("train", seed=1, **options),
        SyntheticActions("train", shift=AppearanceShift("cast", 5), **options),
        SyntheticActions("train", shift=AppearanceShift("background", 5), **options),
    ]
    films = [read_frames(one.videos[0][0], [0]).video.astype(int) for one in made]
    for i in range(len(films)):
        for j in range(i):
            assert np.abs(films[i] - films[j]).mean() > 3


def test_the_shift_of_a_film_is_drawn_anew_for_each(tmp_path: Path) -> None:
    shift = AppearanceShift("cast", 5)
    films = SyntheticActions("val", root=tmp_path, num_videos=2, seed=3, frames=4, shift=shift)
    for number, motion in enumerate(("move left", "move right")):
        drawn, cover = draw_action(motion, np.random.default_rng((3, 1, number)), 4)
        clip = torch.from_numpy(drawn).permute(0, 3, 1, 2)
        own, other = (
            shift(clip, np.random.default_rng(key), torch.from_numpy(cover)[:, None])
            .permute(0, 2, 3, 1).numpy()
            for key in ((3, 1, number, 1), (3, 1, 1 - number, 1))
        )  # fmt: skip
        read = read_frames(films.videos[number][0], range(4)).video.astype(int)
        assert np.abs(read - own).mean() < 12
        assert np.abs(read - own).mean() * 3 < np.abs(read - other).mean()


def test_background_shift_leaves_the_shape(tmp_path: Path) -> None:
    options = {"root": tmp_path, "num_videos": 1, "frames": 2}
    plain = SyntheticActions("train", **options)
    changed = SyntheticActions("train", shift=AppearanceShift("background", 5), **options)
    films = [read_frames(one.videos[0][0], [0]).video.astype(int)[0] for one in (plain, changed)]
    _, cover = draw_action("move left", np.random.default_rng((0, 0, 0)), 2)
    difference = np.abs(films[0] - films[1]).mean(-1)
    assert difference[cover[0] == 1].mean() * 4 < difference[cover[0] == 0].mean()


def test_clips_of_built_in_videos(films: SyntheticActions, tmp_path: Path) -> None:
    data = ClipDataset(films, length=8, step=2, cache=tmp_path)
    clip = data[7]
    assert tuple(clip.video.shape) == (8, 3, 72, 72)
    assert clip.label == 7
    assert (clip.video.float().diff(dim=0).abs() > 30).any()
    assert torch.equal(data[7].video, clip.video)


@pytest.mark.parametrize("options", [
    {"num_videos": 0}, {"frames": 0}, {"size": 71}, {"size": 14},
])
def test_bad_sizes(tmp_path: Path, options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected at least 1 film of 1 frame with an even side"):
        SyntheticActions("train", root=tmp_path, **options)
    assert not any(tmp_path.iterdir())
    smallest = SyntheticActions("val", root=tmp_path, num_videos=1, frames=1, size=16)
    assert len(smallest.videos) == 1


def test_bad_fold(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fold must be one of"):
        SyntheticActions("test", root=tmp_path)


@pytest.mark.parametrize("motion", ["move left", "move right", "move up", "move down"])
def test_what_leaves_on_one_side_comes_in_on_the_other(motion: str) -> None:
    """A shape that only moves keeps its area, and in time crosses every border."""
    for seed in range(4):
        _, cover = draw_action(motion, np.random.default_rng(seed), frames=60)
        areas = cover.sum((1, 2))
        assert areas.min() > 0.98 * areas.max() > 0
        across = (cover[:, :, 0].sum(1) if motion in ("move left", "move right")
                  else cover[:, 0].sum(1))  # fmt: skip
        assert across.max() > 0
