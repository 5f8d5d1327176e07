"""Evaluation: metrics, statistics and claims as numbers, computed only from files."""
