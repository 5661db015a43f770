"""Instance norm of the logarithm as Retinex: which light it takes out, and what else."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from math import exp, pi
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geonorm.inputs import read
from geonorm.norms.batch_norm import BatchNorm
from geonorm.norms.instance_norm import InstanceNorm
from geonorm.norms.no_norm import NoNorm
from geonorm.norms.retinex_norm import RetinexNorm
from geonorm.studies.clips import drawn_clips, film_clips
from geonorm.studies.outcome import Outcome
from geonorm.studies.study import Part, Quantity, Setting, Study, Test
from geonorm.training.invariance.table import change as relative_change

SIDE = 128  # of a frame, in pixels
CYCLES = {"half a cycle": 0.5, "1 cycle": 1.0, "2 cycles": 2.0, "4 cycles": 4.0, "8 cycles": 8.0,
          "16 cycles": 16.0}  # fmt: skip
LIGHTS = ("constant", "slope", *CYCLES)
SMALL, STRONG = 0.005, 0.5  # standard deviation of a light's logarithm; a constant one is this high
FLOOR = 1e-6
VOXEL = 0.2  # metres
STREETS = 3

_LOG, _IN, _INL = "none, log", "instance", "instance, log"
_ONE, _MANY = "Retinex 15", "Retinex 4, 12, 40"
_NEAR, _NEARS = "Retinex 2 m", "Retinex 1, 4, 12 m"
SCALES = {_ONE: (15.0,), _MANY: (4.0, 12.0, 40.0),
          _NEAR: (2 / VOXEL,), _NEARS: (1 / VOXEL, 4 / VOXEL, 12 / VOXEL)}  # fmt: skip


class Log(nn.Module):
    """A norm of the logarithm of what it is given."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Any) -> Any:
        """Return norm(log(x + floor)), of the kind that x is."""
        given = read(x)
        return self.norm(given.rebuild((given.features + FLOOR).log()))


def _norm(name: str, channels: int, *, mutated: bool = False) -> nn.Module:
    """Return a norm without parameters; the mutation takes nothing out of the logarithm."""
    if mutated and name != _LOG:
        return RetinexNorm(channels, affine=False, surround=None, floor=FLOOR)
    if name in SCALES:
        return RetinexNorm(channels, affine=False, surround=SCALES[name], floor=FLOOR)
    norms: dict[str, Callable[[], nn.Module]] = {
        _LOG: lambda: Log(NoNorm(channels)),
        "batch, log": lambda: Log(BatchNorm(channels, affine=False).double()),
        _IN: lambda: InstanceNorm(channels, affine=False),
        _INL: lambda: Log(InstanceNorm(channels, affine=False)),
    }
    return norms[name]()


def light(name: str, generator: torch.Generator, side: int = SIDE) -> Tensor:
    """Return the logarithm of a light over a picture, (side, side) in float64.

    Its mean is 0 and its deviation 1, in a direction and a phase that are drawn; a constant light
    is 1 everywhere.
    """
    if name == "constant":
        return torch.ones(side, side, dtype=torch.float64)
    angle, phase = (2 * pi * torch.rand(2, generator=generator, dtype=torch.float64)).unbind()
    place = (torch.arange(side, dtype=torch.float64) + 0.5) / side - 0.5
    along = angle.cos() * place + angle.sin() * place[:, None]
    field = along if name == "slope" else (2 * pi * CYCLES[name] * along + phase).cos()
    return (field - field.mean()) / field.std(correction=0)


def as_reflectance(frames: Tensor) -> Tensor:
    """Return bytes' values in [0, 1] as reflectances: linear, and none below 2%."""
    return 0.02 + 0.98 * frames.double() ** 2.2


def _lit(pictures: Tensor, field: Tensor) -> Tensor:
    """Return pictures of which the first is under a light, given as its logarithm."""
    return torch.cat([pictures[:1] * field.exp(), pictures[1:]])


def likeness(one: Tensor, other: Tensor) -> float:
    """Return the correlation of two pictures (C, …) within their channels, the mean over these."""
    one, other = (z.flatten(1) - z.flatten(1).mean(1, keepdim=True) for z in (one, other))
    return float(F.cosine_similarity(one, other, dim=1).mean())


def _each_light(
    setting: Setting, pictures: Tensor,
    prepare: Callable[[Tensor], Callable[[Tensor, str], Mapping[str, float]]],
) -> dict[str, float]:
    """Return means over pictures, each first in its batch, of all that is measured of a light.

    Args:
        setting: its seed draws the lights.
        pictures: (B, C, H, W).
        prepare: returns for a batch what is to be measured of a light and its name.
    """
    drawn = [torch.Generator().manual_seed(1000 * setting.seed + n) for n in range(len(LIGHTS))]
    values: dict[str, list[float]] = {}
    for first in range(len(pictures)):
        measure = prepare(pictures.roll(-first, 0))
        for name, generator in zip(LIGHTS, drawn, strict=True):
            for row, value in measure(light(name, generator), name).items():
                values.setdefault(row, []).append(value)
    return {row: float(np.mean(found)) for row, found in values.items()}


def _drawn(setting: Setting) -> Tensor:
    return as_reflectance(drawn_clips(4, 1, SIDE, seed=500 + setting.seed)[0][:, :, 0])


def left(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure the share of a small light's logarithm that a norm's output still holds.

    It is the change of the output in units of the logarithm, whose deviation the norm divides by.
    """
    inner = _norm(column, 3, mutated=setting.mutated)

    def prepare(batch: Tensor) -> Callable[[Tensor, str], dict[str, float]]:
        before = inner(batch)[0]
        units = _deviation(column, batch[0], mutated=setting.mutated).view(-1, 1, 1)

        def share(field: Tensor, name: str) -> dict[str, float]:
            change = (inner(_lit(batch, SMALL * field))[0] - before) * units
            found = float((change.square().mean((1, 2)).sqrt() / SMALL).mean())
            values = {name: found}
            if column == _INL and name != "constant":
                form = _unlike(batch[0], field)
                values |= {f"closed form, {name}": form, f"{name}, / closed form": found / form}
            return values

        return share

    return _each_light(setting, _drawn(setting), prepare)


def _deviation(column: str, picture: Tensor, *, mutated: bool) -> Tensor:
    """Return the deviation, of each channel, by which a norm divides the logarithm, (C,)."""
    z = (picture + FLOOR).log().unsqueeze(0)
    if column in SCALES and not mutated:
        z = RetinexNorm(3, affine=False, surround=SCALES[column], contrast=False, floor=FLOOR)(
            picture.unsqueeze(0))
    elif column == _LOG:
        return torch.ones(3, dtype=torch.float64)
    return (z.var((0, 2, 3), correction=0) + 1e-5).sqrt()


def _unlike(picture: Tensor, field: Tensor) -> float:
    """Return √(1 - r²) of the logarithms of a light and a picture, the mean over channels."""
    found = [1 - likeness(channel[None], field[None]) ** 2 for channel in (picture + FLOOR).log()]
    return float(np.mean(np.sqrt(found)))


def constant(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure constant lights over a sensor with a floor, and what a lower floor gives instead."""
    batch = _drawn(setting)
    floor = float(column.removeprefix("floor "))

    def out(pictures: Tensor, floor: float) -> Tensor:
        logs = (pictures + floor).log()
        normed: Tensor = logs if setting.mutated else InstanceNorm(3, affine=False)(logs)
        return normed[0]

    values: dict[str, float] = {}
    ratios = []
    for gain in (0.01, 0.1, 10.0, 100.0):
        lit = torch.cat([batch[:1] * gain, batch[1:]])
        before = out(batch, floor)
        values[f"gain {gain:g}"] = relative_change(before, out(lit, floor))
        alone = F.instance_norm((batch[:1] + floor / gain).log())[0]
        form = relative_change(F.instance_norm((batch[:1] + floor).log())[0], alone)
        ratios.append(values[f"gain {gain:g}"] / form)
    return values | {"largest of |measured / closed form - 1|": max(abs(r - 1) for r in ratios)}


def wave(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure what a Gaussian surround leaves of waves, away from the picture's edge."""
    sigma = float(column.removeprefix("Retinex "))
    place = torch.arange(12 * 16 * 5, dtype=torch.float64)
    middle = slice(5 * 60, -5 * 60)
    surround = None if setting.mutated else sigma
    norm = RetinexNorm(1, affine=False, surround=surround, contrast=False, floor=1e-12)
    values = {}
    for period in (8, 16, 32, 64, 120):
        field = SMALL * (2 * pi * place / period).cos()
        out = norm(field.exp().view(1, 1, 1, -1)).flatten()
        values[f"period {period}"] = float(out[middle].std() / field[middle].std())
    forms = {f"period {p}": 1 - exp(-2 * (pi * sigma / p) ** 2) for p in (8, 16, 32, 64, 120)}
    values["largest of |measured / closed form - 1|"] = max(
        abs(values[row] / form - 1) for row, form in forms.items())
    return values


def _moved(column: str, setting: Setting, pictures: Tensor) -> dict[str, float]:
    norm = _norm(column, 3, mutated=setting.mutated)

    def prepare(batch: Tensor) -> Callable[[Tensor, str], dict[str, float]]:
        before, logs = norm(batch)[0], batch[0].log()

        def moved(field: Tensor, name: str) -> dict[str, float]:
            after = norm(_lit(batch, STRONG * field))[0]
            return {"kept, no light": likeness(before, logs),
                    f"kept, {name}": likeness(after, logs),
                    f"moved, {name}": relative_change(before, after)}  # fmt: skip

        return moved

    return _each_light(setting, pictures, prepare)


def pictures(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure frames of built-in films as reflectances under strong lights."""
    return _moved(column, setting, _drawn(setting))


def films(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure frames of the user's films, which have their own light already."""
    frames = film_clips(setting.recordings.videos[:4], 1, SIDE, 1)[:, :, 0]
    return _moved(column, setting, as_reflectance(frames))


class Seen(NamedTuple):
    """Streets as voxels, with the intensities that two sensors measure there.

    Args:
        coordinates: (M, 4) int32, the street and the voxel.
        weak, strong: (M, 1), with a fall of intensity over 60 m and over 10 m.
        reflectance, light: (M, 1), what the second one's intensity is the product of.
    """

    coordinates: Tensor
    weak: Tensor
    strong: Tensor
    reflectance: Tensor
    light: Tensor


@lru_cache(maxsize=8)
def streets(seed: int) -> Seen:
    """Return streets of a seed; the light, and so the reflectance, is known exactly."""
    from dataclasses import replace

    from geonorm.datasets.scan import Scan
    from geonorm.datasets.synthetic.lidar import LidarSensor, cast, rotation
    from geonorm.datasets.synthetic.meshes import Mesh
    from geonorm.datasets.synthetic.streets import street
    from geonorm.datasets.voxelize import collate_scans

    exact = LidarSensor(response=1.0, intensity_offset=0.0, offset_drift=0.0, gain_drift=0.0,
                        intensity_noise=0.0, intensity_gain=0.5)  # fmt: skip
    sensors = {"weak": replace(exact, falloff=60.0), "strong": replace(exact, falloff=10.0)}
    scans: dict[str, list[Scan]] = {name: [] for name in Seen._fields[1:]}
    for number in range(STREETS):
        mesh, position = street(exact, np.random.default_rng((seed, number)))
        white = Mesh(mesh.vertices, mesh.triangles, mesh.labels, np.ones_like(mesh.albedo))

        def seen(sensor: LidarSensor, mesh: Mesh, number: int = number,
                 position: np.ndarray = position) -> Scan:  # fmt: skip
            rng = np.random.default_rng((seed, number, 1))  # the same returns are lost
            return cast(sensor, mesh, position, rotation(0.0, 0.0, 0.0), rng)

        for name, sensor in sensors.items():
            scans[name].append(seen(sensor, mesh))
        scans["light"].append(seen(sensors["strong"], white))
        share = scans["strong"][-1].feature("intensity") / scans["light"][-1].feature("intensity")
        scans["reflectance"].append(replace(scans["strong"][-1], intensity=share[:, 0]))
    batches = {name: collate_scans(found, VOXEL) for name, found in scans.items()}
    values = {name: batch.features[:, -1:].double() for name, batch in batches.items()}
    return Seen(batches["weak"].coordinates, **values)


def lidar(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure voxels of streets seen by two sensors of one gain whose intensity falls otherwise."""
    import MinkowskiEngine as ME

    scene = streets(setting.seed)
    norm = _norm(column, 1, mutated=setting.mutated)
    mine = [scene.coordinates[:, 0] == number for number in range(STREETS)]

    def out(intensity: Tensor) -> Tensor:
        features: Tensor = norm(ME.SparseTensor(intensity, scene.coordinates)).F
        return features

    strong = out(scene.strong)
    moved, near, lit = [], [], []
    for rows in mine:
        mixed = torch.where(rows[:, None], scene.weak, scene.strong)  # one street at a time
        moved.append(relative_change(strong[rows], out(mixed)[rows]))
        near.append(likeness(strong[rows].T, scene.reflectance[rows].log().T))
        lit.append(likeness(strong[rows].T, scene.light[rows].log().T))
    return {"moved by the other sensor": float(np.mean(moved)),
            "likeness to the reflectance": float(np.mean(near)),
            "likeness to the light": float(np.mean(lit))}  # fmt: skip


def scan(column: str, setting: Setting) -> Mapping[str, float]:
    """Measure the share of a scan's variance that its range tells, by the means of 20 bins."""
    import MinkowskiEngine as ME

    from geonorm.datasets.voxelize import collate_scans

    batch = collate_scans([setting.recordings.read_scan()], VOXEL)
    intensity = batch.features[:, -1:].double() + 0.01  # about the noise
    z = _norm(column, 1)(ME.SparseTensor(intensity, batch.coordinates)).F.flatten()
    distance = (batch.coordinates[:, 1:].double() * VOXEL).norm(dim=1)
    bins = (distance.argsort().argsort() * 20) // len(distance)
    means = torch.stack([z[bins == number].mean() for number in range(20)])
    return {"share of the variance that range tells":
            float(means.var(correction=0) / z.var(correction=0))}  # fmt: skip


def draw(outcome: Outcome, figure: Any) -> None:
    """Draw what is left of lights, what is kept of the reflectance, and the streets."""
    left_, middle, right = figure.subplots(1, 3, width_ratios=(1.15, 1.15, 1))
    places = (0.18, *CYCLES.values())
    shown = ((_INL, "C0", "IN of the log"), (_ONE, "C1", "Retinex 15 px"),
             (_MANY, "C2", "Retinex 4, 12, 40"))  # fmt: skip
    for column, colour, label in shown:
        left_.plot(places, [outcome.mean("left", name, column) for name in LIGHTS[1:]], "o-",
                   color=colour, label=label, markersize=4)  # fmt: skip
        middle.plot(places, [outcome.mean("pictures", f"kept, {n}", column) for n in LIGHTS[1:]],
                    "o-", color=colour, markersize=4)  # fmt: skip
        middle.axhline(outcome.mean("pictures", "kept, no light", column), color=colour, lw=1,
                       ls=":")  # fmt: skip
    waves = [2 ** (n / 10) for n in range(-10, 41)]
    left_.plot(waves, [1 - exp(-2 * (pi * 15 * f / SIDE) ** 2) for f in waves], "k-", lw=1,
               label="1 - exp(-2 (πs/p)²)")  # fmt: skip
    for axes in (left_, middle):
        axes.set(xscale="log", xlabel="cycles of light in a picture")
        axes.set_xticks(places, ["slope", "½", "1", "2", "4", "8", "16"])
        axes.minorticks_off()
    left_.set(title="share of a small light left", ylim=(0, 1.7), yticks=[0, 0.5, 1])
    left_.legend(frameon=False, fontsize=8, loc="upper left", ncols=2)
    middle.set(title="likeness to the reflectance\n(dotted: without light)", ylim=(0.4, 1.02))
    columns = (_LOG, _INL, _NEAR, _NEARS)
    for number, row in enumerate(("moved by the other sensor", "likeness to the reflectance")):
        found = [outcome.interval(Quantity("lidar", row, column)) for column in columns]
        right.bar([place + 0.4 * (number - 0.5) for place in range(len(columns))],
                  [i.mean for i in found], 0.38, yerr=[(i.high - i.low) / 2 for i in found],
                  label=row, color=f"C{3 + number}")  # fmt: skip
    right.set_xticks(range(len(columns)), ["none", "IN", "2 m", "1, 4,\n12 m"])
    right.set(title="LiDAR on streets", ylim=(0, 1.25), yticks=[0, 0.5, 1])
    right.legend(frameon=False, fontsize=8, loc="upper left")


_MOVED = (_LOG, "batch, log", _IN, _INL, _ONE, _MANY)
_WORST = "largest of |measured / closed form - 1|"
STUDY = Study(
    name="retinex",
    title="Retinex",
    claim="Instance norm of the logarithm is Retinex: it takes out the illumination, the lowest "
    "frequencies of the picture, and leaves the reflectance.",
    sources=("Land and McCann (1971)", "Jobson, Rahman and Woodell (1997)",
             "Ulyanov, Vedaldi and Lempitsky (2016)"),
    tests=(
        Test("a constant light leaves the output as it is, to 1%",
             Quantity("pictures", "moved, constant", _INL), below=0.01),
        Test("over a sensor's floor the closed form (the floor over the light) tells the change "
             "under constant light to 1%", Quantity("constant", _WORST, "floor 0.01"), below=0.01),
        *(Test(f"of light that is {what} less than half is left", Quantity("left", name, _INL),
               below=0.5) for name, what in (("slope", "a slope"),
                                             ("half a cycle", "half a wave"))),
        Test("the closed form √(1 - r²) tells what is left of a slope to 1%",
             Quantity("left", "slope, / closed form", _INL), above=0.99, below=1.01),
        *(Test(f"of a slope single- and multi-scale Retinex ({column[8:]} pixels) leave less than "
               "half", Quantity("left", "slope", column), below=0.5) for column in (_ONE, _MANY)),
        Test("the closed form 1 - exp(-2 (π s/p)²) tells what a Gaussian of 15 leaves of waves to "
             "1%", Quantity("wave", _WORST, "Retinex 15"), below=0.01),
        Test("a strong slope of light moves instance norm of the logarithm by less than 10%",
             Quantity("pictures", "moved, slope", _INL), below=0.1),
        Test("it moves multi-scale Retinex less than it, by 1% or more",
             Quantity("pictures", "moved, slope", _INL), above=0.01,
             minus=Quantity("pictures", "moved, slope", _MANY)),
        Test("under a strong slope the output is like the reflectance, with a correlation above "
             "0.9", Quantity("pictures", "kept, slope", _INL), above=0.9),
        Test("without any light multi-scale Retinex is less like the reflectance, by 0.01 or more",
             Quantity("pictures", "kept, no light", _INL), above=0.01,
             minus=Quantity("pictures", "kept, no light", _MANY)),
        Test("a LiDAR whose intensity falls faster with range moves instance norm of the logarithm "
             "by less than 10%", Quantity("lidar", "moved by the other sensor", _INL), below=0.1),
        Test("it moves Retinex of 2 m less than it, by 1% or more",
             Quantity("lidar", "moved by the other sensor", _INL), above=0.01,
             minus=Quantity("lidar", "moved by the other sensor", _NEAR)),
        *(Test(f"{column} is more like the reflectance of streets than the logarithm is, by 0.01 "
               "or more", Quantity("lidar", "likeness to the reflectance", column), above=0.01,
               minus=Quantity("lidar", "likeness to the reflectance", _LOG))
          for column in (_NEAR, _NEARS)),
    ),
    parts=(
        Part("left", f"Share of a small light's logarithm (deviation {SMALL}) that is left in the "
             "output, in units of the logarithm",
             (_LOG, _INL, _ONE, _MANY), left),
        Part("constant", "Change of the output of instance norm of log(x + floor) under a constant "
             "light", ("floor 0.01", "floor 0.0001"), constant),
        Part("wave", "Share of a wave of light that is left by a Gaussian surround; its width and "
             "periods in pixels", ("Retinex 4", "Retinex 15", "Retinex 40"), wave, seeded=False),
        Part("pictures", f"Frames of the built-in films as reflectances: change under a light "
             f"(deviation {STRONG} in the logarithm), and likeness (correlation) of the output to "
             "the reflectance's logarithm", _MOVED, pictures, long=True),
        Part("films", "The same on frames of films of your own, whose own light counts as "
             "reflectance", _MOVED, films, needs="videos", long=True, variants=()),
        Part("lidar", f"Voxels of {STREETS} built-in streets under two sensors whose intensity "
             "falls over 60 m and over 10 m; correlations with the logarithms",
             (_LOG, _IN, _INL, _NEAR, _NEARS), lidar, long=True),
        Part("scan", "A scan of your own", (_LOG, _INL, _NEAR, _NEARS), scan, seeded=False,
             needs="scan", long=True, variants=()),
    ),
    mutation="nothing is taken out of the logarithm; it is only divided by its deviation.",
    notes="""
A picture is reflectance times light, in the logarithm a sum. Frames of the built-in films count as
reflectances and get lights from constant to 16 waves across; norms are compared by how far a light
moves their output *and* by how much of the reflectance is in it, since either alone is easy. The
frames hold some light of their own, which here counts as reflectance; that of the streets is exact.

**What holds.** A constant light goes: the output moves by {pictures|moved, constant|instance, log}.
Over a sensor's floor f a light a does what the lower floor f/a does; at a floor of 0.01 and a
hundredth of the light that moves the output by {constant|gain 0.01|floor 0.01}.

**What does not.** The next lowest frequencies stay. Of a small slope of light
{left|slope|instance, log} is left in the output, of half a wave
{left|half a cycle|instance, log}: the share √(1 - r²), where r is the correlation of light and
picture, which only the division by the deviation takes off. Retinex with a Gaussian of 15 pixels
leaves {left|slope|Retinex 15} of the slope, with 4, 12 and 40 pixels
{left|slope|Retinex 4, 12, 40}, and away from the edges 1 - exp(-2 (π s/p)²) of a wave of the period
p. Under 4 waves across, shorter than its surround, it leaves {left|4 cycles|Retinex 15}.

**The price.** A surround takes slow reflectance for light. Without any light the output of
multi-scale Retinex correlates with the reflectance by
{pictures|kept, no light|Retinex 4, 12, 40}, that of instance norm by
{pictures|kept, no light|instance, log}; under a strong slope (deviation 0.5)
{pictures|kept, slope|Retinex 4, 12, 40} against {pictures|kept, slope|instance, log}, which is also
what the bare logarithm has ({pictures|kept, slope|none, log}): a gain and an offset for each
channel change no correlation.

**LiDAR.** Intensity falls with range and with the angle of incidence. On the same streets a sensor
whose intensity falls over 10 m in place of 60 m moves instance norm of the logarithm by
{lidar|moved by the other sensor|instance, log}, `RetinexNorm` with a surround of 2 m (10 voxels) by
{lidar|moved by the other sensor|Retinex 2 m}, with 1, 4 and 12 m by
{lidar|moved by the other sensor|Retinex 1, 4, 12 m}; that the bare logarithm seems to move little,
{lidar|moved by the other sensor|none, log}, is because its mean is still in it. The likeness to
the true reflectance is {lidar|likeness to the reflectance|none, log} for the logarithm as it is,
{lidar|likeness to the reflectance|Retinex 2 m} and
{lidar|likeness to the reflectance|Retinex 1, 4, 12 m} for the two. On a real scan range tells
{scan|share of the variance that range tells|none, log} of the logarithm's variance, and
{scan|share of the variance that range tells|Retinex 2 m} with a surround of 2 m.
""",
    advice="Instance norm takes out a light that is one for the whole recording. Where the light "
    "varies within it, use `RetinexNorm` on the intensities, with a surround wider than the things "
    "to be told apart and narrower than the light.",
    draw=draw,
)
