"""The contract between the policy server and everything that runs a policy.

Installed on both sides, so it needs numpy, msgpack, protobuf and jaxtyping only. `PolicySpec` says what a policy
demands, `InferRequest` and `InferReply` are the messages, `pack` and `unpack` their bytes, `ChunkwireError` the errors.
policy.proto is gRPC's schema; `protobuf_messages`, loaded only for gRPC, turns its messages into these and back.
"""

from policy_protocol.codec import ArrayEncoding, Decoded, pack, unpack
from policy_protocol.errors import ChunkwireError, did_you_mean
from policy_protocol.messages import (
    PROTOCOL,
    ActionChunk,
    EpisodeMoment,
    InferReply,
    InferRequest,
    Observation,
    is_envelope,
)
from policy_protocol.noise import noise_seed
from policy_protocol.spec import PolicySpec

__all__ = [
    "PROTOCOL",
    "ActionChunk",
    "ArrayEncoding",
    "ChunkwireError",
    "Decoded",
    "EpisodeMoment",
    "InferReply",
    "InferRequest",
    "Observation",
    "PolicySpec",
    "did_you_mean",
    "is_envelope",
    "noise_seed",
    "pack",
    "unpack",
]
