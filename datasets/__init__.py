"""Data sets of points, videos and sound, each imported on first use and then alone."""

from typing import TYPE_CHECKING

from geonorm.lazy import lazily

if TYPE_CHECKING:  # what is imported on first use, said to type checkers
    from geonorm.datasets.appearance_shift import AppearanceShift as AppearanceShift
    from geonorm.datasets.audio_folders import AudioFolders as AudioFolders
    from geonorm.datasets.audio_folders import Sound as Sound
    from geonorm.datasets.audio_folders import log_mel as log_mel
    from geonorm.datasets.audio_folders import read_audio as read_audio
    from geonorm.datasets.augmented import Augmented as Augmented
    from geonorm.datasets.check_videos import Finding as Finding
    from geonorm.datasets.check_videos import check_data as check_data
    from geonorm.datasets.clip_corruptions import ClipCorruption as ClipCorruption
    from geonorm.datasets.clip_shards import ClipShards as ClipShards
    from geonorm.datasets.clips import Clip as Clip
    from geonorm.datasets.clips import ClipDataset as ClipDataset
    from geonorm.datasets.clips import FileReport as FileReport
    from geonorm.datasets.diving48 import Diving48 as Diving48
    from geonorm.datasets.hmdb51 import HMDB51 as HMDB51
    from geonorm.datasets.joined_scans import JoinedScans as JoinedScans
    from geonorm.datasets.kinetics import Kinetics as Kinetics
    from geonorm.datasets.mixing import LaserMix as LaserMix
    from geonorm.datasets.mixing import Mix3D as Mix3D
    from geonorm.datasets.mixing import OneOf as OneOf
    from geonorm.datasets.mixing import PolarMix as PolarMix
    from geonorm.datasets.mixing import ScanMix as ScanMix
    from geonorm.datasets.nuscenes import NuScenes as NuScenes
    from geonorm.datasets.robo3d import NuScenesC as NuScenesC
    from geonorm.datasets.robo3d import SemanticKITTIC as SemanticKITTIC
    from geonorm.datasets.s3dis import S3DIS as S3DIS
    from geonorm.datasets.scan import Scan as Scan
    from geonorm.datasets.scan_corruptions import ScanCorruption as ScanCorruption
    from geonorm.datasets.scan_folder import ScanFolder as ScanFolder
    from geonorm.datasets.scan_io import read_scan as read_scan
    from geonorm.datasets.scan_shards import ScanShards as ScanShards
    from geonorm.datasets.scannet import ScanNet as ScanNet
    from geonorm.datasets.scannet import ScanNet200 as ScanNet200
    from geonorm.datasets.semantickitti import SemanticKITTI as SemanticKITTI
    from geonorm.datasets.semanticposs import SemanticPOSS as SemanticPOSS
    from geonorm.datasets.semanticstf import SemanticSTF as SemanticSTF
    from geonorm.datasets.something_something import SomethingSomethingV2 as SomethingSomethingV2
    from geonorm.datasets.submission import Submission as Submission
    from geonorm.datasets.synlidar import SynLiDAR as SynLiDAR
    from geonorm.datasets.synthetic.actions import SyntheticActions as SyntheticActions
    from geonorm.datasets.synthetic.streets import SyntheticStreets as SyntheticStreets
    from geonorm.datasets.transforms import ChunkCrop as ChunkCrop
    from geonorm.datasets.transforms import ElasticDistortion as ElasticDistortion
    from geonorm.datasets.transforms import RandomDrop as RandomDrop
    from geonorm.datasets.transforms import RandomFlip as RandomFlip
    from geonorm.datasets.transforms import RandomIntensity as RandomIntensity
    from geonorm.datasets.transforms import RandomJitter as RandomJitter
    from geonorm.datasets.transforms import RandomRotation as RandomRotation
    from geonorm.datasets.transforms import RandomScale as RandomScale
    from geonorm.datasets.transforms import ScanTransform as ScanTransform
    from geonorm.datasets.transforms import SphereCrop as SphereCrop
    from geonorm.datasets.ucf101 import UCF101 as UCF101
    from geonorm.datasets.video_lists import ClassFolders as ClassFolders
    from geonorm.datasets.video_lists import VideoList as VideoList
    from geonorm.datasets.video_lists import VideoSet as VideoSet
    from geonorm.datasets.video_transforms import ClipTransform as ClipTransform
    from geonorm.datasets.views import Viewing as Viewing
    from geonorm.datasets.views import chunks as chunks
    from geonorm.datasets.voxelize import collate_scans as collate_scans
    from geonorm.datasets.waymo import Waymo as Waymo

__all__, __getattr__, __dir__ = lazily(__name__, {
    "scan": ("Scan",),
    "scan_folder": ("ScanFolder",),
    "scan_io": ("read_scan",),
    "scan_shards": ("ScanShards",),
    "scan_corruptions": ("ScanCorruption",),
    "nuscenes": ("NuScenes",),
    "robo3d": ("NuScenesC", "SemanticKITTIC"),
    "s3dis": ("S3DIS",),
    "scannet": ("ScanNet", "ScanNet200"),
    "semantickitti": ("SemanticKITTI",),
    "semanticposs": ("SemanticPOSS",),
    "semanticstf": ("SemanticSTF",),
    "synlidar": ("SynLiDAR",),
    "waymo": ("Waymo",),
    "submission": ("Submission",),
    "synthetic.streets": ("SyntheticStreets",),
    "transforms": (
        "ChunkCrop", "ElasticDistortion", "RandomDrop", "RandomFlip", "RandomIntensity",
        "RandomJitter", "RandomRotation", "RandomScale", "ScanTransform", "SphereCrop",
    ),
    "joined_scans": ("JoinedScans",),
    "mixing": ("LaserMix", "Mix3D", "OneOf", "PolarMix", "ScanMix"),
    "augmented": ("Augmented",),
    "views": ("Viewing", "chunks"),
    "voxelize": ("collate_scans",),
    "clip_shards": ("ClipShards",),
    "clips": ("Clip", "ClipDataset", "FileReport"),
    "video_lists": ("ClassFolders", "VideoList", "VideoSet"),
    "ucf101": ("UCF101",),
    "hmdb51": ("HMDB51",),
    "kinetics": ("Kinetics",),
    "something_something": ("SomethingSomethingV2",),
    "diving48": ("Diving48",),
    "synthetic.actions": ("SyntheticActions",),
    "video_transforms": ("ClipTransform",),
    "appearance_shift": ("AppearanceShift",),
    "clip_corruptions": ("ClipCorruption",),
    "check_videos": ("Finding", "check_data"),
    "audio_folders": ("AudioFolders", "Sound", "log_mel", "read_audio"),
})
