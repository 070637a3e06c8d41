# Rules as settings, and settings over them: what would have been, had somebody configured it otherwise.
#
# A log holds rules, not the file that they came from. Here they are written out as a case would state them, single
# settings are laid over that, and the whole is read by the same types that read a configuration, so that nothing can be
# asked for in a replay that could not be set.

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from auction.config.faults import ConfigFaults, Fault, Path
from auction.config.sources import setting_value
from auction.model.money import text
from auction.model.rules import FloorRule, Rules

# Of a bidder, what its address says; a case has none.
_ENCODING = "encoding"


def settings_of(rules: Rules) -> dict[str, Any]:
    """Write rules as the settings of a case: reading them gives these rules again."""
    exchange = msgspec.structs.asdict(rules.exchange)
    for name in ("min_price", "max_cpm", "soft_floor"):
        exchange[name] = None if exchange[name] is None else text(exchange[name])
    exchange["increment"] = {code: text(amount) for code, amount in rules.exchange.increment.items()}
    exchange["bid_adjustments"] = [
        {**msgspec.structs.asdict(one), "subtract": None if one.subtract is None else text(one.subtract)}
        for one in rules.exchange.bid_adjustments
    ]
    models = [
        {
            "name": model.name,
            "weight": model.weight,
            "default": None if model.default is None else text(model.default),
            "rules": [_floor(rule) for rule in model.rules],
        }
        for model in rules.floors.models
    ]
    floors: dict[str, Any] = {"floor_min": text(rules.floors.floor_min), "skip_rate": rules.floors.skip_rate}
    alone = len(models) == 1 and not models[0]["name"] and models[0]["weight"] == 1
    floors |= {name: models[0][name] for name in ("default", "rules")} if alone else {"models": models}
    bidders = [msgspec.structs.asdict(bidder) for bidder in rules.bidders]
    for bidder in bidders:
        del bidder[_ENCODING]
    return {
        "exchange": exchange,
        "floors": floors,
        "bidders": bidders,
        "limits": msgspec.structs.asdict(rules.limits),
        "fx": dict(rules.fx.rates),
    }


def _floor(rule: FloorRule) -> dict[str, Any]:
    keys = msgspec.to_builtins(rule)
    return {**{key: value for key, value in keys.items() if value is not None}, "floor": text(rule.floor)}


def laid_over(settings: dict[str, Any], changes: Iterable[str]) -> None:
    """Lay changes over the settings of a case: each KEY=VALUE, the value as in a configuration file.

    A key is `section.setting`, in `exchange` without the section; `bidders.NAME.setting`; `fx.rates.CODE`. What stands
    below a setting is changed with it as a whole; `floors.models` says what the only model's rules and default said.
    Raises ConfigFaults with all that is wrong.
    """
    faults: list[Fault] = []
    changed: set[Path] = set()
    for change in changes:
        try:
            changed.add(_laid_over(settings, change))
        except ConfigFaults as refused:
            faults += refused.faults
    if faults:
        raise ConfigFaults(faults)
    if ("floors", "models") in changed:
        for name in ("rules", "default"):
            if ("floors", name) not in changed:
                settings["floors"].pop(name, None)


def _laid_over(settings: dict[str, Any], change: str) -> Path:
    key, equals, written = change.partition("=")
    section, _, name = key.partition(".")
    if not equals or not key:
        raise _faulty(change, "expected KEY=VALUE, such as increment=0.02 or floors.floor_min=0.50")
    if not name:
        section, name = "exchange", section
    if section not in settings:
        raise _faulty(change, f"expected a setting of {', '.join(settings)}, was one of {section}")
    within: Any = settings[section]
    path: Path = (section, name)
    if section == "bidders":
        whose, _, name = name.rpartition(".")
        row = next((row for row, bidder in enumerate(within) if bidder["name"] == whose), None)
        if row is None or not name:
            known = ", ".join(str(bidder["name"]) for bidder in within)
            raise _faulty(change, f"expected bidders.NAME.SETTING, with a name of {known}")
        within, path = within[row], ("bidders", row, name)
    elif section == "fx":
        rates, _, name = name.partition(".")
        if rates != "rates" or not name:
            raise _faulty(change, "expected fx.rates.CODE")
        path = ("fx", "rates", name)
    within[name] = setting_value(path, change, written)
    return path


def _faulty(change: str, message: str) -> ConfigFaults:
    return ConfigFaults([Fault(f"--set {change}", message)])
