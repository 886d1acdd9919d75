"""What `fieldscope compare` says: tables, Markdown, rows for programs, and a page to look at."""
