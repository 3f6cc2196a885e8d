"""What drives the step of a solver: one data set, many, many starts; its derivative and its proof."""
