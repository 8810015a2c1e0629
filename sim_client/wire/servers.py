"""The servers that a client spreads its questions over: each in turn, the dead ones passed over until they are back."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

from policy_protocol.errors import ChunkwireError, ServerUnavailable, SpecMismatch
from policy_protocol.jpeg import JPEG_FEATURE
from policy_protocol.steps import STEPS_FEATURE
from sim_client.wire.credentials import Credentials
from sim_client.wire.grpc_link import GrpcLink
from sim_client.wire.link import HINT, Backoff, Greeting, Link, NotYetError, Say
from sim_client.wire.place import Place
from sim_client.wire.same_policy import require_same
from sim_client.wire.server_address import is_grpc
from sim_client.wire.websocket_link import WebSocketLink

__all__ = ["Servers"]

_ATTEMPT_S = 2.0
"""For one attempt where there are other servers to try."""


class Servers:
    """Links to servers of one policy.

    Args:
        urls: as `server_urls` writes them.
        connect_timeout: seconds for which servers that do not answer, or still compile, are tried again.
        any_step: other steps of the same run are the same policy.
        jpeg: every server must take JPEG images.
        on_wait: told once each time when the client waits, or goes on without a server.

    Raises:
        ServerUnavailable: none answered in time.
        SpecMismatch: two of them serve different policies, or one takes no JPEG; names the difference.
    """

    def __init__(
        self,
        urls: Sequence[str],
        credentials: Credentials,
        connect_timeout: float,
        on_wait: Callable[[str], None] | None = None,
        any_step: bool = False,
        jpeg: bool = False,
    ) -> None:
        self._any_step, self._jpeg = any_step, jpeg
        self._places = [Place(url) for url in urls]
        self._turn = random.randrange(len(urls))  # clients that start together do not all begin with the same server
        self._credentials = credentials
        self._connect_timeout = connect_timeout
        self._on_wait = on_wait or (lambda text: None)
        self._first: tuple[str, Greeting] | None = None
        self._starting = True
        self._wait_for_one(connect_timeout)
        self._starting = False

    @property
    def greeting(self) -> Greeting:
        """Of the server that answered first."""
        assert self._first is not None
        return self._first[1]

    @property
    def live(self) -> int:
        """How many servers there is a link to."""
        return sum(place.link is not None for place in self._places)

    @property
    def redials(self) -> int:
        """How often a link was made anew: each time it may be another process that answers."""
        return sum(max(0, place.links - 1) for place in self._places)

    def next_link(self, timeout_s: float | None = None) -> Link:
        """A link to the server whose turn it is, dialled again where it was lost.

        Args:
            timeout_s: where this is less than the time allowed for connecting.

        Raises:
            ServerUnavailable: none answered in time.
            SpecMismatch: the only server has come back with another policy; where another one is live, it is left out.
                Or servers that load steps on request each serve another one; says which.
        """
        self._drop_closed()
        self._require_one_step()
        for _ in self._places:
            place = self._places[self._turn]
            self._turn = (self._turn + 1) % len(self._places)
            if place.link is None and self.live and not place.resting:
                self._try_beside_others(place)
            if place.link is not None:
                return place.link
        return self._wait_for_one(min(self._connect_timeout, timeout_s or self._connect_timeout))

    def every_link(self) -> list[Link]:
        """Links to all servers, dialled where they are missing.

        Raises:
            ServerUnavailable: one of them did not answer in time; says which.
            SpecMismatch: one has come back with another policy.
        """
        self._drop_closed()
        deadline, backoff = time.monotonic() + self._connect_timeout, Backoff()
        say = self._say_once(f"Waiting up to {self._connect_timeout:g} s for every policy server of {self._names}")
        while missing := [place for place in self._places if place.link is None]:
            for place in missing:
                self._try(place, self._attempt_s(deadline), say, before_load=True)
            if still := [place for place in missing if place.link is None]:
                if time.monotonic() >= deadline:
                    raise ServerUnavailable(
                        f"The policy server at {still[0].url} does not answer ({still[0].reason}), and every one must "
                        f"load the step. {HINT}"
                    )
                say(self._reasons)
                time.sleep(backoff.next_s())
        return [place.link for place in self._places if place.link is not None]

    def moved(self) -> Greeting:
        """Every server has loaded one and the same other step: from here on that is the policy. Returns its greeting.

        Raises:
            SpecMismatch: two of them serve different policies.
        """
        links = [(place.url, place.link.greeting) for place in self._places if place.link is not None]
        first = links[0]
        for url, greeting in links[1:]:
            require_same(*first, url, greeting)
        self._first = first
        return first[1]

    def lost(self, link: Link, reason: str) -> None:
        """The link is of no use any more."""
        link.close()
        for place in self._places:
            if place.link is link:
                place.down(reason)
                if self.live:
                    self._tell_without(place)

    def close(self) -> None:
        """Hang up; doing it twice is fine."""
        for place in self._places:
            if place.link is not None:
                place.link.close()
                place.link = None

    def _require_one_step(self) -> None:
        """Connecting takes servers at different steps where the next thing may be to have them load one."""
        served = {place.url: str(place.link.greeting.spec.policy.checkpoint) for place in self._places if place.link}
        if self._any_step or len(set(served.values())) < 2:
            return
        each = ", ".join(f"{url} serves {checkpoint}" for url, checkpoint in served.items())
        raise SpecMismatch(
            f"The policy servers serve different checkpoints: {each}. Have all of them load one with load_step(STEP), "
            "start them with the same --checkpoint, or make the client with allow_newer_checkpoint=True.",
            field="policy.checkpoint",
        )

    def _drop_closed(self) -> None:
        """Without a rest: a server that hung up after a bad request is most likely well."""
        for place in self._places:
            if place.link is not None and not place.link.open:
                place.link.close()
                place.link = None

    def _wait_for_one(self, timeout_s: float) -> Link:
        """Try all servers, again and again until one answers.

        One that is wrong for good ends the start; later it does so only where no other one answers.
        """
        deadline, backoff = time.monotonic() + timeout_s, Backoff()
        say = self._say_once(f"Waiting up to {timeout_s:g} s for the policy server at {self._names}")
        while True:
            wrong = self._try_all(deadline, say)
            if self._starting and wrong is not None:
                raise wrong
            if live := [place for place in self._places if place.link is not None]:
                self._tell_missing()
                return live[self._turn % len(live)].link  # type: ignore[return-value]
            if wrong is not None:
                raise wrong
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._gave_up(timeout_s)
            say(self._reasons)
            time.sleep(min(left, backoff.next_s()))

    def _try_all(self, deadline: float, say: Say) -> ChunkwireError | None:
        """The error of the first one that is wrong for good."""
        wrong = None
        for place in self._places:
            try:
                self._try(place, self._attempt_s(deadline), say, before_load=self._starting)
            except ChunkwireError as error:
                place.down(error.message)
                wrong = wrong or error
        return wrong

    def _attempt_s(self, deadline: float) -> float:
        left = max(deadline - time.monotonic(), 0.1)
        return left if len(self._places) == 1 else min(left, _ATTEMPT_S)

    def _try_beside_others(self, place: Place) -> None:
        """Whatever is wrong with this server, a question goes on to one that is live."""
        before = place.reason
        try:
            self._try(place, _ATTEMPT_S, lambda reason: None)
        except ChunkwireError as error:
            place.down(error.message)
            if place.reason != before:
                self._tell_without(place)

    def _try(self, place: Place, timeout_s: float, say: Say, before_load: bool = False) -> None:
        """Dial. Before a step is loaded, servers that load one on request may each serve another of the run."""
        try:
            link = self._dial(place.url, timeout_s, say)
        except NotYetError as reason:
            place.down(str(reason))
            return
        try:
            self._first = self._first or (place.url, link.greeting)
            if self._jpeg:
                _require_jpeg(link)
            any_step = self._any_step or (before_load and STEPS_FEATURE in link.greeting.features)
            require_same(*self._first, place.url, link.greeting, any_step)
        except BaseException:
            link.close()
            raise
        place.up(link)

    def _dial(self, url: str, timeout_s: float, say: Say) -> Link:
        if is_grpc(url):
            return GrpcLink(url, self._credentials, timeout_s)
        return WebSocketLink(url, self._credentials, timeout_s, say)

    def _say_once(self, sentence: str) -> Say:
        listeners = [self._on_wait]

        def say(reason: str) -> None:
            while listeners:
                listeners.pop()(f"{sentence} ({reason}) …")

        return say

    def _tell_missing(self) -> None:
        for place in self._places:
            if place.link is None:
                self._tell_without(place)

    def _tell_without(self, place: Place) -> None:
        self._on_wait(f"Going on without the policy server at {place.url} until it is back ({place.reason}).")

    @property
    def _names(self) -> str:
        return ", ".join(place.url for place in self._places)

    @property
    def _reasons(self) -> str:
        if len(self._places) == 1:
            return self._places[0].reason
        return "; ".join(f"{place.url}: {place.reason}" for place in self._places)

    def _gave_up(self, timeout_s: float) -> ServerUnavailable:
        return ServerUnavailable(
            f"No policy server answers at {self._names} (tried for {timeout_s:g} s; {self._reasons}). {HINT} "
            "If it needs longer to start, raise --connect-timeout."
        )


def _require_jpeg(link: Link) -> None:
    if JPEG_FEATURE not in link.greeting.features:
        raise SpecMismatch(
            f"The policy server at {link.url} does not say that it takes JPEG images. Leave --jpeg-quality out, or "
            "install the same version of chunkwire on both sides."
        )
