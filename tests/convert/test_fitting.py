"""Recalibration of converted models: least squares per channel, and by how much it helps."""

import copy

import pytest
import torch
from conftest import relative_error
from timm.layers import BatchNormAct2d
from torch import nn

from geonorm import BatchNorm, InstanceNorm, LayerNorm, convert
from geonorm.convert.fitting import _Fit
from helpers.minkunet_cases import ME, MinkUNet14A, batch, scan
from helpers.models import randomized, small


def trained():
    """Return a net whose batch norms have the statistics of its data, and the data."""
    model = randomized(small())
    generator = torch.Generator().manual_seed(5)
    data = [torch.randn(8, 3, 12, 12, generator=generator) * (1 + n) for n in range(3)]
    for _ in range(30):
        for x in data:
            model(x)
    return model.eval(), data


def test_recalibration_changes_the_function_less_and_says_by_how_much():
    model, data = trained()
    kept, fitted = copy.deepcopy(model), copy.deepcopy(model)
    convert(kept)
    report = convert(fitted, data=iter(data))

    def distance(other):
        with torch.no_grad():
            old, new = (torch.cat([net(x) for x in data]) for net in (model, other))
        return relative_error(new, old)

    assert report.kept_change == pytest.approx(distance(kept), rel=1e-4)
    assert report.fitted_change == pytest.approx(distance(fitted), rel=1e-4)
    assert report.fitted_change < 0.9 * report.kept_change
    assert {row.affine for row in report.rows} == {"fitted"}
    assert "the model's output changed by" in str(report)
    assert not fitted.training


def test_recalibration_leaves_modes_and_unreached_norms_as_they_were():
    model, data = trained()
    model.train()
    model[1].eval()
    model.add_module("unused", nn.Sequential(nn.BatchNorm2d(7)))
    randomized(model)
    weight = model.unused[0].weight.clone()
    report = convert(model, data=data, forward=lambda net, x: net[:6](x))
    assert [module.training for module in model] == [True, False, True, True, True, True, True]
    assert report.rows[-1].change is None
    assert [row.affine for row in report.rows] == ["fitted", "fitted", "fitted", "kept"]
    assert torch.equal(model.unused[0].weight, weight)


def test_parameters_are_not_fitted_where_that_changes_the_output_more():
    old = nn.BatchNorm2d(1)  # in evaluation, and as it is new, the identity
    model = nn.Sequential(old).eval()
    x = InstanceNorm(1)(torch.randn(2, 1, 8, 8)).detach()
    x[1] += 10  # an offset that the fit spreads over both, while the output is of the first alone
    report = convert(model, data=[x], forward=lambda net, x: net(x)[:1])
    assert report.kept_change < 1e-3
    assert report.fitted_change > 1
    assert [row.affine for row in report.rows] == ["kept"]
    assert (model[0].weight.item(), model[0].bias.item()) == (1, 0)
    assert not old._forward_hooks


def test_parameters_are_not_fitted_where_that_changes_nothing():
    model = nn.Sequential(nn.BatchNorm2d(1)).eval()
    x = 3 * torch.randn(2, 1, 8, 8)
    report = convert(model, data=[x], forward=lambda net, x: 1 + 0 * net(x))
    assert report.kept_change == report.fitted_change == 0
    assert [row.affine for row in report.rows] == ["kept"]
    assert (model[0].weight.item(), model[0].bias.item()) == (1, 0)


@pytest.mark.parametrize(("to", "kind"), [("instance", InstanceNorm), ("layer", LayerNorm)])
def test_recalibration_is_least_squares(to, kind):
    model, data = trained()
    first = nn.Sequential(*copy.deepcopy(model)[:2])
    old = copy.deepcopy(first)
    report = convert(first, to, data=data)
    z, t = [], []
    plain = kind(8, affine=False)
    with torch.no_grad():
        for x in data:
            z.append(plain(old[0](x).double()).movedim(1, -1).reshape(-1, 8))
            t.append(old(x).double().movedim(1, -1).reshape(-1, 8))
    z, t = torch.cat(z), torch.cat(t)
    weight, bias = (p.detach() for p in first[1].parameters())
    for channel in range(8):
        design = torch.stack([z[:, channel], torch.ones(len(z)).double()], 1)
        solution = torch.linalg.lstsq(design, t[:, channel:channel + 1]).solution.flatten()
        assert float(weight[channel]) == pytest.approx(float(solution[0]), rel=1e-4)
        assert float(bias[channel]) == pytest.approx(float(solution[1]), rel=1e-4)
    assert report.rows[0].change == pytest.approx(report.fitted_change, rel=1e-3)


def test_a_channel_that_is_the_same_everywhere_is_fitted_by_its_offset_alone():
    height = 100 + 200 * torch.rand(1, 1, 6, 6, dtype=torch.float64)
    x = torch.cat([height, -height], 1)  # a layer norm of two such channels leaves 1 and -1
    model = nn.Sequential(nn.BatchNorm2d(2)).double().eval()
    report = convert(model, "layer", data=[x])
    assert [row.affine for row in report.rows] == ["fitted"]
    assert model[0].weight.tolist() == [0, 0]  # not what rounding leaves, by what rounding leaves
    assert torch.allclose(model[0].bias, x.mean((0, 2, 3)), rtol=1e-4)


def test_one_position_is_fitted_by_its_offset() -> None:
    fit = _Fit(2, torch.device("cpu"))
    fit.add(torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0, 5.0]]))
    weight, bias, rest = fit.solve()
    assert (weight.tolist(), bias.tolist(), rest) == ([0, 0], [3, 5], 0)


def test_data_that_the_model_cannot_take_leave_no_hooks_and_no_new_norms():
    model = small().train()
    model[0].eval()
    with pytest.raises(RuntimeError, match="to have 3 channels, but got 5"):
        convert(model, data=[torch.ones(1, 3, 9, 9), torch.ones(1, 5, 9, 9)])
    assert type(model[1]) is nn.BatchNorm2d
    assert not model[1]._forward_hooks
    modes = [module.training for module in model.modules()]
    assert modes == [True, False, *[True] * (len(modes) - 2)]


@pytest.mark.parametrize("to", [nn.RMSNorm, ME.MinkowskiInstanceNorm])
def test_norms_without_a_bias_or_with_rows_of_weights_are_not_fitted(to):
    model = small()
    with pytest.raises(ValueError, match=rf"a bias per channel; {to.__name__} at '1' has none"):
        convert(model, to, data=[torch.ones(1, 3, 9, 9)])
    assert type(model[1]) is nn.BatchNorm2d


def test_recalibration_where_the_channels_come_last():
    model, x = nn.Sequential(nn.LayerNorm(4)), torch.randn(2, 9, 4) + torch.arange(4.0)
    target = model(x).detach()
    report = convert(model, layout="BLC", data=[x])
    z = (x - x.mean(1, keepdim=True)) / x.var(1, keepdim=True, correction=0).sqrt()
    expected = (z * target).mean((0, 1))  # z has mean 0 and variance 1
    assert torch.allclose(model[0].weight, expected, atol=1e-4)
    assert torch.allclose(model[0].bias, target.mean((0, 1)), atol=1e-4)
    assert [row.affine for row in report.rows] == ["fitted"]


def test_recalibration_of_a_sparse_model():
    torch.manual_seed(0)
    model = MinkUNet14A(3, 5, norm={"default": "none", "stem": "batch"})
    data = [batch(scan(), scan(200, seed=1))]
    for _ in range(20):
        model(data[0])
    report = convert(model.eval(), data=data)
    assert report.fitted_change < report.kept_change


def test_an_activation_inside_a_norm_is_no_part_of_what_is_fitted():
    inside = nn.Sequential(BatchNormAct2d(3, drop_layer=nn.Dropout2d))
    apart = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU())
    for model in (inside, apart):
        model[0].load_state_dict(randomized(nn.BatchNorm2d(3)).state_dict())
    data = [torch.randn(4, 3, 9, 9, generator=torch.Generator().manual_seed(n)) for n in (0, 1)]
    reports = [convert(model.eval(), data=data) for model in (inside, apart)]
    assert torch.equal(inside[0][0].weight, apart[0].weight)
    assert torch.equal(inside[0][0].bias, apart[0].bias)
    assert reports[0].fitted_change == reports[1].fitted_change < reports[0].kept_change


def test_a_residual_is_no_part_of_what_is_fitted():
    class Block(nn.Module):
        def __init__(self, inside):
            super().__init__()
            self.norm, self.inside = BatchNorm(3), inside

        def forward(self, x, index):
            if self.inside:
                return self.norm(x, batch_index=index, residual=x)
            return self.norm(x, batch_index=index) + x

    index = torch.tensor([0] * 40 + [1] * 24)
    data = [torch.randn(64, 3, generator=torch.Generator().manual_seed(n)) for n in (0, 1)]
    models = [Block(inside) for inside in (True, False)]
    for model in models:
        model.norm.load_state_dict(randomized(nn.BatchNorm2d(3)).state_dict())
        model.eval()
        convert(model, data=data, forward=lambda net, x: net(x, index))
    assert isinstance(models[0].norm, InstanceNorm)
    torch.testing.assert_close(models[0].norm.weight, models[1].norm.weight)
    torch.testing.assert_close(models[0].norm.bias, models[1].norm.bias)
    assert not torch.equal(models[0].norm.weight, randomized(nn.BatchNorm2d(3)).weight)
