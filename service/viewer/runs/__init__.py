"""Run folders as the viewer reads them."""
