"""The site: finds the page at an address and renders it as HTML. It is served live, or exported to a folder."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from fieldscope.core.paths import without_folders
from fieldscope.eval.runs.searches import Searches
from fieldscope.service.viewer import addresses
from fieldscope.service.viewer.addresses import INDEX, unslug
from fieldscope.service.viewer.comparison.comparable import comparable
from fieldscope.service.viewer.page import NoPage, Page
from fieldscope.service.viewer.pages import (
    above,
    compare,
    compare_query,
    edit_prompts,
    image,
    prompts,
    query,
    run,
    runs,
    workbench,
)
from fieldscope.service.viewer.pages import annotations as marks
from fieldscope.service.viewer.rendering import environment
from fieldscope.service.viewer.runs.annotations import with_marks
from fieldscope.service.viewer.runs.run import Run
from fieldscope.service.viewer.runs.run_list import RunList


class Site:
    """All pages of a list of runs. `live` says that a server is behind them, which takes annotations; `try_it` that it
    searches, and `searches` are those that it keeps; `light` pages leave out what makes them large: the rank flow, and
    the pictures of the matrix."""

    def __init__(
        self,
        run_list: RunList,
        *,
        live: bool,
        try_it: bool = False,
        searches: Searches | None = None,
        light: bool = False,
    ) -> None:
        self.run_list = run_list
        self.live = live
        self.try_it = try_it
        self.searches = searches
        self.light = light

    def page(self, address: str) -> Page:
        """The page at an address below the root. Raises `NoPage`."""
        match address.split("/"):
            case [""] | ["index.html"]:
                return runs.page(self.run_list, self.searches)
            case ["search.html"] | ["try.html"] if self.try_it:  # the name of earlier versions
                return workbench.page()
            case ["runs", key, "index.html"]:
                return run.page(self.run(key), self.run_list)
            case ["runs", key, "prompts.html"]:
                return prompts.page(self.run(key))
            case ["runs", key, "annotations.html"]:
                return marks.page(self.run(key))
            case ["runs", key, "queries", name, "index.html"]:
                found = self.run(key)
                return query.page(found, self.query(found, name), self.run_list)
            case ["runs", key, "queries", name, "images", file] if file.endswith(".html"):
                found = self.run(key)
                query_id = self.query(found, name)
                image_id = self.image(found, query_id, file.removesuffix(".html"))
                return with_marks(image.page(found, query_id, image_id), found, query_id, image_id)
            case ["runs", key, "queries", name, "images", upper, "above", file] if self.live and file.endswith(".html"):
                found = self.run(key)
                query_id = self.query(found, name)
                one, other = (self.image(found, query_id, slug) for slug in (upper, file.removesuffix(".html")))
                return above.page(found, query_id, one, other)
            case ["compare", names, "index.html"]:
                return compare.page(self.compared(names))
            case ["compare", names, "prompts.html"] if self.try_it:
                return edit_prompts.page([self.run(key) for key in addresses.compared(names)])
            case ["compare", names, "queries", file] if file.endswith(".html"):
                several = self.compared(names)
                return compare_query.page(several, self.query(several[0], file.removesuffix(".html")))
        raise NoPage("there is no such page. Start at the list of runs.")

    def run(self, key: str) -> Run:
        """Raises `NoPage` where there is no such run, or it can't be shown."""
        found = self.run_list.run(key)
        if found is None:
            raise NoPage(f"there is no run {key!r} below {self.run_list.root.name!r}. Check the list of runs.")
        if found.problem:
            raise NoPage(found.problem)
        return found

    def query(self, run: Run, name: str) -> str:
        """The query id of a slug. Raises `NoPage`."""
        query_id = unslug(name, run.digests)
        if query_id is None or query_id not in run.digests:
            raise NoPage(f"{run.name} has no finished query {query_id or name!r}. Choose one from the run's page.")
        return query_id

    def image(self, run: Run, query_id: str, name: str) -> str:
        """The image id of a slug. Raises `NoPage`."""
        ranked = [each.image_id for each in run.result(query_id).ranking]
        image_id = unslug(name, ranked)
        if image_id is None or image_id not in ranked:
            missing = f"{run.name} has no image {image_id or name!r} in its ranking of {query_id!r}"
            raise NoPage(f"{missing}. Choose one from the query's page.")
        return image_id

    def compared(self, names: str) -> list[Run]:
        """The runs of a comparison. Raises `NoPage` unless there are several, each once, of the same queries."""
        keys = addresses.compared(names)
        if len(keys) < 2 or len(set(keys)) < len(keys):
            raise NoPage("a comparison needs two or more different runs. Select them in the list of runs.")
        return [self.run(key) for key in keys]

    def addresses(self) -> Iterator[str]:
        """Every page except the live ones: each run with its queries and images, every two comparable runs in both
        orders, and all comparable runs together if there are more than two."""
        yield INDEX
        shown = [each for each in self.run_list.runs() if each.problem is None]
        for each in shown:
            yield addresses.run_page(each.key)
            yield addresses.prompts_page(each.key)
            yield addresses.annotations_page(each.key)
            for query_id in each.digests:
                yield addresses.query_page(each.key, query_id)
                for ranked in each.result(query_id).ranking:
                    yield addresses.image_page(each.key, query_id, ranked.image_id)
        for several in comparable(shown):
            keys = [each.key for each in several]
            yield addresses.compare_page(keys)
            common = [query_id for query_id in several[0].digests if all(query_id in each.digests for each in several)]
            yield from (addresses.compare_query_page(keys, query_id) for query_id in common)

    def warm(self) -> None:
        """Prepare what would slow down the first pages: compile the templates, and read the runs."""
        for name in environment().list_templates():
            environment().get_template(name)
        for address in (
            INDEX,
            *(addresses.run_page(each.key) for each in self.run_list.runs() if each.problem is None),
        ):
            self.page(address)

    def render(self, page: Page) -> str:
        """A page as HTML. Whatever it shows is escaped."""
        link = partial(addresses.relative, page=page.address)
        template = environment().get_template(page.template)
        kind = {"live": self.live, "try_it": self.try_it, "light": self.light}
        return template.render(page=page, link=link, to=addresses, **kind, **page.context)

    def missing(self, address: str, sentence: str, status: int = 404) -> Page:
        """The page that says why another page is missing."""
        return Page(
            address,
            "missing.html",
            "Not found",
            {"sentence": without_folders(sentence)},
            [("Runs", INDEX)],
            status=status,
        )
