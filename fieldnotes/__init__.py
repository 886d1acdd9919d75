"""FieldNotes: the bundled miniature benchmark, its renderer, its grammar and its two small models."""
