"""What openpi recorded, and the models that it was recorded from."""

from __future__ import annotations

import dataclasses
import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from policy_protocol.spec import PolicySpec
from training.pi05.checkpoint.weights import read_params
from training.pi05.compile_cache import use_compile_cache
from training.pi05.model.config import ModelConfig
from training.pi05.model.params import config_of_params, unflatten
from training.pi05.model.pi import ModelInput, PiModel
from training.pi05.released import released_policy

_OPENPI = Path(__file__).parents[1] / "data" / "openpi"
_STEPS = {"pi05": "tiny_pi05/100", "pi0": "tiny_pi0/200"}
_HORIZONS = {"pi05": (20, 64), "pi0": (10, 48)}


@pytest.fixture(scope="module", autouse=True)
def quick_compilation() -> Iterator[None]:
    """Tiny models spend their time in the compiler: it may leave out what makes large ones fast."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="session")
def tiny_settings() -> list[str]:
    """`--set` of a small experiment: every part of the model, at a size that trains six steps in no time."""
    return [
        *("model.vision.image_size=16", "model.vision.patch_size=8", "model.vision.width=8", "model.vision.depth=1"),
        *("model.vision.mlp_width=8", "model.vision.heads=2"),
        *(
            f"model.{stream}.{size}"
            for stream in ("language", "expert")
            for size in ("width=16", "mlp_width=16", "depth=1")
        ),
        *(f"model.{stream}.{size}" for stream in ("language", "expert") for size in ("heads=2", "head_dim=8")),
        *("model.action_dim=8", "model.action_horizon=4", "model.max_token_len=64", "execution_horizon=2"),
        *("batch_size=2", "steps=6", "save_every=3", "log_every=1", "denoising_steps=2"),
        *("optimizer.warmup_steps=1", "optimizer.decay_steps=50", "held_out=0", "draws_per_sample=1"),
    ]


@pytest.fixture(scope="module")
def own_caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded frames and compiled programs stay out of the user's cache; what one run compiled the next one reuses."""
    before = jax.config.jax_compilation_cache_dir
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHUNKWIRE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # the processes compile as this one does
        reset_cache()
        use_compile_cache()
        yield
    jax.config.update("jax_compilation_cache_dir", before)
    reset_cache()


@pytest.fixture(scope="session")
def no_room_for_files_beyond() -> Callable[[int], AbstractContextManager[None]]:
    """What a full disk is to a writer, for files of more than so many bytes: writes fail halfway."""

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


@pytest.fixture(scope="session")
def openpi_data() -> Path:
    """The folder of numbers recorded from openpi."""
    return _OPENPI


@pytest.fixture(scope="session")
def tiny_steps() -> dict[str, Path]:
    """openpi's own checkpoint of each family."""
    return {family: _OPENPI / "checkpoints" / step for family, step in _STEPS.items()}


@dataclass(frozen=True)
class Tiny:
    """A tiny model of openpi's with its weights, and the batch that openpi ran it on."""

    family: str
    config: ModelConfig
    params: Any
    recorded: dict[str, np.ndarray]

    @property
    def model(self) -> PiModel:
        return PiModel(self.config)

    @property
    def inputs(self) -> ModelInput:
        return self.inputs_of("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")

    def inputs_of(self, *slots: str, prompt: int | None = None) -> ModelInput:
        """The recorded batch with these cameras, its prompts padded to `prompt` tokens."""
        return ModelInput(
            images={slot: self.recorded[f"in/image_u8/{slot}"] for slot in slots},
            image_masks={slot: self.recorded[f"in/image_mask/{slot}"] for slot in slots},
            tokens=self.recorded["in/tokenized_prompt"][:, :prompt],
            token_mask=self.recorded["in/tokenized_prompt_mask"][:, :prompt],
            state=self.recorded["in/state"],
        )


def load_tiny(family: str, dtype: str = "float32") -> Tiny:
    flat = read_params(_OPENPI / "checkpoints" / _STEPS[family], np.dtype(dtype))
    with np.load(_OPENPI / f"tiny_{family}.npz") as recorded:
        arrays = dict(recorded)
    return Tiny(family, config_of_params(flat, *_HORIZONS[family], dtype), unflatten(flat), arrays)


@pytest.fixture(scope="session", params=["pi05", "pi0"])
def tiny(request: pytest.FixtureRequest) -> Tiny:
    """Each family in float32."""
    return load_tiny(request.param)


@pytest.fixture(scope="session")
def tiny_pi05() -> Tiny:
    return load_tiny("pi05")


@pytest.fixture(scope="session")
def tiny_pi0() -> Tiny:
    return load_tiny("pi0")


@pytest.fixture(scope="session", params=["pi05", "pi0"])
def tiny_bf16(request: pytest.FixtureRequest) -> Tiny:
    """Each family in bfloat16, as openpi serves it."""
    import ml_dtypes  # noqa: F401 (teaches numpy the name)

    return load_tiny(request.param, "bfloat16")


def _tiny_spec(released: str, family: str, **changes: Any) -> PolicySpec:
    """A released policy's spec with the tiny model's sizes, for a checkpoint of whatever asset id."""
    spec = released_policy(released).spec
    horizon, max_tokens = _HORIZONS[family]
    policy = dataclasses.replace(
        spec.policy, action_horizon=horizon, execution_horizon=horizon, parameter_count=0, asset_id=""
    )
    prompt = {"max_tokens": max_tokens, "trained": (), "tokenizer": "", **changes.pop("prompt", {})}
    observation = dataclasses.replace(spec.observation, prompt=dataclasses.replace(spec.observation.prompt, **prompt))
    action = dataclasses.replace(spec.action, **changes.pop("action", {}))
    return PolicySpec(policy, observation, action)


@pytest.fixture(scope="session")
def libero_spec() -> PolicySpec:
    """What tiny_pi05 expects: openpi's LIBERO policy, with the state in the prompt."""
    return _tiny_spec("pi05_libero", "pi05", prompt={"includes_state": True})


@pytest.fixture(scope="session")
def aloha_spec() -> PolicySpec:
    """What tiny_pi0 expects: openpi's ALOHA policy with relative joints and another default prompt."""
    delta_mask = ((True,) * 6 + (False,)) * 2
    return _tiny_spec("pi0_aloha_sim", "pi0", prompt={"default": "fold the towel"}, action={"delta_mask": delta_mask})


@pytest.fixture(scope="session")
def tiny_tokenizer() -> str:
    return str(_OPENPI / "tiny_tokenizer.model")


@pytest.fixture(scope="session")
def lerobot_dataset() -> Path:
    """39 frames in three episodes, written by the real lerobot package."""
    return Path(__file__).parents[1] / "data" / "lerobot" / "lerobot_v30_image"
