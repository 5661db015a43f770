"""Frames of a clip: in range, in order, looped when too few, and drawn without favour."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geonorm.datasets.clip_sampling import (
    dense_clip,
    random_clip,
    segment_clip,
    still_clip,
    uniform_clip,
)

frames = st.integers(1, 400)
lengths = st.integers(1, 64)
steps = st.floats(0.2, 8.0)


@given(frames=frames, length=lengths, step=steps, seed=st.integers(0, 2**32))
def test_random_clip_is_evenly_spaced_and_inside(
    frames: int, length: int, step: float, seed: int
) -> None:
    chosen = random_clip(frames, length, step, np.random.default_rng(seed))
    expected = np.floor(np.arange(length) * step).astype(int)
    assert chosen.shape == (length,)
    assert ((chosen >= 0) & (chosen < frames)).all()
    assert np.array_equal((chosen - chosen[0]) % frames, expected % frames)
    if expected[-1] < frames:
        assert np.array_equal(chosen - chosen[0], expected)


def test_random_starts_reach_every_place_equally() -> None:
    rng = np.random.default_rng(0)
    starts = [int(random_clip(20, 5, 2, rng)[0]) for _ in range(6000)]
    counts = np.bincount(starts, minlength=20)
    assert (counts[12:] == 0).all()
    assert abs(counts[:12] - 500).max() < 120


@given(frames=frames, length=lengths, step=steps)
def test_a_clip_longer_than_the_video_loops(frames: int, length: int, step: float) -> None:
    chosen = dense_clip(frames, length, step, view=0, views=2)
    assert np.array_equal(chosen, np.floor(np.arange(length) * step).astype(int) % frames)


def test_loop_worked_by_hand() -> None:
    assert dense_clip(3, 8, 1, view=0, views=1).tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert random_clip(3, 4, 2, np.random.default_rng(0)).tolist() == [0, 2, 1, 0]
    assert uniform_clip(3, 6).tolist() == [0, 0, 1, 1, 2, 2]


@given(frames=frames, length=lengths)
def test_uniform_clip_takes_the_middle_of_every_part(frames: int, length: int) -> None:
    chosen = uniform_clip(frames, length)
    gaps = np.diff(chosen)
    assert ((gaps == frames // length) | (gaps == -(-frames // length))).all()
    # As much room, to the frame, before the first as after the last.
    assert abs(chosen[0] - (frames - 1 - chosen[-1])) <= 1


@given(frames=frames, length=lengths, seed=st.integers(0, 99))
def test_segment_clip_takes_one_frame_of_every_part(frames: int, length: int, seed: int) -> None:
    chosen = segment_clip(frames, length, np.random.default_rng(seed))
    starts = np.arange(length) * frames / length
    assert (chosen >= np.floor(starts)).all()
    assert (chosen <= starts + frames / length).all()
    assert chosen[-1] < frames


def test_segment_clips_reach_every_frame() -> None:
    rng = np.random.default_rng(0)
    drawn = np.stack([segment_clip(12, 4, rng) for _ in range(200)])
    assert [sorted(set(part.tolist())) for part in drawn.T] == [
        [0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11],
    ]  # fmt: skip


def test_a_draw_next_to_1_stays_within_the_video() -> None:
    """Which rounds to 4 beside the 3 of the last part."""
    rng = SimpleNamespace(random=lambda number: np.full(number, np.nextafter(1, 0)))
    assert segment_clip(12, 4, rng).tolist() == [2, 6, 9, 11]


def test_segments_are_drawn_each_for_itself() -> None:
    """One draw for all would put every frame at the same place of its part."""
    rng = np.random.default_rng(0)
    places = np.stack([segment_clip(4000, 4, rng) % 1000 for _ in range(500)])
    assert np.abs(np.corrcoef(places.T) - np.eye(4)).max() < 0.2
    assert ((places.std(axis=0) > 250) & (places.std(axis=0) < 330)).all()


def test_dense_views_reach_from_the_first_frame_to_the_last() -> None:
    views = [dense_clip(100, 16, 2, view, 5) for view in range(5)]
    assert [view[0] for view in views] == [0, 17, 34, 52, 69]
    assert views[0][0] == 0
    assert views[-1][-1] == 99
    assert dense_clip(100, 16, 2, 0, 1)[0] == 34


TIMES = np.array([0, 0.1, 0.2, 0.6, 0.7, 1.5, 1.6])


def test_uneven_video_worked_by_hand() -> None:
    """The seven frames last 1.6 · 7 / 6 = 1.87 seconds together."""
    assert dense_clip(7, 4, 0.2, 0, 2, TIMES).tolist() == [0, 2, 2, 3]
    assert dense_clip(7, 4, 0.2, 1, 2, TIMES).tolist() == [4, 4, 4, 4]
    assert dense_clip(7, 4, 0.2, 0, 1, TIMES).tolist() == [2, 2, 3, 4]
    assert dense_clip(7, 9, 0.25, 0, 1, TIMES).tolist() == [0, 2, 2, 4, 4, 4, 5, 6, 1]


def test_rounded_time_stamps_are_on_time() -> None:
    """A frame at 0.067 is the one that 15 frames per second ask for at 0.0667."""
    assert dense_clip(4, 2, 1 / 15, 0, 2, np.array([0, 0.033, 0.067, 0.3])).tolist() == [0, 2]
    assert dense_clip(4, 2, 1 / 15, 0, 2, np.array([0, 0.033, 0.069, 0.3])).tolist() == [0, 1]
    even = np.array([0, 0.033, 0.067, 0.1, 0.133])
    assert dense_clip(5, 3, 1 / 30, 1, 2, even).tolist() == [2, 3, 4]


def test_random_starts_of_an_uneven_video_reach_every_frame_that_fits() -> None:
    rng = np.random.default_rng(0)
    clips = [random_clip(7, 3, 0.45, rng, TIMES).tolist() for _ in range(400)]
    assert sorted({tuple(clip) for clip in clips}) == [
        (0, 2, 4), (1, 2, 4), (2, 3, 4), (3, 4, 5), (4, 4, 6),
    ]  # fmt: skip
    assert min(np.bincount([clip[0] for clip in clips])) > 50
    assert random_clip(7, 3, 0.8, rng, TIMES)[0] == 0


def test_fractional_step_resamples_the_rate() -> None:
    assert dense_clip(100, 6, 30 / 20, 0, 2).tolist() == [0, 1, 3, 4, 6, 7]


def test_still_clip_shows_one_frame() -> None:
    assert still_clip(9, 4).tolist() == [4, 4, 4, 4]


@pytest.mark.parametrize(("frames", "length"), [(0, 4), (4, 0)])
def test_no_frames_no_clip(frames: int, length: int) -> None:
    rng = np.random.default_rng(0)
    for sample in (
        lambda: random_clip(frames, length, 1, rng),
        lambda: uniform_clip(frames, length),
        lambda: segment_clip(frames, length, rng),
        lambda: dense_clip(frames, length, 1, 0, 1),
        lambda: still_clip(frames, length),
    ):
        with pytest.raises(ValueError, match="at least 1 frame"):
            sample()


def test_step_and_view_are_checked() -> None:
    with pytest.raises(ValueError, match="step must be above 0"):
        random_clip(9, 4, 0, np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"view must be in \[0, 3\); got 3"):
        dense_clip(9, 4, 1, 3, 3)
    with pytest.raises(ValueError, match=r"view must be in \[0, 3\); got -1"):
        dense_clip(9, 4, 1, -1, 3)
