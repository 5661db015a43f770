"""Recordings of sound: decoding, resampling, class folders, and log-mel spectrograms."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from geonorm import AxisInstanceNorm
from geonorm.datasets import AudioFolders, log_mel, read_audio
from geonorm.datasets.audio_folders import UndecodableAudioError, mel_filters
from geonorm.datasets.video_io import write_video
from helpers.sounds import encode, tone, write_film_with_sound, write_wave


def test_samples_come_back_exactly_at_their_own_rate(tmp_path: Path) -> None:
    values = np.array([[0.0, 0.5, -0.5, 1.0, -1.0, 0.25]])
    found = read_audio(write_wave(tmp_path / "a.wav", values, 8000), rate=8000)
    torch.testing.assert_close(found, torch.tensor(values[0]).float(), atol=1e-4, rtol=0)
    assert found.dtype == torch.float32


@pytest.mark.parametrize(("name", "codec"), [
    ("a.wav", "pcm_s16le"), ("a.wav", "pcm_f32le"), ("a.flac", "flac"), ("a.mp3", "libmp3lame"),
    ("a.mkv", "aac"),
])  # fmt: skip
def test_a_tone_survives_resampling_and_mixing(tmp_path: Path, name: str, codec: str) -> None:
    """Channels are averaged, in every format of samples alike."""
    left, silence = tone(440, 44_100), np.zeros(22_050)
    path = encode(tmp_path / name, np.stack([left, silence]), 44_100, codec)
    found = read_audio(path, rate=16_000).double().numpy()
    assert len(found) == pytest.approx(8000, abs=1500)  # codecs of blocks add silence
    middle = found[len(found) // 2 - 2000 : len(found) // 2 + 2000]
    assert np.sqrt(2 * (middle**2).mean()) == pytest.approx(0.25, rel=0.06)
    spectrum = np.abs(np.fft.rfft(middle))
    assert spectrum.argmax() * 16_000 / 4000 == 440


def test_what_the_new_rate_cannot_hold_is_gone(tmp_path: Path) -> None:
    path = write_wave(tmp_path / "a.wav", tone(11_000, 44_100)[None], 44_100)
    found = read_audio(path, rate=16_000)
    assert len(found) == 8000  # the end too, which the resampler holds back
    assert found[500:-500].abs().max() < 0.005


def test_tags_in_another_encoding_do_not_hinder_reading(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.wav", tone(440, 8000)[None], 8000, "pcm_s16le")
    path.write_bytes(path.read_bytes().replace(b"Lavf", b"L\xe4vf"))
    with pytest.raises(UnicodeDecodeError):
        av.open(str(path))
    np.testing.assert_allclose(read_audio(path, rate=8000), tone(440, 8000), atol=1e-4)


def test_the_sound_of_a_film(tmp_path: Path) -> None:
    path = write_film_with_sound(tmp_path / "a.mkv", tone(440, 16_000), tone(300, 16_000))
    np.testing.assert_allclose(read_audio(path), tone(440, 16_000), atol=1e-4)


def broken_files(folder: Path) -> dict[str, Path]:
    (folder / "text.wav").write_text("no sound at all")
    write_video(folder / "mute.mp4", np.zeros((3, 32, 32, 3), np.uint8))
    write_wave(folder / "empty.wav", np.zeros((1, 0)), 8000)
    channels = np.stack([tone(440, 44_100), np.zeros(22_050)])
    whole = encode(folder / "whole.flac", channels, 44_100, "flac").read_bytes()
    middle = len(whole) // 2
    noise = np.random.default_rng(0).bytes(2000)
    layouts = [encode(folder / f"{len(x)}.aac", x, 44_100, "aac") for x in (channels[:1], channels)]
    (folder / "changing.aac").write_bytes(b"".join(path.read_bytes() for path in layouts))
    (folder / "damaged.flac").write_bytes(whole[:middle] + noise + whole[middle + 2000 :])
    return {path.stem: path for path in folder.iterdir()} | {"missing": folder / "missing.wav"}


@pytest.mark.parametrize(("name", "message"), [
    ("text", "text.wav cannot be decoded"),
    ("missing", r"missing.wav cannot be decoded \(No such file"),
    ("mute", "expected a sound track; .*mute.mp4 holds video only"),
    ("empty", "empty.wav holds a track of zero samples"),
    ("damaged", "damaged.flac cannot be decoded"),
    ("changing", "one number of channels and one rate throughout; .*changing.aac changes them"),
])  # fmt: skip
def test_files_that_yield_no_sound(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UndecodableAudioError, match=message):
        read_audio(broken_files(tmp_path)[name])


def test_items_are_equally_long_and_know_their_class(tmp_path: Path) -> None:
    short = write_wave(tmp_path / "yes" / "short.wav", tone(440, 8000, 0.25)[None], 8000)
    falling = tone(440, 8000, 2.0) * np.linspace(1, 0, 16_000)
    write_wave(tmp_path / "no" / "long.wav", falling[None], 8000)
    (tmp_path / "no" / ".hidden.wav").write_text("")
    (tmp_path / ".cache").mkdir()
    words = AudioFolders(tmp_path, rate=8000, seconds=0.5)
    assert (len(words), words.classes) == (2, ("no", "yes"))
    long, item = words[0], words[1]
    assert (long.label, item.label, item.path) == (0, 1, str(short))
    assert long.waveform.shape == item.waveform.shape == (1, 4000)
    np.testing.assert_allclose(long.waveform[0], falling[:4000], atol=1e-4)
    np.testing.assert_allclose(item.waveform[0, :2000], tone(440, 8000, 0.25), atol=1e-4)
    assert (item.waveform[0, 2000:] == 0).all()
    batch = next(iter(torch.utils.data.DataLoader(words, batch_size=2)))
    assert batch.waveform.shape == (2, 1, 4000)
    assert batch.label.tolist() == [0, 1]
    for index in (-1, 2):
        with pytest.raises(IndexError, match=rf"index must be in \[0, 2\); got {index}"):
            words[index]
    slow = AudioFolders(tmp_path, rate=1, seconds=1.0)
    assert (slow.rate, slow.samples) == (1, 1)


def test_every_kind_of_recording_is_found_in_a_class_folder(tmp_path: Path) -> None:
    """Those of sound and films, which may have some."""
    kinds = ["aac", "aif", "aiff", "FLAC", "m4a", "mp3", "oga", "ogg", "opus", "wav", "wma", "mkv",
             "mp4", "webm"]  # fmt: skip
    (tmp_path / "a").mkdir()
    files = [tmp_path / "a" / f"{number:02d}.{kind}" for number, kind in enumerate(kinds)]
    for path in [*files, tmp_path / "a" / "notes.txt", tmp_path / "a" / "wav"]:
        path.touch()
    assert AudioFolders(tmp_path).files == [(path, 0) for path in files]


def test_folders_that_make_no_set(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected a folder; .*nowhere is none"):
        AudioFolders(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"expected class folders, .*/class/sound.wav; found none"):
        AudioFolders(tmp_path)
    (tmp_path / "yes").mkdir()
    (tmp_path / "yes" / "notes.txt").write_text("")
    with pytest.raises(ValueError, match=r"class folder .*yes holds no recordings .*\.wav"):
        AudioFolders(tmp_path)
    with pytest.raises(ValueError, match=r"rate must be a positive .*; got 0"):
        AudioFolders(tmp_path, rate=0)
    with pytest.raises(ValueError, match=r"rate must be a positive .*; got -1"):
        read_audio(tmp_path / "a.wav", rate=-1)
    with pytest.raises(ValueError, match="seconds must be at least one sample, 1/8000; got 0"):
        AudioFolders(tmp_path, rate=8000, seconds=0)


def test_mel_filters_are_triangles_at_evenly_spaced_mels() -> None:
    filters = mel_filters(16_000, 4096, 10)
    step = 2595 * np.log10(1 + 8000 / 700) / 11
    centres = 700 * (10 ** (step * np.arange(1, 11) / 2595) - 1)
    peaks = filters.argmax(1) * 16_000 / 4096
    np.testing.assert_allclose(peaks, centres, atol=16_000 / 4096)
    between = filters[:, int(centres[0] / 16_000 * 4096) + 2 : int(centres[-1] / 16_000 * 4096)]
    np.testing.assert_allclose(between.sum(0), 1, atol=0.03)  # neighbours overlap to one
    with pytest.raises(ValueError, match="200 mel bands are too many for 512 samples"):
        mel_filters(16_000, 512, 200)


def test_log_mel_finds_a_tone_and_a_gain_is_an_offset() -> None:
    low = torch.from_numpy(tone(500, 16_000)).float()
    both = torch.stack([low, torch.from_numpy(tone(3000, 16_000)).float()])
    out = log_mel(both[:, None], bands=40)
    assert out.shape == (2, 1, 40, 51)
    centres = mel_filters(16_000, 512, 40).argmax(1) * 16_000 / 512
    loudest = centres[out[:, 0, :, 25].argmax(1)]
    np.testing.assert_allclose(loudest, [500, 3000], rtol=0.1)
    heard = out[0, 0] > np.log(1e-3)  # a thousand times the floor
    assert heard.sum() > 51
    fall = (out[0, 0] - log_mel(low / 4))[heard]
    torch.testing.assert_close(fall, torch.full_like(fall, 2 * np.log(4)), atol=0.02, rtol=0)
    # Half the squared amplitude, spread over both halves of the spectrum: half of Parseval's sum.
    power = log_mel(low).exp()[:, 25].sum()
    assert float(power) == pytest.approx(0.5**2 / 2 / 2 * 512, rel=0.02)


def test_log_mel_of_one_band_at_every_sample() -> None:
    assert log_mel(torch.ones(1, 64), 1000, bands=1, window=0.016, hop=0.001).shape == (1, 1, 65)
    assert log_mel(torch.ones(1, 9), 1000, bands=1, window=0.016).shape == (1, 1, 1)


def test_log_mel_of_a_waveform_that_is_too_short() -> None:
    with pytest.raises(ValueError, match=r"longer than half a window, 256 samples; got \(1, 256\)"):
        log_mel(torch.zeros(1, 256))


@pytest.mark.parametrize(("options", "message"), [
    ({"window": 0.0}, "one sample or more, and one band or more; got 0.0 and 0.01 seconds"),
    ({"hop": 1e-5}, "got 0.032 and 1e-05 seconds at 16000 per second, and 40 bands"),
    ({"bands": 0}, "and 0 bands"),
    ({"floor": 0.0}, "floor must be positive, as silence has no logarithm; got 0.0"),
])  # fmt: skip
def test_log_mel_of_options_that_make_no_spectrogram(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        log_mel(torch.zeros(1, 16_000), **options)


def test_axes_of_a_spectrogram_take_out_a_microphone_or_the_loudness() -> None:
    torch.manual_seed(0)
    spectra = log_mel(torch.randn(2, 1, 16_000))
    band, moment = torch.randn(2, 1, 40, 1), torch.randn(2, 1, 1, 101)
    for axes, gone, stays in (("T", band, moment), ("F", moment, band)):
        norm = AxisInstanceNorm(1, layout="BCFT", axes=axes)
        torch.testing.assert_close(norm(spectra + gone), norm(spectra), atol=1e-4, rtol=1e-4)
        assert (norm(spectra + stays) - norm(spectra)).abs().mean() > 0.1
