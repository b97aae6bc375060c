"""What the operator writes, read, checked as a whole and resolved into the core's frozen values."""
