"""Data sets of text-to-image, composed and dialogue retrieval, read from the files that their authors published."""
