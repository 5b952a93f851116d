"""Settings that are lists, addresses or paths, as texts."""

from pathlib import Path

from deca_node.daemon.settings.address import parse_address
from deca_node.protocol.errors import SettingsError


def listed(text: str) -> list[str]:
    """The parts of a setting that is a list with commas between its parts."""
    return [part.strip() for part in text.split(",") if part.strip()]


def check_address(name: str, text: str) -> None:
    """Raise SettingsError unless ``text``, the setting ``name``, is empty or an address."""
    try:
        if text:
            parse_address(text)
    except ValueError as error:
        raise SettingsError(f"{name} = {error}") from error


def expanded_path(path: str) -> str:
    """``path`` with a leading ``~`` replaced by the home folder. Raises SettingsError if there is no home folder."""
    try:
        return str(Path(path).expanduser())
    except RuntimeError as error:
        raise SettingsError(f"{path}: {error}") from error
