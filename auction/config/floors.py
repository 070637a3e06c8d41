# The exchange's own floors, as settings.

from __future__ import annotations

from pydantic import Field

from auction.config.kinds import (
    NAME_CHARS_MAX,
    Amount,
    Country,
    DeviceType,
    Domain,
    Name,
    OnlyMedium,
    OrAny,
    Share,
    Size,
    Text,
)
from auction.config.section import Section
from auction.model.money import CpmMicros
from auction.model.rules import FloorModel, FloorRule, FloorRules

# Ten models are more than anybody can tell apart by their results.
MODELS_MAX = 10
# Each size, on each of some hundred placements, in each of some ten countries. They stand in every record of rules.
FLOOR_RULES_MAX = 20_000
WEIGHT_MAX = 1_000_000

_FLOORS, _MODEL, _FLOOR = FloorRules(), FloorModel(), FloorRule(CpmMicros(0))


class Floor(Section):
    """A floor for impressions of a kind. A key that is left out, or `*`, is any."""

    floor: Amount = Field(description="CPM in the exchange's currency.")
    mediaType: OrAny[OnlyMedium] = Field(  # noqa: N815  # as the field's floor files write it
        default=_FLOOR.media_type, description="The only format of an impression."
    )
    size: OrAny[Size] = Field(default=_FLOOR.size, description="Its only size.")
    domain: OrAny[Domain] = Field(default=_FLOOR.domain, description="Of the site, app or screen.")
    tagid: OrAny[Text] = Field(default=_FLOOR.tagid, description="Its placement.")
    country: OrAny[Country] = Field(default=_FLOOR.country, description="Where the device is.")
    deviceType: OrAny[DeviceType] = Field(  # noqa: N815  # as for mediaType
        default=_FLOOR.device_type, description="What kind of device it is, as OpenRTB numbers them."
    )
    bidder: OrAny[Name] = Field(default=_FLOOR.bidder, description="Who is asked.")

    def rules(self) -> FloorRule:
        """Give the rule that decides auctions."""
        return FloorRule(
            floor=self.floor,
            media_type=self.mediaType,
            size=self.size,
            domain=self.domain,
            tagid=self.tagid,
            country=self.country,
            device_type=self.deviceType,
            bidder=self.bidder,
        )


class Model(Section):
    """One set of floors, drawn with its weight."""

    name: str = Field(default=_MODEL.name, max_length=NAME_CHARS_MAX, description="For people.")
    weight: int = Field(default=_MODEL.weight, ge=1, le=WEIGHT_MAX, description="Its share of all weights is drawn.")
    default: Amount | None = Field(default=_MODEL.default, description="Where no rule fits, CPM; none: no floor.")
    rules: tuple[Floor, ...] = Field(
        default=(), strict=False, max_length=FLOOR_RULES_MAX, description="The rule that names the most keys counts."
    )

    def model(self) -> FloorModel:
        """Give the model that decides auctions."""
        return FloorModel(self.name, self.weight, self.default, tuple(rule.rules() for rule in self.rules))


class Floors(Section):
    """The exchange's own floors. They only raise what is asked of open bids. A rule's key left out, or `*`, is any."""

    floor_min: Amount = Field(default=_FLOORS.floor_min, description="The least that a rule asks, CPM in `currency`.")
    skip_rate: Share = Field(default=_FLOORS.skip_rate, description="The share of auctions that are left alone.")
    default: Amount | None = Field(
        default=_MODEL.default, description="Of the only model: where no rule fits, CPM; none: no floor."
    )
    rules: tuple[Floor, ...] = Field(
        default=(),
        strict=False,
        max_length=FLOOR_RULES_MAX,
        description="Of the only model: the rule that names the most keys counts.",
        examples=[[{"mediaType": "banner", "size": "300x250", "floor": "1.20"}, {"country": "GBR", "floor": "0.80"}]],
    )
    models: tuple[Model, ...] = Field(
        default=(),
        strict=False,
        max_length=MODELS_MAX,
        description="Or several models, of which one is drawn for each auction.",
    )

    def rules_of(self) -> FloorRules:
        """Give what decides auctions."""
        models = tuple(model.model() for model in self.models)
        if self.rules or self.default is not None:
            models = (FloorModel(default=self.default, rules=tuple(rule.rules() for rule in self.rules)),)
        return FloorRules(self.floor_min, self.skip_rate, models)
