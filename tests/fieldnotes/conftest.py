"""What the tests of FieldNotes share."""

from __future__ import annotations

import pytest

from fieldscope.core.compat import prepare_torchvision
from fieldscope.fieldnotes.vocabulary import MODELS


@pytest.fixture(scope="session")
def vocabulary() -> list[str]:
    """Every token of the bundled LMM, in order of id, as committed: to make them takes long, and one test does."""
    prepare_torchvision()
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(MODELS / "lmm").get_vocab()
    return [token.replace("Ġ", " ").replace("Ċ", "\n") for token in sorted(ids, key=ids.__getitem__)]
