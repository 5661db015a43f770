"""Parts of gpu_check.sh; they need Python, torch, numpy and what is built from carried files."""
