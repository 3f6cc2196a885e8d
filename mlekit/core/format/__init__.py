"""Numbers, tables and progress as text, for a terminal and for a notebook."""
