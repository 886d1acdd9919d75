"""Errors, records, fingerprints and files, which all other folders use. It imports none of them."""
