"""The model card of a shared network, made of its run: what it is, its scores, how to use it."""

import json
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from geonorm.training.norm_option import norm_in_words

LIBRARIES = ("torch", "MinkowskiEngine", "lightning")
STAGES = {"test": "test", "val": "validation"}
# Of the configuration of a run, what its results follow from.
TOLD = ("seed_everything", "model", "data")
OF_TRAINER = ("max_epochs", "max_steps", "max_time", "precision", "accumulate_grad_batches",
              "gradient_clip_val")  # fmt: skip


def model_card(config: Mapping[str, Any], checkpoint: Path) -> str:
    """Return the card as Markdown with the header that the Hugging Face hub reads.

    Args:
        config: the settings of the shared network.
        checkpoint: what it was made of; scores and configuration are read from its run's folder.
    """
    scans, run = "ScanData" in config, checkpoint.parent.parent
    settings = config["hyper_parameters"]
    scores = {stage: json.loads((run / f"{stage}.json").read_text(encoding="utf-8"))
              for stage in STAGES if (run / f"{stage}.json").is_file()}  # fmt: skip
    title = f"{settings['name']}, {norm_in_words(settings['norm'])}"
    classes = settings["classes"]
    does = "gives each point of a scan a class" if scans else "names the action in a video"
    example = "scan.bin" if scans else "film.mp4"
    return "\n".join([
        *_header(config, scans),
        f"# {title}\n",
        f"A network that {does}, trained with "
        f"[geonorm](https://pypi.org/project/geonorm) {config['geonorm_version']}. "
        f"{len(classes)} classes: {', '.join(classes)}.\n",
        f"Licence of the weights: {config['licence']}.\n",
        "## Use\n",
        "```",
        f"geonorm predict FOLDER {example}     # FOLDER: this one, or hf://owner/name",
        "```\n",
        "## Scores\n",
        *_scores(scores),
        f"Of {checkpoint.name}, after epoch {config['epoch']}, step {config['global_step']}; the "
        "scores are the last that its run wrote.\n",
        "## Input\n",
        *_code(config["ScanData" if scans else "ClipData"]),
        "## Training\n",
        *_training(run / "config.yaml"),
        f"Written with geonorm {config['geonorm_version']}, {', '.join(_versions())}.\n",
    ])  # fmt: skip


def _header(config: Mapping[str, Any], scans: bool) -> list[str]:
    """Return the lines between which the hub looks for what it sorts models by."""
    header = {
        "library_name": "geonorm",
        "license": config["licence"],
        "tags": ["geonorm", "instance-normalization"] + (
            ["point-cloud", "semantic-segmentation"] if scans else ["video"]
        ),
        **({} if scans else {"pipeline_tag": "video-classification"}),
    }  # fmt: skip
    return ["---", yaml.safe_dump(header, sort_keys=False).rstrip(), "---", ""]


def _scores(scores: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield a table of each stage's scores, and one of those of the classes."""
    if not scores:
        yield "The run's folder has no file of scores.\n"
        return
    stages = [*scores]
    heads = " | ".join(STAGES[stage] for stage in stages)
    for within in ("", "iou", "classes"):
        tables = [scores[stage] if not within else scores[stage].get(within, {})
                  for stage in stages]  # fmt: skip
        rows = dict.fromkeys(key for table in tables for key, value in table.items()
                             if value is None or isinstance(value, int | float))  # fmt: skip
        if not rows:
            continue
        yield f"| {'class' if within else 'score'} | {heads} |"
        yield "|---|" + "---|" * len(stages)
        for row in rows:
            yield f"| {row} | " + " | ".join(_number(table.get(row)) for table in tables) + " |"
        yield ""


def _number(value: float | None) -> str:
    """Write a score; a class that does not occur has none."""
    if value is None or value != value:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4f}"


def _code(content: Any) -> list[str]:
    """Return lines of YAML as a block."""
    plain = json.loads(json.dumps(content, default=str))
    return ["```yaml", yaml.safe_dump(plain, sort_keys=False).rstrip(), "```\n"]


def _training(file: Path) -> list[str]:
    """Return the part of a run's configuration that its results follow from."""
    if not file.is_file():
        return ["The run's folder has no configuration.\n"]
    read = yaml.safe_load(file.read_text(encoding="utf-8"))
    told = {key: read[key] for key in TOLD if key in read}
    told["trainer"] = {
        key: value for key, value in (read.get("trainer") or {}).items()
        if key in OF_TRAINER and value is not None
    }  # fmt: skip
    return _code(told)


def _versions() -> Iterator[str]:
    """Yield the name and version of each library that is installed."""
    for name in LIBRARIES:
        try:
            yield f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue
