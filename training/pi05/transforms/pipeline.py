"""The two chains of a policy, for its state and for its actions: the same ones in training and in serving."""

from __future__ import annotations

from collections.abc import Mapping

from policy_protocol.errors import SpecInvalid
from policy_protocol.spec import PolicySpec
from training.pi05.transforms.chain import Chain, DeltaActions, Normalize, Pad
from training.pi05.transforms.normalization import NormStats, NormStatsInvalid
from training.pi05.transforms.robots import robot_actions, robot_state

__all__ = ["action_chain", "state_chain"]


def state_chain(spec: PolicySpec, norm_stats: Mapping[str, NormStats], width: int) -> Chain:
    """(…, state_dim) as it arrives -> (…, width) as the model takes it, in three steps.

    The steps are conversion to the model's units, normalisation and padding: deltas are relative to what the first
    gives, and the prompt holds what the second gives.

    Args:
        width: the model's action_dim.

    Raises:
        SpecInvalid: the state is wider than the model.
        NormStatsInvalid: the policy normalises by quantiles and its statistics have none.
    """
    real = _width_within(spec.observation.state.dimension, width, "state")
    normalized = _normalize(spec, norm_stats, "state")
    return Chain((robot_state(spec.policy.robot), normalized, Pad(real, width)))


def action_chain(spec: PolicySpec, norm_stats: Mapping[str, NormStats], width: int) -> Chain:
    """(…, action_horizon, action_dim) in physical units -> (…, action_horizon, width) as the model predicts them.

    Needs the state at the chunk's start in the model's units, (…, state_dim), for deltas.

    Args:
        width: the model's action_dim.

    Raises:
        SpecInvalid: the actions are wider than the model.
        NormStatsInvalid: as `state_chain`.
    """
    real = _width_within(spec.action.dimension, width, "action")
    deltas = (DeltaActions(spec.action.delta_mask),) if any(spec.action.delta_mask) else ()
    normalized = _normalize(spec, norm_stats, "actions")
    return Chain((robot_actions(spec.policy.robot), *deltas, normalized, Pad(real, width)))


def _normalize(spec: PolicySpec, norm_stats: Mapping[str, NormStats], name: str) -> Normalize:
    stats, kind = norm_stats[name], spec.policy.normalization
    if kind == "quantile" and stats.q01 is None:
        raise NormStatsInvalid(
            f"The norm stats have no quantiles (q01, q99) for {name!r}, but the policy normalises by quantiles. "
            "They were taken for z-scores alone: compute those of its dataset with train stats DATASET."
        )
    return Normalize(stats, kind)


def _width_within(real: int, width: int, name: str) -> int:
    if real > width:
        raise SpecInvalid(
            f"The spec's {name} has {real} dimensions but the model holds {width}. Take the spec that belongs to these "
            "weights (--spec), or train with a larger model.action_dim.",
            field=name,
        )
    return real
