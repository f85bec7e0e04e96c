"""The control process: CLI, test specs, lifecycle, interpreter, environments, nemesis and reports."""
