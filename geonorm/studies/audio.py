"""Spectrograms: what instance norm over time, over frequency and over both takes out of speech."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from geonorm.norms.axis_instance_norm import AxisInstanceNorm
from geonorm.norms.no_norm import NoNorm
from geonorm.studies.outcome import Outcome
from geonorm.studies.speech import (
    CHANGES,
    RATE,
    SECONDS,
    VOICES,
    spectra,
    words,
)
from geonorm.studies.study import Part, Quantity, Setting, Study, Test
from geonorm.studies.training import cross_entropy, fit
from geonorm.training.invariance.table import change as relative_change

NONE, TIME, FREQUENCY, BOTH = "no norm", "over time", "over frequency", "over both"
COLUMNS = (NONE, TIME, FREQUENCY, BOTH)
AXES = {TIME: "T", FREQUENCY: "F", BOTH: "FT"}
SWAPPED = {TIME: FREQUENCY, FREQUENCY: TIME}
# Mean and deviation of the words' log-mel spectrograms, for networks without a norm.
LEVEL, SPREAD = -10.4, 3.2
BANDS, HOP = 40, 0.01
HELD_OUT = 3  # voices


def _norm(column: str, setting: Setting) -> nn.Module:
    """Return a norm of (B, 1, F, T) without parameters; the mutation exchanges the two axes."""
    column = SWAPPED.get(column, column) if setting.mutated else column
    if column == NONE:
        return NoNorm(1)
    return AxisInstanceNorm(1, affine=False, layout="BCFT", axes=AXES[column])


def exact(column: str, setting: Setting) -> Mapping[str, float]:
    """Add offsets of each band, of each moment and of the whole to spectrograms of noise."""
    plain, norm = torch.randn(8, 1, BANDS, 100), _norm(column, setting)
    offsets = {
        "microphone": torch.randn(8, 1, BANDS, 1),
        "drifting gain": torch.randn(8, 1, 1, 100),
        "gain": torch.randn(8, 1, 1, 1),
    }
    return {name: relative_change(norm(plain), norm(plain + offset))
            for name, offset in offsets.items()}  # fmt: skip


def _moved(norm: nn.Module, waveforms: Tensor, *, seed: int) -> dict[str, float]:
    """Return how far spectrograms of recordings move under each change, in their own noise."""

    def standard(recorded: Tensor) -> Tensor:
        torch.manual_seed(seed)
        return (spectra(recorded) - LEVEL) / SPREAD

    before = norm(standard(waveforms))
    values = {}
    for number, (name, change) in enumerate(CHANGES.items()):
        torch.manual_seed(1000 * seed + number)
        values[name] = relative_change(before, norm(standard(change(waveforms))))
    return values


def spoken(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure changes of words, what follows their loudness, and their first formant."""
    rng = np.random.default_rng(setting.seed)
    voices = tuple(map(str, rng.choice(VOICES, 3, replace=False)))
    waveforms = words(voices, (160,))[0]
    norm = _norm(column, setting)
    values = _moved(norm, waveforms, seed=setting.seed)
    plain = spectra(waveforms)
    out = norm((plain - LEVEL) / SPREAD)
    values["follows the loudness"] = _correlation(out, _loudness(waveforms, plain.shape[-1]))
    values["follows the long-term spectrum"] = _correlation(out, plain.mean(-1, keepdim=True))
    return values | _formant(voices, plain[:, 0], out[:, 0])


def _loudness(waveforms: Tensor, moments: int) -> Tensor:
    """Return decibels of each moment of the waveform itself, (N, 1, 1, moments)."""
    size = round(0.032 * RATE)
    padded = nn.functional.pad(waveforms[:, None], (size // 2, size // 2))
    power = nn.functional.avg_pool1d(padded.square(), size, round(HOP * RATE))[..., :moments]
    return (power + 1e-6).log10()[:, :, None]


def _correlation(out: Tensor, pattern: Tensor) -> float:
    """Return the mean correlation of (N, 1, F, T) with what is constant along F or T.

    All of the output counts, so what a norm has taken out is 0 and no correlation of rounding.
    """
    pattern = pattern.expand_as(out).flatten(1)
    out = out.flatten(1)
    out, pattern = out - out.mean(1, keepdim=True), pattern - pattern.mean(1, keepdim=True)
    return float(nn.functional.cosine_similarity(out, pattern).mean())


@lru_cache(maxsize=1)
def _first_formants(voices: tuple[str, ...]) -> list[tuple[int, int, float]]:
    """Return word, moment and Praat's first formant in hertz of all voiced moments."""
    import parselmouth

    found = []
    for word, waveform in enumerate(words(voices, (160,))[0]):
        sound = parselmouth.Sound(waveform.double().numpy(), RATE)
        pitch, formants = sound.to_pitch(), sound.to_formant_burg()
        for moment in range(1 + len(waveform) // round(HOP * RATE)):
            time = moment * HOP
            if pitch.get_value_at_time(time) > 0:  # NaN where there is no voice
                found.append((word, moment, formants.get_value_at_time(1, time)))
    return found


def _formant(voices: tuple[str, ...], plain: Tensor, out: Tensor) -> dict[str, float]:
    """Compare the strongest band about the first formant before and after the norm."""
    from geonorm.datasets.audio_folders import mel_filters

    size = round(0.032 * RATE)
    centres = mel_filters(RATE, size, BANDS).argmax(1).numpy() * RATE / size
    moved, error = [], []
    for word, moment, first in _first_formants(voices):
        near = np.flatnonzero((centres > first / 1.5) & (centres < first * 1.5))
        if len(near) > 1:
            found = near[int(out[word, near, moment].argmax())]
            moved.append(found != near[int(plain[word, near, moment].argmax())])
            error.append(abs(float(np.log2(centres[found] / first))))
    return {"first formant's band moved": float(np.mean(moved)),
            "first formant, error in octaves": float(np.median(error))}  # fmt: skip


def filmed(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure the changes of three pieces of a film's sound."""
    from geonorm.datasets.audio_folders import read_audio

    path = setting.recordings.sound
    if path is None:
        raise ValueError("this part needs a film with sound: give --data")
    waveform, length = read_audio(path, RATE), round(SECONDS * RATE)
    pieces = waveform[: len(waveform) // length * length].view(-1, length)[:3]
    return _moved(_norm(column, setting), pieces, seed=setting.seed)


def _recognizer(norm: nn.Module) -> nn.Module:
    """Return a small network of three convolutions behind a norm, for ten words.

    Edges are repeated: padded by zeros, a level that a norm takes out would come back.
    """
    layers: list[nn.Module] = []
    for inner, outer in ((1, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(inner, outer, 3, 2, 1, padding_mode="replicate"), nn.ReLU()]
    return nn.Sequential(norm, *layers, nn.AdaptiveAvgPool2d((5, 4)), nn.Flatten(),
                         nn.Linear(64 * 20, 10))  # fmt: skip


def recognized(column: str, setting: Setting) -> Mapping[str, float]:
    """Train a recognizer on clean words of nine voices; test it on changed words of the others."""
    waveforms, digits, voices = words()
    rng = np.random.default_rng(setting.seed)
    held_out = {*rng.choice(VOICES, HELD_OUT, replace=False)}
    tested = torch.tensor([voice in held_out for voice in voices])
    known, labels = waveforms[~tested], digits[~tested]

    def network_input(recorded: Tensor) -> Tensor:
        return (spectra(recorded) - LEVEL) / SPREAD

    def draw() -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(known), (32,))
        shift = int(torch.randint(round(0.1 * RATE), ()))
        return network_input(known[chosen].roll(shift, -1)), labels[chosen]

    model = fit(_recognizer(_norm(column, setting)), draw, cross_entropy, steps=200)

    @torch.no_grad()
    def accuracy(recorded: Tensor) -> float:
        return float((model(network_input(recorded)).argmax(1) == digits[tested]).float().mean())

    values = {"clean": accuracy(waveforms[tested])}
    return values | {name: accuracy(f(waveforms[tested])) for name, f in CHANGES.items()}


def draw(outcome: Outcome, figure: Any) -> None:
    """Draw how far spectrograms of words move, and what a recognizer still understands."""
    left, right = figure.subplots(1, 2)
    for axes, part, names in ((left, "words", [*CHANGES]),
                              (right, "recognizer", ["clean", *CHANGES])):  # fmt: skip
        for number, column in enumerate(COLUMNS):
            cells = [outcome.interval(Quantity(part, name, column)) for name in names]
            axes.bar(np.arange(len(names)) + 0.2 * (number - 1.5), [cell.mean for cell in cells],
                     0.2, yerr=[(cell.high - cell.low) / 2 for cell in cells], label=column,
                     error_kw={"linewidth": 0.8})  # fmt: skip
        axes.set_xticks(range(len(names)), [name.replace(" ", "\n") for name in names],
                        fontsize=9)
    left.set(ylabel="relative change", title="Spectrograms of words, each word changed")
    right.set(ylabel="accuracy", ylim=(0, 1.05), title="Word recognizer, voices it never heard")
    left.legend(fontsize=8, loc="upper left")


def _beats(says: str, row: str, better: str, worse: str, by: float = 0.0) -> Test:
    return Test(says, Quantity("recognizer", row, better),
                minus=Quantity("recognizer", row, worse), above=by)  # fmt: skip


STUDY = Study(
    name="audio",
    title="Audio: spectrograms over time and over frequency",
    claim=(
        "Normalized over time, a spectrogram loses what the microphone does to each band and keeps "
        "its rhythm; normalized over frequency, it loses how loud each moment is and keeps its "
        "formants."
    ),
    sources=(
        "Atal 1974 (cepstral mean subtraction)",
        "Viikki and Laurila 1998 (cepstral mean and variance normalization)",
        "Kim et al. 2022 (relaxed instance frequency-wise normalization)",
        "Jadoul, Thompson and de Boer 2018 (Parselmouth: Praat's pitch and formants)",
    ),
    tests=(
        Test("over time, an offset of each band is gone",
             Quantity("exact", "microphone", TIME), below=1e-5),
        Test("over frequency, an offset of each moment is gone",
             Quantity("exact", "drifting gain", FREQUENCY), below=1e-5),
        Test("over time, an offset of each moment stays",
             Quantity("exact", "drifting gain", TIME), above=0.1),
        Test("over frequency, an offset of each band stays",
             Quantity("exact", "microphone", FREQUENCY), above=0.1),
        Test("over time, a microphone moves spectrograms of words by less than a tenth",
             Quantity("words", "microphone", TIME), below=0.1),
        Test("over frequency, a drifting gain moves spectrograms of words by less than a tenth",
             Quantity("words", "drifting gain", FREQUENCY), below=0.1),
        Test("over time, words follow their loudness nearly as closely as before",
             Quantity("words", "follows the loudness", NONE),
             minus=Quantity("words", "follows the loudness", TIME), below=0.1),
        Test("over frequency, nothing follows the loudness any more",
             Quantity("words", "follows the loudness", FREQUENCY), above=-0.01, below=0.01),
        Test("over frequency, the first formant stays in its band",
             Quantity("words", "first formant's band moved", FREQUENCY), below=0.05),
        Test("over time, it leaves its band in a quarter of the voiced moments or more",
             Quantity("words", "first formant's band moved", TIME), above=0.25),
        _beats("another microphone: a recognizer over time exceeds one over frequency by 0.1",
               "microphone", TIME, FREQUENCY, 0.1),
        _beats("a drifting gain: a recognizer over frequency exceeds one over time by 0.1",
               "drifting gain", FREQUENCY, TIME, 0.1),
        _beats("another microphone: over time is better than no norm", "microphone", TIME, NONE),
        _beats("another microphone: over frequency is worse than no norm",
               "microphone", NONE, FREQUENCY),
        _beats("a drifting gain: over frequency is better than no norm",
               "drifting gain", FREQUENCY, NONE),
        _beats("a drifting gain: over time is worse than no norm", "drifting gain", NONE, TIME),
    ),
    parts=(
        Part("exact", "Relative change of the output, offsets added to spectrograms of noise",
             COLUMNS, exact),
        Part("words", "Relative change of the output, spoken words changed before the microphone, "
             "and what is left of loudness, spectrum and formants", COLUMNS, spoken,
             needs="speech"),
        Part("film", "Relative change of the output, the sound of the user's film changed",
             COLUMNS, filmed, needs="sound"),
        Part("recognizer", "Accuracy of a recognizer of ten words on three voices it never heard",
             COLUMNS, recognized, long=True, needs="speech", variants=()),
    ),
    mutation="The two axes are exchanged: over time means over frequency.",
    notes="""
Ten digits are spoken by espeak-ng: 12 voices, three speeds, two pitches, 720 words. Each is
changed before a microphone that adds noise of its own, 60 dB below full scale: by a filter (8 dB
at seven places of the mel scale), by a gain that drifts (24 dB at 13 moments), by one gain (12
dB), by white noise (10 dB below the word). Then comes a log-mel spectrogram of 40 bands, and a
norm.

**What is algebra.** In a logarithm a filter is an offset of each band and a gain an offset of
each moment. Over time the first is gone exactly ({exact|microphone|over time}) and the second
stays ({exact|drifting gain|over time}); over frequency it is the other way round
({exact|drifting gain|over frequency}, {exact|microphone|over frequency}). Over both, neither
goes; only one gain for the whole recording does.

**What words make of it.** Real changes are no exact offsets of a log-mel spectrogram: a filter
bends within a band, and where a word pauses one hears the microphone's own noise, which no gain
before it moves. A filter moves the spectrograms of words by {words|microphone|no norm} without a
norm and by {words|microphone|over time} over time; a drifting gain by
{words|drifting gain|no norm} without and by {words|drifting gain|over frequency} over frequency.
The deeper a gain falls, the more of that noise is heard.

**Rhythm.** How closely a spectrogram follows the loudness of the word (the correlation over all
its bands and moments) is {words|follows the loudness|no norm} without a norm,
{words|follows the loudness|over time} over time and gone over frequency
({words|follows the loudness|over frequency}), where every moment has the same mean: nothing of
the rhythm is left in the levels.

**Formants.** Praat finds the first formant of every voiced moment; the strongest band about it is
off by {words|first formant, error in octaves|no norm} octaves. Over frequency it is the same
band, since a gain and an offset of a moment change no order. Over time it is another band in a
share of {words|first formant's band moved|over time} of the moments, off by
{words|first formant, error in octaves|over time} octaves: with each band's mean the voice's own
spectrum is gone too.

**A recognizer** of three convolutions, trained on clean words of nine voices, understands
{recognizer|clean|no norm} of the words of three others without a norm,
{recognizer|clean|over time} over time, {recognizer|clean|over frequency} over frequency and
{recognizer|clean|over both} over both.

- Through another microphone: {recognizer|microphone|no norm} without a norm,
  {recognizer|microphone|over time} over time, {recognizer|microphone|over frequency} over
  frequency, {recognizer|microphone|over both} over both.
- Under a drifting gain: {recognizer|drifting gain|no norm}, {recognizer|drifting gain|over time},
  {recognizer|drifting gain|over frequency} and {recognizer|drifting gain|over both}.
- In noise, which is neither: {recognizer|noise|no norm}, {recognizer|noise|over time},
  {recognizer|noise|over frequency} and {recognizer|noise|over both}.

Each axis is better than no norm against its own disturbance and worse than none against the
other's. Between the two the means differ by more than the 0.1 that was asked for; the intervals
over five seeds do not exclude less.

The size of the drift was set by the recognizer without a norm alone, so that it loses about as
many words to it as to another microphone. At 8 dB at seven moments, the first choice, recognizers
lost next to none, and such a drift cannot tell one norm from another.

The traps. What is exact is algebra and says nothing of speech; the words and the recognizer do.
The correlation of a norm's output with what the norm has taken out is a correlation of rounding
errors: here all of the output counts, so that nothing left is 0. The recognizer repeats its
edges: padded with zeros, its convolutions would see the level that the norm took out.
""",
    advice=(
        "Normalize over time, `axes='T'`, where microphones differ, and over frequency, "
        "`axes='F'`, where the level drifts; the wrong one of the two is worse than none. Where "
        "both happen, try both axes at once, and train with the changes that you expect."
    ),
    draw=draw,
)
