"""What can be wrong with demonstrations and datasets, as errors of the project's one tree."""

from __future__ import annotations

from policy_protocol.errors import ChunkwireError

__all__ = [
    "ConversionStopped",
    "DatasetInvalid",
    "DatasetsDiffer",
    "DemonstrationsInvalid",
    "FrameCacheUnusable",
    "FrameCorrupt",
    "HubUnavailable",
    "OutputExists",
]


class DatasetInvalid(ChunkwireError):
    """A folder that is not a LeRobot dataset of a supported version, or one that contradicts itself."""

    code = "dataset_invalid"


class DatasetsDiffer(DatasetInvalid):
    """Datasets that cannot be mixed; the message shows a table of what each of them has."""

    code = "datasets_differ"


class HubUnavailable(DatasetInvalid):
    """A dataset that is no folder and cannot be downloaded either."""

    code = "hub_unavailable"


class DemonstrationsInvalid(ChunkwireError):
    """A ManiSkill recording that cannot be converted: a missing part, or facts that nobody stated."""

    code = "demonstrations_invalid"


class ConversionStopped(ChunkwireError):
    """A worker process of a conversion died; what was finished is kept."""

    code = "conversion_stopped"


class FrameCorrupt(ChunkwireError):
    """An image or video frame that cannot be decoded; the message names the file and the frame."""

    code = "frame_corrupt"


class OutputExists(ChunkwireError):
    """The place to write to already holds something."""

    code = "output_exists"


class FrameCacheUnusable(ChunkwireError):
    """The cache of decoded frames does not fit the disk, or is not what its name says."""

    code = "frame_cache_unusable"
