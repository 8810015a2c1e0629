"""A connection to a policy server over gRPC."""

from __future__ import annotations

import json

import grpc

from policy_protocol import InferReply, InferRequest
from policy_protocol import policy_pb2 as pb
from policy_protocol.errors import ChunkwireError, Draining, Overloaded, ServerUnavailable, Unauthenticated
from policy_protocol.policy_pb2_grpc import PolicyServiceStub
from policy_protocol.protobuf_messages import (
    ERROR_METADATA,
    PROCESS_METADATA,
    error_from_proto,
    reply_from_proto,
    request_to_proto,
    steps_reply_from_proto,
    steps_request_to_proto,
)
from policy_protocol.steps import StepsReply, StepsRequest
from sim_client.wire.credentials import Credentials
from sim_client.wire.link import (
    COMPILING,
    HINT,
    Greeting,
    LinkLost,
    NotYetError,
    read_greeting,
    refused_key,
    reply_too_large,
    too_large,
    untrusted,
)

__all__ = ["GrpcLink"]

_ANSWER_S = 10.0
"""A ready server tells its spec within milliseconds."""
_CHECKS = 16
"""Times that the spec is asked for until the process that answered tells it."""
_OPTIONS = (
    ("grpc.max_receive_message_length", 64 * 2**20),  # a batch of 1024 chunks of 50 x 32 float64 actions is 13 MB
    ("grpc.max_send_message_length", -1),  # the server says what is too large for it
    ("grpc.use_local_subchannel_pool", 1),  # a new connection must not wait because an earlier one failed
)


class GrpcLink:
    """A channel whose server has told its spec.

    Args:
        url: as `server_url` writes it.
        timeout_s: for connecting and the spec.

    Raises:
        NotYetError: worth another attempt.
        ChunkwireError: not worth one: a refused key, an untrusted certificate, no policy server.
    """

    def __init__(self, url: str, credentials: Credentials, timeout_s: float) -> None:
        self.url = url
        authorization = credentials.authorization
        self._metadata = (("authorization", authorization),) if authorization else ()
        self._channel = _channel(url, credentials)
        self._stub = PolicyServiceStub(self._channel)
        self._known: set[str | None] = set()
        try:
            self.greeting: Greeting = self._greeting(min(timeout_s, _ANSWER_S))
        except BaseException:
            self._channel.close()
            raise

    @property
    def open(self) -> bool:
        """See `Link`: gRPC connects anew by itself."""
        return True

    def ask(self, request: InferRequest, timeout_s: float) -> InferReply:
        """See `Link`."""
        message = request_to_proto(request)
        try:
            answer, call = self._stub.Infer.with_call(message, timeout=timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            return InferReply(request.id, error=_failure(error, self.url))
        self._require_checked(_process(call))
        return reply_from_proto(answer)

    def ask_steps(self, request: StepsRequest, timeout_s: float) -> StepsReply:
        """See `Link`. Behind an address of several processes it is one of them that loads the step."""
        message = steps_request_to_proto(request)
        try:
            answer = self._stub.Steps(message, timeout=timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            return StepsReply(request.id, error=_failure(error, self.url))
        reply = steps_reply_from_proto(answer)
        assert reply.spec is not None, "a response holds a spec"
        self.greeting = self.greeting.at(reply.spec)
        return reply

    def close(self) -> None:
        """Hang up; doing it twice is fine."""
        self._channel.close()

    def _require_checked(self, process: str | None) -> None:
        """An answer counts only of a process whose spec is known: another one may serve another policy.

        gRPC connects anew without telling, and a load balancer may give each call to another process. So the spec is
        asked for until the process in question tells it; its answer is dropped where it does not.
        """
        for _ in range(_CHECKS):
            if process in self._known:
                return
            try:
                same = self._greeting(_ANSWER_S).spec.hash == self.greeting.spec.hash
            except NotYetError as error:
                raise LinkLost(self.url, error, asked=True) from error
            if not same:
                raise LinkLost(self.url, "another process answered", asked=False)
        if process not in self._known:
            raise LinkLost(self.url, "a process answered that does not tell its spec", asked=False)

    def _greeting(self, timeout_s: float) -> Greeting:
        try:
            answer, call = self._stub.GetSpec.with_call(pb.GetSpecRequest(), timeout=timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise _explain(error, self.url) from error
        self._known.add(_process(call))
        try:
            spec = json.loads(answer.spec_json)
        except ValueError:
            spec = None
        metadata = {"protocol": answer.protocol, "policy_spec": spec, "features": list(answer.features)}
        return read_greeting(metadata, self.url)


def _channel(url: str, credentials: Credentials) -> grpc.Channel:
    scheme, _, target = url.partition("://")
    if scheme == "grpcs":
        return grpc.secure_channel(target, credentials.grpc_credentials(), _OPTIONS)
    return grpc.insecure_channel(target, _OPTIONS)


def _explain(error: grpc.RpcError, url: str) -> Exception:
    """What a failed attempt means: worth another one, or not."""
    told, status = _told(error), error.code()
    if isinstance(told, Unauthenticated):
        return refused_key(url, "UNAUTHENTICATED")
    if isinstance(told, Draining):
        return NotYetError("it is shutting down")
    if isinstance(told, ServerUnavailable):
        return NotYetError(COMPILING)
    if told is not None:
        return told
    details = error.details() or ""
    if "CERTIFICATE_VERIFY_FAILED" in details or "Peer name" in details:
        return untrusted(url, _last(details))
    if status is grpc.StatusCode.DEADLINE_EXCEEDED:
        return NotYetError("it does not answer")
    if status is grpc.StatusCode.UNIMPLEMENTED:
        return ServerUnavailable(f"{url} speaks gRPC but is no policy server. {HINT}")
    return NotYetError("connection refused" if "onnection refused" in details else _last(details))


def _failure(error: grpc.RpcError, url: str) -> ChunkwireError:
    """What a failed question means, as the error of its reply. Raises `TimeoutError` and `LinkLost`."""
    told, status, details = _told(error), error.code(), error.details() or ""
    if type(told) is ServerUnavailable:  # it was started anew and compiles
        raise LinkLost(url, COMPILING, asked=False) from error
    if told is not None:
        return told
    if status is grpc.StatusCode.DEADLINE_EXCEEDED:
        raise TimeoutError from error
    if status is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return _beyond_limit(url, details)
    raise LinkLost(url, _last(details), asked="failed to connect" not in details) from error


def _beyond_limit(url: str, details: str) -> ChunkwireError:
    if "CLIENT: Received" in details:
        return reply_too_large(url, details)
    return too_large(url, details) if "larger than max" in details else Overloaded(f"{url}: {details}")


def _told(error: grpc.RpcError) -> ChunkwireError | None:
    """The server's own words, if it is a policy server that ended the call."""
    for key, value in error.trailing_metadata() or ():
        if key == ERROR_METADATA:
            return error_from_proto(pb.Error.FromString(value))
    return None


def _process(call: grpc.Call) -> str | None:
    return dict(call.initial_metadata()).get(PROCESS_METADATA)


def _last(details: str) -> str:
    """gRPC's reason without the list of addresses that it tried."""
    return details.partition("last error: ")[2] or details or "no reason was given"
