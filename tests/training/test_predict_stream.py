"""geonorm predict on folders: resumed where it ended, and while a recording fills them."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from geonorm.__main__ import main as command
from geonorm.training import Output, ScanPredictor
from geonorm.training.segmentation import predictor as predictor_module
from geonorm.training.segmentation import stream as streams
from geonorm.training.segmentation.stream import Arrivals, Journal, Stream
from helpers.scan_writers import rows, write
from helpers.segmentation_runs import STREETS, run_config

pytestmark = pytest.mark.filterwarnings("default")  # as users run it
LABELS = Output(pictures=False)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Return a checkpoint of two steps of a network that sees each point alone."""
    folder = tmp_path_factory.mktemp("stream") / "run"
    run_config("streets", None, folder, *STREETS, "--model.name=PointMLP",
               "--trainer.max_steps=2")  # fmt: skip
    return folder / "checkpoints/last.ckpt"


@pytest.fixture
def predict(checkpoint, tmp_path, monkeypatch):
    """Return a function that predicts in a folder of its own and returns what went wrong."""
    monkeypatch.chdir(tmp_path)

    def predict(*words):
        return command(["predict", str(checkpoint), *words, "--out=out", "--pictures=false"])

    return predict


def journal():
    """Return the files that the journal names, in order, without their folders."""
    lines = [json.loads(line) for line in Path("out/predicted.jsonl").read_text().splitlines()]
    assert "settings" in lines[0]
    return [Path(line["file"]).name for line in lines[1:]]


def record(folder, *numbers):
    Path(folder).mkdir(exist_ok=True)
    return [write(Path(folder, f"{number}.bin"), rows(50, seed=number)) for number in numbers]


def test_a_folder_stands_for_its_scans_and_the_time_of_each_part_is_told(predict, capsys):
    record("drive", 1, 2)
    Path("drive/notes.txt").write_text("rain")
    Path("drive/._1.bin").write_bytes(b"of a Mac")
    Path("drive/within").mkdir()
    assert predict("drive") == 0
    assert {path.name for path in Path("out").iterdir()} == {"1.label", "2.label", "classes.json"}
    said = capsys.readouterr().out
    line = r"^\[{}/2, 0:00:\d\d left\] drive/{}\.bin: 50 labels in out/{}\.label$"
    for number in (1, 2):
        assert re.search(line.format(number, number, number), said, re.M)
    rows_of_table = said[said.index("ms of each of 2 scans") :].splitlines()
    assert [line.split()[0] for line in rows_of_table[1:]] == [
        "read", "voxelize", "network", "write", "all",
    ]  # fmt: skip
    p50, p95 = (float(word) for word in rows_of_table[-1].split()[1:])
    assert 0 < p50 <= p95 < 60_000


def test_what_is_done_is_left_out_and_what_changed_is_done_again(predict, capsys):
    record("drive", 1, 2, 3, 4)
    assert predict("drive", "--resume=true") == 0
    assert journal() == ["1.bin", "2.bin", "3.bin", "4.bin"]
    for number in (1, 2, 3, 4):  # so that what is written again can be told
        os.utime(f"out/{number}.label", ns=(1, 1))
    Path("out/2.label").unlink()
    record("drive", 5)
    write(Path("drive/3.bin"), rows(70, seed=9))
    Path("out/.7.0123abcd.part.label").write_bytes(b"half")
    with Path("out/predicted.jsonl").open("a") as file:
        file.write('{"file": "/somewhere/9.b')  # as where a process was killed
    capsys.readouterr()
    assert predict("drive", "--resume=true") == 0
    said = capsys.readouterr().out
    assert re.findall(r"\] drive/(\S+): \d+ labels", said) == ["2.bin", "3.bin", "5.bin"]
    assert "2 scans were done already" in said
    assert journal() == ["1.bin", "2.bin", "3.bin", "4.bin", "2.bin", "3.bin", "5.bin"]
    new = [number for number in (1, 2, 3, 4, 5) if os.stat(f"out/{number}.label").st_mtime_ns > 1]
    assert new == [2, 3, 5]
    assert len(np.fromfile("out/3.label", "<u4")) == 70
    assert not list(Path("out").glob(".*"))
    assert predict("drive", "--resume=true") == 0
    assert journal() == [f"{number}.bin" for number in (1, 2, 3, 4, 5)]


def test_results_keep_the_name_that_they_once_had(predict):
    Path("drive").mkdir()
    write(Path("drive/a.npy"), rows(60))
    predict("drive", "--resume=true")
    write(Path("drive/a.bin"), rows(50))  # comes first by its name
    predict("drive", "--resume=true")
    assert [len(np.fromfile(f"out/{stem}.label", "<u4")) for stem in ("a", "a_2")] == [60, 50]


def test_results_of_other_settings_are_not_mixed(predict, checkpoint, tmp_path):
    import torch

    record("drive", 1)
    predict("drive", "--resume=true")
    assert re.search(
        r"predicted\.jsonl is of results by other settings \(votes, intensity_max\): name another",
        predict("drive", "--resume=true", "--intensity_max=255", "--votes=2"),
    )
    told = torch.load(checkpoint, weights_only=True)
    key = next(key for key in told["state_dict"] if key.endswith("bias"))
    told["state_dict"][key][0] += 1
    torch.save(told, tmp_path / "other.ckpt")
    words = ["drive", "--out=out", "--resume=true", "--pictures=false"]
    said = command(["predict", str(tmp_path / "other.ckpt"), *words])
    assert "by other settings (weights)" in said
    torch.save({**told, "state_dict": torch.load(checkpoint, weights_only=True)["state_dict"]},
               tmp_path / "same.ckpt")  # fmt: skip
    assert command(["predict", str(tmp_path / "same.ckpt"), *words]) == 0


def test_what_cannot_be_gone_through_is_refused(predict, checkpoint):
    Path("empty").mkdir()
    assert "no scan in empty; expected files that end in .bin" in predict("empty")
    record("drive", 1)
    assert "there is no folder to watch, only files" in predict("drive/1.bin", "--watch=1")
    for wait in ("0.0", "-inf", "nan"):
        said = predict("drive", f"--watch={wait}")
        assert f"watch must be a positive number of seconds; got {wait}" in said
    assert not Path("out").exists()


@pytest.fixture
def hasty(monkeypatch):
    """Look at folders more often than at a sensor's."""
    monkeypatch.setattr(streams, "POLL", 0.05)
    monkeypatch.setattr(streams, "SETTLED", 0.4)


def test_a_recording_is_followed_while_its_files_are_written(predict, hasty, capsys):
    """One comes in pieces, one is damaged until it is mended, and one was there before."""
    record("drive", 1)
    whole = write(Path("2.bin"), rows(50, seed=2)).read_bytes()

    def recorder():
        time.sleep(0.3)
        with Path("drive/2.bin").open("wb", buffering=0) as file:
            for part in range(0, len(whole), 100):  # cut within a point, too
                file.write(whole[part : part + 100])
                time.sleep(0.02)
        Path("drive/3.bin").write_bytes(whole[:-3])
        Path("drive/4.bin").write_bytes(whole[:-3])
        time.sleep(0.8)
        Path("drive/3.bin").write_bytes(whole)

    sensor = threading.Thread(target=recorder)
    sensor.start()
    assert predict("drive", "--watch=2") == 1
    sensor.join()
    assert {*journal()} == {"1.bin", "2.bin", "3.bin"}
    assert {path.name for path in Path("out").glob("*.label")} == {"1.label", "2.label", "3.label"}
    assert len(np.fromfile("out/2.label", "<u4")) == 50
    np.testing.assert_array_equal(*(np.fromfile(f"out/{n}.label", "<u4") for n in (2, 3)))
    said = capsys.readouterr().out
    assert len(re.findall(r"^left out, until it changes: drive/4\.bin .*trunc", said, re.M)) == 1
    assert re.search(r"ms of each of \d scans", said)


def test_a_recording_ends_where_it_is_told_to(checkpoint, tmp_path, hasty, capsys):
    """After the current scan; what the next ones are is not lost."""
    record(tmp_path / "drive", 1, 2, 3)
    stream = Stream(watch=float("inf"))
    predictor = ScanPredictor(checkpoint)
    called = predictor._classes

    def stops(batch):
        stream.stop.set()
        return called(batch)

    predictor._classes = stops
    places = [tmp_path / "drive"], tmp_path / "out"
    assert predictor.predict_files(*places, LABELS, 1.0, stream) == []
    assert "stopped; the same command goes on from here" in capsys.readouterr().out
    predictor._classes = called
    again = Stream(resume=True)
    predictor.predict_files(*places, LABELS, 1.0, again)
    said = capsys.readouterr().out
    assert "1 scans were done already" in said
    assert "ms of each of 2 scans" in said


def test_pictures_do_not_wait_for_scans_that_do_not_come(checkpoint, tmp_path, hasty, monkeypatch):
    """One scan is drawn, and written down as done, before the others of its group are there."""
    (scan,) = record(tmp_path / "drive", 1)
    os.utime(scan, (1, 1))
    stream, drawn = Stream(watch=float("inf")), []  # without a picture it would not end

    def draws(scans, classes, colors, stems):
        drawn.append(stems)
        stream.stop.set()

    monkeypatch.setattr(predictor_module, "draw_predicted", draws)
    predictor = ScanPredictor(checkpoint)
    predictor.predict_files([tmp_path / "drive"], tmp_path / "out", Output(), 1.0, stream)
    assert drawn == [[tmp_path / "out/1"]]
    lines = (tmp_path / "out/predicted.jsonl").read_text().splitlines()
    assert len(lines) == 2
    arrivals = Arrivals([tmp_path / "drive"], Stream(watch=0.2), lambda *_: False)
    found = list(arrivals)
    assert found[0] == scan
    assert set(found[1:]) == {None}


def test_a_file_that_a_ring_of_recordings_deletes_is_passed_over(tmp_path, monkeypatch):
    gone, stays = record(tmp_path / "drive", 1, 2)
    lists = iter([[gone, stays], [gone, stays], [stays]])
    monkeypatch.setattr(streams, "scans_in", lambda folder: next(lists, [stays]))
    gone.unlink()
    os.utime(stays, (1, 1))
    arrivals = Arrivals([tmp_path / "drive"], Stream(watch=0.01), lambda *_: False)
    assert [file for file in arrivals if file] == [stays]


def test_a_scan_that_is_named_twice_comes_once(tmp_path):
    (tmp_path / "drive").mkdir()
    one, two, three = record(tmp_path / "drive", 1, 2, 3)
    arrivals = Arrivals([two, tmp_path / "drive", two], Stream(), lambda file, _: file == three)
    found = [(file, arrivals.waiting) for file in arrivals]
    assert found == [(two, 1), (one, 0)]
    assert arrivals.left_out == 1
    assert arrivals.seen[one] == (one.stat().st_size, one.stat().st_mtime_ns)


def test_a_file_that_is_empty_or_just_written_is_not_ready(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "POLL", 0.01)
    old, new = record(tmp_path / "drive", 1, 2)
    empty = tmp_path / "drive" / "0.bin"
    empty.touch()
    for file in (old, empty):
        os.utime(file, (1, 1))
    arrivals = Arrivals([tmp_path / "drive"], Stream(watch=0.05), lambda *_: False)
    assert [file for file in arrivals if file] == [old]
    assert new.is_file()


def test_scans_of_a_folder_are_files_of_known_kinds_in_capitals_too(tmp_path):
    for name in ("b.npy", "a.BIN", "c.txt", ".d.bin", "._e.bin"):
        (tmp_path / name).touch()
    (tmp_path / "f.bin").mkdir()
    assert [path.name for path in streams.scans_in(tmp_path)] == ["a.BIN", "b.npy"]
    assert not Stream().keeps_journal
    assert Stream(resume=True).keeps_journal
    assert Stream(watch=0.5).keeps_journal


def test_without_settings_there_is_no_journal(tmp_path):
    kept = Journal(tmp_path / "out", None)
    kept.add(Path("a.bin"), (1, 1), "a", {})
    assert not (tmp_path / "out").exists()


def test_a_journal_knows_the_size_and_the_time_of_what_was_done(tmp_path):
    kept = Journal(tmp_path / "out", {"votes": 1})
    kept.add(Path("a.bin"), (50, 7), "a", {"read": 0.123456, "network": 2.00004})
    (tmp_path / "out" / "a.npy").touch()
    for again in (kept, Journal(tmp_path / "out", {"votes": 1})):
        assert again.has(Path("a.bin"), (50, 7), ".npy")
        for state in ((49, 7), (51, 7), (50, 6), (50, 8)):
            assert not again.has(Path("a.bin"), state, ".npy")
        assert not again.has(Path("a.bin"), (50, 7), ".label")
        assert not again.has(Path("b.bin"), (50, 7), ".npy")
        entry = again.entries[str(Path("a.bin").absolute())]
        assert entry["seconds"] == {"read": 0.1235, "network": 2.0}
        assert [again.stem(Path(name)) for name in ("a.bin", "x/a.bin")] == ["a", "a_2"]


def test_a_part_that_a_scan_lacks_took_no_time():
    latency = streams.Latency()
    for seconds in ({"read": 0.01}, {"read": 0.03, "attribution": 0.2}):
        latency.add(seconds)
    lines = [line.split() for line in str(latency).splitlines()[1:]]
    assert lines == [["read", "20.0", "29.0"], ["attribution", "100.0", "190.0"],
                     ["all", "120.0", "219.0"]]  # fmt: skip


def test_a_file_of_a_clock_that_is_ahead_is_ready_once_it_rests(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "POLL", 0.01)
    monkeypatch.setattr(streams, "SETTLED", 0.05)
    (ahead,) = record(tmp_path / "drive", 1)
    os.utime(ahead, (20_000_000_000, 20_000_000_000))
    arrivals = Arrivals([tmp_path / "drive"], Stream(watch=0.15), lambda *_: False)
    looks = list(arrivals)
    assert [file for file in looks if file] == [ahead]
    assert looks.index(ahead) > 1


def started(checkpoint, folder, *words):
    """Start a command on a folder of scans."""
    return subprocess.Popen(
        [sys.executable, "-m", "geonorm", "predict", str(checkpoint), "drive", "--pictures=false",
         f"--out={folder}", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.long
@pytest.mark.timeout(900)
def test_two_hundred_scans_killed_in_the_middle_and_started_again(tmp_path, monkeypatch):
    """Each is done once, none is half-written; a signal ends a recording well."""
    run_config("streets", None, tmp_path / "run", *STREETS, "--trainer.max_steps=2")
    checkpoint = tmp_path / "run/checkpoints/last.ckpt"
    monkeypatch.chdir(tmp_path)
    Path("drive").mkdir()
    for number in range(200):
        write(Path(f"drive/{number:03}.bin"), rows(3000, seed=number))
    first = started(checkpoint, "out", "--resume=true")
    lines = [first.stdout.readline() for _ in range(80)]
    first.kill()
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    assert lines[-1].startswith("[80/200, 0:")
    before = {path.name: path.stat().st_mtime_ns for path in Path("out").glob("*.label")}
    done = set(journal())
    assert 79 <= len(done) <= len(before) <= len(done) + 1
    second = started(checkpoint, "out", "--resume=true")
    said, _ = second.communicate()
    assert second.returncode == 0, said
    print(said[-400:])
    assert f"{len(done)} scans were done already" in said
    assert f"ms of each of {200 - len(done)} scans" in said
    assert sorted(journal()) == [f"{number:03}.bin" for number in range(200)]
    for name in done:
        label = name.replace(".bin", ".label")
        assert Path("out", label).stat().st_mtime_ns == before[label]
    left = {path.name for path in Path("out").iterdir()}
    assert left == {*(f"{n:03}.label" for n in range(200)), "classes.json", "predicted.jsonl"}
    whole = started(checkpoint, "whole", "--watch=inf")
    assert any(line.startswith("[200/200") for line in whole.stdout)
    whole.send_signal(signal.SIGTERM)
    rest, _ = whole.communicate(timeout=60)
    assert whole.returncode == 0, rest
    assert "ms of each of 200 scans" in rest
    for number in range(200):
        labels = [np.fromfile(f"{out}/{number:03}.label", "<u4") for out in ("out", "whole")]
        assert len(labels[0]) == 3000
        np.testing.assert_array_equal(*labels)
