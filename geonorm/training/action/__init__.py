"""Classification of actions in videos."""
