"""Gain and offset: what instance norm takes out of the light, and what it leaves in."""

from collections.abc import Mapping
from functools import lru_cache
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn

from geonorm.models import r3d_18
from geonorm.norms.batch_norm import BatchNorm
from geonorm.norms.instance_norm import InstanceNorm
from geonorm.norms.no_norm import NoNorm
from geonorm.studies.clips import GLIDES, drawn_clips, film_clips
from geonorm.studies.outcome import Outcome
from geonorm.studies.study import Part, Quantity, Setting, Study, Test
from geonorm.studies.training import cross_entropy, fit
from geonorm.training.invariance.table import change as relative_change

GAINS = (1e-3, 1e-2, 0.1, 0.25, 4.0, 1e3)
OFFSETS = (1.0, 100.0, 1e4)
NOISES = (0.01, 0.05, 0.1, 0.2, 0.5)
EPS = 1e-5


def _clips(setting: Setting) -> Tensor:
    return drawn_clips(8, 8, 48, seed=100 + setting.seed)[0]


def _norm(name: str, channels: int = 3, *, mutated: bool = False) -> nn.Module:
    """Return a norm without parameters; the mutation puts batch norm in instance norm's place."""
    if name == "none":
        return NoNorm(channels)
    if name == "batch" or mutated:
        return BatchNorm(channels, affine=False)
    return InstanceNorm(channels, affine=False)


def _changed_first(norm: nn.Module, clips: Tensor, changed: Tensor) -> float:
    """Return how far the first clip's output moves when that clip alone is changed."""
    batch = clips.clone()
    batch[0] = changed[0]
    return relative_change(norm(clips)[0], norm(batch)[0])


def gain(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure gains and offsets in float32, and what follows from eps in float64."""
    clips = _clips(setting)
    if column == "closed form":
        variance = clips[0].double().var((1, 2, 3), correction=0)
        left = variance / (variance + EPS)  # of each channel's output, squared
        after = {a: (a * a * variance + EPS).rsqrt() * a * (variance + EPS).sqrt() for a in GAINS}
        return {f"gain {a:g}": float(((after[a] - 1) ** 2 * left).sum().div(left.sum()).sqrt())
                for a in GAINS}  # fmt: skip
    norm = _norm(column, mutated=setting.mutated)
    values = {f"gain {a:g}": _changed_first(norm, clips, clips * a) for a in GAINS}
    values |= {f"offset {b:g}": _changed_first(norm, clips, clips + b) for b in OFFSETS}
    flipped, out = norm(torch.cat([-clips[:1], clips[1:]]))[0], norm(clips)[0]
    values["gain -1, from -y"] = relative_change(-out, flipped)
    values["gain -1, after ReLU"] = relative_change(out.relu(), flipped.relu())
    return values


def noise(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure additive noise of some shares of each channel's deviation."""
    if column == "closed form":
        return {f"noise {s:g}": sqrt(2 * (1 - 1 / sqrt(1 + s * s))) for s in NOISES}
    clips = _clips(setting).double()
    spread = clips.std((2, 3, 4), correction=0, keepdim=True)
    norm = _norm(column, mutated=setting.mutated).double()
    noisy = {s: clips + s * spread * torch.randn_like(clips) for s in NOISES}
    return {f"noise {s:g}": _changed_first(norm, clips, x) for s, x in noisy.items()}


def camera(clips: Tensor) -> dict[str, Tensor]:
    """Return what a camera does to clips in [0, 1] that is no gain: it rounds, clips and bends."""
    changes = {f"8 bits at gain 1/{k}": (clips / k * 255).round() / 255 for k in (4, 8, 16, 32)}
    changes |= {f"clipped at gain {k}": (clips * k).clamp(max=1) for k in (2, 4, 8)}
    return changes | {f"gamma {g:g}": clips**g for g in (0.5, 2.0)}


def bent(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure what is no gain."""
    clips, norm = _clips(setting), _norm(column, mutated=setting.mutated)
    return {name: _changed_first(norm, clips, x) for name, x in camera(clips).items()}


def filmed(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure the same on films of the user's, with one gain and one offset beside it."""
    clips = film_clips(setting.recordings.videos[:3], 8, 64, 2)
    norm = _norm(column, mutated=setting.mutated)
    changes = {"gain 4": clips * 4, "offset 1": clips + 1, **camera(clips)}
    return {name: _changed_first(norm, clips, x) for name, x in changes.items()}


def _cast(clips: Tensor) -> Tensor:
    """Return clips in a warm light: the gain of each colour differs."""
    return clips * clips.new_tensor([1.0, 0.7, 0.4]).view(3, 1, 1, 1)


def network(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure the logits of 3D-ResNets with random weights under a gain and under a cast."""
    clips = _clips(setting)[:4]
    inner, _, given = column.partition(", input ")
    inner = "batch" if setting.mutated else inner
    model: nn.Module = r3d_18(num_classes=12, norm=inner)
    if given:
        model = nn.Sequential(_norm(given, mutated=setting.mutated), model)
    model.train()  # batch norm by the batch: in evaluation it lets every gain through

    def moved(changed: Tensor) -> float:
        batch = clips.clone()
        batch[0] = changed[0]
        return relative_change(model(clips)[0], model(batch)[0])

    with torch.no_grad():
        return {"gain 0.3 on all channels": moved(clips * 0.3),
                "a colour cast": moved(_cast(clips))}  # fmt: skip


def scan(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure the logits of MinkUNet14A under a gain of a scan's intensity alone, and of all."""
    import MinkowskiEngine as ME

    from geonorm.datasets.voxelize import collate_scans
    from geonorm.models import MinkUNet14A

    batch = collate_scans([setting.recordings.read_scan()], 0.2)
    x = batch.features
    model = MinkUNet14A(x.shape[1], 19, norm="batch" if setting.mutated else "instance").train()
    own = _norm("instance", x.shape[1], mutated=setting.mutated)

    def logits(features: Tensor) -> Tensor:
        rows = ME.SparseTensor(features, batch.coordinates)
        out: Tensor = model(own(rows) if column.endswith("input instance") else rows).F
        return out

    intensity = torch.ones(x.shape[1])
    intensity[-1] = 0.3
    with torch.no_grad():
        before = logits(x)
        return {"gain 0.3 of the intensity": relative_change(before, logits(x * intensity)),
                "gain 1.5 on all channels": relative_change(before, logits(x * 1.5))}  # fmt: skip


class Classifier(nn.Module):
    """Three convolutions of the frames' differences, edges repeated, each with a norm; a mean.

    Of the frames themselves neither batch norm nor no norm learns motion in so few steps.
    """

    def __init__(self, norm: str, classes: int = len(GLIDES), width: int = 12) -> None:
        super().__init__()
        make = {"none": NoNorm, "batch": BatchNorm, "instance": InstanceNorm}[norm]
        layers: list[nn.Module] = []
        for inputs, outputs, stride in ((3, width, (1, 2, 2)), (width, 2 * width, 2),
                                        (2 * width, 2 * width, 1)):  # fmt: skip
            layers += [nn.Conv3d(inputs, outputs, 3, stride, 1, padding_mode="replicate"),
                       make(outputs), nn.ReLU()]  # fmt: skip
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, clips: Tensor) -> Tensor:
        """Return the logits of clips (B, 3, T, H, W)."""
        logits: Tensor = self.head(self.layers(clips.diff(dim=2)).mean((2, 3, 4)))
        return logits


def night(clips: Tensor, generator: torch.Generator, *, gain: float = 0.05) -> Tensor:
    """Return clips as a camera sees them by night: little light, photon noise, 8 bits.

    Args:
        clips: (…) in [0, 1].
        generator: draws the photons.
        gain: share of the day's light. A full pixel holds 4,000 photons.
    """
    photons = torch.poisson(clips * gain * 4000, generator=generator)
    return (photons / 4000 * 255).round().clamp(0, 255) / 255


@lru_cache(maxsize=4)
def _by_day(seed: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return clips to train on and clips to test on."""
    return drawn_clips(480, 6, 32, seed=1000 + seed), drawn_clips(240, 6, 32, seed=2000 + seed)


def trained(column: str, setting: Setting) -> Mapping[str, float]:
    """Train by day, and test by day, under a tenth of the light, and by night."""
    (clips, labels), (unseen, classes) = _by_day(setting.seed)
    generator = torch.Generator().manual_seed(setting.seed)

    def draw() -> tuple[Tensor, Tensor]:
        rows = torch.randint(len(clips), (24,), generator=generator)
        return clips[rows], labels[rows]

    model: nn.Module = Classifier("batch" if setting.mutated and column == "instance" else column)
    model = fit(model, draw, cross_entropy, steps=200)

    def accuracy(seen: Tensor) -> float:
        with torch.no_grad():
            return float((model(seen).argmax(1) == classes).float().mean())

    by_day, by_night = accuracy(unseen), accuracy(night(unseen, generator))
    dim = accuracy(unseen * 0.1)
    return {"day": by_day, "a tenth of the light, nothing else": dim, "night": by_night,
            "lost at night": by_day - by_night}  # fmt: skip


def draw(outcome: Outcome, figure: Any) -> None:
    """Draw the change over the gain with its closed form, what is no gain, and the accuracies."""
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1.1, 1))
    rows = [f"gain {a:g}" for a in GAINS]
    left.plot(GAINS, [outcome.mean("gain", row, "instance") for row in rows], "o", label="instance")
    left.plot(GAINS, [outcome.mean("gain", row, "closed form") for row in rows], "k-", lw=1,
              label="closed form in ε")
    left.plot(GAINS, [outcome.mean("gain", row, "batch") for row in rows], "x", color="tab:red",
              label="batch")
    left.set(xscale="log", yscale="log", xlabel="gain of one clip", ylim=(1e-5, 1e3),
             title="change of that clip's output")
    left.legend(frameon=False, fontsize=8)
    names = outcome.rows(outcome.study.part("camera"))
    middle.barh(names[::-1], [outcome.mean("camera", row, "instance") for row in names[::-1]])
    middle.set(title="what is no gain: change under IN", xlim=(0, 1.2))
    columns = ("none", "batch", "instance")
    shown = ("day", "a tenth of the light, nothing else", "night")
    for number, row in enumerate(shown):
        found = [outcome.interval(Quantity("trained", row, column)) for column in columns]
        places = [place + 0.27 * (number - 1) for place in range(3)]
        right.bar(places, [i.mean for i in found], 0.25, label=row.partition(",")[0],
                  yerr=[(i.high - i.low) / 2 for i in found], color=f"C{number}")
    right.axhline(0.25, color="0.5", lw=1, ls=":")
    right.set_xticks(range(3), columns)
    right.set(title="accuracy, trained by day", ylim=(0, 1.35), yticks=[0, 0.25, 0.5, 0.75, 1])
    right.legend(frameon=False, fontsize=8, loc="upper left")


def closed_forms(column: str, setting: Setting) -> Mapping[str, float]:
    """Return how far the measured change is from its closed form, the worst of all, in float64."""
    clips = _clips(setting).double()
    norm = _norm("instance", mutated=setting.mutated).double()
    if column == "gain":
        forms = gain("closed form", setting)
        found = {f"gain {a:g}": _changed_first(norm, clips, clips * a) for a in GAINS}
    else:
        forms = noise("closed form", setting)
        spread = clips.std((2, 3, 4), correction=0, keepdim=True)
        added = spread * torch.randn_like(clips)
        out = norm(clips)
        found = {f"noise {s:g}": relative_change(out, norm(clips + s * added)) for s in NOISES}
    return {"largest of |measured / closed form - 1|":
            max(abs(found[row] / form - 1) for row, form in forms.items())}  # fmt: skip


_IN = "instance"
STUDY = Study(
    name="affine",
    title="Gain and offset",
    claim="Instance norm makes a network invariant to the gain and the offset of its input, and so "
    "to the change from day to night.",
    sources=("Ulyanov, Vedaldi and Lempitsky (2016)", "Huang and Belongie (2017)",
             "Pan, Luo, Shi and Tang (2018)"),
    tests=(
        *(Test(f"a gain of {a:g} leaves the output as it is, to 1%",
               Quantity("gain", f"gain {a:g}", _IN), below=0.01) for a in (1e-3, 0.1, 4.0, 1e3)),
        *(Test(f"an offset of {b:,.0f} leaves the output as it is, to 1%",
               Quantity("gain", f"offset {b:g}", _IN), below=0.01) for b in (1.0, 1e4)),
        Test("a gain of -1 flips the sign and does nothing else",
             Quantity("gain", "gain -1, from -y", _IN), below=1e-6),
        Test("after a ReLU a gain of -1 leaves the output as it is, to 1%",
             Quantity("gain", "gain -1, after ReLU", _IN), below=0.01),
        *(Test(f"the closed form tells the change under any {what} to 1%",
               Quantity("forms", "largest of |measured / closed form - 1|", what), below=0.01)
          for what in ("gain", "noise")),
        Test("light of 1/32 and 8 bits leave the output as it is, to 1%",
             Quantity("camera", "8 bits at gain 1/32", _IN), below=0.01),
        Test("a network of instance norms keeps its logits under a gain on all channels, to 1%",
             Quantity("network", "gain 0.3 on all channels", _IN), below=0.01),
        Test("a network of instance norms keeps its logits under a colour cast, to 1%",
             Quantity("network", "a colour cast", _IN), below=0.01),
        Test("with an instance norm on its input as well it keeps them, to 1%",
             Quantity("network", "a colour cast", "instance, input instance"), below=0.01),
        *(Test(f"by day {norm} norm learns the task: 80% right", Quantity("trained", "day", norm),
               above=0.8) for norm in ("batch", _IN)),
        Test("trained by day, instance norm loses less at night than batch norm",
             Quantity("trained", "lost at night", "batch"), above=0.0,
             minus=Quantity("trained", "lost at night", _IN)),
        Test("trained by day, it loses less than 5% of its accuracy at night",
             Quantity("trained", "lost at night", _IN), below=0.05),
    ),
    parts=(
        Part("gain", "Change of a clip's output (relative, float32) when the gain or the offset of "
             "that clip alone changes, in a batch of 8", ("none", "batch", _IN, "closed form"),
             gain),
        Part("forms", "Distance in float64 from the closed forms", ("gain", "noise"), closed_forms),
        Part("noise", "Change under additive noise, in shares of each channel's deviation",
             ("none", "batch", _IN, "closed form"), noise, variants=()),
        Part("camera", "Change under what a camera does that is no gain", ("none", "batch", _IN),
             bent),
        Part("films", "The same on films of your own", ("none", "batch", _IN), filmed,
             seeded=False, needs="videos", variants=()),
        Part("network", "Change of the logits of an r3d_18 with random weights",
             (_IN, "instance, input instance", "batch"), network),
        Part("scan", "Change of the logits of a MinkUNet14A with random weights on a scan of your "
             "own", (_IN, "instance, input instance"), scan, needs="scan", variants=()),
        Part("trained", "Accuracy of a small 3D network in telling four directions of motion "
             "(chance 0.25)", ("none", "batch", _IN), trained, long=True, most_seeds=3),
    ),
    mutation="batch norm (by the batch's statistics while training) in instance norm's place.",
    notes="""
A clip's gain and offset do leave the output of instance norm as it is, as long as the clip's
contrast is large against the root of eps: at a gain of 4 it moves by {gain|gain 4|instance}, at 0.1
by {gain|gain 0.1|instance}, but at 0.001 by {gain|gain 0.001|instance}, since eps = 1e-5 is then as
large as the variance v. The closed form a √((v + eps) / (a² v + eps)) - 1 tells all of these. An
offset of 10,000 costs rounding in float32: {gain|offset 10000|instance}.

What a light or a camera does beside that is not taken out. A negative gain flips the sign, which a
ReLU then shows ({gain|gain -1, after ReLU|instance}). Noise of the share s of the deviation passes
by its own closed form, √(2 (1 - 1/√(1 + s²))). Darkened to 1/32 and rounded to 8 bits, a clip's
output moves by {camera|8 bits at gain 1/32|instance}; overexposed by a factor of 4, by
{camera|clipped at gain 4|instance}.

**Instance norms inside a network do not take out a gain that differs between channels.** The first
convolution mixes the channels before anything is normalized: a colour cast moves the logits of an
r3d_18 with random weights by {network|a colour cast|instance}. With one more instance norm on the
input it is {network|a colour cast|instance, input instance}. The same goes for a scan's intensity
beside its coordinates.

By night (5% of the light, photon noise, 8 bits) a network trained by day keeps
{trained|night|instance} of {trained|day|instance} with instance norm, {trained|night|batch} of
{trained|day|batch} with batch norm and {trained|night|none} of {trained|day|none} with none.
""",
    advice="Put an instance norm on the input where single channels may change by themselves "
    "(colour casts, a sensor's intensity): norms inside the network do not undo that. Scale the "
    "input so that its deviation is far above the root of eps. Do not expect help against noise, "
    "clipping or gamma.",
    draw=draw,
)
