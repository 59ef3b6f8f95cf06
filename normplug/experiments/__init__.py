"""Experiments: the questions that this project answers by training, one folder each."""
