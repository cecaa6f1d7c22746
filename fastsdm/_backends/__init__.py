"""Backends: each module holds one, as ``BACKEND``; the registry imports it when it is first asked for."""
