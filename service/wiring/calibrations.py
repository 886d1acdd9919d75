"""Where calibrations are kept, and which one fits: the user's own first, then those shipped with the bundled models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fieldscope.core.errors import ConfigError
from fieldscope.core.files import replace_file
from fieldscope.core.paths import cache_folder

if TYPE_CHECKING:
    from fieldscope.agent.calibration import Calibration, CalibrationKey
    from fieldscope.agent.roles import ModelIdentity
    from fieldscope.agent.strategies.strategy import Strategy

SHIPPED = "calibration.json"
"""Its name beside the bundled models."""


def find_calibration(
    model: ModelIdentity | None, strategy: Strategy, encoder: str | None, scorer: str | None = None
) -> Calibration | None:
    """What was fitted for this model (its identity, or that of the model of each role), this strategy's prompts, this
    first stage (its fingerprint, None where the priors were given) and this scoring model (likewise, where there is
    one); None where nothing was. Raises `ConfigError` for a file that can't be read.

    A calibration of more comparisons fits, too, and so does one of a server's model that was fitted when nothing else
    was known of it than its name; but one of exactly this model, and then of exactly these comparisons, is preferred.
    """
    from fieldscope.agent.calibration import calibration_key

    if model is None or strategy.fusion.method != "posterior":
        return None
    key = calibration_key(model, strategy, encoder, scorer)
    for files in _files():
        fitting = [fit for file in files for fit in load_calibrations(file) if fit.fits(key)]
        if fitting:
            return min(fitting, key=lambda fit: (bool(key.joint) > fit.knows_joint, _distance(fit, key)))
    return None


def _distance(calibration: Calibration, wanted: CalibrationKey) -> tuple[bool, int]:
    """How far a calibration that fits is from one that was made for exactly these models and comparisons."""
    key = calibration.key
    return (True, 0) if key is None else ((key.model, key.judge) != (wanted.model, wanted.judge), len(key.comparing))


def save_calibration(calibration: Calibration, path: Path | None = None) -> Path:
    """Save a calibration in place of one with the same key: in `path`, beside others, or in the user's folder.

    Returns the file. Raises `ConfigError` where `path` holds something else.
    """
    from fieldscope.core.fingerprint import fingerprint

    key = calibration.key and calibration.key.model_dump(mode="json")
    file = path or _folder() / f"{fingerprint(key)}.json"
    kept = [*(other for other in load_calibrations(file) if other.key != calibration.key), calibration]
    text = json.dumps([fit.model_dump(mode="json") for fit in kept], indent=2, ensure_ascii=False)
    replace_file(file, f"{text}\n")
    return file


def load_calibrations(path: Path) -> list[Calibration]:
    """The calibrations in a file, none where there is no file. Raises `ConfigError`."""
    from pydantic import TypeAdapter, ValidationError

    from fieldscope.agent.calibration import Calibration

    try:
        return TypeAdapter(list[Calibration]).validate_json(path.read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, ValidationError) as error:
        raise ConfigError(f"{path} holds no calibrations; remove it and run `fieldscope calibrate` again") from error


def all_calibrations() -> Iterator[Calibration]:
    """All calibrations, the user's own first. Raises `ConfigError` for a file that can't be read."""
    for files in _files():
        for file in files:
            yield from load_calibrations(file)


def _files() -> tuple[list[Path], list[Path]]:
    """The user's files, and the one that comes with the bundled models."""
    from fieldscope.fieldnotes import vocabulary

    return sorted(_folder().glob("*.json")), [vocabulary.MODELS / SHIPPED]


def _folder() -> Path:
    return cache_folder() / "calibrations"
