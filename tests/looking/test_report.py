"""geonorm report: numbers of the folders, what a killed run has left, and a real browser."""

import base64
import json
import re
from html import unescape
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from geonorm.__main__ import main as command
from geonorm.looking import plots
from geonorm.looking.report import _shares, write_report
from geonorm.looking.runs import read_folder
from geonorm.looking.tables import pictures, table, words
from geonorm.training.metrics_file import read_metrics
from helpers.browser import browser, complaints, opened
from helpers.run_folders import write_run, write_shift


def report(*folders, path):
    """Write a report, and return it without plotly.js, and its figures."""
    write_report(folders, path)
    page = path.read_text()
    figures = json.loads(re.search(r"const figures = (.*);", page)[1])
    return page[page.index("<h1>") :], figures


@pytest.mark.parametrize(("value", "text"), [
    (0.123456, "0.1235"), (-0.5, "-0.5"), (999.87, "999.9"), (1000.0, "1,000"),
    (-12345.6, "-12,346"), (12345, "12,345"), (True, "True"), ("a", "a"), (None, "-"),
    (float("nan"), "-"), (float("inf"), "-"),
])  # fmt: skip
def test_values_in_words(value, text):
    assert words(value) == text


def tables(page):
    """Return the cells of every table, row by row."""
    cells = re.compile(r"<t[dh].*?>(.*?)</t[dh]>")
    return [
        [[*map(unescape, cells.findall(row))]
         for row in re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)]
        for table in re.findall(r"<table>(.*?)</table>", page, re.DOTALL)
    ]  # fmt: skip


def titles(figures):
    return [figure["layout"]["title"]["text"] for figure in figures]


def test_half_a_line_at_the_end_of_a_log_is_left_out(tmp_path):
    log = tmp_path / "metrics.csv"
    log.write_bytes(b"epoch,step,train/loss\r\n0,1,2.5\r\n,3,\r\n0,5,0.5\r\n0,7,0.4")
    found = read_metrics(log)
    assert {name: pairs.tolist() for name, pairs in found.items()} == {
        "train/loss": [[1, 2.5], [5, 0.5]],  # 0.4 may have been the beginning of 0.4375
    }
    log.write_bytes(b"epoch,step,trai")
    assert read_metrics(log) == {}
    for line, says in [(b"0,1", "2 cells under 3 names"), (b"0,1,two", "could not convert"),
                       (b"0,,2", "could not convert")]:  # fmt: skip
        log.write_bytes(b"epoch,step,train/loss\r\n" + line + b"\r\n0,7,0.4\r\n")
        with pytest.raises(ValueError, match=f"metrics.csv is damaged in line 2: {says}"):
            read_metrics(log)


def test_numbers_of_a_run(tmp_path):
    page, figures = report(write_run(tmp_path / "run"), path=tmp_path / "out" / "report.html")
    results, classes, worst, best, options, versions = tables(page)
    assert {name: value for name, *value in results[1:]} == {
        "model.name": ["MinkUNetSlim"], "model.norm": ["instance"], "val miou": ["0.45"],
        "steps, as logged": ["3"], "last train/loss": ["1"],
        "throughput/points_per_s, median": ["2,000"], "files left out": ["0"],
    }  # fmt: skip
    assert classes == [
        ["class", "IoU", "recall", "precision", "points, val"],
        ["road", f"{6 / 9:.4g}", "0.75", f"{6 / 7:.4g}", "8"],
        ["car", "0.5", "0.75", "0.6", "4"],
        ["bus", "-", "-", "-", "0"],
    ]
    assert [row[0] for row in worst] == ["scan", "worst", "a <b>"]
    assert [row[0] for row in best] == ["scan", "best", "a <b>"]
    assert worst[1] == ["worst", "0.125", "0.25", "20"]
    assert best[1] == ["best", "0.875", "1", "30"]
    assert ["trainer.max_epochs", "3"] in options
    assert ["trainer.callbacks", "-"] in options
    assert re.search(r"<summary>\d+ all options</summary>", page)
    assert versions[1:] == [["torch", "2.15.0"], ["cores", "2"]]
    assert titles(figures) == ["train/loss", "val/miou", "throughput/points_per_s", "val"]
    assert [figures[0]["data"][0][axis] for axis in "xy"] == [[0, 1, 2], [3, 2, 1]]
    assert figures[3]["data"][0]["z"] == [[0.75, 0.25, 0], [0.25, 0.75, 0], [None, None, None]]
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    assert captions == ["worst: mIoU 0.125", "a &lt;b&gt;: mIoU 0.500"]
    assert page.count("data:image/webp;base64,") == 2
    size = (tmp_path / "out/report.html").stat().st_size
    assert size < 10 * 2**20
    assert not re.search(r"(src|href)=\"?(http|//)", page)


def test_runs_stand_side_by_side(tmp_path):
    runs = [write_run(tmp_path / norm, norm, losses=(number, 1)) for number, norm in
            enumerate(("instance", "batch", "ibn-a"), start=2)]  # fmt: skip
    page, figures = report(*runs, path=tmp_path / "report.html")
    found = tables(page)
    names = [str(run) for run in runs]
    assert found[0][0] == ["", *names]
    assert ["model.norm", "instance", "batch", "ibn-a"] in found[0]
    assert found[1][0] == ["class", *(f"{name}, val: IoU" for name in names),
                           *(f"points, {name}, val" for name in names)]  # fmt: skip
    assert found[1][1] == ["road", *["0.6667"] * 3, *["8"] * 3]
    assert ["option", *names] in [table[0] for table in found]
    assert re.search(r"<summary>\d+ options that are the same in all</summary>", page)
    differing = next(table for table in found if table[0] == ["option", *names])
    assert differing[1:] == [["model.norm", "instance", "batch", "ibn-a"]]
    assert [trace["name"] for trace in figures[0]["data"]] == names
    assert [trace["y"][0] for trace in figures[0]["data"]] == [2, 3, 4]
    assert titles(figures)[-3:] == [f"{name}, val" for name in names]


def test_what_only_some_runs_have(tmp_path):
    one = write_run(tmp_path / "one", "batch", losses=(1, 5, 3))
    two = write_run(tmp_path / "two", losses=(2,))
    log = (one / "metrics.csv").read_text()
    (one / "metrics.csv").write_text(log.replace("val/iou/road,val/miou", "val/loss,test/miou"))
    (one / "config.yaml").write_text(
        "model:\n  norm: batch\n  classes: [2, 3]\n  slim: true\nnone: {}\n"
    )
    (one / "left_out.csv").write_text("file,what,times\na.bin,damaged,3\n")
    for file in ("val.json", "val_confusion.csv", "val_scans.csv"):
        (one / file).rename(one / file.replace("val", "test"))
    (one / "versions.json").write_text(json.dumps({"test": {"numpy": "2.0"}}))
    shift = write_shift(tmp_path / "shift")
    page, figures = report(one, two, shift, one, path=tmp_path / "report.html")
    assert page.count("was stopped") == 0
    heading = page[page.index("<h1>") : page.index("</h1>")]
    assert heading == f"<h1>{one}, {two}, {shift}"
    assert titles(figures)[2:] == [
        "train/loss", "val/loss", "val/miou", "test/miou", "throughput/points_per_s",
        f"{one}, test", f"{two}, val",
    ]  # fmt: skip
    curves = {figure["layout"]["title"]["text"]: figure for figure in figures}
    assert [trace["name"] for trace in curves["val/miou"]["data"]] == [str(two)]
    assert not curves["val/miou"]["layout"]["showlegend"]
    assert curves["train/loss"]["layout"]["showlegend"]
    found = tables(page)
    rows = {name: values for name, *values in found[0]}
    assert rows["model.norm"] == ["batch", "instance"]
    assert rows["test miou"] == ["0.45", "-"]
    assert rows["last train/loss"] == ["3", "2"]
    assert rows["steps, as logged"] == ["3", "1"]
    assert rows["throughput/points_per_s, median"] == ["2,000", "1,000"]
    assert rows["files left out"] == ["1", "0"]
    assert [["run", "file", "what", "times"], [str(one), "a.bin", "damaged", "3"]] in found
    options = {name: values for name, *values in found[-3]}
    assert options["model.classes"] == ["[2, 3]", "-"]
    assert options["model.slim"] == ["True", "-"]
    assert options["none"] == ["{}", "-"]
    assert found[-2] == [["option", "value"], ["trainer.callbacks", "-"]]
    assert found[-1] == [
        ["", f"{one}, test", f"{two}, fit", str(shift)], ["numpy", "2.0", "-", "-"],
        ["torch", "-", "2.15.0", "-"], ["cores", "-", "2", "-"], ["geonorm", "-", "-", "0.1.0"],
    ]  # fmt: skip


def test_many_scans_and_classes_are_not_all_shown(tmp_path, monkeypatch):
    from geonorm.looking import report as module

    run = write_run(tmp_path / "run")
    lines = [f"scan{number},{number / 20},0.5,9,{'val_scan0.png' * (number < 2)}"
             for number in range(11)]  # fmt: skip
    (run / "val_scans.csv").write_text("\n".join(["scan,miou,accuracy,points,picture", *lines]))
    page, figures = report(run, path=tmp_path / "report.html")
    _, _, worst, best, *_ = tables(page)
    assert [row[0] for row in worst[1:]] == [f"scan{number}" for number in range(5)]
    assert [row[0] for row in best[1:]] == [f"scan{number}" for number in range(10, 5, -1)]
    assert page.count("the worst of 11") == page.count("the best of 11") == 1
    assert titles(figures)[-1] == "val"
    for name in ("worst", "best", "clips"):
        Image.new("RGB", (9, 9)).save(run / f"val_{name}.png")
    monkeypatch.setattr(module, "MOST_CLASSES", 2)
    page, figures = report(run, path=tmp_path / "report.html")
    assert "val: 3 classes are too many to draw here" in page
    monkeypatch.setattr(module, "MOST_CLASSES", 3)
    assert titles(report(run, path=tmp_path / "three.html")[1])[-1] == "val"
    assert titles(figures)[-1] == "throughput/points_per_s"
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    assert captions == ["clips", "the best clips", "the worst clips", "scan0: mIoU 0.000",
                        "scan1: mIoU 0.050"]  # fmt: skip


@pytest.mark.parametrize(("classes", "written"), [(24, True), (25, False)])
def test_cells_of_large_matrices_are_not_written_on(classes, written):
    names = [str(number) for number in range(classes)]
    figure = plots.confusion("val", np.eye(classes), names)
    assert ("texttemplate" in figure["data"][0]) == written


def test_a_confusion_is_drawn_from_0_to_1_and_read_from_above():
    matrix = np.array([[3, 1], [0, 2000]])
    figure = plots.confusion("val", matrix, ["a", "b"])
    (heat,), layout = figure["data"], figure["layout"]
    assert (heat["zmin"], heat["zmax"], heat["showscale"]) == (0, 1, False)
    assert heat["customdata"] == matrix.tolist()
    assert layout["yaxis"]["autorange"] == "reversed"
    assert [layout[axis]["title"]["text"] for axis in ("xaxis", "yaxis")] == ["predicted", "true"]
    shades = [sum(int(color[i : i + 2], 16) for i in (1, 3, 5)) for _, color in heat["colorscale"]]
    assert shades == sorted(shades, reverse=True)


def test_each_of_eight_runs_has_a_colour_of_its_own():
    runs = {str(number): np.column_stack([np.arange(59 + number % 2)] * 2) for number in range(9)}
    figure = plots.curves("loss", {"none": np.empty((0, 2)), **runs})
    assert [trace["name"] for trace in figure["data"]] == [*runs]
    colors = [trace["line"]["color"] for trace in figure["data"]]
    assert len({*colors}) == 8
    assert colors[7] == plots.COLORS[0]  # after that of the run without a value
    assert [trace["mode"] for trace in figure["data"]][:2] == ["lines+markers", "lines"]
    assert figure["layout"]["xaxis"]["title"]["text"] == "step"


def test_classes_that_are_not_there_or_never_predicted_have_no_share():
    found = _shares(np.array([0, 2, 0, 0]), np.array([3, 4, 0, 5]), np.array([0, 4, 6, 7]))
    np.testing.assert_array_equal(found, [np.nan, 0.5, np.nan, 0])


def test_a_folder_with_one_file_of_a_run_is_one(tmp_path):
    run = write_run(tmp_path / "run")
    for name in ("config.yaml", "metrics.csv", "val.json"):
        (tmp_path / name[:3]).mkdir()
        (tmp_path / name[:3] / name).write_bytes((run / name).read_bytes())
    configured, logged, judged = (read_folder(tmp_path / name) for name in ("con", "met", "val"))
    assert (configured.metrics, configured.judged, logged.config) == ({}, {}, {})
    assert configured.config["model.norm"] == "instance"
    assert logged.metrics["train/loss"][-1].tolist() == [2, 1]
    assert (judged.judged["val"].matrix, judged.judged["val"].classes) == (None, ())


def test_the_curves_of_a_resumed_run_are_whole(tmp_path):
    """Each run takes steps again that the one before it had logged; a test alone takes none."""
    logs = {
        "metrics_001.csv": "step,train/loss,val/miou\n0,9,\n2,8,\n4,,0.1\n4,7,\n",
        "metrics_002.csv": "step,train/loss,lr\n3,6,\n4,,0.5\n5,5,\n",
        "metrics_003.csv": "step,val/miou,test/miou\n0,0.3,0.4\n",
        "metrics.csv": "step,train/loss,val/miou\n5,4,\n6,,0.2\n",
    }
    for name, text in logs.items():
        (tmp_path / name).write_text(text)
    found = read_metrics(tmp_path / "metrics.csv")
    assert {name: pairs.tolist() for name, pairs in found.items()} == {
        "train/loss": [[0, 9], [2, 8], [3, 6], [5, 4]], "lr": [[4, 0.5]], "val/miou": [[6, 0.2]],
    }  # fmt: skip
    for name in ("metrics_001.csv", "metrics_002.csv", "metrics.csv"):
        (tmp_path / name).unlink()
    (tmp_path / "metrics.csv").write_text("step,test/miou\n0,0.6\n")
    only = {name: pairs.tolist() for name, pairs in read_metrics(tmp_path / "metrics.csv").items()}
    assert only == {"test/miou": [[0, 0.6]]}


def test_a_run_that_was_killed_shows_how_far_it_came(tmp_path):
    run = tmp_path / "run"
    write_run(run)
    for file in ("val.json", "val_confusion.csv", "versions.json"):
        (run / file).unlink()
    log = run / "metrics.csv"
    log.write_bytes(log.read_bytes()[:-9])  # within the line of val/miou
    page, figures = report(run, path=tmp_path / "report.html")
    assert "it was stopped before it was judged" in page
    assert titles(figures) == ["train/loss", "throughput/points_per_s"]
    assert ["steps, as logged", "3"] in tables(page)[0]


def test_an_evaluation_under_shift(tmp_path):
    page, figures = report(write_shift(tmp_path / "shift"), path=tmp_path / "report.html")
    assert titles(figures) == [
        "with instance norm: clean mIoU 50.0%", "with batch norm: clean mIoU 40.0%",
    ]  # fmt: skip
    heat = figures[1]["data"][0]
    assert (heat["y"], heat["x"]) == (["fog", "snow"], ["level 1", "level 2"])
    assert heat["text"] == [["36.0%", "10.0%"], ["28.0%", "10.0%"]]
    assert np.allclose(heat["z"], [[0.9, 0.25], [0.7, 0.25]])
    means = ["25.00 [10.00, 30.00]", "50.00", "-"]
    assert tables(page)[0][1] == ["with instance norm", "Robo3D", *means]
    assert "2 of 4 scans" in page
    assert "left out: wet_ground: no intensity" in page
    told = {"clean": [0.0, None, None], "groups": {"a": {"corruptions": {
        "fog": {"levels": {"1": [None, None, None]}}, "snow": {"levels": {"2": [0.5, None, None]}},
    }}}}  # fmt: skip
    figure = plots.shift("none", told, "mIoU")
    nothing = figure["data"][0]
    assert figure["layout"]["yaxis"]["autorange"] == "reversed"
    assert (nothing["zmin"], nothing["zmax"]) == (heat["zmin"], heat["zmax"]) == (0, 1)
    assert titles([figure, plots.shift("none", told | {"clean": [None] * 3}, "mIoU")]) == [
        "none: clean mIoU 0.0%"] * 2  # fmt: skip
    assert nothing["z"] == [[None, None], [None, None]]
    assert nothing["text"] == [["", ""], ["", "50.0%"]]


def test_many_large_pictures_still_fit(tmp_path, monkeypatch):
    """Noise is the worst to compress; with less room pictures get smaller, then are named only."""
    from geonorm.looking import report as module

    run = write_run(tmp_path / "run")
    noise = np.random.default_rng(0).integers(0, 255, (900, 1200, 3), dtype=np.uint8)
    for number in range(2):
        Image.fromarray(noise).save(run / f"val_scan{number}.png")
    for room in (2 * 800_000, 2 * 200_000):
        monkeypatch.setattr(module, "ROOM", room)
        page, _ = report(run, path=tmp_path / "report.html")
        assert page.count("data:image/webp") == 2
        assert room / 4 < len(page) < room + 20_000
    monkeypatch.setattr(module, "ROOM", 2000)
    page, _ = report(run, path=tmp_path / "report.html")
    assert page.count("data:image/webp") == 0
    assert f"{run}/val_scan1.png" in page


def test_pictures_of_all_stages_share_the_room(tmp_path, monkeypatch):
    from geonorm.looking import report as module

    run = write_run(tmp_path / "run")
    noise = np.random.default_rng(0).integers(0, 255, (100, 130, 3), dtype=np.uint8)
    for name in ("val_scan0", "val_scan1", "test_worst"):
        Image.fromarray(noise).save(run / f"{name}.png")
    (run / "test.json").write_text('{"miou": 0.5}')
    page, _ = report(run, path=tmp_path / "report.html")
    (one,) = {*re.findall(r'base64,([^"]*)', page)}
    for room, shown in ((3 * len(one) + 9, 3), (3 * len(one) - 9, 0)):
        monkeypatch.setattr(module, "ROOM", room)
        page, _ = report(run, path=tmp_path / "report.html")
        assert page.count("data:image/webp") == shown


@pytest.mark.parametrize(("size", "shown"), [
    ((300, 20), (300, 20)), ((1650, 30), (1100, 20)), ((20, 5500), (16, 4400)),
])  # fmt: skip
def test_pictures_are_made_no_larger_than_a_page(tmp_path, size, shown):
    Image.new("RGB", size).save(tmp_path / "a.png")
    page = pictures([("a <b>", tmp_path / "a.png")], 10**6)
    data = base64.b64decode(re.search(r'base64,([^"]*)', page)[1])
    assert Image.open(BytesIO(data)).size == shown
    assert page.count("a &lt;b&gt;") == 2


def test_numbers_alone_stand_to_the_right():
    page = table(["a <b>"], [[1], [2.5], [True], ["<i>"], [None]])
    assert "<th>a &lt;b&gt;</th>" in page
    assert re.findall(r"<td.*?</td>", page) == [
        '<td class="number">1</td>', '<td class="number">2.5</td>', "<td>True</td>",
        "<td>&lt;i&gt;</td>", "<td>-</td>",
    ]  # fmt: skip


def test_the_command_writes_a_page_and_says_where(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "run")
    assert command(["report", "run"]) is None
    size = (tmp_path / "report.html").stat().st_size / 2**20
    said = capsys.readouterr().out
    assert said == f"report.html ({size:.1f} MiB): open it in any browser\n"
    assert command(["report", "run", "--out=new/er/a.html"]) is None
    assert (tmp_path / "new/er/a.html").is_file()


def test_wrong_folders_are_explained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    assert "empty is no folder of a run" in command(["report", "run", "empty"])
    assert "nowhere is no folder of a run" in command(["report", "nowhere"])
    (tmp_path / "run/val.json").write_text('{"miou": 0.')
    assert "val.json is damaged, or only half written" in command(["report", "run"])
    (tmp_path / "run/val.json").write_text("[]")
    assert "must hold a JSON object; got list" in command(["report", "run"])
    with pytest.raises(ValueError, match="expected the folders of runs"):
        write_report([], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_videos_are_ranked_by_the_score_of_their_class(tmp_path):
    run = write_run(tmp_path / "run")
    (run / "val_scans.csv").unlink()
    (run / "val.json").write_text('{"top1": 0.5, "videos": 3}')
    (run / "val_videos.csv").write_text(
        "video,class,score,predicted\na.mp4,car,0.25,bus\nb.mp4,bus,0.75,bus\nc.mp4,car,0.5,car\n"
    )
    page, _ = report(run, path=tmp_path / "report.html")
    found = tables(page)
    assert found[1][0] == ["class", "recall", "precision", "videos, val"]
    assert [row[0] for row in found[2]] == ["video", "a.mp4", "c.mp4"]
    assert [row[0] for row in found[3]] == ["video", "b.mp4", "c.mp4"]
    assert not read_folder(run).judged["val"].of_scans


def hide_the_first_curve(driver):
    """Click in a legend, and wait until the curve of that run is gone."""
    from selenium.webdriver.support.ui import WebDriverWait

    driver.execute_script(
        "for (const kind of ['mousedown', 'mouseup'])"
        " arguments[0].dispatchEvent(new MouseEvent(kind, {bubbles: true}))",
        driver.find_element("css selector", "#figure0 .legendtoggle"),
    )
    left = "return document.querySelectorAll('#figure0 .scatterlayer .trace').length"
    WebDriverWait(driver, 20).until(lambda each: each.execute_script(left) == 2)


def test_reports_in_a_browser(tmp_path):
    """One run, three side by side, and an evaluation under shift: drawn, and nothing complains."""
    runs = [write_run(tmp_path / norm, norm) for norm in ("instance", "batch", "ibn-a")]
    pages = {1: [runs[0]], 3: runs, 0: [write_shift(tmp_path / "shift")]}
    with browser() as driver:
        for count, folders in pages.items():
            _, figures = report(*folders, path=tmp_path / "report.html")
            opened(driver, tmp_path / "report.html")
            drawn = driver.execute_script(
                "return [...document.querySelectorAll('.plot')].map((plot) => ["
                "plot.querySelectorAll('.scatterlayer .trace').length,"
                "plot.querySelectorAll('.heatmaplayer image').length])"
            )
            curves = [[count, 0]] * 3 if count else []
            assert drawn == [*curves, *[[0, 1]] * (count or 2)]
            assert len(drawn) == len(figures)
            sizes = driver.execute_script(
                "return [...document.images].map((image) => image.naturalWidth)")  # fmt: skip
            assert sizes == [400] * 2 * count
            assert complaints(driver) == []
            cells = driver.execute_script(
                "return [...document.querySelectorAll('.heatmap-label text')]"
                ".map((cell) => cell.textContent)")  # fmt: skip
            assert {*cells} == ({"75%", "25%", "0%"} if count else
                                {"45.0%", "35.0%", "12.5%", "36.0%", "28.0%", "10.0%"})  # fmt: skip
            if count == 3:
                hide_the_first_curve(driver)
