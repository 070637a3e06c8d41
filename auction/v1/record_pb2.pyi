from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Encoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENCODING_UNSPECIFIED: _ClassVar[Encoding]
    PROTOBUF: _ClassVar[Encoding]
    JSON: _ClassVar[Encoding]

class ReplyStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REPLY_STATUS_UNSPECIFIED: _ClassVar[ReplyStatus]
    BID: _ClassVar[ReplyStatus]
    NO_BID: _ClassVar[ReplyStatus]
    TIMED_OUT: _ClassVar[ReplyStatus]
    UNREACHABLE: _ClassVar[ReplyStatus]
    INVALID: _ClassVar[ReplyStatus]
ENCODING_UNSPECIFIED: Encoding
PROTOBUF: Encoding
JSON: Encoding
REPLY_STATUS_UNSPECIFIED: ReplyStatus
BID: ReplyStatus
NO_BID: ReplyStatus
TIMED_OUT: ReplyStatus
UNREACHABLE: ReplyStatus
INVALID: ReplyStatus

class RulesRecord(_message.Message):
    __slots__ = ("digest", "software", "canonical")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    CANONICAL_FIELD_NUMBER: _ClassVar[int]
    digest: bytes
    software: str
    canonical: bytes
    def __init__(self, digest: _Optional[bytes] = ..., software: _Optional[str] = ..., canonical: _Optional[bytes] = ...) -> None: ...

class AuctionRecord(_message.Message):
    __slots__ = ("arrival", "rules_digest", "reply", "result")
    ARRIVAL_FIELD_NUMBER: _ClassVar[int]
    RULES_DIGEST_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    arrival: Arrival
    rules_digest: bytes
    reply: _containers.RepeatedCompositeFieldContainer[Reply]
    result: bytes
    def __init__(self, arrival: _Optional[_Union[Arrival, _Mapping]] = ..., rules_digest: _Optional[bytes] = ..., reply: _Optional[_Iterable[_Union[Reply, _Mapping]]] = ..., result: _Optional[bytes] = ...) -> None: ...

class RefusalRecord(_message.Message):
    __slots__ = ("id", "received_us", "path", "request_bytes")
    ID_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_US_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    REQUEST_BYTES_FIELD_NUMBER: _ClassVar[int]
    id: str
    received_us: int
    path: str
    request_bytes: int
    def __init__(self, id: _Optional[str] = ..., received_us: _Optional[int] = ..., path: _Optional[str] = ..., request_bytes: _Optional[int] = ...) -> None: ...

class Arrival(_message.Message):
    __slots__ = ("id", "received_us", "encoding", "body", "timeout_ms", "explain", "caller")
    ID_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_US_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    id: str
    received_us: int
    encoding: Encoding
    body: bytes
    timeout_ms: int
    explain: bool
    caller: str
    def __init__(self, id: _Optional[str] = ..., received_us: _Optional[int] = ..., encoding: _Optional[_Union[Encoding, str]] = ..., body: _Optional[bytes] = ..., timeout_ms: _Optional[int] = ..., explain: _Optional[bool] = ..., caller: _Optional[str] = ...) -> None: ...

class Reply(_message.Message):
    __slots__ = ("bidder", "status", "body", "latency_us", "detail")
    BIDDER_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    LATENCY_US_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    bidder: str
    status: ReplyStatus
    body: bytes
    latency_us: int
    detail: str
    def __init__(self, bidder: _Optional[str] = ..., status: _Optional[_Union[ReplyStatus, str]] = ..., body: _Optional[bytes] = ..., latency_us: _Optional[int] = ..., detail: _Optional[str] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("response", "nbr", "outcome", "non_bid", "warning", "explained")
    class Outcome(_message.Message):
        __slots__ = ("bidder", "seat", "id", "imp", "impid", "deal", "price", "currency", "floor_cpm_micros", "loss_reason", "min_to_win_cpm_micros", "clearing_price_cpm_micros", "pays_cpm_micros", "price_setter")
        BIDDER_FIELD_NUMBER: _ClassVar[int]
        SEAT_FIELD_NUMBER: _ClassVar[int]
        ID_FIELD_NUMBER: _ClassVar[int]
        IMP_FIELD_NUMBER: _ClassVar[int]
        IMPID_FIELD_NUMBER: _ClassVar[int]
        DEAL_FIELD_NUMBER: _ClassVar[int]
        PRICE_FIELD_NUMBER: _ClassVar[int]
        CURRENCY_FIELD_NUMBER: _ClassVar[int]
        FLOOR_CPM_MICROS_FIELD_NUMBER: _ClassVar[int]
        LOSS_REASON_FIELD_NUMBER: _ClassVar[int]
        MIN_TO_WIN_CPM_MICROS_FIELD_NUMBER: _ClassVar[int]
        CLEARING_PRICE_CPM_MICROS_FIELD_NUMBER: _ClassVar[int]
        PAYS_CPM_MICROS_FIELD_NUMBER: _ClassVar[int]
        PRICE_SETTER_FIELD_NUMBER: _ClassVar[int]
        bidder: str
        seat: str
        id: str
        imp: int
        impid: str
        deal: str
        price: float
        currency: str
        floor_cpm_micros: int
        loss_reason: int
        min_to_win_cpm_micros: int
        clearing_price_cpm_micros: int
        pays_cpm_micros: int
        price_setter: int
        def __init__(self, bidder: _Optional[str] = ..., seat: _Optional[str] = ..., id: _Optional[str] = ..., imp: _Optional[int] = ..., impid: _Optional[str] = ..., deal: _Optional[str] = ..., price: _Optional[float] = ..., currency: _Optional[str] = ..., floor_cpm_micros: _Optional[int] = ..., loss_reason: _Optional[int] = ..., min_to_win_cpm_micros: _Optional[int] = ..., clearing_price_cpm_micros: _Optional[int] = ..., pays_cpm_micros: _Optional[int] = ..., price_setter: _Optional[int] = ...) -> None: ...
    class NonBid(_message.Message):
        __slots__ = ("bidder", "seat", "imp", "bid", "status")
        BIDDER_FIELD_NUMBER: _ClassVar[int]
        SEAT_FIELD_NUMBER: _ClassVar[int]
        IMP_FIELD_NUMBER: _ClassVar[int]
        BID_FIELD_NUMBER: _ClassVar[int]
        STATUS_FIELD_NUMBER: _ClassVar[int]
        bidder: str
        seat: str
        imp: str
        bid: str
        status: int
        def __init__(self, bidder: _Optional[str] = ..., seat: _Optional[str] = ..., imp: _Optional[str] = ..., bid: _Optional[str] = ..., status: _Optional[int] = ...) -> None: ...
    class Warning(_message.Message):
        __slots__ = ("path", "text")
        PATH_FIELD_NUMBER: _ClassVar[int]
        TEXT_FIELD_NUMBER: _ClassVar[int]
        path: str
        text: str
        def __init__(self, path: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    NBR_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    NON_BID_FIELD_NUMBER: _ClassVar[int]
    WARNING_FIELD_NUMBER: _ClassVar[int]
    EXPLAINED_FIELD_NUMBER: _ClassVar[int]
    response: bytes
    nbr: int
    outcome: _containers.RepeatedCompositeFieldContainer[Result.Outcome]
    non_bid: _containers.RepeatedCompositeFieldContainer[Result.NonBid]
    warning: _containers.RepeatedCompositeFieldContainer[Result.Warning]
    explained: bool
    def __init__(self, response: _Optional[bytes] = ..., nbr: _Optional[int] = ..., outcome: _Optional[_Iterable[_Union[Result.Outcome, _Mapping]]] = ..., non_bid: _Optional[_Iterable[_Union[Result.NonBid, _Mapping]]] = ..., warning: _Optional[_Iterable[_Union[Result.Warning, _Mapping]]] = ..., explained: _Optional[bool] = ...) -> None: ...
