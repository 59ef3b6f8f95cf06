"""What whitened coordinates do to a small network: Fisher blocks and training curves."""
