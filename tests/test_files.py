"""Files written whole, names that are hidden, and the folder of the cache."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from geonorm.files import is_hidden, user_cache, written_whole


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
