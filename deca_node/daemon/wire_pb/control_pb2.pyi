from deca_node.daemon.wire_pb import exchange_pb2 as _exchange_pb2
from deca_node.daemon.wire_pb import membership_pb2 as _membership_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ControlFrame(_message.Message):
    __slots__ = ("greeting", "refusal", "taken", "packet", "ping", "pong", "activation")
    class Greeting(_message.Message):
        __slots__ = ("protocol", "name", "to", "boot", "address", "ended", "run", "settings", "relays")
        class SettingsEntry(_message.Message):
            __slots__ = ("key", "value")
            KEY_FIELD_NUMBER: _ClassVar[int]
            VALUE_FIELD_NUMBER: _ClassVar[int]
            key: str
            value: str
            def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
        PROTOCOL_FIELD_NUMBER: _ClassVar[int]
        NAME_FIELD_NUMBER: _ClassVar[int]
        TO_FIELD_NUMBER: _ClassVar[int]
        BOOT_FIELD_NUMBER: _ClassVar[int]
        ADDRESS_FIELD_NUMBER: _ClassVar[int]
        ENDED_FIELD_NUMBER: _ClassVar[int]
        RUN_FIELD_NUMBER: _ClassVar[int]
        SETTINGS_FIELD_NUMBER: _ClassVar[int]
        RELAYS_FIELD_NUMBER: _ClassVar[int]
        protocol: int
        name: str
        to: str
        boot: int
        address: str
        ended: _exchange_pb2.Ended
        run: _membership_pb2.RunIdentity
        settings: _containers.ScalarMap[str, str]
        relays: bool
        def __init__(self, protocol: _Optional[int] = ..., name: _Optional[str] = ..., to: _Optional[str] = ..., boot: _Optional[int] = ..., address: _Optional[str] = ..., ended: _Optional[_Union[_exchange_pb2.Ended, _Mapping]] = ..., run: _Optional[_Union[_membership_pb2.RunIdentity, _Mapping]] = ..., settings: _Optional[_Mapping[str, str]] = ..., relays: _Optional[bool] = ...) -> None: ...
    class Packet(_message.Message):
        __slots__ = ("payload",)
        PAYLOAD_FIELD_NUMBER: _ClassVar[int]
        payload: bytes
        def __init__(self, payload: _Optional[bytes] = ...) -> None: ...
    class Ping(_message.Message):
        __slots__ = ("number",)
        NUMBER_FIELD_NUMBER: _ClassVar[int]
        number: int
        def __init__(self, number: _Optional[int] = ...) -> None: ...
    class Pong(_message.Message):
        __slots__ = ("number",)
        NUMBER_FIELD_NUMBER: _ClassVar[int]
        number: int
        def __init__(self, number: _Optional[int] = ...) -> None: ...
    GREETING_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    TAKEN_FIELD_NUMBER: _ClassVar[int]
    PACKET_FIELD_NUMBER: _ClassVar[int]
    PING_FIELD_NUMBER: _ClassVar[int]
    PONG_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    greeting: ControlFrame.Greeting
    refusal: _exchange_pb2.Refusal
    taken: _exchange_pb2.Taken
    packet: ControlFrame.Packet
    ping: ControlFrame.Ping
    pong: ControlFrame.Pong
    activation: int
    def __init__(self, greeting: _Optional[_Union[ControlFrame.Greeting, _Mapping]] = ..., refusal: _Optional[_Union[_exchange_pb2.Refusal, _Mapping]] = ..., taken: _Optional[_Union[_exchange_pb2.Taken, _Mapping]] = ..., packet: _Optional[_Union[ControlFrame.Packet, _Mapping]] = ..., ping: _Optional[_Union[ControlFrame.Ping, _Mapping]] = ..., pong: _Optional[_Union[ControlFrame.Pong, _Mapping]] = ..., activation: _Optional[int] = ...) -> None: ...
