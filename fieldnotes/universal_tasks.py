"""The eight tasks of FieldNotes-Universal, one of each of M-BEIR's types."""

from __future__ import annotations

from dataclasses import dataclass

from fieldscope.core.documents import Modality


@dataclass(frozen=True)
class UniversalTask:
    """One of the eight tasks: its name, the number of its data set in ids, what its queries and candidates are, and its
    instructions. Name and number are those of a task of M-BEIR of the same type."""

    name: str
    dataset: int
    query: Modality
    candidate: Modality
    instructions: tuple[str, ...]


TASKS = (
    UniversalTask(
        "mscoco_task0",
        9,
        "text",
        "image",
        (
            "Find a picture that matches this caption.",
            "Which picture shows what is described?",
            "Search for an image of this scene.",
            "Show me the picture that the words are about.",
        ),
    ),
    UniversalTask(
        "webqa_task1",
        2,
        "text",
        "text",
        (
            "Find a description that this query is true of.",
            "Which text describes what is looked for?",
            "Search for a passage about this scene.",
            "Find the field note that has all of this in it.",
        ),
    ),
    UniversalTask(
        "edis_task2",
        3,
        "text",
        "image,text",
        (
            "Find a picture with a description that matches this query.",
            "Which illustrated field note is about this?",
            "Search for an image and its text that show this scene.",
            "Find the captioned picture that has all of this in it.",
        ),
    ),
    UniversalTask(
        "mscoco_task3",
        9,
        "image",
        "text",
        (
            "Find a caption of this picture.",
            "Which text describes the image?",
            "Search for the words that say what is shown.",
            "Describe this picture with a text that is already there.",
        ),
    ),
    UniversalTask(
        "nights_task4",
        4,
        "image",
        "image",
        (
            "Find a picture of the same scene.",
            "Which image shows the same animals in the same place?",
            "Search for a picture like this one.",
            "Show me another picture of what is shown here.",
        ),
    ),
    UniversalTask(
        "infoseek_task6",
        6,
        "image,text",
        "text",
        (
            "Find a text that answers the question about this picture.",
            "Which statement is the answer for this image?",
            "Search for a sentence that answers what is asked.",
            "Answer the question about the picture with a text.",
        ),
    ),
    UniversalTask(
        "cirr_task7",
        8,
        "image,text",
        "image",
        (
            "Find this picture with the change that the text says.",
            "Which image is like this one, but changed as asked?",
            "Search for a picture that differs from this one as described.",
            "Show me the scene after the change.",
        ),
    ),
    UniversalTask(
        "infoseek_task8",
        6,
        "image,text",
        "image,text",
        (
            "Find a picture with a text that answers the question about this picture.",
            "Which illustrated statement is the answer for this image?",
            "Search for an image and a sentence that answer what is asked.",
            "Answer the question about the picture with a captioned picture.",
        ),
    ),
)
"""The eight types, in the papers' order."""
