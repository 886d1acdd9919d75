"""Training of the two bundled models. Run in order: `python -m fieldscope.fieldnotes.training.pictures`, `.clip`, `.lmm`."""
