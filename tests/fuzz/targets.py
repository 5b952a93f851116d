"""All targets by name. Each is made when it is asked for, since some of them load torch."""

from collections.abc import Callable, Mapping

from tests.fuzz.decoders import Target


def _exchange() -> Target:
    from tests.fuzz import exchange

    return exchange.TARGET


def _machines() -> Target:
    from tests.fuzz import machines

    return machines.TARGET


def _transfer() -> Target:
    from tests.fuzz import transfer

    return transfer.TARGET


def _updates() -> Target:
    from tests.fuzz import updates

    return updates.TARGET


def _settings() -> Target:
    from tests.fuzz import settings

    return settings.TARGET


def _storage() -> Target:
    from tests.fuzz import storage

    return storage.TARGET


TARGETS: Mapping[str, Callable[[], Target]] = {
    "exchange": _exchange,
    "machines": _machines,
    "transfer": _transfer,
    "updates": _updates,
    "settings": _settings,
    "storage": _storage,
}

NAMES = (*TARGETS, "codec")
"""With the one that is a program in C."""
