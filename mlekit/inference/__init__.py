"""Inference: what the derivatives of the log-likelihood at its maximum say of the uncertainty."""
