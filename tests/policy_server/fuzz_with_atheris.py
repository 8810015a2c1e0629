"""Coverage-guided fuzzing of what decodes requests: `pip install atheris`, then

    PYTHONPATH=. python tests/policy_server/fuzz_with_atheris.py CORPUS_DIR -max_total_time=600

Anything but an error of ours is a crash; libFuzzer writes the input that did it to a file.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["policy_protocol", "policy_server.session", "policy_server.policies.jpeg"]):
    from policy_protocol.errors import ChunkwireError
    from policy_protocol.jpeg import JpegImage
    from policy_protocol.protobuf_messages import parse_request, request_from_proto
    from policy_server.policies.jpeg import decoded
    from policy_server.session import Session
    from tests.policy_server import test_fuzz as seeds


def one_input(data):
    """The first byte says which way the rest comes in."""
    way, body = data[:1], data[1:]
    if way == b"g":
        with contextlib.suppress(ChunkwireError):
            Session(seeds.LIBERO, max_batch=8).admit(request_from_proto(parse_request(body)))
    elif way == b"j":
        with contextlib.suppress(ChunkwireError):
            decoded({"observation/image": JpegImage(body)}, seeds.CAMERAS)
    else:
        seeds.understand(body)


def main():
    """Start from valid messages."""
    corpus = Path(sys.argv[1])
    corpus.mkdir(parents=True, exist_ok=True)
    ways = {b"w": [*seeds.MESSAGES, *seeds.STEPS], b"g": seeds.PROTOS, b"j": seeds.JPEGS}
    for number, message in enumerate(way + body for way, bodies in ways.items() for body in bodies):
        (corpus / f"valid-{number}").write_bytes(message)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
