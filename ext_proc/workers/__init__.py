"""Several server processes on one machine: the parent that keeps them, and what they share."""
