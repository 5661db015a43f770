"""Exported models compute what they computed, without an operator of this library."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, export

import geonorm
from geonorm import GroupNorm, InstanceNorm, LayerNorm, SpatioTemporalInstanceNorm
from geonorm.export import _twice, decomposed, exported, to_onnx
from geonorm.models import r3d_18

ort = pytest.importorskip("onnxruntime", reason="pip install 'geonorm[export]'")
LARGEST = 1e-4  # difference, as a share of the largest output


def operators(program: Any) -> set[str]:
    return {str(node.target) for node in program.graph.nodes if node.op == "call_function"}


def runs(path: Path, x: Tensor) -> Tensor:
    session = ort.InferenceSession(path)
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])


def difference(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


def network(norm: str) -> nn.Module:
    torch.manual_seed(0)
    model = r3d_18(num_classes=5, norm=norm)
    nn.init.normal_(model.fc.weight)  # it starts at zero, where every input gives the same
    for module in model.modules():  # not the statistics that a new batch norm has
        if getattr(module, "running_mean", None) is not None:
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


@pytest.mark.slow  # 14 s each; smaller models of all dimensions are exported below
@pytest.mark.parametrize("norm", ["instance", "ibn-a", "batch"])
def test_a_video_network_in_onnx(norm: str, tmp_path: Path) -> None:
    model, path = network(norm), tmp_path / "model.onnx"
    worst = to_onnx(model, torch.randn(2, 3, 16, 32, 32), path, notes={"classes": "[1]"})
    assert 0 < worst < LARGEST
    for sizes in ((1, 8), (3, 21)):  # batch and frames that were not tried
        x = 3 * torch.randn(sizes[0], 3, sizes[1], 32, 32) + 1
        with torch.no_grad():
            assert difference(runs(path, x), model(x)) < LARGEST
    found = ort.InferenceSession(path)
    assert found.get_modelmeta().custom_metadata_map["classes"] == "[1]"
    (given,) = found.get_inputs()
    assert [type(size) for size in given.shape] == [str, int, str, int, int]


@pytest.mark.slow
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_small_model_of_ones_own_in_onnx(dims: int, tmp_path: Path) -> None:
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    last = SpatioTemporalInstanceNorm(8) if dims == 3 else InstanceNorm(8, affine=False)
    torch.manual_seed(0)
    model = nn.Sequential(
        conv(3, 8, 3), InstanceNorm(8, activation="leaky_relu"), conv(8, 8, 3, padding=1),
        GroupNorm(8, num_groups=2, activation="relu"), LayerNorm(8), last,
    )  # fmt: skip
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, 0, 0.5) if "bias" in name else None
    path = tmp_path / "own.onnx"
    model[1].eval()
    to_onnx(model, torch.randn(2, 3, *[12] * dims), path, dynamic=range(2, 2 + dims))
    assert [module.training for module in model] == [True, False, *[True] * 4]
    x = torch.randn(2, 3, *range(9, 9 + dims)) * torch.tensor([0.1, 30]).view(2, *[1] * (dims + 1))
    with torch.no_grad():
        assert difference(runs(path, x), model(x)) < LARGEST


class OfRows(nn.Module):
    """A norm of rows and a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = InstanceNorm(4, activation="relu"), nn.Linear(4, 2)

    def forward(self, rows: Tensor, index: Tensor) -> Tensor:
        out: Tensor = self.linear(self.norm(rows, index, num_instances=3))
        return out


def test_rows_in_a_program_with_and_without_our_operators() -> None:
    torch.manual_seed(0)
    model = OfRows().eval()
    example = (torch.randn(30, 4), torch.arange(30) % 3)
    program = export(model, example, dynamic_shapes=({0: Dim.DYNAMIC}, {0: Dim.DYNAMIC}))
    assert "geonorm.segment_norm.default" in operators(program)
    plain = decomposed(program)
    assert not any("geonorm" in name for name in operators(plain))
    rows, index = 5 * torch.randn(5000, 4) + 2, torch.randint(0, 2, (5000,))
    with torch.no_grad():
        expected = model(rows, index)
        assert difference(program.module()(rows, index), expected) < 1e-6
        assert difference(plain.module()(rows, index), expected) < 1e-5


def test_every_norm_of_dense_tensors_loses_our_operators() -> None:
    norms: dict[str, nn.Module] = {
        "axes": geonorm.AxisInstanceNorm(3, layout="BCTF", axes="T"),
        "divisive": geonorm.DivisiveNorm(3),
        "ibn": geonorm.InstanceBatchNorm(3),
        "batch": geonorm.BatchNorm(3),
        "retinex": geonorm.RetinexNorm(3, surround=2.0),
    }
    x = torch.rand(2, 3, 12, 10) + 0.1
    for name, norm in norms.items():
        norm.train()
        plain = decomposed(exported(norm, x, (0, 3)))
        assert norm.training, name
        assert not any("geonorm" in each for each in operators(plain)), name
        other = torch.rand(4, 3, 12, 7) + 0.1
        with torch.no_grad():
            assert difference(plain.module()(other), norm.eval()(other)) < 1e-5, name


@pytest.mark.slow
def test_a_model_that_computes_something_else_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    model = nn.Sequential(nn.Conv1d(3, 8, 3, stride=8), InstanceNorm(8), nn.Conv1d(8, 2, 1))
    with pytest.raises(ValueError, match=r"differs from torch's by .* Nothing was written"):
        to_onnx(model, torch.randn(2, 3, 16), path, tolerance=1e-12)
    # Eight frames become one within the model, which torch then takes as fixed.
    with pytest.raises(ValueError, match=r"cannot run the model on \(4, 3, 16\)"):
        to_onnx(model, torch.randn(2, 3, 8), path)
    assert not list(tmp_path.iterdir())


def test_a_program_is_that_of_inference_and_tried_on_twice_the_size() -> None:
    x = torch.randn(2, 3, 4)
    program = exported(nn.Dropout(0.5).train(), x, (0, 2))
    assert torch.equal(program.module()(x), x)
    other = _twice(x.half(), (0, 2))
    assert (other.shape, other.dtype) == ((4, 3, 8), torch.float16)
    assert other.unique().numel() > 80


class TwoOutputs(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class Fixed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.shape[0] == 2 else -x


@pytest.mark.parametrize(
    ("model", "sizes", "dynamic", "message"),
    [
        (nn.Identity(), (2, 3), (2,), r"some of the example's.*got \[2\] and the sizes \(2, 3\)"),
        (nn.Identity(), (2, 3), (-1,), r"some of the example's.*got \[-1\]"),
        (nn.Identity(), (1, 3), (0,), r"two elements or more; got \[0\] and the sizes \(1, 3\)"),
        (TwoOutputs(), (2, 3), (0,), "expected a model that gives one tensor; got tuple"),
        (Fixed(), (2, 3), (0,), r"axes \[0\] cannot be dynamic"),
    ],
)
def test_bad_input(
    model: nn.Module, sizes: tuple[int, ...], dynamic: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        exported(model, torch.zeros(sizes), dynamic)


def test_another_suffix(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected a file that ends in .onnx; got .*model.pt"):
        to_onnx(nn.Identity(), torch.zeros(2, 3), tmp_path / "model.pt", dynamic=())


def test_torch_refuses_minkunets_input() -> None:
    """As docs/exporting.md says; if it no longer does, MinkUNet may be exported."""
    pytest.importorskip("MinkowskiEngine", reason="run tools/install_minkowski.py")
    from helpers.minkunet_cases import MinkUNet14A, batch, scan

    with pytest.raises(ValueError, match=r"Unsupported input type .*SparseTensor"):
        export(MinkUNet14A(3, 5).eval(), (batch(scan()),))
