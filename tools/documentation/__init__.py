"""What the documentation shows that code can find out: the figures of the norms, and pages run."""
