from auction.v1 import openrtb_pb2 as _openrtb_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Explanation(_message.Message):
    __slots__ = ("id", "currency", "imp", "unplaced", "warning")
    class ImpExplanation(_message.Message):
        __slots__ = ("id", "bid")
        ID_FIELD_NUMBER: _ClassVar[int]
        BID_FIELD_NUMBER: _ClassVar[int]
        id: str
        bid: _containers.RepeatedCompositeFieldContainer[Explanation.BidExplanation]
        def __init__(self, id: _Optional[str] = ..., bid: _Optional[_Iterable[_Union[Explanation.BidExplanation, _Mapping]]] = ...) -> None: ...
    class BidExplanation(_message.Message):
        __slots__ = ("bidder", "seat", "id", "impid", "price", "currency", "floor_cpm_micros", "loss_reason", "min_to_win_cpm_micros", "clearing_price_cpm_micros", "price_setter")
        BIDDER_FIELD_NUMBER: _ClassVar[int]
        SEAT_FIELD_NUMBER: _ClassVar[int]
        ID_FIELD_NUMBER: _ClassVar[int]
        IMPID_FIELD_NUMBER: _ClassVar[int]
        PRICE_FIELD_NUMBER: _ClassVar[int]
        CURRENCY_FIELD_NUMBER: _ClassVar[int]
        FLOOR_CPM_MICROS_FIELD_NUMBER: _ClassVar[int]
        LOSS_REASON_FIELD_NUMBER: _ClassVar[int]
        MIN_TO_WIN_CPM_MICROS_FIELD_NUMBER: _ClassVar[int]
        CLEARING_PRICE_CPM_MICROS_FIELD_NUMBER: _ClassVar[int]
        PRICE_SETTER_FIELD_NUMBER: _ClassVar[int]
        bidder: str
        seat: str
        id: str
        impid: str
        price: float
        currency: str
        floor_cpm_micros: int
        loss_reason: int
        min_to_win_cpm_micros: int
        clearing_price_cpm_micros: int
        price_setter: str
        def __init__(self, bidder: _Optional[str] = ..., seat: _Optional[str] = ..., id: _Optional[str] = ..., impid: _Optional[str] = ..., price: _Optional[float] = ..., currency: _Optional[str] = ..., floor_cpm_micros: _Optional[int] = ..., loss_reason: _Optional[int] = ..., min_to_win_cpm_micros: _Optional[int] = ..., clearing_price_cpm_micros: _Optional[int] = ..., price_setter: _Optional[str] = ...) -> None: ...
    class Warning(_message.Message):
        __slots__ = ("path", "text")
        PATH_FIELD_NUMBER: _ClassVar[int]
        TEXT_FIELD_NUMBER: _ClassVar[int]
        path: str
        text: str
        def __init__(self, path: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...
    AUCTION_FIELD_NUMBER: _ClassVar[int]
    auction: _descriptor.FieldDescriptor
    ID_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    IMP_FIELD_NUMBER: _ClassVar[int]
    UNPLACED_FIELD_NUMBER: _ClassVar[int]
    WARNING_FIELD_NUMBER: _ClassVar[int]
    id: str
    currency: str
    imp: _containers.RepeatedCompositeFieldContainer[Explanation.ImpExplanation]
    unplaced: _containers.RepeatedCompositeFieldContainer[Explanation.BidExplanation]
    warning: _containers.RepeatedCompositeFieldContainer[Explanation.Warning]
    def __init__(self, id: _Optional[str] = ..., currency: _Optional[str] = ..., imp: _Optional[_Iterable[_Union[Explanation.ImpExplanation, _Mapping]]] = ..., unplaced: _Optional[_Iterable[_Union[Explanation.BidExplanation, _Mapping]]] = ..., warning: _Optional[_Iterable[_Union[Explanation.Warning, _Mapping]]] = ...) -> None: ...
