"""How far it goes: rows beyond memory, groups beyond a machine, and how cost grows with both."""
