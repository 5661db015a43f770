"""recompute_activations: the same gradients in less memory, and what it refuses."""

import copy
from functools import partial

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from geonorm import AxisInstanceNorm, GroupNorm, InstanceNorm, LayerNorm, Rows
from geonorm.models import r3d_18, resnet3d
from geonorm.recompute import recompute_activations
from helpers.memory import kept_bytes


class Residuals(nn.Module):
    """A stem and blocks that each add their input, as deep as one asks for."""

    def __init__(self, depth: int, norm=InstanceNorm) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.first = norm(6, activation="relu")
        self.convs = nn.ModuleList(nn.Conv2d(6, 6, 3, padding=1) for _ in range(depth))
        self.norms = nn.ModuleList(norm(6, activation="relu") for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.stem(x))
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(conv(x), residual=x)
        return x


def gradients(model: nn.Module, x: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    out = model(x)
    wave = torch.arange(out.numel()).reshape(out.shape).sin()
    return [*torch.autograd.grad((out * wave).sum(), [x, *model.parameters()])]


def assert_same_gradients(model: nn.Module, x: Tensor, **options: int) -> None:
    """Assert that recomputing changes no bit of any gradient."""
    expected = gradients(model, x)
    assert expected[0].any()  # not so after instance norms of one position
    with recompute_activations(model, **options):
        actual = gradients(model, x)
    assert all(map(torch.equal, actual, expected))


NETWORKS = {
    "r3d_18": (lambda: r3d_18(5), (2, 3, 4, 32, 32)),
    "r3d_18 of IBN-a": (lambda: r3d_18(5, norm="ibn-a"), (2, 3, 4, 32, 32)),
    "r3d_18 of layer norm": (lambda: r3d_18(5, norm="layer"), (2, 3, 4, 32, 32)),
    "r3d_18 of group norm": (lambda: r3d_18(5, norm="group"), (2, 3, 4, 32, 32)),
    "bottlenecks": (lambda: resnet3d(50, 5, width=8), (2, 3, 16, 64, 64)),
    "a long chain": (lambda: Residuals(11), (2, 3, 9, 8)),
    "axes": (
        lambda: Residuals(3, lambda c, **o: AxisInstanceNorm(c, axes="H", layout="BCHW", **o)),
        (2, 3, 9, 8),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_the_same_bits(name) -> None:
    build, shape = NETWORKS[name]
    torch.manual_seed(0)
    model, x = build(), torch.randn(shape)
    assert_same_gradients(model, x)


@pytest.mark.parametrize("chain", [1, 2, 3, 20])
def test_a_chain_of_any_length_gives_the_same_gradients(chain) -> None:
    model, x = Residuals(7), torch.randn(2, 3, 9, 8)
    assert_same_gradients(model, x, chain=chain)


def test_each_output_is_computed_again_once(monkeypatch) -> None:
    model, x = Residuals(8), torch.randn(2, 3, 9, 8)
    calls = []

    def counted(norm: nn.Module, *arguments: Tensor, **options: Tensor) -> Tensor:
        calls.append(norm)
        return InstanceNorm.forward(norm, *arguments, **options)

    with recompute_activations(model):
        out = model(x)
        for norm in (model.first, *model.norms):
            monkeypatch.setattr(norm, "forward", partial(counted, norm))
        loss = out.sum()
        loss.backward(retain_graph=True)
    # The last one's output is kept by nobody but itself, and the fifth of a chain is kept.
    assert len(calls) == len({*calls})
    assert model.norms[4] not in calls
    assert {model.first, *model.norms[:4], *model.norms[5:7]} <= {*calls}
    # Who asked last has let the output go, though the graph lives on.
    once = len(calls)
    loss.backward()
    assert calls[once:] == calls[:once]


def test_it_keeps_little_more_than_half() -> None:
    model, x = r3d_18(5), torch.randn(1, 3, 16, 56, 56)
    ordinary = kept_bytes(model, x)
    with recompute_activations(model):
        less = kept_bytes(model, x)
    assert less < 0.6 * ordinary
    assert kept_bytes(model, x) == ordinary  # as before, once it has ended


def test_it_works_from_the_call_until_it_is_stopped() -> None:
    model, x = Residuals(4), torch.randn(2, 3, 16, 16)
    ordinary, switch = kept_bytes(model, x), recompute_activations(model)
    assert kept_bytes(model, x) < 0.8 * ordinary
    with torch.no_grad():
        expected = model(x)
    switch.stop()
    switch.stop()  # of no effect again
    assert kept_bytes(model, x) == ordinary
    assert torch.equal(model(x), expected)


def test_the_longer_the_chain_the_less_is_kept() -> None:
    model, x, kept = Residuals(12), torch.randn(2, 3, 64, 64), []
    for chain in (1, 3, 12):
        with recompute_activations(model, chain=chain):
            kept.append(kept_bytes(model, x))
    image = x.numel() * 2 * 4  # bytes of six channels
    # Of twelve every second is kept, then every fourth, then the last, which is the result.
    assert kept[0] - kept[1] == pytest.approx((6 - 3) * image, rel=0.01)
    assert kept[1] - kept[2] == pytest.approx((3 - 1) * image, rel=0.01)


def test_gradients_of_gradients_are_the_same() -> None:
    model, x = Residuals(3).double(), torch.randn(1, 3, 5, 4).double().requires_grad_()

    def twice() -> Tensor:
        (slope,) = torch.autograd.grad(model(x).pow(3).sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), x)[0]

    expected = twice()
    with recompute_activations(model):
        actual = twice()
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=0)


def test_a_graph_can_be_used_twice() -> None:
    model, x = Residuals(6), torch.randn(2, 3, 9, 8)
    with recompute_activations(model):
        out = model(x).sum()
    first = torch.autograd.grad(out, [*model.parameters()], retain_graph=True)
    second = torch.autograd.grad(out, [*model.parameters()])
    assert all(map(torch.equal, first, second))


def test_what_is_changed_in_place_after_a_norm_is_right() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        InstanceNorm(4),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 4, 3),
        InstanceNorm(4, activation="relu"),
        nn.Conv2d(4, 2, 1),
    )
    x = torch.randn(2, 3, 9, 9)
    assert_same_gradients(model, x)


class OfViews(nn.Module):
    """Layers of a norm's output on its side, and of a part of it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv2d(3, 4, 3), InstanceNorm(4, activation="relu")
        self.two, self.three = nn.Conv2d(4, 2, (3, 1)), nn.Conv2d(4, 2, (3, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.one(x))
        return self.two(x.transpose(2, 3)) + self.three(x[:1]) * self.three(x[:, :, :, :1])


def test_views_of_an_output_are_not_taken_for_it() -> None:
    assert_same_gradients(OfViews(), torch.randn(2, 3, 9, 9))


def test_a_tensor_that_backward_needs_and_that_changed_is_refused() -> None:
    model, x = Residuals(1), torch.randn(2, 3, 9, 8)
    with recompute_activations(model):
        out = model(x).sum()
    with torch.no_grad():
        model.stem.weight.mul_(2)
        x.add_(1)
    with pytest.raises(RuntimeError, match=r"\(2, 3, 9, 8\) that backward needs has been changed"):
        out.backward()


def test_a_norm_with_a_hook_of_its_own_keeps_its_output() -> None:
    model, x = Residuals(3), torch.randn(2, 3, 9, 8)
    model.norms[1].register_forward_hook(lambda norm, given, out: out * 2)
    model.norms[2].register_forward_pre_hook(lambda norm, given: (given[0] + 1,))
    assert_same_gradients(model, x)


def test_after_an_error_everything_is_as_before() -> None:
    model, x = Residuals(2), torch.randn(2, 3, 9, 8)
    expected = gradients(model, x)
    with recompute_activations(model):
        with pytest.raises(RuntimeError, match="expected input"):
            model(torch.randn(2, 4, 9, 8))
        model.stem, good = nn.Conv2d(3, 5, 3), model.stem
        with pytest.raises(ValueError, match="Did you mean"):
            model(x)
        model.stem = good
        w = torch.randn(3, requires_grad=True)
        assert w.exp().grad_fn._raw_saved_result is not None  # saved by torch alone
        assert all(map(torch.equal, gradients(model, x), expected))


def test_rows_and_every_norm_that_takes_them() -> None:
    scan = torch.tensor([0, 1, 0, 2, 1, 0, 2, 2])

    class Rowwise(nn.Module):
        def __init__(self, norm) -> None:
            super().__init__()
            self.one, self.norm, self.two = nn.Linear(3, 6), norm, nn.Linear(6, 2)

        def forward(self, rows: Tensor) -> Tensor:
            return self.two(self.norm(self.one(rows), scan, num_instances=4))

    for norm in (InstanceNorm(6, activation="relu"), GroupNorm(6, num_groups=2), LayerNorm(6)):
        model, x = Rowwise(norm), torch.randn(8, 3)
        assert_same_gradients(model, x)


class OfRows(nn.Module):
    """Two norms of rows in their container, one behind the other, and a layer behind each."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.first = nn.Linear(3, 6), InstanceNorm(6, activation="relu")
        self.two, self.second = nn.Linear(6, 6), InstanceNorm(6, activation="relu")
        self.three = nn.Linear(6, 2)

    def forward(self, features: Tensor) -> Tensor:
        rows = self.first(Rows(self.one(features), torch.arange(len(features)) % 3))
        rows = self.second(rows.replace(self.two(rows.features)), residual=rows)
        return self.three(rows.features)


def test_rows_in_their_container() -> None:
    model, x = OfRows(), torch.randn(3000, 3)
    assert_same_gradients(model, x)
    ordinary = kept_bytes(model, x)
    with recompute_activations(model):
        less = kept_bytes(model, x)
    # What both norms return is not kept: six channels of each row.
    assert ordinary - less == pytest.approx(2 * 3000 * 6 * 4, rel=0.01)


def test_a_copy_of_a_switched_model_works_by_itself() -> None:
    model, x = Residuals(3), torch.randn(2, 3, 9, 8)
    expected = gradients(model, x)
    with recompute_activations(model):
        twin = copy.deepcopy(model)
        assert all(map(torch.equal, gradients(twin, x), expected))


@pytest.mark.parametrize(
    ("model", "chain", "error", "match"),
    [
        (nn.Conv2d(3, 3, 1), 4, ValueError, "Conv2d holds none of the norms"),
        (InstanceNorm(3), 0, ValueError, "chain must be 1 or more; got 0"),
        (InstanceNorm(3), 1.5, TypeError, "chain must be a whole number; got float"),
    ],
)
def test_what_cannot_be_is_refused(model, chain, error, match) -> None:
    with pytest.raises(error, match=match):
        recompute_activations(model, chain=chain)


def test_under_torch_compile_it_is_off_and_says_so() -> None:
    model, x = Residuals(2), torch.randn(2, 3, 9, 8)
    expected = gradients(model, x)
    with recompute_activations(model):
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        with pytest.warns(UserWarning, match="does nothing under torch.compile"):
            actual = gradients(compiled, x)
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_in_half_precision_the_bits_are_the_same_and_less_is_kept() -> None:
    model, x = Residuals(8), torch.randn(2, 3, 33, 32)
    with torch.autocast("cpu", torch.bfloat16):
        assert model.first(model.stem(x)).dtype == torch.bfloat16
        expected, ordinary = gradients(model, x), kept_bytes(model, x)
        assert all(map(torch.equal, gradients(model, x), expected))  # torch's own are the same
        with recompute_activations(model):
            assert all(map(torch.equal, gradients(model, x), expected))
            assert kept_bytes(model, x) < 0.7 * ordinary


def _train(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    trained = []
    for recompute in (False, True):
        torch.manual_seed(0)
        model = Residuals(4)
        if recompute:
            recompute_activations(model)
        parallel = nn.parallel.DistributedDataParallel(model)
        optimizer = torch.optim.SGD(parallel.parameters(), lr=0.1)
        for step in range(3):
            generator = torch.Generator().manual_seed(10 * step + rank)
            parallel(torch.randn(2, 3, 9, 8, generator=generator)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        trained.append([*model.parameters()])
    if rank == 0:
        torch.save(trained, f"{folder}/trained.pt")
    dist.destroy_process_group()


@pytest.mark.slow  # 10 to 20 s
def test_two_processes_train_to_the_same_bits(tmp_path) -> None:
    torch.multiprocessing.spawn(_train, (str(tmp_path),), nprocs=2)
    ordinary, less = torch.load(tmp_path / "trained.pt")
    assert all(map(torch.equal, ordinary, less))
    torch.manual_seed(0)
    assert not any(map(torch.equal, Residuals(4).parameters(), less))
