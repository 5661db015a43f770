"""What install_minkowski.py is made of; nothing here needs more than Python and pip."""
