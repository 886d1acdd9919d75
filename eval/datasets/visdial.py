"""VisDial for retrieval (ChatIR, arXiv 2305.20062; PlugIR, arXiv 2406.03411): a caption and ten rounds about an image.

What is looked for is searched again after every round, so a dialogue of R rounds is R + 1 queries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from fieldscope.core.errors import BenchmarkError
from fieldscope.core.types import Query, Turn
from fieldscope.eval.benchmarks.splits import canonical
from fieldscope.eval.datasets.choices import chosen
from fieldscope.eval.datasets.dataset import Dataset, file_split
from fieldscope.eval.datasets.files import Entry, base_folder, find_pictures, first_file, read_json, relative_path
from fieldscope.eval.measures.protocols import BRI
from fieldscope.eval.protocol import Protocol
from fieldscope.eval.reported import VISDIAL
from fieldscope.eval.types import Benchmark
from fieldscope.retrieval.collection import FilesCollection

NAME = "visdial"
DIALOGUES = (
    "VisDial_v1.0_queries_val",
    "ChatGPT_BLIP2",
    "FLAN_ALPACA_XXL_BLIP2",
    "Human_BLIP2",
    "Unanswered_ChatGPT_BLIP2",
)
"""ChatIR's files: people's dialogues, and those of four pairs of a questioner and an answerer."""

RAW = "visdial_1.0_val"
"""VisDial's own file, whose images ChatIR maps to COCO's `unlabeled2017`."""

_REFORMULATED = "_reconed"  # how the names of PlugIR's files end
_GALLERY = "Search_Space_val_50k.json"
_HITS = tuple(f"hits@{k}" for k in (1, 2, 3, 4, 5, 10, 20, 25, 50))

Rounds = Literal["joined", "split", "reformulated"]


class _Dialogue(Entry):
    img: str
    dialog: Annotated[tuple[str, ...], Field(min_length=1)]


class _RawRound(Entry):
    question: Annotated[int, Field(ge=0)]
    answer: Annotated[int, Field(ge=0)]


class _RawDialogue(Entry):
    image_id: int
    caption: str
    dialog: tuple[_RawRound, ...]


class _RawData(Entry):
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    dialogs: tuple[_RawDialogue, ...]


class _Raw(Entry):
    data: _RawData


def load_visdial(root: Path, split: str | None, given: Mapping[str, str]) -> Dataset:
    """The dialogues of the validation split below `root`, over ChatIR's 50,000 images, whose ids are their paths.
    Queries are `<row>.<round>`.

    Raises `BenchmarkError` for a folder without its files, and for files of another shape.
    """
    if file_split(split, "val") != "val":
        raise BenchmarkError(f"visdial has no split {split!r}. Use validation.")
    folder = base_folder(root, ("ChatIR", "PlugIR", "VisDial"), ("dialogues", f"{RAW}.json", f"{DIALOGUES[0]}.json"))
    choices = chosen(NAME, given, _choices(folder, given))
    path, dialogues = _dialogues(folder, choices["dialogues"])
    listing = first_file(folder, [f"{place}{_GALLERY}" for place in ("ChatIR_Protocol/", "Protocol/", "")])
    gallery = tuple(relative_path(listing, image) for image in read_json(listing, TypeAdapter(tuple[str, ...])))
    known = set(gallery)
    if len(known) < len(gallery):
        raise BenchmarkError(f"{listing} lists an image twice. Fetch the file again.")
    queries: list[Query] = []
    qrels: dict[str, dict[str, int]] = {}
    tied = []
    for row, dialogue in enumerate(dialogues):
        if dialogue.img not in known:
            raise BenchmarkError(
                f"{path}, entry {row + 1}: img: {dialogue.img!r} is not in {listing.name}. Fetch both files again."
            )
        rounds = list(_queries(row, dialogue.dialog, choices["rounds"]))
        queries += rounds
        qrels |= {query.id: {dialogue.img: 1} for query in rounds}
        tied.append(tuple(query.id for query in rounds))
    pictures = find_pictures(folder, gallery, _places)
    oddities = pictures.require(folder, (), gallery[0])
    images = FilesCollection(pictures.files)
    benchmark = Benchmark(
        name=NAME,
        split=canonical("val"),
        queries=tuple(queries),
        qrels=qrels,
        images=images,
        oddities=oddities,
        reported=VISDIAL,
        protocol=Protocol(
            choices=choices,
            dialogues=tuple(tied),
            first_round=int(choices["hits_from_round"]),
            metrics=(BRI, *_HITS),
        ),
    )
    return Dataset(benchmark, images, {"": gallery})


def _choices(folder: Path, given: Mapping[str, str]) -> dict[str, Sequence[str]]:
    """The choices, with any other file of dialogues that is there. The first file that is there is the default, and
    PlugIR's are read as the reformulated descriptions that they are."""
    there = [path.stem for path in sorted((folder / "dialogues").glob("*.json"))]
    there += [name for name in DIALOGUES if (folder / f"{name}.json").is_file()]  # as ImageScope has them
    raw = [RAW] if (folder / f"{RAW}.json").is_file() else []
    ordered = [name for name in (*DIALOGUES, *raw) if name in (*there, *raw)]
    names = list(dict.fromkeys((*ordered, *there, *DIALOGUES, RAW)))
    name = given.get("dialogues", names[0])
    joined = ("joined", "split", "reformulated")
    rounds = ("reformulated", "joined", "split") if name.endswith(_REFORMULATED) else joined
    return {"dialogues": names, "rounds": rounds, "hits_from_round": ("0", "1")}


def _dialogues(folder: Path, name: str) -> tuple[Path, tuple[_Dialogue, ...]]:
    if name != RAW:
        path = first_file(folder, [f"dialogues/{name}.json", f"{name}.json"])
        return path, read_json(path, TypeAdapter(tuple[_Dialogue, ...]))
    path = folder / f"{RAW}.json"
    data = read_json(path, TypeAdapter(_Raw)).data
    return path, tuple(_of_raw(path, number, data, raw) for number, raw in enumerate(data.dialogs, start=1))


def _of_raw(path: Path, number: int, data: _RawData, raw: _RawDialogue) -> _Dialogue:
    """As ChatIR has it: the caption, then "question? answer" for each round."""
    try:
        rounds = [f"{data.questions[each.question]}? {data.answers[each.answer]}" for each in raw.dialog]
    except IndexError as error:
        raise BenchmarkError(
            f"{path}, entry {number}: dialog: a number is beyond the list of questions or answers. Fetch the file "
            "again."
        ) from error
    return _Dialogue(img=f"unlabeled2017/{raw.image_id:012d}.jpg", dialog=(raw.caption, *rounds))


def _queries(row: int, said: tuple[str, ...], rounds: str) -> Iterator[Query]:
    """A dialogue's queries, the caption alone first.

    `joined` keeps every round as the one text that it is, so that an encoder reads what ChatIR's reads: the entries
    joined by a comma. `split` tells question and answer apart. `reformulated` entries say all that was said before.
    """
    turns = tuple(_turn(text, rounds) for text in said[1:])
    for done, text in enumerate(said):
        if rounds == "reformulated":
            yield Query(id=f"{row:04d}.{done}", text=text)
        else:
            yield Query(id=f"{row:04d}.{done}", text=said[0], dialogue=turns[:done])


def _turn(text: str, rounds: str) -> Turn:
    question, mark, answer = text.partition("?")
    if rounds == "joined" or not mark:
        return Turn(question="", answer=text)
    return Turn(question=question + mark, answer=answer.strip())


def _places(image: str) -> Iterator[str]:
    return (f"{start}{image}" for start in ("", "images/", "COCO2017_unlabeled/"))
