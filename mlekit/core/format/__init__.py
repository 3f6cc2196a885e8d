"""How numbers and tables are written, in a terminal and in a notebook."""
