from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FrameKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FRAME_KIND_UNSPECIFIED: _ClassVar[FrameKind]
    FRAME_KIND_KEYFRAME: _ClassVar[FrameKind]
    FRAME_KIND_UPDATE: _ClassVar[FrameKind]
FRAME_KIND_UNSPECIFIED: FrameKind
FRAME_KIND_KEYFRAME: FrameKind
FRAME_KIND_UPDATE: FrameKind

class Frame(_message.Message):
    __slots__ = ("hello", "refusal", "open", "close", "bye", "chunk", "credit", "taken")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    BYE_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    TAKEN_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    refusal: Refusal
    open: Open
    close: Close
    bye: Bye
    chunk: Chunk
    credit: Credit
    taken: Taken
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ..., open: _Optional[_Union[Open, _Mapping]] = ..., close: _Optional[_Union[Close, _Mapping]] = ..., bye: _Optional[_Union[Bye, _Mapping]] = ..., chunk: _Optional[_Union[Chunk, _Mapping]] = ..., credit: _Optional[_Union[Credit, _Mapping]] = ..., taken: _Optional[_Union[Taken, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol", "name", "to", "boot", "activation", "agreement", "ended", "share")
    class AgreementEntry(_message.Message):
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
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    name: str
    to: str
    boot: int
    activation: int
    agreement: _containers.ScalarMap[str, str]
    ended: Ended
    share: int
    def __init__(self, protocol: _Optional[int] = ..., name: _Optional[str] = ..., to: _Optional[str] = ..., boot: _Optional[int] = ..., activation: _Optional[int] = ..., agreement: _Optional[_Mapping[str, str]] = ..., ended: _Optional[_Union[Ended, _Mapping]] = ..., share: _Optional[int] = ...) -> None: ...

class Ended(_message.Message):
    __slots__ = ("boot", "number")
    BOOT_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    boot: int
    number: int
    def __init__(self, boot: _Optional[int] = ..., number: _Optional[int] = ...) -> None: ...

class Taken(_message.Message):
    __slots__ = ("number",)
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    number: int
    def __init__(self, number: _Optional[int] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("reason", "sentence", "name")
    REASON_FIELD_NUMBER: _ClassVar[int]
    SENTENCE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    reason: str
    sentence: str
    name: str
    def __init__(self, reason: _Optional[str] = ..., sentence: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class Open(_message.Message):
    __slots__ = ("activation", "degree", "keyframe_bytes", "steps")
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    DEGREE_FIELD_NUMBER: _ClassVar[int]
    KEYFRAME_BYTES_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    activation: int
    degree: int
    keyframe_bytes: int
    steps: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, activation: _Optional[int] = ..., degree: _Optional[int] = ..., keyframe_bytes: _Optional[int] = ..., steps: _Optional[_Iterable[int]] = ...) -> None: ...

class Close(_message.Message):
    __slots__ = ("activation", "applied", "reason")
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    activation: int
    applied: int
    reason: str
    def __init__(self, activation: _Optional[int] = ..., applied: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class Credit(_message.Message):
    __slots__ = ("frames",)
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    frames: int
    def __init__(self, frames: _Optional[int] = ...) -> None: ...

class Bye(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("kind", "activation", "inner", "offset", "total", "checksum", "data")
    KIND_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    INNER_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    kind: FrameKind
    activation: int
    inner: int
    offset: int
    total: int
    checksum: int
    data: bytes
    def __init__(self, kind: _Optional[_Union[FrameKind, str]] = ..., activation: _Optional[int] = ..., inner: _Optional[int] = ..., offset: _Optional[int] = ..., total: _Optional[int] = ..., checksum: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...
