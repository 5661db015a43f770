"""Codecs and damage in transmission, measured from what is decoded."""

from itertools import pairwise

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geonorm.datasets import ClassFolders, ClipCorruption, ClipDataset, ClipTransform, clip_codecs
from geonorm.datasets.clip_codecs import (
    TS_PACKET,
    bit_rate,
    compressed,
    with_bit_errors,
    with_packet_loss,
    without_packets,
)
from geonorm.datasets.video_io import UndecodableVideoError, write_video
from helpers.video_files import noisy_film, numbered_film, numbers_of


def scene(frames: int = 20, height: int = 64, width: int = 80) -> np.ndarray:
    """Return a film of a square that moves over waves of colour, like no other frame."""
    rows, columns = np.mgrid[:height, :width]
    film = np.empty((frames, height, width, 3), np.uint8)
    for number in range(frames):
        waves = [np.sin((rows * a + columns * b + 3 * number) / 9)
                 for a, b in ((1, 2), (3, 1), (2, -2))]  # fmt: skip
        film[number] = (128 + 80 * np.stack(waves, -1)).astype(np.uint8)
        film[number, 20:40, 2 * number : 2 * number + 20] = (230, 40, 40)
    return film


def psnr(film: np.ndarray, other: np.ndarray) -> float:
    """Return the ratio of white to the mean error, in decibels."""
    return float(10 * np.log10(255**2 / np.square(film.astype(float) - other).mean()))


def clip_of(film: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(film).permute(0, 3, 1, 2).contiguous()


def through(name: str, severity: int, film: np.ndarray) -> np.ndarray:
    """Return what a corruption makes of a film."""
    out = ClipCorruption(name, severity)(clip_of(film), np.random.default_rng(0))
    return out.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("name", ["h264_crf", "h265_crf", "h264_abr", "h265_abr"])
def test_quality_falls_with_the_level(name: str):
    film = scene(20, 96, 112)  # nothing is added at its sides, which would take bits
    found = [psnr(film, through(name, severity, film)) for severity in range(1, 6)]
    assert found[0] > 25
    assert found[4] < found[0] - 5
    assert all(better > worse + 1 for better, worse in pairwise(found[:4]))
    assert found[3] >= found[4]  # at the lowest quality an encoder can give no less


@pytest.mark.parametrize(("name", "codec", "qualities"), [
    ("h264_crf", "libx264", (23, 30, 37, 44, 51)), ("h265_crf", "libx265", (27, 33, 39, 45, 51)),
])  # fmt: skip
def test_qualities_are_the_benchmarks(name: str, codec: str, qualities: tuple[int, ...]):
    film = scene(8)
    for severity, quality in enumerate(qualities, 1):
        expected = compressed(film, 25, codec, crf=str(quality))
        assert np.array_equal(through(name, severity, film), expected)


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_a_small_clip_is_the_same_every_time(codec: str):
    """With vectorized code x264 gives this one in a dozen ways, by what memory held before."""
    held, seen = [], set()
    for number in range(12):
        held.append(np.full(10_000 * (number % 5 + 1), number, np.uint8).tobytes())
        seen.add(compressed(scene(18, 72, 72), 25, codec, crf="23").tobytes())
    assert len(seen) == 1


@pytest.mark.parametrize("shape", [(10, 38, 26), (10, 64, 64), (6, 40, 50)])
def test_a_bit_rate_is_kept_in_the_same_way_every_time(shape: tuple[int, int, int]):
    """Extended to 64 pixels only, x265 gives these in three or four ways."""
    clip, held, seen = clip_of(scene(*shape)), [], set()
    for number in range(14):
        held.append(np.full(9000 * (number % 7 + 1), number, np.uint8).tobytes())
        out = ClipCorruption("h265_abr", 2)(clip, np.random.default_rng(0))
        seen.add(out.numpy().tobytes())
    assert len(seen) == 1


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_a_codec_of_high_quality_keeps_every_frame_in_its_place(codec: str):
    film = numbered_film(31)
    assert numbers_of(compressed(film, 25, codec, crf="10")) == list(range(31))


@pytest.mark.parametrize("size", [(17, 33), (40, 51), (16, 16)])
@pytest.mark.parametrize("name", ["h264_crf", "h265_abr", "bit_error", "packet_loss"])
def test_odd_sides_keep_their_place(name: str, size: tuple[int, int]):
    """The last row and column come back: they are neither cut off nor moved."""
    film = scene(6, *size)
    out = through(name, 1, film)
    assert out.shape == film.shape
    if name == "h264_crf":
        assert psnr(film[:, -1], out[:, -1]) > 20
        assert psnr(film[:, :, -1], out[:, :, -1]) > 20


def test_average_bit_rate_is_kept(monkeypatch: pytest.MonkeyPatch):
    """The bits of what the encoder gives, over the seconds of the clip."""
    film = scene(100)
    whole = bit_rate(film, 25)
    sizes = []

    def noted(stream: bytes, *args: object) -> np.ndarray:
        with av.open(clip_codecs.BytesIO(stream)) as container:
            sizes.append(sum(packet.size for packet in container.demux(video=0)))
        return film

    monkeypatch.setattr(clip_codecs, "_decoded", noted)
    for severity in (1, 2):  # at 1/8 this clip has the lowest quality there is
        through("h264_abr", severity, film)
        rate = 8 * sizes[-1] / (100 / 25)
        assert rate == pytest.approx(whole / 2**severity, rel=0.3)
    assert bit_rate(film, 50) == pytest.approx(2 * whole, rel=0.25)


def test_transport_packets_are_lost_at_the_rate_told():
    numbers = np.arange(20_000, dtype=np.uint32)
    stream = np.zeros((20_000, TS_PACKET), np.uint8)
    stream[:, :4] = numbers.view(np.uint8).reshape(-1, 4)
    for share in (0.01, 0.02, 0.03, 0.04, 0.06):
        left = np.frombuffer(
            without_packets(stream.tobytes(), share, np.random.default_rng(1)), np.uint8
        ).reshape(-1, TS_PACKET)
        kept = left[:, :4].copy().view(np.uint32).ravel().astype(int)
        assert (np.diff(kept) > 0).all()
        assert not left[:, 4:].any()
        assert 1 - len(kept) / 20_000 == pytest.approx(share, abs=4 * (share / 20_000) ** 0.5)
        # Each on its own: as often as not two neighbours are lost together at the share squared.
        lost = np.ones(20_000, bool)
        lost[kept] = False
        assert (lost[1:] & lost[:-1]).mean() < 3 * share**2 + 1e-3


def test_shares_of_packet_loss_are_the_benchmarks(monkeypatch: pytest.MonkeyPatch):
    film = scene(8)
    expected = with_packet_loss(film, 25, 0.06, np.random.default_rng(0))
    assert np.array_equal(through("packet_loss", 5, film), expected)
    asked = []
    monkeypatch.setattr(clip_codecs, "with_packet_loss",
                        lambda film, fps, share, rng: asked.append(share) or film)  # fmt: skip
    for severity in range(1, 6):
        through("packet_loss", severity, film)
    assert asked == [0.01, 0.02, 0.03, 0.04, 0.06]


def test_nothing_lost_is_nothing_damaged():
    film = scene()
    plain = compressed(film, 25, "libx264")
    assert np.array_equal(with_packet_loss(film, 25, 0.0, np.random.default_rng(0)), plain)
    assert np.array_equal(with_bit_errors(film, 25, 10**9), plain)


def test_more_loss_is_more_damage():
    film = scene(30)
    quality = [
        np.mean([psnr(film, with_packet_loss(film, 25, share, np.random.default_rng(seed)))
                 for seed in range(8)])
        for share in (0.0, 0.01, 0.06, 0.3)
    ]  # fmt: skip
    assert quality[0] > quality[1] + 1
    assert quality[1] > quality[2] + 1
    assert quality[2] > quality[3] + 1


def noisy_streams(interval: int, codec_bytes: int) -> int:
    """Return how many bytes FFmpeg's filter changes of packets of random bytes."""
    data = np.random.default_rng(0).integers(0, 256, codec_bytes, np.uint8)
    stream = av.open(clip_codecs.BytesIO(clip_codecs._encoded(scene(2), 25, "libx264", "mp4", {})))
    through = av.bitstream.BitStreamFilterContext(f"noise={interval}", stream.streams.video[0])
    [packet] = through.filter(av.Packet(data.tobytes()))
    changed = np.frombuffer(bytes(packet), np.uint8) != data
    stream.close()
    return int(changed.sum())


@pytest.mark.parametrize("interval", [100_000, 10_000])
def test_the_filter_changes_one_byte_of_so_many(interval: int):
    """What this FFmpeg's `noise` means: its option's sense has changed between versions."""
    found = noisy_streams(interval, 4_000_000)
    assert found == pytest.approx(4_000_000 / interval, rel=0.35)


def test_intervals_of_bit_errors_are_the_benchmarks(monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(clip_codecs, "with_bit_errors",
                        lambda film, fps, interval: asked.append(interval) or film)  # fmt: skip
    for severity in range(1, 6):
        through("bit_error", severity, scene(2))
    assert asked == [100_000, 50_000, 30_000, 20_000, 10_000]


def test_bit_errors_damage_more_the_nearer_they_stand():
    film = noisy_film(40)
    plain = compressed(film, 25, "libx264")
    quality = [psnr(plain, with_bit_errors(film, 25, n)) if n < 10**6 else 99
               for n in (10**6, 30_000, 3_000)]  # fmt: skip
    assert quality[0] > quality[1] > quality[2]


def test_a_frame_that_is_missing_shows_the_one_before_it():
    """By hand: frames 2, 3 and 6 of 8 were decoded, and one beyond the end."""
    pictures = {n: np.full((1, 1, 3), n, np.uint8) for n in (2, 3, 6, 9)}
    filled = clip_codecs._filled(pictures, 8)[:, 0, 0, 0]
    assert filled.tolist() == [2, 2, 2, 3, 3, 3, 6, 6]
    with pytest.raises(UndecodableVideoError, match="not one of the clip's 8 can be decoded"):
        clip_codecs._filled({9: pictures[9]}, 8)


def test_lost_frames_of_a_stream_are_filled_in(monkeypatch: pytest.MonkeyPatch):
    """The packets of two frames in the middle are lost whole; a static film shows no difference."""
    film = numbered_film(20)

    def without_two(stream: bytes, share: float, rng: np.random.Generator) -> bytes:
        packets = [stream[i : i + TS_PACKET] for i in range(0, len(stream), TS_PACKET)]
        starts = [i for i, p in enumerate(packets)
                  if p[1] & 0x40 and (p[1] & 31) << 8 | p[2] == 256]  # fmt: skip
        lost = range(starts[-2], len(packets))  # the last two to be stored
        return b"".join(p for i, p in enumerate(packets) if i not in lost)

    monkeypatch.setattr(clip_codecs, "without_packets", without_two)
    numbers = numbers_of(with_packet_loss(film, 25, 0.1, np.random.default_rng(0)))
    held = [n for n, shown in enumerate(numbers) if shown != n]
    assert len(held) == 2
    assert all(numbers[n] == numbers[n - 1] for n in held)


def test_a_stream_of_which_nothing_is_left():
    with pytest.raises(UndecodableVideoError, match="expected frames after damage"):
        with_packet_loss(scene(4), 25, 1.0, np.random.default_rng(0))


def test_a_clip_without_a_frame_is_replaced_by_the_next(tmp_path, monkeypatch):
    """In evaluation it is left out, as the benchmark does, counted and named."""
    for n in range(3):
        (tmp_path / "videos" / "a").mkdir(parents=True, exist_ok=True)
        write_video(tmp_path / "videos" / "a" / f"{n}.mp4", numbered_film(8 + n))
    seen = []

    def dead_link(stream: bytes, share: float, rng: np.random.Generator) -> bytes:
        seen.append(len(seen))
        return b"" if len(seen) == 1 else stream

    monkeypatch.setattr(clip_codecs, "without_packets", dead_link)
    transform = ClipTransform(32, train=False, shift=ClipCorruption("packet_loss", 5))
    clips = ClipDataset(ClassFolders(tmp_path / "videos"), length=4, sampling="uniform",
                        transform=transform, cache=tmp_path / "cache")  # fmt: skip
    assert clips[0].video_index == 1
    assert clips[1].video_index == 1
    [report] = clips.report()
    assert (report.path.name, report.kind, report.count) == ("0.mp4", "skipped", 1)


@settings(max_examples=15, deadline=None)
@given(frames=st.integers(1, 12), height=st.integers(16, 50), width=st.integers(16, 50),
       name=st.sampled_from(["h264_crf", "h265_crf", "h264_abr", "h265_abr", "bit_error",
                             "packet_loss"]),
       severity=st.integers(1, 5), seed=st.integers(0, 99),
       fps=st.sampled_from([8, 25, 29.97]))  # fmt: skip
def test_any_clip_comes_back_as_large(frames, height, width, name, severity, seed, fps):
    clip = clip_of(scene(frames, height, width))
    corruption = ClipCorruption(name, severity, fps=fps)
    try:
        out = corruption(clip, np.random.default_rng(seed))
    except UndecodableVideoError:
        assert name == "packet_loss"
        return
    assert (out.shape, out.dtype) == (clip.shape, torch.uint8)
    assert torch.equal(corruption(clip, np.random.default_rng(seed)), out)
