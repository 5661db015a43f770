"""A real browser without a screen, in which pages are opened as a user's would be."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ARGUMENTS = (
    "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu",
    "--disable-background-networking", "--window-size=900,600",
)  # fmt: skip
PATIENCE = 60  # seconds, of a machine that does other things


@contextmanager
def browser() -> Iterator[Any]:
    """Give a Chromium that can be told what to do; skip the test where there is none."""
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        pytest.skip("no browser: apt-get install chromium chromium-driver")
    pytest.importorskip("selenium", reason="pip install 'geonorm[test]'")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for argument in ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(programs[1]))
    try:
        yield driver
    finally:
        driver.quit()


def opened(driver: Any, page: Path) -> float:
    """Open a page from the disk, wait until it is shown, and return the seconds that took."""
    driver.get(page.resolve().as_uri())
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if shown := driver.execute_script("return document.documentElement.dataset.ready"):
            return float(shown) / 1000
        time.sleep(0.05)
    raise TimeoutError(f"{page} is not ready after {PATIENCE} s: {driver.get_log('browser')}")


def complaints(driver: Any) -> list[str]:
    """Return what the console has said since it was last asked."""
    return [entry["message"] for entry in driver.get_log("browser")]


def shown_report(page: Path) -> tuple[int, int, list[str]]:
    """Open a report; return how many figures are drawn, how many pictures, and what complains."""
    with browser() as driver:
        opened(driver, page)
        figures, pictures = driver.execute_script(
            "return [[...document.querySelectorAll('.plot')].filter((plot) => "
            "plot.querySelector('.scatterlayer .trace path, .heatmaplayer image')).length,"
            "[...document.images].filter((image) => image.naturalWidth > 200).length]"
        )
        return figures, pictures, complaints(driver)
