"""Real weights and real pictures that lie in packages: fetched, checked, and converted."""
