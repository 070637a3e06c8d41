# The wire is a promise to strangers: our messages must be those that the IAB Tech Lab publishes, field by field.

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto
from google.protobuf.message_factory import GetMessageClass

from auction.v1 import json_rest_pb2, openrtb_pb2

TABLE = Path(__file__).parent / "data" / "openrtb-2.6-fields.txt"

# These were published without an Ext.
WITHOUT_EXT = {
    "BidRequest.InterestGroupAuctionSupport",
    "BidRequest.DsaRequest",
    "BidResponse.DsaResponse",
    "BidResponse.InterestGroupAuctionIntent",
    "BidResponse.InterestGroupAuctionBuyer",
    "BidResponse.InterestGroupAuctionSeller",
    "Transparency",
}

SCALARS = {
    "string": FieldDescriptor.TYPE_STRING,
    "int32": FieldDescriptor.TYPE_INT32,
    "double": FieldDescriptor.TYPE_DOUBLE,
    "bool": FieldDescriptor.TYPE_BOOL,
}
UNSET = {"string": "", "int32": 0, "double": 0.0, "bool": False}
EXT_RANGE = (500, 536870912)  # "500 to max"; the end is exclusive


class Published(NamedTuple):
    message: str
    name: str
    number: int
    type: str
    many: bool
    default: str | None
    deprecated: bool
    oneof: str | None


def published() -> list[Published]:
    fields = []
    for line in TABLE.read_text().splitlines():
        if line.startswith("#"):
            continue
        path, number, type_name, *facts = line.split()
        message, _, name = path.rpartition(".")
        said = dict(fact.partition("=")[::2] for fact in facts)
        fields.append(
            Published(
                message,
                name,
                int(number),
                type_name.removesuffix("[]"),
                type_name.endswith("[]"),
                said.get("default"),
                "deprecated" in said,
                said.get("oneof"),
            )
        )
    return fields


def messages() -> dict[str, object]:
    found = {}

    def add(descriptor):
        if not descriptor.GetOptions().map_entry:
            found[descriptor.full_name.removeprefix("auction.v1.")] = descriptor
            for nested in descriptor.nested_types:
                add(nested)

    for descriptor in openrtb_pb2.DESCRIPTOR.message_types_by_name.values():
        add(descriptor)
    return found


MESSAGES = messages()
PUBLISHED = published()


def named(scope: str, name: str) -> str:
    """Resolve a message's name as protobuf does, from the innermost scope outwards."""
    while scope:
        if f"{scope}.{name}" in MESSAGES:
            return f"{scope}.{name}"
        scope = scope.rpartition(".")[0]
    return name


def test_the_messages_are_the_published_ones():
    expected = {field.message for field in PUBLISHED}
    expected |= {f"{name}.Ext" for name in expected if not name.endswith(".Ext") and name not in WITHOUT_EXT}
    assert expected == set(MESSAGES)


def test_each_message_has_the_published_fields_and_no_other():
    expected = defaultdict(dict)
    for field in PUBLISHED:
        expected[field.message][field.name] = field.number
    for name in MESSAGES:
        if not name.endswith(".Ext") and name not in WITHOUT_EXT:
            expected[name]["ext"] = 99
    actual = {name: {field.name: field.number for field in MESSAGES[name].fields} for name in MESSAGES}
    assert dict(expected) | {name: {} for name in MESSAGES if name not in expected} == actual


@pytest.mark.parametrize("field", PUBLISHED, ids=lambda field: f"{field.message}.{field.name}")
def test_field_is_as_published(field):
    ours = MESSAGES[field.message].fields_by_name[field.name]
    assert field.number == ours.number
    assert field.deprecated == ours.GetOptions().deprecated
    if field.type == "map<string,double>":
        assert ours.message_type.GetOptions().map_entry
        assert [ours.message_type.fields_by_name[part].type for part in ("key", "value")] == [
            FieldDescriptor.TYPE_STRING,
            FieldDescriptor.TYPE_DOUBLE,
        ]
        return
    assert field.many == ours.is_repeated
    if field.type == "Value":
        assert ours.message_type.full_name == "google.protobuf.Value"
    elif field.type in SCALARS:
        assert SCALARS[field.type] == ours.type
    else:
        assert f"auction.v1.{named(field.message, field.type)}" == ours.message_type.full_name
    assert (not field.many) == ours.has_presence
    if field.type in SCALARS and not field.many:
        assert (field.default is not None) == ours.has_default_value
        default = UNSET[field.type]
        if field.default is not None:
            default = field.default == "true" if field.type == "bool" else type(default)(field.default)
        assert default == ours.default_value


def test_alternatives_are_the_published_ones():
    expected = defaultdict(set)
    for field in PUBLISHED:
        if field.oneof:
            expected[field.message, field.oneof].add(field.name)
    actual = [
        (name, {field.name for field in oneof.fields}) for name, found in MESSAGES.items() for oneof in found.oneofs
    ]
    assert sorted((message, names) for (message, _), names in expected.items()) == sorted(actual)


def test_every_ext_is_open_from_500_up():
    for name, found in MESSAGES.items():
        declared = DescriptorProto()
        found.CopyToProto(declared)
        ranges = [(each.start, each.end) for each in declared.extension_range]
        assert ([EXT_RANGE] if name.endswith(".Ext") else []) == ranges, name


def test_every_ext_carries_json_rest_as_bytes_500():
    carried = {}
    for extension in json_rest_pb2.JsonRest.DESCRIPTOR.extensions:
        assert extension.number == 500, extension.full_name
        assert extension.type == FieldDescriptor.TYPE_BYTES, extension.full_name
        carried[extension.containing_type.full_name.removeprefix("auction.v1.")] = extension.name
    assert {name for name in MESSAGES if name.endswith(".Ext")} == set(carried)


def test_ext_is_the_last_field_of_its_message():
    # The codec meets json_rest after the fields it belongs to; extensions of a message itself would come later.
    for name, found in MESSAGES.items():
        if "ext" in found.fields_by_name:
            assert max(field.number for field in found.fields) == 99, name


def test_unknown_fields_and_extensions_survive_a_round_trip():
    # Number 1000 of an Ext is another company's; 5000 of a request is from a version that we do not know.
    unknown = b"\x9a\x06\x05\xc2\x3e\x02hi" + b"\xc2\xb8\x02\x01x"
    sent = b"\n\x011" + unknown
    assert sent == GetMessageClass(MESSAGES["BidRequest"]).FromString(sent).SerializeToString()
