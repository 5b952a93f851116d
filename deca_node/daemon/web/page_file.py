"""``DIR/page.json``: the data of the node's page, for a report after the node has ended.

The file is written at intervals and at the end, aside and then renamed. Curves over steps are not in it, because
``metrics.jsonl`` has them.
"""

import asyncio
import contextlib
import json
from pathlib import Path

from deca_node.daemon.logs import EventLog
from deca_node.daemon.status.book import StatusBook
from deca_node.daemon.status.facts import NodeAdmin, to_json
from deca_node.daemon.web.dashboard import EVENTS_MAX, shown_event
from deca_node.storage.durable import write_file

PAGE = "page.json"
EVERY_SECONDS = 10.0


class LastPage:
    """Writes status, members, run, map and events into ``DIR/page.json``, under these names."""

    def __init__(
        self,
        directory: Path,
        node: NodeAdmin,
        book: StatusBook,
        events: EventLog,
    ) -> None:
        self._path = directory / PAGE
        self._node = node
        self._book = book
        self._events = events

    async def write_every(self, seconds: float = EVERY_SECONDS) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(seconds)
            await self.write()

    async def write(self) -> None:
        """Write the file. On a full disk the older file stays; the journal reports the disk."""
        text = self._text()
        with contextlib.suppress(OSError):
            await asyncio.to_thread(write_file, self._path, [text.encode()])

    def _text(self) -> str:
        events = [event for line in self._events.last(EVENTS_MAX) if (event := shown_event(line))]
        parts = {
            "status": to_json(self._node.status()),
            "members": to_json(list(self._node.members())),
            "run": to_json(list(self._node.run())),
            "map": to_json(self._book.history.map()),
            "events": json.dumps(events, separators=(",", ":")),
        }
        return "{" + ",\n".join(f'"{name}":{part}' for name, part in parts.items()) + "}\n"
