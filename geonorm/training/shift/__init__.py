"""How scores fall when scans and clips are corrupted: evaluation, measures, tables."""
