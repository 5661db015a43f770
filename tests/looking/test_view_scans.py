"""geonorm view on scans, in a real browser: colours, places, toggles, cameras."""

import json
import shutil
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from geonorm.__main__ import main as command
from geonorm.datasets import SemanticKITTI
from geonorm.style import StyleStatistics
from geonorm.training.attributions import write_statistics
from helpers.browser import browser, complaints, opened
from helpers.scan_writers import rows, write

CAR, ROAD, TREE = 0, 8, 14
MIDDLE = (7.0, 0.0, -2.0)  # what the camera looks at first


@pytest.fixture(scope="module")
def driver():
    with browser() as made:
        yield made


def label_file(path, labels, instances=0):
    ids = np.array(SemanticKITTI.raw_ids)[labels] + (np.asarray(instances) << 16)
    ids.astype("<u4").tofile(path)
    return path


@pytest.fixture
def five(tmp_path, monkeypatch):
    """Return the folder of a scan of five points whose places in the picture are known."""
    monkeypatch.chdir(tmp_path)
    x, y, z = MIDDLE
    # In the middle, left of it, right of it, above it, and far behind the first.
    points = [[x, y, z], [x, y + 4, z], [x, y - 4, z], [x, y, z + 4], [x + 16, y, z - 10]]
    columns = np.column_stack([points, [0.0, 0.25, 0.5, 0.75, 1.0]])
    write(tmp_path / "a.bin", columns.astype(np.float32))
    label_file(tmp_path / "a.label", [CAR, ROAD, ROAD, TREE, ROAD], [7, 0, 0, 300, 0])
    (tmp_path / "guess").mkdir()
    label_file(tmp_path / "guess/a.label", [CAR, CAR, ROAD, ROAD, ROAD])
    ids = dict(zip(SemanticKITTI.classes, SemanticKITTI.raw_ids, strict=True))
    (tmp_path / "guess/classes.json").write_text(json.dumps(ids))
    return tmp_path


def view(*words):
    said = command(["view", *map(str, words)])
    if said:
        raise ValueError(said)


# The pixel where the camera sees a point, and a name of each colour that is not black.
SEEN = """
  const [number, point] = arguments, part = place(number), panel = panels[number];
  const m = matrix(panel.camera, part.height);
  const row = (i) => m[i] * point[0] + m[i + 1] * point[1] + m[i + 2] * point[2] + m[i + 3];
  const at = [part.left + part.width / 2 + row(4) / row(0),
              part.top + part.height / 2 + row(8) / row(0)].map(Math.round);
  const pixel = pixels[at[1] * canvas.width + at[0]];
  return [at, [pixel & 255, pixel >> 8 & 255, pixel >> 16 & 255]];
"""
COLORS = """
  draw();
  return [...new Set(pixels)].filter((each) => each !== 0xff000000)
    .map((each) => [each & 255, each >> 8 & 255, each >> 16 & 255].join(" "));
"""


def colors(driver):
    return set(driver.execute_script(COLORS))


def color_of(*classes):
    return {" ".join(map(str, SemanticKITTI.colors[each])) for each in classes}


def press(driver, selector):
    driver.find_element("css selector", selector).click()


def test_points_have_their_places_and_colours(driver, five):
    view("a.bin", "--labels", "a.label", "--predictions", "guess")
    opened(driver, five / "view.html")
    x, y, z = MIDDLE
    width, height = driver.execute_script("return [stage.clientWidth, stage.clientHeight]")
    middle, car = driver.execute_script(SEEN, 0, MIDDLE)
    assert middle == [round(width / 2), round(height / 2)]
    assert car == SemanticKITTI.colors[CAR].tolist()  # the road behind it is hidden
    left, road = driver.execute_script(SEEN, 0, [x, y + 4, z])
    assert (road, left[1]) == (SemanticKITTI.colors[ROAD].tolist(), middle[1])
    # 4 m to the side at 28 m, through a lens of 62 degrees.
    assert left[0] - middle[0] == round(-4 / 28 / np.tan(np.radians(31)) * height / 2)
    above, tree = driver.execute_script(SEEN, 0, [x, y, z + 4])
    assert tree == SemanticKITTI.colors[TREE].tolist()
    assert (above[0], above[1] < middle[1]) == (middle[0], True)
    assert complaints(driver) == []


def test_each_column_colours_the_points(driver, five):
    view("a.bin", "--labels", "a.label", "--predictions", "guess")
    opened(driver, five / "view.html")
    shown = {}
    for button in driver.find_elements("css selector", "[data-color]"):
        button.click()
        shown[button.text] = colors(driver)
    assert list(shown) == ["class", "prediction", "error", "intensity", "height", "instance"]
    assert shown["class"] == color_of(CAR, ROAD, TREE)
    assert shown["prediction"] == color_of(CAR, ROAD)
    assert shown["error"] == {"130 150 170", "255 30 30"}
    assert {"68 1 84", "33 145 140"} <= shown["intensity"]  # of 0 and of 0.5
    assert len(shown["intensity"]) == 4  # the fifth point is behind the first
    assert len(shown["instance"]) == 3  # two instances and none
    assert "80 80 80" in shown["instance"]
    assert complaints(driver) == []


def test_attributions_and_what_the_norms_took_out(driver, five):
    """Blue below zero, red above, grey at it; and a box of cells, one scale for both scans."""
    values = np.array([[0, 0], [1, 1], [-1, -1], [0, 0], [3, -2]], "<f4")
    np.save("guess/a.attribution.npy", values)
    shutil.copytree("guess", "other")
    for folder, factor in (("guess", 1), ("other", 2)):
        style = StyleStatistics(torch.tensor([[0.5, -0.5, 0.0]]) * factor, torch.ones(1, 3))
        write_statistics(five / folder / "a", {"bn1": style})
    view("a.bin", "--predictions", "guess", "other", "--color", "attribution")
    opened(driver, five / "view.html")
    assert colors(driver) == {"120 200 255", "255 210 90", "56 55 55"}
    box = driver.find_element("id", "norms")
    assert not box.is_displayed()
    press(driver, "#ask-norms")
    assert box.is_displayed()
    cells = driver.execute_script("""
        return [...document.querySelectorAll("#norms canvas")].map((canvas) =>
          [canvas.width, ...canvas.getContext("2d").getImageData(0, 0, 3, 1).data]);
    """)
    assert [cell[0] for cell in cells] == [3] * 4
    means = [[tuple(cell[1 + i : 4 + i]) for i in (0, 4, 8)] for cell in cells[::2]]
    assert means[1] == [(255, 110, 30), (30, 145, 255), (55, 55, 55)]
    assert means[0] == [(155, 83, 43), (43, 100, 155), (55, 55, 55)]  # half as far
    from selenium.webdriver import ActionChains

    canvas = driver.find_elements("css selector", "#norms canvas")[0]
    ActionChains(driver).move_to_element(canvas).perform()
    assert driver.find_element("id", "cell").text == "bn1, channel 1: mean -0.5000"
    driver.find_element("tag name", "body").send_keys("n")
    assert not box.is_displayed()
    assert complaints(driver) == []


def test_the_legend_counts_classes_and_hides_them(driver, five):
    view("a.bin", "--labels", "a.label")
    opened(driver, five / "view.html")
    rows = driver.find_elements("css selector", "#legend button")
    assert [row.text.split() for row in rows] == [["car", "1"], ["road", "3"], ["vegetation", "1"]]
    press(driver, "#legend [data-name=road]")
    assert colors(driver) == color_of(CAR, TREE)
    press(driver, "[data-color=height]")
    assert len(colors(driver)) == 2  # three points of one height, one of another: none is hidden
    press(driver, "[data-color=class]")
    press(driver, "#legend [data-name=road]")
    assert colors(driver) == color_of(CAR, ROAD, TREE)


def test_a_click_tells_what_is_known_of_a_point(driver, five):
    view("a.bin", "--labels", "a.label", "--predictions", "guess")
    opened(driver, five / "view.html")
    at, _ = driver.execute_script(SEEN, 0, [MIDDLE[0], MIDDLE[1], MIDDLE[2] + 4])
    from selenium.webdriver import ActionChains

    canvas = driver.find_element("css selector", "canvas")
    offset = (at[0] - canvas.size["width"] / 2 + 3, at[1] - canvas.size["height"] / 2)
    ActionChains(driver).move_to_element_with_offset(canvas, *map(round, offset)).click().perform()
    assert driver.find_element("id", "said").text == (
        "point 3: x 7.00, y 0.00, z 2.00, class vegetation, prediction road, error wrong, "
        "intensity 0.752, instance 300"  # 0.75, of which the scale has 256 steps
    )


def test_two_scans_turn_together_until_they_are_unlinked(driver, five):
    write(five / "b.npy", rows(3000))
    view("a.bin", "b.npy", "--out", "pages/two.html", "--color", "height")
    opened(driver, five / "pages/two.html")
    from selenium.webdriver import ActionChains

    def drag():
        canvas = driver.find_element("css selector", "canvas")
        ActionChains(driver).move_to_element_with_offset(canvas, 200, 50).click_and_hold() \
            .move_by_offset(40, 0).release().perform()  # fmt: skip
        return driver.execute_script("return panels.map((panel) => panel.camera.yaw - Math.PI)")

    titles = [each.text for each in driver.find_elements("css selector", ".title")]
    assert titles == ["a.bin", "b.npy"]
    assert drag() == pytest.approx([-0.2, -0.2])
    press(driver, "#link")
    assert drag() == pytest.approx([-0.2, -0.4])  # of the right half alone, where the pointer is
    press(driver, "#link")
    assert driver.execute_script("return panels[1].camera.yaw - Math.PI") == pytest.approx(-0.2)
    # Neither draws into the other's half: the left one has four squares of points in sight.
    driver.execute_script("look(START); draw()")
    lit = "return pixels.filter((value, i) => value !== 0xff000000 " \
          "&& i % canvas.width < canvas.width / 2).length"  # fmt: skip
    assert driver.execute_script(lit) == 4 * 4
    assert complaints(driver) == []


def test_keys_and_help(driver, five):
    view("a.bin", "--labels", "a.label")
    opened(driver, five / "view.html")
    body = driver.find_element("tag name", "body")
    assert not driver.find_element("id", "help").is_displayed()
    body.send_keys("?")
    assert "click in the legend" in driver.find_element("id", "help").text
    body.send_keys("3")
    assert driver.find_element("css selector", "[data-color=height]").get_attribute(
        "aria-pressed") == "true"  # fmt: skip
    before = len(colors(driver)), driver.execute_script("return size")
    body.send_keys("+")
    assert driver.execute_script("return size") == before[1] + 1
    body.send_keys("t")
    assert driver.execute_script("return panels[0].camera.pitch") > 1.5
    body.send_keys("r")
    assert driver.execute_script("return panels[0].camera.pitch") == 0.56


def test_the_real_scan(driver, data_root, tmp_path):
    sequence = data_root / "semantickitti/sequences/00"
    scan, labels = sequence / "velodyne/000000.bin", sequence / "labels/000000.label"
    view(scan, "--labels", labels, "--out", tmp_path / "a.html")
    seconds = opened(driver, tmp_path / "a.html")
    screen = np.asarray(Image.open(BytesIO(driver.get_screenshot_as_png())).convert("RGB"))
    road = (screen[60:] == SemanticKITTI.colors[ROAD]).all(axis=2).mean()
    assert 0.03 < road < 0.5, "the street is in the picture"
    press(driver, "#legend [data-name=road]")
    screen = np.asarray(Image.open(BytesIO(driver.get_screenshot_as_png())).convert("RGB"))
    assert (screen[60:] == SemanticKITTI.colors[ROAD]).all(axis=2).mean() < 1e-3
    for name in ("intensity", "height", "instance"):
        press(driver, f"[data-color={name}]")
        assert len(colors(driver)) > 5
    assert complaints(driver) == []
    assert seconds < 30  # 0.6 on two free cores; the long test below is strict


@pytest.mark.long  # times, which tell nothing while other tests run
def test_a_scan_of_120_000_points_opens_in_time_and_turns_smoothly(driver, tmp_path):
    write(tmp_path / "a.bin", rows(120_000))
    view(tmp_path / "a.bin", "--out", tmp_path / "a.html")
    assert min(opened(driver, tmp_path / "a.html") for _ in range(3)) < 3
    assert max(driver.execute_script("return measure()") for _ in range(3)) > 10
