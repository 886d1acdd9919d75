"""The program `fieldscope`."""

from __future__ import annotations

import errno
import os
import warnings
from typing import Any

import click

from fieldscope.core.errors import FieldscopeError
from fieldscope.service.cli.commands.cache import cache
from fieldscope.service.cli.commands.calibrate import calibrate
from fieldscope.service.cli.commands.compare import compare
from fieldscope.service.cli.commands.config import config
from fieldscope.service.cli.commands.demo import demo
from fieldscope.service.cli.commands.doctor import doctor
from fieldscope.service.cli.commands.evaluate import evaluate
from fieldscope.service.cli.commands.export import export
from fieldscope.service.cli.commands.finds import finds
from fieldscope.service.cli.commands.keys import keys
from fieldscope.service.cli.commands.label import label
from fieldscope.service.cli.commands.leaderboard import leaderboard
from fieldscope.service.cli.commands.library import caption, index
from fieldscope.service.cli.commands.lmm import lmm
from fieldscope.service.cli.commands.marks import marks
from fieldscope.service.cli.commands.mcp import mcp
from fieldscope.service.cli.commands.measure import measure
from fieldscope.service.cli.commands.predicates import predicates
from fieldscope.service.cli.commands.prompts import prompts
from fieldscope.service.cli.commands.published import published
from fieldscope.service.cli.commands.rerank import rerank
from fieldscope.service.cli.commands.rescore import rescore
from fieldscope.service.cli.commands.search import search
from fieldscope.service.cli.commands.serve import serve
from fieldscope.service.cli.commands.strategies import strategies
from fieldscope.service.cli.commands.submission import submission
from fieldscope.service.cli.commands.trace import trace
from fieldscope.service.cli.commands.train import distill, train_retriever
from fieldscope.service.cli.commands.version import version
from fieldscope.service.cli.commands.view import view
from fieldscope.service.cli.commands.workbench import workbench
from fieldscope.service.cli.console import Terminal, complain
from fieldscope.service.wiring.feedback import Interrupted, listening, spelled
from fieldscope.service.wiring.interruption import INTERRUPTED

DEBUG = "FIELDSCOPE_DEBUG"
FAILED = 1
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
"""The numbers of the errors of a full and of a read-only disk."""


class Program(click.Group):
    """A group whose commands fail with one line and no traceback, unless FIELDSCOPE_DEBUG is set."""

    def invoke(self, ctx: click.Context) -> Any:
        if os.environ.get(DEBUG):
            return super().invoke(ctx)
        try:
            with listening(Terminal()):
                return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except Interrupted:
            ctx.exit(INTERRUPTED)
        except KeyboardInterrupt as stop:
            complain("; ".join(["interrupted", *map(str, stop.args)]))
            ctx.exit(INTERRUPTED)
        except FieldscopeError as error:
            complain(str(error))
            ctx.exit(FAILED)
        except Exception as error:  # a user can do nothing with a traceback
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # click ends quietly where the output's reader is gone
            if isinstance(error, OSError) and error.errno in DISK:
                where = f" {os.fsdecode(error.filename)}" if isinstance(error.filename, str | bytes) else ""
                complain(f"can't write{where} ({error.strerror}). Check that the disk is not full and can be written")
                ctx.exit(FAILED)
            reason = str(error).strip().splitlines() or [""]
            complain(
                f"unexpected {type(error).__name__}: {reason[0][:300]}; please report it, with the traceback "
                f"that {DEBUG}=1 shows"
            )
            ctx.exit(FAILED)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they were added, which is the order of use."""
        return list(self.commands)


def _one_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A library's warning without its place in the code."""
    return f"warning: {spelled(' '.join(str(message).split()))} ({category.__name__})\n"


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def cli() -> None:
    """Fieldscope reranks images for a query: a large multimodal model looks at every candidate and says why."""


COMMANDS = (
    demo, evaluate, view, compare, export, submission, leaderboard, calibrate, measure, rerank, index, caption,
    search, train_retriever, distill, predicates, label, marks, finds, trace, lmm, workbench, serve, mcp, config, keys,
    doctor, cache, rescore, published, prompts, strategies, version,
)  # fmt: skip
for command in COMMANDS:
    cli.add_command(command)


def main() -> None:
    """The console script."""
    warnings.formatwarning = _one_line
    cli(prog_name="fieldscope")


if __name__ == "__main__":
    main()
