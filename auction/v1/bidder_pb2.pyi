from auction.v1 import openrtb_pb2 as _openrtb_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Notice(_message.Message):
    __slots__ = ("event", "auction_id", "request_id", "imp_id", "seat", "bid_id", "price", "currency", "loss_reason", "min_to_win")
    class Event(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        EVENT_UNSPECIFIED: _ClassVar[Notice.Event]
        WIN: _ClassVar[Notice.Event]
        BILLING: _ClassVar[Notice.Event]
        LOSS: _ClassVar[Notice.Event]
    EVENT_UNSPECIFIED: Notice.Event
    WIN: Notice.Event
    BILLING: Notice.Event
    LOSS: Notice.Event
    EVENT_FIELD_NUMBER: _ClassVar[int]
    AUCTION_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    IMP_ID_FIELD_NUMBER: _ClassVar[int]
    SEAT_FIELD_NUMBER: _ClassVar[int]
    BID_ID_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    LOSS_REASON_FIELD_NUMBER: _ClassVar[int]
    MIN_TO_WIN_FIELD_NUMBER: _ClassVar[int]
    event: Notice.Event
    auction_id: str
    request_id: str
    imp_id: str
    seat: str
    bid_id: str
    price: str
    currency: str
    loss_reason: int
    min_to_win: str
    def __init__(self, event: _Optional[_Union[Notice.Event, str]] = ..., auction_id: _Optional[str] = ..., request_id: _Optional[str] = ..., imp_id: _Optional[str] = ..., seat: _Optional[str] = ..., bid_id: _Optional[str] = ..., price: _Optional[str] = ..., currency: _Optional[str] = ..., loss_reason: _Optional[int] = ..., min_to_win: _Optional[str] = ...) -> None: ...

class NoticeReceipt(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
