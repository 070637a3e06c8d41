# The C++ engines: built where a compiler and gRPC's C++ library are, from the messages of the contract.
#
# protoc of the distributions is older than the edition that the contract is written in, so it is given the contract's
# descriptors as proto2, where everything means the same: presence is explicit, and what is packed is said.

"""Engines in C++."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from google.protobuf import struct_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet

from auction.v1 import bidder_pb2, exchange_pb2, openrtb_pb2
from benchmarks.peers.processes import ENGINE_CORE, announced
from benchmarks.peers.turns import Ports, Running, Skipped

SOURCE: Final = Path(__file__).parent / "engine.cc"
BUILT: Final = Path(__file__).parents[3] / "var" / "peers"
CONTRACT: Final = (openrtb_pb2, bidder_pb2, exchange_pb2)
PACKAGES: Final = "on Debian: apt-get install g++ pkg-config libgrpc++-dev libprotobuf-dev protobuf-compiler-grpc"


def auction(stack: ExitStack, ports: Ports) -> Running:
    """Start the engine that decides by second price; Skipped where it cannot be built."""
    return _started(stack, "auction", ports)


def transport(stack: ExitStack, ports: Ports) -> Running:
    """Start the engine without an auction; Skipped where it cannot be built."""
    return _started(stack, "transport", ports)


def _started(stack: ExitStack, role: str, ports: Ports) -> Running:
    line = announced(stack, [str(program()), role, *map(str, ports.grpc)], ENGINE_CORE)
    return Running(int(line["pid"]), int(line["port"]))


def program() -> Path:
    """Build the program where it is not there yet; Skipped says what is missing."""
    absent = [word for word in ("g++", "protoc", "grpc_cpp_plugin", "pkg-config") if shutil.which(word) is None]
    if absent:
        raise Skipped(f"expected {', '.join(absent)} on PATH; {PACKAGES}")
    if subprocess.run(["pkg-config", "--exists", "grpc++", "protobuf"], check=False).returncode:
        raise Skipped(f"expected grpc++ and protobuf to be known to pkg-config; {PACKAGES}")
    contract = descriptors().SerializeToString(deterministic=True)
    found = BUILT / f"engine-{hashlib.sha256(contract + SOURCE.read_bytes()).hexdigest()[:12]}"
    if not found.exists():
        print("  building the C++ engines, which takes a minute ...", file=sys.stderr)
        BUILT.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BUILT) as folder:
            os.replace(_built(Path(folder), contract), found)
    return found


def _built(folder: Path, contract: bytes) -> Path:
    (folder / "contract").write_bytes(contract)
    plugin = shutil.which("grpc_cpp_plugin")
    names = [module.DESCRIPTOR.name for module in CONTRACT]
    _run("protoc", f"--descriptor_set_in={folder / 'contract'}", f"--cpp_out={folder}", f"--grpc_out={folder}",
         f"--plugin=protoc-gen-grpc={plugin}", *names)  # fmt: skip
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "grpc++", "protobuf"], capture_output=True, text=True, check=True
    ).stdout.split()
    _run("g++", "-std=c++17", "-O2", "-DNDEBUG", f"-I{folder}", "-o", str(folder / "engine"), str(SOURCE),
         *map(str, sorted(folder.rglob("*.cc"))), *flags)  # fmt: skip
    return folder / "engine"


def _run(*command: str) -> None:
    """Run one step of building; one that fails is a reason to do without, told in its first line."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        raise Skipped(f"{command[0]} failed: {next((line for line in said if 'error' in line), said[0])}")


def descriptors() -> FileDescriptorSet:
    """Give the contract as proto2, with the one file of protobuf's own that it needs."""
    files = FileDescriptorSet()
    files.file.add().ParseFromString(struct_pb2.DESCRIPTOR.serialized_pb)
    for module in CONTRACT:
        file = FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)
        file.ClearField("edition")
        file.syntax = "proto2"
        _packed(file.extension, file.message_type)
        files.file.append(file)
    return files


_NEVER_PACKED: Final = {
    FieldDescriptorProto.TYPE_STRING,
    FieldDescriptorProto.TYPE_BYTES,
    FieldDescriptorProto.TYPE_MESSAGE,
    FieldDescriptorProto.TYPE_GROUP,
}


def _packed(fields: Iterable[FieldDescriptorProto], messages: Iterable[DescriptorProto]) -> None:
    """Say of lists of numbers that they are packed, which editions take for granted and proto2 does not."""
    for field in fields:
        if field.label == FieldDescriptorProto.LABEL_REPEATED and field.type not in _NEVER_PACKED:
            field.options.packed = True
    for message in messages:
        _packed((*message.field, *message.extension), message.nested_type)
