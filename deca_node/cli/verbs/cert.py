"""``deca-node cert``: make and exchange certificates in four steps. No private key leaves its machine."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deca_node.cli.invocation import Decorated, debug_option

if TYPE_CHECKING:
    from deca_node.daemon.security.certificates import TlsFiles

AUTHORITY_FOLDER = Path("deca-authority")
NODE_FOLDER = Path("deca-certs")
EXIT_CODE_UNFIT = 3

_PATH = click.Path(path_type=Path)
_FILE = click.Path(path_type=Path, dir_okay=False)
_DAYS = click.IntRange(1, 36500)


def _authority_option(function: Decorated) -> Decorated:
    return click.option(
        "--authority",
        "folder",
        type=_PATH,
        default=AUTHORITY_FOLDER,
        show_default=True,
        help="The authority's folder. It holds the authority's key and stays with its keeper.",
    )(function)


def _dir_option(function: Decorated) -> Decorated:
    return click.option(
        "--dir",
        "folder",
        type=_PATH,
        default=NODE_FOLDER,
        show_default=True,
        help="Folder of the node's key and certificates.",
    )(function)


def _fingerprint_option(function: Decorated) -> Decorated:
    return click.option(
        "--fingerprint",
        required=True,
        help="The authority's fingerprint, received from its keeper by another channel than the file.",
    )(function)


@click.group(
    epilog="""\b
Examples (north keeps the authority, south is another party):
  north:  deca-node cert init --federation wards.example
  both:   deca-node cert request NAME --federation wards.example
  north:  deca-node cert approve deca-certs/north.csr south.csr
  both:   deca-node cert install NAME.crt --fingerprint sha256:...
  both:   deca-node cert check NAME
"""
)
def cert() -> None:
    """Make, exchange, show and check the certificates with which nodes prove their names."""


@cert.command(
    epilog="""\b
Example:
  deca-node cert init --federation wards.example
"""
)
@click.option("--federation", required=True, help="A common name of all parties, written like a host name.")
@_authority_option
@click.option("--days", type=_DAYS, default=3650, show_default=True, help="Days that the authority is valid.")
@debug_option
def init(federation: str, folder: Path, days: int) -> None:
    """Make the federation's authority. One party does this once, and keeps the folder secret."""
    from deca_node.daemon.security import authority, certificates

    made = authority.init(folder, federation, _now(), days)
    click.echo(
        f"The authority of {federation} is in {folder}, valid until {certificates.stamp(made.not_valid_after_utc)}."
    )
    click.echo(f"Tell its fingerprint to every party, by another channel than the certificates:\n{_said(made)}")


@cert.command(
    epilog="""\b
Example:
  deca-node cert request south --federation wards.example
"""
)
@click.argument("name")
@click.option("--federation", required=True, help="The federation's name, as in `cert init`.")
@_dir_option
@debug_option
def request(name: str, federation: str, folder: Path) -> None:
    """Make a key for the node NAME, and a request for its certificate.

    NAME is the node's name in the peers file. The same command renews a certificate, also while the node runs.
    """
    from deca_node.daemon.security import enrolment
    from deca_node.daemon.security.certificates import NodeId

    path = enrolment.request(folder, NodeId(federation, name))
    click.echo(f"Send {path} to the keeper of the authority. The key stays here.")


@cert.command(
    epilog="""\b
Examples:
  deca-node cert approve south.csr
  deca-node cert approve south.csr --replace     # south made a new key
"""
)
@click.argument("requests", nargs=-1, required=True, type=_FILE, metavar="CSR...")
@_authority_option
@click.option("--days", type=_DAYS, default=90, show_default=True, help="Days that the certificates are valid.")
@click.option("--replace", is_flag=True, help="Allow a new key for a name that has a certificate already.")
@debug_option
def approve(requests: tuple[Path, ...], folder: Path, days: int, replace: bool) -> None:
    """Sign requests with the authority's key. Each NAME.csr gives a NAME.crt in this folder; send it back.

    All nodes trust the holder of the certificate to be that node. Make sure who sent the request.
    """
    from deca_node.daemon.security import authority, certificates

    said = ""
    for path in requests:
        issued = authority.approve(folder, path, Path(path.name).with_suffix(".crt"), _now(), days, replace)
        facts = issued.facts
        click.echo(f"{facts.id.uri}, valid until {certificates.stamp(facts.not_after)}: send back {issued.path}")
        said = issued.authority
    click.echo(f"Tell the authority's fingerprint to the requesters, by another channel than the files:\nsha256:{said}")


@cert.command(
    epilog="""\b
Example:
  deca-node cert install south.crt --fingerprint sha256:4c1f...
"""
)
@click.argument("path", type=_FILE, metavar="CRT")
@_fingerprint_option
@_dir_option
@click.option("--forget-old", is_flag=True, help="Trust only this authority, and remove those installed before.")
@debug_option
def install(path: Path, fingerprint: str, folder: Path, forget_old: bool) -> None:
    """Put an approved certificate into use. A running node takes it up by itself."""
    from deca_node.daemon.security import certificates, enrolment

    facts = enrolment.install(folder, path, fingerprint, _now(), forget_old)
    click.echo(f"Installed in {folder}: {facts.id.uri}, valid until {certificates.stamp(facts.not_after)}.")


@cert.command(
    epilog="""\b
Example:
  deca-node cert trust next-ca.crt --fingerprint sha256:91d0...
"""
)
@click.argument("path", type=_FILE, metavar="CRT")
@_fingerprint_option
@_dir_option
@debug_option
def trust(path: Path, fingerprint: str, folder: Path) -> None:
    """Trust one more authority, such as the federation's next one before it issues certificates."""
    from deca_node.daemon.security import enrolment

    enrolment.trust(folder, path, fingerprint, _now())
    click.echo(f"Certificates of the authority in {path} are now accepted, in addition to those accepted before.")


def _files_options(function: Decorated) -> Decorated:
    for flag, what in (("--ca", "authorities"), ("--key", "key"), ("--cert", "certificate")):
        function = click.option(flag, default="", help=f"The file with the {what}.  [default: as installed in --dir]")(
            function
        )
    return _dir_option(click.argument("name", required=False, default="")(function))


@cert.command(
    epilog="""\b
Examples:
  deca-node cert show south
  deca-node cert show --cert south.crt --json
"""
)
@_files_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines.")
@debug_option
def show(name: str, folder: Path, cert: str, key: str, ca: str, as_json: bool) -> None:
    """Show the name in a certificate, its dates and its fingerprint."""
    facts = _describe(_files(name, folder, cert, key, ca))
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    for what, text in facts.items():
        click.echo(f"{what:<12} {text}")


@cert.command(
    epilog="""\b
Examples:
  deca-node cert check south
  deca-node cert check --cert tls.crt --key tls.key --ca ca.crt
"""
)
@_files_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a line.")
@click.pass_context
@debug_option
def check(ctx: click.Context, name: str, folder: Path, cert: str, key: str, ca: str, as_json: bool) -> None:
    """Check a certificate as a start does: names, dates, key, permissions and authority.

    Exits with 3 if the node would not start, and also if the certificate expires within two weeks.
    """
    from deca_node.daemon.security import certificates

    files = _files(name, folder, cert, key, ca)
    facts = certificates.read_material(files, _now()).facts
    days = (facts.not_after - _now()).days
    if as_json:
        click.echo(json.dumps(_describe(files) | {"days left": days}, indent=2))
    if days < certificates.WARN_DAYS:
        click.echo(f"warning: {files.cert} expires on {certificates.stamp(facts.not_after)}", err=True)
        ctx.exit(EXIT_CODE_UNFIT)
    if not as_json:
        click.echo(f"{facts.id.uri}: all checks passed, valid for {days} more days")


def _files(name: str, folder: Path, cert: str, key: str, ca: str) -> TlsFiles:
    """The given files, and for the rest the files that ``install`` put into the folder. Raises UsageError."""
    from deca_node.daemon.security import certificates
    from deca_node.daemon.security.enrolment import names_installed, node_files

    if not name and cert:
        name = certificates.facts_of(certificates.read_certificates(Path(cert))[0], cert).id.name
    names = [name] if name else names_installed(folder)
    if len(names) != 1:
        raise click.UsageError(
            f"the node is not clear; give its NAME or --cert; {folder} has {', '.join(names) or 'none'}"
        )
    usual = node_files(folder, names[0])
    given = {"cert": cert, "key": key, "ca": ca}
    return dataclasses.replace(usual, **{which: Path(path) for which, path in given.items() if path})


def _describe(files: TlsFiles) -> dict[str, Any]:
    from deca_node.daemon.security import certificates

    leaf = certificates.read_certificates(files.cert)[0]
    facts = certificates.facts_of(leaf, str(files.cert))
    return {
        "name": facts.id.name,
        "federation": facts.id.federation,
        "uri": facts.id.uri,
        "dns": facts.id.dns_name,
        "valid from": certificates.stamp(facts.not_before),
        "valid until": certificates.stamp(facts.not_after),
        "fingerprint": f"sha256:{facts.fingerprint}",
        "issuer": leaf.issuer.rfc4514_string(),
    }


def _said(certificate: Any) -> str:
    from deca_node.daemon.security import certificates

    return f"sha256:{certificates.fingerprint_of(certificate)}"


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
