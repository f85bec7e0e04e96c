"""The control process: command line, specs, lifecycle, environments, nemesis and reports."""
