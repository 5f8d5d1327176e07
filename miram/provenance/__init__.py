"""Where numbers come from: the record of each stage, checks of results against records, and the RO-Crate."""
