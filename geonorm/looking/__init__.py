"""Pages to look at: scans and clips in a viewer, and reports of runs; each is one HTML file."""
