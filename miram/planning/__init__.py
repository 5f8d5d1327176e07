"""Before a run: the preflight, and what training will take of memory and hours."""
