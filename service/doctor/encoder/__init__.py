"""Checks whether an encoder is fit for a first stage: one module a check, each from known images and texts."""
