# Everything that can be set, as types. Faults, the JSON Schema, the example file and the table in docs/operations.md
# are all made from them, so a setting is described once. Here is what decides auctions, but for floors (floors.py);
# what is a process's own is in process.py, and what is made of the types in schema.py.
#
# What decides an auction becomes auction.model.rules.Rules, whose defaults are the ones here.

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field, ValidationInfo, field_validator

from auction.config.floors import Floors
from auction.config.kinds import (
    TEXT_CHARS_MAX,
    Amount,
    Amounts,
    Currency,
    Headers,
    Media,
    Multiplier,
    Name,
    Rates,
    Target,
    Text,
    Texts,
    Time,
    Url,
)
from auction.config.process import Log, Server
from auction.config.section import Section
from auction.config.tls import EXAMPLE_CLIENT, ClientTls
from auction.core import categories
from auction.model import money
from auction.model.currencies import ISO_4217
from auction.model.fx import Fx as FxSnapshot
from auction.model.money import CpmMicros
from auction.model.rules import Adjustment as AdjustmentRules
from auction.model.rules import BidderRules, Check, ExchangeRules, Medium, Rules
from auction.model.rules import Limits as LimitsRules

# A minute: no ad call lasts longer, and every wait of an auction is bounded by it.
MS_MAX = 60_000
# 256 replies of 64 KiB fill the largest frame of the log.
BIDDERS_MAX = 256
# 4 MiB each way: what gRPC itself takes by default, sixteen times our default.
REQUEST_BYTES_MAX = 4 * 1024 * 1024
REPLY_BYTES_MAX = 4 * 1024 * 1024
# Ten times the defaults: 256 bidders with as many bids each still fit in memory. Nothing gzip makes grows more than
# 1032 times.
COUNT_MAX = 1_000
# Protobuf readers in every language stop at 100.
DEPTH_MAX = 100
TIE_KEY_CHARS_MAX = 256
# Four times the bidders there may be, for each its formats.
ADJUSTMENTS_MAX = 1_000
# A large buyer's seats, a publisher's list of creatives it never wants to see again.
SEATS_MAX, BLOCKED_CREATIVES_MAX = 1_000, 10_000
# A day: the rates that most people take are fixed once a day.
REFRESH_S_MAX = 24 * 3600
# A year: rates that may be older than that may as well be kept for ever.
MAX_AGE_S_MAX = 366 * 24 * 3600

_EXCHANGE, _BIDDER, _LIMITS, _ADJUSTMENT = ExchangeRules(), BidderRules("-"), LimitsRules(), AdjustmentRules()


class Adjustment(Section):
    """How bids of a kind are weighed: a multiplier, or so much less."""

    bidder: Name | None = Field(default=_ADJUSTMENT.bidder, description="Whose bids; none: everybody's.")
    deal: Text | None = Field(default=_ADJUSTMENT.deal, description="On which deal; none: on any and on none.")
    media: Medium | None = Field(
        default=_ADJUSTMENT.media, description="For impressions of this format alone; none: for all."
    )
    multiplier: Multiplier | None = Field(default=_ADJUSTMENT.multiplier, description="They count as this many times.")
    subtract: Amount | None = Field(
        default=_ADJUSTMENT.subtract, description="They count as so much less, CPM in the exchange's currency."
    )


class Exchange(Section):
    """How an auction is run and settled."""

    currency: Currency = Field(default=_EXCHANGE.currency, description="The auction currency: amounts are of it.")
    increment: Amounts = Field(
        default={},
        validate_default=True,
        description="What a second price adds to the best rival, CPM, per currency; or one amount for `currency`. A "
        "currency that is not listed has one of its minor unit.",
        json_schema_extra={"default": {"USD": "0.01", "EUR": "0.01", "GBP": "0.01", "JPY": "1", "KRW": "1"}},
    )
    min_price: Amount = Field(default=_EXCHANGE.min_price, description="No sale below it, CPM in `currency`.")
    max_cpm: Amount | None = Field(
        default=_EXCHANGE.max_cpm,
        description="A bid that converts to more, before adjustments, is refused, CPM in `currency`.",
        examples=[500],
    )
    tmax_max_ms: int = Field(
        default=_EXCHANGE.tmax_max_ms,
        ge=1,
        le=MS_MAX,
        description="The longest tmax of a request; a longer one counts as this.",
    )
    tmax_ms: int = Field(
        default_factory=lambda known: min(_EXCHANGE.tmax_ms, known.get("tmax_max_ms", MS_MAX)),
        ge=1,
        le=MS_MAX,
        description="The tmax of a request that states none; at most `tmax_max_ms`.",
        json_schema_extra={"default": _EXCHANGE.tmax_ms},
    )
    reply_reserve_ms: int = Field(
        default=_EXCHANGE.reply_reserve_ms,
        ge=0,
        le=MS_MAX,
        description="Kept back of the budget for answering; at most a tenth of it is.",
    )
    deal_mode: Literal["compete", "deals_first"] = Field(
        default=_EXCHANGE.deal_mode,
        description="Whether deals and open bids rank together, or any deal beats every open bid.",
    )
    competitor: Literal["seat", "bidder"] = Field(
        default=_EXCHANGE.competitor, description="Whose bids do not make each other dearer: a seat's, or a bidder's."
    )
    same_seat_sets_price: bool = Field(
        default=_EXCHANGE.same_seat_sets_price,
        description="Whether a competitor's own second bid can set its price after all.",
    )
    min_to_win: Literal["text", "table"] = Field(
        default=_EXCHANGE.min_to_win,
        description="What a loser is told to beat: the winner's price (`text`), or what it pays (`table`). OpenRTB 2.6 "
        "says both.",
    )
    soft_floor: Amount | None = Field(
        default=_EXCHANGE.soft_floor,
        description="An open bid that wins at second price below it pays what it bid; one above, no less than it. CPM "
        "in `currency`.",
        examples=[2],
    )
    tie_key: str = Field(
        default=_EXCHANGE.tie_key,
        max_length=TIE_KEY_CHARS_MAX,
        description="Mixed into the ranks that break ties, so that no bidder can choose ids that win them. Recorded in "
        "logs, never shown to bidders.",
    )
    bid_adjustments: tuple[Adjustment, ...] = Field(
        default=(),
        strict=False,
        max_length=ADJUSTMENTS_MAX,
        description="How bids are weighed against each other; the first that fits counts.",
        examples=[[{"bidder": "dsp-a", "multiplier": "0.9"}, {"media": "video", "subtract": "0.05"}]],
    )
    size: Check = Field(
        default=_EXCHANGE.size, description="What becomes of a banner of another size than those asked for."
    )
    secure: Check = Field(
        default=_EXCHANGE.secure, description="The same for markup with an http: address where https: is asked for."
    )
    crid: Check = Field(default=_EXCHANGE.crid, description="The same for a bid that does not name its creative.")
    category_match: Literal["exact", "parents"] = Field(
        default=_EXCHANGE.category_match,
        description="Whether a blocked category blocks itself only, or all below it as well.",
    )
    deal_advertiser: Literal["strict", "open"] = Field(
        default=_EXCHANGE.deal_advertiser,
        description="Whether a bid on a deal that is closed to its advertiser is refused, or goes on without its deal.",
    )
    strict_ids: bool = Field(
        default=_EXCHANGE.strict_ids, description="Whether a reply without the request's id is refused."
    )
    json_: Literal["lenient", "strict"] = Field(
        default=_EXCHANGE.json,
        alias="json",
        description="Whether common slips in a JSON request are repaired, with a warning each, or refused.",
    )
    explain: Literal["never", "on_request", "always"] = Field(
        default=_EXCHANGE.explain, description="Whether an answer tells why each bid won or lost."
    )

    @field_validator("increment", mode="before")
    @classmethod
    def _one_for_own(cls, given: object, info: ValidationInfo) -> object:
        return given if isinstance(given, dict) else {info.data.get("currency", _EXCHANGE.currency): given}

    @field_validator("increment")
    @classmethod
    def _minor_units(cls, given: dict[str, CpmMicros], info: ValidationInfo) -> dict[str, CpmMicros]:
        listed = dict.fromkeys(("USD", "EUR", "GBP", "JPY", "KRW", info.data.get("currency", _EXCHANGE.currency)))
        return {code: CpmMicros(money.MICROS // 10 ** ISO_4217[code]) for code in listed} | given


class Fx(Section):
    """Exchange rates, one snapshot at a time. Where a rate is missing nothing is converted; nothing counts as 1:1."""

    id: str = Field(
        default="", max_length=TEXT_CHARS_MAX, description="Names the snapshot in records.", examples=["ecb-2026-01-30"]
    )
    time: Time = Field(
        default="", description="When the rates were taken, ISO 8601.", examples=["2026-01-30T15:00:00Z"]
    )
    rates: Rates = Field(
        default={},
        description="Units of each currency per US dollar. USD itself is implied. Beside a source they count until its "
        "first snapshot.",
        examples=[{"EUR": "0.92", "GBP": "0.79", "JPY": "150"}],
    )
    file: str | None = Field(
        default=None,
        min_length=1,
        max_length=TEXT_CHARS_MAX,
        description="A file to take snapshots from.",
        examples=["/etc/auction/rates.json"],
    )
    url: Url | None = Field(
        default=None,
        repr=False,
        description="Or a URL. Its query is never shown.",
        examples=["https://rates.example/usd.json"],
    )
    refresh_s: int = Field(
        default=300, ge=1, le=REFRESH_S_MAX, description="How often the source is asked for another snapshot."
    )
    max_age_s: int | None = Field(
        default=None,
        ge=1,
        le=MAX_AGE_S_MAX,
        description="A snapshot is stale when it was taken longer ago than this; none: never.",
        examples=[7 * 24 * 3600],
    )
    stale: Literal["keep", "drop"] = Field(
        default="keep",
        description="Whether a stale snapshot still counts, or nothing is converted until there is a newer one.",
    )

    def snapshot(self) -> FxSnapshot:
        """Give the rates that stand here."""
        return FxSnapshot(self.id, self.time, self.rates)


class Bidder(Section):
    """Whom to ask: a name, `grpc` or `http`, and when."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["grpc"]}, {"required": ["http"]}]})

    name: Name = Field(description="Its name in records, metrics and explanations; unique.")
    grpc: Target | None = Field(
        default=None, description="host:port of its `auction.v1.Bidder` service.", examples=["127.0.0.1:7501"]
    )
    http: Url | None = Field(
        default=None,
        repr=False,
        description="URL that takes OpenRTB JSON by POST. Its query is never shown.",
        examples=["http://127.0.0.1:7504/openrtb2/bid"],
    )
    transport: Literal["grpcio", "wire"] = Field(
        default="wire", description="What carries gRPC to it, as `server.transport`; `http` needs no choice."
    )
    tls: ClientTls | None = Field(
        default=None,
        description="TLS to it, by whom and how; for `grpc` none is plaintext and `{}` TLS with the system's "
        "authorities, for `http` its URL says which.",
        examples=[EXAMPLE_CLIENT],
    )
    headers: Headers = Field(
        default={},
        repr=False,
        description="Sent with every request: HTTP headers or gRPC metadata. Their values are never shown.",
        examples=[{"x-partner": "auction"}],
    )
    currency: Currency | None = Field(
        default=_BIDDER.currency,
        description="The currency that it is told floors in; none: each in the request's own.",
        examples=["EUR"],
    )
    seats: Texts = Field(
        default=(),
        max_length=SEATS_MAX,
        description="The seats that it may bid for; none listed: any.",
        examples=[["seat-1", "seat-2"]],
    )
    blocked_creatives: Texts = Field(
        default=(),
        max_length=BLOCKED_CREATIVES_MAX,
        description="Creative ids of its that are not shown.",
        examples=[["cr-1"]],
    )
    media: Media = Field(
        default=(),
        description="The formats it is asked for; none listed: every one.",
        examples=[["banner", "video"]],
    )
    min_ms: int = Field(
        default=_BIDDER.min_ms,
        ge=1,
        le=MS_MAX,
        description="It is not asked when it would be given less time than this.",
    )
    network_ms: int = Field(
        default=_BIDDER.network_ms,
        ge=0,
        le=MS_MAX,
        description="The way there and back: taken off the tmax that it is told.",
    )
    timeout_ms: int | None = Field(
        default=_BIDDER.timeout_ms, ge=1, le=MS_MAX, description="The most time that it is given.", examples=[80]
    )

    def rules(self, encoding: Literal["protobuf", "json"]) -> BidderRules:
        """Give what of a bidder decides auctions."""
        return BidderRules(
            name=self.name,
            encoding=encoding,
            media=self.media,
            seats=self.seats,
            currency=self.currency,
            blocked_creatives=self.blocked_creatives,
            min_ms=self.min_ms,
            network_ms=self.network_ms,
            timeout_ms=self.timeout_ms,
        )


class Limits(Section):
    """What is more than this is refused, not tried."""

    request_bytes: int = Field(
        default=_LIMITS.request_bytes,
        ge=1,
        le=REQUEST_BYTES_MAX,
        description="Bytes of a request, unpacked. A change needs a restart.",
    )
    imps: int = Field(default=_LIMITS.imps, ge=1, le=COUNT_MAX, description="Impressions of a request.")
    deals_per_imp: int = Field(default=_LIMITS.deals_per_imp, ge=1, le=COUNT_MAX, description="Deals of an impression.")
    depth: int = Field(
        default=_LIMITS.depth, ge=1, le=DEPTH_MAX, description="Objects within objects, in requests and replies."
    )
    reply_bytes: int = Field(
        default=_LIMITS.reply_bytes, ge=1, le=REPLY_BYTES_MAX, description="Bytes of a bidder's reply, unpacked."
    )
    bids_per_reply: int = Field(default=_LIMITS.bids_per_reply, ge=1, le=COUNT_MAX, description="Bids of a reply.")
    inflation_ratio: int = Field(
        default=_LIMITS.inflation_ratio,
        ge=1,
        le=COUNT_MAX,
        description="How many times its size a gzip body may grow; grpcio does not tell sizes, and keeps to "
        "`request_bytes` and `reply_bytes` only. A change needs a restart.",
    )


class Config(Section):
    """Settings of an auction exchange."""

    exchange: Exchange = Exchange()
    fx: Fx = Fx()
    floors: Floors = Floors()
    bidders: tuple[Bidder, ...] = Field(default=(), strict=False, max_length=BIDDERS_MAX, description="Whom to ask.")
    limits: Limits = Limits()
    server: Server = Server()
    log: Log = Log()

    def rules(self) -> Rules:
        """Give what decides auctions; the order of bidders is theirs here."""
        return Rules(
            exchange=self._exchange_rules(),
            floors=self.floors.rules_of(),
            bidders=tuple(bidder.rules("protobuf" if bidder.grpc else "json") for bidder in self.bidders),
            limits=LimitsRules(**self.limits.model_dump()),
            fx=self.fx.snapshot(),
            data={categories.FILE: categories.DIGEST} if self.exchange.category_match == "parents" else {},
        )

    def _exchange_rules(self) -> ExchangeRules:
        given = self.exchange.model_dump(by_alias=True)
        adjustments = tuple(AdjustmentRules(**one) for one in given.pop("bid_adjustments"))
        return ExchangeRules(**given, bid_adjustments=adjustments)
