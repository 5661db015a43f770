"""What everyone trains videos with: RandAugment, mixup, CutMix, repeats, rates by depth."""

from types import SimpleNamespace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch.nn import functional

from geonorm.datasets import ClassFolders, ClipCorruption, ClipDataset, ClipTransform
from geonorm.datasets.video_io import write_video
from geonorm.models import resnet3d
from geonorm.training.action.data import ClipBatch, ClipData, ClipFormat, clips_of
from geonorm.training.action.mixing import ClipMixing
from geonorm.training.action.module import ActionModule
from geonorm.training.action.networks import NETWORKS, rates_by_depth
from geonorm.training.sampler import EpochSampler
from helpers.video_files import numbered_film


def still(frames: int = 5) -> torch.Tensor:
    """Return one random picture several times."""
    picture = torch.randint(0, 256, (1, 3, 32, 40), generator=torch.Generator().manual_seed(0))
    return picture.to(torch.uint8).repeat(frames, 1, 1, 1)


def batch_of(count: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Return clips whose values are the clip's number plus a tenth of the frame's, and labels."""
    clips = torch.arange(count).float().view(-1, 1, 1, 1, 1).repeat(1, 3, 4, 16, 16)
    clips += torch.arange(4).float().view(1, 1, 4, 1, 1) / 10
    return clips, torch.arange(count) % 4


def test_rand_augment_changes_each_frame_alike_and_clips_each_in_its_way():
    transform = ClipTransform((32, 40), train=True, rand_augment=9, mean=(0, 0, 0), std=(1, 1, 1))
    plain = ClipTransform((32, 40), train=False, mean=(0, 0, 0), std=(1, 1, 1))(still(), (0, 0, 0))
    changed = []
    for index in range(40):
        out = transform(still(), (0, 0, index))
        assert torch.equal(out, out[:, :1].expand_as(out))
        assert torch.equal(transform(still(), (0, 0, index)), out)
        changed.append(float((out - plain).abs().mean()))
    assert np.mean(np.array(changed) > 0.01) > 0.7
    assert len({round(change, 5) for change in changed}) > 20
    evaluated = ClipTransform((32, 40), train=False, rand_augment=9,
                              mean=(0, 0, 0), std=(1, 1, 1))(still(), (0, 0, 0))  # fmt: skip
    assert torch.equal(evaluated, plain)


def test_a_larger_magnitude_changes_more():
    means = []
    plain = ClipTransform((32, 40), train=False)(still(1), (0, 0, 0))
    for magnitude in (2, 15, 30):
        transform = ClipTransform((32, 40), train=True, rand_augment=magnitude)
        outs = [transform(still(1), (0, 0, index)) for index in range(60)]
        means.append(np.mean([float((out - plain).abs().mean()) for out in outs]))
    assert means[0] < means[1] < means[2]


def test_mixup_is_a_weighted_mean_of_clips_and_of_labels():
    """Clip n becomes λ n + (1 − λ)(n − 1): the part is read from the clips and from the labels."""
    clips, labels = batch_of()
    parts = []
    for step in range(60):
        mixed, soft = ClipMixing(4, mixup=0.8)(clips, labels, (0, 0, step, 0))
        assert (type(mixed), mixed.shape, soft.shape) == (torch.Tensor, clips.shape, (6, 4))
        part = float(1 - (clips[1] - mixed[1]).mean())
        parts.append(part)
        previous = clips.roll(1, 0)
        torch.testing.assert_close(mixed, part * clips + (1 - part) * previous)
        expected = part * functional.one_hot(labels, 4) + (1 - part) * functional.one_hot(
            labels.roll(1), 4
        )
        torch.testing.assert_close(soft, expected)
    # A Beta distribution of 0.8 twice: mean 1/2, variance 1 / (4 (2 · 0.8 + 1)).
    assert np.mean(parts) == pytest.approx(0.5, abs=0.12)
    assert np.var(parts) == pytest.approx(1 / (4 * 2.6), rel=0.35)


def test_cutmix_puts_one_rectangle_into_every_frame():
    clips, labels = batch_of()
    areas = []
    for step in range(40):
        mixed, soft = ClipMixing(4, cutmix=1.0)(clips, labels, (0, 0, step, 0))
        pasted = mixed[1] != clips[1]
        assert torch.equal(pasted, pasted[:1, :1].expand_as(pasted))
        torch.testing.assert_close(mixed[1][pasted], clips[0][pasted])
        rows, columns = pasted[0, 0].any(1), pasted[0, 0].any(0)
        assert torch.equal(pasted[0, 0], rows[:, None] & columns)
        area = float(pasted[0, 0].double().mean())
        areas.append(area)
        torch.testing.assert_close(soft[1], torch.tensor([area, 1 - area, 0, 0]).float())
    assert min(areas) < 0.1
    assert max(areas) > 0.4


def test_both_take_turns():
    clips, labels = batch_of()
    mixing = ClipMixing(4, mixup=1.0, cutmix=1.0)
    whole = [mixing(clips, labels, (0, 0, step, 0))[0][1].unique().numel() <= 4
             for step in range(60)]  # fmt: skip
    assert 18 <= sum(whole) <= 42


def test_what_is_mixed_is_a_function_of_the_key():
    clips, labels = batch_of()
    torch.manual_seed(3)
    state = torch.get_rng_state()
    mixing = ClipMixing(4, mixup=0.8)
    first = mixing(clips, labels, (0, 1, 2, 0))[0]
    assert torch.equal(mixing(clips, labels, (0, 1, 2, 0))[0], first)
    assert torch.equal(torch.get_rng_state(), state)
    for key in ((1, 1, 2, 0), (0, 2, 2, 0), (0, 1, 3, 0), (0, 1, 2, 1)):
        assert not torch.equal(mixing(clips, labels, key)[0], first)
    before = batch_of()[0]
    assert torch.equal(clips, before)


class Recorder(ActionModule):
    """An action module whose network gives six clips logits of their own, without a trainer."""

    logits = torch.tensor([2.0, 0.5, -1.0, 0.1]) * torch.arange(1, 7)[:, None]

    def forward(self, video: torch.Tensor) -> torch.Tensor:
        self.seen = video
        return self.logits

    def log(self, name: str, value: torch.Tensor, **_: object) -> None:
        self.logged = float(value)


class Trainer:
    """What a training step asks of its trainer."""

    global_rank, current_epoch, barebones = 0, 0, True

    class datamodule:  # noqa: N801
        seed = 5


@pytest.mark.parametrize("options", [{}, {"mixup": 0.8}, {"cutmix": 1.0},
                                     {"mixup": 0.8, "label_smoothing": 0.2}])  # fmt: skip
def test_the_loss_is_the_cross_entropy_with_the_soft_labels(options):
    """By hand: −Σ target · log softmax, the target smoothed over the four classes."""
    module = Recorder("resnet3d_10", classes=list("abcd"), **options)
    module._trainer = Trainer()
    clips, labels = batch_of()
    batch: ClipBatch = type("Batch", (), {"video": clips, "label": labels})()
    loss = module.training_step(batch, 7)
    smoothing = options.get("label_smoothing", 0.0)
    target = functional.one_hot(labels, 4).float()
    mixing = {name: value for name, value in options.items() if name != "label_smoothing"}
    expected_clips = clips
    if mixing:
        expected_clips, target = ClipMixing(4, **mixing)(clips, labels, (5, 0, 7, 0))
        assert not torch.equal(target, functional.one_hot(labels, 4).float())
    target = target * (1 - smoothing) + smoothing / 4
    by_hand = -(target * Recorder.logits.log_softmax(1)).sum(1).mean()
    assert float(loss) == pytest.approx(float(by_hand), rel=1e-5)
    assert torch.equal(module.seen, expected_clips)


@pytest.mark.parametrize("name", ["r3d_18", "r2plus1d_18", "resnet3d_10"])
def test_rates_fall_with_depth(name: str):
    """At 0.5: layer 4 at 1/2 of the last layer's rate, layer 1 at 1/16, the stem at 1/32."""
    network = NETWORKS[name](4)
    expected = {"layer4": 0.5, "layer3": 0.25, "layer2": 0.125, "layer1": 1 / 16}
    found = {id(p): factor for factor, group in rates_by_depth(network, 1.0, 0.5) for p in group}
    for key, parameter in network.named_parameters():
        stage = key.split(".")[0]
        assert found.get(id(parameter)) == (None if stage == "fc" else expected.get(stage, 1 / 32))
    halved = rates_by_depth(network, 0.3, 0.5)
    assert sorted(factor for factor, _ in halved) == pytest.approx(
        [0.3 / 32, 0.3 / 16, 0.3 / 8, 0.3 / 4, 0.3 / 2]
    )
    [(factor, backbone)] = rates_by_depth(network, 0.1, 1.0)
    assert factor == 0.1
    assert len(backbone) == len(list(network.parameters())) - 2


def test_optimizer_has_the_rates(monkeypatch: pytest.MonkeyPatch):
    from geonorm.training.optimization import Optimization

    module = ActionModule("resnet3d_10", classes=list("ab"), layer_decay=0.5,
                          optim=Optimization(lr=0.32, warmup=0, schedule="constant"))  # fmt: skip
    trainer = type("T", (), {"estimated_stepping_batches": 10, "callbacks": ()})()
    monkeypatch.setattr(module, "_trainer", trainer)
    groups = module.configure_optimizers()["optimizer"].param_groups
    assert [group["lr"] for group in groups] == pytest.approx([0.32, 0.01, 0.02, 0.04, 0.08, 0.16])
    assert sum(len(group["params"]) for group in groups) == len(list(module.parameters()))
    assert {id(p) for p in groups[0]["params"]} == {id(p) for p in module.model.fc.parameters()}
    module.layer_decay, module.backbone_lr_factor = 1.0, 0.25
    groups = module.configure_optimizers()["optimizer"].param_groups
    assert [group["lr"] for group in groups] == pytest.approx([0.32, 0.08])


@pytest.fixture
def films(tmp_path):
    for n in range(10):
        folder = tmp_path / "films" / "ab"[n % 2]
        folder.mkdir(parents=True, exist_ok=True)
        write_video(folder / f"{n}.mp4", numbered_film(30))
    return ClassFolders(tmp_path / "films")


def test_repeats_are_drawn_each_by_itself(films, tmp_path):
    clips = ClipDataset(films, length=3, repeats=4, cache=tmp_path / "cache")
    assert len(clips) == 40
    assert [clips[i].video_index for i in (0, 3, 4, 39)] == [0, 0, 1, 9]
    starts = {tuple(clips[i].video[:, 0, -1].flatten().tolist()) for i in range(4)}
    assert len(starts) > 1
    clips.set_epoch(1)
    again = {tuple(clips[i].video[:, 0, -1].flatten().tolist()) for i in range(4)}
    assert again != starts


@pytest.mark.parametrize(("options", "rate"), [
    ({"length": 5}, 25), ({"length": 5, "step": 2}, 12.5), ({"length": 5, "step": 2, "fps": 10}, 5),
    ({"length": 6, "sampling": "uniform"}, 5),
    ({"length": 6, "sampling": "segments", "portion": (0.5, 1.0)}, 10),
])  # fmt: skip
def test_a_clip_knows_its_rate(films, tmp_path, options, rate):
    """Of films of 30 frames at 25 a second; six frames of the last 15 stand for 0.6 seconds."""
    assert ClipDataset(films, cache=tmp_path / "cache", **options).rate(3) == pytest.approx(rate)


def test_a_batch_holds_all_repeats_of_its_videos_and_no_two_side_by_side():
    """mixup takes each clip with the one before it, and the first with the last."""
    for rank in range(2):
        sampler = EpochSampler(range(26 * 3), True, 1, rank, 2, repeats=3, block=4)
        order = list(sampler)
        assert len(order) == len(set(order)) == 39
        for first in range(0, 36, 12):
            videos = [index // 3 for index in order[first : first + 12]]
            assert sorted(videos) == sorted(3 * list(dict.fromkeys(videos)))
            assert len(set(videos)) == 4
            assert all(videos[n] != videos[n - 1] for n in range(12))
    first, second = (set(EpochSampler(range(78), True, 1, rank, 2, 3, 4)) for rank in range(2))
    assert not first & second
    assert {index // 3 for index in first | second} == set(range(26))


def test_the_order_without_repeats_is_as_it_was():
    expected = np.random.default_rng([7, 0]).permutation(11)[1:9:3]
    assert list(EpochSampler(range(11), True, 7, 1, 3)) == expected.tolist()


def test_training_clips_repeat_and_others_do_not(films):
    data = ClipData(lambda: films, lambda: films, clip=ClipFormat(length=3, size=36, crop=32),
                    batch_size=6, repeats=3, num_workers=0)  # fmt: skip
    data.setup("fit")
    assert (len(data.datasets["train"]), len(data.datasets["val"])) == (30, 10)
    data.trainer = type("T", (), {"global_rank": 0, "world_size": 1})()
    batch = next(iter(data.train_dataloader()))
    assert sorted(batch.video_index.unique(return_counts=True)[1].tolist()) == [3, 3]


@pytest.mark.parametrize(("option", "stills"), [("also", [False, True]), ("only", [True])])
@pytest.mark.parametrize("stage", ["validate", "test"])
def test_still_clips_are_one_frame_repeated(films, option, stills, stage):
    data = ClipData(lambda: films, lambda: films, clip=ClipFormat(length=3, size=36, crop=32),
                    still=option)  # fmt: skip
    data.setup(stage)
    clips = [dataset[0].video for dataset in data.datasets.values()]
    assert [torch.equal(clip[:, :1].expand_as(clip), clip) for clip in clips] == stills


def test_each_stage_has_its_own_views_and_part_of_the_films(films):
    shift = ClipCorruption("contrast", 2)
    data = ClipData(
        lambda: films, lambda: films, clip=ClipFormat(length=3, step=2, size=36, crop=32),
        train_portion=(0.0, 0.5), eval_portion=(0.5, 1.0), shift=shift, views=3, repeats=2, seed=8,
    )  # fmt: skip
    data.setup("fit")
    data.setup("test")
    told = {
        name: (clips.sampling, clips.views, clips.repeats, clips.portion, clips.transform.shift)
        for name, clips in data.datasets.items()
    }
    assert told == {
        "train": ("random", 1, 2, (0.0, 0.5), None),
        "val": ("dense", 1, 1, (0.5, 1.0), shift),
        "test": ("dense", 3, 1, (0.5, 1.0), shift),
    }
    assert {(clips.step, clips.size, clips.seed) for clips in data.datasets.values()} == {
        (2, 36, 8)}  # fmt: skip
    assert data.judged("fit") == [data.datasets["val"]]
    assert data.judged("test") == [data.datasets["test"]]
    assert data.state_dict()["views"] == 3
    spread = ClipFormat(sampling="uniform")
    assert clips_of(films, spread, train=True).sampling == "segments"
    assert clips_of(films, spread).sampling == "uniform"
    assert clips_of(films, spread, still=True).sampling == "still"


def test_still_clips_beside_real_ones_are_one_of_each_film(films):
    data = ClipData(lambda: films, lambda: films, still="also", views=3)
    data.setup("fit")
    assert [*data.datasets] == ["train", "val"]
    data.setup("test")
    assert [len(clips) for clips in data.judged("test")] == [30, 10]
    assert {name: clips.sampling for name, clips in data.datasets.items()} == {
        "train": "random", "val": "dense", "test": "dense", "still": "still",
    }  # fmt: skip


def test_still_clips_are_judged_where_a_validation_stands_alone(films):
    data = ClipData(lambda: films, lambda: films, still="also", num_workers=0)
    state = SimpleNamespace(fn=TrainerFn.VALIDATING)
    data.trainer = SimpleNamespace(global_rank=0, world_size=1, state=state)
    data.setup("validate")
    assert [*data.datasets] == ["val", "still"]
    assert [each.dataset.sampling for each in data.val_dataloader()] == ["dense", "still"]
    state.fn = TrainerFn.FITTING
    assert [each.dataset.sampling for each in data.val_dataloader()] == ["dense"]
    assert data.test_dataloader()[0].dataset.sampling == "still"


@pytest.mark.parametrize(
    ("function", "opened"),
    [
        (TrainerFn.FITTING, ["train", "val"]),
        (TrainerFn.VALIDATING, ["val", "still"]),
        (TrainerFn.TESTING, ["test", "still"]),
        (TrainerFn.PREDICTING, []),
        (None, []),
    ],
)
def test_the_first_process_opens_what_the_others_will(films, function, opened):
    data = ClipData(lambda: films, lambda: films, still="also", num_workers=0)
    data.trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    data.trainer.state.fn = function
    data.prepare_data()
    assert [*data.datasets] == opened


def test_a_short_last_batch_is_left_out_of_training_alone(films):
    def batches(size, world_size=1):
        data = ClipData(lambda: films, lambda: films, clip=ClipFormat(length=3, size=36, crop=32),
                        batch_size=size, num_workers=0)  # fmt: skip
        data.setup("fit")
        state = SimpleNamespace(fn=TrainerFn.FITTING)
        data.trainer = SimpleNamespace(global_rank=0, world_size=world_size, state=state)
        (judged,) = data.val_dataloader()
        return len(data.train_dataloader()), len(judged)

    assert batches(4) == (2, 3)
    assert batches(10) == (1, 1)
    assert batches(11) == (1, 1)
    assert batches(4, world_size=2) == (1, 2)
    assert batches(6, world_size=2) == (1, 1)


def test_clips_are_augmented_as_their_format_says(films):
    plain, augmented = (
        clips_of(films, ClipFormat(length=3, size=48, crop=48, rand_augment=magnitude), train=True)
        for magnitude in (0, 20)
    )
    assert any(not torch.equal(plain[i].video, augmented[i].video) for i in range(5))


@pytest.mark.parametrize(("call", "message"), [
    (lambda: ClipMixing(4), "mixup or cutmix must be above 0"),
    (lambda: ClipMixing(4, mixup=-0.1), "mixup must be a Beta distribution's parameter.* got -0.1"),
    (lambda: ClipMixing(4, cutmix=float("inf")), "cutmix must be a Beta .* got inf"),
    (lambda: ActionModule(mixup=-1.0), "mixup must be a Beta"),
    (lambda: ActionModule(layer_decay=0.0), r"layer_decay must be a part in \(0, 1\]; got 0.0"),
    (lambda: ActionModule(layer_decay=1.1), r"layer_decay must be a part in \(0, 1\]; got 1.1"),
    (lambda: ClipTransform(8, train=True, rand_augment=31), "rand_augment must be .* got 31"),
    (lambda: ClipTransform(8, train=True, rand_augment=-1), "rand_augment must be .* got -1"),
    (lambda: ClipData(batch_size=8, repeats=3), "repeats must be at least 1 and divide batch_size"),
    (lambda: ClipData(repeats=0), "repeats must be at least 1 and divide batch_size"),
    (lambda: ClipDataset(None, repeats=0), "repeats must be at least 1"),
    (lambda: ClipDataset(None, repeats=2, sampling="uniform"), "1 unless sampling draws .*uniform"),
])  # fmt: skip
def test_bad_arguments(call, message: str):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_network_with_repeated_rates_still_has_them_with_an_input_norm():
    network = resnet3d(10, num_classes=2, input_norm="instance")
    found = {id(p): factor for factor, group in rates_by_depth(network, 1.0, 0.5) for p in group}
    assert found[id(network.input_norm.weight)] == 1 / 32
