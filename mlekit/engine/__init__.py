"""Drives the steps of a solver: on one data set, on many, from many starts; proves and differentiates the maximum."""
