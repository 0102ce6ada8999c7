"""A vendor that runs here: a ConnectWise PSA server over real HTTP, alive, hostile on request, and with a memory.

Read in this order: `recipe.py` (what a record type is), `recipes_*.py` (the record types, as data), `tables.py` and
`world.py` (what exists), `changes.py` (how it lives), `conditions.py` and `query.py` (what may be asked),
`vendor.py` (the server), `control.py` (the levers for another process).
"""
