# What stands between callers and servers: haproxy, which balances connections, and Envoy, which balances calls.

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.drill.endpoints import at
from benchmarks.drill.fleet import PORT, Broken, Pod

# How long a proxy may take to listen.
READY_S = 20.0
LOOK_S = 0.1
# How often a proxy asks its servers, and how soon it believes them: within a server's notice.
CHECK_MS = 250


class Proxy:
    """A proxy as a process, on an address of its own."""

    def __init__(self, name: str, words: Sequence[str], address: str, folder: Path) -> None:
        self.name = name
        self.target = f"{address}:{PORT}"
        self._words = words
        self._address = address
        self._said = folder / f"{name}.err"
        self._process: asyncio.subprocess.Process | None = None

    async def open(self) -> None:
        with self._said.open("wb") as said:
            self._process = await asyncio.create_subprocess_exec(
                *self._words, stdout=said, stderr=said, start_new_session=True
            )
        for _ in range(round(READY_S / LOOK_S)):
            if self._process.returncode is not None:
                break
            try:
                _, writer = await asyncio.open_connection(self._address, PORT)
            except OSError:
                await asyncio.sleep(LOOK_S)
            else:
                writer.close()
                return
        raise Broken(f"{self.name} does not listen on {self.target}: {self._said.read_text()[-300:]}")

    async def close(self) -> None:
        if self._process is not None:
            if self._process.returncode is None:
                self._process.kill()
            await self._process.wait()


def absent() -> list[str]:
    """Name the programs that are not here, each with where it comes from."""
    found = {"haproxy (Debian: apt-get install haproxy)": _haproxy(), "envoy (requirements-drill.lock)": _envoy()}
    return [name for name, path in found.items() if path is None]


def haproxy(name: str, address: str, pods: Sequence[Pod], folder: Path) -> Proxy:
    """Balance connections in turn over those of the pods that listen."""
    servers = [f"  server {pod.name} {pod.target} check inter {CHECK_MS}ms rise 1 fall 1" for pod in pods]
    config = folder / f"{name}.cfg"
    config.write_text(
        "\n".join(
            [
                "defaults",
                "  mode tcp",
                "  timeout connect 1s",
                "  timeout check 1s",
                "  timeout client 1h",
                "  timeout server 1h",
                "frontend calls",
                f"  bind {address}:{PORT}",
                "  default_backend servers",
                "backend servers",
                "  balance roundrobin",
                *servers,
                "",
            ]
        )
    )
    return Proxy(name, [_haproxy() or "haproxy", "-db", "-f", str(config)], address, folder)


def envoy(address: str, eds: Path, folder: Path) -> Proxy:
    """Balance calls in turn over the endpoints that the file lists and that say SERVING."""
    config = folder / "envoy.json"
    config.write_bytes(msgspec.json.encode(_bootstrap(address, eds)))
    words = [_envoy() or "envoy", "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
    return Proxy("envoy", words, address, folder)


_FILTERS = "type.googleapis.com/envoy.extensions.filters"


def _bootstrap(address: str, eds: Path) -> dict[str, Any]:
    manager = {
        "@type": f"{_FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "calls",
        "codec_type": "HTTP2",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "auction",
                    "domains": ["*"],
                    "routes": [
                        {
                            "match": {"prefix": "/"},
                            "route": {
                                "cluster": "auction",
                                "timeout": "10s",
                                # Both mean that no server has seen the call: it is sent once, not twice.
                                "retry_policy": {"retry_on": "connect-failure,refused-stream", "num_retries": 2},
                            },
                        }
                    ],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_FILTERS}.http.router.v3.Router"},
            }
        ],
    }
    h2c = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
    check_s = f"{CHECK_MS / 1000}s"
    cluster = {
        "name": "auction",
        "type": "EDS",
        "eds_cluster_config": {
            "eds_config": {
                "path_config_source": {"path": str(eds), "watched_directory": {"path": str(eds.parent)}},
                "resource_api_version": "V3",
            }
        },
        "connect_timeout": "1s",
        "lb_policy": "ROUND_ROBIN",
        # None is healthy is none: half of the fleet stopping is no reason to call those that said that they stop.
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        # A pod that is taken from the list is called no more, whatever its health.
        "ignore_health_on_host_removal": True,
        "typed_extension_protocol_options": h2c,
        "health_checks": [
            {
                "timeout": "1s",
                "interval": check_s,
                "no_traffic_interval": check_s,
                "unhealthy_threshold": 1,
                "healthy_threshold": 1,
                "grpc_health_check": {"service_name": "auction"},
            }
        ],
    }
    listener = {
        "name": "calls",
        "address": at(address, PORT),
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    return {
        "node": {"id": "drill", "cluster": "drill"},
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
    }


def _haproxy() -> str | None:
    return shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")


def _envoy() -> str | None:
    return shutil.which("envoy") or shutil.which("envoy", path=str(Path(sys.executable).parent))
