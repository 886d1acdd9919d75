"""Runs compared: which can be, what they gain over each other, and one presentation in words and tables of it."""
