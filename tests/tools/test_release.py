"""A release: its version is the same everywhere, and its archives hold what they need."""

import re
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
import release
import yaml

from geonorm import __version__

ROOT = Path(__file__).resolve().parents[2]


def test_version_and_date_are_the_same_everywhere():
    heading = re.search(r"^## (\S+) \((\S+)\)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heading[1] == __version__
    page = (ROOT / "docs/index.md").read_text()
    assert {*re.findall(r"geonorm-(\d+\.\d+\.\d+)", page)} == {__version__}
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    assert str(citation["date-released"]) == heading[2]
    assert citation["license"] == "MIT"


def test_a_folder_with_no_or_several_distributions_is_refused(tmp_path):
    for names in ((), ("geonorm-1.tar.gz", "geonorm-2.tar.gz")):
        for name in names:
            (tmp_path / name).touch()
        with pytest.raises(SystemExit, match=rf"one geonorm-\*\.tar\.gz in .*; got {len(names)}"):
            release.sdist_in(tmp_path)


def test_a_command_that_fails_ends_the_release():
    with pytest.raises(SystemExit, match="false ended with 1"):
        release.run("false")


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_archives_hold_what_they_need(tmp_path):
    release.build(tmp_path)
    with tarfile.open(release.sdist_in(tmp_path)) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    tracked = subprocess.run(
        ["git", "ls-files", "geonorm", "models", "datasets", "pyproject.toml", "setup.py",
         "README.md", "LICENSE"], cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert [name for name in tracked if name not in held] == []
    assert not any(name.startswith("tests") for name in held)
    (wheel,) = tmp_path.glob(f"geonorm-{__version__}-cp3*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.startswith("geonorm/_C.") for name in names)
    assert "geonorm/training/configs/streets.yaml" in names
