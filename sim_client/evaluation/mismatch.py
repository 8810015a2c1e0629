"""A difference between training and evaluation, and whether it is accepted.

Such a difference is the usual reason for a policy that "learned nothing". So every one is refused before the first
episode unless it is allowed by name, and then it stands in the results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from policy_protocol import PolicySpec, did_you_mean
from policy_protocol.errors import SpecMismatch
from policy_protocol.spec import CameraSpec
from sim_client.errors import InvalidOption

__all__ = ["Mismatch", "camera_path", "require_compatible"]


@dataclass(frozen=True)
class Mismatch:
    """One field in which the simulation differs from the policy's training."""

    field: str
    """Path in the spec, what `--allow-mismatch` takes."""
    spec: str
    """What the policy was trained with."""
    simulator: str
    """What the simulator would run."""
    remedy: str
    allowable: bool = True
    """False where the policy could not be asked at all."""

    def __str__(self) -> str:
        return f"{self.field}: the policy has {self.spec}, the simulator {self.simulator}. {self.remedy}"


def camera_path(camera: CameraSpec) -> str:
    """Where a camera stands in the names that `--allow-mismatch` takes."""
    return f"observation.cameras.{camera.simulator_camera or camera.slot}"


def require_compatible(found: Sequence[Mismatch], allowed: Sequence[str], spec: PolicySpec) -> tuple[Mismatch, ...]:
    """Refuse every mismatch that is not allowed by name; a name also allows the fields below it.

    Returns:
        The mismatches that were allowed.

    Raises:
        InvalidOption: `allowed` holds a name that is no field.
        SpecMismatch: with one line per field.
    """
    _require_fields(allowed, spec)
    refused = [mismatch for mismatch in found if not (mismatch.allowable and _is_allowed(mismatch.field, allowed))]
    if not refused:
        return tuple(found)
    lines = "\n".join(f"  {mismatch}" for mismatch in refused)
    flags = " ".join(f"--allow-mismatch {mismatch.field}" for mismatch in refused)
    advice = (
        f"To run anyway, with this written into the results, pass {flags}."
        if all(mismatch.allowable for mismatch in refused)
        else "The policy cannot be asked in this simulation at all."
    )
    raise SpecMismatch(
        f"The simulation differs from the training of {spec.policy.checkpoint}:\n{lines}\n{advice}",
        field=refused[0].field,
    )


def _is_allowed(field: str, allowed: Sequence[str]) -> bool:
    return any(field == name or field.startswith(f"{name}.") for name in allowed)


def _require_fields(allowed: Sequence[str], spec: PolicySpec) -> None:
    fields = {
        *("simulation.env_ids", "simulation.robot_uids", "simulation.sim_freq", "simulation.control_freq"),
        *("simulation.max_episode_steps", "simulation.demonstration_seeds", "observation.cameras"),
        *("action.control_mode", "action.low", "action.high"),
        *(f"{camera_path(camera)}.size" for camera in spec.observation.cameras),
    }
    for name in allowed:
        if name not in fields:
            raise InvalidOption(
                f"--allow-mismatch {name}: no mismatch of this name can be allowed.{did_you_mean(name, fields)}",
                field="--allow-mismatch",
            )
