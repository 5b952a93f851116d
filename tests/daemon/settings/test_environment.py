"""Variables that could redirect peers' traffic: which are named, and which are removed."""

import os
import subprocess
import sys

import pytest

from deca_node.daemon.settings import environment


def test_variables_are_named_as_they_are_spelled() -> None:
    assert environment.redirecting({"PATH": "/bin", "http_proxy": "", "no_proxy": "localhost"}) == []
    found = environment.redirecting({"http_proxy": "http://a:1", "HTTPS_PROXY": "http://a:1", "GRPC_TRACE": "all"})
    assert found == ["HTTPS_PROXY", "http_proxy"]
    assert environment.redirecting(dict.fromkeys(environment.PROXIES, "x")) == sorted(environment.PROXIES)


@pytest.mark.parametrize("name", environment.RESOLVER)
def test_the_resolver_of_a_node_follows_no_variable(name: str) -> None:
    look = (
        "import os, deca_node.daemon; from deca_node.daemon.settings.environment import redirecting;"
        f"print({name!r} in os.environ, redirecting(os.environ))"
    )
    said = subprocess.run(
        [sys.executable, "-c", look],
        check=False,
        env={**_without_proxies(), name: "elsewhere"},
        capture_output=True,
        text=True,
    )
    assert said.stdout == f"False [{name!r}]\n", said.stderr


def _without_proxies() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
