"""Options that write what was found in the formats of other programs."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fieldscope.service.cli.options import file_option, folder_option
from fieldscope.service.wiring.feedback import note, warn

if TYPE_CHECKING:
    from fieldscope.service.exports.finds import Finds

Function = TypeVar("Function", bound=Callable[..., Any])

_OPTIONS = (
    folder_option("Write links to the files into FOLDER. No file is overwritten.", "--link-to"),
    file_option("--darwin-core", help_text="Write a Simple Darwin Core table (CSV), an occurrence for each image."),
    file_option("--coco", help_text="Write COCO Camera Traps JSON."),
    folder_option("Write one static page with small pictures, reasons and metadata into FOLDER.", "--page"),
)


@dataclass(frozen=True)
class Outputs:
    """Where finds are written; None for what is not wanted."""

    link_to: Path | None
    darwin_core: Path | None
    coco: Path | None
    page: Path | None

    @property
    def needs_images(self) -> bool:
        """Whether the images are read, or their files named."""
        return any((self.link_to, self.coco, self.page))

    @property
    def any(self) -> bool:
        """Whether something is written."""
        return self.needs_images or self.darwin_core is not None

    def write(self, finds: Finds) -> None:
        """Write everything that is wanted, and say where it is. Raises `ConfigError` where the disk refuses."""
        from fieldscope.service.cli.files import link_all, write_text
        from fieldscope.service.exports.coco import coco_camera_traps
        from fieldscope.service.exports.darwin_core import darwin_core
        from fieldscope.service.exports.page import write_page

        if self.link_to is not None:
            links = link_all(finds.files(), self.link_to)
            note(f"{len(links)} links to images are in {self.link_to}.")
            if missing := len(finds.images) - len(links):
                warn(
                    f"{missing} of {len(finds.images)} images have no link: there is no file of theirs, or it is gone."
                )
        if self.darwin_core is not None:
            write_text(self.darwin_core, darwin_core(finds))
            note(f"The Darwin Core table is in {self.darwin_core}.")
        if self.coco is not None:
            write_text(self.coco, json.dumps(coco_camera_traps(finds), ensure_ascii=False, indent=1))
            note(f"The COCO Camera Traps file is {self.coco}.")
        if self.page is not None:
            note(f"The page is {write_page(finds, self.page)}.")


def export_options(command: Function) -> Function:
    """`--link-to`, `--darwin-core`, `--coco` and `--page`; the command gets `outputs`."""

    @functools.wraps(command)
    def wrapped(**values: Any) -> Any:
        given = {name: values.pop(name) for name in ("link_to", "darwin_core", "coco", "page")}
        return command(outputs=Outputs(**given), **values)

    decorated: Any = wrapped
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]
