"""Two thousand clips by two workers, one file in twenty corrupted: no leak, no hang, all named."""

import os
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

from geonorm.datasets import ClipDataset, VideoSet
from helpers.video_files import (
    damage,
    encode,
    headers_only,
    noisy_film,
    numbered_film,
    sound,
    truncate,
)

FILES = 200
EPOCHS = 11
WARM = 3


def resident(pid: int) -> float:
    """Return a process's memory in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"process {pid} has no VmRSS")


@pytest.fixture
def films(tmp_path: Path) -> tuple[list[Path], dict[str, set[Path]]]:
    """Write the files; one in twenty is broken, in one of five ways."""
    noise = np.repeat(np.repeat(noisy_film(30), 3, axis=1), 3, axis=2)
    paths = [tmp_path / f"{number:03d}.mp4" for number in range(FILES)]
    broken: dict[str, set[Path]] = {"left out": set(), "skipped": set(), "damaged": set()}
    for number, path in enumerate(paths):
        encode(path, np.roll(noise, number, axis=2), options={"preset": "ultrafast"})
        if number % 20 != 7:
            continue
        way = number // 20 % 5
        if way == 0:
            truncate(path, 0.5)
        elif way == 1:
            path.write_bytes(b"no video" * 100)
        elif way == 2:
            sound(path)
        elif way == 3:
            headers_only(path, numbered_film(30))
        else:
            damage(path)
        kind = "skipped" if way == 3 else "damaged" if way == 4 else "left out"
        broken[kind].add(path)
    return paths, broken


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_two_thousand_clips(
    films: tuple[list[Path], dict[str, set[Path]]], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    paths, broken = films
    videos = VideoSet([(path, number % 4) for number, path in enumerate(paths)], "abcd")
    data = ClipDataset(videos, length=16, size=112, cache=tmp_path / "cache")
    loader = DataLoader(data, batch_size=8, num_workers=2, persistent_workers=True, timeout=120)
    clips, memory = 0, []
    for epoch in range(EPOCHS):
        data.set_epoch(epoch)
        iterator = iter(loader)
        for batch in iterator:
            clips += len(batch.label)
        pids = [*(worker.pid for worker in iterator._workers), os.getpid()]
        memory.append([resident(pid) for pid in pids])
    with capsys.disabled():
        print(f"\n{clips} clips; MiB of both workers and the main process after each epoch: "
              f"{[[round(value) for value in row] for row in memory]}")
    assert clips >= 2000
    # The allocator keeps or returns up to a tenth from one epoch to the next, so compare maxima.
    for process in range(3):
        warm, later = ([row[process] for row in rows] for rows in (memory[:WARM], memory[WARM:]))
        assert max(later) <= 1.05 * max(warm)
    found = {kind: {r.path for r in data.report() if r.kind == kind} for kind in broken}
    assert found == broken
