"""Weights from files: wrapped, of another norm, of another architecture, damaged."""

import pytest
import torch
from torch import nn

from geonorm.models import CheckpointReport, load_checkpoint


class Small(nn.Module):
    """Two convolutions and a norm of each kind of key: flat, one level down, none."""

    def __init__(self, norm=nn.BatchNorm1d, width=6, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Linear(3, width)
        self.norm = norm(width)
        self.blocks = nn.Sequential(nn.Linear(width, width, bias=False), norm(width))
        self.final = nn.Linear(width, 2)
        for parameter in self.parameters():
            nn.init.normal_(parameter)

    @staticmethod
    def candidates(shapes):
        with torch.device("meta"):
            for width in (6, 8):
                yield f"Small(width={width})", Small(width=width)


class Nested(nn.Module):
    """A norm one level down, as MinkowskiBatchNorm keeps it."""

    def __init__(self, channels):
        super().__init__()
        self.bn = nn.BatchNorm1d(channels)


class Rowed(nn.Module):
    """A norm with (1, C) parameters, as MinkowskiInstanceNorm keeps them."""

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, channels))
        self.bias = nn.Parameter(torch.zeros(1, channels))


def group(channels):
    return nn.GroupNorm(2, channels)


def nothing(channels):
    return nn.Identity()


def affine(model):
    """Return every parameter, flat, by the order of the layers."""
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "iteration": torch.tensor(7)},
        lambda state: {"model_state_dict": state},
        lambda state: {"model": {"model_state_dict": {"state_dict": state}}},
        lambda state: {"model": "Small", "state_dict": state},
        lambda state: {"network." + key: value for key, value in state.items()},
        lambda state: {"module." + key: value for key, value in state.items()},
        lambda state: {"state_dict": {"model." + key: value for key, value in state.items()}},
        lambda state: {"state_dict": {"model.module." + k: value for k, value in state.items()}},
        lambda state: {"state_dict": {"model._orig_mod." + k: v for k, v in state.items()}},
    ],
)
@pytest.mark.parametrize("in_file", [True, False])
def test_wrapped_state_dicts_load_completely(tmp_path, wrap, in_file):
    trained, model = Small(seed=1), Small()
    trained.norm.running_mean.fill_(3)
    checkpoint = wrap(trained.state_dict())
    if in_file:
        torch.save(checkpoint, tmp_path / "weights.pth")
        checkpoint = tmp_path / "weights.pth"
    report = load_checkpoint(model, checkpoint)
    for key, value in trained.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key
    assert set(report.kept) == set(trained.state_dict())
    assert not report.dropped
    assert not report.fresh


def test_other_keys_of_a_lightning_file_are_dropped_and_said():
    state = {"model." + key: value for key, value in Small(seed=1).state_dict().items()}
    report = load_checkpoint(Small(), {"state_dict": {**state, "loss.weight": torch.ones(2)}})
    assert report.dropped == ("loss.weight",)
    inner = {key.replace("model.", "model._orig_mod."): value for key, value in state.items()}
    report = load_checkpoint(Small(group), {"loss.weight": torch.ones(2), **inner})
    assert report.dropped[:2] == ("loss.weight", "norm.running_mean")
    assert len(report.dropped) == 7


def test_a_file_from_before_torch_1_6_loads(tmp_path):
    trained, model = Small(seed=1), Small()
    path = tmp_path / "old.pth"
    torch.save(trained.state_dict(), path, _use_new_zipfile_serialization=False)
    assert load_checkpoint(model, str(path)).source == str(path)
    assert torch.equal(affine(model), affine(trained))


@pytest.mark.parametrize("source", [nn.BatchNorm1d, Nested, Rowed, group])
@pytest.mark.parametrize("target", [Rowed, group])
def test_scale_and_shift_carry_over_between_norms(source, target):
    trained, model = Small(source, seed=1), Small(target)
    assert not torch.equal(affine(model), affine(trained))
    report = load_checkpoint(model, trained.state_dict())
    assert torch.equal(affine(model), affine(trained))
    assert not report.fresh
    statistics = sum("running" in key or "num_b" in key for key in trained.state_dict())
    assert len(report.dropped) == statistics


def test_norm_without_parameters_drops_them():
    trained, model = Small(seed=1), Small(nothing)
    report = load_checkpoint(model, trained.state_dict())
    assert torch.equal(model.blocks[0].weight, trained.blocks[0].weight)
    assert len(report.dropped) == 10
    assert not report.fresh


def test_norm_unknown_to_the_file_stays_as_it_was():
    trained, model = Small(nothing, seed=1), Small(group)
    before = model.norm.weight.clone()
    report = load_checkpoint(model, trained.state_dict())
    assert torch.equal(model.norm.weight, before)
    assert report.fresh == ("norm.weight", "norm.bias", "blocks.1.weight", "blocks.1.bias")


def test_batch_norm_needs_its_running_statistics():
    with pytest.raises(ValueError, match=r"missing there: 4: norm\.running_mean.*\n.*another norm"):
        load_checkpoint(Small(), Small(group).state_dict())


def test_a_convolution_that_is_missing_too_is_not_laid_to_the_norm():
    state = Small(group).state_dict()
    del state["conv.bias"]
    with pytest.raises(ValueError, match=r"missing there: 5: conv\.bias") as caught:
        load_checkpoint(Small(), state)
    assert "another norm" not in str(caught.value)


def test_file_that_never_counted_batches_still_loads():
    trained = Small(seed=1)
    state = {k: v for k, v in trained.state_dict().items() if "num_batches" not in k}
    report = load_checkpoint(model := Small(), state)
    assert torch.equal(affine(model), affine(trained))
    assert len(report.fresh) == 2
    assert str(report) == (
        f"state dict: {len(report.kept)} tensors kept\n"
        "  left as they were 2: norm.num_batches_tracked, blocks.1.num_batches_tracked"
    )


def test_statistics_without_scale_and_shift_are_those_of_a_norm():
    def still(channels):
        return nn.BatchNorm1d(channels, affine=False)

    report = load_checkpoint(Small(nothing), Small(still, seed=1).state_dict())
    assert len(report.dropped) == 6
    with pytest.raises(ValueError, match=r"missing there: 4: .*\n.*another norm"):
        load_checkpoint(Small(still), Small(nothing).state_dict())


def test_a_layer_of_one_input_is_no_norm():
    model = nn.Sequential(nn.Linear(1, 4), nn.Linear(4, 2))
    state = {key: value for key, value in model.state_dict().items() if key.startswith("1.")}
    refuse(model, state, r"not fit this Sequential\n  missing there: 2: 0\.weight, 0\.bias$")
    state["0.weight"], state["0.bias"] = torch.ones(4, 1), torch.ones(4)
    load_checkpoint(model, state)
    assert model(torch.ones(1, 1)).isfinite().all()
    refuse(model, {**state, "0.weight": torch.ones(1, 4)},
           r"of another shape: 1: 0\.weight \(4, 1\), there \(1, 4\)")  # fmt: skip


def test_what_a_batch_norm_does_not_know_is_refused_and_other_norms_drop_it():
    extra = {"norm.ema": torch.ones(6)}
    refuse(Small(), {**Small().state_dict(), **extra}, r"unknown here: 1: norm\.ema$")
    report = load_checkpoint(Small(group), {**Small(group).state_dict(), **extra})
    assert report.dropped == ("norm.ema",)


def test_a_norm_of_another_width_is_as_one_that_the_file_has_not():
    model, state = Small(group), Small(group, seed=1).state_dict()
    before = model.norm.weight.clone()
    state |= {"norm.weight": torch.ones(4), "norm.bias": torch.ones(4)}
    report = load_checkpoint(model, state)
    assert report.fresh == report.dropped == ("norm.weight", "norm.bias")
    assert torch.equal(model.norm.weight, before)


def test_report_prints_what_was_kept_and_dropped():
    report = load_checkpoint(Small(group), Small(seed=1).state_dict())
    assert isinstance(report, CheckpointReport)
    assert str(report) == (
        "state dict: 9 tensors kept\n"
        "  dropped 6: norm.running_mean, norm.running_var, norm.num_batches_tracked, "
        "blocks.1.running_mean, blocks.1.running_var, blocks.1.num_batches_tracked"
    )


def refuse(model, checkpoint, match):
    """Check the error, and that the model is as it was."""
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=match):
        load_checkpoint(model, checkpoint)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())


def test_other_architecture_is_refused_with_the_one_that_fits():
    trained = Small(width=8)
    shapes = r"(?s)not fit this Small\n.*conv\.weight \(6, 3\), there \(8, 3\).*"
    refuse(Small(), trained.state_dict(), shapes + r"it fits Small\(width=8\)$")
    refuse(Small(), {"a.weight": torch.ones(2)}, r"(?s)missing there: 13: .*unknown here: 1: a\.w")
    refuse(Small(), {"a.b": torch.ones(2)}, r"missing there: 13: .*\.1\.weight, and 5 more\n")
    eight = {f"a{number}.b": torch.ones(2) for number in range(8)}
    refuse(Small(), {**Small().state_dict(), **eight}, r"unknown here: 8: a0\.b, .*, a7\.b$")


def test_architecture_that_nothing_fits_gets_no_suggestion():
    with pytest.raises(ValueError, match="does not fit this Small") as caught:
        load_checkpoint(Small(), Small(width=7).state_dict())
    assert "it fits" not in str(caught.value)


@pytest.mark.parametrize("change", ["a layer more", "a layer less"])
def test_what_nearly_fits_is_not_said_to(change):
    state = Small(width=8).state_dict()
    if change == "a layer more":
        state["extra.weight"] = torch.ones(2, 2)
    else:
        del state["final.bias"]
    with pytest.raises(ValueError, match="does not fit this Small") as caught:
        load_checkpoint(Small(), state)
    assert "it fits" not in str(caught.value)


def test_one_layer_too_many_is_refused():
    state = {**Small().state_dict(), "extra.weight": torch.ones(2, 2)}
    refuse(Small(), state, r"unknown here: 1: extra\.weight")
    state = {**Small(nothing).state_dict(), "extra.weight": torch.ones(2)}
    refuse(Small(nothing), state, r"unknown here: 1: extra\.weight")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"norm.weight": "text"}, "maps names to tensors; got 'norm.weight' -> str"),
        ({3: torch.ones(2)}, "maps names to tensors; got 3 -> Tensor"),
        ({"conv.bias": torch.ones(6, dtype=torch.int32)}, r"conv\.bias must be floating point"),
        ({"conv.bias": torch.full((6,), torch.nan)}, r"conv\.bias holds NaN or infinity"),
        ({"conv.bias": torch.tensor([0, 0, 0, 0, 0, -torch.inf])}, r"conv\.bias holds NaN or inf"),
        ({"conv.bias": torch.ones(6).to_sparse()}, r"conv\.bias must be a dense tensor"),
        ({"conv.bias": torch.ones(6, device="meta")}, r"conv\.bias must be a dense tensor"),
        ({"conv.bias": torch.full((6,), 7e4).half()}, r"conv\.bias holds NaN or infinity"),
        ({"norm.running_var": torch.full((6,), torch.nan)}, r"norm\.running_var holds NaN"),
    ],
)
def test_values_that_no_model_holds_are_refused(change, match):
    refuse(Small(), {**Small(seed=1).state_dict(), **change}, match)


@pytest.mark.parametrize("checkpoint", [{}, {"epoch": 3}, {"state_dict": {}}])
def test_file_without_weights_is_refused(checkpoint, tmp_path):
    torch.save(checkpoint, tmp_path / "weights.pth")
    refuse(Small(), tmp_path / "weights.pth", r"weights\.pth holds no state dict; expected one")
    if "epoch" in checkpoint:
        refuse(Small(), checkpoint, r"^state dict holds no state dict; .*; found 1: epoch$")


def test_a_file_of_a_list_is_refused(tmp_path):
    torch.save([torch.ones(2)], tmp_path / "weights.pth")
    refuse(Small(), tmp_path / "weights.pth", r"expected one, .*; found <class 'list'>$")


def test_missing_file_and_folder_are_refused(tmp_path):
    refuse(Small(), tmp_path / "none.pth", r"none\.pth' is not a file")
    refuse(Small(), tmp_path, "is not a file")


def test_truncated_file_is_refused_by_name(tmp_path):
    torch.save(Small(seed=1).state_dict(), tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    cut = tmp_path / "cut.pth"
    for length in range(0, len(whole), 97):
        cut.write_bytes(whole[:length])
        refuse(Small(), cut, r"cut\.pth' cannot be read as a checkpoint: it is truncated")


def test_corrupted_bytes_are_refused_or_harmless(tmp_path):
    trained = Small(seed=1)
    torch.save(trained.state_dict(), tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    generator = torch.Generator().manual_seed(0)
    refused = 0
    for position in torch.randint(0, len(whole), (300,), generator=generator).tolist():
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        (tmp_path / "damaged.pth").write_bytes(damaged)
        model = Small()
        try:
            load_checkpoint(model, tmp_path / "damaged.pth")
        except ValueError:
            refused += 1
        else:
            assert torch.equal(affine(model), affine(trained)), position
    assert refused > 100


def test_objects_other_than_tensors_are_never_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    torch.save({"state_dict": Small().state_dict(), "config": Evil()}, tmp_path / "evil.pth")
    refuse(Small(), tmp_path / "evil.pth", "holds more than tensors")
    assert not (tmp_path / "owned").exists()


@pytest.fixture(scope="module")
def public_state():
    """Weights under the keys of a public MinkUNet file, none of them as a new model draws them."""
    pytest.importorskip("MinkowskiEngine", reason="run tools/install_minkowski.py")
    from geonorm.models import MinkUNet14A

    torch.manual_seed(3)
    state = MinkUNet14A(3, 20, norm="batch").state_dict()
    return {k: v if "num_b" in k else torch.rand_like(v) + 0.5 for k, v in state.items()}


NORMS = ["batch", "instance", "none", {"default": "batch", "stem": "none"}]


@pytest.mark.parametrize("norm", NORMS)
def test_public_minkunet_file(public_state, norm):
    from geonorm.models import MinkUNet14A

    model = MinkUNet14A(3, 20, norm=norm)
    report = load_checkpoint(model, {"state_dict": public_state})
    assert not report.fresh
    assert len(report.kept) == len(model.state_dict())
    assert len(report.kept) + len(report.dropped) == len(public_state)
    loaded = {key.replace(".bn.", "."): value for key, value in model.state_dict().items()}
    for key, value in public_state.items():
        if (key := key.replace(".bn.", ".")) in loaded:
            assert torch.equal(loaded[key], value), key
    assert bool(report.dropped) == (norm != "batch")


def test_public_file_of_another_minkunet_names_the_class(public_state):
    from geonorm.models import MinkUNet18A, MinkUNet34C

    refuse(
        MinkUNet34C(3, 20, norm="batch"), public_state,
        r"(?s)not fit this MinkUNet34C\n.*it fits MinkUNet14A\(in_channels=3, out_channels=20\)$",
    )
    state = MinkUNet18A(4, 13, norm="instance", D=2, point_stem=8).state_dict()
    fits = r"it fits MinkUNet18A\(in_channels=4, out_channels=13, D=2, point_stem=8\)$"
    refuse(MinkUNet34C(3, 20), state, fits)


def test_a_head_for_other_classes_keeps_its_own_weights():
    model, trained = Small(), Small(seed=1)
    trained.final = nn.Linear(6, 5)
    refuse(model, trained.state_dict(), "of another shape: 2: final.weight")
    before = model.final.weight.clone()
    report = load_checkpoint(model, trained.state_dict(), heads=("final",))
    assert report.fresh == ("final.weight", "final.bias")
    assert not {*report.kept} & {*report.fresh}
    assert {*report.kept, *report.fresh} == {*model.state_dict()}
    assert not report.dropped
    assert torch.equal(model.final.weight, before)
    assert torch.equal(model.conv.weight, trained.conv.weight)
    load_checkpoint(model, Small(seed=2).state_dict(), heads=("final",))
    assert torch.equal(model.final.weight, Small(seed=2).final.weight)


def test_a_head_of_which_a_part_is_missing_is_refused_unless_the_rest_is_of_other_classes():
    model, state = Small(), Small(seed=1).state_dict()
    del state["final.bias"]
    with pytest.raises(ValueError, match=r"missing there: 1: final\.bias$"):
        load_checkpoint(model, state, heads=("final",))
    before = model.final.bias.clone()
    report = load_checkpoint(model, state | {"final.weight": torch.ones(5, 6)}, heads=("final",))
    assert report.fresh == ("final.weight", "final.bias")
    assert torch.equal(model.final.bias, before)
    other = {**Small(nothing).state_dict(), "final.weight": torch.ones(5, 6)}
    norms = ("norm.weight", "norm.bias", "blocks.1.weight", "blocks.1.bias")
    report = load_checkpoint(Small(group), other, heads=("final",))
    assert report.fresh == (*norms, "final.weight", "final.bias")


def test_only_the_heads_that_are_named_may_differ():
    model, trained = Small(), Small(seed=1)
    trained.conv = nn.Linear(4, 6)
    refuse_head = r"of another shape: 1: conv\.weight \(6, 3\), there \(6, 4\)"
    with pytest.raises(ValueError, match=refuse_head):
        load_checkpoint(model, trained.state_dict(), heads=("con", "final"))
    report = load_checkpoint(model, trained.state_dict(), heads=("final", "conv"))
    assert report.fresh == ("conv.weight", "conv.bias")
    assert torch.equal(model.final.weight, trained.final.weight)
