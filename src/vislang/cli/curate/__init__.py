"""vislang curate ...: one file a subcommand, each a line in COMMANDS of cli/main.py."""
