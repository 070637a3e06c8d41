# The chart's alerts, as Prometheus' own tool runs them over series that are written down here: what fires, and what
# does not. A minute is a step; 60 a step is one a second.

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from charts import ci, every, one, refused, render

from auction.edge.metrics import OUTCOMES, OVERRUN_BUCKETS_MS, REPLIES, TABLE

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not here; Debian's package is `prometheus`")

# Seven hours: longer than every window but that of three days, whose shares are of what there is. Three days of steps
# would take minutes each.
LONG = 7 * 60


def rules(**monitoring: Any) -> dict[str, Any]:
    values = ci("podmonitor")
    values["monitoring"]["rules"] |= monitoring
    spec: dict[str, Any] = one(render(values), "PrometheusRule")["spec"]
    return spec


RULES = rules()
ALERTS = {rule["alert"] for group in RULES["groups"] for rule in group["rules"] if "alert" in rule}


def steady(a_step: float, steps: int = LONG) -> str:
    return f"0+{a_step}x{steps}"


# When it ends, in seconds since the first step.
CERTIFICATE = 'auction_tls_certificate_expiry_timestamp_seconds{of="server.tls"}'


def series(changes: dict[str, str], steps: int = LONG) -> dict[str, str]:
    """Give the series of one healthy pod, with some of them changed."""
    healthy: dict[str, str] = {
        "auction_build_info": f"1x{steps}",
        "auction_reload_last_success": f"1x{steps}",
        "auction_outbox_failing": f"0x{steps}",
        'auction_outbox_dropped_total{reason="full"}': f"0x{steps}",
        "auction_fx_age_seconds": f"3600x{steps}",
        CERTIFICATE: f"{30 * 86400}x{steps}",
        'auction_bidder_asked_total{bidder="dsp-a"}': steady(6000, steps),
        "auction_deadline_overrun_seconds_count": steady(600, steps),
        'auction_deadline_overrun_seconds_bucket{le="0.005"}': steady(600, steps),
        'auction_deadline_overrun_seconds_bucket{le="+Inf"}': steady(600, steps),
    }
    healthy |= {f'auction_auctions_total{{outcome="{outcome}"}}': f"0x{steps}" for outcome in OUTCOMES}
    healthy |= {f'auction_bidder_replies_total{{bidder="dsp-a",status="{status}"}}': f"0x{steps}" for status in REPLIES}
    healthy['auction_auctions_total{outcome="sold"}'] = steady(3000, steps)
    healthy['auction_auctions_total{outcome="unsold"}'] = steady(3000, steps)
    healthy['auction_bidder_replies_total{bidder="dsp-a",status="bid"}'] = steady(6000, steps)
    assert changes.keys() <= healthy.keys()
    return {**healthy, **changes}


def labelled(name: str, **labels: str) -> str:
    metric, _, given = name.partition("{")
    own = {"namespace": "ads", "release": "auction", "track": "stable", "pod": "auction-0", **labels}
    text = ",".join([f'{label}="{value}"' for label, value in own.items()] + [given.rstrip("}")] * bool(given))
    return f"{metric}{{{text}}}"


def tried(folder: Path, test: dict[str, Any], spec: dict[str, Any] = RULES) -> None:
    """Run one unit test of promtool, and say what it says where it fails."""
    (folder / "rules.yaml").write_text(yaml.safe_dump(spec))
    file = folder / "test.yaml"
    file.write_text(
        json.dumps({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [{"interval": "1m", **test}]})
    )
    assert PROMTOOL is not None
    ran = subprocess.run([PROMTOOL, "test", "rules", str(file)], capture_output=True, text=True)
    assert 0 == ran.returncode, ran.stdout + ran.stderr


def given(written: dict[str, str], **labels: str) -> list[dict[str, str]]:
    return [{"series": labelled(name, **labels), "values": values} for name, values in written.items()]


def firing(alerts: set[str], at: int = LONG) -> list[dict[str, Any]]:
    """Expect these alerts to fire at a step, and no others."""
    return [
        {
            "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
            "eval_time": f"{at}m",
            "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in sorted(alerts)],
        }
    ]


SOLD = 'auction_auctions_total{outcome="sold"}'
ERROR = 'auction_auctions_total{outcome="error"}'
CANCELLED = 'auction_auctions_total{outcome="cancelled"}'
OVERLOAD = 'auction_auctions_total{outcome="overload"}'
REFUSED = 'auction_auctions_total{outcome="refused"}'
WITHIN = 'auction_deadline_overrun_seconds_bucket{le="0.005"}'
TIMED_OUT = 'auction_bidder_replies_total{bidder="dsp-a",status="timed_out"}'
INVALID = 'auction_bidder_replies_total{bidder="dsp-a",status="invalid"}'
ASKED = 'auction_bidder_asked_total{bidder="dsp-a"}'
DROPPED = 'auction_outbox_dropped_total{reason="full"}'
FAST, STEADY, SLOW = (f"AuctionAnswersMissed{name}" for name in ("Fast", "Steady", "Slow"))

# What happens, and which alerts there are at its end.
CASES: dict[str, tuple[dict[str, str], set[str]]] = {
    "a healthy exchange is silent": ({}, set()),
    # Of 6000 a minute and these: 1.96 %, 0.8 %, 0.3 %, and 0.08 %, which is what the objective allows.
    "two percent of errors are fast, steady and slow": ({ERROR: steady(120)}, {FAST, STEADY, SLOW}),
    "eight in a thousand are steady and slow": ({ERROR: steady(48)}, {STEADY, SLOW}),
    "three in a thousand are slow": ({ERROR: steady(18)}, {SLOW}),
    "less than the objective allows is nothing": ({ERROR: steady(5)}, set()),
    "answers that are late count as missed": ({WITHIN: steady(480)}, {FAST, STEADY, SLOW}),
    "callers that gave up count as missed": ({CANCELLED: steady(120)}, {FAST, STEADY, SLOW}),
    "requests turned away count as missed, and have an alert of their own": (
        {OVERLOAD: steady(120)},
        {FAST, STEADY, SLOW, "AuctionOverload"},
    ),
    "refused requests are their callers'": ({REFUSED: steady(600)}, {"AuctionRefusals"}),
    "few refused requests are nothing": ({REFUSED: steady(240)}, set()),
    "two percent that have ended are not fast or steady": (
        {ERROR: f"0+120x{LONG - 40} {120 * (LONG - 40)}x39"},
        {SLOW},
    ),
    "two percent of ten minutes are not fast": ({ERROR: f"0x{LONG - 11} 0+120x10"}, set()),
    "a bidder that times out": ({TIMED_OUT: steady(1500)}, {"AuctionBidderTimesOut"}),
    "a bidder that times out now and then": ({TIMED_OUT: steady(900)}, set()),
    "a bidder that is hardly asked is not judged": ({ASKED: steady(3), TIMED_OUT: steady(3)}, set()),
    "a bidder that replies nonsense": ({INVALID: steady(600)}, {"AuctionBidderInvalid"}),
    "a bidder that replies nonsense now and then": ({INVALID: steady(120)}, set()),
    "records that are lost": ({DROPPED: f"0x{LONG - 5} 0+1x4"}, {"AuctionLogDrops"}),
    "records that were lost an hour ago": ({DROPPED: f"0x{LONG - 60} 9x59"}, set()),
    "a disk that refuses": ({"auction_outbox_failing": f"0x{LONG - 5} 1x4"}, {"AuctionLogFails"}),
    "a disk that refused once": ({"auction_outbox_failing": f"0x{LONG - 1} 1"}, set()),
    "a configuration that stays refused": (
        {"auction_reload_last_success": f"1x{LONG - 20} 0x19"},
        {"AuctionConfigurationRefused"},
    ),
    "a configuration refused while pods are replaced": ({"auction_reload_last_success": f"1x{LONG - 9} 0x8"}, set()),
    "rates of last week": ({"auction_fx_age_seconds": f"{6 * 86400}x{LONG}"}, {"AuctionRatesOld"}),
    "rates of Friday on a Tuesday after Easter": ({"auction_fx_age_seconds": f"{4 * 86400}x{LONG}"}, set()),
    # Seven hours have gone by when it is looked at.
    "a certificate of less than a week": ({CERTIFICATE: f"{7 * 86400}x{LONG}"}, {"AuctionCertificateExpires"}),
    "a certificate of more than a week": ({CERTIFICATE: f"{7 * 86400 + 8 * 3600}x{LONG}"}, set()),
    "a certificate that was renewed late": ({CERTIFICATE: f"{86400}x{LONG - 1} {90 * 86400}"}, set()),
    "a certificate that has ended": ({CERTIFICATE: f"3600x{LONG}"}, {"AuctionCertificateExpires"}),
    "no exchange": ({"auction_build_info": f"1x{LONG - 20} stale"}, {"AuctionSilent"}),
}


@needs_promtool
@pytest.mark.parametrize(("changes", "expected"), CASES.values(), ids=CASES)
def test_what_fires(changes: dict[str, str], expected: set[str], tmp_path: Path) -> None:
    tried(tmp_path, {"input_series": given(series(changes)), "promql_expr_test": firing(expected)})


def test_every_alert_is_seen_firing_and_every_one_is_seen_silent() -> None:
    fired = [expected for _, expected in CASES.values()]
    assert set().union(*fired) == ALERTS
    assert set() in fired


@needs_promtool
def test_a_canary_is_judged_beside_the_stable_pods(tmp_path: Path) -> None:
    sick = {**series({}), SOLD: steady(300), ERROR: steady(120)}
    healthy = {**series({}), SOLD: steady(60_000)}
    test = {
        "input_series": given(healthy) + given(sick, track="canary", pod="auction-canary-0"),
        "promql_expr_test": [
            {
                "expr": f'count by (track) (ALERTS{{alertname="{FAST}",alertstate="firing"}})',
                "eval_time": f"{LONG}m",
                "exp_samples": [{"labels": '{track="canary"}', "value": 1}],
            }
        ],
    }
    tried(tmp_path, test)


@needs_promtool
def test_another_release_is_none_of_ours(tmp_path: Path) -> None:
    other = given(series({ERROR: steady(600), DROPPED: steady(60)}), release="another", pod="another-0")
    tried(tmp_path, {"input_series": given(series({})) + other, "promql_expr_test": firing(set())})


@needs_promtool
def test_an_alert_says_who_and_how_much(tmp_path: Path) -> None:
    expected = {
        "exp_labels": {
            "severity": "warning",
            "namespace": "ads",
            "release": "auction",
            "track": "stable",
            "bidder": "dsp-a",
        },
        "exp_annotations": {
            "summary": "Bidder dsp-a replies what cannot be used",
            "description": "10% of its replies could not be read. `auction explain` shows one.",
        },
    }
    test = {
        "input_series": given(series({INVALID: steady(600)})),
        "alert_rule_test": [{"eval_time": f"{LONG}m", "alertname": "AuctionBidderInvalid", "exp_alerts": [expected]}],
    }
    tried(tmp_path, test)


@needs_promtool
def test_promtool_finds_nothing_to_say(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(RULES))
    assert PROMTOOL is not None
    ran = subprocess.run([PROMTOOL, "check", "rules", str(file)], capture_output=True, text=True)
    assert 0 == ran.returncode, ran.stdout + ran.stderr


def test_every_metric_of_a_rule_is_in_the_table_with_its_labels() -> None:
    # Durations and records, which are made here, aside.
    names = {suffixed: metric for metric in TABLE for suffixed in names_of(metric.kind, metric.name)}
    for group in RULES["groups"]:
        for rule in group["rules"]:
            for name, matchers in re.findall(r"\b(auction_\w+)\{([^}]*)\}", rule["expr"]):
                labels = set(re.findall(r'(\w+)(?:=|!=|=~)"', matchers)) - {"namespace", "release", "track"}
                assert labels <= {*names[name].labels, *(["le"] if name.endswith("_bucket") else [])}


def names_of(kind: str, name: str) -> list[str]:
    return [f"{name}_{part}" for part in ("bucket", "count", "sum")] if kind == "histogram" else [name]


@pytest.mark.parametrize("reserve_ms", [0, 1, 5, 6, 20, 500])
def test_late_is_what_the_reserve_does_not_cover(reserve_ms: int) -> None:
    values = ci("podmonitor") | {"config": {"exchange": {"reply_reserve_ms": reserve_ms}}}
    spec = one(render(values), "PrometheusRule")["spec"]
    within = [bound for bound in OVERRUN_BUCKETS_MS if bound <= reserve_ms]
    expected = {repr(round(within[-1] * 1000) / 1e6)} if within else set()
    assert expected == set(re.findall(r'le="([^"]+)"', json.dumps(spec).replace("\\", "")))


def test_an_objective_changes_every_rate_it_is_judged_by() -> None:
    limits = [
        float(found)
        for rule in rules(objective=0.99)["groups"][1]["rules"][:3]
        for found in re.findall(r"> ([0-9.]+)", rule["expr"])
    ]
    assert [0.144, 0.144, 0.06, 0.06, 0.01, 0.01] == pytest.approx(limits)
    assert "objective" in refused({"monitoring": {"rules": {"objective": 1}}})


def test_an_objective_leaves_every_alert_a_share_at_which_it_fires() -> None:
    least = rules(objective=0.95)["groups"][1]["rules"][:3]
    assert all(float(found) < 1 for rule in least for found in re.findall(r"> ([0-9.]+)", rule["expr"]))
    assert "objective" in refused({"monitoring": {"rules": {"objective": 0.94}}})


def test_rules_over_series_that_nobody_labels_are_refused() -> None:
    assert "monitoring.rules.selector: expected one" in refused({"monitoring": {"rules": {"enabled": True}}})
    own = {"rules": {"enabled": True, "selector": 'job="auction"'}}
    assert 'auction_build_info{job="auction"}' in json.dumps(render({"monitoring": own})).replace("\\", "")


def test_without_the_switch_there_are_no_rules() -> None:
    assert [] == every(render(), "PrometheusRule")
