"""Public weights with their recipe: file, hash, classes, transforms, scores and licence.

Each backbone has an enum of what can be had for it, named as torchvision names its own. A hash
stands here only if it was computed from the file or is told by an installed package; a recipe
without one is not `verified`, and its file is read with a warning that says its hash.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import torch

from geonorm.files import sha256_of, written_whole


@dataclass(frozen=True, eq=False)
class Recipe:
    """Public weights and what a user of them must know.

    Args:
        network: the network that they are of, as one calls it.
        file: name of the file in the cache.
        url: of the file, or of the page that offers it.
        transforms: returns the function that prepares an input as in training.
        licence: under which the weights were published.
        metrics: published scores in percent, by data set and name.
        sha256: of the file, or the first digits of it; None where nobody could compute it.
        direct: `url` is the file itself.
        num_classes: outputs of the network.
        classes: returns their names; None where the publisher does not list them with the weights.
        source: paper or page that the scores are from.
    """

    network: str
    file: str
    url: str
    transforms: Callable[[], Callable[..., Any]]
    licence: str
    num_classes: int
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    sha256: str | None = None
    direct: bool = True
    classes: Callable[[], tuple[str, ...]] | None = None
    source: str = ""

    @property
    def verified(self) -> bool:
        """Whether the hash of the file is known, so that another file is refused."""
        return self.sha256 is not None

    @property
    def place(self) -> Path:
        """The file in the folder of torch.hub."""
        return Path(torch.hub.get_dir()) / "checkpoints" / self.file


class Weights(Enum):
    """Base of the enums of public weights; a member has the attributes of its `Recipe`.

    `load_checkpoint(model, member)` loads them into a model of any norm.
    """

    value: Recipe

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.value, name)


def fetch(weights: Weights) -> Path:
    """Return the file of public weights, fetched if it is not in the folder of torch.hub.

    The file is hashed each time. One that is fetched appears there whole and with the right hash,
    or not at all.

    Args:
        weights: a member of one of the enums.

    Raises:
        OSError: the file is neither there nor to be had; says where to put it.
        ValueError: its hash is not that of the recipe.

    Warns:
        UserWarning: the recipe has no hash to compare with; says the file's.
    """
    recipe, place = weights.value, weights.value.place
    if not place.is_file():
        where = f"download {recipe.url} on a machine with a network and put it at {place}"
        if not recipe.direct:
            raise OSError(
                f"{weights} is not offered as a file by itself: take {recipe.file} from the page "
                f"{recipe.url} and put it at {place}"
            )
        place.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(place) as aside:
            try:
                torch.hub.download_url_to_file(recipe.url, str(aside))
            except OSError as error:
                raise OSError(f"{weights} could not be fetched ({error}); {where}") from error
            check_hash(aside, recipe.sha256, f"{weights}, fetched from {recipe.url}: nothing kept")
    found = check_hash(place, recipe.sha256, f"{weights}: delete {place}, and it is fetched anew")
    if not recipe.verified:
        warnings.warn(
            f"nobody has compared the hash of {recipe.file} with its publisher's. Its sha256 is "
            f"{found}; ask for it where you have another way to know it",
            stacklevel=2,
        )
    return place


def check_hash(path: Path, expected: str | None, what: str) -> str:
    """Return the SHA-256 of a file, which begins as expected.

    Args:
        path: a file.
        expected: the hash or the first digits of it; None for any.
        what: how an error begins and what it says to do, "subject: cure".

    Raises:
        ValueError: the file has another hash.
    """
    found = sha256_of(path)
    if expected is not None and not found.startswith(expected):
        subject, _, cure = what.partition(": ")
        raise ValueError(
            f"wrong hash of {subject}: its sha256 begins with {found[: len(expected)]}; expected "
            f"{expected}. The file is damaged or another one: {cure}"
        )
    return found
