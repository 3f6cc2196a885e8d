"""Fits: their methods, how they show, and where they are kept."""
