"""From a folder of pictures to candidates: collections, encoders and indexes. Import the modules themselves."""

__all__: list[str] = []
