"""`fieldscope view`: runs in a browser, served or as files."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fieldscope.core.errors import ConfigError
from fieldscope.service.cli.console import show
from fieldscope.service.cli.options import folder_option
from fieldscope.service.wiring.feedback import note, progress, warn

if TYPE_CHECKING:
    from fieldscope.service.viewer.runs.run_list import RunList

PORT = 8600


@click.command()
@click.argument("runs", metavar="[RUNS_FOLDER]", default="runs", type=click.Path(path_type=Path))
@folder_option("Write the pages into FOLDER instead of serving them. Open FOLDER/index.html.", "--export", "out")
@click.option(
    "--image-pages",
    is_flag=True,
    help="With --export: also write a page for each image of each query, every comparison query by query, rank flows, "
    "and larger thumbnails; ten times the size.",
)
@click.option("--originals", is_flag=True, help="With --export: also write the full-size images, and --image-pages.")
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="A folder or Parquet file with the images, if they are not where the runs say.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=PORT,
    show_default=True,
    help="The port; 0 picks a free one.",
)
def view(runs: Path, out: Path | None, image_pages: bool, originals: bool, images: Path | None, port: int) -> None:
    """Show every verdict of your runs, and where strategies disagree, in a browser.

    RUNS_FOLDER [default: runs] is searched for runs of `fieldscope eval`, some folders deep. No model and no network
    are needed, and only this machine can connect.
    """
    if originals and out is None:
        raise click.UsageError("--originals needs --export; leave it out, since served pages have the originals")
    if image_pages and out is None:
        raise click.UsageError("--image-pages needs --export; leave it out, since served pages have all images")
    from fieldscope.service.viewer.runs.run_list import RunList
    from fieldscope.service.wiring.settings import Settings

    if images is not None and not images.exists():
        raise ConfigError(f"{str(images)!r} does not exist; give the folder of the images, or their Parquet file")
    run_list = RunList(runs, images, Settings().store_path)
    if out is not None:
        _export(run_list, out, image_pages or originals, originals)
    else:
        _serve(run_list, port)


def _read(run_list: RunList) -> None:
    """Read what the lists show once, and remember it; so the first page comes at once."""
    keys = run_list.folders()
    with progress("reading runs") as report:
        for done, key in enumerate(keys):
            report(done, len(keys))
            run = run_list.run(key)
            if run is not None and run.problem:
                warn(run.problem)
        if keys:
            report(len(keys), len(keys))
    if not keys:
        note(f"There is no run in {run_list.root} yet. Make one with `fieldscope eval`.")


def _export(run_list: RunList, out: Path, image_pages: bool, originals: bool) -> None:
    from fieldscope.service.viewer.export import export
    from fieldscope.service.viewer.site import Site

    _read(run_list)
    done = export(Site(run_list, live=False), out, originals=originals, light=not image_pages)
    show(f"{done.pages:,} pages and {done.pictures:,} images are in {out}; open {out / 'index.html'}")


def _serve(run_list: RunList, port: int) -> None:
    from uvicorn import Config, Server

    from fieldscope.service.server.connections import LARGEST_HEAD, BoundedConnection
    from fieldscope.service.viewer.server import create_viewer
    from fieldscope.service.viewer.site import Site

    with _listening(port) as listener:
        _read(run_list)
        site = Site(run_list, live=True)
        site.warm()
        show(f"The viewer is at http://127.0.0.1:{listener.getsockname()[1]} until Ctrl-C")
        # The browser keeps connections open; the end must not wait for them.
        config = Config(
            create_viewer(site),
            http=BoundedConnection,
            h11_max_incomplete_event_size=LARGEST_HEAD,
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        with suppress(KeyboardInterrupt):  # that is how it ends
            Server(config).run(sockets=[listener])


def _listening(port: int) -> socket.socket:
    """Raises `ConfigError` where the port is taken."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise ConfigError(f"can't serve at port {port} ({error.strerror}); choose another with --port") from error
    return listener
