"""The embedded archive: a small phantom CBIS-DDSM with the defects of the real one, and a server for it."""
