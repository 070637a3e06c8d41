# A bidder over OpenRTB JSON: POST anything, get bids or 204.
#
# aiohttp's low-level server: no routes and no middlewares, because there is one thing to do.

from __future__ import annotations

import asyncio

from aiohttp import web

from auction.model.auction import Encoding
from bidders.answers import PROMPT_S, NotARequest, answer
from bidders.settings import Fault, Settings

_HEADERS = {"content-type": "application/json", "x-openrtb-version": "2.6"}
_PAGE = b"<!doctype html><title>504</title><p>The upstream server did not answer.</p>"

# How long answers under way may take once we stop listening: none. Going down means going down.
_GRACE_S = 0.0


async def listen(settings: Settings, host: str, port: int) -> tuple[web.ServerRunner, int]:
    """Serve POST; give the server and the port it got. OSError where that is impossible."""

    async def bid(request: web.BaseRequest) -> web.StreamResponse:
        try:
            told = answer(settings, await request.read(), Encoding.JSON)
        except NotARequest as error:
            return web.Response(status=400, text=str(error))
        if told.delay_s > PROMPT_S:
            await asyncio.sleep(told.delay_s)
        if told.fault is Fault.RESET and request.transport is not None:
            request.transport.abort()
        if told.fault is Fault.REFUSE:
            return web.Response(status=503)
        if told.fault is Fault.WRONG_TYPE:
            return web.Response(body=_PAGE, content_type="text/html")
        if told.fault is Fault.HALF:
            return await _half(request, told.body)
        return web.Response(body=told.body, headers=_HEADERS) if told.body else web.Response(status=204)

    runner = web.ServerRunner(web.Server(bid, access_log=None), shutdown_timeout=_GRACE_S)
    await runner.setup()
    site = web.TCPSite(runner, host, port, backlog=1024)
    try:
        await site.start()
    except OSError:
        await runner.cleanup()
        raise
    return runner, runner.addresses[0][1]


async def _half(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    """Promise a whole body, send half of it, and hang up."""
    response = web.StreamResponse(headers=_HEADERS)
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return response
