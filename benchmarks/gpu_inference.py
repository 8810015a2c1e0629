"""Goals 8 and 9: the full model on one GPU, random weights in bfloat16. One run prints everything.

    python benchmarks/gpu_inference.py [--preset pi05] [--horizon 20] [--prompt 64]

p50 and p99 of an inference from host arrays to host arrays, at every batch size, with two and three cameras and each
kind of attention; requests a second; the share of the roofline that is reached; the memory of that program alone, as
compiled: its arguments (the weights among them), temporaries and outputs.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import typer
from openpi_shaped import STEPS, Variant, random_inputs
from rich.console import Console
from rich.table import Table
from roofline import DEVICES, inference_work

from training.pi05.model.attention import AttentionKernel
from training.pi05.model.config import ModelConfig, preset
from training.pi05.model.flow import denoise
from training.pi05.model.params import param_shapes
from training.pi05.model.pi import PiModel
from training.pi05.model.serving import ServingParams, serving_params

console = Console(width=140)
_COLUMNS = ("attention", "cameras", "batch", "p50 ms", "p99 ms", "requests/s", "% of roofline", "GiB", "compile s")


def random_weights(config: ModelConfig) -> ServingParams:
    """Drawn on the device, leaf by leaf: nothing of the size of the model passes the host."""
    dtype, flat = jnp.dtype(config.dtype), {}
    for index, (path, leaf) in enumerate(param_shapes(config).items()):
        flat[path] = 0.02 * jax.random.normal(jax.random.key(index), leaf.shape, dtype)
    return serving_params(config, flat, STEPS)


def compiled_inference(
    config: ModelConfig, weights: ServingParams, kernel: AttentionKernel, cameras: int, batch: int, prompt: int
) -> tuple[Callable[[], np.ndarray], float]:
    """One inference, host to host, compiled and run once; and the GiB that its program holds on the device."""
    network = PiModel(config, unrolled=True, kernel=kernel)
    inputs = random_inputs(config, Variant("", cameras, short_prompt=True), batch, prompt - 8, prompt)
    inputs = inputs.replace(image_masks=jax.tree.map(np.ones_like, inputs.image_masks))
    noise = np.random.default_rng(0).standard_normal((batch, config.action_horizon, config.action_dim), np.float32)

    def run(weights: ServingParams, inputs: object, noise: jax.Array) -> jax.Array:
        return denoise(network, weights.params, inputs, noise, STEPS, weights.modulations)

    compiled = jax.jit(run, donate_argnums=2).lower(weights, inputs, noise).compile()
    call = lambda: np.asarray(compiled(weights, inputs, noise))  # noqa: E731
    assert np.all(np.isfinite(call()))
    return call, gibibytes(compiled)


def gibibytes(compiled: jax.stages.Compiled) -> float:
    """Arguments, temporaries and outputs of a program. The device's own peak is of all programs since the start."""
    memory = compiled.memory_analysis()
    donated = memory.alias_size_in_bytes  # outputs in the place of arguments
    held = memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes - donated
    return held / 2**30


def milliseconds(call: Callable[[], object], seconds: float) -> np.ndarray:
    """Latency of each call during some seconds, at least twenty calls."""
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(taken) < 20:
        begun = time.perf_counter()
        call()
        taken.append((time.perf_counter() - begun) * 1e3)
    return np.array(taken)


def rows(
    config: ModelConfig, weights: ServingParams, kernels: list[AttentionKernel], prompt: int, batches: list[int]
) -> Iterator[list[str]]:
    """The cells of the table, measured as they are asked for."""
    device = jax.devices()[0]
    peak = next((peak for name, peak in DEVICES.items() if name in device.device_kind), None)
    for kernel in kernels:
        for cameras in (2, 3):
            for batch in batches:
                begun = time.perf_counter()
                try:
                    call, memory = compiled_inference(config, weights, kernel, cameras, batch, prompt)
                except Exception as error:  # a kernel that this card or library does not have must not end the run
                    yield [kernel, str(cameras), str(batch), f"{type(error).__name__}: {str(error)[:60]}", *[""] * 5]
                    continue
                compiling = time.perf_counter() - begun
                taken = milliseconds(call, seconds=2.0)
                p50, p99 = np.percentile(taken, [50, 99])
                work = inference_work(config, batch, cameras, prompt, STEPS)
                least = sum(part.seconds(peak) for part in work) * 1e3 if peak else float("nan")
                figures = [p50, p99, batch / p50 * 1e3, least / p50 * 100, memory, compiling]
                yield [kernel, str(cameras), str(batch), *[f"{figure:.2f}" for figure in figures]]


def main(
    preset_name: Annotated[str, typer.Option("--preset", help="Model; the small one tries the script out.")] = "pi05",
    horizon: Annotated[int, typer.Option(help="Action horizon.")] = 20,
    prompt: Annotated[int, typer.Option(help="Tokens of the padded prompt.")] = 64,
    batches: Annotated[str, typer.Option(help="Batch sizes, separated by commas.")] = "1,2,4,8,16,32",
    kernels: Annotated[str, typer.Option(help="Kinds of attention, separated by commas.")] = "plain,xla,cudnn",
) -> None:
    """Print one table."""
    device = jax.devices()[0]
    config = dataclasses.replace(preset(preset_name), action_horizon=horizon, remat=False)
    if device.platform == "cpu":
        console.print("No GPU here: these figures say nothing about goals 8 and 9.")
    weights = random_weights(config)
    table = Table(title=f"{preset_name}, horizon {horizon}, prompt {prompt}, {config.dtype}, {device.device_kind}")
    for head in _COLUMNS:
        table.add_column(head, justify="right")
    kinds: list[AttentionKernel] = [kind for kind in ("plain", "xla", "cudnn") if kind in kernels.split(",")]
    for row in rows(config, weights, kinds, prompt, [int(part) for part in batches.split(",")]):
        console.print("  ".join(row))  # as it comes: a run that is cut short still says something
        table.add_row(*row)
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
