# One page of metrics out of those of several processes, as text, because that is what they leave behind.
#
# Counters and histograms add up, also those of a process that is gone: a total that falls would be read as a restart of
# all of them. What a gauge of several is stands in the table. Nothing is parsed but names, labels stay text.

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from auction.edge.metrics import TABLE

# The page of all, in the directory of the workers' own.
PAGE: Final = "all.prom"
# How often each is written. What is scraped is at most twice as old; scrapes are 15 s apart or more.
SHARE_S: Final = 1.0

_OVER: Final[dict[str, Callable[[float, float], float]]] = {
    **{metric.name: max if metric.over == "most" else min for metric in TABLE if metric.over != "sum"},
    # Of prometheus_client's own.
    "process_start_time_seconds": min,
    "process_max_fds": min,
}


def merged(pages: Iterable[bytes]) -> bytes:
    """Make one page of several, families in the order in which they are first met."""
    heads: dict[str, list[str]] = {}
    samples: dict[str, dict[str, float]] = {}
    for page in pages:
        family = ""
        for line in page.decode().splitlines():
            if line.startswith("# "):
                family = line.split(" ", 3)[2]
                known = heads.setdefault(family, [])
                if line not in known:
                    known.append(line)
                samples.setdefault(family, {})
                continue
            name, _, value = line.rpartition(" ")
            together = samples.setdefault(family, {})
            over = _OVER.get(family, _sum)
            together[name] = over(together[name], float(value)) if name in together else float(value)
    lines = [
        line
        for family, found in samples.items()
        for line in (*heads.get(family, ()), *(f"{name} {value!r}" for name, value in found.items()))
    ]
    return "".join(f"{line}\n" for line in lines).encode()


def counted(page: bytes) -> bytes:
    """Leave out the gauges: what counts of a process that is gone."""
    kept = []
    kind = ""
    for line in page.decode().splitlines():
        if line.startswith("# HELP "):
            help = line
        elif line.startswith("# TYPE "):
            kind = line.rpartition(" ")[2]
            if kind != "gauge":
                kept += [help, line]
        elif kind != "gauge":
            kept.append(line)
    return "".join(f"{line}\n" for line in kept).encode()


def plain(values: Mapping[str, float]) -> bytes:
    """Write a page of metrics of the table that have no labels."""
    lines = []
    for metric in TABLE:
        if metric.name in values:
            lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}"]
            lines.append(f"{metric.name} {float(values[metric.name])!r}")
    return "".join(f"{line}\n" for line in lines).encode()


def _sum(one: float, other: float) -> float:
    return one + other
