"""sparse_conv under autograd, torch.func and torch.compile."""

import weakref

import pytest
import torch
from conftest import TOLERANCES, relative_error

from geonorm.ops.sparse_conv import sparse_conv, sparse_conv_weight
from helpers.sparse_conv_cases import by_matrices, case, convolved, largest_error

EXACT = TOLERANCES["float64 against float64"]


# torch's own machinery of forward mode calls it.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script")


def small():
    return case((3, 2), rows=(6, 5), pairs=(4, 0, 5))


def test_gradcheck_and_gradgradcheck(backend):
    one = small()
    leaves = one.features.requires_grad_(), one.kernel.requires_grad_()

    def function(features, kernel):
        return convolved(features, kernel, one.joined)

    assert torch.autograd.gradcheck(function, leaves, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(function, leaves)


def test_gradcheck_of_the_kernels_gradient(backend):
    one = small()
    leaves = one.features.requires_grad_(), one.grad.requires_grad_()

    def function(features, grad):
        return sparse_conv_weight(features, grad, *one.joined[:3])

    assert torch.autograd.gradcheck(function, leaves, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(function, leaves)


def test_only_what_is_asked_for_is_computed(backend):
    one = small()
    out = convolved(one.features, one.kernel.requires_grad_(), one.joined)
    with torch.autograd.profiler.profile() as profile:
        torch.autograd.grad(out, one.kernel, one.grad)
    called = [event.name for event in profile.function_events]
    assert "geonorm::sparse_conv_weight" in called
    assert "geonorm::sparse_conv" not in called
    out = convolved(one.features.requires_grad_(), one.kernel.detach(), one.joined)
    with torch.autograd.profiler.profile() as profile:
        torch.autograd.grad(out, one.features, one.grad)
    called = [event.name for event in profile.function_events]
    assert "geonorm::sparse_conv" in called
    assert "geonorm::sparse_conv_weight" not in called


# opcheck itself reads .grad of the non-leaf copies that it makes.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_opcheck(backend, dtype):
    one = case((4, 3)).to(dtype)
    features, kernel, grad = (x.requires_grad_() for x in one[:3])
    lists = one.joined[:3]
    torch.library.opcheck(torch.ops.geonorm.sparse_conv,
                          (features, kernel, *lists, one.joined.num_out))
    torch.library.opcheck(torch.ops.geonorm.sparse_conv_weight, (features, grad, *lists))


def test_compiles_into_one_graph(backend):
    torch.compiler.reset()

    def step(features, kernel, joined):
        return convolved(2 * features, kernel, joined).relu()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager", dynamic=True)
    for rows, pairs in (((40, 30), (30, 0, 11)), ((17, 21), (5, 16, 1))):
        one = case((4, 3), rows, pairs)
        leaves = one.features.requires_grad_(), one.kernel.requires_grad_()
        found, eager = (function(*leaves, one.joined) for function in (compiled, step))
        assert relative_error(found, eager) < EXACT
        for one_grad, other in zip(torch.autograd.grad(found, leaves, one.grad),
                                   torch.autograd.grad(eager, leaves, one.grad), strict=True):
            assert relative_error(one_grad, other) < EXACT


def test_transforms_of_torch_func(backend):
    one = small()
    out, grad_features, grad_kernel = by_matrices(one)

    def value(features, kernel):
        return (convolved(features, kernel, one.joined) * one.grad).sum()

    found = torch.func.grad(value, (0, 1))(one.features, one.kernel)
    assert largest_error(found[0], grad_features) < EXACT
    assert largest_error(found[1], grad_kernel) < EXACT
    batch = torch.stack([one.features, -2 * one.features])
    each = torch.func.vmap(lambda x: convolved(x, one.kernel, one.joined))(batch)
    assert largest_error(each, torch.stack([out, -2 * out])) < EXACT

    def along(features):
        return torch.func.jvp(lambda x: value(x, one.kernel) ** 2, (features,), (batch[1],))[1]

    # (v·x)² has the second derivative 2 (v·t)² along t, by forward mode in forward mode.
    second = torch.func.jvp(along, (one.features,), (batch[1],))[1]
    assert torch.allclose(second, 2 * (grad_features * batch[1]).sum() ** 2)


def test_nothing_else_keeps_what_hooks_put_away(backend):
    one = small()
    leaf, kernel = one.features.requires_grad_(), one.kernel.requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x.shape, lambda x: x):
        features = leaf.sin()
        kept = weakref.ref(features)
        out = convolved(features, kernel, one.joined)
    assert kept() is features
    del features
    assert kept() is None
    assert out.requires_grad


def test_saved_input_goes_through_hooks(backend):
    """What a network computes anew in its backward is put there by saved-tensor hooks."""
    one = small()
    leaves = one.features.requires_grad_(), one.kernel.requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(
        lambda x: (x,) if x.is_floating_point() else x,
        lambda x: 3 * x[0] if isinstance(x, tuple) else x,
    ):
        out = sparse_conv(*leaves, *one.joined[:3], one.joined.num_out)
    tripled = torch.autograd.grad(out, leaves, one.grad)
    for found, expected in zip(tripled, by_matrices(one)[1:], strict=True):
        assert largest_error(found, 3 * expected) < EXACT
