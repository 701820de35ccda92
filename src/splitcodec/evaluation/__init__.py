"""Measuring what ships: packets through the shipped path against image codecs on the same network. Never torch."""
