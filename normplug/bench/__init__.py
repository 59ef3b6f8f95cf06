"""Measure the normalizers beside those of torch: tools/benchmark.py."""
