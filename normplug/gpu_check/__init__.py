"""Check once on a GPU that results are right, and how fast the normalizers are."""
