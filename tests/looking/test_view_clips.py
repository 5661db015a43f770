"""geonorm view on videos, in a real browser: frames, times and scores."""

import json

import numpy as np
import pytest
import torch

from geonorm.__main__ import main as command
from geonorm.style import StyleStatistics
from geonorm.training.action.attribution import ClipAttributions
from geonorm.training.action.predict import write_film
from geonorm.training.attributions import write_statistics
from helpers.browser import browser, complaints, opened
from helpers.video_files import encode

SCORES = np.array([[0.75, 0.125, 0.125], [0.25, 0.5, 0.25]])
NAMES = ["wave", "jump", "fall"]
# Reads a canvas by way of another one: what is read often is better drawn in another way.
READ = """
  function read(canvas, x, y, height) {
    const copy = document.createElement("canvas");
    Object.assign(copy, { width: canvas.width, height: canvas.height });
    const pen = copy.getContext("2d", { willReadFrequently: true });
    pen.drawImage(canvas, 0, 0);
    return Array.from(pen.getImageData(x, y, 1, height).data);
  }
"""
LEVEL = READ + "return read(clips[arguments[0]].canvas, 9, 9, 1)[0]"


def grey_film(frames):
    """Return a film whose frames get brighter, by 8 each."""
    return np.broadcast_to(8 * np.arange(frames, dtype=np.uint8)[:, None, None, None],
                           (frames, 48, 64, 3)).copy()  # fmt: skip


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """Return a browser that shows two videos, of which only the first has been predicted twice."""
    folder = tmp_path_factory.mktemp("clips")
    encode(folder / "a.mp4", grey_film(20))
    for name, scores in (("one", SCORES), ("two", SCORES[::-1])):
        (folder / name).mkdir()
        write_film(folder / "a.mp4", scores, NAMES, folder / name / "a")
    # Of frames 4 to 6, of which the network saw the middle half: all of it added to the score.
    seen = np.ones((1, 3, 8, 8), "f4")
    box = (0.25, 0.25, 0.75, 0.75)
    ClipAttributions(seen, np.array([[4, 5, 6]]), box, 0, [0.0]).write(folder / "one" / "a")
    style = StyleStatistics(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.ones(2, 2))
    write_statistics(folder / "one" / "a", {"stem.1": style})
    with browser() as made:
        said = command([
            "view", str(folder / "a.mp4"), "--predictions", str(folder / "one"),
            str(folder / "two"), "--out", str(folder / "a.html"),
        ])  # fmt: skip
        assert said is None
        opened(made, folder / "a.html")
        made.folder = folder
        yield made


def values(driver):
    return driver.execute_script(
        "return clips.map((clip) => [...clip.values.querySelectorAll('.value')]"
        ".map((value) => [value.dataset.name, value.textContent]))"
    )


def test_scores_of_the_parts_are_written_beside_the_film(driver):
    told = json.loads((driver.folder / "one/a.scores.json").read_text())
    rate = 20 / told["views"][1]["to"]
    assert told["video"] == "a.mp4"
    assert told["views"] == [
        {"from": 0.0, "to": 10 / rate, "scores": {"wave": 0.75, "jump": 0.125, "fall": 0.125}},
        {"from": 10 / rate, "to": 20 / rate, "scores": {"wave": 0.25, "jump": 0.5, "fall": 0.25}},
    ]


def test_frames_and_scores_are_those_of_the_time(driver):
    driver.execute_script("seek(0)")
    assert driver.execute_script(LEVEL, 0) == pytest.approx(0, abs=6)
    of_first = [["wave", "0.75"], ["jump", "0.13"], ["fall", "0.13"]]
    of_second = [["wave", "0.25"], ["jump", "0.50"], ["fall", "0.25"]]
    assert values(driver) == [of_first, of_second]
    driver.execute_script("seek(length * 15.2 / 20)")
    assert driver.execute_script(LEVEL, 0) == pytest.approx(8 * 15, abs=6)
    assert driver.execute_script(LEVEL, 1) == pytest.approx(8 * 15, abs=6)
    assert values(driver) == [of_second, of_first]
    titles = [each.text for each in driver.find_elements("tag name", "h2")]
    assert titles == [f"a.mp4, {driver.folder}/one", f"a.mp4, {driver.folder}/two"]
    assert complaints(driver) == []


def test_keys_step_play_and_rewind(driver):
    from selenium.webdriver.common.keys import Keys

    body = driver.find_element("tag name", "body")
    driver.execute_script("seek(0)")
    body.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    assert driver.execute_script("return clips[0].canvas.dataset.frame") == "2"
    body.send_keys(" ")
    assert driver.find_element("id", "play").text == "pause"
    before = driver.execute_script("return time")
    driver.set_script_timeout(30)
    moved = driver.execute_async_script(
        "const [before, done] = arguments; const see = () => time !== before ? done(true) "
        ": setTimeout(see, 20); see()", before)  # fmt: skip
    assert moved
    driver.find_element("id", "play").click()
    assert driver.find_element("id", "play").text == "play"
    body.send_keys(Keys.HOME)
    assert driver.execute_script("return clips[0].canvas.dataset.frame") == "0"
    assert complaints(driver) == []


def test_the_chart_draws_each_class_at_its_scores(driver):
    """Of the first video: wave falls from 0.75 to 0.25 half way, in the colour of its square."""
    driver.execute_script("seek(0)")
    found = driver.execute_script(READ + """
        const {width, height} = clips[0].chart;
        return [[0.25, 0.75], [0.75, 0.25], [0.75, 0.5], [0.25, 0.5], [0.75, 0.75]].map(([x, s]) =>
            read(clips[0].chart, width * x, Math.round(6 + (1 - s) * (height - 12)) - 2, 4));
    """)
    pixels = [[tuple(each[i : i + 3]) for i in range(0, 16, 4)] for each in found]
    wave, jump, fall = (90, 180, 255), (255, 159, 67), (123, 216, 143)
    assert wave in pixels[0]
    assert fall in pixels[1]  # as high as wave, and drawn above it
    assert jump in pixels[2]
    assert not {wave, jump, fall} & {*pixels[3], *pixels[4]}


def test_an_attribution_lies_over_the_frames_that_the_network_saw(driver):
    pixel = READ + """
        seek(length * arguments[0] / 20 + 1e-3);
        const { width, height } = clips[0].canvas;
        return [[0.5, 0.5], [0.1, 0.1]].map(([x, y]) =>
          read(clips[0].canvas, Math.round(x * width), Math.round(y * height), 1).slice(0, 3));
    """
    inside, outside = driver.execute_script(pixel, 5)
    assert inside[0] > 240  # red to yellow: it spoke for the class
    assert inside[0] > inside[2] + 100
    assert outside[0] < 8 * 5  # darker, so that the colours stand out
    plain = [driver.execute_script(pixel, frame)[0] for frame in (3, 9)]
    assert all(max(each) - min(each) < 12 for each in plain), "grey, as the film is"
    driver.find_element("id", "attribution").click()
    off = driver.execute_script(pixel, 5)[0]
    assert off == pytest.approx([8 * 5] * 3, abs=8)
    driver.find_element("tag name", "body").send_keys("a")
    assert driver.execute_script(pixel, 5)[0] == inside
    assert complaints(driver) == []


def test_what_the_norms_took_out_of_each_part(driver):
    """Red where the mean of the first part is, blue where that of the second."""
    cell = READ + """
        seek(length * arguments[0]);
        return read(document.querySelector("#norms canvas"), 0, 0, 1).slice(0, 3);
    """
    driver.find_element("id", "ask-norms").click()
    assert driver.execute_script(cell, 0.1) == [255, 110, 30]
    assert driver.execute_script(cell, 0.9) == [30, 145, 255]
    driver.find_element("id", "ask-norms").click()
    assert not driver.find_element("id", "norms").is_displayed()
    assert complaints(driver) == []
