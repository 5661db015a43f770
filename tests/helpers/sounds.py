"""Files of sound for tests."""

import wave
from pathlib import Path

import av
import numpy as np


def tone(hertz: float, rate: int, seconds: float = 0.5, amplitude: float = 0.5) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


def write_wave(path: Path, channels: np.ndarray, rate: int) -> Path:
    """Write (channels, samples) in [-1, 1] as 16-bit samples."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((channels.T * 32767).round().astype("<i2").tobytes())
    return path


def encode(path: Path, channels: np.ndarray, rate: int, codec: str) -> Path:
    """Write (channels, samples) by one of FFmpeg's encoders, in its own format of samples."""
    with av.open(str(path), "w") as container:
        layout = {1: "mono", 2: "stereo"}[len(channels)]
        stream = container.add_stream(codec, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(channels.astype(np.float32), "fltp", layout)
        frame.sample_rate = rate
        resampler = av.AudioResampler(stream.format, layout, rate, frame_size=stream.frame_size)
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


def write_film_with_sound(path: Path, *tracks: np.ndarray) -> Path:
    """Write a picture and mono tracks of samples in [-1, 1] at 16,000 per second."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width = video.height = 32
        streams = [container.add_stream("pcm_s16le", rate=16_000, layout="mono") for _ in tracks]
        picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")
        container.mux(video.encode(picture))
        for audio, samples in zip(streams, tracks, strict=True):
            words = (samples * 32767).astype("<i2")[None]
            frame = av.AudioFrame.from_ndarray(words, "s16", "mono")
            frame.sample_rate = 16_000
            container.mux([*audio.encode(frame), *audio.encode(None)])
        container.mux(video.encode(None))
    return path
