"""Lists and folders of videos: the formats of the datasets as they are published."""

import codecs
import json
from pathlib import Path

import pytest

from geonorm.datasets import (
    HMDB51,
    UCF101,
    ClassFolders,
    Diving48,
    Kinetics,
    SomethingSomethingV2,
    VideoList,
    VideoSet,
)


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def write(path: Path, text: str, end: str = "\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.replace("\n", end).encode())
    return path


@pytest.fixture
def ucf(tmp_path: Path) -> tuple[Path, Path]:
    """Three classes whose official order is not that of sorted folders, in CRLF files."""
    root, lists = tmp_path / "UCF-101", tmp_path / "ucfTrainTestlist"
    write(lists / "classInd.txt", "1 HandstandPushups\n2 HammerThrow\n3 Hammering\n", "\r\n")
    write(
        lists / "trainlist01.txt",
        "HandstandPushups/v_HandStandPushups_g08_c01.avi 1\nHammerThrow/v_HammerThrow_g08_c01.avi "
        "2\nHammering/v_Hammering_g08_c01.avi 3\n", "\r\n",
    )
    write(
        lists / "testlist01.txt",
        "Hammering/v_Hammering_g01_c01.avi\nHandstandPushups/v_HandStandPushups_g01_c01.avi\n",
        "\r\n",
    )
    for line in (lists / "trainlist01.txt").read_text().split():
        if line.endswith(".avi"):
            touch(root / line)
    return root, lists


def test_ucf101_follows_class_ind(ucf: tuple[Path, Path]) -> None:
    root, lists = ucf
    train = UCF101(root, lists, "train")
    assert train.classes == ("HandstandPushups", "HammerThrow", "Hammering")
    assert train.videos == [
        (root / "HandstandPushups/v_HandStandPushups_g08_c01.avi", 0),
        (root / "HammerThrow/v_HammerThrow_g08_c01.avi", 1),
        (root / "Hammering/v_Hammering_g08_c01.avi", 2),
    ]
    assert [label for _, label in UCF101(root, lists, "test").videos] == [2, 0]


def test_ucf101_finds_folders_spelled_in_another_case(ucf: tuple[Path, Path]) -> None:
    root, lists = ucf
    (root / "HandstandPushups").rename(root / "HandStandPushups")
    path, label = UCF101(root, lists, "train").videos[0]
    assert (path, label) == (root / "HandStandPushups/v_HandStandPushups_g08_c01.avi", 0)
    assert path.exists()


def test_ucf101_guesses_between_no_two_folders(ucf: tuple[Path, Path]) -> None:
    root, lists = ucf
    (root / "HandstandPushups").rename(root / "HandStandPushups")
    touch(root / "handstandpushups/v_HandStandPushups_g08_c01.avi")
    path, _ = UCF101(root, lists, "train").videos[0]
    assert path == root / "HandstandPushups/v_HandStandPushups_g08_c01.avi"


@pytest.mark.parametrize("line", ["Juggling/v_a.avi 1", "Hammering/v_a.avi 2", "Hammering/v.avi x"])
def test_ucf101_refuses_lines_that_do_not_fit(ucf: tuple[Path, Path], line: str) -> None:
    root, lists = ucf
    write(lists / "trainlist02.txt", f"Hammering/v_Hammering_g08_c01.avi 3\n{line}\n")
    with pytest.raises(ValueError, match=r"line 2: expected `Class/video.avi`"):
        UCF101(root, lists, "train", split=2)


def test_ucf101_arguments(ucf: tuple[Path, Path]) -> None:
    root, lists = ucf
    with pytest.raises(ValueError, match="fold must be 'train' or 'test'"):
        UCF101(root, lists, "val")
    with pytest.raises(ValueError, match=r"split 1, 2 or 3; got 'train', 4"):
        UCF101(root, lists, "train", split=4)
    with pytest.raises(ValueError, match="expected a folder"):
        UCF101(root / "nowhere", lists, "train")
    for text in ("0 A\n1 B\n", "1 A\n2\n", "1 A\n3 B\n"):
        write(lists / "classInd.txt", text)
        with pytest.raises(ValueError, match="expected lines `1 Name`"):
            UCF101(root, lists, "train")


def test_hmdb51(tmp_path: Path) -> None:
    lists = tmp_path / "splits"
    write(
        lists / "brush_hair_test_split1.txt",
        "#20_Rhythm_clap_u_nm_np1_fr_goo_0.avi 1 \nA (1)! b.avi 2 \nunused.avi 0 \n",
    )
    write(lists / "wave_test_split1.txt", "w1.avi 2\nw2.avi 1\n", "\r\n")
    write(lists / "wave_test_split2.txt", "w1.avi 1\nw2.avi 2\n")
    train = HMDB51(tmp_path, lists, "train")
    assert train.classes == ("brush_hair", "wave")
    assert train.videos == [
        (tmp_path / "brush_hair/#20_Rhythm_clap_u_nm_np1_fr_goo_0.avi", 0),
        (tmp_path / "wave/w2.avi", 1),
    ]
    assert HMDB51(tmp_path, lists, "test").videos == [
        (tmp_path / "brush_hair/A (1)! b.avi", 0), (tmp_path / "wave/w1.avi", 1),
    ]
    with pytest.raises(ValueError, match=r"'test', split 1, 2 or 3; got 'val', 1"):
        HMDB51(tmp_path, lists, "val")
    with pytest.raises(ValueError, match=r"'test', split 1, 2 or 3; got 'test', 4"):
        HMDB51(tmp_path, lists, "test", split=4)
    assert repr(train) == "HMDB51(2 videos, 2 classes)"
    with pytest.raises(ValueError, match=r"_test_split3\.txt; .* holds none"):
        HMDB51(tmp_path, lists, "train", split=3)
    write(lists / "wave_test_split1.txt", "w1.avi\n")
    with pytest.raises(ValueError, match=r"line 1: expected `name.avi` and 0, 1 or 2"):
        HMDB51(tmp_path, lists, "train")


def test_kinetics(tmp_path: Path) -> None:
    csv = write(
        tmp_path / "val.csv",
        "label,youtube_id,time_start,time_end,split\nplaying cards,-ab_1,10,20,val\n"
        '"cooking, slowly",xyz,5.0,15.0,val\nplaying cards,gone,0,10,val\n', "\r\n",
    )
    spaced = touch(tmp_path / "val/cooking, slowly/xyz_000005_000015.mp4")
    underscored = touch(tmp_path / "val/playing_cards/-ab_1_000010_000020.mp4")
    videos = Kinetics(tmp_path, csv)
    assert videos.classes == ("cooking, slowly", "playing cards")
    assert videos.videos == [
        (underscored, 1), (spaced, 0), (tmp_path / "val/playing cards/gone_000000_000010.mp4", 1),
    ]
    with pytest.raises(ValueError, match="none of the classes: \\['cooking, slowly'\\]"):
        Kinetics(tmp_path, csv, classes=["playing cards"])


def test_kinetics_test_list_has_no_labels(tmp_path: Path) -> None:
    csv = write(tmp_path / "test.csv", "youtube_id,time_start,time_end,split\na,1,11,test\n")
    flat = touch(tmp_path / "test/a_000001_000011.mp4")
    assert Kinetics(tmp_path, csv, classes=["x", "y"]).videos == [(flat, -1)]
    flat.unlink()
    sorted_away = touch(tmp_path / "test/some class/a_000001_000011.mp4")
    assert Kinetics(tmp_path, csv).videos == [(sorted_away, -1)]
    write(csv, "id,time_start,time_end\na,1,11\n")
    with pytest.raises(ValueError, match=r"missing are \['split', 'youtube_id'\]"):
        Kinetics(tmp_path, csv)


def test_something_something(tmp_path: Path) -> None:
    labels = write(tmp_path / "labels.json", json.dumps({"Holding something": "1",
                                                         "Dropping something onto it": "0"}))
    items = [{"id": "7", "label": "dropping a cup", "template": "Dropping [something] onto [it]"},
             {"id": "8", "label": "holding tea", "template": "Holding [something]"}]
    train = write(tmp_path / "train.json", json.dumps(items))
    touch(tmp_path / "v/8.mp4")
    videos = SomethingSomethingV2(tmp_path / "v", train, labels)
    assert videos.classes == ("Dropping something onto it", "Holding something")
    assert videos.videos == [(tmp_path / "v/7.webm", 0), (tmp_path / "v/8.mp4", 1)]
    test = write(tmp_path / "test.json", json.dumps([{"id": "9"}]))
    assert SomethingSomethingV2(tmp_path / "v", test, labels).videos[0][1] == -1
    write(train, json.dumps([{"id": "7", "template": "Eating [something]"}]))
    with pytest.raises(ValueError, match="'Eating something' is none of the classes"):
        SomethingSomethingV2(tmp_path / "v", train, labels)
    write(labels, json.dumps({"Holding something": "1"}))
    with pytest.raises(ValueError, match="every number from 0 to 0 once"):
        SomethingSomethingV2(tmp_path / "v", train, labels)


def test_something_something_classes_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    labels = write(tmp_path / "l.json", json.dumps({"B": "2", "Z": "0", "A": "1"}))
    items = write(tmp_path / "t.json", json.dumps([{"id": "1", "template": "B"}]))
    videos = SomethingSomethingV2(tmp_path, items, labels)
    assert videos.classes == ("Z", "A", "B")
    assert videos.videos == [(tmp_path / "1.webm", 2)]


def test_diving48(tmp_path: Path) -> None:
    items = [{"vid_name": "_8Vy3dlHg2w_00000", "label": 26, "start_frame": 0, "end_frame": 159}]
    train = write(tmp_path / "train.json", json.dumps(items))
    videos = Diving48(tmp_path, train)
    assert videos.videos == [(tmp_path / "_8Vy3dlHg2w_00000.mp4", 26)]
    assert len(videos.classes) == 48
    words = [["Back", "15som", "05Twis", str(label)] for label in range(48)]
    vocabulary = write(tmp_path / "vocab.json", json.dumps(words))
    assert Diving48(tmp_path, train, vocabulary).classes[26] == "Back 15som 05Twis 26"
    write(train, json.dumps([{"vid_name": "a", "label": 48}]))
    with pytest.raises(ValueError, match=r"labels must be in \[0, 48\)"):
        Diving48(tmp_path, train)
    write(train, json.dumps([{"vid_name": "a"}]))
    with pytest.raises(ValueError, match="expected `vid_name` and `label`"):
        Diving48(tmp_path, train)
    write(train, json.dumps(["vid_name label"]))
    with pytest.raises(ValueError, match="expected `vid_name` and `label`; got vid_name label"):
        Diving48(tmp_path, train)


def test_every_kind_of_film_is_found_in_a_class_folder(tmp_path: Path) -> None:
    kinds = ["3gp", "avi", "flv", "gif", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "ts", "webm",
             "wmv"]  # fmt: skip
    films = [touch(tmp_path / "a" / f"{number:02d}.{kind}") for number, kind in enumerate(kinds)]
    for name in ("a.txt", "b.jpg", "c.mp3", "mp4"):
        touch(tmp_path / "a" / name)
    assert ClassFolders(tmp_path).videos == [(film, 0) for film in films]


def test_class_folders(tmp_path: Path) -> None:
    first, second = touch(tmp_path / "b/x y.AVI"), touch(tmp_path / "a/z.mp4")
    touch(tmp_path / "a/notes.txt")
    assert ClassFolders(tmp_path).videos == [(second, 0), (first, 1)]
    assert ClassFolders(tmp_path, classes=["b", "a"]).videos == [(first, 0), (second, 1)]
    with pytest.raises(ValueError, match=r"none of the classes: \['b'\]"):
        ClassFolders(tmp_path, classes=["a"])
    with pytest.raises(ValueError, match="c holds no videos"):
        ClassFolders(tmp_path, classes=["a", "b", "c"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"class folder .*empty holds no videos"):
        ClassFolders(tmp_path)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_list_splits_lines_from_the_right(tmp_path: Path, end: str) -> None:
    lines = (
        "a.mp4 1\nmy films/b c.mp4\t0\n\nd 3.mp4 120 2\n/abs/e 7.avi 1\nv1.5/clip 7 0\n"
        "f.mp4 7 8 2\ng\u2028h.mp4 0\n"
    )
    videos = VideoList(write(tmp_path / "list.txt", lines, end))
    assert videos.videos == [
        (tmp_path / "a.mp4", 1),
        (tmp_path / "my films/b c.mp4", 0),
        (tmp_path / "d 3.mp4", 2),
        (Path("/abs/e 7.avi"), 1),
        (tmp_path / "v1.5/clip 7", 0),
        (tmp_path / "f.mp4 7 8", 2),
        (tmp_path / "g\u2028h.mp4", 0),
    ]
    assert videos.classes == ("0", "1", "2")
    assert VideoList(tmp_path / "list.txt", root="/data").videos[0][0] == Path("/data/a.mp4")


def test_list_without_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "list.txt", "a.mp4\nb c.mp4\n")
    assert VideoList(path, labelled=False).videos == [
        (tmp_path / "a.mp4", -1), (tmp_path / "b c.mp4", -1),
    ]
    assert VideoList(path, labelled=False).classes == ()
    assert VideoList(path, "/data", ["x", "y"], labelled=False).classes == ("x", "y")
    with pytest.raises(ValueError, match="line 1: expected `path label`"):
        VideoList(path)
    write(path, "x" * 999)
    with pytest.raises(ValueError, match=r"; got 'x{200}'\. For a list without labels"):
        VideoList(path)
    write(path, "\na.mp4 0\n\nb c.mp4\n")
    with pytest.raises(ValueError, match=r"line 4: expected `path label`.*got 'b c.mp4'"):
        VideoList(path)


@pytest.mark.parametrize(("text", "message"), [
    ("", "is empty"),
    ("\n  \n", "is empty"),
    ("a.mp4 0\nb.mp4 2\n", r"labels must be in \[0, 2\).*got 2 for .*b.mp4"),
    ("a.mp4 -1\n", "labels count from 0; got -1"),
    ("a.mp4 jump\n", "the label a whole number"),
    ("a.mp4 1000000\n", "the label a whole number below a million"),
    ("a.mp4 999999\n", r"labels must be in \[0, 2\).*got 999999 for"),
])
def test_bad_lists(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "list.txt", text)
    with pytest.raises(ValueError, match=message):
        VideoList(path, classes=["run", "jump"])


def test_a_set_needs_videos() -> None:
    with pytest.raises(ValueError, match="the list is empty"):
        VideoSet([], ["a"])


def test_the_labels_of_a_set() -> None:
    videos = VideoSet([("a.mp4", True), (Path("b.mp4"), -1), ("c.mp4", 0)], ["x", "y"])
    assert str(videos.videos) == str([(Path("a.mp4"), 1), (Path("b.mp4"), -1), (Path("c.mp4"), 0)])
    assert len(videos) == 3
    for label in (-2, 2):
        with pytest.raises(ValueError, match=rf"0, 2\), or -1 for none; got {label} for b.mp4"):
            VideoSet([("a.mp4", 1), ("b.mp4", label)], ["x", "y"])


def test_hidden_files_are_no_videos_and_hidden_folders_no_classes(tmp_path: Path) -> None:
    """Trash, a Mac's doubles of every file, and what drives leave behind would shift the labels."""
    videos = [touch(tmp_path / "run/b.mp4"), touch(tmp_path / "walk/#1 (a).mp4")]
    for name in (
        ".Trash-1000/x.mp4", ".git/x.mp4", "lost+found/x.mp4", "@eaDir/run.mp4", "#recycle/x.mp4",
        "$RECYCLE.BIN/x.mp4", "System Volume Information/x.mp4", "__MACOSX/x.mp4", "run/._b.mp4",
        "run/.a.mp4", "walk/@eaDir/a.mp4", "._run",
    ):  # fmt: skip
        touch(tmp_path / name)
    assert ClassFolders(tmp_path).classes == ("run", "walk")
    assert ClassFolders(tmp_path).videos == [(videos[0], 0), (videos[1], 1)]
    assert len(ClassFolders(tmp_path, classes=["walk", "run"])) == 2
    (tmp_path / "jump").mkdir()
    touch(tmp_path / "jump/._a.mp4")
    with pytest.raises(ValueError, match="jump holds no videos"):
        ClassFolders(tmp_path)


def test_a_root_may_itself_be_hidden(tmp_path: Path) -> None:
    video = touch(tmp_path / ".cache/run/a.mp4")
    assert ClassFolders(tmp_path / ".cache").videos == [(video, 0)]


def test_hidden_lists_of_hmdb51_are_no_classes(tmp_path: Path) -> None:
    write(tmp_path / "lists/wave_test_split1.txt", "w.avi 1\n")
    (tmp_path / "lists/._wave_test_split1.txt").write_bytes(b"\0\5\x16\7 Mac OS X")
    assert HMDB51(tmp_path, tmp_path / "lists", "train").classes == ("wave",)


def test_kinetics_finds_an_unlabelled_clip_in_the_first_folder_that_is_not_hidden(
    tmp_path: Path,
) -> None:
    csv = write(tmp_path / "test.csv", "youtube_id,time_start,time_end,split\na,1,11,test\n")
    for name in ("e", "b", ".Trash-1000", "d", "lost+found", "c", "f"):
        touch(tmp_path / "test" / name / "a_000001_000011.mp4")
    assert Kinetics(tmp_path, csv).videos == [(tmp_path / "test/b/a_000001_000011.mp4", -1)]


@pytest.fixture(params=["folders", "hmdb51", "kinetics"])
def unsorted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have folders list their files in the reverse of the order of names."""
    for method in ("iterdir", "glob"):
        listed = getattr(Path, method)
        monkeypatch.setattr(
            Path, method,
            lambda self, *args, listed=listed: iter(sorted(listed(self, *args), reverse=True)),
        )  # fmt: skip
    return request.param


def test_order_is_that_of_names_whatever_the_file_system_says(
    unsorted: str, tmp_path: Path
) -> None:
    names = ["apply", "bow", "clap"]
    videos = [touch(tmp_path / name / f"{i}.mp4") for name in names for i in range(3)]
    for name in names:
        write(tmp_path / f"lists/{name}_test_split1.txt", "0.mp4 1\n1.mp4 1\n2.mp4 1\n")
    if unsorted == "hmdb51":
        data = HMDB51(tmp_path, tmp_path / "lists", "train")
        assert data.videos == [(path, i // 3) for i, path in enumerate(videos)]
    elif unsorted == "kinetics":
        csv = write(tmp_path / "a.csv", "youtube_id,time_start,time_end,split\na,1,11,test\n")
        clips = [touch(tmp_path / "test" / name / "a_000001_000011.mp4") for name in names]
        assert Kinetics(tmp_path, csv).videos == [(clips[0], -1)]
        return
    else:
        (tmp_path / "lists").rename(tmp_path / ".lists")
        data = ClassFolders(tmp_path)
        assert data.videos == [(path, i // 3) for i, path in enumerate(videos)]
    assert data.classes == tuple(names)


MARKED = ["utf-8-sig", "utf-16", "utf-32"]


@pytest.mark.parametrize(("encoding", "mark"), [
    ("utf-16-le", codecs.BOM_UTF16_LE), ("utf-16-be", codecs.BOM_UTF16_BE),
    ("utf-32-le", codecs.BOM_UTF32_LE), ("utf-32-be", codecs.BOM_UTF32_BE),
])  # fmt: skip
def test_lists_of_either_order_of_bytes(tmp_path: Path, encoding: str, mark: bytes) -> None:
    (tmp_path / "list.txt").write_bytes(mark + "é.mp4 0\nb.mp4 1\n".encode(encoding))
    videos = VideoList(tmp_path / "list.txt").videos
    assert videos == [(tmp_path / "é.mp4", 0), (tmp_path / "b.mp4", 1)]


@pytest.mark.parametrize("encoding", [*MARKED, "utf-8"])
def test_lists_are_read_in_the_encoding_that_they_name(tmp_path: Path, encoding: str) -> None:
    def put(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode(encoding))
        return path

    first = VideoList(put("list.txt", "é a.mp4 0\r\nb.mp4 1\r\n")).videos
    assert first == [(tmp_path / "é a.mp4", 0), (tmp_path / "b.mp4", 1)]
    put("classInd.txt", "1 Jump\n2 Run\n")
    put("trainlist01.txt", "Jump/v_1.avi 1\nRun/v_é.avi 2\n")
    assert UCF101(tmp_path, tmp_path, "train").videos[1] == (tmp_path / "Run/v_é.avi", 1)
    put("jump_test_split1.txt", "é.avi 1\n")
    assert HMDB51(tmp_path, tmp_path, "train").videos == [(tmp_path / "jump/é.avi", 0)]
    csv = put("train.csv", 'label,youtube_id,time_start,time_end,split\n"é\nx",a,1,11,train\n')
    assert Kinetics(tmp_path, csv).classes == ("é\nx",)
    items = put("train.json", '[{"vid_name": "é", "label": 3}]')
    assert Diving48(tmp_path, items).videos == [(tmp_path / "é.mp4", 3)]
    labels = put("labels.json", '{"Holding é": "0"}')
    items = put("items.json", '[{"id": "7", "template": "Holding [é]"}]')
    assert SomethingSomethingV2(tmp_path, items, labels).classes == ("Holding é",)


READERS = {
    "list.txt": lambda root: VideoList(root / "list.txt"),
    "classInd.txt": lambda root: UCF101(root, root, "train"),
    "jump_test_split1.txt": lambda root: HMDB51(root, root, "train"),
    "train.csv": lambda root: Kinetics(root, root / "train.csv"),
    "train.json": lambda root: Diving48(root, root / "train.json"),
}


@pytest.mark.parametrize(("data", "message"), [
    ("a é.mp4 0\nb é.mp4 0\n".encode("latin-1"),
     r"expected text in UTF-8; .*{} holds the byte 0xE9 in line 1, .*iconv -f ISO-8859-1 -t UTF-8"),
    ("a.mp4 0\nb.mp4 1\n".encode("utf-16-le"),
     r"{} holds zero bytes, as UTF-16 without a byte-order mark .*iconv -f UTF-16LE -t UTF-8"),
    ("a.mp4 0\nb.mp4 1\n".encode("utf-16")[:-1],
     r"{} holds the byte 0x0A in line 2, which is none in utf-16"),
], ids=["latin-1", "utf-16 without mark", "half a character"])  # fmt: skip
@pytest.mark.parametrize("name", READERS)
def test_text_in_another_encoding_is_refused_by_name(
    tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=message.format(name)):
        READERS[name](tmp_path)
