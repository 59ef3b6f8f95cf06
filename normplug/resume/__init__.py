"""What a training needs to lose nothing when it is killed; the hooks put it to use."""
