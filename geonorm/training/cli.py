"""The command line of the training tools: LightningCLI with a folder for each run."""

import itertools
import json
import os
import sys
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from geonorm.names import choices
from geonorm.training.checkpoints import WholeCheckpoints, read_run_checkpoint
from geonorm.training.progress import RunProgressBar

CONFIGS = Path(__file__).with_name("configs")
SUBCOMMANDS = ("fit", "validate", "test", "predict")
# Warnings of Lightning that tell a user nothing.
NOISE = (
    ".*LightningCLI's args parameter is intended to run from within Python.*",
    ".*does not have many workers.*",
    ".*exists and is not empty.*",
    ".*The dirpath has changed from.*",
    ".*`isinstance.treespec, LeafSpec.` is deprecated.*",
)
# The processes that Lightning starts for further devices share the folder of the first.
_RUN_DIR = "GEONORM_RUN_DIR"


class TrainingCLI(LightningCLI):
    """LightningCLI that keeps logs, checkpoints, pictures and configuration in one folder.

    Args:
        module: what is trained; its `reports(folder)` returns the callbacks that show the results,
            its `monitor` is the score to maximize, and its `auto_accelerator`, if any, stands for
            the trainer's accelerator "auto". If it has an `output`, a class of options, they are
            given as `--output.…` and come as a second argument of `reports`.
        data: the data module.
        default_config: configuration used where neither `--config` nor a checkpoint tells one.
        args: command line without the program's name.
    """

    def __init__(
        self,
        module: type[LightningModule],
        data: type[LightningDataModule],
        default_config: Path,
        args: Sequence[str],
    ) -> None:
        for message in NOISE:
            warnings.filterwarnings("ignore", message)
        self.output_class = getattr(module, "output", None)
        super().__init__(
            module,
            data,
            args=complete(args, default_config),
            seed_everything_default=0,
            trainer_defaults={"use_distributed_sampler": False, "log_every_n_steps": 10},
            save_config_kwargs={"overwrite": True},
            auto_configure_optimizers=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--run_dir",
            type=Path | None,
            default=None,
            help="Folder of this run's logs, checkpoints and pictures; by default a new one, "
            "numbered, under runs/.",
        )
        if self.output_class is not None:
            parser.add_class_arguments(self.output_class, "output")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, and read the checkpoint before Lightning does: a damaged one is explained."""
        super().parse_arguments(parser, args)
        checkpoint = self.config[self.config.subcommand].get("ckpt_path")
        if checkpoint and Path(checkpoint).is_file():
            read_run_checkpoint(Path(checkpoint))

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer with this run's loggers and callbacks."""
        config = self._get(self.config_init, "trainer")
        self.run_dir = run_folder(self._get(self.config_init, "run_dir"))
        if config.get("logger") in (None, True):
            place = {"save_dir": self.run_dir, "name": "", "version": ""}
            kwargs["logger"] = [CSVLogger(**place)]
            if find_spec("tensorboard") is not None:
                kwargs["logger"].insert(0, TensorBoardLogger(**place))
            else:
                print("Skipped the TensorBoard logs: tensorboard is not installed")
        if config.get("accelerator") == "auto":
            kwargs["accelerator"] = getattr(self.model, "auto_accelerator", "auto")
        plugins = config.get("plugins") or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        kwargs["plugins"] = [*plugins, WholeCheckpoints()]
        outputs = [] if self.output_class is None else [self._get(self.config_init, "output")]
        kwargs["callbacks"] = [
            *(config.get("callbacks") or []),
            *self.model.reports(self.run_dir, *outputs),
        ]
        if config.get("enable_progress_bar") is not False:
            kwargs["callbacks"].append(RunProgressBar())
        if config.get("logger") is not False and not config.get("fast_dev_run"):
            kwargs["callbacks"].append(LearningRateMonitor())
        if config.get("enable_checkpointing") is not False:
            kwargs["callbacks"].append(
                ModelCheckpoint(
                    self.run_dir / "checkpoints",
                    filename="best",
                    monitor=self.model.monitor,
                    mode="max",
                    save_last=True,
                    enable_version_counter=False,
                )
            )
        return super().instantiate_trainer(**kwargs)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        if "verbose" in kwargs:
            kwargs["verbose"] = False  # the report prints a better table than Lightning
        return kwargs

    def after_fit(self) -> None:
        """Judge the final weights, which the last validation may not have seen, and report."""
        if self.trainer.interrupted or self.trainer.fast_dev_run:
            return
        if self.trainer.checkpoint_callback is not None:
            self.trainer.save_checkpoint(self.run_dir / "checkpoints" / "last.ckpt")
        self.trainer.validate(
            self.model, datamodule=self.datamodule, verbose=False, weights_only=True
        )
        if self.trainer.is_global_zero:
            print(f"Logs, checkpoints and pictures are in {self.run_dir}")


def complete(args: Sequence[str], default_config: Path) -> list[str]:
    """Return the command line with what the user may leave out: `fit` and the configuration.

    A configuration is a file or the name of one in this package, such as `ucf101`. Without
    `--config`, a `--ckpt_path` brings the configuration of the run it comes from.

    Raises:
        ValueError: there is no configuration beside the checkpoint, or none of a given name.
    """
    subcommand, *rest = args if args and args[0] in SUBCOMMANDS else ["fit", *args]
    rest = _with_config_files(_files_in_brackets(rest))
    if _option(rest, "--config") is not None:
        return [subcommand, *rest]
    config = default_config
    if (checkpoint := _option(rest, "--ckpt_path")) is not None:
        config = Path(checkpoint).parent.parent / "config.yaml"
        if not config.is_file():
            raise ValueError(
                f"no configuration beside the checkpoint {checkpoint}: looked for {config}; "
                f"give the one it was trained with as --config"
            )
    return [subcommand, "--config", str(config), *rest]


def _files_in_brackets(args: list[str]) -> list[str]:
    """Write `--data.files a b` as the list `["a", "b"]` that the parser wants."""
    if "--data.files" not in args:
        return args
    start = args.index("--data.files") + 1
    end = next((i for i in range(start, len(args)) if args[i].startswith("-")), len(args))
    files = args[start:end]
    if not files or (len(files) == 1 and files[0][0] + files[0][-1] == "[]"):
        return args
    return [*args[:start], json.dumps(files), *args[end:]]


def _with_config_files(args: list[str]) -> list[str]:
    """Write every `-c` and `--config` as `--config FILE`."""
    words = iter(args)
    written: list[str] = []
    for word in words:
        name, equals, value = word.partition("=")
        if name not in ("-c", "--config"):
            written.append(word)
        elif equals or (value := next(words, "")):
            written += ["--config", str(config_file(value))]
        else:
            written.append(name)
    return written


def config_file(name: str) -> Path:
    """Return the file of a configuration: a path, or a name in `geonorm/training/configs`.

    Raises:
        ValueError: there is no such file, and no configuration of that name (listing them).
    """
    named = CONFIGS / f"{name}.yaml"
    for file in (Path(name), named):
        if file.is_file():
            return file
    names = (file.stem for file in CONFIGS.glob("*.yaml"))
    raise ValueError(f"--config {name!r} is no file; {choices(name, names)}")


def _option(args: Sequence[str], name: str) -> str | None:
    for arg, following in itertools.zip_longest(args, args[1:]):
        if arg == name:
            return following
        if arg.startswith(f"{name}="):
            return arg.partition("=")[2]
    return None


def run_folder(wanted: Path | None) -> Path:
    """Return the folder of this run, made if need be; without a wish, the next number in runs/."""
    if wanted is None and _RUN_DIR in os.environ:
        wanted = Path(os.environ[_RUN_DIR])
    if wanted is not None:
        wanted.mkdir(parents=True, exist_ok=True)
        return wanted
    runs = Path("runs") / Path(sys.argv[0]).stem
    runs.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        try:
            (runs / f"{number:03d}").mkdir()
        except FileExistsError:
            continue
        break
    os.environ[_RUN_DIR] = str(runs / f"{number:03d}")
    return runs / f"{number:03d}"
