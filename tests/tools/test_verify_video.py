"""The video rows of verify_invariance.py: they hold, and each can fail."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from geonorm.training.invariance import video
from geonorm.training.invariance.table import Row, uncontrolled
from geonorm.training.invariance.video import clips_of, gains, layer_rows, network_rows
from helpers.video_files import encode, noisy_film


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Tensor:
    """Return three built-in clips, drawn and decoded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEONORM_CACHE", str(tmp_path_factory.mktemp("cache")))
        return clips_of(None)


def by_pattern(rows: list[Row]) -> dict[str, Row]:
    return {row.pattern: row for row in rows}


def test_built_in_clips_differ(clips: Tensor) -> None:
    assert clips.shape == (3, 3, 8, 48, 48)
    assert (clips[0] - clips[1]).abs().mean() > 0.1
    assert (clips[:, :, 1:] - clips[:, :, :-1]).abs().mean() > 1e-3


@pytest.mark.long  # test_verify_invariance.py runs all rows
@torch.no_grad()
def test_every_row_holds_and_names_its_control(clips: Tensor) -> None:
    rows = [*layer_rows(clips, "instance"), *network_rows(clips, "instance")]
    assert [row.breaches for row in rows] == [[]] * 12
    assert all(row.moves for row in rows)
    assert uncontrolled(rows) == []
    found = by_pattern(rows)
    assert set(found["gain, offset, one clip"].moves) == {"batch", "layer", "group"}
    assert (found["gain of each frame"].stays, found["gain of each frame"].moves[0]) == (
        ("HW",), "THW",
    )  # fmt: skip
    assert found["gain of each position"].stays == ("T",)
    assert found["frames x3"].moves == found["pixels 2x2"].moves == ("local",)
    # What an offset does at padded borders is reported as it is: the logits move.
    assert 1e-3 < found["offset 0.5, one clip"].changes["THW"] < 1
    # Below a variance near eps, a gain shows; the small eps mends it.
    assert found["gain 0.1, one clip"].changes["THW"] > video.LOGIT_TOLERANCE


@torch.no_grad()
def test_gains_are_from_a_half_to_two_and_as_often_below_one_as_above() -> None:
    found = gains((100, 100), seed=0)
    assert 0.5 <= found.min() < 0.51
    assert 1.99 < found.max() <= 2
    assert found.log2().mean().abs() < 0.03  # five standard errors


@pytest.mark.long
def test_batch_norm_in_our_place_breaches(clips: Tensor) -> None:
    small = clips[..., 8:40, 8:40]
    rows = by_pattern([*layer_rows(small, "batch"), *network_rows(small, "batch")])
    for pattern in ("gain, offset, one clip", "gain of each frame", "gain of each position",
                    "gain 1.5, one clip", "gain 4, one clip", "offset 2, one clip"):  # fmt: skip
        assert "must stay within" in rows[pattern].breaches[0], pattern


@torch.no_grad()
def test_a_norm_over_the_wrong_axes_breaches(
    clips: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames that are not normalized one by one, and a window in place of an axis."""
    runs = video.layer_runs("instance")
    swapped = {**runs, "HW": runs["THW"], "T": video.LocalNorm(), "local": nn.Identity()}
    monkeypatch.setattr(video, "layer_runs", lambda norm: swapped)
    rows = by_pattern(list(layer_rows(clips, "instance")))
    assert rows["gain of each frame"].breaches[0].startswith("HW must stay")
    assert rows["gain of each position"].breaches[0].startswith("T must stay")
    assert len(rows["frames x2"].breaches) == 2  # T moves, and the control stays


def test_a_file_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEONORM_CACHE", str(tmp_path / "cache"))
    clips = clips_of(encode(tmp_path / "film.mp4", noisy_film(60)))
    assert clips.shape == (3, 3, 8, 48, 48)
    assert not torch.equal(clips[0], clips[1])
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ValueError, match="not one of 1 videos can be opened"):
        clips_of(tmp_path / "text.mp4")
