"""Built-in scans and videos, made on first use."""
