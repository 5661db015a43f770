"""Run test files and write down the lines that each test executes and the seconds it takes.

    .venv/bin/python tools/mutants_record.py FOLDER TEST_FILE ...

Part of `make mutants`. FOLDER gets a record of each test file none of whose tests fails.
"""

import json
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import coverage
import pytest
from mutation.copy import OPTIONS, SOURCES, record_of


class Recorder:
    """A plugin of pytest that measures one test at a time and writes a record after each file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tests: list[dict[str, Any]] = []
        self.failed: set[str] = set()
        self.coverage = coverage.Coverage(
            data_file=None, config_file=False, include=[f"{source}/*" for source in SOURCES]
        )

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Iterator[Any]:
        """Note the lines of one test, its fixtures included."""
        self.coverage.erase()
        begin = time.perf_counter()
        self.coverage.start()
        try:
            done = yield
        finally:
            with warnings.catch_warnings():  # that nothing of the package is executed is no fault
                warnings.simplefilter("ignore", coverage.exceptions.CoverageWarning)
                self.coverage.stop()
                data = self.coverage.get_data()
        lines = {str(Path(file).relative_to(Path.cwd())): sorted(data.lines(file) or ())
                 for file in data.measured_files()}  # fmt: skip
        self.tests.append(
            {"test": item.nodeid, "seconds": time.perf_counter() - begin, "lines": lines}
        )
        if nextitem is None or nextitem.path != item.path:
            self.write(item.nodeid.partition("::")[0])
        return done

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the files whose tests fail."""
        if report.failed:
            self.failed.add(report.nodeid.partition("::")[0])

    def write(self, test_file: str) -> None:
        """Write the record of a test file that is through."""
        if test_file not in self.failed:
            whole = record_of(self.folder, test_file)
            aside = whole.with_suffix(".part")
            aside.write_text(json.dumps(self.tests))
            aside.replace(whole)
        self.tests = []


def main(folder: str, *test_files: str) -> int:
    """Record test files; return pytest's exit status."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    recorder = Recorder(Path(folder))
    status = pytest.main([*OPTIONS, *test_files], plugins=[recorder])
    if status == pytest.ExitCode.OK:
        for test_file in test_files:  # also of those whose tests are all deselected, as long ones
            if not record_of(Path(folder), test_file).exists():
                recorder.write(test_file)
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
