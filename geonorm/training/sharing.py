"""Trained networks as folders that can be shared: weights, settings and a model card.

A folder has `model.safetensors`, `config.json`, which tells the network and what its input is, and
`README.md`, the card. It stands wherever a checkpoint of a run does: for the predictors, and for
`geonorm predict` and `export`. `hf://owner/name` is such a folder on the Hugging Face hub, and
`hf://owner/name@revision` one state of it.
"""

import io
import json
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning.pytorch import LightningModule

from geonorm._version import __version__
from geonorm.files import sha256_of, written_whole
from geonorm.models.checkpoints import read_checkpoint, save_weights
from geonorm.models.weights import check_hash
from geonorm.training.checkpoints import read_run_checkpoint
from geonorm.training.model_card import model_card
from geonorm.training.sampler import without_position

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
HUB = "hf://"
KINDS = ("ScanData", "ClipData")  # what a network was trained on, as its checkpoint says
FORMAT = 1  # of config.json

Module = TypeVar("Module", bound=LightningModule)


def located(source: str | Path) -> Path:
    """Return the file or folder of a trained network, from the hub if its name begins with hf://.

    Args:
        source: a path, or `hf://owner/name` with `@revision` if need be.

    Raises:
        ValueError: there is no such folder on the hub, or it is not one that `share` wrote.
        ModuleNotFoundError: huggingface_hub is not installed: `pip install 'geonorm[hub]'`.
    """
    if not str(source).startswith(HUB):
        return Path(source)
    from huggingface_hub import snapshot_download

    name, _, revision = str(source).removeprefix(HUB).partition("@")
    try:
        place = snapshot_download(
            name, revision=revision or None, allow_patterns=[WEIGHTS, CONFIG, CARD]
        )
    except Exception as error:  # its HTTP client, whose errors it passes on, changes with versions
        raise ValueError(f"{source} cannot be had from the hub: {error}") from error
    return Path(place)


def share(checkpoint: Path, folder: Path, licence: str) -> None:
    """Write the folder that shares a network: weights as safetensors, settings, a model card.

    Args:
        checkpoint: a file within the folder of a run; the card tells what it finds there.
        folder: made if need be; what it has of these files is replaced.
        licence: of the weights, an SPDX name such as "mit" or "cc-by-4.0".

    Raises:
        ValueError: the file is missing, damaged or no checkpoint of train-seg or train-action; or
            the licence is no such name.
    """
    if not licence.strip() or any(character.isspace() for character in licence):
        raise ValueError(
            f"licence must be the SPDX name of one, such as mit or cc-by-4.0; got {licence!r}"
        )
    told = read_run_checkpoint(checkpoint)
    kind = next((kind for kind in KINDS if kind in told), None)
    if kind is None:
        raise ValueError(
            f"{checkpoint} does not say what it was trained on, scans or videos; expected a "
            "checkpoint of geonorm train-seg or train-action"
        )
    folder.mkdir(parents=True, exist_ok=True)
    # The old settings would name a hash that the new weights do not have: they go first.
    (folder / CONFIG).unlink(missing_ok=True)
    save_weights(told["state_dict"], folder / WEIGHTS)
    config = {
        "format": FORMAT,
        "geonorm_version": __version__,
        "sha256": sha256_of(folder / WEIGHTS),
        "licence": licence,
        "epoch": told["epoch"],
        "global_step": told["global_step"],
        "pytorch-lightning_version": told["pytorch-lightning_version"],
        "hyper_parameters": told["hyper_parameters"],
        kind: without_position(told[kind]),
    }
    with written_whole(folder / CARD) as aside:
        aside.write_text(model_card(config, checkpoint), encoding="utf-8")
    with written_whole(folder / CONFIG) as aside:
        aside.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def push(folder: Path, name: str, *, private: bool = False) -> str:
    """Upload a shared folder to the Hugging Face hub and return its address.

    Args:
        folder: what `share` wrote.
        name: "owner/name" on the hub, made if need be.
        private: make it for its owner alone, where it is made.

    Raises:
        ValueError: the folder is not whole, or the hub refuses (no token, no right, a bad name).
        ModuleNotFoundError: huggingface_hub is not installed: `pip install 'geonorm[hub]'`.
    """
    from huggingface_hub import HfApi

    read_shared(folder)
    api = HfApi()
    try:
        api.create_repo(name, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=name, folder_path=folder, allow_patterns=[WEIGHTS, CONFIG, CARD],
            commit_message=f"geonorm {__version__}",
        )  # fmt: skip
    except Exception as error:  # as in `located`
        raise ValueError(
            f"{name} cannot be written on the hub: {error}. `hf auth login` keeps a token"
        ) from error
    return str(done)


def read_shared(folder: Path) -> dict[str, Any]:
    """Read a shared folder, as the checkpoint of a run that it was made of.

    Raises:
        ValueError: a file is missing or damaged, the weights are not those that the settings
            belong to, or the folder is of a later geonorm.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        form, expected = config["format"], config["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder} is no folder of geonorm share: {CONFIG} is missing or damaged "
            f"({type(error).__name__}: {error})"
        ) from error
    if form != FORMAT:
        raise ValueError(
            f"{folder} was written by geonorm {config.get('geonorm_version')} in format {form}; "
            f"expected {FORMAT}: install that version"
        )
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise ValueError(f"{folder} has no {WEIGHTS}: get it again, all of it")
    check_hash(weights, expected, f"{weights}: get the folder again, all of it")
    return {**config, "state_dict": read_checkpoint(weights)}


def read_network(source: Path) -> dict[str, Any]:
    """Read the checkpoint of a run, or a shared folder in its place.

    Raises:
        ValueError: it is missing, damaged or neither.
    """
    return read_shared(source) if source.is_dir() else read_run_checkpoint(source)


def restored(kind: type[Module], told: dict[str, Any], device: str) -> Module:
    """Return a module with the weights and settings that `read_network` read, to evaluate.

    Args:
        kind: the module's class.
        told: what was read.
        device: where the module goes.
    """
    file = io.BytesIO()
    wanted = ("state_dict", "hyper_parameters", "pytorch-lightning_version", "epoch", "global_step")
    torch.save({key: told[key] for key in wanted}, file)
    file.seek(0)
    return kind.load_from_checkpoint(file, map_location=device, weights_only=True).eval()
