"""A small generator and discriminator of clips, with any norm in each, and their training."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F

from geonorm.norms.registry import builder
from geonorm.studies.training import short_trainer

CODE = 32  # numbers that a clip is made of


class Generator(nn.Module):
    """Make clips of codes: a linear layer and three convolutions, the picture doubled twice.

    Args:
        shape: of a clip, (C, T, H, W); H and W are multiples of 4.
        norm: a name of the registry; the first norm has T·H/4·W/4 positions.
        width: channels behind the linear layer.
    """

    def __init__(self, shape: tuple[int, int, int, int], norm: str, width: int = 32) -> None:
        super().__init__()
        channels, frames, height, width_of_picture = shape
        make = builder(norm)
        self.first = (width, frames, height // 4, width_of_picture // 4)
        self.linear = nn.Linear(CODE, width * frames * (height // 4) * (width_of_picture // 4))
        self.layers = nn.Sequential(
            make(width), nn.ReLU(), nn.Upsample(scale_factor=(1, 2, 2)),
            nn.Conv3d(width, width // 2, 3, padding=1), make(width // 2), nn.ReLU(),
            nn.Upsample(scale_factor=(1, 2, 2)),
            nn.Conv3d(width // 2, width // 2, 3, padding=1), make(width // 2), nn.ReLU(),
            nn.Conv3d(width // 2, channels, 3, padding=1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, codes: Tensor) -> Tensor:
        """Return clips in [-1, 1] of codes (B, `CODE`)."""
        clips: Tensor = self.layers(self.linear(codes).unflatten(1, self.first))
        return clips


class Discriminator(nn.Module):
    """Tell made clips from real ones: three convolutions and a linear layer over all positions.

    There is no norm behind the first convolution, as in Radford et al. (2016), and no mean over
    positions, in front of which an instance norm would leave its bias alone.

    Args:
        shape: of a clip, (C, T, H, W); H and W are multiples of 4.
        norm: a name of the registry.
        width: channels of the first convolution.
    """

    def __init__(self, shape: tuple[int, int, int, int], norm: str, width: int = 16) -> None:
        super().__init__()
        channels, frames, height, width_of_picture = shape
        make, places = builder(norm), frames * (height // 4) * (width_of_picture // 4)
        self.layers = nn.Sequential(
            nn.Conv3d(channels, width, 3, (1, 2, 2), 1), nn.LeakyReLU(0.2),
            nn.Conv3d(width, 2 * width, 3, (1, 2, 2), 1), make(2 * width), nn.LeakyReLU(0.2),
            nn.Conv3d(2 * width, 2 * width, 3, padding=1), make(2 * width), nn.LeakyReLU(0.2),
            nn.Flatten(), nn.Linear(2 * width * places, 1),
        )  # fmt: skip

    def forward(self, clips: Tensor) -> Tensor:
        """Return a logit of each clip being real, (B,)."""
        logits: Tensor = self.layers(clips).squeeze(1)
        return logits


def discriminator_loss(pair: "Pair", real: Tensor, codes: Tensor) -> Tensor:
    """Return the cross-entropy of real and made clips, each in a batch of its own."""
    with torch.no_grad():
        made = pair.generator(codes)
    seen, fooled = pair.discriminator(real), pair.discriminator(made)
    return F.softplus(-seen).mean() + F.softplus(fooled).mean()


def generator_loss(pair: "Pair", codes: Tensor) -> Tensor:
    """Return the cross-entropy of made clips being taken for real (Goodfellow et al., 2014)."""
    return F.softplus(-pair.discriminator(pair.generator(codes))).mean()


class Pair(LightningModule):
    """A generator and a discriminator that are trained in turn.

    Args:
        shape: of a clip.
        norms: the names of the generator's and of the discriminator's norm.
        rate: of Adam.
    """

    def __init__(
        self, shape: tuple[int, int, int, int], norms: tuple[str, str], rate: float
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator = Generator(shape, norms[0])
        self.discriminator = Discriminator(shape, norms[1])
        self.rate = rate

    def training_step(self, real: Tensor, number: int) -> None:
        """Take a step with each of the two."""
        of_generator, of_discriminator = self.optimizers()  # type: ignore[attr-defined]
        codes = torch.randn(len(real), CODE)
        of_discriminator.zero_grad()
        self.manual_backward(discriminator_loss(self, real, codes))
        of_discriminator.step()
        of_generator.zero_grad()
        self.manual_backward(generator_loss(self, codes))
        of_generator.step()

    def configure_optimizers(self) -> Any:
        """Return Adam for each, with the first decay of Radford et al. (2016)."""
        return [torch.optim.Adam(net.parameters(), self.rate, (0.5, 0.999))
                for net in (self.generator, self.discriminator)]  # fmt: skip


def train(pair: Pair, draw: Callable[[], Tensor], steps: int) -> None:
    """Train both for some steps on the batches that a function draws."""
    short_trainer(2 * steps).fit(pair.train(), _forever(draw))


def _forever(draw: Callable[[], Tensor]) -> Iterator[Tensor]:
    while True:
        yield draw()


def gradient_noise(
    pair: Pair, loss: Callable[[], Tensor], net: nn.Module, batches: int
) -> float:
    """Return the noise of a net's gradient over batches at fixed weights, √(tr Cov) / ‖mean‖.

    The squared norm of the mean is freed of the noise that is left in a mean over so many batches.

    Args:
        pair: of which the net is one.
        loss: draws a batch and returns its loss.
        net: the generator or the discriminator.
        batches: how many.
    """
    pair.train()
    weights = [*net.parameters()]
    gradients = torch.stack([
        torch.cat([g.flatten() for g in torch.autograd.grad(loss(), weights)])
        for _ in range(batches)
    ])  # fmt: skip
    noise = gradients.var(0).sum()
    mean = gradients.mean(0).square().sum() - noise / batches
    return float((noise / mean.clamp(min=1e-12)).sqrt())
