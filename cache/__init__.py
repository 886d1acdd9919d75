"""Where answers are kept: `fieldscope.cache.store` is the seam with a store in memory, `fieldscope.cache.sqlite` the store on disk."""
