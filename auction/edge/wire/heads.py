# What header fields mean to gRPC, read once for all the calls that repeat them.

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from auction.edge.wire import statuses
from auction.edge.wire.fields import Fields
from auction.edge.wire.statuses import CONTENT_TYPE, Ending, Status

if TYPE_CHECKING:
    from auction.edge.wire.calls import Handler

ENCODINGS = b"identity,gzip"


def _is_grpc(fields: Fields) -> bool:
    media = fields.value(b"content-type") or b""
    return media.startswith(CONTENT_TYPE) and media[len(CONTENT_TYPE) : len(CONTENT_TYPE) + 1] in (b"", b"+", b";")


class RequestHead:
    """A call as its header fields ask for it; without a `handler` it is refused as the rest says."""

    __slots__ = (
        "binary",
        "encoding",
        "handler",
        "http",
        "message",
        "method",
        "path",
        "status",
        "text",
        "timeout_s",
        "unary",
        "verb",
    )

    def __init__(self, fields: Fields, methods: Mapping[str, Handler], dialogues: Mapping[str, Handler]) -> None:
        self.verb = fields.value(b":method")
        self.path = fields.value(b":path") or b""
        self.method = self.path.decode("latin-1")
        self.http = self.verb != b"POST" or not _is_grpc(fields)
        self.text, self.binary = statuses.read(fields)
        self.encoding = fields.value(b"grpc-encoding") or b"identity"
        self.unary = self.method in methods
        self.handler: Handler | None = None
        self.status, self.message = Status.OK, ""
        timeout = fields.value(b"grpc-timeout")
        self.timeout_s = None if timeout is None else statuses.timeout_s(timeout)
        if self.http:
            return
        if timeout is not None and self.timeout_s is None:
            self.status, self.message = Status.INTERNAL, "expected grpc-timeout of digits and a unit"
        elif self.encoding not in (b"identity", b"gzip"):
            self.status = Status.UNIMPLEMENTED
            self.message = f"expected grpc-encoding identity or gzip, was {self.encoding.decode(errors='replace')}"
        else:
            self.handler = methods.get(self.method) or dialogues.get(self.method)
            if self.handler is None:
                self.status, self.message = Status.UNIMPLEMENTED, f"no method {self.method}"


class ResponseHead:
    """An answer as its first header fields begin it. `ending` counts where nothing follows; `fault` is no gRPC."""

    __slots__ = ("encoding", "ending", "fault", "message", "plain")

    def __init__(self, fields: Fields) -> None:
        self.ending = Ending(fields)
        self.encoding = fields.value(b"grpc-encoding") or b"identity"
        self.fault: Status | None = None
        self.message = ""
        status = fields.value(b":status") or b""
        if status != b"200":
            self.fault, self.message = statuses.of_http(int(status)), f"HTTP {status.decode()}"
        elif not _is_grpc(fields):
            media = (fields.value(b"content-type") or b"nothing").decode(errors="replace")
            self.fault, self.message = Status.UNKNOWN, f"expected content-type application/grpc, was {media}"
        self.plain = self.fault is None and self.encoding == b"identity"
