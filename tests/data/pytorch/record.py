"""Record tiny LeRobot Pi0 and Pi0.5 policies: the weights as LeRobot saves them, and what it computes with them.

Run in an environment with LeRobot (README.md says which), never by the tests:

    python tests/data/pytorch/record.py tests/data/pytorch
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.pi0 import configuration_pi0, modeling_pi0
from lerobot.policies.pi05 import configuration_pi05, modeling_pi05

IMAGE, HORIZON, ACTION_DIM, VOCABULARY, PROMPT, BATCH = 28, 6, 8, 64, 7, 2
CAMERAS = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")
# LeRobot hard-codes 8 heads in its attention and takes 16 heads from transformers' default vision tower.
WIDTHS = {"gemma_2b": (24, 40), "gemma_300m": (20, 28)}


def shrink(module) -> None:
    """Small sizes wherever the policy hard-codes the full ones; no computation is touched."""
    paligemma, gemma = module.PaliGemmaForConditionalGenerationWithPiGemma, module.PiGemmaForCausalLM

    def tiny_gemma(variant):
        width, mlp = WIDTHS[variant]
        return module.GemmaConfig(width=width, depth=2, mlp_dim=mlp, num_heads=8, num_kv_heads=1, head_dim=6)

    def tiny_paligemma(config):
        config.text_config.vocab_size = VOCABULARY
        vision = config.vision_config
        vision.hidden_size, vision.intermediate_size, vision.num_hidden_layers = 32, 36, 3
        vision.projection_dim = config.projection_dim = WIDTHS["gemma_2b"][0]
        return paligemma(config)

    def tiny_expert(config):
        config.vocab_size = VOCABULARY
        return gemma(config)

    module.get_gemma_config = tiny_gemma
    module.PaliGemmaForConditionalGenerationWithPiGemma = tiny_paligemma
    module.PiGemmaForCausalLM = tiny_expert


def build(policy_class, config_class):
    features = {f"observation.images.{name}": (FeatureType.VISUAL, (3, IMAGE, IMAGE)) for name in CAMERAS}
    features["observation.state"] = (FeatureType.STATE, (ACTION_DIM,))
    config = config_class(
        device="cpu",
        dtype="float32",
        chunk_size=HORIZON,
        n_action_steps=HORIZON,
        max_state_dim=ACTION_DIM,
        max_action_dim=ACTION_DIM,
        image_resolution=(IMAGE, IMAGE),
        input_features={name: PolicyFeature(*feature) for name, feature in features.items()},
        output_features={"action": PolicyFeature(FeatureType.ACTION, (ACTION_DIM,))},
    )
    policy = policy_class(config).eval()
    for name, parameter in policy.named_parameters():  # fresh adaRMS weights are zero and would prove nothing
        scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3
        is_layer_norm = parameter.ndim == 1 and "vision" in name and "norm" in name and name.endswith("weight")
        torch.nn.init.normal_(parameter, mean=1.0 if is_layer_norm else 0.0, std=scale)
    return policy


def inputs(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The right wrist's camera is absent, and the second prompt is shorter."""
    found = {f"image/{name}": rng.integers(0, 256, (BATCH, IMAGE, IMAGE, 3), np.uint8) for name in CAMERAS[:2]}
    found["tokens"] = rng.integers(0, VOCABULARY, (BATCH, PROMPT))
    found["token_mask"] = np.arange(PROMPT) < np.array([[PROMPT], [PROMPT - 3]])
    found["state"] = rng.normal(size=(BATCH, ACTION_DIM)).astype(np.float32)
    for name in ("actions", "noise"):
        found[name] = rng.normal(size=(BATCH, HORIZON, ACTION_DIM)).astype(np.float32)
    found["time"] = np.array([0.9, 0.3], np.float32)
    return found


@torch.no_grad()
def outputs(policy, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    tensors = {name: torch.from_numpy(value) for name, value in given.items()}
    batch = {f"observation.images.{name}": tensors[f"image/{name}"].permute(0, 3, 1, 2) / 255.0 for name in CAMERAS[:2]}
    batch["observation.state"] = tensors["state"]
    batch["observation.language.tokens"] = tensors["tokens"]
    batch["observation.language.attention_mask"] = tensors["token_mask"]
    chunk = policy.predict_action_chunk(batch, noise=tensors["noise"])
    images, masks = policy._preprocess_images(batch)
    prompt = (tensors["tokens"], tensors["token_mask"])
    prefix, *_ = policy.model.embed_prefix(images, masks, *prompt)
    seen = []
    hook = policy.model.action_out_proj.register_forward_hook(lambda module, args, out: seen.append(out))
    state = [tensors["state"]] if policy.name == "pi0" else []
    policy.model(images, masks, *prompt, *state, tensors["actions"], tensors["noise"], tensors["time"])
    hook.remove()
    return {"prefix": prefix.numpy(), "velocity": seen[0].numpy(), "action_chunk": chunk.numpy()}


def main(directory: Path) -> None:
    families = {
        "pi05": (modeling_pi05, modeling_pi05.PI05Policy, configuration_pi05.PI05Config),
        "pi0": (modeling_pi0, modeling_pi0.PI0Policy, configuration_pi0.PI0Config),
    }
    for family, (module, policy_class, config_class) in families.items():
        torch.manual_seed(0)
        shrink(module)
        policy = build(policy_class, config_class)
        with tempfile.TemporaryDirectory() as saved:
            policy.save_pretrained(saved)
            weights = (Path(saved) / "model.safetensors").read_bytes()
        target = directory / f"lerobot_{family}"
        target.mkdir(parents=True, exist_ok=True)
        (target / "model.safetensors").write_bytes(weights)
        given = inputs(np.random.default_rng(0))
        np.savez_compressed(target / "recorded.npz", **given, **outputs(policy, given))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
