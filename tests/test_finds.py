# What `make fuzz` found, once each: mended since, and held to it.
#
# A find is one auction in a file of tests/finds: rules, arrival and replies, and what was wrong with it. The first
# executions of a run stand beside them, so that what makes and checks them is itself held to work.

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from auction.model.auction import Encoding
from auction.model.reply import Reply, ReplyStatus
from tests.fuzz import cases, mutations, run, wire
from tests.fuzz.invariants import NOTHING, REFUSED, SOLD, check

FINDS = sorted(cases.FINDS.glob("*.json"))


@pytest.mark.parametrize("path", FINDS, ids=lambda path: path.stem)
def test_find_stays_mended(path: Path) -> None:
    assert json.loads(path.read_text(encoding="utf-8"))["why"]
    check(cases.read(path))


def test_the_first_executions_break_nothing_and_end_in_every_way() -> None:
    ends = [check(cases.made(0, number)) for number in range(400)]
    for end in (REFUSED, NOTHING, SOLD):
        assert ends.count(end) > 20


def test_a_case_is_a_function_of_its_seed_and_number() -> None:
    once, again, other = (cases.made(seed, 7) for seed in (1, 1, 2))
    assert (once.arrival, once.replies) == (again.arrival, again.replies)
    assert once.arrival != other.arrival


def test_a_case_is_read_from_its_file_as_it_was_written(tmp_path: Path) -> None:
    for number in range(30):
        case = cases.made(3, number)
        again = cases.read(cases.write(case, "why", f"case {number}", tmp_path))
        assert (case.arrival, case.replies) == (again.arrival, again.replies)
        assert case.rules.digest == again.rules.digest


def test_a_case_that_breaks_something_is_named_and_made_smaller() -> None:
    # A reply that stands for another bidder than it is from breaks a promise to close_auction.
    case = next(case for case in (cases.made(4, number) for number in range(100)) if len(case.replies) > 1)
    name = next(iter(case.replies))
    broken = msgspec.structs.replace(case, replies={**case.replies, name: Reply("nobody", ReplyStatus.BID, b"x" * 40)})
    fault = run.run(broken)[1]
    assert fault is not None
    assert fault.startswith("AssertionError in auction close_auction")
    small = run.smaller(broken, fault)
    assert fault == run.run(small)[1]
    assert 1 == len(small.replies)
    assert len(small.replies[name].body) < 10


def test_fields_of_a_message_join_to_the_same_bytes() -> None:
    for number in range(40):
        case = cases.made(5, number)
        if case.arrival.encoding is Encoding.PROTOBUF:
            found = mutations.fields(case.arrival.body)
            if found is not None:
                again = b"".join(wire.key(field, wire_type) + value for field, wire_type, value in found)
                assert len(again) <= len(case.arrival.body)
                assert found == mutations.fields(again)
