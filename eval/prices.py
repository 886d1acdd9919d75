"""What tokens cost."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from fieldscope.core.errors import ConfigError
from fieldscope.core.validation import parse_yaml, read_document, unknown_name, validated


class Price(BaseModel):
    """The price of a million tokens read, and of a million written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input_per_million: float = Field(ge=0, allow_inf_nan=False)
    output_per_million: float = Field(ge=0, allow_inf_nan=False)
    currency: str = "USD"

    def of(self, prompt_tokens: float, completion_tokens: float) -> float:
        """What so many tokens cost, in the price's currency."""
        return (prompt_tokens * self.input_per_million + completion_tokens * self.output_per_million) / 1e6


def load_price(file: Path, model: str) -> Price:
    """The price of a model from a YAML file: `input_per_million`, `output_per_million` and perhaps `currency`, either
    by themselves or below the names of models. Raises `ConfigError`, also where the model is not among those."""
    table = parse_yaml(read_document(file, ConfigError), str(file), ConfigError)
    if not any(isinstance(value, dict) for value in table.values()):
        return validated(Price, table, str(file), ConfigError)
    if model not in table:
        raise ConfigError(f"{file}: {unknown_name('model', model, table)}")
    price = table[model]
    if not isinstance(price, dict):
        raise ConfigError(f"{file}: {model!r} must be a mapping. Give it input_per_million and output_per_million.")
    return validated(Price, price, f"{file}, {model}", ConfigError)
