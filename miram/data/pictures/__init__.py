"""Pictures that users bring, of any grey format: what a file holds, and how its grey levels become ours."""
