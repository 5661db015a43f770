"""Video: what norms over T·H·W, over H·W and over T take out of a clip, and what they keep."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from geonorm.norms.axis_instance_norm import SpatioTemporalInstanceNorm
from geonorm.norms.batch_norm import BatchNorm
from geonorm.norms.no_norm import NoNorm
from geonorm.studies.clips import drawn_clips, film_clips
from geonorm.studies.outcome import Outcome
from geonorm.studies.probes import FLOOR, accuracy
from geonorm.studies.study import Part, Quantity, Setting, Study, Test
from geonorm.training.invariance.table import change as relative_change

CLIPS, FRAMES, SIDE = 480, 8, 32
NORMS = ("none", "batch", "THW", "HW", "T")
EXPOSURES = (0.4, 1.0)
CASTS = ((1.0, 0.6, 0.4), (0.6, 1.0, 0.6), (0.4, 0.6, 1.0))
JITTER = 0.1  # deviation of the logarithm of each clip's gain within its class
RIPPLE = 0.15  # half the height of the still bars
NOISE = 0.02  # of the camera, in shares of its full scale
CHANCE = {"exposure": 1 / 2, "cast": 1 / 3, "layout": 1 / 2, "motion": 1 / 4}
SHARES = ("layout", "flicker", "motion")


class Scenes(NamedTuple):
    """Clips of moving shapes and what was drawn for each.

    Args:
        clips: (N, 3, T, H, W); the light is linear, nothing is clipped.
        labels: classes (N,) of "exposure", "cast", "layout" (bars upright or flat) and "motion".
    """

    clips: Tensor
    labels: dict[str, Tensor]


def scenes(count: int, setting: Setting) -> Scenes:
    """Return glides in four directions under random still bars, exposures and casts."""
    clips, motion = drawn_clips(count, FRAMES, SIDE, seed=500 + setting.seed)
    labels = {"exposure": torch.randint(2, (count,)), "cast": torch.randint(3, (count,)),
              "layout": torch.randint(2, (count,)), "motion": motion}  # fmt: skip
    place = torch.arange(SIDE) / SIDE
    waves = (8 + 8 * torch.rand(count, 1)) * place + torch.rand(count, 1) * 2 * torch.pi
    bars = RIPPLE * waves.sin().view(count, 1, 1, 1, SIDE).expand(-1, 1, 1, SIDE, -1)
    upright = (labels["layout"] == 0).view(-1, 1, 1, 1, 1)
    still = clips + torch.where(upright, bars, bars.transpose(3, 4))
    gain = torch.tensor(EXPOSURES)[labels["exposure"]] * (JITTER * torch.randn(count)).exp()
    colour = torch.tensor(CASTS)[labels["cast"]]
    return Scenes(still * (gain[:, None] * colour).view(count, 3, 1, 1, 1), labels)


def norm(name: str, setting: Setting) -> nn.Module:
    """Return a norm by its name; the mutation puts batch norm in the place of T·H·W."""
    if name == "none":
        return NoNorm(3)
    if name == "batch" or (name == "THW" and setting.mutated):
        return BatchNorm(3, affine=False)
    return SpatioTemporalInstanceNorm(3, affine=False, axes=name)


def changes(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure how far the first clip's output moves, of eight, when that clip alone is changed."""
    clips = drawn_clips(8, FRAMES, SIDE, seed=400 + setting.seed)[0].double()
    layer = norm(column, setting).double()
    before = layer(clips)[0]

    def moved(first: Tensor) -> float:
        return relative_change(before, layer(torch.cat([first[None], clips[1:]]))[0])

    first, rise = clips[0], torch.linspace(0.5, 1.5, FRAMES, dtype=torch.float64)
    cast = torch.tensor(CASTS[0], dtype=torch.float64)
    picture = torch.rand(3, 1, SIDE, SIDE, dtype=torch.float64)
    return {
        "twice the exposure": moved(first * 2),
        "a colour cast": moved(first * cast.view(3, 1, 1, 1)),
        "an offset": moved(first + 0.5),
        "flicker (a gain by frame)": moved(first * rise.view(1, FRAMES, 1, 1)),
        "a still picture added": moved(first + picture),
        "a still shade (a gain by place)": moved(first * (0.5 + picture)),
    }


def shares(clips: Tensor) -> Tensor:
    """Return each clip's shares of variance over T, H, W: still layout, flicker, motion, (N, 3).

    The three are the mean over time, the mean over each frame, and what neither explains; they are
    orthogonal. Each is a mean over channels, weighted by their variance.
    """
    x = clips.double()
    x = x - x.mean((2, 3, 4), keepdim=True)
    layout, flicker = x.mean(2, keepdim=True), x.mean((3, 4), keepdim=True)
    powers = [part.square().mean((2, 3, 4)).sum(1) for part in (layout, flicker)]
    powers.append((x - layout - flicker).square().mean((2, 3, 4)).sum(1))
    return torch.stack(powers, 1) / x.square().mean((2, 3, 4)).sum(1, keepdim=True)


def of_drawn(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure a share of the variance of the built-in actions' clips."""
    clips = drawn_clips(96, FRAMES, SIDE, seed=400 + setting.seed)[0]
    return {"built-in actions": float(shares(clips)[:, SHARES.index(column)].mean())}


def of_films(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure a share of the variance of clips of 16 frames, four from each film."""
    return {film_name(path): float(shares(film_clips((path,), 16, 64, 4))
                                   [:, SHARES.index(column)].mean())
            for path in setting.recordings.videos}  # fmt: skip


def film_name(path: Path) -> str:
    """Return what a film's row is called."""
    return path.stem


def statistics(clips: Tensor) -> Tensor:
    """Return what a linear reader is given of each clip, nine statistics of each channel, (N, 27).

    Mean and mean square; the squared slopes of the mean over time along both axes, which show its
    layout; those of the whole clip along all three; and the products of the slope in time with
    those in space, whose signs tell where things go.
    """
    still = clips.mean(2, keepdim=True)
    x, y, t = (clips.roll(-1, axis) - clips for axis in (4, 3, 2))
    x, y, t = (slope[:, :, :-1, :-1, :-1] for slope in (x, y, t))
    flat, upright = (still.diff(dim=axis).square() for axis in (3, 4))
    values = (clips, clips.square(), flat, upright, x.square(), y.square(), t.square(), t * x,
              t * y)  # fmt: skip
    return torch.cat([value.mean((2, 3, 4)) for value in values], 1)


def probed(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure what a linear reader finds behind a norm."""
    clips, labels = scenes(CLIPS, setting)
    return read_behind(column, clips, labels, setting)


def recorded(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure the same on clips that a noisy camera of 8 bits recorded, clipped to its scale."""
    clips, labels = scenes(CLIPS, setting)
    seen = ((clips + NOISE * torch.randn_like(clips)).clamp(0, 1) * 255).round() / 255
    return read_behind(column, seen, labels, setting)


def read_behind(
    column: str, clips: Tensor, labels: dict[str, Tensor], setting: Setting
) -> dict[str, float]:
    """Return the accuracy of each class, and of the light's without a noise floor."""
    inputs = (clips - clips.mean()) / clips.std()  # by the data set, as training pipelines do
    features = statistics(norm(column, setting)(inputs))
    values = {what: accuracy(features, label, FLOOR) for what, label in labels.items()}
    return values | {f"{what}, no floor": accuracy(features, labels[what], 0.0)
                     for what in ("exposure", "cast")}  # fmt: skip


def _left(what: str, column: str = "THW", part: str = "probes") -> Quantity:
    return Quantity(part, what, column)


def _kept(says: str, what: str, column: str, other: str) -> Test:
    """State that a column reads a class as well as another one, but for five points."""
    return Test(says, _left(what, column), above=-0.05, minus=_left(what, other))


EXACT = {"THW": ("twice the exposure", "a colour cast", "an offset"),
         "HW": ("twice the exposure", "a colour cast", "an offset", "flicker (a gain by frame)"),
         "T": ("an offset", "a still picture added")}  # fmt: skip
TESTS = (
    *(Test(f"{what} leaves the output of a norm over {axes} as it is, to 1%",
           Quantity("changes", what, axes), below=0.01)
      for axes, rows in EXACT.items() for what in rows),
    Test("flicker passes a norm over THW", _left("flicker (a gain by frame)", part="changes"),
         above=0.1),
    Test("a still picture passes a norm over THW", _left("a still picture added", part="changes"),
         above=0.1),
    Test("as worded: the deviation that a norm over THW divides by is mostly motion's",
         Quantity("variance", "built-in actions", "motion"), above=0.5),
    Test("exposure goes to chance under THW", _left("exposure"), below=CHANCE["exposure"] + 0.1),
    Test("so does a colour cast", _left("cast"), below=CHANCE["cast"] + 0.1),
    Test("exposure is read better behind batch norm", _left("exposure", "batch"), above=0.2,
         minus=_left("exposure")),
    _kept("motion stays under THW", "motion", "THW", "none"),
    Test("as worded: layout goes to chance under THW", _left("layout"),
         below=CHANCE["layout"] + 0.1),
    Test("layout goes to chance under T", _left("layout", "T"), below=CHANCE["layout"] + 0.1),
    Test("T has its price in motion: THW shows more of it", _left("motion"), above=0.0,
         minus=_left("motion", "T")),
    Test("exposure goes to chance under THW on a noisy camera's clips",
         _left("exposure", part="recorded"), below=CHANCE["exposure"] + 0.1),
    Test("T has its price in motion on a noisy camera's clips",
         _left("motion", part="recorded"), above=0.0, minus=_left("motion", "T", "recorded")),
)  # fmt: skip

PARTS = (
    Part("changes", "Change of a clip's output (relative) when that clip alone is changed, in a "
         "batch of 8", NORMS, changes),
    Part("variance", "Share of a clip's variance over T, H and W: a still layout, flicker (frames' "
         "means) and motion (the rest)", SHARES, of_drawn, variants=()),
    Part("films", "The same of films of your own, clips of 16 frames", SHARES, of_films,
         seeded=False, needs="videos", variants=()),
    Part("probes", "Accuracy of a linear reader of 27 statistics of the pixels, behind a noise "
         "floor of 1%, on held-out clips", NORMS, probed, long=True),
    Part("recorded", "The same on the clips of an 8-bit camera with noise of 2% of its scale",
         NORMS, recorded, long=True, variants=()),
)  # fmt: skip

NOTES = """
**What was done.** Clips of shapes that glide in four directions get still bars (upright or flat),
one of two exposures and one of three colour casts, each drawn by itself, and are scaled by the data
set's mean and deviation as training pipelines do. A linear reader then tells all four from 27
statistics of the pixels behind one norm, on clips it has not seen.

**Light goes, motion stays.** Over T·H·W exposure is read from {probes|exposure|THW} of the clips
(chance 0.5; behind batch norm {probes|exposure|batch}) and the cast from {probes|cast|THW} (chance
0.33; {probes|cast|batch}). Motion is read from {probes|motion|THW} (chance 0.25), against
{probes|motion|none} without a norm: with the light gone the rest is easier to read.

**The trap.** Without a noise floor the same reader finds exposure in
{probes|exposure, no floor|THW} of the clips behind the norm over T·H·W: eps leaves a thousandth of
it, and a reader that scales its inputs sees that. The floor here is 1% of the statistics.

**Layout is no baseline that goes.** What T·H·W takes out is one number per clip and channel. A
still picture stays in full (read from {probes|layout|THW} of the clips), and is most of what the
norm divides by: {variance|built-in actions|layout} of the variance of the built-in clips, where
motion is {variance|built-in actions|motion}, and more in real ones (see the table of films). So the
deviation is not the energy of the motion, but the contrast of the scenery.

**A noisy camera gives the exposure away.** Its noise does not grow with the light, so a dark clip
that is brought to unit deviation is a noisy one. With 2% of noise and 8 bits exposure is read from
{recorded|exposure|THW} of the clips behind T·H·W, as well as without a norm
({recorded|exposure|none}). Invariance to a gain is not invariance to what a sensor makes of less
light.

**Over T alone layout goes** ({probes|layout|T}, chance 0.5). In clean clips that costs no motion
({probes|motion|T}): what stands still is exactly constant and becomes zero. A real place where
nothing moves is divided by the camera's own noise, and with 2% of noise motion is read from
{recorded|motion|T} of the clips behind T, from {recorded|motion|THW} behind T·H·W: a price, but a
small one for this reader.
"""


def draw(outcome: Outcome, figure: Any) -> None:
    """Draw what is read behind each norm, and what a clip's variance consists of."""
    left, right = figure.subplots(1, 2, width_ratios=(1.7, 1))
    for number, (what, chance) in enumerate(CHANCE.items()):
        found = [outcome.interval(_left(what, column)) for column in NORMS]
        places = [place + (number - 1.5) * 0.2 for place in range(len(NORMS))]
        above = [(each.mean - chance) / (1 - chance) for each in found]
        half = [(each.high - each.low) / 2 / (1 - chance) for each in found]
        left.bar(places, above, 0.19, yerr=half, label=what, color=f"C{number}")
    left.axhline(0, color="0.4", lw=1)
    left.set_xticks(range(len(NORMS)), NORMS)
    left.set(title="Read behind one norm (0: chance, 1: always)", ylim=(-0.1, 1.2),
             yticks=[0, 0.25, 0.5, 0.75, 1])
    left.legend(ncols=4, frameon=False, fontsize=8, loc="upper center")
    clips = [("variance", "built-in actions")] + [
        ("films", row) for row in outcome.rows(outcome.study.part("films"))]  # fmt: skip
    bottom = [0.0] * len(clips)
    for share, colour in zip(SHARES, ("C2", "0.6", "C3"), strict=True):
        values = [outcome.mean(part, row, share) for part, row in clips]
        right.bar(range(len(clips)), values, bottom=bottom, label=share, color=colour)
        bottom = [a + b for a, b in zip(bottom, values, strict=True)]
    names = [row.removeprefix("v_").partition("_")[0].replace("built-in actions", "built-in")
             for _, row in clips]  # fmt: skip
    right.set_xticks(range(len(clips)), names, rotation=20, ha="right", fontsize=8)
    right.set(title="Shares of a clip's variance", ylim=(0, 1.2), yticks=[0, 0.25, 0.5, 0.75, 1])
    right.legend(ncols=3, frameon=False, fontsize=8, loc="upper center")


STUDY = Study(
    name="video",
    title="Appearance and motion of a clip",
    claim="Instance norm over T·H·W takes a clip's baseline of appearance (exposure, colour cast, "
    "layout) out, divides by the energy of its motion, and keeps the motion",
    sources=("Ulyanov, Vedaldi and Lempitsky (2016)", "Simonyan and Zisserman (2014)"),
    tests=TESTS,
    parts=PARTS,
    mutation="batch norm (by the batch's statistics) in the place of the norm over T·H·W.",
    notes=NOTES,
    advice="Take T·H·W (`SpatioTemporalInstanceNorm(C)`) against a change of light that lasts for "
    "the clip, H·W where it flickers, T against still scenery. None of them hides exposure "
    "from a network that reads the noise: add noise of random size in training where that "
    "matters.",
    draw=draw,
)
