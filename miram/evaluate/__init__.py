"""Evaluation: metrics, the comparison table and figures, from files alone."""
