"""Goal 2: one inference on a CPU takes at most half of what it takes in openpi's shape, same weights, same run.

    python benchmarks/inference.py [--model tiny|small|base] [--batches 1,4,16]

With openpi's own tiny weights first the whole policy, from a raw observation to physical actions, against the same
transforms around the openpi-shaped computation; then, for every model, what each saving brings. Milliseconds; the share
is of openpi's shape in the same run.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import typer
from interleaved import interleaved
from openpi_shaped import VARIANTS, inference, random_inputs
from rich.console import Console
from rich.table import Table

from training.pi05.checkpoint.weights import read_params
from training.pi05.load import load_policy
from training.pi05.model.config import SLOTS, GemmaConfig, ModelConfig, SigLIPConfig, preset
from training.pi05.model.params import config_of_params, count_params, param_shapes
from training.pi05.policy import noise_from_seed
from training.pi05.released import RELEASED
from training.pi05.transforms.observation import collate

_TINY = Path(__file__).parents[1] / "tests/data/openpi/checkpoints/tiny_pi05/100"
_TOKENIZER = _TINY.parents[2] / "tiny_tokenizer.model"
_TASK = "pick up the black bowl"
_PROMPT, _BUCKET = 24, 32
"""Tokens of the prompt, and the bucket that it is padded to."""


def _base() -> ModelConfig:
    """About 110M parameters: Pi0.5's proportions at a third of its widths."""
    language = GemmaConfig(width=512, mlp_width=2048, depth=12, heads=8, kv_heads=1, head_dim=64)
    expert = dataclasses.replace(language, width=256, mlp_width=1024)
    vision = SigLIPConfig(image_size=224, patch_size=14, width=384, depth=12, mlp_width=1536, heads=6)
    return ModelConfig("pi05", vision, language, expert, 8192, action_horizon=20, max_token_len=200, dtype="float32")


def load(model: str) -> tuple[ModelConfig, dict[str, np.ndarray]]:
    """openpi's own tiny weights, or random ones of a larger model."""
    if model == "tiny":
        flat = read_params(_TINY, np.float32)
        return config_of_params(flat, action_horizon=20, max_token_len=64, dtype="float32"), flat
    config = _base() if model == "base" else preset("pi05_small")
    draw = np.random.default_rng(0)
    shapes = param_shapes(config)
    return config, {path: draw.normal(0, 0.02, leaf.shape).astype(np.float32) for path, leaf in shapes.items()}


def measure(config: ModelConfig, flat: dict[str, np.ndarray], batch: int, rounds: int) -> dict[str, float]:
    """Median milliseconds of every variant; refuses to time what does not compute the same."""
    noise = np.random.default_rng(1).standard_normal((batch, config.action_horizon, config.action_dim), np.float32)
    ways, results = {}, {}
    for variant in VARIANTS:
        infer = inference(config, flat, variant)
        inputs = random_inputs(config, variant, batch, _PROMPT, _BUCKET)
        ways[variant.name] = lambda infer=infer, inputs=inputs: infer(inputs, noise)
        results[variant.name] = ways[variant.name]()
    first = results[VARIANTS[0].name]
    for name, actions in results.items():
        np.testing.assert_allclose(actions, first, atol=1e-4, err_msg=name)
    seconds = interleaved(ways, rounds)
    return {name: float(np.median(each)) * 1e3 for name, each in seconds.items()}


def whole_policy(rounds: int) -> dict[str, float]:
    """Median milliseconds from a raw LIBERO observation to its action chunk: openpi's shape, and ours."""
    released = RELEASED["pi05_libero"].spec
    prompt = dataclasses.replace(released.observation.prompt, max_tokens=64)
    spec = dataclasses.replace(
        released,
        policy=dataclasses.replace(released.policy, action_horizon=20),
        observation=dataclasses.replace(released.observation, prompt=prompt),
    )
    policy = load_policy(_TINY, spec=spec, tokenizer=str(_TOKENIZER), dtype="float32")
    shaped = inference(policy.model, read_params(_TINY, np.float32), VARIANTS[0])
    draw = np.random.default_rng(0)
    images = {camera.key: draw.integers(0, 256, (224, 224, 3), np.uint8) for camera in released.observation.cameras}
    observation = {**images, "observation/state": draw.uniform(-0.5, 0.5, 8), "prompt": _TASK}
    noise = noise_from_seed(0, policy.noise_shape)[None]

    def as_openpi() -> np.ndarray:
        row = policy.transform(observation)
        inputs = collate([row], policy.model.max_token_len)
        absent = np.zeros_like(inputs.images[SLOTS[0]])
        inputs = inputs.replace(
            images={**inputs.images, SLOTS[2]: absent}, image_masks={**inputs.image_masks, SLOTS[2]: np.zeros(1, bool)}
        )
        return policy.transform.actions.inverse(shaped(inputs, noise), row.start_state[None])[0]

    ways = {"openpi's shape": as_openpi, "ours": lambda: policy(observation, noise_seed=0).actions}
    np.testing.assert_allclose(ways["ours"](), as_openpi(), atol=1e-4)
    return {name: float(np.median(each)) * 1e3 for name, each in interleaved(ways, rounds, calls=10).items()}


def main(
    model: Annotated[str, typer.Option(help="tiny (openpi's fixture), small, or base (110M parameters).")] = "tiny",
    batches: Annotated[str, typer.Option(help="Batch sizes, separated by commas.")] = "1,2,4,8,16",
    rounds: Annotated[int, typer.Option(help="Interleaved rounds of three calls each.")] = 5,
) -> None:
    """Print one table."""
    console = Console(width=160)
    if model == "tiny":
        theirs, ours = whole_policy(rounds).values()
        console.print(f"whole policy: openpi's shape {theirs:.1f} ms, ours {ours:.1f} ms, share {ours / theirs:.2f}")
    config, flat = load(model)
    sizes = [int(part) for part in batches.split(",")]
    columns = {batch: measure(config, flat, batch, rounds) for batch in sizes}
    title = f"{model}: {count_params(param_shapes(config)) / 1e6:.1f}M parameters, float32, {jax.default_backend()}"
    table = Table(title=f"{title}; ms (share of openpi's shape)")
    table.add_column("inference")
    for batch in sizes:
        table.add_column(f"batch {batch}", justify="right")
    for variant in VARIANTS:
        cells = [
            f"{times[variant.name]:.1f} ({times[variant.name] / times[VARIANTS[0].name]:.2f})"
            for times in columns.values()
        ]
        table.add_row(variant.name, *cells)
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
