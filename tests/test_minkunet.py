"""MinkUNet: sizes, keys, every norm and kind of input, independence of scans, half precision."""

import subprocess
import sys

import pytest
import torch
from conftest import TOLERANCES, relative_error
from torch import nn

import geonorm

ME = pytest.importorskip("MinkowskiEngine", reason="run tools/install_minkowski.py")

from geonorm.models import minkunet  # noqa: E402  (imports MinkowskiEngine)
from geonorm.models.minkunet_blocks import Convolution  # noqa: E402

PARAMETERS = {
    "14": 11_580_852, "14A": 8_024_500, "14B": 8_961_588, "14C": 11_919_924, "14D": 43_315_764,
    "18": 21_704_244, "18A": 15_493_172, "18B": 17_204_660, "18D": 79_874_484,
    "34": 37_856_052, "34A": 36_607_412, "34B": 36_226_484, "34C": 37_856_052,
    "50": 31_763_444, "101": 70_809_588,
}
MUST_MOVE = 1e-2


def scan(points=300, seed=0, channels=3, extent=24):
    """Return the voxel coordinates and features of a random blob, without duplicates."""
    generator = torch.Generator().manual_seed(seed)
    coordinates = torch.randint(0, extent, (2 * points, 3), generator=generator)
    coordinates = torch.unique(coordinates, dim=0)
    keep = torch.randperm(len(coordinates), generator=generator)[:points]
    features = torch.randn(len(keep), channels, generator=generator)
    return coordinates[keep].int(), features * (1 + seed) + seed


def batch(*scans, kind=ME.SparseTensor):
    """Put scans into one tensor of the engine's."""
    coordinates, features = ME.utils.sparse_collate(*zip(*scans, strict=True))
    return kind(features, coordinates.float() if kind is ME.TensorField else coordinates)


def build(name="14A", norm="instance", seed=0, **arguments):
    torch.manual_seed(seed)
    return getattr(minkunet, f"MinkUNet{name}")(3, 5, norm=norm, **arguments)


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("name", PARAMETERS)
def test_number_of_parameters_is_the_published_one(name, norm):
    with torch.device("meta"):
        model = getattr(minkunet, f"MinkUNet{name}")(3, 20, norm=norm)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]


def test_number_of_parameters_without_norm_is_smaller():
    with torch.device("meta"):
        model = minkunet.MinkUNet14A(3, 20, norm="none")
    assert sum(p.numel() for p in model.parameters()) < PARAMETERS["14A"]


def norm_keys(prefix):
    leaves = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    return {f"{prefix}.bn.{leaf}" for leaf in leaves}


@pytest.mark.parametrize(("name", "convolutions"), [("34C", 2), ("50", 3)])
def test_keys_with_batch_norm_are_those_of_public_checkpoints(name, convolutions):
    with torch.device("meta"):
        model = getattr(minkunet, f"MinkUNet{name}")(3, 20, norm="batch")
    plain = ["conv0p1s1", "conv1p1s2", "conv2p2s2", "conv3p4s2", "conv4p8s2"]
    plain += ["convtr4p16s2", "convtr5p8s2", "convtr6p4s2", "convtr7p2s2"]
    expected = {f"{conv}.kernel" for conv in plain} | {"final.kernel", "final.bias"}
    norms = [f"bn{level}" for level in range(5)] + [f"bntr{level}" for level in range(4, 8)]
    for block, depth in enumerate((2, 3, 4, 6, 2, 2, 2, 2), start=1):
        for i in range(depth):
            place = f"block{block}.{i}"
            for part in range(1, convolutions + 1):
                expected.add(f"{place}.conv{part}.kernel")
                norms.append(f"{place}.norm{part}")
        if name == "50" or block > 1:
            expected.add(f"block{block}.0.downsample.0.kernel")
            norms.append(f"block{block}.0.downsample.1")
    for norm in norms:
        expected |= norm_keys(norm)
    assert set(model.state_dict()) == expected


@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
@pytest.mark.parametrize("kind", [ME.SparseTensor, ME.TensorField])
def test_forward_and_backward_reach_every_parameter(kind, norm):
    model = build(norm=norm)
    x = batch(scan(), scan(200, seed=1), kind=kind)
    out = model(x)
    assert type(out) is kind
    assert out.F.shape == (500, 5)
    assert torch.equal(out.C, x.C)
    out.F.backward(torch.randn(out.F.shape))
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_mapping_gives_each_stage_its_norm():
    def slow(channels):
        return ME.MinkowskiBatchNorm(channels, momentum=0.02)

    norm = {"default": "instance", "decoder": "batch", "decoder2": "none", "bottleneck": slow}
    model = build("18A", norm=norm)
    kinds = {
        geonorm.SparseInstanceNorm: (
            "bn0", "bn1", "bn2", "bn3", "block1.1.norm2", "block3.0.norm1", "block2.0.downsample.1",
        ),
        ME.MinkowskiBatchNorm: (
            "bn4", "block4.1.norm2", "bntr4", "block5.0.norm1", "bntr6", "block8.1.norm2",
        ),
        nn.Identity: ("bntr5", "block6.0.norm1", "block6.0.downsample.1"),
    }
    for kind, places in kinds.items():
        for place in places:
            assert type(model.get_submodule(place)) is kind, place
    assert model.bn4.bn.momentum == 0.02
    assert model.bntr4.bn.momentum == 0.1


def test_misspelt_stage_is_refused():
    with pytest.raises(ValueError, match=r"no stage 'enocder'.*Did you mean 'encoder'"):
        build(norm={"default": "batch", "enocder": "none"})


def test_rows_of_scans_interleave_below_stride_one():
    """The premise of the next test: without it, sorted rows alone would be tried."""
    x = batch(scan(), scan(200, seed=1))
    down = Convolution(3, 3, kernel_size=2, stride=2, dimension=3)(x)
    assert (down.C[1:, 0] != down.C[:-1, 0]).sum() > 2


def moved_by_company(norm, **arguments):
    """Return how far a scan's logits are among others from what they are alone."""
    model = build(norm=norm, **arguments)
    among = model(batch(scan(), scan(200, seed=7), scan(250, seed=3))).F[:300]
    return relative_error(among, model(batch(scan())).F)


def test_scan_is_independent_of_the_batch_with_instance_norm():
    assert moved_by_company("instance") <= TOLERANCES["logits"]


def test_scan_depends_on_the_batch_with_batch_norm():
    assert moved_by_company("batch") > MUST_MOVE


def test_one_stage_of_batch_norm_is_enough_to_depend_on_the_batch():
    assert moved_by_company({"default": "instance", "decoder4": "batch"}) > MUST_MOVE


def duplicated(first, times):
    """Repeat the points of one scan, each as often as `times` says."""
    return tuple(part.repeat_interleave(times, dim=0) for part in first)


def moved_by_duplication(norm, times, weighted=False):
    """Return how far logits move when points of one of two scans repeat before a point stem."""
    model = build(norm=norm, point_stem=16)
    # Half the grid, so that most voxels average several points and their weights matter.
    first, second = ((coordinates / 2, features) for coordinates, features in (
        scan(extent=8), scan(200, seed=1)
    ))
    plain = model(batch(first, second, kind=ME.TensorField)).F
    out = model(
        batch(duplicated(first, times), second, kind=ME.TensorField),
        point_weights=torch.cat(((1 / times).repeat_interleave(times), torch.ones(200)))
        if weighted else None,
    ).F
    last_copy = torch.cat((times.cumsum(0) - 1, torch.arange(200) + times.sum()))
    return relative_error(out[last_copy], plain)


@pytest.mark.parametrize("k", [2, 3, 7])
def test_point_stem_ignores_duplication_of_one_scan(k):
    times = torch.full((300,), k)
    assert moved_by_duplication("instance", times) <= TOLERANCES["logits"]
    assert moved_by_duplication("batch", times) > MUST_MOVE


def test_weights_undo_duplication_of_single_points():
    times = torch.randint(1, 5, (300,), generator=torch.Generator().manual_seed(0))
    assert moved_by_duplication("instance", times, weighted=True) <= TOLERANCES["logits"]
    assert moved_by_duplication("instance", times) > MUST_MOVE
    assert moved_by_duplication("batch", times, weighted=True) > MUST_MOVE


def test_voxels_of_a_field_are_normalized_like_the_same_sparse_tensor():
    """MinkowskiInstanceNorm errs, or crashes, on the result of TensorField.sparse()."""
    model = build()
    coordinates, features = scan()
    field = batch((coordinates / 2, features), scan(200, seed=1), kind=ME.TensorField)
    voxels = field.sparse()
    assert len(voxels.F) < len(field.F)
    rebuilt = ME.SparseTensor(voxels.F, voxels.C)
    expected = model(rebuilt).F[field.inverse_mapping(voxels.coordinate_map_key).long()]
    assert relative_error(model(field).F, expected) <= TOLERANCES["logits"]
    assert relative_error(model(field).F.roll(1, 0), expected) > MUST_MOVE


@pytest.mark.parametrize("norm", ["instance", "batch", {"default": "none", "stem": "instance"}])
def test_state_dict_round_trip(norm):
    model, other = build(norm=norm, point_stem=8), build(norm=norm, point_stem=8, seed=1)
    x = batch(scan(), scan(200, seed=1), kind=ME.TensorField)
    model(x)
    model.eval()
    other.eval()
    expected = model(x).F
    assert relative_error(other(x).F, expected) > MUST_MOVE
    other.load_state_dict(model.state_dict())
    assert relative_error(other(x).F, expected) <= TOLERANCES["float32 against float64"]


def gradients(name, norm, dtype):
    model, x = build(name, norm), batch(scan(), scan(200, seed=1))
    with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
        logits = model(x).F
    labels = torch.arange(len(logits)) % 5
    nn.functional.cross_entropy(logits.float(), labels).backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("name", ["18", "50"])
def test_train_step_in_bfloat16(name, norm):
    step, exact = gradients(name, norm, torch.bfloat16), gradients(name, norm, torch.float32)
    assert torch.isfinite(step).all()
    assert 0 < relative_error(step, exact) < 0.5


def test_engine_itself_refuses_mixed_precision():
    """The premise of the cast in our convolutions."""
    wide = ME.MinkowskiConvolution(3, 8, kernel_size=1, dimension=3)
    deep = ME.MinkowskiConvolution(8, 8, kernel_size=3, dimension=3)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises((AssertionError, RuntimeError)):
        deep(wide(batch(scan())))


def test_double_precision():
    x = batch(scan(), scan(200, seed=1))
    exact = build().double()(x).F
    assert exact.dtype == torch.float64
    assert relative_error(build()(x).F, exact) <= TOLERANCES["logits"]


@pytest.mark.parametrize("dimension", [2, 4])
def test_other_dimensions(dimension):
    coordinates, features = scan(60)
    coordinates = torch.cat((coordinates, coordinates[:, :1]), dim=1)[:, :dimension]
    model = build("14A", D=dimension)
    assert model(batch((coordinates, features))).F.shape[1] == 5


def test_other_inputs_are_refused():
    model = build()
    with pytest.raises(TypeError, match=r"MinkUNet14A takes a MinkowskiEngine .* got Tensor"):
        model(torch.zeros(3, 3))
    with pytest.raises(ValueError, match=r"must be \(N, 3\); got \(300, 4\).*in_channels=4"):
        model(batch(scan(channels=4)))
    with pytest.raises(ValueError, match=r"batch column and 3 dim.* got 2 dim.*MinkUNet14A.*D=2"):
        model(batch((torch.tensor([[0, 1], [2, 3]]).int(), torch.ones(2, 3))))
    with pytest.raises(TypeError, match=r"floating point; got torch\.int64"):
        model(batch((scan()[0], torch.ones(300, 3, dtype=torch.int64))))


def test_field_that_cannot_be_carried_back_is_refused():
    coordinates, features = ME.utils.sparse_collate(*zip(scan(), strict=True))
    mode = ME.SparseTensorQuantizationMode.MAX_POOL
    field = ME.TensorField(features, coordinates.float(), quantization_mode=mode)
    with pytest.raises(ValueError, match=r"quantized by one of .* got MAX_POOL"):
        build()(field)


def test_wrong_point_weights_are_refused():
    model, field = build(), batch(scan(), kind=ME.TensorField)
    with pytest.raises(TypeError, match="weigh the points of a TensorField; got a SparseTensor"):
        model(batch(scan()), point_weights=torch.ones(300))
    with pytest.raises(ValueError, match=r"\(300,\), one per point; got torch\.float32 \(299,\)"):
        model(field, point_weights=torch.ones(299))
    with pytest.raises(ValueError, match=r"floating point, .* got torch\.int64"):
        model(field, point_weights=torch.ones(300, dtype=torch.int64))
    with pytest.raises(ValueError, match="must be positive"):
        model(field, point_weights=torch.zeros(300))


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def test_importing_models_imports_no_engine():
    code = "import sys, geonorm.models as m; m.{}; print('MinkowskiEngine' in sys.modules)"
    for name, imported in (("load_checkpoint", "False"), ("MinkUNet14", "True")):
        done = run(code.format(name))
        assert done.stdout.strip() == imported, done.stderr


def test_missing_engine_says_how_to_install_it():
    done = run(
        "import sys; sys.modules['MinkowskiEngine'] = None; from geonorm.models import MinkUNet34C"
    )
    assert done.returncode == 1
    assert "ImportError: MinkUNet needs MinkowskiEngine" in done.stderr
    assert "python tools/install_minkowski.py" in done.stderr


def test_every_listed_name_can_be_imported_and_others_are_refused():
    import geonorm.models

    assert set(geonorm.models.__all__) <= set(dir(geonorm.models))
    for name in geonorm.models.__all__:
        assert callable(getattr(geonorm.models, name))
    with pytest.raises(AttributeError, match=r"has no attribute 'MinkUNet33'; it has \["):
        _ = geonorm.models.MinkUNet33
