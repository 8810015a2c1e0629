"""Which differences between training and evaluation are accepted: those allowed by name, and no other."""

from __future__ import annotations

from collections.abc import Sequence

from policy_protocol import PolicySpec, did_you_mean
from policy_protocol.errors import SpecMismatch
from sim_client.errors import InvalidOption
from sim_client.evaluation.compatibility import camera_path
from sim_client.results.mismatch import Mismatch

__all__ = ["require_compatible"]


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
