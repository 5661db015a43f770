"""PCD and PLY files drawn at random: every value is read as written, every cut file refused."""

import numpy as np
import pytest

from geonorm.datasets.pcd import read_pcd
from geonorm.datasets.ply import read_ply
from helpers.cloud_files import drawn_pcd, drawn_ply

FORMATS = {
    "pcd": (drawn_pcd, read_pcd, ("ascii", "binary", "binary_compressed")),
    "ply": (drawn_ply, read_ply, ("ascii", "binary_little_endian", "binary_big_endian")),
}


@pytest.mark.parametrize("form", FORMATS)
def test_two_hundred_drawn_files_are_read_as_they_were_written(tmp_path, form):
    draw, read, _ = FORMATS[form]
    path = tmp_path / f"a.{form}"
    for seed in range(200):
        data, rows, _ = draw(np.random.default_rng(seed))
        path.write_bytes(data)
        np.testing.assert_array_equal(read(path), rows, strict=True, err_msg=f"seed {seed}")


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("which", range(3))
def test_a_file_cut_anywhere_is_refused_by_name(tmp_path, form, which):
    """But within the last number of a text, which may be a shorter number."""
    draw, read, kinds = FORMATS[form]
    path = tmp_path / f"cut.{form}"
    for seed in range(5):
        data, _, needed = draw(np.random.default_rng(seed), kinds[which])
        for end in {*range(0, needed, 1 + needed // 100), *range(needed - 20, needed)}:
            path.write_bytes(data[:end])
            with pytest.raises(ValueError, match=rf"cut\.{form} .*(truncated|damaged)"):
                read(path)
