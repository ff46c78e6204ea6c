"""The process that a command runs in: its streams, devices, compiled programs, other processes."""
