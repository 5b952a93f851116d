"""The list of checks, in the order in which a start would meet the same problems.

A check that fails is a finding and does not end the checkup. A check whose facts are missing, because the check that
finds them failed, is skipped.
"""

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from deca_node.cli.checks import data, machine, model, peers, ranks, settings, tokens
from deca_node.cli.checks.known import Known
from deca_node.daemon.diagnosis.findings import Finding, failed, skipped
from deca_node.daemon.settings.sources import Loaded
from deca_node.protocol.errors import DecaError

SECONDS_PER_PEER = 5.0
BROKEN_DO = "report it, with the `traceback` that `deca-node doctor --json` prints; the other checks stand"
SETTINGS_DO = "correct the setting there; `deca-node config --show` says where every value comes from"


@dataclass(frozen=True)
class Check:
    """One check. ``needs`` names the check that must pass before it, ``do`` the advice where ``run`` raises."""

    name: str
    needs: str
    run: Callable[[Known], Iterator[Finding]]
    do: str = ""


CHECKS = (
    Check("settings", "", settings.check_settings, SETTINGS_DO),
    Check(
        "certificates",
        "settings",
        settings.check_certificates,
        "see docs/CERTIFICATES.md; `deca-node cert check` explains more",
    ),
    Check("peers file", "settings", settings.check_peers_file, "correct the peers file, or use --name or --listen"),
    Check("folder", "peers file", machine.check_folder, "use another --dir"),
    Check("listen", "peers file", machine.check_listen, "use another --listen"),
    Check("http", "settings", machine.check_http),
    Check("environment", "", machine.check_environment),
    Check("data", "settings", data.check_data, "check --data"),
    Check("model", "settings", model.check_model, "check --model"),
    Check("tokenizer", "model", tokens.check_tokenizer, "check --model and --data"),
    Check("memory", "model", model.check_memory, "check --device"),
    Check("ranks", "settings", ranks.check_ranks, ranks.RANKS_DO),
    Check("disk", "model", machine.check_disk),
    Check("load", "model", model.check_load, "do as the sentence says"),
    Check("peers", "peers file", peers.check_peers),
    Check("clock", "", machine.check_clock),
)
ON_REQUEST = {"load"}
"""Checks that take long and run only where they are asked for."""


def checkup(
    load: Callable[[], Loaded],
    say: Callable[[str], None],
    seconds_max: float = SECONDS_PER_PEER,
    really_load: bool = False,
) -> Iterator[Finding]:
    """All findings, one check after the other. ``really_load`` also reads model and data as a trainer would."""
    known = Known(load, say, seconds_max)
    for check in CHECKS:
        if check.name not in ON_REQUEST or really_load:
            say(check.name)
            yield from _findings(check, known)


def _findings(check: Check, known: Known) -> Iterator[Finding]:
    if check.needs and not known.has_passed(check.needs):
        yield skipped(check.name, check.needs)
        return
    try:
        yield from check.run(known)
    except DecaError as problem:
        says, _, steps = str(problem).partition("\n")
        yield failed(check.name, says, check.do, **({"steps": steps.splitlines()} if steps else {}))
    except PermissionError:
        raise  # the command ends with a sentence that names the folder which this user may not enter
    except Exception as problem:  # noqa: BLE001  (a fault in one check must not hide the findings of the others)
        says = f"this check broke down: {type(problem).__name__}: {problem}"
        yield failed(check.name, says, BROKEN_DO, traceback=traceback.format_exc())
