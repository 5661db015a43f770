#!/usr/bin/env python
"""Train a diffusion model of clips on films of your own: a VideoUNet and diffusers' schedule.

  python tools/train_diffusion.py                                  built-in clips, ten minutes
  python tools/train_diffusion.py --videos FOLDER --steps 20000    clips of your films
  python tools/train_diffusion.py --encoder instance --decoder none

Writes DIR/samples.png, a line of frames for each made clip, and DIR/unet.pt, the weights of
geonorm.models.VideoUNet. DIR is --out. Needs diffusers: pip install 'geonorm[studies]'.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import ArgumentParser
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm, trange

from geonorm import GroupNorm
from geonorm.files import written_whole
from geonorm.models import VideoUNet
from geonorm.studies.clip_batches import clip_batches, write_clips

NOISINGS = 1000  # steps from a clip to noise
EIGHT = partial(GroupNorm, num_groups=8)  # 32 groups of 32 channels would be instance norm


def schedule_of(predicts: Literal["noise", "clip"]) -> Any:
    """Return diffusers' DDPM schedule (Ho et al., 2020; cosine: Nichol and Dhariwal, 2021)."""
    from diffusers import DDPMScheduler

    kind = {"noise": "epsilon", "clip": "sample"}[predicts]
    return DDPMScheduler(NOISINGS, beta_schedule="squaredcos_cap_v2", prediction_type=kind)


@torch.no_grad()
def sample(net: nn.Module, schedule: Any, noise: Tensor, steps: int) -> Tensor:
    """Return clips that come of noise in some steps back, (B, 3, T, H, W) in about [-1, 1]."""
    schedule.set_timesteps(steps)
    clips = noise
    for time in tqdm(schedule.timesteps, "samples", unit="step", disable=None):
        found = net(clips, time.expand(len(clips)).to(clips.device))
        clips = schedule.step(found, time, clips).prev_sample
    return clips


def train_diffusion(
    videos: Path | None = None, encoder: str = "group", decoder: str = "group",
    predicts: Literal["noise", "clip"] = "noise", width: int = 32, frames: int = 4, size: int = 24,
    batch_size: int = 16, steps: int = 600, rate: float = 2e-3, seed: int = 0, device: str = "cpu",
    samples: int = 8, sample_steps: int = 100, out: Path = Path("runs/train_diffusion"),
) -> None:
    """Train a network to take noise from clips and write clips that it makes of noise.

    Args:
        videos: a folder of films, at any depth; built-in clips of moving shapes if not given.
        encoder: the norm of the encoder and the bottleneck: group (of eight groups), instance,
            batch, none, ...
        decoder: the norm of the decoder. Behind the last convolution there is none.
        predicts: what the network is trained for: the noise or the clip.
        width: channels at the full resolution; at a half and a quarter there are 2 and 4 times
            as many.
        frames: of a clip.
        size: height and width of a clip in pixels.
        batch_size: clips of a step.
        steps: of the training.
        rate: the highest of AdamW's learning rates, on the one-cycle schedule.
        seed: of everything drawn.
        device: cpu or cuda.
        samples: clips in the picture.
        sample_steps: from noise to a clip, at most 1000.
        out: the folder of the picture and the weights.
    """
    torch.manual_seed(seed)
    batches = clip_batches(videos, batch_size=batch_size, frames=frames, size=size, seed=seed)
    places = {"encoder": encoder, "bottleneck": encoder, "decoder": decoder}
    norm: Any = {place: EIGHT if name == "group" else name for place, name in places.items()}
    net = VideoUNet(norm=norm, widths=(width, 2 * width, 4 * width),
                    padding_mode="replicate").to(device)  # fmt: skip
    schedule = schedule_of(predicts)
    optimizer = torch.optim.AdamW(net.parameters(), rate)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps)
    for _ in (bar := trange(steps, unit="step", disable=None)):
        clean = next(batches).to(device)
        noise, time = torch.randn_like(clean), torch.randint(NOISINGS, (batch_size,), device=device)
        wanted = noise if predicts == "noise" else clean
        loss = F.mse_loss(net(schedule.add_noise(clean, noise, time), time), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.step()
        bar.set_postfix_str(f"error {loss:.3f}")
    noise = torch.randn(samples, 3, frames, size, size, device=device)
    write_clips(sample(net.eval(), schedule, noise, sample_steps), out / "samples.png")
    with written_whole(out / "unet.pt") as aside:
        torch.save(net.state_dict(), aside)
    print(f"{out / 'samples.png'}: {samples} clips that the network made of noise")


def main(arguments: Sequence[str] | None = None) -> str | None:
    """Run the command line; return what was wrong, or None."""
    parser = ArgumentParser(description=__doc__)
    parser.add_function_arguments(train_diffusion)
    try:
        train_diffusion(**parser.parse_args(arguments).as_dict())
    except ModuleNotFoundError as error:
        if error.name != "diffusers":
            raise
        return "needs diffusers: pip install 'geonorm[studies]'"
    except ValueError as error:
        return f"tools/train_diffusion.py: {error}"
    return None


if __name__ == "__main__":
    sys.exit(main())
