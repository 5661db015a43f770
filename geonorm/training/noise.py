"""Messages of the libraries beneath the commands that tell their user nothing."""

import logging
import re
import warnings

# Warnings, by the beginning of their text.
WARNINGS = (
    "The MinkowskiEngine was compiled with CPU_ONLY",  # geonorm doctor says it
    ".*LightningCLI's args parameter is intended to run from within Python.*",
    ".*does not have many workers.*",
    ".*exists and is not empty.*",
    ".*The dirpath has changed from.*",
    ".*`isinstance.treespec, LeafSpec.` is deprecated.*",
    ".*is smaller than the logging interval.*",
    # The hook builds the network for the data's classes and shards nothing.
    "You're using the WeightAveraging callback with a model that overrides",
    # Our sampler gives each process a share of its own, without the repeats that this is about.
    ".*it is recommended to use `Trainer.devices=1, num_nodes=1.`.*",
)
MESSAGES = re.compile(r"Tip: For seamless|TPU available: False|Loading `\w+` to estimate")
LOGGERS = (
    "lightning.pytorch.utilities.rank_zero",
    "lightning.fabric.utilities.rank_zero",
    "lightning_utilities.core.rank_zero",
)


class _Silencer(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return MESSAGES.search(record.getMessage()) is None


def silence() -> None:
    """Leave out these messages in this process; call it before importing what says them."""
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message)
    for name in LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(each, _Silencer) for each in logger.filters):
            logger.addFilter(_Silencer())
