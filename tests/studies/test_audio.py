"""Speech, its changes and the study of audio: what is exact, and verdicts under its variants."""

import math
from pathlib import Path

import pytest
import torch

from geonorm.studies import audio, speech
from geonorm.studies.broken import broken_instance_norm
from geonorm.studies.recordings import Recordings
from geonorm.studies.study import Setting, Variant
from helpers.sounds import write_film_with_sound
from helpers.studies import NOTHING, run_apart

SPEAKS = pytest.mark.skipif(
    NOTHING.lacks("speech") is not None, reason="needs espeak-ng: apt-get install espeak-ng"
)


def setting(
    variant: Variant = "claimed", recordings: Recordings = NOTHING, seed: int = 0
) -> Setting:
    torch.manual_seed(seed)
    return Setting(seed, variant, recordings)


def test_each_axis_takes_out_its_own_offset_and_keeps_the_other() -> None:
    over_time = audio.exact(audio.TIME, setting())
    over_frequency = audio.exact(audio.FREQUENCY, setting())
    assert max(over_time["microphone"], over_time["gain"]) < 1e-5
    assert max(over_frequency["drifting gain"], over_frequency["gain"]) < 1e-5
    assert min(over_time["drifting gain"], over_frequency["microphone"]) > 0.1
    both = audio.exact(audio.BOTH, setting())
    assert both["gain"] < 1e-5 < 0.1 < min(both["microphone"], both["drifting gain"])


def test_mutation_exchanges_the_axes_and_a_broken_norm_takes_out_nothing() -> None:
    mutated = audio.exact(audio.TIME, setting("mutated"))
    assert mutated == audio.exact(audio.FREQUENCY, setting())
    with broken_instance_norm():
        assert min(audio.exact(audio.TIME, setting("broken")).values()) > 0.1


def test_without_espeak_the_exact_part_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    outcome = run_apart(audio.STUDY, 1, tmp_path)
    reason = "needs espeak-ng: apt-get install espeak-ng"
    assert outcome.left_out == {
        "words": reason, "recognizer": reason, "film": "needs a film with sound: give --data"
    }  # fmt: skip
    assert outcome.verdict() == "holds (12 of 16 tests not judged)"
    assert outcome.turned("mutated") == [1, 2, 3, 4]
    assert outcome.turned("broken") == [1, 2]


def test_microphone_is_one_gain_per_frequency() -> None:
    torch.manual_seed(0)
    tones = torch.stack([torch.sin(2 * math.pi * hertz * torch.arange(16_000) / 16_000)
                         for hertz in (500, 2000)])  # fmt: skip
    torch.manual_seed(1)
    changed = speech.microphone(tones)
    gains = changed.std(1) / tones.std(1)
    torch.testing.assert_close(changed, gains[:, None] * tones, atol=2e-3, rtol=0)
    torch.manual_seed(1)
    twice = speech.microphone(2 * tones)
    torch.testing.assert_close(twice, 2 * changed)
    assert (gains - 1).abs().min() > 0.01


def test_gains_are_straight_lines_in_decibels_of_the_stated_size() -> None:
    torch.manual_seed(0)
    decibels = 20 * speech.curves(4000, 3, 101, 8.0).log10()
    assert decibels[:, [0, 50, 100]].std(0).tolist() == pytest.approx([8, 8, 8], rel=0.05)
    middle = (decibels[:, 0] + decibels[:, 50]) / 2
    torch.testing.assert_close(decibels[:, 25], middle, atol=1e-3, rtol=0)
    steady = speech.curves(5, 1, 101, 12.0)
    torch.testing.assert_close(steady, steady[:, :1].expand(5, 101))


def test_noise_has_a_tenth_of_the_power() -> None:
    torch.manual_seed(0)
    words = torch.randn(3, 16_000) * torch.tensor([[0.01], [0.1], [1.0]])
    added = (speech.noise(words) - words).square().mean(1) / words.square().mean(1)
    assert added.tolist() == pytest.approx([0.1] * 3, rel=0.05)


def test_correlation_with_a_pattern_counts_the_whole_output() -> None:
    torch.manual_seed(0)
    loud = torch.randn(2, 1, 1, 200)
    assert audio._correlation(3 * loud.expand(2, 1, 30, 200) + 1, loud) == pytest.approx(1)
    across = torch.randn(2, 1, 30, 1)
    mixed = loud / loud.std((2, 3), correction=0, keepdim=True) \
        + across / across.std((2, 3), correction=0, keepdim=True)  # fmt: skip
    assert audio._correlation(mixed, loud) == pytest.approx(0.5**0.5, abs=1e-4)
    without = mixed - mixed.mean(2, keepdim=True)
    assert audio._correlation(without, loud) == pytest.approx(0, abs=1e-6)


def test_the_sound_of_a_film_is_changed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = write_film_with_sound(tmp_path / "a.mkv", torch.randn(40_000).mul(0.1).numpy())
    found = audio.filmed(audio.TIME, setting(recordings=Recordings(None, (path,))))
    assert found["gain"] < 0.1 < found["drifting gain"]
    with pytest.raises(ValueError, match="needs a film with sound"):
        audio.filmed(audio.TIME, setting())


@SPEAKS
def test_spoken_words_are_kept_and_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEONORM_CACHE", str(tmp_path))
    root = speech.spoken_folder(("f1",), (160,))
    files = sorted(root.rglob("*.wav"))
    assert len(files) == len({path.read_bytes() for path in files}) == 10 * len(speech.PITCHES)
    times = [path.stat().st_mtime_ns for path in files]
    assert speech.spoken_folder(("f1",), (160,)) == root
    assert [path.stat().st_mtime_ns for path in files] == times


@SPEAKS
def test_what_espeak_refuses_is_said() -> None:
    with pytest.raises(ValueError, match=r"espeak-ng -v nobody .* failed"):
        speech._espeak("-v", "nobody", "-w", "/dev/null", "one")


@pytest.mark.slow
@SPEAKS
def test_quick_verdict(tmp_path: Path) -> None:
    outcome = run_apart(audio.STUDY, 1, tmp_path, quick=True)
    assert {*outcome.left_out} == {"film", "recognizer"}
    assert all(each.passed for each in outcome.judge()[:4])
    assert {1, 2} <= {*outcome.turned("mutated")}
    assert {1, 2} <= {*outcome.turned("broken")}


@SPEAKS
@pytest.mark.filterwarnings("default")  # Lightning warns about matters of its own
@pytest.mark.long
@pytest.mark.timeout(900)
def test_recognizers_dissociate() -> None:
    """Each axis is better under its own disturbance, in each of three seeds."""
    gaps = {"microphone": 0.0, "drifting gain": 0.0}
    for seed in range(3):
        over_time = audio.recognized(audio.TIME, setting(seed=seed))
        over_frequency = audio.recognized(audio.FREQUENCY, setting(seed=seed))
        assert min(over_time["clean"], over_frequency["clean"]) > 0.85
        own = {"microphone": over_time["microphone"] - over_frequency["microphone"],
               "drifting gain": over_frequency["drifting gain"] - over_time["drifting gain"]}
        assert min(own.values()) > 0
        gaps = {name: gap + own[name] / 3 for name, gap in gaps.items()}
    assert min(gaps.values()) > 0.05
