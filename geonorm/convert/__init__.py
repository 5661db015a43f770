"""Replace the norms of a model, and move parameters and state dicts between norms."""
