"""Demonstrations to batches: ManiSkill recordings → LeRobot dataset → decoded frames → training samples.

convert("demos/stackcube.h5", "datasets/stackcube")
dataset = Dataset("datasets/stackcube")
cache = open_frame_cache(dataset, default_cache_root(), height=224, width=224)
loader = Loader(dataset, cache, action_horizon=20, batch_size=32, seed=0)
with loader.prefetch(start=0, stop=1000) as batches:
    for batch in batches: ...
"""

from training.data.conversion.convert import convert
from training.data.conversion.recording import GivenFacts
from training.data.errors import (
    DatasetInvalid,
    DemonstrationsInvalid,
    FrameCacheUnusable,
    FrameCorrupt,
    OutputExists,
)
from training.data.frames.frame_cache import FrameCache, default_cache_root, open_frame_cache
from training.data.lerobot.dataset import Dataset
from training.data.lerobot.facts import CameraFacts, DatasetFacts
from training.data.lerobot.fingerprint import fingerprint
from training.data.lerobot.metadata import Feature
from training.data.lerobot.writing.dataset_writer import DatasetWriter
from training.data.loading.loader import Batch, Loader, held_out_episodes
from training.data.statistics.norm_stats import NORM_STATS_FILE, compute_norm_stats

__all__ = [
    "NORM_STATS_FILE",
    "Batch",
    "CameraFacts",
    "Dataset",
    "DatasetFacts",
    "DatasetInvalid",
    "DatasetWriter",
    "DemonstrationsInvalid",
    "Feature",
    "FrameCache",
    "FrameCacheUnusable",
    "FrameCorrupt",
    "GivenFacts",
    "Loader",
    "OutputExists",
    "compute_norm_stats",
    "convert",
    "default_cache_root",
    "fingerprint",
    "held_out_episodes",
    "open_frame_cache",
]
