"""Plumbing of JAX and NumPy that knows no statistics."""
