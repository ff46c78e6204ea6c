"""What a configuration needs of devices that this machine does not have: memory, time, what fits."""
