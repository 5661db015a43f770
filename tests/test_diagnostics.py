"""The effective sample size, in closed forms, and what instance norms take out."""

import pytest
import torch
from torch import nn

from geonorm import (
    AxisInstanceNorm,
    BatchNorm,
    DomainInstanceNorm,
    InstanceBatchNorm,
    InstanceNorm,
    Rows,
    SpatioTemporalInstanceNorm,
    set_domain,
)
from geonorm.diagnostics import effective_sample_size, removed_statistics


def nested(between: float, within: float, batch: int = 4000, positions: int = 12) -> torch.Tensor:
    """Return (B, 2, positions): a value of each instance, plus one of each position."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(batch, 2, 1, generator=generator, dtype=torch.float64)
    noise = torch.randn(batch, 2, positions, generator=generator, dtype=torch.float64)
    return between * mean + within * noise


@pytest.mark.parametrize(("between", "within"), [(0.0, 1.0), (1.0, 1.0), (3.0, 0.5), (0.1, 2.0)])
def test_the_closed_form_of_nested_samples(between, within):
    found = effective_sample_size(nested(between, within) + 7)
    a, b = between**2, within**2
    expected = 4000 * (a + b) / (a + b / 12)
    assert found.tolist() == pytest.approx([expected] * 2, rel=0.06)


def test_a_case_by_hand_with_unequal_instances():
    """Means 2 and 6, variances 1 and 0: σ² = 0.5 + 4, Var(m) = 8, so 2 · 4.5 / 8."""
    rows = torch.tensor([[1.0], [6.0], [3.0], [6.0], [6.0]])
    index = torch.tensor([0, 1, 0, 1, 1])
    assert effective_sample_size(rows, index).item() == pytest.approx(1.125)
    assert effective_sample_size(Rows(rows, index)).item() == pytest.approx(1.125)


def test_rows_and_dense_and_any_gain_and_offset():
    x = nested(1.0, 1.0, batch=50)
    dense = effective_sample_size(x)
    index = torch.arange(50).repeat_interleave(12)
    rows = effective_sample_size(x.transpose(1, 2).flatten(0, 1), index)
    torch.testing.assert_close(rows, dense)
    torch.testing.assert_close(effective_sample_size(-9 * x + 4), dense)


def test_instances_of_one_mean():
    assert effective_sample_size(torch.tensor([[[1.0, 3.0]], [[0.0, 4.0]]])).item() == torch.inf
    assert effective_sample_size(torch.full((2, 1, 2), 3.0)).item() == torch.inf


@pytest.mark.parametrize(("x", "index", "message"), [
    (torch.randn(1, 3, 8), None, "expected two instances or more.*got 1"),
    (torch.randn(2, 3, 0), None, "expected positions in every instance; got an empty one"),
    (torch.randn(3, 2), torch.tensor([0, 2, 2]), "expected positions in every instance"),
    (torch.randn(3, 2), torch.tensor([0, 0, 0]), "expected two instances or more.*got 1"),
])  # fmt: skip
def test_batches_that_are_refused(x, index, message):
    with pytest.raises(ValueError, match=message):
        effective_sample_size(x, index)


def test_an_instance_that_is_told_and_has_no_rows_is_refused():
    rows, index = torch.randn(4, 2), torch.tensor([0, 1, 1, 0])
    assert effective_sample_size(rows, index, 2).isfinite().all()
    with pytest.raises(ValueError, match="expected positions in every instance"):
        effective_sample_size(rows, index, 3)


def test_inputs_that_are_refused():
    with pytest.raises(TypeError, match="floating point"):
        effective_sample_size(torch.ones(2, 3, 4, dtype=torch.int64))


def style_by_hand(x, axes, eps=1e-5):
    return x.mean(axes), (x.var(axes, correction=0) + eps).sqrt()


def test_statistics_that_the_norms_took_out():
    """Of what each norm was given: with these its output is undone."""
    instance, axes = InstanceNorm(4), SpatioTemporalInstanceNorm(4, axes="HW")
    model = nn.Sequential(instance, nn.Conv3d(4, 4, 1), axes, InstanceBatchNorm(4), BatchNorm(4),
                          nn.InstanceNorm3d(4)).eval()  # fmt: skip
    x = torch.randn(2, 4, 3, 5, 5) * 7 + 3
    with removed_statistics(model) as removed:
        out = model[0](x)
        model(x)
    assert {name: tuple(each.mean.shape) for name, each in removed.items()} == {
        "0": (2, 4), "2": (2, 4, 3), "3": (2, 2), "5": (2, 4),
    }  # fmt: skip
    assert not any(each.mean.requires_grad or each.std.requires_grad for each in removed.values())
    style = removed["0"]
    torch.testing.assert_close((style.mean, style.std), style_by_hand(x, (2, 3, 4)))
    undone = out * style.std[..., None, None, None] + style.mean[..., None, None, None]
    torch.testing.assert_close(undone, x)
    second = model[1](out)
    torch.testing.assert_close((removed["2"].mean, removed["2"].std), style_by_hand(second, (3, 4)))
    third = axes(second)[:, :2]
    torch.testing.assert_close(removed["3"].mean, third.mean((2, 3, 4)), atol=1e-5, rtol=1e-4)
    before = removed["0"]
    model(x + 1)
    assert removed["0"] is before, "it went on after the block"


def test_statistics_of_rows_are_each_instances_own():
    model = nn.ModuleList([InstanceNorm(2)])
    x, index = torch.tensor([[1.0, 0.0], [5.0, 2.0], [3.0, 0.0]]), torch.tensor([0, 1, 0])
    with removed_statistics(model) as removed:
        model[0](x, index)
        assert removed["0"].mean.tolist() == [[2, 0], [5, 2]]
        model[0](Rows(x + 1, index))
    assert removed["0"].mean.tolist() == [[3, 1], [6, 3]]
    assert removed["0"].std[0].tolist() == pytest.approx([(1 + 1e-5) ** 0.5, 1e-5**0.5])


def test_what_a_norm_is_told_by_name_and_its_own_eps_count():
    instance, axes = InstanceNorm(2, eps=3.0), SpatioTemporalInstanceNorm(2, axes="T", eps=8.0)
    x, index = torch.tensor([[1.0, 0.0], [5.0, 2.0], [3.0, 0.0]]), torch.tensor([0, 1, 0])
    with removed_statistics(nn.ModuleList([instance, axes])) as removed:
        instance(x, batch_index=index, num_instances=3)
        axes(torch.tensor([1.0, 3.0]).view(1, 1, 2, 1, 1).expand(1, 2, 2, 1, 3).half())
    assert removed["0"].mean.tolist() == [[2, 0], [5, 2], [0, 0]]
    assert removed["0"].std[0].tolist() == pytest.approx([2, 3**0.5])
    assert removed["1"].mean.shape == (1, 2, 1, 3)
    assert removed["1"].mean.dtype == torch.float32
    assert (removed["1"].std == 3).all()


def test_statistics_of_a_norm_over_axes_come_with_batch_and_channels_first():
    norm, x = AxisInstanceNorm(3, layout="TBCF", axes="F"), torch.randn(4, 2, 3, 5)
    with removed_statistics(norm) as removed:
        norm(x)
        mean, std = removed[""].mean, removed[""].std
        norm(x[:, 1])
    expected = style_by_hand(x.permute(1, 2, 0, 3), 3)
    torch.testing.assert_close((mean, std), expected)
    torch.testing.assert_close(removed[""].mean, expected[0][1:])


def test_a_norm_of_domains_is_recorded_once_and_by_its_own_name():
    norm = DomainInstanceNorm(3, num_domains=2)
    set_domain(norm, [1, 0])
    x = torch.randn(2, 3, 4, 5)
    with removed_statistics(nn.Sequential(nn.Identity(), norm)) as removed:
        norm(x)
    assert [*removed] == ["1"]
    torch.testing.assert_close((removed["1"].mean, removed["1"].std), style_by_hand(x, (2, 3)))


def test_a_model_that_takes_nothing_out_of_an_instance():
    with pytest.raises(ValueError, match="which has none"), \
            removed_statistics(nn.Sequential(InstanceBatchNorm(4, ratio=0.0))):  # fmt: skip
        pass
    with pytest.raises(ValueError, match=r"expected a model with instance norms.*Sequential"), \
            removed_statistics(nn.Sequential(BatchNorm(3))):  # fmt: skip
        pass
