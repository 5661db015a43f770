"""Recordings of sound in one folder per class, and their log-mel spectrograms."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from geonorm.datasets.video_io import location, reason
from geonorm.datasets.video_lists import SUFFIXES as FILMS
from geonorm.datasets.video_lists import files_in, folder, folders_in

SUFFIXES = (
    ".aac", ".aif", ".aiff", ".flac", ".m4a", ".mp3", ".oga", ".ogg", ".opus", ".wav", ".wma",
    *FILMS,
)  # fmt: skip


class UndecodableAudioError(ValueError):
    """The file yields no sound: it is missing, damaged, empty, or pictures alone."""


class Sound(NamedTuple):
    """One item of an :class:`AudioFolders`; a batch of them, as torch collates it, has its form.

    Args:
        waveform: float32 (1, samples), as a rule within [-1, 1].
        label: the class.
        path: the file that was read.
    """

    waveform: Tensor
    label: int
    path: str


def read_audio(path: str | Path, rate: int = 16_000) -> Tensor:
    """Read the first sound track of a file, resampled, its channels averaged.

    Args:
        path: of any kind that FFmpeg reads, films included.
        rate: samples per second of the result.

    Shape:
        (samples,), float32, full scale at ±1.

    Raises:
        UndecodableAudioError: the file is missing, holds no sound, is damaged, or changes its
            number of channels on the way.
        ValueError: a rate that is not positive.
    """
    _check_rate(rate)
    try:
        with av.open(location(path), metadata_errors="ignore") as container:
            if not container.streams.audio:
                kinds = " and ".join(sorted({stream.type for stream in container.streams}))
                raise UndecodableAudioError(
                    f"expected a sound track; {path} holds {kinds or 'nothing'} only. "
                    "Take it off the folder"
                )
            parts = _resampled(container.decode(container.streams.audio[0]), rate, path)
    except (av.FFmpegError, OSError) as error:
        raise UndecodableAudioError(
            f"expected sound; {path} cannot be decoded ({reason(error)}): it is missing, damaged "
            "or no recording. Fetch it anew or take it off the folder"
        ) from error
    if not parts:
        raise UndecodableAudioError(f"expected sound; {path} holds a track of zero samples")
    return torch.from_numpy(np.concatenate(parts, axis=1).mean(axis=0, dtype=np.float32))


def _check_rate(rate: int) -> None:
    if rate < 1:
        raise ValueError(f"rate must be a positive number of samples per second; got {rate}")


def _resampled(frames: Iterator[av.AudioFrame], rate: int, path: str | Path) -> list[np.ndarray]:
    """Return pieces of samples, (channels, samples); FFmpeg mixes none of them.

    The weights by which it mixes channels depend on the file's format of samples.
    """
    resampler = av.AudioResampler(format="fltp", rate=rate)
    parts: list[av.AudioFrame] = []
    for frame in frames:
        try:
            parts += resampler.resample(frame)
        except ValueError as error:
            raise UndecodableAudioError(
                f"expected one number of channels and one rate throughout; {path} changes them "
                f"({error}) Convert it, such as by: ffmpeg -i {path} -ac 1 converted.wav"
            ) from error
    return [part.to_ndarray() for part in parts + (resampler.resample(None) if parts else [])]


class AudioFolders(Dataset[Sound]):
    """Recordings in one folder per class, ``root/class/sound.wav``, all made equally long.

    Classes are the folders in alphabetical order; hidden files and folders are passed over. A
    recording that is shorter than asked for is followed by silence; of a longer one the beginning
    is taken.

    Args:
        root: the folder of class folders.
        rate: samples per second; recordings are resampled to it.
        seconds: length of every item.

    Raises:
        ValueError: no such folder, a class without recordings, a length or rate that is not
            positive; on reading, a file that yields no sound (`UndecodableAudioError`, naming it).
        IndexError: an index outside [0, len).

    Example:
        >>> AudioFolders("/nowhere")
        Traceback (most recent call last):
        ValueError: expected a folder; /nowhere is none. Is the dataset unpacked there?
    """

    def __init__(self, root: str | Path, *, rate: int = 16_000, seconds: float = 1.0) -> None:
        _check_rate(rate)
        self.samples = round(seconds * rate)
        if self.samples < 1:
            raise ValueError(f"seconds must be at least one sample, 1/{rate}; got {seconds}")
        self.rate = rate
        places = folders_in(folder(root))
        if not places:
            raise ValueError(f"expected class folders, {root}/class/sound.wav; found none")
        self.classes: Sequence[str] = tuple(place.name for place in places)
        self.files: list[tuple[Path, int]] = []
        for label, place in enumerate(places):
            found = sorted(files_in(place, SUFFIXES))
            if not found:
                raise ValueError(
                    f"class folder {place} holds no recordings (looked for files in "
                    f"{', '.join(SUFFIXES)}). Remove the folder or fill it"
                )
            self.files += [(path, label) for path in found]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sound:
        if not 0 <= index < len(self):
            raise IndexError(f"index must be in [0, {len(self)}); got {index}")
        path, label = self.files[index]
        waveform = read_audio(path, self.rate)[: self.samples]
        missing = self.samples - len(waveform)
        return Sound(torch.nn.functional.pad(waveform, (0, missing))[None], label, str(path))


def mel_filters(rate: int, window: int, bands: int) -> Tensor:
    """Return triangles that gather a spectrum into mel bands, (bands, window // 2 + 1).

    Corners are evenly spaced in mel, 2595 log10(1 + f / 700 Hz), from 0 to half the rate; each
    triangle rises from its lower neighbour's centre to 1 at its own and falls to its upper
    neighbour's.

    Args:
        rate: samples per second.
        window: samples of each spectrum.
        bands: how many.

    Raises:
        ValueError: so many bands that some lie between two frequencies of the spectrum.
    """
    top = 2595 * np.log10(1 + rate / 2 / 700)
    corners = 700 * (10 ** (torch.linspace(0, top, bands + 2, dtype=torch.float64) / 2595) - 1)
    frequencies = torch.linspace(0, rate / 2, window // 2 + 1, dtype=torch.float64)
    low, centre, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising, falling = (frequencies - low) / (centre - low), (high - frequencies) / (high - centre)
    filters = torch.minimum(rising, falling).clamp(min=0).float()
    if not bool((filters.sum(1) > 0).all()):
        raise ValueError(
            f"{bands} mel bands are too many for {window} samples at {rate} per second: some hold "
            "no frequency. Take fewer bands or a longer window"
        )
    return filters


def log_mel(
    waveform: Tensor,
    rate: int = 16_000,
    *,
    bands: int = 40,
    window: float = 0.032,
    hop: float = 0.01,
    floor: float = 1e-6,
) -> Tensor:
    """Return log(mel power + floor) of waveforms.

    In the logarithm the gain of a frequency band, of a moment or of a recording is an offset, which
    `AxisInstanceNorm` takes out over "T", "F" and "FT".

    Args:
        waveform: floating point, full scale at ±1.
        rate: its samples per second.
        bands: mel bands from 0 to half the rate.
        window: length of each Hann window in seconds.
        hop: seconds from one to the next.
        floor: power that is added, so that silence has a logarithm.

    Shape:
        (…, samples) to (…, bands, 1 + samples // (hop · rate)).

    Raises:
        ValueError: fewer samples than half a window, more bands than the window resolves, a window,
            hop, number of bands or floor that is not positive.

    Example:
        >>> log_mel(torch.zeros(2, 1, 16_000)).shape
        torch.Size([2, 1, 40, 101])
    """
    size, step = round(window * rate), round(hop * rate)
    if size < 1 or step < 1 or bands < 1:
        raise ValueError(
            "expected a window and a hop of one sample or more, and one band or more; got "
            f"{window} and {hop} seconds at {rate} per second, and {bands} bands"
        )
    if not floor > 0:
        raise ValueError(f"floor must be positive, as silence has no logarithm; got {floor}")
    if waveform.shape[-1] <= size // 2:
        raise ValueError(
            f"waveform must be longer than half a window, {size // 2} samples; got "
            f"{tuple(waveform.shape)}"
        )
    filters = mel_filters(rate, size, bands).to(waveform)
    hann = torch.hann_window(size, dtype=waveform.dtype, device=waveform.device)
    spectrum = torch.stft(waveform.reshape(-1, waveform.shape[-1]), size, step, window=hann,
                          return_complex=True)  # fmt: skip
    power = spectrum.abs().square() / hann.square().sum()
    mel = (filters @ power + floor).log()
    return mel.reshape(*waveform.shape[:-1], *mel.shape[-2:])
