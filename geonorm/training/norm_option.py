"""The option `--model.norm`: what some of its names build, and the choice in words."""

from collections.abc import Callable, Mapping

from torch import nn

Factory = Callable[[int], nn.Module]


def with_factories(
    norm: str | dict[str, str], factories: Mapping[str, Factory]
) -> str | Factory | dict[str, str | Factory]:
    """Return a norm in which factories stand for names.

    Args:
        norm: a name, or a mapping from stage to name.
        factories: what builds the norm of a name, given the number of channels.
    """
    if isinstance(norm, dict):
        return {stage: factories.get(name, name) for stage, name in norm.items()}
    return factories.get(norm, norm)


def norm_in_words(norm: str | dict[str, str]) -> str:
    """Return a norm as a title says it.

    >>> norm_in_words({"default": "instance", "layer3": "none", "layer4": "none"})
    'instance norm, none in layer3 and layer4'
    """
    if isinstance(norm, str):
        return f"{norm} norm" if norm != "none" else "no norm"
    stages: dict[str, list[str]] = {}
    for stage, name in norm.items():
        if stage != "default" and name != norm.get("default"):
            stages.setdefault(name, []).append(stage)
    words = [norm_in_words(norm["default"])] if "default" in norm else []
    return ", ".join([*words, *(f"{name} in {_listed(at)}" for name, at in stages.items())])


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
