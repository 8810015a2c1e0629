"""Errors of the simulator side, all under `ChunkwireError`."""

from __future__ import annotations

from policy_protocol.errors import ChunkwireError

__all__ = [
    "CollectionError",
    "IncompleteRun",
    "Interrupted",
    "InvalidOption",
    "PlanningFailed",
    "RecordsError",
    "RenderingUnavailable",
    "SimulationError",
    "TrajectoryError",
    "UnknownEnvironment",
    "UnsupportedControlMode",
    "UnsupportedRobot",
    "WorkersFailed",
]


class InvalidOption(ChunkwireError):
    """A command-line option has a value that cannot be used; `field` is the flag."""

    code = "invalid_option"
    exit_code = 2


class Interrupted(ChunkwireError):
    """The user stopped the run; what was finished stays."""

    code = "interrupted"
    exit_code = 130


class IncompleteRun(ChunkwireError):
    """The list was worked through, but some episodes ended in an infrastructure error."""

    code = "incomplete"


class RecordsError(ChunkwireError):
    """A results directory or a file in it cannot be read, written or continued."""

    code = "records"


class SimulationError(ChunkwireError):
    """The simulator cannot be set up or used as asked."""

    code = "simulation"


class UnknownEnvironment(SimulationError):
    """ManiSkill has no environment of this name, or not its assets."""

    code = "unknown_environment"


class UnsupportedRobot(SimulationError):
    """The environment does not run with this robot."""

    code = "unsupported_robot"


class UnsupportedControlMode(SimulationError):
    """The robot has no controller of this name."""

    code = "unsupported_control_mode"


class RenderingUnavailable(SimulationError):
    """SAPIEN found no Vulkan device that can render."""

    code = "rendering_unavailable"


class PlanningFailed(SimulationError):
    """The motion planner has no demonstration for this seed; the message is the reason."""

    code = "planning_failed"


class TrajectoryError(ChunkwireError):
    """A trajectory file is missing, damaged or not in the expected layout."""

    code = "trajectory"


class WorkersFailed(ChunkwireError):
    """Worker processes die whatever they are given."""

    code = "workers"


class CollectionError(ChunkwireError):
    """Demonstrations cannot be collected as asked."""

    code = "collection"
