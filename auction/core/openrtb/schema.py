# The field table of OpenRTB 2.6, once: what the JSON codec knows of each message.
#
# Names, numbers and types come from the generated descriptors, so there is one list of fields in the project and it is
# the .proto. What a descriptor cannot say stands here in five small constants: which members the rules of an auction
# read, which integers are flags, which strings hold JSON, which messages are such a string in JSON, what is personal.
#
# Requests and responses are written by a private copy of the messages in which json_rest is a plain field of every Ext
# (and a google.protobuf.Value is bytes). The wire is the same; but a message class then takes a whole tree of dicts in
# one call in C, which an extension would not allow. Nothing outside of the codec sees these classes.

from __future__ import annotations

from enum import Enum
from typing import Any

import msgspec
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.message import Message

from auction.v1 import json_rest_pb2, openrtb_pb2

# What the rules read, message by message. A member of these that does not fit its type is refused, since leaving it
# out would decide another auction than the one that was asked for: a floor that cannot be read is not "no floor". All
# others only travel through, and may travel in json_rest. For replies the unit of refusal is the bid; see json.py.
RULED = {
    "BidRequest": "id imp site app dooh device user regs at tmax wseat cur bcat badv bapp bseat wlang wlangb cattax"
    " test source",
    "BidRequest.Source": "schain",
    "BidRequest.Source.Ext": "schain",
    "BidRequest.SupplyChain": "complete nodes",
    "BidRequest.Imp": "id banner video audio native pmp tagid bidfloor bidfloorcur secure",
    "BidRequest.Banner": "w h format battr",
    "BidRequest.Format": "w h wratio hratio wmin",
    "BidRequest.Video": "w h minduration maxduration battr poddur maxseq podid rqddurs slotinpod mincpmpersec durfloors"
    " poddedupe",
    "BidRequest.Audio": "minduration maxduration battr poddur maxseq podid rqddurs slotinpod mincpmpersec durfloors",
    "BidRequest.Native": "battr",
    "BidRequest.DurFloors": "mindur maxdur bidfloor",
    "BidRequest.Pmp": "private_auction deals",
    "BidRequest.Deal": "id bidfloor bidfloorcur wseat wadomain at mincpmpersec durfloors",
    "BidRequest.Site": "id domain publisher",
    "BidRequest.App": "id bundle domain publisher",
    "BidRequest.Dooh": "id domain publisher",
    "BidRequest.Publisher": "id",
    "BidRequest.Device": "dnt lmt geo devicetype",
    "BidRequest.Geo": "country",
    "BidRequest.User": "consent",
    "BidRequest.User.Ext": "consent",
    "BidRequest.Regs": "coppa gdpr gpp gpp_sid us_privacy",
    "BidRequest.Regs.Ext": "gdpr us_privacy gpc",
    "BidResponse": "id seatbid bidid cur nbr",
    "BidResponse.SeatBid": "bid seat group",
    "BidResponse.Bid": "id impid price nurl burl lurl adm adomain cat cattax attr crid dealid bundle w h language langb"
    " slotinpod dur mtype exp",
}

# Integers that the standard defines as 0 or 1; all other flags are bool in the messages.
INTEGER_FLAGS = frozenset({"BidRequest.Deal.guar"})

# Strings that hold JSON; some senders put the object itself there.
TEXTS = frozenset({"BidRequest.Native.request", "BidResponse.Bid.adm"})

# Messages that OpenRTB JSON knows only as the text of another member: told as that text, never read from JSON.
TOLD_AS_TEXT = {"BidRequest.Native.request_native": "request", "BidResponse.Bid.adm_native": "adm"}

# Members of a request below which no value is ever quoted in an error.
PERSONAL = frozenset({"device", "user"})

# The field of every Ext that carries what JSON held beyond the fields, as proto/auction/v1/json_rest.proto declares it.
REST_NUMBER = json_rest_pb2.JsonRest.BID_REQUEST_FIELD_NUMBER
REST = "json_rest"
EXT = "ext"


class Kind(Enum):
    """What a member holds; the value completes the sentence "expected ..."."""

    STRING = "a string"
    INTEGER = "an integer"
    NUMBER = "a number"
    FLAG = "0 or 1"
    MESSAGE = "an object"
    VALUE = "any value"
    MAP = "an object of numbers"


class Field(msgspec.Struct, frozen=True, gc=False):
    """A member of a message; `many` if it is a list, `flag` if it is an integer that is 0 or 1."""

    name: str
    number: int
    kind: Kind
    many: bool
    ruled: bool
    flag: bool
    text: bool


class Shape(msgspec.Struct, frozen=True):
    """A message as JSON has it.

    `takes` is the type of a parsed member that needs no second look (`object` where one always does), `elements` that
    of a list's elements, `inner` the shape of an object or of a list's objects; `below` has the messages inside by the
    number of their field. `name` is without package. An Ext has no Ext itself, nor have a few community messages.
    """

    name: str
    is_ext: bool
    has_ext: bool
    fields: dict[str, Field]
    takes: dict[str, type]
    elements: dict[str, type]
    inner: dict[str, Shape]
    below: dict[int, Shape]


# The type of a parsed value that fits a field of the kind as it is; JSON has flags as integers, which is a second look.
_TAKES = {
    Kind.STRING: str,
    Kind.INTEGER: int,
    Kind.NUMBER: float,
    Kind.FLAG: bool,
    Kind.MESSAGE: dict,
    Kind.VALUE: object,
    Kind.MAP: object,
}

_KINDS = {
    FieldDescriptor.TYPE_STRING: Kind.STRING,
    FieldDescriptor.TYPE_INT32: Kind.INTEGER,
    FieldDescriptor.TYPE_DOUBLE: Kind.NUMBER,
    FieldDescriptor.TYPE_BOOL: Kind.FLAG,
}


# Any, here and below: protobuf's stubs know descriptors under two unrelated types, one for each implementation.
def full_name(descriptor: Any) -> str:
    """Name a message or field without its package, such as `BidRequest.Imp.bidfloor`."""
    return str(descriptor.full_name).removeprefix("auction.v1.")


def _kind(field: Any) -> Kind:
    if field.message_type is None:
        return _KINDS[field.type]
    if field.message_type.full_name == "google.protobuf.Value":
        return Kind.VALUE
    return Kind.MAP if field.message_type.GetOptions().map_entry else Kind.MESSAGE


def _shape(descriptor: Any, made: dict[str, Shape]) -> Shape:
    """Describe a message and those below it; no message of OpenRTB contains itself."""
    name = full_name(descriptor)
    if name in made:
        return made[name]
    ruled = RULED.get(name, "").split()
    fields: dict[str, Field] = {}
    takes: dict[str, type] = {}
    elements: dict[str, type] = {}
    inner: dict[str, Shape] = {}
    below: dict[int, Shape] = {}
    for declared in descriptor.fields:
        kind = _kind(declared)
        if kind is Kind.MESSAGE:
            below[declared.number] = _shape(declared.message_type, made)
        path = full_name(declared)
        if path in TOLD_AS_TEXT:
            continue
        many = declared.is_repeated and kind is not Kind.MAP
        fields[declared.name] = Field(
            declared.name,
            declared.number,
            kind,
            many,
            declared.name in ruled,
            path in INTEGER_FLAGS,
            path in TEXTS,
        )
        takes[declared.name] = list if many else _TAKES[kind]
        if many:
            elements[declared.name] = _TAKES[kind]
        if kind is Kind.MESSAGE:
            inner[declared.name] = below[declared.number]
    assert fields.keys() >= set(ruled), name
    made[name] = Shape(name, descriptor.name == "Ext", EXT in fields, fields, takes, elements, inner, below)
    return made[name]


def _private_classes() -> tuple[type[Message], type[Message]]:
    """Make the codec's own BidRequest and BidResponse: the same wire, json_rest a field, a Value its bytes."""
    file = FileDescriptorProto.FromString(openrtb_pb2.DESCRIPTOR.serialized_pb)
    for message in file.message_type:
        _open_ext(message)
    del file.dependency[:]
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    request, response = (
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"auction.v1.{name}"))
        for name in ("BidRequest", "BidResponse")
    )
    return request, response


def _open_ext(message: DescriptorProto) -> None:
    if message.name == "Ext":
        del message.extension_range[:]
        message.field.add(
            name=REST,
            number=REST_NUMBER,
            type=FieldDescriptorProto.TYPE_BYTES,
            label=FieldDescriptorProto.LABEL_OPTIONAL,
        )
    for field in message.field:
        if field.type_name == ".google.protobuf.Value":
            field.type = FieldDescriptorProto.TYPE_BYTES
            field.ClearField("type_name")
    for nested in message.nested_type:
        _open_ext(nested)


SHAPES: dict[str, Shape] = {}
BID_REQUEST = _shape(openrtb_pb2.BidRequest.DESCRIPTOR, SHAPES)
BID_RESPONSE = _shape(openrtb_pb2.BidResponse.DESCRIPTOR, SHAPES)
BID = SHAPES["BidResponse.Bid"]
assert SHAPES.keys() >= RULED.keys()

# Any: these classes take trees of plain dicts, which no stub can say.
RequestWriter: Any
ResponseWriter: Any
RequestWriter, ResponseWriter = _private_classes()
