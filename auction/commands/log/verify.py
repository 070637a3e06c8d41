"""Check every frame, every number and every record."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from auction.commands.log.records import (
    FAULTS_MAX,
    Finding,
    Reading,
    clear_progress,
    counted,
    up_to,
    with_progress,
)
from auction.edge import eventlog


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print data instead of lines")


def run(arguments: argparse.Namespace, names: list[str]) -> int:
    listed: list[Finding] = []
    reading = Reading(names, up_to(FAULTS_MAX, listed) if arguments.json else _print_at_once)
    size = sum(map(os.path.getsize, names))
    # Asked before anything is read: a writer at work goes on, but what it has published by now must be there.
    published = {directory: eventlog.last_written(directory) for directory in _directories(arguments.log)}
    count = sum(1 for _ in with_progress(reading, size))
    for directory, last in published.items():
        end = reading.ends.get(directory, 0)
        if end < last:
            text = f"record {last} was published, and the segments end with {end}"
            reading.add(Finding("missing", os.path.join(directory, "last"), 0, 0, text))
    if arguments.json:
        told = {
            "whole": not reading.damage,
            "segments": len(names),
            "bytes": size,
            "records": count,
            "damage": reading.damage,
            "torn": reading.torn,
            "faults": msgspec.to_builtins(listed),
        }
        print(json.dumps(told, indent=2, ensure_ascii=False))
    else:
        state = f"damaged: {counted(reading.damage, 'fault')}" if reading.damage else "whole"
        torn = f", {counted(reading.torn, 'torn tail')}" if reading.torn else ""
        print(
            f"{state}{torn}; {counted(count, 'record')} in {counted(len(names), 'segment')} of {size} bytes can be read"
        )
    return 1 if reading.damage else 0


def _print_at_once(finding: Finding) -> None:
    clear_progress()
    print(finding)


def _directories(paths: Iterable[Path]) -> Iterator[str]:
    """Name the logs that were given whole, so that their ends are known."""
    for path in paths:
        if path.is_dir():
            for directory, _, files in os.walk(os.path.realpath(path)):
                if "last" in files:
                    yield directory
