"""The grid of docs/experiments.csv: every norm, trained briefly and judged under every shift."""
