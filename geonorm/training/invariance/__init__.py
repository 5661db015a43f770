"""Measure how far each norm's output moves under changes of points and of clips."""
