"""Demonstrations to batches: ManiSkill recordings → LeRobot dataset → decoded frames → training samples.

convert("demos/stackcube.h5", "datasets/stackcube")
data = open_data(["datasets/stackcube"], seed=42, held_out=0.05)
norm_stats = data.norm_stats()
loaders = data.loaders(default_cache_root(), height=224, width=224, action_horizon=20, batch_size=32)
with loaders.train.prefetch(start=0, stop=1000) as batches:
    for batch in batches: ...
"""

from training.data.conversion.convert import convert
from training.data.conversion.recording import GivenFacts
from training.data.errors import (
    ConversionStopped,
    DatasetInvalid,
    DatasetsDiffer,
    DemonstrationsInvalid,
    FrameCacheUnusable,
    FrameCorrupt,
    HubUnavailable,
    OutputExists,
)
from training.data.frames.frame_cache import FrameCache, default_cache_root, open_frame_cache
from training.data.lerobot.dataset import Dataset
from training.data.lerobot.facts import CameraFacts, DatasetFacts
from training.data.lerobot.fingerprint import fingerprint
from training.data.lerobot.metadata import Feature
from training.data.lerobot.writing.dataset_writer import DatasetWriter
from training.data.loading.held_out import held_out_episodes
from training.data.loading.loader import Batch, Loader
from training.data.loading.mixed_loader import MixedLoader
from training.data.loading.prefetch import Prefetch
from training.data.loading.training_data import Loaders, TrainingData, open_data
from training.data.mixture.mixture import Mixture, MixturePart
from training.data.statistics.norm_stats import NORM_STATS_FILE, compute_norm_stats

__all__ = [
    "NORM_STATS_FILE",
    "Batch",
    "CameraFacts",
    "ConversionStopped",
    "Dataset",
    "DatasetFacts",
    "DatasetInvalid",
    "DatasetWriter",
    "DatasetsDiffer",
    "DemonstrationsInvalid",
    "Feature",
    "FrameCache",
    "FrameCacheUnusable",
    "FrameCorrupt",
    "GivenFacts",
    "HubUnavailable",
    "Loader",
    "Loaders",
    "MixedLoader",
    "Mixture",
    "MixturePart",
    "OutputExists",
    "Prefetch",
    "TrainingData",
    "compute_norm_stats",
    "convert",
    "default_cache_root",
    "fingerprint",
    "held_out_episodes",
    "open_data",
    "open_frame_cache",
]
