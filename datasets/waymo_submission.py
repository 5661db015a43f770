"""The predictions that Waymo's server takes: one Protocol Buffers message, with images of ids."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from geonorm.datasets.submission import Submission
from geonorm.files import written_whole

_TOP = 1  # of LaserName
_LIDAR_TOP = 2  # of SensorType
# Name, number and type of the fields of each message; those that repeat end in `[]`. Enumerations
# are int32 in such files. Other fields of these messages are not needed.
_MESSAGES = {
    "MatrixShape": (("dims", 1, "int32[]"),),
    "MatrixInt32": (("data", 1, "int32[]"), ("shape", 2, "MatrixShape")),
    "RangeImage": (("segmentation_label_compressed", 6, "bytes"),),
    "Laser": (("name", 1, "int32"), ("ri_return1", 2, "RangeImage"),
              ("ri_return2", 3, "RangeImage")),
    "SegmentationFrame": (("segmentation_labels", 1, "Laser[]"), ("context_name", 2, "string"),
                          ("frame_timestamp_micros", 3, "int64")),
    "SegmentationFrameList": (("frames", 1, "SegmentationFrame[]"),),
    "SemanticSegmentationSubmission": (
        ("account_name", 1, "string"), ("unique_method_name", 2, "string"),
        ("sensor_type", 7, "int32"), ("number_past_frames_exclude_current", 8, "int32"),
        ("number_future_frames_exclude_current", 9, "int32"),
        ("inference_results", 10, "SegmentationFrameList"),
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class WaymoSubmission(Submission):
    """The form in which Waymo's server takes the classes of the pixels of both returns.

    Until they are packed, the ids of a frame are a file under the name of the frame, in the order
    of its points.

    Args:
        masks: which pixels of the frame of that name have a return, (2, H, W): they have the
            points of the frame, in this order.
        account: e-mail address that is registered at waymo.com/open.
        method: name on the leaderboard.

    Source: segmentation_submission.proto, segmentation_metrics.proto, dataset.proto and
    tutorial_3d_semseg.ipynb of github.com/waymo-research/waymo-open-dataset, at 99a4cb3.
    """

    packed: ClassVar[str] = "submission.bin"
    parts: ClassVar[str] = "frames"
    masks: Callable[[str], np.ndarray]
    account: str
    method: str

    def pack(self, folder: Path, path: Path) -> None:
        """Pack what was written into `folder` as the message `path` and check it.

        Raises:
            ValueError: the server would refuse the message; it is not written then.
        """
        submission = _message("SemanticSegmentationSubmission")(
            account_name=self.account, unique_method_name=self.method, sensor_type=_LIDAR_TOP,
            number_past_frames_exclude_current=0, number_future_frames_exclude_current=0,
        )  # fmt: skip
        frames = submission.inference_results.frames
        for name, file in self._present(folder).items():
            masks, data = self.masks(name), (folder / file).read_bytes()
            images = np.zeros((*masks.shape, 2), dtype=np.int32)  # of instances, 0, and classes
            images[..., 1][masks] = self._checked(data, name, file, folder, int(masks.sum()))
            segment, _, time = name.rpartition("/")
            frame = frames.add(context_name=segment, frame_timestamp_micros=int(time))
            laser = frame.segmentation_labels.add(name=_TOP)
            for each, image in zip((laser.ri_return1, laser.ri_return2), images, strict=True):
                each.segmentation_label_compressed = _compressed(image)
        with written_whole(path) as aside:
            aside.write_bytes(submission.SerializeToString())
            self.check(aside)

    def check(self, path: str | Path) -> None:
        """Refuse a message that the server would refuse.

        Args:
            path: the message.

        Raises:
            ValueError: it is no such message, lacks the account or the method, lacks frames or
                holds others or one twice, or a frame has not both images of the top LiDAR, of its
                size and with the id of a class wherever there is a return.
        """
        submission = _parsed("SemanticSegmentationSubmission", Path(path).read_bytes(), path)
        for field in ("account_name", "unique_method_name"):
            if not getattr(submission, field):
                raise ValueError(f"{path} lacks {field}; {self.server} takes nothing without it")
        named = [
            (f"{frame.context_name}/{frame.frame_timestamp_micros}", frame)
            for frame in submission.inference_results.frames
        ]
        self._check_names(path, [name for name, _ in named])
        frames = dict(named)
        for name in self.files:
            self._check_frame(frames[name], self.masks(name), f"frame {name} in {path}")

    def _check_frame(self, frame: Any, masks: np.ndarray, where: str) -> None:
        lasers = [laser.name for laser in frame.segmentation_labels]
        if lasers != [_TOP]:
            raise ValueError(f"{where} must have one laser, {_TOP} (the top one); got {lasers}")
        [laser] = frame.segmentation_labels
        for number, mask in enumerate(masks, start=1):
            here = f"{where}, return {number}"
            image = getattr(laser, f"ri_return{number}").segmentation_label_compressed
            try:
                data = zlib.decompress(image)
            except zlib.error as error:
                raise ValueError(f"{here}: expected an image in zlib's format; {error}") from error
            matrix = _parsed("MatrixInt32", data, here)
            values, shape = np.array(matrix.data, dtype=np.int32), (*matrix.shape.dims,)
            expected = (*mask.shape, 2)
            if shape != expected or values.size != np.prod(expected):
                raise ValueError(
                    f"{here}: expected an image of {expected}; got {values.size} values for the "
                    f"shape {shape}"
                )
            self._check_ids(values.reshape(expected)[..., 1][mask], here)


def _compressed(image: np.ndarray) -> bytes:
    """Return an image of integers as Waymo keeps its labels."""
    matrix = _message("MatrixInt32")(data=image.ravel().tolist())
    matrix.shape.dims.extend(image.shape)
    data: bytes = matrix.SerializeToString()
    return zlib.compress(data)


def _parsed(name: str, data: bytes, where: str | Path) -> Any:
    """Read a message."""
    from google.protobuf.message import DecodeError

    message = _message(name)()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise ValueError(f"{where}: expected Waymo's message {name}; {error}") from error
    return message


@cache
def _message(name: str) -> Any:
    """Return the class of a message."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="waymo.proto", package="waymo", syntax="proto2")
    for message, fields in _MESSAGES.items():
        described = file.message_type.add(name=message)
        for field, number, kind in fields:
            one = kind.removesuffix("[]")
            label = kinds.LABEL_OPTIONAL if one == kind else kinds.LABEL_REPEATED
            entry = described.field.add(name=field, number=number, label=label)
            if one in _MESSAGES:
                entry.type, entry.type_name = kinds.TYPE_MESSAGE, f".waymo.{one}"
            else:
                entry.type = getattr(kinds, f"TYPE_{one.upper()}")
            if field == "data":
                entry.options.packed = True  # as dataset.proto has it; `dims` are not
    pool = descriptor_pool.DescriptorPool()  # of its own: Waymo's package may fill the common one
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"waymo.{name}"))
