"""The site: from an address to a page, from a page to HTML. It is served live, or written to a folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import combinations
from typing import TYPE_CHECKING, Any

from core.errors import FieldscopeError
from service.viewer import addresses
from service.viewer.addresses import INDEX, unslug
from service.viewer.run import Run
from service.viewer.shelf import Shelf

if TYPE_CHECKING:
    from jinja2 import Environment


class NoPage(FieldscopeError):
    """There is no such page. Says what is missing in a sentence."""


@dataclass(frozen=True)
class Page:
    """What a template shows. `crumbs` lead from the first page here: (words, address) of those above."""

    address: str
    template: str
    title: str
    context: Mapping[str, Any]
    crumbs: Sequence[tuple[str, str]] = ()
    scripts: Sequence[str] = ()
    styles: Sequence[str] = ()
    status: int = field(default=200)


class Site:
    """All pages of a shelf. `live` says that a server is behind them, which takes annotations."""

    def __init__(self, shelf: Shelf, *, live: bool, try_it: bool = False) -> None:
        self.shelf = shelf
        self.live = live
        self.try_it = try_it

    def page(self, address: str) -> Page:
        """The page at an address below the root. Raises `NoPage`."""
        from service.viewer.pages import compare, compare_query, image, prompts, query, run, runs

        match address.split("/"):
            case [""] | ["index.html"]:
                return runs.page(self.shelf)
            case ["runs", key, "index.html"]:
                return run.page(self.run(key))
            case ["runs", key, "prompts.html"]:
                return prompts.page(self.run(key))
            case ["runs", key, "queries", name, "index.html"]:
                found = self.run(key)
                return query.page(found, self.query(found, name))
            case ["runs", key, "queries", name, "images", file] if file.endswith(".html"):
                found = self.run(key)
                query_id = self.query(found, name)
                return image.page(found, query_id, self.image(found, query_id, file.removesuffix(".html")))
            case ["compare", names, "index.html"]:
                return compare.page(self.compared(names))
            case ["compare", names, "queries", file] if file.endswith(".html"):
                several = self.compared(names)
                return compare_query.page(several, self.query(several[0], file.removesuffix(".html")))
        raise NoPage("there is no such page")

    def run(self, key: str) -> Run:
        """Raises `NoPage` where there is no such run, or it can't be shown."""
        found = self.shelf.run(key)
        if found is None:
            raise NoPage(f"there is no run {key!r} below {self.shelf.root}")
        if found.problem:
            raise NoPage(found.problem)
        return found

    def query(self, run: Run, name: str) -> str:
        """The query id of a slug. Raises `NoPage`."""
        query_id = unslug(name, run.digests)
        if query_id is None or query_id not in run.digests:
            raise NoPage(f"{run.name} has no finished query {query_id or name!r}")
        return query_id

    def image(self, run: Run, query_id: str, name: str) -> str:
        """The image id of a slug. Raises `NoPage`."""
        ranked = [each.image_id for each in run.result(query_id).ranking]
        image_id = unslug(name, ranked)
        if image_id is None or image_id not in ranked:
            raise NoPage(f"{run.name} has no image {image_id or name!r} in its ranking of {query_id!r}")
        return image_id

    def compared(self, names: str) -> list[Run]:
        """The runs of a comparison. Raises `NoPage` unless there are several, each once, of the same queries."""
        keys = addresses.compared(names)
        if len(keys) < 2 or len(set(keys)) < len(keys):
            raise NoPage("a comparison is between two or more different runs")
        return [self.run(key) for key in keys]

    def addresses(self) -> Iterator[str]:
        """Every page but the live ones: each run with its queries and images, every two comparable runs, and where
        there are more than two all that are comparable together."""
        yield INDEX
        shown = [run for run in self.shelf.runs() if run.problem is None]
        for run in shown:
            yield addresses.run_page(run.key)
            yield addresses.prompts_page(run.key)
            for query_id in run.digests:
                yield addresses.query_page(run.key, query_id)
                for ranked in run.result(query_id).ranking:
                    yield addresses.image_page(run.key, query_id, ranked.image_id)
        for several in comparable(shown):
            keys = [run.key for run in several]
            yield addresses.compare_page(keys)
            common = [query_id for query_id in several[0].digests if all(query_id in run.digests for run in several)]
            yield from (addresses.compare_query_page(keys, query_id) for query_id in common)

    def render(self, page: Page) -> str:
        """A page as HTML. Whatever it shows is escaped."""
        link = partial(addresses.relative, page=page.address)
        template = self._templates.get_template(page.template)
        return template.render(page=page, link=link, to=addresses, live=self.live, try_it=self.try_it, **page.context)

    def missing(self, address: str, sentence: str, status: int = 404) -> Page:
        """The page that says why another one is not there."""
        return Page(address, "missing.html", "Not here", {"sentence": sentence}, [("Runs", INDEX)], status=status)

    @cached_property
    def _templates(self) -> Environment:
        from jinja2 import Environment, PackageLoader, StrictUndefined

        environment = Environment(
            loader=PackageLoader("service.viewer"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
            lstrip_blocks=True,
        )  # fmt: skip
        from service.viewer.words import FILTERS

        environment.filters.update(FILTERS)
        return environment


def comparable(runs: Sequence[Run]) -> Iterator[list[Run]]:
    """Runs of one benchmark and split: every two, and all of them where there are more."""
    tasks: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        benchmark = run.configuration.benchmark
        tasks.setdefault((benchmark.fingerprint or benchmark.name, benchmark.split), []).append(run)
    for several in tasks.values():
        yield from (list(pair) for pair in combinations(several, 2))
        if len(several) > 2:
            yield several
