"""What checkpoints are judged on: the data of their own configuration, or of another."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from jsonargparse import ArgumentParser
from torch import Tensor

from geonorm.commands.predict import usable_device
from geonorm.datasets.label_map import in_words
from geonorm.training.action.data import ClipData
from geonorm.training.action.module import ActionModule
from geonorm.training.action.predictor import ClipPredictor
from geonorm.training.checkpoints import read_run_checkpoint
from geonorm.training.cli import config_file
from geonorm.training.segmentation.data import ScanData
from geonorm.training.segmentation.predictor import ScanPredictor
from geonorm.training.shift.clips import ClipTask
from geonorm.training.shift.evaluate import Task
from geonorm.training.shift.scans import ScanTask, beams_of

# Options of data modules that change what validation sees.
_FACTS = ("val", "root", "label_map", "clip", "eval_portion", "shift", "still")


class Judged(NamedTuple):
    """Checkpoints and what they are judged on.

    Attributes:
        task: the networks and their data.
        titles: descriptions of the networks.
        score: name of the score.
        total: items in the data.
        samples: how many are judged by default, in some minutes.
        facts: what the counts depend on, beside checkpoint, item, corruption and level.
    """

    task: Task
    titles: list[str]
    score: str
    total: int
    samples: int
    facts: dict[str, Any]


def judged_on(
    checkpoints: Sequence[Path],
    config: str | None = None,
    words: Sequence[str] = (),
    device: str = "auto",
    beams: int | None = None,
    domain: int | None = None,
    seed: int = 0,
) -> Judged:
    """Open checkpoints and the validation data that they are judged on.

    Args:
        checkpoints: files of `geonorm train-seg`, or all of `geonorm train-action`.
        config: a configuration of training with the data, a file or a name; by default that of the
            first checkpoint's run.
        words: options that change it, such as `--data.root=FOLDER`.
        device: cpu, cuda or auto.
        beams: rings of the sensor; None for those of the dataset.
        domain: of the scans, where networks have domain norms.
        seed: of the corruptions.

    Raises:
        ValueError: a checkpoint is damaged, of scans where the first is of videos, or knows other
            classes than the data; or there are no data.
    """
    videos = "ClipData" in read_run_checkpoint(checkpoints[0])
    kind, tool = ("ClipData", "train-action") if videos else ("ScanData", "train-seg")
    for checkpoint in checkpoints:
        if kind not in read_run_checkpoint(checkpoint):
            raise ValueError(
                f"{checkpoint} does not say what it was trained on; expected a checkpoint of "
                f"geonorm {tool}"
            )
    section = data_section(checkpoints[0], config)
    if videos:
        if beams is not None or domain is not None:
            raise ValueError(
                "--beams and --domain are of scans; the checkpoints are of videos: leave them out"
            )
        return _videos(checkpoints, section, words, device, seed)
    return _scans(checkpoints, section, words, device, beams, domain, seed)


def data_section(checkpoint: Path, config: str | None) -> dict[str, Any]:
    """Return the section `data` of a configuration, by default the one beside a checkpoint.

    Args:
        checkpoint: within the folder of a run.
        config: a file, or the name of a configuration of this package.

    Raises:
        ValueError: there is no such file, or it has no such section.
    """
    file = checkpoint.parent.parent / "config.yaml" if config is None else config_file(config)
    if not file.is_file():
        raise ValueError(
            f"no configuration beside the checkpoint {checkpoint}: looked for {file}; give one "
            "with the data to judge on as --config"
        )
    read = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not isinstance(read, dict) or not isinstance(read.get("data"), dict):
        raise ValueError(f"{file} has no section `data`; expected the configuration of a training")
    section: dict[str, Any] = read["data"]
    return section


def _open(
    kind: type[Any], section: dict[str, Any], words: Sequence[str]
) -> tuple[Any, dict[str, Any]]:
    """Return the validation data of a data module, and the options that make them."""
    parser = ArgumentParser("geonorm evaluate-shift")
    parser.add_class_arguments(kind, "data")
    parsed = parser.parse_args(["--data", json.dumps(section), *words])
    told = parsed.as_dict()["data"]
    module = parser.instantiate_classes(parsed).data
    try:
        module.setup("validate")
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise ValueError(f"the data take no such option ({error}); leave the option out") from error
    options = {name: told[name] for name in _FACTS if name in told}
    return module.datasets["val"], json.loads(json.dumps(options, default=str))


def _scans(
    checkpoints: Sequence[Path],
    section: dict[str, Any],
    words: Sequence[str],
    device: str,
    beams: int | None,
    domain: int | None,
    seed: int,
) -> Judged:
    scans, options = _open(ScanData, section, words)
    device = usable_device(device, scans=True)
    networks = [ScanPredictor(each, device, domain) for each in checkpoints]
    _check_classes(checkpoints, [network.classes for network in networks], scans.classes)
    beams = beams_of(scans.dataset) if beams is None else beams
    return Judged(
        task=ScanTask(networks, scans, beams, seed),
        titles=[network.module.title for network in networks],
        score="mIoU",
        total=len(scans),
        samples=16,
        facts={
            "data": options, "scans": len(scans), "beams": beams, "domain": domain, "seed": seed,
        },
    )  # fmt: skip


def _videos(
    checkpoints: Sequence[Path],
    section: dict[str, Any],
    words: Sequence[str],
    device: str,
    seed: int,
) -> Judged:
    clips, options = _open(ClipData, section, words)
    device = usable_device(device, scans=False)
    networks = [ClipPredictor(each, device) for each in checkpoints]
    _check_classes(checkpoints, [network.classes for network in networks], clips.classes)
    for checkpoint, network in zip(checkpoints, networks, strict=True):
        if _seen(network) != _seen(networks[0]):
            raise ValueError(
                f"{checkpoint} was trained on clips of another form than {checkpoints[0]}; judge "
                "it by itself"
            )

    def of(module: ActionModule) -> Callable[[Tensor], Tensor]:
        return lambda video: module(video.to(module.device)).float().cpu()

    return Judged(
        task=ClipTask([of(network.module) for network in networks], clips, seed),
        titles=[network.module.title for network in networks],
        score="top-1",
        total=len(clips),
        samples=60,
        facts={"data": options, "videos": len(clips), "seed": seed},
    )


def _seen(network: ClipPredictor) -> tuple[object, ...]:
    """Return what makes the clips that a network is judged on; changes in training do not."""
    clip = network.clip
    return (
        clip.length, clip.step, clip.fps, clip.sampling, clip.size, clip.crop, clip.mean, clip.std
    )  # fmt: skip


def _check_classes(
    checkpoints: Sequence[Path], known: Sequence[list[str]], classes: Sequence[str]
) -> None:
    """Refuse networks of other classes than the data."""
    for checkpoint, own in zip(checkpoints, known, strict=True):
        if own != list(classes):
            raise ValueError(
                f"{checkpoint} knows the classes {in_words(own)}; the data have "
                f"{in_words(list(classes))}"
            )
