"""Evaluation: metrics, statistics and claims as numbers, from files alone."""
