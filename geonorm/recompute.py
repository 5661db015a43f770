"""Train in less memory: compute the outputs of norms again when a backward asks for them."""

import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.hooks import RemovableHandle

from geonorm.inputs import ENGINES, Rows, read
from geonorm.norms.axis_instance_norm import AxisInstanceNorm
from geonorm.norms.group_norm import GroupNorm
from geonorm.norms.instance_norm import InstanceNorm
from geonorm.norms.layer_norm import LayerNorm

NORMS = (InstanceNorm, AxisInstanceNorm, GroupNorm, LayerNorm)


class recompute_activations:  # noqa: N801  (a switch, called like torch's no_grad)
    """Keep only what goes into a model's norms; what comes out is computed again in backward.

    Between two convolutions autograd keeps the norm's input and its output, act(norm(x) +
    residual). The second follows from the first, so it needs no memory: the norm runs once more
    when the backward of the next layer asks for its input. Gradients are the same bits. Outputs
    that add a residual follow from one another; after `chain` of them one is kept, since those
    between two that are kept exist together for a moment.

    It works from this call on, on every call of the model that trains; as a context it ends with
    it, or by `stop()`. What is computed again are the outputs of `InstanceNorm`,
    `AxisInstanceNorm`, `GroupNorm` and `LayerNorm`, and of classes that are `recomputable`; norms
    that keep running statistics go on as they are. Under `torch.compile` this switch does nothing,
    with a warning: the compiler decides for itself what to compute again.

    Args:
        model: holds such norms, anywhere.
        chain: how many outputs that are not kept may follow from one another.

    Raises:
        ValueError: the model holds no such norm, or a convolution of MinkowskiEngine's own, which
            keeps its input where nothing can take it away; `geonorm.speed_up` replaces those.
        TypeError: chain is no whole number.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), InstanceNorm(8, activation="relu"),
    ...                       nn.Conv2d(8, 8, 3))
    >>> with recompute_activations(model):
    ...     model(torch.randn(2, 3, 9, 9)).sum().backward()

    After in-place activated batch norm (Rota Bulò et al., 2018) and gradient checkpointing (Chen
    et al., 2016).
    """

    def __init__(self, model: nn.Module, chain: int = 4) -> None:
        if not isinstance(chain, int):
            raise TypeError(f"chain must be a whole number; got {type(chain).__name__}")
        if chain < 1:
            raise ValueError(f"chain must be 1 or more; got {chain}")
        _refuse_minkowski(model)
        modules = [module for module in model.modules() if type(module).forward in _FORWARDS]
        if not any(isinstance(module, NORMS) for module in modules):
            raise ValueError(
                f"{type(model).__name__} holds none of the norms whose output can be computed "
                f"again: {', '.join(norm.__name__ for norm in NORMS)}"
            )
        self._tape = tape = _Tape(chain)
        self._handles: list[RemovableHandle] = [
            model.register_forward_pre_hook(tape.begin, prepend=True),
            model.register_forward_hook(tape.end, always_call=True),
        ]
        for module in modules:
            self._handles += [
                module.register_forward_pre_hook(tape.enter),
                module.register_forward_hook(tape.leave, with_kwargs=True, always_call=True),
            ]

    def stop(self) -> None:
        """Let the model keep everything again."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def __enter__(self) -> "recompute_activations":
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


_FORWARDS = {norm.forward for norm in NORMS}


def recomputable(kind: type[nn.Module]) -> type[nn.Module]:
    """Let the outputs of a class of modules be computed again too; a decorator.

    What such a module returns must follow from its arguments and parameters alone, and be one
    tensor, dense or of a sparse engine.

    >>> @recomputable
    ... class Concatenate(nn.Module):
    ...     def forward(self, one, other):
    ...         return torch.cat([one, other], 1)
    """
    _FORWARDS.add(kind.forward)
    return kind


def _refuse_minkowski(model: nn.Module) -> None:
    for name, module in model.named_modules():
        kind = type(module)
        theirs = "MinkowskiEngine.MinkowskiConvolution" in f"{kind.forward.__module__}"
        if theirs or getattr(module, "engine", None) == "minkowski":
            raise ValueError(
                f"{name} is a {kind.__name__} of MinkowskiEngine, which keeps its input; replace "
                "its convolutions first: geonorm.speed_up(model)"
            )


class _Held:
    """A tensor that is needed in backward: itself, or the recipe to compute it again."""

    def __init__(self, content: "Tensor | _Recipe") -> None:
        self.content = content
        self.version = content._version if isinstance(content, Tensor) else 0

    def use(self) -> Tensor:
        """Return the tensor to the backward that asks for it."""
        content = self.content
        return content.use() if isinstance(content, _Recipe) else self._unchanged(content)

    def look(self) -> Tensor:
        """Return the tensor to another recipe."""
        content = self.content
        return content.compute() if isinstance(content, _Recipe) else self._unchanged(content)

    def _unchanged(self, content: Tensor) -> Tensor:
        # torch compares versions itself, but not of what goes through hooks as ours.
        if content._version != self.version:
            raise RuntimeError(
                f"a tensor of shape {tuple(content.shape)} that backward needs has been changed in "
                f"place since the forward: it is at version {content._version}, expected "
                f"{self.version}. Change a copy instead"
            )
        return content


@dataclass(eq=False)
class _Recipe:
    """How to compute the output of a module again.

    Attributes:
        module: the module.
        arguments, options: of its forward, each to be called for.
        depth: how many outputs follow from one another up to this one.
        uses: how many backwards will ask for the output.
        left: how many of them have not, since it was computed.
        value: the output, from when it is computed until the last of them has asked.
    """

    module: nn.Module
    arguments: list[Callable[[], Any]]
    options: dict[str, Callable[[], Any]]
    depth: int
    uses: int = 0
    left: int = 0
    value: Tensor | None = None

    def compute(self) -> Tensor:
        """Return the output, computed now, or for one who asked before."""
        if self.value is not None:
            return self.value
        arguments = [argument() for argument in self.arguments]
        options = {name: option() for name, option in self.options.items()}
        with torch.no_grad():
            out = self.module.forward(*arguments, **options)
        value = _parts(out)[0]
        if self.uses:
            self.value, self.left = value, self.uses
        return value

    def use(self) -> Tensor:
        """Return the output to one of the backwards; the last of them lets it go."""
        value = self.compute()
        self.left -= 1
        if self.left <= 0:
            self.value = None
        return value


@dataclass
class _Output:
    """An output of a norm, while it lives as it was made."""

    tensor: "weakref.ref[Tensor]"
    version: int
    recipe: _Recipe


class _Tape:
    """Knows, during a forward of the model, which tensors its norms made."""

    def __init__(self, chain: int) -> None:
        self.chain = chain
        self.context: saved_tensors_hooks | None = None
        self.outputs: dict[int, _Output] = {}
        self.inside: list[list[_Held]] = []  # what the norms that run now have kept
        # It runs while a graph is traced, and breaks none. This import of torch's compiler takes as
        # long as that of torch: only who recomputes waits for it.
        torch.compiler.assume_constant_result(_say_that_it_is_off)

    def begin(self, model: nn.Module, arguments: object) -> None:
        """Take over what autograd keeps."""
        if torch.compiler.is_compiling():
            _say_that_it_is_off()
        elif torch.is_grad_enabled():
            self.context = saved_tensors_hooks(self._pack, _Held.use)
            self.context.__enter__()

    def end(self, model: nn.Module, arguments: object, output: object) -> None:
        """Give it back."""
        if self.context is not None:
            self.context.__exit__()
            self.context = None
            self.outputs.clear()
            self.inside.clear()

    def enter(self, norm: nn.Module, arguments: object) -> None:
        """Watch what a norm keeps."""
        if self.context is not None:
            self.inside.append([])

    def leave(
        self, module: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any], output: Any
    ) -> None:
        """Note how to compute an output again, unless it is one to keep."""
        if self.context is None:
            return
        kept = self.inside.pop()
        if output is None or len(module._forward_hooks) + len(module._forward_pre_hooks) > 2:
            return  # it has failed, or others' hooks may have changed what goes in or out
        inputs: list[_Held] = []
        again = [self._later(argument, inputs) for argument in arguments]
        named = {name: self._later(option, inputs) for name, option in options.items()}
        before = (held.content for held in inputs)
        depths = [each.depth + 1 for each in before if isinstance(each, _Recipe)]
        depth = max([int(len(inputs) > 1), *depths])
        if depth > self.chain:
            return
        recipe = _Recipe(module, again, named, depth)
        made = _parts(output)[0]
        self.outputs[_storage(made)] = _Output(weakref.ref(made), made._version, recipe)
        for held in kept:
            if isinstance(held.content, Tensor) and self._recipe(held.content) is recipe:
                held.content = recipe
                recipe.uses += 1

    def _later(self, argument: Any, inputs: list[_Held]) -> Callable[[], Any]:
        """Return what gives an argument again; features are held for it, and told in inputs."""
        if not _has_features(argument):
            return lambda: argument
        features, rebuild = _parts(argument)
        held = self._hold(features)
        inputs.append(held)
        return lambda: rebuild(held.look())

    def _pack(self, tensor: Tensor) -> _Held:
        """Return what autograd keeps in place of a tensor."""
        held = self._hold(tensor)
        if isinstance(held.content, _Recipe):
            held.content.uses += 1
        elif self.inside:
            self.inside[-1].append(held)
        return held

    def _hold(self, tensor: Tensor) -> _Held:
        return _Held(self._recipe(tensor) or tensor.detach())

    def _recipe(self, tensor: Tensor) -> _Recipe | None:
        """Return the recipe of a tensor that is the output of a norm, unchanged."""
        output = self.outputs.get(_storage(tensor))
        made = None if output is None else output.tensor()
        if output is None or made is None or output.version != tensor._version:
            return None
        same = tensor.shape == made.shape and tensor.stride() == made.stride()
        return output.recipe if same else None


def _storage(tensor: Tensor) -> int:
    number: int = tensor.untyped_storage()._cdata
    return number


def _has_features(x: Any) -> bool:
    if isinstance(x, Tensor):
        return x.is_floating_point()
    engines = (kind.attributes for kind in ENGINES)
    return isinstance(x, Rows) or any(all(hasattr(x, n) for n in names) for names in engines)


def _parts(x: Any) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """Return the features of what a norm takes or gives, and what makes the same of others."""
    if isinstance(x, Tensor):
        return x, lambda features: features
    given = read(x)
    features = given.features
    # What makes the same again must not hold these features: one element stands for all of them.
    empty = read(given.rebuild(features.new_empty((1, 1)).expand(features.shape)))
    return features, empty.rebuild


def _say_that_it_is_off() -> None:
    warnings.warn(
        "recompute_activations does nothing under torch.compile, which decides by itself what to "
        "compute again",
        stacklevel=2,
    )
