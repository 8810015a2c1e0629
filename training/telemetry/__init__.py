"""What a run tells: lines of JSON always, TensorBoard by default, Weights & Biases on request."""

from training.telemetry.every_process import EveryProcess
from training.telemetry.observers import open_observers
from training.telemetry.sinks import Sink

__all__ = ["EveryProcess", "Sink", "open_observers"]
