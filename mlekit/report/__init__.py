"""How fits show: tables, cards, frames and progress."""
