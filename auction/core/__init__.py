"""What is decided. Synchronous and pure: no clock, no socket, no environment, no chance."""
