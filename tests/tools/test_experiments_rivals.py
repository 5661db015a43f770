"""The rivals of norms in the grid: what each does, on networks small enough to work out."""

from dataclasses import replace

import MinkowskiEngine as ME
import numpy as np
import pytest
import torch
from grid.actions import Actions
from grid.cells import AT_TEST, RIVALS, Cell
from grid.rivals import Adapted, MixStyle, by_batch, by_entropy, by_test
from grid.run import trained
from grid.streets import MissingBeams, Streets
from torch import nn

from geonorm.datasets import SyntheticStreets
from geonorm.datasets.scan_corruptions import rings
from geonorm.training.action.data import ClipFormat

SMALL = Streets(steps=1, scans=2, tested=3, validated=2, voxel=1.0, corruptions=("density",))


def rows(network, inputs):
    """Return the logits of inputs (1, C), as `Logits` has it."""
    return list(network(torch.cat([*inputs])).split(1))


def values(*given):
    return [torch.tensor([[float(value)]]) for value in given]


@pytest.fixture
def norm():
    """A batch norm of one channel, with next to no eps, that has seen mean 10 and variance 4."""
    norm = nn.BatchNorm1d(1, eps=1e-12).eval()
    norm.running_mean.fill_(10.0)
    norm.running_var.fill_(4.0)
    norm.num_batches_tracked.fill_(7)
    return norm


def test_by_batch_takes_the_mean_and_variance_of_each_batch(norm):
    found = by_batch(norm, rows, [values(0, 2), values(5, 11)])
    assert [round(float(each), 5) for each in found] == [-1, 1, -1, 1]
    assert (float(norm.running_mean), float(norm.running_var)) == (10, 4)


def test_by_test_takes_the_mean_over_all_batches(norm):
    # Means 1 and 8, unbiased variances 2 and 18: 4.5 and 10.
    found = torch.cat(by_test(norm, rows, [values(0, 2), values(5, 11)]))
    assert torch.allclose(found, (torch.tensor([[0.0], [2], [5], [11]]) - 4.5) / 10**0.5)


def test_by_entropy_answers_before_it_learns_and_learns_norms_alone():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    batch = list(torch.randn(8, 2).split(1))
    once = torch.cat(by_entropy(network, rows, [batch] * 30))
    first = torch.cat(by_batch(nn.Sequential(*network).eval(), rows, [batch]))
    after = network.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed - {"1.num_batches_tracked"} == {"1.weight", "1.bias"}

    def entropy(logits):
        return float(torch.distributions.Categorical(logits=logits).entropy().mean())

    assert entropy(once[-8:]) < entropy(once[:8])
    assert entropy(first) < entropy(once[-8:])  # one more step has been taken
    network.load_state_dict(before)
    assert torch.equal(torch.cat(by_batch(network, rows, [batch])), once[:8])


def test_each_test_begins_with_the_trained_network():
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    one, other = values(0, 1, 5, 6), values(2, 3, 9, 1)

    def inputs(samples):
        return [*samples]

    for rival in AT_TEST:
        alone = Adapted(rival, network, rows, inputs, lambda each: each, 2)
        after = Adapted(rival, network, rows, inputs, lambda each: each, 2)
        after(one, 0, None)
        for item in (2, 0, 1):
            assert torch.equal(alone(other, item, None), after(other, item, None))
        assert all(torch.equal(before[n], value) for n, value in network.state_dict().items())
        # An item that is not there has no answer, and the others have theirs.
        missing = Adapted(
            rival, network, rows, lambda s: [s[0], None, s[2], None], lambda each: each, 2
        )
        assert missing(one, 1, None) is None
        assert missing(one, 2, None) is not None
    with pytest.raises(ValueError, match="tent changes batch norms, and the network has none"):
        Adapted("tent", nn.Linear(1, 2), rows, inputs, lambda each: each, 2)


def sparse(*scans):
    """Return a sparse tensor of scans, features (N, C) each."""
    places = [torch.stack([torch.arange(len(each))] * 3, 1).int() for each in scans]
    coordinates, features = ME.utils.sparse_collate(places, list(scans))
    return ME.SparseTensor(features, coordinates)


def moments(features):
    return torch.stack([features.mean(0), features.std(0, correction=0)])


@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_mix_style_gives_an_instance_a_mean_of_two_styles(kind):
    torch.manual_seed(3)
    scans = [torch.randn(50, 2) + 1, 3 * torch.randn(50, 2) - 4]
    x = sparse(*scans) if kind == "sparse" else torch.stack(scans).movedim(1, 2)
    if kind == "sparse":
        scans = x.decomposed_features  # the engine has an order of its own
    mix = MixStyle(probability=1.0, alpha=1.0)
    for _ in range(9):
        out = mix(x)
        found = (out.decomposed_features if kind == "sparse" else [*out.movedim(2, 1)])
        own = [moments(each) for each in scans]
        for number in range(2):
            shares = (moments(found[number]) - own[number]) / (own[1 - number] - own[number])
            assert torch.allclose(shares, shares.mean(), atol=1e-3)
            assert -1e-3 < shares.mean() < 1 + 1e-3
            # The picture is the same but for its style.
            plain = [(each - moments(each)[0]) / moments(each)[1] for each in
                     (found[number], scans[number])]  # fmt: skip
            assert torch.allclose(*plain, atol=1e-3)
        if shares.mean() > 0.05:
            break
    else:
        pytest.fail("nothing was mixed")
    assert mix.eval()(x) is x
    assert MixStyle(probability=0.0)(x) is x


def test_mix_style_takes_statistics_as_constants():
    torch.manual_seed(0)
    x = torch.randn(2, 1, 30, requires_grad=True)
    MixStyle(1.0)(x).sum().backward()
    assert torch.allclose(x.grad, x.grad[:, :, :1].expand_as(x))
    assert (x.grad > 0).all()  # of a normalization that is differentiated it would be 0


def test_missing_beams_are_whole_rings_and_at_most_half():
    scan = SyntheticStreets(1)[0]
    ring, counts = rings(scan, 32), set()
    where = {point.tobytes(): number for number, point in enumerate(scan.points)}
    for seed in range(12):
        left = MissingBeams()(scan, np.random.default_rng(seed))
        kept = {ring[where[point.tobytes()]] for point in left.points}
        assert len(left) == np.isin(ring, [*kept]).sum()
        counts.add(32 - len(kept))
    assert max(counts) <= 16
    assert len(counts) > 4


def test_what_adapts_at_the_test_takes_the_weights_of_the_plain_training():
    plain = Cell("actions", "batch", seed=2)
    assert {replace(plain, rival=rival).training for rival in AT_TEST} == {plain}
    mixed = replace(plain, rival="mixstyle")
    assert mixed.training == mixed


@pytest.mark.parametrize("rival", RIVALS["streets"])
def test_every_rival_of_streets_is_trained_and_answers(rival, tmp_path):
    cell = Cell("streets", "batch", rival=rival)
    module, _ = trained(SMALL, cell.training, 1e-3, tmp_path)
    assert 0 <= SMALL.validation(cell, SMALL.network(cell, module)) <= 1
    kinds = [type(part).__name__ for part in module.modules()]
    assert ("ChannelNorms" in kinds) == (rival == "intensity")
    assert (kinds.count("BatchNorm") == 1) == (rival == "standardized")
    assert bool(SMALL.data(cell).augment) == (rival == "augmented")
    hooks = [name for name, part in module.network.named_modules() if part._forward_hooks]
    assert hooks == (["block1", "block2"] if rival == "mixstyle" else [])


@pytest.mark.parametrize("rival", ["tent", "mixstyle", "augmented", "unstrided"])
def test_every_rival_of_actions_is_trained_and_answers(rival, tmp_path):
    small = Actions(steps=1, batch=4, films=12, tested=3, validated=3, corruptions=("gain",),
                    clip=ClipFormat(length=4, size=24, crop=20))  # fmt: skip
    cell = Cell("actions", "batch", rival=rival)
    module, _ = trained(small, cell.training, 1e-3, tmp_path)
    assert small.scores(small.network(cell, module)).keys() == {"clean", "gain 3", "gain 5"}
    assert bool(small.data(cell).clip.jitter) == (rival == "augmented")
    assert replace(small.data(cell).clip, jitter=0.0) == small.clip
    assert (module.model.layer4[0].conv1.stride == (1, 1, 1)) == (rival == "unstrided")


@pytest.mark.parametrize(("rival", "late"), [("", [9, 4]), ("unstrided", [50, 50])])
def test_how_many_positions_the_last_stages_have(rival, late):
    """As the claims and `grid.rivals` say."""
    actions = Actions()
    module = actions.module(Cell("actions", "instance", rival=rival), 1e-3)
    positions = []
    for stage in (module.model.layer3, module.model.layer4):
        stage.register_forward_hook(lambda *of: positions.append(of[-1][0, 0].numel()))
    module(torch.randn(1, 3, actions.clip.length, *2 * (actions.clip.crop,)))
    assert positions == late
