"""The transfer of the archive: its sources, HTTP, verification, ledger and lock; and the two stages that use them."""
