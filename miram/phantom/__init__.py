"""The embedded archive: a phantom CBIS-DDSM, small and as awkward as the real one, and the server that serves it."""
