"""What gpu_check.sh runs; needs Python, torch, numpy and what is built from carried files."""
