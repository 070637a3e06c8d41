# HTTP/1.1 connections without a socket: what bytes mean, however they are cut, and what they cannot do.

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auction.edge.wire.http1.client import INFORMATIONAL_MAX, ClientConnection
from auction.edge.wire.http1.errors import Failure, Fault, Refused
from auction.edge.wire.http1.messages import Answer, Heads, Limits, Response, address, request_head
from auction.edge.wire.http1.server import PIPELINED_MAX, Begun, Event, ServerConnection, Whole

LIMITS = Limits(body_bytes=2000, head_bytes=1000, fields=20, chunks=50)
HOST = b"POST /a HTTP/1.1\r\nhost: x\r\n"
OK = b"HTTP/1.1 200 OK\r\n"


def told(event: Event) -> object:
    """Write an event as plain values: a request's body may come after the event did."""
    if isinstance(event, Refused):
        return (event.status, event.reason)
    request = event.request
    if isinstance(event, Whole):
        return request.body
    return (request.method, request.target, dict(request.fields), request.length, request.keep, request.expects)


def heard(pieces: list[bytes], limits: Limits = LIMITS) -> list[object]:
    connection = ServerConnection(limits)
    return [told(event) for piece in pieces for event in connection.receive(piece)]


def answered(pieces: list[bytes], end: bool = False, limits: Limits = LIMITS) -> object:
    """Give how one exchange ended, and whether another may follow."""
    connection = ClientConnection(limits)
    connection.ask()
    ending: Answer | Failure | None = None
    for piece in pieces:
        found = connection.receive(piece)
        ending = ending or found
    if end and ending is None:
        ending = connection.eof()
    if isinstance(ending, Answer):
        return (ending.status, dict(ending.fields), ending.body, connection.fit)
    return ending and (ending.fault, ending.detail)


def bodies(pieces: list[bytes]) -> list[bytes]:
    return [event for event in heard(pieces) if isinstance(event, bytes)]


# ------------------------------------------------------------------------------------------------- cut anywhere

SAID = {
    "two_posts": HOST + b"content-length: 3\r\n\r\nabc" + HOST + b"content-length: 0\r\n\r\n",
    "chunks_with_extensions_and_trailers": HOST
    + b"transfer-encoding: Chunked\r\n\r\n3;x=1\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\nhost: y\r\n\r\n"
    + b"GET /b?c=d HTTP/1.1\r\nHost: y\r\n\r\n",
    "blank_lines_before": b"\r\n\r\nGET / HTTP/1.1\r\nhost: x\r\nA:  b \r\n\r\n",
    "an_upgrade_that_is_not_taken_up": b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"
    b"GET /next HTTP/1.1\r\nhost: x\r\n\r\n",
    "more_behind_the_last": b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\nGET / HTTP/1.1\r\nhost: x\r\n\r\n",
    "expects": HOST + b"expect: 100-continue\r\ncontent-length: 2\r\n\r\nab",
    "an_old_one": b"GET / HTTP/1.0\r\n\r\n",
    "an_old_one_kept": b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\nGET /2 HTTP/1.0\r\n\r\n",
    "two_lengths": HOST + b"content-length: 3\r\ncontent-length: 3\r\n\r\nabc",
    "a_good_one_before_a_bad": HOST + b"content-length: 1\r\n\r\na" + HOST + b"a b: c\r\n\r\n",
    "a_broken_chunk": HOST + b"transfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n",
    "too_large_by_its_length": HOST + b"content-length: 2001\r\n\r\n",
    "too_large_in_chunks": HOST + b"transfer-encoding: chunked\r\n\r\n" + (b"64\r\n" + b"x" * 100 + b"\r\n") * 21,
    "too_many_chunks": HOST + b"transfer-encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 51,
    "too_long_a_target": b"GET /" + b"a" * 1000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
    "too_many_fields": HOST + b"".join(b"a%d: b\r\n" % n for n in range(20)) + b"\r\n",
    "words_for_ever_before_a_chunk": HOST
    + b"transfer-encoding: chunked\r\n\r\n1;"
    + b"x" * 3000
    + b"\r\na\r\n0\r\n\r\n",
    "words_that_are_still_few_before_a_chunk": HOST
    + b"transfer-encoding: chunked\r\n\r\n1;"
    + b"x" * 1900
    + b"\r\na\r\n0\r\n\r\n",
    "blank_lines_for_ever": b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
    + b"\r\n" * 1500
    + b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
    "one_fault_behind_another": HOST + b"content-length: 1\r\n" * 2 + b"cc\0\r\n\r\na",
    "too_long_a_target_with_a_fault": b"GET /" + b"a" * 1500 + b"\0 HTTP/1.1\r\nhost: x\r\n\r\n",
    "too_long_trailers": HOST + b"transfer-encoding: chunked\r\n\r\n0\r\n" + b"a: bb\r\n" * 200 + b"\r\n",
}
ANSWERED = {
    "a_length": OK + b"Content-Length: 3\r\nA: b\r\n\r\nabc",
    "chunks": OK + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n4;x\r\ndefg\r\n0\r\na: b\r\n\r\n",
    "until_the_end": OK + b"\r\nabcdef",
    "nothing": b"HTTP/1.1 204 No Content\r\n\r\n",
    "informational_first": b"HTTP/1.1 103 Early\r\na: b\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    + OK
    + b"content-length: 1\r\n\r\na",
    "closing": OK + b"content-length: 1\r\nconnection: close\r\n\r\na",
    "one_more": OK + b"content-length: 1\r\n\r\na" + OK + b"content-length: 1\r\n\r\nb",
    "half": OK + b"content-length: 10\r\n\r\nabc",
    "no_head": OK + b"content-len",
    "another_protocol": b"SSH-2.0-nobody\r\n",
    "a_change_of_protocols": b"HTTP/1.1 101 Yes\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
    "two_lengths": OK + b"content-length: 1\r\ncontent-length: 2\r\n\r\na",
    "chunks_and_a_length": OK + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "another_transfer_coding": OK + b"transfer-encoding: gzip\r\n\r\nabc",
    "too_large_by_its_length": OK + b"content-length: 2001\r\n\r\n",
    "too_large_without_a_length": OK + b"\r\n" + b"x" * 2001,
    "too_many_chunks": OK + b"transfer-encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 51,
    "too_many_fields": OK + b"".join(b"a%d: b\r\n" % n for n in range(21)) + b"\r\n",
    "white_space_for_ever": OK + b"a:" + b" " * 3000,
    "informational_for_ever": b"HTTP/1.1 100 Continue\r\n\r\n" * (INFORMATIONAL_MAX + 1),
    "words_for_ever_before_a_chunk": OK + b"transfer-encoding: chunked\r\n\r\n1;" + b"x" * 3000 + b"\r\na\r\n0\r\n\r\n",
    "words_that_are_still_few_before_a_chunk": OK
    + b"transfer-encoding: chunked\r\n\r\n1;"
    + b"x" * 1900
    + b"\r\na\r\n0\r\n\r\n",
    "one_fault_behind_another": OK + b"a: " + b"b" * 1000 + b"\r\ncc\0\r\n\r\n",
    "too_long_trailers": OK + b"transfer-encoding: chunked\r\n\r\n0\r\n" + b"a: bb\r\n" * 200 + b"\r\n",
}


@pytest.mark.parametrize("name", SAID)
def test_requests_cut_anywhere_are_the_same(name: str) -> None:
    said = SAID[name]
    whole = heard([said])
    assert whole
    assert whole == heard([said[at : at + 1] for at in range(len(said))])
    for at in range(1, len(said)):
        assert whole == heard([said[:at], said[at:]])


@pytest.mark.parametrize("name", ANSWERED)
def test_answers_cut_anywhere_are_the_same(name: str) -> None:
    said = ANSWERED[name]
    whole = answered([said], end=True)
    assert whole
    for at in range(1, len(said)):
        cut = answered([said[:at], said[at:]], end=True)
        if name == "one_more" and isinstance(cut, tuple):
            cut = (*cut[:3], False)  # the second may come when the first was already done with
        assert whole == cut
    assert name == "one_more" or whole == answered([said[at : at + 1] for at in range(len(said))], end=True)


def test_an_answer_that_nobody_wants_has_no_body_in_whatever_read_it_came() -> None:
    for pieces in ([ANSWERED["a_length"]], [OK + b"Content-Length: 3\r\nA: b\r\n\r\n"]):
        connection = ClientConnection(LIMITS, wanted=lambda status: False)
        connection.ask()
        (answer,) = map(connection.receive, pieces)
        assert isinstance(answer, Answer)
        assert (200, b"") == (answer.status, answer.body)


@pytest.mark.parametrize("silence", [1900, 2050, 2500, 3001])
@pytest.mark.parametrize("spoken", [0, 1, 999, 2345])
def test_how_long_a_silence_is_too_long_does_not_depend_on_reads(silence: int, spoken: int) -> None:
    said = HOST + b"transfer-encoding: chunked\r\n\r\n"
    said += (b"%x\r\n" % spoken + b"a" * spoken + b"\r\n" if spoken else b"") + b"1;" + b"x" * silence
    said += b"\r\nb\r\n0\r\n\r\n"
    limits = Limits(body_bytes=9000, head_bytes=1000)
    whole = heard([said], limits)
    for size in (1, 7, 999, 1000, 1001, 2500):
        assert whole == heard([said[at : at + size] for at in range(0, len(said), size)], limits)
    if silence not in (2050, 2500):  # between two and three heads it depends on where it began
        assert (b"a" * spoken + b"b" in whole) == (silence <= 1900)


# -------------------------------------------------------------------------------------- what is understood, and not


def test_a_request_is_its_head_and_its_body() -> None:
    assert [
        ("POST", "/a", {"host": "x", "transfer-encoding": "Chunked"}, None, True, False),
        b"abc0123456789abcdef",
        ("GET", "/b?c=d", {"host": "y"}, None, True, False),
        b"",
    ] == heard([SAID["chunks_with_extensions_and_trailers"]])


def test_what_follows_the_last_request_is_nobodys_business() -> None:
    assert 2 == len(heard([SAID["more_behind_the_last"]]))


# Two readers may understand these differently, so none of them is understood.
AMBIGUOUS = {
    "two_lengths": b"content-length: 3\r\ncontent-length: 3\r\n\r\nabc",
    "two_different_lengths": b"content-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
    "a_list_of_lengths": b"content-length: 3, 3\r\n\r\nabc",
    "a_length_and_chunks": b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "chunks_and_a_length": b"transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "a_signed_length": b"content-length: +3\r\n\r\nabc",
    "a_length_in_hex": b"content-length: 0x3\r\n\r\nabc",
    "an_empty_length": b"content-length:\r\n\r\nabc",
    "a_length_beyond_64_bits": b"content-length: 18446744073709551619\r\n\r\nabc",
    "white_space_before_the_colon": b"content-length : 3\r\n\r\nabc",
    "a_folded_line": b"a: b\r\n content-length: 3\r\n\r\nabc",
    "a_bare_line_feed": b"a: b\ncontent-length: 3\r\n\r\nabc",
    "a_bare_line_feed_at_the_end": b"content-length: 3\r\n\nabc",
    "a_bare_carriage_return": b"a: b\rcontent-length: 3\r\n\r\nabc",
    "a_zero_octet": b"a: b\x00\r\n\r\n",
    "a_name_that_is_none": b"a\x0bb: c\r\n\r\n",
    "no_name": b": c\r\n\r\n",
    "no_colon": b"abc\r\n\r\n",
    "two_hosts": b"host: y\r\n\r\n",
    "coded_twice": b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked_before_another": b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked_behind_a_control": b"transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "line_feeds_between_chunks": b"transfer-encoding: chunked\r\n\r\n3\nabc\n0\n\n",
    "a_line_feed_behind_a_chunk": b"transfer-encoding: chunked\r\n\r\n3\r\nabc\n0\r\n\r\n",
    "a_chunk_size_in_hex_notation": b"transfer-encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
    "a_chunk_size_with_a_space": b"transfer-encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n",
    "a_chunk_size_beyond_64_bits": b"transfer-encoding: chunked\r\n\r\n10000000000000003\r\nabc\r\n0\r\n\r\n",
    "an_upgrade_with_a_body": b"connection: upgrade\r\nupgrade: h2c\r\ncontent-length: 3\r\n\r\nabc",
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_is_ambiguous_is_refused_and_nothing_behind_it_read(name: str) -> None:
    behind = b"GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"
    connection = ServerConnection(LIMITS)
    events = connection.receive(HOST + AMBIGUOUS[name] + behind) + connection.receive(behind)
    (refused,) = [event for event in events if isinstance(event, Refused)]
    assert 400 == refused.status
    assert connection.closed
    assert not [event for event in events if isinstance(event, Whole)]
    assert not [event for event in events if isinstance(event, Begun) and event.request.target == "/smuggled"]


@pytest.mark.parametrize(
    ("said", "status", "words"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400, "host: expected one, was none"),
        (b"GET /\r\n\r\n", 505, "was HTTP/0.9"),
        (b"GET / HTTP/2.0\r\nhost: x\r\n\r\n", 505, "was HTTP/2.0"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "no HTTP/1.1"),
        (b"GET / HTTP/1.1\nhost: x\n\n", 400, "no HTTP/1.1"),
        (b"get / HTTP/1.1\r\nhost: x\r\n\r\n", 400, "no HTTP/1.1"),
        (b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n", 400, "no change of protocols"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "no HTTP/1.1"),
        (HOST + b"transfer-encoding: gzip, chunked\r\n\r\n", 501, "expected chunked, was gzip, chunked"),
        (b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n", 400, "expected none in HTTP/1.0"),
        (SAID["too_large_by_its_length"], 400, "expected at most 2000 bytes"),
        (SAID["too_large_in_chunks"], 400, "expected at most 2000 bytes"),
        (SAID["too_many_chunks"], 400, "expected at most 50 chunks"),
        (SAID["too_long_a_target"], 400, "expected a head of at most 1000 bytes in 20 fields"),
        (SAID["too_many_fields"], 400, "expected a head of at most 1000 bytes in 20 fields"),
        (HOST + b"a: " + b"b" * 1000 + b"\r\n\r\n", 400, "expected a head of at most 1000 bytes in 20 fields"),
        (HOST + b"a:" + b" " * 3000, 400, "expected a head of at most 1000 bytes in 20 fields"),
        (b"\r\n" * 1500, 400, "expected a head of at most 1000 bytes in 20 fields"),
        (HOST + b"transfer-encoding: xchunked\r\n\r\n", 501, "expected chunked, was xchunked"),
    ],
)
def test_what_is_refused_says_why(said: bytes, status: int, words: str) -> None:
    # Twice: a limit must hold for what comes in one read and for what trickles.
    for pieces in ([said], [said[at : at + 7] for at in range(0, len(said), 7)]):
        (refused,) = [event for event in heard(pieces) if isinstance(event, tuple) and len(event) == 2]
        assert status == refused[0]
        assert words in refused[1]


def test_words_without_end_that_complete_nothing_are_refused() -> None:
    connection = ServerConnection(LIMITS)
    connection.receive(HOST + b"transfer-encoding: chunked\r\n\r\n1;")
    events = [event for _ in range(30) for event in connection.receive(b"x" * 100)]
    assert [Refused(400, "expected a head of at most 1000 bytes in 20 fields")] == events


def test_requests_without_an_end_are_refused_before_their_answers() -> None:
    get = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
    connection = ServerConnection(LIMITS)
    events = connection.receive(get * (PIPELINED_MAX + 10))
    assert PIPELINED_MAX == len([event for event in events if isinstance(event, Whole)])
    assert Refused(400, f"expected at most {PIPELINED_MAX} requests before their answers") == events[-1]
    patient = ServerConnection(LIMITS)
    for _ in range(3):
        assert 2 * PIPELINED_MAX == len(patient.receive(get * PIPELINED_MAX))
        patient.unanswered -= PIPELINED_MAX


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a_length", (200, {"content-length": "3", "a": "b"}, b"abc", True)),
        ("chunks", (200, {"transfer-encoding": "chunked"}, b"abcdefg", True)),
        ("until_the_end", (200, {}, b"abcdef", False)),
        ("nothing", (204, {}, b"", True)),
        ("informational_first", (200, {"content-length": "1"}, b"a", True)),
        ("closing", (200, {"content-length": "1", "connection": "close"}, b"a", False)),
        ("one_more", (200, {"content-length": "1"}, b"a", False)),
    ],
)
def test_an_answer_is_its_head_and_its_body(name: str, expected: object) -> None:
    assert expected == answered([ANSWERED[name]], end=True)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("half", Fault.TRUNCATED),
        ("no_head", Fault.UNREACHABLE),
        ("another_protocol", Fault.NO_HTTP),
        ("a_change_of_protocols", Fault.NO_HTTP),
        ("two_lengths", Fault.NO_HTTP),
        ("chunks_and_a_length", Fault.NO_HTTP),
        ("another_transfer_coding", Fault.NO_HTTP),
        ("informational_for_ever", Fault.NO_HTTP),
        ("too_large_by_its_length", Fault.TOO_LARGE),
        ("too_large_without_a_length", Fault.TOO_LARGE),
        ("too_many_chunks", Fault.TOO_LARGE),
        ("too_many_fields", Fault.TOO_LARGE),
        ("white_space_for_ever", Fault.TOO_LARGE),
    ],
)
def test_what_is_no_answer_is_a_failure_by_name(name: str, fault: Fault) -> None:
    ending = answered([ANSWERED[name]], end=True)
    assert isinstance(ending, tuple)
    assert fault is ending[0]


def test_a_body_that_nobody_wants_is_not_waited_for() -> None:
    connection = ClientConnection(LIMITS, wanted=lambda status: status == 200)
    connection.ask()
    ending = connection.receive(b"HTTP/1.1 503 No\r\ncontent-length: 99999\r\n\r\n<html>")
    assert isinstance(ending, Answer)
    assert (503, b"", False) == (ending.status, ending.body, connection.fit)
    small = ClientConnection(LIMITS, wanted=lambda status: status == 200)
    small.ask()
    small.receive(b"HTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\nno")
    assert small.fit


def test_a_body_without_an_end_that_was_cut_is_no_answer() -> None:
    connection = ClientConnection(LIMITS)
    connection.ask()
    assert connection.receive(ANSWERED["until_the_end"]) is None
    ending = connection.eof(cut=True)
    assert isinstance(ending, Failure)
    assert Fault.TRUNCATED is ending.fault


def test_what_is_said_between_exchanges_makes_a_connection_unfit() -> None:
    connection = ClientConnection(LIMITS)
    connection.ask()
    assert connection.receive(ANSWERED["a_length"])
    assert connection.fit
    assert connection.receive(b"\r\n") is None
    assert not connection.fit


# ---------------------------------------------------------------------------------------------- anything at all

WORDS = [
    b"GET / HTTP/1.1\r\n", b"POST /a HTTP/1.1\r\n", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Go\r\n", b"host: x\r\n",
    b"content-length: 3\r\n", b"content-length: 0\r\n", b"transfer-encoding: chunked\r\n", b"connection: close\r\n",
    b"connection: upgrade\r\nupgrade: x\r\n", b"expect: 100-continue\r\n", b"\r\n", b"\n", b"\r", b" ", b":", b"3\r\n",
    b"abc\r\n", b"0\r\n\r\n", b"\x00", b"\xff", b"a" * 600, b"ffffffffffffffff\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]  # fmt: skip
anything = st.lists(st.one_of(st.sampled_from(WORDS), st.binary(max_size=40)), max_size=60)


def held(connection: ServerConnection | ClientConnection) -> int:
    """Count the bytes that a connection keeps of what it heard."""
    fields = connection._fields
    kept = sum(map(len, fields)) + sum(map(len, fields.values())) + sum(map(len, connection._body))
    return kept + len(getattr(connection, "_target", b""))


@given(anything)
@settings(max_examples=500, deadline=None)
def test_anything_a_caller_sends_costs_no_more_than_its_limits(pieces: list[bytes]) -> None:
    connection = ServerConnection(LIMITS)
    for piece in pieces * 20:
        for event in connection.receive(piece):
            if isinstance(event, Whole):
                connection.unanswered -= 1
                assert event.request.body is not None
                assert len(event.request.body) <= LIMITS.body_bytes
        assert held(connection) <= LIMITS.body_bytes + LIMITS.head_bytes + len(piece)
        assert connection.unanswered <= PIPELINED_MAX + 1


@given(anything)
@settings(max_examples=500, deadline=None)
def test_anything_a_server_sends_ends_an_exchange_once_and_costs_no_more_than_its_limits(pieces: list[bytes]) -> None:
    connection = ClientConnection(LIMITS)
    connection.ask()
    endings = []
    for piece in pieces * 20:
        ending = connection.receive(piece)
        assert held(connection) <= LIMITS.body_bytes + LIMITS.head_bytes + len(piece)
        endings += [ending] if ending is not None else []
    ending = connection.eof()
    endings += [ending] if ending is not None else []
    assert 1 == len(endings)
    assert not connection.fit


@given(anything, st.data())
@settings(max_examples=300, deadline=None)
def test_anything_cut_anywhere_is_the_same(pieces: list[bytes], data: st.DataObject) -> None:
    said = b"".join(pieces)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(said)), max_size=8)))
    cut = [said[a:b] for a, b in zip([0, *cuts], [*cuts, len(said)], strict=True)]
    assert heard([said]) == heard(cut)


# ------------------------------------------------------------------------------------- beside another implementation

token = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=12).map(lambda name: "x-" + name)
text = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=30)
extra = st.dictionaries(token, text, max_size=6).map(lambda fields: tuple(fields.items()))
body = st.binary(max_size=400)
sizes = st.integers(1, 90)


class Exchange:
    """A request and its answer as they are generated."""

    def __init__(self, method: str, path: str, fields: tuple[tuple[str, str], ...], sent: bytes, chunked: bool) -> None:
        self.method, self.path, self.fields, self.sent, self.chunked = method, path, fields, sent, chunked


exchanges = st.lists(
    st.builds(
        Exchange,
        st.sampled_from(["GET", "POST", "PUT", "DELETE"]),
        st.sampled_from(["/", "/a", "/a/b?c=d&e", "/%20"]),
        extra,
        body,
        st.booleans(),
    ),
    min_size=1,
    max_size=5,
)


def pieces_of(octets: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(octets), size):
        yield octets[at : at + size]


def heard_by(peer: h11.Connection, pieces: Iterator[bytes]) -> tuple[list[Any], bytes]:
    """Give what h11 makes of one message, and its body."""
    found: list[Any] = []
    for piece in pieces:
        peer.receive_data(piece)
        while (event := peer.next_event()) is not h11.NEED_DATA and event is not h11.PAUSED:
            found.append(event)
            if isinstance(event, h11.EndOfMessage):
                break
    return found, b"".join(bytes(event.data) for event in found if isinstance(event, h11.Data))


@given(exchanges, st.sampled_from([200, 204, 404, 503]), extra, body, sizes, sizes)
@settings(max_examples=200, deadline=None)
def test_what_h11_asks_is_heard_and_what_is_answered_h11_hears(
    asked: list[Exchange], status: int, fields: tuple[tuple[str, str], ...], content: bytes, there: int, back: int
) -> None:
    client, server, heads = h11.Connection(h11.CLIENT), ServerConnection(LIMITS), Heads()
    for each in asked:
        framing = ("transfer-encoding", "chunked") if each.chunked else ("content-length", str(len(each.sent)))
        sent = client.send(
            h11.Request(method=each.method, target=each.path, headers=[("host", "x"), *each.fields, framing])
        )
        assert sent is not None
        for piece in pieces_of(each.sent, there):
            sent += client.send(h11.Data(piece)) or b""
        sent += client.send(h11.EndOfMessage()) or b""
        events = [event for piece in pieces_of(sent, there) for event in server.receive(piece)]
        (request,) = {id(event.request): event.request for event in events if not isinstance(event, Refused)}.values()
        assert [Begun, Whole] == [type(event) for event in events]
        assert (each.method, each.path, each.sent) == (request.method, request.target, request.body)
        assert dict(each.fields).items() <= dict(request.fields).items()
        server.unanswered -= 1
        response = Response(status, fields, b"" if status == 204 else content)
        octets = heads.encode(response, b"date: Thu, 01 Jan 1970 00:00:00 GMT\r\n", b"") + response.body
        found, got = heard_by(client, pieces_of(octets, back))
        assert isinstance(found[0], h11.Response)
        assert (status, response.body) == (found[0].status_code, got)
        assert dict(fields).items() <= {n.decode(): v.decode() for n, v in found[0].headers}.items()
        assert isinstance(found[-1], h11.EndOfMessage)
        client.start_next_cycle()


@given(exchanges, st.sampled_from([200, 204, 404, 503]), extra, body, sizes, sizes)
@settings(max_examples=200, deadline=None)
def test_what_is_asked_h11_hears_and_what_h11_answers_is_heard(
    asked: list[Exchange], status: int, fields: tuple[tuple[str, str], ...], content: bytes, there: int, back: int
) -> None:
    server, client = h11.Connection(h11.SERVER), ClientConnection(LIMITS)
    for each in asked:
        to = address(f"http://peer:8080{each.path}")
        octets = request_head(each.method, to, each.fields) + b"%d\r\n\r\n" % len(each.sent) + each.sent
        client.ask()
        found, got = heard_by(server, pieces_of(octets, there))
        assert isinstance(found[0], h11.Request)
        assert (each.method, each.path, each.sent) == (found[0].method.decode(), found[0].target.decode(), got)
        assert (b"host", b"peer:8080") in found[0].headers
        content = b"" if status == 204 else content
        framing = [] if status == 204 else [("content-length", str(len(content)))]
        framing = [("transfer-encoding", "chunked")] if each.chunked and status != 204 else framing
        sent = server.send(h11.Response(status_code=status, headers=[*fields, *framing])) or b""
        for piece in pieces_of(content, back):
            sent += server.send(h11.Data(piece)) or b""
        sent += server.send(h11.EndOfMessage()) or b""
        endings = [ending for piece in pieces_of(sent, back) if (ending := client.receive(piece)) is not None]
        (answer,) = endings
        assert isinstance(answer, Answer)
        assert (status, content) == (answer.status, answer.body)
        assert dict(fields).items() <= dict(answer.fields).items()
        assert client.fit
        server.start_next_cycle()


# ------------------------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://a", (False, "a", 80, "a", "/")),
        ("https://a/b?c=d#e", (True, "a", 443, "a", "/b?c=d")),
        ("http://a:8080/b%20c d", (False, "a", 8080, "a:8080", "/b%20c%20d")),
        ("http://[::1]:80/", (False, "::1", 80, "[::1]", "/")),
        ("http://b\u00fccher/\u00fc?\u00fc", (False, "xn--bcher-kva", 80, "xn--bcher-kva", "/%C3%BC?%C3%BC")),
    ],
)
def test_a_url_is_where_to_connect_and_what_to_ask_for(url: str, parts: tuple[object, ...]) -> None:
    found = address(url)
    assert parts == (found.secure, found.host, found.port, found.authority, found.target)


@pytest.mark.parametrize("url", ["ftp://a/", "a:80", "http://", "http://user:secret@a/", "http://a:999999/"])
def test_a_url_that_cannot_be_asked_is_an_error_without_its_query(url: str) -> None:
    with pytest.raises(ValueError, match=r"^(?!.*key)"):
        address(url + "?key=1")


@pytest.mark.parametrize("fields", [[("a b", "c")], [("a", "b\r\nc: d")], [("a", "\u00fc")], [("", "b")]])
def test_a_field_that_no_head_may_hold_is_an_error(fields: list[tuple[str, str]]) -> None:
    with pytest.raises(ValueError, match="expected a field of printable ASCII"):
        request_head("GET", address("http://a"), fields)


def test_a_target_in_absolute_form_has_the_same_path() -> None:
    paths: list[str] = []
    for target in (b"/a/b?c", b"http://x/a/b?c", b"http://x", b"*"):
        connection = ServerConnection(LIMITS)
        (begun, _) = connection.receive(b"GET " + target + b" HTTP/1.1\r\nhost: x\r\n\r\n")
        assert isinstance(begun, Begun)
        paths.append(begun.request.path)
    assert ["/a/b", "/a/b", "/", "*"] == paths
