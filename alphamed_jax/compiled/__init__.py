"""Reading and measuring compiled programs, also those for TPUs that this machine does not have."""
