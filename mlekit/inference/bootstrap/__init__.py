"""The bootstrap."""
