"""The HTTP service: its settings, its process, and `api/`, its endpoints."""
