"""What the normalizers cost beside torch's own: tools/benchmark.py."""
