"""Writes docs/CONFIGURATION.md from the settings; with --check, only says whether the page is up to date."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from deca_node.cli.reference import table  # noqa: E402  (the tool runs from a checkout that is not installed)
from deca_node.daemon.settings.node_settings import NodeSettings  # noqa: E402
from deca_node.protocol.agreed.run import RunSettings  # noqa: E402

PAGE = ROOT / "docs" / "CONFIGURATION.md"

TEXT = """\
<!-- Written by tools/write_configuration_reference.py. Change the settings, not this page. -->

# Configuration

There are two kinds of settings, and they are never mixed:

- **Run settings** (`run.toml`) must be equal on all nodes. Nodes compare them when they meet, and refuse
  each other where one differs, naming it and both values.
- **Node settings** (`node.toml`) concern one machine only: its paths, addresses, device and patience.

A key in the wrong file is refused, and so is an unknown one.

## Where a value comes from

The first of these that has a value wins:

1. a flag: `--inner-steps 24` (`_` becomes `-`; a switch is turned off with `--no-...`);
2. a variable: `DECA_INNER_STEPS=24` (an empty one counts as not set; an unknown `DECA_*` is refused, except
   what Kubernetes adds for services);
3. the file: `inner_steps = 24`, at the top of the file, without tables;
4. the default. [RESULTS.md](RESULTS.md#where-the-defaults-come-from) says which measurement gave it.

The files are `run.toml` and `node.toml` in the working directory, or what `--run` and `--config`
(`DECA_RUN_FILE`, `DECA_NODE_FILE`) say. Relative paths are taken from the working directory.

The flags of single verbs have variables too, with the verb in the name; [CLI.md](CLI.md) lists them.

`deca-node config --show` prints every value and its source; `deca-node config --template run` (or `node`)
prints a commented file to start from.

## Run settings

Letters in brackets are those of the paper (arXiv 2606.03209).

{run}
## Node settings

{node}
## The peers file

One line per node to begin with; the order does not matter. Under `membership = "gossip"` these are addresses to call
first, and more nodes may come; under `static` exactly these names take part, and the file must be the same everywhere.

```
# name@host:port, or host:port alone; then the address is the name
north@10.0.0.5:7001
south@10.0.0.6:7001     # the second ward
[2001:db8::7]:7001
```

- A **name** has letters, digits and `. _ : - [ ]`, begins with a letter, a digit or `[`, and has at most
  128 characters. Without one, the address is the name, in lower case, an IPv6 address in its short form.
- An **address** is a host name or IPv4 address and a port, or an IPv6 address in brackets and a port.
- Names and addresses are unique.

A node finds its **own line** by `--name`; else by the `--listen` that equals an address; else it is the only
line whose host is an address of this machine (loopback counts). A `--listen` on every address (`0.0.0.0:PORT`,
`[::]:PORT`) leaves its port to go by. Where none or several lines remain, the node says so and does not start.

## Plaintext

Without certificates ([CERTIFICATES.md](CERTIFICATES.md)) a node starts with `--insecure` only. Given once, it listens
on and dials loopback only: nothing leaves the machine. Given twice (`insecure = 2`), plaintext goes over any
network, and the node says so. A host name other than `localhost` does not count as loopback.
"""


def main(arguments: list[str]) -> int:
    """Write the page, or check it. Returns 1 if it is stale."""
    page = TEXT.format(run=table(RunSettings), node=table(NodeSettings))
    if arguments != ["--check"]:
        PAGE.write_text(page, encoding="utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page:
        return 0
    print(f"{PAGE.relative_to(ROOT)} is stale; run python tools/write_configuration_reference.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
