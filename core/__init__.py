"""What every room speaks: errors, records and fingerprints. It imports no other room."""
