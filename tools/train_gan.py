#!/usr/bin/env python
"""Train a generative adversarial network of clips on films of your own, with any norm in each net.

  python tools/train_gan.py                                  built-in clips, two minutes
  python tools/train_gan.py --videos FOLDER --steps 20000    clips of your films
  python tools/train_gan.py --generator instance --discriminator none

Writes DIR/samples.png, a line of frames for each made clip, and DIR/generator.pt, the weights of
geonorm.studies.gan_nets.Generator. DIR is --out.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from jsonargparse import ArgumentParser
from torch import Tensor
from tqdm import trange

from geonorm.files import written_whole
from geonorm.studies.clip_batches import clip_batches, write_clips
from geonorm.studies.gan_nets import CODE, Pair, discriminator_loss, generator_loss


def step(optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
    """Take a step down a loss and return it."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def train_gan(
    videos: Path | None = None, generator: str = "batch", discriminator: str = "none",
    frames: int = 4, size: int = 24, batch_size: int = 16, steps: int = 1000, rate: float = 1e-3,
    seed: int = 0, device: str = "cpu", samples: int = 8, out: Path = Path("runs/train_gan"),
) -> None:
    """Train both nets in turn and write clips that the generator makes.

    Args:
        videos: a folder of films, at any depth; built-in clips of moving shapes if not given.
        generator: the norm of the generator: batch, instance, group, none, ...
        discriminator: the norm of the discriminator. An instance norm there cannot see how bright a
            clip is.
        frames: of a clip.
        size: height and width of a clip in pixels, a multiple of 4.
        batch_size: clips of a step.
        steps: of each net.
        rate: of Adam.
        seed: of everything drawn.
        device: cpu or cuda.
        samples: clips in the picture.
        out: the folder of the picture and the weights.
    """
    if size < 4 or size % 4:
        raise ValueError(f"--size must be a multiple of 4; got {size}")
    torch.manual_seed(seed)
    batches = clip_batches(videos, batch_size=batch_size, frames=frames, size=size, seed=seed)
    pair = Pair((3, frames, size, size), (generator, discriminator), rate).to(device)
    for_generator, for_discriminator = pair.configure_optimizers()
    for _ in (bar := trange(steps, unit="step", disable=None)):
        real, codes = next(batches).to(device), torch.randn(batch_size, CODE, device=device)
        ours = step(for_discriminator, discriminator_loss(pair, real, codes))
        theirs = step(for_generator, generator_loss(pair, codes))
        bar.set_postfix_str(f"discriminator {ours:.3f}, generator {theirs:.3f}")
    with torch.no_grad():
        made = pair.generator.eval()(torch.randn(samples, CODE, device=device))
    write_clips(made, out / "samples.png")
    with written_whole(out / "generator.pt") as aside:
        torch.save(pair.generator.state_dict(), aside)
    print(f"{out / 'samples.png'}: {samples} clips that the generator made")


def main(arguments: Sequence[str] | None = None) -> str | None:
    """Run the command line; return what was wrong, or None."""
    parser = ArgumentParser(description=__doc__)
    parser.add_function_arguments(train_gan)
    try:
        train_gan(**parser.parse_args(arguments).as_dict())
    except ValueError as error:
        return f"tools/train_gan.py: {error}"
    return None


if __name__ == "__main__":
    sys.exit(main())
