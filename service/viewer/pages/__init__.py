"""One module per page: from runs to the `Page` that its template shows."""
