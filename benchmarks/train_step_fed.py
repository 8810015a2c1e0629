"""Batches as `train` feeds them: from a dataset's frame cache through the transforms to the device, made ahead."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jax

from training.data.loading.prefetch import Prefetch
from training.experiment import Experiment
from training.inputs import open_inputs
from training.samples import Samples

__all__ = ["FedStep", "fed_batches", "fed_step"]


@dataclass(frozen=True)
class FedStep:
    """A step with the pipeline attached, the mean of several."""

    seconds: float
    waiting: float
    """Share of them in which the device waited for its batch."""


@contextmanager
def fed_batches(experiment: Experiment, dataset: Path, prompt: int) -> Iterator[Prefetch[Samples]]:
    """An experiment's batches of a dataset on the first device, prompts padded to `prompt` tokens.

    The small tokenizer stands in for PaliGemma's, which would have to be downloaded.
    """
    run = dataclasses.replace(experiment, dataset=str(dataset), tokenizer="small", held_out=0.0)
    with contextlib.redirect_stderr(io.StringIO()):  # progress of decoding
        inputs = open_inputs(run, "fed", None)
    transform, device = dataclasses.replace(inputs.transform, prompt_length=prompt), jax.devices()[0]

    def make(step: int) -> Samples:
        return jax.device_put(transform(inputs.loader.batch(step)), device)

    with Prefetch(make, 0, None, depth=2) as batches:
        yield batches


def fed_step(run: Callable[[Samples], object], batches: Iterator[Samples], calls: int) -> FedStep:
    """Time `run`, which returns when its update is done, on the batches as they come."""
    run(next(batches))
    begun, waited = time.perf_counter(), 0.0
    for _ in range(calls):
        asked = time.perf_counter()
        samples = next(batches)
        waited += time.perf_counter() - asked
        run(samples)
    elapsed = time.perf_counter() - begun
    return FedStep(elapsed / calls, waited / elapsed)
