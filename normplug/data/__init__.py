"""Handwritten digits on photographs, written in the on-disk formats of the mm data sets.

Needs the `demo` extra (scikit-learn, pillow, pycocotools). `normplug` itself never imports it.
"""
