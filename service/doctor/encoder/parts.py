"""Which parts of a query reach the model: an instruction, and a reference image?"""

from __future__ import annotations

from fieldscope.retrieval.encoder import QueryInputs
from fieldscope.service.doctor.encoder.subject import ROUNDING, Subject, distance
from fieldscope.service.doctor.finding import Finding

INSTRUCTION = "instruction"
REFERENCE = "reference image"

_INSTRUCTIONS = ("Find an image that matches the text.", "Say how old the building is.")


def check_instruction(subject: Subject) -> Finding:
    """Encode a description under two instructions."""
    if "instruction" not in subject.encoder.uses:
        meaning = "strategies leave `retrieve.instruction` out of the query's vector"
        return Finding(INSTRUCTION, "ok", "the encoder reads no instruction", meaning)
    text = subject.descriptions[0]
    first, second = (subject.query(QueryInputs(text, instruction=instruction)) for instruction in _INSTRUCTIONS)
    apart = distance(first, second)
    seen = f"a description's vectors under two instructions are {apart:.2g} apart"
    if apart > ROUNDING:
        return Finding(INSTRUCTION, "ok", seen, "the instruction reaches the model")
    change = "serve the model with its own chat template, which shows the system's message"
    return Finding(INSTRUCTION, "fail", seen, "the instruction does not reach the model", change)


def check_reference(subject: Subject) -> Finding:
    """Encode a description together with another one's image."""
    if "image" not in subject.encoder.uses:
        meaning = "queries with a reference image are searched with the normalised sum of both vectors"
        return Finding(REFERENCE, "ok", "the encoder takes no image together with a text", meaning)
    both = subject.query(QueryInputs(subject.descriptions[0], subject.pictures[1]))
    from_text, from_image = distance(both, subject.queries[0]), distance(both, subject.images[1])
    seen = f"the vector of both is {from_text:.2g} apart from the text's, and {from_image:.2g} from the image's"
    if min(from_text, from_image) > ROUNDING:
        return Finding(REFERENCE, "ok", seen, "a query's text and reference image both count")
    missing = "image" if from_text <= ROUNDING else "text"
    change = "serve the model with its own chat template, which shows both"
    return Finding(REFERENCE, "fail", seen, f"the {missing} of a composed query does not reach the model", change)
