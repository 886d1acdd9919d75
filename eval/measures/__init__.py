"""What runs are worth: metrics, tests of significance, and the audits of judgments and probabilities."""
