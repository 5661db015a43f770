"""Waymo Open Dataset, version 2: range images of the top LiDAR, read from Parquet files."""

from pathlib import Path
from typing import Any

import numpy as np

from geonorm.datasets.label_ids import LabelIds
from geonorm.datasets.label_map import mapped, maps_of
from geonorm.datasets.range_image import pixel_points, uniform_inclinations
from geonorm.datasets.scan import Scan
from geonorm.datasets.scan_files import ScanFiles, check_complete, first_folder, known_split, own
from geonorm.datasets.scan_io import with_points
from geonorm.datasets.submission import Submission
from geonorm.datasets.waymo_submission import WaymoSubmission

SPLITS = {"train": "training", "val": "validation", "test": "testing"}
TEST_FRAMES = 2_982  # in 3d_semseg_test_set_frames.txt
LABELS = "lidar_segmentation"
COMPONENTS = ("lidar", "lidar_pose", "lidar_calibration", "vehicle_pose")
_TOP = 1  # the only LiDAR with labels of points
_TIME, _LASER = "key.frame_timestamp_micros", "key.laser_name"
# Component, returns and channels of the images in a part. The pose of a pixel is that of both.
_IMAGES = {
    "lidar": ("LiDARComponent", (1, 2), 4),
    "lidar_pose": ("LiDARPoseComponent", (1,), 6),
    LABELS: ("LiDARSegmentationLabelComponent", (1, 2), 2),
}

# name and colour (RGB, SemanticKITTI's where it has the class) of the ids 1, 2, …
CLASSES = (
    ("car", (100, 150, 245)),
    ("truck", (80, 30, 180)),
    ("bus", (100, 80, 250)),
    ("other-vehicle", (0, 0, 255)),
    ("motorcyclist", (150, 30, 90)),
    ("bicyclist", (255, 40, 200)),
    ("pedestrian", (255, 30, 30)),
    ("sign", (255, 0, 0)),
    ("traffic-light", (200, 200, 60)),
    ("pole", (255, 240, 150)),
    ("construction-cone", (255, 90, 20)),
    ("bicycle", (100, 230, 245)),
    ("motorcycle", (30, 60, 150)),
    ("building", (255, 200, 0)),
    ("vegetation", (0, 175, 0)),
    ("tree-trunk", (135, 60, 0)),
    ("curb", (120, 60, 120)),
    ("road", (255, 0, 255)),
    ("lane-marker", (255, 200, 255)),
    ("other-ground", (175, 0, 75)),
    ("walkable", (150, 240, 80)),
    ("sidewalk", (75, 0, 75)),
)
_IDS = LabelIds(
    "Waymo", [(name, color, (id_,)) for id_, (name, color) in enumerate(CLASSES, 1)], (0,)
)


class Waymo(ScanFiles):
    """The labelled frames of Waymo's top LiDAR, 22 classes, in the order of segment and time.

    A scan has the points of the first return, then those of the second, which its feature `echo`
    tells apart (1 and 2). They are metres in the frame of the vehicle, whose origin is on the
    ground, at the frame's time: the movement of the vehicle during the revolution is taken out.
    Intensities, which have no upper limit, go through tanh.

    pyarrow reads the files: `pip install 'geonorm[data]'`. Segments to test on that are not in
    `testing` are read from `testing_location`.

    Args:
        root: folder that holds `training` and `validation`, each with `lidar`, `lidar_pose`,
            `lidar_calibration`, `vehicle_pose` and `lidar_segmentation`, which have a file
            `SEGMENT.parquet` for each segment.
        split: `"train"` (798 segments), `"val"` (202) or `"test"` (without labels).
        frames: file of lines `SEGMENT,TIME` (microseconds) of the frames to take; by default all
            with labels. The test split needs it: its frames are in 3d_semseg_test_set_frames.txt of
            github.com/waymo-research/waymo-open-dataset.
        label_map: `"dglss"` for the classes of that map in place of these.
        account: e-mail address that is registered at waymo.com/open, for submissions.
        method: name on Waymo's leaderboard, for submissions.

    Raises:
        ValueError: a missing folder (naming the paths tried) or list of frames, an unknown split or
            map, files that are missing, frames that are not there or have no labels, and, on
            reading a scan, a broken file (naming it).

    Example:
        >>> Waymo("/nowhere", split="val")
        Traceback (most recent call last):
        ValueError: no Waymo under /nowhere; tried /nowhere/validation

    Source: Sun et al., "Scalability in Perception for Autonomous Driving: Waymo Open Dataset",
    2020.
    """

    classes, colors, raw_ids = _IDS.names, _IDS.colors, _IDS.raw_ids
    label_maps = maps_of("Waymo")

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        frames: Path | None = None,
        label_map: str | None = None,
        account: str | None = None,
        method: str | None = None,
    ) -> None:
        self.account, self.method = account, method
        self.ids = mapped(_IDS, label_map)
        self.classes, self.colors = self.ids.names, self.ids.colors
        tried = Path(root) / SPLITS[known_split(split, tuple(SPLITS))]
        self.folder = first_folder("Waymo", Path(root), [tried], holds=("*/*.parquet",))
        self.labelled = split != "test"
        if frames is None and not self.labelled:
            raise ValueError(
                "the test split needs frames=, a file of lines SEGMENT,TIME; Waymo's is "
                "3d_semseg_test_set_frames.txt of github.com/waymo-research/waymo-open-dataset"
            )
        parts = (*COMPONENTS, LABELS) if self.labelled else COMPONENTS
        listed = None if frames is None else _listed(frames)
        names = (
            {file.stem for part in parts for file in own(self.folder / part, "*.parquet")}
            if listed is None
            else {segment for segment, _ in listed}
        )
        segments = sorted(names)
        check_complete("Waymo", [self._file(part, each) for part in parts for each in segments])
        self.frames = self._labelled_frames(segments, listed) if self.labelled else listed or []
        self.files = [self._file("lidar", segment) for segment, _ in self.frames]

    def _file(self, component: str, segment: str) -> Path:
        file = self.folder / component / f"{segment}.parquet"
        other = self.folder.with_name("testing_location") / component / file.name
        return file if self.labelled or not other.is_file() else other

    @property
    def submission(self) -> Submission | None:
        """What the benchmark takes, an image of ids for each return of a frame; None with labels.

        It wants every frame of the list; None, too, under the classes of a map.

        Raises:
            ValueError: there are more or fewer frames, or no account or method is named.
        """
        if self.labelled or self.classes != type(self).classes:
            return None
        names = [f"{segment}/{time}" for segment, time in self.frames]
        if len({*names}) != TEST_FRAMES:
            raise ValueError(
                f"Waymo takes all {TEST_FRAMES:,} frames of 3d_semseg_test_set_frames.txt; got "
                f"{len({*names}):,}: test on the whole list. To predict some of them, use geonorm "
                "predict"
            )
        if not self.account or not self.method:
            raise ValueError(
                "Waymo takes no predictions without the e-mail address registered at "
                "waymo.com/open and a short name for its leaderboard: give account= and method= "
                "(--data.test.init_args.account, --data.test.init_args.method)"
            )
        return WaymoSubmission(
            "Waymo",
            {name: name for name in names},
            lambda name: int(self._returns(name).sum()),
            np.array(self.raw_ids),
            "u1",
            masks=self._returns,
            account=self.account,
            method=self.method,
        )

    def _returns(self, name: str) -> np.ndarray:
        """Return which pixels of the frame `name` have a return, (2, H, W)."""
        segment, _, time = name.rpartition("/")
        images = self._images("lidar", segment, int(time))
        none = np.zeros(next(iter(images.values())).shape[:2], dtype=bool)
        return np.stack([
            images[number][..., 0] > 0 if number in images else none for number in (1, 2)
        ])  # fmt: skip

    def _labelled_frames(
        self, segments: list[str], listed: list[tuple[str, int]] | None
    ) -> list[tuple[str, int]]:
        """Return the frames with labels, or those listed, all of which must have some."""
        found = [
            (segment, time)
            for segment in segments
            for time in sorted(_top_times(self._file(LABELS, segment)))
        ]
        lacking = [] if listed is None else sorted({*listed} - {*found})
        if lacking:
            raise ValueError(
                f"{len(lacking)} of {len(listed or ())} listed frames have no labels, such as "
                f"{lacking[0][0]},{lacking[0][1]}; expected them in "
                f"{self._file(LABELS, lacking[0][0])}"
            )
        if not found:
            raise ValueError(f"no frame of the top LiDAR in {self.folder / LABELS} has labels")
        return found if listed is None else listed

    def __getitem__(self, index: int) -> Scan:
        segment, time = self.frames[index]
        images = self._images("lidar", segment, time)
        shape = next(iter(images.values())).shape[:2]
        pose = self._images("lidar_pose", segment, time, shape)[1]
        extrinsic, inclinations = self._calibration(segment, shape[0])
        vehicle = self._vehicle(segment, time)
        points, intensity, echo = [], [], []
        for number, image in images.items():
            ranges = image[..., 0]
            points.append(pixel_points(ranges, inclinations, extrinsic, pose, vehicle))
            intensity.append(np.tanh(image[..., 1][ranges > 0]))
            echo.append(np.full((len(points[-1]), 1), number))
        scan = Scan.from_raw(
            np.concatenate(points),
            np.concatenate(intensity),
            self._labels(segment, time, images) if self.labelled else None,
            f"{segment}/{time}",
            extra={"echo": np.concatenate(echo)},
        )
        return with_points(scan, self.files[index])

    def _labels(self, segment: str, time: int, images: dict[int, np.ndarray]) -> np.ndarray:
        """Return the train ids of the points of all returns."""
        shape = next(iter(images.values())).shape[:2]
        labels = self._images(LABELS, segment, time, shape)
        file = self._file(LABELS, segment)
        lacking = images.keys() - labels.keys()
        if lacking:
            raise ValueError(f"{file}: frame {time} has no labels of its return {min(lacking)}")
        # Of the two channels the first is the instance.
        raw = [labels[number][..., 1][image[..., 0] > 0] for number, image in images.items()]
        return self.ids.train_ids(np.concatenate(raw).astype(np.int64), file)

    def _vehicle(self, segment: str, time: int) -> np.ndarray:
        """Return the transform from the vehicle to the world."""
        column = "[VehiclePoseComponent].world_from_vehicle.transform"
        [pose] = _row(self._file("vehicle_pose", segment), [column], [(_TIME, "=", time)])
        return pose.reshape(4, 4)

    def _calibration(self, segment: str, height: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the transform from the sensor to the vehicle and the inclination of each row."""
        file = self._file("lidar_calibration", segment)
        names = ["extrinsic.transform", "beam_inclination.min", "beam_inclination.max",
                 "beam_inclination.values"]  # fmt: skip
        extrinsic, low, high, values = _row(
            file, [f"[LiDARCalibrationComponent].{name}" for name in names], [(_LASER, "=", _TOP)]
        )
        if not values.size:
            values = uniform_inclinations(float(low[0]), float(high[0]), height)
        if len(values) != height:
            raise ValueError(
                f"{file} must tell {height} inclinations of beams, as many as the range image has "
                f"rows; got {len(values)}"
            )
        return extrinsic.reshape(4, 4), values[::-1]  # they begin below, the rows above

    def _images(
        self, part: str, segment: str, time: int, shape: tuple[int, ...] | None = None
    ) -> dict[int, np.ndarray]:
        """Return the images of the top LiDAR, (H, W, channels), by their return.

        Args:
            part: what they are of.
            segment: its name.
            time: of the frame.
            shape: height and width; by default those of the first image.
        """
        component, numbers, channels = _IMAGES[part]
        file = self._file(part, segment)
        names = [f"[{component}].range_image_return{number}" for number in numbers]
        columns = [f"{name}.{what}" for name in names for what in ("values", "shape")]
        cells = _row(file, columns, [(_LASER, "=", _TOP), (_TIME, "=", time)])
        found = {}
        for number, values, own_shape in zip(numbers, cells[::2], cells[1::2], strict=True):
            if not values.size:
                continue
            expected = (*(shape or own_shape[:2].tolist()), channels)
            if (*own_shape.tolist(),) != expected or values.size != own_shape.prod():
                raise ValueError(
                    f"{file}, frame {time}, return {number}: expected an image of {expected}; got "
                    f"{values.size} values for the shape {(*own_shape.tolist(),)}"
                )
            shape, found[number] = expected[:2], values.reshape(expected)
        if not found:
            raise ValueError(f"{file}: frame {time} has no image of the top LiDAR")
        return found


def _listed(file: Path) -> list[tuple[str, int]]:
    """Read a list of frames, lines such as `SEGMENT,TIME`."""
    if not file.is_file():
        raise ValueError(f"no list of frames {file}; expected lines SEGMENT,TIME")
    found = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        segment, comma, time = line.strip().rpartition(",")
        if comma and segment and time.strip().isdecimal():
            found.append((segment, int(time)))
        elif line.strip():
            raise ValueError(f"{file}, line {number}: expected SEGMENT,TIME; got {line!r}")
    if not found:
        raise ValueError(f"{file} is empty; expected lines SEGMENT,TIME")
    return found


def _top_times(file: Path) -> list[int]:
    """Return the times at which a file tells something of the top LiDAR."""
    times: list[int] = _table(file, [_TIME], [(_LASER, "=", _TOP)])[_TIME].to_pylist()
    return times


def _row(file: Path, columns: list[str], which: list[tuple[str, str, int]]) -> list[np.ndarray]:
    """Return columns of the one row that is asked for, each an array; empty where it is null."""
    table = _table(file, columns, which)
    if len(table) != 1:
        asked = " and ".join(f"{name} = {value}" for name, _, value in which)
        raise ValueError(f"{file} must hold one row with {asked}; got {len(table)}")
    cells = [table[name].combine_chunks() for name in columns]
    # Of a list, what it holds; a null holds nothing.
    flat = [cell.flatten() if hasattr(cell, "flatten") else cell for cell in cells]
    return [cell.drop_null().to_numpy() for cell in flat]


def _table(file: Path, columns: list[str], which: list[tuple[str, str, int]]) -> Any:
    """Read columns of the rows that are asked for."""
    import pyarrow  # of the extra `data`, for this dataset alone
    from pyarrow import parquet

    try:
        return parquet.read_table(file, columns=columns, filters=which, use_threads=False)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(
            f"{file} cannot be read as Parquet of Waymo's version 2, or lacks one of "
            f"{', '.join(columns)} ({error}); download it again"
        ) from error
