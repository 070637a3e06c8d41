# What reflection knows. protobuf's pool finds the file of a message, a field, a service, but not that of a method, for
# which the protocol lets a client ask ("<package>.<service>[.<method>]" in reflection.proto), and ghz does.

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2


class Descriptors:
    """Answer what reflection asks of a pool, and find methods too."""

    # Around a pool: one that is derived from protobuf's class is made as if it were not.
    def __init__(self) -> None:
        self._pool = DescriptorPool()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:  # noqa: N802  as the pool's
        """Find the file that declares `symbol`; KeyError if none does."""
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            service, _, method = symbol.rpartition(".")
            found = self._pool.FindServiceByName(service)
            if method not in found.methods_by_name:
                raise
            return found.file


def described(files: Iterable[bytes]) -> Descriptors:
    """Describe these files, serialized and in the order of their imports, beside health and reflection."""
    descriptors = Descriptors()
    for serialized in (health_pb2.DESCRIPTOR.serialized_pb, reflection_pb2.DESCRIPTOR.serialized_pb, *files):
        descriptors.AddSerializedFile(serialized)
    return descriptors
