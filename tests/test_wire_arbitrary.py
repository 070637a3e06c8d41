# What fuzzing reached, replayed, and that each of its invariants can fail. How it is found: tests/wirefuzz.

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from auction.edge.wire.fields import block
from auction.edge.wire.messages import packed
from auction.edge.wire.sent import Sent
from auction.edge.wire.talks import Talk
from tests.wirefuzz import corpus, targets
from tests.wirefuzz.targets import TARGETS, Told


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_was_thrown_at_the_wire_still_breaks_nothing(name: str) -> None:
    inputs = corpus.kept(name)
    assert len(inputs) > 10
    for data in inputs:
        targets.check(name, data)


def test_the_corpus_is_small_enough_to_keep() -> None:
    assert sum(file.stat().st_size for file in corpus.CORPUS.iterdir()) < 1_000_000


def test_a_corpus_is_read_as_it_was_written(tmp_path: Path) -> None:
    corpus.keep("one", [b"longer", b"", b"a", b"a"], tmp_path)
    assert [b"", b"a", b"longer"] == corpus.kept("one", tmp_path)
    assert [] == corpus.kept("other", tmp_path)


@pytest.mark.parametrize("pieces", [[packed(b"") + packed(b"b")], [packed(b""), packed(b"b")]])
def test_a_second_message_of_a_unary_call_is_one_too_many_in_whatever_read_it_comes(pieces: list[bytes]) -> None:
    (heard, _, words), _ = targets.calls(pieces)
    assert ([], "expected one message, were more") == (heard, words)


def test_messages_of_a_dialogue_before_a_broken_one_are_heard_in_whatever_read_they_come() -> None:
    for pieces in ([packed(b"a") + b"\2\0\0\0\0"], [packed(b"a"), b"\2\0\0\0\0"]):
        (heard, _, words), _ = targets.calls(pieces, dialogue=True)
        assert ([b"a"], "expected a flag of 0 or 1, was 2") == (heard, words)


def test_a_peer_is_told_nothing_of_our_memory() -> None:
    told, _ = targets.h2_client([targets.framed(b"\1\4\1\x14" + b"\xff" * 20)])
    assert "no header block: HPACKDecodingError" == told[1][-1].message


def slow(pieces: list[bytes]) -> Told:
    for _ in range(len(b"".join(pieces)) ** 2):
        len(pieces)
    return [], None


def growing(pieces: list[bytes]) -> Told:
    return [], [bytes(50_000) for _ in b"".join(pieces)]


def cut(pieces: list[bytes]) -> Told:
    return [len(pieces)], None


def raising(pieces: list[bytes]) -> Told:
    raise IndexError("whatever")


@pytest.mark.parametrize(
    ("target", "words"),
    [(slow, "calls for 300 octets"), (growing, "octets are held"), (cut, "cut into"), (raising, "whatever")],
)
def test_an_invariant_that_does_not_hold_is_a_find(monkeypatch: pytest.MonkeyPatch, target: Any, words: str) -> None:
    monkeypatch.setitem(TARGETS, "faulty", (bytes, target))
    with pytest.raises((AssertionError, IndexError), match=words):
        targets.check("faulty", bytes(300))


def test_a_block_that_is_remembered_wrongly_is_a_find(monkeypatch: pytest.MonkeyPatch) -> None:
    one = b"\x40\x01a\x01b"  # indexed, so that the table has another entry behind it each time
    octets = bytes([len(one)]) + one + b"\1\xbe" + bytes([len(one)]) + one + b"\1\xbf"
    targets.blocks([octets])
    monkeypatch.setattr("auction.edge.wire.fields._Table.changes", property(lambda _: 0, lambda *_: None), raising=True)
    other = b"\x40\x01a\x01c"
    with pytest.raises(AssertionError):
        targets.blocks([bytes([len(one)]) + one + b"\1\xbe" + bytes([len(other)]) + other + b"\1\xbe"])


def found(name: str) -> bool:
    """Tell whether what is kept shows a fault."""
    try:
        for data in corpus.kept(name):
            targets.check(name, data)
    except AssertionError:
        return True
    return False


@pytest.mark.parametrize("name", ["asks", "talks"])
def test_a_call_that_its_connection_goes_on_counting_is_a_find(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def forgetful(sent: Sent) -> Any:
        done, sent.done, sent.stream.context = sent.done, None, None  # type: ignore[union-attr]  # it is on one
        return done

    monkeypatch.setattr(Sent, "let_go", forgetful)
    assert found(name)


def test_a_call_that_ends_twice_is_a_find(monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(sent: Sent) -> Any:
        done = let_go(sent)
        return done and (lambda *ending: (done(*ending), done(*ending)))

    let_go = Sent.let_go
    monkeypatch.setattr(Sent, "let_go", twice)
    assert found("asks")


def test_a_call_that_ends_otherwise_when_all_of_it_comes_at_once_is_a_find(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("auction.edge.wire.asks.whole", lambda data: bytes(data[5:]))
    assert found("asks")


def test_a_dialogue_that_is_told_of_its_end_twice_is_a_find(monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(talk: Talk, ended: Any) -> None:
        begin_once(talk, lambda *ending: (ended(*ending), ended(*ending)))

    begin_once = Talk.begin
    monkeypatch.setattr(Talk, "begin", begin)
    assert found("talks")


def test_octets_are_made_into_frames_whose_lengths_hold() -> None:
    fields = block([(b"a", b"b")])
    assert targets.framed(bytes([1, 5, 3, 255]) + fields).endswith(bytes([1, 5, 0, 0, 0, 3]) + fields)
