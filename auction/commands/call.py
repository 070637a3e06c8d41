"""Send one request to a running exchange and print its answer.

The request is OpenRTB JSON in a file, `-` for standard input. It goes over gRPC, as a message, unless --http names the
JSON edge. An auction id in the answer is what `auction explain --log DIR ID` takes.

exit codes:
  0  answered, whether or not anything was sold
  1  refused by the exchange, or not reached
  2  no such file, or nothing that could be sent

examples:
  auction call request.json
  auction call request.json --explain
  auction call request.json --http http://127.0.0.1:7480 --json
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from auction.console import legible
from auction.core.openrtb import json as openrtb_json
from auction.model.errors import InvalidRequest
from auction.model.money import text
from auction.model.reasons import LossReason, NoBidReason, NonBidStatus
from auction.v1 import exchange_pb2  # noqa: F401  its Explanation must be known where a response is read

METHOD = "/auction.v1.Exchange/Auction"
PATH = "/openrtb2/auction"
TARGET = "127.0.0.1:7400"
# No auction takes longer, whatever tmax; an exchange that hangs should not hang us.
ANSWER_S_MAX = 60.0
# As deep as any exchange can be told to accept.
DEPTH_MAX = 100


class Failed(Exception):
    """Why there is no answer, in one line for whoever called."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE|-", help="an OpenRTB request as JSON; - reads standard input")
    edge = parser.add_mutually_exclusive_group()
    edge.add_argument("--target", default=TARGET, metavar="HOST:PORT", help="gRPC (default: %(default)s)")
    edge.add_argument("--http", metavar="URL", help="the JSON edge, such as http://127.0.0.1:7480")
    parser.add_argument("--explain", action="store_true", help="ask why every bid won or lost")
    parser.add_argument("--json", action="store_true", help="print the BidResponse as JSON")


def run(args: argparse.Namespace) -> int:
    try:
        body = sys.stdin.buffer.read() if args.file == "-" else Path(args.file).read_bytes()
    except OSError as error:
        print(f"{args.file}: {error.strerror}", file=sys.stderr)
        return 2
    try:
        if args.http:
            response = over_http(args.http, body, explain=args.explain)
        else:
            response = over_grpc(args.target, body, explain=args.explain)
    except InvalidRequest as fault:
        print(f"{args.file}: {fault}", file=sys.stderr)
        return 2
    except Failed as failure:
        print(failure, file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps(response, ensure_ascii=False, indent=2))
    else:
        show(response, Console())
    return 0


def over_grpc(target: str, body: bytes, *, explain: bool) -> dict[str, Any]:
    """Call Exchange/Auction with the request as a message; give the response as OpenRTB JSON."""
    encoded = openrtb_json.request_bytes(body, lenient=True, depth=DEPTH_MAX)
    for repair in encoded.repairs:
        print(f"repaired {repair.path}: {repair.text}", file=sys.stderr)
    metadata = (("x-auction-explain", "1"),) if explain else ()
    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
        try:
            answer = call(encoded.message, timeout=ANSWER_S_MAX, metadata=metadata)
        except grpc.RpcError as failure:
            raise Failed(f"{target}: {failure.code().name}: {failure.details()}") from failure
    return _object(openrtb_json.response_json(answer, rest=True))


def over_http(url: str, body: bytes, *, explain: bool) -> dict[str, Any]:
    """Post the request to the JSON edge as it is; where nothing is sold, give a response with the reason alone."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise Failed(f"{url}: expected a URL such as http://127.0.0.1:7480")
    where = url if urlsplit(url).path.strip("/") else url.rstrip("/") + PATH
    headers = {"content-type": "application/json", **({"x-auction-explain": "1"} if explain else {})}
    request = urllib.request.Request(where, body, headers)
    # Without the proxies that the environment may name: an exchange is called directly, as over gRPC.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=ANSWER_S_MAX) as answer:
            if answer.status == 204:
                return {"bidid": answer.headers["x-auction-id"], "nbr": int(answer.headers["x-openrtb-nbr"])}
            return _object(answer.read())
    except urllib.error.HTTPError as refusal:
        raise Failed(f"{where}: HTTP {refusal.code}: {_said(refusal.read())}") from refusal
    except (OSError, http.client.HTTPException) as failure:
        raise Failed(f"{where}: {getattr(failure, 'reason', failure)}") from failure


def show(response: dict[str, Any], console: Console) -> None:
    """Print a BidResponse for people: what was sold, and where it was asked for, why."""
    sold = [(bid, seat.get("seat", "")) for seat in response.get("seatbid", ()) for bid in seat["bid"]]
    console.print(_plain(f"auction {response.get('bidid', '-')}"))
    if sold:
        table = _table("imp", "price", "seat", "bid", "deal", "creative")
        for bid, seat in sold:
            price = f"{bid['price']} {response.get('cur', 'USD')}"
            cells = (bid["impid"], price, seat, bid["id"], bid.get("dealid", ""), bid.get("crid", ""))
            table.add_row(*map(_plain, cells))
        console.print(table)
    else:
        console.print(f"nothing sold: {_words(NoBidReason, response.get('nbr', 0))}", highlight=False)
    ext = response.get("ext", {})
    for imp in ext.get("auction", {}).get("imp", ()):
        console.print()
        console.print(_plain(f"impression {imp['id']}"))
        console.print(_bids(imp.get("bid", ()), ext["auction"]["currency"]))
    silent = _table("bidder", "imp", "no bid, because")
    for seat in ext.get("seatnonbid", ()):
        for non_bid in seat["nonbid"]:
            silence = (seat["seat"], non_bid["impid"], _words(NonBidStatus, non_bid["statuscode"]))
            silent.add_row(*map(_plain, silence))
    if silent.row_count:
        console.print()
        console.print(silent)
    for warning in ext.get("auction", {}).get("warning", ()):
        console.print(_plain(f"warning: {warning['path']}: {warning['text']}"))


def _bids(bids: list[dict[str, Any]], currency: str) -> Table:
    table = _table("bidder", "seat", "bid", "price", f"floor {currency}", "outcome", f"to win {currency}")
    for bid in bids:
        price = f"{bid['price']} {bid['currency']}" if "price" in bid else "-"
        outcome = _words(LossReason, bid["loss_reason"])
        if "clearing_price_cpm_micros" in bid:
            outcome = f"won at {text(bid['clearing_price_cpm_micros'])}, set by {bid['price_setter']}"
        cells = (
            bid["bidder"],
            bid.get("seat", ""),
            bid["id"],
            price,
            _amount(bid.get("floor_cpm_micros")),
            outcome,
            _amount(bid.get("min_to_win_cpm_micros")),
        )
        table.add_row(*map(_plain, cells))
    return table


def _plain(words: str) -> Text:
    """Show words from outside as they are: no markup of ours in them, and nothing that moves a terminal's cursor."""
    return Text(legible(words))


def _amount(micros: int | None) -> str:
    return "-" if micros is None else text(micros)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _words(names: type[LossReason] | type[NoBidReason] | type[NonBidStatus], number: int) -> str:
    try:
        return f"{names(number).name.lower().replace('_', ' ')} ({number})"
    except ValueError:
        return str(number)


def _object(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.DecodeError as fault:
        raise Failed(f"the answer is no BidResponse: {fault}") from fault


def _said(body: bytes) -> str:
    try:
        error = msgspec.json.decode(body)["error"]
        return f"{error['path']}: {error['message']}" if error["path"] else str(error["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return body[:200].decode(errors="replace")
