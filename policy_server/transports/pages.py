"""The pages that lie beside the WebSocket on the same port: health, metrics, the spec."""

from __future__ import annotations

import http
import json
from collections.abc import Mapping
from types import MappingProxyType

from websockets.datastructures import Headers
from websockets.http11 import Response

from policy_server.metrics import CONTENT_TYPE_LATEST
from policy_server.service import PolicyService

__all__ = ["OPEN_PAGES", "page", "text_page"]

OPEN_PAGES = ("/healthz", "/readyz")
"""Pages that need no key: who restarts the server must be able to ask how it is."""


def page(service: PolicyService, path: str) -> Response | None:
    """The page of a path, None when there is none."""
    if path == "/healthz":
        return text_page(http.HTTPStatus.OK, "OK")
    if path == "/readyz":
        if service.ready:
            return text_page(http.HTTPStatus.OK, "OK")
        return text_page(http.HTTPStatus.SERVICE_UNAVAILABLE, "draining" if service.draining else "compiling")
    if path == "/metrics":
        return _page(http.HTTPStatus.OK, service.metrics.page(), CONTENT_TYPE_LATEST)
    if path == "/spec":
        text = json.dumps(service.spec.to_wire(), indent=2) + "\n"
        return _page(http.HTTPStatus.OK, text.encode(), "application/json")
    return None


def text_page(status: http.HTTPStatus, text: str, headers: Mapping[str, str] = MappingProxyType({})) -> Response:
    """One plain line."""
    return _page(status, f"{text}\n".encode(), "text/plain; charset=utf-8", headers)


def _page(
    status: http.HTTPStatus, body: bytes, content_type: str, more: Mapping[str, str] = MappingProxyType({})
) -> Response:
    headers = {"Content-Type": content_type, "Content-Length": str(len(body)), "Connection": "close", **more}
    return Response(status.value, status.phrase, Headers(headers), body)
