"""Style transfer on small pictures: an encoder, a decoder and one-style networks, trained here."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from geonorm.functional import adaptive_instance_norm
from geonorm.inputs import read
from geonorm.losses import content_loss, style_loss
from geonorm.norms.adaptive_instance_norm import AdaptiveInstanceNorm
from geonorm.norms.batch_norm import BatchNorm
from geonorm.norms.instance_norm import InstanceNorm
from geonorm.studies.broken import in_style
from geonorm.studies.clips import drawn_clips
from geonorm.studies.training import fit
from geonorm.style import StyleStatistics, style_statistics

SIDE, BATCH = 32, 8
SHALLOW, DEEP = 24, 48  # channels at the full and at half the resolution
STEPS = {"encoder": 250, "decoder": 200, "one style": 90}
STYLE_WEIGHT = 10.0
CONTENTS = ("original", "contrast normalized", "style normalized")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let torch draw from a seed of its own meanwhile, whatever was drawn before."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        yield


def contents(count: int, *, unseen: bool = False) -> Tensor:
    """Return pictures of shapes under random light, (count, 3, `SIDE`, `SIDE`) in [0, 1].

    Every picture has a gain and a colour cast of its own.

    Args:
        count: how many.
        unseen: of shapes that no network is trained with.
    """
    pool = drawn_clips(256, 1, SIDE, seed=650 if unseen else 600)[0][:, :, 0]
    chosen = pool[torch.randint(len(pool), (count,))]
    light = (0.5 * torch.randn(count, 1)).exp() * (0.3 * torch.randn(count, 3)).exp()
    return (chosen * light.view(count, 3, 1, 1)).clamp(0, 1)


def texture(kind: str, colours: Tensor, period: float, angle: float) -> Tensor:
    """Return a picture of two colours, (3, `SIDE`, `SIDE`).

    Args:
        kind: "stripes", "checks" or "dots".
        colours: (2, 3) in [0, 1].
        period: pixels.
        angle: radians.
    """
    place = torch.arange(SIDE, dtype=torch.float32)
    y, x = torch.meshgrid(place, place, indexing="ij")
    turn = torch.tensor(angle)
    along, across = x * turn.cos() + y * turn.sin(), y * turn.cos() - x * turn.sin()
    a, b = ((2 * torch.pi / period * axis).sin() for axis in (along, across))
    wave = {"stripes": a, "checks": 2 * a * b, "dots": a + b - 0.7}[kind]
    share = torch.sigmoid(4 * wave)
    return colours[0, :, None, None] * share + colours[1, :, None, None] * (1 - share)


def textures(count: int) -> Tensor:
    """Return random textures, (count, 3, `SIDE`, `SIDE`)."""
    kinds = ("stripes", "checks", "dots")
    return torch.stack([
        texture(kinds[int(torch.randint(3, ()))], torch.rand(2, 3), float(4 + 6 * torch.rand(())),
                float(torch.pi * torch.rand(())))
        for _ in range(count)
    ])  # fmt: skip


def four_styles() -> Tensor:
    """Return the textures that the figure shows, (4, 3, `SIDE`, `SIDE`)."""
    palettes = torch.tensor([
        [[1.0, 0.8, 0.1], [0.75, 0.1, 0.05]], [[0.1, 0.9, 0.95], [0.05, 0.1, 0.5]],
        [[0.75, 0.95, 0.3], [0.0, 0.35, 0.1]], [[1.0, 0.75, 0.95], [0.5, 0.05, 0.55]],
    ])  # fmt: skip
    kinds = (("stripes", 8.0, 0.8), ("dots", 6.5, 0.3), ("checks", 8.0, 0.0), ("stripes", 4.5, 2.2))
    return torch.stack([texture(kind, colours, *shape)
                        for (kind, *shape), colours in zip(kinds, palettes, strict=True)])


def equalized(pictures: Tensor) -> Tensor:
    """Return pictures whose luminance has a flat histogram: the same contrast for all."""
    luminance = (pictures * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1)
    levels = luminance.flatten(1).contiguous()
    order = levels.sort(1).values
    rank = torch.searchsorted(order, levels, right=True) / levels.shape[1]
    factor = rank.view_as(luminance) / luminance.clamp(min=1e-3)
    return (pictures * factor[:, None]).clamp(0, 1)


def _convolution(given: int, made: int, stride: int = 1) -> nn.Conv2d:
    """Return a convolution with repeated edges: zeros would tell a norm where the edge is."""
    return nn.Conv2d(given, made, 3, stride, padding=1, padding_mode="replicate")


class Encoder(nn.Module):
    """Two layers of features of a picture, each of root mean square one over many pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.shallow = nn.Sequential(_convolution(3, SHALLOW), nn.ReLU())
        self.deep = nn.Sequential(_convolution(SHALLOW, DEEP, 2), nn.ReLU())
        self.size = torch.ones(2)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Return (B, `SHALLOW`, `SIDE`, `SIDE`) and (B, `DEEP`, `SIDE` / 2, `SIDE` / 2)."""
        shallow = self.shallow(pictures)
        return [shallow / self.size[0], self.deep(shallow) / self.size[1]]


def decoder() -> nn.Sequential:
    """Return a network from deep features to a picture."""
    return nn.Sequential(nn.Upsample(scale_factor=2), _convolution(DEEP, SHALLOW), nn.ReLU(),
                         _convolution(SHALLOW, 3))  # fmt: skip


class Autoencoder(nn.Module):
    """Encoder and decoder of pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(), decoder()

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the pictures as they come back from their deep features."""
        out: Tensor = self.decoder(self.encoder(pictures)[-1])
        return out


@lru_cache(maxsize=8)
def trained_autoencoder(seed: int) -> Autoencoder:
    """Return an autoencoder of contents and textures; its encoder learns no more."""

    def draw() -> Tensor:
        return torch.cat([contents(BATCH // 2), textures(BATCH // 2)])

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        return nn.functional.mse_loss(model(batch), batch)

    with seeded(10 * seed + 1):
        model = Autoencoder()
        fit(model, draw, loss, steps=STEPS["encoder"], rate=1e-2)
        encoder, first = model.encoder.requires_grad_(False), model.decoder[1]
        found = encoder(torch.cat([contents(64), textures(64)]))
        encoder.size = torch.stack([each.square().mean().sqrt() for each in found])
        with torch.no_grad():
            first.get_parameter("weight").mul_(encoder.size[1])
    return model


def exchange(content: Any, style: Any, norm: str) -> Any:
    """Return a content with a style's statistics.

    Args:
        content: a dense tensor or `Rows`.
        style: likewise, or `StyleStatistics`.
        norm: "instance", or "batch", which takes a whole batch's statistics off in place of each
            instance's own.
    """
    given = read(content)
    channels = given.features.shape[1]
    if norm == "instance":
        return AdaptiveInstanceNorm(channels)(content, style)
    return in_style(given, BatchNorm(channels, affine=False)(given.features), style)


class Transfer(nn.Module):
    """Encoder, exchange of statistics and decoder."""

    def __init__(self, trained: Autoencoder, norm: str) -> None:
        super().__init__()
        self.encoder, self.norm = trained.encoder, norm
        self.decoder = deepcopy(trained.decoder)

    def forward(self, pictures: Tensor, style: StyleStatistics) -> Tensor:
        """Return the pictures in a style of deep features."""
        out: Tensor = self.decoder(exchange(self.encoder(pictures)[-1], style, self.norm))
        return out


def style_of(encoder: Encoder, pictures: Tensor) -> StyleStatistics:
    """Return the statistics of pictures' deep features."""
    return style_statistics(encoder(pictures)[-1])


def style_distance(encoder: Encoder, pictures: Tensor, styles: Tensor) -> Tensor:
    """Return the style loss of pictures to other ones, summed over the encoder's layers."""
    pairs = zip(encoder(pictures), encoder(styles), strict=True)
    return torch.stack([style_loss(found, wanted) for found, wanted in pairs]).sum()


@lru_cache(maxsize=16)
def trained_transfer(seed: int, norm: str, broken: bool = False) -> Transfer:
    """Return a transfer whose decoder learned from random contents and textures.

    Args:
        seed: of everything drawn.
        norm: "instance" or "batch".
        broken: tells the runs with a broken instance norm apart.
    """
    trained = trained_autoencoder(seed)
    encoder = trained.encoder
    with seeded(10 * seed + 2):

        def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
            pictures, styles = batch
            wanted = exchange(encoder(pictures)[-1], style_of(encoder, styles), norm)
            made = model.get_submodule("decoder")(wanted)
            kept = content_loss(encoder(made)[-1], wanted)
            return kept + STYLE_WEIGHT * style_distance(encoder, made, styles)

        transfer = Transfer(trained, norm)
        fit(transfer, lambda: (contents(BATCH), textures(BATCH)), loss, steps=STEPS["decoder"],
            rate=5e-3)  # fmt: skip
    return transfer


def one_style_network(norm: str) -> nn.Sequential:
    """Return a feed-forward network from pictures to pictures with a norm behind each layer."""
    kind = {"instance": InstanceNorm, "batch": BatchNorm}[norm]

    def layer(given: int, made: int, stride: int = 1) -> list[nn.Module]:
        return [_convolution(given, made, stride), kind(made), nn.ReLU()]

    return nn.Sequential(
        *layer(3, SHALLOW), *layer(SHALLOW, DEEP, 2), *layer(DEEP, DEEP), *layer(DEEP, DEEP),
        nn.Upsample(scale_factor=2), *layer(DEEP, SHALLOW), _convolution(SHALLOW, 3),
    )  # fmt: skip


def prepared(kind: str, seed: int) -> Callable[[Tensor], Tensor]:
    """Return what is done to contents beforehand: nothing, or they get one contrast or style."""
    if kind == "contrast normalized":
        return equalized
    if kind == "original":
        return lambda pictures: pictures
    transfer = trained_transfer(seed, "instance")
    style = style_of(transfer.encoder, four_styles()[:1])

    @torch.no_grad()
    def styled(pictures: Tensor) -> Tensor:
        out: Tensor = transfer(pictures, style)
        return out

    return styled


@lru_cache(maxsize=64)
def one_style_losses(seed: int, norm: str, kind: str) -> tuple[float, float, float]:
    """Train a network for the first of `four_styles`; return the means over its last 20 steps.

    Args:
        seed: of everything drawn.
        norm: "instance" or "batch".
        kind: of `CONTENTS`.

    Returns:
        the loss, the style's part of it, and the loss on contents not trained on, in evaluation.
    """
    encoder, style = trained_autoencoder(seed).encoder, four_styles()[:1]
    wanted = style_of(encoder, style)
    prepare = prepared(kind, seed)
    seen: list[tuple[float, float]] = []

    def loss(model: nn.Module, pictures: Tensor) -> Tensor:
        made = model(pictures)
        distance = style_distance(encoder, made, style)
        # The content's target has the style already; with its own light the two losses conflict.
        target = adaptive_instance_norm(encoder(pictures)[-1], wanted.mean, wanted.std)
        total = content_loss(encoder(made)[-1], target) + STYLE_WEIGHT * distance
        seen.append((float(total.detach()), float(distance.detach())))
        return total

    with seeded(10 * seed + 3):
        network = fit(one_style_network(norm), lambda: prepare(contents(BATCH)), loss,
                      steps=STEPS["one style"])  # fmt: skip
        last = torch.tensor(seen[-20:]).mean(0).tolist()
        with torch.no_grad():
            held_out = float(loss(network, prepare(contents(64, unseen=True))))
    return last[0], last[1], held_out
