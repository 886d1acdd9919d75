"""Is this model fit to rank with? Known pictures and questions, one check for each thing that silently ruins it."""
