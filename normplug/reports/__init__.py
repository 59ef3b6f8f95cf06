"""What a finished run tells: its figures, and pictures and tables of them."""
