"""The simulation: nodes, network, disks, clients and time in one thread, from one seed."""
