"""Drives the steps of a solver, on one data set or many; proves the maximum and differentiates it."""
