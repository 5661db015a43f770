"""Instance norm as divisive normalization: contrast, surround, masks, and redundancy."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from math import pi, sqrt
from typing import Any

import torch
from torch import Tensor, nn

from geonorm.norms.batch_norm import BatchNorm
from geonorm.norms.divisive_norm import DivisiveNorm
from geonorm.norms.group_norm import GroupNorm
from geonorm.norms.instance_norm import InstanceNorm
from geonorm.norms.no_norm import NoNorm
from geonorm.studies.clips import drawn_clips, film_clips
from geonorm.studies.outcome import Outcome
from geonorm.studies.study import Part, Quantity, Setting, Study, Test

DIRECTIONS, WIDTH, WAVE = 8, 20, 8  # orientations, reach of a filter and period in pixels
CHANNELS = 2 * DIRECTIONS
CONTRASTS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
HALF = 0.3  # the semi-saturation contrast that is asked for
FIELD, CENTRE = 144, 12  # side of the responses, and radius of the central patch, in pixels
MASKS = (0.16, 0.64)
PROBE = 0.16  # contrast of the grating that is masked
PHASE = 1.0  # of the gratings; a mask has twice that
APART = 6  # pixels between neighbours
EPS = 1e-5

_IN, _SMALL = "instance", "instance, default eps"
_WINDOW, _WIDE = "divisive, window 9", "divisive, window 49"
_WINDOW_ALL, _WIDE_ALL = "divisive, window 9, all channels", "divisive, window 49, all channels"
_ALL, _GROUP = "divisive, all channels", "group(1)"


@lru_cache(maxsize=1)
def gabors() -> Tensor:
    """Return a bank of Gabor filters, even and odd by turns, (16, 1, 41, 41) in float64.

    Each responds with 1 to a grating of its own orientation and phase and of contrast 1.
    """
    reach = torch.arange(-WIDTH, WIDTH + 1, dtype=torch.float64)
    y, x = torch.meshgrid(reach, reach, indexing="ij")
    envelope = (-(x * x + y * y) / (2 * (WAVE / 2) ** 2)).exp()
    bank = []
    for number in range(DIRECTIONS):
        angle = torch.tensor(pi * number / DIRECTIONS, dtype=torch.float64)
        along = 2 * pi / WAVE * (x * angle.cos() + y * angle.sin())
        for carrier in (along.cos(), along.sin()):
            filter_ = envelope * carrier
            filter_ = filter_ - envelope * (filter_.sum() / envelope.sum())  # blind to brightness
            bank.append(filter_ / (filter_ * carrier).sum())
    return torch.stack(bank).unsqueeze(1)


def responses(pictures: Tensor) -> Tensor:
    """Return what the bank says to pictures (B, H, W): (B, 16, H - 40, W - 40)."""
    size, inner = pictures.shape[-2:], [side - 2 * WIDTH for side in pictures.shape[-2:]]
    filters = torch.fft.rfft2(gabors().squeeze(1).to(pictures), s=size).conj()
    out: Tensor = torch.fft.irfft2(torch.fft.rfft2(pictures).unsqueeze(1) * filters, s=size)
    return out[..., : inner[0], : inner[1]]  # where no filter leaves the picture


def grating(phase: float, *, across: bool = False) -> Tensor:
    """Return a grating of contrast 1, (184, 184); across: at a right angle to the first filter."""
    place = torch.arange(FIELD + 2 * WIDTH, dtype=torch.float64) - FIELD / 2 - WIDTH
    wave = (2 * pi / WAVE * place + phase).cos().expand(len(place), -1)
    return wave.T if across else wave


def ring(inner: float, outer: float) -> Tensor:
    """Return 1 between two distances from the middle of the picture, (184, 184)."""
    place = torch.arange(FIELD + 2 * WIDTH, dtype=torch.float64) - FIELD / 2 - WIDTH
    distance = torch.hypot(place[:, None], place[None])
    return ((distance >= inner) & (distance < outer)).double()


def eps_for(contrast: float, *, all_channels: bool = False) -> float:
    """Return the eps with which a grating of this contrast is half way to saturation."""
    out = responses(grating(0.0).unsqueeze(0) * contrast)
    return float(out.var(correction=0) if all_channels else out[:, 0].var(correction=0))


def _norm(name: str, *, mutated: bool = False) -> Callable[[Tensor], Tensor]:
    """Return a norm of the bank's responses; the mutation leaves instance norm its mean alone."""
    if name in (_IN, _SMALL) and mutated:
        return lambda x: x - x.mean((2, 3), keepdim=True)
    one, every = eps_for(HALF), eps_for(HALF, all_channels=True)
    norms: dict[str, Callable[[], nn.Module]] = {
        "none": lambda: NoNorm(CHANNELS),
        "batch": lambda: BatchNorm(CHANNELS, one, affine=False).double(),
        _IN: lambda: InstanceNorm(CHANNELS, one, affine=False),
        _SMALL: lambda: InstanceNorm(CHANNELS, EPS, affine=False),
        _WINDOW: lambda: DivisiveNorm(CHANNELS, one, False, kernel_size=9),
        _WIDE: lambda: DivisiveNorm(CHANNELS, one, False, kernel_size=49),
        _WINDOW_ALL: lambda: DivisiveNorm(CHANNELS, every, False, kernel_size=9, num_groups=1),
        _ALL: lambda: DivisiveNorm(CHANNELS, every, False, kernel_size=None, num_groups=1),
        _WIDE_ALL: lambda: DivisiveNorm(CHANNELS, every, False, kernel_size=49, num_groups=1),
        _GROUP: lambda: GroupNorm(CHANNELS, every, False, num_groups=1),
    }
    return norms[name]()


def _at_centre(out: Tensor) -> Tensor:
    """Return the strength of the first orientation's response in the middle, whatever the phase."""
    middle = out[:, :2, FIELD // 2, FIELD // 2]
    return middle.square().sum(1).sqrt()


def naka_rushton(contrasts: Tensor, response: Tensor) -> tuple[float, float, float]:
    """Fit R cⁿ / (cⁿ + c50ⁿ) and return n, c50 (at most 5) and the share of variance explained."""
    from scipy.optimize import curve_fit

    c, r = contrasts.numpy(), (response / response.max()).numpy()
    start = float(contrasts[(response >= response.max() / 2).nonzero()[0]])

    def law(c: Any, top: float, n: float, half: float) -> Any:
        return top * c**n / (c**n + half**n)

    found, _ = curve_fit(law, c, r, p0=(1.0, 1.5, start), bounds=((0, 0.1, 1e-5), (20, 6, 5)))
    rest = ((r - law(c, *found)) ** 2).sum() / ((r - r.mean()) ** 2).sum()
    return float(found[1]), float(found[2]), float(1 - rest)


def contrast(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure the response to a grating of every contrast, all of them in one batch."""
    levels = torch.tensor(CONTRASTS, dtype=torch.float64)
    bank = responses(grating(PHASE) * levels.view(-1, 1, 1))
    response = _at_centre(_norm(column, mutated=setting.mutated)(bank))
    n, half, explained = naka_rushton(levels, response)
    power, power_half, _ = naka_rushton(levels, response**2)
    # At contrast 1: amplitude in the middle, and deviation over the picture.
    amplitude, sigma = _at_centre(bank)[-1], bank[-1, 0].std(correction=0)
    small = EPS if column == _SMALL else eps_for(HALF)
    form = amplitude * levels / (levels**2 * sigma**2 + small).sqrt()
    values = {f"response to {c:g}": float(r) for c, r in zip(CONTRASTS, response, strict=True)}
    values |= {
        "response to 1 / to 0.5": float(response[-1] / response[CONTRASTS.index(0.5)]),
        "response to 0.01 / to 1": float(response[0] / response[-1]),
        "exponent n": n, "c50": half, "R² of the fit": explained,
        "exponent n, squared response": power, "c50, squared response": power_half,
        "√ε/std": float(sqrt(small) / sigma),
        "squared: c50 / (√ε/std) - 1": float(power_half * sigma / sqrt(small) - 1),
        "largest of |measured / closed form - 1|": float((response / form - 1).abs().max()),
    }  # fmt: skip
    return values


def surround(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure a patch in the middle with a surround, as a share of the response to it alone."""
    same, across = grating(PHASE), grating(2 * PHASE, across=True)
    patch = ring(0, CENTRE)
    near, far = ring(16, 44.9), ring(56, 70)  # of one area
    pictures = torch.stack([patch * same, (patch + near) * same, patch * same + near * across,
                            (patch + far) * same])  # fmt: skip
    response = _at_centre(_norm(column, mutated=setting.mutated)(responses(pictures)))
    shares = (response / response[0]).tolist()[1:]
    return dict(zip(("same orientation, near", "at a right angle, near", "same orientation, far"),
                    shares, strict=True))  # fmt: skip


def masks(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure a grating under another at a right angle, as a share of the response without it."""
    probe, mask = PROBE * grating(PHASE), grating(2 * PHASE, across=True)
    pictures = torch.stack([probe, *(probe + level * mask for level in MASKS)])
    response = _at_centre(_norm(column, mutated=setting.mutated)(responses(pictures)))
    values = {f"under a mask of {level:g}": float(r / response[0])
              for level, r in zip(MASKS, response[1:], strict=True)}  # fmt: skip
    form = {level: sqrt((PROBE**2 + HALF**2) / (PROBE**2 + level**2 + HALF**2)) for level in MASKS}
    values["largest of |measured / closed form - 1|"] = max(
        abs(values[f"under a mask of {level:g}"] / form[level] - 1) for level in MASKS)
    return values


def kurtosis(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Return the fourth moment over the square of the second, which is 3 for normal values."""
    z = x - x.mean(dims, keepdim=True)
    return z.pow(4).mean(dims) / z.square().mean(dims).square()


def likeness(out: Tensor) -> Tensor:
    """Return the correlation of the strengths at places 6 pixels apart, of each frame, channel."""
    one, other = (z - z.mean((2, 3), keepdim=True)
                  for z in (out.abs()[..., :-APART], out.abs()[..., APART:]))  # fmt: skip
    spread = one.square().sum((2, 3)) * other.square().sum((2, 3))
    return (one * other).sum((2, 3)) / spread.sqrt()


def _told(out: Tensor) -> dict[str, float]:
    """Return what is redundant in responses (B, 16, H, W)."""
    return {
        "kurtosis within a frame": float(kurtosis(out, (2, 3)).median()),
        "kurtosis over all frames": float(kurtosis(out, (0, 2, 3)).median()),
        "likeness of neighbours": float(likeness(out).median()),
    }


def _redundancy(column: str, setting: Setting, frames: Tensor) -> Mapping[str, float]:
    bank = responses(frames.double())
    norms: dict[str, Callable[[Tensor], Tensor]] = {
        "none": NoNorm(CHANNELS),
        "batch": BatchNorm(CHANNELS, affine=False).double(),
        _IN: _norm(_SMALL, mutated=setting.mutated),
        _WINDOW: DivisiveNorm(CHANNELS, affine=False, kernel_size=9),
        _WINDOW_ALL: DivisiveNorm(CHANNELS, affine=False, kernel_size=9, num_groups=1),
    }
    before, after = _told(bank), _told(norms[column](bank))
    return after | {f"{row}, share left": after[row] / value for row, value in before.items()}


def actions(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure single frames of the built-in films."""
    clips = drawn_clips(24, 1, 160, seed=300 + setting.seed)[0]
    return _redundancy(column, setting, clips[:, :, 0].mean(1))


def films(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure frames of the user's films."""
    clips = film_clips(setting.recordings.videos[:6], 1, 160, 8)
    return _redundancy(column, setting, clips[:, :, 0].mean(1))


def draw(outcome: Outcome, figure: Any) -> None:
    """Draw the contrast response, what masks and surrounds leave, and the kurtosis."""
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.15, 1, 1))
    shown = ((_IN, "C0", "IN, ε for c50 = 0.3"), (_SMALL, "C1", "IN, ε = 1e-5"),
             ("batch", "0.5", "batch norm"))  # fmt: skip
    for column, colour, label in shown:
        found = [outcome.mean("contrast", f"response to {c:g}", column) for c in CONTRASTS]
        left.plot(CONTRASTS, [value / found[-1] for value in found], "o", color=colour, label=label)
    levels = [10 ** (-2 + n / 50) for n in range(101)]
    top = 1 / sqrt(1 + HALF**2)
    left.plot(levels, [c / sqrt(c * c + HALF**2) / top for c in levels], "k-", lw=1,
              label="c / √(c² + 0.3²)")
    left.set(xscale="log", xlabel="contrast c", title="response, 1 at full contrast",
             ylim=(0, 1.45), yticks=[0, 0.5, 1])  # fmt: skip
    left.legend(frameon=False, fontsize=8, loc="upper left")
    rows = (("surround", "same orientation, near", "surround, near"),
            ("surround", "same orientation, far", "surround, far"),
            ("masks", "under a mask of 0.64", "mask at 90°"))  # fmt: skip
    bars = ((_IN, _IN, "C0", "IN"), (_WIDE, _WINDOW, "C2", "window"),
            (_WIDE_ALL, _WINDOW_ALL, "C3", "window, all channels"))  # fmt: skip
    for number, (near, masked, colour, label) in enumerate(bars):
        middle.bar([place + 0.27 * (number - 1) for place in range(3)],
                   [outcome.mean(part, row, masked if part == "masks" else near)
                    for part, row, _ in rows], 0.25, color=colour, label=label)  # fmt: skip
    middle.axhline(1, color="0.5", lw=1, ls=":")
    middle.set_xticks(range(3), [label.replace(", ", ",\n") for _, _, label in rows], fontsize=8)
    middle.set(title="share of the response left", ylim=(0, 1.6), yticks=[0, 0.5, 1])
    middle.legend(frameon=False, fontsize=8, loc="upper left")
    norms = ("none", _IN, _WINDOW, _WINDOW_ALL)
    names = ("none", "IN", "window", "window,\nall ch.")
    parts = (("actions", "built-in films"), ("films", "real films"))
    for number, (part, label) in enumerate(parts):
        if part in outcome.left_out:
            continue
        right.bar([place + 0.4 * (number - 0.5) for place in range(len(norms))],
                  [outcome.mean(part, "kurtosis within a frame", n) for n in norms], 0.38,
                  color=("C4", "C5")[number], label=label)  # fmt: skip
    right.axhline(3, color="0.5", lw=1, ls=":")
    right.set_xticks(range(len(norms)), names, fontsize=8)
    right.set(title="kurtosis (normal: 3)", yscale="log")
    right.set_yticks([3, 10, 30], ["3", "10", "30"])
    right.minorticks_off()
    right.legend(frameon=False, fontsize=8)


def _cell(part: str, row: str, column: str = _IN) -> Quantity:
    return Quantity(part, row, column)


_REDUNDANCY = ("none", "batch", _IN, _WINDOW, _WINDOW_ALL)
STUDY = Study(
    name="divisive",
    title="Divisive normalization",
    claim="Instance norm is the divisive normalization of the visual cortex: responses saturate "
    "with contrast, are suppressed by their surround and by masks of another orientation, their "
    "gain is controlled locally, and they are less redundant.",
    sources=("Heeger (1992)", "Carandini and Heeger (2012)", "Naka and Rushton (1966)",
             "Albrecht and Hamilton (1982)", "Schwartz and Simoncelli (2001)",
             "Ren, Liao, Urtasun, Sinz and Zemel (2017)"),
    tests=(
        Test("the response saturates: from contrast 0.5 to 1 it grows by less than a half",
             _cell("contrast", "response to 1 / to 0.5"), below=1.5),
        Test("the closed form c/√(c² + ε/std²) tells the response at every contrast to 1%",
             _cell("contrast", "largest of |measured / closed form - 1|"), below=0.01),
        Test("the squared response is Naka and Rushton's law with the exponent 2, to 1%",
             _cell("contrast", "exponent n, squared response"), above=1.98, below=2.02),
        Test("and with c50 = √ε/std, to 1%", _cell("contrast", "squared: c50 / (√ε/std) - 1"),
             above=-0.01, below=0.01),
        Test("with the default eps contrasts are told apart: 0.01 gives less than half of what 1 "
             "gives", _cell("contrast", "response to 0.01 / to 1", _SMALL), below=0.5),
        Test("a near surround of the same orientation takes a fifth of the response or more",
             _cell("surround", "same orientation, near"), below=0.8),
        Test("the gain is local: a far surround takes less than 5%",
             _cell("surround", "same orientation, far"), above=0.95),
        Test("a mask at a right angle, of four times the contrast, takes a fifth or more",
             _cell("masks", "under a mask of 0.64"), below=0.8),
        Test("it does so to divisive norm over all channels",
             _cell("masks", "under a mask of 0.64", _ALL), below=0.8),
        Test("there the closed form √((c² + c50²) / (c² + m² + c50²)) holds to 1%",
             _cell("masks", "largest of |measured / closed form - 1|", _ALL), below=0.01),
        Test("divisive norm in a window leaves 95% beside a far surround",
             _cell("surround", "same orientation, far", _WIDE), above=0.95),
        *(Test(f"{what} {where} falls by a tenth or more", _cell(part, f"{row}, share left"),
               below=0.9)
          for part, where in (("actions", "the built-in films"), ("films", "real films"))
          for row, what in (
              ("kurtosis within a frame", "the kurtosis within a frame of"),
              ("kurtosis over all frames", "the kurtosis over all frames of"),
              ("likeness of neighbours", "the likeness of neighbours in"))),
        *(Test(f"divisive norm in a window lets {what} {where} fall by a tenth or more",
               _cell(part, f"{row}, share left", _WINDOW), below=0.9)
          for part, where in (("actions", "the built-in films"), ("films", "real films"))
          for row, what in (
              ("kurtosis within a frame", "the kurtosis within a frame of"),
              ("likeness of neighbours", "the likeness of neighbours in"))),
    ),
    parts=(
        Part("contrast", "Response (amplitude) to gratings of every contrast in one batch, and "
             "Naka and Rushton's law fitted to it",
             ("none", "batch", _IN, _SMALL, _WINDOW, _ALL, _GROUP), contrast,
             seeded=False),
        Part("surround", "Response to a patch of 24 pixels with a surround beside it, as a share "
             "of the response to the patch alone; both surrounds have one area",
             ("none", _IN, _WINDOW, _WIDE, _WIDE_ALL, _GROUP), surround, seeded=False),
        Part("masks", f"Response to a grating of contrast {PROBE} under a mask at a right angle, "
             "as a share of the response without it",
             ("none", _IN, _WINDOW, _WINDOW_ALL, _ALL, _GROUP), masks, seeded=False),
        Part("actions", "Redundancy of the responses to 24 frames of the built-in films "
             "(kurtosis of normal values: 3)", _REDUNDANCY, actions, long=True),
        Part("films", "The same on frames of films of your own", _REDUNDANCY, films, seeded=False,
             long=True, needs="videos"),
    ),
    mutation="instance norm takes out the mean and divides by nothing.",
    notes="""
A bank of Gabor filters (8 orientations, even and odd) looks at gratings and at frames of films; the
norm works on its 16 channels, as on those of a first convolution.

**What holds.** The response of a channel to a grating of contrast c is c/√(c² + c50²), exactly,
with c50 = √ε/std, where std is the channel's deviation at contrast 1. Its square is Naka and
Rushton's law with the exponent {contrast|exponent n, squared response|instance}; fitted to the
response itself the law has the exponent {contrast|exponent n|instance} and c50
{contrast|c50|instance} (R² {contrast|R² of the fit|instance}; without a norm the fit runs into its
bound, as a straight line has no c50). A surround of the same orientation leaves
{surround|same orientation, near|instance} of the response, one at a right angle
{surround|at a right angle, near|instance}.

**ε sets the contrast response, and the default has none.** At ε = 1e-5 c50 is
{contrast|√ε/std|instance, default eps}: a grating of contrast 0.01 gives
{contrast|response to 0.01 / to 1|instance, default eps} of what one of contrast 1 gives. For a
response to contrast choose ε = (c50 · std)².

**What does not.** The pool is the whole picture: a surround far away
({surround|same orientation, far|instance} left) suppresses like a near one of the same area. The
pool is one channel: a mask of another orientation does nothing
({masks|under a mask of 0.64|instance} left). `DivisiveNorm` with a window has the first
({surround|same orientation, near|divisive, window 49} left beside a near surround,
{surround|same orientation, far|divisive, window 49} beside a far one), and with `num_groups=1` the
second ({masks|under a mask of 0.64|divisive, all channels} left, by the closed form
√((c² + c50²) / (c² + m² + c50²))); `GroupNorm` with one group has it too.

**Redundancy.** Within a recording instance norm is one gain and one offset for each channel, and
kurtosis and correlation do not see these: {actions|kurtosis within a frame, share left|instance} of
a frame's kurtosis is left, exactly all of it. Over all frames together it falls, to
{actions|kurtosis over all frames, share left|instance} on the built-in films, since frames of
different contrast become alike. Within a frame `DivisiveNorm` with a window of 9 leaves
{actions|kurtosis within a frame, share left|divisive, window 9} of the kurtosis, on frames of real
films {films|kurtosis within a frame, share left|divisive, window 9}; neighbours' strengths, 6
pixels apart, become less alike on real films (correlation {films|likeness of neighbours|none}
before, {films|likeness of neighbours|divisive, window 9} after), not on the built-in ones, which
are edges between flat areas ({actions|likeness of neighbours|none},
{actions|likeness of neighbours|divisive, window 9}).
""",
    advice="Where responses should tell contrasts apart, set eps of instance norm to (c50 · "
    "deviation)²: the default saturates below a hundredth. Take `DivisiveNorm` with a window where "
    "contrast varies within a recording or responses should become less redundant, and "
    "`num_groups=1` where channels should compete.",
    draw=draw,
)
