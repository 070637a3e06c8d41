# Coroutine tests run on a loop of their own, the one the product uses, and end within a bound. No plugin: this is it.

from __future__ import annotations

import asyncio
import inspect

import pytest
import uvloop

# A test that waits for longer hangs. No test takes a tenth of it, even beside others on a small machine.
TEST_S_MAX = 30


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(pyfuncitem.obj(**arguments), TEST_S_MAX))
    return True
