"""Who may read over HTTP: users of this machine, and others with a token.

The probes and ``/metrics`` answer every request, as orchestrators and Prometheus expect. The page and everything below
``/v1`` tell more. On a loopback address they answer this machine's users without a token. They refuse a request for
another host name, because a foreign page could make a browser send one (DNS rebinding). On other addresses they require
the token, as ``Authorization: Bearer TOKEN``, or as the password in the browser's form, with any user name.
"""

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Middleware

from deca_node.daemon.settings.address import is_loopback
from deca_node.protocol.errors import SettingsError

OPEN_PATHS = frozenset({"/livez", "/readyz", "/startupz", "/metrics"})
EVERYBODY = "none"
"""A value of ``http_token`` instead of a file: everybody who reaches the port may read everything."""
TOKEN_LENGTH_MIN, TOKEN_BYTES_MAX = 16, 4096

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def read_token(path: str) -> str | None:
    """The token in this file, without white space around it; None if ``path`` is empty or "none". Raises SettingsError
    if the file cannot be read, or if its token is so short that it could be guessed."""
    if path in {"", EVERYBODY}:
        return None
    try:
        with Path(path).expanduser().open("rb") as file:
            token = file.read(TOKEN_BYTES_MAX).decode().strip()
    except (OSError, ValueError, RuntimeError) as problem:
        why = problem.strerror if isinstance(problem, OSError) else problem
        raise SettingsError(f"http_token: {path} cannot be read: {why}") from None
    if len(token) < TOKEN_LENGTH_MIN:
        raise SettingsError(
            f"http_token: {path} holds fewer than {TOKEN_LENGTH_MIN} characters; "
            f"make a token with: openssl rand -hex 32 > {path}"
        )
    return token


def guard(host: str, token_file: str = "") -> Middleware:
    """The check that every request to a port at ``host`` passes first. Raises SettingsError like :func:`read_token`."""
    token = read_token(token_file)

    @web.middleware
    async def pass_on(request: web.Request, handler: _Handler) -> web.StreamResponse:
        if request.path in OPEN_PATHS or token_file == EVERYBODY:
            return await handler(request)
        if token is not None:
            return await handler(request) if _shows(request, token) else _asked_for_token()
        if not is_loopback(host):
            return _refused(
                "this page answers on the node's own machine only; set http_token to read it from elsewhere"
            )
        if not _asks_this_machine(request):
            return _refused(
                f"this node answers at its address and as localhost, not as {request.host!r}; set http_token"
            )
        return await handler(request)

    return pass_on


def _asks_this_machine(request: web.Request) -> bool:
    try:
        name = request.url.host or ""
        return name == "localhost" or name.endswith(".localhost") or bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def _shows(request: web.Request, token: str) -> bool:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            return False
    elif scheme.lower() != "bearer":
        return False
    # Bytes of a header that are not UTF-8 arrive as surrogates. No token has them.
    return hmac.compare_digest(given.strip().encode(errors="surrogateescape"), token.encode())


def _refused(sentence: str) -> web.Response:
    return web.Response(text=sentence + "\n", status=403)


def _asked_for_token() -> web.Response:
    realm = {"WWW-Authenticate": 'Basic realm="deca-node: the token is the password", charset="UTF-8"'}
    return web.Response(text="this page needs the node's token\n", status=401, headers=realm)
