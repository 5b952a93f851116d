from deca_node.daemon.wire_pb import exchange_pb2 as _exchange_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RelayFrame(_message.Message):
    __slots__ = ("ask", "refusal", "joined", "data", "end")
    class Ask(_message.Message):
        __slots__ = ("protocol", "name", "to", "waits")
        PROTOCOL_FIELD_NUMBER: _ClassVar[int]
        NAME_FIELD_NUMBER: _ClassVar[int]
        TO_FIELD_NUMBER: _ClassVar[int]
        WAITS_FIELD_NUMBER: _ClassVar[int]
        protocol: int
        name: str
        to: str
        waits: bool
        def __init__(self, protocol: _Optional[int] = ..., name: _Optional[str] = ..., to: _Optional[str] = ..., waits: _Optional[bool] = ...) -> None: ...
    class Joined(_message.Message):
        __slots__ = ()
        def __init__(self) -> None: ...
    class End(_message.Message):
        __slots__ = ()
        def __init__(self) -> None: ...
    ASK_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    JOINED_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    ask: RelayFrame.Ask
    refusal: _exchange_pb2.Refusal
    joined: RelayFrame.Joined
    data: bytes
    end: RelayFrame.End
    def __init__(self, ask: _Optional[_Union[RelayFrame.Ask, _Mapping]] = ..., refusal: _Optional[_Union[_exchange_pb2.Refusal, _Mapping]] = ..., joined: _Optional[_Union[RelayFrame.Joined, _Mapping]] = ..., data: _Optional[bytes] = ..., end: _Optional[_Union[RelayFrame.End, _Mapping]] = ...) -> None: ...

class SurveyRequest(_message.Message):
    __slots__ = ("name", "address")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    name: str
    address: str
    def __init__(self, name: _Optional[str] = ..., address: _Optional[str] = ...) -> None: ...

class SurveyReply(_message.Message):
    __slots__ = ("relays", "tried", "reached", "linked")
    RELAYS_FIELD_NUMBER: _ClassVar[int]
    TRIED_FIELD_NUMBER: _ClassVar[int]
    REACHED_FIELD_NUMBER: _ClassVar[int]
    LINKED_FIELD_NUMBER: _ClassVar[int]
    relays: bool
    tried: bool
    reached: bool
    linked: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, relays: _Optional[bool] = ..., tried: _Optional[bool] = ..., reached: _Optional[bool] = ..., linked: _Optional[_Iterable[str]] = ...) -> None: ...
