"""Derivatives of the operators where csrc/autograd.cpp, the rule that costs least, cannot serve.

That is without the extension, and under the transforms of torch.func, which refuse rules in C++. A
torch.autograd.Function then calls the same operators, forward and backward. Whatever differentiates
further, a backward that is differentiated again or forward mode, differentiates the formula, which
is the operator's reference in plain torch.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from geonorm.ops.backends import has_cpp

# Whether torch.func.grad, jvp, vmap or their like are at work, asked as autograd.Function asks.
transforms_active: Callable[[], bool] = torch._C._are_functorch_transforms_active


class Formula(torch.autograd.Function):
    """A kernel and its formula in plain torch, from which its derivatives follow.

    Both take the arguments of apply and return the same tensors, or the same tensor.
    """

    generate_vmap_rule = True

    @staticmethod
    def kernel(*args: Any) -> Any:
        raise NotImplementedError

    @staticmethod
    def formula(*args: Any) -> Any:
        raise NotImplementedError

    @staticmethod
    def kept(inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> Sequence[Tensor]:
        """Return the outputs that a cheaper backward needs."""
        return ()

    @classmethod
    def forward(cls, *args: Any) -> tuple[Tensor, ...]:
        with torch._C._AutoDispatchBelowAutograd():
            return tuple(cls.kernel(*args))

    @classmethod
    def setup_context(cls, ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.places = [k for k, value in enumerate(inputs) if isinstance(value, Tensor)]
        ctx.others = [None if isinstance(value, Tensor) else value for value in inputs]
        tensors = (*(inputs[k] for k in ctx.places), *cls.kept(inputs, output))
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)  # the same: torch.func has one place for both

    @classmethod
    def backward(cls, ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        args, _outputs = saved(ctx)
        places = [k for k in ctx.places if args[k].is_floating_point()]
        formula = _of(cls.formula, args, places)
        vjp: Callable[..., Any] = torch.func.vjp(formula, *(args[k] for k in places))[1]
        return tuple(replaced([None] * len(args), places, vjp(grads)))

    @classmethod
    def jvp(cls, ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        args, _outputs = saved(ctx)
        places = [k for k, tangent in enumerate(tangents) if tangent is not None]
        found: Sequence[Tensor] = torch.func.jvp(
            _of(cls.formula, args, places), tuple(args[k] for k in places),
            tuple(tangents[k] for k in places))[1]
        return tuple(found)


def under_transforms(rule: type[Formula], *args: Any) -> Any:
    """Run a rule where transforms are active.

    Forward mode inside forward mode, to which autograd.Function answers with zeros in silence, goes
    through the formula.
    """
    levels = torch._C._functorch.get_interpreter_stack() or ()
    forwards = sum(level.key() == torch._C._functorch.TransformType.Jvp for level in levels)
    return rule.apply(*args) if forwards < 2 else rule.formula(*args)


class Norm(Formula):
    """A norm with what follows it; the statistics among its outputs carry no gradient."""

    @staticmethod
    def gradients(grad: Tensor, stats: Sequence[Tensor], *args: Any) -> tuple[Tensor | None, ...]:
        """Return those of args, all arguments but the residual, by the backward operator."""
        raise NotImplementedError

    @staticmethod
    def kept(inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> Sequence[Tensor]:
        *_, activation, _slope, residual = inputs
        out, *stats = output
        return stats if residual is None or activation == "none" else (*stats, out)

    @classmethod
    def setup_context(cls, ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        super().setup_context(ctx, inputs, output)
        ctx.mark_non_differentiable(*output[1:])

    @classmethod
    def backward(cls, ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        (*args, activation, slope, residual), outputs = saved(ctx)
        grad, stats = grads[0], outputs[:3]
        if residual is None:
            return *cls.gradients(grad, stats, *args, activation, slope), None
        if activation != "none":  # by the sign of its result, as csrc/autograd.cpp does
            grad = before_activation(grad, outputs[3], activation, slope)
        return *cls.gradients(grad, stats, *args, "none", 0.0), grad

    @classmethod
    def jvp(cls, ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        return super().jvp(ctx, *tangents)[0], None, None, None


def saved(ctx: Any) -> tuple[list[Any], Sequence[Tensor]]:
    """Return the arguments and the outputs of the Formula that a context is of."""
    tensors = ctx.saved_tensors
    count = len(ctx.places)
    return replaced(ctx.others, ctx.places, tensors[:count]), tensors[count:]


def replaced(values: Sequence[Any], places: Sequence[int], by: Sequence[Any]) -> list[Any]:
    """Return a list of the values, those at some places replaced."""
    result = [*values]
    for place, value in zip(places, by, strict=True):
        result[place] = value
    return result


def _of(formula: Callable[..., Any], args: list[Any], places: list[int]) -> Callable[..., Any]:
    return lambda *tensors: formula(*replaced(args, places, tensors))


def before_activation(grad: Tensor, out: Tensor, activation: str, negative_slope: float) -> Tensor:
    """Return the gradient before an activation, from the sign of its result."""
    aten = torch.ops.aten
    before: Tensor = (
        aten.threshold_backward(grad, out, 0) if activation == "relu"
        else aten.leaky_relu_backward(grad, out, negative_slope, True)
    )
    return before


def define_derivative(
    library: torch.library.Library, name: str, rule: type[Formula], twice_schema: str,
    twice: Callable[..., Any],
) -> None:
    """Define the derivative of an operator, and of that derivative by plain torch.

    Args:
        library: a fragment of the namespace geonorm.
        name: of the operator.
        rule: of its derivative, used where csrc/autograd.cpp is not.
        twice_schema, twice: the operator by which csrc/autograd.cpp differentiates a backward.
    """
    library.define(twice_schema)
    library.impl(twice_schema.partition("(")[0], twice, "CompositeImplicitAutograd")
    if not has_cpp():
        derive(library, name, rule)


def derive(library: torch.library.Library, name: str, rule: type[Formula]) -> None:
    """Let an operator take its derivatives from a rule in Python."""
    arguments = getattr(torch.ops.geonorm, name).default._schema.arguments

    def run(*args: Any) -> Any:  # without those at the end that have their default value
        return rule.apply(*args, *(each.default_value for each in arguments[len(args):]))

    library.impl(name, run, "Autograd")
