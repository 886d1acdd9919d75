"""The pictures of prompts' examples, handed to a model beside the images of a collection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from PIL import Image as PILImage

from fieldscope.core.errors import BrokenImageError, PromptError
from fieldscope.core.fingerprint import fingerprint_pixels
from fieldscope.core.types import ImageSource
from fieldscope.prompts.examples import read_pixels
from fieldscope.prompts.prompt import Prompt


def with_examples(images: ImageSource, prompts: Iterable[Prompt]) -> ImageSource:
    """The images, and beside them the pictures of these prompts' examples; the images themselves where there are
    none."""
    pictures = (picture for prompt in prompts for example in prompt.examples or () for picture in example.images)
    files = {picture.image_id: picture.file for picture in pictures if picture.file is not None}
    return _WithExamples(images, files) if files else images


class _WithExamples:
    """`files` are the pictures by their ids, which no collection has: they are made of the pixels' hash."""

    def __init__(self, images: ImageSource, files: Mapping[str, Path]) -> None:
        self._images = images
        self._files = files

    def load(self, image_id: str) -> PILImage.Image:
        file = self._files.get(image_id)
        if file is None:
            return self._images.load(image_id)
        try:
            return read_pixels(file)
        except PromptError as error:
            raise BrokenImageError(str(error)) from error

    def pixel_hash(self, image_id: str) -> str:
        return fingerprint_pixels(self.load(image_id)) if image_id in self._files else self._images.pixel_hash(image_id)
