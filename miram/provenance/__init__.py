"""Where numbers come from: the record of each stage, the check of results against records, and their description."""
