"""The nouns of the guard as frozen values, and the decision. Standard library (and IDNA) only: no I/O, no clock."""
