"""Before a run: the preflight, and the memory and hours that training will take."""
