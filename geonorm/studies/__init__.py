"""What instance norm is said to do, measured: a study for each claim, run by `geonorm study`."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geonorm.studies.study import Study

# The module of each study, which is imported when it is run.
STUDIES: dict[str, str] = {
    "style": "geonorm.studies.style",
    "affine": "geonorm.studies.affine",
    "contrast": "geonorm.studies.contrast",
    "gan": "geonorm.studies.gan",
    "diffusion": "geonorm.studies.diffusion",
    "federated": "geonorm.studies.federated",
    "tokens": "geonorm.studies.tokens",
    "video": "geonorm.studies.video",
    "points": "geonorm.studies.points",
    "audio": "geonorm.studies.audio",
    "divisive": "geonorm.studies.divisive",
    "retinex": "geonorm.studies.retinex",
    "fairness": "geonorm.studies.fairness",
}


def study_named(name: str) -> "Study":
    """Return a study by its name, one of `STUDIES`."""
    study: Study = import_module(STUDIES[name]).STUDY
    return study
