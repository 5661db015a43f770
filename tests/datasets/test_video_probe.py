"""Probing a video against a full decode of it by PyAV: every frame, in order, and its time."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from geonorm.datasets import ClipDataset, VideoSet, check_data, video_probe
from geonorm.datasets.clip_sampling import uniform_clip
from geonorm.datasets.video_io import read_frames, write_video
from geonorm.datasets.video_probe import probe
from helpers.odd_videos import EDITS, ODD, WHOLE, gif, oriented
from helpers.video_files import encode, noisy_film, numbered_film, numbers_of, truncate


def shown(path: Path) -> list[av.VideoFrame]:
    """Decode a whole file by PyAV, passing over packets that fail."""
    frames = []
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            try:
                frames += packet.decode()
            except av.FFmpegError:
                continue
    return frames


def pictures(path: Path) -> np.ndarray:
    return np.stack([frame.to_ndarray(format="rgb24") for frame in shown(path)])


def packets(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(packet.size > 0 for packet in container.demux(video=0))


def check_reading(path: Path, expected: np.ndarray, cache: Path) -> None:
    """Compare all frames, some frames and a clip, read with and without what probe tells."""
    info = probe(path)
    assert info.frames == len(expected)
    some = np.random.default_rng(0).integers(0, len(expected), 5).tolist()
    for numbers in (list(range(len(expected))), some, [len(expected) - 1]):
        for known in (info, None):
            read = read_frames(path, numbers, info=known)
            assert read.length is None
            assert np.array_equal(read.video, expected[numbers])
    data = ClipDataset(VideoSet([(path, 0)], "a"), length=5, sampling="uniform", cache=cache)
    clip = data[0].video.permute(0, 2, 3, 1).numpy()
    assert np.array_equal(clip, expected[uniform_clip(len(expected), 5)])
    assert data.report() == []


@pytest.mark.parametrize("kind", ODD)
def test_frames_are_those_shown_not_the_packets_stored(tmp_path: Path, kind: str) -> None:
    path = ODD[kind](tmp_path)
    expected = pictures(path)
    assert 5 < len(expected) < packets(path)
    assert not probe(path).enterable  # where packets are counted otherwise than frames
    check_reading(path, expected, tmp_path / "cache")
    seconds = [frame.time for frame in shown(path)]
    even = all(a < b for a, b in pairwise(seconds))
    rate = (len(seconds) - 1) / (seconds[-1] - seconds[0]) if even else 25
    assert probe(path).fps == pytest.approx(rate, rel=1e-3)
    findings = check_data(VideoSet([(path, 0)], "a"))
    assert not [finding for finding in findings if finding.kind == "damaged"]


@pytest.mark.parametrize("kind", WHOLE)
def test_unusual_files_of_which_every_packet_is_shown(tmp_path: Path, kind: str) -> None:
    path = WHOLE[kind](tmp_path)
    expected = pictures(path)
    assert 5 < len(expected) == packets(path)
    check_reading(path, expected, tmp_path / "cache")


def test_small_packets_that_are_frames_do_not_hinder_entering(tmp_path: Path) -> None:
    """A still film of small pictures needs few bytes a frame."""
    film = np.zeros((40, 16, 16, 3), np.uint8)
    path = encode(tmp_path / "a.avi", film, codec="mpeg4", options={"g": "10"})
    with av.open(str(path)) as container:
        assert min(packet.size for packet in container.demux(video=0) if packet.size) < 12
    info = probe(path)
    assert info.frames == 40
    assert info.entry_before(35) == 30


@pytest.mark.parametrize("bframes", [0, 3])
@pytest.mark.parametrize("kind", EDITS)
def test_edit_lists_by_hand(tmp_path: Path, kind: str, bframes: int) -> None:
    path = ODD[f"edit list, {bframes} B-frames: {kind}"](tmp_path)
    info = probe(path)
    expected = [
        number for frames, at in EDITS[kind] if at >= 0 for number in range(at, at + frames)
    ]
    assert numbers_of(read_frames(path, range(info.frames), info=info).video) == expected


TURNS = {
    (1, 0, 0, 1): (lambda picture: picture, ""),
    (-1, 0, 0, 1): (np.fliplr, "stored mirrored"),
    (1, 0, 0, -1): (np.flipud, "stored mirrored"),
    (-1, 0, 0, -1): (lambda picture: np.rot90(picture, 2), "stored turned by 180 degrees"),
    (0, 1, -1, 0): (lambda picture: np.rot90(picture, -1), "stored turned by 270 degrees"),
    (0, -1, 1, 0): (np.rot90, "stored turned by 90 degrees"),
    (0, 1, 1, 0): (lambda picture: picture.transpose(1, 0, 2), "turned by 90 degrees and mirrored"),
    (0, -1, -1, 0): (
        lambda picture: np.rot90(picture, 2).transpose(1, 0, 2),
        "turned by 90 degrees and mirrored",
    ),
}


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 16, 24, 3)).astype(np.uint8)


@pytest.mark.parametrize("matrix", TURNS)
def test_all_eight_orientations(tmp_path: Path, matrix: tuple[int, ...]) -> None:
    turn, words = TURNS[matrix]
    path = oriented(tmp_path / "a.mp4", noise(), matrix)
    stored = pictures(path)
    check_reading(path, np.stack([turn(picture) for picture in stored]), tmp_path / "cache")
    small = np.stack([f.to_ndarray(format="rgb24", width=18, height=12) for f in shown(path)])
    expected = np.stack([turn(picture) for picture in small])
    assert np.array_equal(read_frames(path, [0, 1, 2], size=12).video, expected)
    assert np.array_equal(read_frames(path, [0, 1, 2], size=expected.shape[1:3]).video, expected)
    said = [f.detail for f in check_data(VideoSet([(path, 0)], "a")) if "stored" in f.detail]
    assert [text for text in said if words in text] == said
    assert bool(said) == bool(words)


def uneven(path: Path, ticks: list[int], rate: int, **options: object) -> Path:
    return encode(path, numbered_film(len(ticks)), times=ticks, rate=rate, **options)


@pytest.mark.parametrize(("degrees", "turned"), [(3, 0), (40, 0), (50, -1), (87, -1), (-50, 1)])
def test_a_tilt_is_rounded_to_a_quarter_turn(tmp_path: Path, degrees: int, turned: int) -> None:
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    path = oriented(tmp_path / "a.mp4", noise(), (cos, sin, -sin, cos))
    expected = np.rot90(pictures(path), turned, axes=(1, 2))
    assert np.array_equal(read_frames(path, range(3)).video, expected)


def test_the_size_of_a_display_matrix_does_not_matter(tmp_path: Path) -> None:
    """Some write the shape of the pixels into it."""
    path = oriented(tmp_path / "a.mp4", noise(), (0, -0.5, 1.5, 0))
    assert np.array_equal(read_frames(path, [2]).video[0], np.rot90(pictures(path)[2]))


BROWSER = np.cumsum([0, *np.random.default_rng(1).choice([17, 33, 50, 67, 83], 49)]).tolist()
RATES = {
    # What writes the file, its frames' times in seconds, and whether they are uneven.
    "webm of a browser": (
        lambda p: uneven(p / "a.webm", BROWSER, 1000, codec="libvpx"),
        np.array(BROWSER) / 1000, True,
    ),
    "mp4 with B-frames": (lambda p: uneven(p / "a.mp4", BROWSER, 1000),
                          np.array(BROWSER) / 1000, True),
    "mp4 without": (lambda p: uneven(p / "a.mp4", BROWSER, 1000, options={"bf": "0"}),
                    np.array(BROWSER) / 1000, True),
    "avi with skipped frames": (WHOLE["empty packets, avi"],
                                np.cumsum([0, *(1 + (n % 3 == 1) for n in range(59))]) / 25, True),
    "avi with skipped frames and B-frames": (
        WHOLE["empty packets, avi with B-frames"],
        # A frame is shown when the next packet is decoded.
        (np.cumsum([0, *(1 + (n % 3 == 1) for n in range(60))])[1:] - 1) / 25, True,
    ),
    "gif": (lambda p: gif(p / "a.gif", numbered_film(63), (7 * np.arange(63) // 3).tolist()),
            7 * np.arange(63) // 3 / 100, False),
    "gif with a pause": (
        lambda p: gif(p / "a.gif", numbered_film(36), [4 * n + 40 * (n > 20) for n in range(36)]),
        (4 * np.arange(36) + 40 * (np.arange(36) > 20)) / 100, True,
    ),
    "mkv that says 1000": (
        lambda p: uneven(p / "a.mkv", (np.arange(60) * 1001 // 30).tolist(), 1000),
        np.arange(60) * 1001 / 30000, False,
    ),
    "one pause in an mp4": (
        lambda p: uneven(p / "a.mp4", [4 * n + 500 * (n > 40) for n in range(60)], 100),
        (4 * np.arange(60) + 500 * (np.arange(60) > 40)) / 100, True,
    ),
    "even mp4": (lambda p: encode(p / "a.mp4", numbered_film(60)), np.arange(60) / 25, False),
    "even webm": (lambda p: encode(p / "a.webm", numbered_film(60), codec="libvpx"),
                  np.arange(60) / 25, False),
}  # fmt: skip


@pytest.mark.parametrize("kind", RATES)
def test_rates_are_those_of_the_time_stamps(tmp_path: Path, kind: str) -> None:
    write, times, variable = RATES[kind]
    path = write(tmp_path)
    info = probe(path)
    assert info.frames == len(times)
    assert info.fps == pytest.approx((len(times) - 1) / times[-1], rel=1e-3)
    assert info.variable_rate == variable
    if variable:
        np.testing.assert_allclose(info.times, times, atol=1e-3)
    said = [finding.detail for finding in check_data(VideoSet([(path, 0)], "a"))]
    assert any(text.startswith("variable frame rate") for text in said) == variable
    frames = len(times)
    for sampling, rate in (("dense", 12.5), ("dense", 5.0), ("random", 10.0)):
        length = 8 if sampling == "dense" else 12
        data = ClipDataset(VideoSet([(path, 0)], "a"), length=length, fps=rate, sampling=sampling,
                           cache=tmp_path / "cache")  # fmt: skip
        read = numbers_of(data[0].video.permute(0, 2, 3, 1).numpy())
        moments = times[read[0]] + np.arange(length) / rate
        on_screen = np.searchsorted(times, moments + 1e-3, side="right") - 1
        slack = 0 if variable else 1
        assert moments[-1] <= times[-1] + slack * times[1]
        assert np.abs(np.array(read) - on_screen).max() <= slack
        assert max(read) < frames


def between(late: int, count: int) -> list[int]:
    """Return 60 times, 10 apart, with some frames early and the next one late."""
    ticks = [10 * n for n in range(60)]
    for place in range(5, 5 + 4 * count, 4):
        ticks[place] -= late
        ticks[place + 1] += late
    return ticks


@pytest.mark.parametrize(("ticks", "variable"), [
    (between(0, 0), False),
    # One frame, or all from one on, off their places.
    ([10 * n + 4 * (n == 20) for n in range(60)], False),
    ([10 * n + 5 * (n > 40) for n in range(60)], False),
    ([10 * n + 20 * (n > 40) for n in range(60)], True),
    # An interval in 59 that is by less or more than a half too long.
    (between(2, 1), False),
    (between(3, 1), True),
    (between(3, 4), True),
])  # fmt: skip
def test_rates_are_uneven_from_one_interval_in_a_hundred(
    tmp_path: Path, ticks: list[int], variable: bool
) -> None:
    info = probe(uneven(tmp_path / "a.mp4", ticks, 100, options={"bf": "0"}))
    assert info.variable_rate == variable
    assert len(info.times) == 60 * variable
    assert info.fps == pytest.approx(5900 / ticks[-1], rel=0.005)


@pytest.mark.parametrize("place", [5, 60, 115])
def test_a_pause_in_a_long_film_makes_it_uneven(tmp_path: Path, place: int) -> None:
    """One interval in 119 is none in a hundred, but shifts every frame after it."""
    ticks = [10 * n + 30 * (n > place) for n in range(120)]
    film = np.tile(numbered_film(60), (2, 1, 1, 1))
    path = encode(tmp_path / "a.mp4", film, times=ticks, options={"bf": "0"})
    assert probe(path).times[-1] == 12.2
    short = encode(tmp_path / "b.mp4", film, times=[10 * n + 6 * (n > 60) for n in range(120)])
    assert not probe(short).variable_rate


def test_rate_of_two_frames_and_of_one(tmp_path: Path) -> None:
    two = probe(uneven(tmp_path / "a.mkv", [0, 70], 1000))
    assert (two.frames, two.variable_rate) == (2, False)
    assert two.fps == pytest.approx(1000 / 70)
    assert probe(encode(tmp_path / "b.mp4", numbered_film(1))).fps == 25.0


def test_times_of_frames_and_how_long_a_video_lasts(tmp_path: Path) -> None:
    film, uneven = numbered_film(4), [0, 10, 20, 70]
    seen = probe(encode(tmp_path / "a.mp4", film, times=uneven, options={"bf": "0"}))
    np.testing.assert_allclose(seen.seconds, [0, 0.1, 0.2, 0.7])
    assert (seen.rate, seen.duration) == pytest.approx((3 / 0.7, 2.8 / 3))
    even = probe(encode(tmp_path / "b.mp4", film, rate=10))
    np.testing.assert_allclose(even.seconds, [0, 0.1, 0.2, 0.3])
    assert (even.rate, even.duration) == pytest.approx((10, 0.4))
    untold = replace(even, fps=0.0)
    np.testing.assert_allclose(untold.seconds, [0, 0.04, 0.08, 0.12])
    assert (untold.rate, untold.duration) == pytest.approx((25, 0.16))


def test_three_frames_can_be_uneven(tmp_path: Path) -> None:
    info = probe(uneven(tmp_path / "a.mp4", [0, 10, 50], 100, options={"bf": "0"}))
    assert (info.times, info.fps) == ((0.0, 0.1, 0.5), pytest.approx(4))


def test_portions_of_no_one_and_two_frames_of_an_uneven_video(tmp_path: Path) -> None:
    path = uneven(tmp_path / "a.mp4", [0, 10, 50], 100, options={"bf": "0"})

    def clips(portion: tuple[float, float], sampling: str = "dense") -> ClipDataset:
        return ClipDataset(VideoSet([(path, 0)], "a"), length=5, fps=10, sampling=sampling,
                           portion=portion, cache=tmp_path / "cache")  # fmt: skip

    for portion, expected in (((0.0, 0.2), [0] * 5), ((0.4, 0.7), [1] * 5),
                              ((0.34, 1.0), [1, 1, 1, 1, 2])):  # fmt: skip
        assert clips(portion).frames(0).tolist() == expected
    assert clips((0.0, 0.2), "uniform").rate(0) == pytest.approx(4 * 5)
    assert clips((0.34, 1.0), "uniform").rate(0) == pytest.approx(4 * 5 / 2)


def test_an_uneven_file_that_is_cut_short_has_the_frames_that_it_lists(tmp_path: Path) -> None:
    ticks = [n + 3 * (n % 3 == 1) for n in range(0, 120, 4)]
    path = encode(tmp_path / "a.mp4", noisy_film(30), times=ticks,
                  options={"bf": "0"}, container_options={"movflags": "faststart"})  # fmt: skip
    whole = probe(path)
    info = probe(truncate(path, 0.6))
    assert (info.frames, info.times[-1]) == (30, ticks[-1] / 100)
    assert info == whole


def test_a_stated_rate_stays_where_the_time_stamps_agree(tmp_path: Path) -> None:
    """Matroska's stamps, rounded to milliseconds, would tell 29.966 of these."""
    path = encode(tmp_path / "a.mkv", numbered_film(30), rate=30)
    assert probe(path).fps == 30.0


def test_time_stamps_agree_with_a_stated_rate_to_a_quarter_of_a_frame_or_a_tick() -> None:
    """120 frames last 4.76 seconds between the first and the last; 25 are measured a second."""
    fine, coarse = Fraction(1, 1000), Fraction(1, 50)
    for tick, off, agrees in ((fine, 0.0008, True), (fine, 0.0012, False), (coarse, 0.009, True),
                              (coarse, 0.011, False)):  # fmt: skip
        ticks = [round(0.04 * frame / tick) for frame in range(120)]
        for lasts in (4.76 - off, 4.76 + off):
            stated = 119 / lasts
            fps, times = video_probe._timing(ticks, tick, stated)
            assert fps == (stated if agrees else pytest.approx(25))
            assert (fps == stated) is agrees
            assert times == ()


def test_one_skipped_frame_in_a_long_avi_lowers_its_rate(tmp_path: Path) -> None:
    """AVI counts time in frames, so that one is no rounding there."""
    film = np.tile(numbered_film(60), (2, 1, 1, 1))
    path = encode(tmp_path / "a.avi", film, codec="mpeg4", rate=25,
                  times=[n + (n > 60) for n in range(120)])  # fmt: skip
    info = probe(path)
    assert not info.variable_rate
    assert info.fps == pytest.approx(25 * 119 / 120)


def test_clips_of_an_uneven_video_loop_in_time(tmp_path: Path) -> None:
    """Frames at 0, 0.1, 0.2 and 1 seconds last 4/3 seconds together."""
    path = uneven(tmp_path / "a.mp4", [0, 10, 20, 100], 100, options={"bf": "0"})
    data = ClipDataset(VideoSet([(path, 0)], "a"), length=9, fps=5, sampling="dense",
                       cache=tmp_path / "cache")  # fmt: skip
    read = numbers_of(data[0].video.permute(0, 2, 3, 1).numpy())
    assert read == [0, 2, 2, 2, 2, 3, 3, 0, 2]


def test_portions_of_an_uneven_video_follow_its_time_stamps(tmp_path: Path) -> None:
    ticks = [*range(30), *range(30, 180, 5)]
    path = uneven(tmp_path / "a.mp4", ticks, 100, options={"bf": "0"})

    def clip(length: int, portion: tuple[float, float], view: int) -> list[int]:
        data = ClipDataset(VideoSet([(path, 0)], "a"), length=length, fps=20, sampling="dense",
                           portion=portion, views=2, cache=tmp_path / "cache")  # fmt: skip
        return numbers_of(data[view].video.permute(0, 2, 3, 1).numpy())

    assert clip(4, (0.4, 1), 0) == [24, 29, 30, 31]
    assert clip(4, (0.4, 1), 1) == [56, 57, 58, 59]
    # From 0.24 to 1.75 seconds and on for 1.51 / 35: the 33rd and 34th moments lie behind the end.
    assert clip(34, (0.4, 1), 0) == [24, 29, *range(30, 59), 59, 28, 30]
    assert clip(3, (0.5, 0.51), 0) == [30] * 3


def test_even_files_are_probed_from_their_first_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole files are read only where something says that it is needed."""
    read = []

    def counted(*args: object) -> Iterator[av.Packet]:
        for packet in original(*args):
            read.append(packet)
            yield packet

    original = video_probe.demuxed
    monkeypatch.setattr(video_probe, "demuxed", counted)
    monkeypatch.setattr(video_probe, "_decoded", lambda path: pytest.fail(f"decoded {path}"))
    for name, codec, few in (("a.mp4", "libx264", True), ("a.avi", "mpeg4", True),
                             ("a.webm", "libvpx", False)):  # fmt: skip
        read.clear()
        assert probe(encode(tmp_path / name, numbered_film(60), codec=codec)).frames == 60
        assert (len(read) < 10) == few
    assert probe(WHOLE["frames packed together, vp9 in webm"](tmp_path)).frames == 60


NAMES = [
    b"12:30:45.mp4", b"concat:a|b.mp4", b"pipe:1.mp4", b"file:a.mp4", b"http:a.mp4", b"data:a.mp4",
    b"subfile,,start,0,end,0,,:a.mp4", b"-i.mp4", b"%05d.mp4", b"%%.mp4", b"*.mp4", b"{a,b}.mp4",
    b"a?b#c.mp4", b"two\nlines.mp4", b"~.mp4", b"caf\xe9.mp4", "café 日本.mp4".encode(),
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_any_name_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: bytes) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(os.fsdecode(name))
    write_video(path, numbered_film(12))
    assert os.listdir(os.fsencode(tmp_path)) == [name]
    check_reading(path, pictures(tmp_path / path), tmp_path / "cache")
    assert numbers_of(read_frames(path, [7, 2]).video) == [7, 2]


def by_command_line(path: Path, raw: Path) -> np.ndarray:
    """Decode by FFmpeg's command line, in the file's own pixel format; then convert to RGB."""
    with av.open(str(path)) as container:
        form = container.streams.video[0].codec_context.format.name
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-fps_mode", "passthrough"]
    subprocess.run([*command, "-c:v", "rawvideo", "-pix_fmt", form, str(raw)], check=True)
    return pictures(raw)


@pytest.mark.long
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs FFmpeg's command line")
@pytest.mark.parametrize("kind", [*ODD, *WHOLE, *TURNS], ids=str)
def test_ffmpegs_command_line_shows_the_same(tmp_path: Path, kind: object) -> None:
    if kind in TURNS:
        path = oriented(tmp_path / "a.mp4", noise(), kind)
    else:
        path = {**ODD, **WHOLE}[kind](tmp_path)
    expected = by_command_line(path, tmp_path / "raw.nut")
    assert np.array_equal(read_frames(path, range(probe(path).frames)).video, expected)
