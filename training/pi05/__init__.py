"""The Pi0 and Pi0.5 models, and all that a checkpoint needs to be a policy again.

    from training.pi05 import load_policy

    policy = load_policy("runs/pi05_maniskill_stackcube_small/first/2999")
    chunk = policy({"observation/image": image, "observation/wrist_image": wrist,
                    "observation/state": state, "prompt": "Push a cube."})
    chunk.actions  # (action_horizon, action_dim), physical units

Axes: batch, camera, height, width, prefix, suffix, tokens, heads, head_dim, action_horizon, action_dim, state_dim.
"""

from training.pi05.load import load_policy
from training.pi05.model.config import GemmaConfig, ModelConfig, SigLIPConfig, preset
from training.pi05.model.pi import ModelInput, PiModel
from training.pi05.policy import Policy
from training.pi05.transforms.normalization import NormStats
from training.pi05.transforms.tokenizer import Tokenizer

__all__ = [
    "GemmaConfig",
    "ModelConfig",
    "ModelInput",
    "NormStats",
    "PiModel",
    "Policy",
    "SigLIPConfig",
    "Tokenizer",
    "load_policy",
    "preset",
]
