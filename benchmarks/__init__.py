"""The benchmark: the guard beside Postfix and beside nothing, on one machine, in one run. ``make bench`` runs it.

It knows the guard by its commands and its settings only, and looks at nothing inside.
"""
