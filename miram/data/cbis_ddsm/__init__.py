"""What this software carries of CBIS-DDSM: the facts of its case lists, and what follows from them."""
