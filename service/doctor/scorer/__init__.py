"""Checks whether a scorer is fit for ranking: one module a check, each from known images and texts to a `Finding`."""
