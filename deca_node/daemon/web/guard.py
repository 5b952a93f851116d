"""Who may read over HTTP? Whoever is on this machine; anybody else shows a token.

The probes and ``/metrics`` answer everybody who reaches the port, as orchestrators and Prometheus expect. The page and
everything below ``/v1`` tell more. On a loopback address they are for this machine's users, and for those only:
a page from elsewhere that makes a browser ask here under its own name is turned away by that name. On any other
address they want the token, as ``Authorization: Bearer TOKEN``, or as the password of the form that a browser
shows, with any user name.
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
"""Instead of a token's file: whoever reaches the port may read everything."""
TOKEN_LENGTH_MIN, TOKEN_BYTES_MAX = 16, 4096

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def read_token(path: str) -> str | None:
    """The token in this file, without white space around it; None where ``path`` is empty or "none". Raises
    SettingsError where there is no such file, or where what it holds could be guessed."""
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
    """What every request for an address at ``host`` passes first. Raises SettingsError as :func:`read_token` does."""
    token = read_token(token_file)

    @web.middleware
    async def pass_on(request: web.Request, handler: _Handler) -> web.StreamResponse:
        if request.path in OPEN_PATHS or token_file == EVERYBODY:
            return await handler(request)
        if token is not None:
            return await handler(request) if _shows(request, token) else _asked_for_token()
        if not is_loopback(host):
            return _refused("this is told on the node's own machine only; set http_token to read it from elsewhere")
        if not _asks_this_machine(request):
            return _refused(f"this node answers at its address and as localhost, not as {request.host!r}")
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
    # Headers are bytes; what of them is no UTF-8 stands in the text as surrogates, and is no token of ours.
    return hmac.compare_digest(given.strip().encode(errors="surrogateescape"), token.encode())


def _refused(sentence: str) -> web.Response:
    return web.Response(text=sentence + "\n", status=403)


def _asked_for_token() -> web.Response:
    realm = {"WWW-Authenticate": 'Basic realm="deca-node: the token is the password", charset="UTF-8"'}
    return web.Response(text="this needs the node's token\n", status=401, headers=realm)
