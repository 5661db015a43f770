"""What the commands set up in their own process: threads that sleep, messages left out."""

import logging
import os
import subprocess
import sys
import warnings

import pytest

from geonorm.training.noise import LOGGERS, silence

SHARED = """
import os
from geonorm.training.threads import share_cores
share_cores()
print(os.environ["OMP_WAIT_POLICY"], os.environ["OPENBLAS_NUM_THREADS"])
"""


@pytest.mark.parametrize(("given", "expected"), [
    ({}, "passive 1"),
    pytest.param({"OPENBLAS_NUM_THREADS": "3"}, "passive 3", marks=pytest.mark.slow),
])  # fmt: skip
def test_threads_sleep_unless_told_otherwise(given, expected):
    unset = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "OPENBLAS_"))}
    done = subprocess.run([sys.executable, "-c", SHARED], env=unset | given, check=True,
                          capture_output=True, text=True, timeout=100)  # fmt: skip
    assert done.stdout.split() == expected.split()


def test_messages_that_tell_the_user_nothing_are_left_out():
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [list(logger.filters) for logger in loggers]
    tip = logging.makeLogRecord({"msg": "💡 Tip: For seamless cloud logging"})
    other = logging.makeLogRecord({"msg": "`Trainer.fit` stopped"})
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            silence()
            silence()
            for message in ("The 'val_dataloader' does not have many workers.", "it may matter"):
                warnings.warn(message, UserWarning, stacklevel=1)
            assert [str(each.message) for each in said] == ["it may matter"]
        for logger, held in zip(loggers, before, strict=True):
            assert len(logger.filters) <= len(held) + 1  # the second time adds none
            assert not logger.filter(tip)
            assert logger.filter(other)
    finally:
        for logger, held in zip(loggers, before, strict=True):
            logger.filters[:] = held
