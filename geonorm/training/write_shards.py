"""`write-shards`: the training, validation and test data of a configuration, in few large files."""

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LightningArgumentParser

from geonorm.training.cli import DataCLI


class ShardCLI(DataCLI):
    """A command line that writes shards."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        parser.add_argument(
            "--shards", type=Path | None, default=None, help="Folder to write to; a split in each."
        )
        parser.add_argument("--shard_size", type=int, default=128, help="Samples in a shard.")
        parser.add_argument(
            "--splits", type=list[str] | None, default=None,
            help="Which to write, of train, val and test; all that the configuration names.",
        )  # fmt: skip

    def validate(self, model: LightningModule, datamodule: Any, **_: Any) -> None:
        """Write every split that the configuration names."""
        folder = self._get(self.config_init, "shards")
        if folder is None:
            raise ValueError("expected a folder to write to; give --shards FOLDER")
        given = datamodule.factories
        named = [name for name, factory in given.items()
                 if factory and not (name == "test" and factory is given["val"])]  # fmt: skip
        wanted = self._get(self.config_init, "splits") or named
        if unknown := [name for name in wanted if name not in named]:
            raise ValueError(f"--splits may be {', '.join(named)}; got {', '.join(unknown)}")
        size = self._get(self.config_init, "shard_size")
        for name in wanted:
            count, new = datamodule.write_shards(name, folder / name, size)
            whole = sum(path.stat().st_size for path in (folder / name).glob("*.tar"))
            print(f"{folder / name}: {count:,} samples, {whole / 2**20:,.1f} MiB, {new} new shards")
