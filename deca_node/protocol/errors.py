"""Errors by whose fault they are: the user's or this machine's, or a peer's. Bugs are assertions instead."""


class DecaError(Exception):
    """An error that a person can act on. The message is one or two plain sentences.

    ``exit_code`` is what ``deca-node`` exits with when the error ends the process
    (``docs/EXIT_CODES.md`` lists them all).
    """

    exit_code = 1


class SettingsError(DecaError):
    """A setting is unknown, malformed or contradicts another one."""

    exit_code = 3


class PeersError(DecaError):
    """The peers file is malformed, or does not show which line is this node's own."""

    exit_code = 4


class ModelError(DecaError):
    """The model is missing, is not in safetensors files, or has no decoder layers."""

    exit_code = 5


class DataError(DecaError):
    """The data is missing, unreadable or empty, or a record is malformed."""

    exit_code = 6


class MismatchError(DecaError):
    """Nodes disagree about the run. The message names the field and both values."""

    exit_code = 7


class AddressError(DecaError):
    """The node cannot listen on its address."""

    exit_code = 8


class PeersMissingError(DecaError):
    """The expected peers did not appear within ``wait_seconds``."""

    exit_code = 9


class StorageError(DecaError):
    """A file could not be written: no space, no permission, or the folder belongs to another run."""

    exit_code = 10


class TrainerError(DecaError):
    """The trainer process died or could not continue (out of memory, non-finite numbers)."""

    exit_code = 11


class RankLostError(TrainerError):
    """A rank of the trainer no longer answers the others. The cause is in another process, which may have told it."""


class NoAnswerError(DecaError):
    """No node answers in this folder: no node runs there, or the node belongs to another user."""

    exit_code = 12


class UnfitError(DecaError):
    """``deca-node doctor`` found a problem that keeps the node from starting, or from training with the others."""

    exit_code = 13


class WireError(DecaError):
    """A peer sent something that the protocol does not allow. ``reason`` is a stable code for counters."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason
