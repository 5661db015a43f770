"""The logger of a run's numbers, which keeps those of an earlier run in the same folder."""

from itertools import count
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger

from geonorm.training.metrics_file import METRICS


class RunLogger(CSVLogger):
    """Writes `metrics.csv` into a folder, and calls one that is there `metrics_001.csv`.

    Lightning's own deletes it, and with it the curves of a run that is resumed in its folder.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name="", version="")
        self._begun = False

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """What writes the file, in the first process alone."""
        if not self._begun:
            self._begun = True
            log = Path(self.log_dir, METRICS)
            if log.is_file():
                earlier = (log.with_stem(f"{log.stem}_{number:03d}") for number in count(1))
                log.rename(next(path for path in earlier if not path.exists()))
        return super().experiment
