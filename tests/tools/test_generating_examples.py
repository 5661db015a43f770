"""The examples of a GAN and a diffusion model: their commands, their data, what they write."""

import re
import shlex
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import train_diffusion
import train_gan
from PIL import Image
from torch import nn

from geonorm import InstanceNorm
from geonorm.models import VideoUNet
from geonorm.studies.clip_batches import clip_batches, write_clips
from geonorm.studies.gan_nets import Generator
from helpers.video_files import encode

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = {"train_gan": train_gan, "train_diffusion": train_diffusion}
SHORT = ["--steps=2", "--frames=2", "--size=8", "--batch_size=2", "--samples=3"]
LIMITS = {"train_gan": SHORT, "train_diffusion": [*SHORT, "--width=8", "--sample_steps=2"]}


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Return a folder with a red film, and a blue one deeper, of 12 frames."""
    for path, colour in (("red.mp4", (220, 20, 20)), ("deep/blue.mp4", (20, 20, 220))):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        encode(tmp_path / path, np.full((12, 32, 48, 3), colour, np.uint8))
    return tmp_path


def commands() -> list[tuple[str, str]]:
    """Return the documented command lines: the script and the words behind it."""
    texts = [(ROOT / "docs/generating.md").read_text(), *(e.__doc__ for e in EXAMPLES.values())]
    return sorted({
        (name, re.split(r"\s{2,}|#", words)[0].strip()) for text in texts
        for name, words in re.findall(
            r"^ *python tools/(train_gan|train_diffusion)\.py([^\n]*)", text, re.MULTILINE)
    })  # fmt: skip


@pytest.mark.parametrize(("name", "words"), commands())
def test_documented_commands_write_a_picture_and_weights(
    name: str, words: str, films: Path, tmp_path: Path, capsys
) -> None:
    example = EXAMPLES[name]
    if words == "--help":
        with pytest.raises(SystemExit, match=r"^0$"):
            example.main(["--help"])
        assert "a folder of films, at any depth" in capsys.readouterr().out
        return
    if name == "train_diffusion":
        pytest.importorskip("diffusers")
    words = words.replace("FOLDER", str(films))
    out = tmp_path / "made"
    assert example.main([*shlex.split(words), *LIMITS[name], f"--out={out}"]) is None
    assert "3 clips" in capsys.readouterr().out
    with Image.open(out / "samples.png") as picture:
        assert picture.size == (2 * (8 + 2) + 2, 3 * (8 + 2) + 2)  # frames beside, clips below
    weights = torch.load(out / f"{ {'train_gan': 'generator'}.get(name, 'unet')}.pt")
    assert all(torch.isfinite(value).all() for value in weights.values())


def test_documented_commands_are_found() -> None:
    assert {name for name, _ in commands()} == {*EXAMPLES}
    assert len(commands()) >= 6


def test_weights_are_those_of_the_networks_named(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    given = {"train_gan": ["--generator=instance"],
             "train_diffusion": ["--encoder=instance", "--decoder=none"]}  # fmt: skip
    for name, words in given.items():
        assert EXAMPLES[name].main([*words, *LIMITS[name], f"--out={tmp_path}"]) is None
    Generator((3, 2, 8, 8), "instance").load_state_dict(torch.load(tmp_path / "generator.pt"))
    norm = {"encoder": "instance", "bottleneck": "instance", "decoder": "none"}
    net = VideoUNet(norm=norm, widths=(8, 16, 32))
    net.load_state_dict(torch.load(tmp_path / "unet.pt"))
    norms = [type(block.norm1) is InstanceNorm for block in (*net.down, *net.up)]
    assert norms == [True, True, True, False, False]


def test_documented_python_makes_clips_of_the_weights(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert train_gan.main(["--steps=1", "--batch_size=2"]) is None
    (code,) = re.findall(r"```\n(import.*?)```", (ROOT / "docs/generating.md").read_text(), re.S)
    found: dict = {}
    exec(code, found)
    assert found["clips"].shape == (8, 3, 4, 24, 24)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_same_seed_gives_the_same_weights(name: str, tmp_path: Path) -> None:
    if name == "train_diffusion":
        pytest.importorskip("diffusers")
    found = []
    # With a rate of 0 the weights are those that the training begins with.
    for seed, rate in ((1, 0.01), (1, 0.01), (2, 0.01), (1, 0), (2, 0)):
        EXAMPLES[name].main(
            [*LIMITS[name], f"--seed={seed}", f"--rate={rate}", f"--out={tmp_path}"]
        )
        state = torch.load(next(iter(tmp_path.glob("*.pt"))))
        found.append(torch.cat([value.flatten().float() for value in state.values()]))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert not torch.equal(found[3], found[4])


def test_bad_input_is_refused(tmp_path: Path, monkeypatch) -> None:
    assert train_gan.main(["--size=13"]) == (
        "tools/train_gan.py: --size must be a multiple of 4; got 13"
    )
    for name, example in EXAMPLES.items():
        said = example.main([f"--videos={tmp_path / 'none'}"])
        assert said.startswith(f"tools/{name}.py: expected a folder of recordings")
        assert "expected numbers of 1 or more; got {'frames': 0}" in example.main(["--frames=0"])
    (tmp_path / "scan.bin").touch()
    assert "expected films in" in train_gan.main([f"--videos={tmp_path}"])
    assert "'instanse'" in train_gan.main(["--generator=instanse"])
    monkeypatch.setitem(sys.modules, "diffusers", None)
    said = train_diffusion.main(LIMITS["train_diffusion"])
    assert said == "needs diffusers: pip install 'geonorm[studies]'"


def test_clips_of_films_are_theirs_at_random(films: Path) -> None:
    batches = clip_batches(films, batch_size=6, frames=3, size=8, seed=1)
    clips = torch.cat([*islice(batches, 3)])
    assert clips.shape == (18, 3, 3, 8, 8)
    red, _, blue = clips.mean((2, 3, 4)).T
    for channel in (red, blue):
        assert channel.min() == pytest.approx(20 / 127.5 - 1, abs=0.08)
        assert channel.max() == pytest.approx(220 / 127.5 - 1, abs=0.08)
    assert torch.allclose(red + blue, torch.tensor(240 / 127.5 - 2), atol=0.1)
    assert int((red > 0).sum()) == 9  # six of a batch are three of each


def test_clips_of_a_film_begin_anywhere(tmp_path: Path) -> None:
    levels = np.arange(24, dtype=np.uint8)[:, None, None, None] * 10
    encode(tmp_path / "film.mp4", np.broadcast_to(levels, (24, 32, 32, 3)).copy())
    batches = clip_batches(tmp_path, batch_size=4, frames=2, size=8)
    found = torch.cat([*islice(batches, 6)]).mean((1, 3, 4)) * 12.75 + 12.75  # number of the frame
    torch.testing.assert_close(found[:, 1] - found[:, 0], torch.ones(24), atol=0.4, rtol=0)
    starts = found[:, 0].round()
    assert starts.unique().numel() > 10
    assert all(batch.unique().numel() > 1 for batch in starts.view(6, 4))


def test_built_in_clips_are_at_random_exposures() -> None:
    clips = torch.cat([*islice(clip_batches(None, batch_size=20, frames=2, size=8, seed=3), 4)])
    assert clips.shape == (80, 3, 2, 8, 8)
    peaks = (clips.flatten(1).max(1).values + 1) / 2
    assert peaks.min() < 0.4
    assert peaks.max() > 0.8


def test_a_picture_has_a_line_of_frames_for_each_clip(tmp_path: Path) -> None:
    clips = torch.full((2, 3, 4, 5, 6), -1.0)
    clips[1, 0, 2] = 1  # the second clip is red in its third frame
    write_clips(clips, tmp_path / "new" / "clips.png")
    with Image.open(tmp_path / "new" / "clips.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (2 * (5 + 2) + 2, 4 * (6 + 2) + 2, 3)
    red = pixels[..., 0] == 255
    assert red.sum() == 30
    assert red[9:14, 18:24].all()


class Exact(nn.Module):
    """Predicts the noise of clips that are all 0.5, exactly."""

    def __init__(self, shares: torch.Tensor) -> None:
        super().__init__()
        self.shares = shares

    def forward(self, noisy: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        share = self.shares[time].view(-1, 1, 1, 1, 1)
        return (noisy - share.sqrt() * 0.5) / (1 - share).sqrt()


def test_samples_of_an_exact_network_are_the_clips() -> None:
    """A network that knows the noise leads back to the clips, in as many steps as are asked for."""
    pytest.importorskip("diffusers")
    schedule, noise = train_diffusion.schedule_of("noise"), torch.randn(2, 3, 2, 4, 4)
    found = train_diffusion.sample(Exact(schedule.alphas_cumprod), schedule, noise, 20)
    torch.testing.assert_close(found, torch.full_like(found, 0.5), atol=0.02, rtol=0)
