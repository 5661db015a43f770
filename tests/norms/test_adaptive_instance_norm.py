"""AdaptiveInstanceNorm and style statistics: any content, any style, derivatives, mixtures."""

import pytest
import torch
from conftest import TOLERANCES, relative_error

from geonorm import AdaptiveInstanceNorm, InstanceNorm, Rows
from geonorm.style import StyleStatistics, interpolate, mix_styles, style_statistics
from helpers.norm_family_cases import CHANNELS, KINDS, example, refill, rows, values

FLOAT32 = TOLERANCES["float32 against float64"]
LINEAR = 1e-6


def statistics(seed, instances=3):
    mean, std = rows(seed, 0.0, instances), rows(seed + 1, 0.0, instances).abs()
    return StyleStatistics(mean, std)


@pytest.mark.parametrize("style_kind", KINDS)
@pytest.mark.parametrize("kind", ["SparseTensor", "spconv", "index", "5-D"])
def test_any_content_takes_any_style(kind, style_kind):
    x, _, _ = example(kind)
    style, features, index = example(style_kind)
    if features.ndim > 2:
        features = features.movedim(1, -1).reshape(-1, CHANNELS)
    wanted = refill(style, values(style) * 4 - 9)
    parts = [features.double()[index == instance] * 4 - 9 for instance in range(3)]
    std = torch.stack([part.var(0, correction=0).add(1e-5).sqrt() for part in parts])
    mean = torch.stack([part.mean(0) for part in parts])
    found = style_statistics(wanted)
    assert relative_error(found.mean, mean) < FLOAT32
    assert relative_error(found.std, std) < FLOAT32
    out = AdaptiveInstanceNorm(CHANNELS)(x, wanted)
    again = style_statistics(out)
    assert type(out) is type(x)
    assert relative_error(again.mean, mean) < FLOAT32
    assert relative_error(again.std, std) < 1e-4  # eps counts twice


@pytest.mark.parametrize("kind", KINDS)
def test_a_content_is_its_own_style_and_another_is_not(kind):
    x, features, _ = example(kind)
    norm = AdaptiveInstanceNorm(CHANNELS)
    assert relative_error(values(norm(x, x)), features) < FLOAT32
    assert relative_error(values(norm(x, refill(x, features * 2))), features) > 0.1


def test_a_content_is_its_own_style_at_any_eps():
    x, _, _ = example("5-D")
    assert relative_error(AdaptiveInstanceNorm(CHANNELS, eps=3.0)(x, x), x) < FLOAT32
    assert relative_error(AdaptiveInstanceNorm(CHANNELS, eps=3.0)(x, style_statistics(x)), x) > 1e-2


def test_a_style_of_one_instance_serves_the_whole_batch():
    x, _, _ = example("4-D")
    one = statistics(7, 1)
    out = AdaptiveInstanceNorm(CHANNELS)(x, one)
    same = StyleStatistics(one.mean.expand(3, -1), one.std.expand(3, -1))
    assert torch.equal(out, AdaptiveInstanceNorm(CHANNELS)(x, same))


@pytest.mark.parametrize("kind", ["index", "4-D"])
def test_linear_in_its_statistics(kind):
    x, _, _ = example(kind)
    norm, a, b = AdaptiveInstanceNorm(CHANNELS), statistics(3), statistics(5)
    outputs = [values(norm(x, style)) for style in (a, b)]
    for alpha in (0, 0.25, 1.0):
        between = values(norm(x, interpolate(a, b, alpha)))
        assert relative_error(between, outputs[0].lerp(outputs[1], alpha)) < LINEAR
    three = values(norm(x, mix_styles([a, b, statistics(9, 1)], [0.5, 0.2, 0.3])))
    third = values(norm(x, statistics(9, 1)))
    assert relative_error(three, 0.5 * outputs[0] + 0.2 * outputs[1] + 0.3 * third) < LINEAR
    squared = StyleStatistics((a.mean + b.mean) / 2, ((a.std**2 + b.std**2) / 2).sqrt())
    assert relative_error(values(norm(x, squared)), (outputs[0] + outputs[1]) / 2) > 1e-2


INDEX = torch.tensor([0, 1, 0, 1, 1, 0, 0, 1])


@pytest.mark.parametrize("kind", ["dense", "rows"])
def test_two_derivatives_of_statistics_and_output(kind):
    generator = torch.Generator().manual_seed(1)
    shape = (2, 2, 2, 2) if kind == "dense" else (8, 2)
    content, style = (torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
                      for _ in range(2))

    def of(features):
        return features if kind == "dense" else Rows(features, INDEX)

    def stats(features):
        found = style_statistics(of(features), eps=0.1)
        return found.mean, found.std

    def output(one, other):
        return values(AdaptiveInstanceNorm(2, eps=0.1)(of(one), of(other)))

    assert torch.autograd.gradcheck(stats, style)
    assert torch.autograd.gradgradcheck(stats, style)
    assert torch.autograd.gradcheck(output, (content, style))
    assert torch.autograd.gradgradcheck(output, (content, style))


@pytest.mark.parametrize("kind", ["index", "4-D"])
def test_a_style_loss_trains(kind):
    x, features, _ = example(kind)
    wanted, leaf = statistics(11), features.clone().requires_grad_()
    optimizer = torch.optim.Adam([leaf], lr=0.2)

    def loss():
        found = style_statistics(refill(x, leaf))
        return (found.mean - wanted.mean).square().mean() + (found.std - wanted.std).square().mean()

    before = loss().item()
    for _ in range(100):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss().item() < 0.02 * before


@pytest.mark.parametrize("kind", ["index", "4-D"])
def test_statistics_far_from_zero_keep_their_digits(kind):
    x, features, _ = example(kind)
    far = refill(x, features + 1e4)
    exact = style_statistics(refill(x, (features + 1e4).double()))
    assert relative_error(style_statistics(far).std, exact.std) < 1e-6


def test_constant_channels_have_finite_gradients():
    flat = torch.full((2, 3, 4, 4), 7.0, requires_grad=True)
    style = style_statistics(flat)
    assert relative_error(style.std, torch.full((2, 3), 1e-5).sqrt()) < FLOAT32
    (style.std.sum() + style.mean.sum()).backward()
    assert flat.grad.isfinite().all()
    out = AdaptiveInstanceNorm(3)(flat.detach(), statistics_of_three())
    assert relative_error(out.mean((2, 3)), statistics_of_three().mean.expand(2, 3)) < FLOAT32


def statistics_of_three():
    return StyleStatistics(torch.tensor([[1.0, -2.0, 3.0]]), torch.ones(1, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_content_and_style_of_different_dtypes(dtype):
    x, features, _ = example("index")
    out = values(AdaptiveInstanceNorm(CHANNELS)(refill(x, features.to(dtype)), statistics(3)))
    assert out.dtype == dtype
    exact = values(AdaptiveInstanceNorm(CHANNELS)(
        refill(x, features.to(dtype).double()), statistics(3)))
    assert relative_error(out, exact) < 2 * torch.finfo(dtype).eps


def test_compiles_into_one_graph():
    torch.compiler.reset()
    x, _, _ = example("4-D")
    norm = AdaptiveInstanceNorm(CHANNELS)
    compiled = torch.compile(lambda a, b: norm(a, b), fullgraph=True, backend="aot_eager")
    assert relative_error(compiled(x, x * 3 + 1), norm(x, x * 3 + 1)) < FLOAT32


X = torch.randn(2, 6, 4, 4)
NORM = AdaptiveInstanceNorm(6)
PAIR = (torch.randn(5, 6), torch.tensor([0, 0, 2, 2, 2]))
BAD = {
    "style of other channels": (lambda: NORM(X, torch.randn(2, 5, 4, 4)), ValueError,
                                "style must have the content's 6 channels; got 5"),
    "style of three": (lambda: NORM(X, torch.randn(3, 6, 4)), ValueError,
                       "style must have one instance or the content's 2; got 3"),
    "style empty": (lambda: NORM(X, torch.randn(2, 6, 0)), ValueError,
                    r"empty style has no statistics; got features \(2, 6, 0\)"),
    "style without rows": (lambda: NORM(X, Rows(PAIR[0][:0], PAIR[1][:0])), ValueError,
                           r"empty style has no statistics; got features \(0, 6\)"),
    "style with a hole": (lambda: NORM(X, Rows(*PAIR)), ValueError,
                          r"instances \[1\] have no rows"),
    "style a matrix": (lambda: NORM(X, PAIR[0]), ValueError, r"got \(5, 6\).*\(features, batch_"),
    "style integer": (lambda: NORM(X, X.long()), TypeError, "features must be floating point; got"),
    "style elsewhere": (lambda: NORM(X, StyleStatistics(*torch.ones(2, 1, 6, device="meta"))),
                        ValueError, "style is on meta, the content on cpu; move one"),
    "statistics of two shapes": (
        lambda: NORM(X, StyleStatistics(torch.ones(1, 6), torch.ones(6))), ValueError,
        r"must be two tensors \(B, C\); got mean \(1, 6\) and std \(6,\)"),
    "statistics of one axis": (
        lambda: NORM(X, StyleStatistics(torch.ones(6), torch.ones(6))), ValueError,
        r"must be two tensors \(B, C\); got mean \(6,\)"),
    "content of other channels": (lambda: NORM(X[:, :4], X), ValueError,
                                  r"Did you mean AdaptiveInstanceNorm\(4\)\?"),
    "eps": (lambda: style_statistics(X, eps=0), ValueError, "eps must be positive; got 0"),
    "alpha above": (lambda: interpolate(statistics(1), statistics(2), 1.01), ValueError,
                    r"alpha must lie in \[0, 1\]; got 1.01"),
    "alpha below": (lambda: interpolate(statistics(1), statistics(2), -0.1), ValueError,
                    r"\[0, 1\]; got -0.1"),
    "alpha NaN": (lambda: interpolate(statistics(1), statistics(2), float("nan")), ValueError,
                  "got nan"),
    "weights too few": (lambda: mix_styles([statistics(1)], []), ValueError,
                        "got 1 styles and 0 weights"),
    "weights too many": (lambda: mix_styles([statistics(1)], [0.5, 0.5]), ValueError,
                         "got 1 styles and 2 weights"),
    "eps NaN": (lambda: style_statistics(X, eps=float("nan")), ValueError, "got nan"),
    "no styles": (lambda: mix_styles([], []), ValueError, "one or more styles"),
    "weights negative": (lambda: mix_styles([statistics(1)] * 2, [2, -1]), ValueError,
                         r"must not be negative and must sum to 1; got \[2, -1\]"),
    "weights of another sum": (lambda: mix_styles([statistics(1)] * 2, [0.5, 0.6]), ValueError,
                               "which sum to 1.1"),
    "weights of too small a sum": (lambda: mix_styles([statistics(1)] * 2, [0.5, 0.25]), ValueError,
                                   r"got \[0.5, 0.25\], which sum to 0.75"),
    "weights NaN": (lambda: mix_styles([statistics(1)] * 2, [0.5, float("nan")]), ValueError,
                    "which sum to nan"),
    "styles of two sizes": (lambda: mix_styles([statistics(1, 2), statistics(1, 3)], [0.5, 0.5]),
                            ValueError, r"shapes \(2, 6\), \(3, 6\)"),
    "styles of two widths": (
        lambda: interpolate(statistics(1), StyleStatistics(*torch.ones(2, 3, 1)), 0.5),
        ValueError, r"same channels.*shapes \(3, 6\), \(3, 1\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_refusals(case):
    call, error, message = BAD[case]
    with pytest.raises(error, match=message):
        call()


def test_weights_may_sum_to_one_as_floats_do():
    weights = [0.1] * 10  # which sum to 0.9999999999999999
    mixed, one = mix_styles([statistics(1)] * 10, weights), statistics(1)
    assert sum(weights) != 1
    assert relative_error(mixed.std, one.std) < FLOAT32


def test_a_style_without_the_hole_passes():
    assert NORM(X, Rows(PAIR[0], offsets=torch.tensor([0, 2, 5]))).isfinite().all()
    assert relative_error(NORM(X, statistics(3, 1)), InstanceNorm(6)(X)) > 0.1
