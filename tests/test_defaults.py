"""Defaults of what users call: a change of one changes their results."""

import inspect
from dataclasses import FrozenInstanceError, fields, is_dataclass

import pytest

import geonorm
from geonorm import datasets, functional, losses, models
from geonorm.attribution import integrated_gradients
from geonorm.datasets.clip_shards import write_clip_shards
from geonorm.datasets.scan_shards import write_scan_shards
from geonorm.datasets.scan_weather import in_snow
from geonorm.datasets.synthetic.lidar import LidarSensor
from geonorm.datasets.video_io import write_video
from geonorm.datasets.views import Viewing
from geonorm.export import exported, to_onnx
from geonorm.models import video_resnet
from geonorm.norms.activated import Activated
from geonorm.norms.base import Norm
from geonorm.norms.no_norm import NoNorm
from geonorm.recompute import recompute_activations
from geonorm.style import style_statistics
from geonorm.training.action.data import ClipData, ClipFormat, clips_of
from geonorm.training.action.mixing import ClipMixing
from geonorm.training.action.module import ActionModule
from geonorm.training.action.predictor import ClipPredictor
from geonorm.training.attributions import Explanation
from geonorm.training.optimization import Optimization
from geonorm.training.progress import RunProgressLines
from geonorm.training.sampler import EpochSampler
from geonorm.training.segmentation.data import ScanData
from geonorm.training.segmentation.folds import add_folds
from geonorm.training.segmentation.module import SegmentationModule
from geonorm.training.segmentation.predict import Output
from geonorm.training.segmentation.predictor import ScanPredictor
from geonorm.training.segmentation.stream import Stream
from geonorm.training.sharing import push
from geonorm.training.shift.cells import Cells
from geonorm.training.shift.clips import ClipTask
from geonorm.training.shift.evaluate import evaluate
from geonorm.training.shift.run import Options
from geonorm.training.shift.scans import ScanTask
from geonorm.training.shift.tasks import judged_on

# torch's, and those that norms have beyond.
OF_NORMS = {
    "eps": 1e-5, "momentum": 0.1, "affine": True, "track_running_stats": True,
    "negative_slope": 0.01, "ratio": 0.5, "kernel_size": 5, "exponent": 2.0, "center": True,
    "semi_saturation": 0.0, "contrast": True, "back": False, "floor": 1e-3,
    "axes": "THW",
}  # fmt: skip
WHOLE = (0.0, 1.0)
KINETICS = {"mean": (0.43216, 0.394666, 0.37645), "std": (0.22803, 0.22145, 0.216989)}
OF_OTHERS = [
    (datasets.AppearanceShift, {"severity": 3}),
    (datasets.ClipCorruption, {"severity": 3, "fps": 25.0}),
    (datasets.ClipDataset, {"length": 16, "step": 1, "sampling": "random", "views": 1,
                            "repeats": 1, "portion": WHOLE, "seed": 0}),
    (datasets.ClipTransform, {"flip": 0.0, "jitter": 0.0, "rand_augment": 0, **KINETICS}),
    (datasets.HMDB51, {"split": 1}),
    (datasets.UCF101, {"split": 1}),
    (datasets.SemanticKITTI, {"split": "train"}),
    (datasets.NuScenes, {"split": "train"}),
    (datasets.NuScenesC, {"split": "val"}),
    (datasets.SemanticSTF, {"split": "train"}),
    (datasets.SemanticPOSS, {"split": "train", "intensity_max": 1.0}),
    (datasets.SynLiDAR, {"split": "train"}),
    (datasets.Waymo, {"split": "train"}),
    (datasets.ScanNet, {"split": "train"}),
    (datasets.ScanNet200, {"split": "train"}),
    (datasets.RandomRotation, {"z": 180.0, "x": 0.0, "y": 0.0}),
    (datasets.RandomScale, {"low": 0.9, "high": 1.1}),
    (datasets.RandomFlip, {"x": 0.5, "y": 0.5}),
    (datasets.RandomJitter, {"sigma": 0.005, "clip": 0.02}),
    (datasets.RandomDrop, {"ratio": 0.2, "probability": 0.2}),
    (datasets.ElasticDistortion, {"granularity": (0.2, 0.8), "magnitude": (0.4, 1.6),
                                  "probability": 0.95}),
    (datasets.RandomIntensity, {"low": 0.8, "high": 1.2, "offset": 0.05}),
    (datasets.ScanCorruption, {"severity": 3, "classes": (), "beams": 64}),
    (datasets.SphereCrop, {"max_points": 100000}),
    (datasets.ChunkCrop, {"size": 6.0}),
    (datasets.JoinedScans, {"seed": 0}),
    (datasets.Viewing, {"votes": 1, "overlap": 0.5}),
    (datasets.chunks, {"overlap": 0.5}),
    (datasets.Mix3D, {"center": True, "probability": 0.8}),
    (datasets.LaserMix, {"num_areas": (3, 4, 5, 6), "pitch": (-25.0, 3.0), "probability": 1.0}),
    (datasets.PolarMix, {"swap": 0.5, "paste": 1.0, "probability": 1.0}),
    (datasets.read_audio, {"rate": 16_000}),
    (datasets.AudioFolders, {"rate": 16_000, "seconds": 1.0}),
    (datasets.log_mel, {"rate": 16_000, "bands": 40, "window": 0.032, "hop": 0.01, "floor": 1e-6}),
    (datasets.Augmented, {"seed": 0}),
    (datasets.ClipShards, {"split": "train"}),
    (datasets.ScanShards, {"split": "train"}),
    (write_clip_shards, {"size": 128, "workers": 0}),
    (write_scan_shards, {"size": 128, "workers": 0}),
    (datasets.S3DIS, {"split": "train", "test_area": 5}),
    (datasets.ScanFolder, {"split": "train", "columns": ("x", "y", "z", "intensity"),
                           "intensity_max": 1.0}),
    (datasets.read_scan, {"intensity_max": 1.0}),
    (datasets.Submission, {"dtype": "<u4"}),
    (datasets.VideoList, {"labelled": True}),
    (datasets.SyntheticActions, {"fold": "train", "seed": 0, "frames": 24, "size": 72}),
    (datasets.SyntheticStreets, {"seed": 0, "sensor": "roof32", "style": "town"}),
    (LidarSensor, {
        "beams": 32, "fov_down": -20.0, "fov_up": 6.0, "azimuth_steps": 420, "height": 1.8,
        "height_spread": 0.2, "tilt": 0.8, "min_range": 1.0, "max_range": 30.0,
        "range_noise": 0.015, "dropout": 0.08, "intensity_gain": 1.0, "intensity_offset": 0.05,
        "gain_drift": 0.3, "offset_drift": 0.08, "intensity_noise": 0.02, "response": 0.5,
        "falloff": 60.0, "elevations": (), "dark_range": float("inf"), "ring_drift": 0.0,
        "falloff_power": 2.0, "faint_range": float("inf"),
    }),
    (in_snow, {"noise_floor": 0.7}),
    (push, {"private": False}),
    (write_video, {"fps": 25, "codec": "libx264"}),
    (models.r3d_18, {"num_classes": 400, "norm": "instance", "padding_mode": "zeros"}),
    (video_resnet.resnet3d, {"num_classes": 400, "norm": "instance", "width": 64,
                             "padding_mode": "zeros"}),
    *((build, {"num_classes": 400, "norm": "instance", "padding_mode": "zeros"})
      for build in (models.mc3_18, models.r2plus1d_18)),
    (models.VideoUNet, {"in_channels": 3, "norm": "instance", "widths": (32, 64, 128),
                        "time_embedding": 128, "padding_mode": "zeros"}),
    (ClipFormat, {"length": 16, "step": 1, "sampling": "random", "size": (128, 171), "crop": 112,
                  "flip": 0.0, "jitter": 0.0, "rand_augment": 0, **KINETICS}),
    (ClipData, {"views": 5, "train_portion": WHOLE, "eval_portion": WHOLE, "still": "no",
                "batch_size": 24, "num_workers": 4, "repeats": 1, "seed": 0}),
    (ScanData, {"voxel_size": 0.1, "votes": 1, "overlap": 0.5, "batch_size": 4, "num_workers": 2,
                "seed": 0}),
    (ActionModule, {"name": "r3d_18", "norm": "instance", "input_eps": 0.03,
                    "backbone_lr_factor": 1.0, "layer_decay": 1.0, "mixup": 0.0, "cutmix": 0.0,
                    "label_smoothing": 0.0, "channels_last": False,
                    "compile": "no", "recompute": False, "padding_mode": "zeros"}),
    (SegmentationModule, {"name": "MinkUNet14A", "norm": "instance", "loss": "cross_entropy",
                          "recompute": False, "in_channels": 4, "num_domains": 1}),
    (Options, {"seed": 0, "resamples": 1000, "resume": True}),
    (ScanTask, {"beams": 64, "seed": 0}),
    (ClipTask, {"seed": 0}),
    (ClipPredictor.predict_files, {"num_workers": 0}),
    (ScanPredictor.predict_files, {"intensity_max": 1.0}),
    (evaluate, {"draws": 1000, "seed": 0}),
    (judged_on, {"words": (), "device": "auto", "seed": 0}),
    (Cells, {"resume": True}),
    (clips_of, {"train": False, "still": False, "views": 1, "portion": WHOLE, "repeats": 1,
                "seed": 0}),
    (ClipMixing, {"mixup": 0.0, "cutmix": 0.0}),
    (ClipPredictor, {"device": "cpu"}),
    (ScanPredictor, {"device": "cpu"}),
    (Output, {"format": "label", "pictures": True, "ply": False}),
    (Stream, {"resume": False}),
    (Explanation, {"statistics": False}),
    (add_folds, {"stage": "val"}),
    (EpochSampler, {"seed": 0, "rank": 0, "world_size": 1, "repeats": 1, "block": 1}),
    (RunProgressLines, {"seconds": 20.0}),
    (losses.lovasz_softmax, {"ignore_index": 255}),
    (style_statistics, {"eps": 1e-5}),
    (recompute_activations, {"chain": 4}),
    (integrated_gradients, {"at_a_time": 1, "tolerance": 0.01}),
    (to_onnx, {"dynamic": (0, 2), "tolerance": 1e-4}),
    (exported, {"dynamic": ()}),
    (Optimization, {"name": "AdamW", "lr": 0.002, "weight_decay": 0.01, "schedule": "cosine",
                    "warmup": 0.05, "milestones": ()}),
]  # fmt: skip


def defaults(called):
    """Return the defaults of parameters that are numbers, words or several of them."""
    kinds = (bool, int, float, str, tuple)
    return {each.name: each.default for each in inspect.signature(called).parameters.values()
            if isinstance(each.default, kinds)}  # fmt: skip


NORMS = [value for value in vars(geonorm).values()
         if isinstance(value, type) and issubclass(value, Norm)]  # fmt: skip
FUNCTIONS = [functional.instance_norm, functional.axis_instance_norm, functional.group_norm,
             functional.layer_norm, functional.divisive_norm, functional.retinex_norm]


@pytest.mark.parametrize("norm", [*NORMS, Activated, NoNorm, *FUNCTIONS],
                         ids=lambda norm: norm.__name__)
def test_defaults_of_norms(norm):
    found = defaults(norm)
    assert found == {name: OF_NORMS[name] for name in found}
    assert "negative_slope" in found


@pytest.mark.parametrize(("called", "expected"), OF_OTHERS,
                         ids=[called.__name__ for called, _ in OF_OTHERS])  # fmt: skip
def test_defaults_of_data_models_and_trainings(called, expected):
    assert defaults(called) == expected


@pytest.mark.parametrize("of", [
    ClipFormat, Explanation, LidarSensor, Optimization, Options, Output, Stream, Viewing,
])  # fmt: skip
def test_what_calls_share_as_a_default_cannot_be_written_to(of):
    assert is_dataclass(of)
    shared = of()
    name = fields(of)[0].name
    with pytest.raises(FrozenInstanceError):
        setattr(shared, name, getattr(shared, name))
