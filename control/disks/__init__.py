"""A file system of our own under the data of a node, which fails as disks do."""
