"""The cells of the grid as data, in the order in which they run."""

from dataclasses import dataclass, replace

from geonorm.names import choices

# Raised whenever a training or a test changes: rows of another design are not counted.
DESIGN = 1
# Parts of the base learning rate, of which one is chosen for each norm on validation data.
RATES = {"1/3": 1 / 3, "1": 1.0, "3": 3.0}
RATE_SEED = 100  # judges rates and nothing else
SEEDS = {"streets": 5, "actions": 3}
BROKEN_SEEDS = 3
COMPANIONS = 3  # clean items that the broken norm sees beside each it is judged on
# Seeds that were not there when the rows suggested a claim.
FRESH = {"streets": (7, 8, 9, 10, 11), "actions": (3, 4, 5, 6, 7)}

EVERYWHERE = "everywhere"
NORMS = ("batch", "instance", "ibn-a", "group", "layer", "none")
# Instance norm over the whole batch (`geonorm.studies.broken`): the control.
BROKEN = "broken"
# Instance norm at these stages or on the input, batch norm at the others; "but last" and "but last
# two" are instance norm at all other stages, "also input" is it everywhere and on the input.
PLACES = {
    "streets": {
        "stem": {"default": "batch", "stem": "instance"},
        "encoder": {"default": "batch", "stem": "instance", "encoder": "instance"},
        "bottom": {"default": "batch", "encoder3": "instance", "bottleneck": "instance"},
        "decoder": {"default": "batch", "decoder": "instance"},
        "input": "batch",
        "also input": "instance",
    },
    "actions": {
        "stem": {"default": "batch", "stem": "instance"},
        "early": {"default": "batch", "stem": "instance", "layer1": "instance"},
        "late": {"default": "batch", "layer3": "instance", "layer4": "instance"},
        "but last": {"default": "instance", "layer4": "batch"},
        "but last two": {"default": "instance", "layer3": "batch", "layer4": "batch"},
        "input": "batch",
        "also input": "instance",
    },
}
AT_TEST = ("test batch", "adabn", "tent")  # rivals that take the weights of a plain training
# What each does is said in `grid.rivals`. They are added to batch norm.
RIVALS = {
    "streets": (*AT_TEST, "mixstyle", "intensity", "standardized", "augmented"),
    "actions": (*AT_TEST, "mixstyle", "augmented", "unstrided"),
}
ON_INPUT = ("input", "also input")


@dataclass(frozen=True)
class Cell:
    """One training and what it is judged by.

    Args:
        data: "streets", segmented by a MinkUNet, or "actions", classified by a 3D-ResNet.
        norm: the name of a norm, or `BROKEN`.
        place: where it stands, `EVERYWHERE` or a key of `PLACES`.
        rival: what else is done, in training or at the test, a name; "" for nothing.
        seed: of weights, training data and their order.
        rate: key of `RATES` in a cell that only judges learning rates; "" for the chosen one.
        variant: of the streets that are trained on.
    """

    data: str
    norm: str
    place: str = EVERYWHERE
    rival: str = ""
    seed: int = 0
    rate: str = ""
    variant: str = "plain"

    @property
    def tuned(self) -> tuple[str, str, str]:
        """What a learning rate is chosen for, on plain data and without a rival."""
        return self.data, "instance" if self.norm == BROKEN else self.norm, self.place

    @property
    def training(self) -> "Cell":
        """The cell whose training this one takes."""
        return replace(self, rival="") if self.rival in AT_TEST else self

    @property
    def title(self) -> str:
        """The cell in words."""
        words = [self.data, self.norm, self.place, self.rival, f"seed {self.seed}"]
        words += [f"rate {self.rate}"] if self.rate else []
        words += [self.variant] if self.variant != "plain" else []
        return ", ".join(word for word in words if word)


# Rivals that are added to instance norm.
WITH_INSTANCE = (
    Cell("streets", "instance", rival="augmented"), Cell("actions", "instance", rival="augmented"),
    Cell("actions", "instance", rival="unstrided"),
    Cell("actions", "instance", "but last", "unstrided"),
)  # fmt: skip
# What has all seeds up to the fresh ones, for claims that the rows suggested.
FURTHER = (
    Cell("streets", "batch"), Cell("streets", "instance"), Cell("streets", "instance", "stem"),
    Cell("streets", "batch", rival="intensity"),
    Cell("actions", "batch"), Cell("actions", "none"), Cell("actions", "batch", rival="adabn"),
)  # fmt: skip
# What is also trained on the streets that are nearer to the real scan: norms as briefly as on
# towns, then, longer, what is best on other sensors and best in other weather among the rows of
# towns. The one of these two that is better on other suburbs, the first in each round, is trained
# on finer voxels too, and has further seeds in gardens. docs/training_scans.md tells why the rounds
# before were stopped.
CLOSER, CLOSER_SEEDS = ("batch", "instance"), 3
LONGER = Cell("streets", "batch", rival="intensity"), Cell("streets", "instance", "encoder")


def norm_of(cell: Cell) -> str | dict[str, str]:
    """Return the argument `norm` of the cell's network.

    Raises:
        ValueError: an unknown place.
    """
    if cell.place == EVERYWHERE:
        return "instance" if cell.norm == BROKEN else cell.norm
    if cell.place not in PLACES[cell.data]:
        raise ValueError(f"no place {cell.place!r}; {choices(cell.place, PLACES[cell.data])}")
    return PLACES[cell.data][cell.place]


def grid() -> list[Cell]:
    """Return every cell in order.

    First the learning rates of the norms, then the first seed of each, further seeds, the places
    with their rates, the control, the rivals, seeds for claims that the rows suggested, and the
    streets that are nearer to the real scan.
    """
    norms = [Cell(data, norm) for data in SEEDS for norm in NORMS]
    places = [Cell(data, "instance", place) for data in SEEDS for place in PLACES[data]]
    control = [Cell(data, BROKEN, seed=seed) for data in SEEDS for seed in range(BROKEN_SEEDS)]
    rivals = [Cell(data, "batch", rival=rival) for data in SEEDS for rival in RIVALS[data]]
    rivals += WITH_INSTANCE
    closer = [Cell("streets", norm, seed=seed, variant="suburb")
              for seed in range(CLOSER_SEEDS) for norm in CLOSER]  # fmt: skip
    closer += [replace(LONGER[0], variant="longer suburb")]
    closer += [replace(cell, variant="faint suburb") for cell in LONGER]
    closer += [replace(LONGER[0], variant="fine suburb")]
    closer += [replace(cell, variant="garden suburb") for cell in LONGER]
    closer += [replace(LONGER[0], seed=seed, variant="garden suburb")
               for seed in range(1, CLOSER_SEEDS)]  # fmt: skip
    fresh = [replace(cell, seed=seed)
             for data in SEEDS for seed in range(SEEDS[data], FRESH[data][-1] + 1)
             for cell in FURTHER if cell.data == data]  # fmt: skip
    cells = [
        *_rates(norms), *_seeds(norms), *_rates(places), *_seeds(places), *control,
        *_seeds(rivals), *fresh, *closer,
    ]  # fmt: skip
    return [*dict.fromkeys(cells)]


def _rates(cells: list[Cell]) -> list[Cell]:
    """Return the cells that judge the learning rates of each cell."""
    return [replace(cell, seed=RATE_SEED, rate=rate) for cell in cells for rate in RATES]


def _seeds(cells: list[Cell]) -> list[Cell]:
    """Return the cells with every seed of their data, the first seed of all of them first."""
    return [
        replace(cell, seed=seed)
        for seed in range(max(SEEDS.values())) for cell in cells if seed < SEEDS[cell.data]
    ]  # fmt: skip


def chosen(cells: list[Cell], words: list[str]) -> list[Cell]:
    """Return the cells that meet every condition, in their order.

    Args:
        cells: of the grid.
        words: conditions on fields, such as norm=instance or seed=0.

    Raises:
        ValueError: a word that is no condition, an unknown field, or no cell that meets them.
    """
    fields = [*Cell.__dataclass_fields__]
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in fields:
            raise ValueError(f"--only takes conditions such as norm=instance; got {word!r}. "
                             f"Fields are {', '.join(fields)}")  # fmt: skip
        known = {str(getattr(cell, name)) for cell in cells}
        cells = [cell for cell in cells if str(getattr(cell, name)) == value]
        if not cells:
            raise ValueError(f"no cell has {word}; {choices(value, known)}")
    return cells
