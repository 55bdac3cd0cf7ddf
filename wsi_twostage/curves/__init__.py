"""Dice over time, relative to the full-resolution reference: the picture that everything is judged by."""
