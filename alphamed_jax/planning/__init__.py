"""What a configuration needs of devices that this machine lacks: memory, time, what fits."""
