"""Training of the two bundled models. Run `python -m fieldscope.fieldnotes.training.clip`, then
`.lmm`."""
