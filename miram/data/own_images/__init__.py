"""Own data sets: grey images and a table of what they show become the same tables and crops as CBIS-DDSM."""
