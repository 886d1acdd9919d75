"""The metrics that rankings are measured in."""

from __future__ import annotations

METRICS = {"AP@50": "mAP@50", "nDCG@50": "nDCG@50", "RR": "MRR"}
"""The name of a query's value, and that of its mean, as `metrics.json` has them. The first is the main one."""

MAIN = "AP@50"
"""The metric in which single queries are shown."""

MAIN_MEAN = METRICS[MAIN]
