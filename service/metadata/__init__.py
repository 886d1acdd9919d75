"""What people and cameras wrote down about images: shown, filtered by and exported, and never part of a prompt.

No module of `agent` can import this layer, and no record of it is part of a query.
"""
