"""Words that espeak-ng speaks, and what microphones and rooms do to them."""

import subprocess
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from geonorm.files import user_cache, written_whole

RATE = 16_000
SECONDS = 1.2
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
VOICES = ("f1", "f2", "f3", "f4", "f5", "m1", "m2", "m3", "m4", "m5", "m6", "m7")
SPEEDS = (130, 160, 190)  # words per minute
PITCHES = (35, 65)  # of espeak-ng's 0 to 99
# A microphone's own noise, of full scale, which no gain before it changes.
SELF_NOISE = 1e-3


def spoken_folder(voices: tuple[str, ...], speeds: tuple[int, ...]) -> Path:
    """Return a folder, in the user's cache, with one folder of recordings for each digit.

    Raises:
        ValueError: espeak-ng refuses, with its own words.
    """
    version = _espeak("--version").split("Data at")[0].strip()
    name = "-".join(["words", *version.replace(":", "").split()[-1:], *voices, *map(str, speeds)])
    root = user_cache() / "speech" / name
    for digit in DIGITS:
        (root / digit).mkdir(parents=True, exist_ok=True)
        for voice in voices:
            for speed in speeds:
                for pitch in PITCHES:
                    path = root / digit / f"{voice}-{speed}-{pitch}.wav"
                    if not path.exists():
                        with written_whole(path) as aside:
                            _espeak("-v", f"en-us+{voice}", "-s", str(speed), "-p", str(pitch),
                                    "-w", str(aside), digit)  # fmt: skip
    return root


def _espeak(*arguments: str) -> str:
    done = subprocess.run(["espeak-ng", *arguments], capture_output=True, text=True, check=False)
    if done.returncode or done.stderr:
        raise ValueError(f"espeak-ng {' '.join(arguments)} failed: {done.stderr.strip()}")
    return done.stdout


@lru_cache(maxsize=2)
def words(
    voices: tuple[str, ...] = VOICES, speeds: tuple[int, ...] = SPEEDS
) -> tuple[Tensor, Tensor, list[str]]:
    """Return waveforms (N, samples), the class of each, a digit, and its voice."""
    from geonorm.datasets.audio_folders import AudioFolders

    sounds = AudioFolders(spoken_folder(voices, speeds), rate=RATE, seconds=SECONDS)
    items = [sounds[i] for i in range(len(sounds))]
    waveforms = torch.cat([item.waveform for item in items])
    digits = torch.tensor([item.label for item in items])
    return waveforms, digits, [Path(item.path).name.partition("-")[0] for item in items]


def curves(count: int, points: int, samples: int, decibels: float) -> Tensor:
    """Return random gains as straight lines in decibels between normal points, (count, samples)."""
    corners = decibels * torch.randn(count, 1, points)
    lines = F.interpolate(corners, samples, mode="linear", align_corners=True)[:, 0]
    gains: Tensor = 10 ** (lines / 20)
    return gains


def microphone(waveforms: Tensor) -> Tensor:
    """Return recordings through a filter each, 8 dB at 7 places of the mel scale."""
    spectrum = torch.fft.rfft(waveforms)
    mels = curves(len(waveforms), 7, 512, 8.0)
    hertz = torch.linspace(0, RATE / 2, spectrum.shape[-1])
    place = torch.log10(1 + hertz / 700) / torch.log10(torch.tensor(1 + RATE / 2 / 700)) * 511
    heard: Tensor = torch.fft.irfft(spectrum * mels[:, place.round().long()], waveforms.shape[-1])
    return heard


def drifting_gain(waveforms: Tensor) -> Tensor:
    """Return recordings whose gain drifts, 24 dB at 13 moments.

    That costs a recognizer without a norm about as many words as `microphone` does; 8 dB cost none.
    """
    return waveforms * curves(len(waveforms), 13, waveforms.shape[-1], 24.0)


def one_gain(waveforms: Tensor) -> Tensor:
    """Return recordings of a gain each, 12 dB."""
    return waveforms * curves(len(waveforms), 1, waveforms.shape[-1], 12.0)


def noise(waveforms: Tensor) -> Tensor:
    """Return recordings with white noise, a tenth of the power of each."""
    level = waveforms.square().mean(-1, keepdim=True).div(10).sqrt()
    return waveforms + level * torch.randn_like(waveforms)


CHANGES = {
    "microphone": microphone,
    "drifting gain": drifting_gain,
    "gain": one_gain,
    "noise": noise,
}


def spectra(waveforms: Tensor) -> Tensor:
    """Return log-mel spectrograms (N, 1, bands, moments) behind a microphone's own noise."""
    from geonorm.datasets.audio_folders import log_mel

    recorded = waveforms + SELF_NOISE * torch.randn_like(waveforms)
    out: Tensor = log_mel(recorded[:, None], RATE)
    return out
