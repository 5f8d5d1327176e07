"""Users' pictures in any grey format: what a file holds, and how its grey levels are scaled."""
