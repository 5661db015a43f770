"""The subcommands of `geonorm`, a module each with its `main(arguments)`."""
