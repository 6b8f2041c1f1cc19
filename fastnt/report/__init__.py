"""Pictures and tables of runs, and the pages of studies."""
