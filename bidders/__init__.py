"""Demo bidders: DSPs with named strategies, for demos, tests and load. `python -m bidders --help` starts one."""
