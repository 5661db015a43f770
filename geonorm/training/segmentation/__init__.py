"""What train_seg.py is made of."""
