"""From a folder of images to candidates: collections, encoders, scorers and indexes. Import the modules themselves."""

__all__: list[str] = []
