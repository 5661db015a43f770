"""The picture of towns, suburbs and a real scan shows what it says."""

import numpy as np
from draw_streets import REAL, main, scans
from matplotlib import image

from geonorm.datasets.scan_io import read_scan
from helpers.scan_writers import rows, write


def test_each_column_shows_its_scan(tmp_path):
    file = tmp_path / REAL
    file.parent.mkdir(parents=True)
    write(file, rows(4000))
    shown = scans(tmp_path)  # there are no labels beside it
    assert shown.popitem()[1].points.tolist() == read_scan(file).points.tolist()
    assert [len(scan) > 50_000 for scan in shown.values()] == [False, True]
    main(tmp_path, tmp_path / "streets.png")
    picture = image.imread(tmp_path / "streets.png")[..., :3]
    third = picture.shape[1] // 3
    colored = np.ptp(picture, axis=2) > 0.3
    assert all(colored[:, i * third : (i + 1) * third].mean() > 0.005 for i in range(3))
