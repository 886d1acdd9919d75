"""Labels that people give to images of one ranked list: the file, the random draws, and what the labels say."""
