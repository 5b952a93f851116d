from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DescribeRequest(_message.Message):
    __slots__ = ("name", "start")
    NAME_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    name: str
    start: bool
    def __init__(self, name: _Optional[str] = ..., start: _Optional[bool] = ...) -> None: ...

class Description(_message.Message):
    __slots__ = ("protocol", "run_name", "fingerprint", "agreement", "settings", "position", "boundary", "versions", "shares_start", "start", "time")
    class AgreementEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    RUN_NAME_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    BOUNDARY_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    SHARES_START_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    run_name: str
    fingerprint: str
    agreement: _containers.ScalarMap[str, str]
    settings: str
    position: int
    boundary: int
    versions: _containers.RepeatedCompositeFieldContainer[Version]
    shares_start: bool
    start: _containers.RepeatedCompositeFieldContainer[StartFile]
    time: float
    def __init__(self, protocol: _Optional[int] = ..., run_name: _Optional[str] = ..., fingerprint: _Optional[str] = ..., agreement: _Optional[_Mapping[str, str]] = ..., settings: _Optional[str] = ..., position: _Optional[int] = ..., boundary: _Optional[int] = ..., versions: _Optional[_Iterable[_Union[Version, _Mapping]]] = ..., shares_start: _Optional[bool] = ..., start: _Optional[_Iterable[_Union[StartFile, _Mapping]]] = ..., time: _Optional[float] = ...) -> None: ...

class Version(_message.Message):
    __slots__ = ("block", "activation", "bytes", "sha256")
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    block: str
    activation: int
    bytes: int
    sha256: bytes
    def __init__(self, block: _Optional[str] = ..., activation: _Optional[int] = ..., bytes: _Optional[int] = ..., sha256: _Optional[bytes] = ...) -> None: ...

class StartFile(_message.Message):
    __slots__ = ("name", "bytes", "sha256")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    name: str
    bytes: int
    sha256: bytes
    def __init__(self, name: _Optional[str] = ..., bytes: _Optional[int] = ..., sha256: _Optional[bytes] = ...) -> None: ...

class FetchRequest(_message.Message):
    __slots__ = ("name", "fingerprint", "version", "start", "pieces")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    PIECES_FIELD_NUMBER: _ClassVar[int]
    name: str
    fingerprint: str
    version: Version
    start: StartFile
    pieces: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., fingerprint: _Optional[str] = ..., version: _Optional[_Union[Version, _Mapping]] = ..., start: _Optional[_Union[StartFile, _Mapping]] = ..., pieces: _Optional[_Iterable[int]] = ...) -> None: ...

class Piece(_message.Message):
    __slots__ = ("index", "sha256", "data")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    index: int
    sha256: bytes
    data: bytes
    def __init__(self, index: _Optional[int] = ..., sha256: _Optional[bytes] = ..., data: _Optional[bytes] = ...) -> None: ...
