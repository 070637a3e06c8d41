# Everything that can be set, as types. Faults, the JSON Schema, the example file and the table in docs/operations.md
# are all made from here, so a setting is described once.
#
# What decides an auction becomes auction.model.rules.Rules, whose defaults are the ones here; the rest is this
# process's own.

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic.json_schema import GenerateJsonSchema

from auction.config.faults import Path
from auction.config.kinds import (
    NAME_CHARS_MAX,
    TEXT_CHARS_MAX,
    Amount,
    Amounts,
    Country,
    Currency,
    DeviceType,
    Domain,
    Headers,
    Host,
    Media,
    Multiplier,
    Name,
    OnlyMedium,
    OrAny,
    Rates,
    Share,
    Size,
    Target,
    Text,
    Texts,
    Time,
    Url,
)
from auction.core import categories
from auction.edge import eventlog, outbox
from auction.edge.transports import Connections
from auction.model import money
from auction.model.currencies import ISO_4217
from auction.model.fx import Fx as FxSnapshot
from auction.model.money import CpmMicros
from auction.model.rules import Adjustment as AdjustmentRules
from auction.model.rules import BidderRules, Check, ExchangeRules, FloorModel, FloorRule, FloorRules, Medium, Rules
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
# 65 536 auctions of 256 KiB would be 16 GiB: beyond, memory is gone before the limit is met.
IN_FLIGHT_MAX = 65_536
# Ten minutes: orchestrators have killed a process long before.
DRAIN_S_MAX = 600
NOTICE_MS_MAX = DRAIN_S_MAX * 1000
# A day: whoever balances by connections that live longer does not balance.
CONNECTION_AGE_S_MAX = 24 * 3600
# An hour: no auction lasts longer than a minute, and a firewall forgets a silent connection before.
CONNECTION_GRACE_S_MAX, KEEPALIVE_S_MAX = 3600, 3600
# As many as auctions may be in flight.
STREAMS_MAX = IN_FLIGHT_MAX
# As many cores as one socket of a server has; beyond, machines are cheaper than what they would have in common.
WORKERS_MAX = 64
# A page of memory, and what a 32-bit offset reaches: tools outside count a file's bytes in one.
SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX = 4096, 2**32 - 1
# A week: by then somebody wants to ship the file.
SEGMENT_S_MAX = 7 * 24 * 3600
# A minute without fsync is as good as `never`.
FSYNC_INTERVAL_MS_MAX = 60_000
# A million records at 8 KB are 8 GB: more memory than the queue may ever cost.
QUEUE_RECORDS_MAX = 1_000_000
QUEUE_BYTES_MAX = 8 * 1024**3
# 2**53 - 1: the largest whole number that every reader of JSON keeps.
KEEP_BYTES_MAX = 2**53 - 1
TIE_KEY_CHARS_MAX = 256
# Four times the bidders there may be, for each its formats.
ADJUSTMENTS_MAX = 1_000
# A large buyer's seats, a publisher's list of creatives it never wants to see again.
SEATS_MAX, BLOCKED_CREATIVES_MAX = 1_000, 10_000
# Ten models are more than anybody can tell apart by their results.
MODELS_MAX = 10
# Each size, on each of some hundred placements, in each of some ten countries. They stand in every record of rules.
FLOOR_RULES_MAX = 20_000
WEIGHT_MAX = 1_000_000
# A day: the rates that most people take are fixed once a day.
REFRESH_S_MAX = 24 * 3600
# A year: rates that may be older than that may as well be kept for ever.
MAX_AGE_S_MAX = 366 * 24 * 3600

_EXCHANGE, _BIDDER, _LIMITS = ExchangeRules(), BidderRules("-"), LimitsRules()
_CONNECTIONS = Connections()
_ADJUSTMENT, _FLOORS, _MODEL, _FLOOR = AdjustmentRules(), FloorRules(), FloorModel(), FloorRule(CpmMicros(0))


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Adjustment(_Section):
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


class Exchange(_Section):
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


class Fx(_Section):
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


class Bidder(_Section):
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
        default="grpcio", description="What carries gRPC to it, as `server.transport`; `http` needs no choice."
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


class Floor(_Section):
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


class Model(_Section):
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


class Floors(_Section):
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


class Limits(_Section):
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
        description="How many times its size a gzip body may grow. A change needs a restart.",
    )


class Server(_Section):
    """Where this process listens, and how much it takes on. A change needs a restart."""

    host: Host = Field(default="127.0.0.1", description="The address to listen on; 0.0.0.0 or :: for every one.")
    port: int = Field(default=7400, ge=0, le=65_535, description="gRPC; 0 takes a free port.")
    http_port: int = Field(
        default=7480, ge=0, le=65_535, description="The JSON edge, health and metrics; 0 takes a free port."
    )
    workers: int = Field(
        default=1,
        ge=1,
        le=WORKERS_MAX,
        description="Processes behind the same ports, each with its own limits and a log in a directory below "
        "`log.dir`. They share connections, not calls.",
    )
    transport: Literal["grpcio", "wire"] = Field(
        default="grpcio",
        description="What carries gRPC to us: the library, or the exchange's own `wire`, which costs less of a core.",
    )
    in_flight: int = Field(
        default=64,
        ge=1,
        le=IN_FLIGHT_MAX,
        description="Auctions at a time, of each worker; more are refused at once, with Retry-After.",
    )
    notice_ms: int = Field(
        default=500,
        ge=0,
        le=NOTICE_MS_MAX,
        description="How long a stop goes on as before once health says NOT_SERVING, so that callers go elsewhere.",
    )
    drain_s: int = Field(
        default=20, ge=0, le=DRAIN_S_MAX, description="How long it then waits for auctions and the log, in seconds."
    )
    connection_age_s: int | None = Field(
        default=_CONNECTIONS.age_s,
        ge=1,
        le=CONNECTION_AGE_S_MAX,
        description="A gRPC connection older than this, give or take a tenth, is told to go (GOAWAY), so that callers "
        "find new servers; none: never.",
    )
    connection_grace_s: int = Field(
        default=_CONNECTIONS.grace_s,
        ge=1,
        le=CONNECTION_GRACE_S_MAX,
        description="How long such a one may go on with calls that it has; more than `exchange.tmax_max_ms`.",
    )
    keepalive_s: int = Field(
        default=_CONNECTIONS.keepalive_s,
        ge=1,
        le=KEEPALIVE_S_MAX,
        description="A gRPC connection that is silent for so long is asked whether it lives.",
    )
    keepalive_timeout_s: int = Field(
        default=_CONNECTIONS.keepalive_timeout_s,
        ge=1,
        le=KEEPALIVE_S_MAX,
        description="It is dropped when it says nothing for so long.",
    )
    connection_streams: int = Field(
        default=_CONNECTIONS.streams,
        ge=1,
        le=STREAMS_MAX,
        description="Calls that a gRPC connection may have open; more wait in the caller, unrefused.",
    )

    def connections(self) -> Connections:
        """Give how gRPC connections live."""
        return Connections(
            age_s=self.connection_age_s,
            grace_s=self.connection_grace_s,
            keepalive_s=self.keepalive_s,
            keepalive_timeout_s=self.keepalive_timeout_s,
            streams=self.connection_streams,
        )


class Log(_Section):
    """The event log, from which auctions are replayed and explained. A change needs a restart."""

    dir: str | None = Field(
        default=None,
        min_length=1,
        max_length=TEXT_CHARS_MAX,
        description="The directory of this process's log; none: no log is written.",
        examples=["/var/lib/auction/log"],
    )
    segment_bytes: int = Field(
        default=eventlog.SEGMENT_BYTES,
        ge=SEGMENT_BYTES_MIN,
        le=SEGMENT_BYTES_MAX,
        description="A file of the log is closed before it grows beyond this.",
    )
    segment_s: int = Field(
        default=int(eventlog.SEGMENT_S), ge=1, le=SEGMENT_S_MAX, description="A file is closed after this many seconds."
    )
    fsync: Literal["always", "interval", "never"] = Field(
        default="interval",
        description="What survives a crash of the machine: every record written, all but the last interval, or what "
        "the system had written by itself. A crash of the process alone loses nothing written.",
    )
    fsync_interval_ms: int = Field(
        default=int(eventlog.FSYNC_INTERVAL_S * 1000),
        ge=1,
        le=FSYNC_INTERVAL_MS_MAX,
        description="For `fsync: interval`.",
    )
    queue_records: int = Field(
        default=outbox.RECORDS_MAX,
        ge=1,
        le=QUEUE_RECORDS_MAX,
        description="Records that wait for the disk; more are dropped and counted, auctions never wait.",
    )
    queue_bytes: int = Field(
        default=outbox.BYTES_MAX, ge=1, le=QUEUE_BYTES_MAX, description="The same, in bytes of memory."
    )
    keep_bytes: int | None = Field(
        default=None,
        ge=1,
        le=KEEP_BYTES_MAX,
        description="Delete the oldest files beyond this many bytes, at least twice `segment_bytes`; none: keep all.",
        examples=[10 * 1024**3],
    )


class Config(_Section):
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


class _Untitled(GenerateJsonSchema):
    """Leave out titles: they only say a setting's name again."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


@functools.cache
def schema() -> dict[str, Any]:
    """Describe the file as JSON Schema, draft 2020-12."""
    described = Config.model_json_schema(schema_generator=_Untitled)
    return {"$schema": GenerateJsonSchema.schema_dialect, **described}


def schema_at(path: Path) -> dict[str, Any] | None:
    """Find what the schema says of one setting, or of what may stand in its place; None where nothing may."""
    node: dict[str, Any] | None = _plain(schema())
    for part in path:
        if node is None:
            return None
        within = node.get("items") if isinstance(part, int) else node.get("properties", {}).get(part)
        free = None if isinstance(part, int) else node.get("additionalProperties") or None
        found = within or free or next(iter(node.get("patternProperties", {}).values()), None)
        node = _plain(found) if found else None
    return node


def every_setting(path: Path = (), written: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Name every setting, `bidders[].timeout_ms`, in order, with what the schema says of it."""
    for key, node in (schema_at(path) or {})["properties"].items():
        below, item = schema_at((*path, key)) or node, schema_at((*path, key, 0)) or {}
        name = f"{written}.{key}" if written else key
        if "properties" in below:
            yield from every_setting((*path, key), name)
        elif "properties" in item:
            yield from every_setting((*path, key, 0), f"{name}[]")
        else:
            yield name, below


def _plain(node: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference, and look past the null of a setting that may be absent."""
    if "anyOf" in node:
        return {**_plain(node["anyOf"][0]), **{key: value for key, value in node.items() if key != "anyOf"}}
    if "$ref" in node:
        return {**schema()["$defs"][node["$ref"].rpartition("/")[2]], **node}
    return node


def expected(node: dict[str, Any]) -> str:
    """Say in words which values a setting takes."""
    kind = node.get("type")
    if "enum" in node:
        *others, last = node["enum"]
        return f"{', '.join(others)} or {last}"
    if "$comment" in node:
        return str(node["$comment"])
    if kind == "integer":
        return f"{node['minimum']} to {node['maximum']}"
    if isinstance(kind, list):
        if "exclusiveMinimum" in node:
            return f"a decimal above {node['exclusiveMinimum']}, at most {node['maximum']}"
        return f"a decimal, {node['minimum']} to {node['maximum']}"
    if kind == "string":
        if "pattern" in node:
            return "an ISO 4217 code"
        if "minLength" in node:
            return f"text of {node['minLength']} to {node['maxLength']} characters"
        return f"text of at most {node['maxLength']} characters" if "maxLength" in node else "text"
    if kind == "array":
        most = f" of at most {node['maxItems']}" if "maxItems" in node else ""
        return f"a list of {expected(node['items'])}" if "enum" in node["items"] else f"a list{most}"
    if kind == "object":
        most = f" of at most {node['maxProperties']}" if "maxProperties" in node else ""
        return "a decimal per currency" if "patternProperties" in node else f"a mapping{most}"
    return "true or false"
