"""`fieldscope predicates`: what a model would ask about each image, to read, change and give back."""

from __future__ import annotations

from pathlib import Path

import click

from fieldscope.service.cli.console import show, show_json
from fieldscope.service.cli.options import file_option, json_option, model_options, strategy_option
from fieldscope.service.wiring.interruption import ANSWERS_KEPT, interruptible
from fieldscope.service.wiring.settings import Settings


@click.command()
@click.option("--query", "text", required=True, metavar="TEXT", help="What the images should show.")
@file_option(
    "--dialogue",
    "dialogue_file",
    help_text="A list of rounds in JSON or YAML, each a question and an answer. --query is the caption before them.",
)
@strategy_option
@json_option
@model_options
def predicates(text: str, dialogue_file: Path | None, name: str, as_json: bool, settings: Settings) -> None:
    """Print the questions that a strategy would ask about each image, before any image is asked about.

    Redirect them to a file, change questions, expected answers and weights, and give it to `fieldscope search
    --rerank` or `fieldscope rerank` with --predicates. A changed question is asked; the others are answered by the
    response cache.
    """
    from fieldscope.service.wiring.feedback import warn
    from fieldscope.service.wiring.predicates import predicate_lines
    from fieldscope.service.wiring.prompts import prompts_for
    from fieldscope.service.wiring.queries import make_query
    from fieldscope.service.workflows.evaluate import load_strategies
    from fieldscope.service.workflows.models import Models
    from fieldscope.service.workflows.predicates import derive_predicates

    (strategy,) = load_strategies([name], prompts_for(settings))
    query = make_query(text, dialogue_file)
    derived = interruptible(derive_predicates(query, strategy, Models(settings)), ANSWERS_KEPT)
    for flag in derived.flags:
        warn(flag)
    if as_json:
        show_json({"query": query.text, "predicates": [each.model_dump(mode="json") for each in derived.predicates]})
    else:
        show(*predicate_lines(derived.predicates))
