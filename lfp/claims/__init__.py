"""Claims of the documentation: what the default run must show, on this machine and on others.

``rows.yaml`` has every claim with the row of a table that it rests on. ``docs/results.json`` has
the numbers of one run of one machine, and another run is held against it: a claim that flips is no
claim.
"""
