# Ad servers in numbers: each calls the exchange, waits, and calls again, over gRPC or over JSON.
#
# A closed loop, which is what a fleet of ad servers is as long as it has patience: a slow exchange is asked less. For
# tails without that mercy there is `auction load`. `make load` runs this headless against the demo's processes, `make
# load-ui` with locust's page; by hand:
#
#   locust -f benchmarks/locustfile.py --grpc-target 127.0.0.1:7400 --host http://127.0.0.1:7480

from __future__ import annotations

import time
from itertools import count
from typing import Any

import grpc
import grpc.experimental.gevent as grpc_gevent
from locust import FastHttpUser, User, constant_throughput, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.exception import StopUser

from auction.commands.load import loopback
from auction.edge.transports.caller import METHOD, PATH, host_of
from bidders.bundled import bundled

# Without this the first call blocks every greenlet of the process, for ever. It must come before any channel.
grpc_gevent.init_gevent()

# Calls a second of one ad server: thirty of them are well within what two cores can answer beside everything else.
PACE = 5.0
TIMEOUT_S = 5.0

REQUESTS = bundled()
NUMBERS = count()
RUN = f"locust-{time.time_ns() // 1000:x}"


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def arguments(parser: LocustArgumentParser) -> None:
    parser.add_argument("--grpc-target", default="127.0.0.1:7400", help="host:port of the exchange's gRPC door")
    parser.add_argument("--host-is-mine", default="", help="load this host, which is not this machine")


@events.init.add_listener  # type: ignore[untyped-decorator]
def stay_here(environment: Environment, **_: Any) -> None:
    options = environment.parsed_options
    if options is None:
        return
    for target in (options.grpc_target, options.host or "http://127.0.0.1:7480"):
        host = host_of(target)
        if not loopback(host) and options.host_is_mine != host:
            raise SystemExit(f"{host}: not this machine; if it is yours to load, say --host-is-mine {host}")


class MessageAdServer(User):
    """Calls Exchange/Auction."""

    wait_time = constant_throughput(PACE)

    def on_start(self) -> None:
        options = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))
        self.channel = grpc.insecure_channel(self.environment.parsed_options.grpc_target, options=options)
        self.auction: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(METHOD)

    def on_stop(self) -> None:
        self.channel.close()

    @task
    def call(self) -> None:
        number = next(NUMBERS)
        body = REQUESTS[number % len(REQUESTS)].body(f"{RUN}-{number}", json=False)
        begin = time.perf_counter()
        answer, failure = b"", None
        try:
            answer = self.auction(body, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            failure = error
            if error.code() is grpc.StatusCode.CANCELLED:
                raise StopUser from error
        self.environment.events.request.fire(
            request_type="gRPC",
            name="Auction",
            response_time=(time.perf_counter() - begin) * 1000,
            response_length=len(answer),
            exception=failure,
            context={},
        )


class JsonAdServer(FastHttpUser):
    """Posts OpenRTB JSON."""

    host = "http://127.0.0.1:7480"
    wait_time = constant_throughput(PACE)
    network_timeout = connection_timeout = TIMEOUT_S

    @task
    def call(self) -> None:
        number = next(NUMBERS)
        body = REQUESTS[number % len(REQUESTS)].body(f"{RUN}-{number}", json=True).decode()
        self.client.post(PATH, data=body, headers={"content-type": "application/json"}, name="auction")
