"""The command line of the training tools: LightningCLI with a folder for each run."""

import itertools
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jsonargparse.typing import NonNegativeInt
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger, TensorBoardLogger

from geonorm.names import choices
from geonorm.training.checkpoints import (
    LastCheckpoint,
    StepCheckpoint,
    WholeCheckpoints,
    read_run_checkpoint,
)
from geonorm.training.launch import chosen_by_the_first
from geonorm.training.progress import run_progress
from geonorm.training.run_logger import RunLogger
from geonorm.training.run_report import RunReport
from geonorm.training.throughput import Throughput

CONFIGS = Path(__file__).with_name("configs")
SUBCOMMANDS = ("fit", "validate", "test")


class TrainingCLI(LightningCLI):
    """LightningCLI that keeps logs, checkpoints, pictures and configuration in one folder.

    Args:
        module: what is trained; its `reports(folder, num_pictures)` returns the callbacks that show
            the results, its `num_pictures` is the default of the option, its `monitor` is the score
            to maximize, and its `auto_accelerator`, if any, stands for the trainer's accelerator
            "auto".
        data: the data module.
        default_config: configuration used where neither `--config` nor a checkpoint tells one.
        args: command line without the program's name.
        name: folder in runs/ of the numbered folders of runs.
    """

    def __init__(
        self,
        module: type[LightningModule],
        data: type[LightningDataModule],
        default_config: Path,
        args: Sequence[str],
        name: str,
    ) -> None:
        self.name = name
        super().__init__(
            module,
            data,
            args=complete(args, default_config),
            seed_everything_default=0,
            trainer_defaults={
                "use_distributed_sampler": False,
                "log_every_n_steps": 10,
                "enable_model_summary": False,  # the progress says how many weights there are
            },
            save_config_kwargs={"overwrite": True},
            auto_configure_optimizers=False,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return Lightning's subcommands but `predict`, which is a command of its own."""
        return {name: LightningCLI.subcommands()[name] for name in SUBCOMMANDS}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--run_dir",
            type=Path | None,
            default=None,
            help="Folder of this run's logs, checkpoints and pictures; by default a new one, "
            "numbered, under runs/.",
        )
        module: Any = self.model_class
        parser.add_argument(
            "--num_pictures",
            type=NonNegativeInt,
            default=module.num_pictures,
            help="Scans or clips to draw at the end of a run, 0 for none.",
        )
        parser.add_argument(
            "--save_every",
            type=int | None,
            default=None,
            help="Steps after which the last checkpoint is written anew, to resume from; it is "
            "also written with each validation.",
        )
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
        self.run_dir = run_folder(self._get(self.config_init, "run_dir"), self.name)
        if config.get("logger") in (None, True) and not config.get("barebones"):
            kwargs["logger"] = self._loggers()
        if config.get("accelerator") == "auto":
            kwargs["accelerator"] = getattr(self.model, "auto_accelerator", "auto")
        plugins = _listed(config.get("plugins"))
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(WholeCheckpoints())
        kwargs["plugins"] = plugins
        if config.get("barebones"):  # with which Lightning takes no values for these
            kwargs |= {"log_every_n_steps": None, "enable_model_summary": None}
        given = _listed(config.get("callbacks"))
        kwargs["callbacks"] = [*given, *self._callbacks(config, given)]
        if not config.get("barebones"):
            last = LastCheckpoint(self.run_dir / "checkpoints" / "last.ckpt")
            kwargs["callbacks"].insert(0, last)
        return super().instantiate_trainer(**kwargs)

    def _loggers(self) -> list[Logger]:
        """Return the loggers that write into the run's folder."""
        loggers: list[Logger] = [RunLogger(self.run_dir)]
        if find_spec("tensorboard") is not None:
            loggers.insert(0, TensorBoardLogger(self.run_dir, name="", version=""))
        else:
            print("Skipped the TensorBoard logs: tensorboard is not installed")
        return loggers

    def _callbacks(self, config: Any, given: list[Any]) -> list[Callback]:
        """Return the callbacks of every run, but for those in whose place the user gave others."""
        num_pictures = self._get(self.config_init, "num_pictures")
        callbacks = list(self.model.reports(self.run_dir, num_pictures))
        if config.get("barebones"):  # in which Lightning refuses the others
            return callbacks
        callbacks.append(RunReport(self.run_dir))

        def lacks(kind: type[Callback]) -> bool:
            return not any(isinstance(callback, kind) for callback in given)

        if config.get("enable_progress_bar") is not False and lacks(ProgressBar):
            callbacks.append(run_progress())
        logs = config.get("logger") is not False and not config.get("fast_dev_run")
        if logs and lacks(LearningRateMonitor):
            callbacks.append(LearningRateMonitor())
        if logs and lacks(Throughput):
            callbacks.append(Throughput())
        if config.get("enable_checkpointing") is not False:
            callbacks += self._checkpoints()
        return callbacks

    def _checkpoints(self) -> list[Callback]:
        """Return the callbacks that write checkpoints while training."""
        folder = self.run_dir / "checkpoints"
        judged = ModelCheckpoint(
            folder,
            filename="best",
            monitor=self.model.monitor,
            mode="max",
            save_last=True,
            enable_version_counter=False,
        )
        every = self._get(self.config_init, "save_every")
        return [judged, *([] if every is None else [StepCheckpoint(folder / "last.ckpt", every)])]

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        if "verbose" in kwargs:
            kwargs["verbose"] = False  # the report prints a better table than Lightning
        if kwargs.get("weights_only", False) is None:
            kwargs["weights_only"] = True  # as WholeCheckpoints reads in any case
        return kwargs

    def after_fit(self) -> None:
        """Judge the final weights, which the last validation may not have seen, and report."""
        options: Any = self.trainer  # Lightning declares no `fast_dev_run`
        if self.trainer.interrupted or options.fast_dev_run:
            return
        self.trainer.validate(
            self.model, datamodule=self.datamodule, verbose=False, weights_only=True
        )
        if self.trainer.is_global_zero:
            print(f"Logs, checkpoints and pictures are in {self.run_dir}")


class DataCLI(TrainingCLI):
    """A command line with the options of `validate` that looks at data and runs no network."""

    def instantiate_trainer(self, **_: Any) -> Trainer:
        """Return a trainer that makes no run folder."""
        return Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)


def complete(args: Sequence[str], default_config: Path) -> list[str]:
    """Return the command line with what the user may leave out: `fit` and the configuration.

    A configuration is a file or the name of one in this package, such as `ucf101`. Without
    `--config`, a `--ckpt_path` brings the configuration of the run it comes from.

    Raises:
        ValueError: there is no configuration beside the checkpoint, or none of a given name; or
            the subcommand is `predict`, which is a command of its own.
    """
    if args and args[0] == "predict":
        raise ValueError("predict is a command of its own: geonorm predict FILE.ckpt FILE ...")
    subcommand, *rest = args if args and args[0] in SUBCOMMANDS else ["fit", *args]
    rest = _with_config_files(rest)
    if option(rest, "--config") is not None:
        return [subcommand, *rest]
    config = default_config
    if (checkpoint := option(rest, "--ckpt_path")) is not None:
        config = Path(checkpoint).parent.parent / "config.yaml"
        if not config.is_file():
            raise ValueError(
                f"no configuration beside the checkpoint {checkpoint}: looked for {config}; "
                f"give the one it was trained with as --config"
            )
    return [subcommand, "--config", str(config), *rest]


def _listed(given: Any) -> list[Any]:
    """Return an option that may be absent, one thing, or a list of them, as a list."""
    if given is None:
        return []
    return [*given] if isinstance(given, list | tuple) else [given]


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


def option(args: Sequence[str], name: str) -> str | None:
    """Return an option's value, from `--name value` or `--name=value`, or None."""
    for arg, following in itertools.zip_longest(args, args[1:]):
        if arg == name:
            return following
        if arg.startswith(f"{name}="):
            return arg.partition("=")[2]
    return None


def run_folder(wanted: Path | None, name: str) -> Path:
    """Return the folder of this run, made if need be; without a wish the next in runs/`name`.

    All processes of a run get the same.
    """
    folder = wanted or Path(chosen_by_the_first(lambda: str(_next_folder(Path("runs") / name))))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _next_folder(runs: Path) -> Path:
    """Return a new folder, numbered."""
    runs.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        folder = runs / f"{number:03d}"
        with suppress(FileExistsError):
            folder.mkdir()
            break
    return folder
