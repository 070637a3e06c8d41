# Real processes for tests: an exchange as an operator starts it, and a bidder that does what a test tells it to.

from __future__ import annotations

import gzip
import http.client
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import grpc

from auction.core.openrtb.json import request_bytes, response_json
from auction.v1 import exchange_pb2  # noqa: F401  registers Explanation where responses are read

# How long a test waits for another process before it fails; none ever waits that long when all is well.
PATIENCE_S = 20.0
METHOD = "/auction.v1.Exchange/Auction"
NO_BID: dict[str, Any] = {}


class Answer(NamedTuple):
    """What the JSON edge said."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class ExchangeProcess:
    """`auction serve` with these settings (None: what stands in `config`), ready; its files are in `folder`."""

    def __init__(
        self,
        folder: Path,
        settings: dict[str, Any] | None,
        *,
        config: Path | None = None,
        program: Sequence[str] = ("-m", "auction"),
    ) -> None:
        self.config = config or folder / "config.yaml"
        self.lines: list[dict[str, Any]] = []
        if settings is not None:
            configure(self.config, settings)
        self.environment = {**os.environ, "TMPDIR": str(folder)}
        if "notice_ms" not in ((settings or {}).get("server") or {}):
            # Watchers of health hear of a stop in a moment here, and tests stop often.
            self.environment["AUCTION_SERVER__NOTICE_MS"] = "100"
        self.process = subprocess.Popen(
            [sys.executable, *program, "serve", "--config", self.config, "--port", "0", "--http-port", "0"],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._said: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        assert self.process.stdout is not None
        ready = self.process.stdout.readline()
        if not ready:
            self.end()
            raise AssertionError(f"no ready line; it said {self.lines}")
        self.ready: dict[str, Any] = json.loads(ready)
        self.channel = grpc.insecure_channel(self.ready["grpc"])

    def grpc(self, request: dict[str, Any], *, explain: bool = False, timeout: float | None = PATIENCE_S) -> Any:
        """Call Exchange/Auction; give the response as OpenRTB JSON. Raises grpc.RpcError."""
        return read_response(self.ask(request, explain=explain, timeout=timeout).result())

    def ask(
        self,
        request: dict[str, Any],
        *,
        explain: bool = False,
        timeout: float | None = PATIENCE_S,
        channel: grpc.Channel | None = None,
    ) -> Any:
        """Begin a call of Exchange/Auction; give grpcio's future of the message's bytes."""
        call = (channel or self.channel).unary_unary(METHOD)
        metadata = (("x-auction-explain", "1"),) if explain else ()
        return call.future(message_of(request), timeout=timeout, metadata=metadata, wait_for_ready=True)

    def post(self, body: bytes | dict[str, Any], headers: dict[str, str] | None = None) -> Answer:
        """Post to the JSON edge."""
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.http("POST", "/openrtb2/auction", body, {"content-type": "application/json", **(headers or {})})

    def get(self, path: str) -> Answer:
        return self.http("GET", path, b"", {})

    def http(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        connection = http.client.HTTPConnection(urlsplit(self.ready["http"]).netloc, timeout=PATIENCE_S)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def metric(self, sample: str) -> float:
        """Read one sample of /metrics, such as `auction_in_flight` or `auction_auctions_total{outcome="sold"}`."""
        for line in self.get("/metrics").body.decode().splitlines():
            name, _, value = line.rpartition(" ")
            if name == sample:
                return float(value)
        raise AssertionError(f"no {sample} in /metrics")

    def until(self, message: str) -> dict[str, Any]:
        """Wait for a line of its log that says this, which no earlier call has returned."""
        while (line := self._said.get(timeout=PATIENCE_S)) is not None:
            if line.get("message") == message:
                return line
        raise AssertionError(f"ended without saying {message!r}; it said {self.lines}")

    def command(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run another command of the program, as the same user."""
        return command(*words, environment=self.environment)

    def kill(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal it and wait for its end; give the exit code."""
        if self.process.poll() is None:
            self.kill(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end; give the exit code."""
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        if hasattr(self, "channel"):
            self.channel.close()
        return code

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for text in lines:
                try:
                    line = json.loads(text)
                except ValueError:
                    line = {"unstructured": text.decode(errors="replace")}
                self.lines.append(line)
                self._said.put(line)
        self._said.put(None)


@contextmanager
def exchange(folder: Path, settings: dict[str, Any] | None, **options: Any) -> Iterator[ExchangeProcess]:
    """An exchange for as long as the block runs; killed if the block fails to end it."""
    process = ExchangeProcess(folder, settings, **options)
    try:
        yield process
    finally:
        process.end(signal.SIGKILL)


def command(*words: str | Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run one command of the program to its end."""
    return subprocess.run(
        [sys.executable, "-m", "auction", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def configure(path: Path, settings: dict[str, Any]) -> None:
    """Write a configuration, in one step as a careful editor does. JSON is YAML."""
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(settings))
    beside.replace(path)


Strategy = Callable[[dict[str, Any]], dict[str, Any]]


class Bidder:
    """A bidder over HTTP in this process: `strategy` makes a BidResponse of a request; `asked` has what arrived.

    Between `hold()` and `release()` it answers nobody.
    """

    def __init__(self, strategy: Strategy) -> None:
        self.asked: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._free = threading.Event()
        self._free.set()
        bidder = self

        class Calls(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["content-length"])))
                bidder.asked.put(request)
                assert bidder._free.wait(PATIENCE_S)
                response = strategy(request)
                body = json.dumps(response).encode() if response else b""
                self.send_response(200 if body else 204)
                if body:
                    self.send_header("content-type", "application/json")
                    self.send_header("content-length", str(len(body)))
                with suppress(OSError):  # an exchange that no longer waits
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Calls)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/bid"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def hold(self) -> None:
        self._free.clear()

    def release(self) -> None:
        self._free.set()

    def close(self) -> None:
        self.release()
        self._server.shutdown()
        self._thread.join(PATIENCE_S)
        self._server.server_close()


@contextmanager
def bidder(strategy: Strategy) -> Iterator[Bidder]:
    serving = Bidder(strategy)
    try:
        yield serving
    finally:
        serving.close()


class RatesServer:
    """A source of exchange rates over HTTP in this process: it answers with `snapshot`, None: 503.

    Between `hold()` and `release()` it answers nobody.
    """

    def __init__(self, snapshot: dict[str, Any] | None) -> None:
        self.snapshot = snapshot
        self._free = threading.Event()
        self._free.set()
        source = self

        class Calls(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                assert source._free.wait(PATIENCE_S)
                snapshot = source.snapshot
                with suppress(OSError):
                    self.send_response(503 if snapshot is None else 200)
                    self.end_headers()
                    self.wfile.write(json.dumps(snapshot).encode())

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Calls)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/rates.json"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def hold(self) -> None:
        self._free.clear()

    def release(self) -> None:
        self._free.set()

    def close(self) -> None:
        self.release()
        self._server.shutdown()
        self._thread.join(PATIENCE_S)
        self._server.server_close()


@contextmanager
def rates_server(snapshot: dict[str, Any] | None) -> Iterator[RatesServer]:
    serving = RatesServer(snapshot)
    try:
        yield serving
    finally:
        serving.close()


def bids(price: float, cur: str = "USD") -> Strategy:
    """Bid this much for every impression."""

    def strategy(request: dict[str, Any]) -> dict[str, Any]:
        offers = [{"id": f"b{imp['id']}", "impid": imp["id"], "price": price, "adm": "<b>"} for imp in request["imp"]]
        return {"id": request["id"], "cur": cur, "seatbid": [{"seat": "s", "bid": offers}]}

    return strategy


def bids_nothing(request: dict[str, Any]) -> dict[str, Any]:
    return NO_BID


def a_request(**fields: Any) -> dict[str, Any]:
    """A request for one banner."""
    return {"id": "r1", "imp": [{"id": "1", "banner": {"w": 300, "h": 250}}], "cur": ["USD"], **fields}


def message_of(request: dict[str, Any]) -> bytes:
    return request_bytes(json.dumps(request).encode(), lenient=False, depth=32).message


def read_response(message: bytes) -> Any:
    return json.loads(response_json(message, rest=True))


def packed(request: dict[str, Any]) -> bytes:
    return gzip.compress(json.dumps(request).encode())
