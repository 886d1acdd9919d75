"""Training of the two bundled models. Run in order: `python -m fieldnotes.training.pictures`, `.clip`, `.lmm`."""
