"""The operators on CUDA, by Triton; each file is loaded when its operator first runs there."""
