"""Errors of the eval stack, all under `ChunkwireError`."""

from __future__ import annotations

from policy_protocol.errors import ChunkwireError

__all__ = [
    "ClientFailed",
    "EngineUnavailable",
    "ImageUnavailable",
    "Interrupted",
    "InvalidMatrix",
    "OutputUnwritable",
    "ReportFailed",
    "ServerDied",
]


class InvalidMatrix(ChunkwireError):
    """A flag or a key of the matrix file has a value that cannot be used; `field` is the flag."""

    code = "invalid_matrix"
    exit_code = 2


class Interrupted(ChunkwireError):
    """The user stopped the run; what was finished stays."""

    code = "interrupted"
    exit_code = 130


class OutputUnwritable(ChunkwireError):
    """Nothing can be written to the folder for results."""

    code = "output_unwritable"
    exit_code = 2


class EngineUnavailable(ChunkwireError):
    """The Docker engine does not run, may not be used, or refused a request."""

    code = "engine_unavailable"


class ImageUnavailable(ChunkwireError):
    """An image is missing, and was not or could not be built or pulled."""

    code = "image_unavailable"


class ServerDied(ChunkwireError):
    """A policy server's container ended on its own."""

    code = "server_died"


class ClientFailed(ChunkwireError):
    """A simulator's container ended with an error; its exit code is this error's."""

    code = "client_failed"

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class ReportFailed(ChunkwireError):
    """The containers that read the results again failed."""

    code = "report_failed"
