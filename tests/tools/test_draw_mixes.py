"""The picture of mixed scans shows what it says."""

import numpy as np
from draw_mixes import main, scans
from matplotlib import image


def test_each_panel_shows_the_scans_it_is_made_of(tmp_path):
    shown = scans()
    sources = {name: {*scan.feature("echo")[:, 0].tolist()} for name, scan in shown.items()}
    assert sources == {"a scan": {1}, "its partner": {2}, "Mix3D": {1, 2}, "LaserMix": {1, 2},
                       "PolarMix": {1, 2}}  # fmt: skip
    main(tmp_path / "mixing.png")
    picture = image.imread(tmp_path / "mixing.png")[..., :3]
    blue, orange = (np.abs(picture - np.array(color) / 255).max(2) < 0.1
                    for color in ((70, 150, 255), (255, 150, 30)))  # fmt: skip
    fifth = picture.shape[1] // 5
    upper = picture.shape[0] // 2
    parts = [(blue[:upper, i * fifth:(i + 1) * fifth].sum() > 50,
              orange[:upper, i * fifth:(i + 1) * fifth].sum() > 50) for i in range(5)]  # fmt: skip
    assert parts == [(True, False), (False, True), (True, True), (True, True), (True, True)]
