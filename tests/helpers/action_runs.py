"""Short runs of train_action.py, and the smallest dataset that each configuration reads."""

import json
from pathlib import Path

from helpers.video_files import encode, numbered_film

TOOLS = Path(__file__).resolve().parents[2] / "tools"
QUICK = [
    "--data.batch_size=6",
    "--data.num_workers=0",
    "--data.clip.length=4",
    "--data.clip.size=36",
    "--data.clip.crop=32",
    "--model.name=resnet3d_10",
    "--model.optim.name=SGD",
    "--trainer.max_epochs=1",
    "--trainer.accelerator=cpu",
    "--trainer.precision=32-true",
    "--trainer.enable_progress_bar=false",
    "--trainer.log_every_n_steps=1",
]
UNKEPT = ["--trainer.enable_checkpointing=false", "--run_dir=out"]
FILMS = ["--data.train.init_args.num_videos=12", "--data.val.init_args.num_videos=12"]


def found(run, stage="val"):
    return json.loads((run / f"{stage}.json").read_text())


def layout(root, config):
    """Write the smallest dataset that a configuration reads, of two classes and six films."""
    films = [root / "films" / name / f"{n}.mp4" for name in ("a", "b") for n in range(3)]
    lists = root / "lists"
    lists.mkdir()
    if config == "ucf101":
        (lists / "classInd.txt").write_text("1 a\r\n2 b\r\n")
        names = [f"{film.parent.name}/{film.name}" for film in films]
        train = "".join(f"{name} {'ab'.find(name[0]) + 1}\n" for name in names)
        (lists / "trainlist01.txt").write_text(train)
        (lists / "testlist01.txt").write_text("\n".join(names))
    elif config == "hmdb51":
        for name in "ab":
            (lists / f"{name}_test_split1.txt").write_text("0.mp4 1\n1.mp4 1\n2.mp4 2\n")
    elif config.startswith("kinetics"):
        rows = [f"{'ab'[n % 2]},video{n},0,10,val" for n in range(6)]
        head = "label,youtube_id,time_start,time_end,split"
        (lists / "list").write_text("\n".join([head, *rows]))
        films = [root / f"films/val/{'ab'[n % 2]}/video{n}_000000_000010.mp4" for n in range(6)]
    else:
        items = [{"id": str(n), "template": f"{'ab'[n % 2]} [something]"} for n in range(6)]
        (lists / "list").write_text(json.dumps(items))
        (lists / "labels").write_text(json.dumps({"a something": "0", "b something": "1"}))
        films = [root / f"films/{n}.webm" for n in range(6)]
    for number, film in enumerate(films):
        film.parent.mkdir(parents=True, exist_ok=True)
        encode(root / "film.mp4", numbered_film(12 + number)).rename(film)
    alone = config.startswith("kinetics") or config == "ssv2"
    return root / "films", lists / "list" if alone else lists
