"""Cases, builders and references that several test files use."""
