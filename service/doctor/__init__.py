"""Checks whether a model is fit for ranking: one module a check, each with known images and questions."""
