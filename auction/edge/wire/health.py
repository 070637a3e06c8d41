# grpc.health.v1, Check and Watch. Its messages are a string and a number, so they are written out by hand here: the
# wire has no use for protobuf otherwise.

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from auction.edge.wire.calls import Call, Handler
from auction.edge.wire.messages import Unreadable
from auction.edge.wire.statuses import Status

SERVICE: Final = "grpc.health.v1.Health"

_SERVING, _NOT_SERVING, _UNKNOWN = b"\x08\x01", b"\x08\x02", b"\x08\x03"


class Health:
    """What a server tells of itself, service by service; "" is the server as a whole."""

    def __init__(self) -> None:
        self.methods: Mapping[str, Handler] = {f"/{SERVICE}/Check": self._check}
        self.dialogues: Mapping[str, Handler] = {f"/{SERVICE}/Watch": self._watch}
        self._known: dict[str, bytes] = {}
        self._watches: dict[Call, str] = {}

    def tell(self, service: str, serving: bool) -> None:
        """Say whether a service is there; whoever watches it hears of a change."""
        state = _SERVING if serving else _NOT_SERVING
        if self._known.get(service) != state:
            self._known[service] = state
            for call, watched in list(self._watches.items()):
                if watched == service:
                    call.write(state)

    def _check(self, call: Call) -> None:
        try:
            state = self._known.get(_service(call.body))
        except Unreadable as fault:
            call.refuse(fault.status, str(fault))
            return
        if state is None:
            call.refuse(Status.NOT_FOUND, "no such service")
        else:
            call.answer(state)

    def _watch(self, call: Call) -> None:
        def asked(body: bytes) -> None:
            try:
                service = _service(body)
            except Unreadable as fault:
                call.refuse(fault.status, str(fault))
                return
            if call in self._watches:
                ended()
                call.refuse(Status.INVALID_ARGUMENT, "expected one request")
                return
            self._watches[call] = service
            call.write(self._known.get(service, _UNKNOWN))

        def ended() -> None:
            self._watches.pop(call, None)

        def going() -> None:
            ended()
            call.finish(Status.UNAVAILABLE, "the connection is about to go")

        call.on_message, call.on_cancel, call.on_drain = asked, ended, going


def _service(body: bytes) -> str:
    """Read a HealthCheckRequest: field 1, a string shorter than 128 octets, or nothing."""
    if not body:
        return ""
    if body[0] != 0x0A or len(body) < 2 or body[1] != len(body) - 2:
        raise Unreadable(Status.INVALID_ARGUMENT, "expected a HealthCheckRequest")
    return body[2:].decode(errors="replace")
