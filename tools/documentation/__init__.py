"""Draw the figures of the norms and run the Python of the documentation's pages."""
