"""Files written whole, names that are hidden, and the folder of the cache."""

import errno
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from geonorm.files import (
    distinct_stems,
    free_stem,
    is_hidden,
    sha256_of,
    user_cache,
    written_whole,
)


@pytest.mark.parametrize(("name", "hidden"), [
    (".Trash-1000", True), ("._000000.bin", True), (".DS_Store", True), ("lost+found", True),
    ("@eaDir", True), ("#recycle", True), ("$RECYCLE.BIN", True), ("__MACOSX", True),
    ("System Volume Information", True), ("000000.bin", False), ("_a.mp4", False),
    ("#1 a.avi", False), ("#recycled", False), ("-x.mp4", False), ("a._b", False), ("lost", False),
])  # fmt: skip
def test_hidden_names(name: str, hidden: bool) -> None:
    assert is_hidden(Path("/.cache/data") / name) == hidden
    assert is_hidden(Path(name)) == hidden


def test_two_writers_of_a_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with written_whole(path) as first, written_whole(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"
    texts = [str(number) * 9999 for number in range(8)]

    def write(text: str) -> None:
        with written_whole(path) as aside:
            aside.write_text(text)

    with ThreadPoolExecutor(8) as writers:
        list(writers.map(write, texts))
    assert path.read_text() in texts
    assert list(tmp_path.iterdir()) == [path]


def test_cache_is_the_users_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEONORM_CACHE", "/mine")
    assert user_cache() == Path("/mine")
    monkeypatch.delenv("GEONORM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/user")
    assert user_cache() == Path("/user/geonorm")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert user_cache() == Path.home() / ".cache/geonorm"


# Writes a file of 3 MB into a folder by each library, and prints what each says.
FILLS = """
import sys
from pathlib import Path
import numpy as np
import torch
from geonorm.files import written_whole

folder = Path(sys.argv[1])
values = np.zeros(3_000_000, "u1")
def as_torch(file):
    with file.open("wb") as opened:
        torch.save({"a": torch.from_numpy(values)}, opened)
writers = {
    "torch": as_torch, "npy": lambda file: np.save(file, values), "raw": values.tofile,
    "text": lambda file: file.write_bytes(values.tobytes()),
    "path": lambda file: torch.save({"a": torch.from_numpy(values)}, file),
}
for name, write in writers.items():
    try:
        with written_whole(folder / f"a.{name}") as aside:
            write(aside)
    except OSError as error:
        print(f"{name}: {error.errno} {error.strerror}")
print(sorted(path.name for path in folder.iterdir()))
"""


def test_a_full_disk_is_told_whoever_writes(tmp_path: Path) -> None:
    """On a disk of 1 MiB of its own."""
    own = ["unshare", "--mount", "--map-root-user", "sh", "-c",
           'mount -t tmpfs -o size=1m none "$1" && shift && exec "$@"', "sh", tmp_path]
    if shutil.which("unshare") is None or subprocess.run(
        [*own, "true"], capture_output=True, check=False
    ).returncode:  # fmt: skip
        pytest.skip("needs the right to mount in a namespace of its own (unshare --mount)")
    done = subprocess.run([*own, sys.executable, "-c", FILLS, tmp_path], capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    *said, left = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in said] == ["torch", "npy", "raw", "text", "path"]
    for line in said:
        assert f": 28 cannot write {tmp_path}/" in line
        assert "the disk is full (" in line
        assert "make room, or name a folder on another disk" in line
    assert left == "[]"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("named", [True, False])
def test_no_room_is_found_behind_another_librarys_error(tmp_path: Path, code, named) -> None:
    (tmp_path / "a.npy").write_text("before")

    def fail() -> None:
        with written_whole(tmp_path / "a.npy") as aside:
            assert aside.parent == tmp_path
            assert re.fullmatch(r"\.a\.[0-9a-f]{8}\.part\.npy", aside.name)
            assert is_hidden(aside)
            aside.write_text("half")
            try:
                raise OSError(code, "cause")
            except OSError as error:
                if named:
                    raise RuntimeError("writing failed") from error
                raise RuntimeError("writing failed")  # noqa: B904

    with pytest.raises(OSError, match=r"cannot write .*a\.npy: .*\. What was") as caught:
        fail()
    assert caught.value.errno == errno.ENOSPC
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_results_of_files_of_one_name_have_names_of_their_own() -> None:
    files = [Path(name) for name in ("x/a.bin", "y/a.ply", "b.bin", "x/a.bin", "z/a.bin")]
    assert distinct_stems(files) == dict(
        zip([*files[:3], files[4]], ["a", "a_2", "b", "a_3"], strict=True)
    )
    assert free_stem(Path("a.b.c"), ["a.b", "a.b_3"]) == "a.b_2"


def test_the_digest_of_a_file_is_that_of_the_standard(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")  # the first example of FIPS 180-2
    assert sha256_of(tmp_path / "a") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_what_was_begun_goes_with_any_error(tmp_path: Path) -> None:
    def fail(error: type[BaseException]) -> None:
        with written_whole(tmp_path / "a") as aside:
            aside.write_text("half")
            raise error

    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error):
            fail(error)
    assert not list(tmp_path.iterdir())


def test_other_errors_stay_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"^something else$"), written_whole(tmp_path / "a"):
        raise RuntimeError("something else")
    with pytest.raises(FileNotFoundError), written_whole(tmp_path / "none" / "a") as aside:
        aside.write_text("a")
    assert not list(tmp_path.iterdir())
