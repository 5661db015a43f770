"""Scanning a set of videos for files that are unreadable, damaged or odd."""

import re
from pathlib import Path

from geonorm.datasets import VideoSet, check_data
from helpers.odd_videos import STAYING_UNSEEN
from helpers.video_files import damage, encode, headers_only, noisy_film, numbered_film, sound


def test_every_kind_of_trouble_is_found(tmp_path: Path) -> None:
    uneven = [number * 10 + (number % 3) * 4 for number in range(30)]
    files = {
        "good.mp4": lambda path: encode(path, numbered_film(20)),
        "text.mp4": lambda path: path.write_text("no video"),
        "sound.mp4": sound,
        "hollow.mp4": lambda path: headers_only(path, noisy_film(9)),
        "damaged.mp4": lambda path: damage(encode(path, noisy_film(), options={"g": "10"})),
        "uneven.mp4": lambda path: encode(path, numbered_film(30), times=uneven),
        "sideways.mp4": lambda path: encode(path, numbered_film(9), rotation=90),
        "small.mp4": lambda path: encode(path, numbered_film(9, height=16, width=48)),
        "photo.mp4": lambda path: encode(path, numbered_film(1)),
    }
    for name, make in files.items():
        make(tmp_path / name)
    paths = [tmp_path / name for name in [*files, "gone.mp4", "good.mp4"]]
    found = check_data(VideoSet([(path, 0) for path in paths], ["a"]))
    kinds = {(finding.path.name, finding.kind) for finding in found}
    assert kinds == {
        ("text.mp4", "unreadable"), ("sound.mp4", "unreadable"), ("hollow.mp4", "unreadable"),
        ("gone.mp4", "unreadable"), ("damaged.mp4", "damaged"), ("uneven.mp4", "odd"),
        ("sideways.mp4", "odd"), ("small.mp4", "odd"), ("photo.mp4", "odd"), ("good.mp4", "odd"),
    }
    assert [(each.path.name, each.detail) for each in found if each.kind == "odd"] == [
        ("uneven.mp4", "variable frame rate, 9.73 frames per second in the mean"),
        ("sideways.mp4", "stored turned by 90 degrees"),
        ("small.mp4", "a picture of 48 by 16 pixels"), ("photo.mp4", "a single frame"),
        ("good.mp4", "listed more than once"),
    ]
    said = "\n".join(map(str, found))
    for words in (
        "truncated or no video", "audio only", "not one of 9 frames", "frames can be decoded, with",
        "variable frame rate", "stored turned by 90 degrees", "48 by 16 pixels", "a single frame",
        "No such file", "listed more than once",
    ):
        assert said.count(words) >= 1, words


def test_errors_alone_and_missing_frames_alone_are_damage(tmp_path: Path) -> None:
    noisy = encode(tmp_path / "noisy.avi", noisy_film(), codec="mpeg4", options={"g": "10"})
    paths = [damage(noisy, start=0.5, length=0.01), STAYING_UNSEEN(tmp_path)]
    damaged = [f.detail for f in check_data(VideoSet([(path, 0) for path in paths], "a"))
               if f.kind == "damaged"]  # fmt: skip
    assert len(damaged) == 2
    assert re.fullmatch(r"40 of 40 frames can be decoded, with [1-9]\d* errors", damaged[0])
    assert damaged[1] == "48 of 60 frames can be decoded, with 0 errors"


def test_a_narrow_or_low_picture_is_odd(tmp_path: Path) -> None:
    for height, width, odd in ((30, 96, True), (96, 30, True), (32, 32, False)):
        path = encode(tmp_path / f"{height}x{width}.mp4", numbered_film(2, height, width))
        found = check_data(VideoSet([(path, 0)], "a"))
        assert [finding.detail for finding in found] == (
            [f"a picture of {width} by {height} pixels"] if odd else []
        )


def test_real_clips_are_in_order(data_root: Path) -> None:
    clips = sorted((data_root / "ucf101").glob("*/*.avi"))
    assert check_data(VideoSet([(clip, 0) for clip in clips], ["any"])) == []
