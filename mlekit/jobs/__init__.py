"""Fits of all groups of a table in files."""
