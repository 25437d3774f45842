"""Annotated and plain pictures as they are published: one reader a layout, all behind :func:`open_source`."""
