"""Remembered calls: `store` is the seam, with a store in memory; `sqlite` is the store on disk."""
