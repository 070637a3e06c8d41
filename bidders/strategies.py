# What a bidder decides: BidRequest in, bids out, and when. A pure function of settings and request.
#
# Every chance is a hash of seed, name and request id (auction/model/draws.py), never a generator's state: bids do not
# depend on which requests came before, on the protocol or on the process, so a demo and a benchmark can be repeated.
#
# Worth has two parts. What the market thinks of an impression is drawn from the request alone, so rivals agree on it
# more or less and prices come close to each other, as they do in a real auction; what a bidder thinks beyond that is
# its own. Floats are in order here: this is a buyer's opinion, not an exchange's books.

from __future__ import annotations

from collections.abc import Callable, Collection
from math import exp, log
from statistics import NormalDist

import msgspec

from auction.model.draws import fnv1a64, framed, mix64
from auction.v1.openrtb_pb2 import BidRequest, BidResponse
from bidders.creatives import advertiser, fill
from bidders.settings import Fault, Settings, Spread

# What an impression of each format is worth, in banners.
WORTH = {"banner": 1.0, "native": 1.3, "audio": 5.0, "video": 9.0}

# A deal is made for what is worth more than the rest.
DEAL_WORTH = 2.0

# A request says how long we have; one that does not leaves us the exchange's usual budget.
TMAX_MS = 100

_MASK = 0xFFFFFFFFFFFFFFFF
_NORMAL = NormalDist()
_BELOW_ONE = 1 - 2.0**-53


class Decision(msgspec.Struct, frozen=True):
    """What to say, how many seconds after the request, and what goes wrong on the way; no response is a no-bid."""

    response: BidResponse | None
    delay_s: float
    fault: Fault | None


def decide(settings: Settings, request: BidRequest) -> Decision:
    """Decide on one request: which impressions are wanted, at what price, and how this call ends."""
    seed = framed(str(settings.seed)) + framed(settings.name) + framed(request.id)
    own = Draws(seed)
    fault = _fault(settings, own.unit())
    delay_ms = _lognormal(settings.latency_ms, own.unit())
    if fault is Fault.LATE:
        delay_ms = (request.tmax or TMAX_MS) + 10 + 50 * own.unit()
    response = None if settings.strategy == "silent" else _bids(settings, request, Draws(b"bids" + seed))
    return Decision(response, delay_ms / 1000, fault)


class Draws:
    """An endless row of numbers in (0, 1) that begins at a hash: splitmix64. `branch` is meant for fresh rows."""

    __slots__ = ("state",)

    def __init__(self, seed: bytes) -> None:
        self.state = fnv1a64(seed)

    def unit(self) -> float:
        self.state = (self.state + 0x9E3779B97F4A7C15) & _MASK
        # Half a step inside, so that neither end is ever drawn: the normal distribution has no value there. 52 bits,
        # because the half takes one of a double's 53.
        return ((mix64(self.state) >> 12) + 0.5) * 2.0**-52

    def branch(self, part: bytes) -> Draws:
        """Begin another row for a part of what this one is about."""
        other = Draws(part)
        other.state ^= self.state
        return other


def _bids(settings: Settings, request: BidRequest, own: Draws) -> BidResponse | None:
    market = Draws(framed(request.id))
    whole = own.branch(b"")
    currency = _currency(settings, request)
    buyer = advertiser(request, whole.unit())
    if currency is None or buyer is None:
        return None
    rate = settings.rates[currency]
    response = BidResponse(id=request.id, bidid=f"{settings.name}-{whole.state:016x}", cur=currency)
    seats: dict[str, BidResponse.SeatBid] = {}
    usual = whole.unit()
    for imp in request.imp:
        part = imp.id.encode()
        chance = own.branch(part)
        medium = _medium(settings, imp, chance.unit())
        if medium is None or chance.unit() >= settings.bid_share:
            continue
        offer = _offer(settings, request, imp, WORTH[medium], market.branch(part).unit(), usual, chance)
        if offer is None:
            continue
        price, seat, dealid = offer
        if seat not in seats:
            seats[seat] = response.seatbid.add(seat=seat)
        bid = seats[seat].bid.add(id=f"{settings.name}-{imp.id}", impid=imp.id, price=round(price * rate, 4))
        if dealid:
            bid.dealid = dealid
        fill(bid, imp, medium, buyer, chance.unit())
    return response if seats else None


def _offer(
    settings: Settings,
    request: BidRequest,
    imp: BidRequest.Imp,
    worth: float,
    opinion: float,
    usual: float,
    chance: Draws,
) -> tuple[float, str, str] | None:
    """Give price in USD CPM, seat and deal id (empty: open) for an impression that is wanted; None for no offer."""
    open_floor = _usd(settings, imp.bidfloor, imp.bidfloorcur)
    private = imp.pmp.private_auction
    if imp.pmp.deals and (private or chance.unit() < settings.deal_share):
        usable = [(deal, seat) for deal in imp.pmp.deals if (seat := _seat(settings, request, deal.wseat, usual))]
        if usable:
            deal, seat = usable[int(chance.unit() * len(usable))]
            floor = _usd(settings, deal.bidfloor, deal.bidfloorcur) if deal.HasField("bidfloor") else open_floor
            price = _price(settings, worth * DEAL_WORTH, opinion, chance, floor)
            if price and floor is not None:
                # At 3 the price was agreed upon: nothing is left to decide but whether it is worth that.
                return floor if deal.at == 3 else price, seat, deal.id
    if private:
        return None
    price = _price(settings, worth, opinion, chance, open_floor)
    seat_open = _seat(settings, request, (), usual)
    return (price, seat_open, "") if price and seat_open else None


def _fixed(settings: Settings, worth: float, opinion: float, chance: Draws, floor: float) -> float | None:
    """Offer the same for every impression of a format."""
    return settings.price.median * worth


def _value_noise(settings: Settings, worth: float, opinion: float, chance: Draws, floor: float) -> float | None:
    """Offer what the market thinks it is worth, more or less."""
    return worth * _lognormal(settings.price, opinion) * _lognormal(Spread(1.0, settings.noise), chance.unit())


def _truncated(settings: Settings, worth: float, opinion: float, chance: Draws, floor: float) -> float | None:
    """Offer a value between the floor and the ceiling, distributed as `price` is between the two."""
    spread, ceiling = settings.price, settings.price.median * settings.ceiling
    if not spread.sigma:
        return spread.median * worth
    if floor / worth >= ceiling:
        return None
    low = _NORMAL.cdf(log(floor / worth / spread.median) / spread.sigma) if floor else 0.0
    high = _NORMAL.cdf(log(ceiling / spread.median) / spread.sigma)
    # Far enough out, the distribution has nothing left in between.
    return worth * _lognormal(spread, min(low + (high - low) * chance.unit(), _BELOW_ONE)) if low < high else None


_PRICING: dict[str, Callable[[Settings, float, float, Draws, float], float | None]] = {
    "fixed": _fixed,
    "truncated": _truncated,
}


def _price(settings: Settings, worth: float, opinion: float, chance: Draws, floor: float | None) -> float | None:
    """Give an offer in USD CPM; None where the floor is too far above it, or in a currency we have no rate for."""
    if floor is None:
        return None
    price = _PRICING.get(settings.strategy, _value_noise)(settings, worth, opinion, chance, floor)
    return None if price is None or price < floor * settings.floor_share else price


def _fault(settings: Settings, chance: float) -> Fault | None:
    for fault, share in settings.habits().items():
        chance -= share
        if chance < 0:
            return fault
    return None


def _lognormal(spread: Spread, chance: float) -> float:
    return spread.median * exp(spread.sigma * _NORMAL.inv_cdf(chance)) if spread.sigma else spread.median


def _currency(settings: Settings, request: BidRequest) -> str | None:
    """Choose the currency to bid in: our own where it is listed, USD where allowed, else the first with a rate."""
    if settings.currency in request.cur:
        return settings.currency
    if not request.cur or "USD" in request.cur:
        return "USD"
    return next((code for code in request.cur if code in settings.rates), None)


def _usd(settings: Settings, amount: float, currency: str) -> float | None:
    rate = settings.rates.get(currency)
    return None if rate is None else amount / rate


def _seat(settings: Settings, request: BidRequest, reserved: Collection[str], chance: float) -> str | None:
    """Choose the buyer: one of ours that the publisher admits, and that a deal is reserved for where it is."""
    wanted: Collection[str] = settings.seats or reserved or request.wseat or (settings.name,)
    admitted = [
        seat
        for seat in wanted
        if (not request.wseat or seat in request.wseat)
        and (not reserved or seat in reserved)
        and seat not in request.bseat
    ]
    return admitted[int(chance * len(admitted))] if admitted else None


def _medium(settings: Settings, imp: BidRequest.Imp, chance: float) -> str | None:
    """Choose a format that the impression offers and we buy."""
    offered = [medium for medium in settings.media if imp.HasField(medium)]
    return offered[int(chance * len(offered))] if offered else None
