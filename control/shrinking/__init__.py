"""`labrys shrink`: the smallest faults and operations that still fail."""
