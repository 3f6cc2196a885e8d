"""Inference: functions of a fit and of the derivatives at its maximum."""
