"""What verify_invariance.py measures, a module for points and one for video."""
