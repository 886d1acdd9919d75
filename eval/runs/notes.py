"""What people write about a run as a whole: tags and a note, in `notes.json` in its folder. It decides no result."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fieldscope.core.errors import ConfigError
from fieldscope.core.files import replace_file
from fieldscope.core.reading import file_bytes

NAME = "notes.json"
LONGEST_NOTE = 4000
LONGEST_TAG = 40
MOST_TAGS = 20


class RunNotes(BaseModel):
    """The `tags` of a run, each once, and a `note`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    tags: tuple[str, ...] = ()
    note: str = Field(default="", max_length=LONGEST_NOTE)


def read_notes(folder: Path) -> RunNotes:
    """The notes of the run in a folder; none where the file is missing or damaged."""
    try:
        return RunNotes.model_validate_json(file_bytes(folder / NAME))
    except (OSError, ValidationError):
        return RunNotes()


def write_notes(folder: Path, tags: str, note: str) -> RunNotes:
    """Keep `tags`, which commas separate, and a note in place of the earlier ones. Raises `ConfigError` for tags and
    notes that are too long, and where the folder can't be written."""
    named = tuple(dict.fromkeys(filter(None, (" ".join(tag.split()) for tag in tags.split(",")))))
    if len(named) > MOST_TAGS or any(len(tag) > LONGEST_TAG for tag in named):
        raise ConfigError(f"a run has at most {MOST_TAGS} tags of {LONGEST_TAG} characters. Shorten them.")
    if len(note) > LONGEST_NOTE:
        raise ConfigError(f"a note has at most {LONGEST_NOTE:,} characters. Shorten it.")
    notes = RunNotes(tags=named, note=note.strip())
    try:
        replace_file(folder / NAME, notes.model_dump_json(indent=2))
    except OSError as error:
        raise ConfigError(f"can't write {folder / NAME}: {error.strerror}. Check the folder's permissions.") from error
    return notes
