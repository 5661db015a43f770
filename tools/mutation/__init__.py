"""The pieces of `tools/mutants.py` and `tools/mutants_cpp.py` that need no mutation tester."""
