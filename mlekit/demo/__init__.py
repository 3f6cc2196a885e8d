"""The table of the demonstration, and the script that made it."""
