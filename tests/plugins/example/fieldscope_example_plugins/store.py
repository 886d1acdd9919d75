"""An asynchronous cache store."""

import asyncio
import json
from dataclasses import asdict
from pathlib import Path

from fieldscope.cache.store import Entry, Share, StoreStats
from fieldscope.core.files import replace_file


class JsonStore:
    """Entries in a JSON file, whose path is the argument."""

    def __init__(self, argument: str) -> None:
        self._path = Path(argument)
        self._entries = json.loads(self._path.read_text()) if self._path.exists() else {}
        self._writing = asyncio.Lock()

    async def get(self, key: str) -> Entry | None:
        kept = await asyncio.to_thread(self._entries.get, key)
        return Entry(**kept) if kept else None

    async def put(self, entry: Entry, replace: bool = False) -> None:
        async with self._writing:
            if replace or entry.key not in self._entries:
                self._entries[entry.key] = asdict(entry)
            await asyncio.to_thread(replace_file, self._path, json.dumps(self._entries))

    async def stats(self) -> StoreStats:
        models: dict[str, Share] = {}
        for entry in self._entries.values():
            model = json.loads(entry["provenance"])["model"]
            models[model] = Share(models.get(model, Share()).entries + 1)
        return StoreStats(0, models)

    async def aclose(self) -> None:
        self._entries = {}
