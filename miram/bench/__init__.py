"""Measurements of memory and time."""
