"""What train_action.py is made of."""
