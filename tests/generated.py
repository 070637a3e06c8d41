# Generated files: made here, committed, and compared here. One list, so that nothing generated goes stale unseen.

from __future__ import annotations

import argparse
import filecmp
import subprocess
import sys
import tempfile
from pathlib import Path

from auction.edge.metrics import markdown
from benchmarks.results import table
from deploy import values
from tests import promises, vectors

ROOT = Path(__file__).resolve().parent.parent
CONTRACT = sorted((ROOT / "proto" / "auction" / "v1").glob("*.proto"))
SERVICES = [path for path in CONTRACT if "\nservice " in path.read_text()]


def compile_contract(target: Path) -> None:
    """Generate Python from the contract into `target`/auction/v1: messages, their types, and clients of services."""
    base = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}"]
    subprocess.run([*base, f"--python_out={target}", f"--pyi_out={target}", *map(str, CONTRACT)], check=True)
    subprocess.run([*base, f"--grpc_python_out={target}", *map(str, SERVICES)], check=True)


def documents() -> dict[Path, str]:
    """Give each document that holds generated tables, with the tables as they should be, and each vector."""
    operations, benchmarks = ROOT / "docs" / "operations.md", ROOT / "docs" / "benchmarks.md"
    chart = values.CHART / "README.md"
    return {
        operations: between(operations.read_text(), "metrics", markdown()),
        benchmarks: between(benchmarks.read_text(), "results", table()),
        chart: between(chart.read_text(), "values", values.table()),
        values.CHART / "values.schema.json": values.schema(),
        promises.RULES: between(promises.RULES.read_text(), "settings", promises.settings_table()),
        **vectors.documents(),
    }


def left_over(made: dict[Path, str]) -> list[Path]:
    """Name the vectors whose scenario is gone."""
    return sorted(set(vectors.VECTORS.glob("*.json")) - set(made))


def between(text: str, name: str, table: str) -> str:
    """Put a table between its marks, `<!-- name -->` and `<!-- end -->`."""
    head, mark, rest = text.partition(f"<!-- {name} -->\n")
    _, end, tail = rest.partition("<!-- end -->")
    assert mark, name
    assert end, name
    return f"{head}{mark}{table.rstrip()}\n{end}{tail}"


def stale() -> list[str]:
    """Name the generated files that differ from what their source gives."""
    made = documents()
    changed = [path for path, text in made.items() if not path.exists() or text != path.read_text()]
    differing = [str(path.relative_to(ROOT)) for path in [*changed, *left_over(made)]]
    with tempfile.TemporaryDirectory() as folder:
        compile_contract(Path(folder))
        fresh = Path(folder) / "auction" / "v1"
        names = {path.name for path in fresh.iterdir()}
        committed = {path.name for path in (ROOT / "auction" / "v1").glob("*_pb2*")}
        others = [
            name for name in names & committed if not filecmp.cmp(fresh / name, ROOT / "auction/v1" / name, False)
        ]
        return differing + sorted(f"auction/v1/{name}" for name in [*others, *(names ^ committed)])


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--proto", action="store_true")
    parser.add_argument("--docs", action="store_true")
    arguments = parser.parse_args()
    if arguments.proto:
        compile_contract(ROOT)
    if arguments.docs:
        made = documents()
        for path, text in made.items():
            path.write_text(text)
        for path in left_over(made):
            path.unlink()
    if arguments.check and (names := stale()):
        print("\n".join(f"{name}: stale; run `make proto docs`" for name in names))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
