# Who can be called, told to callers in the two ways of a cluster: a name with all addresses (a headless Service), and a
# list for a proxy (EDS). Both change at once; when a caller notices is its own business, as it is in a cluster.

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.drill.fleet import PORT, Pod

NAME = "auction.drill"
# Addresses are the same ones for as long as this; the callers here ask again when they lose one, not by the clock.
TTL_S = 1
_A = 1
_AUTHORITATIVE = 0x8580


class Endpoints(asyncio.DatagramProtocol):
    """A name server for one name, and the file that a proxy watches."""

    def __init__(self, eds: Path) -> None:
        self.file = eds
        self._addresses: list[str] = []
        self._transport: asyncio.DatagramTransport | None = None

    async def open(self) -> None:
        self.publish(())
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    @property
    def target(self) -> str:
        """What a caller's channel is made of."""
        assert self._transport is not None
        return f"dns://127.0.0.1:{self._transport.get_extra_info('sockname')[1]}/{NAME}:{PORT}"

    def publish(self, pods: Iterable[Pod]) -> None:
        """These and no others."""
        self._addresses = [pod.address for pod in pods]
        hosts = [{"endpoint": {"address": at(address, PORT)}} for address in self._addresses]
        assignment = {
            "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            "cluster_name": "auction",
            "endpoints": [{"lb_endpoints": hosts}],
        }
        beside = self.file.with_suffix(".new")
        beside.write_bytes(msgspec.json.encode({"version_info": "1", "resources": [assignment]}))
        beside.replace(self.file)  # the one change that Envoy watches for

    def datagram_received(self, data: bytes, address: tuple[str | Any, int]) -> None:
        assert self._transport is not None
        self._transport.sendto(answer(data, self._addresses), address)


def answer(question: bytes, addresses: list[str]) -> bytes:
    """Answer one question of DNS, whatever its name, with these addresses (RFC 1035, section 4)."""
    end = 12
    while question[end]:
        end += question[end] + 1
    end += 5
    (kind,) = struct.unpack_from(">H", question, end - 4)
    told = addresses if kind == _A else []
    # 0xC00C: the name that stands in the question.
    records = [struct.pack(">HHHIH", 0xC00C, _A, 1, TTL_S, 4) + socket.inet_aton(one) for one in told]
    head = question[:2] + struct.pack(">HHHHH", _AUTHORITATIVE, 1, len(told), 0, 0)
    return head + question[12:end] + b"".join(records)


def at(address: str, port: int) -> dict[str, Any]:
    """An address in Envoy's words."""
    return {"socket_address": {"address": address, "port_value": port}}
