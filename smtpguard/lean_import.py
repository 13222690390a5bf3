"""Imports without what a library loads only because it is there."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without(*modules: str) -> Iterator[None]:
    """Let what is imported meanwhile find these modules missing; others may import them afterwards."""
    hidden = [module for module in modules if module not in sys.modules]
    # An import takes None for a module that cannot be found.
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for module in hidden:
            del sys.modules[module]
