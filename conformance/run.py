# Runs a vector against an exchange that speaks OpenRTB JSON, with bidders that answer as the vector says.
#
#   python run.py settings VECTOR BIDDERS            what this exchange has to be told for it: a configuration
#   python run.py auction VECTOR BIDDERS EXCHANGE    holds the auction and prints what came out otherwise
#
# BIDDERS is the host:port to listen on, where bidder NAME is http://host:port/NAME; EXCHANGE is the URL that takes
# requests. Another exchange needs another `settings`; what is compared is what any of them answers: whether the request
# is refused, and otherwise the currency and each bid sold, with its price. Nothing here but Python's own library.

import json
import sys
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

STATUS = {"BID": 200, "NO_BID": 204, "UNREACHABLE": 503, "INVALID": 200}
# Longer than an exchange waits for its bidders.
PATIENCE_S = 30
# The exchange is asked itself, whatever proxy the environment names.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def settings(case: Any, bidders: str) -> dict[str, Any]:
    """Give a configuration of this exchange for a case."""
    entries = {entry["name"]: entry for entry in case.get("bidders", [])}
    names = dict.fromkeys([*entries, *(reply["bidder"] for reply in case["replies"])])
    asked = [{"name": name, **entries.get(name, {}), "http": f"http://{bidders}/{name}"} for name in names]
    given = {section: case[section] for section in ("exchange", "floors", "limits") if section in case}
    return {**given, "fx": {"rates": case.get("fx", {})}, "bidders": asked}


class Bidders(ThreadingHTTPServer):
    """Every bidder of a case, each under its name; one that is silent there is until `over` is set."""

    def __init__(self, address: tuple[str, int], replies: list[Any]) -> None:
        super().__init__(address, Bidder)
        self.replies = {reply["bidder"]: reply for reply in replies}
        self.over = threading.Event()


class Bidder(BaseHTTPRequestHandler):
    server: Bidders

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"] or 0))
        reply = self.server.replies.get(self.path[1:], {"status": "TIMED_OUT"})
        if reply["status"] == "TIMED_OUT":
            self.server.over.wait(PATIENCE_S)
            return
        answer = reply.get("body") if reply["status"] == "BID" else None
        body = b"{" if reply["status"] == "INVALID" else b"" if answer is None else json.dumps(answer).encode()
        self.send_response(STATUS[reply["status"]] if body else max(204, STATUS[reply["status"]]))
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def auction(case: Any, bidders: str, exchange: str) -> tuple[int, Any]:
    """Hold the auction of a case; give what the exchange answered: HTTP status and BidResponse."""
    host, _, port = bidders.rpartition(":")
    with Bidders((host, int(port)), case["replies"]) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        try:
            return post(exchange, json.dumps(case["request"]).encode())
        finally:
            server.over.set()
            server.shutdown()


def post(url: str, body: bytes) -> tuple[int, Any]:
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    try:
        with DIRECT.open(request, timeout=PATIENCE_S) as answer:
            return answer.status, json.loads(answer.read() or b"{}")
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, {}


def differences(expect: Any, status: int, response: Any) -> list[str]:
    """Compare an answer with what is expected, a line for each difference."""
    refused = "error" in expect
    if refused or status not in (200, 204):
        return [] if refused and status == 400 else [f"refused: expected {refused}, was HTTP {status}"]
    wanted, was = told(expect["response"]), told(response)
    return [f"{name}: expected {wanted[name]}, was {was[name]}" for name in wanted if wanted[name] != was[name]]


def told(response: Any) -> dict[str, Any]:
    seatbids = response.get("seatbid", [])
    sold = [(one.get("seat"), bid["id"], bid["impid"], bid["price"]) for one in seatbids for bid in one["bid"]]
    return {"cur": response.get("cur", "USD"), "sold": sorted(sold, key=repr)}


def main(command: str, vector: str, bidders: str, exchange: str = "") -> int:
    case = json.loads(Path(vector).read_text())
    if command == "settings":
        print(json.dumps(settings(case, bidders), indent=2))
        return 0
    lines = differences(case["expect"], *auction(case, bidders, exchange))
    print("\n".join(lines) or "as expected")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
