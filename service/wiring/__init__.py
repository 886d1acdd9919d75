"""Settings turned into models, stores, encoders and benchmarks."""
