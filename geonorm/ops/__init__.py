"""One folder per operator: its reference, its registration, its kernels."""
