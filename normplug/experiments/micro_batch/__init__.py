"""The error of a normalizer against its normalization batch, under one optimizer's batch."""
