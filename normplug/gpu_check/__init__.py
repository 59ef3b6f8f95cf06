"""What a user with a GPU runs once: is everything right there, and how fast is it?"""
