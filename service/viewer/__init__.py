"""The viewer: every verdict of a run to look at, and where strategies disagree.

One source for live and exported pages.
"""
