"""Run folders: what writes, reads, replays and rescores them."""
