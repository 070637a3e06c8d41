# A configuration is accepted whole or every fault of it is named, whatever bytes it is made of; and no secret that it
# holds is ever told.

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from auction.commands import config as command
from auction.config import (
    Config,
    ConfigFaults,
    every_setting,
    load,
    loaded,
    rules_of_case,
    schema,
    schema_at,
    what_needs_restart,
)
from auction.model import money
from auction.model.currencies import ISO_4217
from auction.model.money import CpmMicros
from auction.model.rules import Adjustment, BidderRules, ExchangeRules, FloorModel, FloorRule, FloorRules, Limits, Rules

ROOT = Path(__file__).parent.parent
SECRET = "swordfish"


def config(tmp_path: Path, text: str | bytes = "", **environ: str) -> Config:
    return load(written(tmp_path, text), environ)


def faults(tmp_path: Path, text: str | bytes = "", **environ: str) -> list[str]:
    """Give each fault's line; the file is called FILE in them."""
    path = written(tmp_path, text)
    with pytest.raises(ConfigFaults) as refused:
        load(path, environ)
    return str(refused.value).replace(str(path), "FILE").splitlines()


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "auction.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(read: Callable[[], object]) -> list[str]:
    """Give the line of each fault; none where it is accepted."""
    try:
        read()
    except ConfigFaults as refused:
        return [str(fault) for fault in refused.faults]
    return []


def check(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "auction", "config", *words]
    return subprocess.run(line, env=environ, cwd=ROOT, capture_output=True, text=True, timeout=60)


# What counts


def test_without_a_file_the_defaults_of_the_rules_count_and_nobody_is_asked() -> None:
    cents = {"USD": 10_000, "EUR": 10_000, "GBP": 10_000, "JPY": 1_000_000, "KRW": 1_000_000}
    expected = Rules(exchange=ExchangeRules(increment=msgspec.convert(cents, dict[str, int])))
    assert expected == load(None, {}).rules()


@pytest.mark.parametrize(("section", "rules"), [("exchange", ExchangeRules), ("limits", Limits)])
def test_a_section_has_the_settings_of_its_rules_and_no_other(section: str, rules: type[msgspec.Struct]) -> None:
    assert {field.name for field in msgspec.structs.fields(rules)} == set((schema_at((section,)) or {})["properties"])


def test_a_file_is_laid_over_the_defaults_and_the_environment_over_both(tmp_path: Path) -> None:
    found = loaded(written(tmp_path, "server:\n  port: 1\n  http_port: 2\n"), {"AUCTION_SERVER__PORT": "3"})
    told = {one.path: (one.value, one.origin) for one in found.effective()}
    assert told["server.port"] == (3, "AUCTION_SERVER__PORT")
    assert told["server.http_port"] == (2, f"{tmp_path}/auction.yaml:3")
    assert told["server.drain_s"] == (20, "default")


@pytest.mark.parametrize(
    ("currency", "given", "micros"),
    [
        ("USD", "", 10_000),
        ("CHF", "", 10_000),
        ("CLP", "", 1_000_000),
        ("KWD", "", 1_000),
        ("USD", "increment: 0.05", 50_000),
        ("CHF", "increment: '0.05'", 50_000),
        ("USD", "increment: 0", 0),
        ("JPY", "increment: {USD: 0.05, JPY: 2}", 2_000_000),
        ("EUR", "increment: {USD: 0.05}", 10_000),
    ],
)
def test_an_increment_is_the_one_given_or_one_minor_unit(
    tmp_path: Path, currency: str, given: str, micros: int
) -> None:
    exchange = config(tmp_path, f"exchange:\n  currency: {currency}\n  {given}\n").rules().exchange
    assert exchange.increment[currency] == micros


def test_an_increment_for_one_currency_leaves_the_others_at_their_defaults(tmp_path: Path) -> None:
    increment = config(tmp_path, "exchange: {increment: {USD: 0.05, CHF: 0.02}}").rules().exchange.increment
    assert increment == {"USD": 50_000, "EUR": 10_000, "GBP": 10_000, "JPY": 1_000_000, "KRW": 1_000_000, "CHF": 20_000}


def test_a_lower_tmax_max_lowers_the_default_tmax(tmp_path: Path) -> None:
    assert config(tmp_path, "exchange: {tmax_max_ms: 50}").rules().exchange.tmax_ms == 50


def test_a_bidder_speaks_the_encoding_of_its_address_and_rules_hold_no_address_or_header(tmp_path: Path) -> None:
    rules = config(
        tmp_path,
        "bidders:\n"
        "- {name: a, grpc: '[::1]:7501', min_ms: 20, headers: {X-Key: swordfish}}\n"
        "- {name: b, http: 'https://b.example/bid?key=swordfish', media: [video, video, banner], timeout_ms: 80}\n",
    ).rules()
    assert rules.bidders == (
        BidderRules("a", "protobuf", min_ms=20),
        BidderRules("b", "json", ("video", "banner"), timeout_ms=80),
    )
    assert not re.search(rb"swordfish|x-key|example|7501", rules.canonical())


# Amounts


@given(st.integers(0, money.LIMIT), st.sampled_from(["{}", "'{}'", '"{}"', "+{}", "{}e0"]))
def test_every_amount_of_whole_micros_is_read_exactly(micros: int, quoted: str) -> None:
    given_as = quoted.format(money.text(micros))
    assert micros == load(None, {"AUCTION_EXCHANGE__MIN_PRICE": given_as}).exchange.min_price


@pytest.mark.parametrize(
    ("amount", "said"),
    [
        ("-0.01", "expected an amount >= 0, was -0.01"),
        ("0.0000001", "expected at most 6 decimals, was 1E-7"),
        ("0.01000000000000001", "expected at most 6 decimals, was 0.01000000000000001"),
        ("1000000000.000001", "expected at most 1000000000, was 1000000000.000001"),
        ("0.010000000000000000000000000001", "expected at most 20 digits, was 0.010000000000000000000000000001"),
        ("1e999", "expected at most 20 digits, was 1E+999"),
        ("0e-999", "expected at most 20 digits, was 0E-999"),
        ("9" * 5000, f"expected at most 20 digits, was {'9' * 57}..."),
        ("'1_000'", 'expected a decimal, was "1_000"'),
        ("'٣'", 'expected a decimal, was "٣"'),
        (".nan", 'expected a decimal, was ".nan"'),
        ("Infinity", 'expected a decimal, was "Infinity"'),
        ("true", "expected a decimal, was true"),
        ("[1]", "expected a decimal, was a list"),
        ("", "expected a decimal, was null"),
    ],
)
def test_what_is_no_amount_of_whole_micros_is_refused(tmp_path: Path, amount: str, said: str) -> None:
    assert faults(tmp_path, f"exchange:\n  min_price: {amount}\n") == [f"exchange.min_price: {said} (FILE:2)"]


def test_a_rate_is_kept_as_plain_decimal_text(tmp_path: Path) -> None:
    rates = config(tmp_path, "fx: {rates: {JPY: 1.5e2, EUR: '0.9200', KRW: 1500, USD: 1.0}}").rules().fx.rates
    assert rates == {"JPY": "150", "EUR": "0.92", "KRW": "1500", "USD": "1"}


# Faults


def test_every_fault_is_named_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """\
exchange:
  curency: EUR
  tmax_ms: 600
  increment: -0.5
  json: lenient
  json: strict
  deal_mode: deals-first
  max_cpm: 1_000
currency: USD
fx: {time: yesterday, rates: {EURO: 1, GBP: 0}}
bidders:
  - name: dsp-a
    grpc: localhost
  - name: dsp-a
    timeout_ms: -5
    media: [banner, vidoe]
  - grpc: dsp-c:7501
    http: http://dsp-c/
  - 5
server:
  port: "7400"
  http_port: 70000
  request_bites: 1
log: {keep_bytes: 100, fsync: [always]}
metrics: {}
"""
    assert faults(tmp_path, text) == [
        "exchange.curency: unknown setting; did you mean currency? (FILE:2)",
        "exchange.tmax_ms: expected at most tmax_max_ms (500), was 600 (FILE:3)",
        "exchange.increment: expected an amount >= 0, was -0.5 (FILE:4)",
        "exchange.json: set again, first on line 5 (FILE:6)",
        'exchange.deal_mode: expected compete or deals_first, was "deals-first"; did you mean deals_first? (FILE:7)',
        'exchange.max_cpm: expected a decimal, was "1_000" (FILE:8)',
        "currency: unknown setting; did you mean exchange.currency? (FILE:9)",
        'fx.time: expected a time such as 2026-01-31T12:00:00Z, was "yesterday" (FILE:10)',
        'fx.rates.EURO: expected an ISO 4217 code, was "EURO" (FILE:10)',
        "fx.rates.GBP: expected more than 0, at most 1000000000, was 0 (FILE:10)",
        'bidders[0].grpc: expected host:port, was "localhost" (FILE:13)',
        "bidders[1].name: expected a name of its own, was that of bidders[0] (FILE:14)",
        "bidders[1]: expected grpc or http, was neither (FILE:14)",
        "bidders[1].timeout_ms: expected 1 to 60000, was -5 (FILE:15)",
        'bidders[1].media[1]: expected banner, video, audio or native, was "vidoe"; did you mean video? (FILE:16)',
        "bidders[2]: expected grpc or http, was grpc and http (FILE:17)",
        "bidders[2].name: expected a value, was nothing (FILE:17)",
        "bidders[3]: expected a mapping, was 5 (FILE:19)",
        'server.port: expected 0 to 65535, was "7400" (FILE:21)',
        "server.http_port: expected 0 to 65535, was 70000 (FILE:22)",
        "server.request_bites: unknown setting; did you mean limits.request_bytes? (FILE:23)",
        "log.keep_bytes: expected at least two files of segment_bytes (67108864), was 100 (FILE:24)",
        "log.fsync: expected always, interval or never, was a list (FILE:24)",
        "metrics: unknown setting (FILE:25)",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("exchange: {currency: usd}", 'exchange.currency: expected an ISO 4217 code, was "usd"; did you mean USD?'),
        ("exchange: {currency: XXX}", 'exchange.currency: expected an ISO 4217 code, was "XXX"'),
        ("exchange: {strict_ids: yes}", 'exchange.strict_ids: expected true or false, was "yes"'),
        ("exchange: {tie_key: 5}", "exchange.tie_key: expected text of at most 256 characters, was 5"),
        ("exchange: {tmax_ms: 0100}", 'exchange.tmax_ms: expected 1 to 60000, was "0100"'),
        ("exchange: {tmax_ms: 1:30}", 'exchange.tmax_ms: expected 1 to 60000, was "1:30"'),
        ("exchange: {tmax_ms: 80.0}", "exchange.tmax_ms: expected 1 to 60000, was 80.0"),
        ("exchange: {tmax_ms: true}", "exchange.tmax_ms: expected 1 to 60000, was true"),
        ("exchange: 5", "exchange: expected a mapping, was 5"),
        ("fx: {rates: {USD: 2}}", "fx.rates: expected USD at 1, was 2"),
        ("fx: {rates: 5}", "fx.rates: expected a decimal per currency, was 5"),
        ("fx: {file: a, url: 'http://a/'}", "fx.url: expected file or url, was both"),
        ("fx: {url: 'a/?key=b'}", 'fx.url: expected http://host:port/path or https://host/path, was "a/?***"'),
        ("fx: {url: 5}", "fx.url: expected text of at most 1024 characters, was hidden"),
        ("fx: {refresh_s: 0}", "fx.refresh_s: expected 1 to 86400, was 0"),
        ("fx: {stale: drop}", "fx.stale: expected max_age_s beside drop, was none"),
        (
            "fx: {max_age_s: 60, rates: {EUR: 1}}",
            "fx.max_age_s: expected the time of the rates beside it, was none",
        ),
        ("limits: {imps: 0}", "limits.imps: expected 1 to 1000, was 0"),
        ("limits: {imps: 1001}", "limits.imps: expected 1 to 1000, was 1001"),
        ("server: {port: 80, http_port: 80}", "server.http_port: expected another port than server.port, was 80 too"),
        (
            "server: {connection_grace_s: 2}\nexchange: {tmax_max_ms: 2000}",
            "server.connection_grace_s: expected more than exchange.tmax_max_ms (2000), was 2 s",
        ),
        ("server: {host: 'a b'}", 'server.host: expected an address or a name to listen on, was "a b"'),
        ("log: {dir: ''}", 'log.dir: expected text of 1 to 1024 characters, was ""'),
        ("bidders: {name: a}", "bidders: expected a list of at most 256, was a mapping"),
        ("? [a]\n: 1", "expected a name before the colon, was a mapping or a list"),
        ("server: {port: !!int x}", "server.port: expected a plain value, was one with a tag"),
        ("server: {port: !port 80}", "server.port: expected a plain value, was one with a tag"),
        ("[1]", "expected sections, was a list"),
        ("a: b: c", "not YAML: mapping values are not allowed in this context"),
        ("--- {}\n--- {}", "not YAML: but found another document"),
        ("\0", "not YAML: a character that no text has"),
        (b"\xff", "expected UTF-8, was not at byte 0"),
        (b"#" * (4 * 1024 * 1024 + 1), "expected a file of at most 4194304 bytes, was larger"),
    ],
)
def test_one_fault_is_one_line(tmp_path: Path, text: str | bytes, said: str) -> None:
    lines = [re.sub(r" \(FILE[^)]*\)$", "", line) for line in faults(tmp_path, text)]
    assert said in lines
    assert all(line == said or line.startswith(said.partition(":")[0]) for line in lines)


def test_a_file_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigFaults, match="expected a file to read: No such file or directory"):
        load(tmp_path / "none.yaml", {})


def test_what_yaml_can_repeat_and_nest_is_bounded(tmp_path: Path) -> None:
    tenfold = "\n".join(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 20)}]" for level in range(1, 6))
    assert any("expected at most 400000 values, was more" in line for line in faults(tmp_path, f"a0: &a0 x\n{tenfold}"))
    assert any("expected at most 8 levels" in line for line in faults(tmp_path, "a: &a\n  b: *a\n"))
    assert any("exceeded maximum nesting depth" in line for line in faults(tmp_path, "[" * 100_000))


def test_a_section_without_a_word_in_it_is_at_its_defaults(tmp_path: Path) -> None:
    assert config(tmp_path, "exchange:\nbidders:\nlog:\n") == load(None, {}) == config(tmp_path, "")


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=60)
    | st.text(max_size=60).map(str.encode)
    | st.from_regex(r"[a-z: \[\]{},&*!|>'\"\n-]*").map(str.encode)
)
def test_any_bytes_are_a_configuration_or_a_list_of_faults(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = written(tmp_path_factory.getbasetemp(), content)
    assert all("\n" not in line for line in refusal(lambda: load(path, {})))


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.decimals(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_value_in_any_place_is_accepted_or_named(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([name for name, _ in every_setting() if not name.startswith(("server", "log"))]))
    value = data.draw(_json)
    section, _, key = name.partition(".")
    case: Any = {section.removesuffix("[]"): [{"name": "a", key: value}] if section == "bidders[]" else {key: value}}
    if section == "fx":
        case = {"fx": value}
    lines = refusal(lambda: rules_of_case(case, ["a", "b"]).digest())
    assert all(line.startswith(section.removesuffix("[]")) for line in lines)


# The environment


def test_headers_can_be_set_as_a_whole(tmp_path: Path) -> None:
    found = config(
        tmp_path,
        "bidders: [{name: a, grpc: 'a:1', headers: {x-key: b}}]",
        AUCTION_BIDDERS__0__HEADERS="{x-token: c}",
    )
    assert {"x-token": "c"} == found.bidders[0].headers


def test_lists_are_set_by_index_and_grow_by_one(tmp_path: Path) -> None:
    bidders = config(
        tmp_path,
        "bidders: [{name: a, grpc: 'a:1', timeout_ms: 50}]",
        AUCTION_BIDDERS__0__TIMEOUT_MS="80",
        AUCTION_BIDDERS__1__NAME="b",
        AUCTION_BIDDERS__1__HTTP="http://b/",
        AUCTION_BIDDERS__2="{name: c, grpc: 'c:1'}",
        AUCTION_BIDDERS__2__MEDIA="[video]",
    ).bidders
    assert [(one.name, one.grpc, one.http, one.timeout_ms, one.media) for one in bidders] == [
        ("a", "a:1", None, 80, ()),
        ("b", None, "http://b/", None, ()),
        ("c", "c:1", None, None, ("video",)),
    ]


@pytest.mark.parametrize(
    ("name", "text", "read"),
    [
        ("AUCTION_EXCHANGE__CURRENCY", "EUR", lambda found: found.exchange.currency == "EUR"),
        ("AUCTION_EXCHANGE__TIE_KEY", "0123", lambda found: found.exchange.tie_key == "0123"),
        ("AUCTION_EXCHANGE__INCREMENT", "0.05", lambda found: found.exchange.increment["USD"] == 50_000),
        ("AUCTION_EXCHANGE__INCREMENT__CHF", "0.05", lambda found: found.exchange.increment["CHF"] == 50_000),
        ("AUCTION_EXCHANGE__MAX_CPM", "", lambda found: found.exchange.max_cpm is None),
        ("AUCTION_FX__RATES__JPY", "150", lambda found: found.fx.rates == {"JPY": "150"}),
        ("AUCTION_FX", "{id: x}", lambda found: found.fx.id == "x"),
        (
            "AUCTION_BIDDERS__0",
            "{name: a, grpc: 'a:1'}",
            lambda found: [(one.name, one.grpc) for one in found.bidders] == [("a", "a:1")],
        ),
        ("AUCTION_FLOORS__RULES__0", "{floor: 1}", lambda found: found.floors.rules[0].floor == 1_000_000),
        ("AUCTION_LOG__DIR", "/tmp/log", lambda found: found.log.dir == "/tmp/log"),
        ("AUCTION_LOG__DIR", "", lambda found: found.log.dir is None),
        ("PATH", "x", lambda found: found == load(None, {})),
    ],
)
def test_a_setting_is_named_in_the_environment_by_its_path(name: str, text: str, read: Any) -> None:
    assert read(load(None, {name: text}))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("AUCTION_SERVR__PORT", "1", "AUCTION_SERVR__PORT: unknown setting; did you mean AUCTION_SERVER__PORT?"),
        ("AUCTION_SERVER_PORT", "1", "AUCTION_SERVER_PORT: unknown setting; did you mean AUCTION_SERVER__PORT?"),
        (
            "AUCTION_BIDDERS__7__TIMEOUT",
            "1",
            "AUCTION_BIDDERS__7__TIMEOUT: unknown setting; did you mean AUCTION_BIDDERS__7__TIMEOUT_MS?",
        ),
        (
            "AUCTION_SERVER__PORT__X",
            "1",
            "AUCTION_SERVER__PORT__X: unknown setting; did you mean AUCTION_SERVER__PORT?",
        ),
        ("AUCTION_", "1", "AUCTION_: unknown setting"),
        (
            "AUCTION_SERVER__PORT",
            "\udcff",
            "server.port: not YAML: a character that no text has (AUCTION_SERVER__PORT)",
        ),
        ("AUCTION_SERVER__PORT", "x", 'server.port: expected 0 to 65535, was "x" (AUCTION_SERVER__PORT)'),
        (
            "AUCTION_BIDDERS__1__NAME",
            "a",
            "bidders[1]: expected an index of at most 0, was 1 (AUCTION_BIDDERS__1__NAME)",
        ),
        (
            "AUCTION_EXCHANGE__INCREMENT",
            "{USD: 1",
            "exchange.increment: not YAML: did not find expected ',' or '}' (AUCTION_EXCHANGE__INCREMENT)",
        ),
    ],
)
def test_a_fault_of_the_environment_names_its_variable(tmp_path: Path, name: str, text: str, said: str) -> None:
    assert faults(tmp_path, "", **{name: text}) == [said]


def test_what_kubernetes_says_of_a_service_called_auction_is_no_setting() -> None:
    theirs = {
        "AUCTION_SERVICE_HOST": "10.0.0.7",
        "AUCTION_SERVICE_PORT": "7400",
        "AUCTION_SERVICE_PORT_GRPC": "7400",
        "AUCTION_PORT": "tcp://10.0.0.7:7400",
        "AUCTION_PORT_7400_TCP": "tcp://10.0.0.7:7400",
        "AUCTION_PORT_7400_TCP_PROTO": "tcp",
        "AUCTION_PORT_7400_TCP_ADDR": "10.0.0.7",
        "AUCTION_SERVER_PORT": "tcp://10.0.0.8:7400",
    }
    assert load(None, {}) == load(None, theirs)


# Secrets


@pytest.mark.parametrize(
    "bidder",
    [
        f"headers: {{authorization: {SECRET}}}",
        f"headers: {{authorization: ' {SECRET}'}}",
        f"headers: {{authorization: {SECRET}{'long' * 1024}}}",
        f"headers: {{authorization: {SECRET}\u00e9}}",
        f"headers: {{authorization: [{SECRET}]}}",
        f"headers: {{authorization: !x {SECRET}}}",
        f"headers: {{authorization: *{SECRET}}}",
        f"headers: {{content-type: {SECRET}}}",
        f"headers: {{A: {SECRET}, a: {SECRET}}}",
        f"headers: {SECRET}",
        f"headers: [{SECRET}]",
        f"http: http://user:{SECRET}@host/",
        f"http: http://user:{SECRET}@host/{'long' * 256}",
        f"http: [http://user:{SECRET}@host/]",
        f"http: http://host/?key={SECRET}",
        f"http: ftp://host/?key={SECRET}",
    ],
)
def test_no_secret_is_ever_told(tmp_path: Path, bidder: str) -> None:
    address = "" if bidder.startswith("http") else "grpc: a:1"
    path = written(tmp_path, f"bidders:\n- name: a\n  {address}\n  {bidder}\n")
    try:
        found = loaded(path, {})
    except ConfigFaults as refused:
        told = str(refused)
    else:
        told = repr(found.config) + repr(found.effective()) + repr(found.config.rules())
        told += found.config.model_dump_json()
    assert SECRET not in told


def test_query_of_the_source_of_rates_is_never_told() -> None:
    found = loaded(None, {"AUCTION_FX__URL": f"https://rates.example/?key={SECRET}"})
    told = repr(found.config) + repr(found.effective()) + repr(found.config.rules()) + found.config.model_dump_json()
    assert SECRET in (found.config.fx.url or "")
    assert SECRET not in told


def test_headers_come_from_the_environment_under_the_name_they_have_in_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "bidders: [{name: a, grpc: 'a:1', headers: {X_Api-Key: unset}}]")
    name = "AUCTION_BIDDERS__0__HEADERS__X_API_KEY"
    found = loaded(path, {name: SECRET, "AUCTION_BIDDERS__0__HEADERS__X_MORE": "5"})
    assert {"x_api-key": SECRET, "x-more": "5"} == found.config.bidders[0].headers
    told = {one.path: (one.value, one.origin) for one in found.effective()}
    assert told["bidders[0].headers.x_api-key"] == ("***", name)


# Cases


def test_the_rules_of_a_case_are_read_by_the_types_of_the_configuration() -> None:
    rules = rules_of_case(
        {
            "request": {},
            "exchange": {"currency": "JPY", "min_price": Decimal("0.5"), "max_cpm": "900", "deal_mode": "deals_first"},
            "bidders": [{"name": "dsp-b", "media": ["video"], "min_ms": 40}],
            "limits": {"imps": 2},
            "fx": {"JPY": "150", "EUR": Decimal("0.92")},
        },
        ["dsp-c", "dsp-b", "dsp-a", "dsp-c"],
    )
    assert (rules.exchange.min_price, rules.exchange.max_cpm, rules.exchange.increment["JPY"]) == (
        500_000,
        900_000_000,
        1_000_000,
    )
    assert rules.bidders == (
        BidderRules("dsp-b", media=("video",), min_ms=40),
        BidderRules("dsp-c"),
        BidderRules("dsp-a"),
    )
    assert rules.limits == Limits(imps=2)
    assert rules.fx.rates == {"JPY": "150", "EUR": "0.92"}


def test_a_bidder_of_a_case_speaks_protobuf_and_needs_no_address() -> None:
    case = {"bidders": [{"name": "a"}, {"name": "b", "http": "http://b/"}]}
    assert rules_of_case(case, []).bidders == (BidderRules("a"), BidderRules("b"))


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ({"fx": {"JPY": "x"}}, 'fx.JPY: expected a decimal, was "x"'),
        ({"fx": []}, "fx: expected a decimal per currency, was a list"),
        ({"exchange": {"min_price": 0.5}}, "exchange.min_price: expected a decimal, was 0.5"),
        ({"bidders": 5}, "bidders: expected a list of at most 256, was 5"),
        (
            {"bidders": [{"name": "a"}, {"name": "a"}]},
            "bidders[1].name: expected a name of its own, was that of bidders[0]",
        ),
    ],
)
def test_a_fault_of_a_case_has_the_path_it_has_there(case: Mapping[str, Any], said: str) -> None:
    with pytest.raises(ConfigFaults) as refused:
        rules_of_case(case, ["dsp-a"])
    assert str(refused.value) == said


# Reload


def test_only_the_server_and_its_log_need_a_restart(tmp_path: Path) -> None:
    old = config(tmp_path, "log: {dir: a}")
    new = config(
        tmp_path,
        "exchange: {currency: EUR}\nbidders: [{name: a, grpc: 'a:1'}]\nserver: {port: 1, drain_s: 3}\nlog: {dir: b}",
    )
    assert what_needs_restart(old, new) == ["server.port", "server.drain_s", "log.dir"]
    assert what_needs_restart(old, old) == []


# What is written from the types


def test_the_schema_describes_every_setting_and_forbids_all_others() -> None:
    assert schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema()["additionalProperties"] is False
    assert all(part["additionalProperties"] is False for part in schema()["$defs"].values())
    described = dict(every_setting())
    assert [name for name, node in described.items() if not node.get("description")] == []
    assert [name for name, node in described.items() if "default" not in node] == [
        "floors.rules[].floor",
        "floors.models[].rules[].floor",
        "bidders[].name",
        # A section that may be absent, and says these where it is not.
        *(f"server.{section}.{name}" for section in ("tls", "http_tls") for name in ("certificate", "key")),
    ]


def test_each_default_of_the_schema_is_the_one_that_counts() -> None:
    told = json.loads(load(None, {}).model_dump_json(by_alias=True))
    for name, node in every_setting():
        section, _, key = name.partition(".")
        if "[]" in name:
            continue
        if "." in key:
            assert told[section][key.partition(".")[0]] is None
        else:
            amount = key in ("min_price", "floor_min")
            default = money.text(node["default"]) if node["default"] == 0 and amount else node["default"]
            assert (name, default) == (name, told[section][key])


def test_the_example_is_what_the_command_prints() -> None:
    assert command.example() == (ROOT / "auction.example.yaml").read_text()


def test_the_example_adds_two_bidders_to_the_defaults_and_changes_nothing_else() -> None:
    found = load(ROOT / "auction.example.yaml", {})
    assert [bidder.name for bidder in found.bidders] == ["dsp-a", "dsp-b"]
    assert load(None, {}) == found.model_copy(update={"bidders": ()})


def test_the_example_names_every_setting_and_each_loads_when_its_line_is_made_to_count(tmp_path: Path) -> None:
    text = re.sub(r"^( *(?:- )?)#(?=\w+:)", r"\1", command.example(), flags=re.MULTILINE)
    # The other way to reach a bidder is shown by the second. Rates come from one source, so each has its turn.
    for other in ("file", "url"):
        found = config(tmp_path, re.sub(rf"^  {other}: .*\n", "", text, flags=re.MULTILINE))
        assert found.log.keep_bytes == 10 * 1024**3
    named = yaml.safe_load(text)
    for name, _ in every_setting():
        section, _, key = name.partition(".")
        shown = named["bidders"][0] | named["bidders"][1] if section == "bidders[]" else named[section]
        assert key.partition("[]")[0].partition(".")[0] in shown


@pytest.mark.parametrize(
    ("key", "fit", "unfit"),
    [
        ("size", ["300x250", "*"], ["300x", "300 x 250", "0x0"]),
        ("country", ["GBR", "gbr", "*"], ["GB", "826"]),
        ("deviceType", ["2", "*"], ["phone", "0"]),
    ],
)
def test_the_schema_takes_a_key_of_a_floor_rule_as_the_types_do(key: str, fit: list[str], unfit: list[str]) -> None:
    pattern = (schema_at(("floors", "rules", 0, key)) or {})["pattern"]
    for text in fit + unfit:
        case = {"floors": {"rules": [{key: text, "floor": 1}]}}
        assert (text in fit) == bool(re.search(pattern, text)) == (refusal(lambda: rules_of_case(case, [])) == [])  # noqa: B023
    assert '{"const": "*"}' in json.dumps(schema()["$defs"]["Floor"]["properties"]["mediaType"])
    assert "integer" in (schema_at(("floors", "rules", 0, "deviceType")) or {})["type"]


def test_the_tables_of_the_operations_page_are_made_from_the_types() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    table = page.partition("<!-- auction config settings -->\n\n")[2].partition("\n<!-- end -->")[0]
    assert command.settings() == table


def test_every_currency_has_three_letters_and_the_digits_of_its_minor_unit() -> None:
    assert all(re.fullmatch("[A-Z]{3}", code) for code in ISO_4217)
    assert (2, 0, 3, 4, 0) == tuple(ISO_4217[code] for code in ("USD", "JPY", "KWD", "CLF", "XAU"))
    assert len(ISO_4217) == 176


# The command


def test_check_tells_every_fault_on_a_line_of_its_own_and_exits_2(tmp_path: Path) -> None:
    path = written(tmp_path, "exchange: {curency: EUR}\nserver: {port: -1}\n")
    refused = check("check", str(path))
    assert (2, "") == (refused.returncode, refused.stdout)
    assert refused.stderr.splitlines() == [
        f"exchange.curency: unknown setting; did you mean currency? ({path}:1)",
        f"server.port: expected 0 to 65535, was -1 ({path}:2)",
    ]
    as_json = check("check", "--json", str(path))
    assert as_json.returncode == 2
    assert [fault["path"] for fault in json.loads(as_json.stdout)["faults"]] == ["exchange.curency", "server.port"]


def test_check_tells_what_counts_and_where_it_comes_from(tmp_path: Path) -> None:
    path = written(tmp_path, "server: {http_port: 1}\n")
    told = check("check", str(path), AUCTION_SERVER__PORT="7500")
    assert (0, "") == (told.returncode, told.stderr)
    rows = {path: (value, origin) for path, value, origin in (row.split() for row in told.stdout.splitlines()[:-2])}
    assert rows["server.port"] == ("7500", "AUCTION_SERVER__PORT")
    assert rows["server.http_port"] == ("1", f"{path}:1")
    assert rows["exchange.increment.JPY"] == ("1", "default")
    assert load(None, {}).rules().digest().hex() in told.stdout.splitlines()[-1]


@pytest.mark.parametrize("action", ["schema", "example", "settings"])
def test_an_action_without_a_file_refuses_one(action: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from auction.__main__ import main

    assert main(["config", action]) == 0
    assert capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main(["config", action, "x.yaml"])


def test_reading_a_configuration_loads_neither_numba_nor_grpcio() -> None:
    line = (
        "import sys, auction.commands.config; print(*{'numba', 'grpc', 'numpy', 'aiohttp', 'rich'} & set(sys.modules))"
    )
    told = subprocess.run(
        [sys.executable, "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert told.stdout == "\n"


# Floors, adjustments


MARKET = """\
exchange:
  bid_adjustments:
  - {bidder: dsp-a, multiplier: 0.90}
  - {media: video, subtract: 0.05}
floors:
  floor_min: 0.1
  skip_rate: 0.050
  rules:
  - {mediaType: banner, size: 300x250, floor: 1.2}
  - {country: gbr, deviceType: 2, domain: WWW.Example.com., tagid: "*", bidder: dsp-a, floor: .8}
bidders:
- {name: dsp-a, grpc: "dsp-a:1", seats: [s1, s1], currency: EUR, blocked_creatives: [c1]}
"""


def test_floors_and_adjustments_are_read_so_that_equal_meaning_is_equal_rules(tmp_path: Path) -> None:
    rules = config(tmp_path, MARKET).rules()
    assert rules.exchange.bid_adjustments == (
        Adjustment(bidder="dsp-a", multiplier="0.9"),
        Adjustment(media="video", subtract=CpmMicros(50_000)),
    )
    banner = FloorRule(CpmMicros(1_200_000), media_type="banner", size="300x250")
    british = FloorRule(CpmMicros(800_000), domain="www.example.com", country="GBR", device_type="2", bidder="dsp-a")
    assert rules.floors == FloorRules(CpmMicros(100_000), "0.05", (FloorModel(rules=(banner, british)),))
    assert rules.bidders[0].seats == ("s1",)
    assert (rules.bidders[0].currency, rules.bidders[0].blocked_creatives) == ("EUR", ("c1",))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "exchange: {bid_adjustments: [{bidder: dsp-a}]}",
            "exchange.bid_adjustments[0]: expected multiplier or subtract, was neither (FILE:1)",
        ),
        (
            "exchange: {bid_adjustments: [{multiplier: 1, subtract: 0}]}",
            "exchange.bid_adjustments[0]: expected multiplier or subtract, was both (FILE:1)",
        ),
        (
            "exchange: {bid_adjustments: [{multiplier: 10.1}]}",
            "exchange.bid_adjustments[0].multiplier: expected more than 0, at most 10, was 10.1 (FILE:1)",
        ),
        (
            "exchange: {bid_adjustments: [{bidder: dsp-b, multiplier: 1}]}",
            'exchange.bid_adjustments[0].bidder: expected the name of a bidder, was "dsp-b"; did you mean dsp-a?'
            " (FILE:1)",
        ),
        (
            "floors: {models: [{default: 1}], default: 2}",
            "floors.models: expected models or default, was both (FILE:1)",
        ),
        (
            "floors: {rules: [{country: GBR, floor: 1}, {floor: 2}, {country: gbr, size: '*', floor: 1}]}",
            "floors.rules[2]: expected keys of its own, has those of floors.rules[0] (FILE:1)",
        ),
        ("floors: {skip_rate: 1.1}", "floors.skip_rate: expected 0 to 1, was 1.1 (FILE:1)"),
        (
            "floors: {rules: [{size: 300x, floor: 1}]}",
            'floors.rules[0].size: expected a size such as 300x250, was "300x" (FILE:1)',
        ),
        (
            "floors: {rules: [{country: GB, floor: 1}]}",
            'floors.rules[0].country: expected three letters of ISO 3166, was "GB" (FILE:1)',
        ),
        (
            "floors: {rules: [{deviceType: phone, floor: 1}]}",
            'floors.rules[0].deviceType: expected the number of a device type, was "phone" (FILE:1)',
        ),
        (
            "floors: {rules: [{bidder: dsp-b, floor: 1}]}",
            'floors.rules[0].bidder: expected the name of a bidder, was "dsp-b"; did you mean dsp-a? (FILE:1)',
        ),
        (
            "floors: {models: [{weight: 0}]}",
            "floors.models[0].weight: expected 1 to 1000000, was 0 (FILE:1)",
        ),
        ("floors: {rules: [{domain: ., floor: 1}]}", 'floors.rules[0].domain: expected a domain, was "." (FILE:1)'),
        ("exchange: {size: strict}", 'exchange.size: expected enforce, warn or off, was "strict" (FILE:1)'),
        ("floors: {rules: [{size: 300x250}]}", "floors.rules[0].floor: expected a value, was nothing (FILE:1)"),
    ],
)
def test_a_market_that_cannot_be_is_told_with_its_setting(tmp_path: Path, text: str, fault: str) -> None:
    assert [fault] == faults(tmp_path, f"{text}\nbidders: [{{name: dsp-a, grpc: 'dsp-a:1'}}]\n")


def test_what_is_at_odds_is_told_beside_what_is_wrong_in_itself(tmp_path: Path) -> None:
    text = """\
exchange:
  soft_floor: -1
  bid_adjustments:
  - {multiplier: 0}
  - {media: video}
floors:
  models:
  - rules:
    - {floor: 1}
    - {floor: x}
    - {country: "*", floor: 2}
    - {bidder: dsp-c, floor: 2}
  default: 1
bidders:
- {name: dsp-a, grpc: "dsp-a"}
"""
    assert faults(tmp_path, text) == [
        "exchange.soft_floor: expected an amount >= 0, was -1 (FILE:2)",
        "exchange.bid_adjustments[0].multiplier: expected more than 0, at most 10, was 0 (FILE:4)",
        "exchange.bid_adjustments[1]: expected multiplier or subtract, was neither (FILE:5)",
        "floors.models: expected models or default, was both (FILE:7)",
        'floors.models[0].rules[1].floor: expected a decimal, was "x" (FILE:10)',
        "floors.models[0].rules[2]: expected keys of its own, has those of floors.models[0].rules[0] (FILE:11)",
        'floors.models[0].rules[3].bidder: expected the name of a bidder, was "dsp-c"; did you mean dsp-a? (FILE:12)',
        'bidders[0].grpc: expected host:port, was "dsp-a" (FILE:15)',
    ]


def test_floors_without_a_rule_and_in_several_models_are_read(tmp_path: Path) -> None:
    alone = config(tmp_path, "floors: {default: 0}").rules().floors
    assert (FloorModel(default=CpmMicros(0)),) == alone.models
    text = "floors: {models: [{name: a, weight: 9, default: 1}, {rules: [{mediaType: audio, floor: 2}]}]}"
    assert config(tmp_path, text).rules().floors.models == (
        FloorModel("a", 9, CpmMicros(1_000_000)),
        FloorModel(rules=(FloorRule(CpmMicros(2_000_000), media_type="audio"),)),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "exchange: {bid_adjustments: [" + "{multiplier: 1}," * 1001 + "]}",
            "exchange.bid_adjustments: expected a list of at most 1000, was one of 1001",
        ),
        ("floors: {models: [" + "{}," * 11 + "]}", "floors.models: expected a list of at most 10, was one of 11"),
        (
            "floors: {rules: [" + ",".join(f"{{tagid: t{row}, floor: 1}}" for row in range(20_001)) + "]}",
            "floors.rules: expected a list of at most 20000, was one of 20001",
        ),
        (
            f"bidders: [{{name: a, grpc: 'a:1', seats: [{', '.join(f's{row}' for row in range(1001))}]}}]",
            "bidders[0].seats: expected a list of at most 1000, was one of 1001",
        ),
        (
            "bidders:\n"
            f"- {{name: b0, grpc: 'b:1', blocked_creatives: &all [{', '.join(f'{n:01000}x' for n in range(1000))}]}}\n"
            + "".join(f"- {{name: b{row}, grpc: 'b:1', blocked_creatives: *all}}\n" for row in range(1, 10)),
            "expected rules of at most 8388608 bytes in a record, was 1004",
        ),
    ],
)
def test_more_than_a_record_of_rules_should_hold_is_refused(tmp_path: Path, text: str, said: str) -> None:
    assert any(line.startswith(said) for line in faults(tmp_path, text))


def test_ten_thousand_floor_rules_are_read(tmp_path: Path) -> None:
    rules = "".join(f"  - {{tagid: t{row}, floor: 0.{row:05}}}\n" for row in range(10_000))
    assert len(config(tmp_path, f"floors:\n  rules:\n{rules}").rules().floors.models[0].rules) == 10_000
