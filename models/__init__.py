"""Backbones; importing this package imports none of them, so each user needs only their own engine."""
