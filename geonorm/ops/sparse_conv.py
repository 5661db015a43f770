"""sparse_conv and the gradient of its kernel as torch operators: schema, fakes, autograd.

    out[o] = Σ_k Σ_(i, o) features[i] · kernel[k], over the pairs (i, o) of the kernel's offset k

Both operators are linear in either of two tensors, and the derivatives of each are the operators
again, so that there are derivatives of every order. Beyond the schema, a kernel may rely on:

- features, grad and kernel have one dtype and any strides; outputs are contiguous.
- pairs is int32 (2, P), input rows above output rows, those of offset k from offsets[k] to
  offsets[k + 1] and there by ascending output row; back holds the same pairs upside down, output
  rows above input rows, by ascending input row. Both are contiguous.
- offsets is int64 (K + 1,), ascending from 0 to P, on the CPU whatever the features are on.
- sums are taken in float32, for float64 in float64, the offsets in their order.
- it must raise IndexError where a row lies outside its tensor, and may do so for another order.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from geonorm.ops.backends import define
from geonorm.ops.derivatives import Formula, derive, saved, transforms_active, under_transforms

SCHEMAS = (
    "sparse_conv(Tensor features, Tensor kernel, Tensor pairs, Tensor back, Tensor offsets, "
    "SymInt num_out) -> Tensor",
    "sparse_conv_weight(Tensor features, Tensor grad, Tensor pairs, Tensor back, Tensor offsets) "
    "-> Tensor",
)
_LIBRARY = torch.library.Library("geonorm", "FRAGMENT")


def runs(pairs: Tensor, offsets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the input rows and the output rows of each offset of the kernel."""
    for begin, end in pairwise(offsets.tolist()):
        source, target = pairs[:, begin:end]
        yield source, target


def exactly(x: Tensor) -> Tensor:
    """Return x as it is multiplied: in float32 or float64; on CUDA as it is, by tensor cores."""
    return x if x.is_cuda or x.dtype == torch.float64 else x.float()


def forward(features: Tensor, kernel: Tensor, pairs: Tensor, back: Tensor, offsets: Tensor,
            num_out: int) -> Tensor:
    """Return for each output row the sum over its pairs of an input row times their matrix."""
    wide = torch.promote_types(features.dtype, torch.float32)
    out = features.new_zeros(num_out, kernel.shape[2], dtype=wide)
    for matrix, (source, target) in zip(kernel, runs(pairs, offsets), strict=True):
        product = exactly(features.index_select(0, source)) @ exactly(matrix)
        out.index_add_(0, target, product.to(wide))
    return out.to(features.dtype)


def weight(features: Tensor, grad: Tensor, pairs: Tensor, back: Tensor, offsets: Tensor) -> Tensor:
    """Return for each offset the sum over its pairs of an input row, transposed, times grad's."""
    return torch.stack([
        exactly(features.index_select(0, source)).T @ exactly(grad.index_select(0, target))
        for source, target in runs(pairs, offsets)
    ]).to(features.dtype)


define(_LIBRARY, SCHEMAS, (forward, weight), triton=None)


def _fake(features: Tensor, kernel: Tensor, pairs: Tensor, back: Tensor, offsets: Tensor,
          num_out: int) -> Tensor:
    return features.new_empty(num_out, kernel.shape[2])


def _fake_weight(features: Tensor, grad: Tensor, pairs: Tensor, back: Tensor, offsets: Tensor
                 ) -> Tensor:
    return features.new_empty(offsets.shape[0] - 1, features.shape[1], grad.shape[1])


class _Bilinear(Formula):
    """An operator that is linear in its first and in its second argument."""

    @classmethod
    def forward(cls, *args: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return cls.kernel(*args)

    @classmethod
    def setup_context(cls, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        super().setup_context(ctx, inputs, ())

    @classmethod
    def jvp(cls, ctx: Any, *tangents: Tensor | None) -> Any:
        (first, second, *rest), _outputs = saved(ctx)
        one, other = tangents[:2]
        changes = [] if one is None else [cls.run(one, second, *rest)]
        changes += [] if other is None else [cls.run(first, other, *rest)]
        return sum(changes[1:], changes[0])

    @classmethod
    def run(cls, *args: Any) -> Tensor:
        """Return the operator's result, under the transforms of torch.func too."""
        out: Tensor = under_transforms(cls, *args) if transforms_active() else cls.operator(*args)
        return out

    @staticmethod
    def operator(*args: Any) -> Tensor:
        raise NotImplementedError


class SparseConv(_Bilinear):
    """sparse_conv with its derivatives of every order and mode."""

    formula = staticmethod(forward)
    kernel = operator = staticmethod(lambda *args: _CONV(*args))

    @classmethod
    def backward(cls, ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (features, kernel, pairs, back, offsets, _), _outputs = saved(ctx)
        lists = pairs, back, offsets
        return (
            sparse_conv(grads[0], kernel.mT, back, pairs, offsets, features.shape[0])
            if ctx.needs_input_grad[0] else None,
            sparse_conv_weight(features, grads[0], *lists) if ctx.needs_input_grad[1] else None,
            None, None, None, None,
        )


class SparseConvWeight(_Bilinear):
    """sparse_conv_weight with its derivatives of every order and mode."""

    formula = staticmethod(weight)
    kernel = operator = staticmethod(lambda *args: _WEIGHT(*args))

    @classmethod
    def backward(cls, ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (features, grad, pairs, back, offsets), _outputs = saved(ctx)
        return (
            sparse_conv(grad, grads[0].mT, back, pairs, offsets, features.shape[0])
            if ctx.needs_input_grad[0] else None,
            sparse_conv(features, grads[0], pairs, back, offsets, grad.shape[0])
            if ctx.needs_input_grad[1] else None,
            None, None, None,
        )


def sparse_conv(features: Tensor, kernel: Tensor, pairs: Tensor, back: Tensor, offsets: Tensor,
                num_out: int) -> Tensor:
    """Return the convolution of rows, also under the transforms of torch.func.

    Args:
        features: one row per input place, floating point.
        kernel: a matrix for each of its offsets, of the features' dtype.
        pairs, back, offsets: which input row meets which output row at which offset, as
            `geonorm.kernel_maps.KernelMap` has them.
        num_out: output places.

    Shape:
        features (N, C), kernel (K, C, C_out), pairs and back (2, P), offsets (K + 1,); returns
        (num_out, C_out)

    Raises:
        TypeError: features are not floating point, or the kernel is of another dtype.
        ValueError: shapes that do not fit each other.
        IndexError: pairs of rows that are not there.
    """
    if not features.is_floating_point() or features.dtype != kernel.dtype:
        raise TypeError(
            f"features and kernel must have one floating point dtype; got {features.dtype} and "
            f"{kernel.dtype}"
        )
    expected = (offsets.shape[0] - 1, features.shape[-1])
    if features.ndim != 2 or kernel.ndim != 3 or kernel.shape[:2] != expected:
        raise ValueError(
            "features must be (N, C) and kernel (K, C, C_out) with an end for each of K offsets; "
            f"got {tuple(features.shape)}, {tuple(kernel.shape)} and {offsets.shape[0]} offsets"
        )
    return SparseConv.run(features, kernel, pairs, back, offsets, num_out)


def sparse_conv_weight(features: Tensor, grad: Tensor, pairs: Tensor, back: Tensor, offsets: Tensor
                       ) -> Tensor:
    """Return the gradient (K, C, C_out) of the kernel, given that of the output."""
    return SparseConvWeight.run(features, grad, pairs, back, offsets)


torch.library.register_fake("geonorm::sparse_conv", _fake, lib=_LIBRARY)
torch.library.register_fake("geonorm::sparse_conv_weight", _fake_weight, lib=_LIBRARY)
derive(_LIBRARY, "sparse_conv", SparseConv)
derive(_LIBRARY, "sparse_conv_weight", SparseConvWeight)
_CONV: Any = torch.ops.geonorm.sparse_conv.default
_WEIGHT: Any = torch.ops.geonorm.sparse_conv_weight.default
