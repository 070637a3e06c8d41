# Envoy between: what most fleets have in front of their servers, and beside their clients. Both of its hops are
# plaintext, or both TLS.

from __future__ import annotations

import asyncio
import http.client
import json
import tempfile
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from tests.interop import python
from tests.interop.echo import AUTHORITY, CERTIFICATE, KEY, Fault, Way, ask, echoing
from tests.interop.programs import found, started

# How long it may take to listen, and how often it is looked for.
READY_S, LOOK_S = 30.0, 0.05

_EXTENSIONS = "type.googleapis.com/envoy.extensions"


@asynccontextmanager
async def between(way: Way, port: int) -> AsyncIterator[int]:
    """Put Envoy before whoever listens at `port`; give its own port."""
    route = {"route": {"cluster": "behind", "timeout": "60s"}}
    async with _started(_bootstrap(way, route, [_cluster(way, port)])) as own:
        yield own


@asynccontextmanager
async def answering(way: Way) -> AsyncIterator[int]:
    """Have Envoy answer by itself, with a page of 1 KiB; give its port."""
    route = {"direct_response": {"status": 200, "body": {"inline_string": "x" * 1_024}}}
    async with _started(_bootstrap(way, route, [])) as own:
        yield own


@asynccontextmanager
async def _started(bootstrap: dict[str, Any]) -> AsyncIterator[int]:
    program = found("envoy", "make interop installs it: requirements-drill.lock")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config, address, log = folder / "envoy.json", folder / "admin", folder / "log"
        config.write_text(json.dumps(bootstrap))
        words = ("--concurrency", "1", "--disable-hot-restart", "-l", "error", "--admin-address-path", address)
        async with started(program, "-c", config, *words, "--log-path", log, said=DEVNULL, erred=DEVNULL) as process:
            for _ in range(round(READY_S / LOOK_S)):
                port = await asyncio.to_thread(_port, _text(address))
                if port or process.returncode is not None:
                    break
                await asyncio.sleep(LOOK_S)
            if not port:
                raise Fault(f"Envoy does not listen: {_text(log)[-600:]}")
            yield port


def _text(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def _port(said: str) -> int:
    """Give the port of Envoy's only listener, 0 as long as it has none; `said` is where Envoy may be asked for it."""
    if not said:
        return 0
    connection = http.client.HTTPConnection(said, timeout=READY_S)
    try:
        connection.request("GET", "/listeners?format=json")
        listeners = json.loads(connection.getresponse().read()).get("listener_statuses", [])
    except OSError:
        return 0
    finally:
        connection.close()
    return int(listeners[0]["local_address"]["socket_address"]["port_value"]) if listeners else 0


def _bootstrap(way: Way, route: dict[str, Any], clusters: list[dict[str, Any]]) -> dict[str, Any]:
    manager = {
        "@type": f"{_EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "calls",
        "codec_type": "HTTP2",
        "route_config": {
            "virtual_hosts": [{"name": "echo", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, **route}]}]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_EXTENSIONS}.filters.http.router.v3.Router"},
            }
        ],
    }
    chain: dict[str, Any] = {
        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    }
    if way is not Way.PLAINTEXT:
        pair = {"certificate_chain": {"filename": str(CERTIFICATE)}, "private_key": {"filename": str(KEY)}}
        chain["transport_socket"] = _tls("Downstream", {"tls_certificates": [pair], "alpn_protocols": ["h2"]})
    listener = {"name": "echo", "address": _at(0), "filter_chains": [chain]}
    return {
        "node": {"id": "interop", "cluster": "interop"},
        "admin": {"address": _at(0)},
        "static_resources": {"listeners": [listener], "clusters": clusters},
    }


def _cluster(way: Way, port: int) -> dict[str, Any]:
    options = f"{_EXTENSIONS}.upstreams.http.v3.HttpProtocolOptions"
    endpoint = {"endpoint": {"address": _at(port)}}
    cluster = {
        "name": "behind",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "behind", "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": {
            options.partition("/")[2]: {"@type": options, "explicit_http_config": {"http2_protocol_options": {}}}
        },
    }
    if way is not Way.PLAINTEXT:
        believed = {
            "trusted_ca": {"filename": str(AUTHORITY)},
            "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "localhost"}}],
        }
        cluster["transport_socket"] = _tls(
            "Upstream", {"validation_context": believed, "alpn_protocols": ["h2"]}, sni="localhost"
        )
    return cluster


def _tls(side: str, context: dict[str, Any], **more: str) -> dict[str, Any]:
    kind = f"{_EXTENSIONS}.transport_sockets.tls.v3.{side}TlsContext"
    config = {"@type": kind, "common_tls_context": context, **more}
    return {"name": "envoy.transport_sockets.tls", "typed_config": config}


def _at(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


async def before_our_server(way: Way) -> str:
    """Have grpcio and grpc.aio ask us by way of Envoy."""
    async with echoing(way) as echo, between(way, echo.port) as port:
        calls = await asyncio.to_thread(python.ask_sync, f"127.0.0.1:{port}", way)
        calls += await python.ask_aio(f"127.0.0.1:{port}", way)
        return f"{calls} calls"


async def before_both(way: Way) -> str:
    """Ask our own server by way of Envoy."""
    async with echoing(way) as echo, between(way, echo.port) as port:
        await ask(port, way)
    return ""


async def before_grpcio(way: Way) -> str:
    """Ask grpc.aio by way of Envoy."""
    async with python.serving_aio(way, grpc.Compression.Gzip) as behind, between(way, behind) as port:
        await ask(port, way)
    return ""
