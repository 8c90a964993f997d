"""A campaign that tries to lose a run, to get a traceback or to hang: `make stress`. Not collected by pytest."""
