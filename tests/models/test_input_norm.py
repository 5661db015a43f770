"""A norm of the raw input: in front of everything, and able to undo what no other norm can."""

import numpy as np
import pytest
import torch
from conftest import TOLERANCES, relative_error

from geonorm import BatchNorm, InstanceNorm, SpatioTemporalInstanceNorm
from geonorm.datasets import SyntheticStreets
from geonorm.models import load_checkpoint, mc3_18, r2plus1d_18, r3d_18, resnet3d
from helpers.minkunet_cases import ME, MUST_MOVE, MinkUNet14A, batch, scan

VIDEO = {
    "r3d_18": r3d_18, "mc3_18": mc3_18, "r2plus1d_18": r2plus1d_18,
    "resnet3d": lambda **options: resnet3d(10, **options),
}  # fmt: skip


def clips():
    return torch.rand(2, 3, 8, 32, 32, generator=torch.Generator().manual_seed(0))


def street():
    """Return the voxels of a built-in scan, with coordinates and intensity as features."""
    scan = SyntheticStreets(1, seed=3)[0]
    places, first = np.unique(np.floor(scan.points / 0.2).astype(np.int32), axis=0,
                              return_index=True)  # fmt: skip
    features = np.concatenate([scan.points[first], scan.intensity[first, None]], 1)
    return torch.from_numpy(places), torch.from_numpy(features).float()


def moved(kind: str, input_norm, gain: float) -> float:
    """Return how far an intensity gain moves the logits of a network with random weights."""
    torch.manual_seed(0)
    coordinates, features = street()
    model = MinkUNet14A(4, 19, norm=kind, input_norm=input_norm)
    dimmer = features.clone()
    dimmer[:, 3] *= gain
    with torch.inference_mode():
        plain = model(batch((coordinates, features))).F
        dimmed = model(batch((coordinates, dimmer))).F
    return float((dimmed - plain).norm() / plain.norm())


def test_a_gain_of_one_of_several_channels_passes_all_norms_but_that_of_the_input():
    """Intensity at 0.3 of itself: inside, it is mixed with the coordinates before any norm."""
    inside = moved("instance", None, 0.3)
    at_the_input = moved("instance", "instance", 0.3)
    print(f"instance norms alone {inside:.4f}, and one of the input {at_the_input:.6f}")
    assert inside > 0.02
    assert at_the_input < inside / 20
    assert moved("batch", "batch", 0.3) < inside / 20  # in training, by the statistics of the batch


@pytest.mark.parametrize("name", VIDEO)
def test_it_stands_before_the_first_convolution(name: str):
    torch.manual_seed(1)
    norm = {"default": "instance", "layer3": "none", "layer4": "none"}  # where one place is left
    model = VIDEO[name](num_classes=4, norm=norm, input_norm="instance").double()
    assert next(iter(model._modules)) == "input_norm"
    assert isinstance(model.input_norm, InstanceNorm)
    plain = VIDEO[name](num_classes=4, norm=norm).double()
    assert not hasattr(plain, "input_norm")
    plain.load_state_dict({key: value for key, value in model.state_dict().items()
                           if not key.startswith("input_norm.")})  # fmt: skip
    x = clips().double()
    by_hand = x - x.mean((2, 3, 4), keepdim=True)
    by_hand /= (by_hand.square().mean((2, 3, 4), keepdim=True) + 1e-5).sqrt()
    assert relative_error(model(x), plain(by_hand)) <= 1e-9
    assert relative_error(model(x), plain(x)) > MUST_MOVE


def test_any_norm_may_stand_there():
    model = resnet3d(10, num_classes=4, input_norm=lambda channels: SpatioTemporalInstanceNorm(
        channels, affine=False, axes="T"))  # fmt: skip
    still = clips()[:, :, :1].expand(-1, -1, 8, -1, -1)
    assert relative_error(model(clips() + still), model(clips())) <= 1e-3
    keys = resnet3d(10, num_classes=4).state_dict().keys()
    assert model.state_dict().keys() == keys
    assert isinstance(resnet3d(10, input_norm="batch").input_norm, BatchNorm)
    for batch_norm in ("batch", {2: "batch"}):  # the engine's own, as within the network
        with torch.device("meta"):
            keys = MinkUNet14A(3, 5, input_norm=batch_norm).state_dict().keys()
        place = "input_norm" if batch_norm == "batch" else "input_norm.norms.2"
        assert f"{place}.bn.running_mean" in keys


def test_a_checkpoint_with_it_loads_again(tmp_path):
    torch.manual_seed(2)
    model = resnet3d(10, num_classes=4, norm="batch", input_norm="instance")
    with torch.no_grad():
        model.input_norm.weight.copy_(torch.tensor([0.5, 2.0, 3.0]))
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    again = resnet3d(10, num_classes=4, norm="batch", input_norm="instance")
    load_checkpoint(again, tmp_path / "weights.pt")
    assert torch.equal(again.eval()(clips()), model.eval()(clips()))


def test_a_norm_of_one_channel_leaves_the_others_as_they_are():
    """The third of a MinkUNet's features, and of a clip's colours."""
    torch.manual_seed(5)
    scans = [scan(), scan(200, seed=1)]
    model, plain = MinkUNet14A(3, 5, input_norm={2: "instance"}), MinkUNet14A(3, 5)
    plain.load_state_dict({key: value for key, value in model.state_dict().items()
                           if not key.startswith("input_norm.")})  # fmt: skip
    by_hand = []
    for places, features in scans:
        last = features[:, 2:]
        last = (last - last.mean(0)) / (last.var(0, correction=0) + 1e-5).sqrt()
        by_hand.append((places, torch.cat([features[:, :2], last], 1)))
    out = model(batch(*scans)).F
    assert relative_error(out, plain(batch(*by_hand)).F) <= TOLERANCES["logits"]
    assert relative_error(out, plain(batch(*scans)).F) > MUST_MOVE

    video = resnet3d(10, num_classes=4, input_norm={2: "instance", 0: "batch"})
    x = clips()
    seen = video.input_norm.train()(x)
    for channel, axes in ((0, (0, 2, 3, 4)), (2, (2, 3, 4))):
        own = x[:, channel : channel + 1].double()
        own = own - own.mean(axes, keepdim=True)
        own = own / (own.square().mean(axes, keepdim=True) + 1e-5).sqrt()
        assert relative_error(seen[:, channel : channel + 1], own) <= 1e-5
    assert torch.equal(seen[:, 1], x[:, 1])
    assert [type(norm).__name__ for norm in video.input_norm.norms.values()] == [
        "BatchNorm", "InstanceNorm"
    ]  # fmt: skip


def test_a_gain_of_the_intensity_is_undone_and_where_the_scan_lies_is_kept():
    """What a norm of all features takes out with it: the places' own mean and extent."""
    assert moved("batch", {3: "instance"}, 0.3) < moved("batch", None, 0.3) / 20
    coordinates, features = street()
    torch.manual_seed(0)
    one, all_of_them = (MinkUNet14A(4, 19, norm="batch", input_norm=norm).eval().input_norm
                        for norm in ({3: "instance"}, "instance"))  # fmt: skip
    far = features + torch.tensor([50.0, 0.0, 0.0, 0.0])
    near, moved_away = (batch((coordinates, each)) for each in (features, far))
    assert relative_error(all_of_them(moved_away).F, all_of_them(near).F) < 1e-3
    assert torch.equal(one(moved_away).F[:, :3], far[:, :3])
    assert torch.equal(one(moved_away).F[:, 3], one(near).F[:, 3])


@pytest.mark.parametrize("kind", [ME.SparseTensor, ME.TensorField])
@pytest.mark.parametrize("point_stem", [None, 8])
def test_scans_are_normalized_before_everything(kind, point_stem):
    torch.manual_seed(3)
    scans = [scan(), scan(200, seed=1)]
    model = MinkUNet14A(3, 5, input_norm="instance", point_stem=point_stem)
    plain = MinkUNet14A(3, 5, point_stem=point_stem)
    plain.load_state_dict({key: value for key, value in model.state_dict().items()
                           if not key.startswith("input_norm.")})  # fmt: skip
    by_hand = [
        (places, (f - f.mean(0)) / (f.var(0, correction=0) + 1e-5).sqrt()) for places, f in scans
    ]
    x = batch(*scans, kind=kind)
    out = model(x)
    assert isinstance(out, kind)
    assert relative_error(out.F, plain(batch(*by_hand, kind=kind)).F) <= TOLERANCES["logits"]
    assert relative_error(out.F, plain(batch(*scans, kind=kind)).F) > MUST_MOVE


@pytest.mark.parametrize("input_norm", ["instance", {0: "instance", 2: "instance"}])
def test_weights_of_points_reach_it(input_norm):
    """A point repeated, with half the weight each time, counts once in the input's statistics."""
    torch.manual_seed(4)
    model = MinkUNet14A(3, 5, input_norm=input_norm, point_stem=8)
    places, features = scan(extent=8)
    times = torch.randint(1, 4, (len(features),), generator=torch.Generator().manual_seed(0))
    plain = model(batch((places / 2, features), kind=ME.TensorField)).F
    repeated = batch((places.repeat_interleave(times, 0) / 2, features.repeat_interleave(times, 0)),
                     kind=ME.TensorField)  # fmt: skip
    weights = (1 / times).repeat_interleave(times)
    last = times.cumsum(0) - 1
    assert relative_error(model(repeated, weights).F[last], plain) <= TOLERANCES["logits"]
    assert relative_error(model(repeated).F[last], plain) > MUST_MOVE


@pytest.mark.parametrize("build", [lambda norm: resnet3d(10, input_norm=norm),
                                   lambda norm: MinkUNet14A(3, 5, input_norm=norm)])  # fmt: skip
def test_bad_norms_of_the_input(build):
    with pytest.raises(ValueError, match=r"norm 'instanse' is unknown.*instance"):
        build("instanse")
    with pytest.raises(TypeError, match=r"input_norm must be a name, .* got {'default': 'ins"):
        build({"default": "instance"})
    for nothing in (None, {0: "instance"}):
        with pytest.raises(TypeError, match=r"input_norm must be a name, .*; got {1: (None|{0: )"):
            build({1: nothing})
    with pytest.raises(TypeError, match=r"input_norm must be a name, .*; got {True: 'instance'}"):
        build({True: "instance"})
    with pytest.raises(ValueError, match=r"for channels 0 to 2 of the input; got 3"):
        build({0: "instance", 3: "instance"})
    with pytest.raises(ValueError, match=r"for channels 0 to 2 of the input; got -1"):
        build({-1: "instance"})
    with pytest.raises(ValueError, match="at least one channel; got an empty mapping"):
        build({})
    with pytest.raises(ValueError, match=r"norm 'instanse' is unknown.*instance"):
        build({1: "instanse"})
    with pytest.raises(TypeError, match="norm must be a name, a callable"):
        build(3)
