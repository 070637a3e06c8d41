# A bidder over OpenRTB JSON: POST anything, get bids or 204.

from __future__ import annotations

import asyncio
from collections.abc import Callable

from auction.edge.transports.http import BODY_S
from auction.edge.wire.http1 import Limits, Listener, Patience, Refused, Request, Response
from auction.model.auction import Encoding
from auction.model.clock import SystemClock
from bidders.answers import PROMPT_S, NotARequest, answer
from bidders.settings import Fault, Settings

_FIELDS = (("content-type", "application/json"), ("x-openrtb-version", "2.6"))
_PAGE = b"<!doctype html><title>504</title><p>The upstream server did not answer.</p>"

# 1 MiB: the largest request that an exchange of ours takes is a quarter of it, and its view is smaller.
_REQUEST_BYTES_MAX = 1024 * 1024

Done = Callable[[Response | None], None]


async def listen(settings: Settings, host: str, port: int) -> tuple[Listener, int]:
    """Serve POST; give the server and the port it got. OSError where that is impossible."""
    clock = SystemClock()
    limits, patience = Limits(_REQUEST_BYTES_MAX), Patience(request_s=BODY_S)
    listener = Listener(
        _Bidder(settings), limits, lambda: clock.wall_us() / 1e6, host=host, port=port, patience=patience
    )
    await listener.start()
    return listener, listener.port


class _Bidder:
    """What a bidder makes of a request, faults and all."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def accept(self, request: Request) -> Response | None:
        return None

    def answer(self, request: Request, done: Done) -> Callable[[], None]:
        assert request.body is not None
        try:
            told = answer(self._settings, request.body, Encoding.JSON)
        except NotARequest as error:
            done(_text(400, str(error)))
            return _settled
        if told.fault is Fault.RESET:
            response = None
        elif told.fault is Fault.REFUSE:
            response = _text(503, "")
        elif told.fault is Fault.WRONG_TYPE:
            response = Response(200, (("content-type", "text/html"),), _PAGE)
        elif told.fault is Fault.HALF:
            # A whole body is promised, half of it is sent, and we hang up.
            fields = (*_FIELDS, ("content-length", str(len(told.body))))
            response = Response(200, fields, told.body[: len(told.body) // 2], keep=False)
        elif told.body:
            response = Response(200, _FIELDS, told.body)
        else:
            response = Response(204)
        if told.delay_s > PROMPT_S:
            return asyncio.get_running_loop().call_later(told.delay_s, done, response).cancel
        done(response)
        return _settled

    def refuse(self, refused: Refused) -> Response:
        return _text(refused.status, refused.reason)


def _text(status: int, text: str) -> Response:
    return Response(status, (("content-type", "text/plain; charset=utf-8"),), text.encode())


def _settled() -> None:
    """Cancel what has already completed: nothing to do."""
