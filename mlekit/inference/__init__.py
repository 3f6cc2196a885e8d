"""What the derivatives at the optimum say."""
