# OpenRTB JSON to message bytes and back, without losing anything.
#
# protobuf's own json_format refuses what ad servers really send ("test": 1, ids as numbers, any unknown ext), so this
# is our codec. A JSON value becomes a message and the message the same JSON value again: what has no field, or does not
# fit its field's type, travels as JSON in json_rest of the nearest Ext (docs/decisions/json-rest.md has the encoding).
# Key order, white space, the spelling of numbers and named repairs are not kept. Of a key that is given twice the last
# one counts, as in JavaScript and Python.
#
# Three fates of a member that does not fit:
# - Sloppy but clear (an id as number, "0.5", true for a flag, one string for a list of one): `lenient` repairs it and
#   names the repair, never the value; otherwise it is refused with its path.
# - Unclear, and the rules read it (schema.RULED): a request is refused whole. In a reply it costs the one bid it stands
#   in: the message loses that bid's id, so the bid counts as invalid (loss reason 3) and its rivals stay. Anywhere else
#   in a reply it makes the whole reply invalid.
# - Unclear, and only passing through: json_rest, in silence. null is absence, for the rules too, and an empty list as
#   well: a message has no word for either, so both travel there.
#
# How: the parsed value is walked once and turned, in place, into what the message class takes as keyword arguments;
# the class builds and serialises the tree in C. Writing wire bytes from Python was measured to cost more.

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

import msgspec
from google.protobuf.message import DecodeError, Message
from google.protobuf.struct_pb2 import Value

from auction.core.openrtb.schema import (
    BID,
    BID_REQUEST,
    BID_RESPONSE,
    EXT,
    PERSONAL,
    REST,
    REST_NUMBER,
    SHAPES,
    TOLD_AS_TEXT,
    Field,
    Kind,
    RequestWriter,
    ResponseWriter,
    Shape,
    full_name,
)
from auction.model.errors import InvalidReply, InvalidRequest
from auction.v1.openrtb_pb2 import BidRequest, BidResponse

# Levels of a google.protobuf.Value that become messages, three for each level of JSON; the parsers of most languages
# stop at 100. Deeper values travel in json_rest.
VALUE_LEVELS_MAX = 16

# json_rest comes from outside when a client sends messages. Ours is never deeper than the depth allowed for a request;
# beyond this, which is far from where msgspec and the interpreter give up (about 1000), it is left out.
REST_LEVELS_MAX = 200

# Characters of a value that an error quotes, and of a sender's own name for a member.
QUOTED_MAX = 40

# Repairs that are named; more are counted. A sender with a slip or two makes them for each impression, while a request
# of the largest size has room for 130 000 numbers where strings belong: its bytes fifty times over in warnings.
REPAIRS_MAX = 256

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1

# Where a member stands: the message or list it stands in, and its name or index there. A path is only written if asked.
_Where = tuple[Any, str | int] | None


class Repair(msgspec.Struct, frozen=True, gc=False):
    """Something sloppy that was read as what it must mean, or a bid that was given up; never holds a personal value."""

    path: str
    text: str


class Encoded(msgspec.Struct, frozen=True, gc=False):
    """A message and what was done to get it; `has_rest` if json_rest stands anywhere in it.

    At most REPAIRS_MAX repairs are named; if there were more, a last one, of no path, says how many.
    """

    message: bytes
    repairs: tuple[Repair, ...]
    has_rest: bool


def request_bytes(body: bytes, *, lenient: bool, depth: int) -> Encoded:
    """Turn a JSON BidRequest into message bytes.

    Equal bodies give equal bytes, on any machine. `depth` is the number of levels of objects and lists allowed.
    Raises InvalidRequest, with the path of the member at fault if it is a member.
    """
    reading = _Reading(lenient, depth, reply=False)
    return _write_request(_parsed(body, reading), reading)


def response_bytes(body: bytes, *, lenient: bool, depth: int) -> Encoded:
    """Turn a JSON BidResponse into message bytes; raises InvalidReply. A bid given up is named among the repairs."""
    reading = _Reading(lenient, depth, reply=True)
    return _write(_parsed(body, reading), BID_RESPONSE, ResponseWriter, reading)


def request_message(value: object, *, lenient: bool, depth: int) -> Encoded:
    """Like `request_bytes`, from a parsed value, which is not changed.

    Doubles may be NaN or infinite, which JSON has no word for; anywhere else those are refused.
    """
    reading = _Reading(lenient, depth, reply=False, strange=True)
    return _write_request(_copied(value, reading), reading)


def response_message(value: object, *, lenient: bool, depth: int) -> Encoded:
    """Like `response_bytes`, from a parsed value as in `request_message`."""
    reading = _Reading(lenient, depth, reply=True, strange=True)
    return _write(_copied(value, reading), BID_RESPONSE, ResponseWriter, reading)


def request_json(message: bytes | BidRequest, *, rest: bool) -> bytes:
    """Write a BidRequest as OpenRTB JSON, with what json_rest carries or without.

    Flags become 0 and 1; NaN and infinities null, since JSON has no word for them; a native request given as messages
    becomes the string that the standard asks for. Registered extensions stand in ext by name, unknown ones are left
    out. Raises InvalidRequest for bytes that are no BidRequest.
    """
    if isinstance(message, bytes):
        try:
            message = BidRequest.FromString(message)
        except DecodeError as error:
            raise InvalidRequest("", "expected a BidRequest message") from error
    return msgspec.json.encode(_told(message, rest))


def response_json(message: bytes | BidResponse, *, rest: bool) -> bytes:
    """Write a BidResponse as OpenRTB JSON, as `request_json` does; raises InvalidReply for other bytes."""
    if isinstance(message, bytes):
        try:
            message = BidResponse.FromString(message)
        except DecodeError as error:
            raise InvalidReply("expected a BidResponse message") from error
    return msgspec.json.encode(_told(message, rest))


def strip_rest(message: bytes) -> bytes:
    """Take json_rest out of a serialised BidRequest, and with it every Ext that held nothing else.

    Nothing else changes: unknown fields and other extensions stay, byte for byte. Expects tags in their shortest form,
    as every protobuf library writes them. Raises InvalidRequest for bytes that are no message.
    """
    if _REST_TAG not in message:
        return message
    try:
        return _stripped(message, 0, len(message), BID_REQUEST)
    except IndexError as error:
        raise InvalidRequest("", "expected a BidRequest message") from error


# ---------------------------------------------------------------------------------------------------- JSON to message


class _Reading:
    """One value on its way to a message: what is allowed, and what was noted so far."""

    __slots__ = ("depth", "has_rest", "lenient", "repairs", "reply", "strange", "unnamed", "void")

    def __init__(self, lenient: bool, depth: int, *, reply: bool, strange: bool = False) -> None:
        self.lenient = lenient
        self.depth = depth
        self.reply = reply
        self.strange = strange  # the value did not come out of our parser: NaN and lone surrogates are possible
        self.repairs: list[Repair] = []
        self.unnamed = 0
        self.has_rest = False
        self.void = False  # the bid being read is given up

    def note(self, where: _Where, text: str) -> None:
        """Name a repair, or count it where enough are named."""
        if len(self.repairs) < REPAIRS_MAX:
            self.repairs.append(Repair(_path(where), text))
        else:
            self.unnamed += 1

    def refuse(self, where: _Where, expected: str, value: object) -> None:
        """Refuse the request, or the reply, or note that the bid is void: only then does this return."""
        path = _path(where)
        text = f"expected {expected}, was {_quoted(value, path)}"
        if not self.reply:
            raise InvalidRequest(path, text)
        if not _IN_BID.match(path):
            raise InvalidReply(f"{path}: {text}")
        self.void = True
        self.note(where, f"{text}; the bid is void")

    def refuse_whole(self, text: str, error: Exception | None = None) -> NoReturn:
        raise (InvalidReply(text) if self.reply else InvalidRequest("", text)) from error

    def refuse_infinity(self, where: _Where, value: object) -> None:
        """Refuse the whole for the first NaN or infinity in a value; return if it has none."""
        if isinstance(value, dict | list):
            for name, member in value.items() if isinstance(value, dict) else enumerate(value):
                self.refuse_infinity((where, name), member)
        elif isinstance(value, float) and not math.isfinite(value):
            path, text = _path(where), f"expected a number, was {json.dumps(value)}"
            raise InvalidReply(f"{path}: {text}") if self.reply else InvalidRequest(path, text)

    def measure(self, value: object, levels: int) -> None:
        """Refuse a value that has more levels of objects and lists than allowed."""
        if deeper(value, levels):
            self.refuse_whole(f"nested deeper than {self.depth} levels")

    def json(self, where: _Where, value: object) -> bytes:
        """Write what travels as JSON."""
        if self.strange:
            self.refuse_infinity(where, value)
        return msgspec.json.encode(value)


# A member of a bid, not the bid itself: what is no object cannot lose its id.
_IN_BID = re.compile(r"seatbid\[\d+\]\.bid\[\d+\]\.")


def _parsed(body: bytes, reading: _Reading) -> object:
    try:
        return msgspec.json.decode(body)
    except RecursionError as error:
        reading.refuse_whole(f"nested deeper than {reading.depth} levels", error)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        _refuse_body(body, error, reading)


def _refuse_body(body: bytes, error: Exception, reading: _Reading) -> NoReturn:
    """Say what is wrong with a body that does not parse: first its characters, then its syntax, then its numbers."""
    try:
        body.decode()
    except UnicodeDecodeError as malformed:
        reading.refuse_whole(f"expected UTF-8, was malformed (byte {malformed.start})", error)
    if not body.strip():
        reading.refuse_whole("expected JSON, was empty", error)
    if isinstance(error, msgspec.ValidationError):
        # The only thing a parser without a schema finds invalid is a number: beyond a double, or of more digits than
        # the interpreter reads. It does not say where, so the body is read again; what else is wrong in it can wait.
        try:
            value = json.loads(body, parse_int=_integer_or_infinity)
        except RecursionError:
            reading.refuse_whole(f"nested deeper than {reading.depth} levels", error)
        except ValueError:
            reading.refuse_whole("expected JSON, was malformed: a number beyond a double", error)
        reading.measure(value, reading.depth)
        reading.refuse_infinity(None, value)
    text = str(error)
    if text == "Input data was truncated":
        reading.refuse_whole("expected JSON, was truncated", error)
    reading.refuse_whole(f"expected JSON, was {text.removeprefix('JSON is ')}", error)


def _integer_or_infinity(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:
        return math.inf


def _copied(value: object, reading: _Reading) -> object:
    """Copy a value within the depth allowed; each mention of an object gets its own, which deepcopy would not do."""
    reading.measure(value, reading.depth)
    return _copy(value)


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copy(member) for name, member in value.items()}
    return [_copy(element) for element in value] if isinstance(value, list) else value


def _write_request(value: object, reading: _Reading) -> Encoded:
    if isinstance(value, dict):
        # A oneof keeps the last of several silently, and JSON has no order: nobody could say which was meant.
        channels = [name for name in ("site", "app", "dooh") if value.get(name) is not None]
        if len(channels) > 1:
            were = " and ".join(channels)
            raise InvalidRequest(channels[1], f"expected one of site, app, dooh, were {were}")
    return _write(value, BID_REQUEST, RequestWriter, reading)


def _write(value: object, shape: Shape, writer: Any, reading: _Reading) -> Encoded:
    if not isinstance(value, dict):
        reading.refuse_whole(f"expected an object, was {_type_name(value)}")
    try:
        _fit(value, shape, None, reading.depth, reading)
        message = writer(**value).SerializeToString(deterministic=True)
    except UnicodeEncodeError as error:
        reading.refuse_whole("expected characters, was half of a surrogate pair", error)
    repairs = reading.repairs
    if reading.unnamed:
        repairs.append(Repair("", f"and {reading.unnamed} more"))
    return Encoded(message, tuple(repairs), reading.has_rest)


def _fit(members: dict[str, Any], shape: Shape, where: _Where, levels: int, reading: _Reading) -> dict[str, Any] | None:
    """Turn a parsed object into arguments for its message, in place; return what must travel in the owner's json_rest.

    Objects with an Ext own their json_rest and return None. `levels` is how many the object may have, itself included.
    This is the hot loop of the codec: a member that fits costs one lookup and one comparison of types.
    """
    if levels < 2:
        reading.measure(members, levels)
    takes: Any = shape.takes  # Any, because mypy would narrow `value` to object below
    gone: dict[str, Any] | None = None  # members that leave the message
    rest: dict[str, Any] | None = None  # what objects and lists that stay leave behind
    for name, value in members.items():
        taken = takes.get(name)
        if type(value) is taken:
            if taken is str or taken is float:
                continue
            if taken is int:
                if INT32_MIN <= value <= INT32_MAX:
                    continue
            elif taken is dict:
                patch = _fit(value, shape.inner[name], (where, name), levels - 1, reading)
                if patch is not None:
                    rest = rest or {}
                    rest[name] = patch
                continue
            elif taken is list and value:
                wanted = shape.elements[name]
                for element in value:
                    if type(element) is not wanted:
                        break
                else:
                    if wanted is dict:
                        patch = _fit_each(value, shape.inner[name], (where, name), levels - 2, reading)
                        if patch is not None:
                            rest = rest or {}
                            rest[name] = patch
                        continue
                    if wanted is str or (min(value) >= INT32_MIN and max(value) <= INT32_MAX):
                        continue
        elif taken is bool and type(value) is int and 0 <= value <= 1:
            continue
        if not _settle(members, name, value, shape, where, levels - 1, reading):
            gone = gone or {}
            gone[name] = value
    if shape is BID and reading.void:
        reading.void = False
        gone = gone or {}
        if "id" in members:
            gone["id"] = members["id"]
    if gone is not None:
        for name, value in gone.items():
            del members[name]
            reading.measure(value, levels - 1)
        rest = gone if rest is None else rest | gone
    if rest is None or not shape.has_ext:
        return rest
    _stow(members, rest, where, reading)
    return None


def _stow(members: dict[str, Any], rest: dict[str, Any], where: _Where, reading: _Reading) -> None:
    """Put what must travel beside the message into its Ext."""
    ext = members.get(EXT)
    if ext is None:
        members[EXT] = ext = {}
    elif not ext:
        rest.setdefault(EXT, {})  # it was there, and nothing of it is a field: json_rest must say so
    ext[REST] = reading.json(where, rest)
    reading.has_rest = True


def _fit_each(
    elements: list[dict[str, Any]], shape: Shape, where: _Where, levels: int, reading: _Reading
) -> dict[str, Any] | None:
    """Fit the objects of a list; return what must travel in the owner's json_rest, by index in decimal."""
    patches: dict[str, Any] | None = None
    for index, element in enumerate(elements):
        patch = _fit(element, shape, (where, index), levels, reading)
        if patch is not None:
            patches = patches or {}
            patches[str(index)] = patch
    return patches


def _settle(
    members: dict[str, Any], name: str, value: Any, shape: Shape, where: _Where, levels: int, reading: _Reading
) -> bool:
    """Take a second look at a member; True if it stays in the message, as it is or put right."""
    field = shape.fields.get(name)
    if field is None or (value is None and field.kind is not Kind.VALUE):
        return False
    fitted: Any
    if field.many:
        fitted = _settled_list(value, field, (where, name), reading)
    elif field.kind is Kind.VALUE:
        reading.measure(value, levels)
        fitted = _value(value)
    elif field.kind is Kind.MAP:
        fitted = _map(value)
    else:
        if field.text:
            reading.measure(value, levels)
        fitted = _settled(value, field, (where, name), reading)
    if fitted is None:
        return False
    members[name] = fitted
    return True


def _settled(value: Any, field: Field, where: _Where, reading: _Reading) -> Any:
    """Return a single value as its field takes it, or None if it must travel in json_rest."""
    fitted = _fitting(value, field.kind)
    if fitted is not None:
        return fitted
    repair = _repaired(value, field, where, reading)
    if repair is not None and reading.lenient:
        fitted, text = repair
        reading.note(where, text)
        return fitted
    if repair is not None or field.ruled:
        reading.refuse(where, _expected(field.kind, value), value)
    return None


def _settled_list(value: Any, field: Field, where: _Where, reading: _Reading) -> list[Any] | None:
    if isinstance(value, list):
        return _settled_elements(value, field, where, reading)
    if field.kind is not Kind.MESSAGE and (
        _fitting(value, field.kind) is not None or _repaired(value, field, where, reading) is not None
    ):
        if reading.lenient:
            reading.note(where, "one value, read as a list of one")
            return _settled_elements([value], field, where, reading)
    elif not field.ruled:
        return None
    reading.refuse(where, "a list", value)
    return None


def _settled_elements(elements: list[Any], field: Field, where: _Where, reading: _Reading) -> list[Any] | None:
    """Put right what can be put right; a list with one bad element travels in json_rest whole, as does an empty one."""
    named, unnamed = len(reading.repairs), reading.unnamed
    fitted = []
    for index, element in enumerate(elements):
        one = _settled(element, field, (where, index), reading)
        if one is None:
            if not reading.void:
                del reading.repairs[named:]
                reading.unnamed = unnamed
            return None
        fitted.append(one)
    return fitted or None


def _fitting(value: Any, kind: Kind) -> Any:
    """Return the value as a field of the kind takes it without a repair: only the spelling of numbers may differ."""
    if kind is Kind.STRING:
        return value if type(value) is str else None
    if kind is Kind.MESSAGE:
        return value if type(value) is dict else None
    if type(value) is not int and not (type(value) is float and (kind is Kind.NUMBER or value.is_integer())):
        return None
    if kind is Kind.NUMBER:
        return value if _exact(value) else None
    if kind is Kind.INTEGER:
        return int(value) if INT32_MIN <= value <= INT32_MAX else None
    assert kind is Kind.FLAG
    return int(value) if 0 <= value <= 1 else None


def _exact(value: int | float) -> bool:
    """Say whether a double holds the number; NaN and infinities are doubles."""
    try:
        return type(value) is float or int(float(value)) == value
    except OverflowError:
        return False


# The grammar of JSON's numbers, and integers that might fit 32 bits. Python's own float() also reads " 1_0 " and "nan".
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,30})(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,3})?")
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,9})")


def _repaired(value: Any, field: Field, where: _Where, reading: _Reading) -> tuple[Any, str] | None:
    """Return what a sloppy value must mean, and the words for it; None if that is not clear."""
    kind = field.kind
    if kind is Kind.STRING:
        if type(value) is int:
            return str(value), "a number, read as a string"
        if field.text and type(value) is dict:
            return reading.json(where, value).decode(), "an object, read as its JSON text"
    elif kind is Kind.FLAG or (kind is Kind.INTEGER and field.flag):
        if type(value) is bool:
            return int(value), "a boolean, read as 0 or 1"
        if type(value) is str and value in ("0", "1"):
            return int(value), "a string, read as 0 or 1"
    elif kind is Kind.INTEGER:
        if type(value) is str and _INTEGER.fullmatch(value) and INT32_MIN <= int(value) <= INT32_MAX:
            return int(value), "a string, read as a number"
    elif kind is Kind.NUMBER and type(value) is str and _NUMBER.fullmatch(value) and math.isfinite(float(value)):
        return float(value), "a string, read as a number"
    return None


def _value(value: Any) -> bytes | None:
    """Serialise any JSON value as a google.protobuf.Value; None if a Value cannot hold it."""
    message = Value()
    if deeper(value, VALUE_LEVELS_MAX) or not _fill(message, value):
        return None
    return message.SerializeToString(deterministic=True)


def _fill(message: Value, value: Any) -> bool:
    if isinstance(value, dict):
        fields = message.struct_value.fields
        message.struct_value.SetInParent()
        return all(_fill(fields[name], member) for name, member in value.items())
    if isinstance(value, list):
        message.list_value.SetInParent()
        return all(_fill(message.list_value.values.add(), element) for element in value)
    if isinstance(value, bool):
        message.bool_value = value
    elif isinstance(value, str):
        message.string_value = value
    elif value is None:
        message.null_value = 0  # type: ignore[assignment]  # the stub wants an enum that has this one number
    elif _exact(value) and math.isfinite(value):
        message.number_value = value
    else:
        return False
    return True


def _map(value: Any) -> dict[str, Any] | None:
    """Return an object of numbers as a map takes it; None for an empty one, which a message cannot tell from none."""
    if isinstance(value, dict) and value and all(_fitting(v, Kind.NUMBER) is not None for v in value.values()):
        return value
    return None


def deeper(value: object, levels: int) -> bool:
    """Say whether a value has more levels of objects and lists than this; looks no deeper than that."""
    if isinstance(value, dict):
        return levels < 1 or any(deeper(member, levels - 1) for member in value.values())
    if isinstance(value, list):
        return levels < 1 or any(deeper(element, levels - 1) for element in value)
    return False


def _path(where: _Where) -> str:
    """Write where a member stands, such as `imp[2].bidfloor`.

    A name that is none of ours may be of any length and hold any character; such a one is quoted in ASCII, and cut.
    """
    parts: list[str] = []
    while where is not None:
        where, name = where
        if isinstance(name, int):
            parts.append(f"[{name}]")
        elif len(name) <= QUOTED_MAX and name.isprintable():
            parts.append(f".{name}")
        else:
            parts.append(f".{json.dumps(name[:QUOTED_MAX])}")
    return "".join(reversed(parts)).removeprefix(".")


def _expected(kind: Kind, value: object) -> str:
    if type(value) is int and kind is Kind.INTEGER:
        return "an integer of 32 bits"
    if type(value) is int and kind is Kind.NUMBER:
        return "a number that a double holds exactly"
    return kind.value


def _quoted(value: object, path: str) -> str:
    """Quote a short value; of a personal one, or a long one's rest, say less."""
    if isinstance(value, dict | list) or path.split(".")[0] in PERSONAL:
        return _type_name(value)
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= QUOTED_MAX else f"{text[:QUOTED_MAX]}…"


def _type_name(value: object) -> str:
    if value is None:
        return "null"
    names: dict[type, str] = {bool: "a boolean", str: "a string", dict: "an object", list: "a list"}
    return names.get(type(value), "a number")


# ---------------------------------------------------------------------------------------------------- message to JSON


# How a field's value becomes JSON; compared in the order of how often they occur.
_PLAIN, _FLAG, _MESSAGE, _MESSAGES, _LIST, _EXT, _REST, _TEXT, _VALUE, _MAP = range(10)


class _Ways(dict[Any, tuple[str, int]]):
    """The member and way of each field descriptor, looked at once; as many as there are fields and extensions."""

    def __missing__(self, field: Any) -> tuple[str, int]:
        name = TOLD_AS_TEXT.get(full_name(field), field.name)
        way = self[field] = name, _way(field)
        return way


def _way(field: Any) -> int:
    if field.is_extension and field.number == REST_NUMBER:
        return _REST
    if full_name(field) in TOLD_AS_TEXT:
        return _TEXT
    if field.message_type is None:
        if field.is_repeated:
            return _LIST
        return _FLAG if field.type == field.TYPE_BOOL else _PLAIN
    if field.message_type.GetOptions().map_entry:
        assert field.message_type.fields_by_name["value"].message_type is None, field.full_name
        return _MAP
    if field.message_type.full_name == Value.DESCRIPTOR.full_name:
        assert not field.is_repeated, field.full_name
        return _VALUE
    if field.name == EXT and full_name(field.containing_type) in SHAPES:
        return _EXT
    return _MESSAGES if field.is_repeated else _MESSAGE


_WAYS = _Ways()


def _told(message: Message, rest: bool) -> dict[str, Any]:
    """Return a message as a value of plain dicts and lists, what json_rest carries put back where it stood."""
    told: dict[str, Any] = {}
    carried: bytes | None = None
    for field, value in message.ListFields():
        name, way = _WAYS[field]
        if way == _PLAIN:
            told[name] = value
        elif way == _FLAG:
            told[name] = 1 if value else 0
        elif way == _MESSAGE:
            told[name] = _told(value, rest)
        elif way == _MESSAGES:
            told[name] = [_told(element, rest) for element in value]
        elif way == _LIST:
            told[name] = value[:]
        elif way == _EXT:
            ext = _told(value, rest)
            carried = ext.pop("", None)
            if ext or carried is None:
                told[name] = ext
        elif way == _REST:
            told[""] = value  # for the owner of this Ext; no field has an empty name
        elif way == _MAP:
            told[name] = dict(value)
        elif way == _VALUE:
            told[name] = _told_value(value)
        else:
            assert way == _TEXT
            told[name] = msgspec.json.encode(_told(value, rest)).decode()
    if carried is not None and rest:
        _put_back(told, _rest(carried), SHAPES[full_name(message.DESCRIPTOR)])
    return told


def _told_value(value: Value) -> Any:
    """Return a google.protobuf.Value as what it stands for; one that says nothing is null."""
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return {name: _told_value(member) for name, member in value.struct_value.fields.items()}
    if kind == "list_value":
        return [_told_value(element) for element in value.list_value.values]
    return None if kind is None or kind == "null_value" else getattr(value, kind)


def _rest(carried: bytes) -> dict[str, Any]:
    """Parse json_rest. It may come from a client that has its own idea of it: what is not ours is left out."""
    try:
        value = msgspec.json.decode(carried)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) and not deeper(value, REST_LEVELS_MAX) else {}


def _put_back(told: dict[str, Any], rest: dict[str, Any], shape: Shape) -> None:
    """Put carried members where they stood. A member that the message has stays, but for objects that have no Ext.

    Of those the rest holds a patch: an object of their carried members, or for a list of them patches by index.
    """
    for name, carried in rest.items():
        if name not in told:
            told[name] = carried
            continue
        inner = shape.inner.get(name)
        if inner is None or inner.has_ext or not isinstance(carried, dict):
            continue
        if isinstance(told[name], dict):
            _put_back(told[name], carried, inner)
            continue
        for index, element in enumerate(told[name]):
            patch = carried.get(str(index))
            if isinstance(patch, dict):
                _put_back(element, patch, inner)


# ----------------------------------------------------------------------------------------------- message without rest

_LENGTH_DELIMITED = 2


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


_REST_KEY = REST_NUMBER << 3 | _LENGTH_DELIMITED
_REST_TAG = _varint(_REST_KEY)


def _stripped(message: bytes, position: int, end: int, shape: Shape) -> bytes:
    """Copy the message that stands between two positions without its json_rest; IndexError if it is none.

    The tag's two bytes are looked for first: fields before them are stepped over, and after the last none is looked at.
    They may be part of a string, too, so what counts is the field they stand in.
    """
    kept: list[bytes] = []
    copied = position
    found = message.find(_REST_TAG, position, end)
    while found >= 0:
        start = position
        tag, position = _read_varint(message, position)
        if tag & 7 == _LENGTH_DELIMITED:
            length, position = _read_varint(message, position)
            after = position + length
        else:
            after = _skip(message, position, tag & 7)
        if after > end:
            raise IndexError(after)
        if after > found:
            below = shape.below.get(tag >> 3)
            if tag == _REST_KEY and shape.is_ext:
                kept.append(message[copied:start])
                copied = after
            elif below is not None and tag & 7 == _LENGTH_DELIMITED:
                inner = _stripped(message, position, after, below)
                kept.append(message[copied:start])
                # An Ext that only held json_rest was not in the sender's JSON.
                if inner or not below.is_ext or not length:
                    kept += _varint(tag), _varint(len(inner)), inner
                copied = after
            found = message.find(_REST_TAG, after, end)
        position = after
    kept.append(message[copied:end])
    return b"".join(kept)


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    number = message[position]
    if number < 128:
        return number, position + 1
    number &= 127
    # Ten bytes hold the 64 bits that a varint may have.
    for shift in range(7, 70, 7):
        position += 1
        byte = message[position]
        number |= (byte & 127) << shift
        if byte < 128:
            return number, position + 1
    raise IndexError(position)


def _skip(message: bytes, position: int, wire_type: int) -> int:
    """Return where a value of fixed or varint length ends; groups, which OpenRTB does not have, count as no message."""
    if wire_type == 0:
        return _read_varint(message, position)[1]
    if wire_type not in (1, 5):
        raise IndexError(position)
    return position + (8 if wire_type == 1 else 4)
