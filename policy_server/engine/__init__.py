"""What owns the devices: the queue of all clients' rows, and the threads that put them through the policy."""
