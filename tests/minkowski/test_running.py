"""Steps of an installation: their progress, their log, and what a failure says."""

import io
import os
import sys
from pathlib import Path

import pytest

from geonorm.minkowski.running import InstallError, Runner, _follow, diagnosis


def test_known_failures_and_their_advice() -> None:
    killed = "g++: fatal error: Killed signal terminated program cc1plus"
    assert "up to 3 GiB): --jobs 2" in diagnosis(killed, 5, 3)
    assert diagnosis("std::bad_alloc", 1, 4).endswith("up to 4 GiB): --jobs 1")
    assert "--blas torch" in diagnosis("ld: cannot find -lopenblas", 1, 3)
    assert "with --cuda" in diagnosis("cublas_v2.h: No such file or directory", 1, 3)
    assert diagnosis("error: expected ';'", 1, 3) is None
    assert (Runner(Path("log")).jobs, Runner(Path("log")).gib_per_job) == (1, 3)


@pytest.mark.parametrize(("lines", "advice"), [
    (("c++: internal compiler error: cc1plus died due to signal 9 (Kill signal)",
      "cc1plus: out of memory allocating 65536 bytes", "nvcc: Out of memory allocating 8 bytes",
      "virtual memory exhausted: Cannot allocate", "fork: Cannot allocate memory"),
     "--jobs 4"),
    (("x.cpp:1:10: fatal error: cblas.h: No such file or directory",), "libopenblas-dev"),
    (("x.cpp:1:10: fatal error: Python.h: No such file or directory",), "python3-dev"),
    (("fatal error: cusparse.h: No such file", "fatal error: cusolverDn.h: No such file",
      "fatal error: cublas_v2.h: No such file", "ld: cannot find -lcusparse",
      "ld: cannot find -lcudart: No such file"), "with --cuda"),
])  # fmt: skip
def test_every_sign_of_a_known_failure(lines, advice) -> None:
    for line in lines:
        assert advice in (diagnosis(f"a\n{line}\nb", 8, 3) or ""), line
    assert diagnosis("mystd::bad_allocator, cblas_h: No such file", 8, 3) is None


def test_progress_shows_files_done_of_total_and_the_log_has_everything(tmp_path, capsys) -> None:
    lines = (
        "import os, sys; print('[1/3] g++ a.cpp', flush=True); os.write(2, b'a warning \\xff\\n'); "
        "print('[3/3]', os.environ['WORD'])"
    )
    (tmp_path / "log").write_text("before\n")
    environment = {**os.environ, "WORD": "c.cpp"}
    Runner(tmp_path / "log", environment).run([sys.executable, "-c", lines])
    assert capsys.readouterr().out == "\r  compiled 1/3\r  compiled 3/3\n"
    told = "before\n[1/3] g++ a.cpp\na warning \ufffd\n[3/3] c.cpp\n"
    assert (tmp_path / "log").read_text(encoding="utf-8") == told


def test_progress_is_told_by_the_beginning_of_a_line(capsys) -> None:
    log = io.StringIO()
    _follow(["  [2/10] g++\n", "see [3/10]\n", "[10/10]"], log)
    assert capsys.readouterr().out == "\r  compiled 2/10\r  compiled 10/10\n"
    assert log.getvalue() == "  [2/10] g++\nsee [3/10]\n[10/10]"


def test_a_failing_step_shows_its_last_lines_and_the_log(tmp_path) -> None:
    """Those of an earlier step, which the log holds too, are none of its own."""
    (tmp_path / "build.log").write_text("Killed signal\n")
    code = "print(*range(50), 'no such thing', sep='\\n'); raise SystemExit(3)"
    with pytest.raises(InstallError, match=r"failed:\n11\n12\n[\s\S]*no such thing\n.*build.log$"):
        Runner(tmp_path / "build.log").run([sys.executable, "-c", code])
