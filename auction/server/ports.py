# The ports of a process: gRPC, and the JSON edge with its pages.

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from auction.config import Config
from auction.config.tls import ServerTls
from auction.edge import tls
from auction.edge.transports.grpcio import GrpcServer
from auction.edge.transports.http import HttpServer, Page
from auction.edge.transports.wire import WireServer
from auction.exchange import METHODS, Exchange
from auction.model.auction import Encoding
from auction.model.clock import SystemClock
from auction.v1 import exchange_pb2


class Unstartable(Exception):
    """Why an exchange cannot start, in one line for whoever started it."""


class Ports:
    """Both doors of an exchange, as its settings say; several workers may share them.

    Raises Unstartable where the files of their TLS cannot be used.
    """

    def __init__(
        self,
        exchange: Exchange,
        config: Config,
        clock: SystemClock,
        pages: Mapping[str, Callable[[], Page]],
        shared: bool,
    ) -> None:
        self._server, limits = config.server, config.limits
        server = self._server
        by_encoding = {encoding: method for method, encoding in METHODS.items()}
        # What is secured, by the setting that says so.
        self.secured: dict[str, tls.Newest[Any]] = {}
        grpc: Callable[..., GrpcServer | WireServer]
        if server.transport == "wire":
            context = self._contexts("tls", server.tls, ["h2"])
            grpc = partial(WireServer, inflation_ratio=limits.inflation_ratio, tls=context)
        else:
            grpc = partial(GrpcServer, secured=self._contents("tls", server.tls))
        self.grpc = grpc(
            exchange,
            [by_encoding[Encoding.PROTOBUF]],
            clock,
            host=server.host,
            port=server.port,
            request_bytes=limits.request_bytes,
            connections=server.connections(),
            descriptors=descriptors(),
            reuse_port=shared,
        )
        self.http = HttpServer(
            exchange,
            [by_encoding[Encoding.JSON]],
            clock,
            host=server.host,
            port=server.http_port,
            pages=pages,
            request_bytes=limits.request_bytes,
            inflation_ratio=limits.inflation_ratio,
            reuse_port=shared,
            tls=self._contexts("http_tls", server.http_tls, ["http/1.1"]),
        )

    def _contexts(self, setting: str, given: ServerTls | None, protocols: list[str]) -> tls.ServerContexts | None:
        if given is None:
            return None
        with _startable(setting):
            contexts = tls.ServerContexts(protocols, given.files())
        self.secured[setting] = contexts.newest
        return contexts

    def _contents(self, setting: str, given: ServerTls | None) -> tls.Newest[tls.Contents] | None:
        if given is None:
            return None
        contents = tls.contents(given.files())
        with _startable(setting):
            contents()
        self.secured[setting] = contents
        return contents

    async def open(self) -> None:
        """Bind and listen, or raise Unstartable; `close` is due either way."""
        server = self._server
        for port, setting in ((self.grpc, "port"), (self.http, "http_port")):
            try:
                await port.start()
            except OSError as refusal:
                where = f"{server.host}:{getattr(server, setting)}"
                raise Unstartable(
                    f"server.{setting}: cannot listen on {where}, which is in use or not ours; choose another"
                ) from refusal

    async def leave(self) -> None:
        """Go on as before, and have callers go elsewhere: health says NOT_SERVING, connections of JSON end."""
        self.http.leave()
        await self.grpc.serving(False)

    async def close(self, grace_s: float) -> None:
        """Take nothing more, and answer what is under way for so long."""
        await asyncio.gather(self.grpc.stop(grace_s), self.http.stop(grace_s))


@contextmanager
def _startable(setting: str) -> Iterator[None]:
    try:
        yield
    except tls.Unusable as wrong:
        raise Unstartable(f"server.{setting}.{wrong.which}: {wrong}") from wrong


def descriptors() -> list[bytes]:
    """Serialise the files that the contract is made of, each behind those that it imports."""
    found: dict[str, bytes] = {}

    def add(file: Any) -> None:
        for imported in file.dependencies:
            add(imported)
        found.setdefault(file.name, file.serialized_pb)

    add(exchange_pb2.DESCRIPTOR)
    return list(found.values())
