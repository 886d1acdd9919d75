"""One module per command. They import nothing slow until the command runs, so that help comes at once."""
