"""torch.func's grad, jvp, jacrev, vmap and their like through the operators, on every backend."""

from functools import partial

import pytest
import torch
from conftest import TOLERANCES, relative_error
from torch.func import grad, jacfwd, jacrev, jvp, linearize, vmap
from torch.utils._python_dispatch import TorchDispatchMode

from geonorm.ops.segment_norm import segment_stats
from helpers import axis_norm_cases as dense
from helpers import segment_norm_cases as rows_of

# Forward mode loads torch's decompositions, which ask torch.jit for something deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script")
FLOAT64 = TOLERANCES["float64 against float64"]
SIZES = (4, 0, 1, 6)
AXES = [2, 4]


def randn(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def segments(norm, activation):
    """Return a loss of rows, weight, bias and residual, and values for them."""
    rows, index = rows_of.batch(SIZES, channels=4, dtype=torch.float64)
    weights = torch.arange(len(rows)).remainder(3).add(1).double()

    def loss(rows, weight, bias, residual):
        out = norm(rows, index, 4, weight, bias, weights, 2, 0.1, activation, 0.3, residual)
        return (out**3).mean()

    return loss, (rows, *rows_of.parameters((4, 4), torch.float64), randn(11, 4, seed=9))


def clips(norm, activation):
    def loss(x, weight, bias, residual):
        return (norm(x, AXES, weight, bias, 0.1, activation, 0.3, residual) ** 3).mean()

    shape = (2, 3, 2, 2, 3)
    return loss, (randn(*shape, seed=6), *dense.parameters(3, torch.float64), randn(*shape, seed=7))


CASES = {
    "segment_norm": (partial(segments, rows_of.segment_norm), partial(segments, rows_of.by_torch)),
    "axis_norm": (partial(clips, dense.axis_norm), partial(clips, dense.by_torch)),
}
ACTIVATIONS = ("none", "relu", "leaky_relu")
ALL = (0, 1, 2, 3)


@pytest.fixture(params=CASES)
def case(request):
    return request.param


def both(case, activation="leaky_relu"):
    """Return our loss, torch's and the values of their four arguments."""
    (ours, values), (torchs, _) = (make(activation) for make in CASES[case])
    return ours, torchs, values


def compare(found, expected, tolerance=FLOAT64):
    found, expected = ([*torch.utils._pytree.tree_leaves(tree)] for tree in (found, expected))
    for k, (actual, exact) in enumerate(zip(found, expected, strict=True)):
        assert exact.norm() > 1e-3, k
        assert relative_error(actual, exact) < tolerance, k


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_grad(backend, case, activation):
    ours, torchs, values = both(case, activation)
    compare(grad(ours, ALL)(*values), grad(torchs, ALL)(*values))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_without_parameters_or_residual(backend, case, activation):
    ours, torchs, (x, *_) = both(case, activation)
    found, expected = (partial(loss, weight=None, bias=None, residual=None)
                       for loss in (ours, torchs))
    compare(grad(found)(x), grad(expected)(x))
    compare(jacfwd(found)(x), grad(expected)(x))


@pytest.mark.parametrize(("activation", "share"), [("relu", 0.0), ("leaky_relu", 0.3)])
def test_at_zero_an_activation_lets_through_what_torchs_does(backend, activation, share):
    x = torch.full((2, 3, 4), 5.0, dtype=torch.float64)
    index = torch.tensor([0, 1, 0])

    def of_clips(bias, residual):
        return (dense.axis_norm(x, [2], None, bias, 0.1, activation, 0.3, residual)).sum()

    def of_rows(bias, residual):
        return rows_of.segment_norm(x[0], index, 2, None, bias, None, 4, 0.1, activation, 0.3,
                                    residual).sum()

    for norm, places, each in ((of_clips, x, 8), (of_rows, x[0], 3)):
        zeros = torch.zeros(3 if places.ndim == 3 else 4, dtype=torch.float64)
        plain, added = grad(norm)(zeros, None), grad(norm, (0, 1))(zeros, torch.zeros_like(places))
        for found in (plain, added[0]):
            torch.testing.assert_close(found, torch.full_like(zeros, share * each))
        assert torch.equal(added[1], torch.full_like(places, share))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("moved", [ALL, (0,), (1, 3)])
def test_jvp_against_finite_differences(backend, case, activation, moved):
    ours, _, values = both(case, activation)
    tangents = [torch.randn_like(v) for v in values]

    def along(step):
        return ours(*(v + step * t if k in moved else v
                      for k, (v, t) in enumerate(zip(values, tangents, strict=True))))

    def function(*chosen):
        given = dict(zip(moved, chosen, strict=True))
        return ours(*(given.get(k, v) for k, v in enumerate(values)))

    value, found = jvp(function, tuple(values[k] for k in moved), tuple(tangents[k] for k in moved))
    compare((value, found), (ours(*values), (along(1e-5) - along(-1e-5)) / 2e-5), 1e-7)


@pytest.mark.parametrize("outer", [jacrev, jacfwd])
@pytest.mark.parametrize("inner", [jacrev, jacfwd])
def test_second_derivatives_in_every_mode(backend, case, outer, inner):
    ours, torchs, values = both(case)
    compare(outer(inner(ours), 0)(*values), jacrev(jacrev(torchs), 0)(*values))


@pytest.mark.parametrize("derive", [grad, jacfwd])
def test_third_derivative_against_finite_differences(backend, case, derive):
    """Torch's own instance norm is right to the second derivative only."""
    ours, torchs, values = both(case)
    step, zero = torch.randn_like(values[0]), torch.zeros((), dtype=torch.float64)

    def along(loss, t):
        return loss(values[0] + t * step, *values[1:])

    second = grad(grad(partial(along, torchs)))
    compare(derive(derive(derive(partial(along, ours))))(zero),
            (second(zero + 1e-5) - second(zero - 1e-5)) / 2e-5, 1e-7)


def test_what_no_rule_serves_is_refused_not_zero(backend, case):
    ours, _, values = both(case)
    with pytest.raises(RuntimeError, match=r"jvp is not implemented|Nested forward mode"):
        linearize(ours, *values)


def test_hessian_vector_product(backend, case):
    ours, torchs, values = both(case)
    tangents = tuple(torch.randn_like(v) for v in values)
    leaves = [v.clone().requires_grad_() for v in values]
    first = torch.autograd.grad(torchs(*leaves), leaves, create_graph=True)
    expected = torch.autograd.grad(first, leaves, tangents)
    compare(jvp(grad(ours, ALL), values, tangents)[1], expected)


@pytest.mark.parametrize("in_dims", [(0, None, None, None), (1, None, None, 0), (0, 0, 0, None)])
def test_gradients_of_each_sample(backend, case, in_dims):
    ours, torchs, values = both(case)
    samples = [[v if dim is None else v * (k + 1) + k for k in range(3)]
               for v, dim in zip(values, in_dims, strict=True)]
    batched = [s if dim is None else torch.stack([*several], dim)
               for s, several, dim in zip(values, samples, in_dims, strict=True)]
    samples = [[s] * 3 if torch.is_tensor(s) else s for s in samples]
    found = vmap(grad(ours, ALL), in_dims)(*batched)
    each = [grad(torchs, ALL)(*(several[k] for several in samples)) for k in range(3)]
    compare(found, [torch.stack(several) for several in zip(*each, strict=True)])


def test_an_index_for_each_sample(backend):
    rows, index = rows_of.batch(SIZES, channels=4, dtype=torch.float64)
    indices = torch.stack([index, index.flip(0), 3 - index])

    def loss(norm, rows, index):
        return (norm(rows, index, 4, eps=0.1) ** 3).sum()

    found = vmap(grad(partial(loss, rows_of.segment_norm)), (None, 0))(rows, indices)
    each = [grad(partial(loss, rows_of.by_torch))(rows, index) for index in indices]
    compare(found, torch.stack(each))


def test_ordinary_autograd_goes_through_a_transform(backend, case):
    ours, torchs, values = both(case)

    def penalty(loss):
        leaves = [v.clone().requires_grad_() for v in values]
        return torch.autograd.grad(grad(loss)(*leaves).square().sum(), leaves)

    compare(penalty(ours), penalty(torchs))


@pytest.mark.parametrize("weighted", [False, True])
def test_statistics(backend, weighted):
    rows, index = rows_of.batch(SIZES, channels=4, dtype=torch.float64)
    weights = torch.arange(len(rows)).remainder(3).add(1).double() if weighted else None

    def ours(rows):
        mean, var = segment_stats(rows, index, 4, weights, 4)
        return (mean * (var + 1).log()).sum()

    def formula(rows):
        total = 0
        for mine in (index == k for k in (0, 2, 3)):
            share = torch.ones(int(mine.sum())).double() if weights is None else weights[mine]
            share = (share / share.sum())[:, None]
            mean = (rows[mine] * share).sum(0)
            var = ((rows[mine] - mean) ** 2 * share).sum(0)
            total = total + (mean * (var + 1).log()).sum()
        return total

    tangent = torch.randn_like(rows)
    for transform in (grad, lambda f: lambda x: jvp(f, (x,), (tangent,))[1],
                      lambda f: jacrev(jacrev(f)), lambda f: jacfwd(jacfwd(f)),
                      lambda f: lambda x: vmap(grad(f))(torch.stack([x, x * 2, x - 1]))):
        compare(transform(ours)(rows), transform(formula)(rows))


class Called(TorchDispatchMode):
    """Notes the names of the operators that run."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(str(func))
        return func(*args, **(kwargs or {}))


def test_a_gradient_runs_the_kernels(backend, case):
    ours, _, values = both(case)
    with Called() as called:
        grad(ours, ALL)(*values)
    assert {f"geonorm.{case}.default", f"geonorm.{case}_backward.default"} <= called.names


def test_no_sample_at_all(backend):
    with pytest.raises(ValueError, match="segment_norm cannot be vmapped over no samples"):
        vmap(lambda rows: rows_of.segment_norm(rows, torch.tensor([0, 0]), 1))(torch.ones(0, 2, 3))
