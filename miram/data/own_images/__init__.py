"""A data set of one's own: grey images and a table of what they show; the same tables and crops come out."""
