"""Public weights: fetched whole and with the right hash or not at all; recipes; safetensors."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors import safe_open
from torch import nn

import geonorm.models
from geonorm.datasets import Scan, ScanNet
from geonorm.models import (
    MC3_18_Weights,
    MinkUNet34C_Weights,
    R2Plus1D_18_Weights,
    R3D_18_Weights,
    ResNet3D_18_Weights,
    ResNet3D_50_Weights,
    Weights,
    fetch,
    load_checkpoint,
    r3d_18,
    resnet3d,
    save_weights,
)
from helpers.web import files_of, serving

NETWORKS = {
    MinkUNet34C_Weights: "MinkUNet34C(3, 20)", R3D_18_Weights: "r3d_18", MC3_18_Weights: "mc3_18",
    R2Plus1D_18_Weights: "r2plus1d_18",
    **{getattr(geonorm.models, f"ResNet3D_{depth}_Weights"): f"resnet3d({depth})"
       for depth in (18, 34, 50, 101, 152, 200)},
}  # fmt: skip


def small(norm=nn.BatchNorm1d):
    """Return a network whose tensors differ from one seed of torch to the next."""
    model = nn.Sequential(nn.Linear(3, 6), norm(6), nn.Linear(6, 2))
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model


def group(channels):
    return nn.GroupNorm(2, channels)


@pytest.fixture
def there(tmp_path, monkeypatch):
    """Return the address of a server of the file small.pth, its contents and the cache's place."""
    torch.manual_seed(1)
    (tmp_path / "served").mkdir()
    served = tmp_path / "served" / "small.pth"
    trained = small()
    torch.save({"state_dict": trained.state_dict()}, served)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(files_of(tmp_path / "served")) as address:
        yield f"{address}/small.pth", trained, served, tmp_path / "cache/hub/checkpoints"


def member(url, **changes):
    """Return a member of an enum of weights that are at an address."""
    recipe = replace(MC3_18_Weights.DEFAULT.value, file="small.pth", url=url, **changes)

    class Own(Weights):
        ONLY = recipe

    return Own.ONLY


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("digits", [8, 64])
def test_weights_are_fetched_once_and_loaded_into_another_norm(there, digits):
    url, trained, served, cache = there
    weights = member(url, sha256=digest(served)[:digits])
    torch.manual_seed(2)
    model = small(group)
    report = load_checkpoint(model, weights)
    assert report.source == str(cache / "small.pth")
    assert torch.equal(model[0].weight, trained[0].weight)
    assert torch.equal(model[1].bias, trained[1].bias)
    assert len(report.dropped) == 3
    served.unlink()
    assert fetch(weights) == cache / "small.pth"
    assert [path.name for path in cache.iterdir()] == ["small.pth"]


def test_of_a_file_with_a_wrong_hash_nothing_is_kept(there):
    url, _, served, cache = there
    right = digest(served)
    served.write_bytes(served.read_bytes()[:-1] + b"!")
    model, before = small(), None
    before = [tensor.clone() for tensor in model.state_dict().values()]
    with pytest.raises(
        ValueError, match=rf"wrong hash of .*ONLY.*{digest(served)}; expected {right}.*nothing kept"
    ):
        load_checkpoint(model, member(url, sha256=right))
    assert list(cache.iterdir()) == []
    assert all(map(torch.equal, before, model.state_dict().values()))
    cache.joinpath("small.pth").write_bytes(b"put here by hand")
    with pytest.raises(ValueError, match=r"wrong hash of .*ONLY.* delete .*small\.pth, and it is"):
        fetch(member(url, sha256=right))


def test_a_hash_that_nobody_compared_is_said(there):
    url, _, served, cache = there
    cache.mkdir(parents=True)
    weights = member(url, sha256=None)
    assert not weights.verified
    said = rf"nobody has compared .* sha256 is {digest(served)}"
    with pytest.warns(UserWarning, match=said) as caught:
        fetch(weights)
    assert caught[0].filename == __file__


def test_what_cannot_be_fetched_says_where_to_put_the_file(there):
    url, _, _, cache = there
    with pytest.raises(OSError, match=rf"could not be fetched .*404.* put it at {cache}"):
        fetch(member(url + "x", sha256="00"))
    assert list(cache.iterdir()) == []
    with pytest.raises(OSError, match=rf"take r3d50_KM_200ep\.pth from the page .* at {cache}"):
        fetch(ResNet3D_50_Weights.KM)


@pytest.mark.parametrize("enum", [R3D_18_Weights, MC3_18_Weights, R2Plus1D_18_Weights])
def test_torchvisions_recipes_are_those_of_the_installed_torchvision(enum):
    theirs = getattr(torchvision.models.video, enum.__name__)
    assert {*enum.__members__} == {*theirs.__members__}
    for ours, their in zip(enum, theirs, strict=True):
        assert ours.url == their.url
        assert ours.verified
        assert f"-{ours.sha256}.pth" in ours.url
        assert len(ours.sha256) == 8
        assert list(ours.classes()) == their.meta["categories"]
        assert ours.num_classes == 400
        assert ours.metrics == their.meta["_metrics"]
        assert ours.source == their.meta["recipe"]
        frames = torch.randint(0, 256, (4, 3, 130, 180), dtype=torch.uint8)
        assert torch.equal(ours.transforms()(frames), their.transforms()(frames))


def network(call):
    """Return a network without memory from the way in which a recipe calls it."""
    name, _, words = call.partition("(")
    depth = [int(word) for word in words.rstrip(")").split(",") if word]
    with torch.device("meta"):
        return getattr(geonorm.models, name)(*depth, norm="batch")


@pytest.mark.parametrize("weights", [each for enum in NETWORKS for each in enum], ids=str)
def test_every_recipe_is_whole(weights):
    recipe = weights.value
    assert recipe.url.startswith(("https://", "http://"))
    assert recipe.file.endswith(".pth")
    assert recipe.licence
    assert recipe.source
    assert callable(recipe.transforms())
    assert recipe.classes is None or len(recipe.classes()) == recipe.num_classes
    assert recipe.verified == (type(weights).__module__ == "geonorm.models.torchvision_weights")
    assert NETWORKS[type(weights)] == recipe.network
    if recipe.network.startswith("resnet3d"):
        depth, sets = recipe.network[9:-1], weights.name
        assert recipe.file == f"r3d{depth}_{sets}_200ep.pth"
        assert recipe.num_classes == sum({"K": 700, "M": 339, "S": 100}[one] for one in sets)
    network(recipe.network)


def test_scannets_weights_are_files_and_haras_a_folder():
    train, example = MinkUNet34C_Weights.SCANNET_TRAIN, MinkUNet34C_Weights.SCANNET_EXAMPLE
    assert MinkUNet34C_Weights.DEFAULT is train
    assert train.metrics == {"ScanNet val": {"mIoU": 72.219}}
    assert example.metrics == {}
    assert (train.file, train.url.rpartition("/")[2]) == ("MinkUNet34C-train-conv1-5.pth",) * 2
    assert example.file == "minkowskiengine-weights.pth"
    assert example.url.endswith("/minkowskiengine/weights.pth")
    for enum in NETWORKS:
        assert {each.direct for each in enum} == {not enum.__name__.startswith("ResNet3D_")}
    assert ResNet3D_18_Weights.KM.file == "r3d18_KM_200ep.pth"
    assert ResNet3D_18_Weights.KM.place.parts[-2:] == ("checkpoints", "r3d18_KM_200ep.pth")
    with pytest.raises(AttributeError):
        _ = train.colour


def test_every_enum_of_weights_is_checked_here():
    enums = {name for name in geonorm.models.__all__ if name.endswith("_Weights")}
    assert enums == {enum.__name__ for enum in NETWORKS}


def test_the_page_names_every_enum_and_member():
    page = (Path(__file__).resolve().parents[2] / "docs/weights.md").read_text()
    for enum in NETWORKS:
        (line,) = [line for line in page.splitlines()
                   if line.startswith("|") and f"`{enum.__name__}`" in line]  # fmt: skip
        assert all(f"`{name}`" in line for name in enum.__members__ if name != "DEFAULT")
        assert ("not known" in line) == (not next(iter(enum)).verified)


def test_classes_of_haras_files_are_those_of_their_data_sets():
    published = {"K": 700, "KM": 1039, "KMS": 1139, "KS": 800, "M": 339, "MS": 439, "S": 100}
    assert {each.name: each.num_classes for each in ResNet3D_50_Weights} == published


def test_haras_transforms():
    frames = torch.zeros(16, 3, 224, 448, dtype=torch.uint8)
    frames[..., 112:336] = 255  # what is left at half the size by the centre crop
    clip = ResNet3D_18_Weights.K.transforms()(frames)
    assert clip.shape == (3, 16, 112, 112)
    for channel, (mean, std) in enumerate(
        zip((0.4345, 0.4051, 0.3775), (0.2768, 0.2713, 0.2737), strict=True)
    ):
        torch.testing.assert_close(
            clip[channel, :, 8:-8, 8:-8], torch.full((16, 96, 96), (1 - mean) / std)
        )


def test_haras_transforms_average_what_they_make_smaller():
    """Stripes that a picture of every fourth row or column would take for black."""
    frames = torch.zeros(1, 3, 448, 448, dtype=torch.uint8)
    frames[..., ::4], frames[..., 3::4] = 255, 255
    clip = ResNet3D_18_Weights.K.transforms()(frames)
    grey = clip[0, 0, 8:-8, 8:-8] * 0.2768 + 0.4345
    assert (grey - 0.5).abs().max() < 0.1


@pytest.mark.parametrize(("name", "subtracted"), [("SCANNET_TRAIN", 0.5), ("SCANNET_EXAMPLE", 0)])
def test_scannets_transforms(name, subtracted):
    points = np.array([[0, 0, 0], [0.011, 0, 0.001], [0.5, 0, 0]], dtype=np.float32)
    color = np.array([[0, 0.2, 1], [1, 0.4, 1], [0.1, 0.1, 0.1]], dtype=np.float32)
    scan = Scan(points, None, None, "room", extra={"color": color})
    batch = MinkUNet34C_Weights[name].transforms()(scan)
    there = {tuple(place): row for place, row in
             zip(batch.coordinates[:, 1:].tolist(), batch.features, strict=True)}  # fmt: skip
    expected = {(0, 0, 0): [0.5, 0.3, 1.0], (25, 0, 0): [0.1, 0.1, 0.1]}
    assert there.keys() == expected.keys()
    for place, row in expected.items():
        torch.testing.assert_close(there[place], torch.tensor(row) - subtracted)
    assert MinkUNet34C_Weights[name].classes() == ScanNet.classes


class Tied(nn.Module):
    """A network with weights that are used twice, not in the plain order, and in half precision."""

    def __init__(self):
        super().__init__()
        self.network = resnet3d(10, num_classes=3, norm="batch", width=8)
        self.network.to(memory_format=torch.channels_last_3d)
        self.again = self.network.fc
        self.half = nn.Linear(2, 2).half()


def test_weights_come_back_from_safetensors(tmp_path):
    torch.manual_seed(0)
    trained, model = Tied(), Tied()
    save_weights(trained, tmp_path / "a.safetensors", {"licence": "mit"})
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "licence": "mit"}
    report = load_checkpoint(model, tmp_path / "a.safetensors")
    assert {*report.kept} == {*trained.state_dict()}
    for key, tensor in trained.state_dict().items():
        assert torch.equal(model.state_dict()[key], tensor), key
        assert model.state_dict()[key].dtype == tensor.dtype
    within = {k: v for k, v in trained.state_dict().items() if k.startswith("network.")}
    save_weights(within, tmp_path / "b.safetensors")
    with safe_open(tmp_path / "b.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
    alone = resnet3d(10, num_classes=3, width=8)
    load_checkpoint(alone, tmp_path / "b.safetensors")
    assert torch.equal(alone.conv1.weight, trained.network.conv1.weight)


def test_damaged_safetensors_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    model = small()
    save_weights(model, path)
    whole = path.read_bytes()
    for damaged in (whole[:-4], whole[:5], b"", b"\xff" * 64 + whole):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a\.safetensors' cannot be read as safetensors: it"):
            load_checkpoint(model, path)
    with pytest.raises(ValueError, match=r"ends in \.safetensors; got a\.pth"):
        save_weights(model, "a.pth")


def test_weights_by_their_member_or_name(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    for weights in (R3D_18_Weights.KINETICS400_V1, "KINETICS400_V1", "DEFAULT"):
        with pytest.raises(OSError, match=r"R3D_18_Weights\.KINETICS400_V1 could not be fetched"):
            r3d_18(weights=weights)
