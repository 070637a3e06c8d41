# The example of auction/edge/wire/README.md, as it is printed there.

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parent.parent / "auction" / "edge" / "wire" / "README.md"


def test_the_examples_of_the_readme_say_hello_to_each_other() -> None:
    server, client = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    serving = subprocess.Popen([sys.executable, "-c", server], stdout=subprocess.PIPE, text=True)
    try:
        assert serving.stdout is not None
        port = serving.stdout.readline().strip()
        asked = subprocess.run([sys.executable, "-c", client, port], capture_output=True, text=True, timeout=20)
        assert ("hello\n", "") == (asked.stdout, asked.stderr)
        assert len(server.splitlines()) <= 22
        assert len(client.splitlines()) <= 24
    finally:
        serving.terminate()
        serving.communicate(timeout=10)
