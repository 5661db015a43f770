"""Patch tokens: what layer norm and instance norm take out, and a mean that leaves the bias."""

import warnings
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from geonorm.convert.conversion import convert
from geonorm.norms.axis_instance_norm import AxisInstanceNorm
from geonorm.norms.batch_norm import BatchNorm
from geonorm.norms.layer_norm import LayerNorm
from geonorm.norms.no_norm import NoNorm
from geonorm.studies.clips import drawn_clips
from geonorm.studies.outcome import Outcome
from geonorm.studies.study import Part, Quantity, Setting, Study, Test
from geonorm.studies.training import cross_entropy, fit
from geonorm.training.invariance.table import change as relative_change

WIDTH = 48
PATCH = (2, 8, 8)
FRAMES, SIDE = 6, 32
NORMS = ("none", "batch", "layer", "instance")
EXCHANGED = {"layer": "instance", "instance": "layer"}
MOTIONS = ("move left", "move right")
SWINS = ("layer", "instance but for the last", "instance")
# The norms of the blocks, the last norm, and what the classifier is given.
VITS = ("layer, layer, mean", "instance, instance, mean", "instance, layer, mean",
        "instance, instance, first token")  # fmt: skip
STEPS = 500
SPREAD = 0.7  # deviation of the logarithm of a gain


class Embedding(nn.Module):
    """Cut clips into patches of space and time and map each to a token, without a bias."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.map = nn.Conv3d(3, width, PATCH, PATCH, bias=False)

    def forward(self, clips: Tensor) -> Tensor:
        """Return tokens (B, N, C) of clips (B, 3, T, H, W)."""
        tokens: Tensor = self.map(clips).flatten(2).transpose(1, 2)
        return tokens


class TokenNorm(nn.Module):
    """Apply one of this library's norms to tokens (B, N, C); the mutation exchanges two of them."""

    def __init__(self, name: str, setting: Setting, width: int = WIDTH) -> None:
        super().__init__()
        name = EXCHANGED.get(name, name) if setting.mutated else name
        kinds = {"none": NoNorm, "batch": BatchNorm, "layer": LayerNorm}
        self.last = name == "instance"  # whether channels are where they are in tokens
        self.norm: nn.Module = (
            AxisInstanceNorm(width, affine=False, layout="BNC", axes="N") if self.last
            else kinds[name](width, **({} if name == "none" else {"affine": False}))
        )  # fmt: skip

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the tokens normalized."""
        out: Tensor = self.norm(tokens if self.last else tokens.transpose(1, 2))
        return out if self.last else out.transpose(1, 2)


def by_patch(clips: Tensor, gains: Tensor) -> Tensor:
    """Multiply every patch of clips by a gain of its own, (B, 1, T/2, H/8, W/8)."""
    for axis, times in zip((2, 3, 4), PATCH, strict=True):
        gains = gains.repeat_interleave(times, axis)
    return clips * gains


def lights(clips: Tensor) -> dict[str, Tensor]:
    """Return clips under changes of light."""
    cast = clips.new_tensor([1.0, 0.7, 0.4]).view(3, 1, 1, 1)
    cells = (len(clips), 1, *(n // p for n, p in zip(clips.shape[2:], PATCH, strict=True)))
    gains = (SPREAD * torch.randn(cells, dtype=clips.dtype)).exp()
    return {"twice the exposure": clips * 2, "an offset": clips + 0.5,
            "a colour cast": clips * cast, "a gain by patch": by_patch(clips, gains)}  # fmt: skip


def exact(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure how far the first clip's tokens move, of eight, when it alone is changed."""
    clips = drawn_clips(8, FRAMES, SIDE, seed=600 + setting.seed)[0].double()
    embed = Embedding().double()
    norm = TokenNorm(column, setting).double()
    with torch.no_grad():
        embed.map.weight /= embed(clips).std()  # tokens of unit deviation, far above eps
        tokens: Tensor = embed(clips)
        before = norm(tokens)
        count, width = tokens.shape[1:]

        def moved(first: Tensor) -> float:
            return relative_change(before[0], norm(torch.cat([first, tokens[1:]]))[0])

        def affine(*shape: int) -> Tensor:
            drawn = torch.randn(2, *shape, dtype=torch.float64)
            return tokens[:1] * (SPREAD * drawn[0]).exp() + drawn[1]

        values = {"scale and shift of each token": moved(affine(count, 1)),
                  "scale and shift of each channel": moved(affine(1, width))}  # fmt: skip
        values |= {name: moved(embed(x)) for name, x in lights(clips[:1]).items()}
        mean, size = before.mean(1), before.square().mean().sqrt()
        values["what a mean over tokens keeps"] = float(mean.std(0).square().mean().sqrt() / size)
    return values


def swin(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure what torchvision's swin3d_t with random weights gives its classifier.

    In deviations of a token behind the last norm, not relative to itself: behind an instance norm
    it is rounding.
    """
    from torchvision.models.video import swin3d_t

    model: nn.Module = swin3d_t(weights=None).eval()
    if setting.mutated:
        column = {"layer": "instance but for the last"}.get(column, "layer")
    if column != "layer":
        rest = "*" if column == "instance" else ["patch_embed.*", "features.*"]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'norm' stands beside the global pool", UserWarning)
            convert(model, layout="BTHWC", where=rest)
    model.head = nn.Identity()
    clips = drawn_clips(4, 8, 64, seed=600 + setting.seed)[0]
    with torch.no_grad():
        features = model(clips)
        values = {name: rms(model(torch.cat([x, clips[1:]]))[0] - features[0])
                  for name, x in lights(clips[:1]).items()}  # fmt: skip
    return values | {"how much clips differ": rms(features.std(0))}


def rms(x: Tensor) -> float:
    """Return the root mean square."""
    return float(x.square().mean().sqrt())


class VideoTransformer(nn.Module):
    """Tell motions by two encoder layers over tokens, a last norm, and a mean or a first token.

    Args:
        kind: one of `VITS`: the norms of the layers, the last norm, and what the classifier is
            given.
        setting: the mutation exchanges layer and instance norm.
    """

    def __init__(self, kind: str, setting: Setting) -> None:
        super().__init__()
        inner, last, self.pooling = kind.split(", ")
        self.embed = Embedding()
        count = (FRAMES // PATCH[0]) * (SIDE // PATCH[1]) * (SIDE // PATCH[2])
        self.first = nn.Parameter(torch.randn(1, 1, WIDTH) * 0.02)
        self.places = nn.Parameter(torch.randn(1, count + 1, WIDTH) * 0.02)
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, 0.0, "gelu", batch_first=True,
                                           norm_first=True)  # fmt: skip
        self.layers = nn.TransformerEncoder(layer, 2, nn.LayerNorm(WIDTH),
                                            enable_nested_tensor=False)  # fmt: skip
        self.head = nn.Linear(WIDTH, len(MOTIONS))
        places = {"layers.layers": inner, "layers.norm": last}
        to = [place for place, name in places.items()
              if (EXCHANGED[name] if setting.mutated else name) == "instance"]  # fmt: skip
        if to:
            convert(self, layout="BNC", where=[f"{place}*" for place in to])

    def forward(self, clips: Tensor) -> Tensor:
        """Return logits of clips (B, 3, T, H, W)."""
        tokens = self.embed((clips - 0.5) / 0.25)
        tokens = torch.cat([self.first.expand(len(tokens), -1, -1), tokens], 1) + self.places
        out = self.layers(tokens)
        logits: Tensor = self.head(out.mean(1) if self.pooling == "mean" else out[:, 0])
        return logits


@lru_cache(maxsize=4)
def _sets(seed: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return clips to train on and others to test on."""
    return (drawn_clips(960, FRAMES, SIDE, 3000 + seed, MOTIONS),
            drawn_clips(240, FRAMES, SIDE, 4000 + seed, MOTIONS))  # fmt: skip


def trained(column: str, setting: Setting) -> Mapping[str, float]:
    """Train a small video transformer and test it under changes of light."""
    (clips, labels), (unseen, classes) = _sets(setting.seed)
    generator = torch.Generator().manual_seed(setting.seed)

    def draw() -> tuple[Tensor, Tensor]:
        rows = torch.randint(len(clips), (32,), generator=generator)
        return clips[rows], labels[rows]

    model = fit(VideoTransformer(column, setting), draw, cross_entropy, steps=STEPS)

    def accuracy(seen: Tensor) -> float:
        with torch.no_grad():
            return float((model(seen).argmax(1) == classes).float().mean())

    return {"as trained": accuracy(unseen)} | {
        name: accuracy(seen) for name, seen in lights(unseen).items()}  # fmt: skip


def _exact(row: str, column: str) -> Quantity:
    return Quantity("tokens", row, column)


def _trained(row: str, column: str) -> Quantity:
    return Quantity("trained", row, column)


TOKEN, CHANNEL = "scale and shift of each token", "scale and shift of each channel"
KEPT = "what a mean over tokens keeps"
TESTS = (
    Test("layer norm takes out each token's scale and shift, to 1%", _exact(TOKEN, "layer"),
         below=0.01),
    Test("instance norm takes out each channel's scale and shift, to 1%",
         _exact(CHANNEL, "instance"), below=0.01),
    Test("layer norm does not take out each channel's", _exact(CHANNEL, "layer"), above=0.1),
    Test("instance norm does not take out each token's", _exact(TOKEN, "instance"), above=0.1),
    Test("an offset of the light is taken out by instance norm, to 1%",
         _exact("an offset", "instance"), below=0.01),
    Test("layer norm does not take it out", _exact("an offset", "layer"), above=0.1),
    Test("as worded: instance norm over tokens takes the look out, a colour cast too",
         _exact("a colour cast", "instance"), below=0.01),
    Test("a mean over tokens behind instance norm keeps nothing", _exact(KEPT, "instance"),
         below=1e-6),
    Test("a mean over tokens behind layer norm keeps much", _exact(KEPT, "layer"), above=0.1),
    *(Test(f"swin3d_t of instance norms but for the last keeps its features under {what}, to 1%",
           Quantity("swin", what, SWINS[1]), below=0.01)
      for what in ("twice the exposure", "an offset")),
    Test("swin3d_t with layer norms does not keep them under an offset",
         Quantity("swin", "an offset", "layer"), above=0.01),
    Test("swin3d_t of instance norms to the last has the same features for every clip",
         Quantity("swin", "how much clips differ", "instance"), below=1e-4),
    Test("a trained transformer with instance norm before the mean is at chance",
         _trained("as trained", VITS[1]), above=0.4, below=0.6),
    *(Test(f"a trained transformer of {kind.replace(', ', ' norms, ', 1)} learns the motions",
           _trained("as trained", kind), above=0.9) for kind in (VITS[0], *VITS[2:])),
    Test("with layer norms it keeps its accuracy under a gain by patch, within 5 points",
         _trained("a gain by patch", VITS[0]), above=-0.05, minus=_trained("as trained", VITS[0])),
    Test("under a gain by patch layer norms lose less than instance norms",
         _trained("a gain by patch", VITS[0]), above=0.0,
         minus=_trained("a gain by patch", VITS[2])),
    *(Test(f"with instance norms in its layers it keeps its accuracy under {what}, within 5 points",
           _trained(what, VITS[2]), above=-0.05, minus=_trained("as trained", VITS[2]))
      for what in ("twice the exposure", "an offset", "a colour cast")),
)  # fmt: skip

PARTS = (
    Part("tokens", "Change of a clip's tokens behind one norm (relative) when that clip alone is "
         "changed, in a batch of 8; and the size of their mean, in deviations of a token",
         NORMS, exact),
    Part("swin", "Change of the features that torchvision's `swin3d_t` with random weights gives "
         "its classifier, and how much they differ between four clips, in deviations of a token",
         SWINS, swin, long=True, variants=("broken",)),
    Part("trained", "Accuracy of a small video transformer in telling left from right (chance "
         "0.5), on new clips: norms of its layers, its last norm, and what its classifier is given",
         VITS, trained, long=True, most_seeds=3, variants=()),
)  # fmt: skip

NOTES = """
**What was done.** Clips of the built-in actions are cut into patches of 2 by 8 by 8 and mapped to
tokens. One clip of a batch is changed, by its tokens or by its light, and its tokens behind each
norm are compared; then the same for what torchvision's `swin3d_t` gives its classifier, and for a
small video transformer that is trained here.

**The two norms mirror each other.** A scale and a shift of each token's own leave layer norm's
output as it is ({tokens|scale and shift of each token|layer}) and not instance norm's
({tokens|scale and shift of each token|instance}); a scale and a shift of each channel, the same for
all tokens, leave instance norm's as it is ({tokens|scale and shift of each channel|instance}) and
not layer norm's ({tokens|scale and shift of each channel|layer}). In terms of light: a gain that
differs from patch to patch (a shadow, a lamp in a corner) is the first kind, an offset of the whole
clip is the second, and one gain of all pixels is both.

**What neither takes out** is a colour cast: the patch embedding mixes the colours before the first
norm, so the change is not one of single channels ({tokens|a colour cast|instance} behind instance
norm, {tokens|a colour cast|layer} behind layer norm). In `swin3d_t`, too, an offset moves what the
classifier is given by {swin|an offset|layer} with layer norms and by
{swin|an offset|instance but for the last} with instance norms, a colour cast by
{swin|a colour cast|layer} and {swin|a colour cast|instance but for the last}.

**A mean over what instance norm put out is its bias.** It keeps
{tokens|what a mean over tokens keeps|instance} of a token's deviation, against
{tokens|what a mean over tokens keeps|layer} behind layer norm. `swin3d_t` ends in a norm and a
mean: with an instance norm there, what the classifier is given differs between clips by
{swin|how much clips differ|instance} of a token's deviation, against
{swin|how much clips differ|layer} as it was. The small transformer with instance norms and a mean
is at chance ({trained|as trained|instance, instance, mean}) however long it is trained. With a
layer norm before the mean it reaches {trained|as trained|instance, layer, mean}, with a first token
in place of the mean {trained|as trained|instance, instance, first token}.

**Trained**, layer norms keep {trained|a gain by patch|layer, layer, mean} under a random gain of
each patch, instance norms in the layers {trained|a gain by patch|instance, layer, mean}; under a
colour cast they keep {trained|a colour cast|layer, layer, mean} and
{trained|a colour cast|instance, layer, mean}. The lead of layer norms under a gain by patch is
beyond the spread of these three seeds, but the same seeds on one thread, which rounds otherwise,
gave 0.10 ± 0.15: probable, not shown.
"""


def draw(outcome: Outcome, figure: Any) -> None:
    """Draw what moves the tokens behind each norm, and what each transformer learns and keeps."""
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    rows = (TOKEN, CHANNEL, "an offset", "a colour cast")
    names = ("each token's\nscale, shift", "each channel's\nscale, shift", "an offset\nof light",
             "a colour\ncast")  # fmt: skip
    for number, column in enumerate(("layer", "instance")):
        places = [place + (number - 0.5) * 0.38 for place in range(len(rows))]
        values = [max(outcome.mean("tokens", row, column), 1e-4) for row in rows]
        left.bar(places, values, 0.36, label=f"{column} norm", color=f"C{number}", bottom=0)
    left.set_xticks(range(len(rows)), names, fontsize=8)
    left.set(yscale="log", ylim=(1e-4, 20), title="Change of one clip's tokens")
    left.axhline(0.01, color="0.5", lw=1, ls=":")
    left.legend(frameon=False, fontsize=8, loc="upper center", ncols=2)
    shown = outcome.rows(outcome.study.part("trained"))
    for number, row in enumerate(shown):
        found = [outcome.interval(_trained(row, column)) for column in VITS]
        places = [place + (number - 2) * 0.17 for place in range(len(VITS))]
        right.bar(places, [each.mean for each in found], 0.16, label=row, color=f"C{number}",
                  yerr=[(each.high - each.low) / 2 for each in found])  # fmt: skip
    right.axhline(0.5, color="0.4", lw=1, ls=":")
    right.set_xticks(range(len(VITS)), [kind.replace(", ", ",\n") for kind in VITS], fontsize=8)
    right.set(title="Accuracy (chance 0.5)", ylim=(0.3, 1.3), yticks=[0.4, 0.5, 0.6, 0.8, 1.0])
    right.legend(frameon=False, fontsize=8, loc="upper center", ncols=3)


STUDY = Study(
    name="tokens",
    title="Layer norm and instance norm over patch tokens",
    claim="On patch tokens layer norm takes out each token's own scale and shift, instance norm "
    "those of each channel over all tokens, and so what the look of a clip adds to every token",
    sources=("Ba, Kiros and Hinton (2016)", "Ulyanov, Vedaldi and Lempitsky (2016)",
             "Dosovitskiy and others (2021)", "Liu and others (2022)"),
    tests=TESTS,
    parts=PARTS,
    mutation="layer and instance norm are exchanged.",
    notes=NOTES,
    advice="Replace the norms inside of a transformer over patches, not the last one where a "
    "mean follows: `geonorm.convert(model, layout='BTHWC', where=...)` warns of it where "
    "the mean is a pooling module. Take instance norms where clips differ by an offset or "
    "a channel's scale, layer norms where light differs within the picture, and an "
    "instance norm on the pixels against colour casts.",
    draw=draw,
)
