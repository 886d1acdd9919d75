"""An agentic reranker for text-to-image retrieval."""
