"""What train_seg.py and train_action.py share."""
