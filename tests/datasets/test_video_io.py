"""Decoding: the right frames in the right order, upright, and files that are not as they should."""

import os
from dataclasses import replace
from fractions import Fraction
from io import BytesIO
from itertools import accumulate, cycle
from pathlib import Path

import av
import numpy as np
import pytest

from geonorm.datasets import video_io
from geonorm.datasets.video_io import (
    UndecodableVideoError,
    decoded_frames,
    read_frames,
    write_video,
)
from geonorm.datasets.video_probe import probe
from helpers.odd_videos import WHOLE
from helpers.video_files import (
    damage,
    encode,
    headers_only,
    is_upright,
    noisy_film,
    numbered_film,
    numbers_of,
    sound,
    truncate,
)

FORMS = {
    "h264 with B-frames": ("a.mp4", "libx264", {"g": "12"}),
    "h264 without": ("a.mp4", "libx264", {"g": "12", "bf": "0"}),
    "mpeg4 in avi": ("a.avi", "mpeg4", {"g": "12"}),
    "no length in the headers": ("a.mkv", "libx264", {"g": "12"}),
    "transport stream": ("a.ts", "libx264", {"g": "12"}),
}


@pytest.mark.parametrize("form", FORMS)
def test_frames_are_those_asked_for(tmp_path: Path, form: str) -> None:
    name, codec, options = FORMS[form]
    path = encode(tmp_path / name, numbered_film(50), codec=codec, options=options)
    info = probe(path)
    assert (info.frames, info.fps, info.width, info.height) == (50, 25.0, 96, 48)
    for wanted in ([0], [49], [7, 3, 3, 31], [40, 41, 49], list(range(50))):
        for known in (None, info):
            read = read_frames(path, wanted, info=known)
            assert numbers_of(read.video) == wanted
            assert (read.errors, read.length) == (0, None)
    assert decoded_frames(path) == (50, 0, "")


def test_decoding_begins_at_a_keyframe_only_where_that_is_exact(tmp_path: Path) -> None:
    plain = probe(encode(tmp_path / "a.avi", numbered_film(50), codec="mpeg4", options={"g": "9"}))
    reordered = probe(encode(tmp_path / "b.mp4", numbered_film(50), options={"g": "9"}))
    assert len(plain.keyframes) > 3
    assert plain.entry_before(44) == max(key for key in plain.keyframes if key <= 44) > 0
    assert plain.entry_before(plain.keyframes[2]) == plain.keyframes[2] > 0
    assert plain.entry_before(0) == 0
    assert replace(plain, keyframes=(9, 18)).entry_before(3) == 0
    assert len(reordered.keyframes) > 3
    assert reordered.entry_before(44) == 0


def test_frames_before_that_keyframe_are_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encode(tmp_path / "a.avi", numbered_film(50), codec="mpeg4", options={"g": "9"})
    info, begins, converted = probe(path), [], video_io._converted

    def noted(decoder: video_io.Decoder, first: int, *rest: object) -> object:
        begins.append(first)
        return converted(decoder, first, *rest)

    monkeypatch.setattr(video_io, "_converted", noted)
    assert numbers_of(read_frames(path, [44], info=info).video) == [44]
    assert begins == [info.entry_before(44)] != [0]


def test_landing_elsewhere_is_noticed_by_the_time_stamp(tmp_path: Path) -> None:
    """Only an index that lies has it so; packets of one size then tell nothing."""
    path = WHOLE["packets equally long, avi"](tmp_path)
    with av.open(str(path)) as container:
        assert len({packet.size for packet in container.demux(video=0) if packet.size}) == 1
    info = probe(path)
    assert info.enterable
    assert 31 not in info.keyframes
    lying = replace(info, keyframes=(0, 31))
    assert numbers_of(read_frames(path, [33, 31], info=lying).video) == [33, 31]
    beyond = replace(info, keyframes=(0, 5000))
    assert numbers_of(read_frames(path, [5002], info=beyond).video) == [5002 % 60]
    after = replace(info, keyframes=(0, 60))  # the number behind the last
    assert numbers_of(read_frames(path, [62], info=after).video) == [2]


def test_real_clips_equal_pyav_bit_for_bit(data_root: Path) -> None:
    clips = sorted((data_root / "ucf101").glob("*/*.avi"))
    assert len(clips) == 3
    for clip in clips:
        info = probe(clip)
        wanted = np.random.default_rng(0).integers(0, info.frames, 12)
        whole, small = {}, {}
        with av.open(str(clip)) as container:
            for number, frame in enumerate(container.decode(video=0)):
                if number in wanted:
                    whole[number] = frame.to_ndarray(format="rgb24")
                    small[number] = frame.to_ndarray(format="rgb24", width=171, height=128)
        assert info.frames == number + 1
        for chosen in (wanted, wanted[wanted > info.frames // 2]):
            read = read_frames(clip, chosen, info=info)
            assert np.array_equal(read.video, np.stack([whole[frame] for frame in chosen]))
            resized = read_frames(clip, chosen, size=(128, 171), info=info)
            assert np.array_equal(resized.video, np.stack([small[frame] for frame in chosen]))


def test_resizing_by_the_shorter_side_keeps_the_proportions(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", numbered_film(4, height=48, width=96))
    assert read_frames(path, [0], size=24).video.shape == (1, 24, 48, 3)
    assert read_frames(path, [0], size=(30, 20)).video.shape == (1, 30, 20, 3)
    assert numbers_of(read_frames(path, [3, 1], size=24).video) == [3, 1]


@pytest.mark.parametrize(("height", "width", "size", "expected"), [
    (50, 74, 20, (20, 30)), (50, 76, 20, (20, 30)), (74, 50, 20, (30, 20)), (76, 50, 20, (30, 20)),
    (50, 74, 60, (60, 89)),
])  # fmt: skip
def test_the_longer_side_is_rounded_to_the_nearest_pixel(
    tmp_path: Path, height: int, width: int, size: int, expected: tuple[int, int]
) -> None:
    """74 · 20 / 50 is 29.6, 76 · 20 / 50 is 30.4, and 74 · 60 / 50 is 88.8."""
    path = encode(tmp_path / "a.mp4", numbered_film(2, height=height, width=width))
    assert read_frames(path, [0], size=size).video.shape[1:3] == expected


@pytest.mark.parametrize("rotation", [90, -90, 180])
def test_sideways_films_are_turned_upright(tmp_path: Path, rotation: int) -> None:
    film = numbered_film(20)
    stored = np.rot90(film, -rotation // 90, axes=(1, 2))
    path = encode(tmp_path / "a.mp4", stored, rotation=rotation)
    read = read_frames(path, [5, 17])
    assert read.video.shape[1:3] == (48, 96)
    assert numbers_of(read.video) == [5, 17]
    assert is_upright(read.video)
    assert read_frames(path, [5], size=(24, 60)).video.shape == (1, 24, 60, 3)
    assert read_frames(path, [5], size=24).video.shape == (1, 24, 48, 3)
    unturned = read_frames(encode(tmp_path / "b.mp4", stored), [5])
    assert unturned.video.shape[1:3] != (48, 96) or not is_upright(unturned.video)


def test_variable_rate_is_noticed_and_frames_stay_in_order(tmp_path: Path) -> None:
    steps = [4, 4, 20, 4, 9]
    times = [0, *accumulate(step for step, _ in zip(cycle(steps), range(39), strict=False))]
    path = encode(tmp_path / "a.mp4", numbered_film(40), times=times)
    assert probe(path).variable_rate
    assert numbers_of(read_frames(path, range(40), info=probe(path)).video) == list(range(40))
    assert not probe(encode(tmp_path / "b.mp4", numbered_film(40))).variable_rate


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.avi", "mpeg4")])
def test_corrupted_middle_is_passed_over_and_counted(
    tmp_path: Path, name: str, codec: str
) -> None:
    path = encode(tmp_path / name, noisy_film(), codec=codec, options={"g": "10"})
    whole = read_frames(path, range(40))
    damage(path)
    read = read_frames(path, range(40), info=probe(path))
    assert read.errors > 0
    assert read.video.shape == whole.video.shape
    assert np.array_equal(read.video[:3], whole.video[:3])
    assert not np.array_equal(read.video, whole.video)


def test_file_that_ends_early_is_read_modulo_its_length(tmp_path: Path) -> None:
    path = encode(
        tmp_path / "a.mp4", numbered_film(50), options={"bf": "0", "g": "10"},
        container_options={"movflags": "faststart"},
    )
    info = probe(path)
    truncate(path, 0.8)
    frames, _, _ = decoded_frames(path)
    assert 5 < frames < 50
    for known in (None, info):
        read = read_frames(path, [2, frames + 2, 2 * frames + 4], info=known)
        assert read.length == frames
        assert read.errors > 0
        assert numbers_of(read.video) == [2, 2, 4]
    # Entered behind the start, the frames before are still counted.
    assert info.entry_before(frames + 2) > 0
    read = read_frames(path, [frames + 2], info=info)
    assert (read.length, numbers_of(read.video)) == (frames, [2])


def test_frames_held_back_come_out_where_the_file_ends_early(tmp_path: Path) -> None:
    """With B-frames the decoder still holds pictures when reading fails."""
    path = encode(
        tmp_path / "a.mp4", numbered_film(50), container_options={"movflags": "faststart"}
    )
    truncate(path, 0.8)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.has_b_frames
        whole = [entry for entry in stream.index_entries
                 if entry.pos + entry.size <= path.stat().st_size]  # fmt: skip
    frames, errors, _ = decoded_frames(path)
    assert (frames, errors) == (len(whole), 1)
    assert 5 < frames < 50


BROKEN = {
    "no video": (lambda path: path.write_bytes(b"no video at all\n" * 50), "truncated or no video"),
    "noise": (lambda path: path.write_bytes(bytes(range(1, 200)) * 99), "truncated or no video"),
    "an empty file": (lambda path: path.write_bytes(b""), "truncated or no video"),
    "no file": (lambda path: None, "No such file"),
    "a truncated mp4": (
        lambda path: truncate(encode(path, noisy_film(9)), 0.5), "truncated or no video"
    ),
    "zero frames": (lambda path: encode(path, numbered_film(0)), "holds zero frames"),
    "sound alone": (sound, "holds audio only"),
    "headers alone": (lambda path: headers_only(path, noisy_film(9)), "not one .* can be decoded"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_undecodable_files_say_what_is_wrong(tmp_path: Path, kind: str) -> None:
    make, message = BROKEN[kind]
    path = tmp_path / "broken film.mp4"
    make(path)
    with pytest.raises(UndecodableVideoError, match=message) as caught:
        read_frames(path, [0], info=probe(path))
    assert "broken film.mp4" in str(caught.value)


def test_video_stream_of_zero_frames(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.avi", numbered_film(0), codec="mpeg4")
    with pytest.raises(UndecodableVideoError, match="video stream of zero frames"):
        probe(path)
    with pytest.raises(UndecodableVideoError, match=r"not one of .* can be decoded"):
        read_frames(path, [0])


def test_cover_picture_is_no_video(tmp_path: Path) -> None:
    """Music files carry a picture as a stream that says it is attached."""
    with av.open(str(tmp_path / "a.mp3"), "w") as container:
        audio = container.add_stream("mp3", rate=16000, layout="mono")
        picture = container.add_stream("mjpeg", rate=1)
        picture.height, picture.width, picture.pix_fmt = 48, 96, "yuvj420p"
        picture.disposition = av.stream.Disposition.attached_pic
        image = av.VideoFrame.from_ndarray(numbered_film(1)[0], format="rgb24")
        container.mux(picture.encode(image))
        container.mux(picture.encode())
        samples = np.zeros((1, 16000), np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(audio.encode(frame))
        container.mux(audio.encode())
    with pytest.raises(UndecodableVideoError, match="holds audio"):
        probe(tmp_path / "a.mp3")


def test_tags_in_another_encoding_do_not_hinder_reading(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", numbered_film(5))
    path.write_bytes(path.read_bytes().replace(b"Lavf", b"L\xe4vf"))
    with pytest.raises(UnicodeDecodeError):
        av.open(str(path))
    assert probe(path).frames == 5
    assert numbers_of(read_frames(path, [3]).video) == [3]


@pytest.mark.parametrize("indices", [[], [3, -1]])
def test_indices_must_be_frame_numbers(tmp_path: Path, indices: list[int]) -> None:
    with pytest.raises(ValueError, match="indices must be frame numbers"):
        read_frames(tmp_path / "never opened.mp4", indices)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_files_are_closed_whatever_happens(tmp_path: Path) -> None:
    good = encode(tmp_path / "good.mp4", numbered_film(20))
    silent = sound(tmp_path / "silent.mp4")
    hollow = headers_only(tmp_path / "hollow.mp4", noisy_film(9))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        read_frames(good, [3])
        for broken in (silent, hollow):
            with pytest.raises(UndecodableVideoError):
                read_frames(broken, [0])
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.avi", "mpeg4")])
def test_what_is_written_is_read(tmp_path: Path, name: str, codec: str) -> None:
    film = np.stack([np.roll(numbered_film(20)[number], 1, 0) for number in range(20)])
    write_video(tmp_path / name, film, fps=10, codec=codec)
    info = probe(tmp_path / name)
    assert (info.frames, info.fps, info.height, info.width) == (20, 10.0, 48, 96)
    read = read_frames(tmp_path / name, range(20)).video
    assert numbers_of(read) == list(range(20))
    assert np.abs(read.astype(int) - film).mean() < 12
    write_video(tmp_path / name, film, codec=codec)
    assert probe(tmp_path / name).fps == 25.0


def test_the_rate_of_television_is_kept_as_a_fraction() -> None:
    film, target = numbered_film(3), BytesIO()
    video_io.encode(target, film, fps=30000 / 1001, codec="mpeg4", options={}, container="mp4")
    target.seek(0)
    with av.open(target) as container:
        assert container.streams.video[0].average_rate == Fraction(30000, 1001)


@pytest.mark.parametrize(("film", "message"), [
    (np.zeros((2, 16, 16, 3), np.float32), "film must be uint8"),
    (np.zeros((0, 16, 16, 3), np.uint8), "film must be uint8"),
    (np.zeros((16, 16, 3), np.uint8), r"film must be .*; got uint8 \(16, 16, 3\)"),
    (np.zeros((2, 16, 16, 4), np.uint8), r"film must be .*; got uint8 \(2, 16, 16, 4\)"),
    (np.zeros((2, 15, 16, 3), np.uint8), r"both sides .* even; got \(15, 16\)"),
    (np.zeros((2, 16, 15, 3), np.uint8), r"both sides .* even; got \(16, 15\)"),
])
def test_what_cannot_be_written(tmp_path: Path, film: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / "a.mp4", film)


def test_a_codec_of_sound_cannot_write_pictures(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="codec must encode pictures; 'aac' encodes audio"):
        write_video(tmp_path / "a.mp4", numbered_film(2), codec="aac")
