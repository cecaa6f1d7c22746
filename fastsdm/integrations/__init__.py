"""Pieces for frameworks, one module each: import the one of yours."""

__all__: list[str] = []
