from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class MemberState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MEMBER_STATE_ALIVE: _ClassVar[MemberState]
    MEMBER_STATE_SUSPECT: _ClassVar[MemberState]
    MEMBER_STATE_DEAD: _ClassVar[MemberState]
    MEMBER_STATE_LEFT: _ClassVar[MemberState]
MEMBER_STATE_ALIVE: MemberState
MEMBER_STATE_SUSPECT: MemberState
MEMBER_STATE_DEAD: MemberState
MEMBER_STATE_LEFT: MemberState

class MemberFacts(_message.Message):
    __slots__ = ("name", "address", "boot", "incarnation", "state", "ready_from", "losses", "stop_at")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    BOOT_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    READY_FROM_FIELD_NUMBER: _ClassVar[int]
    LOSSES_FIELD_NUMBER: _ClassVar[int]
    STOP_AT_FIELD_NUMBER: _ClassVar[int]
    name: str
    address: str
    boot: int
    incarnation: int
    state: MemberState
    ready_from: int
    losses: _containers.RepeatedCompositeFieldContainer[HeldoutLoss]
    stop_at: int
    def __init__(self, name: _Optional[str] = ..., address: _Optional[str] = ..., boot: _Optional[int] = ..., incarnation: _Optional[int] = ..., state: _Optional[_Union[MemberState, str]] = ..., ready_from: _Optional[int] = ..., losses: _Optional[_Iterable[_Union[HeldoutLoss, _Mapping]]] = ..., stop_at: _Optional[int] = ...) -> None: ...

class HeldoutLoss(_message.Message):
    __slots__ = ("round", "loss")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    round: int
    loss: float
    def __init__(self, round: _Optional[int] = ..., loss: _Optional[float] = ...) -> None: ...

class RunIdentity(_message.Message):
    __slots__ = ("name", "fingerprint", "federation")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    FEDERATION_FIELD_NUMBER: _ClassVar[int]
    name: str
    fingerprint: bytes
    federation: str
    def __init__(self, name: _Optional[str] = ..., fingerprint: _Optional[bytes] = ..., federation: _Optional[str] = ...) -> None: ...

class MemberProgress(_message.Message):
    __slots__ = ("name", "boot", "beat", "phase", "done", "total", "round", "block", "loss", "heldout_loss", "steps_per_second", "sent_bytes", "received_bytes", "peers_up", "page")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BOOT_FIELD_NUMBER: _ClassVar[int]
    BEAT_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    HELDOUT_LOSS_FIELD_NUMBER: _ClassVar[int]
    STEPS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    SENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    PEERS_UP_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    name: str
    boot: int
    beat: int
    phase: str
    done: int
    total: int
    round: int
    block: int
    loss: float
    heldout_loss: float
    steps_per_second: float
    sent_bytes: int
    received_bytes: int
    peers_up: int
    page: str
    def __init__(self, name: _Optional[str] = ..., boot: _Optional[int] = ..., beat: _Optional[int] = ..., phase: _Optional[str] = ..., done: _Optional[int] = ..., total: _Optional[int] = ..., round: _Optional[int] = ..., block: _Optional[int] = ..., loss: _Optional[float] = ..., heldout_loss: _Optional[float] = ..., steps_per_second: _Optional[float] = ..., sent_bytes: _Optional[int] = ..., received_bytes: _Optional[int] = ..., peers_up: _Optional[int] = ..., page: _Optional[str] = ...) -> None: ...

class MemberRumour(_message.Message):
    __slots__ = ("facts", "accuser")
    FACTS_FIELD_NUMBER: _ClassVar[int]
    ACCUSER_FIELD_NUMBER: _ClassVar[int]
    facts: MemberFacts
    accuser: str
    def __init__(self, facts: _Optional[_Union[MemberFacts, _Mapping]] = ..., accuser: _Optional[str] = ...) -> None: ...

class MembershipPacket(_message.Message):
    __slots__ = ("sender", "rumours", "ping", "ping_req", "ack", "nack", "push_pull", "gossip", "taken", "claim", "run", "progress")
    class Ping(_message.Message):
        __slots__ = ("seq", "target")
        SEQ_FIELD_NUMBER: _ClassVar[int]
        TARGET_FIELD_NUMBER: _ClassVar[int]
        seq: int
        target: str
        def __init__(self, seq: _Optional[int] = ..., target: _Optional[str] = ...) -> None: ...
    class PingReq(_message.Message):
        __slots__ = ("seq", "target", "address")
        SEQ_FIELD_NUMBER: _ClassVar[int]
        TARGET_FIELD_NUMBER: _ClassVar[int]
        ADDRESS_FIELD_NUMBER: _ClassVar[int]
        seq: int
        target: str
        address: str
        def __init__(self, seq: _Optional[int] = ..., target: _Optional[str] = ..., address: _Optional[str] = ...) -> None: ...
    class Ack(_message.Message):
        __slots__ = ("seq",)
        SEQ_FIELD_NUMBER: _ClassVar[int]
        seq: int
        def __init__(self, seq: _Optional[int] = ...) -> None: ...
    class Nack(_message.Message):
        __slots__ = ("seq",)
        SEQ_FIELD_NUMBER: _ClassVar[int]
        seq: int
        def __init__(self, seq: _Optional[int] = ...) -> None: ...
    class PushPull(_message.Message):
        __slots__ = ("seq", "members", "wants_reply")
        SEQ_FIELD_NUMBER: _ClassVar[int]
        MEMBERS_FIELD_NUMBER: _ClassVar[int]
        WANTS_REPLY_FIELD_NUMBER: _ClassVar[int]
        seq: int
        members: _containers.RepeatedCompositeFieldContainer[MemberFacts]
        wants_reply: bool
        def __init__(self, seq: _Optional[int] = ..., members: _Optional[_Iterable[_Union[MemberFacts, _Mapping]]] = ..., wants_reply: _Optional[bool] = ...) -> None: ...
    class Gossip(_message.Message):
        __slots__ = ()
        def __init__(self) -> None: ...
    class Taken(_message.Message):
        __slots__ = ("holder",)
        HOLDER_FIELD_NUMBER: _ClassVar[int]
        holder: MemberFacts
        def __init__(self, holder: _Optional[_Union[MemberFacts, _Mapping]] = ...) -> None: ...
    class Claim(_message.Message):
        __slots__ = ("rank", "started")
        RANK_FIELD_NUMBER: _ClassVar[int]
        STARTED_FIELD_NUMBER: _ClassVar[int]
        rank: int
        started: int
        def __init__(self, rank: _Optional[int] = ..., started: _Optional[int] = ...) -> None: ...
    SENDER_FIELD_NUMBER: _ClassVar[int]
    RUMOURS_FIELD_NUMBER: _ClassVar[int]
    PING_FIELD_NUMBER: _ClassVar[int]
    PING_REQ_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    NACK_FIELD_NUMBER: _ClassVar[int]
    PUSH_PULL_FIELD_NUMBER: _ClassVar[int]
    GOSSIP_FIELD_NUMBER: _ClassVar[int]
    TAKEN_FIELD_NUMBER: _ClassVar[int]
    CLAIM_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    sender: MemberFacts
    rumours: _containers.RepeatedCompositeFieldContainer[MemberRumour]
    ping: MembershipPacket.Ping
    ping_req: MembershipPacket.PingReq
    ack: MembershipPacket.Ack
    nack: MembershipPacket.Nack
    push_pull: MembershipPacket.PushPull
    gossip: MembershipPacket.Gossip
    taken: MembershipPacket.Taken
    claim: MembershipPacket.Claim
    run: RunIdentity
    progress: _containers.RepeatedCompositeFieldContainer[MemberProgress]
    def __init__(self, sender: _Optional[_Union[MemberFacts, _Mapping]] = ..., rumours: _Optional[_Iterable[_Union[MemberRumour, _Mapping]]] = ..., ping: _Optional[_Union[MembershipPacket.Ping, _Mapping]] = ..., ping_req: _Optional[_Union[MembershipPacket.PingReq, _Mapping]] = ..., ack: _Optional[_Union[MembershipPacket.Ack, _Mapping]] = ..., nack: _Optional[_Union[MembershipPacket.Nack, _Mapping]] = ..., push_pull: _Optional[_Union[MembershipPacket.PushPull, _Mapping]] = ..., gossip: _Optional[_Union[MembershipPacket.Gossip, _Mapping]] = ..., taken: _Optional[_Union[MembershipPacket.Taken, _Mapping]] = ..., claim: _Optional[_Union[MembershipPacket.Claim, _Mapping]] = ..., run: _Optional[_Union[RunIdentity, _Mapping]] = ..., progress: _Optional[_Iterable[_Union[MemberProgress, _Mapping]]] = ...) -> None: ...
