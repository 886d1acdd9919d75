"""Where answers are kept: `cache.store` is the seam with a store in memory, `cache.sqlite` the store on disk."""
