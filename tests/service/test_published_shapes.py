"""All shapes of INQUIRE's published files under both scorings, against metrics worked out here."""

from __future__ import annotations

import csv
import io
import json
import math
import pickle
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
import torch
from click.testing import Result
from PIL import Image
from sklearn.metrics import average_precision_score, ndcg_score

from fieldscope.eval.benchmarks.inquire_rerank import COLUMNS
from fieldscope.service.viewer import addresses
from fieldscope.service.viewer.runs.overview import standings
from fieldscope.service.viewer.runs.run_list import RunList
from fieldscope.service.viewer.site import Site
from tests.service.conftest import Run

QUERIES = ("A mongoose standing upright alert", "Two giraffes", 'frog with the "blue jeans" morph', "a koala")
EITHER = 'Answer the question with either "Yes" or "No"'
BLIP = f"Does this picture show {{}}?{EITHER} and nothing else.\nAnswer: "
VILA = f"<image>\n Does this picture show {{}}?\n{EITHER} and nothing else."
GPT = f'Does this picture show exactly "{{}}"?\n{EITHER} and nothing else.'
SHAPES = {
    "Salesforce--blip2-flan-t5-xxl--cache.npy": BLIP,
    "Salesforce--instructblip-flan-t5-xxl--cache.npy": BLIP,
    "llava-hf--llava-1.5-13b-hf--cache.npy": (
        f"USER: <image>\nDoes this picture show {{}}?{EITHER} and nothing else.\nASSISTANT:"
    ),
    "llava-hf--llava-v1.6-mistral-7b-hf--cache.npy": (
        f"[INST] <image>\nDoes this picture show {{}}?{EITHER} and nothing else. [/INST]"
    ),
    "llava-hf--llava-v1.6-34b-hf--cache.npy": (
        "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n<image>\n"
        f'Does this picture show "{{}}"?{EITHER}.<|im_end|><|im_start|>answer\n'
    ),
    "google--paligemma-3b-mix-448--cache.npy": "Q: Does this picture show {}? Respond with yes or no.\nA:",
    "Efficient-Large-Model--VILA1.5-13B--cache.npy": VILA,
    "Efficient-Large-Model--VILA1.5-40b--cache.npy": VILA,
    "openai-gpt4turbo20240409--nosystem-cache.npy": GPT,
    "openai-gpt4o20240806--nosystem-cache.npy": GPT,
}
"""The published file names with the prompts that their answers were given to."""

Truth = Mapping[str, Sequence[int]]
Numbers = Mapping[str, Sequence[float]]


def payload(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    told: dict[str, Any] = json.loads(result.stdout)
    return told


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(buffer, "PNG")
    return buffer.getvalue()


def name_of(number: int) -> str:
    return f"train/{number:05}_Animalia_Chordata_Suricata_suricatta/{number:08}-aaaa"


class Reranking:
    """A folder in INQUIRE-Rerank's shape: 30 candidates a query, every image in one query alone."""

    def __init__(self, folder: Path) -> None:
        chance, number, rows = random.Random(7), 0, []
        self.folder, self.truth, self.priors, self.images = folder, {}, {}, {}
        image = {"bytes": picture(), "path": None}
        for query in QUERIES:
            self.truth[query] = [int(chance.random() < 0.3) for _ in range(30)]
            self.priors[query] = [0.4 - place / 100 for place in range(30)]
            self.images[query] = [name_of(number + place) for place in range(30)]
            for place, relevant in enumerate(self.truth[query]):
                rows.append(
                    dict.fromkeys(COLUMNS, "")
                    | {
                        "image": image, "query": query, "relevant": relevant,
                        "clip_score": self.priors[query][place], "inat24_image_id": number,
                        "inat24_file_name": f"{name_of(number)}.jpg",
                    }
                )  # fmt: skip
                number += 1
        folder.mkdir()
        pq.write_table(pa.Table.from_pylist(rows), folder / "test-00000-of-00001.parquet")


@pytest.fixture(scope="module")
def reranking(tmp_path_factory: pytest.TempPathFactory) -> Reranking:
    return Reranking(tmp_path_factory.mktemp("made") / "INQUIRE-Rerank")


def completion(**tokens: float) -> dict[str, Any]:
    top = [{"token": token.replace("_", " "), "logprob": value, "bytes": None} for token, value in tokens.items()]
    return {"id": "x", "choices": [{"index": 0, "logprobs": {"content": [{"token": "Yes", "top_logprobs": top}]}}]}


def answers(shape: str, images: Mapping[str, Sequence[str]]) -> tuple[dict[str, Any], Numbers, Numbers]:
    """A cache of this shape, and the numbers that it comes to officially and in Fieldscope's reading."""
    chance = random.Random(shape)
    cache: dict[str, Any] = {}
    official: dict[str, list[float]] = {query: [] for query in images}
    own: dict[str, list[float]] = {query: [] for query in images}
    for query, names in images.items():
        for name in names:
            key = f"{name}.jpg--{SHAPES[shape].format(query)}"
            if shape.startswith("openai"):
                kind = chance.choice(["both", "both", "yes alone", "no alone"])
                yes, no = chance.choice([0.1, 0.3, 0.6]), chance.choice([0.1, 0.3])
                small = chance.uniform(0.01, 0.09)
                if kind == "both":
                    cache[key] = completion(Yes=math.log(yes), No=math.log(no), yes=math.log(small))
                    official[query].append(yes / (yes + no))
                    own[query].append((yes + small) / (yes + no + small))
                elif kind == "yes alone":
                    cache[key] = completion(Yes=math.log(yes), no=math.log(small))
                    official[query].append(1.0)
                    own[query].append(yes / (yes + small))
                else:
                    cache[key] = completion(No=math.log(no), _yes=math.log(small))
                    official[query].append(0.0)
                    own[query].append(small / (no + small))
            else:
                cache[key] = chance.choice([0.0, 1.0, 0.5, chance.random()])
                official[query].append(cache[key])
                own[query].append(cache[key])
    return cache, official, own


def official_means(truth: Truth, numbers: Numbers) -> dict[str, float]:
    """INQUIRE's figures over the whole lists, by scikit-learn as its scripts call it."""
    found = []
    for query, relevance in truth.items():
        relevant, values = np.array(relevance), np.array(numbers[query])
        ap = average_precision_score(relevant, values)
        ndcg = ndcg_score([relevant], [values], k=len(relevant))
        order = np.flip(np.argsort(values))
        found.append((ap, ndcg, 1 / (1 + int(relevant[order].argmax()))))
    return dict(zip(("mAP@100", "nDCG@100", "MRR"), np.mean(found, axis=0).tolist(), strict=True))


def strict_means(truth: Truth, numbers: Numbers, priors: Numbers) -> dict[str, float]:
    """The figures of the strict order by number, equal ones by the prior."""
    found = []
    for query, relevance in truth.items():
        keys = sorted(range(len(relevance)), key=lambda n: (-numbers[query][n], -priors[query][n]))
        hits = [rank for rank, place in enumerate(keys, start=1) if relevance[place]]
        ap = sum(count / rank for count, rank in enumerate(hits, start=1)) / len(hits)
        gain = sum(1 / math.log2(rank + 1) for rank in hits)
        found.append((ap, gain / sum(1 / math.log2(n + 1) for n in range(1, len(hits) + 1)), 1 / hits[0]))
    return dict(zip(("mAP@100", "nDCG@100", "MRR"), np.mean(found, axis=0).tolist(), strict=True))


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_under_both_scorings(run: Run, reranking: Reranking, tmp_path: Path, shape: str) -> None:
    cache, official, own = answers(shape, reranking.images)
    np.save(tmp_path / shape, np.array(cache, dtype=object))
    command = ("published", tmp_path / shape, reranking.folder, "-o", tmp_path / "o", "--json")
    published = payload(run(*command, "--scoring", "official"))
    figures = published["runs"][0]["metrics"]
    expected = official_means(reranking.truth, official)
    assert {name: figures[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert (published["headline"], published["runs"][0]["strategy"]) == ("mAP@100", "official")
    assert json.loads((tmp_path / "o/official/metrics.json").read_text())["scoring"] == "official"

    seen = RunList(tmp_path / "o").runs()
    shown = standings(next(each for each in seen if each.name.endswith("official")).digests.values())
    assert shown["mAP@100"].now.value == pytest.approx(expected["mAP@100"], abs=1e-12)

    figures = payload(run(*command))["runs"][0]["metrics"]
    ours = strict_means(reranking.truth, own, reranking.priors)
    assert {name: figures[name] for name in ours} == pytest.approx(ours, abs=1e-12)
    assert ours["mAP@100"] != pytest.approx(expected["mAP@100"], abs=1e-6)


def refused(status: int) -> requests.models.Response:
    """A response as a session leaves it, with headers, cookies and the request."""
    response = requests.models.Response()
    response.status_code = status
    response._content = b'{"error": {"code": "content_policy_violation"}}'
    response.headers["x-request-id"] = "1"
    response.cookies.set("__cf_bm", "x", domain="api.example.org")
    response.request = requests.Request("POST", "https://api.example.org/v1", json={"model": "m"}).prepare()
    return response


def test_refused_answers_alone_are_lost(
    run: Run, reranking: Reranking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = "openai-gpt4o20240806--nosystem-cache.npy"
    cache, official, own = answers(shape, reranking.images)
    of_first = [key for key in cache if QUERIES[0] in key][:3]
    for key in of_first:
        cache[key] = refused(400)
    np.save(tmp_path / shape, np.array(cache, dtype=object))
    monkeypatch.setitem(sys.modules, "requests", None)  # an import of it would fail
    monkeypatch.setitem(sys.modules, "requests.models", None)
    command = ("published", tmp_path / shape, reranking.folder, "-o", tmp_path / "o", "--json")
    told = payload(run(*command))["runs"][0]
    assert told["unknown"] == 3
    others = QUERIES[1:]
    per_query = json.loads((tmp_path / "o/yes-no/metrics.json").read_text())["per_query"]
    expected = strict_means(*({query: table[query] for query in others} for table in (
        reranking.truth, own, reranking.priors,
    )))  # fmt: skip
    assert np.mean([per_query[f"q00{n}"]["AP@100"] for n in (1, 2, 3)]) == pytest.approx(expected["mAP@100"], abs=1e-12)

    numbers = {**official, QUERIES[0]: [0.0, 0.0, 0.0, *official[QUERIES[0]][3:]]}
    figures = payload(run(*command, "--scoring", "official"))["runs"][0]["metrics"]
    whole = official_means(reranking.truth, numbers)
    assert {name: figures[name] for name in whole} == pytest.approx(whole, abs=1e-12)


def test_what_the_scripts_would_stop_at_is_told(run: Run, reranking: Reranking, tmp_path: Path) -> None:
    shape = "openai-gpt4o20240806--nosystem-cache.npy"
    cache, _, _ = answers(shape, reranking.images)
    cache[next(iter(cache))] = refused(429)
    np.save(tmp_path / shape, np.array(cache, dtype=object))
    command = ("published", tmp_path / shape, reranking.folder, "-o", tmp_path / "o", "--scoring", "official")
    told = run(*command)
    assert (told.exit_code, "1 of 120 published answers can't be read" in told.stderr) == (0, True)
    del cache[next(iter(cache))]
    np.save(tmp_path / shape, np.array(cache, dtype=object))
    told = run(*command, "-o", tmp_path / "p")
    assert (told.exit_code, "1 of 30 images" in told.stderr, "--scoring fieldscope" in told.stderr) == (1, True, True)
    told = run(*command, "--strategy", "yes-no-fused")
    assert (told.exit_code, "leave --strategy out" in told.stderr) == (1, True)


class Searching:
    """INQUIRE-Fullrank's tables and the list of the best images of one CLIP; some relevant images are not in it."""

    def __init__(self, folder: Path) -> None:
        chance = random.Random(3)
        tables = folder / "data" / "inquire"
        tables.mkdir(parents=True)
        self.folder = folder / "data"
        self.truth, self.distances, self.images, self.positives, entries, pairs = {}, {}, {}, {}, [], []
        for place, query in enumerate(QUERIES):
            names = [name_of(1000 * place + n) for n in range(120)]
            self.images[query] = names
            self.truth[query] = [int(chance.random() < 0.2) for _ in names]
            distances = torch.tensor(sorted((chance.choice([0.1, 0.2, chance.random()]) for _ in names), reverse=True))
            self.distances[query] = distances.tolist()
            found = [name for name, relevant in zip(names, self.truth[query], strict=True) if relevant]
            missed = [name_of(1000 * place + 900 + n) for n in range(4)]
            self.positives[query] = len(found) + len(missed)
            pairs += [[100 + place, n, f"{name}.jpg"] for n, name in enumerate([*found, *missed])]
            matches = [{"image_path": name} for name in names]
            entries.append(
                {"query": query, "distances": distances, "indices": torch.arange(len(names)), "matches": matches}
            )
        heading = ["", "query_id", "query_text", "supercategory", "category", "iconic_group"]
        rows = [[n, 100 + n, query, "Behavior", "c", "Birds"] for n, query in enumerate(QUERIES)]
        self._write(tables / "inquire_queries_test.csv", [heading, *rows])
        self._write(tables / "inquire_annotations.csv", [["query_id", "image_id", "image_path"], *pairs])
        self.lists = folder / "vit-h-14-378--top-1000.pkl"
        self.lists.write_bytes(pickle.dumps(entries, protocol=pickle.HIGHEST_PROTOCOL))

    def _write(self, path: Path, rows: Sequence[Sequence[Any]]) -> None:
        with path.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows(rows)

    def means(self, best: Callable[[str], list[int]], numbers: Numbers) -> dict[str, float]:
        """The figures of INQUIRE's scripts for full retrieval at `--k 50`, of these 50 images."""
        found = []
        for query in QUERIES:
            places = best(query)
            relevant = np.array([self.truth[query][place] for place in places])
            values = np.array([numbers[query][place] for place in places])
            positives, hits, k = self.positives[query], int(relevant.sum()), len(relevant)
            ap = average_precision_score(relevant, values) * hits / min(positives, k)
            missed = positives - hits
            ndcg = ndcg_score([[*relevant, *[1] * missed]], [[*values, *[-100.0] * missed]], k=k)
            order = np.flip(np.argsort(values))
            found.append((ap, ndcg, 1 / (1 + int(relevant[order].argmax())), hits / k))
        names = ("mAP@50", "nDCG@50", "MRR@50", "P@50")
        return dict(zip(names, np.mean(found, axis=0).tolist(), strict=True))


@pytest.fixture(scope="module")
def searching(tmp_path_factory: pytest.TempPathFactory) -> Searching:
    return Searching(tmp_path_factory.mktemp("made"))


def test_a_list_of_the_best_images_needs_neither_images_nor_embeddings(
    run: Run, searching: Searching, tmp_path: Path
) -> None:
    command = ("published", searching.lists, searching.folder, "-o", tmp_path / "o", "--json")
    told = payload(run(*command, "--scoring", "official"))
    expected = searching.means(lambda query: list(range(50)), searching.distances)
    figures = told["runs"][0]["metrics"]
    assert {name: figures[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    hundred = np.mean([sum(searching.truth[query][:100]) / 100 for query in QUERIES])
    assert figures["P@100"] == pytest.approx(hundred, abs=1e-12)
    (own,) = payload(run(*command))["runs"]
    assert (own["strategy"], own["metrics"]["P@100"]) == ("clip", pytest.approx(hundred, abs=1e-12))
    refused = run(*command, "--strategy", "yes-no")
    assert (refused.exit_code, "a list of images has no answers" in refused.stderr) == (1, True)


@pytest.mark.parametrize("shape", ["llava-hf--llava-1.5-13b-hf--cache.npy", "openai-gpt4o20240806--nosystem-cache.npy"])
def test_a_second_stage_from_a_cache(run: Run, searching: Searching, tmp_path: Path, shape: str) -> None:
    top = 80
    cache, official, own = answers(shape, {query: names[:top] for query, names in searching.images.items()})
    np.save(tmp_path / shape, np.array(cache, dtype=object))
    command = (
        "published", tmp_path / shape, searching.folder, "--first-stage", searching.lists, "--top", top,
        "-o", tmp_path / "o", "--json",
    )  # fmt: skip
    figures = payload(run(*command, "--scoring", "official"))["runs"][0]["metrics"]

    def best(query: str) -> list[int]:
        return np.flip(np.argsort(np.array(official[query])))[:50].tolist()

    expected = searching.means(best, official)
    assert {name: figures[name] for name in expected} == pytest.approx(expected, abs=1e-12)

    (told,) = payload(run(*command))["runs"]

    def strictly_best(query: str) -> list[int]:
        return sorted(range(top), key=lambda n: (-own[query][n], n))[:50]

    strict = {query: [-float(strictly_best(query).index(n)) if n in strictly_best(query) else -99.0
                      for n in range(top)] for query in QUERIES}  # fmt: skip
    expected = searching.means(strictly_best, strict)
    assert {name: told["metrics"][name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_files_that_do_not_go_together(run: Run, searching: Searching, reranking: Reranking, tmp_path: Path) -> None:
    shape = "llava-hf--llava-1.5-13b-hf--cache.npy"
    np.save(tmp_path / shape, np.array(answers(shape, searching.images)[0], dtype=object))
    (tmp_path / "damaged--top-1000.pkl").write_bytes(searching.lists.read_bytes()[:-200])
    for arguments, words in (
        ((tmp_path / shape, searching.folder), "name the list of the first stage with --first-stage"),
        ((searching.lists, reranking.folder), "has candidates of its own"),
        ((searching.lists, searching.folder, "--first-stage", searching.lists), "leave --first-stage out"),
        ((tmp_path / "damaged--top-1000.pkl", searching.folder), "Nothing in it was executed"),
        ((searching.lists, searching.folder, "--split", "val"), "val"),
    ):
        told = run("published", *arguments, "-o", tmp_path / "o")
        assert (told.exit_code, words in told.stderr) == (1, True), told.stderr


def test_tables_groups_and_the_viewer_show_the_headline(run: Run, reranking: Reranking, tmp_path: Path) -> None:
    shape = "google--paligemma-3b-mix-448--cache.npy"
    np.save(tmp_path / shape, np.array(answers(shape, reranking.images)[0], dtype=object))
    command = ("published", tmp_path / shape, reranking.folder, "-o", tmp_path / "o")
    told = run(*command, "--scoring", "official")
    headings = [line.split() for line in told.stdout.splitlines() if line.split()[:1] == ["strategy"]]
    assert headings[0][1:4] == ["mAP@100", "nDCG@100", "MRR"]
    assert headings[1][1:] == ["mAP@100", "nDCG@100", "MRR", "mAP@50", "nDCG@50"]
    assert run(*command).exit_code == 0
    site = Site(RunList(tmp_path / "o"), live=False)
    assert "mAP@100" in site.render(site.page(addresses.INDEX))
    page = site.render(site.page(addresses.run_page("official")))
    assert "AP@100 before and after" in page and "AP@50 before and after" not in page
    compared = payload(run("compare", tmp_path / "o", "--json"))
    assert compared["metrics"] == ["AP@100", "nDCG@100", "MRR", "AP@50"]
    assert any("equal numbers are ties" in note for note in compared["notes"])


def test_the_table_of_full_retrieval_shows_what_the_scripts_print(
    run: Run, searching: Searching, tmp_path: Path
) -> None:
    told = run("published", searching.lists, searching.folder, "--scoring", "official", "-o", tmp_path / "o")
    headings = [line.split() for line in told.stdout.splitlines() if line.split()[:1] == ["strategy"]]
    assert headings[1][1:] == ["mAP@50", "nDCG@50", "MRR@50", "P@50", "P@100"]
    assert "mAP@50 by" in told.stdout  # the groups
