"""The command line: one file per command, answers on stdout, everything else on stderr."""
