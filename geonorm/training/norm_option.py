"""The option `--model.norm`: what the name "instance" builds, and the choice in words."""

from collections.abc import Callable

from torch import nn

Factory = Callable[[int], nn.Module]


def with_instance_norm(
    norm: str | dict[str, str], instance_norm: Factory
) -> str | Factory | dict[str, str | Factory]:
    """Return a norm in which a factory stands for the name "instance".

    Args:
        norm: a name, or a mapping from stage to name.
        instance_norm: what builds an instance norm, given the number of channels.
    """
    if isinstance(norm, dict):
        return {
            stage: instance_norm if name == "instance" else name for stage, name in norm.items()
        }
    return instance_norm if norm == "instance" else norm


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
