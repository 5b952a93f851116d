"""Removes keys, tokens and passwords from text that leaves this machine.

It works twice: it removes the secrets that this node's files hold, wherever they occur; and it removes everything that
looks like a secret, whether this node knows it or not.
"""

import re
from collections.abc import Callable, Iterable

SECRET_LENGTH_MIN = 8
"""Shorter secrets occur in harmless text as well."""

_PEM = r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)"
_PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("a private key", re.compile(_PEM, re.DOTALL)),
    ("a token", re.compile(r"(?i)\b(?:bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}")),
    ("a token", re.compile(r"\bhf_[A-Za-z0-9]{16,}")),
    ("a password", re.compile(r"(?<=://)[^/\s:@\"]+:[^/\s@\"]+(?=@)")),
)
_NAMED = re.compile(r"(?i)((?:token|secret|password|passwd|api_?key|authorization)\"?\s*[=:]\s*\"?)([^\s\"',&}]{4,})")
_PATHLIKE = re.compile(r"[~./]|none$")


class Scrubber:
    """``secrets`` holds known secrets: tokens and whole key files. ``removed`` counts the removed ones by kind."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._known = sorted({part for secret in secrets for part in _parts(secret)}, key=len, reverse=True)
        self.removed: dict[str, int] = {}

    def clean(self, text: str) -> str:
        """``text`` with a note of its kind in place of each secret."""
        for kind, pattern in _PATTERNS:
            text = pattern.sub(self._instead(kind), text)
        for secret in self._known:
            if secret in text:
                self._count("a known secret", text.count(secret))
                text = text.replace(secret, "[removed: a known secret]")
        return _NAMED.sub(self._instead_of_value, text)

    def _instead(self, kind: str) -> Callable[[re.Match[str]], str]:
        def replace(_: re.Match[str]) -> str:
            self._count(kind, 1)
            return f"[removed: {kind}]"

        return replace

    def _instead_of_value(self, found: re.Match[str]) -> str:
        # The setting http_token names a file, and the name is not secret.
        if _PATHLIKE.match(found[2]) or found[2].startswith("[removed"):
            return found[0]
        self._count("a named secret", 1)
        return f"{found[1]}[removed: a named secret]"

    def _count(self, kind: str, times: int) -> None:
        self.removed[kind] = self.removed.get(kind, 0) + times


def _parts(secret: str) -> Iterable[str]:
    """The secret as a whole, and its lines: a text may quote a part of a key, or have lost its line ends."""
    lines = [line.strip() for line in (secret, *secret.splitlines()) if not line.startswith("-----")]
    return [line for line in lines if len(line) >= SECRET_LENGTH_MIN]
