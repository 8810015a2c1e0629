"""What a run tells: lines of JSON always, TensorBoard by default, Weights & Biases on request."""

from training.telemetry.observers import open_observers
from training.telemetry.sinks import Sink

__all__ = ["Sink", "open_observers"]
