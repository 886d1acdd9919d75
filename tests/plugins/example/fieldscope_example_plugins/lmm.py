"""An LMM back end in one file."""

import math

from fieldscope.agent.lmm.backends import LMMOptions
from fieldscope.agent.lmm.base import LMMRequest, LMMResponse, TextPart, TokenLogprob
from fieldscope_example_plugins.colours import of_image, of_text


class ColourLMM:
    """Answers yes to an image of a colour that the question names."""

    def __init__(self, identity: str, options: LMMOptions) -> None:
        self.identity = identity
        self._images = options.images

    async def generate(self, request: LMMRequest) -> LMMResponse:
        image = self._images.load(request.images[0].image_id)
        question = " ".join(part.text for part in request.messages[-1].content if isinstance(part, TextPart))
        p = 0.9 if of_text(question) @ of_image(image) > 0.9 else 0.1
        answers = sorted((("Yes", p), ("No", 1 - p)), key=lambda pair: -pair[1])
        logprobs = tuple(TokenLogprob(token=token, logprob=math.log(share)) for token, share in answers)
        return LMMResponse(text=answers[0][0], answer_logprobs=logprobs)

    async def aclose(self) -> None:
        pass


def open_lmm(argument: str, options: LMMOptions) -> ColourLMM:
    return ColourLMM(f"colours:{argument or 'plain'}", options)
