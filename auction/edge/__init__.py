# What waits: sockets, disks, queues. Nothing in here decides anything about an auction.
