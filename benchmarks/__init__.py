"""The authors' own measurements, each run once and kept in results/bench; users measure with `miram bench`."""
