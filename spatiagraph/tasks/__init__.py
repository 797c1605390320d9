"""What one batch teaches."""
