# The house rules that no linter knows: each hard thing has one home, files stay readable, nothing forbidden is said.

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(
    path
    for folder in ("auction", "bidders")
    for path in (ROOT / folder).rglob("*.py")
    if "v1" not in path.relative_to(ROOT).parts
)

# What is hard to hold, and the only places that may hold it.
HOMES = {
    "numba": ("auction/core/kernels",),
    "time": ("auction/model/clock.py",),
    "google.protobuf": ("auction/core/openrtb", "auction/core/record.py", "auction/edge/transports", "bidders"),
    "grpc": ("auction/edge/transports", "auction/commands", "bidders"),
    "httptools": ("auction/edge/wire/http1",),
    "aiohttp": (),
    "prometheus_client": ("auction/edge/metrics.py",),
    "random": (),
    "google_crc32c": ("auction/edge/eventlog.py",),
    "yaml": ("auction/config", "auction/commands"),
    "pydantic": ("auction/config",),
}

FORBIDDEN_NAMES = ("utils", "helpers", "common", "base", "manager", "handler", "service", "misc", "lib")


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("thing", HOMES)
def test_each_hard_thing_has_one_home(thing: str) -> None:
    strangers = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if any(name == thing or name.startswith(f"{thing}.") for name in imported(path))
        and not str(path.relative_to(ROOT)).startswith(HOMES[thing] or ("/",))
    ]
    assert strangers == []


def test_only_the_configuration_reads_the_environment() -> None:
    readers = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if "os.environ" in path.read_text() or "getenv" in path.read_text()
    ]
    assert [path for path in readers if not path.startswith(("auction/config", "auction/commands"))] == []


def test_modules_are_nouns_of_the_field() -> None:
    assert [str(path) for path in SOURCES if path.stem in FORBIDDEN_NAMES] == []


def test_no_file_is_too_long_to_read() -> None:
    # 800 lines is the longest that still has one subject here; most files are a third of it.
    assert [str(path.relative_to(ROOT)) for path in SOURCES if len(path.read_text().splitlines()) > 800] == []


def test_assertions_stay_on_in_production() -> None:
    started = [ROOT / "Makefile", ROOT / "pyproject.toml"]
    assert [path.name for path in started if "python -O" in path.read_text()] == []
