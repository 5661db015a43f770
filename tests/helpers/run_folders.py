"""Folders as runs leave them, written by hand, so that every number in them is known."""

import json

import numpy as np
from PIL import Image

CLASSES = ["road", "car", "bus"]


def matrix_rows(matrix):
    rows = [",".join([name, *map(str, row)]) for name, row in zip(CLASSES, matrix, strict=True)]
    return "\r\n".join(["true class,road,car,bus", *rows, ""])


def write_run(folder, norm="instance", matrix=((6, 2, 0), (1, 3, 0), (0, 0, 0)), losses=(3, 2, 1)):
    """Write a training of three classes, of which the last is absent, and four validated scans."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(
        f"# lightning.pytorch==2.6.6\nmodel:\n  name: MinkUNetSlim\n  norm: {norm}\n"
        "trainer:\n  max_epochs: 3\n  callbacks: null\n"
    )
    lines = ["epoch,step,throughput/points_per_s,train/loss,val/iou/road,val/miou"]
    for step, loss in enumerate(losses):
        lines += [f"0,{step},,{loss},,", f",{step},{1000 * (step + 1)},,,"]
    lines += ["0,2,,,0.5,0.45", ""]
    (folder / "metrics.csv").write_text("\r\n".join(lines), newline="")
    (folder / "val.json").write_text(json.dumps({"miou": 0.45, "iou": {"road": 0.5}}))
    (folder / "val_confusion.csv").write_text(matrix_rows(matrix), newline="")
    scans = [("a <b>", 0.5, 0.75, 10, "val_scan0.png"), ("worst", 0.125, 0.25, 20, "val_scan1.png"),
             ("unlabelled", "nan", "nan", 0, ""), ("best", 0.875, 1.0, 30, "")]  # fmt: skip
    rows = ["scan,miou,accuracy,points,picture", *(",".join(map(str, scan)) for scan in scans), ""]
    (folder / "val_scans.csv").write_text("\r\n".join(rows), newline="")
    for number in range(2):
        noise = np.random.default_rng(number).integers(0, 255, (300, 400, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"val_scan{number}.png")
    (folder / "versions.json").write_text(json.dumps({"fit": {"torch": "2.15.0", "cores": "2"}}))
    return folder


def write_shift(folder):
    """Write an evaluation of two networks under two corruptions of two levels."""
    folder.mkdir(parents=True)
    networks = {}
    for name, clean in (("with instance norm", 0.5), ("with batch norm", 0.4)):
        corruptions = {
            corruption: {"levels": {"1": [clean * part, None, None], "2": [clean / 4, 0.05, 0.2]}}
            for corruption, part in (("fog", 0.9), ("snow", 0.7))
        }
        mean = {"score": [clean / 2, 0.1, 0.3], "retained": [0.5, None, None], "error": None}
        networks[name] = {
            "clean": [clean, 0.3, 0.6],
            "groups": {"Robo3D": {"mean": mean, "corruptions": corruptions}},
        }
    (folder / "scores.json").write_text(json.dumps({
        "score": "mIoU", "samples": 2, "of": 4, "unit": "scan", "geonorm": "0.1.0",
        "left_out": {"wet_ground": "no intensity"}, "networks": networks,
    }))  # fmt: skip
    return folder
